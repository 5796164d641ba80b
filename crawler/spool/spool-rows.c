/* SPDX-License-Identifier: Apache-2.0 */

/* Documents on their way in: which rows are new, which say something else than before, and the
 * cursor that moves with them. */

#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/gzip.h"
#include "crawler/spool/block.h"
#include "crawler/spool/spool-private.h"

#define TRIM_EVERY       256
#define REFUSED_BODY_MAX (4U << 20)
#define TS_MIN_USEC      INT64_C(-62135596800000000) /* 0001-01-01 */
#define TS_END_USEC      INT64_C(253402300800000000) /* 10000-01-01 */
#define DEAD_TEXT_MAX    2000

int spool_series(Spool *spool, const char *source, const char *symbol, const char *interval,
                 int64_t *ret, Error *err)
{
    int64_t id = 0;
    int r;

    if (spool->series_source && streq(spool->series_source, source) &&
        streq(spool->series_symbol, symbol) && streq(spool->series_interval, interval)) {
        *ret = spool->series_id;
        return 0;
    }
    r = db_query_i64(spool->db,
                     "SELECT id FROM series WHERE source = ? AND symbol = ? AND interval = ?", &id,
                     err, "sss", source, symbol, interval);
    if (r == 0) {
        r = db_run(spool->db, "INSERT INTO series (source, symbol, interval) VALUES (?, ?, ?)", err,
                   "sss", source, symbol, interval);
        id = db_last_id(spool->db);
    }
    if (r < 0)
        return r;
    if (str_set(&spool->series_source, source) < 0 || str_set(&spool->series_symbol, symbol) < 0 ||
        str_set(&spool->series_interval, interval) < 0)
        return error_oom(err);
    *ret = spool->series_id = id;
    return 0;
}

/* --- The chunk of keys in hand -------------------------------------------------------------- */

/* One number for both, since a table with its key in front keeps no BLOB of that size in its page.
 */
static int64_t chunk_id(int64_t series, int64_t number)
{
    return (int64_t)((uint64_t)series << 32 | (uint32_t)number);
}

int spool_chunk_save(Spool *spool, Error *err)
{
    SpoolChunk *chunk = &spool->chunk;
    int r;

    if (!chunk->loaded || !chunk->keys.changed)
        return 0;
    chunk->keys.changed = false;
    buf_clear(&spool->scratch);
    r = keys_format(&chunk->keys, &spool->scratch);
    if (r < 0)
        return error_oom(err);
    return db_run(spool->db,
                  "INSERT INTO keys VALUES (?, ?) ON CONFLICT DO UPDATE SET data = excluded.data",
                  err, "ib", chunk_id(chunk->series, chunk->number), spool->scratch.data,
                  spool->scratch.size);
}

static int chunk_switch(Spool *spool, int64_t series, int64_t number, Error *err)
{
    SpoolChunk *chunk = &spool->chunk;
    auto_(db_donep) DbStmt *stmt = NULL;
    const void *data = NULL;
    size_t size = 0;
    int r;

    if (chunk->loaded && chunk->series == series && chunk->number == number)
        return 0;
    r = spool_chunk_save(spool, err);
    if (r >= 0)
        r = db_prepare(spool->db, "SELECT data FROM keys WHERE id = ?", &stmt, err);
    if (r >= 0)
        r = db_bind(stmt, "i", err, chunk_id(series, number));
    if (r >= 0)
        r = db_step(stmt, err);
    if (r < 0)
        return r;
    if (r > 0)
        data = db_blob(stmt, 0, &size);
    chunk->loaded = false; /* half of one must not be saved as the last one */
    if (keys_load(&spool->chunk.keys, data, size) < 0)
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "spool: keys are damaged");
    chunk->series = series;
    chunk->number = number;
    chunk->loaded = true;
    return 0;
}

/* --- Rows ----------------------------------------------------------------------------------- */

/* The series of the last row: rows of a document share their strings, so that comparing pointers
 * settles it. */
typedef struct RowSeries {
    const char *source, *symbol, *interval;
    int64_t id;
    uint64_t interval_usec;
} RowSeries;

static int row_series(Spool *spool, const Row *row, RowSeries *last, Error *err)
{
    Interval interval;
    int r;

    if (last->source == row->source && last->symbol == row->symbol &&
        last->interval == row->interval)
        return 0;
    if (interval_parse(row->interval, &interval) < 0)
        return error_set(err, -EINVAL, ERROR_INVALID, "a row of interval %s", row->interval);
    r = spool_series(spool, row->source, row->symbol, row->interval, &last->id, err);
    if (r < 0)
        return r;
    last->source = row->source;
    last->symbol = row->symbol;
    last->interval = row->interval;
    last->interval_usec = interval_usec(&interval);
    return 0;
}

/* What the tables would refuse is found here, where it holds nobody up: a load that fails on a row
 * costs a load. NULL when it fits. */
static const char *row_misfit(const Row *row)
{
    static const struct {
        const char *reason;
        size_t offset;
    } numerics[] = {
#define NUMERIC(n)                                                                                 \
    {#n ": does not fit NUMERIC (29 digits before the point, 9 after)", offsetof(Row, n)}
        NUMERIC(open),      NUMERIC(high),   NUMERIC(low),       NUMERIC(close),
        NUMERIC(adj_close), NUMERIC(amount), NUMERIC(ratio_num), NUMERIC(ratio_den),
#undef NUMERIC
    };

    for (size_t i = 0; i < ELEMENTS(numerics); i++) {
        const Amount *amount =
            (const Amount *)(const void *)((const char *)row + numerics[i].offset);

        if (amount->present && !amount_fits(amount, AMOUNT_SCALE_NUMERIC))
            return numerics[i].reason;
    }
    if (row->volume.present && !amount_fits(&row->volume, AMOUNT_SCALE_MAX))
        return "volume: does not fit BIGNUMERIC";
    if (row->ts_usec < TS_MIN_USEC || row->ts_usec >= TS_END_USEC)
        return "ts: lies outside the years 1 to 9999";
    return NULL;
}

/* The row as the sink would have got it, among the dead letters. */
static int bury_misfit(Spool *spool, const SpoolDocument *document, const Row *row,
                       const char *reason, SpoolAccepted *count, Error *err)
{
    auto_buf Buf line = BUF_INIT(64U << 10);
    int r;

    if (row_encode_ndjson(row, &line) < 0)
        buf_clear(&line);
    r = spool_dead_add(spool, document->job, document->symbol, row->ts_usec, reason, buf_str(&line),
                       err);
    if (r >= 0)
        count->dead += db_changes(spool->db) > 0;
    return r < 0 ? r : 0;
}

/* 1 when the row is to be delivered. */
static int judge_row(Spool *spool, const SpoolDocument *document, Row *row, RowSeries *series,
                     SpoolAccepted *count, Error *err)
{
    Key key = {0}, old;
    const char *misfit;
    bool ends;
    int r;

    if (!row->is_final && !document->live) {
        count->not_final++;
        return 0;
    }
    misfit = row_misfit(row);
    if (misfit)
        return bury_misfit(spool, document, row, misfit, count, err);
    r = row_series(spool, row, series, err);
    if (r >= 0)
        r = chunk_switch(spool, series->id, keys_chunk(row->ts_usec, series->interval_usec), err);
    if (r < 0)
        return r;

    key = (Key){.ts_usec = row->ts_usec,
                .hash = row_values_hash(row),
                .kind = (uint8_t)row->kind,
                .not_final = !row->is_final};
    if (keys_find(&spool->chunk.keys, row->kind, row->ts_usec, &old) > 0) {
        /* A final value is news after any number of others, whenever it was fetched. */
        ends = old.not_final && row->is_final;
        if (!ends && (old.hash == key.hash || document->is_old)) {
            count->known++;
            return 0;
        }
        key.revision = old.revision;
        if (!ends && old.hash == KEYS_UNKNOWN) {
            count->known++;
            return keys_put(&spool->chunk.keys, &key) < 0 ? error_oom(err) : 0;
        }
        if (key.revision == UINT16_MAX)
            return 0; /* a source that never says the same twice */
        key.revision++;
        count->revisions++;
    }
    if (keys_put(&spool->chunk.keys, &key) < 0)
        return error_oom(err);
    row->revision = key.revision;
    row->ingested_usec = document->now_usec;
    count->rows++;
    return 1;
}

static int judge_rows(Spool *spool, const SpoolDocument *document, size_t *ret_n,
                      SpoolAccepted *count, Error *err)
{
    RowSet *rows = document->rows;
    RowSeries series = {0};
    int r = 0;

    if (spool->n_indices < rows->n) {
        uint32_t *grown = realloc(spool->indices, rows->n * sizeof(*grown));

        if (!grown)
            return error_oom(err);
        spool->indices = grown;
        spool->n_indices = rows->n;
    }
    for (size_t i = 0; i < rows->n; i++) {
        r = judge_row(spool, document, &rows->rows[i], &series, count, err);
        if (r < 0)
            return r;
        if (r > 0)
            spool->indices[(*ret_n)++] = (uint32_t)i;
    }
    return spool_chunk_save(spool, err);
}

/* Rows that agree go into one block of their table's open batch. */
static int add_blocks(Spool *spool, const SpoolDocument *document, size_t n, Error *err)
{
    const Row *rows = document->rows->rows;
    SpoolOpen *open;
    size_t end;
    int r;

    for (size_t at = 0; at < n; at = end) {
        const Row *first = &rows[spool->indices[at]];

        for (end = at + 1; end < n && end - at < BLOCK_ROWS_MAX; end++)
            if (!block_rows_agree(first, &rows[spool->indices[end]]))
                break;
        r = spool_batch_for_rows(spool, document->table_of(first->interval), document->now_usec,
                                 &open, err);
        if (r >= 0)
            r = spool_batch_add_block(spool, open, rows, spool->indices + at, end - at, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int spool_dead_add(Spool *spool, const char *job, const char *symbol, int64_t ts_usec,
                   const char *reason, const char *text, Error *err)
{
    auto_free char *printable =
        str_escape(text ? text : "", text ? strlen(text) : 0, DEAD_TEXT_MAX);

    if (!printable)
        return error_oom(err);
    return db_run(spool->db,
                  "INSERT INTO dead (at, job, symbol, ts, reason, text) VALUES (?, ?, ?, ?, ?, ?) "
                  "ON CONFLICT DO NOTHING",
                  err, "ississ", (int64_t)now_realtime_usec(), job, symbol, ts_usec, reason,
                  printable);
}

static int add_dead_rows(Spool *spool, const SpoolDocument *document, SpoolAccepted *count,
                         Error *err)
{
    const RowSet *rows = document->rows;
    int r;

    for (size_t i = 0; i < rows->n_dead; i++) {
        const DeadRow *dead = &rows->dead[i];

        r = spool_dead_add(spool, document->job, document->symbol, dead->ts_usec, dead->reason,
                           dead->text, err);
        if (r < 0)
            return r;
        count->dead += db_changes(spool->db) > 0;
    }
    return 0;
}

static int trim(Spool *spool, Error *err)
{
    if (++spool->accepted % TRIM_EVERY != 0)
        return 0;
    return db_run(spool->db, "DELETE FROM dead WHERE id <= (SELECT MAX(id) FROM dead) - ?", err,
                  "i", (int64_t)SPOOL_DEAD_MAX);
}

static int accept_all(Spool *spool, const SpoolDocument *document, SpoolAccepted *count, Error *err)
{
    size_t n = 0;
    int r = judge_rows(spool, document, &n, count, err);

    if (r >= 0)
        r = add_blocks(spool, document, n, err);
    if (r >= 0)
        r = add_dead_rows(spool, document, count, err);
    if (r >= 0 && document->cursor)
        r = spool_cursor_save(spool, document->job, document->symbol, document->range,
                              document->cursor, err);
    if (r >= 0)
        r = trim(spool, err);
    return r;
}

int spool_accept(Spool *spool, const SpoolDocument *document, SpoolAccepted *ret, Error *err)
{
    SpoolAccepted count = {0};
    int r = spool_begin(spool, err);

    if (r < 0)
        return r;
    r = accept_all(spool, document, &count, err);
    if (r < 0) {
        /* A full disk may have ended the transaction already; half a document must not stay. */
        spool_rollback(spool);
        return error_prefix(err, r, "spool");
    }
    *ret = count;
    return 0;
}

int spool_add_known(Spool *spool, const char *source, const char *symbol, const char *interval,
                    RowKind kind, int64_t ts_usec, uint32_t revision, bool is_final, Error *err)
{
    Interval parsed;
    int64_t series;
    Key key = {.ts_usec = ts_usec,
               .hash = KEYS_UNKNOWN,
               .revision = (uint16_t)MIN_OF(revision, (uint32_t)UINT16_MAX),
               .kind = (uint8_t)kind,
               .not_final = !is_final},
        old;
    int r;

    if (interval_parse(interval, &parsed) < 0)
        return 0; /* not one of ours: another program's row in the same table */
    r = spool_begin(spool, err);
    if (r >= 0)
        r = spool_series(spool, source, symbol, interval, &series, err);
    if (r >= 0)
        r = chunk_switch(spool, series, keys_chunk(ts_usec, interval_usec(&parsed)), err);
    if (r < 0)
        return r;
    if (keys_find(&spool->chunk.keys, kind, ts_usec, &old) > 0)
        return 0;
    /* Written with the commit, or when the next key lies elsewhere. */
    return keys_put(&spool->chunk.keys, &key) < 0 ? error_oom(err) : 0;
}

/* --- Refused documents and dead letters ----------------------------------------------------- */

int spool_refuse(Spool *spool, const SpoolRefused *document, Error *err)
{
    auto_buf Buf packed = BUF_INIT(REFUSED_BODY_MAX + (64U << 10));
    size_t size = MIN_OF(document->size, (size_t)REFUSED_BODY_MAX);
    int r = gzip_add(&packed, document->body, size, 6);

    if (r < 0)
        return error_set(err, r, ERROR_INTERNAL, "spool: a document could not be packed");
    r = spool_begin(spool, err);
    if (r >= 0)
        r = db_run(spool->db,
                   "INSERT INTO refused (at, job, symbol, interval, content_type, reason, status, "
                   "from_usec, to_usec, size, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   err, "isssssiiiub", document->at_usec, document->job, document->symbol,
                   document->interval, document->content_type, document->reason, document->status,
                   document->from_usec, document->to_usec, (uint64_t)packed.size, packed.data,
                   packed.size);
    if (r >= 0)
        r = db_run(spool->db,
                   "DELETE FROM refused WHERE id <= (SELECT MAX(id) FROM refused) - ? OR id IN "
                   "(SELECT id FROM (SELECT id, SUM(size) OVER (ORDER BY id DESC) AS total FROM "
                   "refused) WHERE total > ?)",
                   err, "ii", (int64_t)SPOOL_REFUSED_MAX, (int64_t)SPOOL_REFUSED_BYTES_MAX);
    return r;
}

#define REFUSED_COLUMNS                                                                            \
    "SELECT id, at, job, symbol, interval, content_type, reason, status, from_usec, to_usec, "     \
    "body "

static int each_refused(Spool *spool, const char *sql, bool bodies, SpoolRefusedHandler handler,
                        void *userdata, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r = db_prepare(spool->db, sql, &stmt, err);

    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0) {
        auto_buf Buf body = BUF_INIT(REFUSED_BODY_MAX + 1);
        SpoolRefused document = {.id = db_i64(stmt, 0),
                                 .at_usec = db_i64(stmt, 1),
                                 .job = db_text(stmt, 2),
                                 .symbol = db_text(stmt, 3),
                                 .interval = db_text(stmt, 4),
                                 .content_type = db_text(stmt, 5),
                                 .reason = db_text(stmt, 6),
                                 .status = db_i64(stmt, 7),
                                 .from_usec = db_i64(stmt, 8),
                                 .to_usec = db_i64(stmt, 9)};
        size_t packed_size = 0;
        const void *packed = db_blob(stmt, 10, &packed_size);

        if (bodies && gunzip_add(&body, packed, packed_size) < 0)
            continue; /* damaged: it was only kept for a person */
        document.body = buf_str(&body);
        document.size = body.size;
        r = handler(&document, userdata);
        if (r < 0)
            return r;
    }
    return r;
}

int spool_each_refused(Spool *spool, SpoolRefusedHandler handler, void *userdata, Error *err)
{
    return each_refused(spool, REFUSED_COLUMNS "FROM refused ORDER BY id", /* bodies= */ false,
                        handler, userdata, err);
}

int spool_each_refused_body(Spool *spool, SpoolRefusedHandler handler, void *userdata, Error *err)
{
    return each_refused(spool, REFUSED_COLUMNS "FROM refused ORDER BY id DESC", /* bodies= */ true,
                        handler, userdata, err);
}

int spool_forget_refused(Spool *spool, int64_t id, Error *err)
{
    int r = spool_begin(spool, err);

    return r < 0 ? r : db_run(spool->db, "DELETE FROM refused WHERE id = ?", err, "i", id);
}

int spool_each_dead(Spool *spool, SpoolDeadHandler handler, void *userdata, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r =
        db_prepare(spool->db, "SELECT id, at, ts, job, symbol, reason, text FROM dead ORDER BY id",
                   &stmt, err);

    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0) {
        SpoolDead dead = {.id = db_i64(stmt, 0),
                          .at_usec = db_i64(stmt, 1),
                          .ts_usec = db_i64(stmt, 2),
                          .job = db_text(stmt, 3),
                          .symbol = db_text(stmt, 4),
                          .reason = db_text(stmt, 5),
                          .text = db_text(stmt, 6)};

        r = handler(&dead, userdata);
        if (r < 0)
            return r;
    }
    return r;
}

int spool_forget_dead(Spool *spool, Error *err)
{
    int r = spool_begin(spool, err);

    return r < 0 ? r : db_run(spool->db, "DELETE FROM dead", err, "");
}

/* --- Old keys ------------------------------------------------------------------------------- */

/* What a call may do: a chunk is most of a page, a day of minute bars one or two. */
#define COMPACT_SERIES 100
#define COMPACT_CHUNKS 250

static int compact_chunk(Spool *spool, int64_t id, const void *data, size_t size, Error *err)
{
    auto_(keys_done) Keys keys = {0};
    int r = keys_load(&keys, data, size);

    if (r < 0)
        return 0; /* damaged: it says so when it is needed */
    keys_forget_values(&keys);
    buf_clear(&spool->scratch);
    r = keys_format(&keys, &spool->scratch);
    return r < 0 ? error_oom(err)
                 : db_run(spool->db, "UPDATE keys SET data = ? WHERE id = ?", err, "bi",
                          spool->scratch.data, spool->scratch.size, id);
}

/* Chunks [from, to) of a series, at most COMPACT_CHUNKS; where it stopped. */
static int compact_series(Spool *spool, int64_t series, int64_t from, int64_t *to, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r = db_prepare(spool->db,
                       "SELECT id, data FROM keys WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                       &stmt, err);
    int n = 0;

    if (r >= 0)
        r = db_bind(stmt, "iii", err, chunk_id(series, from), chunk_id(series, *to),
                    (int64_t)COMPACT_CHUNKS);
    while (r >= 0 && (r = db_step(stmt, err)) > 0) {
        size_t size = 0;
        const void *data = db_blob(stmt, 1, &size);
        int64_t id = db_i64(stmt, 0);

        r = compact_chunk(spool, id, data, size, err);
        if (++n == COMPACT_CHUNKS)
            *to = (int64_t)(uint32_t)id + 1;
    }
    return r;
}

typedef struct OldSeries {
    int64_t id, compacted, interval_usec;
} OldSeries;

static int list_series(Spool *spool, OldSeries *ret, size_t *ret_n, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r = db_prepare(spool->db,
                       "SELECT id, compacted, interval FROM series ORDER BY compacted LIMIT ?",
                       &stmt, err);

    if (r >= 0)
        r = db_bind(stmt, "i", err, (int64_t)COMPACT_SERIES);
    while (r >= 0 && (r = db_step(stmt, err)) > 0) {
        Interval interval;

        if (interval_parse(db_text(stmt, 2), &interval) < 0)
            continue;
        /* Years of daily bars are few, and splits restate them all. */
        ret[(*ret_n)++] = (OldSeries){.id = db_i64(stmt, 0),
                                      .compacted = db_i64(stmt, 1),
                                      .interval_usec = interval_is_intraday(&interval)
                                                           ? (int64_t)interval_usec(&interval)
                                                           : 0};
    }
    return r;
}

int spool_compact(Spool *spool, int64_t now_usec, Error *err)
{
    OldSeries series[COMPACT_SERIES];
    size_t n = 0;
    int r = spool_begin(spool, err);

    if (r >= 0)
        r = spool_chunk_save(spool, err);
    keys_done(&spool->chunk.keys);
    spool->chunk = (SpoolChunk){0};
    if (r >= 0)
        r = list_series(spool, series, &n, err);
    for (size_t i = 0; i < n && r >= 0; i++) {
        int64_t end = INT64_MAX;

        if (series[i].interval_usec > 0)
            end = keys_chunk(now_usec - (int64_t)SPOOL_VALUES_USEC,
                             (uint64_t)series[i].interval_usec);
        if (end <= series[i].compacted)
            continue;
        if (series[i].interval_usec > 0)
            r = compact_series(spool, series[i].id, series[i].compacted, &end, err);
        if (r >= 0)
            r = db_run(spool->db, "UPDATE series SET compacted = ? WHERE id = ?", err, "ii", end,
                       series[i].id);
    }
    return r;
}
