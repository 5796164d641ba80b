/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/statusd/statusd.h"

#include <assert.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/list.h"
#include "agent/base/str.h"
#include "agent/io/bus.h"
#include "agent/io/json.h"
#include "agent/io/status-keys.h"
#include "agent/statusd/metrics.h"
#include "agent/statusd/probe.h"

#define TEXT     "text/plain; charset=utf-8"
#define METRICS  "text/plain; version=0.0.4; charset=utf-8"
#define JSON     "application/json"
#define BODY_MAX (4U << 20)

typedef enum Source { SOURCE_AGENT, SOURCE_CRAWLER, SOURCE_MAX } Source;

#define BIT(source) (1U << (source))

typedef struct Endpoint {
    const char *path;
    unsigned needs; /* of the sources */
    void (*answer)(Statusd *statusd, Request *request);
} Endpoint;

/* One of the two doors: what it shows, and to whom it belongs. */
typedef struct Door {
    Statusd *statusd;
    const Endpoint *endpoints;
    Server *server;
} Door;

typedef struct Waiter {
    LIST_FIELDS(struct Waiter, waiters);
    Request *request;
    const Endpoint *endpoint;
    unsigned pending; /* sources that have not answered since it asked */
} Waiter;

struct Statusd {
    ProbeBus *bus;
    Probe *probes[SOURCE_MAX];
    Door public, local;
    Waiter *waiters;
};

/* ---- Answers ---- */

static void reply_buf(Request *request, unsigned status, const char *type, const Buf *body)
{
    request_reply(request, status, type, buf_str(body), body->size);
}

static void reply_out_of_memory(Request *request)
{
    static const char text[] = "out of memory\n";

    request_reply(request, 503, TEXT, text, strlen(text));
}

/* "what: why (remedy)", for whoever reads a failed check in a console. */
static void reply_unavailable(Request *request, const char *what, const Error *err)
{
    auto_buf Buf body = BUF_INIT(BODY_MAX);

    if (buf_printf(&body, "%s: %s%s%s\n", what, error_text(err), err->remedy ? "; try: " : "",
                   err->remedy ? err->remedy : "") < 0)
        return reply_out_of_memory(request);
    reply_buf(request, 503, TEXT, &body);
}

/* Whether agentd is alive, and nothing else: a registry out of reach must not make an instance
 * group re-create its VMs. */
static void answer_healthz(Statusd *statusd, Request *request)
{
    const Probe *agent = statusd->probes[SOURCE_AGENT];

    if (probe_is_alive(agent))
        request_reply(request, 200, TEXT, "ok\n", 3);
    else
        reply_unavailable(request, "agentd does not answer", probe_error(agent));
}

static void answer_readyz(Statusd *statusd, Request *request)
{
    const Probe *agent = statusd->probes[SOURCE_AGENT];
    const json_t *document = probe_document(agent);
    auto_buf Buf body = BUF_INIT(BODY_MAX);
    const char *reason;

    if (!document)
        return reply_unavailable(request, "agentd does not answer", probe_error(agent));
    if (json_flag(document, "ready"))
        return request_reply(request, 200, TEXT, "ready\n", 6);

    reason = json_str(document, "ready_reason");
    if (buf_printf(&body, "not ready: %s\n", reason ? reason : "agentd gives no reason") < 0)
        return reply_out_of_memory(request);
    reply_buf(request, 503, TEXT, &body);
}

static void answer_metrics(Statusd *statusd, Request *request)
{
    auto_buf Buf body = BUF_INIT(BODY_MAX);

    if (metrics_format(probe_document(statusd->probes[SOURCE_AGENT]),
                       probe_document(statusd->probes[SOURCE_CRAWLER]), &body) < 0)
        return reply_out_of_memory(request);
    reply_buf(request, 200, METRICS, &body);
}

/* What `agentctl status --json` prints. */
static void answer_status(Statusd *statusd, Request *request)
{
    const Probe *agent = statusd->probes[SOURCE_AGENT];
    auto_buf Buf body = BUF_INIT(BODY_MAX);
    json_auto_t *status = NULL;
    auto_free char *text = NULL;

    status = status_join(probe_document(agent), probe_document(statusd->probes[SOURCE_CRAWLER]),
                         probe_error(agent));
    text = status ? json_text(status, /* pretty= */ true) : NULL;
    if (!text || buf_printf(&body, "%s\n", text) < 0)
        return reply_out_of_memory(request);
    reply_buf(request, probe_document(agent) ? 200 : 503, JSON, &body);
}

/* clang-format off */
static const Endpoint public_endpoints[] = {
    {"/healthz", BIT(SOURCE_AGENT),                       answer_healthz},
    {"/readyz",  BIT(SOURCE_AGENT),                       answer_readyz},
    {"/metrics", BIT(SOURCE_AGENT) | BIT(SOURCE_CRAWLER), answer_metrics},
    {0},
};

static const Endpoint local_endpoints[] = {
    {"/status.json", BIT(SOURCE_AGENT) | BIT(SOURCE_CRAWLER), answer_status},
    {0},
};
/* clang-format on */

/* ---- Requests that wait for a daemon ---- */

static void waiter_free(Statusd *statusd, Waiter *waiter)
{
    LIST_REMOVE(waiters, statusd->waiters, waiter);
    free(waiter);
}

static void on_answer(Probe *probe, void *userdata)
{
    Statusd *statusd = userdata;

    for (unsigned i = 0; i < SOURCE_MAX; i++)
        if (statusd->probes[i] == probe)
            LIST_FOREACH (waiters, w, statusd->waiters)
                w->pending &= ~BIT(i);

    LIST_FOREACH_SAFE (waiters, w, statusd->waiters) {
        const Endpoint *endpoint = w->endpoint;
        Request *request = w->request;

        if (w->pending)
            continue;
        waiter_free(statusd, w);
        endpoint->answer(statusd, request);
    }
}

static void reply_not_found(const Door *door, Request *request)
{
    auto_buf Buf body = BUF_INIT(BODY_MAX);
    int r;

    r = buf_add_str(&body, "there is nothing here; try");
    for (const Endpoint *e = door->endpoints; r >= 0 && e->path; e++)
        r = buf_printf(&body, " %s", e->path);
    if (r >= 0)
        r = buf_add_char(&body, '\n');
    if (r < 0)
        return reply_out_of_memory(request);
    reply_buf(request, 404, TEXT, &body);
}

static void on_request(Request *request, const char *path, void *userdata)
{
    Door *door = userdata;
    Statusd *statusd = door->statusd;
    const Endpoint *endpoint = door->endpoints;
    unsigned pending = 0;
    Waiter *waiter;

    while (endpoint->path && !streq(endpoint->path, path))
        endpoint++;
    if (!endpoint->path)
        return reply_not_found(door, request);

    for (unsigned i = 0; i < SOURCE_MAX; i++)
        if ((endpoint->needs & BIT(i)) && !probe_ask(statusd->probes[i]))
            pending |= BIT(i);
    if (!pending)
        return endpoint->answer(statusd, request);

    waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        return reply_out_of_memory(request);
    *waiter = (Waiter){.request = request, .endpoint = endpoint, .pending = pending};
    LIST_PREPEND(waiters, statusd->waiters, waiter);
}

static void on_gone(Request *request, void *userdata)
{
    const Door *door = userdata;

    LIST_FOREACH_SAFE (waiters, w, door->statusd->waiters)
        if (w->request == request)
            waiter_free(door->statusd, w);
}

/* ---- Life ---- */

static int open_door(sd_event *event, Statusd *statusd, Door *door, const Endpoint *endpoints,
                     int fd, const ServerLimits *limits, Error *err)
{
    const ServerHooks hooks = {.on_request = on_request, .on_gone = on_gone, .userdata = door};

    *door = (Door){.statusd = statusd, .endpoints = endpoints};
    return server_new(event, fd, limits, &hooks, &door->server, err);
}

int statusd_new(sd_event *event, int public_fd, int local_fd, const ServerLimits *limits,
                Statusd **ret, Error *err)
{
    auto_(statusd_freep) Statusd *statusd = NULL;
    auto_close int first = public_fd, second = local_fd;
    int r;

    assert(event && public_fd >= 0 && local_fd >= 0 && limits && ret);

    statusd = calloc(1, sizeof(*statusd));
    if (!statusd)
        return error_oom(err);
    r = probe_bus_new(event, &statusd->bus, err);
    if (r < 0)
        return r;
    r = probe_new(statusd->bus, "agentd", BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE,
                  on_answer, statusd, &statusd->probes[SOURCE_AGENT], err);
    if (r < 0)
        return r;
    r = probe_new(statusd->bus, "crawlerd", BUS_CRAWLER_NAME, BUS_CRAWLER_PATH,
                  BUS_CRAWLER_INTERFACE, on_answer, statusd, &statusd->probes[SOURCE_CRAWLER], err);
    if (r < 0)
        return r;

    r = open_door(event, statusd, &statusd->public, public_endpoints, take_fd(&first), limits, err);
    if (r < 0)
        return r;
    r = open_door(event, statusd, &statusd->local, local_endpoints, take_fd(&second), limits, err);
    if (r < 0)
        return r;

    *ret = take_ptr(statusd);
    return 0;
}

Statusd *statusd_free(Statusd *statusd)
{
    if (!statusd)
        return NULL;
    (void)server_free(statusd->public.server);
    (void)server_free(statusd->local.server);
    for (unsigned i = 0; i < SOURCE_MAX; i++)
        (void)probe_free(statusd->probes[i]);
    (void)probe_bus_free(statusd->bus);
    free(statusd);
    return NULL;
}
