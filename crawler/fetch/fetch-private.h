/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_FETCH_FETCH_PRIVATE_H
#define CRAWLER_FETCH_FETCH_PRIVATE_H

/* What the parts of the fetcher share: fetch.c is the object, fetch-run.c says what is next,
 * fetch-task.c asks and judges, fetch-host.c knows the hosts. */

#include "agent/base/list.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"
#include "crawler/fetch/fetch.h"
#include "crawler/fetch/robots.h"

typedef struct Run Run;
typedef struct Task Task;
typedef struct Source Source;

/* A host with its robots.txt. */
struct Source {
    LIST_FIELDS(Source, sources);
    Fetcher *fetcher;
    FetchHost *host;
    Robots *robots;
    uint64_t robots_at_usec; /* wall clock; 0: not read */
    HttpOp *robots_op;
    unsigned connect_timeouts;
    uint64_t saved_usec; /* boottime */
};

typedef struct Retry {
    size_t symbol;
    unsigned tries;
} Retry;

/* One walk over a job's symbols: its polling, or a back-fill. */
struct Run {
    LIST_FIELDS(Run, runs);
    const FetchJob *job;
    size_t job_index;
    char *range; /* "" for polling */
    int64_t from_usec, to_usec;
    bool active;
    size_t position; /* next symbol */
    size_t done;     /* symbols */
    unsigned in_flight;
    Retry *retries; /* symbols to be tried again in this round */
    size_t n_retries, retries_allocated;
    size_t *unsaved; /* symbols that were read since the last commit */
    size_t n_unsaved, unsaved_allocated;
    uint64_t due_usec;   /* boottime: when the next round begins */
    uint64_t began_usec; /* boottime, of the round */
    int64_t began_wall_usec;
    uint64_t rounds;
    uint64_t failed; /* symbols of this round */
    uint64_t cut;    /* symbols whose range goes on in the next round: max_pages were read */
};

struct Task {
    LIST_FIELDS(Task, tasks);
    Run *run;
    Source *source;
    size_t symbol;
    unsigned tries;
    Cursor cursor;
    RecipeRequest request;
    HttpOp *op;
};

typedef struct JobCount {
    uint64_t requests, failures, bytes_in, last_fetch_usec;
    char *message, *remedy;
} JobCount;

struct Fetcher {
    sd_event *event;
    HttpClient *http;
    FetchMemory memory;
    FetchHandlers handlers;
    FetchConfig config;
    char *user_agent;
    Source *sources;
    Run *runs;
    Task *tasks;
    JobCount *counts;
    size_t n_counts;
    Timer *timer;
    const char *hold;
    unsigned in_flight;
    uint64_t failures;
    uint64_t day, day_bytes, bytes_saved_usec;
    int64_t wall_ahead_usec; /* wall clock less boottime, when last looked at */
    bool was_busy, forgetting;
};

/* The wall clock now; where it was set, everything that is to come moves with it. */
uint64_t wall_now(Fetcher *f);
int source_get(Fetcher *f, const char *name, Source **ret);
void source_save(Fetcher *f, Source *source, bool now);
void source_free(Source *source);
/* Counts what a request cost, for data or for robots.txt, and asks whether the way out is shut. */
void source_answered(Source *source, const HttpResponse *response, const Error *err, uint64_t now);
void bytes_load(Fetcher *f);
void task_free(Fetcher *f, Task *task);
RecipeQuery task_query(const Task *task);
void symbol_done(Task *task);
void symbol_failed(Fetcher *f, Task *task, const char *message, const char *remedy);
void symbol_again(Fetcher *f, Task *task, const char *message, const char *remedy);
void run_retry(Run *run, size_t symbol, unsigned tries);
void job_message(Fetcher *f, const Run *run, const char *message, const char *remedy);
bool wants_validator(const Task *task);
char *validator_name(const Task *task);
void validator_save(Fetcher *f, const Task *task, const HttpResponse *response);
int task_send(Fetcher *f, Task *task, Error *err);
FetchLimits limits_of(const Fetcher *f, const Source *source, const FetchJob *job);
/* Whether robots.txt says what this job may ask. */
bool wants_robots(const FetchJob *job);
int robots_ready(Fetcher *f, Source *source, const char *url, const FetchLimits *limits,
                 Error *err);
const char *url_path(const char *url);
void task_answered(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata);
void pump(Fetcher *f);
void run_start(Run *run);
void run_free(Fetcher *f, Run *run);
bool budget_is_spent(const Fetcher *f);
void forget_now(Fetcher *f);

#endif
