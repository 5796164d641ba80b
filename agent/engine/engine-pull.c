/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/engine-internal.h"
#include "agent/engine/engine-stream.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

#define PROGRESS_INTERVAL_USEC (250 * MSEC)

typedef struct Pull {
    EngineOp *op;
    char *image; /* "repository@digest" or "repository:tag": what is confirmed afterwards */
    EngineProgressHandler on_progress;
    Timer *silence; /* nothing came for too long */
    bool stalled;
    bool began;   /* a first byte came */
    bool counted; /* among the engine's pulls */
    EngineStream stream;
    EnginePullState state;
    uint64_t told_usec; /* progress was last told then */
    Error stream_error;
} Pull;

static void uncount(Pull *pull)
{
    if (pull->counted && pull->op->engine)
        pull->op->engine->n_pulls--;
    pull->counted = false;
}

static void pull_free(void *state)
{
    Pull *pull = state;

    uncount(pull);
    (void)timer_free(pull->silence);
    engine_stream_done(&pull->stream);
    engine_pull_state_done(&pull->state);
    error_done(&pull->stream_error);
    free(pull->image);
    free(pull);
}

/* ---- The stream ----------------------------------------------------------------------------- */

static int on_object(const json_t *object, void *userdata, Error *err)
{
    Pull *pull = userdata;

    return engine_pull_state_feed(&pull->state, object, err);
}

static void tell_progress(Pull *pull)
{
    EnginePullProgress progress;
    uint64_t now = now_boottime_usec();

    if (!pull->on_progress || now - pull->told_usec < PROGRESS_INTERVAL_USEC)
        return;

    pull->told_usec = now;
    engine_pull_state_progress(&pull->state, &progress);
    pull->on_progress(pull->op, &progress, pull->op->userdata);
}

static int on_body(HttpOp *request, const void *data, size_t size, void *userdata)
{
    EngineOp *op = userdata;
    Pull *pull = op->state;
    int r;

    pull->began = true;
    (void)timer_set(pull->silence, op->engine->pull_stall_usec, SECOND / 10);
    r = engine_stream_feed(&pull->stream, data, size, on_object, pull, &pull->stream_error);
    if (r < 0)
        return r;
    tell_progress(pull);

    return 0;
}

static void on_silence(void *userdata)
{
    Pull *pull = userdata;
    EngineOp *op = pull->op;
    auto_error Error err = {0};
    char span[TIME_SPAN_MAX];

    /* Closing the connection is what makes the engine stop. */
    op->request = http_op_free(op->request);
    time_format_span(span, pull->began ? op->engine->pull_stall_usec : op->engine->pull_first_usec);
    (void)error_set(&err, -ESTALE, ERROR_TEMPORARY,
                    pull->began ? "the pull stood still for %s and was cut"
                                : "the engine did not begin to pull within %s",
                    span);
    (void)error_remedy(&err, -ESTALE,
                       "check that the registry is reachable from this machine, and the disk's "
                       "speed; else: sudo systemctl restart docker");
    engine_op_fail(op, &err);
}

/* ---- The end -------------------------------------------------------------------------------- */

/* A 200 that ended is no success yet: the failure is inside. */
static void stream_ended(EngineOp *op, const HttpResponse *response)
{
    Pull *pull = op->state;
    auto_error Error err = {0};
    auto_free char *escaped = NULL;

    timer_cancel(pull->silence);
    if (pull->state.error) {
        (void)engine_explain_text(pull->state.error, -EIO, &err);
        engine_op_fail(op, &err);
        return;
    }
    if (!engine_stream_is_whole(&pull->stream)) {
        (void)error_set(&err, -ENOTCONN, ERROR_TEMPORARY, "the engine broke off within the pull");
        engine_op_fail(op, &err);
        return;
    }

    escaped = engine_escape_name(pull->image);
    if (!escaped || engine_op_path(op, &err, "/images/%s/json", escaped) < 0) {
        (void)(err.code ? 0 : error_oom(&err));
        engine_op_fail(op, &err);
        return;
    }
    op->method = "GET";
    cleanse_free(op->auth);
    op->auth = NULL;
    op->on_body = NULL;
    op->broken = NULL;
    op->timeout_usec = op->engine->call_usec;
    op->answered = engine_image_answered;
    engine_op_send(op);
}

static bool broke_off(EngineOp *op, const Error *http_err)
{
    Pull *pull = op->state;

    if (!pull->stream_error.code)
        return false;

    engine_op_fail(op, &pull->stream_error);
    return true;
}

static void ended(EngineOp *op)
{
    Pull *pull = op->state;

    timer_cancel(pull->silence);
    uncount(pull);
}

/* ---- The beginning -------------------------------------------------------------------------- */

/* Base64 of the URL alphabet with padding, the address without a scheme: the engine silently
 * ignores anything else and pulls as nobody. */
static int set_auth(EngineOp *op, const EnginePull *pull, Error *err)
{
    json_t *doc;
    size_t size;
    auto_secret_str char *text = NULL;

    if (!pull->username)
        return 0;

    doc = json_pack("{s:s, s:s, s:s}", "username", pull->username, "password",
                    pull->password ? pull->password : "", "serveraddress", pull->reference->host);
    size = doc ? json_dumpb(doc, NULL, 0, JSON_COMPACT) : 0;
    text = size ? calloc(1, size + 1) : NULL;
    if (text && json_dumpb(doc, text, size, JSON_COMPACT) == size)
        op->auth = base64_encode(text, size, /* url= */ true);
    json_cleanse(doc);

    return op->auth ? 0 : error_oom(err);
}

static int set_path(EngineOp *op, Pull *pull, const EnginePull *what, Error *err)
{
    const char *digest = what->digest ? what->digest : what->reference->digest;
    const char *tag = digest ? digest : what->reference->tag;
    auto_free char *repository = reference_repository(what->reference);
    auto_free char *from = repository ? url_escape(repository, "") : NULL;
    auto_free char *escaped_tag = url_escape(tag, "");
    auto_free char *platform = NULL;
    char text[PLATFORM_TEXT_MAX];

    if (!from || !escaped_tag)
        return error_oom(err);
    if (what->platform) {
        platform = url_escape(platform_text(text, what->platform), "");
        if (!platform)
            return error_oom(err);
    }
    pull->image = str_printf("%s%s%s", repository, digest ? "@" : ":", tag);
    if (!pull->image || engine_op_describe(op, err, "pull %s", pull->image) < 0)
        return error_oom(err);

    /* Never without a tag: every tag of the repository would be pulled. */
    return engine_op_path(op, err, "/images/create?fromImage=%s&tag=%s%s%s", from, escaped_tag,
                          platform ? "&platform=" : "", platform ? platform : "");
}

static int prepare(EngineOp *op, const EnginePull *what, Error *err)
{
    Pull *pull = calloc(1, sizeof(*pull));
    int r;

    if (!pull)
        return error_oom(err);
    op->state = pull;
    op->state_free = pull_free;
    pull->op = op;
    pull->on_progress = what->on_progress;
    engine_stream_init(&pull->stream);
    r = timer_new(op->engine->event, on_silence, pull, &pull->silence);
    if (r < 0)
        return error_errno(err, r, "timer");
    r = set_path(op, pull, what, err);
    if (r < 0)
        return r;
    r = set_auth(op, what, err);
    if (r < 0)
        return r;
    r = timer_set(pull->silence, op->engine->pull_first_usec, SECOND / 10);
    if (r < 0)
        return error_errno(err, r, "timer");

    op->engine->n_pulls++;
    pull->counted = true;
    return 0;
}

int engine_pull(Engine *engine, const EnginePull *what, EngineHandler handler, void *userdata,
                EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    r = engine_op_new(engine, "POST", handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->timeout_usec = ENGINE_PULL_TOTAL_USEC;
    op->answered = stream_ended;
    op->on_body = on_body;
    op->broken = broke_off;
    r = prepare(op, what, err);
    op->ended = ended;
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}
