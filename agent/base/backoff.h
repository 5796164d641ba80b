/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_BACKOFF_H
#define AGENT_BASE_BACKOFF_H

/* Exponential back-off with full jitter: the n-th delay is uniform in [0, min(cap, base * 2^n)],
 * never under `floor_usec`. Google asks its clients for exactly this (facts: factor 2, full jitter,
 * cap 32 to 64 s). */

#include <stdint.h>

typedef struct Backoff {
    uint64_t base_usec;
    uint64_t cap_usec;
    uint64_t floor_usec; /* 0: a retry may follow at once */
    unsigned attempts;   /* failures since the last success */
} Backoff;

/* The next delay, and one more attempt counted. `at_least_usec` is the peer's Retry-After (0:
 * none); it wins when longer. */
uint64_t backoff_next(Backoff *backoff, uint64_t at_least_usec);
void backoff_reset(Backoff *backoff);

/* Uniform in [0, max]; from getrandom(2). Tests may fix the seed: the same seed gives the same
 * series. */
uint64_t random_u64(uint64_t max);
void random_seed_for_tests(uint64_t seed);

#endif
