/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/engine/engine-internal.h"
#include "agent/engine/engine-stream.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

#define LOG_TEXT_MAX  (64U << 10)
#define LOG_LINES_MAX 1000
#define STOP_UNKNOWN_USEC                                                                          \
    (15 * MINUTE) /* the container's own stop time-out is not ours to know                         \
                   */

/* 304: it was so already. */
static void change_answered(EngineOp *op, const HttpResponse *response)
{
    engine_op_succeed(op, &(EngineReply){.changed = response->status != 304});
}

/* ---- Create --------------------------------------------------------------------------------- */

static void create_answered(EngineOp *op, const HttpResponse *response)
{
    static const char *const none[] = {NULL};
    auto_(strv_freep) char **warnings = NULL;
    json_auto_t *doc = engine_op_json(op, response);
    auto_error Error err = {0};
    const char *id = json_str(doc, "Id");
    const json_t *value;
    size_t i;

    if (!doc)
        return;
    if (!id) {
        (void)error_set(&err, -EBADMSG, ERROR_CORRUPT, "the engine names no id");
        engine_op_fail(op, &err);
        return;
    }
    json_array_foreach (json_object_get(doc, "Warnings"), i, value) {
        const char *text = json_string_value(value);
        auto_free char *escaped = text ? str_escape(text, strlen(text), 400) : NULL;

        if (escaped && strv_push(&warnings, escaped) < 0)
            break;
    }

    engine_op_succeed(op, &(EngineReply){
                              .changed = true,
                              .id = id,
                              .warnings = warnings ? (const char *const *)warnings : none,
                          });
}

int engine_create_container(Engine *engine, const char *name, const EngineContainerSpec *spec,
                            EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    auto_free char *escaped = url_escape(name, "");
    int r;

    if (!escaped)
        return error_oom(err);
    r = engine_op_new(engine, "POST", handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->answered = create_answered;
    op->conflict_code = -EEXIST;
    op->timeout_usec = engine->change_usec;
    r = engine_op_describe(op, err, "create container %s", name);
    if (r >= 0)
        r = engine_op_path(op, err, "/containers/create?name=%s", escaped);
    if (r >= 0)
        r = engine_spec_json(spec, &op->body, err);
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}

/* ---- Start ---------------------------------------------------------------------------------- */

typedef struct TakenPort {
    uint16_t port;
    Error refusal; /* what start said */
} TakenPort;

static void taken_port_free(void *state)
{
    TakenPort *taken = state;

    error_done(&taken->refusal);
    free(taken);
}

static const EngineContainer *publisher_of(const EngineDoc *doc, uint16_t port)
{
    for (size_t i = 0; i < doc->n_containers; i++)
        for (size_t k = 0; k < doc->containers[i].n_ports; k++)
            if (doc->containers[i].ports[k].host_port == port)
                return &doc->containers[i];

    return NULL;
}

static void fail_taken(EngineOp *op, const EngineDoc *doc)
{
    const TakenPort *taken = op->state;
    const EngineContainer *container = publisher_of(doc, taken->port);
    auto_free char *process = NULL;
    auto_error Error err = {0};

    if (container) {
        (void)error_set(&err, -EADDRINUSE, ERROR_INVALID,
                        "port %u is taken by container %s (image %s)", taken->port, container->name,
                        container->image);
        (void)error_remedy(&err, -EADDRINUSE, "docker stop %s, or publish another port",
                           container->name);
    } else if (port_owner(taken->port, &process) > 0) {
        (void)error_set(&err, -EADDRINUSE, ERROR_INVALID, "port %u is taken by %s", taken->port,
                        process);
        (void)error_remedy(&err, -EADDRINUSE, "end that process, or publish another port");
    } else {
        (void)error_copy(&err, &taken->refusal);
        (void)error_remedy(&err, err.code, "sudo ss -tlnp 'sport = :%u'", taken->port);
    }
    engine_op_fail(op, &err);
}

static void owner_answered(EngineOp *op, const HttpResponse *response)
{
    auto_(engine_doc_done) EngineDoc doc = {0};
    json_t *value = NULL;

    /* Whatever is wrong with the list, the port is taken. */
    if (json_parse_quiet(buf_str(&response->body), response->body.size, &value) > 0 &&
        engine_parse_container_list(value, &doc, NULL) < 0)
        doc = (EngineDoc){0};
    fail_taken(op, &doc);
}

static bool owner_refused(EngineOp *op, const HttpResponse *response, Error *err)
{
    fail_taken(op, &(EngineDoc){0});
    return true;
}

static bool owner_broken(EngineOp *op, const Error *http_err)
{
    fail_taken(op, &(EngineDoc){0});
    return true;
}

/* A taken port is worth a second question: by whom? */
static bool start_refused(EngineOp *op, const HttpResponse *response, Error *err)
{
    uint16_t port = err->code == -EADDRINUSE ? port_in_message(error_text(err)) : 0;
    TakenPort *taken;

    if (!port)
        return false;
    taken = calloc(1, sizeof(*taken));
    if (!taken)
        return false;
    op->state = taken;
    op->state_free = taken_port_free;
    taken->port = port;
    (void)error_move(&taken->refusal, err);

    free(op->path);
    op->path = strdup("/containers/json");
    if (!op->path) {
        fail_taken(op, &(EngineDoc){0});
        return true;
    }
    op->method = "GET";
    op->max_body = ENGINE_LIST_BODY_MAX;
    op->answered = owner_answered;
    op->refused = owner_refused;
    op->broken = owner_broken;
    engine_op_send(op);
    return true;
}

int engine_start_container(Engine *engine, const char *name, EngineHandler handler, void *userdata,
                           EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    r = engine_op_on(engine,
                     &(EngineObject){"POST", "containers", "start container", name, "/start"},
                     change_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->refused = start_refused;
    op->timeout_usec = engine->change_usec;

    return engine_op_start(&op, ret, err);
}

/* ---- Stop, rename, update, remove
 * ------------------------------------------------------------------- */

int engine_stop_container(Engine *engine, const char *name, uint64_t timeout_usec,
                          EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    uint64_t seconds = timeout_usec == USEC_INFINITY ? 0 : (timeout_usec + SECOND - 1) / SECOND;
    auto_free char *rest =
        timeout_usec == USEC_INFINITY ? strdup("/stop") : str_printf("/stop?t=%" PRIu64, seconds);
    int r;

    if (!rest)
        return error_oom(err);
    r = engine_op_on(engine, &(EngineObject){"POST", "containers", "stop container", name, rest},
                     change_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->timeout_usec = timeout_usec == USEC_INFINITY ? STOP_UNKNOWN_USEC
                                                     : seconds * SECOND + ENGINE_STOP_MARGIN_USEC;

    return engine_op_start(&op, ret, err);
}

int engine_rename_container(Engine *engine, const char *name, const char *new_name,
                            EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    auto_free char *escaped = url_escape(new_name, "");
    auto_free char *rest = escaped ? str_printf("/rename?name=%s", escaped) : NULL;
    int r;

    if (!rest)
        return error_oom(err);
    r = engine_op_on(engine, &(EngineObject){"POST", "containers", "rename container", name, rest},
                     change_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->conflict_code = -EEXIST;

    return engine_op_start(&op, ret, err);
}

int engine_set_restart(Engine *engine, const char *name, EngineRestart restart,
                       EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    json_auto_t *body = json_pack("{s:o}", "RestartPolicy", engine_restart_json(restart, 0));
    int r;

    r = engine_op_on(
        engine,
        &(EngineObject){"POST", "containers", "restart policy of container", name, "/update"},
        change_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->body = body ? json_dumps(body, JSON_COMPACT) : NULL;
    if (!op->body)
        return error_oom(err);

    return engine_op_start(&op, ret, err);
}

/* Gone already is what was wanted; "removal … already in progress" will be. */
static bool remove_refused(EngineOp *op, const HttpResponse *response, Error *err)
{
    if (response->status != 404)
        return false;

    engine_op_succeed(op, &(EngineReply){.changed = false});
    return true;
}

int engine_remove_container(Engine *engine, const char *name, bool force, EngineHandler handler,
                            void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    r = engine_op_on(engine,
                     &(EngineObject){"DELETE", "containers", "remove container", name,
                                     force ? "?v=1&force=1" : "?v=1"},
                     change_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->refused = remove_refused;
    op->timeout_usec = ENGINE_REMOVE_TIMEOUT_USEC;

    return engine_op_start(&op, ret, err);
}

/* ---- Look ----------------------------------------------------------------------------------- */

static void containers_answered(EngineOp *op, const HttpResponse *response,
                                int (*parse)(json_t *value, EngineDoc *ret, Error *err))
{
    auto_(engine_doc_done) EngineDoc doc = {0};
    auto_error Error err = {0};
    json_t *value = engine_op_json(op, response);

    if (!value)
        return;
    if (parse(value, &doc, &err) < 0)
        engine_op_fail(op, &err);
    else
        engine_op_succeed(
            op, &(EngineReply){.containers = doc.containers, .n_containers = doc.n_containers});
}

static void inspect_answered(EngineOp *op, const HttpResponse *response)
{
    containers_answered(op, response, engine_parse_container);
}

static void list_answered(EngineOp *op, const HttpResponse *response)
{
    containers_answered(op, response, engine_parse_container_list);
}

int engine_inspect_container(Engine *engine, const char *name, EngineHandler handler,
                             void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    r = engine_op_on(engine, &(EngineObject){"GET", "containers", "container", name, "/json"},
                     inspect_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}

int engine_list_containers(Engine *engine, const char *label, EngineHandler handler, void *userdata,
                           EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    auto_free char *filters = engine_filters(label, NULL);
    auto_free char *escaped = filters ? url_escape(filters, "") : NULL;
    int r;

    if (!escaped)
        return error_oom(err);
    r = engine_op_new(engine, "GET", handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->answered = list_answered;
    op->max_body = ENGINE_LIST_BODY_MAX;
    r = engine_op_describe(op, err, "list containers");
    if (r >= 0)
        r = engine_op_path(op, err, "/containers/json?all=1&filters=%s", escaped);
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}

static void wait_answered(EngineOp *op, const HttpResponse *response)
{
    json_auto_t *doc = engine_op_json(op, response);
    auto_error Error err = {0};
    int64_t status = 0;

    if (!doc)
        return;
    if (json_i64(doc, "StatusCode", &status) < 0) {
        (void)error_set(&err, -EBADMSG, ERROR_CORRUPT, "the engine names no exit status");
        engine_op_fail(op, &err);
        return;
    }

    engine_op_succeed(op, &(EngineReply){.changed = true, .exit_code = (int)status});
}

int engine_wait_container(Engine *engine, const char *name, EngineHandler handler, void *userdata,
                          EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    r = engine_op_on(engine,
                     &(EngineObject){"POST", "containers", "wait for container", name,
                                     "/wait?condition=not-running"},
                     wait_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->timeout_usec = USEC_INFINITY;

    return engine_op_start(&op, ret, err);
}

static void logs_answered(EngineOp *op, const HttpResponse *response)
{
    auto_free char *text =
        engine_log_text(buf_str(&response->body), response->body.size, LOG_TEXT_MAX);
    auto_error Error err = {0};

    if (text) {
        engine_op_succeed(op, &(EngineReply){.text = text});
    } else {
        (void)error_oom(&err);
        engine_op_fail(op, &err);
    }
}

int engine_container_logs(Engine *engine, const char *name, unsigned lines, EngineHandler handler,
                          void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    auto_free char *rest =
        str_printf("/logs?stdout=1&stderr=1&tail=%u", MIN_OF(lines, (unsigned)LOG_LINES_MAX));
    int r;

    if (!rest)
        return error_oom(err);
    r = engine_op_on(engine, &(EngineObject){"GET", "containers", "logs of container", name, rest},
                     logs_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}
