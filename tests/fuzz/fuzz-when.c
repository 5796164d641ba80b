/* SPDX-License-Identifier: Apache-2.0 */

/* Times as sources write them: the first line chooses column type and zone and gives the format,
 * the rest is the text. What is read as a local time is that time again in its zone, but for the
 * hour that a spring has not. */

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/extract/when.h"
#include "crawler/model/zone.h"
#include "tests/fuzz/fuzz.h"

static const char *const zones[] = {"UTC", "America/New_York", "Asia/Seoul", "Europe/London",
                                    "Australia/Lord_Howe"};

static void check_zone(const Zone *zone, int64_t ts_usec)
{
    int64_t sec = ts_usec / (int64_t)SECOND;
    int32_t offset = zone_offset(zone, sec), second = zone_second_of_day(zone, ts_usec);
    int64_t back;

    FUZZ_CHECK(offset > -86400 && offset < 86400 && second >= 0 && second < 86400);
    back = zone_to_utc(zone, sec + offset);
    /* An hour that exists twice gives the first. */
    FUZZ_CHECK(back <= sec && sec - back <= 2 * 3600);
    FUZZ_CHECK(zone_offset(zone, back) + back == sec + offset);
}

/* The compiler of recipes takes no other. */
static bool is_date_format(const char *format)
{
    for (const char *p = strchr(format, '%'); p; p = strchr(p + 2, '%'))
        if (!p[1] || !strchr("YmdHMSfz", p[1]))
            return false;
    return strstr(format, "%Y") && strstr(format, "%m") && strstr(format, "%d");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line = size > 2 ? memchr(data + 2, '\n', size - 2) : NULL;
    auto_free char *format = NULL;
    char open[] = "09:00";
    RecipeColumn column = {0};
    const Zone *zone;
    When when = {.ts_usec = 1};
    int r;

    if (!line)
        return 0;
    format = strndup((const char *)data + 2, (size_t)(line - data - 2));
    FUZZ_CHECK(format && zone_get(zones[data[1] % ELEMENTS(zones)], &zone, NULL) >= 0);
    column.type = (int)COLUMN_DATE + (data[0] & 7) % (COLUMN_EPOCH_US - COLUMN_DATE + 1);
    column.format = format; /* a recipe's date always has one */
    column.time = data[0] & 8 ? open : NULL;
    if (column.type <= (int)COLUMN_DATETIME && !is_date_format(format))
        return 0;
    line++;
    r = when_parse(&column, zone, (const char *)line, size - (size_t)(line - data), &when);
    FUZZ_CHECK(r == 0 || r == -EINVAL);
    if (r < 0)
        return 0;
    if (when.ts_usec > INT64_C(-2000000000) * (int64_t)SECOND &&
        when.ts_usec < INT64_C(10000000000) * (int64_t)SECOND)
        check_zone(zone, when.ts_usec);
    return 0;
}
