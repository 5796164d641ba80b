/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/io/json-scan.h"
#include "crawler/extract/document.h"

/* The paths of the recipe become one trie, and the document is read once along it: what no path
 * names is skipped, parallel arrays go straight into their columns, and number text is never
 * copied. A path may pass the same place by name and by wildcard, so a place is a small set of
 * nodes. */

#define NODES_MAX   1024
#define TARGETS_MAX 512
#define AT_MAX      16 /* nodes of one place */

typedef enum TargetKind {
    TARGET_CELL,   /* one value of the document */
    TARGET_ROW,    /* each value here is a row */
    TARGET_COLUMN, /* a column of the row in hand */
    TARGET_ARRAY,  /* a parallel array */
    TARGET_HOLDER, /* what holds the rows: that it is there */
} TargetKind;

typedef struct Target {
    TargetKind kind;
    uint8_t table, field;
    Cell *cell;
    uint16_t next;
} Target;

/* Where the rows are all that something holds: of what kind that is. */
enum { IN_ARRAY = 1, IN_OBJECT = 2 };

typedef struct Node {
    const PathStep *step;
    size_t key_size;
    uint16_t child, sibling, target; /* 0: none; node 0 is the root */
    uint8_t rows_in;                 /* IN_… */
} Node;

typedef struct Reader {
    Document *doc;
    JsonScan scan;
    Node nodes[NODES_MAX];
    Target targets[TARGETS_MAX];
    uint16_t n_nodes, n_targets;
    const char *misplaced; /* the first container of rows that is of the other kind */
    size_t misplaced_at;
} Reader;

/* --- The trie -----------------------------------------------------------------------------------
 */

static bool same_step(const PathStep *a, const PathStep *b)
{
    return a->kind == b->kind && a->index == b->index &&
           (a->kind != PATH_KEY || strcmp(a->key, b->key) == 0);
}

static int add_path(Reader *r, uint16_t from, const RecipePath *path, uint16_t *ret)
{
    uint16_t at = from;

    for (size_t i = 0; i < path->n; i++) {
        const PathStep *step = &path->steps[i];
        uint16_t child = r->nodes[at].child;

        while (child && !same_step(r->nodes[child].step, step))
            child = r->nodes[child].sibling;
        if (!child) {
            if (r->n_nodes == NODES_MAX)
                return -E2BIG;
            child = r->n_nodes++;
            r->nodes[child] = (Node){
                .step = step,
                .key_size = step->key ? strlen(step->key) : 0,
                .sibling = r->nodes[at].child,
            };
            r->nodes[at].child = child;
            if (step->kind == PATH_EACH_ELEMENT)
                r->nodes[at].rows_in |= IN_ARRAY;
            else if (step->kind == PATH_EACH_MEMBER)
                r->nodes[at].rows_in |= IN_OBJECT;
        }
        at = child;
    }
    *ret = at;
    return 0;
}

static int add_target(Reader *r, uint16_t node, Target target)
{
    if (r->n_targets == TARGETS_MAX)
        return -E2BIG;
    target.next = r->nodes[node].target;
    r->targets[r->n_targets] = target;
    r->nodes[node].target = r->n_targets++;
    return 0;
}

static int add_cell(Reader *r, const RecipePath *path, Cell *cell)
{
    uint16_t node = 0;
    int e;

    if (!path)
        return 0;
    e = add_path(r, 0, path, &node);
    return e < 0 ? e : add_target(r, node, (Target){.kind = TARGET_CELL, .cell = cell});
}

static int add_holder(Reader *r, size_t table, const RecipePath *path)
{
    uint16_t node = 0;
    int e;

    e = add_path(r, 0, path, &node);
    return e < 0 ? e
                 : add_target(r, node, (Target){.kind = TARGET_HOLDER, .table = (uint8_t)table});
}

/* The place above the rows: "events.dividends" of "events.dividends.*". */
static int add_rows_holder(Reader *r, size_t table, const RecipePath *rows)
{
    RecipePath above = {.steps = rows->steps, .n = rows->n};

    while (above.n > 0 && (above.steps[above.n - 1].kind == PATH_EACH_ELEMENT ||
                           above.steps[above.n - 1].kind == PATH_EACH_MEMBER))
        above.n--;
    return add_holder(r, table, &above);
}

static int add_table(Reader *r, size_t index)
{
    const RecipeTable *table = document_table(r->doc, index);
    const RecipePath *base = table->arrays ? table->arrays_compiled : table->rows_compiled;
    uint16_t from = 0, node = 0;
    int e;

    r->doc->tables[index].arrays = table->arrays != NULL;
    e = add_path(r, 0, base, &from);
    if (e >= 0 && !table->arrays) {
        e = add_rows_holder(r, index, base);
        if (e >= 0)
            e = add_target(r, from, (Target){.kind = TARGET_ROW, .table = (uint8_t)index});
    }
    if (e >= 0 && table->holder_compiled)
        e = add_holder(r, index, table->holder_compiled);
    FOREACH_ITEM (RecipeColumn, column, table->columns) {
        if (e >= 0 && column->path) {
            e = add_path(r, from, column->path_compiled, &node);
            if (e >= 0)
                e = add_target(r, node,
                               (Target){.kind = table->arrays ? TARGET_ARRAY : TARGET_COLUMN,
                                        .table = (uint8_t)index,
                                        .field = (uint8_t)column->field});
        }
        if (e >= 0)
            e = add_cell(r, column->header_compiled, &r->doc->header[index][column->field]);
    }
    return e;
}

static int add_rules(Reader *r, const FieldArray *rules, RuleCells *cells)
{
    int e = 0;

    FOREACH_ITEM (RecipeRule, rule, *rules) {
        e = add_cell(r, rule->path_compiled, &cells->path);
        if (e >= 0)
            e = add_cell(r, rule->message_compiled, &cells->message);
        for (size_t i = 0; i < RECIPE_ABSENT_MAX && e >= 0; i++)
            e = add_cell(r, rule->absent_compiled[i], &cells->absent[i]);
        if (e < 0)
            return e;
        cells++;
    }
    return 0;
}

static int build(Reader *r)
{
    const Recipe *recipe = r->doc->recipe;
    size_t i = 0;
    int e = 0;

    r->n_nodes = r->n_targets = 1; /* 0 is the root, and "none" */
    r->nodes[0] = (Node){0};
    for (i = 0; i < recipe->tables.n && e >= 0; i++)
        e = add_table(r, i);
    if (e >= 0)
        e = add_rules(r, &recipe->errors, r->doc->errors);
    if (e >= 0)
        e = add_rules(r, &recipe->empty, r->doc->empties);
    i = 0;
    FOREACH_ITEM (RecipeValue, value, recipe->values)
        if (e >= 0)
            e = add_cell(r, value->path_compiled, &r->doc->values[i++]);
    return e < 0 ? e : add_cell(r, recipe->paging.more_compiled, &r->doc->more);
}

/* --- Reading ------------------------------------------------------------------------------------
 */

static int syntax(Reader *r)
{
    unsigned line, column;

    json_scan_position(r->scan.data, r->scan.offset, &line, &column);
    return document_refuse(r->doc, "not JSON: line %u, column %u: %s", line, column,
                           r->scan.message ? r->scan.message : "unreadable");
}

static inline Cell cell_of(const Reader *r, JsonToken token)
{
    static const uint8_t kinds[] = {
        [JSON_TOKEN_STRING] = CELL_STRING,     [JSON_TOKEN_NUMBER] = CELL_NUMBER,
        [JSON_TOKEN_TRUE] = CELL_TRUE,         [JSON_TOKEN_FALSE] = CELL_FALSE,
        [JSON_TOKEN_NULL] = CELL_NULL,         [JSON_TOKEN_OBJECT_BEGIN] = CELL_OBJECT,
        [JSON_TOKEN_ARRAY_BEGIN] = CELL_ARRAY,
    };

    return (Cell){
        .text = r->scan.text,
        .size = (uint32_t)r->scan.text_size,
        .kind = kinds[token],
        .escaped = token == JSON_TOKEN_STRING && r->scan.has_escapes,
    };
}

static bool is_begin(JsonToken token)
{
    return token == JSON_TOKEN_OBJECT_BEGIN || token == JSON_TOKEN_ARRAY_BEGIN;
}

static int too_many(Reader *r, int e)
{
    return e == -EOVERFLOW ? document_refuse(r->doc, "more than %d rows", TABLE_ROWS_MAX) : e;
}

/* The array whose '[' is in hand, into its column. 1, 0 refused, < 0. */
static int read_array(Reader *r, CellColumn *column)
{
    JsonToken token;
    int e;

    while ((token = json_scan_next(&r->scan)) != JSON_TOKEN_ARRAY_END) {
        Cell cell;

        if (token == JSON_TOKEN_ERROR)
            return syntax(r);
        cell = cell_of(r, token);
        if (is_begin(token) && json_scan_skip(&r->scan) < 0)
            return syntax(r);
        e = column_add(column, cell);
        if (e < 0)
            return too_many(r, e);
    }
    return 1;
}

static int refuse_at(Reader *r, size_t offset, const char *what)
{
    unsigned line, column;

    json_scan_position(r->scan.data, offset, &line, &column);
    return document_refuse(r->doc, "line %u, column %u: %s", line, column, what);
}

static int twice(Reader *r)
{
    return refuse_at(r, r->scan.offset, "this value is there twice");
}

/* What the place asks for about the value in hand. Sets `ret_taken` when it was read to its end. */
static int visit(Reader *r, const Target *target, JsonToken token, bool *ret_taken)
{
    TableCells *table = &r->doc->tables[target->table];
    CellColumn *column = &table->columns[target->field];
    Cell *cell;

    switch (target->kind) {
    case TARGET_CELL:
        if (target->cell->kind != CELL_ABSENT)
            return twice(r);
        *target->cell = cell_of(r, token);
        return 1;
    case TARGET_ROW:
        return 1; /* walk() has begun it */
    case TARGET_HOLDER:
        /* The empty shell of parallel arrays may be a null, too. */
        table->seen |= token != JSON_TOKEN_NULL || table->arrays;
        return 1;
    case TARGET_COLUMN:
        cell = document_cell(r->doc, target->table, (RowField)target->field);
        if (cell->kind != CELL_ABSENT)
            return twice(r);
        *cell = cell_of(r, token);
        return 1;
    case TARGET_ARRAY:
        if (column->seen)
            return twice(r);
        if (token == JSON_TOKEN_NULL)
            return 1;
        if (token != JSON_TOKEN_ARRAY_BEGIN)
            return document_refuse(r->doc, "column %s is no array",
                                   recipe_column_names[target->field]);
        column->seen = table->seen = true;
        *ret_taken = true;
        return read_array(r, column);
    }
    return -EINVAL;
}

/* Those of the children of the place that the key or index leads to. */
static size_t step_into(const Reader *r, const uint16_t *at, size_t n, bool in_object,
                        uint32_t index, uint16_t *ret)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        for (uint16_t c = r->nodes[at[i]].child; c; c = r->nodes[c].sibling) {
            const PathStep *step = r->nodes[c].step;
            bool fits = false;

            if (in_object)
                fits = step->kind == PATH_EACH_MEMBER ||
                       (step->kind == PATH_KEY &&
                        (r->scan.has_escapes
                             ? json_scan_is(&r->scan, step->key)
                             : r->scan.text_size == r->nodes[c].key_size &&
                                   memcmp(r->scan.text, step->key, r->nodes[c].key_size) == 0));
            else
                fits = step->kind == PATH_EACH_ELEMENT ||
                       (step->kind == PATH_INDEX && step->index == index);
            if (fits && found < AT_MAX)
                ret[found++] = c;
        }
    return found;
}

/* Rows in a container of the other kind would be passed over as if there were none. It is refused
 * when all was read: what the document says of an error comes first. */
static void look_for_misplaced(Reader *r, bool in_object, const uint16_t *at, size_t n,
                               size_t offset)
{
    unsigned rows_in = 0;

    for (size_t i = 0; i < n; i++)
        rows_in |= r->nodes[at[i]].rows_in;
    if (r->misplaced || rows_in != (in_object ? IN_ARRAY : IN_OBJECT))
        return;
    r->misplaced = in_object ? "an object stands where the rows are elements of an array"
                             : "an array stands where the rows are members of an object";
    r->misplaced_at = offset;
}

static int walk(Reader *r, JsonToken token, const uint16_t *at, size_t n);

static int walk_inside(Reader *r, bool in_object, const uint16_t *at, size_t n)
{
    JsonToken end = in_object ? JSON_TOKEN_OBJECT_END : JSON_TOKEN_ARRAY_END, token;
    size_t offset = r->scan.offset;
    uint16_t next[AT_MAX];
    uint32_t index = 0;
    int e;

    while ((token = json_scan_next(&r->scan)) != end) {
        size_t found;

        if (token == JSON_TOKEN_ERROR)
            return syntax(r);
        found = step_into(r, at, n, in_object, index++, next);
        if (found == 0) {
            /* After a key this skips its value; a scalar element is read already. */
            if ((in_object || is_begin(token)) && json_scan_skip(&r->scan) < 0)
                return syntax(r);
            continue;
        }
        if (in_object) {
            token = json_scan_next(&r->scan);
            if (token == JSON_TOKEN_ERROR)
                return syntax(r);
        }
        e = walk(r, token, next, found);
        if (e <= 0)
            return e;
    }
    /* An empty one is as good as the other: PHP sends [] for {}. */
    if (index > 0)
        look_for_misplaced(r, in_object, at, n, offset);
    return 1;
}

static int walk(Reader *r, JsonToken token, const uint16_t *at, size_t n)
{
    bool taken = false, children = false;
    int e;

    /* The row first, so that its columns find it: a row may be a scalar, and its own column. */
    for (size_t i = 0; i < n; i++)
        for (uint16_t t = r->nodes[at[i]].target; t; t = r->targets[t].next)
            if (r->targets[t].kind == TARGET_ROW) {
                e = document_add_row(r->doc, r->targets[t].table);
                if (e < 0)
                    return too_many(r, e);
            }
    for (size_t i = 0; i < n; i++) {
        children |= r->nodes[at[i]].child != 0;
        for (uint16_t t = r->nodes[at[i]].target; t; t = r->targets[t].next) {
            e = visit(r, &r->targets[t], token, &taken);
            if (e <= 0)
                return e;
        }
    }
    if (!is_begin(token) || taken)
        return 1;
    if (!children)
        return json_scan_skip(&r->scan) < 0 ? syntax(r) : 1;
    return walk_inside(r, token == JSON_TOKEN_OBJECT_BEGIN, at, n);
}

static int read_all(Reader *r)
{
    const char *root = r->doc->recipe->root;
    const uint16_t at = 0;
    JsonToken token;
    int e;

    token = json_scan_next(&r->scan);
    if (token == JSON_TOKEN_ERROR)
        return syntax(r);
    e = walk(r, token, &at, 1);
    if (e <= 0)
        return e;
    if (json_scan_next(&r->scan) != JSON_TOKEN_END)
        return syntax(r);
    if (root && (token != JSON_TOKEN_OBJECT_BEGIN || strcmp(root, "object") != 0) &&
        (token != JSON_TOKEN_ARRAY_BEGIN || strcmp(root, "array") != 0))
        return document_refuse(r->doc, "the document is no JSON %s", root);
    return r->misplaced ? refuse_at(r, r->misplaced_at, r->misplaced) : 1;
}

int document_read_json(Document *doc, const char *body, size_t size)
{
    auto_free Reader *r = NULL;
    int e;

    /* Left uninitialised on purpose: build() sets what it counts. */
    r = malloc(sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->doc = doc;
    r->misplaced = NULL;
    if (size >= 3 && memcmp(body, "\xef\xbb\xbf", 3) == 0) {
        body += 3;
        size -= 3;
    }
    json_scan_init(&r->scan, body, size);
    e = build(r);
    if (e == -E2BIG)
        return document_refuse(doc, "the recipe has too many paths");
    return e < 0 ? e : read_all(r);
}

/* Quasi-JSON of scripts: strings in single quotes, commas before a closing bracket. */
int document_read_text(Document *doc, const char *body, size_t size)
{
    auto_buf Buf buf = BUF_INIT(size * 2 + 64);
    const char *text;
    char quote = 0;
    int e = 0;

    for (size_t i = 0; i < size && e >= 0; i++) {
        char c = body[i];

        if (quote) {
            if (c == '\\' && i + 1 < size) {
                /* \' is no escape of JSON. */
                e = body[i + 1] == '\'' ? 0 : buf_add_char(&buf, c);
                if (e >= 0)
                    e = buf_add_char(&buf, body[++i]);
            } else if (c == quote) {
                quote = 0;
                e = buf_add_char(&buf, '"');
            } else if (c == '"')
                e = buf_add_str(&buf, "\\\"");
            else
                e = buf_add_char(&buf, c);
            continue;
        }
        if (c == '\'' || c == '"') {
            quote = c;
            c = '"';
        }
        if (c == ',') {
            size_t next = i + 1;

            while (next < size && strchr(" \t\r\n", body[next]) && body[next])
                next++;
            if (next < size && (body[next] == ']' || body[next] == '}'))
                continue;
        }
        e = buf_add_char(&buf, c);
    }
    if (e < 0)
        return e;
    text = document_text(doc, buf_str(&buf), buf.size);
    return text ? document_read_json(doc, text, buf.size) : -ENOMEM;
}
