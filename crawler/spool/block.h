/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_SPOOL_BLOCK_H
#define CRAWLER_SPOOL_BLOCK_H

/* Rows of one series as bytes. What all rows of a document share (source, symbol, venue, currency,
 * interval, zone, time of ingestion) is said once, the rest as differences to the row before: a
 * minute bar is about nine bytes where its JSON line is 370, so a document is half a page. Blocks
 * become JSON lines only on their way out. Bytes are checked when read, by their sum: a damaged
 * block is -EBADMSG, never a wrong row. */

#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "crawler/model/bar.h"

#define BLOCK_ROWS_MAX   4096
#define BLOCK_BYTES_MAX  (4U << 20)

/* The columns of a block, in their order on disk and in the lines. */
#define BLOCK_STRINGS(X) X(source) X(symbol) X(venue) X(currency) X(interval) X(tz)
#define BLOCK_AMOUNTS(X)                                                                           \
    X(open) X(high) X(low) X(close) X(volume) X(adj_close) X(amount) X(ratio_num) X(ratio_den)

/* Appends the block of rows[indices[0…n)] to `ret`; all of one source, symbol, venue, currency,
 * interval, zone and ingested_usec (block_rows_agree()), n at most BLOCK_ROWS_MAX. */
int block_encode(const Row *rows, const uint32_t *indices, size_t n, Buf *ret) must_check;
bool block_rows_agree(const Row *a, const Row *b);
/* What ends a block, of the bytes in front of it. */
uint64_t block_sum(const void *data, size_t size);

/* What a row is told from: the ones before it. Writer and reader keep it alike. */
#define BLOCK_COLUMNS 9
typedef struct BlockPast {
    uint8_t flags; /* the writer's alone */
    uint16_t present;
    int64_t ts, step; /* in units */
    int32_t date;
    int64_t last[BLOCK_COLUMNS];   /* amounts at the scale of their kind */
    uint8_t scales[BLOCK_COLUMNS]; /* by kind */
} BlockPast;

/* Reads rows one after the other; their strings live as long as the reader. */
typedef struct BlockReader {
    const uint8_t *data;
    size_t size, at;
    uint32_t n_rows, next;
    int64_t unit_usec;
    BlockPast past;
    Row row; /* the one in hand: each is read over the one before */
    char *strings;
} BlockReader;

int block_open(BlockReader *reader, const void *data, size_t size) must_check;
/* The next row into reader->row: 1, 0 at the end, -EBADMSG. block_next() copies it, too. */
int block_step(BlockReader *reader) must_check;
int block_next(BlockReader *reader, Row *ret) must_check;
void block_close(BlockReader *reader);
#define auto_block          auto_(block_close)

/* --- JSON lines, as the sinks get them (block-lines.c) --------------------------------------- */

#define BLOCK_BATCH_ID_SIZE 22

/* What lines share, made anew where rows stop sharing it. */
typedef struct BlockFrame {
    char batch_id[BLOCK_BATCH_ID_SIZE + 1];
    Buf like; /* of the block: source to zone */
    int64_t ingested_usec;
    Buf head, middle, tail; /* of rows of one day and … */
    int64_t from_usec, to_usec;
    int32_t trade_date;
    uint32_t revision;
    RowKind kind;
    Session session;
    bool is_final;
} BlockFrame;

/* A block on its way out; its bytes must stay. */
typedef struct BlockLines {
    BlockReader rows;
    BlockFrame frame;
    bool in_hand; /* a row that was read and had no room */
} BlockLines;

/* With that batch id (BLOCK_BATCH_ID_SIZE bytes long, always). Nulls are left out: absent means
 * null. */
int block_lines_open(BlockLines *lines, const void *data, size_t size, const char *batch_id)
    must_check;
/* Whole lines into `data`, as long as the next one surely fits: their bytes, 0 at the end, -ENOBUFS
 * when not even the first one does, -EBADMSG. */
ptrdiff_t block_lines_read(BlockLines *lines, char *data, size_t size) must_check;
/* After -ENOBUFS: room in which the line in hand surely fits. */
size_t block_lines_room(const BlockLines *lines);
void block_lines_close(BlockLines *lines);
#define auto_block_lines auto_(block_lines_close)

/* All lines of a block, appended to `ret`. */
int block_expand(const void *data, size_t size, const char *batch_id, Buf *ret) must_check;
/* How many bytes the lines of rows[indices[0…n)] will have, without making them. */
int block_lines_size(const Row *rows, const uint32_t *indices, size_t n, uint64_t *ret) must_check;

#endif
