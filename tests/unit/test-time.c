/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/base/time.h"

static void rfc3339_goes_there_and_back(void **state)
{
    const struct {
        const char *text;
        int64_t usec;
        const char *utc;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"},
        {"2026-10-07T06:30:00.123456Z", 1791354600123456, "2026-10-07T06:30:00.123456Z"},
        {"2026-10-07T15:30:00+09:00", 1791354600000000, "2026-10-07T06:30:00Z"},
        {"1969-12-31T23:59:59.5Z", -500000, "1969-12-31T23:59:59.5Z"},
        {"2024-02-29T00:00:00Z", 1709164800000000, "2024-02-29T00:00:00Z"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        char text[TIME_RFC3339_MAX];
        int64_t usec;

        assert_int_equal(time_parse_rfc3339(cases[i].text, &usec), 0);
        assert_int_equal(usec, cases[i].usec);
        assert_string_equal(time_format_rfc3339(text, usec), cases[i].utc);
    }
}

static void nonsense_is_refused(void **state)
{
    const char *const bad[] = {"",
                               "2026-10-07",
                               "2026-13-07T00:00:00Z",
                               "2026-02-29T00:00:00Z",
                               "2026-10-07T24:00:00Z",
                               "2026-10-07T00:00:00",
                               "2026-10-07T00:00:00Zx",
                               "2026-10-07T00:00:00.Z",
                               "2026-10-07T00:00:00+9:00"};

    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        int64_t usec;

        if (time_parse_rfc3339(bad[i], &usec) != -EINVAL)
            fail_msg("\"%s\" was taken", bad[i]);
    }
}

static void the_civil_calendar_holds_over_four_centuries(void **state)
{
    int64_t expected = days_from_civil(1800, 1, 1);

    for (int year = 1800; year < 2200; year++)
        for (unsigned month = 1; month <= 12; month++) {
            int y;
            unsigned m, d;

            civil_from_days(expected, &y, &m, &d);
            assert_int_equal(y, year);
            assert_int_equal(m, month);
            assert_int_equal(d, 1);
            assert_int_equal(days_from_civil(year, month, 1), expected);
            expected += month == 12
                            ? 31
                            : days_from_civil(year, month + 1, 1) - days_from_civil(year, month, 1);
        }
    assert_int_equal(days_from_civil(2000, 3, 1), 11017);
}

static void ages_and_spans_read_well(void **state)
{
    char text[TIME_SPAN_MAX];

    assert_string_equal(time_format_span(text, 90 * SECOND), "1 min 30 s");
    assert_string_equal(time_format_span(text, 0), "0 s");
    assert_string_equal(time_format_span(text, 25 * HOUR + MINUTE), "1 d 1 h");
    assert_string_equal(time_format_ago(text, 0, 5 * MINUTE), "never");
    assert_string_equal(time_format_ago(text, 1, 3 * MINUTE + 1), "3 min ago");
    assert_string_equal(time_format_ago(text, 10 * SECOND, 5 * SECOND), "just now");
}

static void adding_to_infinity_stays_there(void **state)
{
    assert_true(usec_add(USEC_INFINITY, 1) == USEC_INFINITY);
    assert_true(usec_add(USEC_INFINITY - 1, 5) == USEC_INFINITY);
    assert_true(usec_add(1, 2) == 3);
}

TEST_MAIN(cmocka_unit_test(rfc3339_goes_there_and_back), cmocka_unit_test(nonsense_is_refused),
          cmocka_unit_test(the_civil_calendar_holds_over_four_centuries),
          cmocka_unit_test(ages_and_spans_read_well),
          cmocka_unit_test(adding_to_infinity_stays_there))
