/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "agent/io/http.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>

#include "agent/base/str.h"
#include "agent/io/crypto.h"
#include "agent/io/http-private.h"

#define HTTP_IDLE_USEC       (600 * SECOND)
#define HTTP_CONNECTIONS_MAX 16L /* idle ones kept; each costs some 40 KiB with TLS */

static void client_destroy(HttpClient *client)
{
    while (client->ops)
        op_abandon(client->ops);
    while (client->doomed)
        op_destroy(client->doomed);
    if (client->multi)
        (void)curl_multi_cleanup(client->multi);
    if (client->share)
        (void)curl_share_cleanup(client->share);
    timer_free(client->timer);
    (void)sd_event_source_disable_unref(client->due);
    (void)sd_event_source_disable_unref(client->kick);
    endpoints_free(client->endpoints, client->n_endpoints);
    free(client->user_agent);
    sd_event_unref(client->event);
    free(client);
}

HttpClient *client_ref(HttpClient *client)
{
    client->n_ref++;
    return client;
}

HttpClient *client_unref(HttpClient *client)
{
    assert(client->n_ref > 0);

    if (--client->n_ref == 0)
        client_destroy(client);
    return NULL;
}

HttpClient *http_client_free(HttpClient *client)
{
    if (!client)
        return NULL;

    client->closed = true;
    return client_unref(client);
}

/* --- libcurl on the loop -------------------------------------------------------------------- */

static void reap_doomed(HttpClient *client)
{
    if (client->depth > 0)
        return;
    while (client->doomed)
        op_destroy(client->doomed);
}

/* Handlers run from here only, when libcurl is at rest, so that they may do anything. */
static void deliver(HttpClient *client)
{
    CURLMsg *message;
    HttpOp *op;
    int left;

    while (!client->closed && (message = curl_multi_info_read(client->multi, &left))) {
        CURLcode result = message->data.result;
        void *private = NULL;

        if (message->msg != CURLMSG_DONE ||
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private) != CURLE_OK)
            continue;
        op = private;
        op_try_done(op, result);
    }
}

static void client_turn(HttpClient *client, curl_socket_t fd, int events)
{
    auto_(client_unrefp) unused_ HttpClient *hold = client_ref(client);
    int running;

    client->depth++;
    (void)curl_multi_socket_action(client->multi, fd, events, &running);
    client->depth--;
    reap_doomed(client);
    deliver(client);
}

static int on_socket_ready(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    int events = 0;

    if (revents & EPOLLIN)
        events |= CURL_CSELECT_IN;
    if (revents & EPOLLOUT)
        events |= CURL_CSELECT_OUT;
    if (revents & (EPOLLERR | EPOLLHUP))
        events |= CURL_CSELECT_ERR;
    client_turn(userdata, fd, events);
    return 0;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *assigned)
{
    HttpClient *client = userdata;
    sd_event_source *source = assigned;
    uint32_t events = 0;

    if (what == CURL_POLL_REMOVE) {
        (void)curl_multi_assign(client->multi, fd, NULL);
        (void)sd_event_source_disable_unref(source);
        return 0;
    }

    if (what & CURL_POLL_IN)
        events |= EPOLLIN;
    if (what & CURL_POLL_OUT)
        events |= EPOLLOUT;
    if (source)
        return sd_event_source_set_io_events(source, events) < 0 ? -1 : 0;
    if (sd_event_add_io(client->event, &source, fd, events, on_socket_ready, client) < 0)
        return -1;
    (void)curl_multi_assign(client->multi, fd, source);
    return 0;
}

static void on_timer(void *userdata)
{
    client_turn(userdata, CURL_SOCKET_TIMEOUT, 0);
}

static int on_due(sd_event_source *source, void *userdata)
{
    on_timer(userdata);
    return 0;
}

static int on_curl_timer(CURLM *multi, long timeout_msec, void *userdata)
{
    HttpClient *client = userdata;

    if (timeout_msec < 0) {
        timer_cancel(client->timer);
        (void)sd_event_source_set_enabled(client->due, SD_EVENT_OFF);
        return 0;
    }
    /* Each request begins so, and a clock is not needed for it. The timer may go off as well:
     * libcurl finds that nothing is due. */
    if (timeout_msec == 0)
        return sd_event_source_set_enabled(client->due, SD_EVENT_ONESHOT) < 0 ? -1 : 0;
    return timer_set(client->timer, (uint64_t)timeout_msec * MSEC, 0) < 0 ? -1 : 0;
}

static int on_kick(sd_event_source *source, void *userdata)
{
    auto_(client_unrefp) HttpClient *client = client_ref(userdata);
    HttpOp *queued;

    /* From the start each time: a handler may free any of them. */
    do {
        queued = NULL;
        for (HttpOp *op = client->ops; op; op = op->all_next)
            if (op->state == OP_QUEUED)
                queued = op;
        if (queued)
            op_begin_queued(queued);
    } while (queued && !client->closed);
    return 0;
}

void client_kick(HttpClient *client)
{
    (void)sd_event_source_set_enabled(client->kick, SD_EVENT_ONESHOT);
}

/* --- Making one ----------------------------------------------------------------------------- */

static int client_init_curl(HttpClient *client)
{
    static bool initialized;
    CURLM *multi;

    /* Answers hold secrets, and who receives and who parses them keeps copies on the way. */
    if (!initialized && curl_global_init_mem(CURL_GLOBAL_SSL, malloc, wiping_free, wiping_realloc,
                                             strdup, calloc) != CURLE_OK)
        return -ENOMEM;
    if (!initialized)
        json_set_alloc_funcs(malloc, wiping_free);
    initialized = true;

    client->multi = multi = curl_multi_init();
    client->share = curl_share_init();
    if (!multi || !client->share)
        return -ENOMEM;

    /* TLS sessions are resumed whichever operation comes next. */
    (void)curl_share_setopt(client->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    (void)curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    (void)curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client);
    (void)curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    (void)curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client);
    (void)curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, HTTP_CONNECTIONS_MAX);
    return 0;
}

int http_client_new(sd_event *event, const char *user_agent, HttpClient **ret, Error *err)
{
    auto_(http_client_freep) HttpClient *client = NULL;
    int r;

    assert(event && user_agent && ret);

    client = calloc(1, sizeof(*client));
    if (!client)
        return error_oom(err);
    client->n_ref = 1;
    client->event = sd_event_ref(event);
    client->idle_usec = HTTP_IDLE_USEC;
    client->user_agent = strdup(user_agent);
    if (!client->user_agent || client_init_curl(client) < 0)
        return error_oom(err);

    r = timer_new(event, on_timer, client, &client->timer);
    if (r >= 0)
        r = sd_event_add_defer(event, &client->due, on_due, client);
    if (r >= 0)
        r = sd_event_source_set_enabled(client->due, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_defer(event, &client->kick, on_kick, client);
    if (r >= 0)
        r = sd_event_source_set_enabled(client->kick, SD_EVENT_OFF);
    if (r < 0)
        return error_errno(err, r, "http client");

    *ret = take_ptr(client);
    return 0;
}

void http_client_set_max_host_connections(HttpClient *client, unsigned max)
{
    (void)curl_multi_setopt(client->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)max);
}

void http_client_set_idle_timeout(HttpClient *client, uint64_t usec)
{
    client->idle_usec = usec;
}

void http_client_stats(const HttpClient *client, HttpStats *ret)
{
    *ret = client->stats;
}

/* --- Answers -------------------------------------------------------------------------------- */

const char *http_response_header(const HttpResponse *response, const char *name)
{
    for (size_t i = 0; i < response->n_headers; i++)
        if (strcasecmp(response->headers[i].name, name) == 0)
            return response->headers[i].value;
    return NULL;
}

typedef struct StatusRow {
    long status;
    int code;
    ErrorKind kind;
    const char *reason;
} StatusRow;

/* clang-format off */
static const StatusRow status_rows[] = {
    {400, -EINVAL,    ERROR_INVALID,   "Bad Request"},
    {401, -EACCES,    ERROR_DENIED,    "Unauthorized"},
    {403, -EACCES,    ERROR_DENIED,    "Forbidden"},
    {404, -ENOENT,    ERROR_INVALID,   "Not Found"},
    {405, -EINVAL,    ERROR_INVALID,   "Method Not Allowed"},
    {408, -ETIMEDOUT, ERROR_TEMPORARY, "Request Timeout"},
    {409, -EEXIST,    ERROR_INVALID,   "Conflict"},
    {410, -ENOENT,    ERROR_INVALID,   "Gone"},
    {412, -EINVAL,    ERROR_INVALID,   "Precondition Failed"},
    {413, -EMSGSIZE,  ERROR_INVALID,   "Content Too Large"},
    {416, -EINVAL,    ERROR_INVALID,   "Range Not Satisfiable"},
    {418, -EBUSY,     ERROR_THROTTLED, "Banned"},
    {429, -EBUSY,     ERROR_THROTTLED, "Too Many Requests"},
    {451, -EACCES,    ERROR_DENIED,    "Unavailable For Legal Reasons"},
    {500, -EAGAIN,    ERROR_TEMPORARY, "Internal Server Error"},
    {501, -ENOSYS,    ERROR_INVALID,   "Not Implemented"},
    {502, -EAGAIN,    ERROR_TEMPORARY, "Bad Gateway"},
    {503, -EAGAIN,    ERROR_TEMPORARY, "Service Unavailable"},
    {504, -EAGAIN,    ERROR_TEMPORARY, "Gateway Timeout"},
};
/* clang-format on */

int http_response_error(const HttpResponse *response, const char *what, Error *err)
{
    StatusRow row = {.status = response->status, -EINVAL, ERROR_INVALID, ""};
    int r;

    if (response->status >= 200 && response->status < 300)
        return 0;

    if (response->status >= 500)
        row = (StatusRow){response->status, -EAGAIN, ERROR_TEMPORARY, ""};
    for (size_t i = 0; i < ELEMENTS(status_rows); i++)
        if (status_rows[i].status == response->status)
            row = status_rows[i];
    /* A peer that names a time is one that throttles, whatever it calls it. */
    if (row.kind == ERROR_TEMPORARY && response->retry_after_usec > 0)
        row.kind = ERROR_THROTTLED;

    r = error_set(err, row.code, row.kind, "%s: HTTP %ld%s%s", what, response->status,
                  *row.reason ? " " : "", row.reason);
    if (err)
        err->retry_after_usec = response->retry_after_usec;
    return r;
}
