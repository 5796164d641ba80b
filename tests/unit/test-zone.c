/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/base/time.h"
#include "crawler/model/bar.h"
#include "crawler/model/calendar.h"
#include "crawler/model/zone.h"

static const Zone *zone(const char *name)
{
    auto_error Error err = {0};
    const Zone *z = NULL;

    assert_ok(zone_get(name, &z, &err), &err);
    return z;
}

static int64_t instant(const char *text)
{
    int64_t usec;

    assert_int_equal(time_parse_rfc3339(text, &usec), 0);
    return usec;
}

static const char *date_at(const char *name, const char *when)
{
    static char buf[ROW_DATE_MAX];

    (void)row_date_format(zone_date(zone(name), instant(when)), buf);
    return buf;
}

static void trade_dates_follow_the_zone_at_that_instant(void **state)
{
    const struct {
        const char *zone, *when, *date;
    } cases[] = {
        {"America/New_York", "2025-03-07T14:30:00Z", "2025-03-07"},
        {"America/New_York", "2025-03-10T03:59:59Z", "2025-03-09"}, /* the day DST began: UTC-4 */
        {"America/New_York", "2025-03-10T04:00:00Z", "2025-03-10"},
        {"America/New_York", "2025-11-03T04:59:59Z", "2025-11-02"}, /* and ended: UTC-5 */
        {"Europe/London", "2025-03-30T23:00:00Z", "2025-03-31"},
        {"Europe/London", "2025-03-29T23:00:00Z", "2025-03-29"},
        {"Australia/Sydney", "2025-01-05T23:00:00Z", "2025-01-06"}, /* 10:00 AEDT next day */
        {"Australia/Sydney", "2025-07-06T13:59:59Z", "2025-07-06"},
        {"Australia/Sydney", "2025-07-06T14:00:00Z", "2025-07-07"},
        {"Asia/Seoul", "2026-09-13T15:00:00Z", "2026-09-14"},
        {"Asia/Seoul", "1988-05-08T14:30:00Z", "1988-05-09"}, /* KDT, UTC+10 */
        {"Asia/Kolkata", "2024-01-01T18:29:59Z", "2024-01-01"},
        {"UTC", "2026-10-07T23:59:59Z", "2026-10-07"},
        {"Pacific/Kiritimati", "2026-10-07T10:00:00Z", "2026-10-08"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++)
        assert_string_equal(date_at(cases[i].zone, cases[i].when), cases[i].date);
}

static void every_hour_of_many_years_agrees_with_libc(void **state)
{
    const char *const names[] = {"America/New_York",  "Europe/London",      "Europe/Berlin",
                                 "Australia/Sydney",  "Asia/Seoul",         "America/Sao_Paulo",
                                 "Africa/Casablanca", "America/Nuuk",       "Asia/Tehran",
                                 "Pacific/Apia",      "Australia/Lord_Howe"};

    for (size_t i = 0; i < ELEMENTS(names); i++) {
        const Zone *z = zone(names[i]);

        assert_int_equal(setenv("TZ", names[i], 1), 0);
        tzset();
        /* Beyond 2037 the footer rules, where the file's table ends. */
        for (int64_t sec = INT64_C(-315619200); sec < INT64_C(2840140800); sec += 7 * 1800 + 1) {
            time_t t = (time_t)sec;
            struct tm tm;

            assert_non_null(localtime_r(&t, &tm));
            if (zone_offset(z, sec) != tm.tm_gmtoff)
                fail_msg("%s at %lld: %d, libc says %ld", names[i], (long long)sec,
                         zone_offset(z, sec), tm.tm_gmtoff);
        }
        assert_int_equal(unsetenv("TZ"), 0);
        tzset();
    }
}

static void local_times_become_instants(void **state)
{
    const struct {
        const char *zone, *local, *utc;
    } cases[] = {
        {"Asia/Seoul", "2026-09-14T09:00:00Z", "2026-09-14T00:00:00Z"},
        {"America/New_York", "2025-07-01T09:30:00Z", "2025-07-01T13:30:00Z"},
        {"America/New_York", "2025-01-02T09:30:00Z", "2025-01-02T14:30:00Z"},
        {"America/New_York", "2025-11-02T01:30:00Z", "2025-11-02T05:30:00Z"}, /* twice: the first */
        {"America/New_York", "2025-03-09T02:30:00Z", "2025-03-09T07:30:00Z"}, /* never */
        {"America/New_York", "2025-03-09T03:00:00Z", "2025-03-09T07:00:00Z"},
        {"Europe/Berlin", "2050-07-01T00:00:00Z", "2050-06-30T22:00:00Z"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        int64_t utc = zone_to_utc(zone(cases[i].zone), instant(cases[i].local) / (int64_t)SECOND);

        assert_int_equal(utc, instant(cases[i].utc) / (int64_t)SECOND);
    }
}

static void wrong_names_are_refused(void **state)
{
    const char *const bad[] = {"",    "../../etc/passwd", "/etc/localtime", "America/",
                               "a b", "Europe//Berlin"};
    const Zone *z;

    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        auto_error Error err = {0};

        assert_int_equal(zone_get(bad[i], &z, &err), -EINVAL);
        assert_contains(error_text(&err), "time zone");
    }
    for (size_t i = 0; i < 2; i++) {
        auto_error Error err = {0};

        assert_int_equal(zone_get(i ? "Mars/Olympus" : "Europe", &z, &err) < 0, 1);
        assert_contains(error_text(&err), i ? "Mars/Olympus" : "Europe");
    }
}

/* --- Calendars ----------------------------------------------------------------------------------
 */

static const char calendar_text[] = "# a market\r\n"
                                    "zone America/New_York\n"
                                    "days mon-fri\n"
                                    "session pre 04:00-09:30\n"
                                    "session regular 09:30-16:00\n"
                                    "session post 16:00-20:00\n"
                                    "closed 2026-12-25 Christmas Day\n"
                                    "hours 2026-11-27 regular 09:30-13:00 short day\n"
                                    "hours 2026-11-27 post 13:00-17:00\n"
                                    "known 2026-01-01 2026-12-31\n";

static void a_calendar_knows_sessions_and_closures(void **state)
{
    const struct {
        const char *when;
        Session session;
        const char *next;
    } cases[] = {
        {"2026-07-06T13:29:59Z", SESSION_PRE, "2026-07-06T13:29:59Z"},
        {"2026-07-06T13:30:00Z", SESSION_REGULAR, "2026-07-06T13:30:00Z"},
        {"2026-07-06T20:00:00Z", SESSION_POST, "2026-07-06T20:00:00Z"},
        {"2026-07-07T00:00:00Z", SESSION_NONE, "2026-07-07T08:00:00Z"},
        {"2026-01-05T13:30:00Z", SESSION_PRE, "2026-01-05T13:30:00Z"},
        {"2026-12-25T15:00:00Z", SESSION_NONE, "2026-12-28T09:00:00Z"}, /* a Friday */
        {"2026-11-27T18:30:00Z", SESSION_POST, "2026-11-27T18:30:00Z"},
        {"2026-11-27T22:30:00Z", SESSION_NONE, "2026-11-30T09:00:00Z"},
    };
    auto_(calendar_freep) Calendar *calendar = NULL;
    auto_error Error err = {0};
    int64_t open, close;
    int32_t date;

    assert_ok(calendar_parse(calendar_text, strlen(calendar_text), "TEST", &calendar, &err), &err);
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        assert_int_equal(calendar_session(calendar, instant(cases[i].when)), cases[i].session);
        assert_int_equal(calendar_next_open(calendar, instant(cases[i].when)),
                         instant(cases[i].next));
    }
    assert_int_equal(row_date_parse("2026-11-27", 10, &date), 0);
    assert_int_equal(calendar_regular(calendar, date, &open, &close), 1);
    assert_int_equal(open, instant("2026-11-27T14:30:00Z"));
    assert_int_equal(close, instant("2026-11-27T18:00:00Z"));
    assert_true(calendar_knows(calendar, date));
    assert_false(calendar_knows(calendar, date + 365));
    assert_true(calendar_is_trading_day(calendar, date + 364)); /* the weekly rule goes on */
}

static void all_faults_of_a_calendar_are_told_at_once(void **state)
{
    const char text[] =
        "zone Nowhere/City\nhoursx\nclosed tomorrow\nsession night\nsession regular "
        "9-16\ndays mon-xyz\n";
    auto_(calendar_freep) Calendar *calendar = NULL;
    auto_error Error err = {0};

    assert_int_equal(calendar_parse(text, strlen(text), "BAD", &calendar, &err), -EINVAL);
    assert_contains(error_text(&err), "line 1: time zone \"Nowhere/City\"");
    assert_contains(error_text(&err), "line 2: unknown statement \"hoursx\"");
    assert_contains(error_text(&err), "line 3: \"tomorrow\" is no date");
    assert_contains(error_text(&err), "line 4: \"session\" needs 2 words");
    assert_contains(error_text(&err), "line 5: expected \"session regular");
    assert_contains(error_text(&err), "line 6: \"mon-xyz\" is no range");
}

static void shipped_calendars_are_sound(void **state)
{
    const char *srcdir = getenv("srcdir");
    auto_free char *dir = str_printf("%s/crawler/recipe", srcdir ? srcdir : ".");
    const char *const dirs[] = {"/nonexistent", dir, NULL};
    const char *const names[] = {"XKRX", "XNYS"};

    for (size_t i = 0; i < ELEMENTS(names); i++) {
        auto_(calendar_freep) Calendar *calendar = NULL;
        auto_error Error err = {0};

        assert_ok(calendar_load(dirs, names[i], &calendar, &err), &err);
        assert_string_equal(calendar_name(calendar), names[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        auto_(calendar_freep) Calendar *calendar = NULL;
        auto_error Error err = {0};

        assert_int_equal(calendar_load(dirs, i ? "XXXX" : "../x", &calendar, &err),
                         i ? -ENOENT : -EINVAL);
    }
}

static int forget(void **state)
{
    zone_forget_all();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trade_dates_follow_the_zone_at_that_instant),
        cmocka_unit_test(every_hour_of_many_years_agrees_with_libc),
        cmocka_unit_test(local_times_become_instants),
        cmocka_unit_test(wrong_names_are_refused),
        cmocka_unit_test(a_calendar_knows_sessions_and_closures),
        cmocka_unit_test(all_faults_of_a_calendar_are_told_at_once),
        cmocka_unit_test(shipped_calendars_are_sound),
    };

    return cmocka_run_group_tests_name("zone", tests, NULL, forget);
}
