/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "crawler/crawlerd/manager-private.h"

#include <errno.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/str.h"
#include "agent/io/daemon.h"

#define TEXT_COLD           "cold-start" /* "pending" until it is through */
#define IDENTITY_BASE_USEC  (5 * SECOND)
#define IDENTITY_CAP_USEC   MINUTE
#define IDENTITY_FLOOR_USEC SECOND
#define DISK_AGAIN_USEC     (5 * SECOND)

static void begin(Manager *m);

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
    DeliveryHandlers handlers = manager_delivery_handlers;
    ErranderContext context = {
        .event = m->event, .http = m->http, .cloud = m->cloud, .sink = m->sink};
    auto_error Error err = {0};

    m->phase = PHASE_RUNNING;
    error_done(&m->waits);
    manager_hold(m, &m->hold_cold, NULL);
    handlers.userdata = m;
    if (delivery_new(&context, m->spool, &handlers, &m->delivery, &err) < 0 ||
        fetcher_configure(m->fetcher, &config, &err) < 0) {
        log_failure(LOG_LEVEL_ERROR, NULL, &err, "giving up");
        (void)sd_event_exit(m->event, EXIT_FAILURE);
        return;
    }
    manager_look_at_size(m);
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
    manager_hold(m, &m->hold_cold, error_text(err));
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

/* What an administrator or a cleanup mends without us. */
static bool disk_may_recover(int code)
{
    return code == -ENOSPC || code == -EDQUOT || code == -EROFS || code == -EIO;
}

/* The disk is at fault, or the plan, and then nothing helps but another one. */
static void cannot_begin(Manager *m, const Error *err)
{
    if (disk_may_recover(err->code) && !m->options.once) {
        manager_hold_for_spool(m, err);
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
    manager_hold(m, &m->hold_cold, NULL);
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
    manager_drain_until_stuck(m, MANAGER_DRAIN_USEC);
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
        m->aside_message = str_printf("a spool that could not be read was moved to %s", aside);
    }
    r = spool_status(m->spool, &status, err);
    m->dead_before = status.dead;
    return r;
}

/* The spool, and what works on it: all or nothing. */
static int open_parts(Manager *m, Error *err)
{
    IntakeHandlers intake = manager_intake_handlers;
    FetchHandlers fetch = manager_fetch_handlers;
    FetchMemory memory;
    int r;

    intake.userdata = fetch.userdata = m;
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
        manager_hold_for_spool(m, err);
        error_done(err);
        (void)timer_set(m->again, DISK_AGAIN_USEC, SECOND);
        return 0;
    }
    if (r < 0)
        return r;
    manager_spool_is_back(m);
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
