/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_FETCH_MEMORY_H
#define CRAWLER_FETCH_MEMORY_H

/* What fetching remembers over a restart: how far each symbol is read, and what each host was asked
 * and answered. Fetching says what and when; the spool keeps it beside the rows, so that a cursor
 * and its rows are one transaction. */

#include "agent/base/error.h"
#include "crawler/model/cursor.h"

typedef struct FetchMemory {
    /* 1 found, 0 absent (`ret` untouched). `range` is "" for polling, a back-fill's id otherwise.
     */
    int (*cursor_load)(void *userdata, const char *job, const char *symbol, const char *range,
                       Cursor *ret, Error *err);
    /* All cursors of a range that is read. */
    int (*cursors_forget)(void *userdata, const char *job, const char *range, Error *err);
    /* A small text under a name ("host:query1.finance.yahoo.com"); free() it. 1, or 0 when absent.
     */
    int (*text_load)(void *userdata, const char *name, char **ret, Error *err);
    /* NULL forgets it. `now` makes it durable at once; otherwise with the next document. */
    int (*text_save)(void *userdata, const char *name, const char *text, bool now, Error *err);
    void *userdata;
} FetchMemory;

#endif
