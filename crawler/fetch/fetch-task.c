/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/fetch/fetch-private.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"

/* --- Tasks ---------------------------------------------------------------------------------- */

void task_free(Fetcher *f, Task *task)
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

RecipeQuery task_query(const Task *task)
{
    return (RecipeQuery){.symbol = task->run->job->symbols[task->symbol],
                         .interval = task->run->job->interval,
                         .now_usec = (int64_t)now_realtime_usec()};
}

void job_message(Fetcher *f, const Run *run, const char *message, const char *remedy)
{
    JobCount *count = &f->counts[run->job_index];

    if (str_set(&count->message, message) < 0 || str_set(&count->remedy, remedy) < 0)
        count->message = NULL;
}

void run_retry(Run *run, size_t symbol, unsigned tries)
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

void symbol_done(Task *task)
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
void symbol_failed(Fetcher *f, Task *task, const char *message, const char *remedy)
{
    Run *run = task->run;

    run->failed++;
    run->done++;
    f->failures++;
    f->counts[run->job_index].failures++;
    job_message(f, run, message, remedy);
    if (f->handlers.trouble)
        f->handlers.trouble(run->job, run->job->symbols[task->symbol], message, remedy,
                            f->handlers.userdata);
}

/* Again later in this round, when its host may be asked. */
void symbol_again(Fetcher *f, Task *task, const char *message, const char *remedy)
{
    Run *run = task->run;

    if (task->tries + 1 >= FETCH_TRIES) {
        symbol_failed(f, task, message, remedy);
        return;
    }
    run_retry(run, task->symbol, task->tries + 1);
    job_message(f, run, message, remedy);
    /* The others of its host first, which it would keep waiting try after try: what they ask may be
     * answered. */
    LIST_REMOVE(runs, f->runs, run);
    LIST_APPEND(runs, f->runs, run);
}

/* --- Validators ----------------------------------------------------------------------------- */

char *validator_name(const Task *task)
{
    return str_printf("validator:%s:%s", task->run->job->name,
                      task->run->job->symbols[task->symbol]);
}

bool wants_validator(const Task *task)
{
    return task->run->job->recipe->politeness.conditional && !*task->run->range &&
           task->cursor.pages == 0;
}

void validator_save(Fetcher *f, const Task *task, const HttpResponse *response)
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

int task_send(Fetcher *f, Task *task, Error *err)
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

FetchLimits limits_of(const Fetcher *f, const Source *source, const FetchJob *job)
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

/* --- Answers -------------------------------------------------------------------------------- */

static void count_response(Fetcher *f, Task *task, const HttpResponse *response, const Error *err,
                           uint64_t now)
{
    JobCount *count = &f->counts[task->run->job_index];

    count->requests++;
    count->last_fetch_usec = now;
    count->bytes_in += response->wire_bytes_in;
    source_answered(task->source, response, err, now);
}

static FetchFailure failure_of_result(const FetchResult *result, long status)
{
    FetchFailure failure = result->nothing ? FETCH_WELL : fetch_failure_of_status(status);

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

/* clang-format off */
static const char *const remedies[FETCH_FAILURE_MAX] = {
    [FETCH_WELL] = "check the symbol in the plan against the source",
    [FETCH_NETWORK] = "it is asked again by itself; agentctl doctor tests the way out",
    [FETCH_SERVER] = "it is asked again by itself; where it lasts, see what the source says of its state",
    [FETCH_THROTTLED] = "it is asked again by itself; where it lasts, ask less: a longer `every`, or `min_delay` in crawl.egress",
    [FETCH_BANNED] = "check the job's key and the source's terms, and ask less",
    [FETCH_CHANGED] = "agentctl crawl dead-letters shows what came; with a recipe that knows it, agentctl crawl replay reads it again",
};
/* clang-format on */

/* `remedy` NULL: the usual one of such a failure. */
static void task_failed(Fetcher *f, Task *task, FetchFailure failure, const char *message,
                        const char *remedy)
{
    if (!remedy)
        remedy = remedies[failure];
    if (failure == FETCH_WELL)
        symbol_failed(f, task, message, remedy);
    else
        symbol_again(f, task, message, remedy);
    task_free(f, task);
}

static void judge_document(Fetcher *f, Task *task, const HttpResponse *response)
{
    Source *source = task->source;
    uint64_t now = wall_now(f);
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
            task_failed(f, task, failure, result.message, NULL);
        break;
    case FETCH_SOURCE_ERROR:
    case FETCH_REFUSED:
        task_failed(f, task, failure, result.message, NULL);
        break;
    case FETCH_HOLD:
        task->tries = 0; /* no fault of the source's */
        symbol_again(f, task, result.message, NULL);
        task_free(f, task);
        break;
    }
}

void task_answered(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    Task *task = userdata;
    Source *source = task->source;
    Fetcher *f = source->fetcher;
    uint64_t now = wall_now(f);

    task->op = NULL; /* freed last: the reply lives in it */
    f->in_flight--;
    count_response(f, task, response, err, now);
    if (err) {
        FetchFailure failure = err->kind == ERROR_CORRUPT ? FETCH_CHANGED : FETCH_NETWORK;

        fetch_host_end(source->host, failure, 0, error_text(err), now);
        source_save(f, source, /* now= */ true);
        task_failed(f, task, failure, error_text(err), err->remedy);
    } else {
        judge_document(f, task, response);
    }
    (void)http_op_free(op);
    pump(f);
}
