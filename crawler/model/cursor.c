/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/model/cursor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/parse.h"

/* "1 FROM TO AT PAGE PAGES DONE NEWEST PENDING": version first, so that a later form can be told
 * apart. */
enum { CURSOR_WORDS = 9 };

char *cursor_format(char buf[static CURSOR_TEXT_MAX], const Cursor *cursor)
{
    (void)snprintf(buf, CURSOR_TEXT_MAX,
                   "1 %" PRId64 " %" PRId64 " %" PRId64 " %" PRIu32 " %" PRIu32 " %d %" PRId64
                   " %" PRId64,
                   cursor->from_usec, cursor->to_usec, cursor->at_usec, cursor->page, cursor->pages,
                   cursor->done, cursor->newest_final_usec, cursor->pending_final_usec);
    return buf;
}

int cursor_parse(const char *text, Cursor *ret)
{
    int64_t words[CURSOR_WORDS];
    const char *p = text;

    for (size_t i = 0; i < CURSOR_WORDS; i++) {
        size_t n = strcspn(p, " ");
        char word[32];
        int r;

        if (n == 0 || n >= sizeof(word))
            return -EINVAL;
        memcpy(word, p, n);
        word[n] = '\0';
        r = parse_i64(word, &words[i]);
        if (r < 0)
            return r;
        p += n;
        if (i + 1 < CURSOR_WORDS ? *p++ != ' ' : *p != '\0')
            return -EINVAL;
    }
    if (words[0] != 1 || words[4] < 0 || words[4] > UINT32_MAX || words[5] < 0 ||
        words[5] > UINT32_MAX || words[6] < 0 || words[6] > 1)
        return -EINVAL;
    *ret = (Cursor){
        .from_usec = words[1],
        .to_usec = words[2],
        .at_usec = words[3],
        .page = (uint32_t)words[4],
        .pages = (uint32_t)words[5],
        .done = words[6] == 1,
        .newest_final_usec = words[7],
        .pending_final_usec = words[8],
    };
    return 0;
}

void cursor_start(Cursor *cursor, int64_t from_usec, int64_t to_usec)
{
    int64_t newest = cursor->newest_final_usec;

    *cursor = CURSOR_INIT;
    cursor->from_usec = from_usec;
    cursor->to_usec = to_usec;
    cursor->newest_final_usec = newest;
}
