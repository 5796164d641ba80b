/* SPDX-License-Identifier: Apache-2.0 */

/* A frozen batch as a stream of JSON lines. It holds one block at a time and no read transaction,
 * so that a slow upload keeps neither memory nor the log. */

#include <errno.h>

#include "agent/base/str.h"
#include "crawler/spool/block.h"
#include "crawler/spool/spool-private.h"

struct SpoolReader {
    Spool *spool;
    SpoolBatch batch;
    int64_t block; /* the last one that was read */
    Buf data;      /* … its bytes */
    Buf lines;     /* … its lines */
    size_t at;     /* in lines */
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
    reader->lines = BUF_INIT(64U << 20);
    *ret = reader;
    return 0;
}

SpoolReader *spool_reader_free(SpoolReader *reader)
{
    if (!reader)
        return NULL;
    block_close(&reader->rows);
    buf_done(&reader->data);
    buf_done(&reader->lines);
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

static int expand_next(SpoolReader *reader)
{
    int r = next_block(reader);

    if (r <= 0)
        return r;
    buf_clear(&reader->lines);
    reader->at = 0;
    r = block_expand(reader->data.data, reader->data.size, reader->batch.id, &reader->lines);
    return r < 0 ? r : 1;
}

int spool_reader_seek(void *userdata, uint64_t offset)
{
    SpoolReader *reader = userdata;
    auto_(db_donep) DbStmt *stmt = NULL;
    int64_t before = 0;
    int r = db_prepare(reader->spool->db,
                       "SELECT id, bytes FROM blocks WHERE batch = ? ORDER BY id", &stmt, NULL);

    if (r >= 0)
        r = db_bind(stmt, "i", NULL, reader->batch.number);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, NULL)) > 0 && offset >= db_u64(stmt, 1)) {
        offset -= db_u64(stmt, 1);
        before = db_i64(stmt, 0);
    }
    if (r < 0 || (r == 0 && offset > 0))
        return r < 0 ? r : -EINVAL;
    stmt = db_done(stmt);
    reader->block = before;
    buf_clear(&reader->lines);
    reader->at = 0;
    if (offset == 0)
        return 0;
    r = expand_next(reader);
    if (r <= 0 || offset > reader->lines.size)
        return r < 0 ? r : -EBADMSG;
    reader->at = (size_t)offset;
    return 0;
}

ptrdiff_t spool_reader_read(void *data, size_t size, void *userdata)
{
    SpoolReader *reader = userdata;
    size_t done = 0;

    while (done < size) {
        size_t n = MIN_OF(size - done, reader->lines.size - reader->at);
        int r;

        if (n > 0) {
            memcpy((char *)data + done, reader->lines.data + reader->at, n);
            reader->at += n;
            done += n;
            continue;
        }
        r = expand_next(reader);
        if (r < 0)
            return r;
        if (r == 0)
            break;
    }
    return (ptrdiff_t)done;
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
