/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/crawlerd/intake.h"

#include <errno.h>

#include "agent/base/crash.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"
#include "crawler/extract/extract.h"
#include "crawler/sink/sink.h"

/* A commit is two fsyncs; whoever comes within that time goes along. */
#define COMMIT_DELAY_USEC (50 * MSEC)
#define COMMIT_AGAIN_USEC (5 * SECOND)
#define COMMIT_DOCUMENTS  64

struct Intake {
    Spool *spool;
    IntakeHandlers handlers;
    Timer *timer;
    RowSet rows;
    unsigned waiting; /* documents since the last commit */
    uint64_t losses;  /* of the spool, as last seen */
    bool lost;
};

static int table_of(const char *interval)
{
    return (int)sink_table_of_interval(interval);
}

static void lose(Intake *intake, const Error *err)
{
    intake->waiting = 0;
    intake->losses = spool_losses(intake->spool);
    intake->lost = true;
    intake->handlers.lost(err, intake->handlers.userdata);
    (void)timer_set(intake->timer, COMMIT_AGAIN_USEC, SECOND);
}

/* Somebody else's commit failed and took our documents along. */
static bool lost_meanwhile(Intake *intake)
{
    auto_error Error err = {0};
    bool ours = spool_losses(intake->spool) != intake->losses && intake->waiting > 0;

    intake->losses = spool_losses(intake->spool);
    if (!ours)
        return false;
    (void)error_set(&err, -EIO, ERROR_TEMPORARY, "the spool could not be written");
    lose(intake, &err);
    return true;
}

/* Whether the disk takes anything at all again: something that is not there yet, as a commit that
 * changes nothing writes nothing and always succeeds. */
static int try_write(Intake *intake, Error *err)
{
    auto_free char *text = str_printf("%llu", (unsigned long long)now_realtime_usec());
    int r = spool_text_save(intake->spool, "probe", text ? text : "", err);

    return r < 0 ? r : spool_sync(intake->spool, err);
}

static void commit(void *userdata)
{
    Intake *intake = userdata;
    auto_error Error err = {0};
    int r;

    if (!intake->lost && lost_meanwhile(intake))
        return;
    crash_point("rows.before-commit");
    r = intake->lost ? try_write(intake, &err) : spool_sync(intake->spool, &err);
    crash_point("rows.after-commit");
    if (r < 0) {
        lose(intake, &err);
        return;
    }
    intake->waiting = 0;
    intake->lost = false;
    intake->handlers.committed(intake->handlers.userdata);
}

bool intake_commit(Intake *intake)
{
    commit(intake);
    return !intake->lost;
}

static void commit_soon(Intake *intake)
{
    if (++intake->waiting >= COMMIT_DOCUMENTS)
        (void)timer_set(intake->timer, 0, 0);
    else if (!timer_is_set(intake->timer))
        (void)timer_set(intake->timer, COMMIT_DELAY_USEC, 0);
}

static void set_message(FetchResult *result, const char *text)
{
    (void)snprintf(result->message, sizeof(result->message), "%s", text ? text : "");
}

static void hold(Intake *intake, const Error *err, FetchResult *ret)
{
    ret->verdict = FETCH_HOLD;
    set_message(ret, error_text(err));
    lose(intake, err);
}

static void keep_refused(Intake *intake, const FetchDocument *document, const char *reason)
{
    const HttpResponse *response = document->response;
    SpoolRefused refused = {.job = document->job->name,
                            .symbol = document->symbol,
                            .interval = document->job->interval,
                            .content_type = response->content_type,
                            .reason = reason,
                            .status = response->status,
                            .at_usec = document->now_usec,
                            .from_usec = document->request->from_usec,
                            .to_usec = document->request->to_usec,
                            .body = buf_str(&response->body),
                            .size = response->body.size};

    intake->handlers.refused(document->job->name, document->symbol, reason,
                             intake->handlers.userdata);
    /* Kept for a person; a disk that is full has other worries. */
    if (spool_refuse(intake->spool, &refused, NULL) >= 0)
        commit_soon(intake);
}

static int take(Intake *intake, SpoolDocument *document, SpoolAccepted *ret, Error *err)
{
    auto_free char *counter = str_printf("rows:%s", document->job);
    int r;

    document->rows = &intake->rows;
    document->table_of = table_of;
    r = spool_accept(intake->spool, document, ret, err);

    if (r >= 0 && counter && ret->rows > 0)
        r = spool_count(intake->spool, counter, ret->rows, err);
    return r;
}

static void take_rows(Intake *intake, const FetchDocument *document, bool live,
                      const ExtractOutcome *outcome, Cursor *cursor, FetchResult *ret)
{
    RecipeQuery query = {.symbol = document->symbol,
                         .interval = document->job->interval,
                         .now_usec = document->now_usec};
    Cursor moved = *cursor;
    SpoolDocument taken = {.job = document->job->name,
                           .symbol = document->symbol,
                           .range = document->range,
                           .cursor = &moved,
                           .live = live,
                           .now_usec = document->now_usec};
    SpoolAccepted count = {0};
    auto_error Error err = {0};

    if (!document->not_modified)
        (void)recipe_advance(document->job->recipe, &query, &outcome->page, &moved);
    if (take(intake, &taken, &count, &err) < 0) {
        hold(intake, &err, ret);
        return;
    }
    *cursor = moved;
    ret->verdict = FETCH_TAKEN;
    intake->handlers.taken(document->job->name, &count, intake->handlers.userdata);
    commit_soon(intake);
}

void intake_document(Intake *intake, const FetchDocument *document, bool live, Cursor *cursor,
                     FetchResult *ret)
{
    const HttpResponse *response = document->response;
    ExtractRequest request = {.symbol = document->symbol,
                              .interval = document->job->interval,
                              .from_usec = document->request->from_usec,
                              .to_usec = document->request->to_usec,
                              .now_usec = document->now_usec};
    auto_extract_outcome ExtractOutcome outcome = {0};
    auto_error Error err = {0};
    int r = 0;

    *ret = (FetchResult){0};
    if (lost_meanwhile(intake)) {
        ret->verdict = FETCH_HOLD;
        set_message(ret, "the spool could not be written");
        return;
    }
    row_set_clear(&intake->rows);
    if (!document->not_modified)
        r = extract_run(document->job->recipe, &request, buf_str(&response->body),
                        response->body.size, response->status, response->content_type,
                        &intake->rows, &outcome, &err);
    if (r < 0) {
        hold(intake, &err, ret);
        return;
    }
    if (outcome.verdict == EXTRACT_SOURCE_ERROR && outcome.nothing) {
        outcome.verdict = EXTRACT_EMPTY;
        ret->nothing = true;
    }
    switch (outcome.verdict) {
    case EXTRACT_ROWS:
    case EXTRACT_EMPTY:
        take_rows(intake, document, live, &outcome, cursor, ret);
        break;
    case EXTRACT_SOURCE_ERROR:
        ret->verdict = FETCH_SOURCE_ERROR;
        ret->kind = outcome.kind;
        ret->retry_after_usec = outcome.retry_after_usec;
        set_message(ret, outcome.text);
        break;
    case EXTRACT_REFUSED:
    case EXTRACT_VERDICT_MAX:
        ret->verdict = FETCH_REFUSED;
        set_message(ret, outcome.text);
        keep_refused(intake, document, outcome.text);
        break;
    }
}

/* --- Replay --------------------------------------------------------------------------------- */

typedef struct Replay {
    Intake *intake;
    const FetchJob *jobs;
    size_t n_jobs;
    uint64_t documents, rows;
    int64_t *mended; /* ids */
    size_t n_mended;
    Error *err;
} Replay;

/* What was fetched since is newer than all of these, and the newest of these comes first: a bar
 * that is there stands, or an old value would be its latest revision. */
static int replay_one(const SpoolRefused *document, void *userdata)
{
    Replay *replay = userdata;
    Intake *intake = replay->intake;
    ExtractRequest request = {.symbol = document->symbol,
                              .interval = document->interval,
                              .from_usec = document->from_usec,
                              .to_usec = document->to_usec,
                              .now_usec = document->at_usec};
    SpoolDocument taken = {.job = document->job,
                           .symbol = document->symbol,
                           .range = "",
                           .is_old = true,
                           .now_usec = document->at_usec};
    auto_extract_outcome ExtractOutcome outcome = {0};
    const FetchJob *job = NULL;
    SpoolAccepted count = {0};
    int r;

    for (size_t i = 0; i < replay->n_jobs; i++)
        if (streq(replay->jobs[i].name, document->job))
            job = &replay->jobs[i];
    if (!job || replay->n_mended >= SPOOL_REFUSED_MAX)
        return 0;
    row_set_clear(&intake->rows);
    r = extract_run(job->recipe, &request, document->body, document->size, (long)document->status,
                    document->content_type, &intake->rows, &outcome, replay->err);
    if (r < 0 || (outcome.verdict != EXTRACT_ROWS && outcome.verdict != EXTRACT_EMPTY))
        return r;
    r = take(intake, &taken, &count, replay->err);
    if (r < 0)
        return r;
    replay->documents++;
    replay->rows += count.rows;
    replay->mended[replay->n_mended++] = document->id;
    return 0;
}

int intake_replay(Intake *intake, const FetchJob *jobs, size_t n_jobs, uint64_t *ret_documents,
                  uint64_t *ret_rows, Error *err)
{
    int64_t mended[SPOOL_REFUSED_MAX];
    Replay replay = {
        .intake = intake, .jobs = jobs, .n_jobs = n_jobs, .mended = mended, .err = err};
    int r = spool_each_refused_body(intake->spool, replay_one, &replay, err);

    for (size_t i = 0; i < replay.n_mended && r >= 0; i++)
        r = spool_forget_refused(intake->spool, mended[i], err);
    if (r >= 0)
        r = spool_sync(intake->spool, err);
    if (r < 0)
        return r;
    *ret_documents = replay.documents;
    *ret_rows = replay.rows;
    return 0;
}

/* --- The object ----------------------------------------------------------------------------- */

int intake_new(sd_event *event, Spool *spool, const IntakeHandlers *handlers, Intake **ret,
               Error *err)
{
    auto_(intake_freep) Intake *intake = calloc(1, sizeof(*intake));

    if (!intake || timer_new(event, commit, intake, &intake->timer) < 0)
        return error_oom(err);
    intake->spool = spool;
    intake->handlers = *handlers;
    *ret = take_ptr(intake);
    return 0;
}

Intake *intake_free(Intake *intake)
{
    if (!intake)
        return NULL;
    (void)timer_free(intake->timer);
    row_set_done(&intake->rows);
    free(intake);
    return NULL;
}
