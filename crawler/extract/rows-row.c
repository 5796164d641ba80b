/* SPDX-License-Identifier: Apache-2.0 */

/* One row of a table. */

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/extract/rows-private.h"
#include "crawler/extract/when.h"

/* Market data has been kept since 1792; what lies outside of these years is a wrong unit. */
#define TS_MIN_USEC INT64_C(-5364662400000000)
#define TS_MAX_USEC INT64_C(7258118400000000)
#define SHOWN_MAX   60 /* of a bad cell */

/* Results of reading a cell into a row. */
enum { ROW_DEAD = 0, ROW_FINE = 1, ROW_SKIPPED = 2, ROW_REFUSED = 3 };

static int dead(TableBuilder *b, const char *key, const Cell *cell, const char *what)
{
    auto_free char *shown = str_escape(cell->text ? cell->text : "", cell->size, SHOWN_MAX);

    if (!shown)
        return -ENOMEM;
    (void)snprintf(b->reason, sizeof(b->reason), "%s: %s%s%s", key, shown, *shown ? " " : "", what);
    return ROW_DEAD;
}

static KeptPrice *kept_price(TableBuilder *b, const char *text, size_t size)
{
    uint64_t end;

    memcpy(&end, text + size - sizeof(end), sizeof(end));
    return &b->prices[end * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (PRICES_KEPT - 1)];
}

static int parse_price(TableBuilder *b, const AmountColumn *column, unsigned flags,
                       const char *text, size_t size, Amount *ret)
{
    KeptPrice *kept;
    int r;

    if (!(flags & AMOUNT_FLOAT32) || size < PRICE_TEXT_LEAST)
        return amount_parse(text, size, flags, column->scale, ret);
    kept = kept_price(b, text, size);
    if (kept->size == size && memcmp(kept->text, text, size) == 0) {
        *ret = kept->amount;
        return 0;
    }
    r = amount_parse(text, size, flags, column->scale, ret);
    if (r >= 0)
        *kept = (KeptPrice){text, size, *ret};
    return r;
}

static int read_amount(TableBuilder *b, const AmountColumn *column, const Cell *cell, Amount *ret)
{
    const char *text = cell->text;
    size_t size = cell->size;
    unsigned flags = column->flags & AMOUNT_THOUSANDS;
    Amount amount;
    int r;

    switch ((CellKind)cell->kind) {
    case CELL_ABSENT:
    case CELL_NULL:
        goto absent;
    case CELL_NUMBER:
        flags = column->flags | AMOUNT_BINARY;
        break;
    case CELL_STRING:
    case CELL_TEXT:
        if (cell->escaped) {
            r = cell_text(b->doc, cell, &text, &size);
            if (r == -ENOMEM)
                return r;
            if (r < 0)
                return dead(b, column->recipe->key, cell, "is no text");
        }
        if (rows_is_null_text(column->recipe, text, size))
            goto absent;
        break;
    case CELL_TRUE:
    case CELL_FALSE:
    case CELL_OBJECT:
    case CELL_ARRAY:
        return dead(b, column->recipe->key, cell, "is no number");
    }

    r = parse_price(b, column, flags, text, size, &amount);
    if (r >= 0 && column->exponent != 0)
        r = amount_shift(&amount, column->exponent, column->scale, &amount);
    if (r == -EINVAL)
        return dead(b, column->recipe->key, cell, "is no number");
    if (r < 0)
        return dead(b, column->recipe->key, cell,
                    column->scale == AMOUNT_SCALE_NUMERIC ? "does not fit 29 digits and 9 decimals"
                                                          : "does not fit 38 digits");
    if (column->recipe->type == COLUMN_INTEGER && amount.scale > 0)
        return dead(b, column->recipe->key, cell, "is no whole number");
    if (column->recipe->zero_is_null && amount_is_zero(&amount))
        goto absent;
    *ret = amount;
    return ROW_FINE;

absent:
    if (column->recipe->required)
        return dead(b, column->recipe->key, cell, "nothing there, and it is needed");
    return ROW_FINE;
}

static int read_ts(TableBuilder *b, size_t i, Row *row)
{
    const RecipeColumn *column = b->recipe->by_field[ROW_FIELD_TS];
    const Cell *cell = &b->cells->columns[ROW_FIELD_TS].items[i];
    const char *text;
    size_t size;
    When when;
    int r;

    r = cell_text(b->doc, cell, &text, &size);
    if (r == -ENOMEM)
        return r;
    if (r <= 0 || rows_is_null_text(column, text, size))
        return dead(b, "ts", cell, "no time there");
    r = when_parse(column, b->ts_zone, text, size, &when);
    if (r < 0)
        return dead(b, "ts", cell, "is no time of the recipe's form");
    if (when.ts_usec < TS_MIN_USEC || when.ts_usec >= TS_MAX_USEC)
        return dead(b, "ts", cell, "lies outside of 1800 to 2199: is the unit right?");
    row->ts_usec = when.ts_usec;
    row->trade_date = when.has_date ? when.date : zone_date(b->zone, when.ts_usec);
    return ROW_FINE;
}

/* Texts that differ from row to row. */
static int read_text(TableBuilder *b, size_t i, RowField field, Row *row)
{
    const RecipeColumn *column = b->recipe->by_field[field];
    const char **member = (const char **)(void *)((char *)row + rows_text_offsets[field]);
    const char *requested = rows_request_value(b, column), *text;
    const Cell *cell = &b->cells->columns[field].items[i];
    size_t size;
    int r;

    r = cell_text(b->doc, cell, &text, &size);
    if (r == -ENOMEM)
        return r;
    if (r <= 0 || rows_is_null_text(column, text, size))
        return column->required ? dead(b, column->key, cell, "nothing there, and it is needed")
                                : ROW_FINE;
    if (!rows_is_fine_text(text, size))
        return dead(b, column->key, cell, "is no text of a row");
    *member = rows_own_text(b, column, text, size);
    if (!*member)
        return -ENOMEM;
    if (field == ROW_FIELD_SYMBOL && !symbol_is_valid(*member))
        return dead(b, column->key, cell, "is no symbol");
    if (rows_request_is_all(requested) || rows_same_value(field, requested, *member))
        return ROW_FINE;
    if (column->filter)
        return ROW_SKIPPED;
    if (!column->same)
        return ROW_FINE;
    r = document_refuse(b->doc, "the reply's %s is \"%s\", asked was \"%s\"", column->key, *member,
                        requested);
    return r < 0 ? r : ROW_REFUSED;
}

/* The first of the month that comes `count` months after that day's. */
static int64_t months_after(int64_t days, unsigned count)
{
    int year;
    unsigned month, day;

    civil_from_days(days, &year, &month, &day);
    month += count - 1;
    return days_from_civil(year + (int)(month / 12), month % 12 + 1, 1);
}

static int64_t end_of_row(const Recipe *recipe, const Row *row, const Interval *interval)
{
    const Zone *zone = NULL;
    int32_t end = row->trade_date;

    if (interval_is_intraday(interval) ||
        (recipe->final == RECIPE_FINAL_INTERVAL && interval->unit != INTERVAL_MONTH))
        return row->ts_usec + (int64_t)interval_usec(interval);
    if (recipe->final == RECIPE_FINAL_INTERVAL)
        return months_after(row->ts_usec / (int64_t)DAY, interval->count) * (int64_t)DAY;
    if (!row->tz || zone_get(row->tz, &zone, NULL) < 0)
        return INT64_MAX;
    switch (interval->unit) {
    case INTERVAL_DAY:
        end += (int32_t)interval->count;
        break;
    case INTERVAL_WEEK: /* to the Monday after: some sources date a week by its first trading day */
        end += 7 * (int32_t)interval->count - ((end + 3) % 7 + 7) % 7;
        break;
    default:
        end = (int32_t)months_after(end, interval->count);
        break;
    }
    return zone_to_utc(zone, (int64_t)end * 86400) * (int64_t)SECOND;
}

int64_t row_end_usec(const Recipe *recipe, const Row *row)
{
    Interval interval;

    return interval_parse(row->interval, &interval) < 0 ? INT64_MAX
                                                        : end_of_row(recipe, row, &interval);
}

/* A row has the table's interval, unless it brought its own. */
static bool row_has_ended(const TableBuilder *b, const Row *row)
{
    int64_t end_usec = row->interval == b->like.interval
                           ? end_of_row(b->doc->recipe, row, &b->interval)
                           : row_end_usec(b->doc->recipe, row);

    return end_usec <= b->doc->request->now_usec;
}

static int read_row(TableBuilder *b, size_t i, Row *row)
{
    int r;

    for (size_t f = ROW_FIELD_SYMBOL; f <= ROW_FIELD_INTERVAL; f++) {
        if (!b->recipe->by_field[f] || b->cells->columns[f].n == 0)
            continue;
        r = read_text(b, i, (RowField)f, row);
        if (r != ROW_FINE)
            return r;
    }
    r = read_ts(b, i, row);
    for (size_t a = 0; a < b->n_amounts && r == ROW_FINE; a++)
        r = read_amount(b, &b->amounts[a], &b->amounts[a].cells[i],
                        (Amount *)(void *)((char *)row + b->amounts[a].offset));
    if (r != ROW_FINE)
        return r;
    row->is_final = b->doc->recipe->final == RECIPE_FINAL_AT_ONCE || row->kind != ROW_BAR ||
                    row_has_ended(b, row);
    if (row->kind == ROW_BAR && !row->open.present && !row->high.present && !row->low.present &&
        !row->close.present) {
        b->context->dropped++;
        return ROW_SKIPPED;
    }
    return ROW_FINE;
}

/* "1577975400|75.08|…": what the source sent for the row. */
static int add_dead(TableBuilder *b, size_t i, const Row *row)
{
    auto_buf Buf text = BUF_INIT(4096);
    int r = 0;

    for (size_t f = 0; f < ROW_FIELD_MAX && r >= 0; f++) {
        const CellColumn *column = &b->cells->columns[f];

        if (i >= column->n)
            continue;
        if (text.size > 0)
            r = buf_add_char(&text, '|');
        if (r >= 0 && column->items[i].text)
            r = buf_add(&text, column->items[i].text, MIN_OF(column->items[i].size, (uint32_t)64));
    }
    if (r == -ENOMEM)
        return r;
    r = row_set_add_dead(b->context->set, row->ts_usec != 0 ? row->ts_usec : INT64_MIN, b->reason,
                         buf_str(&text), text.size);
    return r == -EOVERFLOW ? document_refuse(b->doc, "too many bad rows, the last: %s", b->reason)
           : r < 0         ? r
                           : 1;
}

static bool cell_is_blank(const Cell *cell)
{
    return !cell_is_there(cell) || (cell->kind == CELL_TEXT && cell->size == 0);
}

/* Tables are filled up with rows of nothing. */
static bool row_is_blank(const TableBuilder *b, size_t i)
{
    for (size_t f = 0; f < ROW_FIELD_MAX; f++)
        if (i < b->cells->columns[f].n && !cell_is_blank(&b->cells->columns[f].items[i]))
            return false;
    return true;
}

int rows_build_row(TableBuilder *b, size_t i)
{
    RowSet *set = b->context->set;
    Row *row;
    int r;

    r = row_set_add(set, &b->like, &row);
    if (r == -EOVERFLOW)
        return document_refuse(b->doc, "more rows than a document may give");
    if (r < 0)
        return r;
    r = read_row(b, i, row);
    if (r == ROW_FINE)
        return 1;
    set->n--;
    if (r == ROW_DEAD && b->recipe->min_cells > 0 && row_is_blank(b, i))
        return 1;
    if (r == ROW_DEAD)
        return add_dead(b, i, row);
    return r < 0 ? r : r == ROW_SKIPPED;
}
