/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_ENGINE_FIXTURE_H
#define TESTS_UNIT_ENGINE_FIXTURE_H

/* A container engine's client on a scripted server, and what a call came to. */

#include "tests/unit/http-fixture.h"

#include <string.h>

#include "agent/engine/engine.h"

#define JSON_HEADER "Content-Type: application/json\r\n"
#define DIGEST      "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

/* ---- A scripted engine ---------------------------------------------------------------------- */

typedef struct Machine {
    Fixture f;
    char *dir, *socket;
    Engine *engine;
} Machine;

static inline unused_ int machine_setup(void **state)
{
    Machine *m = calloc(1, sizeof(*m));
    auto_error Error err = {0};

    assert_non_null(m);
    m->dir = test_dir_new();
    m->socket = str_printf("%s/engine.sock", m->dir);
    assert_ok(loop_new(&m->f.event, &err), &err);
    assert_ok(http_client_new(m->f.event, "mervis-test/1", &m->f.client, &err), &err);
    m->f.server = http_server_new(m->f.event, m->socket);
    m->f.other = http_server_new(m->f.event, NULL);
    assert_ok(engine_new(m->f.client, m->f.event, m->socket, &m->engine, &err), &err);
    *state = m;
    return 0;
}

static inline unused_ int machine_teardown(void **state)
{
    Machine *m = *state;

    (void)engine_free(m->engine);
    (void)http_client_free(m->f.client);
    (void)http_server_free(m->f.server);
    (void)http_server_free(m->f.other);
    (void)sd_event_unref(m->f.event);
    test_dir_done(&m->dir);
    free(m->socket);
    free(m);
    return 0;
}

#define MACHINE_TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

static inline unused_ void script(Machine *m, int status, const char *body)
{
    http_server_reply(m->f.server, &(Reply){.status = status, .body = body});
}

static inline unused_ void script_ping(Machine *m, const char *headers)
{
    http_server_reply(m->f.server, &(Reply){.headers = headers, .body = "OK"});
}

/* ---- One call ------------------------------------------------------------------------------- */

typedef struct Call {
    bool done;
    EngineOp *op;
    Error err;
    bool changed;
    int exit_code;
    char *id, *text, *name;
    size_t n_containers, n_images;
    unsigned n_progress;
    uint64_t total;
} Call;

static inline unused_ void call_done(Call *call)
{
    (void)engine_op_free(call->op);
    error_done(&call->err);
    free(call->id);
    free(call->text);
    free(call->name);
    *call = (Call){0};
}

#define auto_call auto_(call_done)

static inline unused_ void on_reply(EngineOp *op, const EngineReply *reply, const Error *err,
                                    void *userdata)
{
    Call *call = userdata;

    assert_false(call->done);
    call->done = true;
    if (err) {
        (void)error_copy(&call->err, err);
        return;
    }
    call->changed = reply->changed;
    call->exit_code = reply->exit_code;
    call->id = reply->id ? strdup(reply->id) : NULL;
    call->text = reply->text ? strdup(reply->text) : NULL;
    call->n_containers = reply->n_containers;
    call->n_images = reply->n_images;
    if (reply->n_containers)
        call->name = strdup(reply->containers[0].name);
}

static inline unused_ void on_progress(EngineOp *op, const EnginePullProgress *progress,
                                       void *userdata)
{
    Call *call = userdata;

    call->n_progress++;
    call->total = progress->total_bytes;
}

static inline unused_ void finish(Machine *m, Call *call)
{
    assert_false(call->done);
    loop_run_until(m->f.event, &call->done, 20 * SECOND);
}

static inline unused_ void inspect(Machine *m, Call *call)
{
    auto_error Error err = {0};

    assert_ok(engine_inspect_container(m->engine, "web", on_reply, call, &call->op, &err), &err);
    finish(m, call);
}

static inline unused_ const char *target(Machine *m, size_t i)
{
    return http_server_request(m->f.server, i)->target;
}

static inline unused_ void assert_failed(const Call *call, int code, ErrorKind kind,
                                         const char *message)
{
    if (call->err.code != code)
        fail_msg("%d, not %d: %s", call->err.code, code, error_text(&call->err));
    assert_int_equal(call->err.kind, kind);
    assert_contains(call->err.message, message);
}

#define CONTAINER                                                                                  \
    "{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"running\",\"Running\":true,"         \
    "\"StartedAt\":\"2024-01-01T00:00:00Z\"},\"NetworkSettings\":{\"IPAddress\":\"127.0.0.1\"}}"

#endif
