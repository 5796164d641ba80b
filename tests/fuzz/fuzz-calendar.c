/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a calendar: refused with lines, or every question has an answer. */

#include "agent/base/time.h"
#include "crawler/model/calendar.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Calendar *calendar = NULL;
    Error err = {0};
    int r;

    if (size > 65536)
        return 0;
    r = calendar_parse((const char *)data, size, "fuzz", &calendar, &err);
    FUZZ_CHECK(r == 0 ? calendar != NULL : err.message != NULL && !calendar);
    if (r == 0)
        for (int64_t day = 20000; day < 20800; day += 13) {
            int64_t ts = (day * 86400 + 43200) * (int64_t)SECOND, open, close;
            int64_t next = calendar_next_open(calendar, ts);

            FUZZ_CHECK(next >= ts);
            FUZZ_CHECK(next == INT64_MAX || calendar_session(calendar, next) != SESSION_NONE);
            if (calendar_regular(calendar, (int32_t)day, &open, &close))
                FUZZ_CHECK(open <= close);
        }
    calendar_free(calendar);
    error_done(&err);
    return 0;
}
