/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/page.h"

#include <errno.h>
#include <stdarg.h>

static int add_heading(Buf *ret, const View *view, const char *heading)
{
    size_t width = text_width(heading);
    int r;

    r = render_coloured(ret, view, COLOUR_BOLD, heading);
    return r < 0 ? r : buf_printf(ret, "%*s", width < INDENT ? (int)(INDENT - width) : 1, "");
}

static int add_indent(Buf *ret)
{
    return buf_printf(ret, "%*s", INDENT, "");
}

int add_line(Buf *ret, const View *view, const char *heading, Colour colour, const char *format,
             ...)
{
    auto_free char *text = NULL;
    va_list args;
    int n, r;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) {
        text = NULL;
        return -ENOMEM;
    }
    r = *heading ? add_heading(ret, view, heading) : add_indent(ret);
    return r < 0 ? r : render_wrapped(ret, view, INDENT, colour, text);
}

int add_table(Buf *ret, const View *view, const Table *table, size_t n_rows)
{
    int r;

    if (n_rows == 0)
        return 0;
    r = buf_add_char(ret, '\n');
    return r < 0 ? r : table_render(table, view, 0, ret);
}
