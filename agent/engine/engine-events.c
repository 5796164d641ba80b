/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/backoff.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/engine/engine-internal.h"
#include "agent/engine/engine-stream.h"
#include "agent/io/json.h"

#define RETRY_BASE_USEC (500 * MSEC)
#define RETRY_CAP_USEC  (30 * SECOND)
#define LIVED_USEC      (10 * SECOND) /* a stream that lived that long: the next outage is a new one */
#define NSEC_A_SEC      UINT64_C(1000000000)
#define NSEC_A_USEC     UINT64_C(1000)

struct EngineEvents {
    Engine *engine;
    char *label;
    EngineEventsHandlers handlers;
    void *userdata;
    EngineOp *probe; /* finds out whether the engine is there, and which version */
    HttpOp *request;
    Timer *retry;
    Backoff backoff;
    EngineStream stream;
    Error stream_error;
    uint64_t since_nsec; /* events from here on have not been seen */
    uint64_t up_usec;
    bool up;
    bool said_down;
    bool *freed; /* set when a handler frees it */
};

/* ---- One event ------------------------------------------------------------------------------ */

static const struct {
    const char *action;
    EngineEventKind kind;
} kinds[] = {
    {"create", ENGINE_EVENT_CREATE},
    {"start", ENGINE_EVENT_START},
    {"die", ENGINE_EVENT_DIE},
    {"died", ENGINE_EVENT_DIE}, /* Podman */
    {"oom", ENGINE_EVENT_OOM},
    {"health_status: healthy", ENGINE_EVENT_HEALTHY},
    {"health_status: unhealthy", ENGINE_EVENT_UNHEALTHY},
    {"rename", ENGINE_EVENT_RENAME},
    {"destroy", ENGINE_EVENT_DESTROY},
    {"remove", ENGINE_EVENT_DESTROY}, /* Podman */
};

static EngineEventKind kind_of(const char *action, const json_t *object)
{
    const char *health = json_str(object, "HealthStatus");

    /* Podman keeps the verdict beside the action. */
    if (streq(action, "health_status") && health)
        return streq(health, "healthy") ? ENGINE_EVENT_HEALTHY : ENGINE_EVENT_UNHEALTHY;

    for (size_t i = 0; i < ELEMENTS(kinds); i++)
        if (streq(action, kinds[i].action))
            return kinds[i].kind;

    return ENGINE_EVENT_OTHER;
}

static const char *attribute(const EngineEvent *event, const char *name)
{
    for (size_t i = 0; i < event->n_attributes; i++)
        if (streq(event->attributes[i].name, name))
            return event->attributes[i].value;

    return NULL;
}

static int parse_exit_code(const EngineEvent *event)
{
    const char *text = attribute(event, "exitCode");
    int64_t value = -1;

    return text && parse_i64(text, &value) >= 0 && value >= 0 && value <= 255 ? (int)value : -1;
}

int engine_event_parse(const json_t *object, EngineDoc *doc, EngineEvent *ret)
{
    const json_t *actor = json_object_get(object, "Actor");
    const char *action = json_str(object, "Action");
    const char *type = json_str(object, "Type");
    const char *id = json_str(actor, "ID");
    EngineEvent event = {0};
    uint64_t seconds = 0;

    if (!action || !id || !type || !streq(type, "container"))
        return 0;

    event.kind = kind_of(action, object);
    event.action = action;
    event.container_id = id;
    if (engine_parse_pairs(doc, json_object_get(actor, "Attributes"), &event.attributes,
                           &event.n_attributes) < 0)
        return -ENOMEM;
    event.name = attribute(&event, "name");
    if (!event.name)
        event.name = "";
    event.exit_code = event.kind == ENGINE_EVENT_DIE ? parse_exit_code(&event) : -1;
    if (json_u64(object, "timeNano", &event.time_nsec) < 0 &&
        json_u64(object, "time", &seconds) >= 0 && seconds < UINT64_MAX / NSEC_A_SEC)
        event.time_nsec = seconds * NSEC_A_SEC;

    *ret = event;
    return 1;
}

static int on_object(const json_t *object, void *userdata, Error *err)
{
    EngineEvents *events = userdata;
    auto_(engine_doc_done) EngineDoc doc = {0};
    EngineEvent event;
    bool freed = false;
    int r;

    r = engine_event_parse(object, &doc, &event);
    if (r < 0)
        return error_oom(err);
    if (r == 0)
        return 0;

    events->since_nsec = MAX_OF(events->since_nsec, event.time_nsec + 1);
    if (!events->handlers.on_event)
        return 0;
    events->freed = &freed;
    events->handlers.on_event(&event, events->userdata);
    if (freed)
        return -ECANCELED;
    events->freed = NULL;

    return 0;
}

/* ---- The stream ----------------------------------------------------------------------------- */

static void retry_later(EngineEvents *events)
{
    if (events->up && now_boottime_usec() - events->up_usec > LIVED_USEC)
        backoff_reset(&events->backoff);
    events->up = false;
    (void)timer_set(events->retry, backoff_next(&events->backoff, 0), SECOND / 10);
}

static void went_down(EngineEvents *events, const Error *err)
{
    retry_later(events);
    if (events->said_down)
        return;
    events->said_down = true;
    /* Last: it may free us. */
    if (events->handlers.on_down)
        events->handlers.on_down(err, events->userdata);
}

static int on_body(HttpOp *request, const void *data, size_t size, void *userdata)
{
    EngineEvents *events = userdata;
    auto_error Error err = {0};
    int r;

    r = engine_stream_feed(&events->stream, data, size, on_object, events, &err);
    if (r < 0 && r != -ECANCELED)
        (void)error_move(&events->stream_error, &err);

    return r;
}

static void on_end(HttpOp *request, const HttpResponse *response, const Error *http_err,
                   void *userdata)
{
    EngineEvents *events = userdata;
    auto_error Error err = {0};

    if (events->stream_error.code)
        (void)error_move(&err, &events->stream_error);
    else if (http_err)
        (void)engine_no_answer(events->engine, http_err, &err);
    else if (response->status != 200)
        (void)engine_response_error(response, 0, &err);
    else
        (void)error_set(&err, -ENOTCONN, ERROR_TEMPORARY,
                        "the container engine ended its event stream");

    /* It may come back as another version. */
    events->engine->api = 0;
    (void)error_prefix(&err, err.code, "engine events");
    went_down(events, &err);
}

static int start_stream(EngineEvents *events, Error *err)
{
    static const char *const wanted[] = {"create", "start",   "die",    "died",          "oom",
                                         "rename", "destroy", "remove", "health_status", NULL};
    auto_free char *filters = engine_filters(events->label, wanted);
    auto_free char *escaped = filters ? url_escape(filters, "") : NULL;
    auto_free char *url = NULL;
    HttpRequest request = {
        .unix_socket = events->engine->socket,
        .try_timeout_usec = USEC_INFINITY,
        .on_body = on_body,
        .no_proxy = true,
        .fresh_connection = true,
    };

    if (escaped)
        url = str_printf("http://docker/v1.%u/events?filters=%s&since=%" PRIu64 ".%09" PRIu64,
                         events->engine->api, escaped, events->since_nsec / NSEC_A_SEC,
                         events->since_nsec % NSEC_A_SEC);
    if (!url)
        return error_oom(err);

    request.url = url;
    engine_stream_done(&events->stream);
    engine_stream_init(&events->stream);
    error_done(&events->stream_error);
    events->request = http_op_free(events->request);
    return http_start(events->engine->http, &request, on_end, events, &events->request, err);
}

static void on_probed(EngineOp *op, const EngineReply *reply, const Error *probe_err,
                      void *userdata)
{
    EngineEvents *events = userdata;
    auto_error Error err = {0};

    events->probe = engine_op_free(events->probe);
    if (probe_err) {
        (void)error_copy(&err, probe_err);
        went_down(events, &err);
        return;
    }
    if (start_stream(events, &err) < 0) {
        went_down(events, &err);
        return;
    }

    events->up = true;
    events->said_down = false;
    events->up_usec = now_boottime_usec();
    /* The engine replays what happened since before the question was asked: nothing falls between
     * this look at everything and the stream. Last: it may free us. */
    if (events->handlers.on_up)
        events->handlers.on_up(events->userdata);
}

static void connect_stream(EngineEvents *events)
{
    auto_error Error err = {0};
    uint64_t now_nsec = now_realtime_usec() * NSEC_A_USEC;

    /* A wall clock that was set back must not put us into its future. */
    if (events->since_nsec == 0 || events->since_nsec > now_nsec)
        events->since_nsec = now_nsec;
    events->probe = engine_op_free(events->probe);
    if (engine_info(events->engine, on_probed, events, &events->probe, &err) < 0)
        went_down(events, &err);
}

static void on_retry(void *userdata)
{
    connect_stream(userdata);
}

/* ---- Beginning and end ---------------------------------------------------------------------- */

int engine_events_new(Engine *engine, const char *label, const EngineEventsHandlers *handlers,
                      void *userdata, EngineEvents **ret, Error *err)
{
    auto_(engine_events_freep) EngineEvents *events = calloc(1, sizeof(*events));
    int r;

    if (!events || str_set(&events->label, label) < 0)
        return error_oom(err);
    events->engine = engine;
    events->handlers = *handlers;
    events->userdata = userdata;
    events->backoff = (Backoff){.base_usec = RETRY_BASE_USEC, .cap_usec = RETRY_CAP_USEC};
    engine_stream_init(&events->stream);
    r = timer_new(engine->event, on_retry, events, &events->retry);
    if (r >= 0)
        r = timer_set(events->retry, 0, 0);
    if (r < 0)
        return error_errno(err, r, "timer");

    *ret = take_ptr(events);
    return 0;
}

bool engine_events_is_up(const EngineEvents *events)
{
    return events->up;
}

EngineEvents *engine_events_free(EngineEvents *events)
{
    if (!events)
        return NULL;

    if (events->freed)
        *events->freed = true;
    (void)engine_op_free(events->probe);
    (void)http_op_free(events->request);
    (void)timer_free(events->retry);
    engine_stream_done(&events->stream);
    error_done(&events->stream_error);
    free(events->label);
    free(events);
    return NULL;
}
