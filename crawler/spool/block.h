/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_SPOOL_BLOCK_H
#define CRAWLER_SPOOL_BLOCK_H

/* Rows of one series as bytes. What all rows of a document share (source, symbol, venue, currency,
 * interval, zone, time of ingestion) is said once, the rest as variable-length integers: a minute
 * bar is about 25 bytes where its JSON line is 330, so a document costs one small write. Blocks
 * become JSON lines only on their way out. Bytes are checked when read: a damaged block is
 * -EBADMSG, never a wrong row. */

#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "crawler/model/bar.h"

#define BLOCK_ROWS_MAX  4096
#define BLOCK_BYTES_MAX (4U << 20)

/* Appends the block of rows[indices[0…n)] to `ret`; all of one source, symbol, venue, currency,
 * interval, zone and ingested_usec (block_rows_agree()), n at most BLOCK_ROWS_MAX. */
int block_encode(const Row *rows, const uint32_t *indices, size_t n, Buf *ret) must_check;
bool block_rows_agree(const Row *a, const Row *b);

/* Reads rows one after the other; their strings live as long as the reader. */
typedef struct BlockReader {
    const uint8_t *data;
    size_t size, at;
    uint32_t n_rows, next;
    int64_t unit_usec;
    Row row; /* the one in hand: each is read over the one before */
    char *strings;
} BlockReader;

int block_open(BlockReader *reader, const void *data, size_t size) must_check;
/* 1 a row, 0 the end, -EBADMSG. */
int block_next(BlockReader *reader, Row *ret) must_check;
void block_close(BlockReader *reader);
#define auto_block          auto_(block_close)

/* The block as JSON lines with that batch id (BLOCK_BATCH_ID_SIZE bytes long, always). Nulls are
 * left out: absent means null. */
#define BLOCK_BATCH_ID_SIZE 22
int block_expand(const void *data, size_t size, const char *batch_id, Buf *ret) must_check;
/* How many bytes block_expand() will make of rows[indices[0…n)], without making them. */
int block_lines_size(const Row *rows, const uint32_t *indices, size_t n, uint64_t *ret) must_check;

#endif
