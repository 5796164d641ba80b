/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <sys/sysinfo.h>

#include "agent/base/file.h"
#include "agent/resource/system.h"

/* Files and the time zone below a directory of the test. */
typedef struct Fixture {
    char *root;
    ResourceContext context;
    Resource *resource; /* the one that was declared last */
    Plan *plan;
    Error result;
    unsigned finished;
} Fixture;

static void on_finished(Resource *resource, Error *err, void *userdata)
{
    Fixture *f = userdata;

    f->finished++;
    error_done(&f->result);
    if (err)
        (void)error_move(&f->result, err);
}

static int on_add(Resource *resource, void *userdata)
{
    Fixture *f = userdata;

    resource_free(f->resource);
    f->resource = resource;
    return 0;
}

static const ResourceHost host = {.finished = on_finished, .add = on_add};

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->root = test_dir_new();
    f->context = (ResourceContext){.root = f->root, .host = &host, .host_userdata = f};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    resource_free(f->resource);
    plan_free(f->plan);
    error_done(&f->result);
    test_dir_done(&f->root);
    free(f);
    return 0;
}

static void declare(Fixture *f, const ResourceOps *ops, const char *system)
{
    auto_free char *text = str_printf("{\"version\": 1, \"system\": %s}", system);
    auto_field_errors FieldErrors errors = {0};
    auto_error Error err = {0};

    f->resource = resource_free(f->resource);
    f->plan = plan_free(f->plan);
    assert_int_equal(plan_parse(text, strlen(text), &f->plan, &errors), 0);
    assert_ok(ops->declare(&f->context, f->plan, &err), &err);
    assert_non_null(f->resource);
}

/* 1 and the difference, 0, or negative. */
static int check(Fixture *f, const char *expected)
{
    auto_free char *difference = NULL;
    auto_error Error err = {0};
    int r = f->resource->ops->check(f->resource, &difference, &err);

    if (r > 0)
        assert_contains(difference, expected);
    if (r < 0)
        assert_contains(error_text(&err), expected);
    return r;
}

static void apply(Fixture *f)
{
    unsigned before = f->finished;

    f->resource->ops->apply(f->resource);
    assert_int_equal(f->finished, before + 1);
}

static char *in_root(const Fixture *f, const char *path)
{
    return str_printf("%s%s", f->root, path);
}

static void put(const Fixture *f, const char *path, const char *text)
{
    auto_free char *full = in_root(f, path), *dir = NULL;
    auto_error Error err = {0};

    dir = strndup(full, (size_t)(strrchr(full, '/') - full));
    assert_ok(dir_create(dir, 0755, &err), &err);
    assert_ok(file_replace(full, text, strlen(text), 0644, &err), &err);
}

static void assert_file(const Fixture *f, const char *path, const char *text, mode_t mode)
{
    auto_free char *full = in_root(f, path);
    auto_buf Buf content = BUF_INIT(1000);
    auto_error Error err = {0};
    struct stat st;

    assert_ok(file_read(full, 1000, &content, &err), &err);
    assert_string_equal(buf_str(&content), text);
    assert_int_equal(lstat(full, &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | mode);
}

/* Files of the test's own user: the plan's default is root. */
static void declare_file(Fixture *f, const char *path, const char *mode)
{
    auto_free char *text =
        str_printf("{\"files\": [{\"path\": \"%s\", \"content\": \"text\", \"mode\": \"%s\", "
                   "\"owner\": \"%u\", \"group\": \"%u\"}]}",
                   path, mode, geteuid(), getegid());

    declare(f, &resource_file, text);
}

static void a_file_is_written_with_its_directories_and_then_left_alone(void **state)
{
    Fixture *f = *state;

    declare_file(f, "/srv/deep/er/file", "0640");
    assert_int_equal(check(f, "it is not there"), 1);
    apply(f);
    assert_int_equal(f->result.code, 0);
    assert_file(f, "/srv/deep/er/file", "text", 0640);
    assert_int_equal(check(f, ""), 0);
}

static void each_way_in_which_a_file_drifts_is_seen_and_put_right(void **state)
{
    Fixture *f = *state;
    auto_free char *full = in_root(f, "/etc/file");

    put(f, "/etc/file", "else");
    declare_file(f, "/etc/file", "0600");
    assert_int_equal(check(f, "its mode differs"), 1);
    assert_int_equal(chmod(full, 0600), 0);
    assert_int_equal(check(f, "its content differs"), 1);
    apply(f);
    assert_int_equal(check(f, ""), 0);
    put(f, "/etc/file", "longer than it was");
    assert_int_equal(chmod(full, 0600), 0);
    assert_int_equal(check(f, "its content differs"), 1);
    assert_int_equal(unlink(full), 0);
    assert_int_equal(symlink("/etc/passwd", full), 0);
    assert_int_equal(check(f, "no regular file"), 1);
    apply(f);
    assert_file(f, "/etc/file", "text", 0600);
}

static void a_link_on_the_way_and_a_directory_in_its_place_are_refused(void **state)
{
    Fixture *f = *state;
    auto_free char *link = in_root(f, "/link"), *dir = in_root(f, "/etc/file");

    put(f, "/etc/passwd", "root");
    assert_int_equal(symlink("etc", link), 0);
    declare_file(f, "/link/passwd", "0644");
    assert_true(check(f, "symbolic link") < 0);
    apply(f);
    assert_int_equal(f->result.kind, ERROR_INVALID);
    assert_file(f, "/etc/passwd", "root", 0644);
    assert_int_equal(mkdir(dir, 0755), 0);
    declare_file(f, "/etc/file", "0644");
    assert_true(check(f, "is a directory") < 0);
}

static void a_user_that_is_not_there_yet_is_asked_for_again(void **state)
{
    Fixture *f = *state;

    declare(f, &resource_file,
            "{\"files\": [{\"path\": \"/f\", \"content\": \"\", \"owner\": \"nosuchuser\"}]}");
    apply(f);
    assert_int_equal(f->result.kind, ERROR_TEMPORARY);
    assert_contains(error_text(&f->result), "no user \"nosuchuser\"");
}

static void assert_link(const Fixture *f, const char *expected)
{
    auto_free char *path = in_root(f, "/etc/localtime");
    char target[256];
    ssize_t n = readlink(path, target, sizeof(target) - 1);

    assert_true(n > 0);
    target[n] = '\0';
    assert_string_equal(target, expected);
}

static void the_time_zone_is_a_relative_link_and_etc_timezone_follows_where_it_is(void **state)
{
    Fixture *f = *state;

    put(f, "/usr/share/zoneinfo/Asia/Seoul", "TZif");
    put(f, "/usr/share/zoneinfo/UTC", "TZif");
    put(f, "/etc/timezone", "Etc/UTC\n");
    declare(f, &resource_timezone, "{\"timezone\": \"Asia/Seoul\"}");
    assert_int_equal(check(f, "set the time zone to Asia/Seoul (is not set)"), 1);
    apply(f);
    assert_link(f, "../usr/share/zoneinfo/Asia/Seoul");
    assert_file(f, "/etc/timezone", "Asia/Seoul\n", 0644);
    assert_int_equal(check(f, ""), 0);
    put(f, "/etc/timezone", "Europe/Berlin\n");
    assert_int_equal(check(f, "write Asia/Seoul to /etc/timezone"), 1);
    apply(f);
    assert_file(f, "/etc/timezone", "Asia/Seoul\n", 0644);
    declare(f, &resource_timezone, "{\"timezone\": \"UTC\"}");
    assert_int_equal(check(f, "set the time zone to UTC (is Asia/Seoul)"), 1);
    apply(f);
    assert_link(f, "../usr/share/zoneinfo/UTC");
}

static void an_unknown_time_zone_is_a_persons_matter_and_changes_nothing(void **state)
{
    Fixture *f = *state;
    auto_error Error err = {0};
    auto_free char *difference = NULL;

    put(f, "/etc/hostname", "vm");
    declare(f, &resource_timezone, "{\"timezone\": \"Asia/Soul\"}");
    assert_true(f->resource->ops->check(f->resource, &difference, &err) < 0);
    assert_int_equal(err.kind, ERROR_INVALID);
    assert_contains(err.remedy, "tzdata");
}

static void swap_by_memory_is_as_much_as_there_is_within_half_and_four_gibibytes(void **state)
{
    Fixture *f = *state;
    struct sysinfo info;
    char expected[64];
    double gib;

    assert_int_equal(sysinfo(&info), 0);
    gib = (double)info.totalram * info.mem_unit / (1 << 30);
    declare(f, &resource_swap, "{\"swap\": {\"path\": \"/swapfile\"}}");
    if (gib > 3.75)
        (void)snprintf(expected, sizeof(expected), "switch on swap of 4.0 GiB at /swapfile");
    else
        (void)snprintf(expected, sizeof(expected), "switch on swap of ");
    assert_int_equal(check(f, expected), 1);
}

static void
a_swap_that_does_not_fit_or_is_somebodys_file_is_refused_before_anything_is_done(void **state)
{
    Fixture *f = *state;
    unsigned before;

    declare(f, &resource_swap, "{\"swap\": {\"size\": \"1TiB\", \"path\": \"/swapfile\"}}");
    assert_int_equal(check(f, "switch on"), 1);
    apply(f);
    assert_int_equal(f->result.code, -ENOSPC);
    assert_contains(f->result.remedy, "smaller");
    put(f, "/swapfile", "precious");
    apply(f);
    assert_int_equal(f->result.kind, ERROR_INVALID);
    assert_contains(error_text(&f->result), "no swap file");
    assert_file(f, "/swapfile", "precious", 0644);
    /* Nor when it leaves the plan. */
    before = f->finished;
    f->resource->ops->remove(f->resource);
    assert_int_equal(f->finished, before + 1);
    assert_int_equal(f->result.code, 0);
    assert_file(f, "/swapfile", "precious", 0644);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(a_file_is_written_with_its_directories_and_then_left_alone),
          TEST(each_way_in_which_a_file_drifts_is_seen_and_put_right),
          TEST(a_link_on_the_way_and_a_directory_in_its_place_are_refused),
          TEST(a_user_that_is_not_there_yet_is_asked_for_again),
          TEST(the_time_zone_is_a_relative_link_and_etc_timezone_follows_where_it_is),
          TEST(an_unknown_time_zone_is_a_persons_matter_and_changes_nothing),
          TEST(swap_by_memory_is_as_much_as_there_is_within_half_and_four_gibibytes),
          TEST(a_swap_that_does_not_fit_or_is_somebodys_file_is_refused_before_anything_is_done))
