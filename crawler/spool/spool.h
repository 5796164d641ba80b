/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_SPOOL_SPOOL_H
#define CRAWLER_SPOOL_SPOOL_H

/* The crawler's disk: rows on their way to the sink, how far each symbol is read, what was
 * delivered (so that a bar read again is no second row), and what could not be used. One SQLite
 * database; a fetched document's rows and its cursor are one transaction.
 *
 * A row's way: spool_accept() puts it into the open batch of its table. spool_freeze() closes the
 * batch: from then on its members, size and hash never change. A sink delivers it under a job id
 * that is stored before the first byte; spool_delivered() removes rows and batch in one
 * transaction. Until then nothing leaves.
 *
 * Documents that arrive together share a transaction: spool_sync() ends it. Whatever has an effect
 * outside (freezing, attempts, delivery) is durable when its function returns. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"
#include "agent/io/db.h"
#include "crawler/fetch/memory.h"
#include "crawler/model/bar.h"
#include "crawler/model/cursor.h"

typedef struct Spool Spool;

#define SPOOL_TABLES            2 /* intraday and daily rows go to tables of their own */
#define SPOOL_BATCH_ID_SIZE     22
#define SPOOL_DEAD_MAX          10000
#define SPOOL_REFUSED_MAX       200
#define SPOOL_REFUSED_BYTES_MAX (32U << 20)

typedef struct SpoolLimits {
    uint64_t max_bytes;  /* of the database: beyond it spool_is_full() */
    uint64_t batch_rows; /* a batch that has that many is frozen, whatever its age */
    uint64_t batch_bytes;
    uint64_t batch_partitions; /* and one that touches that many partitions */
} SpoolLimits;

#define SPOOL_LIMITS_DEFAULT                                                                       \
    ((SpoolLimits){.max_bytes = UINT64_C(512) << 20,                                               \
                   .batch_rows = 250000,                                                           \
                   .batch_bytes = UINT64_C(96) << 20,                                              \
                   .batch_partitions = 3000})

/* A spool that cannot be read is moved aside and a new one begun; `*ret_aside` is then where the
 * old one is (free()), else NULL. */
int spool_open(const char *path, const SpoolLimits *limits, Spool **ret, char **ret_aside,
               Error *err) must_check;
Spool *spool_close(Spool *spool);
DEFINE_AUTO(Spool, spool_close)
void spool_set_limits(Spool *spool, const SpoolLimits *limits);

/* Commits what was accepted since the last commit. */
int spool_sync(Spool *spool, Error *err) must_check;
/* How often something that was accepted was lost again, because a commit failed: whoever sees the
 * number change must read cursors anew. */
uint64_t spool_losses(const Spool *spool);
/* Whether a transaction waits for spool_sync(). */
bool spool_is_dirty(const Spool *spool);
/* Writes the log back into the database, and gives free pages back when there are many, or when
 * `shrink`: between batches, at stop. */
void spool_tidy(Spool *spool, bool shrink);

/* Values of intraday bars that are older than SPOOL_VALUES_USEC are forgotten, a few series a call;
 * that the bars are there is not: it is what keeps them from being delivered twice. spool_tidy()
 * calls it. */
#define SPOOL_VALUES_USEC (UINT64_C(14) * 24 * 3600 * 1000000)
int spool_compact(Spool *spool, int64_t now_usec, Error *err) must_check;

FetchMemory spool_fetch_memory(Spool *spool);

/* --- Documents ------------------------------------------------------------------------------ */

typedef struct SpoolDocument {
    const char *job, *symbol, *range; /* of the cursor; range "" for polling */
    const Cursor *cursor;             /* NULL: none to be moved */
    RowSet *rows;                     /* ingested_usec and revision are filled in */
    bool live;                        /* bars that are not final are wanted too */
    bool is_old; /* replayed: a bar that is known was fetched later, and stands; but a final value
                  * wins over those of while the bar was made */
    int (*table_of)(const char *interval); /* 0 … SPOOL_TABLES - 1 */
    int64_t now_usec;
} SpoolDocument;

typedef struct SpoolAccepted {
    uint64_t rows;      /* new */
    uint64_t revisions; /* … of which say something else than before */
    uint64_t known;     /* were there already */
    uint64_t not_final; /* not wanted yet */
    uint64_t dead;
} SpoolAccepted;

/* Rows, dead rows and cursor, all or nothing. -ENOSPC is TEMPORARY: nothing was taken. */
int spool_accept(Spool *spool, const SpoolDocument *document, SpoolAccepted *ret, Error *err)
    must_check;
/* The sink has this row already, with values unknown: the next observation is taken as those; but
 * where none was final, a final one is the next revision. */
int spool_add_known(Spool *spool, const char *source, const char *symbol, const char *interval,
                    RowKind kind, int64_t ts_usec, uint32_t revision, bool is_final, Error *err)
    must_check;
int spool_cursor_save(Spool *spool, const char *job, const char *symbol, const char *range,
                      const Cursor *cursor, Error *err) must_check; /* NULL forgets it */

/* A document that extract refused, kept for a replay after a fix. The oldest go when there are too
 * many or they are too large. */
typedef struct SpoolRefused {
    int64_t id;
    const char *job, *symbol, *interval, *content_type, *reason;
    int64_t status, at_usec, from_usec, to_usec;
    const void *body;
    size_t size;
} SpoolRefused;
int spool_refuse(Spool *spool, const SpoolRefused *document, Error *err) must_check;
typedef int (*SpoolRefusedHandler)(const SpoolRefused *document, void *userdata);
/* Oldest first and without bodies; newest first, with them. A negative return of the handler ends
 * it.
 */
int spool_each_refused(Spool *spool, SpoolRefusedHandler handler, void *userdata, Error *err)
    must_check;
int spool_each_refused_body(Spool *spool, SpoolRefusedHandler handler, void *userdata, Error *err)
    must_check;
int spool_forget_refused(Spool *spool, int64_t id, Error *err) must_check;

typedef struct SpoolDead {
    int64_t id, at_usec, ts_usec; /* ts INT64_MIN: unknown */
    const char *job, *symbol, *reason, *text;
} SpoolDead;
typedef int (*SpoolDeadHandler)(const SpoolDead *dead, void *userdata);
int spool_each_dead(Spool *spool, SpoolDeadHandler handler, void *userdata, Error *err) must_check;
int spool_forget_dead(Spool *spool, Error *err) must_check;

/* --- Batches -------------------------------------------------------------------------------- */

typedef enum SpoolBatchState {
    SPOOL_BATCH_OPEN,
    SPOOL_BATCH_FROZEN,
    SPOOL_BATCH_WRONG, /* damaged, or the sink's account contradicts ours: kept for a person */
} SpoolBatchState;

typedef struct SpoolBatch {
    int64_t number;                   /* in this spool */
    char id[SPOOL_BATCH_ID_SIZE + 1]; /* in the world: a new disk never repeats it */
    int table;
    SpoolBatchState state;
    uint64_t rows, bytes; /* bytes as JSON lines */
    uint64_t partitions;  /* at most that many */
    int64_t opened_usec, frozen_usec;
    char sha256[65];  /* of the blocks; "" while open */
    uint64_t attempt; /* 1 for the first */
    bool asked;       /* a request of this attempt may have left */
} SpoolBatch;

/* The open batch of the table: 1, or 0 when it has none. */
int spool_open_batch(Spool *spool, int table, SpoolBatch *ret, Error *err) must_check;
/* Freezes it: 1, or 0 when there is nothing to freeze. */
int spool_freeze(Spool *spool, int table, Error *err) must_check;
/* Frozen batches, oldest first, after `number`: 1, or 0 when there is none. */
int spool_next_frozen(Spool *spool, int64_t after, SpoolBatch *ret, Error *err) must_check;
/* Before the first request of an attempt: durable. */
int spool_batch_asked(Spool *spool, SpoolBatch *batch, Error *err) must_check;
/* The job of this attempt is known to have failed and written nothing. */
int spool_batch_next_attempt(Spool *spool, SpoolBatch *batch, Error *err) must_check;
/* All of it is in the sink: batch and rows go. */
int spool_delivered(Spool *spool, const SpoolBatch *batch, Error *err) must_check;
int spool_batch_wrong(Spool *spool, const SpoolBatch *batch, Error *err) must_check;
/* The job failed on a row, writing nothing: the row that lies at `offset` of the JSON lines goes to
 * the dead letters, the others become a new batch. With an unknown offset (UINT64_MAX) or for a
 * batch that is too large: two new batches, halves; a single row becomes a dead letter. The old
 * batch is gone afterwards. */
int spool_repair(Spool *spool, const SpoolBatch *batch, uint64_t offset, const char *reason,
                 Error *err) must_check;

/* The JSON lines of a frozen batch, as a stream that can be sought: memory is one block. `userdata`
 * is the reader: these are callbacks of a sink. */
typedef struct SpoolReader SpoolReader;
int spool_reader_new(Spool *spool, const SpoolBatch *batch, SpoolReader **ret, Error *err)
    must_check;
int spool_reader_seek(void *userdata, uint64_t offset);
ptrdiff_t spool_reader_read(void *data, size_t size, void *userdata);
/* The rows instead: 1 a row, 0 the end. Strings live until the next call. */
int spool_reader_row(void *userdata, Row *ret, Error *err);
SpoolReader *spool_reader_free(SpoolReader *reader);
DEFINE_AUTO(SpoolReader, spool_reader_free)

/* --- Questions ------------------------------------------------------------------------------ */

typedef struct SpoolStatus {
    uint64_t rows, bytes; /* not yet delivered */
    uint64_t disk_bytes;
    uint64_t batches_open, batches_frozen, batches_wrong;
    uint64_t refused, dead;
    int64_t oldest_usec;     /* 0: nothing waits */
    uint64_t rows_delivered; /* since the state began */
    int64_t last_delivery_usec;
} SpoolStatus;
int spool_status(Spool *spool, SpoolStatus *ret, Error *err) must_check;
/* Of what is on disk; where that is too much, first what is kept for speed alone is given back. */
bool spool_is_full(Spool *spool);
/* How much a table was asked to do in the UTC day of `now`: each load attempt counts. */
typedef struct SpoolDay {
    uint64_t loads, partitions, repairs;
} SpoolDay;
int spool_day(Spool *spool, int table, int64_t now_usec, SpoolDay *ret, Error *err) must_check;
/* Whether nothing is known at all: an empty disk. */
int spool_is_new(Spool *spool, Error *err) must_check;

/* Texts and counters of the daemon. */
int spool_text_save(Spool *spool, const char *name, const char *text, Error *err) must_check;
int spool_text_load(Spool *spool, const char *name, char **ret, Error *err) must_check;
int spool_count(Spool *spool, const char *name, uint64_t add, Error *err) must_check;
int spool_counter(Spool *spool, const char *name, uint64_t *ret, Error *err) must_check;

#endif
