/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/base/backoff.h"
#include "agent/base/time.h"

static void delays_stay_under_the_doubling_ceiling(void **state)
{
    Backoff b = {.base_usec = SECOND, .cap_usec = 5 * MINUTE};
    uint64_t ceiling = SECOND, longest = 0;

    random_seed_for_tests(7);
    for (int i = 0; i < 40; i++) {
        uint64_t delay = backoff_next(&b, 0);

        assert_in_range(delay, 0, ceiling);
        longest = delay > longest ? delay : longest;
        ceiling = ceiling * 2 > 5 * MINUTE ? 5 * MINUTE : ceiling * 2;
    }
    /* Full jitter reaches far into the range; a constant or a truncated one would not. */
    assert_true(longest > 4 * MINUTE);
}

static void the_peers_retry_after_wins_when_longer(void **state)
{
    Backoff b = {.base_usec = SECOND, .cap_usec = MINUTE};

    assert_int_equal(backoff_next(&b, 10 * MINUTE), 10 * MINUTE);
}

static void a_floor_is_kept_and_reset_starts_over(void **state)
{
    Backoff b = {.base_usec = SECOND, .cap_usec = HOUR, .floor_usec = 500 * MSEC};

    for (int i = 0; i < 20; i++)
        assert_true(backoff_next(&b, 0) >= 500 * MSEC);
    backoff_reset(&b);
    assert_in_range(backoff_next(&b, 0), 500 * MSEC, SECOND);
}

TEST_MAIN(cmocka_unit_test(delays_stay_under_the_doubling_ceiling),
          cmocka_unit_test(the_peers_retry_after_wins_when_longer),
          cmocka_unit_test(a_floor_is_kept_and_reset_starts_over))
