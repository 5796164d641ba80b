/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_SPOOL_SPOOL_PRIVATE_H
#define CRAWLER_SPOOL_SPOOL_PRIVATE_H

/* For crawler/spool/ only. */

#include "crawler/spool/keys.h"
#include "crawler/spool/spool.h"

#define PARTITION_DAYS 40000 /* 1970 to 2079; what lies outside counts as a partition each time */

/* The open batch of one table, ahead of its row by what is not yet committed. */
typedef struct SpoolOpen {
    bool is_known; /* read from the database since the last rollback */
    bool is_dirty;
    SpoolBatch batch; /* number 0: none is open */
    uint8_t seen[PARTITION_DAYS / 8];
} SpoolOpen;

/* The chunk of keys in hand: rows come in order, so the next one is mostly in it, too. */
typedef struct SpoolChunk {
    Keys keys;
    int64_t series, number;
    bool loaded;
} SpoolChunk;

struct Spool {
    Db *db;
    SpoolChunk chunk;
    SpoolLimits limits;
    bool in_transaction;
    uint64_t losses;
    SpoolOpen open[SPOOL_TABLES];
    uint64_t disk_bytes, disk_at_usec; /* of the last look */
    unsigned accepted;                 /* documents since the last trim */
    Buf scratch;
    uint32_t *indices; /* rows of the document in hand that are new */
    size_t n_indices;
    int64_t series_id; /* last one that was looked up, and its names */
    char *series_source, *series_symbol, *series_interval;
};

int spool_begin(Spool *spool, Error *err) must_check;
/* Everything since the last commit is lost; whoever holds cursors must read them again. */
void spool_rollback(Spool *spool);

/* The open batch, made when there is none. */
int spool_batch_for_rows(Spool *spool, int table, int64_t now_usec, SpoolOpen **ret, Error *err)
    must_check;
int spool_batch_add_block(Spool *spool, SpoolOpen *open, const Row *rows, const uint32_t *indices,
                          size_t n, Error *err) must_check;
/* Writes rows, bytes and partitions of the open batches. */
int spool_open_save(Spool *spool, Error *err) must_check;
/* Writes the chunk in hand if it changed. */
int spool_chunk_save(Spool *spool, Error *err) must_check;
int spool_series(Spool *spool, const char *source, const char *symbol, const char *interval,
                 int64_t *ret, Error *err) must_check;
int spool_dead_add(Spool *spool, const char *job, const char *symbol, int64_t ts_usec,
                   const char *reason, const char *text, Error *err) must_check;
int spool_insert_batch(Spool *spool, SpoolBatch *batch, Error *err) must_check;

#endif
