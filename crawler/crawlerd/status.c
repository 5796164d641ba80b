/* SPDX-License-Identifier: Apache-2.0 */

/* What Describe() says (agent/io/status-keys.h), and the verbs that only ask. */

#include "config.h"

#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/json.h"
#include "crawler/crawlerd/manager-private.h"

#define BACKFILLS_MAX 16
#define GIB           1073741824.0
#define HOURS_A_DAY   24

static json_t *when(uint64_t realtime_usec)
{
    char text[TIME_RFC3339_MAX];

    return realtime_usec ? json_string(time_format_rfc3339(text, (int64_t)realtime_usec))
                         : json_null();
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *describe_job(Manager *m, size_t i)
{
    auto_free char *counter = str_printf("rows:%s", m->jobs[i].name);
    FetchJobStatus status = {.state = "waiting"};
    uint64_t rows = 0;

    if (m->phase == PHASE_RUNNING || m->phase == PHASE_DRAINING)
        fetcher_job_status(m->fetcher, i, &status);
    if (!counter || spool_counter(m->spool, counter, &rows, NULL) < 0)
        rows = 0;
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
                     m->jobs[i].name, "recipe", m->jobs[i].recipe->name, "state", status.state,
                     "symbols", number(m->jobs[i].n_symbols), "rows", number(rows), "requests",
                     number(status.requests), "failures", number(status.failures), "bytes_in",
                     number(status.bytes_in), "last_fetch_at", when(status.last_fetch_usec),
                     "next_fetch_at", when(status.next_fetch_usec), "message",
                     text_or_null(status.message), "remedy", text_or_null(status.remedy));
}

static json_t *describe_jobs(Manager *m, bool *ret_trouble)
{
    json_auto_t *jobs = json_array();

    for (size_t i = 0; m->jobs && !m->withdrawn && i < m->document.plan->jobs.n; i++) {
        json_t *job = describe_job(m, i);

        *ret_trouble = *ret_trouble || json_is_string(json_object_get(job, "message"));
        if (json_array_append_new(jobs, job) < 0)
            return NULL;
    }
    return take_ptr(jobs);
}

static json_t *describe_backfills(Manager *m)
{
    FetchBackfillStatus items[BACKFILLS_MAX];
    size_t n = m->fetcher ? fetcher_backfills(m->fetcher, items, BACKFILLS_MAX) : 0;
    json_auto_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(
                list, json_pack("{s:s, s:o, s:o, s:o, s:o}", "job", items[i].job, "from",
                                when((uint64_t)MAX_OF(items[i].from_usec, INT64_C(1))), "to",
                                when((uint64_t)MAX_OF(items[i].to_usec, INT64_C(1))), "symbols",
                                number(items[i].symbols), "symbols_done",
                                number(items[i].symbols_done))) < 0)
            return NULL;
    return take_ptr(list);
}

static json_t *describe_hosts(Manager *m)
{
    json_auto_t *hosts = json_array();
    uint64_t now = now_realtime_usec();
    const FetchHost *host;

    for (size_t i = 0; m->fetcher && (host = fetcher_host(m->fetcher, i)); i++) {
        bool open = fetch_host_is_open(host, now);

        if (json_array_append_new(
                hosts,
                json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o}", "host",
                          host->name, "requests", number(host->requests), "refusals",
                          number(host->refusals), "bytes_in", number(host->bytes_in), "bytes_out",
                          number(host->bytes_out), "connections", number(host->connections),
                          "connections_120s", number(fetch_host_recent_connections(host, now)),
                          "breaker_open", (int)open, "retry_at", when(open ? host->until_usec : 0),
                          "waits", text_or_null(open ? NULL : host->waits), "message",
                          text_or_null(open ? host->message : NULL), "remedy", json_null())) < 0)
            return NULL;
    }
    return take_ptr(hosts);
}

static json_t *describe_spool(Manager *m, const SpoolStatus *status)
{
    uint64_t max = m->document.plan ? m->document.plan->spool_max_bytes : 0;

    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "rows", number(status->rows), "bytes",
                     number(status->disk_bytes), "max_bytes", number(max), "oldest_at",
                     when((uint64_t)status->oldest_usec), "refused", number(status->refused));
}

static json_t *describe_delivery(Manager *m, const SpoolStatus *status, bool *ret_trouble)
{
    DeliveryStatus delivery = {0};

    if (m->delivery)
        delivery_status(m->delivery, &delivery);
    if (status->batches_wrong > 0 && !delivery.message) {
        delivery.message =
            "a batch was set aside: the sink's count contradicts ours, or it is damaged; its rows "
            "stay in the spool";
        delivery.remedy = "journalctl -u crawlerd says which, and what to compare";
    }
    *ret_trouble = *ret_trouble || delivery.message;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "sink",
                     text_or_null(m->sink ? m->sink->ops->name : NULL), "rows_delivered",
                     number(status->rows_delivered), "last_delivery_at",
                     when((uint64_t)status->last_delivery_usec), "batches_open",
                     number(status->batches_open + status->batches_frozen), "dead_letters",
                     number(status->dead), "loads_today",
                     number(delivery.today[0].loads + delivery.today[1].loads), "partitions_today",
                     number(delivery.today[0].partitions + delivery.today[1].partitions),
                     "repairs_today", number(delivery.today[0].repairs + delivery.today[1].repairs),
                     "loads_forecast", number(delivery.loads_forecast), "message",
                     text_or_null(delivery.message), "remedy", text_or_null(delivery.remedy));
}

/* What the way out costs a day, at today's traffic and the plan's prices. */
static json_t *describe_egress(Manager *m)
{
    const CrawlEgress *egress;
    uint64_t bytes;
    double cost;

    if (!m->document.plan || !m->fetcher)
        return json_null();
    bytes = fetcher_bytes_today(m->fetcher);
    egress = &m->document.plan->egress;
    cost = (double)bytes / GIB * egress->price_per_gib + HOURS_A_DAY * egress->price_per_hour;
    return json_pack("{s:o, s:o, s:f, s:o}", "bytes_today", number(bytes), "daily_bytes",
                     number(egress->daily_bytes), "cost_today", cost, "nat_ports",
                     number(egress->nat_ports));
}

static const char *state_of(const Manager *m, bool trouble)
{
    if (m->phase == PHASE_DRAINING)
        return "stopping";
    if (m->refused_message)
        return "degraded";
    if (m->hold_spool)
        return "paused";
    if (m->phase == PHASE_IDLE)
        return "idle";
    if (m->phase == PHASE_RUNNING && manager_hold_reason(m))
        return "paused";
    if (m->phase != PHASE_RUNNING)
        return m->hold_cold ? "paused" : "starting";
    return trouble || m->egress_message || m->aside_message ? "degraded" : "well";
}

static const char *message_of(const Manager *m)
{
    if (m->refused_message)
        return m->refused_message;
    if (manager_hold_reason(m))
        return manager_hold_reason(m);
    return m->egress_message ? m->egress_message : m->aside_message;
}

static const char *remedy_of(const Manager *m)
{
    const char *message = message_of(m);

    if (message && message == m->hold_spool)
        return m->spool_remedy;
    return message && message == m->egress_message ? m->egress_remedy : NULL;
}

const char *manager_state(Manager *m)
{
    DeliveryStatus delivery = {0};
    SpoolStatus spool = {0};
    bool trouble = false;

    for (size_t i = 0; m->phase == PHASE_RUNNING && m->jobs && !m->withdrawn && !trouble &&
                       i < m->document.plan->jobs.n;
         i++) {
        FetchJobStatus status = {0};

        fetcher_job_status(m->fetcher, i, &status);
        trouble = status.message;
    }
    if (m->delivery)
        delivery_status(m->delivery, &delivery);
    if (m->spool && !trouble && !delivery.message && spool_status(m->spool, &spool, NULL) >= 0)
        trouble = spool.batches_wrong > 0;
    return state_of(m, trouble || delivery.message);
}

json_t *manager_describe(Manager *m)
{
    SpoolStatus status = {0};
    bool trouble = false;
    json_t *jobs, *delivery;

    if (!m->spool || spool_status(m->spool, &status, NULL) < 0)
        status = (SpoolStatus){0};
    jobs = describe_jobs(m, &trouble);
    delivery = describe_delivery(m, &status, &trouble);
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "kind",
                     "crawler", "version", PACKAGE_VERSION, "at", when(now_realtime_usec()),
                     "started_at", when(m->started_usec), "state", state_of(m, trouble), "message",
                     text_or_null(message_of(m)), "remedy", text_or_null(remedy_of(m)), "jobs",
                     jobs, "backfills", describe_backfills(m), "spool", describe_spool(m, &status),
                     "delivery", delivery, "egress", describe_egress(m), "hosts",
                     describe_hosts(m));
}

/* --- Verbs ---------------------------------------------------------------------------------- */

static int need_running(const Manager *m, Error *err)
{
    return m->phase == PHASE_RUNNING
               ? 0
               : error_set(err, -EAGAIN, ERROR_TEMPORARY, "the crawler is not running yet%s%s",
                           message_of(m) ? ": " : "", message_of(m) ? message_of(m) : "");
}

int manager_run_job(Manager *m, const char *job, Error *err)
{
    int r = need_running(m, err);

    if (r < 0)
        return r;
    r = fetcher_run_now(m->fetcher, job);
    return r < 0 ? error_set(err, r, ERROR_INVALID, "there is no crawl job \"%s\"", job) : 0;
}

/* "2026-10-01" or RFC 3339. */
static int parse_when(const char *text, int64_t *ret, Error *err)
{
    int32_t days;

    if (row_date_parse(text, strlen(text), &days) >= 0) {
        *ret = days * (int64_t)DAY;
        return 0;
    }
    if (time_parse_rfc3339(text, ret) >= 0)
        return 0;
    return error_set(err, -EINVAL, ERROR_INVALID,
                     "\"%s\" is no date (2026-10-01) and no instant (2026-10-01T00:00:00Z)", text);
}

int manager_backfill(Manager *m, const char *job, const char *from, const char *to, Error *err)
{
    int64_t from_usec = 0, to_usec = (int64_t)now_realtime_usec();
    int r = need_running(m, err);

    if (r >= 0)
        r = parse_when(from, &from_usec, err);
    if (r >= 0 && *to)
        r = parse_when(to, &to_usec, err);
    return r < 0 ? r : fetcher_backfill(m->fetcher, job, from_usec, to_usec, err);
}

int manager_flush(Manager *m, Error *err)
{
    int r = need_running(m, err);

    if (r >= 0)
        delivery_flush(m->delivery);
    return r;
}

static int add_dead(const SpoolDead *dead, void *userdata)
{
    json_t *item =
        json_pack("{s:o, s:s, s:s, s:o, s:s, s:s}", "at", when((uint64_t)dead->at_usec), "job",
                  dead->job, "symbol", dead->symbol, "ts",
                  dead->ts_usec == INT64_MIN ? json_null() : when((uint64_t)dead->ts_usec),
                  "reason", dead->reason, "text", dead->text);

    return json_array_append_new(userdata, item) < 0 ? -ENOMEM : 0;
}

static int add_refused(const SpoolRefused *document, void *userdata)
{
    json_t *item =
        json_pack("{s:o, s:s, s:s, s:I, s:o, s:s}", "at", when((uint64_t)document->at_usec), "job",
                  document->job, "symbol", document->symbol, "status", (json_int_t)document->status,
                  "content_type", text_or_null(document->content_type), "reason", document->reason);

    return json_array_append_new(userdata, item) < 0 ? -ENOMEM : 0;
}

json_t *manager_dead_letters(Manager *m, Error *err)
{
    json_auto_t *rows = json_array(), *documents = json_array();

    if (!m->spool) {
        (void)error_set(err, -EAGAIN, ERROR_TEMPORARY, "the spool is not open yet: %s",
                        m->hold_spool ? m->hold_spool : "");
        return NULL;
    }
    if (spool_each_dead(m->spool, add_dead, rows, err) < 0 ||
        spool_each_refused(m->spool, add_refused, documents, err) < 0)
        return NULL;
    return json_pack("{s:O, s:O}", "rows", rows, "documents", documents);
}

int manager_replay(Manager *m, json_t **ret, Error *err)
{
    uint64_t documents = 0, rows = 0;
    int r = need_running(m, err);

    if (r >= 0)
        r = intake_replay(m->intake, m->jobs, m->document.plan->jobs.n, &documents, &rows, err);
    if (r < 0)
        return r;
    delivery_kick(m->delivery);
    *ret = json_pack("{s:o, s:o}", "documents", number(documents), "rows", number(rows));
    return *ret ? 0 : error_oom(err);
}
