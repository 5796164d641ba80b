/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/http-server.h"

#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <zlib.h>

#include "agent/base/buf.h"
#include "agent/base/list.h"
#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"

#define REQUEST_MAX (64U << 20)
#define ANSWER_MAX  (256U << 20)

typedef struct Connection {
    HttpServer *server;
    LIST_FIELDS(struct Connection, all);
    sd_event_source *source;
    Timer *timer;
    int fd;
    unsigned number;
    Buf in, out;
    uint64_t drip_usec;
    bool answering; /* one at a time */
    size_t hanging; /* number of the request that hangs, from 1 */
    bool close, reset, silent;
} Connection;

struct HttpServer {
    sd_event *event;
    sd_event_source *source;
    uint16_t port;
    Reply *replies;
    size_t n_replies, next_reply;
    HttpServerHandler handler;
    void *userdata;
    Request *requests;
    size_t n_requests;
    unsigned unscripted, n_connections;
    char **kept;
    size_t n_kept;
    Connection *connections;
};

static Connection *connection_free(Connection *connection)
{
    LIST_REMOVE(all, connection->server->connections, connection);
    (void)sd_event_source_disable_unref(connection->source);
    timer_free(connection->timer);
    close_fd(connection->fd);
    buf_done(&connection->in);
    buf_done(&connection->out);
    free(connection);
    return NULL;
}

static void check(int r)
{
    if (r < 0)
        fail_msg("test server: %s", strerror(-r));
}

/* --- Answering ------------------------------------------------------------------------------ */

static void add_gzip(Buf *to, const char *data, size_t size, size_t repeat)
{
    z_stream z = {0};
    unsigned char piece[16384];
    int r;

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 9, Z_DEFAULT_STRATEGY), Z_OK);
    for (size_t i = 0; i < repeat; i++) {
        z.next_in = (unsigned char *)(uintptr_t)data;
        z.avail_in = (unsigned)size;
        do {
            z.next_out = piece;
            z.avail_out = sizeof(piece);
            r = deflate(&z, i + 1 == repeat ? Z_FINISH : Z_NO_FLUSH);
            check(buf_add(to, piece, sizeof(piece) - z.avail_out));
        } while (z.avail_out == 0 || (i + 1 == repeat && r != Z_STREAM_END));
    }
    (void)deflateEnd(&z);
}

static void compose(Connection *connection, const Reply *reply, bool is_head)
{
    const char *data = reply->body ? reply->body : "";
    size_t size = reply->body_size ? reply->body_size : strlen(data);
    size_t repeat = reply->repeat ? reply->repeat : 1;
    auto_buf Buf body = BUF_INIT(ANSWER_MAX);
    Buf *out = &connection->out;
    int status = reply->status ? reply->status : 200;
    bool has_body = status != 204 && status != 304;
    size_t announced;

    if (reply->mode == REPLY_RAW) {
        check(buf_add(out, data, size));
        connection->close = true;
        return;
    }
    if (reply->mode == REPLY_GZIP) {
        add_gzip(&body, data, size, repeat);
    } else {
        for (size_t i = 0; i < repeat; i++)
            check(buf_add(&body, data, size));
    }

    check(buf_printf(out, "HTTP/1.1 %d Scripted\r\n%s", status,
                     reply->headers ? reply->headers : ""));
    announced = body.size + (reply->mode == REPLY_SHORT || reply->mode == REPLY_STALL);
    if (reply->mode == REPLY_GZIP)
        check(buf_add_str(out, "Content-Encoding: gzip\r\n"));
    if (reply->mode == REPLY_CHUNKED)
        check(buf_add_str(out, "Transfer-Encoding: chunked\r\n"));
    else if (has_body)
        check(buf_printf(out, "Content-Length: %zu\r\n", announced));
    if (reply->close)
        check(buf_add_str(out, "Connection: close\r\n"));
    check(buf_add_str(out, "\r\n"));

    if (is_head || !has_body)
        return;
    if (reply->mode != REPLY_CHUNKED) {
        check(buf_add(out, body.data ? body.data : "", body.size));
        return;
    }
    for (size_t at = 0; at < body.size; at += 1000) {
        size_t n = MIN_OF(body.size - at, (size_t)1000);

        check(buf_printf(out, "%zx\r\n", n));
        check(buf_add(out, body.data + at, n));
        check(buf_add_str(out, "\r\n"));
    }
    check(buf_add_str(out, "0\r\n\r\n"));
}

static void connection_turn(Connection *connection);

static void on_connection_timer(void *userdata)
{
    connection_turn(userdata);
}

static void answer(Connection *connection, const Request *request)
{
    HttpServer *server = connection->server;
    Reply reply = {0};

    if (server->handler) {
        server->handler(server, request, &reply, server->userdata);
    } else if (server->next_reply < server->n_replies) {
        reply = server->replies[server->next_reply++];
    } else {
        reply.status = 599;
        server->unscripted++;
    }

    connection->answering = true;
    connection->hanging = reply.mode == REPLY_HANG ? (size_t)(request - server->requests) + 1 : 0;
    connection->close = reply.close || reply.mode == REPLY_SHORT || reply.mode == REPLY_EARLY;
    connection->reset = reply.mode == REPLY_RESET;
    connection->silent = reply.mode == REPLY_HANG || reply.mode == REPLY_STALL;
    connection->drip_usec = reply.mode == REPLY_DRIP ? reply.drip_usec : 0;
    if (reply.mode != REPLY_HANG && reply.mode != REPLY_RESET && reply.mode != REPLY_EARLY)
        compose(connection, &reply, streq(request->method, "HEAD"));
    check(timer_set(connection->timer, reply.delay_usec, 0));
}

/* --- Asked ---------------------------------------------------------------------------------- */

static char *text_of(const char *data, size_t size)
{
    char *text = strndup(data, size);

    assert_non_null(text);
    return text;
}

const char *request_header(const Request *request, const char *name)
{
    static char value[8192];
    size_t name_size = strlen(name);

    for (const char *line = request->head; line && *line; line = strstr(line, "\r\n")) {
        if (startswith(line, "\r\n"))
            line += 2;
        if (strncasecmp(line, name, name_size) != 0 || line[name_size] != ':')
            continue;
        line += name_size + 1;
        line += strspn(line, " ");
        (void)snprintf(value, sizeof(value), "%.*s", (int)strcspn(line, "\r"), line);
        return value;
    }
    return NULL;
}

void http_server_release(HttpServer *server)
{
    for (Connection *connection = server->connections; connection;
         connection = connection->all_next)
        if (connection->hanging)
            answer(connection, &server->requests[connection->hanging - 1]);
}

/* The size of the body that a chunked request carries, decoded into `ret`; false: more is to come.
 */
static bool dechunk(const char *data, size_t size, Buf *ret, size_t *ret_used)
{
    size_t at = 0;

    for (;;) {
        const char *line = data + at, *end = memmem(line, size - at, "\r\n", 2);
        auto_free char *digits = NULL;
        uint64_t n;

        if (!end)
            return false;
        digits = text_of(line, (size_t)(end - line));
        check(parse_hex_u64(digits, &n));
        at += (size_t)(end - line) + 2;
        if (size - at < n + 2)
            return false;
        check(buf_add(ret, data + at, n));
        at += n + 2;
        if (n == 0) {
            *ret_used = at;
            return true;
        }
    }
}

/* One whole request off the input, or false. */
static bool take_request(Connection *connection, Request *ret)
{
    Buf *in = &connection->in;
    char *end = in->size ? memmem(in->data, in->size, "\r\n\r\n", 4) : NULL;
    auto_buf Buf body = BUF_INIT(REQUEST_MAX);
    Request request = {0};
    size_t head_size, used, line_size, target_at;
    uint64_t length = 0;
    const char *value;

    if (!end)
        return false;
    head_size = (size_t)(end - in->data) + 4;
    line_size = (size_t)((char *)memmem(in->data, head_size, "\r\n", 2) - in->data);
    target_at = strcspn(in->data, " ");
    request.method = text_of(in->data, target_at);
    request.target = text_of(in->data + target_at + 1, strcspn(in->data + target_at + 1, " \r"));
    request.head = text_of(in->data + line_size + 2, head_size - line_size - 4);

    value = request_header(&request, "Transfer-Encoding");
    if (value && strcasecmp(value, "chunked") == 0) {
        used = 0;
        if (!dechunk(in->data + head_size, in->size - head_size, &body, &used))
            goto incomplete;
    } else {
        value = request_header(&request, "Content-Length");
        if (value)
            check(parse_u64(value, &length));
        if (in->size - head_size < length)
            goto incomplete;
        used = length;
        check(buf_add(&body, in->data + head_size, used));
    }
    request.body_size = body.size;
    request.body = buf_take(&body);
    request.connection = connection->number;
    buf_consume(in, head_size + used);
    *ret = request;
    return true;

incomplete:
    free(request.method);
    free(request.target);
    free(request.head);
    return false;
}

static bool send_some(Connection *connection)
{
    while (connection->out.size > 0) {
        size_t size = connection->drip_usec ? 1 : connection->out.size;
        ssize_t n = send(connection->fd, connection->out.data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            check(sd_event_source_set_io_events(connection->source, EPOLLIN | EPOLLOUT));
            return false;
        }
        if (n < 0) {
            connection_free(connection);
            return false;
        }
        buf_consume(&connection->out, (size_t)n);
        if (connection->drip_usec) {
            check(timer_set(connection->timer, connection->drip_usec, 0));
            return connection->out.size == 0;
        }
    }
    check(sd_event_source_set_io_events(connection->source, EPOLLIN));
    return true;
}

static void connection_turn(Connection *connection)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};
    HttpServer *server = connection->server;
    Request request;

    if (connection->answering) {
        if (connection->reset) {
            (void)setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
            connection_free(connection);
            return;
        }
        if (!send_some(connection) || connection->silent)
            return;
        if (connection->close) {
            connection_free(connection);
            return;
        }
        connection->answering = false;
    }

    if (!take_request(connection, &request))
        return;
    server->requests = realloc(server->requests, (server->n_requests + 1) * sizeof(request));
    assert_non_null(server->requests);
    server->requests[server->n_requests++] = request;
    answer(connection, &server->requests[server->n_requests - 1]);
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    Connection *connection = userdata;
    char data[65536];
    ssize_t n;

    if (revents & EPOLLIN) {
        n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            connection_free(connection);
            return 0;
        }
        if (n > 0)
            check(buf_add(&connection->in, data, (size_t)n));
    } else if (revents & (EPOLLHUP | EPOLLERR)) {
        connection_free(connection);
        return 0;
    }
    if (!timer_is_set(connection->timer))
        connection_turn(connection);
    return 0;
}

static int on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    HttpServer *server = userdata;
    Connection *connection;
    int accepted;

    accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (accepted < 0)
        return 0;
    connection = calloc(1, sizeof(*connection));
    assert_non_null(connection);
    connection->server = server;
    connection->fd = accepted;
    connection->number = ++server->n_connections;
    connection->in = BUF_INIT(REQUEST_MAX);
    connection->out = BUF_INIT(ANSWER_MAX);
    LIST_PREPEND(all, server->connections, connection);
    check(timer_new(server->event, on_connection_timer, connection, &connection->timer));
    check(sd_event_add_io(server->event, &connection->source, accepted, EPOLLIN, on_connection,
                          connection));
    return 0;
}

/* --- Making one ----------------------------------------------------------------------------- */

static int listen_unix(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0 && strlen(path) < sizeof(un.sun_path));
    memcpy(un.sun_path, path, strlen(path));
    check(bind(fd, (const struct sockaddr *)&un, sizeof(un)) < 0 ? -errno : 0);
    return fd;
}

static int listen_tcp(uint16_t *ret_port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    check(bind(fd, (const struct sockaddr *)&in, sizeof(in)) < 0 ? -errno : 0);
    check(getsockname(fd, (struct sockaddr *)&in, &size) < 0 ? -errno : 0);
    *ret_port = ntohs(in.sin_port);
    return fd;
}

HttpServer *http_server_new(sd_event *event, const char *unix_path)
{
    HttpServer *server = calloc(1, sizeof(*server));
    int fd;

    assert_non_null(server);
    server->event = event;
    fd = unix_path ? listen_unix(unix_path) : listen_tcp(&server->port);
    check(listen(fd, 256) < 0 ? -errno : 0);
    check(sd_event_add_io(event, &server->source, fd, EPOLLIN, on_accept, server));
    check(sd_event_source_set_io_fd_own(server->source, 1));
    return server;
}

HttpServer *http_server_free(HttpServer *server)
{
    if (!server)
        return NULL;

    while (server->connections)
        connection_free(server->connections);
    (void)sd_event_source_disable_unref(server->source);
    for (size_t i = 0; i < server->n_requests; i++) {
        free(server->requests[i].method);
        free(server->requests[i].target);
        free(server->requests[i].head);
        free(server->requests[i].body);
    }
    for (size_t i = 0; i < server->n_kept; i++)
        free(server->kept[i]);
    free(server->kept);
    free(server->requests);
    free(server->replies);
    free(server);
    return NULL;
}

uint16_t http_server_port(const HttpServer *server)
{
    return server->port;
}

char *http_server_keep(HttpServer *server, char *s)
{
    assert_non_null(s);
    server->kept = realloc(server->kept, (server->n_kept + 1) * sizeof(*server->kept));
    assert_non_null(server->kept);
    server->kept[server->n_kept++] = s;
    return s;
}

const char *http_server_url(HttpServer *server, const char *path)
{
    return http_server_keep(server, str_printf("http://127.0.0.1:%u%s", server->port, path));
}

void http_server_reply(HttpServer *server, const Reply *reply)
{
    server->replies = realloc(server->replies, (server->n_replies + 1) * sizeof(*reply));
    assert_non_null(server->replies);
    server->replies[server->n_replies++] = *reply;
}

void http_server_handle(HttpServer *server, HttpServerHandler handler, void *userdata)
{
    server->handler = handler;
    server->userdata = userdata;
}

size_t http_server_count(const HttpServer *server)
{
    return server->n_requests;
}

unsigned http_server_unscripted(const HttpServer *server)
{
    return server->unscripted;
}

unsigned http_server_connections(const HttpServer *server)
{
    return server->n_connections;
}

const Request *http_server_request(const HttpServer *server, size_t i)
{
    if (i >= server->n_requests)
        fail_msg("the server was asked %zu times, not %zu", server->n_requests, i + 1);
    return &server->requests[i];
}

void loop_run_until(sd_event *event, const bool *done, uint64_t limit_usec)
{
    uint64_t end = now_boottime_usec() + limit_usec;

    while (!*done) {
        if (now_boottime_usec() >= end)
            fail_msg("nothing happened for %llu ms", (unsigned long long)(limit_usec / MSEC));
        check(sd_event_run(event, 100 * MSEC));
    }
}

void loop_run_for(sd_event *event, uint64_t usec)
{
    uint64_t end = now_boottime_usec() + usec;

    while (now_boottime_usec() < end)
        check(sd_event_run(event, MIN_OF(end - now_boottime_usec(), 10 * MSEC)));
}
