/* SPDX-License-Identifier: Apache-2.0 */

/* Questions about what is already there: load jobs of our job set (a dead VM's may still be
 * running, another VM's mean a second writer), and the keys of the look-back window. */

#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "crawler/sink/sink-bigquery.h"

#define PAGE_ROWS       2000          /* jansson needs some 2 kB a row */
#define QUERY_BYTES_MAX "10737418240" /* 10 GiB billed at most: a cent's worth of a mistake */
#define JOBS_PAGES_MAX  50
#define KEYS_POLL_USEC  SECOND

enum { PHASE_QUERY, PHASE_RESULTS };

int bq_jobs_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err)
{
    auto_free char *page = e->page ? url_escape(e->page, "") : NULL;
    int r;

    if (e->page && !page)
        return -ENOMEM;
    if (!page) {
        e->jobs_pending = 0;
        e->has_other_writer = false;
    }
    r = bq_url(e, BQ_API "%s/jobs?projection=full&maxResults=200&minCreationTime=%llu%s%s%s",
               sink->project, (unsigned long long)(e->since_usec / MSEC),
               e->finished_too ? "" : "&stateFilter=pending&stateFilter=running",
               page ? "&pageToken=" : "", page ? page : "");
    ret->url = e->url;
    ret->max_body = 16U << 20;
    return r < 0 ? r : 1;
}

static void look_at_job(const Sink *sink, Errand *e, const json_t *job)
{
    const json_t *labels = json_at(job, "configuration", "labels", NULL);
    const char *jobset = json_str(labels, "mervis_jobset");
    const char *instance = json_str(labels, "mervis_instance");
    const char *state = json_str(job, "state");
    uint64_t started_msec = 0;

    if (!state)
        state = json_str(json_object_get(job, "status"), "state");
    if (!jobset || !instance || !streq(jobset, sink->identity.jobset))
        return;
    if (!state || !streq(state, "DONE"))
        e->jobs_pending++;
    if (streq(instance, sink->identity.instance))
        return;

    /* Of two that see each other the one that began later yields; equal starts go by name. */
    if (json_u64(labels, "mervis_started", &started_msec) < 0)
        started_msec = 0;
    if (started_msec < sink->identity.started_usec / MSEC ||
        (started_msec == sink->identity.started_usec / MSEC &&
         strcmp(instance, sink->identity.instance) < 0)) {
        e->has_other_writer = true;
        (void)snprintf(e->other_instance, sizeof(e->other_instance), "%s", instance);
    }
}

void bq_jobs_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e)
{
    BqFault fault = {0};
    json_auto_t *body = NULL;
    const json_t *job;
    size_t i;

    e->state = ERRAND_ASKING;
    bq_fault_of_reply(reply, failure, &fault);
    if (fault.action != BQ_OK) {
        free(e->page);
        e->page = NULL;
        bq_settle_fault(sink, e, reply, &fault);
        bq_fault_done(&fault);
        return;
    }
    if (json_parse_quiet(buf_str(&reply->body), reply->body.size, &body) <= 0)
        return bq_retry(e, 0);

    json_array_foreach (json_object_get(body, "jobs"), i, job)
        look_at_job(sink, e, job);
    if (str_set(&e->page, json_str(body, "nextPageToken")) < 0)
        return bq_retry(e, 0);
    e->tries = 0;
    if (!e->page || ++e->polls >= JOBS_PAGES_MAX)
        e->state = ERRAND_DONE;
}

/* --- Keys ----------------------------------------------------------------------------------- */

static json_t *parameter(const char *name, const char *type, const char *value)
{
    return json_pack("{s:s, s:{s:s}, s:{s:s}}", "name", name, "parameterType", "type", type,
                     "parameterValue", "value", value);
}

static json_t *sources_parameter(const char *const *sources)
{
    json_auto_t *values = json_array();

    for (size_t i = 0; values && sources && sources[i]; i++)
        if (json_array_append_new(values, json_pack("{s:s}", "value", sources[i])) < 0)
            return NULL;
    return json_pack("{s:s, s:{s:s, s:{s:s}}, s:{s:O}}", "name", "sources", "parameterType", "type",
                     "ARRAY", "arrayType", "type", "STRING", "parameterValue", "arrayValues",
                     values);
}

static int query_post(const Sink *sink, Errand *e, HttpRequest *ret)
{
    auto_free char *table = sink_table_name(sink, e->table);
    auto_free char *sql = NULL;
    char since[TIME_RFC3339_MAX], date[16];
    json_auto_t *body = NULL;
    int r;

    if (!table)
        return -ENOMEM;
    (void)time_format_rfc3339(since, (int64_t)e->since_usec);
    /* A trade date may lie a day from the UTC date; the filter on it is what bounds the bytes. */
    (void)row_date_format((int32_t)(e->since_usec / DAY) - 1, date);
    sql = str_printf("SELECT source, symbol, `interval`, kind, ts, MAX(revision) AS revision, "
                     "LOGICAL_OR(is_final) AS is_final FROM `%s.%s.%s` WHERE trade_date >= @date "
                     "AND ts >= @since AND source IN "
                     "UNNEST(@sources) GROUP BY source, symbol, `interval`, kind, ts "
                     "ORDER BY source, symbol, `interval`, ts",
                     sink->project, sink->dataset, table);
    if (!sql)
        return -ENOMEM;
    body = json_pack("{s:s, s:b, s:i, s:i, s:s, s:s, s:[o, o, o], s:{s:b}, s:{s:s, s:s}}", "query",
                     sql, "useLegacySql", 0, "timeoutMs", 10000, "maxResults", PAGE_ROWS,
                     "maximumBytesBilled", QUERY_BYTES_MAX, "parameterMode", "NAMED",
                     "queryParameters", parameter("date", "DATE", date),
                     parameter("since", "TIMESTAMP", since), sources_parameter(e->sources),
                     "formatOptions", "useInt64Timestamp", 1, "labels", "mervis_instance",
                     sink->identity.instance, "mervis_jobset", sink->identity.jobset);
    if (!body || (sink->location && json_put(body, "location", json_string(sink->location)) < 0))
        return -ENOMEM;
    r = bq_url(e, BQ_API "%s/queries", sink->project);
    return r < 0 ? r : bq_json_request(e, ret, "POST", json_incref(body));
}

int bq_keys_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err)
{
    auto_free char *page = e->page ? url_escape(e->page, "") : NULL;
    auto_free char *location = url_escape(sink->location ? sink->location : "", "");
    int r;

    ret->max_body = 16U << 20;
    if (e->phase == PHASE_QUERY)
        return query_post(sink, e, ret);
    if (!location || (e->page && !page))
        return -ENOMEM;
    r = bq_url(e,
               BQ_API "%s/queries/%s?maxResults=%d&timeoutMs=10000&"
                      "formatOptions.useInt64Timestamp=true%s%s%s%s",
               sink->project, e->query_job, PAGE_ROWS, *location ? "&location=" : "", location,
               page ? "&pageToken=" : "", page ? page : "");
    ret->url = e->url;
    return r < 0 ? r : 1;
}

static const char *cell(const json_t *row, size_t column)
{
    return json_str(json_array_get(json_object_get(row, "f"), column), "v");
}

/* 0, or -EBADMSG when the answer is not of the shape that was asked for. */
static int hand_over_rows(Errand *e, const json_t *rows)
{
    const json_t *row;
    size_t i;
    int r;

    json_array_foreach (rows, i, row) {
        const char *ts = cell(row, 4), *revision = cell(row, 5), *is_final = cell(row, 6);
        SinkKey key = {.source = cell(row, 0),
                       .symbol = cell(row, 1),
                       .interval = cell(row, 2),
                       .kind = cell(row, 3),
                       /* A row of another program may have none: it is not waited for. */
                       .is_final = !is_final || !streq(is_final, "false")};

        if (!key.source || !key.symbol || !key.interval || !key.kind || !ts || !revision ||
            parse_i64(ts, &key.ts_usec) < 0 || parse_u64(revision, &key.revision) < 0)
            return -EBADMSG;
        r = e->on_key(&key, e->on_key_userdata);
        if (r < 0)
            return r;
    }
    return 0;
}

static void judge_results(Errand *e, const json_t *body)
{
    const char *job = json_str(json_object_get(body, "jobReference"), "jobId");

    if (job && str_set(&e->query_job, job) < 0)
        return bq_retry(e, 0);
    if (!json_flag(body, "jobComplete")) {
        if (!e->query_job)
            return bq_retry(e, 0);
        e->phase = PHASE_RESULTS;
        e->wait_usec = KEYS_POLL_USEC;
        return;
    }
    if (hand_over_rows(e, json_object_get(body, "rows")) < 0 ||
        str_set(&e->page, json_str(body, "pageToken")) < 0) {
        bq_pause(e, MINUTE, ERROR_TEMPORARY, NULL,
                 "BigQuery's answer to the key query could not be read");
        e->phase = PHASE_QUERY;
        return;
    }
    e->tries = 0;
    e->phase = PHASE_RESULTS;
    if (!e->page || !e->query_job)
        e->state = ERRAND_DONE;
}

void bq_keys_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e)
{
    BqFault fault = {0};
    json_auto_t *body = NULL;

    e->state = ERRAND_ASKING;
    bq_fault_of_reply(reply, failure, &fault);
    if (fault.action == BQ_NOT_FOUND && e->phase == PHASE_QUERY) {
        e->state = ERRAND_DONE; /* no table yet: no keys */
    } else if (fault.action != BQ_OK) {
        if (fault.action == BQ_NOT_FOUND)
            e->phase = PHASE_QUERY; /* the result expired */
        bq_settle_fault(sink, e, reply, &fault);
    } else if (json_parse_quiet(buf_str(&reply->body), reply->body.size, &body) <= 0) {
        bq_retry(e, 0);
    } else {
        judge_results(e, body);
    }
    bq_fault_done(&fault);
}
