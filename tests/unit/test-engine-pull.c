/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine-fixture.h"

#include <errno.h>

#include "agent/io/crypto.h"

/* ---- Pulls ---------------------------------------------------------------------------------- */

static void start_pull(Machine *m, const char *username, const char *password, Call *call)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_error Error err = {0};
    const Platform platform = {.os = "linux", .architecture = "amd64"};
    EnginePull pull = {.digest = DIGEST,
                       .platform = &platform,
                       .username = username,
                       .password = password,
                       .on_progress = on_progress};

    assert_ok(reference_parse("europe-west1-docker.pkg.dev/p/r/app:stable", &reference, &err),
              &err);
    pull.reference = reference;
    assert_ok(engine_pull(m->engine, &pull, on_reply, call, &call->op, &err), &err);
    assert_true(engine_is_pulling(m->engine));
}

/* A password whose plain base64 has '+' and '/': the engine ignores a header of that alphabet. */
static void a_pull_brings_its_credentials_as_the_engine_reads_them(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};
    auto_buf Buf decoded = BUF_INIT(4096);
    const char *header;

    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server,
                      &(Reply){.mode = REPLY_CHUNKED,
                               .body = "{\"status\":\"Pulling from p/r/app\"}\r\n{\"status\":"
                                       "\"Downloading\",\"progressDetail\":{\"current\":5,\"total\""
                                       ":50},\"id\":\"aaaaaaaaaaaa\"}\r\n{\"status\":\"Status: "
                                       "Downloaded newer image\"}\r\n"});
    script(m, 200, "{\"Id\":\"sha256:1\",\"RepoDigests\":[],\"Os\":\"linux\"}");
    start_pull(m, "oauth2accesstoken", "?>~?>~?>~", &call);
    finish(m, &call);

    assert_ok(call.err.code, &call.err);
    assert_string_equal(call.id, "sha256:1");
    assert_int_equal(call.n_images, 1);
    assert_int_equal(call.total, 50);
    assert_false(engine_is_pulling(m->engine));
    assert_string_equal(http_server_request(m->f.server, 1)->method, "POST");
    assert_string_equal(
        target(m, 1),
        "/v1.41/images/create?fromImage=europe-west1-docker.pkg.dev%2Fp%2Fr%2Fapp"
        "&tag=sha256%3Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "&platform=linux%2Famd64");
    assert_string_equal(target(m, 2),
                        "/v1.41/images/europe-west1-docker.pkg.dev/p/r/app@" DIGEST "/json");

    header = request_header(http_server_request(m->f.server, 1), "X-Registry-Auth");
    assert_null(strpbrk(header, "+/"));
    assert_non_null(strpbrk(header, "-_"));
    assert_int_equal(strlen(header) % 4, 0);
    assert_int_equal(base64_decode(header, strlen(header), &decoded), 0);
    assert_string_equal(buf_str(&decoded),
                        "{\"username\":\"oauth2accesstoken\",\"password\":\"?>~?>~?>~\","
                        "\"serveraddress\":\"europe-west1-docker.pkg.dev\"}");
    assert_null(request_header(http_server_request(m->f.server, 2), "X-Registry-Auth"));
}

static void a_pull_that_fails_within_its_200_fails(void **state)
{
    static const struct {
        const char *body;
        int status, code;
        ErrorKind kind;
        ReplyMode mode;
    } cases[] = {
        {"{\"status\":\"x\"}\r\n{\"errorDetail\":{\"message\":\"no space left on device\"}}\r\n",
         200, -ENOSPC, ERROR_TEMPORARY, REPLY_CHUNKED},
        {"{\"error\":\"unauthorized: expired\"}", 200, -EACCES, ERROR_DENIED, REPLY_NORMAL},
        {"{\"status\":\"x\"}{\"stat", 200, -ENOTCONN, ERROR_TEMPORARY, REPLY_NORMAL},
        {"{\"status\":\"x\"}\nfatal", 200, -EBADMSG, ERROR_CORRUPT, REPLY_NORMAL},
        {"{\"status\":\"x\"}", 200, -ENOTCONN, ERROR_TEMPORARY, REPLY_SHORT},
        {"{\"message\":\"manifest for x not found: manifest unknown\"}", 404, -ENOENT,
         ERROR_INVALID, REPLY_NORMAL},
        {"{\"message\":\"pull access denied for x, repository does not exist\"}", 404, -ENOENT,
         ERROR_INVALID, REPLY_NORMAL},
    };
    Machine *m = *state;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_call Call call = {0};

        if (engine_api_version(m->engine) == 0)
            script_ping(m, "Api-Version: 1.41\r\n");
        http_server_reply(
            m->f.server,
            &(Reply){.status = cases[i].status, .body = cases[i].body, .mode = cases[i].mode});
        start_pull(m, NULL, NULL, &call);
        finish(m, &call);
        assert_failed(&call, cases[i].code, cases[i].kind,
                      "pull europe-west1-docker.pkg.dev/p/r/app@sha256:aaa");
        assert_false(engine_is_pulling(m->engine));
    }
}

static void a_pull_that_was_called_done_must_be_there(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 200, "{\"status\":\"Status: Downloaded newer image\"}");
    script(m, 404, "{\"message\":\"No such image\"}");
    start_pull(m, NULL, NULL, &call);
    finish(m, &call);
    assert_failed(&call, -ENOENT, ERROR_INVALID, "No such image");
}

static void a_pull_that_stands_still_is_cut(void **state)
{
    Machine *m = *state;
    auto_call Call silent = {0};
    auto_call Call stalled = {0};

    engine_set_timeouts(m->engine, 0, 300 * MSEC, 300 * MSEC);
    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_HANG});
    start_pull(m, NULL, NULL, &silent);
    finish(m, &silent);
    assert_failed(&silent, -ESTALE, ERROR_TEMPORARY, "did not begin");
    assert_false(engine_is_pulling(m->engine));

    http_server_reply(m->f.server, &(Reply){.mode = REPLY_STALL, .body = "{\"status\":\"x\"} "});
    start_pull(m, NULL, NULL, &stalled);
    finish(m, &stalled);
    assert_failed(&stalled, -ESTALE, ERROR_TEMPORARY, "stood still");
}

static void a_slow_pull_that_moves_is_not_cut(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};

    engine_set_timeouts(m->engine, 0, 15 * SECOND, 400 * MSEC);
    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_DRIP,
                                            .drip_usec = 30 * MSEC,
                                            .body = "{\"status\":\"Waiting\"}\r\n"});
    script(m, 200, "{\"Id\":\"sha256:1\"}");
    start_pull(m, NULL, NULL, &call);
    finish(m, &call);
    assert_ok(call.err.code, &call.err);
}

static void freeing_a_pull_ends_it(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_STALL, .body = "{\"status\":\"x\"} "});
    start_pull(m, NULL, NULL, &call);
    loop_run_for(m->f.event, 100 * MSEC);
    call.op = engine_op_free(call.op);
    assert_false(engine_is_pulling(m->engine));
    loop_run_for(m->f.event, 50 * MSEC);
    assert_false(call.done);
}

/* ---- Images --------------------------------------------------------------------------------- */

static void images_in_use_are_busy_and_never_forced(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 409,
           "{\"message\":\"conflict: unable to delete 8c897ece9aad (must be forced) - image "
           "is being used by stopped container eca55c72e3d7\"}");
    assert_ok(engine_remove_image(m->engine, "sha256:8c89", on_reply, &call, &call.op, &err), &err);
    finish(m, &call);
    assert_failed(&call, -EBUSY, ERROR_INVALID, "stopped container");
    assert_string_equal(target(m, 1), "/v1.41/images/sha256:8c89");
}

/* ---- Events --------------------------------------------------------------------------------- */

typedef struct Watch {
    EngineEvents *events;
    unsigned n_up, n_down, n_events;
    int code;
    char *last_name;
    bool seen, back; /* for the loop */
    bool frees;
} Watch;

static void on_event(const EngineEvent *event, void *userdata)
{
    Watch *w = userdata;

    w->n_events++;
    free(w->last_name);
    w->last_name = strdup(event->name);
    w->seen = true;
    if (w->frees)
        w->events = engine_events_free(w->events);
}

static void on_up(void *userdata)
{
    Watch *w = userdata;

    w->back = ++w->n_up == 2;
}

static void on_down(const Error *err, void *userdata)
{
    Watch *w = userdata;

    w->n_down++;
    w->code = err->code;
}

static const EngineEventsHandlers handlers = {on_event, on_up, on_down};

#define INFO "{\"DockerRootDir\":\"/var/lib/docker\"}"
#define EVENT(name, nano)                                                                          \
    "{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"x\",\"Attributes\":{\"name\":" \
    "\"" name "\"}},\"timeNano\":" nano "}\n"

static void events_go_on_after_an_outage_from_where_they_were(void **state)
{
    Machine *m = *state;
    Watch w = {0};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 200, INFO);
    /* The stream ends: the engine was restarted, and for a while it does not answer. */
    http_server_reply(m->f.server,
                      &(Reply){.mode = REPLY_CHUNKED, .body = EVENT("web", "1700000000000000041")});
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_EARLY});
    script_ping(m, "Api-Version: 1.43\r\n");
    script(m, 200, INFO);
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_STALL, .body = EVENT("db", "1") " "});
    assert_ok(engine_events_new(m->engine, "io.mervis.container", &handlers, &w, &w.events, &err),
              &err);
    loop_run_until(m->f.event, &w.back, 20 * SECOND);
    w.seen = false;
    loop_run_until(m->f.event, &w.seen, 5 * SECOND);

    assert_int_equal(w.n_up, 2);
    assert_int_equal(w.n_down, 1); /* one outage, said once */
    assert_int_equal(w.code, -ENOTCONN);
    assert_string_equal(w.last_name, "db");
    assert_true(engine_events_is_up(w.events));
    assert_contains(target(m, 2), "/v1.41/events?filters=%7B%22event%22");
    assert_contains(target(m, 2), "io.mervis.container");
    assert_contains(target(m, 6), "/v1.43/events?");
    w.events = engine_events_free(w.events);
    free(w.last_name);
}

static void events_may_be_freed_from_inside(void **state)
{
    Machine *m = *state;
    Watch w = {.frees = true};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 200, INFO);
    http_server_reply(m->f.server,
                      &(Reply){.mode = REPLY_STALL, .body = EVENT("a", "1") EVENT("b", "2") " "});
    assert_ok(engine_events_new(m->engine, NULL, &handlers, &w, &w.events, &err), &err);
    loop_run_until(m->f.event, &w.seen, 5 * SECOND);
    loop_run_for(m->f.event, 50 * MSEC);
    assert_int_equal(w.n_events, 1);
    free(w.last_name);
}

TEST_MAIN(MACHINE_TEST(a_pull_brings_its_credentials_as_the_engine_reads_them),
          MACHINE_TEST(a_pull_that_fails_within_its_200_fails),
          MACHINE_TEST(a_pull_that_was_called_done_must_be_there),
          MACHINE_TEST(a_pull_that_stands_still_is_cut),
          MACHINE_TEST(a_slow_pull_that_moves_is_not_cut), MACHINE_TEST(freeing_a_pull_ends_it),
          MACHINE_TEST(images_in_use_are_busy_and_never_forced),
          MACHINE_TEST(events_go_on_after_an_outage_from_where_they_were),
          MACHINE_TEST(events_may_be_freed_from_inside))
