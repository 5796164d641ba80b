/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/file.h"
#include "agent/base/time.h"
#include "agent/cloud/cloud.h"
#include "agent/io/loop.h"
#include "tests/unit/http-server.h"

typedef struct Fixture {
    sd_event *event;
    HttpClient *client;
    Cloud *cloud;
    char *dir;

    CloudOp *op;
    bool done;
    unsigned calls, changes;
    char *plan, *where, *id, *bytes, *version, *message, *remedy;
    CloudPlanSource source;
    int code;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    auto_error Error error = {0};

    assert_non_null(f);
    assert_int_equal(unsetenv("GCE_METADATA_HOST"), 0);
    f->dir = test_dir_new();
    assert_ok(loop_new(&f->event, &error), &error);
    assert_ok(http_client_new(f->event, "mervis-test/1", &f->client, &error), &error);
    const CloudConfig config = {f->event, f->client, f->dir};
    assert_ok(cloud_new(&config, &f->cloud, &error), &error);
    assert_string_equal(cloud_name(f->cloud), "local");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    char **texts[] = {&f->plan, &f->where, &f->id, &f->bytes, &f->version, &f->message, &f->remedy};

    cloud_op_free(f->op);
    cloud_free(f->cloud);
    http_client_free(f->client);
    sd_event_unref(f->event);
    test_dir_done(&f->dir);
    for (size_t i = 0; i < ELEMENTS(texts); i++)
        free(*texts[i]);
    free(f);
    return 0;
}

static void write_file(Fixture *f, const char *path, const char *text)
{
    auto_free char *full = str_printf("%s%s", f->dir, path);
    auto_free char *dir = str_printf("%.*s", (int)(strrchr(full, '/') - full), full);
    auto_error Error error = {0};

    assert_ok(dir_create(dir, 0755, &error), &error);
    assert_ok(file_replace(full, text, strlen(text), 0600, &error), &error);
}

static void on_changed(const CloudSnapshot *snapshot, unsigned changes, void *userdata)
{
    Fixture *f = userdata;

    f->done = true;
    f->calls++;
    f->changes = changes;
    f->source = snapshot->plan_source;
    assert_true(str_set(&f->plan, snapshot->plan) >= 0 &&
                str_set(&f->where, snapshot->plan_where) >= 0 &&
                str_set(&f->id, snapshot->identity->instance_id) >= 0);
    assert_false(snapshot->preempted);
}

static void on_trouble(const Error *err, uint64_t failing_usec, void *userdata)
{
    Fixture *f = userdata;

    assert_int_equal(failing_usec, 0); /* nobody was waited for */
    assert_true(str_set(&f->message, err ? error_text(err) : "over") >= 0);
}

static const CloudWatchHandlers handlers = {on_changed, on_trouble};

static void next_change(Fixture *f)
{
    f->done = false;
    loop_run_until(f->event, &f->done, 5 * SECOND);
}

static void the_plan_file_is_watched_from_before_it_exists(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    auto_free char *path = str_printf("%s" CLOUD_PLAN_PATH, f->dir);

    assert_ok(cloud_watch(f->cloud, &handlers, f, &f->op, &error), &error);
    next_change(f);
    assert_int_equal(f->changes, CLOUD_CHANGED_ALL);
    assert_int_equal(f->source, CLOUD_PLAN_NONE);
    assert_null(f->plan);
    assert_contains(f->where, CLOUD_PLAN_PATH);

    write_file(f, CLOUD_PLAN_PATH, "{\"version\":1}");
    next_change(f);
    assert_string_equal(f->plan, "{\"version\":1}");
    assert_int_equal(f->source, CLOUD_PLAN_LOCAL);
    assert_int_equal(f->changes, CLOUD_CHANGED_PLAN);

    write_file(f, CLOUD_PLAN_PATH, "{}");
    next_change(f);
    assert_string_equal(f->plan, "{}");

    assert_int_equal(unlink(path), 0);
    next_change(f);
    assert_null(f->plan);
    assert_null(f->message);
}

static void the_same_plan_written_again_is_no_change(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};

    write_file(f, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    write_file(f, CLOUD_PLAN_PATH, "{}");
    assert_ok(cloud_watch(f->cloud, &handlers, f, &f->op, &error), &error);
    next_change(f);
    assert_string_equal(f->id, "0123456789abcdef0123456789abcdef");
    write_file(f, CLOUD_PLAN_PATH, "{}");
    loop_run_for(f->event, 400 * MSEC);
    assert_int_equal(f->calls, 1);
}

static void a_plan_that_cannot_be_read_is_trouble_that_passes(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    auto_free char *path = str_printf("%s" CLOUD_PLAN_PATH, f->dir);

    assert_ok(dir_create(path, 0755, &error), &error); /* a directory in its place */
    assert_ok(cloud_watch(f->cloud, &handlers, f, &f->op, &error), &error);
    loop_run_for(f->event, 100 * MSEC);
    assert_non_null(f->message);
    assert_int_equal(f->calls, 0);
    assert_int_equal(rmdir(path), 0);
    write_file(f, CLOUD_PLAN_PATH, "{}");
    next_change(f);
    assert_string_equal(f->message, "over");
    assert_string_equal(f->plan, "{}");
}

static void what_may_be_a_value_is_not_shown_as_a_wrong_name(void **state)
{
    Fixture *f = *state;
    auto_error Error word = {0}, value = {0}, path = {0};

    assert_int_equal(cloud_secret_check_name(f->cloud, "eyJhbGci.eyJzdWIi", &word), -EINVAL);
    assert_null(strstr(error_text(&word), "eyJ"));
    assert_contains(error_text(&word), "17 bytes that are not shown");
    assert_int_equal(cloud_secret_check_name(f->cloud, "ab/cd+ef==", &value), -EINVAL);
    assert_null(strstr(error_text(&value), "cd+ef"));
    assert_contains(error_text(&value), "10 bytes");
    assert_int_equal(cloud_secret_check_name(f->cloud, "projects/p/KEY", &path), -EINVAL);
    assert_contains(error_text(&path), "projects/p/KEY is no name");
}

/* --- Secrets -------------------------------------------------------------------------------- */

static void on_secret(CloudSecret *secret, const Error *err, void *userdata)
{
    Fixture *f = userdata;

    f->done = true;
    f->code = err ? err->code : 0;
    assert_true(str_set(&f->message, err ? error_text(err) : "") >= 0 &&
                str_set(&f->remedy, err ? err->remedy : NULL) >= 0 &&
                str_set(&f->version, secret ? secret->version : NULL) >= 0 &&
                str_set(&f->bytes, secret && secret->bytes ? secret->bytes->data : NULL) >= 0);
    f->op = cloud_op_free(f->op);
}

static void fetch(Fixture *f, const char *name, const char *version)
{
    auto_error Error error = {0};

    f->done = false;
    assert_ok(cloud_secret_fetch(f->cloud, name, version, on_secret, f, &f->op, &error), &error);
    loop_run_until(f->event, &f->done, 5 * SECOND);
}

static void secrets_are_files_whose_content_is_their_version(void **state)
{
    Fixture *f = *state;
    auto_free char *first = NULL;

    write_file(f, CLOUD_SECRETS_DIR "/KEY", "value\n");
    fetch(f, "KEY", NULL);
    assert_string_equal(f->bytes, "value\n");
    first = strdup(f->version);
    fetch(f, "projects/p/secrets/KEY", first);
    assert_string_equal(f->bytes, "value\n");

    write_file(f, CLOUD_SECRETS_DIR "/KEY", "other");
    fetch(f, "KEY", "latest");
    assert_string_equal(f->bytes, "other");
    assert_string_not_equal(f->version, first);
    fetch(f, "KEY", first);
    assert_int_equal(f->code, -ENOENT); /* that value is gone */

    write_file(f, CLOUD_SECRETS_DIR "/KEY@3", "pinned");
    fetch(f, "KEY", "3");
    assert_string_equal(f->bytes, "pinned");
    assert_string_equal(f->version, "3");
}

static void a_missing_secret_says_where_it_belongs(void **state)
{
    Fixture *f = *state;
    CloudOp *op = NULL;

    fetch(f, "KEY", NULL);
    assert_int_equal(f->code, -ENOENT);
    assert_contains(f->remedy, CLOUD_SECRETS_DIR "/KEY");
    assert_int_equal(cloud_secret_fetch(f->cloud, "../passwd", NULL, on_secret, f, &op, NULL),
                     -EINVAL);
    assert_int_equal(cloud_secret_fetch(f->cloud, "KEY", "../x", on_secret, f, &op, NULL), -EINVAL);
}

static void on_token(const char *token, const Error *err, void *userdata)
{
    fail_msg("a token where there is none");
}

static void on_login(const char *user, const char *password, const Error *err, void *userdata)
{
    Fixture *f = userdata;

    f->done = !user && !password && !err;
}

static void there_are_no_credentials(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};

    assert_int_equal(cloud_token_get(f->cloud, on_token, f, &f->op, &error), -EOPNOTSUPP);
    assert_non_null(error.remedy);
    error_done(&error);
    assert_false(cloud_login_applies(f->cloud, "gcr.io"));
    assert_ok(cloud_login_get(f->cloud, "gcr.io", on_login, f, &f->op, &error), &error);
    loop_run_until(f->event, &f->done, 5 * SECOND);
    cloud_publish(f->cloud, "status", "nobody reads it");
}

static void the_hardware_says_which_cloud_it_is(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    const CloudConfig config = {f->event, f->client, f->dir};

    write_file(f, "/sys/class/dmi/id/product_name", "Google Compute Engine\n");
    f->cloud = cloud_free(f->cloud);
    assert_ok(cloud_new(&config, &f->cloud, &error), &error);
    assert_string_equal(cloud_name(f->cloud), "gce");

    write_file(f, "/sys/class/dmi/id/product_name", "Standard PC\n");
    write_file(f, "/sys/class/dmi/id/product_serial", "GoogleCloud-0123\n");
    f->cloud = cloud_free(f->cloud);
    assert_ok(cloud_new(&config, &f->cloud, &error), &error);
    assert_string_equal(cloud_name(f->cloud), "gce");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
TEST_MAIN(TEST(the_plan_file_is_watched_from_before_it_exists),
          TEST(the_same_plan_written_again_is_no_change),
          TEST(a_plan_that_cannot_be_read_is_trouble_that_passes),
          TEST(what_may_be_a_value_is_not_shown_as_a_wrong_name),
          TEST(secrets_are_files_whose_content_is_their_version),
          TEST(a_missing_secret_says_where_it_belongs), TEST(there_are_no_credentials),
          TEST(the_hardware_says_which_cloud_it_is))
