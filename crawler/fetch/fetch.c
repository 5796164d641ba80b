/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "crawler/fetch/fetch-private.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"

#define PRODUCT          "mervis-agent"
#define SINK_CONNECTIONS 4U /* batches under way at the same time */

/* --- The object ----------------------------------------------------------------------------- */

static void on_timer(void *userdata)
{
    pump(userdata);
}

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
    f->wall_ahead_usec = (int64_t)now_realtime_usec() - (int64_t)now_boottime_usec();
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
    (void)wall_now(f);
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
    /* How many requests a host gets at a time is our own rule; this one also bounds the sink's. */
    http_client_set_max_host_connections(f->http, MAX_OF(config->connections, SINK_CONNECTIONS));
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
