/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_EXTRACT_DOCUMENT_H
#define CRAWLER_EXTRACT_DOCUMENT_H

/* A reply taken apart, whatever its format: cells by table and column, values of the document, and
 * what the rules ask about. Readers (json, xml, html, csv, text) fill it, rows.c reads it. Private
 * to crawler/extract. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "crawler/extract/extract.h"
#include "crawler/recipe/recipe.h"

/* As many as recipe-fields.c allows. */
#define TABLES_MAX     10
#define ERRORS_MAX     50
#define EMPTIES_MAX    20
#define VALUES_MAX     40
#define TABLE_ROWS_MAX ROW_SET_MAX

typedef enum CellKind {
    CELL_ABSENT,
    CELL_NULL,
    CELL_NUMBER, /* a JSON number, its text as sent */
    CELL_STRING, /* a JSON string; `escaped`: has escapes still */
    CELL_TEXT,   /* of xml, html, csv: trimmed */
    CELL_TRUE,
    CELL_FALSE,
    CELL_OBJECT, /* something, but no scalar */
    CELL_ARRAY,
} CellKind;

typedef struct Cell {
    const char *text; /* of the body, or of the document's own texts; not NUL-terminated */
    uint32_t size;
    uint8_t kind;
    bool escaped;
} Cell;

typedef struct CellColumn {
    Cell *items;
    size_t n, allocated;
    bool seen; /* of parallel arrays: the array was there */
} CellColumn;

typedef struct TableCells {
    CellColumn columns[ROW_FIELD_MAX]; /* those with a path */
    size_t n_rows;
    bool seen; /* what holds the rows was there, with or without rows */
    bool arrays;
} TableCells;

/* What a rule asks about. */
typedef struct RuleCells {
    Cell path, message;
    Cell absent[RECIPE_ABSENT_MAX];
} RuleCells;

typedef struct DocumentText DocumentText;

typedef struct Document {
    const Recipe *recipe;
    const ExtractRequest *request;
    TableCells tables[TABLES_MAX];
    Cell header[TABLES_MAX][ROW_FIELD_MAX];
    RuleCells errors[ERRORS_MAX], empties[EMPTIES_MAX];
    Cell values[VALUES_MAX];
    Cell more;
    DocumentText *texts;
    bool is_read; /* as the recipe says; what follows may still refuse it */
    char *reason; /* why it is refused */
} Document;

#define FOREACH_ITEM(type, item, array)                                                            \
    for (type *item = (array).items, *item##_end_ = item ? item + (array).n : NULL;                \
         item != item##_end_; item++)

static inline RecipeTable *document_table(const Document *doc, size_t i)
{
    return (RecipeTable *)doc->recipe->tables.items + i;
}

void document_done(Document *doc);
#define auto_document auto_(document_done)

/* Refuses it, for the first reason given: returns 0, or -ENOMEM. */
int document_refuse(Document *doc, const char *format, ...) printf_like(2, 3);
/* A copy that lives as long as the document; NULL when memory is out. */
const char *document_text(Document *doc, const char *s, size_t size);
/* One more row of that table, all its cells absent. -ENOMEM, -EOVERFLOW. */
int document_add_row(Document *doc, size_t table) must_check;
static inline Cell *document_cell(Document *doc, size_t table, RowField field)
{
    return &doc->tables[table].columns[field].items[doc->tables[table].n_rows - 1];
}
/* Room for one more cell of the column. -ENOMEM, -EOVERFLOW. */
int column_grow(CellColumn *column) must_check;
/* One more cell of a column of parallel arrays. */
static inline must_check int column_add(CellColumn *column, Cell cell)
{
    int r = column->n == column->allocated ? column_grow(column) : 0;

    if (r >= 0)
        column->items[column->n++] = cell;
    return r;
}

/* Text of a cell, escapes decoded; 1, or 0 when it has none (absent, null, no scalar). -ENOMEM;
 * -EBADMSG: escapes that are no text. */
int cell_text(Document *doc, const Cell *cell, const char **ret, size_t *ret_size) must_check;
static inline bool cell_is_there(const Cell *cell)
{
    return cell->kind != CELL_ABSENT && cell->kind != CELL_NULL;
}

/* Readers: 1 when read, 0 when refused (`reason`), < 0 for memory. They fill what the recipe names
 * and check the root. */
int document_read_json(Document *doc, const char *body, size_t size) must_check;
int document_read_text(Document *doc, const char *body, size_t size) must_check;
int document_read_xml(Document *doc, const char *body, size_t size) must_check;
int document_read_html(Document *doc, const char *body, size_t size) must_check;
int document_read_csv(Document *doc, const char *body, size_t size) must_check;

/* The bytes as UTF-8; what is no text of that charset becomes U+FFFD. EUC-KR is read as CP949,
 * which holds it and is what Korean sites send under that name. -EINVAL: unknown charset. */
int charset_decode(const char *charset, const char *body, size_t size, Buf *ret) must_check;

/* Whether libxml2 can read it: NULL, else what is wrong. For the compiler of recipes. */
const char *document_check_xpath(const char *xpath);

/* --- Rows ----------------------------------------------------------------------------------------
 */

/* Rows of one document in the making. Fixups work on rows[first…n) of the set. */
typedef struct RowsContext {
    Document *doc;
    const Recipe *recipe;
    const ExtractRequest *request;
    RowSet *set;
    size_t first; /* index of this document's first row in the set */
    size_t dropped;
} RowsContext;

/* 1, 0 when the document is refused, < 0. */
int rows_build(RowsContext *context) must_check;
/* Instant at which the bar has ended, local calendar observed. */
int64_t row_end_usec(const Recipe *recipe, const Row *row);

typedef struct Fixup {
    const char *name;
    int (*apply)(RowsContext *context); /* 1, 0 when the document is refused, or -errno */
} Fixup;

const Fixup *fixup_find(const char *name);
/* The recipe's value of that name as an integer: 1, or 0 when absent or no integer. */
int fixup_value(const RowsContext *context, const char *name, int64_t *ret);
/* Takes row `i` out, the order of the others kept. */
void rows_remove(RowsContext *context, size_t i);

#endif
