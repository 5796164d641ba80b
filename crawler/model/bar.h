/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_MODEL_BAR_H
#define CRAWLER_MODEL_BAR_H

/* One row of market data, and the set of rows of one document. A row allocates nothing: its strings
 * are shared by all rows of the document and live in the set's arena, its amounts are in place. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"
#include "crawler/model/amount.h"
#include "crawler/model/instrument.h"

/* Identity: source, symbol, interval, kind, ts, revision. Strings are NULL where absent. */
typedef struct Row {
    const char *source;
    const char *symbol;
    const char *venue;
    const char *currency; /* the source's own unit: "GBp" is pence and stays so */
    const char *interval;
    const char *tz;        /* IANA name of the zone of trade_date */
    const char *batch_id;  /* set when the row is frozen */
    int64_t ts_usec;       /* open instant of the bar, UTC */
    int64_t ingested_usec; /* 0: absent; set when the row is spooled */
    int32_t trade_date;    /* days since 1970-01-01 in `tz` */
    uint32_t revision;     /* 0 for the first observation */
    RowKind kind;
    Session session;
    bool is_final;
    Amount open, high, low, close;
    Amount volume;
    Amount adj_close;
    Amount amount;               /* turnover of a bar; the money of a dividend or capital gain */
    Amount ratio_num, ratio_den; /* of a split: 4 and 1 for "4:1" */
} Row;

/* A row that could not be made whole. */
typedef struct DeadRow {
    const char *reason; /* "close: 0.12345678901 has more than 9 decimals" */
    const char *text;   /* what the source sent for it, shortened */
    int64_t ts_usec;    /* INT64_MIN when not even that is known */
} DeadRow;

typedef struct RowArena RowArena;

typedef struct RowSet {
    Row *rows;
    size_t n, n_allocated;
    DeadRow *dead;
    size_t n_dead, n_dead_allocated;
    size_t max_rows; /* 0: ROW_SET_MAX */
    RowArena *arena; /* strings of the rows and dead rows */
} RowSet;

/* What one document may give. A source gives a few thousand; the whole history of the ECB's rates
 * is 220,000 rows, and at 400 bytes a row this is what a machine of 1 GB can bear. */
#define ROW_SET_MAX  250000
#define ROW_SET_KEPT 8192 /* rows whose memory row_set_clear() keeps */

/* A zeroed RowSet is an empty one. */
/* A new row at the end, zeroed but for what `like` (may be NULL) has. The pointer is good until the
 * next row. -EOVERFLOW past max_rows, -ENOMEM. */
int row_set_add(RowSet *set, const Row *like, Row **ret) must_check;
/* Copies text into the set's arena; the same text again gives the same pointer (short sets of
 * strings only). NULL when memory is out. */
const char *row_set_string(RowSet *set, const char *s, size_t size);
int row_set_add_dead(RowSet *set, int64_t ts_usec, const char *reason, const char *text,
                     size_t text_size) must_check;
/* Empties it and keeps the memory of a usual document for the next one. */
void row_set_clear(RowSet *set);
void row_set_done(RowSet *set);
#define auto_row_set auto_(row_set_done)
/* By kind, ts, revision; stable. -ENOMEM. */
int row_set_sort(RowSet *set) must_check;

/* The same observation: same open, high, low, close, volume, amount, ratio and finality. adj_close
 * is not looked at: it is restated backwards at every dividend and never makes a new revision. */
bool row_same_values(const Row *a, const Row *b);
/* Same source, symbol, interval, kind and ts. */
bool row_same_identity(const Row *a, const Row *b);

/* Appends the row as one NDJSON line in the sinks' own encoding: all columns in the order of
 * row_columns, amounts as decimal strings without exponent or trailing zeros, instants as RFC 3339
 * UTC with Z, dates as YYYY-MM-DD, absent = null. */
int row_encode_ndjson(const Row *row, Buf *buf) must_check;

typedef enum RowColumnType {
    ROW_COLUMN_STRING,
    ROW_COLUMN_TIMESTAMP,
    ROW_COLUMN_DATE,
    ROW_COLUMN_NUMERIC,
    ROW_COLUMN_BIGNUMERIC,
    ROW_COLUMN_BOOL,
    ROW_COLUMN_INT64,
} RowColumnType;

typedef struct RowColumn {
    const char *name;
    RowColumnType type;
    bool required; /* never null */
} RowColumn;

/* All columns in their order; ends with a NULL name. */
extern const RowColumn row_columns[];
#define ROW_COLUMNS  23

/* "2026-10-07" of days since 1970-01-01. */
#define ROW_DATE_MAX 16
size_t row_date_format(int32_t days, char buf[static ROW_DATE_MAX]);
int row_date_parse(const char *text, size_t size, int32_t *ret_days) must_check;

#endif
