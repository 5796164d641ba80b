/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "crawler/extract/rows-private.h"

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
    r = rows_share(&b);
    if (r <= 0)
        return r;
    r = check_heading(&b);
    for (size_t i = b.recipe->skip_rows; i < b.cells->n_rows && r > 0; i++)
        r = rows_build_row(&b, i);
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
