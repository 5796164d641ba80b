/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/base/backoff.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/fetch/politeness.h"

#define NOW (UINT64_C(1791331200) * SECOND)

static const FetchLimits limits = {.delay_usec = 2 * SECOND, .connections = 1, .nat_ports = 4};

static FetchHost *host_new(void)
{
    FetchHost *host;

    random_seed_for_tests(1);
    assert_int_equal(fetch_host_new("h.example", &host), 0);
    return host;
}

static uint64_t wait_at(FetchHost *host, uint64_t now)
{
    const char *why;

    return fetch_host_wait(host, &limits, now, &why);
}

static void requests_keep_their_distance_and_are_one_at_a_time(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new();

    assert_int_equal(wait_at(host, NOW), 0);
    fetch_host_begin(host, &limits, NOW);
    assert_int_equal(wait_at(host, NOW + HOUR), UINT64_MAX);
    fetch_host_end(host, FETCH_WELL, 0, NULL, NOW + SECOND);
    assert_in_range(wait_at(host, NOW + SECOND), SECOND, 2 * SECOND);
    assert_int_equal(wait_at(host, NOW + 3 * SECOND), 0);
}

static void refusals_open_the_breaker_for_longer_each_time(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new();
    uint64_t now = NOW, before = 0;

    for (int i = 0; i < 20; i++) {
        fetch_host_begin(host, &limits, now);
        fetch_host_end(host, FETCH_THROTTLED, 0, "HTTP 429", now);
        assert_true(fetch_host_is_open(host, now));
        assert_true(host->pause_usec >= before);
        before = host->pause_usec;
        now += wait_at(host, now);
    }
    assert_int_equal(before, FETCH_PAUSE_MAX_USEC);
}

static void half_open_lets_one_probe_through_and_success_closes(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new();
    FetchLimits two = {.connections = 2};
    const char *why;
    uint64_t now = NOW;

    fetch_host_begin(host, &two, now);
    fetch_host_end(host, FETCH_SERVER, 0, "HTTP 500", now);
    now += fetch_host_wait(host, &two, now, &why);
    assert_int_equal(fetch_host_wait(host, &two, now, &why), 0);
    fetch_host_begin(host, &two, now);
    assert_int_equal(fetch_host_wait(host, &two, now, &why), UINT64_MAX); /* one probe, no more */
    fetch_host_end(host, FETCH_WELL, 0, NULL, now);
    assert_int_equal(fetch_host_wait(host, &two, now, &why), 0);
    fetch_host_begin(host, &two, now);
    assert_int_equal(fetch_host_wait(host, &two, now, &why), 0);
}

static void retry_after_is_obeyed_within_limits(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new();

    fetch_host_end(host, FETCH_THROTTLED, 90 * SECOND, "HTTP 429", NOW);
    assert_in_range(wait_at(host, NOW), 90 * SECOND, 113 * SECOND);
    /* 10^9 seconds is a day. */
    fetch_host_end(host, FETCH_THROTTLED, UINT64_C(1000000000) * SECOND, "HTTP 429", NOW);
    assert_in_range(wait_at(host, NOW), FETCH_RETRY_AFTER_MAX_USEC,
                    FETCH_RETRY_AFTER_MAX_USEC * 5 / 4);
}

static void a_restart_in_a_back_off_does_not_ask_earlier(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new(), *again = host_new();
    auto_free char *text = NULL;

    fetch_host_begin(host, &limits, NOW);
    fetch_host_end(host, FETCH_BANNED, 0, "HTTP 403", NOW);
    text = fetch_host_format(host);
    assert_non_null(text);
    fetch_host_parse(again, text);
    assert_int_equal(wait_at(again, NOW + SECOND), wait_at(host, NOW + SECOND));
    assert_true(wait_at(again, NOW + SECOND) > 9 * MINUTE);
    assert_string_equal(again->message, "HTTP 403");
    assert_int_equal(again->failures, 1);
}

static void damaged_memory_is_a_host_that_was_never_asked(void **state)
{
    const char *const texts[] = {"",
                                 "{",
                                 "[]",
                                 "{\"until_usec\":\"x\"}",
                                 "{\"connected\":7}",
                                 "{\"connected\":[7,[],[1],[-1,-1],[1,\"x\"]]}"};

    for (size_t i = 0; i < ELEMENTS(texts); i++) {
        auto_(fetch_host_freep) FetchHost *host = host_new();

        fetch_host_parse(host, texts[i]);
        assert_int_equal(wait_at(host, NOW), 0);
    }
}

static void a_clock_that_was_set_changes_no_pause(void **state)
{
    const int64_t steps[] = {-365 * (int64_t)DAY, -3600 * (int64_t)SECOND, 3600 * (int64_t)SECOND};

    for (size_t i = 0; i < ELEMENTS(steps); i++) {
        auto_(fetch_host_freep) FetchHost *host = host_new();
        uint64_t now = NOW + (uint64_t)steps[i], wait;

        fetch_host_begin(host, &limits, NOW);
        fetch_host_end(host, FETCH_WELL, 0, NULL, NOW);
        wait = wait_at(host, NOW);
        fetch_host_clock_set(host, steps[i]);
        assert_int_equal(wait_at(host, now), wait);

        fetch_host_end(host, FETCH_BANNED, 0, "HTTP 403", now);
        wait = wait_at(host, now);
        fetch_host_clock_set(host, -steps[i]);
        assert_int_equal(wait_at(host, NOW), wait);
        assert_true(fetch_host_is_open(host, NOW));

        fetch_host_connected(host, 3, NOW);
        fetch_host_clock_set(host, steps[i]);
        assert_int_equal(fetch_host_recent_connections(host, now), 3);
        assert_int_equal(fetch_host_recent_connections(host, now + 121 * SECOND), 0);
    }
}

/* Kept by a process before, whose clock was ahead: each wait is as long as one was ever meant, once. */
static void what_was_kept_under_another_clock_ends(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new();
    uint64_t now = NOW - 365 * DAY, wait;

    fetch_host_begin(host, &limits, NOW);
    fetch_host_end(host, FETCH_WELL, 0, NULL, NOW);
    wait = wait_at(host, now);
    assert_in_range(wait, 1, 2 * limits.delay_usec);
    assert_int_equal(wait_at(host, now + wait), 0);

    fetch_host_end(host, FETCH_SERVER, 0, "HTTP 500", NOW);
    wait = wait_at(host, now);
    assert_in_range(wait, SECOND, 5 * SECOND / 4);
    assert_false(fetch_host_is_open(host, now + wait));
}

/* A machine boots with a clock that is wrong, and gets the right one later: before the kept pause
 * is looked at, or after. */
static void a_pause_that_was_kept_is_never_longer_than_it_was_meant(void **state)
{
    const int64_t year = 365 * (int64_t)DAY, steps[] = {-year, -(int64_t)DAY, (int64_t)DAY, year};

    for (size_t i = 0; i < 2 * ELEMENTS(steps); i++) {
        auto_(fetch_host_freep) FetchHost *host = host_new(), *again = host_new();
        uint64_t now = NOW + (uint64_t)steps[i / 2], meant;
        auto_free char *text = NULL;

        fetch_host_end(host, FETCH_THROTTLED, 0, "HTTP 429", NOW);
        meant = wait_at(host, NOW);
        assert_in_range(meant, 30 * SECOND, 38 * SECOND);
        text = fetch_host_format(host);
        assert_non_null(text);
        fetch_host_parse(again, text);
        if (i % 2 == 0)
            assert_in_range(wait_at(again, now), 0, meant);
        fetch_host_clock_set(again, -steps[i / 2]);
        assert_in_range(wait_at(again, NOW), 0, meant);
        assert_int_equal(wait_at(again, NOW + meant), 0);
        assert_false(fetch_host_is_open(again, NOW + meant));
    }
}

/* Memory of a version that did not keep how long was meant. */
static void an_earlier_versions_pause_has_the_longest_as_its_bound(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new();
    auto_free char *text =
        str_printf("{\"until_usec\":%llu,\"failures\":1}", (unsigned long long)(NOW + 3 * DAY));

    assert_non_null(text);
    fetch_host_parse(host, text);
    assert_int_equal(wait_at(host, NOW), FETCH_RETRY_AFTER_MAX_USEC * 5 / 4);
}

static void new_connections_are_kept_under_the_ports_of_nat(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new();

    for (uint64_t i = 0; i < 4; i++)
        fetch_host_connected(host, 1, NOW + i * SECOND);
    assert_int_equal(fetch_host_recent_connections(host, NOW + 10 * SECOND), 4);
    /* A port is free again 120 s after the first, which is counted by whole seconds. */
    assert_int_equal(wait_at(host, NOW + 10 * SECOND), 111 * SECOND);
    assert_int_equal(wait_at(host, NOW + 120 * SECOND), SECOND);
    assert_int_equal(wait_at(host, NOW + 121 * SECOND), 0);
    assert_int_equal(fetch_host_recent_connections(host, NOW + 124 * SECOND), 0);
}

static void many_ports_are_as_many_as_the_plan_says(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new(), *again = host_new();
    FetchLimits thousand = {.connections = 2, .nat_ports = 1000};
    auto_free char *text = NULL;
    const char *why;

    for (uint64_t i = 0; i < 999; i++)
        fetch_host_connected(host, 1, NOW + i * SECOND / 10);
    assert_int_equal(fetch_host_wait(host, &thousand, NOW + 100 * SECOND, &why), 0);
    /* One that is under way may need the last port. */
    host->in_flight = 1;
    assert_true(fetch_host_wait(host, &thousand, NOW + 100 * SECOND, &why) == UINT64_MAX);
    host->in_flight = 0;
    fetch_host_connected(host, 1, NOW + 100 * SECOND);
    text = fetch_host_format(host);
    assert_non_null(text);
    fetch_host_parse(again, text);
    assert_int_equal(fetch_host_recent_connections(again, NOW + 100 * SECOND), 1000);
    assert_int_equal(fetch_host_wait(again, &thousand, NOW + 100 * SECOND, &why), 21 * SECOND);
    assert_string_equal(why, "new connections are kept under nat_ports");
}

static void the_daily_number_of_requests_ends_at_midnight(void **state)
{
    auto_(fetch_host_freep) FetchHost *host = host_new();
    FetchLimits few = {.connections = 1, .requests_per_day = 2};
    const char *why;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(fetch_host_wait(host, &few, NOW + HOUR, &why), 0);
        fetch_host_begin(host, &few, NOW + HOUR);
        fetch_host_end(host, FETCH_WELL, 0, NULL, NOW + HOUR);
    }
    assert_int_equal(fetch_host_wait(host, &few, NOW + HOUR, &why), 23 * HOUR);
    assert_int_equal(fetch_host_wait(host, &few, NOW + DAY, &why), 0);
}

static void statuses_are_failures_of_their_kind(void **state)
{
    assert_int_equal(fetch_failure_of_status(200), FETCH_WELL);
    assert_int_equal(fetch_failure_of_status(404), FETCH_WELL);
    assert_int_equal(fetch_failure_of_status(429), FETCH_THROTTLED);
    assert_int_equal(fetch_failure_of_status(503), FETCH_THROTTLED);
    assert_int_equal(fetch_failure_of_status(418), FETCH_BANNED);
    assert_int_equal(fetch_failure_of_status(451), FETCH_BANNED);
    assert_int_equal(fetch_failure_of_status(500), FETCH_SERVER);
}

TEST_MAIN(cmocka_unit_test(requests_keep_their_distance_and_are_one_at_a_time),
          cmocka_unit_test(refusals_open_the_breaker_for_longer_each_time),
          cmocka_unit_test(half_open_lets_one_probe_through_and_success_closes),
          cmocka_unit_test(retry_after_is_obeyed_within_limits),
          cmocka_unit_test(a_restart_in_a_back_off_does_not_ask_earlier),
          cmocka_unit_test(damaged_memory_is_a_host_that_was_never_asked),
          cmocka_unit_test(a_clock_that_was_set_changes_no_pause),
          cmocka_unit_test(what_was_kept_under_another_clock_ends),
          cmocka_unit_test(a_pause_that_was_kept_is_never_longer_than_it_was_meant),
          cmocka_unit_test(an_earlier_versions_pause_has_the_longest_as_its_bound),
          cmocka_unit_test(new_connections_are_kept_under_the_ports_of_nat),
          cmocka_unit_test(many_ports_are_as_many_as_the_plan_says),
          cmocka_unit_test(the_daily_number_of_requests_ends_at_midnight),
          cmocka_unit_test(statuses_are_failures_of_their_kind))
