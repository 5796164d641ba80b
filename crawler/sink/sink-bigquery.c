/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/sink/sink-bigquery.h"

#include <errno.h>
#include <stdarg.h>

#include "agent/base/backoff.h"
#include "agent/base/str.h"

/* clang-format off */
static const char *const action_names[] = {
    [BQ_OK] = "ok",               [BQ_RETRY] = "retry",       [BQ_NEW_ATTEMPT] = "new attempt",
    [BQ_QUOTA] = "quota",         [BQ_DUPLICATE] = "exists",  [BQ_DENIED] = "denied",
    [BQ_NOT_FOUND] = "not found", [BQ_REFUSED] = "refused",   [BQ_TOO_LARGE] = "too large",
    [BQ_TOKEN] = "token",         [BQ_PERMANENT] = "permanent",
};

/* `action` for an answer to a request, `in_job` for a job's errorResult. */
static const struct {
    const char *reason;
    BqAction action, in_job;
} reasons[] = {
    {"backendError",            BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"internalError",           BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"badGateway",              BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"rateLimitExceeded",       BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"jobRateLimitExceeded",    BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"jobBackendError",         BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"jobInternalError",        BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"tableUnavailable",        BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"resourceInUse",           BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"timeout",                 BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"stopped",                 BQ_RETRY,       BQ_NEW_ATTEMPT},
    {"quotaExceeded",           BQ_QUOTA,       BQ_QUOTA},
    {"duplicate",               BQ_DUPLICATE,   BQ_NEW_ATTEMPT},
    {"alreadyExists",           BQ_DUPLICATE,   BQ_NEW_ATTEMPT},
    {"accessDenied",            BQ_DENIED,      BQ_DENIED},
    {"insufficientPermissions", BQ_DENIED,      BQ_DENIED},
    {"accessNotConfigured",     BQ_DENIED,      BQ_DENIED},
    {"forbidden",               BQ_DENIED,      BQ_DENIED},
    {"billingNotEnabled",       BQ_DENIED,      BQ_DENIED},
    {"blocked",                 BQ_DENIED,      BQ_DENIED},
    {"notFound",                BQ_NOT_FOUND,   BQ_NOT_FOUND},
    {"invalid",                 BQ_REFUSED,     BQ_REFUSED},
    {"badRequest",              BQ_REFUSED,     BQ_REFUSED},
    {"invalidQuery",            BQ_REFUSED,     BQ_REFUSED},
    {"responseTooLarge",        BQ_TOO_LARGE,   BQ_REFUSED},
    {"resourcesExceeded",       BQ_TOO_LARGE,   BQ_NEW_ATTEMPT},
    {"uploadTooLarge",          BQ_TOO_LARGE,   BQ_REFUSED},
    {"authError",               BQ_TOKEN,       BQ_DENIED},
    {"required",                BQ_TOKEN,       BQ_REFUSED},
    {"notImplemented",          BQ_PERMANENT,   BQ_PERMANENT},
};

static const struct {
    long status;
    BqAction action;
} statuses[] = {
    {401, BQ_TOKEN},     {403, BQ_DENIED},    {404, BQ_NOT_FOUND}, {408, BQ_RETRY},
    {409, BQ_DUPLICATE}, {410, BQ_NOT_FOUND}, {413, BQ_TOO_LARGE}, {429, BQ_RETRY},
    {501, BQ_PERMANENT},
};
/* clang-format on */

#define REMEDY_NETWORK "agentctl doctor tells where the way to Google ends"
#define REMEDY_OUTAGE                                                                              \
    "nothing is lost and it is sent again; where it lasts, see https://status.cloud.google.com"

const char *bq_action_name(BqAction action)
{
    return action_names[action];
}

void bq_fault_done(BqFault *fault)
{
    free(fault->message);
    free(fault->remedy);
    *fault = (BqFault){0};
}

static BqAction action_of_status(long status)
{
    for (size_t i = 0; i < ELEMENTS(statuses); i++)
        if (statuses[i].status == status)
            return statuses[i].action;
    return status >= 500 || status == 0 ? BQ_RETRY : BQ_REFUSED;
}

static void set_message(BqFault *fault, const char *text)
{
    free(fault->message);
    fault->message = str_escape(text, strlen(text), 400);
}

static void set_reason(BqFault *fault, const char *reason)
{
    size_t size = MIN_OF(strlen(reason), sizeof(fault->reason) - 1);

    memcpy(fault->reason, reason, size);
    fault->reason[size] = '\0';
}

void bq_fault_of_reply(const HttpResponse *reply, const Error *failure, BqFault *ret)
{
    json_auto_t *body = NULL;
    const char *reason, *message;

    *ret = (BqFault){0};
    if (failure || reply->status == 0) {
        ret->action = failure && failure->kind == ERROR_DENIED ? BQ_DENIED : BQ_RETRY;
        set_message(ret, failure ? error_text(failure) : "no answer");
        ret->remedy = strdup(failure && failure->remedy ? failure->remedy : REMEDY_NETWORK);
        return;
    }
    if (reply->status >= 200 && reply->status < 300)
        return;

    ret->action = action_of_status(reply->status);
    if (ret->action == BQ_RETRY)
        ret->remedy = strdup(REMEDY_OUTAGE);
    if (reply->status == 400 && reply->body.size == 0) {
        /* Seen for requests that are over a size limit: a 400 with nothing to read. */
        ret->action = BQ_TOO_LARGE;
        set_message(ret, "HTTP 400 without a body");
        return;
    }
    if (json_parse_quiet(buf_str(&reply->body), reply->body.size, &body) <= 0) {
        char text[32];

        (void)snprintf(text, sizeof(text), "HTTP %ld", reply->status);
        set_message(ret, text);
        return;
    }

    reason = json_str(json_array_get(json_at(body, "error", "errors", NULL), 0), "reason");
    message = json_str(json_at(body, "error", NULL), "message");
    set_message(ret, message ? message : "no message");
    if (!reason)
        return;
    set_reason(ret, reason);
    /* A front end's 5xx stays one whatever its body claims. */
    if (reply->status >= 500)
        return;
    for (size_t i = 0; i < ELEMENTS(reasons); i++)
        if (streq(reasons[i].reason, reason))
            ret->action = reasons[i].action;
}

void bq_fault_of_job(const json_t *error_result, BqFault *ret)
{
    const char *reason = json_str(error_result, "reason");
    const char *message = json_str(error_result, "message");

    *ret = (BqFault){.action = BQ_NEW_ATTEMPT};
    set_message(ret, message ? message : "no message");
    if (!reason)
        return;
    set_reason(ret, reason);
    for (size_t i = 0; i < ELEMENTS(reasons); i++)
        if (streq(reasons[i].reason, reason))
            ret->action = reasons[i].in_job;
}

/* --- Moving on ------------------------------------------------------------------------------ */

void bq_retry(Errand *e, uint64_t at_least_usec)
{
    Backoff backoff = {.base_usec = SECOND,
                       .cap_usec = 32 * SECOND,
                       .floor_usec = 200 * MSEC,
                       .attempts = e->tries};

    e->wait_usec = backoff_next(&backoff, MIN_OF(at_least_usec, 10 * MINUTE));
    e->tries = backoff.attempts;
    e->state = ERRAND_ASKING;
}

void bq_pause(Errand *e, uint64_t usec, ErrorKind kind, const char *remedy, const char *format, ...)
{
    va_list args;

    error_done(&e->error);
    va_start(args, format);
    (void)error_setv(&e->error, -EAGAIN, kind, format, args);
    va_end(args);
    if (remedy)
        (void)error_remedy(&e->error, -EAGAIN, "%s", remedy);
    e->state = ERRAND_PAUSED;
    e->wait_usec = usec;
    e->pauses++;
}

static uint64_t quota_pause_usec(const Errand *e)
{
    unsigned doublings = MIN_OF(e->pauses, 5U);

    return MIN_OF(BQ_QUOTA_PAUSE_USEC << doublings, BQ_QUOTA_PAUSE_MAX_USEC);
}

void bq_settle_fault(const Sink *sink, Errand *e, const HttpResponse *reply, const BqFault *fault)
{
    const char *message = fault->message ? fault->message : "";

    switch (fault->action) {
    case BQ_OK:
    case BQ_RETRY:
    case BQ_NEW_ATTEMPT:
    case BQ_DUPLICATE:
        error_done(&e->error);
        (void)error_set(&e->error, -EAGAIN, ERROR_TEMPORARY, "BigQuery: %s", message);
        if (fault->remedy)
            (void)error_remedy(&e->error, -EAGAIN, "%s", fault->remedy);
        bq_retry(e, reply->retry_after_usec);
        break;
    case BQ_QUOTA:
        bq_pause(e, MAX_OF(quota_pause_usec(e), reply->retry_after_usec), ERROR_THROTTLED,
                 "wait, or raise `flush` so that fewer loads are needed",
                 "BigQuery: quota exceeded: %s", message);
        break;
    case BQ_TOKEN:
        bq_pause(e, BQ_DENIED_PAUSE_USEC, ERROR_DENIED,
                 "give the VM a service account: gcloud compute instances set-service-account",
                 "BigQuery: the access token is refused: %s", message);
        break;
    case BQ_DENIED:
        bq_pause(e, BQ_DENIED_PAUSE_USEC, ERROR_DENIED,
                 "grant roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the "
                 "project to the VM's service account, and scope cloud-platform to the VM",
                 "BigQuery: %s", message);
        break;
    case BQ_NOT_FOUND:
        e->recheck_table = true;
        bq_pause(e, MINUTE, ERROR_INVALID, NULL, "BigQuery: %s", message);
        break;
    case BQ_TOO_LARGE:
    case BQ_REFUSED:
    case BQ_PERMANENT:
        bq_pause(e, BQ_QUOTA_PAUSE_USEC, ERROR_INVALID,
                 "see the message; the data stays in the spool", "BigQuery: %s request refused: %s",
                 sink->dataset, message);
        break;
    }
}

int bq_url(Errand *e, const char *format, ...)
{
    auto_free char *url = NULL;
    va_list args;
    int r;

    va_start(args, format);
    r = vasprintf(&url, format, args);
    va_end(args);
    if (r < 0) {
        url = NULL;
        return -ENOMEM;
    }
    free(e->url);
    e->url = take_ptr(url);
    return 0;
}

int bq_json_request(Errand *e, HttpRequest *ret, const char *method, json_t *value)
{
    json_auto_t *owned = value;
    auto_free char *text = NULL;

    if (!owned)
        return -ENOMEM;
    text = json_text(owned, false);
    if (!text)
        return -ENOMEM;
    buf_clear(&e->body);
    if (buf_add_str(&e->body, text) < 0)
        return -ENOMEM;

    ret->method = method;
    ret->url = e->url;
    ret->body = e->body.data;
    ret->body_size = e->body.size;
    e->headers[0] = (HttpHeader){"Content-Type", "application/json; charset=UTF-8"};
    ret->headers = e->headers;
    ret->n_headers = 1;
    return 1;
}

/* --- The sink ------------------------------------------------------------------------------- */

typedef int (*ErrandNext)(const Sink *sink, Errand *e, HttpRequest *ret, Error *err);
typedef void (*ErrandJudge)(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e);

static const struct {
    ErrandNext next;
    ErrandJudge judge;
} errands[] = {
    [ERRAND_BATCH] = {bq_batch_next, bq_batch_judge},
    [ERRAND_TABLE] = {bq_table_next, bq_table_judge},
    [ERRAND_JOBS] = {bq_jobs_next, bq_jobs_judge},
    [ERRAND_KEYS] = {bq_keys_next, bq_keys_judge},
};

static int bigquery_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err)
{
    int r;

    if (e->state == ERRAND_PAUSED)
        e->state = ERRAND_ASKING;
    if (e->state != ERRAND_ASKING)
        return 0;

    *ret = (HttpRequest){0};
    e->sent = 0;
    r = errands[e->kind].next(sink, e, ret, err);
    return r == -ENOMEM ? error_oom(err) : r;
}

static void bigquery_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e)
{
    static const HttpResponse nothing = {0};

    e->wait_usec = 0;
    errands[e->kind].judge(sink, reply ? reply : &nothing, failure, e);
    if (e->state == ERRAND_DONE) {
        error_done(&e->error);
        e->tries = 0;
    }
}

const SinkOps sink_bigquery_load = {
    .name = "bigquery-load",
    .next = bigquery_next,
    .judge = bigquery_judge,
};
