/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_HTTP_PRIVATE_H
#define AGENT_IO_HTTP_PRIVATE_H

/* Between http.c (client and loop), http-op.c (one operation and its tries), http-easy.c (one
 * transfer in libcurl's terms), http-body.c (what the transfer brings) and http-endpoint.c (where a
 * URL really leads). */

#include <arpa/inet.h>
#include <curl/curl.h>

#include "agent/base/list.h"
#include "agent/io/gzip.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"

#define HTTP_PEER_MAX (INET6_ADDRSTRLEN + 1)

typedef struct Endpoint {
    char *host; /* lower case */
    char *base; /* without a slash at its end */
    char *base_host;
    uint16_t base_port;
    const char *prefix; /* path of the base, inside `base`; "" when it has none */
} Endpoint;

struct HttpClient {
    unsigned n_ref; /* the owner, and every turn that is inside of it */
    unsigned depth; /* > 0 inside libcurl: handles may not be added or removed there */
    bool closed;
    sd_event *event;
    CURLM *multi;
    CURLSH *share;
    Timer *timer;
    sd_event_source *due;  /* libcurl wants to be called at once */
    sd_event_source *kick; /* begins what could not be begun inside libcurl */
    char *user_agent;
    uint64_t idle_usec;
    Endpoint *endpoints;
    size_t n_endpoints;
    HttpStats stats;
    HttpOp *ops;
    HttpOp *doomed; /* freed inside libcurl */
};

typedef enum OpState {
    OP_HELD,
    OP_QUEUED,  /* until libcurl may be called */
    OP_RUNNING, /* libcurl has it */
    OP_PAUSED,  /* between tries */
    OP_DONE,
} OpState;

/* What one try was ended by, when it was us. */
typedef enum OpStop {
    OP_STOP_NONE,
    OP_STOP_CUT,      /* enough of an error's body: the answer counts */
    OP_STOP_TOO_BIG,  /* body or stream */
    OP_STOP_HEADERS,  /* header lines over HTTP_HEADERS_MAX */
    OP_STOP_ENCODING, /* the body does not decompress */
    OP_STOP_HANDLER,  /* on_body said so */
    OP_STOP_READ,     /* read or rewind said so */
    OP_STOP_ADDRESS,  /* the address was refused */
    OP_STOP_NO_MEMORY,
} OpStop;

struct HttpOp {
    HttpClient *client; /* NULL once the client is gone */
    LIST_FIELDS(HttpOp, all);
    OpState state;
    bool dead;   /* freed inside libcurl: no callback of its may be called */
    bool *freed; /* set when it is freed inside its handler */
    HttpHandler handler;
    void *userdata;

    /* The request, copied. */
    HttpRequest request; /* pointers below own what these point to */
    char *method, *url, *unix_socket, *bearer, *user_pass;
    char **follow_hosts;
    HttpHeader *headers;
    void *body_copy;

    /* The current hop. */
    char *hop_url;    /* before mapping */
    char *mapped_url; /* what libcurl is given */
    char *hop_host;   /* of mapped_url */
    uint16_t hop_port;
    bool hop_foreign; /* not the first host: no credentials */
    bool hop_get;     /* a redirect turned POST into GET */
    bool hop_was_private;
    unsigned hops;

    CURL *easy;
    struct curl_slist *slist;
    char error_text[CURL_ERROR_SIZE];
    OpStop stop;
    int stop_code;
    uint64_t streamed, read_offset;
    bool handed_over; /* on_body was called: no further try */

    Timer *pause;
    Backoff backoff;
    uint64_t started_usec, try_started_usec;

    Gunzip *gunzip; /* NULL: the body travels as it is */
    bool body_begun;
    const char *encoding_fault;

    HttpResponse response;
    Buf header_text; /* "name\0value\0"… */
    size_t n_header_text;
    HttpHeader *header_array;
    char peer[HTTP_PEER_MAX];
};

/* http.c */
HttpClient *client_ref(HttpClient *client);
HttpClient *client_unref(HttpClient *client);
DEFINE_AUTO(HttpClient, client_unref)
void client_kick(HttpClient *client);

/* http-op.c */
void op_try_done(HttpOp *op, CURLcode result);
void op_begin_queued(HttpOp *op);
/* Takes it out of libcurl and from the client; it stays, done, for its owner to free. */
void op_abandon(HttpOp *op);
void op_destroy(HttpOp *op);

/* http-body.c */
/* CURLOPT_WRITEFUNCTION. */
size_t body_receive(char *data, size_t unit, size_t count, void *userdata);
/* The transfer ended well: whether its body did, too. */
CURLcode body_end(HttpOp *op) must_check;
void body_cleanse(HttpOp *op);
void body_reset(HttpOp *op);

/* http-easy.c */
long easy_status(const HttpOp *op);
int easy_begin(HttpOp *op, uint64_t limit_usec, Error *err) must_check;
/* Counts what the transfer moved, and takes it from libcurl. */
void easy_end(HttpOp *op);
void easy_collect(HttpOp *op);
int easy_error(const HttpOp *op, CURLcode result, Error *err);

/* http-endpoint.c */
void endpoints_free(Endpoint *endpoints, size_t n_endpoints);
const Endpoint *endpoint_find(const HttpClient *client, const char *host);
/* -EPERM unless https, or plain http to where that is allowed. */
int url_check_scheme(const char *scheme, const char *host, bool allow_plain, Error *err) must_check;

#endif
