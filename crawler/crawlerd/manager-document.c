/* SPDX-License-Identifier: Apache-2.0 */

/* What is to be crawled: the plan's crawl part as agentd left it, else the last one accepted. */

#include <errno.h>
#include <string.h>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/str.h"
#include "agent/io/crypto.h"
#include "crawler/crawlerd/manager-private.h"

#define TEXT_DOCUMENT "document" /* the last accepted one */

void manager_set_refused(Manager *m, const Error *err)
{
    if (str_set(&m->refused_message, error_text(err)) < 0)
        m->refused_message = NULL;
}

static void drop_secrets(Manager *m)
{
    STRV_FOREACH (secret, m->secrets)
        cleanse(*secret, strlen(*secret));
    m->secrets = strv_free(m->secrets);
}

void manager_forget_document(Manager *m)
{
    const FetchConfig none = {0};
    auto_error Error err = {0};

    /* The fetcher borrows the jobs. */
    if (m->fetcher && fetcher_configure(m->fetcher, &none, &err) < 0)
        m->fetcher = fetcher_free(m->fetcher);
    m->coldstart = coldstart_free(m->coldstart);
    m->delivery = delivery_free(m->delivery);
    m->sink = sink_free(m->sink);
    m->identity_op = cloud_op_free(m->identity_op);
    free(m->jobs);
    m->jobs = NULL;
    free(m->sources);
    m->sources = NULL;
    drop_secrets(m);
    crawl_document_done(&m->document);
    m->phase = PHASE_IDLE;
}

/* The value of a plan's secret, as agentd left it: a file of our runtime directory. */
static const char *read_secret(Manager *m, const char *name)
{
    auto_free char *dir = path_join(m->options.runtime_dir, "secrets");
    auto_free char *path = dir ? path_join(dir, name) : NULL;
    auto_secret_buf Buf value = BUF_INIT(CLOUD_SECRET_MAX);
    auto_error Error err = {0};

    if (!path || file_read(path, value.max, &value, &err) < 0 ||
        strv_push(&m->secrets, str_strip(value.data ? value.data : (char[]){""})) < 0) {
        log_warning("secret %s is not there yet: its jobs go without", name);
        return NULL;
    }
    return m->secrets[strv_length(m->secrets) - 1];
}

static int make_jobs(Manager *m, Error *err)
{
    const CrawlPlan *plan = m->document.plan;
    size_t n_sources = 0;

    m->jobs = calloc(MAX_OF(plan->jobs.n, (size_t)1), sizeof(*m->jobs));
    m->sources = calloc(plan->jobs.n + 1, sizeof(*m->sources));
    if (!m->jobs || !m->sources)
        return error_oom(err);
    for (size_t i = 0; i < plan->jobs.n; i++) {
        const CrawlJob *job = crawl_plan_job(plan, i);
        bool known = false;

        m->jobs[i] = (FetchJob){.name = job->name,
                                .recipe = job->compiled,
                                .symbols = job->symbols,
                                .n_symbols = strv_length(job->symbols),
                                .interval = job->interval,
                                .every_usec = job->every_usec,
                                .backfill_usec = job->backfill_usec,
                                .calendar = job->hours,
                                .acknowledged = job->terms != NULL};
        if (job->secret)
            m->jobs[i].secret = read_secret(m, job->secret);
        for (size_t k = 0; k < n_sources; k++)
            known = known || streq(m->sources[k], job->compiled->name);
        if (!known)
            m->sources[n_sources++] = job->compiled->name;
    }
    return 0;
}

static void apply_limits(Manager *m)
{
    SpoolLimits limits = SPOOL_LIMITS_DEFAULT;
    const SinkBigqueryPlan *bigquery = m->document.plan->sink.bigquery;

    limits.max_bytes = m->document.plan->spool_max_bytes;
    if (bigquery) {
        limits.batch_rows = bigquery->max_rows;
        limits.batch_bytes = bigquery->max_bytes;
    }
    spool_set_limits(m->spool, &limits);
}

static int read_document(Manager *m, const char *text, size_t size, Error *err)
{
    auto_crawl_document CrawlDocument document = {0};
    auto_field_errors FieldErrors errors = {0};
    int r;

    r = crawl_document_read(text, size, &document, &errors, err);
    /* The first is the error's own text. */
    for (size_t i = 1; i < errors.n; i++)
        log_error("%s: %s", errors.items[i].path, errors.items[i].message);
    if (r < 0)
        return r;
    r = http_client_set_endpoints(m->http, document.endpoints, document.n_endpoints, err);
    if (r < 0)
        return r;

    manager_forget_document(m);
    m->document = document;
    m->withdrawn = false;
    document = (CrawlDocument){0};
    apply_limits(m);
    return make_jobs(m, err);
}

static int plan_fault(const Manager *m, int r, Error *err)
{
    if (!m->options.plan_file)
        return r;
    (void)error_prefix(err, r, "%s", m->options.plan_file);
    return error_remedy(err, r, "agentctl plan validate %s shows the places", m->options.plan_file);
}

/* Taken back while we run: no jobs. What is spooled still goes where it was to go. */
static void withdraw(Manager *m)
{
    const FetchConfig none = {0};
    auto_error Error err = {0};

    m->coldstart = coldstart_free(m->coldstart);
    if (fetcher_configure(m->fetcher, &none, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "ignoring");
    m->phase = PHASE_IDLE;
    m->withdrawn = true;
    if (m->delivery)
        delivery_flush(m->delivery);
    log_info("the plan has no crawl part any more: nothing is fetched");
}

/* A document that says the same again may come with other values of its secrets. */
static bool is_unchanged(Manager *m, const char *text)
{
    auto_free char *kept = NULL;

    if (m->phase != PHASE_RUNNING || m->options.plan_file ||
        spool_text_load(m->spool, TEXT_DOCUMENT, &kept, NULL) <= 0 || !streq(kept, text))
        return false;
    drop_secrets(m);
    for (size_t i = 0; i < m->document.plan->jobs.n; i++) {
        const CrawlJob *job = crawl_plan_job(m->document.plan, i);

        m->jobs[i].secret = job->secret ? read_secret(m, job->secret) : NULL;
    }
    return true;
}

/* The file, else the last accepted one, else none. 1 read, 0 none or unchanged. */
int manager_load_document(Manager *m, bool starting, Error *err)
{
    auto_buf Buf text = BUF_INIT(CRAWL_DOCUMENT_MAX);
    auto_free char *kept = NULL;
    int r;

    r = file_read(m->document_path, text.max, &text, err);
    if (r >= 0 && is_unchanged(m, buf_str(&text)))
        return 0;
    if (r >= 0) {
        r = read_document(m, buf_str(&text), text.size, err);
        if (r < 0)
            return plan_fault(m, r, err);
        r = spool_text_save(m->spool, TEXT_DOCUMENT, buf_str(&text), err);
        if (r >= 0)
            r = spool_sync(m->spool, err);
        /* It is in force all the same. */
        if (r < 0)
            log_failure(LOG_LEVEL_WARNING, NULL, err, "a start without agentd would not know it");
        error_done(err);
        return 1;
    }
    if (r == -ENOENT && m->options.plan_file)
        return error_remedy(err, r,
                            "name a file with a plan, or its `crawl` part; `agentctl plan schema` "
                            "tells what is in one");
    if (r != -ENOENT)
        return r;
    error_done(err);
    if (!starting) {
        withdraw(m);
        r = spool_text_save(m->spool, TEXT_DOCUMENT, NULL, err);
        return r < 0 ? r : spool_sync(m->spool, err);
    }
    r = spool_text_load(m->spool, TEXT_DOCUMENT, &kept, err);
    if (r <= 0)
        return r;
    log_info("no %s yet: going on with the last accepted one", m->document_path);
    r = read_document(m, kept, strlen(kept), err);
    return r < 0 ? r : 1;
}
