/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_FETCH_FETCH_H
#define CRAWLER_FETCH_FETCH_H

/* Asks the sources: which job is due, which symbol is next, whether its host may be asked now, and
 * the request itself. What a reply means is for whoever handles it: it takes the rows, moves the
 * cursor and says how it went; the next page, the next symbol and the host's breaker follow from
 * that. Nothing is held in memory but what is under way: cursors come from the memory. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/io/http.h"
#include "crawler/fetch/memory.h"
#include "crawler/fetch/politeness.h"
#include "crawler/recipe/recipe.h"

typedef struct Fetcher Fetcher;

#define FETCH_TRIES       6  /* of one symbol in one round */
#define FETCH_AT_ONCE_MAX 16 /* requests over all hosts */

/* What is crawled: borrowed from the plan, which outlives the fetcher's use of it. */
typedef struct FetchJob {
    const char *name;
    const Recipe *recipe;
    char *const *symbols; /* NULL-terminated */
    size_t n_symbols;
    const char *interval;
    uint64_t every_usec;
    uint64_t backfill_usec;
    const Calendar *calendar; /* NULL: always open */
    bool acknowledged;        /* the source's terms */
    const char *secret;       /* for the recipe's secret_header, or NULL */
} FetchJob;

typedef struct FetchConfig {
    const FetchJob *jobs;
    size_t n_jobs;
    const char *contact;     /* in the User-Agent */
    uint64_t min_delay_usec; /* between requests to one host, at least */
    unsigned connections;    /* per host, at most */
    unsigned nat_ports;      /* new connections per host and 120 s, at most */
    uint64_t daily_bytes;    /* 0: no limit */
    bool once;               /* every job one round, whatever the hour */
} FetchConfig;

typedef enum FetchVerdict {
    FETCH_TAKEN,        /* rows, or a well-recognised empty answer: the cursor moved */
    FETCH_SOURCE_ERROR, /* the source said no: `kind` */
    FETCH_REFUSED,      /* not what the recipe knows */
    FETCH_HOLD,         /* nothing wrong with it, but it could not be kept now */
} FetchVerdict;

typedef struct FetchResult {
    FetchVerdict verdict;
    ErrorKind kind;
    uint64_t retry_after_usec;
    bool nothing; /* taken, whatever the status: the source's way of saying that there is nothing */
    char message[256];
} FetchResult;

typedef struct FetchDocument {
    const FetchJob *job;
    const char *symbol;
    const char *range; /* "" for polling */
    const RecipeRequest *request;
    const HttpResponse *response;
    bool not_modified; /* 304: the range is read, there is nothing new */
    int64_t now_usec;
} FetchDocument;

typedef struct FetchHandlers {
    /* Takes the document; moves `cursor` (recipe_advance()) and keeps it together with the rows. */
    void (*document)(const FetchDocument *document, Cursor *cursor, FetchResult *ret,
                     void *userdata);
    /* Nothing is due now: what waits for company may go. */
    void (*idle)(void *userdata);
    /* Connecting timed out at a market host, more than once in a row. */
    void (*egress_suspect)(const char *host, void *userdata);
    /* A symbol is given up for this round, or a job's round ended. For the log. */
    void (*trouble)(const FetchJob *job, const char *symbol, const char *message,
                    const char *remedy, void *userdata);
    void *userdata;
} FetchHandlers;

int fetcher_new(sd_event *event, HttpClient *http, const FetchMemory *memory,
                const FetchHandlers *handlers, Fetcher **ret, Error *err) must_check;
/* Cancels what is under way. */
Fetcher *fetcher_free(Fetcher *fetcher);
DEFINE_AUTO(Fetcher, fetcher_free)

/* Replaces the jobs (requests of the former ones are cancelled; hosts keep their state). The config
 * is borrowed until the next call. */
int fetcher_configure(Fetcher *fetcher, const FetchConfig *config, Error *err) must_check;
/* While a reason is given (borrowed) no new request begins. NULL: goes on. */
void fetcher_hold(Fetcher *fetcher, const char *reason);
/* What documents gave so far is durable. */
void fetcher_committed(Fetcher *fetcher);
/* A commit failed: what is under way is forgotten, and what was read since the last commit is read
 * again, from the cursors in the memory. */
void fetcher_forget(Fetcher *fetcher);
/* Begins a round of that job now. 0, or -ENOENT. */
int fetcher_run_now(Fetcher *fetcher, const char *job);
/* Reads [from, to) of a job's symbols once, beside its polling; resumes where it was. */
int fetcher_backfill(Fetcher *fetcher, const char *job, int64_t from_usec, int64_t to_usec,
                     Error *err) must_check;
/* No round is under way (and with `once` each job had its one). */
bool fetcher_is_idle(const Fetcher *fetcher);
/* Symbols that were given up, over all rounds. */
uint64_t fetcher_failures(const Fetcher *fetcher);

typedef struct FetchJobStatus {
    const char *state; /* "ok", "running", "waiting", "paused", "failed" */
    uint64_t requests, failures, bytes_in;
    uint64_t last_fetch_usec, next_fetch_usec; /* wall clock; 0 unknown */
    uint64_t symbols_done;                     /* of the round under way */
    const char *message;                       /* borrowed; NULL: none */
    const char *remedy;
} FetchJobStatus;
void fetcher_job_status(const Fetcher *fetcher, size_t job, FetchJobStatus *ret);

typedef struct FetchBackfillStatus {
    const char *job, *range;
    int64_t from_usec, to_usec;
    size_t symbols, symbols_done;
} FetchBackfillStatus;
size_t fetcher_backfills(const Fetcher *fetcher, FetchBackfillStatus *ret, size_t max);
const FetchHost *fetcher_host(const Fetcher *fetcher, size_t i); /* NULL past the last */
uint64_t fetcher_bytes_today(const Fetcher *fetcher);

#endif
