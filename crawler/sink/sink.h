/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_SINK_SINK_H
#define CRAWLER_SINK_SINK_H

/* A sink delivers frozen batches. It owns no socket, timer or retry: next() says which request an
 * errand needs now, the pipeline sends it with credentials, judge() reads the reply and moves the
 * errand on. Both are pure, so every reply we ever got is a unit test and a fuzz seed.
 *
 * Local sinks (files, a database) have store() instead: they take a whole batch at once. */

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"
#include "agent/io/fields.h"
#include "agent/io/http.h"
#include "agent/io/json.h"
#include "crawler/model/bar.h"

typedef struct Sink Sink;
typedef struct SinkOps SinkOps;

/* The two tables of `"table": "bars"`. Intraday rows are partitioned by DAY of trade_date, daily
 * and longer ones by MONTH: fifty years of daily bars in DAY partitions would be 12,600 partitions,
 * over the limits per table and per job. */
typedef enum SinkTable {
    SINK_TABLE_INTRADAY,
    SINK_TABLE_DAILY,
    SINK_TABLE_MAX,
} SinkTable;

const char *sink_table_suffix(SinkTable table); /* "intraday", "daily" */
SinkTable sink_table_of_interval(const char *interval);

/* The plan's `sink` part: at most one member is set; none means sqlite in the state directory. */
typedef enum SinkSchema {
    SINK_SCHEMA_FIXED,  /* a missing column pauses the table */
    SINK_SCHEMA_EXTEND, /* a missing column is added, NULLABLE */
} SinkSchema;

typedef struct SinkBigqueryPlan {
    char *project; /* NULL: the VM's own */
    char *dataset;
    char *table;
    char *location; /* NULL: the dataset's */
    uint64_t flush_usec;
    uint64_t max_rows, max_bytes; /* of a batch */
    int schema;                   /* SinkSchema */
    bool second_writer;           /* another instance may load the same job set */
} SinkBigqueryPlan;

typedef struct SinkSqlitePlan {
    char *path; /* NULL: <state-dir>/bars.db */
    uint64_t flush_usec;
} SinkSqlitePlan;

typedef struct SinkNdjsonPlan {
    char *path; /* a directory, or "-" for standard output */
    uint64_t rotate_size_bytes;
    uint64_t rotate_age_usec;
    uint64_t flush_usec;
    bool gzip;
} SinkNdjsonPlan;

typedef struct SinkPlan {
    SinkBigqueryPlan *bigquery;
    SinkSqlitePlan *sqlite;
    SinkNdjsonPlan *ndjson;
} SinkPlan;

extern const Field sink_plan_fields[];
void sink_plan_check(FieldContext *context, void *object);

/* What an errand wants to achieve. */
typedef enum ErrandKind {
    ERRAND_BATCH, /* deliver one frozen batch */
    ERRAND_TABLE, /* make sure that dataset, table, columns (and the view) are there */
    ERRAND_JOBS,  /* list load jobs of our job set: pending ones, or another writer's */
    ERRAND_KEYS,  /* read the keys that the table has in the look-back window */
} ErrandKind;

typedef enum ErrandState {
    ERRAND_ASKING,    /* next() has a request, after wait_usec */
    ERRAND_DONE,      /* reached */
    ERRAND_NEXT_TRY,  /* batch: the job is known to have failed and written nothing: a new attempt
                         (a new job id) may begin after wait_usec */
    ERRAND_BAD_ROW,   /* batch: the row at bad_offset (SINK_OFFSET_UNKNOWN: one of them) is refused
                         by the table; nothing was written */
    ERRAND_TOO_LARGE, /* batch: refused as a whole for its size; no job was made: halve it */
    ERRAND_PAUSED,    /* nothing was lost; not to be tried before wait_usec, a person may have to
                         act: `error` says what and how */
    ERRAND_WRONG,     /* batch: done, but what the table took contradicts what was sent, or
                         damaged and not to be sent: keep it, say it, do not repeat */
} ErrandState;

#define SINK_OFFSET_UNKNOWN UINT64_MAX

/* Where the bytes of a batch come from; the same bytes each time. */
typedef struct SinkSource {
    int (*seek)(void *userdata, uint64_t offset);
    ptrdiff_t (*read)(void *data, size_t size, void *userdata);
    void *userdata;
} SinkSource;

/* A frozen batch, as its sink sees it. Borrowed from the spool's record. */
typedef struct SinkBatch {
    char id[40]; /* unique over all instances and times */
    SinkTable table;
    uint64_t rows;
    uint64_t bytes;  /* of the encoded body */
    char sha256[65]; /* of the content */
    uint64_t attempt;
    bool asked; /* a request with this job id may have reached the server before */
} SinkBatch;

typedef struct Errand Errand;

/* One key that the table already has. */
typedef struct SinkKey {
    const char *source, *symbol, *interval, *kind;
    int64_t ts_usec;
    uint64_t revision; /* the highest one */
    bool is_final;     /* one of the revisions was */
} SinkKey;
typedef int (*SinkKeyHandler)(const SinkKey *key, void *userdata);

struct Errand {
    ErrandKind kind;
    ErrandState state;
    uint64_t wait_usec; /* before the next request, or before trying again */
    Error error;        /* why it waits, pauses or failed */
    bool recheck_table; /* the table may be gone or changed: run ERRAND_TABLE before going on */

    SinkBatch batch; /* ERRAND_BATCH */
    SinkSource source;
    SinkTable table;     /* ERRAND_TABLE, ERRAND_KEYS */
    uint64_t bad_offset; /* where the bad row begins in the body */
    uint64_t output_rows;

    uint64_t since_usec;     /* ERRAND_JOBS, ERRAND_KEYS: wall clock */
    uint64_t now_usec;       /* wall clock, set by the pipeline before next() and judge() */
    bool finished_too;       /* ERRAND_JOBS: looking for another writer, finished ones count */
    uint64_t jobs_pending;   /* ERRAND_JOBS: of our job set, whoever sent them */
    bool has_other_writer;   /* another instance that began before us loads our job set */
    char other_instance[64]; /* its label */
    SinkKeyHandler on_key;   /* ERRAND_KEYS */
    void *on_key_userdata;
    const char *const *sources; /* ERRAND_KEYS: of the plan's jobs, NULL-terminated */

    /* Private to the sink. */
    int phase;
    char *url;
    char *job_id;
    Buf body;      /* what precedes the rows, or the whole body */
    Buf tail;      /* what follows them */
    char *session; /* of a resumable upload: a bearer secret, never logged */
    char *page;    /* token of the next page */
    char *query_job;
    json_t *schema;             /* the fields that the table has, to extend */
    uint64_t offset, chunk_end; /* of the rows: this request sends [offset, chunk_end) */
    uint64_t sent;              /* of this request's body */
    uint64_t missing_until_usec;
    unsigned tries, polls, pauses;
    bool saw_conflict;
    bool is_unsure;    /* of a load: the server may have made its job and not told us */
    bool is_too_large; /* … and refuses it now */
    bool is_damaged;   /* its rows cannot be read */
    HttpHeader headers[4];
    char header_text[2][96];
};

/* For HttpRequest.read and .rewind: the errand is what the pipeline gives http_start() as userdata.
 */
ptrdiff_t errand_read(void *data, size_t size, void *errand);
int errand_rewind(void *errand);

void errand_init_batch(Errand *e, const SinkBatch *batch, const SinkSource *source);
void errand_init_table(Errand *e, SinkTable table);
void errand_init_jobs(Errand *e, uint64_t since_usec, bool finished_too);
void errand_init_keys(Errand *e, SinkTable table, const char *const *sources, uint64_t since_usec,
                      SinkKeyHandler on_key, void *userdata);
void errand_done(Errand *e);

/* Whom the rows come from: labels of jobs. */
typedef struct SinkIdentity {
    char instance[64]; /* lower case, digits, - and _: a label value */
    char jobset[64];   /* hash of what is crawled: the same for every VM with the same plan */
    uint64_t started_usec;
} SinkIdentity;

/* Rows of a batch, one after the other: 1 a row, 0 the end. For local sinks. */
typedef int (*SinkRowNext)(void *userdata, Row *ret, Error *err);

struct SinkOps {
    const char *name; /* "bigquery-load": in state and metrics; never renamed */
    bool is_local;

    /* Fill `ret` with the next request and return 1, or return 0 when there is nothing to ask.
     * Strings and bodies in `ret` belong to the errand. */
    int (*next)(const Sink *sink, Errand *e, HttpRequest *ret, Error *err);
    /* Reads the reply (status 0: none came, `failure` says why) and moves the errand on. Read the
     * body: a 200 can still refuse. */
    void (*judge)(Sink *sink, const HttpResponse *reply, const Error *failure, Errand *e);

    /* Local sinks: takes the whole batch, exactly once however often it is called with it. */
    int (*store)(Sink *sink, const SinkBatch *batch, SinkRowNext next_row, void *userdata,
                 Error *err);
    /* Closes what is open (rotated files); called at flush and stop. */
    int (*flush)(Sink *sink, Error *err);
    void (*free)(Sink *sink);
};

struct Sink {
    const SinkOps *ops;
    SinkIdentity identity;
    uint64_t flush_usec;
    uint64_t max_rows, max_bytes; /* of a batch */
    /* bigquery-load */
    char *project, *dataset, *table, *location;
    int schema;
    bool second_writer;
    /* local sinks: their own object */
    void *local;
};

/* `plan` is borrowed during the call; `default_dir` is where sqlite goes without a path. The
 * project of the VM is used where the plan names none (NULL: then bigquery needs one). */
int sink_new(const SinkPlan *plan, const char *default_dir, const char *project,
             const SinkIdentity *identity, Sink **ret, Error *err) must_check;
Sink *sink_free(Sink *sink);
DEFINE_AUTO(Sink, sink_free)

/* "bars_daily"; free(). */
char *sink_table_name(const Sink *sink, SinkTable table);
/* mervis_<table>_<batch>_<attempt>: stored before the first byte is sent. free() */
char *sink_job_id(const Sink *sink, const SinkBatch *batch);
/* Text reduced to what a label value may hold: lower case, digits, '-', '_', at most 63. */
void sink_label(char ret[static 64], const char *text);

#endif
