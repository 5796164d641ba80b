/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl doctor: where the crawler's rows go. A query that is only planned shows that jobs may be
 * run; dataset and tables are read; whether rows may be written is asked. */

#include <errno.h>

#include "agent/agentctl/doctor-internal.h"
#include "agent/base/str.h"
#include "agent/io/json.h"

#define API             "https://bigquery.googleapis.com/bigquery/v2/projects/"
#define API_NAME        "bigquery.googleapis.com"
#define ROLE_JOB        "roles/bigquery.jobUser"
#define ROLE_DATA       "roles/bigquery.dataEditor"
#define MAY_WRITE       "bigquery.tables.updateData"
#define MISSING_MAX     1024
#define TABLE_SUFFIX(i) ((const char *const[]){"intraday", "daily"}[(i)])
#define TABLES          2

/* clang-format off */
const TableColumn table_columns[] = {
    {"source",      "STRING",     NULL},
    {"symbol",      "STRING",     NULL},
    {"venue",       "STRING",     NULL},
    {"currency",    "STRING",     NULL},
    {"interval",    "STRING",     NULL},
    {"kind",        "STRING",     NULL},
    {"ts",          "TIMESTAMP",  NULL},
    {"trade_date",  "DATE",       NULL},
    {"tz",          "STRING",     NULL},
    {"session",     "STRING",     NULL},
    {"open",        "NUMERIC",    "DECIMAL"},
    {"high",        "NUMERIC",    "DECIMAL"},
    {"low",         "NUMERIC",    "DECIMAL"},
    {"close",       "NUMERIC",    "DECIMAL"},
    {"volume",      "BIGNUMERIC", "BIGDECIMAL"},
    {"adj_close",   "NUMERIC",    "DECIMAL"},
    {"amount",      "NUMERIC",    "DECIMAL"},
    {"ratio_num",   "NUMERIC",    "DECIMAL"},
    {"ratio_den",   "NUMERIC",    "DECIMAL"},
    {"is_final",    "BOOLEAN",    "BOOL"},
    {"revision",    "INTEGER",    "INT64"},
    {"ingested_at", "TIMESTAMP",  NULL},
    {"batch_id",    "STRING",     NULL},
    {NULL, NULL, NULL},
};
/* clang-format on */

/* ---- Where ---- */

typedef struct Where {
    const char *project, *dataset, *table;
} Where;

static Where where(const Doctor *doctor)
{
    const json_t *sink =
        doctor->plan ? json_at(doctor->plan->crawl, "sink", "bigquery", NULL) : NULL;
    Where w = {json_str(sink, "project"), json_str(sink, "dataset"), json_str(sink, "table")};

    if (!w.project)
        w.project = vm_project(doctor);
    if (!w.table)
        w.table = "bars"; /* the sink's own default */
    return w;
}

const char *bigquery_host(const Doctor *doctor)
{
    return is_cloud_vm(doctor) && doctor->plan &&
                   json_at(doctor->plan->crawl, "sink", "bigquery", NULL)
               ? API_NAME
               : NULL;
}

static int judge(const Doctor *doctor, const HttpResponse *response, const char *what,
                 const char *permission, const char *role, Error *err)
{
    auto_free char *grant =
        str_printf("gcloud projects add-iam-policy-binding %s", where(doctor).project);
    const CloudNeed need = {
        .what = what, .api = API_NAME, .permission = permission, .role = role, .grant = grant};

    return cloud_judge(doctor->cloud, response, &need, err);
}

static int call(Probe *probe, const char *url, json_t *body, CloudHttpHandler handler, Error *err)
{
    static const HttpHeader headers[] = {{"Content-Type", "application/json; charset=UTF-8"}};
    json_auto_t *owned = body;
    auto_free char *text = owned ? json_text(owned, false) : NULL;
    const HttpRequest request = {.url = url,
                                 .headers = headers,
                                 .n_headers = text ? 1 : 0,
                                 .body = text,
                                 .body_size = text ? strlen(text) : 0,
                                 .copy_body = true,
                                 .connect_timeout_usec = DOCTOR_CONNECT_USEC,
                                 .try_timeout_usec = DOCTOR_ANSWER_USEC};

    probe->cloud_op = cloud_op_free(probe->cloud_op);
    return cloud_http(probe->doctor->cloud, &request, handler, probe, &probe->cloud_op, err);
}

static void call_or_fail(Probe *probe, char *url, json_t *body, CloudHttpHandler handler)
{
    auto_free char *owned = url;
    auto_error Error err = {0};

    if (!owned) {
        json_decref(body);
        probe_failed(probe, (error_oom(&err), &err), NULL);
        return;
    }
    probe_began(probe, call(probe, owned, body, handler, &err), &err);
}

/* ---- Jobs ---- */

static void on_job(const HttpResponse *response, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    auto_error Error failure = {0};

    if (err)
        probe_failed(probe, err, NULL);
    else if (judge(probe->doctor, response, "BigQuery jobs", "bigquery.jobs.create", ROLE_JOB,
                   &failure) < 0)
        probe_failed(probe, &failure, NULL);
    else
        probe_ok(probe, "may be run in project %s", where(probe->doctor).project);
}

static void check_jobs(Doctor *doctor)
{
    Probe *probe = probe_new(doctor, "bigquery-jobs");

    if (probe && cloud_is_ready(doctor, probe))
        call_or_fail(
            probe, str_printf(API "%s/queries", where(doctor).project),
            json_pack("{s:s, s:b, s:b}", "query", "SELECT 1", "useLegacySql", 0, "dryRun", 1),
            on_job);
}

/* ---- Tables ---- */

static void on_permissions(const HttpResponse *response, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    json_auto_t *answer = NULL;
    auto_free char *remedy = NULL;
    const CloudIdentity *identity = cloud_identity_peek(probe->doctor->cloud);
    const json_t *item;
    size_t i;

    if (err || response->status != 200 ||
        json_parse_quiet(buf_str(&response->body), response->body.size, &answer) <= 0) {
        probe_ok(probe, "has all our columns");
        return;
    }
    json_array_foreach (json_object_get(answer, "permissions"), i, item)
        if (json_is_string(item) && streq(json_string_value(item), MAY_WRITE)) {
            probe_ok(probe, "has all our columns, and may be written to");
            return;
        }
    remedy =
        str_printf("gcloud projects add-iam-policy-binding %s --member=serviceAccount:%s "
                   "--role=" ROLE_DATA,
                   where(probe->doctor).project, identity ? identity->service_account : "ACCOUNT");
    probe_wrong(probe, remedy, "the service account may not write rows (" MAY_WRITE ")");
}

/* 1 when the line has been said: a column is missing, or of another type. */
static int judge_columns(Probe *probe, const json_t *table)
{
    const json_t *fields = json_at(table, "schema", "fields", NULL);
    Where w = where(probe->doctor);
    auto_buf Buf missing = BUF_INIT(MISSING_MAX);
    auto_free char *remedy = NULL;

    for (const TableColumn *column = table_columns; column->name; column++) {
        const json_t *field = json_find(fields, "name", column->name);
        const char *type = json_str(field, "type");

        if (!field) {
            if (buf_printf(&missing, "%sADD COLUMN %s %s", missing.size > 0 ? ", " : "",
                           column->name, column->type) < 0)
                probe->doctor->memory_is_out = true;
            continue;
        }
        if (streq_ptr(type, column->type) ||
            (column->other_type && streq_ptr(type, column->other_type)))
            continue;
        probe_wrong(probe, "name another \"table\" in the plan's sink: types cannot be changed",
                    "its column %s is %s, and %s is needed", column->name, type ? type : "?",
                    column->type);
        return 1;
    }
    if (missing.size == 0)
        return 0;
    remedy =
        str_printf("bq query --use_legacy_sql=false --project_id=%s 'ALTER TABLE `%s.%s.%s` %s'",
                   w.project, w.project, w.dataset, probe->subject, buf_str(&missing));
    probe_wrong(probe, remedy, "columns are missing, so that the table is paused");
    return 1;
}

static void on_table(const HttpResponse *response, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    Where w = where(probe->doctor);
    auto_error Error failure = {0};
    json_auto_t *table = NULL;

    if (err) {
        probe_failed(probe, err, NULL);
        return;
    }
    if (response->status == 404) {
        probe_ok(probe, "is not there yet: crawlerd makes it");
        return;
    }
    if (judge(probe->doctor, response, probe->id, "bigquery.tables.get", ROLE_DATA, &failure) < 0) {
        probe_failed(probe, &failure, NULL);
        return;
    }
    if (json_parse(buf_str(&response->body), response->body.size, probe->id, &table, &failure) <
        0) {
        probe_failed(probe, &failure, NULL);
        return;
    }
    if (judge_columns(probe, table) == 0)
        call_or_fail(probe,
                     str_printf(API "%s/datasets/%s/tables/%s:testIamPermissions", w.project,
                                w.dataset, probe->subject),
                     json_pack("{s:[s]}", "permissions", MAY_WRITE), on_permissions);
}

/* ---- The dataset, and then its tables ---- */

static void check_tables(Doctor *doctor, bool dataset_is_there)
{
    Where w = where(doctor);

    for (size_t i = 0; i < TABLES; i++) {
        auto_free char *name = str_printf("%s_%s", w.table, TABLE_SUFFIX(i));
        Probe *probe = name ? probe_new(doctor, "table.%s", name) : NULL;

        if (!probe) {
            doctor->memory_is_out = true;
            return;
        }
        probe->subject = take_ptr(name);
        if (!dataset_is_there)
            probe_skip(probe, "not looked at: the dataset is wrong");
        else
            call_or_fail(
                probe,
                str_printf(API "%s/datasets/%s/tables/%s", w.project, w.dataset, probe->subject),
                NULL, on_table);
    }
}

static void on_dataset(const HttpResponse *response, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    Doctor *doctor = probe->doctor;
    Where w = where(doctor);
    auto_error Error failure = {0};
    auto_free char *remedy = NULL;
    bool there = !err && response->status == 200;

    check_tables(doctor, there);
    if (there) {
        probe_ok(probe, "%s:%s is there", w.project, w.dataset);
    } else if (err) {
        probe_failed(probe, err, NULL);
    } else if (response->status == 404) {
        remedy = str_printf("bq --location=%s mk --dataset %s:%s", vm_region(doctor), w.project,
                            w.dataset);
        probe_wrong(probe, remedy, "%s:%s does not exist, or may not be seen", w.project,
                    w.dataset);
    } else if (judge(doctor, response, "the dataset", "bigquery.datasets.get", ROLE_DATA,
                     &failure) < 0) {
        probe_failed(probe, &failure, NULL);
    } else {
        probe_wrong(probe, NULL, "HTTP %ld", response->status);
    }
}

void check_bigquery(Doctor *doctor)
{
    Where w = where(doctor);
    Probe *probe;

    if (!w.dataset)
        return;
    check_jobs(doctor);
    probe = probe_new(doctor, "dataset");
    if (probe && cloud_is_ready(doctor, probe))
        call_or_fail(probe, str_printf(API "%s/datasets/%s", w.project, w.dataset), NULL,
                     on_dataset);
}
