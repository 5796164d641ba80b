/* SPDX-License-Identifier: Apache-2.0 */

/* One frozen batch as one load job. The job id is fixed before the first byte, so whatever is lost
 * on the way, the question is never "was it sent" but "does this job exist", and the server answers
 * that:
 *
 *     start ── never asked ──▶ send, or session ─▶ chunk ⇄ probe ──▶ poll ──▶ done
 *       └───── asked before ─▶ lookup ─ 404 ─▶ send …        └─ found ─▶ poll
 *
 * An unknown outcome (5xx, lost connection) always goes to lookup or probe, never to a new id. */

#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "crawler/sink/sink-bigquery.h"

#define BOUNDARY          "mervis-load-4f1c9a7b"
#define POLL_FIRST_USEC   (500 * MSEC)
#define POLL_MAX_USEC     (20 * SECOND)
#define UPLOAD_TRY_USEC   (5 * MINUTE)
#define UPLOAD_STALL_USEC (30 * SECOND)
#define POLL_STUCK_USEC   (30 * MINUTE)

enum { PHASE_START, PHASE_LOOKUP, PHASE_SEND, PHASE_SESSION, PHASE_CHUNK, PHASE_PROBE, PHASE_POLL };

static json_t *label_object(const Sink *sink, const Errand *e)
{
    char batch[64], table[64], started[24];

    sink_label(batch, e->batch.id);
    sink_label(table, sink_table_suffix(e->batch.table));
    (void)snprintf(started, sizeof(started), "%llu",
                   (unsigned long long)(sink->identity.started_usec / MSEC));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s%}", "mervis_instance", sink->identity.instance,
                     "mervis_jobset", sink->identity.jobset, "mervis_started", started,
                     "mervis_table", table, "mervis_batch", batch, "mervis_sha", e->batch.sha256,
                     (size_t)MIN_OF(strlen(e->batch.sha256), (size_t)32));
}

static json_t *job_resource(const Sink *sink, const Errand *e)
{
    auto_free char *table = sink_table_name(sink, e->batch.table);
    json_auto_t *job = NULL;

    if (!table)
        return NULL;
    job = json_pack("{s:{s:s, s:s}, s:{s:{s:{s:s, s:s, s:s}, s:s, s:s, s:s, s:i, s:b}, s:o}}",
                    "jobReference", "projectId", sink->project, "jobId", e->job_id, "configuration",
                    "load", "destinationTable", "projectId", sink->project, "datasetId",
                    sink->dataset, "tableId", table, "sourceFormat", "NEWLINE_DELIMITED_JSON",
                    "writeDisposition", "WRITE_APPEND", "createDisposition", "CREATE_NEVER",
                    "maxBadRecords", 0, "ignoreUnknownValues", 0, "labels", label_object(sink, e));
    if (!job)
        return NULL;
    if (sink->location &&
        json_put(json_object_get(job, "jobReference"), "location", json_string(sink->location)) < 0)
        return NULL;
    return take_ptr(job);
}

static void set_header(Errand *e, HttpRequest *ret, const char *name, const char *value)
{
    e->headers[ret->n_headers++] = (HttpHeader){name, value};
    ret->headers = e->headers;
}

static int job_get(const Sink *sink, Errand *e, HttpRequest *ret)
{
    auto_free char *location = sink->location ? url_escape(sink->location, "") : NULL;
    int r;

    r = bq_url(e, BQ_API "%s/jobs/%s%s%s", sink->project, e->job_id, location ? "?location=" : "",
               location ? location : "");
    ret->url = e->url;
    return r < 0 ? r : 1;
}

/* Job resource and rows in one request. */
static int multipart(const Sink *sink, Errand *e, HttpRequest *ret)
{
    auto_free char *text = NULL;
    json_auto_t *job = job_resource(sink, e);
    int r;

    if (!job || !(text = json_text(job, false)))
        return -ENOMEM;
    buf_clear(&e->body);
    buf_clear(&e->tail);
    r = buf_printf(&e->body,
                   "--" BOUNDARY "\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%s\r\n"
                   "--" BOUNDARY "\r\nContent-Type: application/octet-stream\r\n\r\n",
                   text);
    if (r >= 0)
        r = buf_add_str(&e->tail, "\r\n--" BOUNDARY "--\r\n");
    if (r >= 0)
        r = bq_url(e, BQ_UPLOAD "%s/jobs?uploadType=multipart", sink->project);
    if (r < 0)
        return r;

    e->offset = 0;
    e->chunk_end = e->batch.bytes;
    ret->method = "POST";
    ret->url = e->url;
    ret->read = errand_read;
    ret->rewind = errand_rewind;
    ret->body_size = e->body.size + e->batch.bytes + e->tail.size;
    ret->try_timeout_usec = UPLOAD_TRY_USEC;
    ret->stall_timeout_usec = UPLOAD_STALL_USEC;
    set_header(e, ret, "Content-Type", "multipart/related; boundary=" BOUNDARY);
    return 1;
}

static int session_open(const Sink *sink, Errand *e, HttpRequest *ret)
{
    int r;

    r = bq_url(e, BQ_UPLOAD "%s/jobs?uploadType=resumable", sink->project);
    if (r >= 0)
        r = bq_json_request(e, ret, "POST", job_resource(sink, e));
    if (r < 0)
        return r;

    (void)snprintf(e->header_text[0], sizeof(e->header_text[0]), "%llu",
                   (unsigned long long)e->batch.bytes);
    set_header(e, ret, "X-Upload-Content-Type", "application/octet-stream");
    set_header(e, ret, "X-Upload-Content-Length", e->header_text[0]);
    return 1;
}

static int chunk_put(Errand *e, HttpRequest *ret)
{
    e->chunk_end = MIN_OF(e->offset + BQ_CHUNK, e->batch.bytes);
    buf_clear(&e->body);
    buf_clear(&e->tail);
    (void)snprintf(e->header_text[0], sizeof(e->header_text[0]), "bytes %llu-%llu/%llu",
                   (unsigned long long)e->offset, (unsigned long long)e->chunk_end - 1,
                   (unsigned long long)e->batch.bytes);
    ret->method = "PUT";
    ret->url = e->session;
    ret->read = errand_read;
    ret->rewind = errand_rewind;
    ret->body_size = e->chunk_end - e->offset;
    ret->try_timeout_usec = UPLOAD_TRY_USEC;
    ret->stall_timeout_usec = UPLOAD_STALL_USEC;
    set_header(e, ret, "Content-Type", "application/octet-stream");
    set_header(e, ret, "Content-Range", e->header_text[0]);
    return 1;
}

static int probe_put(Errand *e, HttpRequest *ret)
{
    (void)snprintf(e->header_text[0], sizeof(e->header_text[0]), "bytes */%llu",
                   (unsigned long long)e->batch.bytes);
    ret->method = "PUT";
    ret->url = e->session;
    ret->body = "";
    ret->body_size = 0;
    set_header(e, ret, "Content-Range", e->header_text[0]);
    return 1;
}

int bq_batch_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err)
{
    if (!e->job_id && !(e->job_id = sink_job_id(sink, &e->batch)))
        return -ENOMEM;
    e->is_unsure |= e->batch.asked;
    if (e->phase == PHASE_START)
        e->phase = e->batch.asked                      ? PHASE_LOOKUP
                   : e->batch.bytes > BQ_MULTIPART_MAX ? PHASE_SESSION
                                                       : PHASE_SEND;
    switch (e->phase) {
    case PHASE_SEND:
        return multipart(sink, e, ret);
    case PHASE_SESSION:
        return session_open(sink, e, ret);
    case PHASE_CHUNK:
        return chunk_put(e, ret);
    case PHASE_PROBE:
        return probe_put(e, ret);
    default:
        return job_get(sink, e, ret);
    }
}

/* --- Replies -------------------------------------------------------------------------------- */

static void submit_again(Errand *e)
{
    free(e->session);
    e->session = NULL;
    e->offset = 0;
    e->phase = e->batch.bytes > BQ_MULTIPART_MAX ? PHASE_SESSION : PHASE_SEND;
}

/* "…row starting at position 1234…", "…at position: 1234": the byte where the record begins. */
static uint64_t row_position(const char *message)
{
    const char *at = message ? strstr(message, "position") : NULL;
    uint64_t value = 0;
    size_t digits = 0;

    if (!at)
        return SINK_OFFSET_UNKNOWN;
    at += strlen("position");
    at += strspn(at, ": ");
    digits = strspn(at, "0123456789");
    if (digits == 0 || parse_u64_n(at, digits, &value) < 0)
        return SINK_OFFSET_UNKNOWN;
    return value;
}

static uint64_t bad_row_position(const json_t *status)
{
    const json_t *errors = json_object_get(status, "errors");
    const json_t *item;
    uint64_t at = row_position(json_str(json_object_get(status, "errorResult"), "message"));
    size_t i;

    json_array_foreach (errors, i, item) {
        if (at != SINK_OFFSET_UNKNOWN)
            break;
        at = row_position(json_str(item, "message"));
    }
    return at;
}

/* Nothing of the job was written, and the server said so: a new id is allowed now, and only now. */
static void job_failed(const Sink *sink, Errand *e, const json_t *status, const HttpResponse *reply)
{
    BqFault fault = {0};

    bq_fault_of_job(json_object_get(status, "errorResult"), &fault);
    error_done(&e->error);
    switch (fault.action) {
    case BQ_REFUSED:
    case BQ_TOO_LARGE:
    case BQ_PERMANENT:
        /* A row, or a column that the table no longer has: the table is looked at before any row is
         * blamed. */
        e->recheck_table = true;
        e->bad_offset = bad_row_position(status);
        (void)error_set(&e->error, -EBADMSG, ERROR_CORRUPT, "load job %s: %s", e->job_id,
                        fault.message);
        e->state = ERRAND_BAD_ROW;
        break;
    case BQ_QUOTA:
    case BQ_DENIED:
    case BQ_TOKEN:
    case BQ_NOT_FOUND:
        bq_settle_fault(sink, e, reply, &fault);
        e->state = ERRAND_NEXT_TRY;
        break;
    case BQ_OK:
    case BQ_RETRY:
    case BQ_NEW_ATTEMPT:
    case BQ_DUPLICATE:
        (void)error_set(&e->error, -EAGAIN, ERROR_TEMPORARY, "load job %s: %s", e->job_id,
                        fault.message);
        bq_retry(e, 0);
        e->state = ERRAND_NEXT_TRY;
        break;
    }
    bq_fault_done(&fault);
}

/* The job under our id is ours: same batch, same content. */
static bool job_is_ours(const Errand *e, const json_t *job)
{
    const json_t *labels = json_at(job, "configuration", "labels", NULL);
    const char *batch = json_str(labels, "mervis_batch"), *sha = json_str(labels, "mervis_sha");
    char label[64];

    sink_label(label, e->batch.id);
    return (!batch || streq(batch, label)) &&
           (!sha || strncmp(sha, e->batch.sha256, strlen(sha)) == 0);
}

static void job_done(const Sink *sink, Errand *e, const json_t *job, const HttpResponse *reply)
{
    const json_t *status = json_object_get(job, "status");
    uint64_t rows = 0;

    if (json_is_object(json_object_get(status, "errorResult"))) {
        job_failed(sink, e, status, reply);
        return;
    }
    if (json_u64(json_at(job, "statistics", "load", NULL), "outputRows", &rows) < 0 ||
        rows != e->batch.rows) {
        error_done(&e->error);
        (void)error_set(&e->error, -EBADMSG, ERROR_CORRUPT,
                        "load job %s is done, but reports %llu rows where %llu were sent",
                        e->job_id, (unsigned long long)rows, (unsigned long long)e->batch.rows);
        (void)error_remedy(&e->error, -EBADMSG,
                           "compare the table with `bq show -j %s`; the rows stay in the spool",
                           e->job_id);
        e->state = ERRAND_WRONG;
        return;
    }
    e->output_rows = rows;
    e->state = ERRAND_DONE;
}

static void poll_again(Errand *e)
{
    uint64_t wait = POLL_FIRST_USEC << MIN_OF(e->polls, 6U);

    e->polls++;
    e->phase = PHASE_POLL;
    e->state = ERRAND_ASKING;
    e->wait_usec = MIN_OF(wait, POLL_MAX_USEC);
}

/* A Job resource: what every successful path ends in. */
static void judge_job(const Sink *sink, Errand *e, const HttpResponse *reply)
{
    json_auto_t *job = NULL;
    const char *state;

    if (json_parse_quiet(buf_str(&reply->body), reply->body.size, &job) <= 0 ||
        !(state = json_str(json_object_get(job, "status"), "state"))) {
        /* Cut short on the way: the job exists all the same. */
        e->phase = PHASE_LOOKUP;
        bq_retry(e, 0);
        return;
    }
    e->tries = 0;
    e->is_too_large = false;
    if (!job_is_ours(e, job)) {
        error_done(&e->error);
        (void)error_set(&e->error, -EEXIST, ERROR_CORRUPT,
                        "job id %s belongs to another batch's content", e->job_id);
        e->state = ERRAND_WRONG;
        return;
    }
    if (streq(state, "DONE"))
        job_done(sink, e, job, reply);
    else
        poll_again(e);
}

/* Its rows are to go under other ids, so the job must not only be unseen but have had its time. */
static void judge_missing(Errand *e)
{
    if (e->missing_until_usec == 0)
        e->missing_until_usec = usec_add(e->now_usec, BQ_CONFLICT_WINDOW_USEC);
    if (e->now_usec < e->missing_until_usec)
        bq_retry(e, 0);
    else
        e->state = ERRAND_TOO_LARGE;
}

static void judge_lookup(const Sink *sink, const HttpResponse *reply, const BqFault *fault,
                         Errand *e)
{
    if (fault->action != BQ_NOT_FOUND) {
        bq_settle_fault(sink, e, reply, fault);
        return;
    }
    if (e->is_too_large)
        return judge_missing(e);
    if (!e->saw_conflict && e->phase == PHASE_LOOKUP) {
        /* It never arrived. The same id again: if it still does, that is a conflict, not a
         * duplicate. */
        submit_again(e);
        e->state = ERRAND_ASKING;
        return;
    }
    if (e->missing_until_usec == 0)
        e->missing_until_usec = usec_add(e->now_usec, BQ_CONFLICT_WINDOW_USEC);
    e->phase = PHASE_LOOKUP;
    e->saw_conflict = true;
    if (e->now_usec < e->missing_until_usec)
        bq_retry(e, 0);
    else
        bq_pause(e, BQ_QUOTA_PAUSE_USEC, ERROR_TEMPORARY, NULL,
                 "BigQuery knows job %s but does not show it", e->job_id);
}

static void judge_send(const Sink *sink, const HttpResponse *reply, const BqFault *fault, Errand *e)
{
    switch (fault->action) {
    case BQ_DUPLICATE:
        e->saw_conflict = true;
        e->missing_until_usec = 0;
        e->phase = PHASE_LOOKUP;
        e->state = ERRAND_ASKING;
        break;
    case BQ_RETRY:
    case BQ_NEW_ATTEMPT:
        /* A plain refusal by rate made no job; a 5xx or a lost link may have. */
        if (reply->status == 0 || reply->status >= 500)
            e->phase = PHASE_LOOKUP;
        bq_settle_fault(sink, e, reply, fault);
        break;
    case BQ_TOO_LARGE:
        error_done(&e->error);
        (void)error_set(&e->error, -EMSGSIZE, ERROR_INVALID, "BigQuery: %s", fault->message);
        e->state = ERRAND_TOO_LARGE;
        if (e->is_unsure) {
            e->is_too_large = true;
            e->phase = PHASE_LOOKUP;
            bq_retry(e, 0);
        }
        break;
    default:
        bq_settle_fault(sink, e, reply, fault);
    }
}

static void judge_session(const Sink *sink, const HttpResponse *reply, Errand *e)
{
    if (str_is_empty(reply->location)) {
        error_done(&e->error);
        (void)error_set(&e->error, -EBADMSG, ERROR_TEMPORARY,
                        "BigQuery: upload session without a Location");
        bq_retry(e, 0);
        return;
    }
    if (str_set(&e->session, reply->location) < 0)
        return bq_retry(e, 0);
    e->offset = 0;
    e->phase = PHASE_CHUNK; /* the tries are over when it keeps something, not when it opens */
    e->state = ERRAND_ASKING;
}

/* 308: "Range: bytes=0-N" says what was kept, which may be less than what was sent; none: nothing.
 */
static void judge_kept(const HttpResponse *reply, Errand *e)
{
    const char *range = http_response_header(reply, "Range");
    const char *last = range ? startswith(range, "bytes=0-") : NULL;
    uint64_t kept = 0;

    if (range && (!last || parse_u64(last, &kept) < 0 || kept >= e->batch.bytes)) {
        e->phase = PHASE_PROBE;
        return bq_retry(e, 0);
    }
    if (range)
        kept++;
    if (kept > e->offset)
        e->tries = 0;
    else
        bq_retry(e, 0);
    e->offset = kept;
    e->phase = kept == e->batch.bytes ? PHASE_PROBE : PHASE_CHUNK;
    e->state = ERRAND_ASKING;
}

static void leave_session(Errand *e)
{
    free(e->session);
    e->session = NULL;
    e->phase = PHASE_LOOKUP;
}

static void judge_chunk(const Sink *sink, const HttpResponse *reply, const BqFault *fault,
                        Errand *e)
{
    if (reply->status == 308)
        return judge_kept(reply, e);
    if (reply->status == 404 || reply->status == 410) {
        /* The session is over, perhaps because its last answer was lost. */
        leave_session(e);
        return bq_retry(e, 0);
    }
    if (fault->action == BQ_DUPLICATE || fault->action == BQ_TOO_LARGE)
        return judge_send(sink, reply, fault, e);
    if (fault->action == BQ_REFUSED || fault->action == BQ_PERMANENT)
        leave_session(e); /* it would refuse the next probe, too, for the week that it lives */
    else
        e->phase = PHASE_PROBE;
    bq_settle_fault(sink, e, reply, fault);
}

/* No job is made of half a body, and the other half is not to be had. */
static void rows_are_damaged(Errand *e)
{
    error_done(&e->error);
    (void)error_set(&e->error, -EBADMSG, ERROR_CORRUPT,
                    "batch %s of %llu rows: a block of it is damaged in the spool", e->batch.id,
                    (unsigned long long)e->batch.rows);
    (void)error_remedy(
        &e->error, -EBADMSG,
        "look at the disk: journalctl -k | grep -i error; the rows stay in the spool");
    e->state = ERRAND_WRONG;
}

void bq_batch_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e)
{
    BqFault fault = {0};
    bool success = !failure && reply->status >= 200 && reply->status < 300;
    bool sends = e->phase == PHASE_SEND || e->phase == PHASE_CHUNK || e->phase == PHASE_PROBE;

    if (failure && e->is_damaged) {
        rows_are_damaged(e);
        return;
    }
    /* Only a plain refusal is known to have made no job. */
    if (sends && (success || failure || reply->status == 0 || reply->status >= 500))
        e->is_unsure = true;
    if (success && e->phase == PHASE_SESSION) {
        judge_session(sink, reply, e);
    } else if (success) {
        judge_job(sink, e, reply);
    } else {
        bq_fault_of_reply(reply, failure, &fault);
        switch (e->phase) {
        case PHASE_SEND:
        case PHASE_SESSION:
            judge_send(sink, reply, &fault, e);
            break;
        case PHASE_CHUNK:
        case PHASE_PROBE:
            judge_chunk(sink, reply, &fault, e);
            break;
        default:
            judge_lookup(sink, reply, &fault, e);
        }
    }
    bq_fault_done(&fault);
}
