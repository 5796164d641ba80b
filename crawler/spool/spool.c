/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/spool/spool-private.h"

#define KEEP_BROKEN    2
#define FREE_PAGES_MAX 2048 /* of 8 KiB */
#define DISK_LOOK_USEC SECOND

/* Version 1 had smaller chunks of keys, other hashes in them and other blocks in the same tables:
 * read as these, its bars would all be news. */
/* clang-format off */
static const char *const migrations[] = {
    NULL,
    "CREATE TABLE texts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE cursors (job TEXT, symbol TEXT, range TEXT, cursor TEXT NOT NULL,"
    " PRIMARY KEY (job, symbol, range)) WITHOUT ROWID;"
    "CREATE TABLE series (id INTEGER PRIMARY KEY, source TEXT NOT NULL, symbol TEXT NOT NULL,"
    " interval TEXT NOT NULL, compacted INTEGER NOT NULL DEFAULT 0,"
    " UNIQUE (source, symbol, interval));"
    "CREATE TABLE keys (id INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE batches (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " tbl INTEGER NOT NULL, state INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " partitions INTEGER NOT NULL, opened INTEGER NOT NULL, frozen INTEGER NOT NULL,"
    " sha256 TEXT NOT NULL, attempt INTEGER NOT NULL, asked INTEGER NOT NULL);"
    "CREATE INDEX batches_by_state ON batches (state, tbl);"
    "CREATE TABLE blocks (id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, rows INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, data BLOB NOT NULL);"
    "CREATE INDEX blocks_by_batch ON blocks (batch);"
    "CREATE TABLE dead (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, job TEXT NOT NULL,"
    " symbol TEXT NOT NULL, ts INTEGER NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL,"
    " UNIQUE (job, symbol, ts, reason));"
    "CREATE TABLE refused (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, job TEXT NOT NULL,"
    " symbol TEXT NOT NULL, interval TEXT NOT NULL, content_type TEXT, reason TEXT NOT NULL,"
    " status INTEGER NOT NULL, from_usec INTEGER NOT NULL, to_usec INTEGER NOT NULL,"
    " size INTEGER NOT NULL, body BLOB NOT NULL);"
    "CREATE TABLE days (day INTEGER, tbl INTEGER, loads INTEGER NOT NULL,"
    " partitions INTEGER NOT NULL, repairs INTEGER NOT NULL, PRIMARY KEY (day, tbl)) WITHOUT ROWID;",
};
/* clang-format on */

int spool_open(const char *path, const SpoolLimits *limits, Spool **ret, char **ret_aside,
               Error *err)
{
    auto_(spool_closep) Spool *spool = calloc(1, sizeof(*spool));
    auto_free char *aside = NULL;
    unsigned flags = DB_FULL_SYNC | DB_BULK;
    int r;

    if (!spool)
        return error_oom(err);
    spool->limits = *limits;
    spool->scratch = BUF_INIT(8U << 20);
    r = db_open(path, migrations, ELEMENTS(migrations), flags, &spool->db, err);
    if (r == -EBADMSG) {
        error_done(err);
        r = db_move_aside(path, KEEP_BROKEN, &aside, err);
        if (r >= 0)
            r = db_open(path, migrations, ELEMENTS(migrations), flags, &spool->db, err);
    }
    if (r < 0)
        return error_prefix(err, r, "spool");

    *ret_aside = take_ptr(aside);
    *ret = take_ptr(spool);
    return 0;
}

Spool *spool_close(Spool *spool)
{
    if (!spool)
        return NULL;
    (void)db_close(spool->db);
    buf_done(&spool->scratch);
    keys_done(&spool->chunk.keys);
    free(spool->indices);
    free(spool->series_source);
    free(spool->series_symbol);
    free(spool->series_interval);
    free(spool);
    return NULL;
}

void spool_set_limits(Spool *spool, const SpoolLimits *limits)
{
    spool->limits = *limits;
}

/* --- Transactions --------------------------------------------------------------------------- */

int spool_begin(Spool *spool, Error *err)
{
    int r;

    if (spool->in_transaction)
        return 0;
    r = db_begin(spool->db, err);
    if (r < 0)
        return error_prefix(err, r, "spool");
    spool->in_transaction = true;
    return 0;
}

void spool_rollback(Spool *spool)
{
    db_rollback(spool->db);
    spool->in_transaction = false;
    spool->losses++;
    for (size_t i = 0; i < SPOOL_TABLES; i++)
        spool->open[i] = (SpoolOpen){0};
    keys_done(&spool->chunk.keys);
    spool->chunk = (SpoolChunk){0};
    free(spool->series_source);
    spool->series_source = NULL;
}

int spool_sync(Spool *spool, Error *err)
{
    int r;

    if (!spool->in_transaction)
        return 0;
    r = spool_chunk_save(spool, err);
    if (r >= 0)
        r = spool_open_save(spool, err);
    if (r >= 0)
        r = db_commit(spool->db, err);
    if (r < 0) {
        spool_rollback(spool);
        return error_prefix(err, r, "spool");
    }
    spool->in_transaction = false;
    return 0;
}

uint64_t spool_losses(const Spool *spool)
{
    return spool->losses;
}

bool spool_is_dirty(const Spool *spool)
{
    return spool->in_transaction;
}

/* Free pages, but for as many, and the log. Giving pages back moves others, so it is done for many
 * at once. */
static int give_back(Spool *spool, int64_t but_for, Error *err)
{
    char vacuum[64];
    int64_t pages = 0;
    int r = db_query_i64(spool->db, "PRAGMA freelist_count", &pages, err, "");

    pages -= but_for;
    if (r >= 0 && pages > 0) {
        (void)snprintf(vacuum, sizeof(vacuum), "PRAGMA incremental_vacuum(%lld)", (long long)pages);
        r = db_exec(spool->db, vacuum, err);
    }
    return r < 0 ? r : db_checkpoint(spool->db, err);
}

void spool_tidy(Spool *spool, bool shrink)
{
    auto_error Error err = {0};
    int r;

    /* Best effort: what fails here is done again later, and nothing depends on it. */
    r = spool_compact(spool, (int64_t)now_realtime_usec(), &err);
    if (r >= 0)
        r = spool_sync(spool, &err);
    if (r >= 0) /* the next batch wants some pages again */
        r = give_back(spool, shrink ? 0 : FREE_PAGES_MAX, &err);
    if (r < 0)
        log_debug("ignoring: %s", error_text(&err));
    spool->disk_at_usec = 0;
}

/* --- Texts, counters, cursors --------------------------------------------------------------- */

int spool_text_save(Spool *spool, const char *name, const char *text, Error *err)
{
    int r = spool_begin(spool, err);

    if (r < 0)
        return r;
    if (!text)
        return db_run(spool->db, "DELETE FROM texts WHERE name = ?", err, "s", name);
    return db_run(
        spool->db,
        "INSERT INTO texts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", err,
        "ss", name, text);
}

int spool_text_load(Spool *spool, const char *name, char **ret, Error *err)
{
    return db_query_text(spool->db, "SELECT value FROM texts WHERE name = ?", ret, err, "s", name);
}

int spool_count(Spool *spool, const char *name, uint64_t add, Error *err)
{
    int r = spool_begin(spool, err);

    return r < 0 ? r
                 : db_run(spool->db,
                          "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = "
                          "value + excluded.value",
                          err, "su", name, add);
}

int spool_counter(Spool *spool, const char *name, uint64_t *ret, Error *err)
{
    int64_t value = 0;
    int r = db_query_i64(spool->db, "SELECT value FROM counters WHERE name = ?", &value, err, "s",
                         name);

    if (r >= 0)
        *ret = (uint64_t)value;
    return r;
}

int spool_cursor_save(Spool *spool, const char *job, const char *symbol, const char *range,
                      const Cursor *cursor, Error *err)
{
    char text[CURSOR_TEXT_MAX];
    int r = spool_begin(spool, err);

    if (r < 0)
        return r;
    if (!cursor)
        return db_run(spool->db, "DELETE FROM cursors WHERE job = ? AND symbol = ? AND range = ?",
                      err, "sss", job, symbol, range);
    return db_run(spool->db,
                  "INSERT INTO cursors VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET cursor = "
                  "excluded.cursor",
                  err, "ssss", job, symbol, range, cursor_format(text, cursor));
}

static int cursor_load(void *userdata, const char *job, const char *symbol, const char *range,
                       Cursor *ret, Error *err)
{
    const Spool *spool = userdata;
    auto_free char *text = NULL;
    int r = db_query_text(spool->db,
                          "SELECT cursor FROM cursors WHERE job = ? AND symbol = ? AND range = ?",
                          &text, err, "sss", job, symbol, range);

    if (r <= 0)
        return r;
    /* One that cannot be read (a newer program's) is none: overlap and keys make that harmless. */
    return cursor_parse(text, ret) < 0 ? 0 : 1;
}

static int cursors_forget(void *userdata, const char *job, const char *range, Error *err)
{
    Spool *spool = userdata;
    int r = spool_begin(spool, err);

    return r < 0 ? r
                 : db_run(spool->db, "DELETE FROM cursors WHERE job = ? AND range = ?", err, "ss",
                          job, range);
}

static int text_load(void *userdata, const char *name, char **ret, Error *err)
{
    return spool_text_load(userdata, name, ret, err);
}

static int text_save(void *userdata, const char *name, const char *text, bool now, Error *err)
{
    int r = spool_text_save(userdata, name, text, err);

    return r >= 0 && now ? spool_sync(userdata, err) : r;
}

FetchMemory spool_fetch_memory(Spool *spool)
{
    return (FetchMemory){.cursor_load = cursor_load,
                         .cursors_forget = cursors_forget,
                         .text_load = text_load,
                         .text_save = text_save,
                         .userdata = spool};
}

/* --- Questions ------------------------------------------------------------------------------ */

static int one(Spool *spool, const char *sql, uint64_t *ret, Error *err)
{
    int64_t value = 0;
    int r = db_query_i64(spool->db, sql, &value, err, "");

    if (r >= 0)
        *ret = (uint64_t)value;
    return r;
}

int spool_status(Spool *spool, SpoolStatus *ret, Error *err)
{
    SpoolStatus status = {0};
    uint64_t oldest = 0, last = 0;
    int r = spool->in_transaction ? spool_open_save(spool, err) : 0;

    if (r >= 0)
        r = one(spool, "SELECT COALESCE(SUM(rows), 0) FROM batches", &status.rows, err);
    if (r >= 0)
        r = one(spool, "SELECT COALESCE(SUM(bytes), 0) FROM batches", &status.bytes, err);
    if (r >= 0)
        r = one(spool, "SELECT COUNT(*) FROM batches WHERE state = 0", &status.batches_open, err);
    if (r >= 0)
        r = one(spool, "SELECT COUNT(*) FROM batches WHERE state = 1", &status.batches_frozen, err);
    if (r >= 0)
        r = one(spool, "SELECT COUNT(*) FROM batches WHERE state = 2", &status.batches_wrong, err);
    if (r >= 0)
        r = one(spool, "SELECT COUNT(*) FROM refused", &status.refused, err);
    if (r >= 0)
        r = one(spool, "SELECT COUNT(*) FROM dead", &status.dead, err);
    if (r >= 0)
        r = one(spool, "SELECT COALESCE(MIN(opened), 0) FROM batches WHERE rows > 0", &oldest, err);
    if (r >= 0)
        r = spool_counter(spool, "rows_delivered", &status.rows_delivered, err);
    if (r >= 0)
        r = spool_counter(spool, "last_delivery_usec", &last, err);
    if (r < 0)
        return r;
    status.oldest_usec = (int64_t)oldest;
    status.last_delivery_usec = (int64_t)last;
    (void)db_size(spool->db, &status.disk_bytes);
    *ret = status;
    return 0;
}

bool spool_is_full(Spool *spool)
{
    uint64_t now = now_boottime_usec();

    if (spool->disk_at_usec == 0 || now - spool->disk_at_usec > DISK_LOOK_USEC) {
        if (db_size(spool->db, &spool->disk_bytes) < 0)
            return false;
        /* The log and free pages are kept for speed alone: they refuse no rows. */
        if (spool->disk_bytes >= spool->limits.max_bytes && !spool->in_transaction &&
            give_back(spool, 0, NULL) >= 0)
            (void)db_size(spool->db, &spool->disk_bytes);
        spool->disk_at_usec = now;
    }
    return spool->disk_bytes >= spool->limits.max_bytes;
}

int spool_day(Spool *spool, int table, int64_t now_usec, SpoolDay *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r = db_prepare(spool->db,
                       "SELECT loads, partitions, repairs FROM days WHERE day = ? AND tbl = ?",
                       &stmt, err);

    if (r >= 0)
        r = db_bind(stmt, "ii", err, now_usec / (int64_t)DAY, (int64_t)table);
    if (r >= 0)
        r = db_step(stmt, err);
    if (r < 0)
        return r;
    *ret = (SpoolDay){0};
    if (r > 0)
        *ret = (SpoolDay){
            .loads = db_u64(stmt, 0), .partitions = db_u64(stmt, 1), .repairs = db_u64(stmt, 2)};
    return 0;
}

int spool_is_new(Spool *spool, Error *err)
{
    uint64_t n = 0;
    int r = one(spool,
                "SELECT EXISTS (SELECT 1 FROM cursors) OR EXISTS (SELECT 1 FROM batches) OR "
                "EXISTS (SELECT 1 FROM series)",
                &n, err);

    return r < 0 ? r : n == 0;
}
