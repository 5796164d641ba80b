/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "crawler/crawlerd/manager-private.h"

#include <errno.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/daemon.h"

#define TEXT_COLD           "cold-start" /* "pending" until it is through */
#define IDENTITY_BASE_USEC  (5 * SECOND)
#define IDENTITY_CAP_USEC   MINUTE
#define IDENTITY_FLOOR_USEC SECOND
#define SPOOL_RELEASE       (9.0 / 10) /* of its size: fetching goes on again */
#define EGRESS_PROBE_URL    "https://bigquery.googleapis.com/discovery/v1/apis/bigquery/v2/rest"
#define ONCE_PATIENCE_USEC  MINUTE /* a pause that is longer needs a person, or a daemon */
#define DISK_AGAIN_USEC     (5 * SECOND)

static void begin(Manager *m);

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

static void set_hold(Manager *m, char **which, const char *reason)
{
    if (streq_ptr(*which, reason))
        return;
    if (str_set(which, reason) < 0)
        return;
    manager_hold_changed(m);
}

/* --- Spool full and well -------------------------------------------------------------------- */

static void look_at_size(Manager *m)
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
        set_hold(m, &m->hold_full, reason);
        crawl_event(LOG_LEVEL_WARNING, "spool-full", NULL, "%s",
                    reason ? reason : "the spool is full");
        return;
    }
    if (m->hold_full &&
        (status.rows == 0 ||
         (double)status.disk_bytes < SPOOL_RELEASE * (double)m->document.plan->spool_max_bytes)) {
        set_hold(m, &m->hold_full, NULL);
        crawl_event(LOG_LEVEL_NOTICE, "spool-has-room", NULL,
                    "the spool has room again: fetching goes on");
    }
}

/* What an administrator or a cleanup mends without us. */
static bool disk_may_recover(int code)
{
    return code == -ENOSPC || code == -EDQUOT || code == -EROFS || code == -EIO;
}

static void hold_for_spool(Manager *m, const Error *err)
{
    if (!m->hold_spool)
        crawl_event(LOG_LEVEL_ERROR, "spool-lost", &(CrawlEventSubject){.err = err},
                    "%s%s%s%s; fetching pauses, retrying in 5 s", error_text(err),
                    err->remedy ? " (remedy: " : "", err->remedy ? err->remedy : "",
                    err->remedy ? ")" : "");
    if (str_set(&m->spool_remedy, err->remedy) < 0)
        m->spool_remedy = NULL;
    set_hold(m, &m->hold_spool, error_text(err));
}

static void spool_is_back(Manager *m)
{
    if (m->hold_spool)
        crawl_event(LOG_LEVEL_NOTICE, "spool-back", NULL,
                    "the spool can be written again: fetching goes on");
    set_hold(m, &m->hold_spool, NULL);
}

static void on_lost(const Error *err, void *userdata)
{
    Manager *m = userdata;

    hold_for_spool(m, err);
    fetcher_forget(m->fetcher);
}

static void on_committed(void *userdata)
{
    Manager *m = userdata;

    spool_is_back(m);
    fetcher_committed(m->fetcher);
    look_at_size(m);
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
    look_at_size(m);
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

/* A stop does not wait for what cannot move before the time is up. */
static void drain_until_stuck(Manager *m, uint64_t budget_usec)
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
        drain_until_stuck(m, timer_left_usec(m->timer));
}

static void on_other_writer(const char *instance, void *userdata)
{
    Manager *m = userdata;
    auto_free char *reason = NULL;

    if (!instance) {
        crawl_event(LOG_LEVEL_NOTICE, "other-writer-gone", NULL,
                    "the other writer is gone: fetching goes on");
        set_hold(m, &m->hold_writer, NULL);
        return;
    }
    reason = str_printf("instance %s began before us and loads the same jobs' rows", instance);
    crawl_event(LOG_LEVEL_WARNING, "other-writer", NULL, "%s; fetching pauses until it is gone",
                reason ? reason : "another writer");
    set_hold(m, &m->hold_writer, reason);
}

/* --- The document in force ------------------------------------------------------------------ */

int manager_reload(Manager *m, Error *err)
{
    int r;

    if (!m->spool)
        return error_set(err, -EAGAIN, ERROR_TEMPORARY, "the spool is not open yet: %s",
                         m->hold_spool ? m->hold_spool : "");
    r = manager_load_document(m, /* starting= */ false, err);
    if (r < 0) {
        manager_set_refused(m, err);
        return r;
    }
    free(m->refused_message);
    m->refused_message = NULL;
    if (r > 0)
        begin(m);
    return 0;
}

/* --- Beginning ------------------------------------------------------------------------------ */

static const DeliveryHandlers delivery_handlers = {
    .delivered = on_delivered,
    .idle = on_delivery_idle,
    .trouble = on_delivery_trouble,
    .other_writer = on_other_writer,
};

static void begin_fetching(Manager *m)
{
    const CrawlPlan *plan = m->document.plan;
    FetchConfig config = {.jobs = m->jobs,
                          .n_jobs = plan->jobs.n,
                          .contact = plan->contact,
                          .min_delay_usec = plan->egress.min_delay_usec,
                          .connections = (unsigned)plan->egress.connections_per_host,
                          .nat_ports = (unsigned)plan->egress.nat_ports,
                          .daily_bytes = plan->egress.daily_bytes,
                          .once = m->options.once};
    DeliveryHandlers handlers = delivery_handlers;
    ErranderContext context = {
        .event = m->event, .http = m->http, .cloud = m->cloud, .sink = m->sink};
    auto_error Error err = {0};

    m->phase = PHASE_RUNNING;
    error_done(&m->waits);
    set_hold(m, &m->hold_cold, NULL);
    handlers.userdata = m;
    if (delivery_new(&context, m->spool, &handlers, &m->delivery, &err) < 0 ||
        fetcher_configure(m->fetcher, &config, &err) < 0) {
        log_failure(LOG_LEVEL_ERROR, NULL, &err, "giving up");
        (void)sd_event_exit(m->event, EXIT_FAILURE);
        return;
    }
    look_at_size(m);
    manager_hold_changed(m);
    daemon_status("%zu jobs, sink %s", plan->jobs.n, m->sink->ops->name);
}

static void on_cold_done(uint64_t keys, void *userdata)
{
    Manager *m = userdata;
    auto_error Error err = {0};

    m->coldstart = coldstart_free(m->coldstart);
    log_info("cold start: the tables have %llu rows of the look-back window",
             (unsigned long long)keys);
    if (spool_text_save(m->spool, TEXT_COLD, NULL, &err) < 0 || spool_sync(m->spool, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "the next start learns it again");
    begin_fetching(m);
}

static void waits_for(Manager *m, const Error *err)
{
    error_done(&m->waits);
    (void)error_copy(&m->waits, err);
    set_hold(m, &m->hold_cold, error_text(err));
}

static void on_cold_waits(const char *what, const Error *err, void *userdata)
{
    Manager *m = userdata;
    auto_error Error why = {0};

    if (err)
        (void)error_copy(&why, err);
    else
        (void)error_set(&why, -EAGAIN, ERROR_TEMPORARY, "%s", what);
    (void)error_prefix(&why, why.code, "cold start");
    waits_for(m, &why);
    if (m->options.once && why.kind != ERROR_TEMPORARY)
        once_fail(m, &why);
    else
        log_failure(err ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, NULL, &why,
                    err ? "asking again" : NULL);
}

/* An empty spool knows nothing of what its forerunner delivered. */
static int wants_cold_start(Manager *m, Error *err)
{
    auto_free char *pending = NULL;
    int r;

    if (m->sink->ops->is_local)
        return 0;
    r = spool_text_load(m->spool, TEXT_COLD, &pending, err);
    if (r != 0)
        return r;
    r = spool_is_new(m->spool, err);
    if (r <= 0)
        return r;
    r = spool_text_save(m->spool, TEXT_COLD, "pending", err);
    if (r >= 0)
        r = spool_sync(m->spool, err);
    return r < 0 ? r : 1;
}

static int begin_with_sink(Manager *m, Error *err)
{
    ColdstartHandlers handlers = {.done = on_cold_done, .waits = on_cold_waits, .userdata = m};
    SinkIdentity identity = {.started_usec = m->started_usec};
    ErranderContext context = {.event = m->event, .http = m->http, .cloud = m->cloud};
    const CloudIdentity *cloud = cloud_identity_peek(m->cloud);
    const char *instance = m->document.instance ? m->document.instance
                           : cloud              ? cloud->instance_id
                                                : "local";
    const char *project = m->document.project ? m->document.project : cloud ? cloud->project : NULL;
    uint64_t lookback[SPOOL_TABLES];
    int r;

    sink_label(identity.instance, instance);
    r = crawl_plan_jobset(m->document.plan, identity.jobset);
    if (r < 0)
        return error_oom(err);
    m->sink = sink_free(m->sink); /* of a beginning that failed */
    r = sink_new(&m->document.plan->sink, m->options.state_dir, project, &identity, &m->sink, err);
    if (r < 0)
        return r;
    context.sink = m->sink;
    r = wants_cold_start(m, err);
    if (r < 0)
        return r;
    if (r == 0) {
        begin_fetching(m);
        return 0;
    }
    m->phase = PHASE_COLD;
    log_info("nothing is known here: learning what the tables have before anything is fetched");
    for (int i = 0; i < SPOOL_TABLES; i++) {
        lookback[i] = crawl_plan_lookback_usec(m->document.plan, (SinkTable)i);
        lookback[i] += lookback[i] ? DAY : 0;
    }
    return coldstart_new(&context, m->spool, m->sources, lookback, &handlers, &m->coldstart, err);
}

/* The disk is at fault, or the plan, and then nothing helps but another one. */
static void cannot_begin(Manager *m, const Error *err)
{
    if (disk_may_recover(err->code) && !m->options.once) {
        hold_for_spool(m, err);
        (void)timer_set(m->again, DISK_AGAIN_USEC, SECOND);
        return;
    }
    manager_set_refused(m, err);
    if (m->options.once)
        once_fail(m, err);
    else
        crawl_event(LOG_LEVEL_ERROR, "crawl-refused", &(CrawlEventSubject){.err = err},
                    "%s; crawling waits for another plan", error_text(err));
}

static void identity_failed(Manager *m, Error *err)
{
    bool said = m->waits.code < 0;

    if (!err->remedy)
        (void)error_remedy(err, err->code,
                           "agentctl doctor shows what stands between this VM and its metadata "
                           "server; outside Google Cloud take the sink `sqlite` or `ndjson`");
    if (!said)
        log_failure(LOG_LEVEL_WARNING, NULL, err, "asking again until it answers");
    waits_for(m, err);
    (void)timer_set(m->again, backoff_next(&m->identity_backoff, err->retry_after_usec), SECOND);
}

static void on_identity(const CloudSnapshot *snapshot, const Error *err, void *userdata)
{
    Manager *m = userdata;
    auto_error Error failure = {0};

    if (err)
        (void)error_copy(&failure, err);
    m->identity_op = cloud_op_free(m->identity_op);
    if (failure.code < 0) {
        identity_failed(m, &failure);
        return;
    }
    if (m->waits.code < 0)
        log_notice("the metadata server answers: going on");
    error_done(&m->waits);
    set_hold(m, &m->hold_cold, NULL);
    backoff_reset(&m->identity_backoff);
    if (begin_with_sink(m, &failure) < 0)
        cannot_begin(m, &failure);
}

/* With a document: who are we, what is there, then fetch. */
static void begin(Manager *m)
{
    const SinkBigqueryPlan *bigquery;
    auto_error Error err = {0};
    int r = 0;

    if (m->phase == PHASE_DRAINING)
        return;
    if (!m->document.plan || m->document.plan->jobs.n == 0) {
        daemon_status("no jobs");
        if (m->options.once)
            (void)sd_event_exit(m->event, EXIT_SUCCESS);
        return;
    }
    bigquery = m->document.plan->sink.bigquery;
    if (bigquery && (!m->document.instance || !(bigquery->project || m->document.project)) &&
        !cloud_identity_peek(m->cloud)) {
        m->phase = PHASE_IDENTITY;
        r = cloud_read(m->cloud, on_identity, m, &m->identity_op, &err);
    } else {
        r = begin_with_sink(m, &err);
    }
    if (r < 0)
        cannot_begin(m, &err);
}

/* --- Ending --------------------------------------------------------------------------------- */

static void on_time_is_up(void *userdata)
{
    Manager *m = userdata;
    SpoolStatus status = {0};

    if (spool_sync(m->spool, NULL) >= 0 && spool_status(m->spool, &status, NULL) >= 0 &&
        status.rows > 0)
        log_warning("time is up: %llu rows stay in the spool and are sent at the next start",
                    (unsigned long long)status.rows);
    if (m->options.once)
        once_time_is_up(m);
    else
        (void)sd_event_exit(m->event, EXIT_SUCCESS);
}

void manager_stop(Manager *m)
{
    auto_error Error err = {0};

    if (m->phase == PHASE_DRAINING && !m->options.once)
        return;
    daemon_stopping("sending what is spooled");
    m->phase = PHASE_DRAINING;
    if (m->options.once)
        once_interrupted(m);
    manager_hold_changed(m);
    m->coldstart = coldstart_free(m->coldstart);
    if (m->intake && spool_sync(m->spool, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "what was not written is fetched again");
    if (!m->delivery) {
        (void)sd_event_exit(m->event, m->spool ? once_verdict(m) : EXIT_SUCCESS);
        return;
    }
    log_info("stopping: sending what is spooled");
    delivery_flush(m->delivery);
    drain_until_stuck(m, MANAGER_DRAIN_USEC);
}

/* --- The object ----------------------------------------------------------------------------- */

static int open_spool(Manager *m, Error *err)
{
    SpoolLimits limits = SPOOL_LIMITS_DEFAULT;
    auto_free char *aside = NULL;
    SpoolStatus status = {0};
    int r;

    r = dir_create(m->options.state_dir, 0700, err);
    if (r < 0)
        return r;
    free(m->spool_path);
    m->spool_path = path_join(m->options.state_dir, "spool.db");
    if (!m->spool_path)
        return error_oom(err);
    r = spool_open(m->spool_path, &limits, &m->spool, &aside, err);
    if (r < 0)
        return r;
    if (aside) {
        crawl_event(LOG_LEVEL_ERROR, "spool-rebuilt", NULL,
                    "the spool could not be read; it is kept as %s, and a new one is begun: what "
                    "was delivered is asked of the sink, the rest is fetched again",
                    aside);
        m->aside_message = str_printf("a damaged spool was moved to %s", aside);
    }
    r = spool_status(m->spool, &status, err);
    m->dead_before = status.dead;
    return r;
}

/* The spool, and what works on it: all or nothing. */
static int open_parts(Manager *m, Error *err)
{
    IntakeHandlers intake = {.taken = on_taken,
                             .refused = on_refused,
                             .lost = on_lost,
                             .committed = on_committed,
                             .userdata = m};
    FetchHandlers fetch = {.document = on_document,
                           .idle = on_fetch_idle,
                           .egress_suspect = on_egress_suspect,
                           .trouble = on_fetch_trouble,
                           .userdata = m};
    FetchMemory memory;
    int r;

    r = open_spool(m, err);
    if (r >= 0)
        r = intake_new(m->event, m->spool, &intake, &m->intake, err);
    if (r >= 0) {
        memory = spool_fetch_memory(m->spool);
        r = fetcher_new(m->event, m->http, &memory, &fetch, &m->fetcher, err);
    }
    if (r < 0) {
        m->intake = intake_free(m->intake);
        m->spool = spool_close(m->spool);
    }
    return r;
}

static int load_first_document(Manager *m, Error *err)
{
    int r = manager_load_document(m, /* starting= */ true, err);

    if (r < 0 && !m->options.once && !m->options.plan_file) {
        log_failure(LOG_LEVEL_ERROR, NULL, err, "waiting for another one");
        manager_set_refused(m, err);
        error_done(err);
        r = 0;
    }
    return r;
}

/* Opens the spool and reads the document; a disk that takes nothing now is waited for. */
static int open_up(Manager *m, Error *err)
{
    int r = open_parts(m, err);

    if (r < 0 && !m->options.once && disk_may_recover(r)) {
        hold_for_spool(m, err);
        error_done(err);
        (void)timer_set(m->again, DISK_AGAIN_USEC, SECOND);
        return 0;
    }
    if (r < 0)
        return r;
    spool_is_back(m);
    return load_first_document(m, err);
}

static void on_again(void *userdata)
{
    Manager *m = userdata;
    auto_error Error err = {0};

    if (!m->spool && open_up(m, &err) < 0) {
        log_failure(LOG_LEVEL_ERROR, NULL, &err, "giving up");
        (void)sd_event_exit(m->event, EXIT_FAILURE);
    } else if (m->spool) {
        begin(m);
    }
}

static int make_parts(Manager *m, Error *err)
{
    CloudConfig cloud = {.event = m->event, .root = m->options.root};
    int r;

    r = http_client_new(m->event, "mervis-agent/" PACKAGE_VERSION, &m->http, err);
    cloud.http = m->http;
    if (r >= 0)
        r = cloud_new(&cloud, &m->cloud, err);
    if (r >= 0 && (timer_new(m->event, on_time_is_up, m, &m->timer) < 0 ||
                   timer_new(m->event, on_again, m, &m->again) < 0))
        r = error_oom(err);
    return r;
}

int manager_new(sd_event *event, const ManagerOptions *options, Manager **ret, Error *err)
{
    auto_(manager_freep) Manager *m = calloc(1, sizeof(*m));
    int r;

    if (!m)
        return error_oom(err);
    m->event = sd_event_ref(event);
    m->options = *options;
    m->started_usec = now_realtime_usec();
    m->identity_backoff = (Backoff){.base_usec = IDENTITY_BASE_USEC,
                                    .cap_usec = IDENTITY_CAP_USEC,
                                    .floor_usec = IDENTITY_FLOOR_USEC};
    m->document_path = options->plan_file ? strdup(options->plan_file)
                                          : path_join(options->runtime_dir, MANAGER_DOCUMENT_NAME);
    if (!m->document_path)
        return error_oom(err);
    r = make_parts(m, err);
    if (r >= 0)
        r = open_up(m, err);
    if (r < 0)
        return r;
    if (options->bus) {
        r = manager_serve_bus(m, err);
        if (r < 0) {
            log_failure(LOG_LEVEL_WARNING, NULL, err, "going on without D-Bus");
            error_done(err);
        }
    }
    if (options->once && once_begin(m) < 0)
        return error_oom(err);
    if (m->spool)
        begin(m);
    *ret = take_ptr(m);
    return 0;
}

Manager *manager_free(Manager *m)
{
    if (!m)
        return NULL;
    manager_forget_document(m);
    m->fetcher = fetcher_free(m->fetcher);
    (void)intake_free(m->intake);
    (void)http_op_free(m->egress_op);
    (void)cloud_free(m->cloud);
    (void)http_client_free(m->http);
    (void)spool_close(m->spool);
    (void)timer_free(m->timer);
    (void)timer_free(m->again);
    (void)timer_free(m->patience);
    crawl_event_listen(NULL, NULL);
    (void)sd_event_source_disable_unref(m->turn);
    (void)sd_bus_flush_close_unref(m->bus);
    (void)sd_event_unref(m->event);
    free(m->spool_path);
    free(m->document_path);
    free(m->hold_spool);
    free(m->spool_remedy);
    free(m->hold_full);
    free(m->hold_cold);
    free(m->hold_writer);
    free(m->refused_message);
    free(m->aside_message);
    free(m->egress_message);
    free(m->egress_remedy);
    error_done(&m->waits);
    error_done(&m->given_up);
    error_done(&m->failure);
    free(m);
    return NULL;
}
