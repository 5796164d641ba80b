/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as the values that documents and commands spell: numbers, durations, sizes, modes,
 * instants, dates, intervals, base64. What is read has a text of ours that reads as the same. */

#include <errno.h>
#include <math.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/crypto.h"
#include "crawler/model/bar.h"
#include "crawler/model/instrument.h"
#include "tests/fuzz/fuzz.h"

static void check_result(int r)
{
    FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ERANGE);
}

static void check_numbers(const char *text)
{
    uint64_t u = 7, n = 7;
    int64_t i = 7;
    uint16_t small;
    mode_t mode;
    double fraction;
    bool flag;
    int r = parse_u64(text, &u);

    check_result(r);
    FUZZ_CHECK(r == parse_u64_n(text, strlen(text), &n) && u == n);
    if (r == 0 && u <= INT64_MAX)
        FUZZ_CHECK(parse_i64(text, &i) == 0 && (uint64_t)i == u);
    r = parse_u16(text, &small);
    check_result(r);
    FUZZ_CHECK((r == 0) == (parse_u64(text, &u) == 0 && u <= UINT16_MAX));
    check_result(parse_hex_u64(text, &u));
    if (parse_mode(text, &mode) == 0)
        FUZZ_CHECK(mode <= 07777);
    if (parse_fraction(text, &fraction) == 0)
        FUZZ_CHECK(isfinite(fraction));
    check_result(parse_bool(text, &flag));
}

static void check_quantities(const char *text)
{
    char again[PARSE_TEXT_MAX];
    uint64_t value = 0, same = 0;
    int r = parse_duration(text, &value);

    check_result(r);
    if (r == 0)
        FUZZ_CHECK(parse_duration(format_duration(again, value), &same) == 0 && same == value);
    r = parse_size(text, &value);
    check_result(r);
    if (r == 0) {
        FUZZ_CHECK(parse_size(format_size(again, value), &same) == 0 && same == value);
        FUZZ_CHECK(*format_size_human(again, value));
    }
}

static void check_times(const char *text, size_t size)
{
    char again[TIME_RFC3339_MAX], date[ROW_DATE_MAX];
    int64_t usec = 0, same = 0;
    int32_t days = 0, same_days = 0;
    Interval interval;

    if (time_parse_rfc3339(text, &usec) == 0)
        FUZZ_CHECK(time_parse_rfc3339(time_format_rfc3339(again, usec), &same) == 0 &&
                   same == usec);
    if (row_date_parse(text, size, &days) == 0) {
        size_t n = row_date_format(days, date);

        FUZZ_CHECK(row_date_parse(date, n, &same_days) == 0 && same_days == days);
    }
    if (interval_parse(text, &interval) == 0)
        FUZZ_CHECK(interval.count > 0 && interval_usec(&interval) > 0);
}

static void check_base64(const char *text, size_t size)
{
    auto_buf Buf bytes = BUF_INIT(1U << 20);
    auto_free char *plain = NULL, *url = NULL;

    if (base64_decode(text, size, &bytes) < 0) {
        FUZZ_CHECK(bytes.size == 0);
        return;
    }
    plain = base64_encode(buf_str(&bytes), bytes.size, /* url= */ false);
    url = base64_encode(buf_str(&bytes), bytes.size, /* url= */ true);
    FUZZ_CHECK(plain && url && strlen(plain) == size);
    FUZZ_CHECK(memcmp(plain, text, size) == 0 || memcmp(url, text, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_free char *text = strndup((const char *)data, size);

    FUZZ_CHECK(text);
    check_numbers(text);
    check_quantities(text);
    check_times(text, strlen(text));
    check_base64((const char *)data, size);
    (void)symbol_is_valid(text);
    FUZZ_CHECK(row_kind_from_name(text) < ROW_KIND_MAX && session_from_name(text) < SESSION_MAX);
    return 0;
}
