/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/extract/document.h"

#include <assert.h>
#include <errno.h>
#include <iconv.h>
#include <stdarg.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/io/json-scan.h"

#define TEXT_CHUNK (64 * 1024)

struct DocumentText {
    DocumentText *next;
    size_t used, size;
    char data[];
};

void document_done(Document *doc)
{
    for (size_t t = 0; t < TABLES_MAX; t++)
        for (size_t f = 0; f < ROW_FIELD_MAX; f++)
            free(doc->tables[t].columns[f].items);
    while (doc->texts) {
        DocumentText *text = doc->texts;

        doc->texts = text->next;
        free(text);
    }
    free(doc->reason);
    *doc = (Document){0};
}

int document_refuse(Document *doc, const char *format, ...)
{
    va_list args;
    int r;

    if (doc->reason)
        return 0;
    va_start(args, format);
    r = vasprintf(&doc->reason, format, args);
    va_end(args);
    if (r < 0) {
        doc->reason = NULL;
        return -ENOMEM;
    }
    return 0;
}

const char *document_text(Document *doc, const char *s, size_t size)
{
    DocumentText *text = doc->texts;
    char *copy;

    if (!text || text->size - text->used < size + 1) {
        size_t room = MAX_OF(size + 1, (size_t)TEXT_CHUNK);

        text = malloc(sizeof(*text) + room);
        if (!text)
            return NULL;
        text->next = doc->texts;
        text->size = room;
        text->used = 0;
        doc->texts = text;
    }
    copy = text->data + text->used;
    if (size > 0)
        memcpy(copy, s, size);
    copy[size] = '\0';
    text->used += size + 1;
    return copy;
}

int column_grow(CellColumn *column)
{
    size_t n = column->allocated ? MIN_OF(column->allocated * 2, (size_t)TABLE_ROWS_MAX) : 512;
    Cell *items;

    if (column->n >= TABLE_ROWS_MAX)
        return -EOVERFLOW;
    items = reallocarray(column->items, n, sizeof(*items));
    if (!items)
        return -ENOMEM;
    column->items = items;
    column->allocated = n;
    return 0;
}

int document_add_row(Document *doc, size_t table)
{
    const RecipeTable *recipe = document_table(doc, table);
    TableCells *cells = &doc->tables[table];
    int r;

    if (cells->n_rows >= TABLE_ROWS_MAX)
        return -EOVERFLOW;
    for (size_t f = 0; f < ROW_FIELD_MAX; f++) {
        if (!recipe->by_field[f] || !recipe->by_field[f]->path)
            continue;
        r = column_add(&cells->columns[f], (Cell){0});
        if (r < 0)
            return r;
    }
    cells->n_rows++;
    return 0;
}

int cell_text(Document *doc, const Cell *cell, const char **ret, size_t *ret_size)
{
    auto_buf Buf buf = BUF_INIT(1024 * 1024);
    JsonScan scan;
    int r;

    switch ((CellKind)cell->kind) {
    case CELL_ABSENT:
    case CELL_NULL:
    case CELL_OBJECT:
    case CELL_ARRAY:
        return 0;
    case CELL_TRUE:
        *ret = "true";
        *ret_size = 4;
        return 1;
    case CELL_FALSE:
        *ret = "false";
        *ret_size = 5;
        return 1;
    case CELL_NUMBER:
    case CELL_STRING:
    case CELL_TEXT:
        break;
    }
    *ret = cell->text;
    *ret_size = cell->size;
    if (!cell->escaped)
        return 1;

    scan = (JsonScan){.text = cell->text, .text_size = cell->size, .has_escapes = true};
    r = json_scan_string(&scan, &buf);
    if (r < 0)
        return r == -EFBIG ? -EBADMSG : r;
    *ret = document_text(doc, buf_str(&buf), buf.size);
    *ret_size = buf.size;
    return *ret ? 1 : -ENOMEM;
}

int charset_decode(const char *charset, const char *body, size_t size, Buf *ret)
{
    const char *name = strcasecmp(charset, "EUC-KR") == 0 ? "CP949" : charset;
    char *in = (char *)body; /* iconv() has no const, and does not write */
    iconv_t cd = iconv_open("UTF-8", name);
    int r = 0;

    if (cd == (iconv_t)-1)
        return -EINVAL;
    while (size > 0 && r >= 0) {
        char out[4096], *to = out;
        size_t room = sizeof(out), n;

        n = iconv(cd, &in, &size, &to, &room);
        r = buf_add(ret, out, sizeof(out) - room);
        if (n == (size_t)-1 && errno != E2BIG && r >= 0) {
            /* A byte that is no text, or half a character at the end. */
            r = buf_add_str(ret, "\xef\xbf\xbd");
            in++;
            size--;
        }
    }
    (void)iconv_close(cd);
    return r;
}
