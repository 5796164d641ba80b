/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/statusd/server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agent/base/list.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"

/* Of one connection, for its request line and headers. A probe's are a tenth of it. */
#define CONNECTION_MEMORY_BYTES 8192
#define BACKLOG                 128

/* One a connection, from accept to close. In the order of their deadlines, as all have the same
 * time. */
typedef struct Peer {
    LIST_FIELDS(struct Peer, peers);
    int fd;
    bool cut; /* its time was over: it ends as soon as libmicrohttpd looks */
    uint64_t deadline;
} Peer;

struct Request {
    LIST_FIELDS(Request, requests);
    Server *server;
    struct MHD_Connection *connection;
    bool asked, suspended;
    unsigned status; /* 0 until answered */
    const char *content_type;
    char *body;
    size_t body_size;
};

struct Server {
    struct MHD_Daemon *daemon;
    sd_event_source *io, *turn, *deadline;
    ServerLimits limits;
    ServerHooks hooks;
    Peer *peers, *last_peer;
    Request *requests;
    bool ending;
};

/* ---- The loop ---- */

/* One turn of libmicrohttpd, and another when it has work left. */
static void server_run(Server *server)
{
    MHD_UNSIGNED_LONG_LONG wait_msec;

    (void)MHD_run(server->daemon);
    if (MHD_get_timeout(server->daemon, &wait_msec) == MHD_YES && wait_msec == 0)
        (void)sd_event_source_set_enabled(server->turn, SD_EVENT_ONESHOT);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    server_run(userdata);
    return 0;
}

static int on_turn(sd_event_source *source, void *userdata)
{
    server_run(userdata);
    return 0;
}

/* ---- Connections and their deadline ---- */

static void deadline_arm(Server *server)
{
    LIST_FOREACH (peers, peer, server->peers) {
        if (peer->cut)
            continue;
        (void)sd_event_source_set_time(server->deadline, peer->deadline);
        (void)sd_event_source_set_enabled(server->deadline, SD_EVENT_ONESHOT);
        return;
    }
    (void)sd_event_source_set_enabled(server->deadline, SD_EVENT_OFF);
}

/* Shut down, not closed: the descriptor is libmicrohttpd's, which sees the end and closes it. */
static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    Server *server = userdata;
    uint64_t now = now_boottime_usec();

    LIST_FOREACH (peers, peer, server->peers) {
        if (peer->deadline > now)
            break;
        if (!peer->cut)
            (void)shutdown(peer->fd, SHUT_RDWR);
        peer->cut = true;
    }
    server_run(server);
    deadline_arm(server);
    return 0;
}

static void peer_add(Server *server, struct MHD_Connection *connection, void **ret)
{
    const union MHD_ConnectionInfo *info;
    Peer *peer;

    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    peer = info ? calloc(1, sizeof(*peer)) : NULL;
    if (!peer) {
        /* Without its deadline it must not stay. */
        if (info)
            (void)shutdown(info->connect_fd, SHUT_RDWR);
        return;
    }
    peer->fd = info->connect_fd;
    peer->deadline = now_boottime_usec() + server->limits.deadline_usec;
    peer->peers_prev = server->last_peer;
    if (server->last_peer)
        server->last_peer->peers_next = peer;
    else
        server->peers = peer;
    server->last_peer = peer;
    *ret = peer;
}

static void on_connection(void *userdata, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    Server *server = userdata;
    Peer *peer = *socket_context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        peer_add(server, connection, socket_context);
    } else if (peer) {
        if (server->last_peer == peer)
            server->last_peer = peer->peers_prev;
        LIST_REMOVE(peers, server->peers, peer);
        *socket_context = NULL;
        free(peer);
    }
    if (!server->ending)
        deadline_arm(server);
}

/* ---- Requests ---- */

static enum MHD_Result send_reply(Request *request)
{
    struct MHD_Response *response;
    enum MHD_Result result;

    /* Copied: the answer may still be on its way when the request is gone. */
    response =
        MHD_create_response_from_buffer(request->body_size, request->body, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    (void)MHD_add_response_header(response, "Content-Type", request->content_type);
    (void)MHD_add_response_header(response, "Cache-Control", "no-store");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    (void)MHD_add_response_header(response, "Connection", "close");
    if (request->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(response, "Allow", "GET, HEAD");
    result = MHD_queue_response(request->connection, request->status, response);
    MHD_destroy_response(response);
    return result;
}

void request_reply(Request *request, unsigned status, const char *content_type, const void *body,
                   size_t size)
{
    assert(request && status && request->status == 0 && content_type && (body || size == 0));

    request->body = malloc(size + 1);
    if (request->body && size > 0)
        memcpy(request->body, body, size);
    request->body_size = request->body ? size : 0;
    request->content_type = content_type;
    request->status = request->body ? status : MHD_HTTP_INTERNAL_SERVER_ERROR;

    if (request->suspended) {
        request->suspended = false;
        MHD_resume_connection(request->connection);
        /* Not here and now: whoever answers may be in the middle of its own lists. */
        (void)sd_event_source_set_enabled(request->server->turn, SD_EVENT_ONESHOT);
    }
}

static Request *request_new(Server *server, struct MHD_Connection *connection)
{
    Request *request = calloc(1, sizeof(*request));

    if (!request)
        return NULL;
    request->server = server;
    request->connection = connection;
    LIST_PREPEND(requests, server->requests, request);
    return request;
}

static const char only_reads[] = "only GET and HEAD are answered here\n";

/* libmicrohttpd calls it for the headers, for each piece of a body, at the end of the request, and
 * again after a suspension. */
static enum MHD_Result on_access(void *userdata, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_size, void **request_context)
{
    Server *server = userdata;
    Request *request = *request_context;

    if (!request) {
        request = *request_context = request_new(server, connection);
        if (!request)
            return MHD_NO;
    }
    if (!request->asked) {
        request->asked = true;
        if (streq(method, MHD_HTTP_METHOD_GET) || streq(method, MHD_HTTP_METHOD_HEAD))
            server->hooks.on_request(request, url, server->hooks.userdata);
        else
            request_reply(request, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain; charset=utf-8",
                          only_reads, strlen(only_reads));
    }
    if (request->status)
        return send_reply(request);

    request->suspended = true;
    MHD_suspend_connection(connection);
    return MHD_YES;
}

static void on_completed(void *userdata, struct MHD_Connection *connection, void **request_context,
                         enum MHD_RequestTerminationCode code)
{
    Server *server = userdata;
    Request *request = *request_context;

    if (!request)
        return;
    if (!request->status)
        server->hooks.on_gone(request, server->hooks.userdata);
    LIST_REMOVE(requests, server->requests, request);
    *request_context = NULL;
    free(request->body);
    free(request);
}

/* ---- Life ---- */

static int start_daemon(Server *server, int fd, Error *err)
{
    /* Without MHD_USE_ERROR_LOG: it would write a line for each broken peer. */
    const unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;

    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_access, server, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, server->limits.connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        server->limits.per_address, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_END);
    if (!server->daemon)
        return error_set(err, -EIO, ERROR_INTERNAL, "the HTTP server does not start");
    return 0;
}

static int attach(Server *server, sd_event *event, Error *err)
{
    const union MHD_DaemonInfo *info;
    int r;

    info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return error_set(err, -EIO, ERROR_INTERNAL, "the HTTP server has no epoll descriptor");
    r = sd_event_add_io(event, &server->io, info->epoll_fd, EPOLLIN, on_io, server);
    if (r >= 0)
        r = sd_event_add_defer(event, &server->turn, on_turn, server);
    if (r >= 0)
        r = sd_event_add_time(event, &server->deadline, CLOCK_BOOTTIME, 0, 10 * MSEC, on_deadline,
                              server);
    if (r >= 0)
        r = sd_event_source_set_enabled(server->deadline, SD_EVENT_OFF);
    if (r < 0)
        return error_errno(err, r, "the HTTP server and its loop");
    return 0;
}

int server_new(sd_event *event, int fd, const ServerLimits *limits, const ServerHooks *hooks,
               Server **ret, Error *err)
{
    auto_(server_freep) Server *server = NULL;
    auto_close int owned = fd;
    int r;

    assert(event && fd >= 0 && limits && hooks && hooks->on_request && hooks->on_gone && ret);

    server = calloc(1, sizeof(*server));
    if (!server)
        return error_oom(err);
    server->limits = *limits;
    server->hooks = *hooks;

    /* It accepts until there is none left; a socket that blocks would hold the loop. */
    r = fcntl(fd, F_GETFL);
    if (r < 0 || fcntl(fd, F_SETFL, r | O_NONBLOCK) < 0)
        return error_errno(err, errno, "listening socket");
    r = start_daemon(server, fd, err);
    if (r < 0)
        return r;
    owned = -EBADF; /* MHD_stop_daemon() closes it */
    r = attach(server, event, err);
    if (r < 0)
        return r;

    *ret = take_ptr(server);
    return 0;
}

Server *server_free(Server *server)
{
    if (!server)
        return NULL;
    server->ending = true;
    /* Stopping with a suspended connection is an error of libmicrohttpd's; on_completed() tells
     * whoever waits for an answer. */
    LIST_FOREACH (requests, request, server->requests) {
        if (request->suspended)
            MHD_resume_connection(request->connection);
        request->suspended = false;
    }
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    (void)sd_event_source_disable_unref(server->io);
    (void)sd_event_source_disable_unref(server->turn);
    (void)sd_event_source_disable_unref(server->deadline);
    free(server);
    return NULL;
}

/* ---- Sockets ---- */

typedef union SocketAddress {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_storage storage;
} SocketAddress;

/* "ADDR:PORT" into an address of its family. */
static int parse_address(const char *text, SocketAddress *ret, socklen_t *ret_size)
{
    auto_free char *copy = strdup(text);
    char *colon = copy ? strrchr(copy, ':') : NULL, *host = copy;
    SocketAddress address = {0};
    uint16_t port;

    if (!copy)
        return -ENOMEM;
    if (!colon || parse_u16(colon + 1, &port) < 0)
        return -EINVAL;
    *colon = '\0';

    if (*host == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        address.in6.sin6_family = AF_INET6;
        address.in6.sin6_port = htons(port);
        *ret_size = sizeof(address.in6);
        if (inet_pton(AF_INET6, host + 1, &address.in6.sin6_addr) != 1)
            return -EINVAL;
    } else {
        address.in.sin_family = AF_INET;
        address.in.sin_port = htons(port);
        *ret_size = sizeof(address.in);
        if (inet_pton(AF_INET, host, &address.in.sin_addr) != 1)
            return -EINVAL;
    }
    *ret = address;
    return 0;
}

int listen_on(const char *address, const char *what, int *ret_fd, Error *err)
{
    SocketAddress bound = {0};
    auto_close int fd = -EBADF;
    socklen_t size = 0;
    int r;

    assert(address && what && ret_fd);

    r = parse_address(address, &bound, &size);
    if (r == -ENOMEM)
        return error_oom(err);
    if (r < 0) {
        r = error_set(err, r, ERROR_INVALID, "%s \"%s\": not an address and port", what, address);
        return error_remedy(err, r, "write it as 127.0.0.1:9320 or [::]:9320");
    }

    fd = socket(bound.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(err, errno, "%s %s: socket", what, address);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, &bound.any, size) < 0 || listen(fd, BACKLOG) < 0)
        return error_errno(err, errno, "%s %s", what, address);

    *ret_fd = take_fd(&fd);
    return 0;
}

char *listen_address(int fd, char ret[static LISTEN_TEXT_MAX])
{
    SocketAddress address = {0};
    socklen_t size = sizeof(address);
    char host[INET6_ADDRSTRLEN] = "?";

    if (getsockname(fd, &address.any, &size) < 0)
        address.any.sa_family = AF_UNSPEC;
    if (address.any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &address.in6.sin6_addr, host, sizeof(host));
        (void)snprintf(ret, LISTEN_TEXT_MAX, "[%s]:%u", host, ntohs(address.in6.sin6_port));
    } else if (address.any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &address.in.sin_addr, host, sizeof(host));
        (void)snprintf(ret, LISTEN_TEXT_MAX, "%s:%u", host, ntohs(address.in.sin_port));
    } else {
        (void)snprintf(ret, LISTEN_TEXT_MAX, "an inherited socket");
    }
    return ret;
}
