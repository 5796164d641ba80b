/* SPDX-License-Identifier: Apache-2.0 */

/* What all rows of a table share. */

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "crawler/extract/rows-private.h"

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

const size_t rows_text_offsets[ROW_FIELD_MAX] = {
    [ROW_FIELD_SYMBOL] = offsetof(Row, symbol),
    [ROW_FIELD_VENUE] = offsetof(Row, venue),
    [ROW_FIELD_CURRENCY] = offsetof(Row, currency),
    [ROW_FIELD_INTERVAL] = offsetof(Row, interval),
    [ROW_FIELD_TZ] = offsetof(Row, tz),
};

static const char *mapped(const RecipeColumn *column, const char *text)
{
    FOREACH_ITEM (RecipePair, pair, column->map)
        if (streq(pair->key, text))
            return pair->value;
    return text;
}

const char *rows_own_text(TableBuilder *b, const RecipeColumn *column, const char *text,
                          size_t size)
{
    char word[ROWS_TEXT_MAX + 1], whole[ROWS_TEXT_MAX * 2];
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

bool rows_is_null_text(const RecipeColumn *column, const char *text, size_t size)
{
    if (size == 0)
        return true;
    STRV_FOREACH (null, column->null)
        if (strlen(*null) == size && memcmp(*null, text, size) == 0)
            return true;
    return false;
}

bool rows_is_fine_text(const char *text, size_t size)
{
    return size <= ROWS_TEXT_MAX && str_is_utf8(text, size);
}

const char *rows_request_value(const TableBuilder *b, const RecipeColumn *column)
{
    if (column->field == ROW_FIELD_SYMBOL)
        return b->doc->request->symbol;
    return column->field == ROW_FIELD_INTERVAL ? b->doc->request->interval : NULL;
}

bool rows_same_value(RowField field, const char *a, const char *b)
{
    Interval x, y;

    if (field == ROW_FIELD_INTERVAL && interval_parse(a, &x) >= 0 && interval_parse(b, &y) >= 0)
        return interval_usec(&x) == interval_usec(&y);
    return strcasecmp(a, b) == 0;
}

bool rows_request_is_all(const char *value)
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
    if (r == -EBADMSG || (r > 0 && !rows_is_fine_text(text, size)))
        return document_refuse(b->doc, "the reply's %s is no text of at most %d bytes", column->key,
                               ROWS_TEXT_MAX);
    if (r <= 0 || rows_is_null_text(column, text, size))
        return r < 0 ? r : 1;
    *ret = rows_own_text(b, column, text, size);
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
    const char *requested = column->request >= 0 ? rows_request_value(b, column) : NULL;
    const char *header = NULL, *value;
    int r;

    r = header_value(b, column, &header);
    if (r <= 0)
        return r;
    if (header && column->field == ROW_FIELD_SYMBOL && !symbol_is_valid(header))
        return document_refuse(b->doc, "the reply's symbol is none");
    if (requested && rows_request_is_all(requested))
        requested = NULL;
    if (column->same && requested && header && !rows_same_value(column->field, requested, header))
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
            *(const char **)(void *)((char *)&b->like + rows_text_offsets[f]) = value;
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

int rows_share(TableBuilder *b)
{
    int r = share_texts(b);

    if (r > 0)
        r = share_zone(b);
    if (r > 0)
        r = share_interval(b);
    if (r > 0)
        prepare_amounts(b);
    return r;
}
