/* SPDX-License-Identifier: Apache-2.0 */

/* What the manager's parts tell it (intake, fetcher, delivery), and what keeps fetching from going
 * on. */

#include "agent/base/log.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "crawler/crawlerd/manager-private.h"

#define SPOOL_RELEASE      (9.0 / 10) /* of its size: fetching goes on again */
#define EGRESS_PROBE_URL   "https://bigquery.googleapis.com/discovery/v1/apis/bigquery/v2/rest"
#define ONCE_PATIENCE_USEC MINUTE /* a pause that is longer needs a person, or a daemon */

/* --- Holding -------------------------------------------------------------------------------- */

const char *manager_hold_reason(const Manager *m)
{
    if (m->hold_spool)
        return m->hold_spool;
    if (m->hold_full)
        return m->hold_full;
    if (m->hold_cold)
        return m->hold_cold;
    return m->hold_writer;
}

void manager_hold_changed(Manager *m)
{
    if (m->fetcher)
        fetcher_hold(m->fetcher, m->phase == PHASE_DRAINING ? "stopping" : manager_hold_reason(m));
}

void manager_hold(Manager *m, char **which, const char *reason)
{
    if (streq_ptr(*which, reason))
        return;
    if (str_set(which, reason) < 0)
        return;
    manager_hold_changed(m);
}

/* --- Spool full and well -------------------------------------------------------------------- */

void manager_look_at_size(Manager *m)
{
    SpoolStatus status;
    char size[PARSE_TEXT_MAX];
    auto_free char *reason = NULL;

    if (!m->document.plan || (!m->hold_full && !spool_is_full(m->spool)) ||
        spool_status(m->spool, &status, NULL) < 0)
        return;
    /* With nothing to deliver, waiting would free nothing. */
    if (!m->hold_full && status.rows > 0) {
        reason = str_printf("the spool is full (%s): fetching pauses until rows are delivered",
                            format_size_human(size, m->document.plan->spool_max_bytes));
        manager_hold(m, &m->hold_full, reason);
        crawl_event(LOG_LEVEL_WARNING, "spool-full", NULL, "%s",
                    reason ? reason : "the spool is full");
        return;
    }
    if (m->hold_full &&
        (status.rows == 0 ||
         (double)status.disk_bytes < SPOOL_RELEASE * (double)m->document.plan->spool_max_bytes)) {
        manager_hold(m, &m->hold_full, NULL);
        crawl_event(LOG_LEVEL_NOTICE, "spool-has-room", NULL,
                    "the spool has room again: fetching goes on");
    }
}

void manager_hold_for_spool(Manager *m, const Error *err)
{
    if (!m->hold_spool)
        crawl_event(LOG_LEVEL_ERROR, "spool-lost", &(CrawlEventSubject){.err = err},
                    "%s%s%s%s; fetching pauses, retrying in 5 s", error_text(err),
                    err->remedy ? " (remedy: " : "", err->remedy ? err->remedy : "",
                    err->remedy ? ")" : "");
    if (str_set(&m->spool_remedy, err->remedy) < 0)
        m->spool_remedy = NULL;
    manager_hold(m, &m->hold_spool, error_text(err));
}

void manager_spool_is_back(Manager *m)
{
    if (m->hold_spool)
        crawl_event(LOG_LEVEL_NOTICE, "spool-back", NULL,
                    "the spool can be written again: fetching goes on");
    manager_hold(m, &m->hold_spool, NULL);
}

static void on_lost(const Error *err, void *userdata)
{
    Manager *m = userdata;

    manager_hold_for_spool(m, err);
    fetcher_forget(m->fetcher);
}

static void on_committed(void *userdata)
{
    Manager *m = userdata;

    manager_spool_is_back(m);
    fetcher_committed(m->fetcher);
    manager_look_at_size(m);
    if (m->delivery)
        delivery_kick(m->delivery);
}

static void on_taken(const char *job, const SpoolAccepted *count, void *userdata)
{
    log_debug("job %s: %llu rows, %llu of them revisions", job, (unsigned long long)count->rows,
              (unsigned long long)count->revisions);
}

/* What may come for every symbol at every round. */
static void tell_again(Manager *m, const char *event, const CrawlEventSubject *subject,
                       const char *symbol, const char *message, const char *verdict)
{
    char more_text[64] = "";
    unsigned more;

    if (!repeat_is_to_be_said(&m->repeats, event, subject->job, now_boottime_usec(), &more)) {
        log_debug("job %s: %s: %s; %s", subject->job, symbol, message, verdict);
        return;
    }
    if (more > 0)
        (void)snprintf(more_text, sizeof(more_text), " (and %u times like it before)", more);
    crawl_event(LOG_LEVEL_WARNING, event, subject, "job %s: %s: %s; %s%s", subject->job, symbol,
                message, verdict, more_text);
}

static void on_refused(const char *job, const char *symbol, const char *reason, void *userdata)
{
    Manager *m = userdata;

    m->refused_now++;
    tell_again(m, "document-refused", &(CrawlEventSubject){.job = job}, symbol, reason,
               "kept for `agentctl crawl replay`");
}

/* --- Fetching ------------------------------------------------------------------------------- */

static const CrawlJob *crawl_job(const Manager *m, const FetchJob *job)
{
    return crawl_plan_job(m->document.plan, (size_t)(job - m->jobs));
}

static void on_document(const FetchDocument *document, Cursor *cursor, FetchResult *ret,
                        void *userdata)
{
    Manager *m = userdata;

    intake_document(m->intake, document, crawl_job(m, document->job)->live, cursor, ret);
    if (ret->verdict == FETCH_TAKEN && m->egress_message) {
        free(m->egress_message);
        m->egress_message = NULL;
    }
}

static void on_fetch_idle(void *userdata)
{
    Manager *m = userdata;

    if (m->options.once && m->phase == PHASE_RUNNING)
        once_over(m);
}

static void on_fetch_trouble(const FetchJob *job, const char *symbol, const char *message,
                             const char *remedy, void *userdata)
{
    Manager *m = userdata;

    if (m->options.once)
        once_given_up(m, job->name, symbol, message, remedy);
    tell_again(m, "fetch-failed",
               &(CrawlEventSubject){.job = job->name, .recipe = job->recipe->name}, symbol, message,
               "given up for this round");
}

/* --- Is it the way out, or the source? ------------------------------------------------------ */

static void on_egress_answer(HttpOp *op, const HttpResponse *response, const Error *err,
                             void *userdata)
{
    Manager *m = userdata;
    bool google_answers = !err;

    m->egress_op = http_op_free(m->egress_op);
    if (!google_answers)
        return; /* the network is down as a whole: no word about NAT */
    if (str_set(&m->egress_message,
                "market hosts cannot be connected to while Google's own network answers: Cloud NAT "
                "has no port left, or there is none for this subnet") < 0 ||
        str_set(&m->egress_remedy,
                "gcloud compute routers get-nat-mapping-info ROUTER --region=REGION shows the "
                "ports; raise --min-ports-per-vm, and set crawl.egress.nat_ports to the same") < 0)
        return;
    crawl_event(LOG_LEVEL_WARNING, "egress-shut", NULL, "%s (remedy: %s)", m->egress_message,
                m->egress_remedy);
}

static void on_egress_suspect(const char *host, void *userdata)
{
    Manager *m = userdata;
    HttpRequest request = {
        .url = EGRESS_PROBE_URL, .total_timeout_usec = 10 * SECOND, .max_body = 1U << 20};
    auto_error Error err = {0};

    if (m->egress_op || m->egress_message)
        return;
    if (http_start(m->http, &request, on_egress_answer, m, &m->egress_op, &err) < 0)
        log_debug("ignoring: %s", error_text(&err));
}

/* --- Delivery ------------------------------------------------------------------------------- */

static void on_delivered(const SpoolBatch *batch, void *userdata)
{
    Manager *m = userdata;

    /* Every few minutes, for ever: counted in the status, not told. */
    log_debug("delivered batch %s: %llu rows to %s", batch->id, (unsigned long long)batch->rows,
              sink_table_suffix((SinkTable)batch->table));
    if (m->hold_full)
        spool_tidy(m->spool, /* shrink= */ true);
    manager_look_at_size(m);
}

static void on_delivery_idle(void *userdata)
{
    Manager *m = userdata;
    auto_error Error err = {0};

    if (m->sink->ops->flush && m->sink->ops->flush(m->sink, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "retrying with the next batch");
    spool_tidy(m->spool, m->hold_full != NULL);
    if (m->phase == PHASE_DRAINING) {
        (void)sd_event_exit(m->event, once_verdict(m));
    }
}

void manager_drain_until_stuck(Manager *m, uint64_t budget_usec)
{
    (void)timer_set(m->timer, delivery_is_stuck(m->delivery, MANAGER_DRAIN_USEC) ? 0 : budget_usec,
                    0);
}

static void on_delivery_trouble(int table, const Error *err, uint64_t wait_usec, void *userdata)
{
    Manager *m = userdata;
    char span[TIME_SPAN_MAX], verdict[TIME_SPAN_MAX + 32];

    if (!err) {
        crawl_event(LOG_LEVEL_NOTICE, "delivery-back", NULL, "delivery goes on");
        return;
    }
    if (m->options.once && (wait_usec == 0 || wait_usec >= ONCE_PATIENCE_USEC)) {
        once_fail(m, err);
        return;
    }
    (void)snprintf(verdict, sizeof(verdict), "looking again in %s",
                   time_format_span(span, wait_usec));
    crawl_event(LOG_LEVEL_WARNING, "delivery-failed", &(CrawlEventSubject){.err = err},
                "%s%s%s%s; %s", error_text(err), err->remedy ? " (remedy: " : "",
                err->remedy ? err->remedy : "", err->remedy ? ")" : "",
                wait_usec ? verdict : "kept in the spool");
    if (m->phase == PHASE_DRAINING && !m->options.once)
        manager_drain_until_stuck(m, timer_left_usec(m->timer));
}

static void on_other_writer(const char *instance, void *userdata)
{
    Manager *m = userdata;
    auto_free char *reason = NULL;

    if (!instance) {
        crawl_event(LOG_LEVEL_NOTICE, "other-writer-gone", NULL,
                    "the other writer is gone: fetching goes on");
        manager_hold(m, &m->hold_writer, NULL);
        return;
    }
    reason = str_printf("instance %s began before us and loads the same jobs' rows", instance);
    crawl_event(LOG_LEVEL_WARNING, "other-writer", NULL, "%s; fetching pauses until it is gone",
                reason ? reason : "another writer");
    manager_hold(m, &m->hold_writer, reason);
}

/* --- What the manager gives them ------------------------------------------------------------- */

const IntakeHandlers manager_intake_handlers = {
    .taken = on_taken,
    .refused = on_refused,
    .lost = on_lost,
    .committed = on_committed,
};

const FetchHandlers manager_fetch_handlers = {
    .document = on_document,
    .idle = on_fetch_idle,
    .egress_suspect = on_egress_suspect,
    .trouble = on_fetch_trouble,
};

const DeliveryHandlers manager_delivery_handlers = {
    .delivered = on_delivered,
    .idle = on_delivery_idle,
    .trouble = on_delivery_trouble,
    .other_writer = on_other_writer,
};
