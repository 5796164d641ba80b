/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/agentd/state.h"
#include "agent/base/file.h"
#include "agent/resource/secrets.h"

typedef struct Fixture {
    char *dir;
    State state;
    SecretStore *store;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    auto_error Error err = {0};

    assert_non_null(f);
    f->dir = test_dir_new();
    assert_ok(state_open(f->dir, f->dir, &f->state, &err), &err);
    assert_ok(secret_store_new(f->dir, /* ramfs= */ false, f->state.db, &f->store, &err), &err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    secret_store_free(f->store);
    state_done(&f->state);
    test_dir_done(&f->dir);
    free(f);
    return 0;
}

static int put(Fixture *f, const char *version, const void *data, size_t size)
{
    auto_(secret_bytes_freep) SecretBytes *value = NULL;
    auto_error Error err = {0};
    int r;

    assert_int_equal(secret_bytes_new(data, size, &value), 0);
    r = secret_store_put(f->store, "key", "KEY", "latest", version, value, &err);
    assert_ok(r, &err);
    return r;
}

static struct stat stat_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st;
}

static void any_bytes_are_read_back_as_they_were(void **state)
{
    Fixture *f = *state;
    auto_(secret_bytes_freep) SecretBytes *back = NULL;
    auto_(secret_record_done) SecretRecord record = {0};
    auto_error Error err = {0};
    static unsigned char data[SECRET_VALUE_MAX];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 7);
    assert_int_equal(secret_store_record(f->store, "key", &record, &err), 0);
    assert_int_equal(put(f, "1", data, sizeof(data)), 1);
    assert_int_equal(secret_store_record(f->store, "key", &record, &err), 1);
    assert_string_equal(record.version, "1");
    assert_ok(secret_store_read(f->store, "key", "1", &back, &err), &err);
    assert_int_equal(back->size, sizeof(data));
    assert_memory_equal(back->data, data, sizeof(data));
}

static void a_version_that_is_here_already_writes_nothing(void **state)
{
    Fixture *f = *state;
    auto_(secret_record_done) SecretRecord first = {0}, second = {0};
    auto_free char *path = NULL;
    auto_error Error err = {0};
    ino_t inode;

    assert_int_equal(put(f, "1", "value", 5), 1);
    assert_ok(secret_store_path(f->store, "key", "1", &path, &err), &err);
    assert_ok(secret_store_record(f->store, "key", &first, &err), &err);
    inode = stat_of(path).st_ino;
    assert_int_equal(put(f, "1", "value", 5), 0);
    assert_int_equal(stat_of(path).st_ino, inode);
    assert_ok(secret_store_record(f->store, "key", &second, &err), &err);
    assert_int_equal(second.fetched_at, first.fetched_at);
    assert_int_equal(stat_of(path).st_mode & 07777, 0400);
}

static void a_release_keeps_its_own_value_for_the_user_of_its_container(void **state)
{
    Fixture *f = *state;
    auto_free char *old = NULL, *now = NULL;
    auto_error Error err = {0};
    auto_buf Buf content = BUF_INIT(100);
    uid_t uid = geteuid() == 0 ? 1000 : geteuid();
    gid_t gid = geteuid() == 0 ? 2000 : getegid();

    assert_int_equal(put(f, "1", "old", 3), 1);
    assert_ok(secret_store_publish(f->store, "app", "r1", "key", "1", 0400, uid, gid, &old, &err),
              &err);
    assert_int_equal(put(f, "2", "new", 3), 1);
    assert_ok(secret_store_publish(f->store, "app", "r2", "key", "2", 0440, (uid_t)-1, (gid_t)-1,
                                   &now, &err),
              &err);
    assert_ok(file_read(old, 100, &content, &err), &err);
    assert_string_equal(buf_str(&content), "old");
    assert_int_equal(stat_of(old).st_uid, uid);
    assert_int_equal(stat_of(old).st_gid, gid);
    assert_int_equal(stat_of(old).st_mode & 07777, 0400);
    assert_int_equal(stat_of(now).st_mode & 07777, 0440);
    assert_ok(secret_store_retire(f->store, "app", "r1", &err), &err);
    assert_int_equal(access(old, F_OK), -1);
    assert_int_equal(access(now, F_OK), 0);
}

static void old_versions_go_unless_a_release_needs_them(void **state)
{
    Fixture *f = *state;
    char *keep[] = {(char *)"key/2", NULL};
    auto_error Error err = {0};

    assert_int_equal(put(f, "1", "a", 1), 1);
    assert_int_equal(put(f, "2", "b", 1), 1);
    assert_int_equal(put(f, "3", "c", 1), 1);
    assert_ok(secret_store_trim(f->store, keep, &err), &err);
    assert_false(secret_store_has(f->store, "key", "1"));
    assert_true(secret_store_has(f->store, "key", "2"));
    assert_true(secret_store_has(f->store, "key", "3"));
    assert_ok(secret_store_forget(f->store, "key", &err), &err);
    assert_false(secret_store_has(f->store, "key", "3"));
}

static void no_name_leads_out_of_the_directory(void **state)
{
    Fixture *f = *state;
    static const char *const names[] = {"", ".", "..", "../x", "a/b", "/etc/passwd"};
    auto_error Error err = {0};

    for (size_t i = 0; i < ELEMENTS(names); i++) {
        auto_free char *path = NULL;

        assert_int_equal(secret_store_path(f->store, names[i], "1", &path, &err), -EINVAL);
        error_done(&err);
        assert_int_equal(secret_store_path(f->store, "key", names[i], &path, &err), -EINVAL);
        error_done(&err);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(any_bytes_are_read_back_as_they_were),
          TEST(a_version_that_is_here_already_writes_nothing),
          TEST(a_release_keeps_its_own_value_for_the_user_of_its_container),
          TEST(old_versions_go_unless_a_release_needs_them),
          TEST(no_name_leads_out_of_the_directory))
