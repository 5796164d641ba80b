/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/engine/engine-internal.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

#define MESSAGE_SHOWN_MAX 600

static void on_reply(HttpOp *request, const HttpResponse *response, const Error *err,
                     void *userdata);

/* ---- The client ----------------------------------------------------------------------------- */

int engine_new(HttpClient *http, sd_event *event, const char *socket_path, Engine **ret, Error *err)
{
    auto_(engine_freep) Engine *engine = calloc(1, sizeof(*engine));

    if (!engine || str_set(&engine->socket, socket_path) < 0)
        return error_oom(err);
    engine->http = http;
    engine->event = sd_event_ref(event);
    engine_set_timeouts(engine, 0, 0, 0);

    *ret = take_ptr(engine);
    return 0;
}

Engine *engine_free(Engine *engine)
{
    if (!engine)
        return NULL;

    /* Whoever owns them frees them; they must not be served any more. */
    while (engine->ops) {
        EngineOp *op = engine->ops;

        LIST_REMOVE(ops, engine->ops, op);
        op->request = http_op_free(op->request);
        op->engine = NULL;
    }
    (void)sd_event_unref(engine->event);
    free(engine->socket);
    free(engine);
    return NULL;
}

void engine_set_timeouts(Engine *engine, uint64_t call_usec, uint64_t pull_first_usec,
                         uint64_t pull_stall_usec)
{
    engine->call_usec = call_usec ? call_usec : ENGINE_CALL_TIMEOUT_USEC;
    engine->change_usec = call_usec ? call_usec : ENGINE_CHANGE_TIMEOUT_USEC;
    engine->pull_first_usec = pull_first_usec ? pull_first_usec : ENGINE_PULL_FIRST_TIMEOUT_USEC;
    engine->pull_stall_usec = pull_stall_usec ? pull_stall_usec : ENGINE_PULL_STALL_USEC;
}

unsigned engine_api_version(const Engine *engine)
{
    return engine->api;
}

bool engine_is_pulling(const Engine *engine)
{
    return engine->n_pulls > 0;
}

/* ---- Failures ------------------------------------------------------------------------------- */

int engine_no_answer(Engine *engine, const Error *http_err, Error *err)
{
    static const char start[] = "sudo systemctl start docker";

    if (access(engine->socket, F_OK) < 0) {
        (void)error_set(err, -ENOTCONN, ERROR_TEMPORARY,
                        "the container engine is not there: %s does not exist", engine->socket);
        return error_remedy(err, -ENOTCONN, "sudo apt-get install docker.io, or %s", start);
    }
    if (access(engine->socket, R_OK | W_OK) < 0) {
        (void)error_set(err, -EACCES, ERROR_DENIED, "we may not use the container engine's %s",
                        engine->socket);
        return error_remedy(err, -EACCES, "run as root");
    }
    if (http_err->code == -ETIMEDOUT) {
        (void)error_set(err, -ETIMEDOUT, ERROR_TEMPORARY,
                        "the container engine took the request and was silent: it hangs");
        return error_remedy(err, -ETIMEDOUT, "sudo systemctl restart docker");
    }
    if (http_err->kind != ERROR_TEMPORARY)
        return error_copy(err, http_err);

    (void)error_set(err, -ENOTCONN, ERROR_TEMPORARY,
                    "the container engine does not answer at %s: %s", engine->socket,
                    error_text(http_err));
    return error_remedy(err, -ENOTCONN, "%s", start);
}

/* {"message": "…"}, or the text itself. */
static char *read_message(const HttpResponse *response)
{
    json_auto_t *doc = NULL;
    const char *message = NULL;

    if (json_parse_quiet(buf_str(&response->body), response->body.size, &doc) > 0)
        message = json_str(doc, "message");

    return message ? str_escape(message, strlen(message), MESSAGE_SHOWN_MAX)
                   : str_escape(buf_str(&response->body), response->body.size, MESSAGE_SHOWN_MAX);
}

int engine_response_error(const HttpResponse *response, int conflict_code, Error *err)
{
    static const struct {
        long status;
        int code;
        ErrorKind kind;
    } rows[] = {
        {400, -EINVAL, ERROR_INVALID}, {401, -EACCES, ERROR_DENIED},
        {403, -EACCES, ERROR_DENIED},  {404, -ENOENT, ERROR_INVALID},
        {501, -ENOSYS, ERROR_INVALID}, {503, -EAGAIN, ERROR_TEMPORARY},
    };
    auto_free char *escaped = read_message(response);
    const char *message;
    auto_error Error explained = {0};
    int code;

    if (!escaped)
        return error_oom(err);
    message = *escaped ? escaped : "the engine gives no reason";

    if (response->status == 409)
        return error_set(err, conflict_code ? conflict_code : -EBUSY, ERROR_INVALID, "%s", message);

    /* The words may tell more than the status: a port taken is a 500, a missing program a 400. */
    code = engine_explain_text(message, /* fallback= */ -EIO, &explained);
    if (code == -EIO || response->status == 404) {
        for (size_t i = 0; i < ELEMENTS(rows); i++)
            if (response->status == rows[i].status)
                return error_set(err, rows[i].code, rows[i].kind, "%s", message);
        return error_set(err, -EIO, ERROR_TEMPORARY, "the container engine failed (HTTP %ld): %s",
                         response->status, message);
    }

    return error_move(err, &explained);
}

/* ---- Operations ----------------------------------------------------------------------------- */

int engine_op_new(Engine *engine, const char *method, EngineHandler handler, void *userdata,
                  EngineOp **ret, Error *err)
{
    EngineOp *op = calloc(1, sizeof(*op));

    if (!op) {
        (void)error_oom(err);
        return -ENOMEM;
    }
    op->engine = engine;
    op->method = method;
    op->handler = handler;
    op->userdata = userdata;
    op->timeout_usec = engine->call_usec;
    LIST_PREPEND(ops, engine->ops, op);

    *ret = op;
    return 0;
}

static int printf_like(3, 0) set_formatted(char **at, Error *err, const char *format, va_list args)
{
    char *text = NULL;

    if (vasprintf(&text, format, args) < 0)
        return error_oom(err);
    free(*at);
    *at = text;
    return 0;
}

int engine_op_describe(EngineOp *op, Error *err, const char *format, ...)
{
    va_list args;
    int r;

    va_start(args, format);
    r = set_formatted(&op->what, err, format, args);
    va_end(args);
    return r;
}

int engine_op_path(EngineOp *op, Error *err, const char *format, ...)
{
    va_list args;
    int r;

    va_start(args, format);
    r = set_formatted(&op->path, err, format, args);
    va_end(args);
    return r;
}

EngineOp *engine_op_free(EngineOp *op)
{
    if (!op)
        return NULL;

    if (op->engine)
        LIST_REMOVE(ops, op->engine->ops, op);
    (void)http_op_free(op->request);
    if (op->state_free)
        op->state_free(op->state);
    cleanse_free(op->body);
    cleanse_free(op->auth);
    free(op->what);
    free(op->path);
    free(op);
    return NULL;
}

void engine_op_succeed(EngineOp *op, const EngineReply *reply)
{
    if (op->ended)
        op->ended(op);
    op->handler(op, reply, NULL, op->userdata);
}

void engine_op_fail(EngineOp *op, Error *err)
{
    auto_error Error mine = {0};

    (void)error_move(&mine, err);
    if (op->what)
        (void)error_prefix(&mine, mine.code, "%s", op->what);
    if (op->ended)
        op->ended(op);
    op->handler(op, NULL, &mine, op->userdata);
}

json_t *engine_op_json(EngineOp *op, const HttpResponse *response)
{
    auto_error Error err = {0};
    json_t *doc = NULL;

    if (json_parse(buf_str(&response->body), response->body.size, "engine", &doc, &err) < 0) {
        engine_op_fail(op, &err);
        return NULL;
    }

    return doc;
}

char *engine_escape_name(const char *name)
{
    /* References keep their slashes, colons and '@'; "." and ".." would leave the path. */
    if (str_is_empty(name) || streq(name, ".") || streq(name, "..") || strstr(name, "/../"))
        return NULL;

    return url_escape(name, "/:@");
}

int engine_op_on(Engine *engine, const EngineObject *object, EngineAnswered answered,
                 EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    auto_free char *escaped = engine_escape_name(object->name);
    int r;

    if (!escaped)
        return error_set(err, -EINVAL, ERROR_INVALID, "%s: the engine takes no name like \"%s\"",
                         object->verb, object->name);
    r = engine_op_new(engine, object->method, handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->answered = answered;
    r = engine_op_describe(op, err, "%s %s", object->verb, object->name);
    if (r >= 0)
        r = engine_op_path(op, err, "/%s/%s%s", object->collection, escaped, object->rest);
    if (r < 0)
        return r;

    *ret = take_ptr(op);
    return 0;
}

char *engine_filters(const char *label, const char *const *events)
{
    json_auto_t *filters = json_object();
    json_t *list = json_array();
    int r = filters && list ? 0 : -ENOMEM;

    for (const char *const *event = events; r >= 0 && event && *event; event++)
        r = json_array_append_new(list, json_string(*event)) < 0 ? -ENOMEM : 0;
    if (r >= 0 && label)
        r = json_put(filters, "label", json_pack("[s]", label));
    if (r >= 0 && events)
        r = json_put(filters, "event", json_incref(list));
    if (r >= 0 && events)
        r = json_put(filters, "type", json_pack("[s]", "container"));
    json_decref(list);

    return r < 0 ? NULL : json_canonical(filters);
}

/* ---- Versions ------------------------------------------------------------------------------- */

/* "1.43" → 43. */
static int parse_api_version(const char *text, unsigned *ret)
{
    const char *minor = text ? startswith(text, "1.") : NULL;
    uint64_t value = 0;

    if (!minor || parse_u64(minor, &value) < 0 || value > 1000)
        return -EINVAL;

    *ret = (unsigned)value;
    return 0;
}

static int settle_version(Engine *engine, const HttpResponse *response, Error *err)
{
    const char *text = http_response_header(response, "Api-Version");
    unsigned theirs = 0;

    if (response->status != 200)
        return engine_response_error(response, 0, err);
    if (parse_api_version(text, &theirs) < 0)
        return error_set(err, -EPROTO, ERROR_INVALID,
                         "what listens at %s is no container engine: it names no API version",
                         engine->socket);
    if (theirs < ENGINE_API_OLDEST) {
        (void)error_set(err, -EPROTO, ERROR_INVALID,
                        "the container engine speaks API 1.%u, and we need 1.%d", theirs,
                        ENGINE_API_OLDEST);
        return error_remedy(err, -EPROTO,
                            "upgrade the engine to Docker 20.10 or newer: sudo apt-get install "
                            "docker.io");
    }

    engine->api = MIN_OF(theirs, (unsigned)ENGINE_API_NEWEST);
    return 0;
}

static void fail_no_answer(EngineOp *op, const Error *http_err)
{
    auto_error Error err = {0};

    /* Whoever answers next may be another version. */
    op->engine->api = 0;
    (void)engine_no_answer(op->engine, http_err, &err);
    engine_op_fail(op, &err);
}

static void on_ping(HttpOp *request, const HttpResponse *response, const Error *http_err,
                    void *userdata)
{
    EngineOp *op = userdata;
    auto_error Error err = {0};

    if (http_err)
        fail_no_answer(op, http_err);
    else if (settle_version(op->engine, response, &err) < 0)
        engine_op_fail(op, &err);
    else
        engine_op_send(op);
}

static int start_ping(EngineOp *op, Error *err)
{
    const HttpRequest request = {
        .url = "http://docker/_ping",
        .unix_socket = op->engine->socket,
        .try_timeout_usec = op->engine->call_usec,
        .max_body = HTTP_ERROR_BODY_MAX,
        .no_proxy = true,
    };

    op->request = http_op_free(op->request);
    return http_start(op->engine->http, &request, on_ping, op, &op->request, err);
}

/* ---- Requests ------------------------------------------------------------------------------- */

static int start_request(EngineOp *op, Error *err)
{
    auto_free char *url = str_printf("http://docker/v1.%u%s", op->engine->api, op->path);
    HttpHeader headers[2];
    HttpRequest request = {
        .method = op->method,
        .url = url,
        .unix_socket = op->engine->socket,
        .headers = headers,
        .body = op->body,
        .body_size = op->body ? strlen(op->body) : 0,
        .try_timeout_usec = op->timeout_usec,
        .max_body = op->max_body,
        .on_body = op->on_body,
        .no_proxy = true,
    };

    if (!url)
        return error_oom(err);
    if (op->body)
        headers[request.n_headers++] = (HttpHeader){"Content-Type", "application/json"};
    if (op->auth)
        headers[request.n_headers++] = (HttpHeader){"X-Registry-Auth", op->auth};

    op->request = http_op_free(op->request);
    return http_start(op->engine->http, &request, on_reply, op, &op->request, err);
}

void engine_op_send(EngineOp *op)
{
    auto_error Error err = {0};

    if (start_request(op, &err) < 0)
        engine_op_fail(op, &err);
}

int engine_op_start(EngineOp **op, EngineOp **ret, Error *err)
{
    EngineOp *o = *op;
    int r;

    assert(o->path && o->method && o->answered);
    r = o->engine->api ? start_request(o, err) : start_ping(o, err);
    if (r < 0)
        return r;

    *ret = take_ptr(*op);
    return 0;
}

/* "client version 1.25 is too old. Minimum supported …", or too new: the engine was exchanged. */
static bool is_version_refusal(const HttpResponse *response)
{
    return response->status == 400 && strstr(buf_str(&response->body), "client version");
}

static void refuse_version(EngineOp *op, const HttpResponse *response)
{
    auto_error Error err = {0};

    if (!op->renegotiated) {
        op->renegotiated = true;
        op->engine->api = 0;
        if (start_ping(op, &err) >= 0)
            return;
    } else {
        (void)engine_response_error(response, 0, &err);
        (void)error_remedy(&err, err.code, "sudo apt-get install mervis-agent (a newer one)");
    }
    engine_op_fail(op, &err);
}

static void on_reply(HttpOp *request, const HttpResponse *response, const Error *http_err,
                     void *userdata)
{
    EngineOp *op = userdata;
    auto_error Error err = {0};

    if (http_err) {
        if (!op->broken || !op->broken(op, http_err))
            fail_no_answer(op, http_err);
        return;
    }
    if (response->status / 100 == 2 || response->status == 304) {
        op->answered(op, response);
        return;
    }
    if (is_version_refusal(response)) {
        refuse_version(op, response);
        return;
    }

    (void)engine_response_error(response, op->conflict_code, &err);
    if (op->refused && op->refused(op, response, &err))
        return;
    engine_op_fail(op, &err);
}

/* ---- Info ----------------------------------------------------------------------------------- */

static void info_answered(EngineOp *op, const HttpResponse *response)
{
    auto_(engine_doc_done) EngineDoc doc = {0};
    auto_error Error err = {0};
    json_t *value = engine_op_json(op, response);

    if (!value)
        return;
    if (engine_parse_info(value, &doc, &err) < 0)
        engine_op_fail(op, &err);
    else
        engine_op_succeed(op, &(EngineReply){.info = &doc.info});
}

int engine_info(Engine *engine, EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    r = engine_op_new(engine, "GET", handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->answered = info_answered;
    r = engine_op_describe(op, err, "container engine");
    if (r >= 0)
        r = engine_op_path(op, err, "/info");
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}
