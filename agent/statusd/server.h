/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_STATUSD_SERVER_H
#define AGENT_STATUSD_SERVER_H

/* A small HTTP server on the loop (libmicrohttpd, external epoll), for peers that nobody vouches
 * for: one request a connection, a deadline from accept to close that no dripping moves, few
 * connections an address, little memory each. */

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"

typedef struct Server Server;
typedef struct Request Request;

typedef struct ServerLimits {
    uint64_t deadline_usec; /* from accept to close, whatever the peer does */
    unsigned connections;   /* in all; the rest waits in the kernel's queue */
    unsigned per_address;   /* more are closed at once */
} ServerLimits;

#define SERVER_LIMITS                                                                              \
    ((ServerLimits){.deadline_usec = 10 * UINT64_C(1000000), .connections = 64, .per_address = 8})

/* A GET or HEAD has arrived (other methods are answered 405 by the server). Answer it by
 * request_reply(), at once or later; `path` is valid during the call only. */
typedef void (*ServerHandler)(Request *request, const char *path, void *userdata);
/* The request is over before it was answered (the server goes away): forget it. */
typedef void (*ServerGone)(Request *request, void *userdata);

typedef struct ServerHooks {
    ServerHandler on_request;
    ServerGone on_gone;
    void *userdata;
} ServerHooks;

/* `fd` is a listening socket and is taken, on failure too. */
int server_new(sd_event *event, int fd, const ServerLimits *limits, const ServerHooks *hooks,
               Server **ret, Error *err) must_check;
Server *server_free(Server *server);
DEFINE_AUTO(Server, server_free)

/* Once a request; copies the body. `content_type` is a literal. */
void request_reply(Request *request, unsigned status, const char *content_type, const void *body,
                   size_t size);

/* "ADDR:PORT" with a numeric address, IPv6 in brackets: a listening socket. `what` names the option
 * in messages. */
int listen_on(const char *address, const char *what, int *ret_fd, Error *err) must_check;
/* Where a socket listens, as "ADDR:PORT". */
#define LISTEN_TEXT_MAX (INET6_ADDRSTRLEN + 8)
char *listen_address(int fd, char ret[static LISTEN_TEXT_MAX]);

#endif
