/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_PAGE_H
#define AGENT_AGENTCTL_PAGE_H

/* The two things that a page is made of: lines with a heading before them, and tables. */

#include "agent/agentctl/render.h"

#define INDENT 12 /* where values stand, right of the headings */

/* "Heading     words of a sentence": an empty heading continues the paragraph above. */
int add_line(Buf *ret, const View *view, const char *heading, Colour colour, const char *format,
             ...) printf_like(5, 6) must_check;
/* A list under its own headings; nothing when it is empty. */
int add_table(Buf *ret, const View *view, const Table *table, size_t n_rows) must_check;

#endif
