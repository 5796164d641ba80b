/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_SINK_SINK_BIGQUERY_H
#define CRAWLER_SINK_SINK_BIGQUERY_H

/* What the errands of sink bigquery-load share. For crawler/sink/ and its tests only. */

#include "crawler/sink/sink.h"

#define BQ_HOST                 "https://bigquery.googleapis.com"
#define BQ_API                  BQ_HOST "/bigquery/v2/projects/"
#define BQ_UPLOAD               BQ_HOST "/upload/bigquery/v2/projects/"

/* Google's own client sends up to that much in one request, more in a session that can resume. */
#define BQ_MULTIPART_MAX        (5U << 20)
/* Chunks are multiples of 256 KiB. They are streamed from the spool, so a chunk costs no memory; it
 * bounds what a lost connection costs. */
#define BQ_CHUNK_UNIT           (256U << 10)
#define BQ_CHUNK                (32U * BQ_CHUNK_UNIT)

/* After "Already Exists" the job may be invisible for a while. */
#define BQ_CONFLICT_WINDOW_USEC (10 * MINUTE)
#define BQ_QUOTA_PAUSE_USEC     (10 * MINUTE)
#define BQ_QUOTA_PAUSE_MAX_USEC (2 * HOUR)
#define BQ_DENIED_PAUSE_USEC    (3 * MINUTE)

typedef enum BqAction {
    BQ_OK,
    BQ_RETRY,       /* the same again after a back-off; the outcome is unknown */
    BQ_NEW_ATTEMPT, /* the job failed for no fault of its content */
    BQ_QUOTA,       /* a long pause */
    BQ_DUPLICATE,   /* exists: read it */
    BQ_DENIED,      /* a person must grant something */
    BQ_NOT_FOUND,
    BQ_REFUSED, /* the content or the request is wrong */
    BQ_TOO_LARGE,
    BQ_TOKEN,
    BQ_PERMANENT,
} BqAction;

typedef struct BqFault {
    BqAction action;
    char reason[64];
    char *message; /* the peer's words, bounded and printable */
    char *remedy;  /* or NULL */
} BqFault;
void bq_fault_done(BqFault *fault);

/* The table of facts: by errors[0].reason first, then by status; defensive about HTML and empty
 * bodies. */
void bq_fault_of_reply(const HttpResponse *reply, const Error *failure, BqFault *ret);
/* An errorResult inside a job. */
void bq_fault_of_job(const json_t *error_result, BqFault *ret);
const char *bq_action_name(BqAction action);

/* Moves an errand on after a fault that is not special to its phase. */
void bq_retry(Errand *e, uint64_t at_least_usec);
void bq_pause(Errand *e, uint64_t usec, ErrorKind kind, const char *remedy, const char *format, ...)
    printf_like(5, 6);
void bq_settle_fault(const Sink *sink, Errand *e, const HttpResponse *reply, const BqFault *fault);

int bq_url(Errand *e, const char *format, ...) printf_like(2, 3);
/* A request to the errand's URL whose body is `value`, which is taken. 1, or -ENOMEM. */
int bq_json_request(Errand *e, HttpRequest *ret, const char *method, json_t *value);

int bq_batch_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err);
void bq_batch_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e);
int bq_table_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err);
void bq_table_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e);
int bq_jobs_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err);
void bq_jobs_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e);
int bq_keys_next(const Sink *sink, Errand *e, HttpRequest *ret, Error *err);
void bq_keys_judge(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e);

/* "STRING", "NUMERIC", … of one of our columns. */
const char *bq_column_type(RowColumnType type);
/* The query of view <table>_latest: of each bar its last revision. free() */
char *bq_view_query(const Sink *sink);

#endif
