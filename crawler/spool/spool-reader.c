/* SPDX-License-Identifier: Apache-2.0 */

/* A frozen batch as a stream of JSON lines, which are made where the caller wants them. It holds
 * one block at a time and no read transaction, so that a slow upload keeps neither memory nor the
 * log.
 */

#include <errno.h>

#include "agent/base/str.h"
#include "crawler/spool/block.h"
#include "crawler/spool/spool-private.h"

#define OFFSET_LOST UINT64_MAX

struct SpoolReader {
    Spool *spool;
    SpoolBatch batch;
    int64_t block; /* the last one that was read */
    Buf data;      /* … its bytes */
    BlockLines lines;
    bool lines_open;
    Buf rest;        /* of lines that the caller's room cut, from `at` on */
    size_t at;       /* … */
    uint64_t offset; /* of the stream; OFFSET_LOST after a failure, until it is sought */
    BlockReader rows;
    bool rows_open;
};

int spool_reader_new(Spool *spool, const SpoolBatch *batch, SpoolReader **ret, Error *err)
{
    SpoolReader *reader = calloc(1, sizeof(*reader));

    if (!reader)
        return error_oom(err);
    reader->spool = spool;
    reader->batch = *batch;
    reader->data = BUF_INIT(BLOCK_BYTES_MAX);
    reader->rest = BUF_INIT(1U << 20);
    *ret = reader;
    return 0;
}

SpoolReader *spool_reader_free(SpoolReader *reader)
{
    if (!reader)
        return NULL;
    block_close(&reader->rows);
    buf_done(&reader->data);
    block_lines_close(&reader->lines);
    buf_done(&reader->rest);
    free(reader);
    return NULL;
}

/* The next block's bytes into reader->data: 1, or 0 at the end. */
static int next_block(SpoolReader *reader)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    const void *data;
    size_t size = 0;
    int r = db_prepare(reader->spool->db,
                       "SELECT id, data FROM blocks WHERE batch = ? AND id > ? ORDER BY id LIMIT 1",
                       &stmt, NULL);

    if (r >= 0)
        r = db_bind(stmt, "ii", NULL, reader->batch.number, reader->block);
    if (r >= 0)
        r = db_step(stmt, NULL);
    if (r <= 0)
        return r;
    reader->block = db_i64(stmt, 0);
    data = db_blob(stmt, 1, &size);
    buf_clear(&reader->data);
    r = buf_add(&reader->data, data, size);
    return r < 0 ? r : 1;
}

/* Whole lines into `data`: their bytes, 0 at the end, -ENOBUFS when the next one might not fit. */
static ptrdiff_t read_lines(SpoolReader *reader, char *data, size_t size)
{
    ptrdiff_t n;
    int r;

    for (;;) {
        if (!reader->lines_open) {
            r = next_block(reader);
            if (r > 0)
                r = block_lines_open(&reader->lines, reader->data.data, reader->data.size,
                                     reader->batch.id);
            else if (r == 0)
                return 0;
            if (r < 0)
                return r;
            reader->lines_open = true;
        }
        n = block_lines_read(&reader->lines, data, size);
        if (n != 0)
            return n;
        block_lines_close(&reader->lines);
        reader->lines_open = false;
    }
}

/* What does not fit into the caller's room is made here and handed over in pieces. */
static ptrdiff_t read_rest(SpoolReader *reader)
{
    size_t room = block_lines_room(&reader->lines);
    ptrdiff_t n;
    int r;

    buf_clear(&reader->rest);
    reader->at = 0;
    r = buf_reserve(&reader->rest, room);
    if (r < 0)
        return r;
    n = read_lines(reader, reader->rest.data, room);
    if (n > 0)
        reader->rest.size = (size_t)n;
    return n;
}

ptrdiff_t spool_reader_read(void *data, size_t size, void *userdata)
{
    SpoolReader *reader = userdata;
    char *to = data;
    size_t done = 0;
    ptrdiff_t n;

    if (reader->offset == OFFSET_LOST)
        return -EIO; /* what is left of the block, or the next one, is not what comes next */
    while (done < size) {
        size_t left = MIN_OF(size - done, reader->rest.size - reader->at);

        if (left > 0) {
            memcpy(to + done, reader->rest.data + reader->at, left);
            reader->at += left;
            done += left;
            continue;
        }
        n = read_lines(reader, to + done, size - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == -ENOBUFS)
            n = read_rest(reader);
        if (n < 0) {
            reader->offset = OFFSET_LOST;
            return n;
        }
        if (n == 0)
            break;
    }
    reader->offset += done;
    return (ptrdiff_t)done;
}

/* Reads on and throws away. */
static int skip(SpoolReader *reader, uint64_t size)
{
    char lines[4096];

    while (size > 0) {
        ptrdiff_t n = spool_reader_read(lines, MIN_OF((uint64_t)sizeof(lines), size), reader);

        if (n <= 0)
            return n < 0 ? (int)n : -EBADMSG;
        size -= (uint64_t)n;
    }
    return 0;
}

int spool_reader_seek(void *userdata, uint64_t offset)
{
    SpoolReader *reader = userdata;
    auto_(db_donep) DbStmt *stmt = NULL;
    uint64_t rest = offset;
    int64_t before = 0;
    int r;

    if (offset == reader->offset)
        return 0;
    r = db_prepare(reader->spool->db, "SELECT id, bytes FROM blocks WHERE batch = ? ORDER BY id",
                   &stmt, NULL);
    if (r >= 0)
        r = db_bind(stmt, "i", NULL, reader->batch.number);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, NULL)) > 0 && rest >= db_u64(stmt, 1)) {
        rest -= db_u64(stmt, 1);
        before = db_i64(stmt, 0);
    }
    if (r < 0 || (r == 0 && rest > 0))
        return r < 0 ? r : -EINVAL;
    stmt = db_done(stmt);
    block_lines_close(&reader->lines);
    reader->lines_open = false;
    buf_clear(&reader->rest);
    reader->at = 0;
    reader->block = before;
    reader->offset = offset - rest;
    return skip(reader, rest);
}

int spool_reader_row(void *userdata, Row *ret, Error *err)
{
    SpoolReader *reader = userdata;
    int r = 0;

    for (;;) {
        if (reader->rows_open)
            r = block_next(&reader->rows, ret);
        if (r > 0)
            ret->batch_id = reader->batch.id;
        if (r != 0)
            break;
        block_close(&reader->rows);
        reader->rows_open = false;
        r = next_block(reader);
        if (r > 0)
            r = block_open(&reader->rows, reader->data.data, reader->data.size);
        else if (r == 0)
            return 0;
        if (r < 0)
            break;
        reader->rows_open = true;
    }
    return r < 0
               ? error_set(err, r, ERROR_CORRUPT, "batch %s: a block is damaged", reader->batch.id)
               : r;
}
