/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "agent/base/file.h"

static size_t count_entries(const char *dir)
{
    DIR *d = opendir(dir);
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n - 2;
}

static void a_file_is_replaced_whole_with_its_mode(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "key");
    auto_error Error err = {0};
    auto_buf Buf content = BUF_INIT(0);
    struct stat st;

    assert_int_equal(file_replace(path, "one", 3, 0400, &err), 1);
    assert_int_equal(file_replace(path, "two\0!", 5, 0400, &err), 1);
    assert_ok(file_read(path, 100, &content, &err), &err);
    assert_int_equal(content.size, 5);
    assert_memory_equal(content.data, "two\0!", 5);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0400);
    assert_int_equal(count_entries(dir), 1);
}

static void what_a_killed_writer_left_goes_with_the_next_one(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "key");
    auto_free char *left = path_join(dir, ".key.0123456789abcdef");
    auto_free char *others = path_join(dir, ".key.0123456789abcdeg");
    auto_error Error err = {0};

    assert_int_equal(file_replace(left, "half", 4, 0400, &err), 1);
    assert_int_equal(file_replace(others, "theirs", 6, 0400, &err), 1);
    assert_int_equal(file_replace(path, "whole", 5, 0400, &err), 1);
    assert_int_equal(access(left, F_OK), -1);
    assert_int_equal(access(others, F_OK), 0);
    {
        /* One that is being written is locked. */
        auto_close int fd = open(left, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        assert_int_equal(flock(fd, LOCK_EX), 0);
        assert_int_equal(file_replace(path, "again", 5, 0400, &err), 1);
        assert_int_equal(access(left, F_OK), 0);
    }
}

static void what_is_right_already_is_not_written(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "f");
    auto_error Error err = {0};
    struct stat before, after;

    assert_int_equal(file_replace(path, "same", 4, 0644, &err), 1);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(file_replace(path, "same", 4, 0644, &err), 0);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(file_replace(path, "same", 4, 0600, &err), 1); /* another mode is a change */
}

static void a_symbolic_link_at_the_name_is_replaced_and_not_followed(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "link"), *target = path_join(dir, "target");
    auto_error Error err = {0};
    struct stat st;

    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(file_replace(path, "x", 1, 0644, &err), 1);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(access(target, F_OK), -1);
}

static void a_failed_write_leaves_the_old_file(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "f");
    auto_error Error err = {0};
    auto_buf Buf content = BUF_INIT(0);

    assert_int_equal(file_replace(path, "old", 3, 0644, &err), 1);
    if (geteuid() == 0) {
        /* A directory in the way of the rename fails it even for root. */
        auto_free char *blocked = path_join(dir, "d");

        assert_int_equal(mkdir(blocked, 0700), 0);
        assert_true(file_replace(blocked, "new", 3, 0644, &err) < 0);
    } else {
        assert_int_equal(chmod(dir, 0500), 0);
        assert_true(file_replace(path, "new", 3, 0644, &err) < 0);
        assert_int_equal(chmod(dir, 0700), 0);
    }
    assert_non_null(err.message);
    error_done(&err);
    assert_ok(file_read(path, 100, &content, &err), &err);
    assert_string_equal(buf_str(&content), "old");
    assert_true(count_entries(dir) <= 2); /* and no temporary is left */
}

static void reading_has_a_ceiling(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "f");
    auto_error Error err = {0};
    auto_buf Buf content = BUF_INIT(0);

    assert_int_equal(file_replace(path, "12345", 5, 0644, &err), 1);
    assert_int_equal(file_read(path, 4, &content, &err), -EFBIG);
    assert_contains(err.message, "larger than 4 bytes");
    error_done(&err);
    assert_int_equal(file_read("/nonexistent/file", 4, &content, &err), -ENOENT);
}

static void parents_are_made_and_links_on_the_way_refused(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *outside = path_join(dir, "outside"), *link = path_join(dir, "root/etc");
    auto_free char *root = path_join(dir, "root");
    auto_error Error err = {0};
    auto_close int fd = -EBADF;
    const char *name;

    assert_ok(dir_create(root, 0755, &err), &err);
    assert_ok(dir_open_parent(root, "/a/b/file", true, &fd, &name, &err), &err);
    assert_string_equal(name, "file");
    assert_int_equal(file_replace_at(fd, name, "x", 1, 0644, &err), 1);
    fd = close_fd(fd);

    assert_int_equal(mkdir(outside, 0755), 0);
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(dir_open_parent(root, "/etc/passwd", true, &fd, &name, &err), -ELOOP);
    assert_contains(err.message, "symbolic link");
    assert_contains(err.remedy, "write the path that it leads to: etc is ");
    assert_contains(err.remedy, outside);
    error_done(&err);
    assert_int_equal(dir_open_parent(root, "/a/../etc/x", true, &fd, &name, &err), -EINVAL);
    error_done(&err);
    assert_int_equal(dir_open_parent(root, "relative", true, &fd, &name, &err), -EINVAL);
}

static void paths_join_with_one_slash(void **state)
{
    const struct {
        const char *a, *b, *joined;
    } cases[] = {
        {"/", "x", "/x"}, {"/a/", "/b", "/a/b"}, {"a", "b", "a/b"}, {"/a", "b/c", "/a/b/c"}};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_free char *joined = path_join(cases[i].a, cases[i].b);

        assert_string_equal(joined, cases[i].joined);
    }
}

TEST_MAIN(cmocka_unit_test(a_file_is_replaced_whole_with_its_mode),
          cmocka_unit_test(what_a_killed_writer_left_goes_with_the_next_one),
          cmocka_unit_test(what_is_right_already_is_not_written),
          cmocka_unit_test(a_symbolic_link_at_the_name_is_replaced_and_not_followed),
          cmocka_unit_test(a_failed_write_leaves_the_old_file),
          cmocka_unit_test(reading_has_a_ceiling),
          cmocka_unit_test(parents_are_made_and_links_on_the_way_refused),
          cmocka_unit_test(paths_join_with_one_slash))
