/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_FETCH_POLITENESS_H
#define CRAWLER_FETCH_POLITENESS_H

/* What one host may be asked, and when: delay between requests, connections, new connections per
 * 120 s (Cloud NAT keeps a port that long), requests a day, and a circuit breaker that opens for
 * the whole host. Pure: the clock is an argument. It is wall clock, since it must outlive the
 * process; whoever sees it being set says so to fetch_host_clock_set(). */

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/error.h"

#define FETCH_PAUSE_MAX_USEC       (UINT64_C(6) * 3600 * 1000000)
#define FETCH_RETRY_AFTER_MAX_USEC (UINT64_C(24) * 3600 * 1000000)
/* Seconds whose new connections are remembered: those of the window, and one more, as what is
 * counted by whole seconds must never be forgotten too early. */
#define FETCH_NAT_SECONDS          121

typedef struct FetchLimits {
    uint64_t delay_usec;       /* least time between two requests */
    unsigned connections;      /* requests at the same time */
    uint64_t requests_per_day; /* 0: no limit */
    unsigned nat_ports;        /* new connections in any 120 s; 0: no limit */
} FetchLimits;

/* New connections of one second. */
typedef struct FetchConnected {
    uint64_t second; /* wall clock */
    uint64_t n;
} FetchConnected;

typedef struct FetchHost {
    char *name;
    unsigned in_flight;
    bool probing;      /* the one request that finds out whether an open breaker may close */
    const char *waits; /* why it is not asked for a while, though nothing is wrong; NULL: it is */

    /* Kept over a restart. Instants are wall clock; 0: none. */
    uint64_t next_usec;  /* not to be asked before */
    uint64_t until_usec; /* the breaker is open until then */
    uint64_t open_usec; /* … and was opened for so long, which no clock makes longer; 0: unknown */
    uint64_t pause_usec; /* … its last pause, which doubles */
    unsigned failures;   /* since the last success */
    uint64_t day, day_requests;
    uint64_t requests, refusals, bytes_in, bytes_out, connections;
    FetchConnected connected[FETCH_NAT_SECONDS]; /* at its second modulo */
    char *message;                               /* why the breaker is open */
} FetchHost;

typedef enum FetchFailure {
    FETCH_WELL,
    FETCH_NETWORK,   /* no answer */
    FETCH_SERVER,    /* 5xx */
    FETCH_THROTTLED, /* 429, 503 */
    FETCH_BANNED,    /* 403, 418, 451 */
    FETCH_CHANGED,   /* an answer of another shape than the recipe knows */
    FETCH_FAILURE_MAX,
} FetchFailure;

/* Of an HTTP status. */
FetchFailure fetch_failure_of_status(long status);

int fetch_host_new(const char *name, FetchHost **ret) must_check;
FetchHost *fetch_host_free(FetchHost *host);
DEFINE_AUTO(FetchHost, fetch_host_free)

/* 0: it may be asked now. Else how long to wait (UINT64_MAX: until a request that is under way
 * ends), and why in a few words. An instant that lies further ahead than it can have been meant (the
 * memory's, where the clock was set while nothing ran) is brought nearer. */
uint64_t fetch_host_wait(FetchHost *host, const FetchLimits *limits, uint64_t now_usec,
                         const char **ret_why);
void fetch_host_begin(FetchHost *host, const FetchLimits *limits, uint64_t now_usec);
/* A request ended. `retry_after_usec` is the peer's own (0: none): it is obeyed, within limits.
 * `message` is why, for status. */
void fetch_host_end(FetchHost *host, FetchFailure failure, uint64_t retry_after_usec,
                    const char *message, uint64_t now_usec);
/* New connections that a request opened. */
void fetch_host_connected(FetchHost *host, unsigned n, uint64_t now_usec);
bool fetch_host_is_open(const FetchHost *host, uint64_t now_usec);
/* The wall clock was set forward (or back) by so much: what was to come is as far away as before. */
void fetch_host_clock_set(FetchHost *host, int64_t step_usec);
/* How many new connections the last 120 s saw. */
unsigned fetch_host_recent_connections(const FetchHost *host, uint64_t now_usec);

/* As text for the memory, and back (what cannot be read is a host that was never asked). */
char *fetch_host_format(const FetchHost *host);
void fetch_host_parse(FetchHost *host, const char *text);

#endif
