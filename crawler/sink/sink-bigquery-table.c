/* SPDX-License-Identifier: Apache-2.0 */

/* Makes sure that a table can take our rows: the dataset (and where it is), the table with its
 * partitions and clusters, every column with its type, and the view over the last revisions. */

#include <errno.h>

#include "agent/base/str.h"
#include "crawler/sink/sink-bigquery.h"

#define AFTER_CREATE_USEC (2 * SECOND)

enum { PHASE_DATASET, PHASE_GET, PHASE_CREATE, PHASE_PATCH, PHASE_VIEW_GET, PHASE_VIEW_CREATE };

/* clang-format off */
static const struct {
    const char *standard, *legacy;
} type_names[] = {
    [ROW_COLUMN_STRING]     = {"STRING",     "STRING"},
    [ROW_COLUMN_TIMESTAMP]  = {"TIMESTAMP",  "TIMESTAMP"},
    [ROW_COLUMN_DATE]       = {"DATE",       "DATE"},
    [ROW_COLUMN_NUMERIC]    = {"NUMERIC",    "DECIMAL"},
    [ROW_COLUMN_BIGNUMERIC] = {"BIGNUMERIC", "BIGDECIMAL"},
    [ROW_COLUMN_BOOL]       = {"BOOLEAN",    "BOOL"},
    [ROW_COLUMN_INT64]      = {"INTEGER",    "INT64"},
};
/* clang-format on */

const char *bq_column_type(RowColumnType type)
{
    return type_names[type].standard;
}

static json_t *column_field(const RowColumn *column, bool relaxed)
{
    return json_pack("{s:s, s:s, s:s}", "name", column->name, "type", bq_column_type(column->type),
                     "mode", column->required && !relaxed ? "REQUIRED" : "NULLABLE");
}

static json_t *all_fields(void)
{
    json_auto_t *fields = json_array();

    for (const RowColumn *c = row_columns; fields && c->name; c++)
        if (json_array_append_new(fields, column_field(c, /* relaxed= */ false)) < 0)
            return NULL;
    return take_ptr(fields);
}

static json_t *table_resource(const Sink *sink, SinkTable table)
{
    auto_free char *name = sink_table_name(sink, table);

    if (!name)
        return NULL;
    return json_pack("{s:{s:s, s:s, s:s}, s:{s:o}, s:{s:s, s:s}, s:{s:[s, s, s]}, s:s}",
                     "tableReference", "projectId", sink->project, "datasetId", sink->dataset,
                     "tableId", name, "schema", "fields", all_fields(), "timePartitioning", "type",
                     table == SINK_TABLE_DAILY ? "MONTH" : "DAY", "field", "trade_date",
                     "clustering", "fields", "symbol", "interval", "source", "description",
                     "Market data delivered by mervis-agent; one row an observation");
}

char *bq_view_query(const Sink *sink)
{
    return str_printf(
        "SELECT * FROM (SELECT * FROM `%s.%s.%s_intraday` UNION ALL SELECT * FROM "
        "`%s.%s.%s_daily`) QUALIFY ROW_NUMBER() OVER (PARTITION BY source, symbol, `interval`, "
        "kind, ts ORDER BY revision DESC, ingested_at DESC) = 1",
        sink->project, sink->dataset, sink->table, sink->project, sink->dataset, sink->table);
}

static json_t *view_resource(const Sink *sink)
{
    auto_free char *name = str_printf("%s_latest", sink->table);
    auto_free char *query = bq_view_query(sink);

    if (!name || !query)
        return NULL;
    return json_pack("{s:{s:s, s:s, s:s}, s:{s:s, s:b}, s:s}", "tableReference", "projectId",
                     sink->project, "datasetId", sink->dataset, "tableId", name, "view", "query",
                     query, "useLegacySql", 0, "description", "The last revision of each row");
}

int bq_table_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err)
{
    auto_free char *name = sink_table_name(sink, e->table);
    int r = 0;

    if (!name)
        return -ENOMEM;
    switch (e->phase) {
    case PHASE_DATASET:
        r = bq_url(e, BQ_API "%s/datasets/%s", sink->project, sink->dataset);
        break;
    case PHASE_GET:
    case PHASE_PATCH:
        r = bq_url(e, BQ_API "%s/datasets/%s/tables/%s", sink->project, sink->dataset, name);
        break;
    case PHASE_VIEW_GET:
        r = bq_url(e, BQ_API "%s/datasets/%s/tables/%s_latest", sink->project, sink->dataset,
                   sink->table);
        break;
    default:
        r = bq_url(e, BQ_API "%s/datasets/%s/tables", sink->project, sink->dataset);
    }
    if (r < 0)
        return r;

    ret->url = e->url;
    if (e->phase == PHASE_CREATE)
        return bq_json_request(e, ret, "POST", table_resource(sink, e->table));
    if (e->phase == PHASE_VIEW_CREATE)
        return bq_json_request(e, ret, "POST", view_resource(sink));
    if (e->phase == PHASE_PATCH)
        return bq_json_request(e, ret, "PATCH",
                               json_pack("{s:{s:O}}", "schema", "fields", e->schema));
    return 1;
}

/* --- Replies -------------------------------------------------------------------------------- */

static bool type_fits(const RowColumn *column, const char *type)
{
    return type && (strcasecmp(type, type_names[column->type].standard) == 0 ||
                    strcasecmp(type, type_names[column->type].legacy) == 0);
}

/* A column of theirs that is REQUIRED and not ours would refuse every row. */
static const char *foreign_required(json_t *fields)
{
    json_t *field;
    size_t i;

    json_array_foreach (fields, i, field) {
        const char *name = json_str(field, "name"), *mode = json_str(field, "mode");
        bool ours = false;

        for (const RowColumn *c = row_columns; c->name && name; c++)
            ours = ours || strcasecmp(c->name, name) == 0;
        if (name && !ours && mode && streq(mode, "REQUIRED"))
            return name;
    }
    return NULL;
}

static void pause_for_columns(const Sink *sink, Errand *e, const char *name, const Buf *missing,
                              const Buf *sql)
{
    auto_free char *remedy = str_printf(
        "bq query --use_legacy_sql=false 'ALTER TABLE `%s.%s.%s` %s', or set \"schema\": "
        "\"extend\" in the plan's sink",
        sink->project, sink->dataset, name, buf_str(sql));

    bq_pause(e, BQ_DENIED_PAUSE_USEC, ERROR_INVALID, remedy,
             "table %s.%s has no column %s; its rows wait in the spool", sink->dataset, name,
             buf_str(missing));
}

/* Compares the table's columns with ours; what is missing goes to e->schema to be added. */
static int compare_columns(const Sink *sink, Errand *e, json_t *fields, const char *name)
{
    auto_buf Buf missing = BUF_INIT(4096), sql = BUF_INIT(4096);
    json_auto_t *extended = json_deep_copy(fields);
    size_t n = 0;
    int r = 0;

    if (!extended)
        return -ENOMEM;
    for (const RowColumn *c = row_columns; c->name && r >= 0; c++) {
        json_t *field = json_find(fields, "name", c->name);
        const char *type = json_str(field, "type");

        if (field && !type_fits(c, type)) {
            auto_free char *remedy = str_printf(
                "name another table in the plan's sink, or re-create %s.%s without that column",
                sink->dataset, name);

            bq_pause(e, BQ_QUOTA_PAUSE_USEC, ERROR_INVALID, remedy,
                     "table %s.%s: column %s is %s where %s is needed", sink->dataset, name,
                     c->name, type ? type : "of no type", bq_column_type(c->type));
            return 0;
        }
        if (field)
            continue;
        r = buf_printf(&missing, "%s%s", n ? ", " : "", c->name);
        if (r >= 0)
            r = buf_printf(&sql, "%sADD COLUMN `%s` %s", n ? ", " : "", c->name,
                           bq_column_type(c->type));
        if (r >= 0 && json_array_append_new(extended, column_field(c, /* relaxed= */ true)) < 0)
            r = -ENOMEM;
        n++;
    }
    if (r < 0)
        return r;
    if (n == 0)
        return 1;
    if (sink->schema == SINK_SCHEMA_EXTEND && e->phase != PHASE_PATCH) {
        json_decref(e->schema);
        e->schema = take_ptr(extended);
        e->phase = PHASE_PATCH;
        return 0;
    }
    pause_for_columns(sink, e, name, &missing, &sql);
    e->phase = PHASE_GET;
    return 0;
}

static void table_is_fine(Errand *e)
{
    e->tries = 0;
    if (e->table == SINK_TABLE_DAILY)
        e->phase = PHASE_VIEW_GET;
    else
        e->state = ERRAND_DONE;
}

static void judge_table(const Sink *sink, const HttpResponse *reply, Errand *e)
{
    auto_free char *name = sink_table_name(sink, e->table);
    json_auto_t *table = NULL;
    json_t *fields;
    const char *foreign;
    int r;

    if (!name || json_parse_quiet(buf_str(&reply->body), reply->body.size, &table) <= 0)
        return bq_retry(e, 0);
    fields = json_at(table, "schema", "fields", NULL);
    foreign = foreign_required(fields);
    if (foreign) {
        auto_free char *remedy = str_printf(
            "bq query --use_legacy_sql=false 'ALTER TABLE `%s.%s.%s` ALTER COLUMN `%s` DROP NOT "
            "NULL'",
            sink->project, sink->dataset, name, foreign);

        bq_pause(e, BQ_DENIED_PAUSE_USEC, ERROR_INVALID, remedy,
                 "table %s.%s requires a column %s that no source has", sink->dataset, name,
                 foreign);
        return;
    }
    r = compare_columns(sink, e, fields, name);
    if (r < 0)
        bq_retry(e, 0);
    else if (r > 0)
        table_is_fine(e);
}

static void judge_dataset(Sink *sink, const HttpResponse *reply, Errand *e)
{
    json_auto_t *dataset = NULL;
    const char *location;

    if (json_parse_quiet(buf_str(&reply->body), reply->body.size, &dataset) <= 0)
        return bq_retry(e, 0);
    location = json_str(dataset, "location");
    if (sink->location && location && strcasecmp(sink->location, location) != 0) {
        auto_free char *remedy =
            str_printf("set \"location\": \"%s\" in the plan's sink, or leave it out", location);

        bq_pause(e, BQ_QUOTA_PAUSE_USEC, ERROR_INVALID, remedy,
                 "dataset %s is in %s, the plan says %s", sink->dataset, location, sink->location);
        return;
    }
    if (!sink->location && location && str_set(&sink->location, location) < 0)
        return bq_retry(e, 0);
    e->phase = PHASE_GET;
    e->tries = 0;
}

static void dataset_missing(const Sink *sink, Errand *e)
{
    auto_free char *remedy =
        str_printf("bq mk --dataset --location=%s %s:%s", sink->location ? sink->location : "US",
                   sink->project, sink->dataset);

    e->phase = PHASE_DATASET;
    bq_pause(e, MINUTE, ERROR_INVALID, remedy, "there is no dataset %s in project %s",
             sink->dataset, sink->project);
}

static void judge_fault(const Sink *sink, const HttpResponse *reply, const BqFault *fault,
                        Errand *e)
{
    bool transient = fault->action == BQ_RETRY || fault->action == BQ_NEW_ATTEMPT;

    if (e->phase >= PHASE_VIEW_GET && !transient) {
        if (e->phase == PHASE_VIEW_GET && fault->action == BQ_NOT_FOUND) {
            e->phase = PHASE_VIEW_CREATE;
            return;
        }
        /* Rows do not need the view; whoever may not create it runs contrib's SQL. */
        e->state = ERRAND_DONE;
        return;
    }
    if (fault->action == BQ_NOT_FOUND) {
        if (e->phase == PHASE_GET)
            e->phase = PHASE_CREATE;
        else
            dataset_missing(sink, e);
        return;
    }
    if (fault->action == BQ_DUPLICATE) {
        e->phase = PHASE_GET;
        e->wait_usec = AFTER_CREATE_USEC;
        return;
    }
    if (e->phase == PHASE_PATCH)
        e->phase = PHASE_GET;
    bq_settle_fault(sink, e, reply, fault);
    e->recheck_table = false;
}

void bq_table_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e)
{
    BqFault fault = {0};

    e->state = ERRAND_ASKING;
    bq_fault_of_reply(reply, failure, &fault);
    if (fault.action != BQ_OK) {
        judge_fault(sink, reply, &fault, e);
    } else {
        switch (e->phase) {
        case PHASE_DATASET:
            judge_dataset(sink, reply, e);
            break;
        case PHASE_GET:
        case PHASE_CREATE:
        case PHASE_PATCH:
            judge_table(sink, reply, e);
            break;
        default:
            e->state = ERRAND_DONE;
        }
    }
    bq_fault_done(&fault);
}
