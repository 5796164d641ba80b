/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "crawler/fetch/fetch.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/list.h"
#include "agent/base/log.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"
#include "crawler/fetch/robots.h"

#define WAKE_ACCURACY_USEC (100 * MSEC)
#define SAVE_EVERY_USEC    (5 * SECOND)
#define SUSPECT_AFTER      2 /* connects in a row that timed out */
#define ROBOTS_RETRY_USEC  (10 * MINUTE)
#define PRODUCT            "mervis-agent"

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
    bool was_busy, forgetting;
};

static void pump(Fetcher *f);

/* --- Memory --------------------------------------------------------------------------------- */

/* Trouble is remembered at once; counts and distances every few seconds. */
static void source_save(Fetcher *f, Source *source, bool now)
{
    auto_free char *name = NULL, *text = NULL;

    if (!now && now_boottime_usec() - source->saved_usec < SAVE_EVERY_USEC)
        return;
    source->saved_usec = now_boottime_usec();
    name = str_printf("host:%s", source->host->name);
    text = fetch_host_format(source->host);

    /* Lost state costs politeness after a crash at worst; the spool's own trouble is said where
     * rows are kept. */
    if (name && text)
        (void)f->memory.text_save(f->memory.userdata, name, text, now, NULL);
}

static void bytes_save(Fetcher *f)
{
    auto_free char *text = NULL;

    if (now_boottime_usec() - f->bytes_saved_usec < SAVE_EVERY_USEC)
        return;
    f->bytes_saved_usec = now_boottime_usec();
    text = str_printf("%llu %llu", (unsigned long long)f->day, (unsigned long long)f->day_bytes);

    if (text)
        (void)f->memory.text_save(f->memory.userdata, "egress", text, /* now= */ false, NULL);
}

static void bytes_load(Fetcher *f)
{
    auto_free char *text = NULL;
    char *space;

    if (f->memory.text_load(f->memory.userdata, "egress", &text, NULL) <= 0)
        return;
    space = strchr(text, ' ');
    if (!space)
        return;
    *space = '\0';
    if (parse_u64(text, &f->day) < 0 || parse_u64(space + 1, &f->day_bytes) < 0)
        f->day = f->day_bytes = 0;
}

static void add_bytes(Fetcher *f, uint64_t bytes)
{
    uint64_t today = now_realtime_usec() / DAY;

    if (f->day != today) {
        f->day = today;
        f->day_bytes = 0;
    }
    f->day_bytes += bytes;
    bytes_save(f);
}

uint64_t fetcher_bytes_today(const Fetcher *f)
{
    return f->day == now_realtime_usec() / DAY ? f->day_bytes : 0;
}

static int source_get(Fetcher *f, const char *name, Source **ret)
{
    auto_free char *key = NULL, *text = NULL;
    Source *source;
    int r;

    LIST_FOREACH (sources, s, f->sources)
        if (streq(s->host->name, name)) {
            *ret = s;
            return 0;
        }
    source = calloc(1, sizeof(*source));
    if (!source)
        return -ENOMEM;
    r = fetch_host_new(name, &source->host);
    if (r < 0) {
        free(source);
        return r;
    }
    source->fetcher = f;
    key = str_printf("host:%s", name);
    if (key && f->memory.text_load(f->memory.userdata, key, &text, NULL) > 0)
        fetch_host_parse(source->host, text);
    LIST_PREPEND(sources, f->sources, source);
    *ret = source;
    return 0;
}

static void source_free(Source *source)
{
    (void)http_op_free(source->robots_op);
    (void)robots_free(source->robots);
    (void)fetch_host_free(source->host);
    free(source);
}

/* --- Tasks ---------------------------------------------------------------------------------- */

static void task_free(Fetcher *f, Task *task)
{
    LIST_REMOVE(tasks, f->tasks, task);
    if (task->op) {
        (void)http_op_free(task->op);
        f->in_flight--;
        if (task->source->host->in_flight > 0)
            task->source->host->in_flight--;
        task->source->host->probing = false;
    }
    if (task->run)
        task->run->in_flight--;
    recipe_request_done(&task->request);
    free(task);
}

static RecipeQuery task_query(const Task *task)
{
    return (RecipeQuery){.symbol = task->run->job->symbols[task->symbol],
                         .interval = task->run->job->interval,
                         .now_usec = (int64_t)now_realtime_usec()};
}

static void job_message(Fetcher *f, const Run *run, const char *message, const char *remedy)
{
    JobCount *count = &f->counts[run->job_index];

    if (str_set(&count->message, message) < 0 || str_set(&count->remedy, remedy) < 0)
        count->message = NULL;
}

static void run_retry(Run *run, size_t symbol, unsigned tries)
{
    if (run->n_retries == run->retries_allocated) {
        size_t wanted = MAX_OF(2 * run->retries_allocated, (size_t)16);
        Retry *grown = realloc(run->retries, wanted * sizeof(*grown));

        if (!grown)
            return; /* the next round comes by it */
        run->retries = grown;
        run->retries_allocated = wanted;
    }
    run->retries[run->n_retries++] = (Retry){.symbol = symbol, .tries = tries};
}

static void symbol_done(Task *task)
{
    Run *run = task->run;

    run->done++;
    if (run->n_unsaved == run->unsaved_allocated) {
        size_t wanted = MAX_OF(2 * run->unsaved_allocated, (size_t)16);
        size_t *grown = realloc(run->unsaved, wanted * sizeof(*grown));

        if (!grown)
            return;
        run->unsaved = grown;
        run->unsaved_allocated = wanted;
    }
    run->unsaved[run->n_unsaved++] = task->symbol;
}

/* The symbol is done with for this round. */
static void symbol_failed(Fetcher *f, Task *task, const char *message)
{
    Run *run = task->run;

    run->failed++;
    run->done++;
    f->failures++;
    f->counts[run->job_index].failures++;
    job_message(f, run, message, NULL);
    if (f->handlers.trouble)
        f->handlers.trouble(run->job, run->job->symbols[task->symbol], message,
                            f->handlers.userdata);
}

/* Again later in this round, when its host may be asked. */
static void symbol_again(Fetcher *f, Task *task, const char *message)
{
    Run *run = task->run;

    if (task->tries + 1 >= FETCH_TRIES) {
        symbol_failed(f, task, message);
        return;
    }
    run_retry(run, task->symbol, task->tries + 1);
    job_message(f, run, message, NULL);
}

/* --- Validators ----------------------------------------------------------------------------- */

static char *validator_name(const Task *task)
{
    return str_printf("validator:%s:%s", task->run->job->name,
                      task->run->job->symbols[task->symbol]);
}

static bool wants_validator(const Task *task)
{
    return task->run->job->recipe->politeness.conditional && !*task->run->range &&
           task->cursor.pages == 0;
}

static void validator_save(Fetcher *f, const Task *task, const HttpResponse *response)
{
    auto_free char *name = NULL;
    const char *etag = http_response_header(response, "ETag");
    const char *modified = http_response_header(response, "Last-Modified");
    auto_free char *text = NULL;

    if (!task->run->job->recipe->politeness.conditional || *task->run->range ||
        task->cursor.pages > 1)
        return;
    name = validator_name(task);
    text = etag ? str_printf("If-None-Match: %s", etag)
                : (modified ? str_printf("If-Modified-Since: %s", modified) : NULL);
    if (name)
        (void)f->memory.text_save(f->memory.userdata, name, text, /* now= */ false, NULL);
}

/* --- Requests ------------------------------------------------------------------------------- */

static int check_address(const char *address, uint16_t port, const char *host, void *userdata)
{
    const Task *task = userdata;

    if (http_client_is_endpoint(task->source->fetcher->http, host, port))
        return 0;
    return address_is_private(address) ? -EPERM : 0;
}

static int check_robots_address(const char *address, uint16_t port, const char *host,
                                void *userdata)
{
    const Source *source = userdata;

    if (http_client_is_endpoint(source->fetcher->http, host, port))
        return 0;
    return address_is_private(address) ? -EPERM : 0;
}

typedef struct Headers {
    HttpHeader items[24];
    size_t n;
    char *owned[26];
    size_t n_owned;
} Headers;

static void headers_done(Headers *h)
{
    for (size_t i = 0; i < h->n_owned; i++)
        free(h->owned[i]);
}

/* "Name: value", split in a copy. */
static void headers_add(Headers *h, const char *line)
{
    char *copy = line && h->n < ELEMENTS(h->items) ? strdup(line) : NULL;
    char *colon = copy ? strchr(copy, ':') : NULL;

    if (!colon) {
        free(copy);
        return;
    }
    *colon = '\0';
    h->owned[h->n_owned++] = copy;
    h->items[h->n++] = (HttpHeader){copy, str_strip(colon + 1)};
}

static void task_answered(HttpOp *op, const HttpResponse *response, const Error *err,
                          void *userdata);

static int task_send(Fetcher *f, Task *task, Error *err)
{
    const Recipe *recipe = task->run->job->recipe;
    auto_(headers_done) Headers headers = {0};
    auto_free char *name = NULL, *validator = NULL;
    HttpRequest request = {
        .url = task->request.url,
        .max_body = task->request.max_body_bytes,
        .total_timeout_usec = task->request.timeout_usec,
        .try_timeout_usec = task->request.timeout_usec,
        .compressed = true,
        .http2 = true,
        .follow = true,
        .follow_hosts = (const char *const *)recipe->hosts,
        .check_address = check_address,
    };

    headers.items[headers.n++] = (HttpHeader){"User-Agent", f->user_agent};
    STRV_FOREACH (line, task->request.headers)
        headers_add(&headers, *line);
    if (wants_validator(task)) {
        name = validator_name(task);
        if (name && f->memory.text_load(f->memory.userdata, name, &validator, NULL) > 0)
            headers_add(&headers, validator);
    }
    if (task->request.secret_header && task->run->job->secret)
        headers.items[headers.n++] =
            (HttpHeader){task->request.secret_header, task->run->job->secret};
    request.headers = headers.items;
    request.n_headers = headers.n;
    return http_start(f->http, &request, task_answered, task, &task->op, err);
}

static FetchLimits limits_of(const Fetcher *f, const Source *source, const FetchJob *job)
{
    const RecipePoliteness *polite = &job->recipe->politeness;
    FetchLimits limits = {
        .delay_usec = MAX_OF(polite->delay_usec, f->config.min_delay_usec),
        .connections = (unsigned)MIN_OF(MAX_OF(polite->connections, UINT64_C(1)),
                                        (uint64_t)MAX_OF(f->config.connections, 1U)),
        .requests_per_day = polite->requests_per_day,
        .nat_ports = f->config.nat_ports,
    };

    /* A documented API says itself how fast it may be asked. */
    if (polite->robots == RECIPE_ROBOTS_API)
        limits.delay_usec = polite->delay_usec;
    if (source->robots && !job->acknowledged)
        limits.delay_usec = MAX_OF(limits.delay_usec, robots_delay_usec(source->robots));
    return limits;
}

/* --- robots.txt ----------------------------------------------------------------------------- */

static void robots_answered(HttpOp *op, const HttpResponse *response, const Error *err,
                            void *userdata)
{
    Source *source = userdata;
    Fetcher *f = source->fetcher;
    uint64_t now = now_realtime_usec();
    Robots *robots = NULL;
    bool unreachable = err || response->status >= 500;
    int r;

    source->robots_op = NULL; /* freed last: the reply lives in it */
    add_bytes(f, response ? response->wire_bytes_in + response->wire_bytes_out : 0);
    if (response)
        fetch_host_connected(source->host, response->new_connections, now);
    if (unreachable)
        r = robots_new_all(/* allowed= */ false, &robots);
    else if (response->status >= 200 && response->status < 300)
        r = robots_parse(buf_str(&response->body), response->body.size, ROBOTS_PRODUCT, &robots);
    else
        r = robots_new_all(/* allowed= */ true, &robots);
    fetch_host_end(source->host, unreachable ? FETCH_NETWORK : FETCH_WELL, 0,
                   "robots.txt could not be read", now);
    if (r >= 0) {
        (void)robots_free(source->robots);
        source->robots = robots;
        /* "Disallow all" for want of an answer is asked again soon, rules only after a day. */
        source->robots_at_usec = unreachable ? now - ROBOTS_MAX_AGE_USEC + ROBOTS_RETRY_USEC : now;
    }
    source_save(f, source, /* now= */ unreachable);
    (void)http_op_free(op);
    pump(f);
}

/* 1: read; 0: being read, or the host must not be asked now; negative: failed. */
static int robots_ready(Fetcher *f, Source *source, const char *url, const FetchLimits *limits,
                        Error *err)
{
    auto_free char *scheme = NULL, *host = NULL, *robots_url = NULL;
    HttpHeader agent = {"User-Agent", f->user_agent};
    uint64_t now = now_realtime_usec();
    uint16_t port = 0;
    HttpRequest request = {.headers = &agent,
                           .n_headers = 1,
                           .max_body = ROBOTS_SIZE_MAX,
                           .compressed = true,
                           .follow = true,
                           .total_timeout_usec = 30 * SECOND,
                           .check_address = check_robots_address};
    int r;

    if (source->robots && now - source->robots_at_usec < ROBOTS_MAX_AGE_USEC)
        return 1;
    if (source->robots_op)
        return 0;
    r = url_host_port(url, &scheme, &host, &port, err);
    if (r < 0)
        return r;
    robots_url = str_printf("%s://%s:%u/robots.txt", scheme, host, (unsigned)port);
    if (!robots_url)
        return error_oom(err);
    request.url = robots_url;
    r = http_start(f->http, &request, robots_answered, source, &source->robots_op, err);
    if (r < 0)
        return r;
    fetch_host_begin(source->host, limits, now);
    return 0;
}

static const char *url_path(const char *url)
{
    const char *at = strstr(url, "://");

    at = at ? strchr(at + 3, '/') : NULL;
    return at ? at : "/";
}

/* --- Answers -------------------------------------------------------------------------------- */

static void count_response(Fetcher *f, Task *task, const HttpResponse *response, uint64_t now)
{
    JobCount *count = &f->counts[task->run->job_index];
    FetchHost *host = task->source->host;

    count->requests++;
    count->last_fetch_usec = now;
    if (!response)
        return;
    count->bytes_in += response->wire_bytes_in;
    host->bytes_in += response->wire_bytes_in;
    host->bytes_out += response->wire_bytes_out;
    fetch_host_connected(host, MAX_OF(response->new_connections, response->connected ? 0U : 1U),
                         now);
    add_bytes(f, response->wire_bytes_in + response->wire_bytes_out);
}

static void look_for_blocked_egress(Fetcher *f, Source *source, const HttpResponse *response,
                                    const Error *err)
{
    if (!err || err->code != -ETIMEDOUT || !response || response->connected) {
        source->connect_timeouts = 0;
        return;
    }
    if (++source->connect_timeouts >= SUSPECT_AFTER && f->handlers.egress_suspect)
        f->handlers.egress_suspect(source->host->name, f->handlers.userdata);
}

static FetchFailure failure_of_result(const FetchResult *result, long status)
{
    FetchFailure failure = fetch_failure_of_status(status);

    if (failure != FETCH_WELL)
        return failure;
    if (result->verdict == FETCH_REFUSED)
        return FETCH_CHANGED;
    if (result->verdict != FETCH_SOURCE_ERROR)
        return FETCH_WELL;
    switch (result->kind) {
    case ERROR_THROTTLED:
        return FETCH_THROTTLED;
    case ERROR_DENIED:
        return FETCH_BANNED;
    case ERROR_TEMPORARY:
        return FETCH_SERVER;
    case ERROR_CORRUPT:
        return FETCH_CHANGED;
    case ERROR_INTERNAL:
    case ERROR_INVALID:
    case ERROR_KIND_MAX:
        break;
    }
    return FETCH_WELL; /* no such symbol: the host is well */
}

/* The reply was taken: the next page, or done. */
static void task_goes_on(Fetcher *f, Task *task, const FetchDocument *document)
{
    if (document->response->status == 200)
        validator_save(f, task, document->response);
    if (task->cursor.done) {
        symbol_done(task);
        task_free(f, task);
        return;
    }
    recipe_request_done(&task->request);
    task->tries = 0;
    /* Waits in the list until its host may be asked again. */
}

static void task_failed(Fetcher *f, Task *task, FetchFailure failure, const char *message)
{
    if (failure == FETCH_WELL)
        symbol_failed(f, task, message);
    else
        symbol_again(f, task, message);
    task_free(f, task);
}

static void judge_document(Fetcher *f, Task *task, const HttpResponse *response)
{
    Source *source = task->source;
    uint64_t now = now_realtime_usec();
    FetchDocument document = {.job = task->run->job,
                              .symbol = task->run->job->symbols[task->symbol],
                              .range = task->run->range,
                              .request = &task->request,
                              .response = response,
                              .not_modified = response->status == 304,
                              .now_usec = (int64_t)now};
    FetchResult result = {.verdict = FETCH_TAKEN};
    FetchFailure failure;
    uint64_t retry_after;

    if (document.not_modified)
        task->cursor.done = true;
    f->handlers.document(&document, &task->cursor, &result, f->handlers.userdata);
    failure = failure_of_result(&result, response->status);
    /* The peer's own word wins over what a recipe supposes. */
    retry_after = response->retry_after_usec ? response->retry_after_usec : result.retry_after_usec;
    fetch_host_end(source->host, failure, retry_after, result.message, now);
    source_save(f, source, /* now= */ failure != FETCH_WELL);

    switch (result.verdict) {
    case FETCH_TAKEN:
        if (failure == FETCH_WELL)
            task_goes_on(f, task, &document);
        else
            task_failed(f, task, failure, result.message);
        break;
    case FETCH_SOURCE_ERROR:
    case FETCH_REFUSED:
        task_failed(f, task, failure, result.message);
        break;
    case FETCH_HOLD:
        task->tries = 0; /* no fault of the source's */
        symbol_again(f, task, result.message);
        task_free(f, task);
        break;
    }
}

static void task_answered(HttpOp *op, const HttpResponse *response, const Error *err,
                          void *userdata)
{
    Task *task = userdata;
    Source *source = task->source;
    Fetcher *f = source->fetcher;
    uint64_t now = now_realtime_usec();

    task->op = NULL; /* freed last: the reply lives in it */
    f->in_flight--;
    count_response(f, task, response, now);
    look_for_blocked_egress(f, source, response, err);
    if (err) {
        FetchFailure failure = err->kind == ERROR_CORRUPT ? FETCH_CHANGED : FETCH_NETWORK;

        fetch_host_end(source->host, failure, 0, error_text(err), now);
        source_save(f, source, /* now= */ true);
        task_failed(f, task, failure, error_text(err));
    } else {
        judge_document(f, task, response);
    }
    (void)http_op_free(op);
    pump(f);
}

/* --- What is next --------------------------------------------------------------------------- */

/* Reads the cursor and begins or resumes a range. 1: there is something to read. */
static int task_begin(Fetcher *f, Task *task, Error *err)
{
    Run *run = task->run;
    RecipeQuery query = task_query(task);
    int r;

    task->cursor = CURSOR_INIT;
    r = f->memory.cursor_load(f->memory.userdata, run->job->name, query.symbol, run->range,
                              &task->cursor, err);
    if (r < 0)
        return r;
    if (*run->range) {
        if (r > 0 && task->cursor.done)
            return 0; /* read before the restart */
        if (r == 0)
            r = recipe_begin(run->job->recipe, &query, run->from_usec, run->to_usec, &task->cursor,
                             err);
    } else if (r == 0 || task->cursor.done || task->cursor.pages == 0) {
        r = recipe_poll(run->job->recipe, &query, run->job->backfill_usec, &task->cursor, err);
    }
    return r < 0 ? r : 1;
}

/* Sends the task's next request if its host may be asked: 1 sent, 0 must wait (`*wait`), negative:
 * given up. */
static int task_try(Fetcher *f, Task *task, uint64_t *wait, Error *err)
{
    const FetchJob *job = task->run->job;
    FetchLimits limits = limits_of(f, task->source, job);
    RecipeQuery query = task_query(task);
    uint64_t now = now_realtime_usec(), left;
    const char *why;
    int r;

    left = fetch_host_wait(task->source->host, &limits, now, &why);
    if (left > 0 || f->in_flight >= FETCH_AT_ONCE_MAX) {
        *wait = MIN_OF(*wait, left);
        return 0;
    }
    if (!task->request.url) {
        r = recipe_next(job->recipe, &query, &task->cursor, &task->request, err);
        if (r <= 0)
            return r < 0 ? r : -EALREADY;
    }
    if (job->recipe->politeness.robots == RECIPE_ROBOTS_OBEY && !job->acknowledged) {
        r = robots_ready(f, task->source, task->request.url, &limits, err);
        if (r <= 0)
            return r;
        if (!robots_allows(task->source->robots, url_path(task->request.url)))
            return error_set(err, -EPERM, ERROR_DENIED, "robots.txt of %s forbids it",
                             task->source->host->name);
    }
    r = task_send(f, task, err);
    if (r < 0)
        return r;
    f->in_flight++;
    fetch_host_begin(task->source->host, &limits, now);
    return 1;
}

/* A task for the run's next symbol: 1 made, 0 none left. */
static int run_take(Fetcher *f, Run *run, Task **ret, Error *err)
{
    Source *source = NULL;
    Task *task;
    size_t symbol;
    unsigned tries = 0;
    int r;

    if (run->n_retries > 0) {
        symbol = run->retries[0].symbol;
        tries = run->retries[0].tries;
        run->n_retries--;
        memmove(run->retries, run->retries + 1, run->n_retries * sizeof(Retry));
    } else if (run->position < run->job->n_symbols) {
        symbol = run->position++;
    } else {
        return 0;
    }
    r = source_get(f, run->job->recipe->hosts[0], &source);
    if (r < 0 || !source)
        return error_oom(err);
    task = calloc(1, sizeof(*task));
    if (!task)
        return error_oom(err);
    task->run = run;
    task->source = source;
    task->symbol = symbol;
    task->tries = tries;
    run->in_flight++;
    LIST_PREPEND(tasks, f->tasks, task);
    *ret = task;
    return 1;
}

/* Whether a further task of this run could send at once; else there is no use in making one. */
static bool run_may_ask(Fetcher *f, const Run *run, uint64_t *wait)
{
    Source *source = NULL;
    FetchLimits limits;
    const char *why;
    uint64_t left;

    if (f->in_flight >= FETCH_AT_ONCE_MAX || source_get(f, run->job->recipe->hosts[0], &source) < 0)
        return false;
    limits = limits_of(f, source, run->job);
    left = fetch_host_wait(source->host, &limits, now_realtime_usec(), &why);
    *wait = MIN_OF(*wait, left);
    return left == 0;
}

/* False while the task stays and waits. */
static bool advance_task(Fetcher *f, Task *task, uint64_t *wait)
{
    auto_error Error err = {0};
    int r = task_try(f, task, wait, &err);

    if (r >= 0)
        return r > 0;
    if (r == -EALREADY) /* nothing to ask: the range was read already */
        symbol_done(task);
    else
        symbol_failed(f, task, error_text(&err));
    task_free(f, task);
    return true;
}

static void begin_task(Fetcher *f, Run *run, uint64_t *wait, bool *ret_more)
{
    auto_error Error err = {0};
    Task *task = NULL;
    int r = run_take(f, run, &task, &err);

    *ret_more = r > 0;
    if (r <= 0 || !task)
        return;
    r = task_begin(f, task, &err);
    if (r > 0) {
        /* One that waits (for robots.txt) says that the next one would, too. */
        *ret_more = advance_task(f, task, wait);
        return;
    }
    if (r < 0)
        symbol_failed(f, task, error_text(&err));
    else
        symbol_done(task);
    task_free(f, task);
}

/* --- Rounds --------------------------------------------------------------------------------- */

static uint64_t next_due(const Fetcher *f, const Run *run)
{
    uint64_t due = MAX_OF(usec_add(run->began_usec, run->job->every_usec), now_boottime_usec());
    int64_t wall = (int64_t)now_realtime_usec(), open;

    if (!run->job->calendar)
        return due;
    /* One more round after the close takes the last final bars: what counts is whether the market
     * was open since the last round began. */
    open = calendar_next_open(run->job->calendar, run->began_wall_usec);
    if (open <= wall || open == INT64_MAX)
        return due;
    return MAX_OF(due, now_boottime_usec() + (uint64_t)(open - wall) + random_u64(5 * SECOND));
}

static void run_start(Run *run)
{
    run->active = true;
    run->position = run->done = 0;
    run->n_retries = 0;
    run->failed = 0;
    run->began_usec = now_boottime_usec();
    run->began_wall_usec = (int64_t)now_realtime_usec();
}

static void run_free(Fetcher *f, Run *run)
{
    LIST_REMOVE(runs, f->runs, run);
    free(run->retries);
    free(run->unsaved);
    free(run->range);
    free(run);
}

static void run_ended(Fetcher *f, Run *run)
{
    run->active = false;
    run->rounds++;
    if (run->failed == 0)
        job_message(f, run, NULL, NULL);
    if (*run->range) {
        auto_free char *name = str_printf("backfill:%s", run->job->name);

        /* What it read must be durable before it is forgotten that it was wanted. */
        if (run->failed == 0 && name &&
            f->memory.text_save(f->memory.userdata, name, NULL, /* now= */ true, NULL) < 0) {
            run_start(run);
            return;
        }
        run_free(f, run);
        return;
    }
    run->due_usec = f->config.once ? USEC_INFINITY : next_due(f, run);
}

static bool budget_is_spent(const Fetcher *f)
{
    return f->config.daily_bytes > 0 && fetcher_bytes_today(f) >= f->config.daily_bytes;
}

static void drive_run(Fetcher *f, Run *run, uint64_t *wait)
{
    bool more = true;

    if (!run->active) {
        uint64_t now = now_boottime_usec();

        if (run->due_usec > now) {
            if (run->due_usec != USEC_INFINITY)
                *wait = MIN_OF(*wait, run->due_usec - now);
            return;
        }
        run_start(run);
    }
    while (more && run_may_ask(f, run, wait))
        begin_task(f, run, wait, &more);
    if (run->in_flight == 0 && run->n_retries == 0 && run->position >= run->job->n_symbols)
        run_ended(f, run);
}

static void forget_now(Fetcher *f)
{
    f->forgetting = false;
    f->was_busy = true;
    LIST_FOREACH_SAFE (tasks, task, f->tasks) {
        run_retry(task->run, task->symbol, task->tries);
        task_free(f, task);
    }
    LIST_FOREACH (runs, run, f->runs) {
        for (size_t i = 0; i < run->n_unsaved; i++)
            run_retry(run, run->unsaved[i], 0);
        run->done -= MIN_OF(run->done, run->n_unsaved);
        run->active = run->active || run->n_unsaved > 0;
        run->n_unsaved = 0;
    }
}

static void pump(Fetcher *f)
{
    uint64_t wait = USEC_INFINITY;

    if (f->forgetting)
        forget_now(f);
    if (f->hold || budget_is_spent(f)) {
        if (!f->hold)
            (void)timer_set(f->timer, DAY - now_realtime_usec() % DAY, SECOND);
        return;
    }
    LIST_FOREACH_SAFE (tasks, task, f->tasks)
        if (!task->op)
            (void)advance_task(f, task, &wait);
    LIST_FOREACH_SAFE (runs, run, f->runs)
        drive_run(f, run, &wait);
    if (wait != USEC_INFINITY)
        (void)timer_set(f->timer, wait, MIN_OF(wait / 10 + MSEC, WAKE_ACCURACY_USEC));

    if (fetcher_is_idle(f)) {
        if (f->was_busy && f->handlers.idle)
            f->handlers.idle(f->handlers.userdata);
        f->was_busy = false;
    } else {
        f->was_busy = true;
    }
}

static void on_timer(void *userdata)
{
    pump(userdata);
}

/* --- The object ----------------------------------------------------------------------------- */

int fetcher_new(sd_event *event, HttpClient *http, const FetchMemory *memory,
                const FetchHandlers *handlers, Fetcher **ret, Error *err)
{
    auto_(fetcher_freep) Fetcher *f = calloc(1, sizeof(*f));

    if (!f)
        return error_oom(err);
    f->event = sd_event_ref(event);
    f->http = http;
    f->memory = *memory;
    f->handlers = *handlers;
    if (timer_new(event, on_timer, f, &f->timer) < 0)
        return error_oom(err);
    bytes_load(f);
    *ret = take_ptr(f);
    return 0;
}

static void drop_runs(Fetcher *f)
{
    LIST_FOREACH_SAFE (tasks, task, f->tasks)
        task_free(f, task);
    LIST_FOREACH_SAFE (runs, run, f->runs)
        run_free(f, run);
    for (size_t i = 0; i < f->n_counts; i++) {
        free(f->counts[i].message);
        free(f->counts[i].remedy);
    }
    free(f->counts);
    f->counts = NULL;
    f->n_counts = 0;
}

Fetcher *fetcher_free(Fetcher *f)
{
    if (!f)
        return NULL;
    drop_runs(f);
    LIST_FOREACH_SAFE (sources, source, f->sources) {
        source_save(f, source, /* now= */ true);
        source_free(source);
    }
    (void)timer_free(f->timer);
    (void)sd_event_unref(f->event);
    free(f->user_agent);
    free(f);
    return NULL;
}

static int add_run(Fetcher *f, size_t job, const char *range, Run **ret)
{
    Run *run = calloc(1, sizeof(*run));

    if (!run)
        return -ENOMEM;
    run->range = strdup(range);
    if (!run->range) {
        free(run);
        return -ENOMEM;
    }
    run->job = &f->config.jobs[job];
    run->job_index = job;
    LIST_PREPEND(runs, f->runs, run);
    if (ret)
        *ret = run;
    return 0;
}

/* "from to" of a back-fill that a restart interrupted. */
static void resume_backfill(Fetcher *f, size_t job)
{
    auto_free char *name = str_printf("backfill:%s", f->config.jobs[job].name);
    auto_free char *text = NULL;
    auto_error Error err = {0};
    int64_t from, to;
    char *space;

    if (!name || f->memory.text_load(f->memory.userdata, name, &text, NULL) <= 0)
        return;
    space = strchr(text, ' ');
    if (!space)
        return;
    *space = '\0';
    if (parse_i64(text, &from) < 0 || parse_i64(space + 1, &to) < 0 ||
        fetcher_backfill(f, f->config.jobs[job].name, from, to, &err) < 0)
        log_debug("ignoring the back-fill of job %s: %s", f->config.jobs[job].name,
                  error_text(&err));
}

int fetcher_configure(Fetcher *f, const FetchConfig *config, Error *err)
{
    auto_free char *agent =
        str_printf("Mozilla/5.0 (compatible; %s/%s%s%s)", PRODUCT, PACKAGE_VERSION,
                   config->contact ? "; +" : "", config->contact ? config->contact : "");

    drop_runs(f);
    f->config = *config;
    free(f->user_agent);
    f->user_agent = take_ptr(agent);
    f->counts = calloc(MAX_OF(config->n_jobs, (size_t)1), sizeof(*f->counts));
    if (!f->counts || !f->user_agent)
        return error_oom(err);
    f->n_counts = config->n_jobs;
    for (size_t i = 0; i < config->n_jobs; i++) {
        if (add_run(f, i, "", NULL) < 0)
            return error_oom(err);
        resume_backfill(f, i);
    }
    http_client_set_max_host_connections(f->http, MAX_OF(config->connections, 1U));
    f->was_busy = true;
    (void)timer_set(f->timer, 0, 0);
    return 0;
}

void fetcher_hold(Fetcher *f, const char *reason)
{
    f->hold = reason;
    if (!reason)
        (void)timer_set(f->timer, 0, 0);
}

void fetcher_committed(Fetcher *f)
{
    LIST_FOREACH (runs, run, f->runs)
        run->n_unsaved = 0;
}

void fetcher_forget(Fetcher *f)
{
    /* At the next turn: a document may be in hand. */
    f->forgetting = true;
    (void)timer_set(f->timer, 0, 0);
}

int fetcher_run_now(Fetcher *f, const char *job)
{
    LIST_FOREACH (runs, run, f->runs)
        if (!*run->range && streq(run->job->name, job)) {
            run->due_usec = 0;
            (void)timer_set(f->timer, 0, 0);
            return 0;
        }
    return -ENOENT;
}

int fetcher_backfill(Fetcher *f, const char *job, int64_t from_usec, int64_t to_usec, Error *err)
{
    auto_free char *range = NULL, *name = NULL, *text = NULL;
    size_t index;
    Run *run = NULL;
    int r;

    for (index = 0; index < f->config.n_jobs; index++)
        if (streq(f->config.jobs[index].name, job))
            break;
    if (index == f->config.n_jobs)
        return error_set(err, -ENOENT, ERROR_INVALID, "there is no crawl job \"%s\"", job);
    if (from_usec >= to_usec)
        return error_set(err, -EINVAL, ERROR_INVALID, "--from must lie before --to");
    range = str_printf("%lld-%lld", (long long)from_usec, (long long)to_usec);
    name = str_printf("backfill:%s", job);
    text = str_printf("%lld %lld", (long long)from_usec, (long long)to_usec);
    if (!range || !name || !text)
        return error_oom(err);
    LIST_FOREACH (runs, other, f->runs)
        if (other->job_index == index && *other->range)
            return streq(other->range, range)
                       ? 0
                       : error_set(err, -EBUSY, ERROR_TEMPORARY,
                                   "another back-fill of job %s is under way", job);
    /* Recorded first: a restart goes on with it. */
    r = f->memory.text_save(f->memory.userdata, name, text, /* now= */ true, err);
    if (r < 0)
        return r;
    if (add_run(f, index, range, &run) < 0)
        return error_oom(err);
    run->from_usec = from_usec;
    run->to_usec = to_usec;
    (void)timer_set(f->timer, 0, 0);
    return 1;
}

/* --- Questions ------------------------------------------------------------------------------ */

bool fetcher_is_idle(const Fetcher *f)
{
    LIST_FOREACH (runs, run, f->runs)
        if (run->active || *run->range || (f->config.once && run->rounds == 0))
            return false;
    return true;
}

uint64_t fetcher_failures(const Fetcher *f)
{
    return f->failures;
}

static const Run *polling_run(const Fetcher *f, size_t job)
{
    LIST_FOREACH (runs, run, f->runs)
        if (run->job_index == job && !*run->range)
            return run;
    return NULL;
}

static const FetchHost *job_host(const Fetcher *f, const FetchJob *job)
{
    LIST_FOREACH (sources, source, f->sources)
        if (streq(source->host->name, job->recipe->hosts[0]))
            return source->host;
    return NULL;
}

void fetcher_job_status(const Fetcher *f, size_t job, FetchJobStatus *ret)
{
    const JobCount *count = &f->counts[job];
    const Run *run = polling_run(f, job);
    const FetchHost *host = job_host(f, &f->config.jobs[job]);
    uint64_t now = now_boottime_usec(), wall = now_realtime_usec();

    *ret = (FetchJobStatus){.state = "waiting",
                            .requests = count->requests,
                            .failures = count->failures,
                            .bytes_in = count->bytes_in,
                            .last_fetch_usec = count->last_fetch_usec,
                            .message = count->message,
                            .remedy = count->remedy};
    if (run) {
        ret->symbols_done = run->done;
        if (!run->active && run->due_usec != USEC_INFINITY)
            ret->next_fetch_usec = wall + (run->due_usec > now ? run->due_usec - now : 0);
        ret->state = run->active ? "running" : run->rounds ? "ok" : "waiting";
    }
    if (f->hold || budget_is_spent(f))
        ret->state = "paused";
    else if (host && fetch_host_is_open(host, wall))
        ret->state = "paused";
    else if (count->message)
        ret->state = "failed";
    if (!ret->message && host && fetch_host_is_open(host, wall))
        ret->message = host->message;
    if (budget_is_spent(f)) {
        ret->message = "the daily byte budget is used up; it begins anew at 00:00 UTC";
        ret->remedy = "raise crawl.egress.daily_bytes in the plan";
    }
}

size_t fetcher_backfills(const Fetcher *f, FetchBackfillStatus *ret, size_t max)
{
    size_t n = 0;

    LIST_FOREACH (runs, run, f->runs) {
        if (!*run->range || n == max)
            continue;
        ret[n++] = (FetchBackfillStatus){.job = run->job->name,
                                         .range = run->range,
                                         .from_usec = run->from_usec,
                                         .to_usec = run->to_usec,
                                         .symbols = run->job->n_symbols,
                                         .symbols_done = run->done};
    }
    return n;
}

const FetchHost *fetcher_host(const Fetcher *f, size_t i)
{
    LIST_FOREACH (sources, source, f->sources)
        if (i-- == 0)
            return source->host;
    return NULL;
}
