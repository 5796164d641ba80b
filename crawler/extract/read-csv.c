/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "crawler/extract/document.h"

#define CELLS_MAX 64

typedef struct Csv {
    Document *doc;
    const char *at, *end;
    char separator;
    Cell cells[CELLS_MAX];
    size_t n; /* cells of the line in hand */
} Csv;

static Cell trimmed(const char *s, const char *end)
{
    while (s < end && (*s == ' ' || *s == '\t'))
        s++;
    while (end > s && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
        end--;
    return (Cell){.text = s, .size = (uint32_t)(end - s), .kind = CELL_TEXT};
}

/* "in ""quotes""", the opening quote in hand. */
static int read_quoted(Csv *csv, Cell *ret)
{
    auto_buf Buf buf = BUF_INIT((size_t)(csv->end - csv->at) + 1);
    int r = 0;

    for (csv->at++; csv->at < csv->end && r >= 0; csv->at++) {
        if (*csv->at == '"') {
            if (csv->at + 1 == csv->end || csv->at[1] != '"')
                break;
            csv->at++;
        }
        r = buf_add_char(&buf, *csv->at);
    }
    if (r < 0)
        return r;
    if (csv->at == csv->end)
        return document_refuse(csv->doc, "a quoted cell has no end");
    csv->at++;
    *ret = (Cell){.text = document_text(csv->doc, buf_str(&buf), buf.size),
                  .size = (uint32_t)buf.size,
                  .kind = CELL_TEXT};
    return ret->text ? 1 : -ENOMEM;
}

/* One line into cells; 1, 0 refused, < 0. */
static int read_line(Csv *csv)
{
    csv->n = 0;
    for (;;) {
        const char *start = csv->at;
        Cell cell;

        if (csv->at < csv->end && *csv->at == '"') {
            int r = read_quoted(csv, &cell);

            if (r <= 0)
                return r;
            while (csv->at < csv->end && *csv->at != csv->separator && *csv->at &&
                   strchr(" \t\r", *csv->at))
                csv->at++;
            if (csv->at < csv->end && *csv->at != csv->separator && *csv->at != '\n')
                return document_refuse(csv->doc, "a quoted cell goes on after its quote");
        } else {
            while (csv->at < csv->end && *csv->at != csv->separator && *csv->at != '\n')
                csv->at++;
            cell = trimmed(start, csv->at);
        }
        if (csv->n == CELLS_MAX)
            return document_refuse(csv->doc, "a line has more than %d cells", CELLS_MAX);
        csv->cells[csv->n++] = cell;
        if (csv->at == csv->end)
            return 1;
        if (*csv->at++ == '\n')
            return 1;
    }
}

/* Whether the cell is one of the headings "Date|Data". */
static bool is_heading(const char *names, const Cell *cell)
{
    for (const char *p = names;;) {
        size_t n = strcspn(p, "|");

        if (n == cell->size && memcmp(p, cell->text, n) == 0)
            return true;
        if (!p[n])
            return false;
        p += n + 1;
    }
}

/* The first line as the recipe's headings are written: no blanks around commas, none at the end
 * (one comma too many at the end of all lines is no column). */
static int heading_text(const Csv *csv, Buf *ret)
{
    const char *end = memchr(csv->at, '\n', (size_t)(csv->end - csv->at));
    int r = 0;

    if (!end)
        end = csv->end;
    for (const char *p = csv->at; p < end && r >= 0; p++) {
        if ((*p == ' ' && ret->size > 0 && ret->data[ret->size - 1] == ',') || *p == '\r' ||
            *p == '"')
            continue;
        r = buf_add_char(ret, *p == csv->separator ? ',' : *p);
    }
    while (r >= 0 && ret->size > 0 &&
           (ret->data[ret->size - 1] == ',' || ret->data[ret->size - 1] == ' '))
        ret->data[--ret->size] = '\0';
    return r;
}

/* The first line must be one that the recipe knows: any error page is a line of text, too. */
static int read_heading(Csv *csv, const RecipeTable *table, int columns[static CELLS_MAX])
{
    auto_buf Buf line = BUF_INIT(4096);
    auto_free char *shown = NULL;
    int r;

    r = heading_text(csv, &line);
    if (r == -ENOMEM)
        return r;
    if (r < 0 || !strv_contains(table->headings, buf_str(&line))) {
        shown = str_escape(buf_str(&line), line.size, 80);
        if (!shown)
            return -ENOMEM;
        return document_refuse(csv->doc, "the first line is no known heading: \"%s\"", shown);
    }
    r = read_line(csv);
    if (r <= 0)
        return r;
    FOREACH_ITEM (RecipeColumn, column, table->columns)
        for (size_t i = 0; column->path && i < csv->n; i++)
            if (is_heading(column->path, &csv->cells[i]))
                columns[i] = (int)column->field;
    return 1;
}

/* The last line has no end, and a column that the recipe reads did not come any more: the reply was
 * cut here, and the cell before may be half a number. A short line with an end is only short. */
static bool line_is_cut(const Csv *csv, const int columns[static CELLS_MAX])
{
    if (csv->at < csv->end || csv->at[-1] == '\n')
        return false;
    for (size_t i = csv->n; i < CELLS_MAX; i++)
        if (columns[i] >= 0)
            return true;
    return false;
}

/* Something beyond the heading's last column: whatever stands before it may have moved, as commas
 * of numbers make cells, too. */
static bool line_is_too_long(const Csv *csv, size_t width)
{
    for (size_t i = width; i < csv->n; i++)
        if (csv->cells[i].size > 0)
            return true;
    return false;
}

static int read_rows(Csv *csv)
{
    const RecipeTable *table = document_table(csv->doc, 0);
    int columns[CELLS_MAX], r;
    size_t width;

    for (size_t i = 0; i < CELLS_MAX; i++)
        columns[i] = -1;
    r = read_heading(csv, table, columns);
    if (r <= 0)
        return r;
    csv->doc->tables[0].seen = true;
    width = csv->n;
    while (csv->at < csv->end) {
        r = read_line(csv);
        if (r <= 0)
            return r;
        if (csv->n == 1 && csv->cells[0].size == 0)
            continue;
        if (line_is_cut(csv, columns))
            return document_refuse(csv->doc, "the last line is cut off");
        if (line_is_too_long(csv, width))
            return document_refuse(csv->doc, "a line has %zu cells, and the heading %zu", csv->n,
                                   width);
        r = document_add_row(csv->doc, 0);
        if (r < 0)
            return r == -EOVERFLOW ? document_refuse(csv->doc, "more than %d rows", TABLE_ROWS_MAX)
                                   : r;
        for (size_t i = 0; i < csv->n; i++)
            if (columns[i] >= 0)
                *document_cell(csv->doc, 0, (RowField)columns[i]) = csv->cells[i];
    }
    return 1;
}

int document_read_csv(Document *doc, const char *body, size_t size)
{
    auto_buf Buf buf = BUF_INIT(size * 4 + 64);
    Csv csv = {.doc = doc, .separator = doc->recipe->separator[0]};
    int r;

    if (size >= 3 && memcmp(body, "\xef\xbb\xbf", 3) == 0) {
        body += 3;
        size -= 3;
    }
    if (doc->recipe->charset) {
        r = charset_decode(doc->recipe->charset, body, size, &buf);
        if (r < 0)
            return r == -EINVAL ? document_refuse(doc, "unknown charset %s", doc->recipe->charset)
                                : r;
        body = document_text(doc, buf_str(&buf), buf.size);
        size = buf.size;
        if (!body)
            return -ENOMEM;
    }
    csv.at = body;
    csv.end = body + size;
    return read_rows(&csv);
}
