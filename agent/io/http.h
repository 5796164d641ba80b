/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_HTTP_H
#define AGENT_IO_HTTP_H

/* HTTP on the loop: libcurl's multi interface driven by sd_event. An HttpOp is one logical request
 * (its retries included); freeing it cancels at once, whatever it waits for, DNS too
 * (CURLOPT_QUICK_EXIT). Nothing here blocks. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/backoff.h"
#include "agent/base/buf.h"
#include "agent/base/error.h"
#include "agent/base/time.h"

typedef struct HttpClient HttpClient; /* one connection cache; one a daemon */
typedef struct HttpOp HttpOp;

/* Limits, each with its reason. */
#define HTTP_CONNECT_TIMEOUT_USEC                                                                  \
    (10 * SECOND) /* NAT exhaustion is silent: never the kernel's 127 s */
#define HTTP_TRY_TIMEOUT_USEC (60 * SECOND)
#define HTTP_BODY_MAX         (4U << 20) /* a manifest may be 4 MiB; whoever expects more says so */
#define HTTP_ERROR_BODY_MAX   (64U << 10)
#define HTTP_HEADERS_MAX      (256U << 10)
#define HTTP_REDIRECTS_MAX    5
#define HTTP_SIZE_UNKNOWN     SIZE_MAX

typedef struct HttpHeader {
    const char *name;
    const char *value;
} HttpHeader;

/* What retries of one operation follow. All zero: a single try. */
typedef struct HttpRetry {
    unsigned tries;                /* at most, the first included; 0 is 1 */
    uint64_t base_usec;            /* 0: 1 s */
    uint64_t cap_usec;             /* 0: 32 s */
    uint64_t max_retry_after_usec; /* a Retry-After beyond it ends the operation with THROTTLED; 0:
                                      60 s */
} HttpRetry;

typedef struct HttpResponse {
    long status;               /* of the last answer; 0 when none came */
    const char *content_type;  /* borrowed, "" when absent */
    const char *location;      /* as sent, or NULL */
    const HttpHeader *headers; /* of the last answer, in the order sent; names as sent */
    size_t n_headers;
    Buf body; /* decoded; capped for error statuses at HTTP_ERROR_BODY_MAX; empty when streamed */
    uint64_t retry_after_usec; /* from Retry-After (seconds or date); 0 when absent */
    uint64_t elapsed_usec;
    uint64_t wire_bytes_in, wire_bytes_out; /* of all tries; headers included */
    unsigned tries;
    unsigned new_connections; /* connections opened for it */
    bool connected; /* the last try got as far as a connection: when not, and it timed out, the way
                       out is shut (DNS, firewall, no NAT port left) */
    const char *peer_address; /* numeric, of the last connection; "" when none */
} HttpResponse;

/* A header of the last answer by name (case-insensitive), or NULL. Borrowed from the response. */
const char *http_response_header(const HttpResponse *response, const char *name);

/* Exactly one call per operation, unless it was freed before. `err` is NULL when an HTTP answer
 * came, whatever its status; else says why there is none (TEMPORARY: network, timeout; INVALID: bad
 * URL; CORRUPT: over a size ceiling, bad encoding). Both pointers are valid during the call only.
 * The handler may free the operation, and others, and the client. */
typedef void (*HttpHandler)(HttpOp *op, const HttpResponse *response, const Error *err,
                            void *userdata);
/* A piece of a successful (2xx) body, decompressed. A negative return ends the operation with that
 * code. Once it was called there is no further try: what was handed over cannot be taken back. */
typedef int (*HttpBodyHandler)(HttpOp *op, const void *data, size_t size, void *userdata);
/* Fill `data` with at most `size` bytes of the request body: the count, 0 at the end, negative to
 * fail. It is called again from offset 0 at every try, after `rewind`; without one there is no
 * second try. */
typedef ptrdiff_t (*HttpReadHandler)(void *data, size_t size, void *userdata);
typedef int (*HttpRewindHandler)(void *userdata);
/* Whether the peer may be connected to: called with the resolved numeric address before connecting,
 * and before a connection is used again, redirects included. Negative refuses. */
typedef int (*HttpAddressCheck)(const char *address, uint16_t port, const char *host,
                                void *userdata);

typedef struct HttpRequest {
    const char *method; /* NULL: GET, or POST with a body */
    const char *url;
    const char *unix_socket; /* path; the URL then names any host */
    const HttpHeader *headers;
    size_t n_headers;
    const char *bearer;    /* "Authorization: Bearer …"; never follows a redirect to another host,
                              never logged */
    const char *user_pass; /* Basic credentials "user:password"; the same care */

    const void *body; /* borrowed until the operation ends unless copy_body */
    size_t body_size;
    bool copy_body;
    HttpReadHandler read; /* instead of body: streamed from here; body_size is its length,
                             HTTP_SIZE_UNKNOWN for chunks */
    HttpRewindHandler rewind;

    uint64_t connect_timeout_usec; /* 0: HTTP_CONNECT_TIMEOUT_USEC */
    uint64_t
        try_timeout_usec; /* 0: HTTP_TRY_TIMEOUT_USEC; USEC_INFINITY: none (long polls, streams) */
    uint64_t stall_timeout_usec; /* no byte for that long ends the try; 0: none; whole seconds */
    uint64_t total_timeout_usec; /* over all tries and pauses; 0: none */
    size_t max_body;             /* after decompression; 0: HTTP_BODY_MAX */
    uint64_t max_stream;         /* with on_body: in all; 0: none */

    bool follow; /* redirects, at most HTTP_REDIRECTS_MAX; credentials stay with the first host */
    const char *const *follow_hosts; /* NULL: any; else only to these hosts */
    bool allow_plain;                /* plain http to any host: for peers inside this machine (a
                                        container's own address) and for a metadata server */
    bool sensitive;                  /* the answer holds a secret: overwritten before it is freed */
    bool held;                       /* waits for http_op_restart() */
    bool no_proxy;                   /* the metadata server is never asked through a proxy */
    bool compressed;                 /* offer gzip; not with `sensitive` */
    bool fresh_connection;           /* do not reuse one */
    bool http2;                      /* offered over TLS when set */
    HttpRetry retry;
    HttpBodyHandler on_body; /* streams 2xx bodies instead of collecting them */
    HttpAddressCheck check_address;
    /* Judges an answer for the retry policy: by default 408, 429, 500, 502, 503, 504 are repeated.
     * Return true to repeat. */
    bool (*should_retry)(const HttpResponse *response, void *userdata);
} HttpRequest;

typedef struct HttpStats {
    uint64_t requests, connections, bytes_in, bytes_out;
} HttpStats;

int http_client_new(sd_event *event, const char *user_agent, HttpClient **ret, Error *err)
    must_check;
/* Cancels every operation that is still there (their handlers are not called). */
HttpClient *http_client_free(HttpClient *client);
DEFINE_AUTO(HttpClient, http_client_free)
/* Redirects are followed here, not by libcurl: at each hop the URL is mapped and checked anew, only
 * harmless headers travel to another host, https never turns into http, a public host never leads
 * to a private address, and nothing leads to a link-local one.
 *
 * host → base URL, from the plan's `endpoints`; replaces the former map. URLs whose host is a key
 * are rewritten before connecting: scheme, host, port and path prefix come from the base URL.
 * -EINVAL for plain http to anything but loopback. */
typedef struct HttpEndpoint {
    const char *host;
    const char *base_url;
} HttpEndpoint;
int http_client_set_endpoints(HttpClient *client, const HttpEndpoint *endpoints, size_t n_endpoints,
                              Error *err) must_check;
/* The URL that will be asked instead of `url`; a copy. And whether a host and port are what an
 * endpoint maps to (rules against private addresses exempt exactly these). */
int http_client_map_url(const HttpClient *client, const char *url, char **ret, Error *err)
    must_check;
bool http_client_is_endpoint(const HttpClient *client, const char *host, uint16_t port);
void http_client_set_max_host_connections(HttpClient *client, unsigned max);
/* Idle connections older than that are not reused (Cloud NAT forgets them after 1,200 s). Default
 * 600 s. */
void http_client_set_idle_timeout(HttpClient *client, uint64_t usec);
void http_client_stats(const HttpClient *client, HttpStats *ret);

/* Starts it. Everything in `request` but `body` is copied. The handler is never called from inside
 * http_start(). */
int http_start(HttpClient *client, const HttpRequest *request, HttpHandler handler, void *userdata,
               HttpOp **ret, Error *err) must_check;
HttpOp *http_op_free(HttpOp *op);
DEFINE_AUTO(HttpOp, http_op_free)

/* Begins a held operation, or, once its handler was called, the same operation anew; with other
 * bearer credentials unless NULL. The handler is called again. */
int http_op_restart(HttpOp *op, const char *bearer, Error *err) must_check;

/* An answer that is not 2xx as an Error: kind by status (401/403 DENIED, 408/5xx TEMPORARY, 429
 * THROTTLED with retry_after, the rest INVALID), message "what: HTTP 503 <short reason>". Never
 * quotes credentials or a query. Returns a negative errno
 * (-EACCES, -EAGAIN, -EBUSY, -ENOENT for 404, -EINVAL …); 0 for 2xx. */
int http_response_error(const HttpResponse *response, const char *what, Error *err);

/* URL pieces. Percent-encodes everything but unreserved characters and those in `keep`. */
char *url_escape(const char *s, const char *keep);
int url_host_port(const char *url, char **ret_scheme, char **ret_host, uint16_t *ret_port,
                  Error *err) must_check;
/* The URL without query, fragment and user info: what may be logged. */
char *url_for_log(const char *url);
/* Loopback, link-local, private, unique local, multicast, unspecified: where a peer's redirect must
 * never lead. A name is no address: it is judged when it is resolved (check_address). */
bool address_is_private(const char *numeric_address);
/* "localhost", 127.0.0.0/8, ::1. */
bool host_is_loopback(const char *host);
/* Whether `host` is `domain` or ends in ".domain", on a label boundary. */
bool host_is_within(const char *host, const char *domain);

#endif
