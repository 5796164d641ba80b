/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/render.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "agent/base/str.h"
#include "agent/base/time.h"

#define GAP      2 /* between columns */
#define CELL_MIN 6 /* no column shrinks below it */

/* ---- Width ---- */

View render_view_of(int fd)
{
    View view = {.width = RENDER_WIDTH, .now_usec = now_realtime_usec()};
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    struct winsize size;

    if (!isatty(fd))
        return view;
    /* https://no-color.org: set and not empty. */
    view.colour = str_is_empty(no_colour) && term && !streq(term, "dumb");
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        view.width = MIN_OF((unsigned)size.ws_col, (unsigned)RENDER_WIDTH_MAX);
    return view;
}

/* wcwidth() knows Unicode in a UTF-8 locale only, and sudo or a serial console bring "C". */
static locale_t width_locale(void)
{
    static locale_t locale;

    if (!locale)
        locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    return locale;
}

/* The next character: its bytes, and its columns in *ret_width (0 for what combines). */
static size_t next_character(const char *s, size_t *ret_width)
{
    locale_t locale = width_locale(), saved = locale ? uselocale(locale) : (locale_t)0;
    mbstate_t state = {0};
    wchar_t c = 0;
    size_t n;
    int width;

    n = mbrtowc(&c, s, strlen(s), &state);
    if (n == (size_t)-1 || n == (size_t)-2 || n == 0) {
        n = 1;
        width = 1;
    } else {
        width = wcwidth(c);
    }
    if (saved)
        (void)uselocale(saved);
    *ret_width = width < 0 ? 1 : (size_t)width;
    return n;
}

size_t text_width(const char *s)
{
    size_t total = 0, width;

    while (*s) {
        s += next_character(s, &width);
        total += width;
    }
    return total;
}

char *text_fit(const char *s, size_t width, bool keep_end)
{
    auto_free char *clean = str_escape(s, strlen(s), SIZE_MAX);
    size_t total, one, at = 0, n;

    if (!clean)
        return NULL;
    total = text_width(clean);
    if (total <= width)
        return take_ptr(clean);
    if (width == 0)
        return strdup("");

    if (keep_end) {
        /* Drop from the start until the rest fits beside the ellipsis. */
        while (total > width - 1) {
            at += next_character(clean + at, &one);
            total -= one;
        }
        return str_printf("…%s", clean + at);
    }
    for (total = 0;; at += n, total += one) {
        n = next_character(clean + at, &one);
        if (total + one > width - 1)
            break;
    }
    return str_printf("%.*s…", (int)at, clean);
}

/* ---- Colour ---- */

static const char *const colour_codes[] = {
    [COLOUR_NONE] = "",          [COLOUR_GOOD] = "\033[32m", [COLOUR_BUSY] = "\033[33m",
    [COLOUR_BAD] = "\033[1;31m", [COLOUR_DIM] = "\033[2m",   [COLOUR_BOLD] = "\033[1m",
};

static const struct {
    const char *state;
    Colour colour;
} state_colours[] = {
    {"well", COLOUR_GOOD},      {"ok", COLOUR_GOOD},         {"applied", COLOUR_GOOD},
    {"settled", COLOUR_GOOD},   {"healthy", COLOUR_GOOD},    {"committed", COLOUR_GOOD},
    {"running", COLOUR_GOOD},   {"done", COLOUR_GOOD},       {"degraded", COLOUR_BAD},
    {"failed", COLOUR_BAD},     {"unhealthy", COLOUR_BAD},   {"stopped", COLOUR_BAD},
    {"stale", COLOUR_BAD},      {"rolled-back", COLOUR_BAD}, {"rolling-back", COLOUR_BAD},
    {"paused", COLOUR_BUSY},    {"waiting", COLOUR_BUSY},    {"pending", COLOUR_BUSY},
    {"applying", COLOUR_BUSY},  {"starting", COLOUR_BUSY},   {"stopping", COLOUR_BUSY},
    {"resolving", COLOUR_BUSY}, {"pulling", COLOUR_BUSY},    {"staged", COLOUR_BUSY},
    {"switching", COLOUR_BUSY}, {"proving", COLOUR_BUSY},    {"new", COLOUR_BUSY},
    {"idle", COLOUR_DIM},       {"none", COLOUR_DIM},        {"-", COLOUR_DIM},
};

Colour colour_of_state(const char *state)
{
    for (size_t i = 0; i < ELEMENTS(state_colours); i++)
        if (streq(state_colours[i].state, state))
            return state_colours[i].colour;
    return COLOUR_NONE;
}

int render_coloured(Buf *ret, const View *view, Colour colour, const char *text)
{
    if (!view->colour || colour == COLOUR_NONE)
        return buf_add_str(ret, text);
    return buf_printf(ret, "%s%s\033[0m", colour_codes[colour], text);
}

static int add_spaces(Buf *ret, size_t n)
{
    return n > 0 ? buf_printf(ret, "%*s", (int)n, "") : 0;
}

/* ---- Paragraphs ---- */

int render_wrapped(Buf *ret, const View *view, size_t indent, Colour colour, const char *text)
{
    size_t room = view->width > indent + CELL_MIN ? view->width - indent : CELL_MIN, column = 0;
    auto_(strv_freep) char **words = str_split(text, " \t\n");
    int r = 0;

    if (!words)
        return -ENOMEM;
    STRV_FOREACH (word, words) {
        /* A word longer than a line is cut at its edge. */
        auto_free char *fitted = text_fit(*word, room, /* keep_end= */ false);
        size_t width = fitted ? text_width(fitted) : 0;

        if (!fitted)
            return -ENOMEM;
        if (column > 0 && column + 1 + width > room) {
            r = buf_add_char(ret, '\n');
            if (r >= 0)
                r = add_spaces(ret, indent);
            column = 0;
        } else if (column > 0) {
            r = buf_add_char(ret, ' ');
            column++;
        }
        if (r >= 0)
            r = render_coloured(ret, view, colour, fitted);
        if (r < 0)
            return r;
        column += width;
    }
    return buf_add_char(ret, '\n');
}

char *format_number(char ret[static NUMBER_TEXT_MAX], uint64_t number)
{
    char digits[24];
    size_t n, at = 0;

    n = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, number);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            ret[at++] = ',';
        ret[at++] = digits[i];
    }
    ret[at] = '\0';
    return ret;
}

/* ---- Tables ---- */

struct Table {
    Column columns[TABLE_COLUMNS_MAX];
    size_t n_columns;
    char **cells; /* row by row, the headings first */
};

int table_new(const Column *columns, size_t n_columns, Table **ret)
{
    auto_(table_freep) Table *table = NULL;

    assert(columns && n_columns > 0 && n_columns <= TABLE_COLUMNS_MAX && ret);

    table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    memcpy(table->columns, columns, n_columns * sizeof(*columns));
    table->n_columns = n_columns;
    for (size_t i = 0; i < n_columns; i++)
        if (strv_push(&table->cells, columns[i].heading) < 0)
            return -ENOMEM;
    *ret = take_ptr(table);
    return 0;
}

int table_add(Table *table, const char *const *cells)
{
    assert(table && cells);

    for (size_t i = 0; i < table->n_columns; i++) {
        const char *cell = str_is_empty(cells[i]) ? "-" : cells[i];
        auto_free char *clean = str_escape(cell, strlen(cell), SIZE_MAX);

        if (!clean || strv_push(&table->cells, clean) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* As wide as the widest cell; then, while the line is too long, the widest column that may shrink
 * gives one up. */
static void column_widths(const Table *table, size_t room, size_t *ret)
{
    size_t total, n = strv_length(table->cells);

    assert(table->n_columns > 0);
    total = (table->n_columns - 1) * GAP;
    for (size_t i = 0; i < table->n_columns; i++)
        ret[i] = 0;
    for (size_t i = 0; i < n; i++) {
        size_t column = i % table->n_columns;

        ret[column] = MAX_OF(ret[column], text_width(table->cells[i]));
    }
    for (size_t i = 0; i < table->n_columns; i++)
        total += ret[i];

    while (total > room) {
        size_t widest = table->n_columns;

        for (size_t i = 0; i < table->n_columns; i++)
            if ((table->columns[i].flags & COLUMN_SHRINK) && ret[i] > CELL_MIN &&
                (widest == table->n_columns || ret[i] > ret[widest]))
                widest = i;
        if (widest == table->n_columns)
            return;
        ret[widest]--;
        total--;
    }
}

static int add_cell(Buf *ret, const View *view, const Column *column, Colour colour,
                    const char *cell, size_t width, bool last)
{
    auto_free char *fitted = text_fit(cell, width, column->flags & COLUMN_KEEP_END);
    size_t padding;
    int r = 0;

    if (!fitted)
        return -ENOMEM;
    padding = width - MIN_OF(width, text_width(fitted));
    if (column->flags & COLUMN_RIGHT)
        r = add_spaces(ret, padding);
    if (r >= 0)
        r = render_coloured(ret, view, colour, fitted);
    if (r >= 0 && !last)
        r = add_spaces(ret, GAP + (column->flags & COLUMN_RIGHT ? 0 : padding));
    return r;
}

int table_render(const Table *table, const View *view, size_t indent, Buf *ret)
{
    size_t widths[TABLE_COLUMNS_MAX], n;
    int r;

    assert(table && view && ret);
    n = strv_length(table->cells);

    column_widths(table, view->width > indent ? view->width - indent : 0, widths);
    for (size_t i = 0; i < n; i++) {
        size_t at = i % table->n_columns;
        const Column *column = &table->columns[at];
        bool last = at == table->n_columns - 1;
        Colour colour = COLOUR_NONE;

        if (i < table->n_columns)
            colour = COLOUR_DIM;
        else if (column->flags & COLUMN_STATE)
            colour = colour_of_state(table->cells[i]);
        r = at == 0 ? add_spaces(ret, indent) : 0;
        if (r >= 0)
            r = add_cell(ret, view, column, colour, table->cells[i], widths[at], last);
        if (r >= 0 && last)
            r = buf_add_char(ret, '\n');
        if (r < 0)
            return r;
    }
    return 0;
}

Table *table_free(Table *table)
{
    if (!table)
        return NULL;
    (void)strv_free(table->cells);
    free(table);
    return NULL;
}
