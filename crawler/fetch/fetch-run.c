/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/fetch/fetch-private.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"

#define WAKE_ACCURACY_USEC (100 * MSEC)
#define SAID_WAIT_USEC     (5 * SECOND)
/* A back-fill whose end could not be written down is walked through again after this. */
#define UNSAVED_RETRY_USEC (5 * SECOND)
/* What the wall clock may differ from boottime by without having been set: it is slewed, too. */
#define CLOCK_STEP_USEC SECOND
/* Who sleeps until a market opens or a day begins sees within this time that the clock was set. */
#define CLOCK_LOOK_USEC (10 * MINUTE)

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
        if (r > 0 && !task->cursor.done)
            recipe_resume(run->job->recipe, &query, &task->cursor);
        if (r > 0 && task->cursor.done)
            return 0; /* read before the restart */
        if (r == 0)
            r = recipe_begin(run->job->recipe, &query, run->from_usec, run->to_usec, &task->cursor,
                             err);
    } else {
        r = recipe_poll(run->job->recipe, &query, run->job->backfill_usec, &task->cursor, err);
    }
    return r < 0 ? r : 1;
}

/* A budget that is spent looks like a job that hangs, unless it is said. */
static void say_wait(FetchHost *host, uint64_t left, const char *why)
{
    host->waits = left >= SAID_WAIT_USEC && left != USEC_INFINITY ? why : NULL;
}

/* What waits for an answer is looked at when that comes: looking at once would be a busy loop. */
static void look_again(uint64_t *wait, uint64_t left)
{
    if (left > 0)
        *wait = MIN_OF(*wait, left);
}

/* Sends the task's next request if its host may be asked: 1 sent, 0 must wait (`*wait`), negative:
 * given up. */
static int task_try(Fetcher *f, Task *task, uint64_t *wait, Error *err)
{
    const FetchJob *job = task->run->job;
    FetchLimits limits = limits_of(f, task->source, job);
    RecipeQuery query = task_query(task);
    uint64_t now = wall_now(f), left;
    const char *why;
    int r;

    left = fetch_host_wait(task->source->host, &limits, now, &why);
    say_wait(task->source->host, left, why);
    if (left > 0 || f->in_flight >= FETCH_AT_ONCE_MAX) {
        look_again(wait, left);
        return 0;
    }
    if (!task->request.url) {
        r = recipe_next(job->recipe, &query, &task->cursor, &task->request, err);
        if (r <= 0)
            return r < 0 ? r : -EALREADY;
    }
    if (wants_robots(job)) {
        r = robots_ready(f, task->source, task->request.url, &limits, err);
        if (r <= 0)
            return r;
        if (!robots_allows(task->source->robots, url_path(task->request.url))) {
            (void)error_set(err, -EPERM, ERROR_DENIED, "robots.txt of %s forbids it",
                            task->source->host->name);
            return error_remedy(err, -EPERM,
                                "where the source's terms allow it all the same, set the job's "
                                "`terms` to \"acknowledged\"");
        }
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

    if (f->in_flight >= FETCH_AT_ONCE_MAX)
        return false;
    if (source_get(f, run->job->recipe->hosts[0], &source) < 0) {
        look_again(wait, SECOND); /* for want of memory */
        return false;
    }
    limits = limits_of(f, source, run->job);
    left = fetch_host_wait(source->host, &limits, wall_now(f), &why);
    say_wait(source->host, left, why);
    look_again(wait, left);
    return left == 0;
}

/* False while the task stays and waits. */
static bool advance_task(Fetcher *f, Task *task, uint64_t *wait)
{
    auto_error Error err = {0};
    int r = task_try(f, task, wait, &err);

    if (r >= 0)
        return r > 0;
    if (r == -EALREADY) { /* nothing to ask: the range was read already, or for now */
        task->run->cut += !task->cursor.done;
        symbol_done(task);
    } else
        symbol_failed(f, task, error_text(&err), err.remedy);
    task_free(f, task);
    return true;
}

static void begin_task(Fetcher *f, Run *run, uint64_t *wait, bool *ret_more)
{
    auto_error Error err = {0};
    Task *task = NULL;
    int r = run_take(f, run, &task, &err);

    *ret_more = r > 0;
    if (r < 0)
        look_again(wait, SECOND); /* for want of memory */
    if (r <= 0 || !task)
        return;
    r = task_begin(f, task, &err);
    if (r > 0) {
        /* One that waits (for robots.txt) says that the next one would, too. */
        *ret_more = advance_task(f, task, wait);
        return;
    }
    if (r < 0)
        symbol_failed(f, task, error_text(&err), err.remedy);
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

uint64_t wall_now(Fetcher *f)
{
    uint64_t wall = now_realtime_usec();
    int64_t ahead = (int64_t)wall - (int64_t)now_boottime_usec(), step = ahead - f->wall_ahead_usec;

    if (step > -(int64_t)CLOCK_STEP_USEC && step < (int64_t)CLOCK_STEP_USEC)
        return wall;
    f->wall_ahead_usec = ahead;
    LIST_FOREACH (sources, source, f->sources) {
        fetch_host_clock_set(source->host, step);
        if (source->robots)
            source->robots_at_usec += (uint64_t)step;
    }
    LIST_FOREACH (runs, run, f->runs) {
        run->began_wall_usec += step;
        if (!run->active && run->rounds > 0 && run->due_usec > now_boottime_usec() &&
            run->due_usec != USEC_INFINITY)
            run->due_usec = next_due(f, run);
    }
    return wall;
}

void run_start(Run *run)
{
    run->active = true;
    run->position = run->done = 0;
    run->n_retries = 0;
    run->failed = run->cut = 0;
    run->began_usec = now_boottime_usec();
    run->began_wall_usec = (int64_t)now_realtime_usec();
}

void run_free(Fetcher *f, Run *run)
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
    /* What is asked for once is read to its end. */
    if (run->cut > 0 && run->failed == 0 && (*run->range || f->config.once)) {
        run_start(run);
        return;
    }
    if (*run->range) {
        auto_free char *name = str_printf("backfill:%s", run->job->name);

        /* What it read must be durable before it is forgotten that it was wanted. */
        if (run->failed == 0 && name &&
            (f->memory.cursors_forget(f->memory.userdata, run->job->name, run->range, NULL) < 0 ||
             f->memory.text_save(f->memory.userdata, name, NULL, /* now= */ true, NULL) < 0)) {
            run->due_usec = usec_add(now_boottime_usec(), UNSAVED_RETRY_USEC);
            return;
        }
        run_free(f, run);
        return;
    }
    run->due_usec = f->config.once ? USEC_INFINITY : next_due(f, run);
}

bool budget_is_spent(const Fetcher *f)
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
            if (run->job->calendar)
                *wait = MIN_OF(*wait, CLOCK_LOOK_USEC);
            return;
        }
        run_start(run);
    }
    while (more && run_may_ask(f, run, wait))
        begin_task(f, run, wait, &more);
    if (run->in_flight == 0 && run->n_retries == 0 && run->position >= run->job->n_symbols) {
        run_ended(f, run);
        *wait = 0; /* when it is due again, or what else there is */
    }
}

void forget_now(Fetcher *f)
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

void pump(Fetcher *f)
{
    uint64_t wait = USEC_INFINITY;

    (void)wall_now(f);
    if (f->forgetting)
        forget_now(f);
    if (f->hold || budget_is_spent(f)) {
        if (!f->hold)
            (void)timer_set(f->timer, MIN_OF(DAY - wall_now(f) % DAY, CLOCK_LOOK_USEC), SECOND);
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
