/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/health.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/io/loop.h"

#define DEFAULT_INTERVAL_USEC (5 * SECOND)
#define DEFAULT_TIMEOUT_USEC  (2 * SECOND)
#define DEFAULT_RETRIES       3
#define DEFAULT_STABLE_USEC   (20 * SECOND)
#define DEFAULT_LIMIT_USEC    HOUR
/* Until it is well for the first time we look sooner: every moment of waiting is downtime. */
#define FIRST_LOOK_USEC       (50 * MSEC)
#define LOG_LINES             20
#define PLACEHOLDER           "{container}"

struct HealthProbe {
    Engine *engine;
    HttpClient *http;
    HealthSpec spec;
    char *container, *url; /* what `spec` points to */
    HealthHandler handler;
    void *userdata;

    Timer *timer;
    EngineOp *looking; /* inspect, or the logs of what has died */
    HttpOp *request;
    uint64_t began_usec;
    uint64_t well_usec;    /* since when without a break; 0: it is not */
    uint64_t counted_usec; /* when a failure last counted */
    unsigned failures;
    unsigned looks;

    bool have_baseline;
    uint64_t restarts, started_usec; /* as they were at the first look */
    char *progress;
    char *address_url; /* the URL that is being asked */
    bool said_yes;     /* and it answered */

    char *exit_reason; /* it has died: only the logs are waited for */
    int exit_code;
    bool oom_killed;
};

static void look_later(HealthProbe *probe);

static void set_progress(HealthProbe *probe, const char *format, ...) printf_like(2, 3);
static void set_progress(HealthProbe *probe, const char *format, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, format);
    if (vasprintf(&text, format, args) >= 0) {
        free(probe->progress);
        probe->progress = text;
    }
    va_end(args);
}

/* ---- Verdicts ------------------------------------------------------------------------------- */

/* The handler may free the probe: nothing may follow. */
static void tell(HealthProbe *probe, bool healthy, const char *reason)
{
    uint64_t until = healthy && probe->well_usec ? probe->well_usec : now_boottime_usec();
    HealthVerdict verdict = {
        .healthy = healthy,
        .reason = reason,
        .exit_code = probe->exit_reason ? probe->exit_code : -1,
        .oom_killed = probe->oom_killed,
        .elapsed_usec = until - probe->began_usec,
    };

    timer_cancel(probe->timer);
    probe->handler(probe, &verdict, probe->userdata);
}

static void succeeded(HealthProbe *probe)
{
    uint64_t now = now_boottime_usec();

    probe->failures = 0;
    if (!probe->well_usec)
        probe->well_usec = now;
    if (now - probe->well_usec >= probe->spec.stable_usec)
        tell(probe, /* healthy= */ true, probe->progress);
    else
        look_later(probe);
}

/* `progress` says what failed. Quick first looks do not add up to a verdict: a failure counts once
 * an interval. */
static void failed(HealthProbe *probe)
{
    uint64_t now = now_boottime_usec();
    auto_free char *reason = NULL;

    probe->well_usec = 0;
    if (now - probe->began_usec >= probe->spec.start_period_usec &&
        now - probe->counted_usec >= probe->spec.interval_usec) {
        probe->counted_usec = now;
        probe->failures++;
    }
    if (probe->failures < probe->spec.retries) {
        look_later(probe);
        return;
    }

    reason = str_printf("%s (%u times)", probe->progress, probe->failures);
    tell(probe, /* healthy= */ false, reason ? reason : probe->progress);
}

/* ---- Death ---------------------------------------------------------------------------------- */

/* The last line that says anything. */
static char *last_line(const char *text)
{
    auto_free char *copy = strdup(text);
    char *line;

    while (copy && (line = strrchr(copy, '\n'))) {
        if (*str_strip(line))
            return strdup(str_strip(line));
        *line = '\0';
    }

    return copy && *str_strip(copy) ? strdup(str_strip(copy)) : NULL;
}

static void on_last_words(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    HealthProbe *probe = userdata;
    const char *text = reply ? reply->text : "";
    auto_free char *line = last_line(text);
    auto_free char *reason = NULL;

    if (strstr(text, "exec format error"))
        reason = str_printf("%s: its program was built for another processor (exec format error); "
                            "build it with docker buildx build --platform",
                            probe->exit_reason);
    else if (line)
        reason = str_printf("%s; its last words: %s", probe->exit_reason, line);

    probe->looking = engine_op_free(probe->looking);
    tell(probe, /* healthy= */ false, reason ? reason : probe->exit_reason);
}

static void died(HealthProbe *probe, const EngineContainer *container)
{
    auto_error Error err = {0};

    if (container->state == ENGINE_STATE_RUNNING) {
        probe->exit_code = -1;
        probe->exit_reason =
            str_printf("it exited and the engine started it again (%" PRIu64 " times by now)",
                       container->restart_count - probe->restarts);
    } else {
        probe->exit_code = container->exit_code;
        probe->oom_killed = container->oom_killed;
        probe->exit_reason = engine_container_explain_exit(container);
    }
    probe->looking = engine_op_free(probe->looking);
    if (probe->exit_reason &&
        engine_container_logs(probe->engine, probe->container, LOG_LINES, on_last_words, probe,
                              &probe->looking, &err) >= 0)
        return;

    tell(probe, /* healthy= */ false, probe->exit_reason ? probe->exit_reason : "it exited");
}

/* ---- Looking -------------------------------------------------------------------------------- */

static int on_body(HttpOp *request, const void *data, size_t size, void *userdata)
{
    HealthProbe *probe = userdata;

    /* A piece of a 2xx: what it has to say further, perhaps for ever, does not matter. */
    probe->said_yes = true;
    return -ECANCELED;
}

static void on_answer(HttpOp *request, const HttpResponse *response, const Error *err,
                      void *userdata)
{
    HealthProbe *probe = userdata;
    bool well = probe->said_yes || (!err && response->status >= 200 && response->status < 400);

    if (probe->said_yes)
        set_progress(probe, "%s answered well", probe->address_url);
    else if (err)
        set_progress(probe, "%s: %s", probe->address_url, error_text(err));
    else
        set_progress(probe, "%s answered HTTP %ld", probe->address_url, response->status);
    probe->request = http_op_free(probe->request);

    if (well)
        succeeded(probe);
    else
        failed(probe);
}

/* The URL with the container's address in its place; NULL when memory is out. */
static char *fill_url(const char *url, const char *address)
{
    const char *at = strstr(url, PLACEHOLDER);
    bool is_v6 = strchr(address, ':');

    if (!at)
        return strdup(url);

    return str_printf("%.*s%s%s%s%s", (int)(at - url), url, is_v6 ? "[" : "", address,
                      is_v6 ? "]" : "", at + strlen(PLACEHOLDER));
}

static void ask(HealthProbe *probe, const EngineContainer *container)
{
    const char *address = streq(container->network, "host") ? "127.0.0.1" : container->address;
    HttpRequest request = {
        .connect_timeout_usec = probe->spec.timeout_usec,
        .try_timeout_usec = probe->spec.timeout_usec,
        .on_body = on_body,
        .allow_plain = true,
        .no_proxy = true,
        .fresh_connection = true,
    };
    auto_error Error err = {0};

    if (strstr(probe->url, PLACEHOLDER) && !*address) {
        set_progress(probe, "the container has no address yet");
        failed(probe);
        return;
    }
    free(probe->address_url);
    probe->address_url = fill_url(probe->url, address);
    request.url = probe->address_url ? probe->address_url : "";
    probe->request = http_op_free(probe->request);
    probe->said_yes = false;
    if (http_start(probe->http, &request, on_answer, probe, &probe->request, &err) < 0) {
        set_progress(probe, "%s: %s", request.url, error_text(&err));
        failed(probe);
    }
}

static void judge_engine_health(HealthProbe *probe, const EngineContainer *container)
{
    uint64_t age = now_boottime_usec() - probe->began_usec;

    switch (container->health) {
    case ENGINE_HEALTH_HEALTHY:
        set_progress(probe, "its HEALTHCHECK says healthy");
        succeeded(probe);
        return;
    case ENGINE_HEALTH_NONE:
        set_progress(probe, "it runs (the image has no HEALTHCHECK)");
        succeeded(probe);
        return;
    case ENGINE_HEALTH_STARTING:
        set_progress(probe, "its HEALTHCHECK has not passed yet%s%s",
                     container->health_output[0] ? ": " : "", container->health_output);
        break;
    case ENGINE_HEALTH_UNHEALTHY:
        set_progress(probe, "its HEALTHCHECK fails%s%s", container->health_output[0] ? ": " : "",
                     container->health_output);
        /* The engine counted its retries already. */
        if (age >= probe->spec.start_period_usec) {
            tell(probe, /* healthy= */ false, probe->progress);
            return;
        }
        break;
    }

    probe->well_usec = 0;
    look_later(probe);
}

static bool has_died(HealthProbe *probe, const EngineContainer *container)
{
    if (!probe->have_baseline) {
        probe->have_baseline = true;
        probe->restarts = container->restart_count;
        probe->started_usec = container->started_usec;
    }

    /* Between two crashes it runs: the count and the start tell, not one look. */
    return !engine_container_is_running(container) || container->restart_count > probe->restarts ||
           container->started_usec != probe->started_usec;
}

static void on_inspected(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    HealthProbe *probe = userdata;

    if (err) {
        bool gone = err->code == -ENOENT;

        set_progress(probe, "%s", gone ? "the container is gone" : error_text(err));
        probe->looking = engine_op_free(probe->looking);
        if (gone)
            tell(probe, /* healthy= */ false, probe->progress);
        else
            look_later(probe);
        return;
    }

    /* The reply lives until the handler returns, whoever frees the operation. */
    if (has_died(probe, reply->containers)) {
        died(probe, reply->containers);
        return;
    }
    switch (probe->spec.kind) {
    case HEALTH_STABILITY:
        set_progress(probe, "it runs, without a restart");
        succeeded(probe);
        return;
    case HEALTH_ENGINE:
        judge_engine_health(probe, reply->containers);
        return;
    case HEALTH_HTTP:
        ask(probe, reply->containers);
        return;
    }
}

static void look(void *userdata)
{
    HealthProbe *probe = userdata;
    auto_error Error err = {0};

    if (now_boottime_usec() - probe->began_usec > probe->spec.limit_usec) {
        char span[TIME_SPAN_MAX];
        auto_free char *reason =
            str_printf("not well within %s: %s", time_format_span(span, probe->spec.limit_usec),
                       probe->progress);

        tell(probe, /* healthy= */ false, reason ? reason : probe->progress);
        return;
    }

    probe->looks++;
    probe->looking = engine_op_free(probe->looking);
    if (engine_inspect_container(probe->engine, probe->container, on_inspected, probe,
                                 &probe->looking, &err) < 0) {
        set_progress(probe, "%s", error_text(&err));
        look_later(probe);
    }
}

static void look_later(HealthProbe *probe)
{
    uint64_t well_for = probe->well_usec ? now_boottime_usec() - probe->well_usec : 0;
    uint64_t delay = probe->spec.interval_usec;

    if (probe->well_usec && probe->spec.stable_usec > well_for) /* just in time for its end */
        delay = MIN_OF(delay, probe->spec.stable_usec - well_for);
    else if (!probe->well_usec && probe->looks < 16)
        delay = MIN_OF(delay, FIRST_LOOK_USEC << probe->looks);

    (void)timer_set(probe->timer, delay, 0);
}

void health_probe_look(HealthProbe *probe)
{
    if (timer_is_set(probe->timer))
        (void)timer_set(probe->timer, 0, 0);
}

const char *health_probe_progress(const HealthProbe *probe)
{
    return probe->progress;
}

/* ---- Beginning and end ---------------------------------------------------------------------- */

static void set_defaults(HealthSpec *spec)
{
    if (!spec->interval_usec)
        spec->interval_usec = DEFAULT_INTERVAL_USEC;
    if (!spec->timeout_usec)
        spec->timeout_usec = DEFAULT_TIMEOUT_USEC;
    if (!spec->retries)
        spec->retries = DEFAULT_RETRIES;
    if (!spec->stable_usec && spec->kind == HEALTH_STABILITY)
        spec->stable_usec = DEFAULT_STABLE_USEC;
    if (!spec->limit_usec)
        spec->limit_usec = DEFAULT_LIMIT_USEC;
}

int health_probe_start(Engine *engine, HttpClient *http, sd_event *event, const HealthSpec *spec,
                       HealthHandler handler, void *userdata, HealthProbe **ret, Error *err)
{
    auto_(health_probe_freep) HealthProbe *probe = calloc(1, sizeof(*probe));
    int r;

    if (!probe || str_set(&probe->container, spec->container) < 0 ||
        str_set(&probe->url, spec->url) < 0 ||
        str_set(&probe->progress, "nothing was seen yet") < 0)
        return error_oom(err);
    if (spec->kind == HEALTH_HTTP && str_is_empty(spec->url))
        return error_set(err, -EINVAL, ERROR_INVALID, "an http probe needs a URL");

    probe->engine = engine;
    probe->http = http;
    probe->spec = *spec;
    probe->spec.container = probe->container;
    probe->spec.url = probe->url;
    set_defaults(&probe->spec);
    probe->handler = handler;
    probe->userdata = userdata;
    probe->exit_code = -1;
    probe->began_usec = probe->counted_usec = now_boottime_usec();
    r = timer_new(event, look, probe, &probe->timer);
    if (r >= 0)
        r = timer_set(probe->timer, 0, 0);
    if (r < 0)
        return error_errno(err, r, "timer");

    *ret = take_ptr(probe);
    return 0;
}

HealthProbe *health_probe_free(HealthProbe *probe)
{
    if (!probe)
        return NULL;

    (void)engine_op_free(probe->looking);
    (void)http_op_free(probe->request);
    (void)timer_free(probe->timer);
    free(probe->container);
    free(probe->url);
    free(probe->progress);
    free(probe->address_url);
    free(probe->exit_reason);
    free(probe);
    return NULL;
}
