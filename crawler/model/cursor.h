/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_MODEL_CURSOR_H
#define CRAWLER_MODEL_CURSOR_H

/* How far one (job, symbol, interval) has been read. It is stored in the same transaction as the
 * rows that moved it, and is the whole memory of paging: a process that dies between two pages goes
 * on at the next one. */

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/cleanup.h"

#define CURSOR_NEVER INT64_MIN

typedef struct Cursor {
    /* The range being read: open instants in [from, to). */
    int64_t from_usec, to_usec;
    /* Where the next page begins (paging forward) or ends (paging backward); CURSOR_NEVER: at the
     * start. */
    int64_t at_usec;
    uint32_t page;  /* next page, for sources that number them; 0: none read yet */
    uint32_t pages; /* pages read of this range */
    bool done;      /* the range is read */
    /* Open instant of the newest final bar taken with all before it; the next poll begins there
     * minus the overlap. */
    int64_t newest_final_usec;
    /* The same of a range that is still being read backward: counts when the range is done, since
     * until then there is a hole behind it. */
    int64_t pending_final_usec;
} Cursor;

#define CURSOR_INIT                                                                                \
    ((Cursor){.from_usec = CURSOR_NEVER,                                                           \
              .to_usec = INT64_MAX,                                                                \
              .at_usec = CURSOR_NEVER,                                                             \
              .newest_final_usec = CURSOR_NEVER,                                                   \
              .pending_final_usec = CURSOR_NEVER})

/* Text for the spool; whole or not at all. */
#define CURSOR_TEXT_MAX 192
char *cursor_format(char buf[static CURSOR_TEXT_MAX], const Cursor *cursor);
int cursor_parse(const char *text, Cursor *ret) must_check;

/* Begins a range: keeps newest_final_usec. */
void cursor_start(Cursor *cursor, int64_t from_usec, int64_t to_usec);

#endif
