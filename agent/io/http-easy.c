/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/str.h"
#include "agent/io/http-private.h"

/* libcurl's 64 KiB would be a third of an idle agent's growth; a load of many megabytes is worth
 * more than that, as each send is a turn of the loop. */
#define UPLOAD_BUFFER_SIZE       (16L << 10)
#define UPLOAD_BUFFER_SIZE_LARGE (256L << 10)
#define UPLOAD_IS_LARGE          (1U << 20)

/* --- What libcurl calls --------------------------------------------------------------------- */

long easy_status(const HttpOp *op)
{
    long status = 0;

    (void)curl_easy_getinfo(op->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

/* A peer may name any number; further than a year is as good as a year, and must not wrap round. */
#define RETRY_AFTER_MAX_SEC UINT64_C(31536000)

static size_t stop_with(HttpOp *op, OpStop stop, int code)
{
    op->stop = stop;
    op->stop_code = code;
    return 0; /* a short count ends the transfer */
}

static size_t on_header(char *data, size_t unit, size_t count, void *userdata)
{
    HttpOp *op = userdata;
    Buf *text = &op->header_text;
    size_t size = unit * count, end = size, name_end, value;

    if (op->dead)
        return 0;
    if (size >= 5 && memcmp(data, "HTTP/", 5) == 0) {
        /* A new answer: what came before was a 1xx. */
        buf_clear(text);
        op->n_header_text = 0;
        return size;
    }

    while (end > 0 && (data[end - 1] == '\n' || data[end - 1] == '\r' || data[end - 1] == ' ' ||
                       data[end - 1] == '\t'))
        end--;
    for (name_end = 0; name_end < end && data[name_end] > ' ' && data[name_end] != ':'; name_end++)
        ;
    /* libcurl ends a line at LF alone: a CR within it is part of no header of ours. */
    if (name_end == 0 || name_end == end || data[name_end] != ':' || memchr(data, '\0', end) ||
        memchr(data, '\r', end))
        return size;
    for (value = name_end + 1; value < end && (data[value] == ' ' || data[value] == '\t'); value++)
        ;

    if (buf_add(text, data, name_end) < 0 || buf_add_char(text, '\0') < 0 ||
        buf_add(text, data + value, end - value) < 0 || buf_add_char(text, '\0') < 0)
        return stop_with(op, OP_STOP_HEADERS, -EFBIG);
    op->n_header_text++;
    return size;
}

static size_t on_read(char *data, size_t unit, size_t count, void *userdata)
{
    HttpOp *op = userdata;
    ptrdiff_t n;

    if (op->dead)
        return CURL_READFUNC_ABORT;
    n = op->request.read(data, unit * count, op->userdata);
    if (op->dead)
        return CURL_READFUNC_ABORT;
    if (n < 0) {
        (void)stop_with(op, OP_STOP_READ, (int)n);
        return CURL_READFUNC_ABORT;
    }
    op->read_offset += (uint64_t)n;
    return (size_t)n;
}

/* libcurl goes back to the start when a kept connection turned out to be dead. */
static int on_seek(void *userdata, curl_off_t offset, int origin)
{
    HttpOp *op = userdata;

    if (op->dead || offset != 0 || origin != SEEK_SET)
        return CURL_SEEKFUNC_CANTSEEK;
    if (op->read_offset == 0)
        return CURL_SEEKFUNC_OK;
    if (!op->request.rewind || op->request.rewind(op->userdata) < 0)
        return CURL_SEEKFUNC_FAIL;
    op->read_offset = 0;
    return CURL_SEEKFUNC_OK;
}

/* --- Whom we talk to ------------------------------------------------------------------------ */

static bool is_link_local(const char *address)
{
    return startswith(address, "169.254.") || startswith_nocase(address, "fe80:") ||
           startswith_nocase(address, "fd20:ce::") || startswith_nocase(address, "::ffff:169.254.");
}

/* Negative when the peer may not be spoken to. What the first URL names is the caller's choice;
 * what a redirect names is a stranger's. */
static int check_peer(HttpOp *op, const char *address, uint16_t port)
{
    int r = 0;

    if (op->hops > 0 && op->hop_foreign &&
        (is_link_local(address) || (address_is_private(address) && !op->hop_was_private)))
        r = -EPERM;
    if (r == 0 && op->request.check_address)
        r = op->request.check_address(address, port, op->hop_host, op->userdata);
    if (r < 0)
        (void)stop_with(op, OP_STOP_ADDRESS, r);
    return r;
}

static curl_socket_t on_open_socket(void *userdata, curlsocktype purpose,
                                    struct curl_sockaddr *address)
{
    HttpOp *op = userdata;
    char text[INET6_ADDRSTRLEN] = "";
    const void *from = NULL;
    uint16_t port = 0;

    if (op->dead)
        return CURL_SOCKET_BAD;

    if (address->family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, &address->addr, sizeof(in));
        from = inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
        port = ntohs(in.sin_port);
    } else if (address->family == AF_INET6) {
        struct sockaddr_in6 in6;

        memcpy(&in6, (const void *)&address->addr, sizeof(in6));
        from = inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(text));
        port = ntohs(in6.sin6_port);
    }
    if (from && check_peer(op, text, port) < 0)
        return CURL_SOCKET_BAD;

    /* Each socket is a NAT port taken, whether or not the peer ever answers. */
    op->response.new_connections++;
    op->client->stats.connections++;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* Also for a connection that somebody else opened, under weaker rules perhaps. */
static int on_before_request(void *userdata, char *peer_ip, char *local_ip, int peer_port,
                             int local_port)
{
    HttpOp *op = userdata;

    if (op->dead)
        return CURL_PREREQFUNC_ABORT;
    op->response.connected = true;
    if (!op->unix_socket && !str_is_empty(peer_ip) &&
        check_peer(op, peer_ip, (uint16_t)peer_port) < 0)
        return CURL_PREREQFUNC_ABORT;
    return CURL_PREREQFUNC_OK;
}

/* --- One transfer --------------------------------------------------------------------------- */

/* What may be told to a host that the caller did not name: a caller's header may be a credential
 * under any name, so it is these and no others. */
static bool is_harmless_header(const char *name)
{
    static const char *const names[] = {"Accept",           "Accept-Language", "Content-Type",
                                        "User-Agent",       "Range",           "If-None-Match",
                                        "If-Modified-Since"};

    for (size_t i = 0; i < ELEMENTS(names); i++)
        if (strcasecmp(names[i], name) == 0)
            return true;
    return false;
}

static int add_line(HttpOp *op, const char *line)
{
    struct curl_slist *list = curl_slist_append(op->slist, line);

    if (!list)
        return -ENOMEM;
    op->slist = list;
    return 0;
}

static int set_headers(HttpOp *op)
{
    bool has_type = false;
    int r = 0;

    for (size_t i = 0; i < op->request.n_headers && r >= 0; i++) {
        const HttpHeader *header = &op->headers[i];
        auto_free char *line = NULL;

        if (op->hop_foreign && !is_harmless_header(header->name))
            continue;
        if (strcasecmp(header->name, "Content-Type") == 0)
            has_type = true;
        /* "Name;" is how libcurl is told to send an empty one. */
        line = *header->value ? str_printf("%s: %s", header->name, header->value)
                              : str_printf("%s;", header->name);
        r = line ? add_line(op, line) : -ENOMEM;
        if (line)
            explicit_bzero(line, strlen(line));
    }
    if (r >= 0)
        r = add_line(op, "Expect:"); /* a round trip, or a second of waiting, for nothing */
    if (r >= 0 && !has_type)
        r = add_line(op, "Content-Type:");
    /* Not CURLOPT_ACCEPT_ENCODING, which would have libcurl decode it: see http-body.c. */
    if (r >= 0 && op->request.compressed)
        r = add_line(op, "Accept-Encoding: gzip");
    if (r < 0)
        return r;
    (void)curl_easy_setopt(op->easy, CURLOPT_HTTPHEADER, op->slist);
    return 0;
}

static void set_body(HttpOp *op)
{
    const HttpRequest *request = &op->request;
    bool large = request->body_size >= UPLOAD_IS_LARGE;
    CURL *easy = op->easy;

    (void)curl_easy_setopt(easy, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE,
                           large ? UPLOAD_BUFFER_SIZE_LARGE : UPLOAD_BUFFER_SIZE);
    if (!request->read) {
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body ? request->body : "");
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
        return;
    }
    (void)curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    (void)curl_easy_setopt(easy, CURLOPT_READDATA, op);
    (void)curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    (void)curl_easy_setopt(easy, CURLOPT_SEEKDATA, op);
    (void)curl_easy_setopt(
        easy, CURLOPT_POSTFIELDSIZE_LARGE,
        request->body_size == HTTP_SIZE_UNKNOWN ? (curl_off_t)-1 : (curl_off_t)request->body_size);
}

static int set_method(HttpOp *op)
{
    const char *method = op->hop_get ? "GET" : op->method;
    bool has_body = !op->hop_get && (op->request.read || op->request.body ||
                                     streq(method, "POST") || streq(method, "PUT"));

    if (streq(method, "HEAD")) {
        (void)curl_easy_setopt(op->easy, CURLOPT_NOBODY, 1L);
        return 0;
    }
    if (has_body)
        set_body(op);
    else
        (void)curl_easy_setopt(op->easy, CURLOPT_HTTPGET, 1L);
    if (has_body && op->request.read && op->request.body_size == HTTP_SIZE_UNKNOWN &&
        add_line(op, "Transfer-Encoding: chunked") < 0)
        return -ENOMEM;
    return curl_easy_setopt(op->easy, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK ? 0 : -ENOMEM;
}

static CURLcode set_credentials(HttpOp *op)
{
    if (op->hop_foreign)
        return CURLE_OK;
    if (op->bearer) {
        (void)curl_easy_setopt(op->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        return curl_easy_setopt(op->easy, CURLOPT_XOAUTH2_BEARER, op->bearer);
    }
    if (op->user_pass) {
        (void)curl_easy_setopt(op->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        return curl_easy_setopt(op->easy, CURLOPT_USERPWD, op->user_pass);
    }
    return CURLE_OK;
}

static long to_msec(uint64_t usec)
{
    uint64_t msec = usec / MSEC + (usec % MSEC > 0);

    return (long)MAX_OF(MIN_OF(msec, UINT64_C(2000000000)), UINT64_C(1));
}

static void set_limits(HttpOp *op, uint64_t limit_usec)
{
    const HttpRequest *request = &op->request;
    uint64_t idle_seconds = op->client->idle_usec / SECOND;
    uint64_t stall_seconds = (request->stall_timeout_usec + SECOND - 1) / SECOND;
    CURL *easy = op->easy;

    (void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, to_msec(request->connect_timeout_usec));
    if (limit_usec != USEC_INFINITY)
        (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, to_msec(limit_usec));
    if (stall_seconds > 0) {
        (void)curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
        (void)curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)stall_seconds);
    }
    (void)curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)MAX_OF(idle_seconds, UINT64_C(1)));
    (void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
}

/* OpenSSL decrypts a record in place, and would keep it there. */
static CURLcode on_tls_context(CURL *easy, void *context, void *userdata)
{
    (void)SSL_CTX_set_options(context, SSL_OP_CLEANSE_PLAINTEXT);
    return CURLE_OK;
}

static void set_transport(HttpOp *op)
{
    const HttpRequest *request = &op->request;
    CURL *easy = op->easy;

    (void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_SHARE, op->client->share);
    (void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                           (long)(request->http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
    (void)curl_easy_setopt(easy, CURLOPT_PIPEWAIT, request->http2 ? 1L : 0L);
    if (op->unix_socket)
        (void)curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, op->unix_socket);
    if (request->no_proxy || op->unix_socket || host_is_loopback(op->hop_host))
        (void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (request->sensitive)
        (void)curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls_context);
    if (request->fresh_connection)
        (void)curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_USERAGENT, op->client->user_agent);
    (void)curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    (void)curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, op);
    (void)curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_before_request);
    (void)curl_easy_setopt(easy, CURLOPT_PREREQDATA, op);
}

/* A handle begins each try afresh: options that stayed behind would be a bug nobody sees. */
static int easy_prepare(HttpOp *op)
{
    CURL *easy = op->easy;

    if (easy)
        curl_easy_reset(easy);
    else
        op->easy = easy = curl_easy_init();
    if (!easy)
        return -ENOMEM;
    curl_slist_free_all(op->slist);
    op->slist = NULL;

    op->error_text[0] = '\0';
    (void)curl_easy_setopt(easy, CURLOPT_PRIVATE, op);
    (void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, op->error_text);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_receive);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, op);
    (void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, op);
    if (curl_easy_setopt(easy, CURLOPT_URL, op->mapped_url) != CURLE_OK || set_method(op) < 0 ||
        set_headers(op) < 0 || set_credentials(op) != CURLE_OK)
        return -ENOMEM;
    set_transport(op);
    return 0;
}

int easy_begin(HttpOp *op, uint64_t limit_usec, Error *err)
{
    assert(op->client && op->client->depth == 0 && op->state != OP_RUNNING);

    if (easy_prepare(op) < 0)
        return error_oom(err);
    set_limits(op, limit_usec);

    if (curl_multi_add_handle(op->client->multi, op->easy) != CURLM_OK)
        return error_oom(err);
    op->state = OP_RUNNING;
    op->client->stats.requests++;
    return 0;
}

static uint64_t info_bytes(CURL *easy, CURLINFO which)
{
    curl_off_t bytes = 0;

    (void)curl_easy_getinfo(easy, which, &bytes);
    return bytes > 0 ? (uint64_t)bytes : 0;
}

static uint64_t info_size(CURL *easy, CURLINFO which)
{
    long bytes = 0;

    (void)curl_easy_getinfo(easy, which, &bytes);
    return bytes > 0 ? (uint64_t)bytes : 0;
}

void easy_end(HttpOp *op)
{
    uint64_t in, out;

    if (op->state != OP_RUNNING)
        return;

    in = info_bytes(op->easy, CURLINFO_SIZE_DOWNLOAD_T) + info_size(op->easy, CURLINFO_HEADER_SIZE);
    out = info_bytes(op->easy, CURLINFO_SIZE_UPLOAD_T) + info_size(op->easy, CURLINFO_REQUEST_SIZE);
    op->response.wire_bytes_in += in;
    op->response.wire_bytes_out += out;
    op->client->stats.bytes_in += in;
    op->client->stats.bytes_out += out;
    (void)curl_multi_remove_handle(op->client->multi, op->easy);
    op->state = OP_DONE;
}

/* The answer's head, from libcurl into the response. */
void easy_collect(HttpOp *op)
{
    HttpResponse *response = &op->response;
    char *at = op->header_text.data, *ip = NULL;
    curl_off_t retry_after = 0;

    response->status = easy_status(op);
    (void)curl_easy_getinfo(op->easy, CURLINFO_RETRY_AFTER, &retry_after);
    response->retry_after_usec =
        retry_after > 0 ? MIN_OF((uint64_t)retry_after, RETRY_AFTER_MAX_SEC) * SECOND : 0;
    (void)curl_easy_getinfo(op->easy, CURLINFO_PRIMARY_IP, &ip);
    if (!str_is_empty(ip) && strlen(ip) < sizeof(op->peer))
        memcpy(op->peer, ip, strlen(ip) + 1);

    free(op->header_array);
    op->header_array = calloc(op->n_header_text + 1, sizeof(*op->header_array));
    response->headers = op->header_array;
    response->n_headers = op->header_array ? op->n_header_text : 0;
    for (size_t i = 0; i < response->n_headers; i++) {
        op->header_array[i].name = at;
        at += strlen(at) + 1;
        op->header_array[i].value = at;
        at += strlen(at) + 1;
    }
    response->location = http_response_header(response, "Location");
    response->content_type = http_response_header(response, "Content-Type");
    if (!response->content_type)
        response->content_type = "";
}

/* --- Why there is no answer ----------------------------------------------------------------- */

typedef struct CurlRow {
    CURLcode result;
    int code;
    ErrorKind kind;
    const char *text;
} CurlRow;

/* clang-format off */
static const CurlRow curl_rows[] = {
    {CURLE_COULDNT_RESOLVE_HOST,  -EHOSTUNREACH, ERROR_TEMPORARY, "the name cannot be resolved"},
    {CURLE_COULDNT_RESOLVE_PROXY, -EHOSTUNREACH, ERROR_TEMPORARY, "the proxy's name cannot be resolved"},
    {CURLE_COULDNT_CONNECT,       -ECONNREFUSED, ERROR_TEMPORARY, "cannot connect"},
    {CURLE_GOT_NOTHING,           -ECONNRESET,   ERROR_TEMPORARY, "closed the connection without an answer"},
    {CURLE_PARTIAL_FILE,          -ECONNRESET,   ERROR_TEMPORARY, "closed the connection before the end of the body"},
    {CURLE_SEND_ERROR,            -ECONNRESET,   ERROR_TEMPORARY, "connection lost while sending"},
    {CURLE_RECV_ERROR,            -ECONNRESET,   ERROR_TEMPORARY, "connection lost while receiving"},
    {CURLE_SEND_FAIL_REWIND,      -ECONNRESET,   ERROR_TEMPORARY, "connection lost while sending"},
    {CURLE_UNSUPPORTED_PROTOCOL,  -EPROTO,       ERROR_TEMPORARY, "the answer is not HTTP"},
    {CURLE_WEIRD_SERVER_REPLY,    -EPROTO,       ERROR_TEMPORARY, "the answer is not HTTP"},
    {CURLE_SSL_CONNECT_ERROR,     -EPROTO,       ERROR_TEMPORARY, "TLS handshake failed"},
    {CURLE_HTTP2,                 -EPROTO,       ERROR_TEMPORARY, "HTTP/2 failed"},
    {CURLE_HTTP2_STREAM,          -EPROTO,       ERROR_TEMPORARY, "HTTP/2 failed"},
    {CURLE_URL_MALFORMAT,         -EINVAL,       ERROR_INVALID,   "bad URL"},
    {CURLE_OUT_OF_MEMORY,         -ENOMEM,       ERROR_INTERNAL,  "out of memory"},
    {CURLE_SSL_CACERT_BADFILE,    -ENOENT,       ERROR_INVALID,   "no CA certificates on this machine"},
};
/* clang-format on */

static int stop_error(const HttpOp *op, Error *err)
{
    const char *host = op->hop_host;

    switch (op->stop) {
    case OP_STOP_TOO_BIG:
        return error_set(err, -EFBIG, ERROR_CORRUPT, "%s: the answer is over %llu bytes", host,
                         (unsigned long long)(op->request.on_body ? op->request.max_stream
                                                                  : op->request.max_body));
    case OP_STOP_HEADERS:
        return error_set(err, -EFBIG, ERROR_CORRUPT, "%s: the answer's head is over %u bytes", host,
                         HTTP_HEADERS_MAX);
    case OP_STOP_ENCODING:
        return error_set(err, op->stop_code, ERROR_CORRUPT, "%s: %s", host, op->encoding_fault);
    case OP_STOP_HANDLER:
        return error_errno(err, op->stop_code, "%s: the answer cannot be used", host);
    case OP_STOP_READ:
        return error_errno(err, op->stop_code, "%s: the request's body cannot be read", host);
    case OP_STOP_ADDRESS:
        return error_set(err, op->stop_code, ERROR_INVALID,
                         op->hops > 0 ? "%s: redirected to an address that is not allowed"
                                      : "%s: its address is not allowed",
                         host);
    case OP_STOP_NO_MEMORY:
        return error_oom(err);
    case OP_STOP_NONE:
    case OP_STOP_CUT:
        break;
    }
    return 0;
}

static int timeout_error(const HttpOp *op, Error *err)
{
    char span[TIME_SPAN_MAX];
    uint64_t waited = now_boottime_usec() - op->try_started_usec;

    if (!op->response.connected)
        return error_set(err, -ETIMEDOUT, ERROR_TEMPORARY, "%s: no connection within %s",
                         op->hop_host, time_format_span(span, waited));
    if (startswith(op->error_text, "Operation too slow"))
        return error_set(err, -ETIMEDOUT, ERROR_TEMPORARY, "%s: stalled for %s", op->hop_host,
                         time_format_span(span, op->request.stall_timeout_usec));
    return error_set(err, -ETIMEDOUT, ERROR_TEMPORARY, "%s: no complete answer within %s",
                     op->hop_host, time_format_span(span, waited));
}

static int certificate_error(const HttpOp *op, Error *err)
{
    /* Temporary, since a clock that is set later, or a certificate renewed, heals it. */
    (void)error_set(err, -EPROTO, ERROR_TEMPORARY, "%s: its certificate is not trusted: %s",
                    op->hop_host, op->error_text);
    return error_remedy(err, -EPROTO,
                        "check the clock (timedatectl) and apt-get install --reinstall "
                        "ca-certificates");
}

int easy_error(const HttpOp *op, CURLcode result, Error *err)
{
    const CurlRow *row = NULL;
    long os_errno = 0;
    int code;

    if (op->stop != OP_STOP_NONE && op->stop != OP_STOP_CUT)
        return stop_error(op, err);
    if (result == CURLE_OPERATION_TIMEDOUT)
        return timeout_error(op, err);
    if (result == CURLE_PEER_FAILED_VERIFICATION)
        return certificate_error(op, err);

    for (size_t i = 0; i < ELEMENTS(curl_rows); i++)
        if (curl_rows[i].result == result)
            row = &curl_rows[i];
    if (!row)
        return error_set(err, -EIO, ERROR_TEMPORARY, "%s: %s", op->hop_host,
                         *op->error_text ? op->error_text : curl_easy_strerror(result));

    code = row->code;
    (void)curl_easy_getinfo(op->easy, CURLINFO_OS_ERRNO, &os_errno);
    if (result == CURLE_COULDNT_CONNECT && os_errno > 0)
        code = -(int)os_errno;
    if (row->kind == ERROR_TEMPORARY && os_errno > 0)
        return error_set(err, code, row->kind, "%s: %s: %s", op->hop_host, row->text,
                         strerror((int)os_errno));
    return error_set(err, code, row->kind, "%s: %s", op->hop_host, row->text);
}
