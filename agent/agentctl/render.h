/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_RENDER_H
#define AGENT_AGENTCTL_RENDER_H

/* Text for a terminal of a known width: columns counted as the terminal counts them (Korean letters
 * take two), colour only when asked for, control characters never passed on. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"

#define RENDER_WIDTH     80
#define RENDER_WIDTH_MAX 160

typedef enum Colour {
    COLOUR_NONE,
    COLOUR_GOOD,
    COLOUR_BUSY,
    COLOUR_BAD,
    COLOUR_DIM,
    COLOUR_BOLD
} Colour;

/* How the output is to look: see render_view_of(). */
typedef struct View {
    unsigned width;
    bool colour;
    uint64_t now_usec; /* wall clock; ages are told from it */
} View;

/* The terminal behind `fd`: its width, and colour unless NO_COLOR is set or TERM is dumb. No
 * terminal: 80 columns, no colour. */
View render_view_of(int fd);

/* Columns that the text takes; invalid UTF-8 counts one a byte. */
size_t text_width(const char *s);
/* A copy of at most `width` columns, "…" where it was cut: at the end, or at the start for what is
 * told apart by its end (image references, paths). Control characters come out as "\xNN". */
char *text_fit(const char *s, size_t width, bool keep_end);

/* The colour of a word that names a state ("settled", "degraded"). */
Colour colour_of_state(const char *state);
/* The text in a colour, or bare. */
int render_coloured(Buf *ret, const View *view, Colour colour, const char *text) must_check;

/* Words of `text` from column `indent` on, lines ended before the width. The first line's indent
 * is the caller's: the cursor stands there already. Ends with a newline. */
int render_wrapped(Buf *ret, const View *view, size_t indent, Colour colour, const char *text)
    must_check;

/* "12,345". */
#define NUMBER_TEXT_MAX 32
char *format_number(char ret[static NUMBER_TEXT_MAX], uint64_t number);

/* A table: headings, then rows, as wide as what is in them; what does not fit is taken from the
 * columns that may shrink. */
typedef enum ColumnFlags {
    COLUMN_RIGHT = 1 << 0,    /* aligned right: numbers */
    COLUMN_SHRINK = 1 << 1,   /* may be cut */
    COLUMN_KEEP_END = 1 << 2, /* when cut, its end stays */
    COLUMN_STATE = 1 << 3,    /* coloured by colour_of_state() */
} ColumnFlags;

typedef struct Column {
    const char *heading;
    unsigned flags;
} Column;

#define TABLE_COLUMNS_MAX 8

typedef struct Table Table;
int table_new(const Column *columns, size_t n_columns, Table **ret) must_check;
/* One string a column, copied; NULL reads as "-". */
int table_add(Table *table, const char *const *cells) must_check;
int table_render(const Table *table, const View *view, size_t indent, Buf *ret) must_check;
Table *table_free(Table *table);
DEFINE_AUTO(Table, table_free)

#endif
