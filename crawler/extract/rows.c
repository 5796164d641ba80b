/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/extract/document.h"
#include "crawler/extract/when.h"
#include "crawler/model/zone.h"

/* Market data has been kept since 1792; what lies outside of these years is a wrong unit. */
#define TS_MIN_USEC INT64_C(-5364662400000000)
#define TS_MAX_USEC INT64_C(7258118400000000)
#define REASON_MAX  400
#define SHOWN_MAX   60  /* of a bad cell */
#define TEXT_MAX    256 /* of a text in a row */

static const size_t amount_offsets[ROW_FIELD_MAX] = {
    [ROW_FIELD_OPEN] = offsetof(Row, open),
    [ROW_FIELD_HIGH] = offsetof(Row, high),
    [ROW_FIELD_LOW] = offsetof(Row, low),
    [ROW_FIELD_CLOSE] = offsetof(Row, close),
    [ROW_FIELD_VOLUME] = offsetof(Row, volume),
    [ROW_FIELD_ADJ_CLOSE] = offsetof(Row, adj_close),
    [ROW_FIELD_AMOUNT] = offsetof(Row, amount),
    [ROW_FIELD_RATIO_NUM] = offsetof(Row, ratio_num),
    [ROW_FIELD_RATIO_DEN] = offsetof(Row, ratio_den),
};

static const size_t text_offsets[ROW_FIELD_MAX] = {
    [ROW_FIELD_SYMBOL] = offsetof(Row, symbol),
    [ROW_FIELD_VENUE] = offsetof(Row, venue),
    [ROW_FIELD_CURRENCY] = offsetof(Row, currency),
    [ROW_FIELD_INTERVAL] = offsetof(Row, interval),
    [ROW_FIELD_TZ] = offsetof(Row, tz),
};

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
    char reason[REASON_MAX]; /* why the row in hand is dead */
} TableBuilder;

/* --- What all rows of a table share -------------------------------------------------------------
 */

static const char *mapped(const RecipeColumn *column, const char *text)
{
    FOREACH_ITEM (RecipePair, pair, column->map)
        if (streq(pair->key, text))
            return pair->value;
    return text;
}

/* The source's word as ours, in the set's arena. NULL when memory is out. */
static const char *own_text(TableBuilder *b, const RecipeColumn *column, const char *text,
                            size_t size)
{
    char word[TEXT_MAX + 1], whole[TEXT_MAX * 2];
    const char *stop = column->until ? memchr(text, column->until[0], size) : NULL;

    if (stop)
        size = (size_t)(stop - text);
    if (column->map.n == 0 && !column->prefix && !column->suffix)
        return row_set_string(b->context->set, text, size);
    (void)snprintf(word, sizeof(word), "%.*s", (int)MIN_OF(size, sizeof(word) - 1), text);
    (void)snprintf(whole, sizeof(whole), "%s%s%s", column->prefix ? column->prefix : "",
                   mapped(column, word), column->suffix ? column->suffix : "");
    return row_set_string(b->context->set, whole, strlen(whole));
}

static bool is_null_text(const RecipeColumn *column, const char *text, size_t size)
{
    if (size == 0)
        return true;
    STRV_FOREACH (null, column->null)
        if (strlen(*null) == size && memcmp(*null, text, size) == 0)
            return true;
    return false;
}

/* Text that may stand in a row: some bytes of UTF-8. CSV is not checked by anybody before. */
static bool is_fine_text(const char *text, size_t size)
{
    return size <= TEXT_MAX && str_is_utf8(text, size);
}

static const char *request_value(const TableBuilder *b, const RecipeColumn *column)
{
    if (column->field == ROW_FIELD_SYMBOL)
        return b->doc->request->symbol;
    return column->field == ROW_FIELD_INTERVAL ? b->doc->request->interval : NULL;
}

/* "AAPL" and "aapl", "60m" and "1h" are the same thing. */
static bool same_value(RowField field, const char *a, const char *b)
{
    Interval x, y;

    if (field == ROW_FIELD_INTERVAL && interval_parse(a, &x) >= 0 && interval_parse(b, &y) >= 0)
        return interval_usec(&x) == interval_usec(&y);
    return strcasecmp(a, b) == 0;
}

static bool request_is_all(const char *value)
{
    return !value || streq(value, "*");
}

/* The column's value in the document's header part, NULL without: 1, or 0 when refused. */
static int header_value(TableBuilder *b, const RecipeColumn *column, const char **ret)
{
    const char *text;
    size_t size;
    int r;

    r = cell_text(b->doc, &b->doc->header[b->index][column->field], &text, &size);
    if (r == -EBADMSG || (r > 0 && !is_fine_text(text, size)))
        return document_refuse(b->doc, "the reply's %s is no text of at most %d bytes", column->key,
                               TEXT_MAX);
    if (r <= 0 || is_null_text(column, text, size))
        return r < 0 ? r : 1;
    *ret = own_text(b, column, text, size);
    return *ret ? 1 : -ENOMEM;
}

static const char *suffix_value(const TableBuilder *b, const RecipeColumn *column)
{
    const char *symbol = b->like.symbol ? b->like.symbol : b->doc->request->symbol;

    FOREACH_ITEM (RecipePair, pair, column->by_suffix) {
        size_t n = strlen(pair->key), size = symbol ? strlen(symbol) : 0;

        if (n == 0 || (size >= n && strcasecmp(symbol + size - n, pair->key) == 0))
            return pair->value;
    }
    return NULL;
}

/* 1, 0 when the document is refused. `ret` is NULL when there is nothing. */
static int shared_value(TableBuilder *b, const RecipeColumn *column, const char **ret)
{
    const char *requested = column->request >= 0 ? request_value(b, column) : NULL;
    const char *header = NULL, *value;
    int r;

    r = header_value(b, column, &header);
    if (r <= 0)
        return r;
    if (header && column->field == ROW_FIELD_SYMBOL && !symbol_is_valid(header))
        return document_refuse(b->doc, "the reply's symbol is none");
    if (requested && request_is_all(requested))
        requested = NULL;
    if (column->same && requested && header && !same_value(column->field, requested, header))
        return document_refuse(b->doc, "the reply's %s is \"%s\", asked was \"%s\"", column->key,
                               header, requested);
    value = requested ? requested : header ? header : suffix_value(b, column);
    if (!value)
        value = column->constant;
    *ret = NULL;
    if (str_is_empty(value))
        return 1;
    *ret = row_set_string(b->context->set, value, strlen(value));
    return *ret ? 1 : -ENOMEM;
}

static int share_texts(TableBuilder *b)
{
    int r;

    /* The symbol first: by_suffix asks for it. The order of RowField has it so. */
    for (size_t f = ROW_FIELD_SYMBOL; f <= ROW_FIELD_SESSION; f++) {
        const RecipeColumn *column = b->recipe->by_field[f];
        const char *value = NULL;

        if (!column)
            continue;
        r = shared_value(b, column, &value);
        if (r <= 0)
            return r;
        if (f == ROW_FIELD_SESSION) {
            int session = value ? session_from_name(value) : SESSION_NONE;

            b->like.session = session < 0 ? SESSION_NONE : (Session)session;
        } else
            *(const char **)(void *)((char *)&b->like + text_offsets[f]) = value;
    }
    return 1;
}

static int share_zone(TableBuilder *b)
{
    const RecipeColumn *ts = b->recipe->by_field[ROW_FIELD_TS];
    auto_error Error error = {0};
    int r;

    if (!b->like.tz)
        return document_refuse(b->doc, "the reply does not say its time zone");
    r = zone_get(b->like.tz, &b->zone, &error);
    if (r >= 0 && ts->zone)
        r = zone_get(ts->zone, &b->ts_zone, &error);
    else
        b->ts_zone = b->zone;
    if (r == -ENOMEM)
        return r;
    return r < 0 ? document_refuse(b->doc, "%s", error_text(&error)) : 1;
}

static int share_interval(TableBuilder *b)
{
    const RecipeInterval *first = b->doc->recipe->intervals.items;

    /* Neither asked for nor told: what the recipe has first. */
    if (!b->like.interval)
        b->like.interval = row_set_string(b->context->set, first->key, strlen(first->key));
    if (!b->like.interval)
        return -ENOMEM;
    if (interval_parse(b->like.interval, &b->interval) < 0)
        return document_refuse(b->doc, "the reply's interval \"%.32s\" is none", b->like.interval);
    return 1;
}

static void prepare_amounts(TableBuilder *b)
{
    for (size_t f = ROW_FIELD_OPEN; f < ROW_FIELD_MAX; f++) {
        const RecipeColumn *column = b->recipe->by_field[f];

        /* A whole array may be missing (adjclose of minutes); then all its cells are. */
        if (!column || !column->path || b->cells->columns[f].n == 0)
            continue;
        b->amounts[b->n_amounts++] = (AmountColumn){
            .recipe = column,
            .cells = b->cells->columns[f].items,
            .offset = amount_offsets[f],
            .flags = (column->float32 && f != ROW_FIELD_VOLUME ? AMOUNT_FLOAT32 : 0u) |
                     (column->thousands ? AMOUNT_THOUSANDS : 0u),
            .scale = f == ROW_FIELD_VOLUME ? AMOUNT_SCALE_MAX : AMOUNT_SCALE_NUMERIC,
            .exponent = (int)column->times_10_to - (int)column->over_10_to,
        };
    }
}

/* --- One row ------------------------------------------------------------------------------------
 */

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
        if (is_null_text(column->recipe, text, size))
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
    if (r <= 0 || is_null_text(column, text, size))
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
    const char **member = (const char **)(void *)((char *)row + text_offsets[field]);
    const char *requested = request_value(b, column), *text;
    const Cell *cell = &b->cells->columns[field].items[i];
    size_t size;
    int r;

    r = cell_text(b->doc, cell, &text, &size);
    if (r == -ENOMEM)
        return r;
    if (r <= 0 || is_null_text(column, text, size))
        return column->required ? dead(b, column->key, cell, "nothing there, and it is needed")
                                : ROW_FINE;
    if (!is_fine_text(text, size))
        return dead(b, column->key, cell, "is no text of a row");
    *member = own_text(b, column, text, size);
    if (!*member)
        return -ENOMEM;
    if (field == ROW_FIELD_SYMBOL && !symbol_is_valid(*member))
        return dead(b, column->key, cell, "is no symbol");
    if (request_is_all(requested) || same_value(field, requested, *member))
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

static int build_row(TableBuilder *b, size_t i)
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

/* --- A table ------------------------------------------------------------------------------------
 */

/* Two paths that differ in the last step only: columns that a source has or has not together. */
static bool same_parent(const RecipePath *a, const RecipePath *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i + 1 < a->n; i++)
        if (a->steps[i].kind != b->steps[i].kind || a->steps[i].index != b->steps[i].index ||
            !streq_ptr(a->steps[i].key, b->steps[i].key))
            return false;
    return true;
}

/* An optional array may be missing, but only with all its optional neighbours: one alone was
 * renamed. */
static bool may_be_missing(const TableBuilder *b, const RecipeColumn *column)
{
    if (!column->optional || b->cells->columns[column->field].seen)
        return false;
    FOREACH_ITEM (RecipeColumn, other, b->recipe->columns)
        if (other->path && other->optional && b->cells->columns[other->field].seen &&
            same_parent(other->path_compiled, column->path_compiled))
            return false;
    return true;
}

static bool any_array(const TableBuilder *b)
{
    for (size_t f = 0; f < ROW_FIELD_MAX; f++)
        if (b->cells->columns[f].seen)
            return true;
    return false;
}

/* Arrays without the one that says when: a source's way of saying that there is nothing, as long as
 * there is nothing in them. */
static int check_timeless(TableBuilder *b)
{
    for (size_t f = 0; f < ROW_FIELD_MAX; f++)
        for (size_t i = 0; i < b->cells->columns[f].n; i++)
            if (cell_is_there(&b->cells->columns[f].items[i]))
                return document_refuse(b->doc, "%s has values, and there is no ts to them",
                                       recipe_column_names[f]);
    b->cells->n_rows = 0;
    return 1;
}

/* Parallel arrays must be of one length. */
static int check_arrays(TableBuilder *b)
{
    const CellColumn *ts = &b->cells->columns[ROW_FIELD_TS];

    if (!any_array(b))
        return 1; /* the holder alone: a reply without rows */
    if (!ts->seen)
        return check_timeless(b);
    b->cells->n_rows = ts->n;
    FOREACH_ITEM (RecipeColumn, column, b->recipe->columns) {
        const CellColumn *cells = &b->cells->columns[column->field];

        if (!column->path || (cells->n == ts->n && cells->seen) || may_be_missing(b, column))
            continue;
        return document_refuse(b->doc, "%s has %zu values, %s has %zu", column->key, cells->n,
                               recipe_column_names[ROW_FIELD_TS], ts->n);
    }
    return 1;
}

static bool rows_ascend(const RowSet *set, size_t first)
{
    for (size_t i = first + 1; i < set->n; i++)
        if (set->rows[i].ts_usec < set->rows[i - 1].ts_usec)
            return false;
    return true;
}

/* Counts that run over the day: each row gets what was added since the row before. Of the first row
 * of the document that is known only where counting begins (`time`): elsewhere it is not whole, and
 * one that was not asked for, a lead for the next one, goes. */
static void spread_cumulative(TableBuilder *b, const AmountColumn *column, size_t first)
{
    RowSet *set = b->context->set;

    for (size_t i = set->n; i-- > first;) {
        Amount *amount = (Amount *)(void *)((char *)&set->rows[i] + column->offset);
        const Amount *before =
            (const Amount *)(void *)((char *)&set->rows[i > first ? i - 1 : i] + column->offset);

        if (i > first && set->rows[i - 1].trade_date == set->rows[i].trade_date) {
            if (amount->present &&
                (!before->present || amount_subtract(amount, before, amount) < 0 ||
                 amount_is_negative(amount)))
                *amount = AMOUNT_ABSENT;
        } else if (i == first &&
                   zone_second_of_day(b->zone, set->rows[i].ts_usec) > column->recipe->time_sec) {
            *amount = AMOUNT_ABSENT;
            set->rows[i].is_final = false;
            if (set->rows[i].ts_usec < b->doc->request->from_usec) {
                rows_remove(b->context, i);
                b->context->dropped++;
            }
        }
    }
}

/* What the first row has for ts and the amounts, joined by ','. */
static int heading_text(TableBuilder *b, Buf *ret)
{
    for (size_t f = ROW_FIELD_TS; f < ROW_FIELD_MAX; f++) {
        const char *text = "";
        size_t size = 0;
        int r;

        if (b->cells->columns[f].n == 0)
            continue;
        r = cell_text(b->doc, &b->cells->columns[f].items[0], &text, &size);
        if (r >= 0 && f > ROW_FIELD_TS)
            r = buf_add_char(ret, ',');
        if (r >= 0)
            r = buf_add(ret, text, size);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Rows that are headings are skipped when they are those that the recipe knows, where it says so by
 * the ts alone or by all: columns that changed their places give rows that look right. */
static int check_heading(TableBuilder *b)
{
    auto_buf Buf text = BUF_INIT(4096);
    int r;

    if (b->recipe->skip_rows == 0 || !b->recipe->headings)
        return 1;
    r = heading_text(b, &text);
    if (r == -ENOMEM)
        return r;
    STRV_FOREACH (heading, b->recipe->headings) {
        size_t size = strchr(*heading, ',') ? text.size : strcspn(buf_str(&text), ",");

        if (r >= 0 && strlen(*heading) == size && memcmp(*heading, buf_str(&text), size) == 0)
            return 1;
    }
    return document_refuse(b->doc, "the first row is no known heading");
}

static bool column_is_somewhere(const CellColumn *column)
{
    for (size_t i = 0; i < column->n; i++)
        if (column->items[i].kind != CELL_ABSENT)
            return true;
    return false;
}

static int build_table(RowsContext *context, size_t index)
{
    TableBuilder b = {
        .context = context,
        .doc = context->doc,
        .recipe = document_table(context->doc, index),
        .cells = &context->doc->tables[index],
        .index = index,
    };
    size_t first = context->set->n, dead_before = context->set->n_dead;
    int r = 1;

    b.like.kind = (RowKind)b.recipe->kind;
    if (b.cells->arrays)
        r = check_arrays(&b);
    if (r <= 0 || b.cells->n_rows == 0)
        return r;
    b.like.source =
        row_set_string(context->set, context->recipe->name, strlen(context->recipe->name));
    if (!b.like.source)
        return -ENOMEM;
    r = share_texts(&b);
    if (r > 0)
        r = share_zone(&b);
    if (r > 0)
        r = share_interval(&b);
    if (r <= 0)
        return r;
    prepare_amounts(&b);
    r = check_heading(&b);
    for (size_t i = b.recipe->skip_rows; i < b.cells->n_rows && r > 0; i++)
        r = build_row(&b, i);
    if (r <= 0)
        return r;

    if (!column_is_somewhere(&b.cells->columns[ROW_FIELD_TS]))
        return document_refuse(b.doc, "no row has a ts, the source may have changed");
    /* One bad row is a bad row; nothing but bad rows is another document than the recipe knows. */
    if (context->set->n == first && context->set->n_dead - dead_before >= 2)
        return document_refuse(b.doc, "no row can be read, the source may have changed: %s",
                               b.reason);
    for (size_t a = 0; a < b.n_amounts; a++) {
        if (!b.amounts[a].recipe->cumulative)
            continue;
        if (!rows_ascend(context->set, first))
            return document_refuse(b.doc,
                                   "%s counts over the day, and the rows are not in its order",
                                   b.amounts[a].recipe->key);
        spread_cumulative(&b, &b.amounts[a], first);
    }
    return 1;
}

void rows_remove(RowsContext *context, size_t i)
{
    RowSet *set = context->set;

    assert(i < set->n);

    memmove(&set->rows[i], &set->rows[i + 1], (set->n - i - 1) * sizeof(*set->rows));
    set->n--;
}

/* The same bar twice in one document: the later in time of sending counts, as the source appends.
 */
static void drop_doubles(RowsContext *context)
{
    RowSet *set = context->set;

    for (size_t i = context->first + 1; i < set->n;)
        if (row_same_identity(&set->rows[i - 1], &set->rows[i])) {
            rows_remove(context, i - 1);
            context->dropped++;
        } else
            i++;
}

int rows_build(RowsContext *context)
{
    const Recipe *recipe = context->recipe;
    int r = 1;

    context->first = context->set->n;
    for (size_t i = 0; i < recipe->tables.n && r > 0; i++)
        r = build_table(context, i);
    if (r <= 0)
        return r;
    STRV_FOREACH (name, recipe->fixups) {
        const Fixup *fixup = fixup_find(*name);

        /* The compiler looks for it, where extract_init() was called before. */
        if (!fixup)
            return document_refuse(context->doc, "there is no fixup \"%s\"", *name);
        r = fixup->apply(context);
        if (r <= 0)
            return r;
    }
    if (context->first == 0) {
        r = row_set_sort(context->set);
        if (r < 0)
            return r;
    }
    drop_doubles(context);
    return 1;
}
