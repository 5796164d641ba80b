/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/statusd/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"

typedef enum MetricSource { FROM_AGENT, FROM_CRAWLER } MetricSource;

/* How a member becomes a number. */
typedef enum MetricForm {
    FORM_NUMBER,
    FORM_BOOL,
    FORM_USEC,    /* to seconds */
    FORM_TIME,    /* to seconds since 1970 */
    FORM_PERCENT, /* to a ratio */
    FORM_REAL,    /* to the millionth */
    FORM_STATE,   /* 1 for the state it is in, as a label; `expect` NULL */
    FORM_EQUALS,  /* 1 when the member is `expect`, else 0 */
} MetricForm;

#define LABELS_MAX 2
#define REAL_MAX   1e12 /* in millionths an int64_t */

typedef struct Metric {
    const char *name, *type, *help;
    MetricSource source;
    const char *part;   /* object or list in the document; NULL: the document itself */
    const char *member; /* of the part, or of each item of the list */
    MetricForm form;
    const char *expect;
    const char *labels[LABELS_MAX]; /* members of the item, shown under the same names */
} Metric;

/* clang-format off */
static const Metric metrics[] = {
    {"mervis_agent_info", "gauge", "Version of agentd.", FROM_AGENT, NULL, "version", FORM_STATE, NULL, {0}},
    {"mervis_agent_state", "gauge", "What agentd says of itself.", FROM_AGENT, NULL, "state", FORM_STATE, NULL, {0}},
    {"mervis_agent_ready", "gauge", "Whether the plan's containers serve.", FROM_AGENT, NULL, "ready", FORM_BOOL, NULL, {0}},
    {"mervis_agent_start_time_seconds", "gauge", "When agentd started.", FROM_AGENT, NULL, "started_at", FORM_TIME, NULL, {0}},
    {"mervis_vm_preempted", "gauge", "Whether the cloud has announced the end of this VM.", FROM_AGENT, "vm", "preempted", FORM_BOOL, NULL, {0}},
    {"mervis_plan_generation", "gauge", "Number of the plan in force.", FROM_AGENT, "plan", "generation", FORM_NUMBER, NULL, {0}},
    {"mervis_plan_accepted_timestamp_seconds", "gauge", "When the plan in force was accepted.", FROM_AGENT, "plan", "accepted_at", FORM_TIME, NULL, {0}},
    {"mervis_plan_outcome", "gauge", "How applying the plan went.", FROM_AGENT, "plan", "outcome", FORM_STATE, NULL, {0}},
    {"mervis_resource_failed", "gauge", "Whether an item of the plan could not be applied.", FROM_AGENT, "resources", "state", FORM_EQUALS, "failed", {"kind", "name"}},
    {"mervis_secret_state", "gauge", "State of a secret of the plan.", FROM_AGENT, "secrets", "state", FORM_STATE, NULL, {"name"}},
    {"mervis_secret_fetched_timestamp_seconds", "gauge", "When the secret's version in use was fetched.", FROM_AGENT, "secrets", "fetched_at", FORM_TIME, NULL, {"name"}},
    {"mervis_container_running", "gauge", "Whether the container runs.", FROM_AGENT, "containers", "running", FORM_BOOL, NULL, {"name"}},
    {"mervis_container_healthy", "gauge", "Whether the container's health check passes.", FROM_AGENT, "containers", "health", FORM_EQUALS, "healthy", {"name"}},
    {"mervis_container_state", "gauge", "State of the container's rollout.", FROM_AGENT, "containers", "state", FORM_STATE, NULL, {"name"}},
    {"mervis_container_start_time_seconds", "gauge", "When the container started.", FROM_AGENT, "containers", "since", FORM_TIME, NULL, {"name"}},
    {"mervis_container_restarts_total", "counter", "Restarts of the container by the engine.", FROM_AGENT, "containers", "restarts", FORM_NUMBER, NULL, {"name"}},
    {"mervis_container_memory_bytes", "gauge", "Memory that the container uses.", FROM_AGENT, "containers", "memory_bytes", FORM_NUMBER, NULL, {"name"}},
    {"mervis_container_switch_downtime_seconds", "gauge", "How long nothing served during the last switch.", FROM_AGENT, "containers", "downtime_usec", FORM_USEC, NULL, {"name"}},
    {"mervis_images_disk_used_ratio", "gauge", "Use of the disk under the engine.", FROM_AGENT, "images", "disk_used_percent", FORM_PERCENT, NULL, {0}},
    {"mervis_images_freed_bytes_total", "counter", "Bytes freed by removing images.", FROM_AGENT, "images", "freed_bytes", FORM_NUMBER, NULL, {0}},
    {"mervis_images_removed_total", "counter", "Images removed.", FROM_AGENT, "images", "removed", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_info", "gauge", "Version of crawlerd.", FROM_CRAWLER, NULL, "version", FORM_STATE, NULL, {0}},
    {"mervis_crawler_state", "gauge", "What crawlerd says of itself.", FROM_CRAWLER, NULL, "state", FORM_STATE, NULL, {0}},
    {"mervis_crawler_job_state", "gauge", "State of a job.", FROM_CRAWLER, "jobs", "state", FORM_STATE, NULL, {"name", "recipe"}},
    {"mervis_crawler_job_rows_total", "counter", "Rows accepted from a source.", FROM_CRAWLER, "jobs", "rows", FORM_NUMBER, NULL, {"name", "recipe"}},
    {"mervis_crawler_job_requests_total", "counter", "Requests to a source.", FROM_CRAWLER, "jobs", "requests", FORM_NUMBER, NULL, {"name", "recipe"}},
    {"mervis_crawler_job_failures_total", "counter", "Requests to a source that failed.", FROM_CRAWLER, "jobs", "failures", FORM_NUMBER, NULL, {"name", "recipe"}},
    {"mervis_crawler_job_received_bytes_total", "counter", "Bytes received from a source.", FROM_CRAWLER, "jobs", "bytes_in", FORM_NUMBER, NULL, {"name", "recipe"}},
    {"mervis_crawler_job_last_fetch_timestamp_seconds", "gauge", "When a source last answered.", FROM_CRAWLER, "jobs", "last_fetch_at", FORM_TIME, NULL, {"name", "recipe"}},
    {"mervis_crawler_host_requests_total", "counter", "Requests to a host.", FROM_CRAWLER, "hosts", "requests", FORM_NUMBER, NULL, {"host"}},
    {"mervis_crawler_host_refusals_total", "counter", "Requests to a host that it refused or could not answer.", FROM_CRAWLER, "hosts", "refusals", FORM_NUMBER, NULL, {"host"}},
    {"mervis_crawler_host_received_bytes_total", "counter", "Bytes received from a host.", FROM_CRAWLER, "hosts", "bytes_in", FORM_NUMBER, NULL, {"host"}},
    {"mervis_crawler_host_sent_bytes_total", "counter", "Bytes sent to a host.", FROM_CRAWLER, "hosts", "bytes_out", FORM_NUMBER, NULL, {"host"}},
    {"mervis_crawler_host_connections_total", "counter", "Connections opened to a host.", FROM_CRAWLER, "hosts", "connections", FORM_NUMBER, NULL, {"host"}},
    {"mervis_crawler_host_breaker_open", "gauge", "Whether a host is left alone after failures.", FROM_CRAWLER, "hosts", "breaker_open", FORM_BOOL, NULL, {"host"}},
    {"mervis_crawler_host_recent_connections", "gauge", "Connections opened to a host in the last 120 s, for which Cloud NAT keeps ports.", FROM_CRAWLER, "hosts", "connections_120s", FORM_NUMBER, NULL, {"host"}},
    {"mervis_crawler_nat_ports", "gauge", "Most new connections to a host in 120 s, by the plan.", FROM_CRAWLER, "egress", "nat_ports", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_egress_today_bytes", "gauge", "Bytes to and from all hosts since 00:00 UTC.", FROM_CRAWLER, "egress", "bytes_today", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_egress_today_dollars", "gauge", "What Cloud NAT costs today, by the plan's prices.", FROM_CRAWLER, "egress", "cost_today", FORM_REAL, NULL, {0}},
    {"mervis_crawler_loads_today", "gauge", "Load jobs since 00:00 UTC; BigQuery allows 1,500 a table.", FROM_CRAWLER, "delivery", "loads_today", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_loads_forecast", "gauge", "Load jobs a day and table, where rows come all the time.", FROM_CRAWLER, "delivery", "loads_forecast", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_partitions_today", "gauge", "Partition changes since 00:00 UTC; BigQuery allows 30,000 a table.", FROM_CRAWLER, "delivery", "partitions_today", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_backlog_rows", "gauge", "Rows not yet delivered.", FROM_CRAWLER, "spool", "rows", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_backlog_bytes", "gauge", "Size of the spool.", FROM_CRAWLER, "spool", "bytes", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_backlog_limit_bytes", "gauge", "Size at which crawling pauses.", FROM_CRAWLER, "spool", "max_bytes", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_backlog_oldest_timestamp_seconds", "gauge", "When the oldest row not yet delivered was fetched.", FROM_CRAWLER, "spool", "oldest_at", FORM_TIME, NULL, {0}},
    {"mervis_crawler_rows_delivered_total", "counter", "Rows delivered to the sink.", FROM_CRAWLER, "delivery", "rows_delivered", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_last_delivery_timestamp_seconds", "gauge", "When rows were last delivered.", FROM_CRAWLER, "delivery", "last_delivery_at", FORM_TIME, NULL, {0}},
    {"mervis_crawler_batches_open", "gauge", "Frozen batches not yet delivered.", FROM_CRAWLER, "delivery", "batches_open", FORM_NUMBER, NULL, {0}},
    {"mervis_crawler_dead_letters", "gauge", "Rows that the sink cannot take.", FROM_CRAWLER, "delivery", "dead_letters", FORM_NUMBER, NULL, {0}},
};
/* clang-format on */

/* Seconds with as many decimals as there are microseconds. */
static int format_micro(int64_t usec, char *ret, size_t size)
{
    const char *sign = usec < 0 ? "-" : "";
    uint64_t absolute = usec < 0 ? -(uint64_t)usec : (uint64_t)usec;

    return snprintf(ret, size, "%s%" PRIu64 ".%06u", sign, absolute / SECOND,
                    (unsigned)(absolute % SECOND));
}

/* The sample's value; 0 when there is none. */
static int sample_value(const Metric *metric, const json_t *value, char *ret, size_t size)
{
    int64_t usec;

    switch (metric->form) {
    case FORM_NUMBER:
        if (!json_is_integer(value))
            return 0;
        (void)snprintf(ret, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return 1;
    case FORM_BOOL:
        if (!json_is_boolean(value))
            return 0;
        (void)snprintf(ret, size, "%d", json_is_true(value) ? 1 : 0);
        return 1;
    case FORM_USEC:
        if (!json_is_integer(value))
            return 0;
        (void)format_micro(json_integer_value(value), ret, size);
        return 1;
    case FORM_TIME:
        if (!json_is_string(value) || time_parse_rfc3339(json_string_value(value), &usec) < 0)
            return 0;
        (void)format_micro(usec, ret, size);
        return 1;
    case FORM_PERCENT:
        if (!json_is_integer(value))
            return 0;
        (void)format_micro(json_integer_value(value) * (int64_t)(SECOND / 100), ret, size);
        return 1;
    case FORM_REAL:
        if (!json_is_number(value) || !(json_number_value(value) < REAL_MAX) ||
            !(json_number_value(value) > -REAL_MAX))
            return 0;
        (void)format_micro((int64_t)(json_number_value(value) * (double)SECOND), ret, size);
        return 1;
    case FORM_STATE:
        if (!json_is_string(value))
            return 0;
        (void)snprintf(ret, size, "1");
        return 1;
    case FORM_EQUALS:
        if (!json_is_string(value))
            return 0;
        (void)snprintf(ret, size, "%d", streq(json_string_value(value), metric->expect) ? 1 : 0);
        return 1;
    }
    return 0;
}

/* {name="value"}: backslash, quote and newline are escaped; the format knows nothing for other control
 * characters, which no name of ours has. */
static int add_label(Buf *ret, const char *name, const char *value, bool first)
{
    int r;

    r = buf_printf(ret, "%s%s=\"", first ? "{" : ",", name);
    for (const char *p = value; r >= 0 && *p; p++)
        switch (*p) {
        case '\\':
            r = buf_add_str(ret, "\\\\");
            break;
        case '"':
            r = buf_add_str(ret, "\\\"");
            break;
        case '\n':
            r = buf_add_str(ret, "\\n");
            break;
        default:
            r = buf_add_char(ret, (uint8_t)*p < ' ' ? ' ' : *p);
        }
    return r < 0 ? r : buf_add_char(ret, '"');
}

static int add_labels(Buf *ret, const Metric *metric, const json_t *item)
{
    bool first = true;
    int r;

    for (size_t i = 0; i < LABELS_MAX && metric->labels[i]; i++) {
        const char *value = json_str(item, metric->labels[i]);

        r = add_label(ret, metric->labels[i], value ? value : "", first);
        if (r < 0)
            return r;
        first = false;
    }
    if (metric->form == FORM_STATE) {
        r = add_label(ret, metric->member, json_str(item, metric->member), first);
        if (r < 0)
            return r;
        first = false;
    }
    return first ? 0 : buf_add_char(ret, '}');
}

static int add_sample(Buf *ret, const Metric *metric, const json_t *item, bool *headed)
{
    char value[32];
    int r;

    if (sample_value(metric, json_object_get(item, metric->member), value, sizeof(value)) == 0)
        return 0;
    if (!*headed) {
        r = buf_printf(ret, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help,
                       metric->name, metric->type);
        if (r < 0)
            return r;
        *headed = true;
    }
    r = buf_add_str(ret, metric->name);
    if (r >= 0)
        r = add_labels(ret, metric, item);
    if (r >= 0)
        r = buf_printf(ret, " %s\n", value);
    return r;
}

static int add_metric(Buf *ret, const Metric *metric, const json_t *document)
{
    const json_t *part = metric->part ? json_object_get(document, metric->part) : document;
    bool headed = false;
    const json_t *item;
    size_t i;
    int r;

    if (!json_is_array(part))
        return add_sample(ret, metric, part, &headed);
    json_array_foreach (part, i, item) {
        r = add_sample(ret, metric, item, &headed);
        if (r < 0)
            return r;
    }
    return 0;
}

int metrics_format(const json_t *agent, const json_t *crawler, Buf *ret)
{
    int r;

    assert(ret);

    r = buf_printf(ret,
                   "# HELP mervis_agent_up Whether agentd answers.\n"
                   "# TYPE mervis_agent_up gauge\nmervis_agent_up %d\n"
                   "# HELP mervis_crawler_up Whether crawlerd answers.\n"
                   "# TYPE mervis_crawler_up gauge\nmervis_crawler_up %d\n",
                   agent ? 1 : 0, crawler ? 1 : 0);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ELEMENTS(metrics); i++) {
        r = add_metric(ret, &metrics[i], metrics[i].source == FROM_AGENT ? agent : crawler);
        if (r < 0)
            return r;
    }
    return 0;
}
