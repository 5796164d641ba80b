/* SPDX-License-Identifier: Apache-2.0 */

/* The embedded default: one table, the rows of a batch and the batch's name in one transaction, so
 * that a batch which is stored again changes nothing. */

#include <errno.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/io/db.h"
#include "crawler/sink/sink.h"

extern const SinkOps sink_sqlite;
int sink_sqlite_new(const char *path, void **ret, Error *err);

/* Amounts are TEXT: REAL would make them binary fractions. */
static const char *const migrations[] = {
    "CREATE TABLE bars ("
    " source TEXT NOT NULL, symbol TEXT NOT NULL, venue TEXT, currency TEXT,"
    " interval TEXT NOT NULL, kind TEXT NOT NULL, ts TEXT NOT NULL, trade_date TEXT NOT NULL,"
    " tz TEXT, session TEXT, open TEXT, high TEXT, low TEXT, close TEXT, volume TEXT,"
    " adj_close TEXT, amount TEXT, ratio_num TEXT, ratio_den TEXT, is_final INTEGER NOT NULL,"
    " revision INTEGER NOT NULL, ingested_at TEXT, batch_id TEXT NOT NULL,"
    " PRIMARY KEY (source, symbol, interval, kind, ts, revision)) WITHOUT ROWID;"
    "CREATE TABLE batches (id TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE VIEW bars_latest AS SELECT * FROM bars b WHERE revision = (SELECT MAX(revision) FROM"
    " bars l WHERE l.source = b.source AND l.symbol = b.symbol AND l.interval = b.interval AND"
    " l.kind = b.kind AND l.ts = b.ts);",
};

int sink_sqlite_new(const char *path, void **ret, Error *err)
{
    Db *db = NULL;
    int r = db_open(path, migrations, ELEMENTS(migrations), DB_FULL_SYNC, &db, err);

    if (r < 0)
        return error_prefix(err, r, "sink sqlite");
    *ret = db;
    return 0;
}

static const char *amount_text(const Amount *amount, char buf[static AMOUNT_TEXT_MAX + 1])
{
    if (!amount->present)
        return NULL;
    buf[amount_format(amount, buf)] = '\0';
    return buf;
}

static int insert_row(Db *db, const SinkBatch *batch, const Row *row, Error *err)
{
    char ts[TIME_RFC3339_MAX], date[ROW_DATE_MAX], ingested[TIME_RFC3339_MAX];
    char amounts[9][AMOUNT_TEXT_MAX + 1];

    (void)row_date_format(row->trade_date, date);
    return db_run(
        db,
        "INSERT INTO bars VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO "
        "NOTHING",
        err, "sssssssssssssssssssiuss", row->source, row->symbol, row->venue, row->currency,
        row->interval, row_kind_name(row->kind), time_format_rfc3339(ts, row->ts_usec), date,
        row->tz, session_name(row->session), amount_text(&row->open, amounts[0]),
        amount_text(&row->high, amounts[1]), amount_text(&row->low, amounts[2]),
        amount_text(&row->close, amounts[3]), amount_text(&row->volume, amounts[4]),
        amount_text(&row->adj_close, amounts[5]), amount_text(&row->amount, amounts[6]),
        amount_text(&row->ratio_num, amounts[7]), amount_text(&row->ratio_den, amounts[8]),
        (int64_t)row->is_final, (uint64_t)row->revision,
        time_format_rfc3339(ingested, row->ingested_usec), batch->id);
}

static int sqlite_store(Sink *sink, const SinkBatch *batch, SinkRowNext next_row, void *userdata,
                        Error *err)
{
    auto_(db_rollbackp) Db *db = sink->local;
    Row row;
    int64_t n = 0;
    int r;

    r = db_begin(db, err);
    if (r < 0)
        return r;
    r = db_query_i64(db, "SELECT rows FROM batches WHERE id = ?", &n, err, "s", batch->id);
    if (r != 0)
        return r < 0 ? r : 0;

    while ((r = next_row(userdata, &row, err)) > 0) {
        r = insert_row(db, batch, &row, err);
        if (r < 0)
            return r;
    }
    if (r >= 0)
        r = db_run(db, "INSERT INTO batches VALUES (?, ?)", err, "su", batch->id, batch->rows);
    if (r >= 0)
        r = db_commit(db, err);
    return r < 0 ? error_prefix(err, r, "sink sqlite") : 1;
}

static void sqlite_free(Sink *sink)
{
    (void)db_close(sink->local);
}

const SinkOps sink_sqlite = {
    .name = "sqlite",
    .is_local = true,
    .store = sqlite_store,
    .free = sqlite_free,
};
