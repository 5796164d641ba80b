/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/cloud-fixture.h"

#include "agent/base/file.h"

typedef struct Got {
    CloudOp *op;
    bool done, has_bytes;
    char bytes[256], version[32], resource[256];
    size_t size;
    int code;
    ErrorKind kind;
    char message[1024], remedy[1024];
} Got;

static void on_secret(CloudSecret *secret, const Error *err, void *userdata)
{
    Got *got = userdata;
    auto_(secret_bytes_freep) SecretBytes *bytes = NULL;

    got->done = true;
    got->code = err ? err->code : 0;
    got->kind = err ? err->kind : ERROR_INTERNAL;
    (void)snprintf(got->message, sizeof(got->message), "%s", err ? error_text(err) : "");
    (void)snprintf(got->remedy, sizeof(got->remedy), "%s", err && err->remedy ? err->remedy : "");
    if (secret) {
        bytes = take_ptr(secret->bytes); /* a handler may keep it */
        got->has_bytes = bytes != NULL;
        got->size = bytes ? bytes->size : 0;
        if (bytes && bytes->size < sizeof(got->bytes))
            memcpy(got->bytes, bytes->data, bytes->size);
        (void)snprintf(got->version, sizeof(got->version), "%s", secret->version);
        (void)snprintf(got->resource, sizeof(got->resource), "%s", secret->resource);
    }
    got->op = cloud_op_free(got->op);
}

static Got fetch(Fixture *f, const char *name, const char *version)
{
    auto_error Error error = {0};
    Got got = {0};

    assert_ok(cloud_secret_fetch(f->cloud, name, version, on_secret, &got, &got.op, &error),
              &error);
    assert_false(got.done);
    loop_run_until(f->event, &got.done, 10 * SECOND);
    return got;
}

#define ANSWER(version, data, crc)                                                                 \
    (Reply)                                                                                        \
    {                                                                                              \
        .body = "{\"name\":\"projects/123/secrets/KEY/versions/" version                           \
                "\",\"payload\":{\"data\":\"" data "\"" crc "}}"                                   \
    }

/* --- What is well --------------------------------------------------------------------------- */

static void a_short_name_is_of_our_own_project(void **state)
{
    Fixture *f = *state;
    Got got;

    f->secret_reply = ANSWER("7", "aHVudGVyMgo=", ",\"dataCrc32c\":\"3250045932\"");
    got = fetch(f, "KEY", NULL);
    assert_int_equal(got.code, 0);
    assert_int_equal(got.size, 8);
    assert_memory_equal(got.bytes, "hunter2\n", 8); /* a newline at the end is data */
    assert_string_equal(got.version, "7");
    assert_string_equal(got.resource, "projects/123/secrets/KEY/versions/7");
    assert_string_equal(f->last_secret, "/sm/v1/projects/proj/secrets/KEY/versions/latest:access");
    assert_string_equal(f->last_authorization, "Bearer tok-1");
}

static void full_and_regional_names_and_versions_are_asked_for_as_they_are(void **state)
{
    Fixture *f = *state;
    static const struct {
        const char *name, *version, *path;
    } rows[] = {
        {"projects/other/secrets/KEY", "7", "/sm/v1/projects/other/secrets/KEY/versions/7:access"},
        {"projects/other/secrets/KEY/versions/7", "latest",
         "/sm/v1/projects/other/secrets/KEY/versions/7:access"},
        {"projects/example.com:proj/secrets/KEY", "prod",
         "/sm/v1/projects/example.com:proj/secrets/KEY/versions/prod:access"},
    };

    f->secret_reply = ANSWER("7", "YQ==", "");
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        Got got = fetch(f, rows[i].name, rows[i].version);

        assert_int_equal(got.code, 0);
        assert_string_equal(f->last_secret, rows[i].path);
    }

    f->secret_reply = (Reply){.body = "{\"name\":\"projects/123/locations/asia-northeast3/secrets/"
                                      "KEY/versions/7\",\"payload\":{\"data\":\"YQ==\"}}"};
    Got got = fetch(f, "projects/p/locations/asia-northeast3/secrets/KEY", NULL);
    assert_int_equal(got.code, 0);
    assert_string_equal(f->last_secret, "/smr/v1/projects/p/locations/asia-northeast3/secrets/KEY/"
                                        "versions/latest:access");
}

static void a_short_name_follows_the_plan_to_a_regional_endpoint(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    Got got;
    /* The first mapping leads to a host that nobody maps on, so it is only looked at. */
    const HttpEndpoint endpoints[] = {
        {"secretmanager.googleapis.com",
         "https://secretmanager.asia-northeast3.rep.googleapis.com"},
        {"secretmanager.asia-northeast3.rep.googleapis.com", http_server_url(f->server, "/smr")},
    };

    assert_ok(http_client_set_endpoints(f->client, endpoints, 2, &error), &error);
    f->secret_reply = (Reply){.body = "{\"name\":\"projects/123/locations/asia-northeast3/secrets/"
                                      "KEY/versions/7\",\"payload\":{\"data\":\"YQ==\"}}"};
    got = fetch(f, "KEY", NULL);
    assert_int_equal(got.code, 0);
    assert_string_equal(f->last_secret, "/smr/v1/projects/proj/locations/asia-northeast3/secrets/"
                                        "KEY/versions/latest:access");
}

static void an_empty_secret_and_binary_bytes_are_secrets_too(void **state)
{
    Fixture *f = *state;
    Got empty, binary;

    f->secret_reply = (Reply){
        .body =
            "{\"name\":\"projects/123/secrets/KEY/versions/1\",\"payload\":{\"dataCrc32c\":0}}"};
    empty = fetch(f, "KEY", "1");
    assert_int_equal(empty.code, 0);
    assert_true(empty.has_bytes);
    assert_int_equal(empty.size, 0);

    f->secret_reply =
        ANSWER("1", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", ",\"dataCrc32c\":1188919630");
    binary = fetch(f, "KEY", "1");
    assert_int_equal(binary.code, 0);
    assert_int_equal(binary.size, 32);
    assert_int_equal(binary.bytes[31], 31);
}

static void resolving_a_version_asks_for_the_name_alone(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    Got got = {0};

    f->secret_reply = (Reply){.body = "{\"name\":\"projects/123/secrets/KEY/versions/9\"}"};
    assert_ok(cloud_secret_resolve(f->cloud, "KEY", NULL, on_secret, &got, &got.op, &error),
              &error);
    loop_run_until(f->event, &got.done, 10 * SECOND);
    assert_int_equal(got.code, 0);
    assert_string_equal(got.version, "9");
    assert_false(got.has_bytes);
    assert_string_equal(f->last_secret,
                        "/sm/v1/projects/proj/secrets/KEY/versions/latest:access?fields=name");
}

/* --- What is damaged ------------------------------------------------------------------------ */

static void a_damaged_value_is_asked_for_again_and_never_given_out(void **state)
{
    Fixture *f = *state;
    Got healed, damaged;

    f->secret_replies[0] = ANSWER("7", "aHVudGVyMgo=", ",\"dataCrc32c\":\"3250045933\"");
    f->n_secret_replies = 1;
    f->secret_reply = ANSWER("7", "aHVudGVyMgo=", ",\"dataCrc32c\":\"3250045932\"");
    healed = fetch(f, "KEY", NULL);
    assert_int_equal(healed.code, 0);
    assert_int_equal(f->n_secret, 2);

    f->secret_reply = ANSWER("7", "aHVudGVyMgo=", ",\"dataCrc32c\":\"1\"");
    damaged = fetch(f, "KEY", NULL);
    assert_int_equal(damaged.kind, ERROR_CORRUPT);
    assert_contains(damaged.message, "secret KEY: its CRC32C differs");
    assert_int_equal(f->n_secret, 5);
    assert_null(strstr(damaged.message, "hunter2"));
}

static void an_answer_about_something_else_is_refused(void **state)
{
    Fixture *f = *state;
    static const char *const bodies[] = {
        "{\"name\":\"projects/123/secrets/OTHER/versions/7\",\"payload\":{\"data\":\"YQ==\"}}",
        "{\"name\":\"projects/123/secrets/KEY/versions/8\",\"payload\":{\"data\":\"YQ==\"}}",
        "{\"name\":\"projects/123/secrets/KEY\",\"payload\":{\"data\":\"YQ==\"}}",
        "{\"payload\":{\"data\":\"YQ==\"}}",
        "{\"name\":\"projects/123/secrets/KEY/versions/7\"}",
        "{\"name\":\"projects/123/secrets/KEY/versions/7\",\"payload\":{\"data\":\"Y$==\"}}",
        "{\"name\":\"projects/123/secrets/KEY/versions/7\",\"payload\":{\"data\":7}}",
        ("{\"name\":\"projects/123/secrets/KEY/versions/7\",\"payload\":{\"data\":\"YQ==\","
         "\"dataCrc32c\":\"x\"}}"),
        "<html>",
        "",
    };

    for (size_t i = 0; i < ELEMENTS(bodies); i++) {
        f->secret_reply = (Reply){.body = bodies[i]};
        Got got = fetch(f, "KEY", "7");

        if (got.kind != ERROR_CORRUPT || got.code >= 0 || got.has_bytes)
            fail_msg("%s: %d %s", bodies[i], got.code, got.message);
    }
}

/* --- What is refused ------------------------------------------------------------------------ */

#define REFUSAL(status_, canonical, text, reason_)                                                 \
    (Reply)                                                                                        \
    {                                                                                              \
        .status = status_, .body = "{\"error\":{\"code\":" #status_ ",\"message\":\"" text         \
                                   "\",\"status\":\"" canonical "\",\"details\":[" reason_ "]}}"   \
    }
#define REASON(reason)                                                                             \
    "{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":\"" reason                 \
    "\",\"domain\":\"googleapis.com\",\"metadata\":{\"consumer\":\"projects/123\"}}"
#define DENIED_TEXT                                                                                \
    "Permission 'secretmanager.versions.access' denied for resource "                              \
    "'projects/proj/secrets/KEY/versions/latest' (or it may not exist)."

static void a_missing_role_is_told_with_the_command_that_grants_it(void **state)
{
    Fixture *f = *state;
    Got got;

    f->secret_reply =
        REFUSAL(403, "PERMISSION_DENIED", DENIED_TEXT, REASON("IAM_PERMISSION_DENIED"));
    got = fetch(f, "KEY", NULL);
    assert_int_equal(got.kind, ERROR_DENIED);
    assert_contains(got.message, "secret KEY: IAM refuses secretmanager.versions.access to " EMAIL);
    assert_contains(got.message, "or it may not exist");
    assert_string_equal(got.remedy, "gcloud secrets add-iam-policy-binding KEY --project=proj "
                                    "--member=serviceAccount:" EMAIL
                                    " --role=roles/secretmanager.secretAccessor");
    assert_int_equal(f->n_scopes, 1);
}

static void too_narrow_scopes_are_told_apart_by_asking_for_them(void **state)
{
    Fixture *f = *state;
    Got got;

    /* The refusal says nothing of scopes; the machine itself knows. */
    f->scopes = "https://www.googleapis.com/auth/devstorage.read_only\n"
                "https://www.googleapis.com/auth/logging.write\n";
    f->secret_reply = REFUSAL(403, "PERMISSION_DENIED", "The caller does not have permission", "");
    got = fetch(f, "KEY", NULL);
    assert_int_equal(got.kind, ERROR_DENIED);
    assert_contains(got.message, "access scopes are too narrow");
    assert_contains(got.remedy, "gcloud compute instances set-service-account web-1 "
                                "--zone=asia-northeast3-a --project=proj --service-account=" EMAIL
                                " --scopes=cloud-platform");
}

static void a_refusal_that_names_the_scope_is_believed(void **state)
{
    Fixture *f = *state;
    Got got;

    f->secret_reply =
        REFUSAL(403, "PERMISSION_DENIED", "Request had insufficient authentication scopes.",
                REASON("ACCESS_TOKEN_SCOPE_INSUFFICIENT"));
    got = fetch(f, "KEY", NULL);
    assert_contains(got.message, "access scopes are too narrow");
}

static void an_api_that_is_off_is_told_with_the_command_that_switches_it_on(void **state)
{
    Fixture *f = *state;
    Got got;

    f->secret_reply = REFUSAL(403, "PERMISSION_DENIED", "Secret Manager API has not been used",
                              REASON("SERVICE_DISABLED"));
    got = fetch(f, "KEY", NULL);
    assert_int_equal(got.kind, ERROR_DENIED);
    assert_string_equal(got.remedy,
                        "gcloud services enable secretmanager.googleapis.com --project=123");
}

static void versions_that_are_no_more_are_told_apart(void **state)
{
    Fixture *f = *state;
    static const struct {
        Reply reply;
        const char *name, *version;
        int code;
        const char *message, *remedy;
    } rows[] = {
        {REFUSAL(400, "FAILED_PRECONDITION",
                 "Secret Version [projects/123/secrets/KEY/versions/3] is in DISABLED state.", ""),
         "KEY", "latest", -ENODATA, "version 3 is disabled (\"latest\" is the newest",
         "gcloud secrets versions enable 3 --secret=KEY --project=proj"},
        {REFUSAL(400, "FAILED_PRECONDITION",
                 "Secret Version [projects/123/secrets/KEY/versions/3] is in DESTROYED state.", ""),
         "projects/p2/locations/eu/secrets/KEY", "3", -ENODATA, "version 3 is destroyed",
         "gcloud secrets versions add KEY --location=eu --project=p2 --data-file=FILE"},
        {REFUSAL(404, "NOT_FOUND",
                 "Secret [projects/123/secrets/KEY] not found or has no versions.", ""),
         "KEY", "latest", -ENOENT, "it does not exist in project proj, or has no version",
         "gcloud secrets create KEY --project=proj --data-file=FILE"},
        {REFUSAL(404, "NOT_FOUND", "Secret [projects/123/secrets/KEY] has no alias [prod].", ""),
         "KEY", "prod", -ENOENT, "there is no version alias prod",
         "gcloud secrets update KEY --project=proj --update-version-aliases=prod=VERSION"},
        {REFUSAL(404, "NOT_FOUND",
                 "Secret Version [projects/123/secrets/KEY/versions/77] not found.", ""),
         "KEY", "77", -ENOENT, "there is no version 77",
         "gcloud secrets versions list KEY --project=proj"},
    };
    auto_error Error error = {0};
    const HttpEndpoint endpoints[] = {
        {"secretmanager.googleapis.com", http_server_url(f->server, "/sm")},
        {"secretmanager.eu.rep.googleapis.com", http_server_url(f->server, "/sme")},
    };

    assert_ok(http_client_set_endpoints(f->client, endpoints, 2, &error), &error);
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        f->secret_reply = rows[i].reply;
        Got got = fetch(f, rows[i].name, rows[i].version);

        assert_int_equal(got.code, rows[i].code);
        assert_int_equal(got.kind, ERROR_INVALID);
        assert_contains(got.message, rows[i].message);
        assert_string_equal(got.remedy, rows[i].remedy);
    }
}

static void a_token_that_is_never_accepted_points_at_the_account(void **state)
{
    Fixture *f = *state;
    Got got;

    f->secret_reply = REFUSAL(401, "UNAUTHENTICATED", "invalid credentials", "");
    got = fetch(f, "KEY", NULL);
    assert_int_equal(got.kind, ERROR_DENIED);
    assert_int_equal(f->n_token, 2);
    assert_contains(got.remedy, "gcloud iam service-accounts describe " EMAIL);
}

static void outages_and_quotas_are_temporary(void **state)
{
    Fixture *f = *state;
    Got html, throttled;

    f->secret_reply = (Reply){.status = 502, .body = "<html>Bad gateway</html>"};
    html = fetch(f, "KEY", NULL);
    assert_int_equal(html.kind, ERROR_TEMPORARY);
    assert_int_equal(f->n_secret, 3);
    assert_null(strstr(html.message, "<html>"));

    f->secret_reply = REFUSAL(429, "RESOURCE_EXHAUSTED", "Quota exceeded", "");
    f->secret_reply.headers = "Retry-After: 100\r\n";
    throttled = fetch(f, "KEY", NULL);
    assert_int_equal(throttled.kind, ERROR_THROTTLED);
    assert_contains(throttled.message, "Quota exceeded");
}

static void names_are_checked_before_anybody_is_asked(void **state)
{
    Fixture *f = *state;
    static const char *const good[] = {"KEY", "a-b_C9", "projects/p/secrets/k",
                                       "projects/p/secrets/k/versions/latest",
                                       "projects/p/locations/l-1/secrets/k"};
    static const char *const bad[] = {"",
                                      "a b",
                                      "a/b",
                                      "projects/p/secrets/",
                                      "projects//secrets/k",
                                      "projects/p/secrets/k/",
                                      "secrets/k",
                                      "projects/p/locations/l",
                                      "projects/p/secrets/k/versions/../x",
                                      "projects/p?x/secrets/k",
                                      "../KEY",
                                      "KEY\n"};
    CloudOp *op = NULL;

    for (size_t i = 0; i < ELEMENTS(good); i++) {
        auto_error Error error = {0};

        assert_ok(cloud_secret_check_name(f->cloud, good[i], &error), &error);
    }
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        auto_error Error error = {0};

        if (cloud_secret_check_name(f->cloud, bad[i], &error) != -EINVAL)
            fail_msg("\"%s\" passed", bad[i]);
        assert_int_equal(error.kind, ERROR_INVALID);
    }
    assert_int_equal(cloud_secret_fetch(f->cloud, "KEY", "../1", on_secret, NULL, &op, NULL),
                     -EINVAL);
    assert_int_equal(http_server_count(f->server), 0);
}

static void a_secret_that_is_let_go_is_never_heard_of(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};

    f->secret_reply = ANSWER("7", "YQ==", "");
    for (int turns = 0; turns < 40; turns++) {
        Got got = {0};

        assert_ok(cloud_secret_fetch(f->cloud, "KEY", NULL, on_secret, &got, &got.op, &error),
                  &error);
        for (int i = 0; i < turns && !got.done; i++)
            assert_true(sd_event_run(f->event, MSEC) >= 0);
        got.op = cloud_op_free(got.op);
    }
    loop_run_for(f->event, 50 * MSEC);
}

TEST_MAIN(TEST(a_short_name_is_of_our_own_project),
          TEST(full_and_regional_names_and_versions_are_asked_for_as_they_are),
          TEST(a_short_name_follows_the_plan_to_a_regional_endpoint),
          TEST(an_empty_secret_and_binary_bytes_are_secrets_too),
          TEST(resolving_a_version_asks_for_the_name_alone),
          TEST(a_damaged_value_is_asked_for_again_and_never_given_out),
          TEST(an_answer_about_something_else_is_refused),
          TEST(a_missing_role_is_told_with_the_command_that_grants_it),
          TEST(too_narrow_scopes_are_told_apart_by_asking_for_them),
          TEST(a_refusal_that_names_the_scope_is_believed),
          TEST(an_api_that_is_off_is_told_with_the_command_that_switches_it_on),
          TEST(versions_that_are_no_more_are_told_apart),
          TEST(a_token_that_is_never_accepted_points_at_the_account),
          TEST(outages_and_quotas_are_temporary), TEST(names_are_checked_before_anybody_is_asked),
          TEST(a_secret_that_is_let_go_is_never_heard_of))
