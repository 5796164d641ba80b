/* SPDX-License-Identifier: Apache-2.0 */

/* What the spool remembers as text, from a database that may be damaged: cursors, and what a host
 * was asked. A cursor is read whole or not at all; a host is always usable. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/fetch/politeness.h"
#include "crawler/model/cursor.h"
#include "tests/fuzz/fuzz.h"

static void check_cursor(const char *text)
{
    char again[CURSOR_TEXT_MAX];
    Cursor cursor = CURSOR_INIT, same = CURSOR_INIT;

    if (cursor_parse(text, &cursor) < 0)
        return;
    FUZZ_CHECK(cursor_parse(cursor_format(again, &cursor), &same) == 0);
    FUZZ_CHECK(cursor.from_usec == same.from_usec && cursor.to_usec == same.to_usec &&
               cursor.at_usec == same.at_usec && cursor.page == same.page &&
               cursor.pages == same.pages && cursor.done == same.done &&
               cursor.newest_final_usec == same.newest_final_usec &&
               cursor.pending_final_usec == same.pending_final_usec);
}

static void check_host(const char *text)
{
    const FetchLimits limits = {.delay_usec = 2 * SECOND, .connections = 1, .nat_ports = 64};
    const uint64_t now = UINT64_C(1791354600) * SECOND;
    auto_(fetch_host_freep) FetchHost *host = NULL;
    auto_free char *first = NULL;
    const char *why = NULL;

    FUZZ_CHECK(fetch_host_new("host.example", &host) >= 0);
    fetch_host_parse(host, text);
    /* Whatever was written there: nobody waits for longer than a breaker ever stays open. */
    FUZZ_CHECK(fetch_host_wait(host, &limits, now, &why) <= 2 * DAY);
    (void)fetch_host_recent_connections(host, now);
    fetch_host_begin(host, &limits, now);
    fetch_host_connected(host, 1, now);
    fetch_host_end(host, FETCH_THROTTLED, 5 * SECOND, "busy", now);
    FUZZ_CHECK(fetch_host_wait(host, &limits, now, &why) <= 2 * DAY);
    first = fetch_host_format(host);
    FUZZ_CHECK(first && str_is_utf8(first, strlen(first)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_free char *text = strndup((const char *)data, size);

    FUZZ_CHECK(text);
    check_cursor(text);
    check_host(text);
    return 0;
}
