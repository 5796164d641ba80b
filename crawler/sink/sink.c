/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/sink/sink.h"

#include <ctype.h>
#include <errno.h>

#include "agent/base/file.h"
#include "agent/base/str.h"

extern const SinkOps sink_bigquery_load;
extern const SinkOps sink_sqlite;
extern const SinkOps sink_ndjson;
int sink_sqlite_new(const char *path, void **ret, Error *err);
int sink_ndjson_new(const SinkNdjsonPlan *plan, void **ret, Error *err);

/* --- The plan's part ------------------------------------------------------------------------ */

static const char *const schema_names[] = {"fixed", "extend", NULL};

static const char *check_table_id(const char *value)
{
    for (const char *c = value; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '_')
            return "letters, digits and _";
    return NULL;
}

static const char *check_project_id(const char *value)
{
    for (const char *c = value; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != ':' && *c != '.')
            return "a project id: lower case, digits and -";
    return NULL;
}

static const char *check_location(const char *value)
{
    for (const char *c = value; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-')
            return "a location such as asia-northeast3 or US";
    return NULL;
}

static const char *check_path(const char *value)
{
    return *value == '/' ? NULL : "an absolute path";
}

static const char *check_path_or_dash(const char *value)
{
    return streq(value, "-") || *value == '/' ? NULL : "an absolute path, or - for standard output";
}

/* clang-format off */
static const Field bigquery_fields[] = {
    FIELD_STRING("project", SinkBigqueryPlan, project, NULL, 1, 100, 0, check_project_id,
                 "project of the dataset; the VM's own when absent"),
    FIELD_STRING("dataset", SinkBigqueryPlan, dataset, NULL, 1, 1024, FIELD_REQUIRED, check_table_id,
                 "dataset, which must exist"),
    FIELD_STRING("table", SinkBigqueryPlan, table, "bars", 1, 200, 0, check_table_id,
                 "prefix of the tables <table>_intraday and <table>_daily"),
    FIELD_STRING("location", SinkBigqueryPlan, location, NULL, 2, 64, 0, check_location,
                 "where the dataset is; asked when absent"),
    FIELD_DURATION("flush", SinkBigqueryPlan, flush_usec, "5m", 90 * SECOND, DAY,
                   "how old the oldest row gets before a load; 1,500 loads a table and day is the limit"),
    FIELD_UINT("max_rows", SinkBigqueryPlan, max_rows, "250000", 1, 10000000, "rows of a load"),
    FIELD_SIZE("max_bytes", SinkBigqueryPlan, max_bytes, "96MiB", 4096, UINT64_C(1) << 40, "bytes of a load"),
    FIELD_ENUM("schema", SinkBigqueryPlan, schema, "fixed", schema_names,
               "whether a missing column is added (extend) or pauses the table (fixed)"),
    FIELD_BOOL("second_writer", SinkBigqueryPlan, second_writer, "false",
               "go on although another instance loads the same jobs' rows"),
    {0},
};

static const Field sqlite_fields[] = {
    FIELD_STRING("path", SinkSqlitePlan, path, NULL, 1, 4000, 0, check_path,
                 "database file; bars.db in the state directory when absent"),
    FIELD_DURATION("flush", SinkSqlitePlan, flush_usec, "10s", SECOND, DAY, "how old rows get before they are stored"),
    {0},
};

static const Field ndjson_fields[] = {
    FIELD_STRING("path", SinkNdjsonPlan, path, "-", 1, 4000, 0, check_path_or_dash,
                 "directory of the files, or - for standard output"),
    FIELD_SIZE("rotate_size", SinkNdjsonPlan, rotate_size_bytes, "64MiB", 4096, UINT64_C(1) << 40,
               "a file is closed at that size"),
    FIELD_DURATION("rotate_age", SinkNdjsonPlan, rotate_age_usec, "1h", SECOND, 30 * DAY,
                   "a file is closed at that age"),
    FIELD_DURATION("flush", SinkNdjsonPlan, flush_usec, "10s", SECOND, DAY, "how old rows get before they are written"),
    FIELD_BOOL("gzip", SinkNdjsonPlan, gzip, "false", "compress closed files"),
    {0},
};

const Field sink_plan_fields[] = {
    FIELD_OBJECT_PTR("bigquery", SinkPlan, bigquery, SinkBigqueryPlan, bigquery_fields, NULL,
                     "load jobs into BigQuery"),
    FIELD_OBJECT_PTR("sqlite", SinkPlan, sqlite, SinkSqlitePlan, sqlite_fields, NULL, "a local database"),
    FIELD_OBJECT_PTR("ndjson", SinkPlan, ndjson, SinkNdjsonPlan, ndjson_fields, NULL, "files of JSON lines"),
    {0},
};
/* clang-format on */

void sink_plan_check(FieldContext *context, void *object)
{
    const SinkPlan *plan = object;

    if (!!plan->bigquery + !!plan->sqlite + !!plan->ndjson > 1)
        field_error(context, NULL, "one sink at most: bigquery, sqlite or ndjson");
}

/* --- Errands -------------------------------------------------------------------------------- */

#define ERRAND_BODY_MAX (1U << 20)

static void errand_init(Errand *e, ErrandKind kind)
{
    *e = (Errand){.kind = kind,
                  .bad_offset = SINK_OFFSET_UNKNOWN,
                  .body = BUF_INIT(ERRAND_BODY_MAX),
                  .tail = BUF_INIT(ERRAND_BODY_MAX)};
}

void errand_init_batch(Errand *e, const SinkBatch *batch, const SinkSource *source)
{
    errand_init(e, ERRAND_BATCH);
    e->batch = *batch;
    e->source = *source;
    e->table = batch->table;
}

void errand_init_table(Errand *e, SinkTable table)
{
    errand_init(e, ERRAND_TABLE);
    e->table = table;
}

void errand_init_jobs(Errand *e, uint64_t since_usec, bool finished_too)
{
    errand_init(e, ERRAND_JOBS);
    e->since_usec = since_usec;
    e->finished_too = finished_too;
}

void errand_init_keys(Errand *e, SinkTable table, const char *const *sources, uint64_t since_usec,
                      SinkKeyHandler on_key, void *userdata)
{
    errand_init(e, ERRAND_KEYS);
    e->table = table;
    e->sources = sources;
    e->since_usec = since_usec;
    e->on_key = on_key;
    e->on_key_userdata = userdata;
}

void errand_done(Errand *e)
{
    error_done(&e->error);
    free(e->url);
    free(e->job_id);
    buf_done(&e->body);
    buf_done(&e->tail);
    free(e->session);
    free(e->page);
    free(e->query_job);
    json_decref(e->schema);
    *e = (Errand){0};
}

/* Bytes that are damaged are so each time: what else fails may go well later. */
static ptrdiff_t source_failed(Errand *e, ptrdiff_t r)
{
    e->is_damaged = r == -EBADMSG;
    return e->is_damaged ? r : -EIO;
}

int errand_rewind(void *errand)
{
    Errand *e = errand;

    e->sent = 0;
    return 0;
}

/* One part of the body, at `at` within it. */
static size_t copy_part(const Buf *part, uint64_t at, void *data, size_t size)
{
    size_t n = MIN_OF(size, part->size - (size_t)at);

    memcpy(data, part->data + at, n);
    return n;
}

ptrdiff_t errand_read(void *data, size_t size, void *errand)
{
    Errand *e = errand;
    uint64_t head = e->body.size, rows = e->chunk_end - e->offset;
    ptrdiff_t n;

    if (e->sent < head) {
        n = (ptrdiff_t)copy_part(&e->body, e->sent, data, size);
    } else if (e->sent < head + rows) {
        uint64_t at = e->sent - head;

        e->is_damaged = false;
        n = at == 0 ? e->source.seek(e->source.userdata, e->offset) : 0;
        if (n < 0)
            return source_failed(e, n);
        n = e->source.read(data, (size_t)MIN_OF((uint64_t)size, rows - at), e->source.userdata);
        if (n <= 0) /* 0: the spool has fewer bytes than it said */
            return source_failed(e, n);
    } else if (e->sent < head + rows + e->tail.size) {
        n = (ptrdiff_t)copy_part(&e->tail, e->sent - head - rows, data, size);
    } else {
        return 0;
    }
    if (n > 0)
        e->sent += (uint64_t)n;
    return n;
}

/* --- The sink ------------------------------------------------------------------------------- */

static const char *const table_suffixes[] = {
    [SINK_TABLE_INTRADAY] = "intraday",
    [SINK_TABLE_DAILY] = "daily",
};

const char *sink_table_suffix(SinkTable table)
{
    return table_suffixes[table];
}

SinkTable sink_table_of_interval(const char *interval)
{
    Interval parsed;

    if (interval_parse(interval, &parsed) < 0)
        return SINK_TABLE_DAILY;
    return interval_is_intraday(&parsed) ? SINK_TABLE_INTRADAY : SINK_TABLE_DAILY;
}

void sink_label(char ret[static 64], const char *text)
{
    size_t n = 0;

    for (; *text && n < 63; text++) {
        unsigned char c = (unsigned char)*text;

        if (c >= 'A' && c <= 'Z')
            c = (unsigned char)(c - 'A' + 'a');
        ret[n++] = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ? (char)c : '_';
    }
    ret[n] = '\0';
}

char *sink_table_name(const Sink *sink, SinkTable table)
{
    return str_printf("%s_%s", sink->table, sink_table_suffix(table));
}

char *sink_job_id(const Sink *sink, const SinkBatch *batch)
{
    return str_printf("mervis_%s_%s_%s_%llu", sink->table, sink_table_suffix(batch->table),
                      batch->id, (unsigned long long)batch->attempt);
}

static int new_bigquery(const SinkBigqueryPlan *plan, const char *project, Sink *sink, Error *err)
{
    const char *chosen = plan->project ? plan->project : project;

    if (str_is_empty(chosen)) {
        (void)error_set(err, -EINVAL, ERROR_INVALID,
                        "sink bigquery: no project is named and the machine has none");
        return error_remedy(err, -EINVAL, "set sink.bigquery.project in the plan");
    }
    sink->ops = &sink_bigquery_load;
    sink->project = strdup(chosen);
    sink->dataset = strdup(plan->dataset);
    sink->table = strdup(plan->table);
    if (!sink->project || !sink->dataset || !sink->table ||
        str_set(&sink->location, plan->location) < 0)
        return error_oom(err);
    sink->schema = plan->schema;
    sink->second_writer = plan->second_writer;
    sink->flush_usec = plan->flush_usec;
    sink->max_rows = plan->max_rows;
    sink->max_bytes = plan->max_bytes;
    return 0;
}

static int new_ndjson(const SinkNdjsonPlan *plan, Sink *sink, Error *err)
{
    sink->ops = &sink_ndjson;
    sink->flush_usec = plan->flush_usec;
    return sink_ndjson_new(plan, &sink->local, err);
}

static int new_sqlite(const SinkSqlitePlan *plan, const char *default_dir, Sink *sink, Error *err)
{
    auto_free char *path =
        plan && plan->path ? strdup(plan->path) : path_join(default_dir, "bars.db");

    if (!path)
        return error_oom(err);
    sink->ops = &sink_sqlite;
    sink->flush_usec = plan ? plan->flush_usec : 10 * SECOND;
    return sink_sqlite_new(path, &sink->local, err);
}

int sink_new(const SinkPlan *plan, const char *default_dir, const char *project,
             const SinkIdentity *identity, Sink **ret, Error *err)
{
    auto_(sink_freep) Sink *sink = calloc(1, sizeof(*sink));
    int r;

    if (!sink)
        return error_oom(err);
    sink->identity = *identity;
    sink->max_rows = 100000;
    sink->max_bytes = 32U << 20;
    if (plan && plan->bigquery)
        r = new_bigquery(plan->bigquery, project, sink, err);
    else if (plan && plan->ndjson)
        r = new_ndjson(plan->ndjson, sink, err);
    else
        r = new_sqlite(plan ? plan->sqlite : NULL, default_dir, sink, err);
    if (r < 0)
        return r;

    *ret = take_ptr(sink);
    return 0;
}

Sink *sink_free(Sink *sink)
{
    if (!sink)
        return NULL;
    if (sink->ops && sink->ops->free)
        sink->ops->free(sink);
    free(sink->project);
    free(sink->dataset);
    free(sink->table);
    free(sink->location);
    free(sink);
    return NULL;
}
