/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/time.h"

static void numbers_are_taken_whole_or_not_at_all(void **state)
{
    uint64_t u = 7;
    int64_t i = 7;
    uint16_t port = 7;

    assert_int_equal(parse_u64("18446744073709551615", &u), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(parse_u64("18446744073709551616", &u), -ERANGE);
    assert_int_equal(parse_i64("-9223372036854775808", &i), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(parse_i64("9223372036854775808", &i), -ERANGE);
    assert_int_equal(parse_u16("65536", &port), -ERANGE);
    for (size_t k = 0; k < 6; k++)
        assert_int_equal(parse_u64(((const char *[]){"", " 1", "1 ", "+1", "-1", "0x1"})[k], &u),
                         -EINVAL);
    assert_true(u == UINT64_MAX); /* untouched by failures */
}

static void durations(void **state)
{
    const struct {
        const char *text;
        uint64_t usec;
        const char *shortest;
    } good[] = {{"5m", 5 * MINUTE, "5m"},
                {"1h30m", 90 * MINUTE, "1h30m"},
                {"250ms", 250 * MSEC, "250ms"},
                {"1.5h", 90 * MINUTE, "1h30m"},
                {"0s", 0, "0s"},
                {"2d", 2 * DAY, "2d"},
                {"90s", 90 * SECOND, "1m30s"}};
    const char *const bad[] = {"",    "5",    "m", "5 m", "5x", "-5m", "1.5us", "99999999999999d",
                               "5m ", "1..5s"};

    for (size_t i = 0; i < ELEMENTS(good); i++) {
        char text[PARSE_TEXT_MAX];
        uint64_t usec;

        assert_int_equal(parse_duration(good[i].text, &usec), 0);
        assert_int_equal(usec, good[i].usec);
        assert_string_equal(format_duration(text, usec), good[i].shortest);
    }
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        uint64_t usec = 1;

        if (parse_duration(bad[i], &usec) >= 0)
            fail_msg("\"%s\" was taken as %ju us", bad[i], (uintmax_t)usec);
        assert_int_equal(usec, 1);
    }
}

static void sizes(void **state)
{
    const struct {
        const char *text;
        uint64_t bytes;
        const char *shortest;
    } good[] = {{"512MiB", 512ULL << 20, "512MiB"},
                {"1GiB", 1ULL << 30, "1GiB"},
                {"1000", 1000, "1000"},
                {"2GB", 2000000000, "1953125KiB"},
                {"1.5GiB", 3ULL << 29, "1536MiB"},
                {"0", 0, "0"},
                {"64KiB", 65536, "64KiB"},
                {"10B", 10, "10"}};
    const char *const bad[] = {"",   "MiB",   "1 MiB",          "1mib", "1.3B",
                               "-1", "1MiBx", "99999999999TiB", "1.MiB"};

    for (size_t i = 0; i < ELEMENTS(good); i++) {
        char text[PARSE_TEXT_MAX];
        uint64_t bytes;

        assert_int_equal(parse_size(good[i].text, &bytes), 0);
        assert_int_equal(bytes, good[i].bytes);
        assert_string_equal(format_size(text, bytes), good[i].shortest);
    }
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        uint64_t bytes = 1;

        if (parse_size(bad[i], &bytes) >= 0)
            fail_msg("\"%s\" was taken as %ju bytes", bad[i], (uintmax_t)bytes);
    }
}

static void sizes_for_people(void **state)
{
    char text[PARSE_TEXT_MAX];

    assert_string_equal(format_size_human(text, 0), "0 B");
    assert_string_equal(format_size_human(text, 1023), "1023 B");
    assert_string_equal(format_size_human(text, 1503238554), "1.4 GiB");
}

static void modes_and_fractions(void **state)
{
    mode_t mode = 1;
    double value = 1;
    bool yes = false;

    assert_int_equal(parse_mode("0644", &mode), 0);
    assert_int_equal(mode, 0644);
    assert_int_equal(parse_mode("01777", &mode), 0);
    assert_int_equal(parse_mode("0888", &mode), -EINVAL);
    assert_int_equal(parse_mode("77", &mode), -EINVAL);
    assert_int_equal(parse_mode("17777", &mode), -ERANGE);
    assert_int_equal(parse_fraction("0.045", &value), 0);
    assert_true(value > 0.0449 && value < 0.0451);
    assert_int_equal(parse_fraction("1.", &value), -EINVAL);
    assert_int_equal(parse_fraction(".5", &value), -EINVAL);
    assert_int_equal(parse_fraction("1e3", &value), -EINVAL);
    assert_int_equal(parse_bool("true", &yes), 0);
    assert_true(yes);
    assert_int_equal(parse_bool("yes", &yes), -EINVAL);
}

TEST_MAIN(cmocka_unit_test(numbers_are_taken_whole_or_not_at_all), cmocka_unit_test(durations),
          cmocka_unit_test(sizes), cmocka_unit_test(sizes_for_people),
          cmocka_unit_test(modes_and_fractions))
