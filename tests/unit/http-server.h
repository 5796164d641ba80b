/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_HTTP_SERVER_H
#define TESTS_UNIT_HTTP_SERVER_H

/* An HTTP server on the test's own loop, which answers what it was told and remembers what it was
 * asked. It speaks on 127.0.0.1 at a port of its own, or on a unix socket. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/cleanup.h"

typedef enum ReplyMode {
    REPLY_NORMAL,
    REPLY_CHUNKED,
    REPLY_GZIP,  /* compressed, and says so */
    REPLY_DRIP,  /* a byte every drip_usec */
    REPLY_HANG,  /* reads the request and is silent */
    REPLY_RESET, /* reads the request and resets the connection */
    REPLY_EARLY, /* closes without an answer */
    REPLY_SHORT, /* announces more than it sends, then closes */
    REPLY_RAW,   /* `body` is the whole answer; then closes */
    REPLY_STALL, /* head and body, one byte too few, then silence */
} ReplyMode;

typedef struct Reply {
    int status;          /* 0: 200 */
    const char *headers; /* whole lines, each ended by CRLF; NULL: none */
    const char *body;    /* NULL: empty */
    size_t body_size;    /* 0: strlen(body) */
    size_t repeat;       /* the body that many times over; 0: once */
    ReplyMode mode;
    uint64_t delay_usec; /* before the first byte */
    uint64_t drip_usec;
    bool close; /* the connection, after it */
} Reply;

typedef struct Request {
    char *method;
    char *target; /* path and query, as sent */
    char *head;   /* all header lines */
    char *body;
    size_t body_size;
    unsigned connection; /* number of the connection it came on, from 1 */
} Request;

typedef struct HttpServer HttpServer;
/* Instead of a script: fills `reply` (zeroed; what it points to must outlive the call by a turn, or
 * be server memory from http_server_keep()). */
typedef void (*HttpServerHandler)(HttpServer *server, const Request *request, Reply *reply,
                                  void *userdata);

/* `unix_path` NULL: TCP. Fails the test when it cannot. */
HttpServer *http_server_new(sd_event *event, const char *unix_path);
HttpServer *http_server_free(HttpServer *server);
DEFINE_AUTO(HttpServer, http_server_free)
uint16_t http_server_port(const HttpServer *server);
/* "http://127.0.0.1:PORT" + path; owned by the server. */
const char *http_server_url(HttpServer *server, const char *path);
/* Queues a reply; they are given in order, whichever the connection. An unscripted request gets 599
 * and is counted by http_server_unscripted(). Strings in it must live until it was given. */
void http_server_reply(HttpServer *server, const Reply *reply);
void http_server_handle(HttpServer *server, HttpServerHandler handler, void *userdata);
/* Puts the requests that hang to the handler again: what a long poll waits for has happened. */
void http_server_release(HttpServer *server);
/* Owned by the server from now on: free()d with it. Returns `s`. */
char *http_server_keep(HttpServer *server, char *s);

size_t http_server_count(const HttpServer *server);
unsigned http_server_unscripted(const HttpServer *server);
unsigned http_server_connections(const HttpServer *server);
/* Fails the test when there is none of that number. */
const Request *http_server_request(const HttpServer *server, size_t i);
/* Value of a header line, in storage that the next call reuses; NULL when absent. */
const char *request_header(const Request *request, const char *name);

/* Runs the loop until *done or until `limit_usec`, which fails the test. */
void loop_run_until(sd_event *event, const bool *done, uint64_t limit_usec);
/* Runs it for that long. */
void loop_run_for(sd_event *event, uint64_t usec);

#endif
