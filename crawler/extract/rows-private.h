/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_EXTRACT_ROWS_PRIVATE_H
#define CRAWLER_EXTRACT_ROWS_PRIVATE_H

/* A table of a document on its way to rows: rows.c takes it, rows-shared.c finds what all its rows
 * share, rows-row.c makes one. Private to those three. */

#include "crawler/extract/document.h"
#include "crawler/model/zone.h"

#define ROWS_REASON_MAX 400
#define ROWS_TEXT_MAX   256 /* of a text in a row */

/* An amount column, ready for the inner loop. */
typedef struct AmountColumn {
    const RecipeColumn *recipe;
    const Cell *cells;
    size_t offset;
    unsigned flags, scale;
    int exponent;
} AmountColumn;

/* Bars repeat their neighbours' prices: one opens where the last one closed, and the high is one of
 * the two. A float32 as JSON has it takes long to read, so the last ones are kept by their text. */
#define PRICES_KEPT      64 /* a power of two */
#define PRICE_TEXT_LEAST 16

typedef struct KeptPrice {
    const char *text;
    size_t size;
    Amount amount;
} KeptPrice;

/* One table in the making. */
typedef struct TableBuilder {
    RowsContext *context;
    Document *doc;
    const RecipeTable *recipe;
    TableCells *cells;
    size_t index;
    Row like; /* what all its rows share */
    const Zone *zone;
    const Zone *ts_zone; /* of the ts column, where it has its own */
    Interval interval;
    AmountColumn amounts[ROW_FIELD_MAX];
    size_t n_amounts;
    KeptPrice prices[PRICES_KEPT];
    char reason[ROWS_REASON_MAX]; /* why the row in hand is dead */
} TableBuilder;

/* Where the texts of a row are; 0 of fields that are none. */
extern const size_t rows_text_offsets[ROW_FIELD_MAX];

/* Texts, zone, interval and what its amounts need: 1, 0 when the document is refused, -errno. */
int rows_share(TableBuilder *b) must_check;
/* One row more for the set, or a dead one, or none: 1, 0 when the document is refused, -errno. */
int rows_build_row(TableBuilder *b, size_t i) must_check;

/* The source's word as ours, in the set's arena. NULL when memory is out. */
const char *rows_own_text(TableBuilder *b, const RecipeColumn *column, const char *text,
                          size_t size);
/* Empty, or one of the words that mean nothing. */
bool rows_is_null_text(const RecipeColumn *column, const char *text, size_t size);
/* Text that may stand in a row: at most ROWS_TEXT_MAX bytes of UTF-8. CSV is not checked by anybody
 * before. */
bool rows_is_fine_text(const char *text, size_t size);
/* What was asked for in this column, NULL when that is nothing; "*" is everything. */
const char *rows_request_value(const TableBuilder *b, const RecipeColumn *column);
bool rows_request_is_all(const char *value);
/* "AAPL" and "aapl", "60m" and "1h" are the same thing. */
bool rows_same_value(RowField field, const char *a, const char *b);

#endif
