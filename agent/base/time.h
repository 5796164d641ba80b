/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_TIME_H
#define AGENT_BASE_TIME_H

/* Time is uint64_t microseconds. Intervals are CLOCK_BOOTTIME (they go on while the VM is
 * suspended, and a clock that jumps does not touch them); the wall clock is for market dates and
 * for display only. */

#include <stddef.h>
#include <stdint.h>

#include "agent/base/cleanup.h"

#define USEC_INFINITY UINT64_MAX
#define MSEC          UINT64_C(1000)
#define SECOND        UINT64_C(1000000)
#define MINUTE        (60 * SECOND)
#define HOUR          (60 * MINUTE)
#define DAY           (24 * HOUR)

uint64_t now_boottime_usec(void);
uint64_t now_realtime_usec(void);

/* a + b that sticks at USEC_INFINITY. */
uint64_t usec_add(uint64_t a, uint64_t b);

/* "2026-10-07T06:30:00Z", with ".123456" only when there are microseconds (trailing zeros cut). */
#define TIME_RFC3339_MAX 32
char *time_format_rfc3339(char buf[static TIME_RFC3339_MAX], int64_t realtime_usec);
/* Reads RFC 3339 with Z or an offset, at most 9 fractional digits (beyond microseconds cut).
 * -EINVAL. */
int time_parse_rfc3339(const char *s, int64_t *ret_usec) must_check;

/* "90 s" as "1min 30s"; for people. */
#define TIME_SPAN_MAX 64
char *time_format_span(char buf[static TIME_SPAN_MAX], uint64_t usec);
/* "3 min ago", "just now", "never" for 0; `now_usec` and `then_usec` are wall clock. */
char *time_format_ago(char buf[static TIME_SPAN_MAX], uint64_t then_usec, uint64_t now_usec);

/* Days since 1970-01-01 of a proleptic Gregorian date and back; no time zone is involved. */
int64_t days_from_civil(int year, unsigned month, unsigned day);
void civil_from_days(int64_t days, int *ret_year, unsigned *ret_month, unsigned *ret_day);

#endif
