/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "agent/base/str.h"
#include "agent/io/http-private.h"

#define RETRY_BASE_USEC        (1 * SECOND)
#define RETRY_CAP_USEC         (32 * SECOND)
#define RETRY_AFTER_LIMIT_USEC (60 * SECOND)

static void on_pause_over(void *userdata);

/* --- Where it goes -------------------------------------------------------------------------- */

/* Points the operation at `url` (taken), checked and mapped. */
static int hop_set(HttpOp *op, char *url, Error *err)
{
    auto_free char *next = url, *mapped = NULL, *host = NULL, *scheme = NULL;
    uint16_t port;
    int r;

    if (op->unix_socket) {
        mapped = strdup(next);
        if (!mapped)
            return error_oom(err);
    } else {
        r = http_client_map_url(op->client, next, &mapped, err);
        if (r < 0)
            return r;
    }
    r = url_host_port(mapped, &scheme, &host, &port, err);
    if (r < 0)
        return r;
    r = url_check_scheme(scheme, host, op->request.allow_plain || op->unix_socket, err);
    if (r < 0)
        return r;

    free(op->hop_url);
    free(op->mapped_url);
    free(op->hop_host);
    op->hop_url = take_ptr(next);
    op->mapped_url = take_ptr(mapped);
    op->hop_host = take_ptr(host);
    op->hop_port = port;
    return 0;
}

static int hop_first(HttpOp *op, Error *err)
{
    char *url = strdup(op->url);

    op->hops = 0;
    op->hop_foreign = op->hop_get = op->hop_was_private = false;
    return url ? hop_set(op, url, err) : error_oom(err);
}

/* Scheme, host and port. */
static bool is_same_origin(const char *a, const char *b)
{
    auto_free char *scheme_a = NULL, *scheme_b = NULL, *host_a = NULL, *host_b = NULL;
    uint16_t port_a, port_b;

    return url_host_port(a, &scheme_a, &host_a, &port_a, NULL) >= 0 &&
           url_host_port(b, &scheme_b, &host_b, &port_b, NULL) >= 0 && port_a == port_b &&
           streq(scheme_a, scheme_b) && streq(host_a, host_b);
}

static int url_resolve(const char *base, const char *relative, char **ret, Error *err)
{
    CURLU *parsed = curl_url();
    char *joined = NULL;
    CURLUcode code = CURLUE_OUT_OF_MEMORY;

    if (parsed)
        code = curl_url_set(parsed, CURLUPART_URL, base, 0);
    if (code == CURLUE_OK)
        code = curl_url_set(parsed, CURLUPART_URL, relative, CURLU_URLENCODE);
    if (code == CURLUE_OK)
        code = curl_url_set(parsed, CURLUPART_FRAGMENT, NULL, 0);
    if (code == CURLUE_OK)
        code = curl_url_get(parsed, CURLUPART_URL, &joined, 0);
    curl_url_cleanup(parsed);
    if (code == CURLUE_OUT_OF_MEMORY)
        return error_oom(err);
    if (code != CURLUE_OK)
        return error_set(err, -EINVAL, ERROR_INVALID, "redirected to a bad URL: %s",
                         curl_url_strerror(code));

    *ret = strdup(joined);
    curl_free(joined);
    return *ret ? 0 : error_oom(err);
}

/* A relative redirect is meant in the terms of whoever wrote it: a mirror that knows its own prefix
 * says so by naming it, anything else speaks as the host that it stands for. */
static const char *redirect_base(const HttpOp *op)
{
    auto_free char *host = NULL;
    const Endpoint *endpoint = NULL;

    if (!op->unix_socket && url_host_port(op->hop_url, NULL, &host, NULL, NULL) >= 0)
        endpoint = endpoint_find(op->client, host);
    if (endpoint && *endpoint->prefix && startswith(op->response.location, endpoint->prefix))
        return op->mapped_url;
    return op->hop_url;
}

static bool is_allowed_host(const HttpOp *op, const char *host)
{
    if (!op->follow_hosts)
        return true;
    STRV_FOREACH (allowed, op->follow_hosts)
        if (strcasecmp(*allowed, host) == 0)
            return true;
    return false;
}

static bool is_redirect(const HttpOp *op)
{
    long status = op->response.status;

    return op->request.follow && op->response.location &&
           (status == 301 || status == 302 || status == 303 || status == 307 || status == 308);
}

static int hop_follow(HttpOp *op, Error *err)
{
    auto_free char *target = NULL, *host = NULL, *scheme = NULL, *first_mapped = NULL;
    long status = op->response.status;
    int r;

    if (op->hops >= HTTP_REDIRECTS_MAX)
        return error_set(err, -ELOOP, ERROR_INVALID, "%s: more than %d redirects", op->hop_host,
                         HTTP_REDIRECTS_MAX);
    r = url_resolve(redirect_base(op), op->response.location, &target, err);
    if (r < 0)
        return r;
    r = url_host_port(target, &scheme, &host, NULL, err);
    if (r < 0)
        return r;
    if (!is_allowed_host(op, host))
        return error_set(err, -EPERM, ERROR_INVALID, "%s: redirected to %s, which is not allowed",
                         op->hop_host, host);
    if (startswith(op->mapped_url, "https:") && !streq(scheme, "https") &&
        !is_same_origin(op->mapped_url, target))
        return error_set(err, -EPERM, ERROR_INVALID, "%s: redirected from https to %s",
                         op->hop_host, scheme);

    if (!op->unix_socket) {
        r = http_client_map_url(op->client, op->url, &first_mapped, err);
        if (r < 0)
            return r;
    }
    /* Once foreign, foreign for good: a way back through a stranger proves nothing. */
    if (!is_same_origin(op->url, target) &&
        (!first_mapped || !is_same_origin(first_mapped, target)))
        op->hop_foreign = true;
    op->hop_was_private = *op->peer && address_is_private(op->peer);
    if (status == 303 ? !streq(op->method, "HEAD") : status < 303 && streq(op->method, "POST"))
        op->hop_get = true;
    op->hops++;
    return hop_set(op, take_ptr(target), err);
}

/* --- Tries ---------------------------------------------------------------------------------- */

static uint64_t total_left_usec(const HttpOp *op)
{
    uint64_t spent = now_boottime_usec() - op->started_usec;

    if (op->request.total_timeout_usec == 0)
        return USEC_INFINITY;
    return op->request.total_timeout_usec > spent ? op->request.total_timeout_usec - spent : 0;
}

static void response_reset(HttpOp *op)
{
    HttpResponse *response = &op->response;

    body_reset(op);
    buf_clear(&op->header_text);
    op->n_header_text = 0;
    response->n_headers = 0;
    response->headers = NULL;
    response->status = 0;
    response->content_type = "";
    response->location = NULL;
    response->retry_after_usec = 0;
    response->connected = false;
    op->stop = OP_STOP_NONE;
    op->stop_code = 0;
}

static int hop_begin(HttpOp *op, Error *err)
{
    uint64_t limit = op->request.try_timeout_usec, total = total_left_usec(op), spent;
    int r;

    if (limit != USEC_INFINITY) {
        spent = now_boottime_usec() - op->try_started_usec;
        limit = limit > spent ? limit - spent : 0;
    }
    limit = MIN_OF(limit, total);
    if (limit == 0)
        return error_set(err, -ETIMEDOUT, ERROR_TEMPORARY, "%s: no answer within the time allowed",
                         op->hop_host);

    if (op->read_offset > 0 && !op->hop_get) {
        r = op->request.rewind ? op->request.rewind(op->userdata) : -ESPIPE;
        if (r < 0)
            return error_errno(err, r, "%s: the request's body cannot be read again", op->hop_host);
        op->read_offset = 0;
    }
    response_reset(op);
    return easy_begin(op, limit, err);
}

static int try_begin(HttpOp *op, Error *err)
{
    int r;

    op->response.tries++;
    op->try_started_usec = now_boottime_usec();
    r = hop_first(op, err);
    if (r < 0)
        return r;
    return hop_begin(op, err);
}

/* Nothing of the operation may be touched by the caller afterwards. */
static void op_finish(HttpOp *op, const Error *err)
{
    bool freed = false;

    op->state = OP_DONE;
    op->response.elapsed_usec = now_boottime_usec() - op->started_usec;
    op->response.peer_address = op->peer;
    op->freed = &freed; /* cppcheck-suppress autoVariables */
    op->handler(op, &op->response, err, op->userdata);
    if (freed)
        return;

    op->freed = NULL;
    if (op->state != OP_DONE)
        return; /* begun anew */
    if (op->easy)
        curl_easy_cleanup(op->easy);
    op->easy = NULL;
    body_reset(op);
    buf_done(&op->response.body);
    buf_done(&op->header_text);
}

/* Whether another try follows; if so it is on its way. */
static bool op_retry(HttpOp *op)
{
    const HttpRetry *retry = &op->request.retry;
    uint64_t retry_after = op->response.retry_after_usec, delay;

    if (op->response.tries >= retry->tries || op->handed_over)
        return false;
    if (op->read_offset > 0 && !op->request.rewind)
        return false;
    if (retry_after > retry->max_retry_after_usec)
        return false;

    delay = backoff_next(&op->backoff, retry_after);
    /* A pause that ends after the deadline would only be a slower way to fail. */
    if (delay >= total_left_usec(op))
        return false;
    if (!op->pause && timer_new(op->client->event, on_pause_over, op, &op->pause) < 0)
        return false;
    if (timer_set(op->pause, delay, 0) < 0)
        return false;
    op->state = OP_PAUSED;
    return true;
}

static void on_pause_over(void *userdata)
{
    HttpOp *op = userdata;
    auto_(client_unrefp) unused_ HttpClient *hold = client_ref(op->client);
    auto_error Error error = {0};

    op->state = OP_QUEUED;
    if (try_begin(op, &error) < 0)
        op_finish(op, &error);
}

static bool is_transient_status(long status)
{
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
           status == 504;
}

static void op_answered(HttpOp *op)
{
    auto_error Error error = {0};
    bool again;

    if (is_redirect(op)) {
        if (hop_follow(op, &error) < 0 || hop_begin(op, &error) < 0)
            op_finish(op, &error);
        return;
    }

    again = op->request.should_retry ? op->request.should_retry(&op->response, op->userdata)
                                     : is_transient_status(op->response.status);
    if (!again || !op_retry(op))
        op_finish(op, NULL);
}

void op_try_done(HttpOp *op, CURLcode result)
{
    auto_error Error error = {0};

    if (result == CURLE_OK)
        result = body_end(op);
    easy_collect(op);
    if (op->stop == OP_STOP_CUT)
        result = CURLE_OK;
    if (result != CURLE_OK)
        (void)easy_error(op, result, &error);
    easy_end(op);

    if (result == CURLE_OK) {
        op_answered(op);
        return;
    }
    /* Half an answer is none: its status must not be taken for one. */
    body_cleanse(op);
    op->response.status = 0;
    if (error.kind != ERROR_TEMPORARY || !op_retry(op))
        op_finish(op, &error);
}

void op_begin_queued(HttpOp *op)
{
    auto_error Error error = {0};

    op->started_usec = now_boottime_usec();
    if (try_begin(op, &error) < 0)
        op_finish(op, &error);
}

/* --- From request to operation -------------------------------------------------------------- */

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
    return value ? value : fallback;
}

static void request_defaults(HttpRequest *request)
{
    request->connect_timeout_usec =
        or_default(request->connect_timeout_usec, HTTP_CONNECT_TIMEOUT_USEC);
    request->try_timeout_usec = or_default(request->try_timeout_usec, HTTP_TRY_TIMEOUT_USEC);
    if (request->max_body == 0)
        request->max_body = HTTP_BODY_MAX;
    request->retry.base_usec = or_default(request->retry.base_usec, RETRY_BASE_USEC);
    request->retry.cap_usec = or_default(request->retry.cap_usec, RETRY_CAP_USEC);
    request->retry.max_retry_after_usec =
        or_default(request->retry.max_retry_after_usec, RETRY_AFTER_LIMIT_USEC);
}

static int copy_headers(HttpOp *op, const HttpRequest *request)
{
    op->headers = calloc(request->n_headers + 1, sizeof(*op->headers));
    if (!op->headers)
        return -ENOMEM;
    for (size_t i = 0; i < request->n_headers; i++) {
        op->headers[i].name = strdup(request->headers[i].name);
        op->headers[i].value = strdup(request->headers[i].value);
        if (!op->headers[i].name || !op->headers[i].value)
            return -ENOMEM;
    }
    return 0;
}

static int copy_request(HttpOp *op, const HttpRequest *request)
{
    bool has_body = request->body || request->read;

    op->request = *request;
    request_defaults(&op->request);
    if (str_set(&op->method, request->method ? request->method
                             : has_body      ? "POST"
                                             : "GET") < 0 ||
        str_set(&op->url, request->url) < 0 ||
        str_set(&op->unix_socket, request->unix_socket) < 0 ||
        str_set(&op->bearer, request->bearer) < 0 ||
        str_set(&op->user_pass, request->user_pass) < 0 || copy_headers(op, request) < 0)
        return -ENOMEM;

    if (request->follow_hosts) {
        op->follow_hosts = strv_copy((char *const *)request->follow_hosts);
        if (!op->follow_hosts)
            return -ENOMEM;
    }
    if (request->copy_body && request->body && request->body_size > 0) {
        op->body_copy = malloc(request->body_size);
        if (!op->body_copy)
            return -ENOMEM;
        memcpy(op->body_copy, request->body, request->body_size);
        op->request.body = op->body_copy;
    }
    return 0;
}

/* A line break in a header would be the start of another one. */
static int check_headers(const HttpRequest *request, Error *err)
{
    for (size_t i = 0; i < request->n_headers; i++)
        if (request->headers[i].name[strcspn(request->headers[i].name, "\r\n: ")] ||
            strpbrk(request->headers[i].value, "\r\n"))
            return error_set(err, -EINVAL, ERROR_INVALID, "bad request header %zu", i + 1);
    if ((request->bearer && strpbrk(request->bearer, "\r\n")) ||
        (request->user_pass && strpbrk(request->user_pass, "\r\n")))
        return error_set(err, -EINVAL, ERROR_INVALID, "credentials with a line break");
    return 0;
}

static void op_arm(HttpOp *op)
{
    const HttpRetry *retry = &op->request.retry;

    op->backoff = (Backoff){.base_usec = retry->base_usec, .cap_usec = retry->cap_usec};
    op->started_usec = now_boottime_usec();
    op->response.tries = 0;
    op->handed_over = false;
}

/* Inside libcurl it can only be noted. */
static int op_begin(HttpOp *op, Error *err)
{
    op_arm(op);
    if (op->client->depth > 0) {
        op->state = OP_QUEUED;
        client_kick(op->client);
        return 0;
    }
    return try_begin(op, err);
}

int http_start(HttpClient *client, const HttpRequest *request, HttpHandler handler, void *userdata,
               HttpOp **ret, Error *err)
{
    auto_(http_op_freep) HttpOp *op = NULL;
    int r;

    assert(client && request && request->url && handler && ret);
    assert(!(request->bearer && request->user_pass));
    assert(!(request->sensitive && request->compressed)); /* zlib would keep copies */

    if (client->closed)
        return error_set(err, -ESHUTDOWN, ERROR_INTERNAL, "the http client is closed");
    r = check_headers(request, err);
    if (r < 0)
        return r;

    op = calloc(1, sizeof(*op));
    if (!op)
        return error_oom(err);
    op->client = client;
    op->handler = handler;
    op->userdata = userdata;
    op->state = OP_HELD;
    op->response.body = BUF_INIT(HTTP_ERROR_BODY_MAX);
    op->response.content_type = "";
    op->response.peer_address = op->peer;
    op->header_text = BUF_INIT(HTTP_HEADERS_MAX);
    LIST_PREPEND(all, client->ops, op);
    if (copy_request(op, request) < 0)
        return error_oom(err);

    r = hop_first(op, err); /* a bad URL is said at once */
    if (r >= 0 && !request->held)
        r = op_begin(op, err);
    if (r < 0)
        return r;

    *ret = take_ptr(op);
    return 0;
}

static void secret_free(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

int http_op_restart(HttpOp *op, const char *bearer, Error *err)
{
    char *copy;

    assert(op && (op->state == OP_HELD || op->state == OP_DONE));

    if (!op->client || op->client->closed)
        return error_set(err, -ESHUTDOWN, ERROR_INTERNAL, "the http client is closed");
    if (bearer) {
        if (strpbrk(bearer, "\r\n"))
            return error_set(err, -EINVAL, ERROR_INVALID, "credentials with a line break");
        copy = strdup(bearer);
        if (!copy)
            return error_oom(err);
        secret_free(op->bearer);
        op->bearer = copy;
    }
    return op_begin(op, err);
}

/* --- The end -------------------------------------------------------------------------------- */

void op_abandon(HttpOp *op)
{
    if (!op->client)
        return;

    easy_end(op);
    op->state = OP_DONE;
    if (op->easy)
        curl_easy_cleanup(op->easy);
    op->easy = NULL;
    op->pause = timer_free(op->pause);
    if (op->dead)
        LIST_REMOVE(all, op->client->doomed, op);
    else
        LIST_REMOVE(all, op->client->ops, op);
    op->client = NULL;
}

void op_destroy(HttpOp *op)
{
    op_abandon(op);
    curl_slist_free_all(op->slist);
    body_reset(op);
    buf_done(&op->response.body);
    buf_done(&op->header_text);
    for (size_t i = 0; op->headers && i < op->request.n_headers; i++) {
        free((char *)op->headers[i].name);
        secret_free((char *)op->headers[i].value);
    }
    free(op->headers);
    free(op->header_array);
    strv_free(op->follow_hosts);
    free(op->body_copy);
    free(op->method);
    free(op->url);
    free(op->unix_socket);
    secret_free(op->bearer);
    secret_free(op->user_pass);
    free(op->hop_url);
    free(op->mapped_url);
    free(op->hop_host);
    free(op);
}

HttpOp *http_op_free(HttpOp *op)
{
    HttpClient *client;

    if (!op)
        return NULL;

    if (op->freed)
        *op->freed = true;
    client = op->client;
    if (!client || client->depth == 0) {
        op_destroy(op);
        return NULL;
    }

    /* libcurl is on the stack and may hold it: it goes when libcurl returns. */
    op->dead = true;
    op->pause = timer_free(op->pause);
    LIST_REMOVE(all, client->ops, op);
    LIST_PREPEND(all, client->doomed, op);
    return NULL;
}
