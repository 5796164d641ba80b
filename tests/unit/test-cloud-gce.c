/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/cloud-fixture.h"

#include "agent/base/file.h"
#include "agent/cloud/cloud-gce.h"

/* --- The watch ------------------------------------------------------------------------------ */

typedef struct Watched {
    CloudOp *op;
    bool changed, troubled, over, free_me;
    unsigned calls, changes, troubles;
    char *plan, *where, *id, *name, *zone, *region, *group, *account, *role, *hash;
    size_t plan_size;
    CloudPlanSource source;
    CloudMaintenance maintenance;
    bool preempted, spot, publishes, startup_script;
    uint64_t failing_usec;
    char *message;
} Watched;

static void watched_done(Watched *w)
{
    char **texts[] = {&w->plan,  &w->where,   &w->id,   &w->name, &w->zone,   &w->region,
                      &w->group, &w->account, &w->role, &w->hash, &w->message};

    cloud_op_free(w->op);
    for (size_t i = 0; i < ELEMENTS(texts); i++)
        free(*texts[i]);
}

#define auto_watched auto_(watched_done)

static void on_changed(const CloudSnapshot *snapshot, unsigned changes, void *userdata)
{
    const CloudIdentity *identity = snapshot->identity;
    Watched *w = userdata;

    w->changed = true;
    w->calls++;
    w->changes = changes;
    w->plan_size = snapshot->plan_size;
    w->source = snapshot->plan_source;
    w->preempted = snapshot->preempted;
    w->maintenance = snapshot->maintenance;
    w->spot = identity->spot;
    w->publishes = identity->publishes;
    w->startup_script = identity->startup_script;
    assert_true(
        str_set(&w->plan, snapshot->plan) >= 0 && str_set(&w->where, snapshot->plan_where) >= 0 &&
        str_set(&w->hash, snapshot->plan_sha256) >= 0 &&
        str_set(&w->id, identity->instance_id) >= 0 && str_set(&w->name, identity->name) >= 0 &&
        str_set(&w->zone, identity->zone) >= 0 && str_set(&w->region, identity->region) >= 0 &&
        str_set(&w->group, identity->group) >= 0 && str_set(&w->role, identity->role) >= 0 &&
        str_set(&w->account, identity->service_account) >= 0);
    if (w->free_me)
        w->op = cloud_op_free(w->op);
}

static void on_trouble(const Error *err, uint64_t failing_usec, void *userdata)
{
    Watched *w = userdata;

    if (!err) {
        w->over = true;
        return;
    }
    w->troubled = true;
    w->troubles++;
    if (w->troubles == 1)
        w->failing_usec = failing_usec;
    assert_true(str_set(&w->message, error_text(err)) >= 0);
}

static const CloudWatchHandlers handlers = {on_changed, on_trouble};

static void watch(Fixture *f, Watched *w)
{
    auto_error Error error = {0};

    assert_ok(cloud_watch(f->cloud, &handlers, w, &w->op, &error), &error);
    assert_false(w->changed);
}

static void next_change(Fixture *f, Watched *w)
{
    w->changed = false;
    http_server_release(f->server);
    loop_run_until(f->event, &w->changed, 5 * SECOND);
}

static void the_first_snapshot_says_who_we_are(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};

    fixture_tree(
        f, "\"preempted\":\"FALSE\",\"maintenanceEvent\":\"NONE\",",
        "\"created-by\":\"projects/123/zones/asia-northeast3-a/instanceGroupManagers/web\","
        "\"enable-guest-attributes\":\"true\",\"startup-script\":\"#!/bin/sh\","
        "\"mervis-plan\":\"{\\\"version\\\":1}\",",
        "\"mervis-plan\":\"{}\",");
    assert_null(cloud_identity_peek(f->cloud));
    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    assert_int_equal(w.changes, CLOUD_CHANGED_ALL);
    assert_string_equal(w.id, "9306944706428651580"); /* beyond an int64 */
    assert_string_equal(w.name, "web-1");
    assert_string_equal(w.zone, "asia-northeast3-a");
    assert_string_equal(w.region, "asia-northeast3");
    assert_string_equal(w.account, EMAIL);
    assert_contains(w.group, "/instanceGroupManagers/web");
    assert_true(w.spot && w.publishes && w.startup_script && !w.preempted);
    assert_string_equal(w.plan, "{\"version\":1}");
    assert_int_equal(w.source, CLOUD_PLAN_INSTANCE);
    assert_string_equal(w.where, "instance attribute mervis-plan");
    assert_int_equal(strlen(w.hash), 64);
    assert_string_equal(cloud_identity_peek(f->cloud)->project, "proj");
    assert_string_equal(cloud_identity_peek(f->cloud)->project_number, "123");
    assert_string_equal(cloud_identity_peek(f->cloud)->machine_type, "e2-micro");
}

static void the_script_that_installs_the_package_is_no_old_one(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};

    fixture_tree(f, "",
                 "\"startup-script\":\"#!/bin/sh\\nsay() { echo \\\"mervis-bootstrap: $1\\\"; }\",",
                 "");
    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    assert_true(w.changes != 0 && !w.startup_script);
}

static void a_recorded_tree_is_read(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};
    auto_error Error error = {0};
    auto_buf Buf text = BUF_INIT(sizeof(f->root) - 1);
    const char *srcdir = getenv("srcdir");
    auto_free char *path =
        str_printf("%s/tests/fixtures/gce-metadata/computeMetadata-v1-recursive-2020.json",
                   srcdir ? srcdir : ".");

    if (access(path, R_OK) < 0)
        skip();
    assert_ok(file_read(path, text.max, &text, &error), &error);
    memcpy(f->root, text.data, text.size + 1);
    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    assert_string_equal(w.id, "2206944706428651580");
    assert_string_equal(w.name, "instance-3");
    assert_string_equal(w.zone, "europe-west3-c");
    assert_false(w.spot);
    assert_int_equal(w.source, CLOUD_PLAN_NONE);
    assert_null(w.plan);
}

/* State is kept by instance: half an answer must not look like another machine. */
static void an_answer_without_an_instance_id_is_none(void **state)
{
    static const char *const roots[] = {
        "{\"instance\":{\"name\":\"a\"},\"project\":{}}",
        "{\"instance\":{\"id\":\"\"},\"project\":{}}",
        "{\"instance\":{\"id\":null},\"project\":{}}",
    };

    for (size_t i = 0; i < ELEMENTS(roots); i++) {
        auto_(cloud_state_unrefp) CloudState *answer = NULL;
        auto_free char *raw_path = NULL;
        auto_error Error error = {0};

        assert_int_equal(gce_parse_root(roots[i], strlen(roots[i]), &answer, &raw_path, &error),
                         -EBADMSG);
        assert_int_equal(error.kind, ERROR_CORRUPT);
        assert_contains(error_text(&error), "no instance id");
        assert_null(answer);
    }
}

static void a_change_arrives_by_the_long_poll(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};
    auto_free char *first_hash = NULL;

    fixture_tree(f, "", "\"mervis-plan\":\"A\",", "");
    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    loop_run_for(f->event, 100 * MSEC);
    assert_int_equal(f->n_root, 2);
    assert_int_equal(f->n_waits, 1);
    first_hash = strdup(w.hash);

    fixture_tree(f, "", "\"mervis-plan\":\"B\",", "");
    next_change(f, &w);
    assert_int_equal(w.changes, CLOUD_CHANGED_PLAN);
    assert_string_equal(w.plan, "B");
    assert_string_not_equal(w.hash, first_hash);

    fixture_tree(f, "\"preempted\":\"TRUE\",", "\"mervis-plan\":\"B\",", "");
    next_change(f, &w);
    assert_int_equal(w.changes, CLOUD_CHANGED_PREEMPTED);
    assert_true(w.preempted);

    fixture_tree(f,
                 "\"preempted\":\"TRUE\",\"maintenanceEvent\":\"TERMINATE_ON_HOST_MAINTENANCE\","
                 "\"virtualClock\":{\"driftToken\":\"7\"},",
                 "", "");
    next_change(f, &w);
    assert_int_equal(w.changes,
                     CLOUD_CHANGED_PLAN | CLOUD_CHANGED_MAINTENANCE | CLOUD_CHANGED_CLOCK);
    assert_int_equal(w.maintenance, CLOUD_MAINTENANCE_TERMINATE);
    assert_null(w.plan);
    assert_string_equal(w.hash, "");
    assert_int_equal(w.source, CLOUD_PLAN_NONE);
    assert_int_equal(w.calls, 4);
    assert_int_equal(w.troubles, 0);
}

static void a_pending_preemption_is_seen_at_start(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};

    fixture_tree(f, "\"preempted\":\"TRUE\",", "", "");
    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    assert_true(w.preempted && w.changes & CLOUD_CHANGED_PREEMPTED);
}

static void a_change_of_something_else_is_none(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};

    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    loop_run_for(f->event, 50 * MSEC);
    fixture_tree(f, "\"cpuPlatform\":\"other\",", "", "");
    http_server_release(f->server);
    loop_run_for(f->event, 500 * MSEC);
    assert_int_equal(w.calls, 1);
    assert_true(f->n_waits >= 2); /* it waits again, with the new ETag */
}

static void the_plan_comes_from_the_project_and_by_role(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};

    fixture_tree(f, "", "", "\"mervis-plan\":\"P\",\"mervis-plan-training\":\"T\",");
    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    assert_string_equal(w.plan, "P");
    assert_int_equal(w.source, CLOUD_PLAN_PROJECT);
    loop_run_for(f->event, 50 * MSEC);

    fixture_tree(f, "", "\"mervis-role\":\"training\",",
                 "\"mervis-plan\":\"P\",\"mervis-plan-training\":\"T\",");
    next_change(f, &w);
    assert_string_equal(w.plan, "T");
    assert_string_equal(w.role, "training");
    assert_string_equal(w.where, "project attribute mervis-plan-training");
    loop_run_for(f->event, 300 * MSEC);

    fixture_tree(f, "", "\"mervis-role\":\"training\",", "\"mervis-plan\":\"P\",");
    next_change(f, &w);
    assert_null(w.plan);
    assert_contains(w.where, "mervis-plan-training");
    loop_run_for(f->event, 300 * MSEC);

    fixture_tree(f, "", "\"mervis-role\":\"training\",\"mervis-plan\":\"\",", "");
    next_change(f, &w);
    assert_string_equal(w.plan, ""); /* set, and empty, is not absent */
    assert_int_equal(w.source, CLOUD_PLAN_INSTANCE);
}

static void a_plan_that_is_no_text_arrives_byte_by_byte(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};

    f->plan_reply = (Reply){.body = "{\xff\0}", .body_size = 4};
    fixture_tree(f, "", "\"mervis-plan\":\"{\xff\\u0000}\",\"other\":\"\xc3(\\udc80\",", "");
    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    assert_int_equal(f->n_raw, 1);
    assert_int_equal(w.plan_size, 4);
    assert_string_equal(w.plan, "{\xff");
}

static void a_raw_plan_that_fails_to_come_is_asked_for_again(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};

    f->plan_reply = (Reply){.status = 404};
    fixture_tree(f, "", "\"mervis-plan\":\"\\ufffd\",", "");
    watch(f, &w);
    loop_run_for(f->event, 300 * MSEC);
    assert_int_equal(w.calls, 0);
    f->plan_reply = (Reply){.body = "\xef\xbf\xbd"};
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    assert_string_equal(w.plan, "\xef\xbf\xbd");
}

static void outages_are_ridden_out_and_told_once_they_last(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};
    static const Reply faults[] = {
        {.status = 503},
        {.status = 429},
        {.mode = REPLY_RESET},
        {.mode = REPLY_EARLY},
        {.status = 200, .body = "captive portal"},
        {.status = 200, .headers = "Metadata-Flavor: Google\r\n", .body = "{\"instance\":"},
        {.status = 200, .headers = "Metadata-Flavor: Google\r\n", .body = "[]"},
    };

    f->root_reply = faults[0];
    watch(f, &w);
    for (size_t i = 0; i < ELEMENTS(faults); i++) {
        unsigned before = f->n_root;

        f->root_reply = faults[i];
        while (f->n_root < before + 1)
            loop_run_for(f->event, 20 * MSEC);
        assert_int_equal(w.calls, 0);
    }
    loop_run_until(f->event, &w.troubled, 15 * SECOND);
    assert_in_range(w.failing_usec, CLOUD_TROUBLE_USEC, CLOUD_TROUBLE_USEC + 5 * SECOND);
    assert_contains(w.message, "metadata");
    assert_in_range(w.troubles, 1, 2); /* at 10 s, at 20 s, … and not at every failure */
    assert_false(w.over);

    f->root_reply = (Reply){0};
    loop_run_until(f->event, &w.changed, 10 * SECOND);
    assert_true(w.over);
    assert_int_equal(w.calls, 1);
}

static void an_outage_is_over_with_the_first_answer_even_if_nothing_changed(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};
    unsigned before;

    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    loop_run_for(f->event, 300 * MSEC);
    f->root_reply = (Reply){.mode = REPLY_RESET};
    http_server_release(f->server);
    loop_run_until(f->event, &w.troubled, 15 * SECOND);
    f->root_reply = (Reply){0};
    loop_run_until(f->event, &w.over, 10 * SECOND);
    assert_int_equal(w.calls, 1);
    before = f->n_waits;
    loop_run_for(f->event, SECOND);
    assert_int_equal(f->n_waits, before + 1); /* and it waits again */
}

static void a_server_that_does_not_wait_is_not_asked_in_a_circle(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};

    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    /* Every answer at once, the same one, ETag and all. */
    f->root_reply =
        (Reply){.status = 200,
                .headers = http_server_keep(
                    f->server, str_printf("Metadata-Flavor: Google\r\nETag: %s\r\n", f->etag)),
                .body = f->root};
    http_server_release(f->server);
    loop_run_for(f->event, SECOND);
    assert_true(f->n_root <= 12);
    assert_int_equal(w.calls, 1);
}

static void a_watch_may_be_freed_by_its_handler(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {.free_me = true};

    watch(f, &w);
    loop_run_until(f->event, &w.changed, 5 * SECOND);
    loop_run_for(f->event, 50 * MSEC);
    assert_null(w.op);
    assert_int_equal(w.calls, 1);
}

/* --- Reading once --------------------------------------------------------------------------- */

typedef struct Once {
    CloudOp *op;
    bool done;
    char *name;
    int code;
} Once;

static void on_read(const CloudSnapshot *snapshot, const Error *err, void *userdata)
{
    Once *once = userdata;

    once->done = true;
    once->code = err ? err->code : 0;
    once->name = snapshot ? strdup(snapshot->identity->name) : NULL;
    once->op = cloud_op_free(once->op);
}

static void one_snapshot_can_be_had_without_a_watch(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    Once once = {0};

    f->root_reply = (Reply){.status = 503};
    assert_ok(cloud_read(f->cloud, on_read, &once, &once.op, &error), &error);
    loop_run_for(f->event, 30 * MSEC);
    f->root_reply = (Reply){0};
    loop_run_until(f->event, &once.done, 10 * SECOND);
    assert_string_equal(once.name, "web-1");
    free(once.name);
}

/* --- Tokens --------------------------------------------------------------------------------- */

typedef struct Token {
    CloudOp *op;
    struct Token *frees;
    char *token, *message, *remedy;
    int code;
    bool done;
} Token;

static void token_done(Token *t)
{
    cloud_op_free(t->op);
    free(t->token);
    free(t->message);
    free(t->remedy);
    *t = (Token){0};
}

#define auto_token auto_(token_done)

static void on_token(const char *token, const Error *err, void *userdata)
{
    Token *t = userdata;

    t->done = true;
    t->token = token ? strdup(token) : NULL;
    t->code = err ? err->code : 0;
    t->message = strdup(err ? error_text(err) : "");
    t->remedy = strdup(err && err->remedy ? err->remedy : "");
    if (t->frees)
        t->frees->op = cloud_op_free(t->frees->op);
}

static void ask_token(Fixture *f, Token *t)
{
    auto_error Error error = {0};

    assert_ok(cloud_token_get(f->cloud, on_token, t, &t->op, &error), &error);
    assert_false(t->done);
}

static void many_who_ask_share_one_request_and_the_cache(void **state)
{
    Fixture *f = *state;
    Token tokens[10] = {0};

    for (size_t i = 0; i < 10; i++)
        ask_token(f, &tokens[i]);
    for (size_t i = 0; i < 10; i++)
        loop_run_until(f->event, &tokens[i].done, 5 * SECOND);
    assert_int_equal(f->n_token, 1);
    for (size_t i = 0; i < 10; i++) {
        assert_string_equal(tokens[i].token, "tok-1");
        token_done(&tokens[i]);
        ask_token(f, &tokens[i]);
        loop_run_until(f->event, &tokens[i].done, 5 * SECOND);
        assert_string_equal(tokens[i].token, "tok-1");
        token_done(&tokens[i]);
    }
    assert_int_equal(f->n_token, 1);
}

static void one_who_is_told_may_free_another(void **state)
{
    Fixture *f = *state;
    auto_token Token a = {0}, b = {0};

    a.frees = &b;
    b.frees = &a;
    ask_token(f, &a);
    ask_token(f, &b);
    loop_run_for(f->event, 200 * MSEC);
    assert_int_equal(a.done + b.done, 1);
}

static void an_invalid_token_is_replaced_once(void **state)
{
    Fixture *f = *state;
    auto_token Token a = {0}, b = {0}, c = {0};

    ask_token(f, &a);
    loop_run_until(f->event, &a.done, 5 * SECOND);
    f->token_number = 2;
    cloud_token_invalidate(f->cloud, "tok-1");
    cloud_token_invalidate(f->cloud, "tok-1");
    ask_token(f, &b);
    loop_run_until(f->event, &b.done, 5 * SECOND);
    assert_string_equal(b.token, "tok-2");
    cloud_token_invalidate(f->cloud, "tok-1"); /* late news about the old one */
    ask_token(f, &c);
    loop_run_until(f->event, &c.done, 5 * SECOND);
    assert_string_equal(c.token, "tok-2");
    assert_int_equal(f->n_token, 2);
}

static void a_token_near_its_end_still_serves_while_the_next_is_fetched(void **state)
{
    Fixture *f = *state;
    auto_token Token a = {0}, b = {0};

    f->token_seconds = 1;
    ask_token(f, &a);
    loop_run_until(f->event, &a.done, 5 * SECOND);
    loop_run_for(f->event, 1100 * MSEC);
    f->token_number = 2;
    f->token_seconds = 3599;
    ask_token(f, &b);
    loop_run_until(f->event, &b.done, 5 * SECOND);
    assert_string_equal(b.token, "tok-2"); /* the first is over */
}

static void a_machine_without_an_account_says_so(void **state)
{
    Fixture *f = *state;
    auto_token Token t = {0};

    f->token_reply = (Reply){.status = 404, .headers = "Metadata-Flavor: Google\r\n"};
    ask_token(f, &t);
    loop_run_until(f->event, &t.done, 5 * SECOND);
    assert_int_equal(t.code, -ENOENT);
    assert_contains(t.message, "no service account");
    assert_contains(t.remedy, "gcloud compute instances set-service-account");
}

static void a_token_request_that_fails_fails_all_and_the_next_may_succeed(void **state)
{
    Fixture *f = *state;
    auto_token Token a = {0}, b = {0}, c = {0};

    f->token_reply = (Reply){.status = 400};
    ask_token(f, &a);
    ask_token(f, &b);
    loop_run_until(f->event, &a.done, 5 * SECOND);
    loop_run_until(f->event, &b.done, 5 * SECOND);
    assert_true(a.code < 0 && b.code < 0);
    f->token_reply = (Reply){0};
    ask_token(f, &c);
    loop_run_until(f->event, &c.done, 5 * SECOND);
    assert_string_equal(c.token, "tok-1");
}

/* --- Requests with a token ------------------------------------------------------------------- */

typedef struct Answer {
    CloudOp *op;
    bool done;
    long status;
    int code;
    char body[64];
} Answer;

static void on_http(const HttpResponse *response, const Error *err, void *userdata)
{
    Answer *a = userdata;

    a->done = true;
    a->status = response->status;
    a->code = err ? err->code : 0;
    (void)snprintf(a->body, sizeof(a->body), "%s", buf_str(&response->body));
    a->op = cloud_op_free(a->op);
}

static void a_401_renews_the_token_once(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    Answer well = {0}, refused = {0};
    const HttpRequest request = {
        .url = "https://secretmanager.googleapis.com/x", .body = "b", .body_size = 1};

    f->secret_replies[0] = (Reply){.status = 401};
    f->secret_replies[1] = (Reply){.body = "fine"};
    f->n_secret_replies = 2;
    f->secret_reply = (Reply){.status = 401};
    assert_ok(cloud_http(f->cloud, &request, on_http, &well, &well.op, &error), &error);
    loop_run_until(f->event, &well.done, 5 * SECOND);
    assert_int_equal(well.status, 200);
    assert_string_equal(well.body, "fine");
    assert_int_equal(f->n_token, 2);

    f->token_number = 2;
    assert_ok(cloud_http(f->cloud, &request, on_http, &refused, &refused.op, &error), &error);
    loop_run_until(f->event, &refused.done, 5 * SECOND);
    assert_int_equal(refused.status, 401);
    assert_int_equal(f->n_secret, 4);
    assert_string_equal(f->last_authorization, "Bearer tok-2");
}

/* --- Registries ----------------------------------------------------------------------------- */

static void the_token_goes_to_our_registries_alone(void **state)
{
    Fixture *f = *state;
    static const char *const good[] = {"asia-northeast3-docker.pkg.dev",
                                       "gcr.io",
                                       "EU.gcr.io",
                                       "pkg.dev:443",
                                       "127.0.0.1:5000",
                                       "localhost:5000"};
    static const char *const bad[] = {"docker.io",           "x-docker.pkg.dev.evil.example",
                                      "evilpkg.dev",         "asia-docker.pkg.dev:8443",
                                      "10.0.0.1:5000",       "x@gcr.io",
                                      "evil.example/gcr.io", ""};

    for (size_t i = 0; i < ELEMENTS(good); i++)
        if (!cloud_login_applies(f->cloud, good[i]))
            fail_msg("%s", good[i]);
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        if (cloud_login_applies(f->cloud, bad[i]))
            fail_msg("%s", bad[i]);
}

static void a_real_metadata_server_gives_loopback_nothing(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    const CloudConfig config = {f->event, f->client, f->dir};
    auto_(cloud_freep) Cloud *cloud = NULL;

    assert_int_equal(setenv("GCE_METADATA_HOST", "metadata.google.internal", 1), 0);
    assert_ok(cloud_new(&config, &cloud, &error), &error);
    assert_false(cloud_login_applies(cloud, "127.0.0.1:5000"));
    assert_true(cloud_login_applies(cloud, "gcr.io"));
    assert_false(cloud_login_realm_allowed(cloud, "gcr.io", "http://127.0.0.1:80/token"));
}

static void a_realm_is_checked_before_it_sees_the_login(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    auto_free char *mapped = str_printf("http://127.0.0.1:%u/token", http_server_port(f->server));
    const HttpEndpoint endpoint = {"a-docker.pkg.dev", "https://mirror.example/v"};
    static const char *const host = "a-docker.pkg.dev";

    assert_ok(http_client_set_endpoints(f->client, &endpoint, 1, &error), &error);
    assert_true(cloud_login_realm_allowed(f->cloud, host, "https://a-docker.pkg.dev/v2/token"));
    assert_true(cloud_login_realm_allowed(f->cloud, host, "https://mirror.example/v2/token"));
    assert_true(cloud_login_realm_allowed(f->cloud, host, mapped)); /* loopback, under test */
    assert_false(cloud_login_realm_allowed(f->cloud, host, "http://a-docker.pkg.dev/v2/token"));
    assert_false(cloud_login_realm_allowed(f->cloud, host, "https://evil.example/token"));
    assert_false(cloud_login_realm_allowed(f->cloud, host, "http://169.254.169.254/token"));
    assert_false(
        cloud_login_realm_allowed(f->cloud, "b-docker.pkg.dev", "https://mirror.example/v2/token"));
    assert_false(cloud_login_realm_allowed(f->cloud, "docker.io", "https://gcr.io/token"));
}

typedef struct Login {
    CloudOp *op;
    bool done;
    char user[32], password[32];
} Login;

static void on_login(const char *user, const char *password, const Error *err, void *userdata)
{
    Login *login = userdata;

    login->done = true;
    (void)snprintf(login->user, sizeof(login->user), "%s", user ? user : "(none)");
    (void)snprintf(login->password, sizeof(login->password), "%s", password ? password : "(none)");
    login->op = cloud_op_free(login->op);
}

static void a_login_is_the_token_or_nobody(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    Login ours = {0}, theirs = {0};

    assert_ok(cloud_login_get(f->cloud, "gcr.io", on_login, &ours, &ours.op, &error), &error);
    assert_ok(cloud_login_get(f->cloud, "docker.io", on_login, &theirs, &theirs.op, &error),
              &error);
    loop_run_until(f->event, &ours.done, 5 * SECOND);
    loop_run_until(f->event, &theirs.done, 5 * SECOND);
    assert_string_equal(ours.user, "oauth2accesstoken");
    assert_string_equal(ours.password, "tok-1");
    assert_string_equal(theirs.user, "(none)");

    f->token_number = 2;
    cloud_login_refused(f->cloud, "docker.io");
    cloud_login_refused(f->cloud, "gcr.io");
    ours = (Login){0};
    assert_ok(cloud_login_get(f->cloud, "gcr.io", on_login, &ours, &ours.op, &error), &error);
    loop_run_until(f->event, &ours.done, 5 * SECOND);
    assert_string_equal(ours.password, "tok-2");
}

static void read_identity(Fixture *f)
{
    auto_error Error error = {0};
    Once once = {0};

    assert_ok(cloud_read(f->cloud, on_read, &once, &once.op, &error), &error);
    loop_run_until(f->event, &once.done, 5 * SECOND);
    free(once.name);
}

static void a_refused_pull_names_the_role_or_the_scope(void **state)
{
    Fixture *f = *state;
    auto_error Error role = {0}, scope = {0};

    read_identity(f);
    (void)error_set(&role, -EACCES, ERROR_DENIED, "registry: HTTP 403");
    assert_int_equal(
        cloud_login_explain(f->cloud, "asia-northeast3-docker.pkg.dev", "proj/repo/image", &role),
        -EACCES);
    assert_string_equal(role.remedy,
                        "gcloud artifacts repositories add-iam-policy-binding repo "
                        "--location=asia-northeast3 --project=proj "
                        "--member=serviceAccount:" EMAIL " --role=roles/artifactregistry.reader");

    f->scopes = "https://www.googleapis.com/auth/devstorage.read_only";
    fixture_tree(
        f, "", "\"created-by\":\"projects/123/regions/asia-northeast3/instanceGroupManagers/web\",",
        "");
    read_identity(f);
    (void)error_set(&scope, -EACCES, ERROR_DENIED, "registry: HTTP 403");
    assert_int_equal(cloud_login_explain(f->cloud, "gcr.io", "proj/image", &scope), -EACCES);
    assert_contains(error_text(&scope), "scopes are too narrow");
    assert_contains(scope.remedy, "rolling-action start-update web");
    assert_contains(scope.remedy, "--region=asia-northeast3");
}

/* --- Status --------------------------------------------------------------------------------- */

static void status_is_published_once_and_gathered(void **state)
{
    Fixture *f = *state;

    cloud_publish(f->cloud, "status", "starting");
    loop_run_for(f->event, 100 * MSEC);
    assert_int_equal(f->n_publish, 1);
    assert_string_equal(f->last_published, "PUT mervis/status=starting");
    for (int i = 0; i < 50; i++)
        cloud_publish(f->cloud, "status", i % 2 ? "well" : "busy");
    cloud_publish(f->cloud, "status", "starting");
    loop_run_for(f->event, 300 * MSEC);
    assert_int_equal(f->n_publish, 1);
}

static void status_that_is_switched_off_is_no_error(void **state)
{
    Fixture *f = *state;

    f->publish_reply = (Reply){.status = 403};
    for (int i = 0; i < 10; i++) {
        cloud_publish(f->cloud, "status", i % 2 ? "a" : "b");
        loop_run_for(f->event, 20 * MSEC);
    }
    assert_int_equal(f->n_publish, 1);
}

/* --- The end -------------------------------------------------------------------------------- */

static void a_cloud_that_goes_takes_its_work_along(void **state)
{
    Fixture *f = *state;
    auto_watched Watched w = {0};
    auto_token Token t = {0};
    auto_error Error error = {0};
    Answer a = {0};
    const HttpRequest request = {.url = "https://secretmanager.googleapis.com/x"};

    watch(f, &w);
    ask_token(f, &t);
    assert_ok(cloud_http(f->cloud, &request, on_http, &a, &a.op, &error), &error);
    cloud_publish(f->cloud, "status", "x");
    f->cloud = cloud_free(f->cloud);
    loop_run_for(f->event, 100 * MSEC);
    assert_false(w.changed || t.done || a.done);
    cloud_op_free(a.op);
}

TEST_MAIN(TEST(the_first_snapshot_says_who_we_are), TEST(an_answer_without_an_instance_id_is_none),
          TEST(the_script_that_installs_the_package_is_no_old_one), TEST(a_recorded_tree_is_read),
          TEST(a_change_arrives_by_the_long_poll), TEST(a_pending_preemption_is_seen_at_start),
          TEST(a_change_of_something_else_is_none),
          TEST(the_plan_comes_from_the_project_and_by_role),
          TEST(a_plan_that_is_no_text_arrives_byte_by_byte),
          TEST(a_raw_plan_that_fails_to_come_is_asked_for_again),
          TEST(outages_are_ridden_out_and_told_once_they_last),
          TEST(an_outage_is_over_with_the_first_answer_even_if_nothing_changed),
          TEST(a_server_that_does_not_wait_is_not_asked_in_a_circle),
          TEST(a_watch_may_be_freed_by_its_handler), TEST(one_snapshot_can_be_had_without_a_watch),
          TEST(many_who_ask_share_one_request_and_the_cache),
          TEST(one_who_is_told_may_free_another), TEST(an_invalid_token_is_replaced_once),
          TEST(a_token_near_its_end_still_serves_while_the_next_is_fetched),
          TEST(a_machine_without_an_account_says_so),
          TEST(a_token_request_that_fails_fails_all_and_the_next_may_succeed),
          TEST(a_401_renews_the_token_once), TEST(the_token_goes_to_our_registries_alone),
          TEST(a_real_metadata_server_gives_loopback_nothing),
          TEST(a_realm_is_checked_before_it_sees_the_login), TEST(a_login_is_the_token_or_nobody),
          TEST(a_refused_pull_names_the_role_or_the_scope),
          TEST(status_is_published_once_and_gathered),
          TEST(status_that_is_switched_off_is_no_error),
          TEST(a_cloud_that_goes_takes_its_work_along))
