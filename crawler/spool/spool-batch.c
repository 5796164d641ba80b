/* SPDX-License-Identifier: Apache-2.0 */

/* Batches: opened by the first row, frozen before the first request, gone when the sink has them.
 */

#include <errno.h>

#include "agent/base/backoff.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/crypto.h"
#include "crawler/spool/block.h"
#include "crawler/spool/spool-private.h"

_Static_assert(SPOOL_BATCH_ID_SIZE == BLOCK_BATCH_ID_SIZE, "lines have a fixed length");

#define DAYS_KEPT 7

/* Time, then chance: sorted by age, and never repeated by a new disk or another VM. */
static void batch_id_make(char ret[static SPOOL_BATCH_ID_SIZE + 1])
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint64_t time = now_realtime_usec() / MSEC, chance = random_u64(UINT64_MAX);

    for (size_t i = 10; i-- > 0; time >>= 5)
        ret[i] = digits[time & 31];
    for (size_t i = 10; i < SPOOL_BATCH_ID_SIZE; i++, chance >>= 5)
        ret[i] = digits[chance & 31];
    ret[SPOOL_BATCH_ID_SIZE] = '\0';
}

#define BATCH_COLUMNS                                                                              \
    "number, id, tbl, state, rows, bytes, partitions, opened, frozen, sha256, attempt, asked"

static void read_batch(DbStmt *stmt, SpoolBatch *ret)
{
    *ret = (SpoolBatch){.number = db_i64(stmt, 0),
                        .table = (int)db_i64(stmt, 2),
                        .state = (SpoolBatchState)db_i64(stmt, 3),
                        .rows = db_u64(stmt, 4),
                        .bytes = db_u64(stmt, 5),
                        .partitions = db_u64(stmt, 6),
                        .opened_usec = db_i64(stmt, 7),
                        .frozen_usec = db_i64(stmt, 8),
                        .attempt = db_u64(stmt, 10),
                        .asked = db_i64(stmt, 11) != 0};
    (void)snprintf(ret->id, sizeof(ret->id), "%s", db_text(stmt, 1) ? db_text(stmt, 1) : "");
    (void)snprintf(ret->sha256, sizeof(ret->sha256), "%s",
                   db_text(stmt, 9) ? db_text(stmt, 9) : "");
}

int spool_insert_batch(Spool *spool, SpoolBatch *batch, Error *err)
{
    int r;

    batch_id_make(batch->id);
    r = db_run(spool->db,
               "INSERT INTO batches (id, tbl, state, rows, bytes, partitions, opened, frozen, "
               "sha256, attempt, asked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
               err, "siiuuuiisu", batch->id, (int64_t)batch->table, (int64_t)batch->state,
               batch->rows, batch->bytes, batch->partitions, batch->opened_usec, batch->frozen_usec,
               batch->sha256, batch->attempt);
    if (r >= 0)
        batch->number = db_last_id(spool->db);
    return r;
}

/* --- The open batch ------------------------------------------------------------------------- */

static int know_open(Spool *spool, int table, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    SpoolOpen *open = &spool->open[table];
    int r;

    if (open->is_known)
        return 0;
    r = db_prepare(spool->db, "SELECT " BATCH_COLUMNS " FROM batches WHERE state = 0 AND tbl = ?",
                   &stmt, err);
    if (r >= 0)
        r = db_bind(stmt, "i", err, (int64_t)table);
    if (r >= 0)
        r = db_step(stmt, err);
    if (r < 0)
        return r;
    /* Which partitions it had is not known any more: they may be counted twice, never too few. */
    *open = (SpoolOpen){.is_known = true};
    if (r > 0)
        read_batch(stmt, &open->batch);
    return 0;
}

int spool_open_batch(Spool *spool, int table, SpoolBatch *ret, Error *err)
{
    int r = know_open(spool, table, err);

    if (r < 0)
        return r;
    if (spool->open[table].batch.number == 0)
        return 0;
    *ret = spool->open[table].batch;
    return 1;
}

int spool_open_save(Spool *spool, Error *err)
{
    int r;

    for (size_t i = 0; i < SPOOL_TABLES; i++) {
        SpoolOpen *open = &spool->open[i];

        if (!open->is_dirty)
            continue;
        r = db_run(spool->db,
                   "UPDATE batches SET rows = ?, bytes = ?, partitions = ? WHERE number = ?", err,
                   "uuui", open->batch.rows, open->batch.bytes, open->batch.partitions,
                   open->batch.number);
        if (r < 0)
            return r;
        open->is_dirty = false;
    }
    return 0;
}

static bool batch_is_over(const Spool *spool, const SpoolBatch *batch)
{
    return batch->rows >= spool->limits.batch_rows || batch->bytes >= spool->limits.batch_bytes ||
           batch->partitions >= spool->limits.batch_partitions;
}

static int freeze_in_transaction(Spool *spool, SpoolOpen *open, Error *err);

int spool_batch_for_rows(Spool *spool, int table, int64_t now_usec, SpoolOpen **ret, Error *err)
{
    SpoolOpen *open = &spool->open[table];
    int r = know_open(spool, table, err);

    if (r < 0)
        return r;
    if (open->batch.number != 0 && batch_is_over(spool, &open->batch)) {
        r = freeze_in_transaction(spool, open, err);
        if (r < 0)
            return r;
    }
    if (open->batch.number == 0) {
        *open = (SpoolOpen){
            .is_known = true,
            .batch = {.table = table, .opened_usec = now_usec, .attempt = 1, .rows = 0}};
        r = spool_insert_batch(spool, &open->batch, err);
        if (r < 0)
            return r;
    }
    *ret = open;
    return 0;
}

/* Table 0 is partitioned by day, the others by month: a month counts as its first day. */
static void count_partitions(SpoolOpen *open, const Row *rows, const uint32_t *indices, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int64_t day = rows[indices[i]].trade_date;

        if (open->batch.table != 0) {
            unsigned month, day_of_month;
            int year;

            civil_from_days(day, &year, &month, &day_of_month);
            day = days_from_civil(year, month, 1);
        }
        if (day < 0 || day >= PARTITION_DAYS) {
            open->batch.partitions++;
            continue;
        }
        if (!(open->seen[day / 8] & 1U << day % 8)) {
            open->seen[day / 8] = (uint8_t)(open->seen[day / 8] | 1U << day % 8);
            open->batch.partitions++;
        }
    }
}

/* Encodes rows that agree as a block of the batch. */
static int insert_block(Spool *spool, int64_t batch, const Row *rows, const uint32_t *indices,
                        size_t n, uint64_t *ret_bytes, Error *err)
{
    Buf *block = &spool->scratch;
    int r;

    buf_clear(block);
    r = block_encode(rows, indices, n, block);
    if (r >= 0)
        r = block_lines_size(rows, indices, n, ret_bytes);
    if (r < 0)
        return error_set(err, r, ERROR_INTERNAL, "a block could not be written");
    return db_run(spool->db, "INSERT INTO blocks (batch, rows, bytes, data) VALUES (?, ?, ?, ?)",
                  err, "iuub", batch, (uint64_t)n, *ret_bytes, block->data, block->size);
}

int spool_batch_add_block(Spool *spool, SpoolOpen *open, const Row *rows, const uint32_t *indices,
                          size_t n, Error *err)
{
    uint64_t bytes = 0;
    int r;

    r = insert_block(spool, open->batch.number, rows, indices, n, &bytes, err);
    if (r < 0)
        return r;
    open->batch.rows += n;
    open->batch.bytes += bytes;
    open->is_dirty = true;
    count_partitions(open, rows, indices, n);
    return 0;
}

/* --- Freezing ------------------------------------------------------------------------------- */

typedef struct BatchSum {
    uint64_t rows, bytes;
    char sha256[SHA256_HEX_MAX];
} BatchSum;

static int sum_blocks(Spool *spool, int64_t number, BatchSum *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    auto_(sha256_freep) Sha256 *hash = NULL;
    int r = sha256_new(&hash);

    if (r < 0)
        return error_oom(err);
    r = db_prepare(spool->db, "SELECT rows, bytes, data FROM blocks WHERE batch = ? ORDER BY id",
                   &stmt, err);
    if (r >= 0)
        r = db_bind(stmt, "i", err, number);
    if (r < 0)
        return r;
    *ret = (BatchSum){0};
    while ((r = db_step(stmt, err)) > 0) {
        size_t size = 0;
        const void *data = db_blob(stmt, 2, &size);

        sha256_add(hash, data, size);
        ret->rows += db_u64(stmt, 0);
        ret->bytes += db_u64(stmt, 1);
    }
    if (r >= 0)
        sha256_hex(hash, ret->sha256);
    return r;
}

static int freeze_number(Spool *spool, int64_t number, Error *err)
{
    BatchSum sum;
    int r = sum_blocks(spool, number, &sum, err);

    return r < 0
               ? r
               : db_run(spool->db,
                        "UPDATE batches SET state = 1, rows = ?, bytes = ?, sha256 = ?, frozen = ? "
                        "WHERE number = ?",
                        err, "uusii", sum.rows, sum.bytes, sum.sha256, (int64_t)now_realtime_usec(),
                        number);
}

static int freeze_in_transaction(Spool *spool, SpoolOpen *open, Error *err)
{
    int r = spool_open_save(spool, err);

    if (r >= 0)
        r = freeze_number(spool, open->batch.number, err);
    if (r >= 0)
        *open = (SpoolOpen){.is_known = true};
    return r;
}

int spool_freeze(Spool *spool, int table, Error *err)
{
    SpoolOpen *open = &spool->open[table];
    int r = spool_begin(spool, err);

    if (r >= 0)
        r = know_open(spool, table, err);
    if (r < 0)
        return r;
    if (open->batch.number == 0)
        return spool_sync(spool, err);
    r = freeze_in_transaction(spool, open, err);
    if (r < 0) {
        spool_rollback(spool);
        return error_prefix(err, r, "spool: freeze");
    }
    r = spool_sync(spool, err);
    return r < 0 ? r : 1;
}

int spool_next_frozen(Spool *spool, int64_t after, SpoolBatch *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r = db_prepare(spool->db,
                       "SELECT " BATCH_COLUMNS
                       " FROM batches WHERE state = 1 AND number > ? ORDER BY number LIMIT 1",
                       &stmt, err);

    if (r >= 0)
        r = db_bind(stmt, "i", err, after);
    if (r >= 0)
        r = db_step(stmt, err);
    if (r > 0)
        read_batch(stmt, ret);
    return r;
}

/* --- Delivery ------------------------------------------------------------------------------- */

/* Runs `fn` on top of what waits and makes all of it durable, or none. */
static int finish(Spool *spool, int r, const char *what, Error *err)
{
    if (r >= 0)
        return spool_sync(spool, err);
    spool_rollback(spool);
    return error_prefix(err, r, "spool: %s", what);
}

static int count_day(Spool *spool, int table, uint64_t loads, uint64_t partitions, uint64_t repairs,
                     Error *err)
{
    int64_t day = (int64_t)(now_realtime_usec() / DAY);
    int r =
        db_run(spool->db,
               "INSERT INTO days VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET loads = loads + "
               "excluded.loads, partitions = partitions + excluded.partitions, repairs = repairs "
               "+ excluded.repairs",
               err, "iiuuu", day, (int64_t)table, loads, partitions, repairs);

    return r < 0 ? r
                 : db_run(spool->db, "DELETE FROM days WHERE day < ?", err, "i", day - DAYS_KEPT);
}

int spool_batch_asked(Spool *spool, SpoolBatch *batch, Error *err)
{
    int r;

    if (batch->asked)
        return spool_sync(spool, err);
    r = spool_begin(spool, err);
    if (r >= 0)
        r = db_run(spool->db, "UPDATE batches SET asked = 1 WHERE number = ?", err, "i",
                   batch->number);
    if (r >= 0)
        r = count_day(spool, batch->table, 1, batch->partitions, 0, err);
    r = finish(spool, r, "asked", err);
    if (r >= 0)
        batch->asked = true;
    return r;
}

int spool_batch_next_attempt(Spool *spool, SpoolBatch *batch, Error *err)
{
    int r = spool_begin(spool, err);

    if (r >= 0)
        r = db_run(
            spool->db,
            "UPDATE batches SET attempt = attempt + 1, asked = 0 WHERE number = ? AND attempt "
            "= ?",
            err, "iu", batch->number, batch->attempt);
    r = finish(spool, r, "next attempt", err);
    if (r >= 0) {
        batch->attempt++;
        batch->asked = false;
    }
    return r;
}

static int delete_batch(Spool *spool, int64_t number, Error *err)
{
    int r = db_run(spool->db, "DELETE FROM blocks WHERE batch = ?", err, "i", number);

    return r < 0 ? r : db_run(spool->db, "DELETE FROM batches WHERE number = ?", err, "i", number);
}

int spool_delivered(Spool *spool, const SpoolBatch *batch, Error *err)
{
    int r = spool_begin(spool, err);

    if (r >= 0)
        r = delete_batch(spool, batch->number, err);
    if (r >= 0)
        r = spool_count(spool, "rows_delivered", batch->rows, err);
    if (r >= 0)
        r = db_run(
            spool->db,
            "INSERT INTO counters VALUES ('last_delivery_usec', ?) ON CONFLICT DO UPDATE SET "
            "value = excluded.value",
            err, "i", (int64_t)now_realtime_usec());
    return finish(spool, r, "delivered", err);
}

int spool_batch_wrong(Spool *spool, const SpoolBatch *batch, Error *err)
{
    int r = spool_begin(spool, err);

    if (r >= 0)
        r = db_run(spool->db, "UPDATE batches SET state = 2 WHERE number = ?", err, "i",
                   batch->number);
    return finish(spool, r, "set aside", err);
}

/* --- Repair --------------------------------------------------------------------------------- */

typedef struct Piece {
    int64_t block;
    uint32_t row;         /* in the block */
    uint64_t rows_before; /* in the batch */
} Piece;

static int load_block(Spool *spool, int64_t id, Buf *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    const void *data;
    size_t size = 0;
    int r = db_prepare(spool->db, "SELECT data FROM blocks WHERE id = ?", &stmt, err);

    if (r >= 0)
        r = db_bind(stmt, "i", err, id);
    if (r >= 0)
        r = db_step(stmt, err);
    if (r < 0)
        return r;
    data = r > 0 ? db_blob(stmt, 0, &size) : NULL;
    buf_clear(ret);
    return data && buf_add(ret, data, size) >= 0
               ? 0
               : error_set(err, -EBADMSG, ERROR_CORRUPT, "a block is missing");
}

/* The block in which a byte of the lines lies (by_bytes), or a row number. */
static int find_block(Spool *spool, int64_t number, bool by_bytes, uint64_t where, Piece *ret,
                      uint64_t *ret_rest, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    uint64_t rows = 0;
    int r = db_prepare(spool->db, "SELECT id, rows, bytes FROM blocks WHERE batch = ? ORDER BY id",
                       &stmt, err);

    if (r >= 0)
        r = db_bind(stmt, "i", err, number);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0) {
        uint64_t size = db_u64(stmt, by_bytes ? 2 : 1);

        if (where < size) {
            *ret = (Piece){.block = db_i64(stmt, 0), .rows_before = rows};
            *ret_rest = where;
            return 1;
        }
        where -= size;
        rows += db_u64(stmt, 1);
    }
    return r;
}

static int find_row(Spool *spool, const SpoolBatch *batch, uint64_t offset, Piece *ret, Error *err)
{
    auto_buf Buf block = BUF_INIT(BLOCK_BYTES_MAX), lines = BUF_INIT(64U << 20);
    uint64_t rest = 0;
    int r = find_block(spool, batch->number, /* by_bytes= */ true, offset, ret, &rest, err);

    if (r <= 0)
        return r;
    r = load_block(spool, ret->block, &block, err);
    if (r < 0)
        return r;
    r = block_expand(block.data, block.size, batch->id, &lines);
    if (r < 0)
        return error_set(err, r, ERROR_CORRUPT, "a block is damaged");
    for (size_t i = 0; i < rest && i < lines.size; i++)
        ret->row += lines.data[i] == '\n';
    return 1;
}

/* Writes rows [from, to) of a block, as far as it has them, as a new block of `number`. */
static int copy_rows(Spool *spool, const Buf *block, uint32_t from, uint32_t to, int64_t number,
                     Error *err)
{
    auto_block BlockReader reader = {0};
    auto_free Row *rows = NULL;
    auto_free uint32_t *indices = NULL;
    uint64_t bytes;
    size_t n = 0;
    Row row;
    int r;

    r = block_open(&reader, block->data, block->size);
    if (r < 0)
        return error_set(err, r, ERROR_CORRUPT, "a block is damaged");
    to = MIN_OF(to, reader.n_rows);
    if (from >= to)
        return 0;
    rows = calloc(to - from, sizeof(*rows));
    indices = calloc(to - from, sizeof(*indices));
    if (!rows || !indices)
        return error_oom(err);
    for (uint32_t i = 0; r >= 0 && i < to; i++) {
        r = block_next(&reader, &row);
        if (r == 0)
            break;
        if (r > 0 && i >= from) {
            indices[n] = (uint32_t)n;
            rows[n++] = row;
        }
    }
    if (r < 0)
        return error_set(err, r, ERROR_CORRUPT, "a block is damaged");
    return n > 0 ? insert_block(spool, number, rows, indices, n, &bytes, err) : 0;
}

/* The row itself, as its line, into the dead letters. */
static int bury_row(Spool *spool, const SpoolBatch *batch, const Buf *block, uint32_t at,
                    const char *reason, Error *err)
{
    auto_block BlockReader reader = {0};
    auto_buf Buf line = BUF_INIT(1U << 20);
    auto_free char *which = NULL;
    Row row = {0};
    int r = block_open(&reader, block->data, block->size);

    for (uint32_t i = 0; r >= 0 && i <= at; i++)
        r = block_next(&reader, &row);
    if (r > 0)
        r = row_encode_ndjson(&row, &line);
    if (r < 0)
        return error_set(err, r, ERROR_CORRUPT, "a block is damaged");
    /* A dead letter is kept once a time and reason: what else tells rows apart belongs to it, or
     * the second revision of a bar, or the day's bar beside the minute's, would leave without a
     * trace. */
    which = str_printf("%s (%s %s, revision %u)", reason, row.interval, row_kind_name(row.kind),
                       row.revision);
    if (!which)
        return error_oom(err);
    return spool_dead_add(spool, row.source, row.symbol, row.ts_usec, which, buf_str(&line), err);
}

static int new_frozen(Spool *spool, const SpoolBatch *like, SpoolBatch *ret, Error *err)
{
    *ret = (SpoolBatch){.table = like->table,
                        .state = SPOOL_BATCH_FROZEN,
                        .partitions = like->partitions,
                        .opened_usec = like->opened_usec,
                        .frozen_usec = like->frozen_usec,
                        .attempt = 1};
    return spool_insert_batch(spool, ret, err);
}

static int move_blocks(Spool *spool, int64_t from, int64_t to, int64_t first, int64_t last,
                       Error *err)
{
    return db_run(spool->db, "UPDATE blocks SET batch = ? WHERE batch = ? AND id >= ? AND id <= ?",
                  err, "iiii", to, from, first, last);
}

static int repair_row(Spool *spool, const SpoolBatch *batch, const Piece *bad, const char *reason,
                      Error *err)
{
    auto_buf Buf block = BUF_INIT(BLOCK_BYTES_MAX);
    SpoolBatch next = {0};
    int r = load_block(spool, bad->block, &block, err);

    if (r >= 0)
        r = bury_row(spool, batch, &block, bad->row, reason, err);
    if (r >= 0 && batch->rows == 1)
        return delete_batch(spool, batch->number, err);
    if (r >= 0)
        r = new_frozen(spool, batch, &next, err);
    if (r >= 0)
        r = copy_rows(spool, &block, 0, bad->row, next.number, err);
    if (r >= 0)
        r = copy_rows(spool, &block, bad->row + 1, UINT32_MAX, next.number, err);
    if (r >= 0)
        r = db_run(spool->db, "DELETE FROM blocks WHERE id = ?", err, "i", bad->block);
    if (r >= 0)
        r = move_blocks(spool, batch->number, next.number, 0, INT64_MAX, err);
    if (r >= 0)
        r = freeze_number(spool, next.number, err);
    return r < 0 ? r : delete_batch(spool, batch->number, err);
}

static int repair_halves(Spool *spool, const SpoolBatch *batch, Error *err)
{
    auto_buf Buf block = BUF_INIT(BLOCK_BYTES_MAX);
    SpoolBatch first = {0}, second = {0};
    Piece middle = {0};
    uint64_t rest = 0;
    int r = find_block(spool, batch->number, /* by_bytes= */ false, batch->rows / 2, &middle, &rest,
                       err);

    if (r >= 0)
        r = load_block(spool, middle.block, &block, err);
    if (r >= 0)
        r = new_frozen(spool, batch, &first, err);
    if (r >= 0)
        r = new_frozen(spool, batch, &second, err);
    if (r >= 0)
        r = move_blocks(spool, batch->number, first.number, 0, middle.block - 1, err);
    if (r >= 0)
        r = move_blocks(spool, batch->number, second.number, middle.block + 1, INT64_MAX, err);
    if (r >= 0)
        r = copy_rows(spool, &block, 0, (uint32_t)rest, first.number, err);
    if (r >= 0)
        r = copy_rows(spool, &block, (uint32_t)rest, UINT32_MAX, second.number, err);
    if (r >= 0)
        r = freeze_number(spool, first.number, err);
    if (r >= 0)
        r = freeze_number(spool, second.number, err);
    return r < 0 ? r : delete_batch(spool, batch->number, err);
}

int spool_repair(Spool *spool, const SpoolBatch *batch, uint64_t offset, const char *reason,
                 Error *err)
{
    Piece bad = {0};
    int r = spool_begin(spool, err);

    if (r >= 0 && offset == UINT64_MAX && batch->rows == 1)
        offset = 0;
    if (r >= 0)
        r = offset == UINT64_MAX ? 0 : find_row(spool, batch, offset, &bad, err);
    if (r > 0)
        r = repair_row(spool, batch, &bad, reason, err);
    else if (r == 0)
        r = repair_halves(spool, batch, err);
    if (r >= 0)
        r = count_day(spool, batch->table, 0, 0, 1, err);
    return finish(spool, r, "repair", err);
}
