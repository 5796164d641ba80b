/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/backoff.h"

#include <stdbool.h>
#include <sys/random.h>

#include "agent/base/cleanup.h"
#include "agent/base/time.h"

static bool seeded;
static uint64_t seed_state;

void random_seed_for_tests(uint64_t seed)
{
    seeded = true;
    seed_state = seed;
}

/* splitmix64 (Vigna, public domain): for the fixed series of tests, and when getrandom() cannot
 * answer yet. */
static uint64_t splitmix64(void)
{
    uint64_t z = (seed_state += UINT64_C(0x9E3779B97F4A7C15));

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t random_u64(uint64_t max)
{
    uint64_t value;

    if (seeded || getrandom(&value, sizeof(value), GRND_NONBLOCK) != (ssize_t)sizeof(value)) {
        if (!seeded)
            seed_state ^= now_boottime_usec();
        value = splitmix64();
    }
    return max == UINT64_MAX ? value : value % (max + 1);
}

uint64_t backoff_next(Backoff *backoff, uint64_t at_least_usec)
{
    uint64_t ceiling = backoff->base_usec, delay;

    for (unsigned i = 0; i < backoff->attempts && ceiling < backoff->cap_usec; i++)
        ceiling = ceiling > UINT64_MAX / 2 ? UINT64_MAX : ceiling * 2;
    ceiling = MIN_OF(ceiling, backoff->cap_usec);

    if (backoff->attempts < UINT32_MAX)
        backoff->attempts++;
    delay = random_u64(ceiling);
    delay = MAX_OF(delay, backoff->floor_usec);
    return MAX_OF(delay, at_least_usec);
}

void backoff_reset(Backoff *backoff)
{
    backoff->attempts = 0;
}
