/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/time.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t clock_usec(clockid_t clock)
{
    struct timespec ts;
    int r;

    r = clock_gettime(clock, &ts);
    assert(r == 0); /* both clocks exist on every Linux this runs on */
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t now_boottime_usec(void)
{
    return clock_usec(CLOCK_BOOTTIME);
}

uint64_t now_realtime_usec(void)
{
    return clock_usec(CLOCK_REALTIME);
}

uint64_t usec_add(uint64_t a, uint64_t b)
{
    return a > USEC_INFINITY - b ? USEC_INFINITY : a + b;
}

/* Howard Hinnant's civil calendar algorithms: exact over the whole range, no table. */
int64_t days_from_civil(int year, unsigned month, unsigned day)
{
    int64_t y = (int64_t)year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400);
    unsigned doy = (153 * (month + (month > 2 ? -3U : 9U)) + 2) / 5 + day - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

    return era * 146097 + (int64_t)doe - 719468;
}

void civil_from_days(int64_t days, int *ret_year, unsigned *ret_month, unsigned *ret_day)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;

    *ret_day = doy - (153 * mp + 2) / 5 + 1;
    *ret_month = mp < 10 ? mp + 3 : mp - 9;
    *ret_year = (int)((int64_t)yoe + era * 400 + (*ret_month <= 2));
}

char *time_format_rfc3339(char buf[static TIME_RFC3339_MAX], int64_t realtime_usec)
{
    int64_t days = realtime_usec / (int64_t)DAY, rest = realtime_usec % (int64_t)DAY;
    unsigned month, day, seconds;
    int year, n;

    if (rest < 0) {
        rest += (int64_t)DAY;
        days--;
    }
    civil_from_days(days, &year, &month, &day);
    seconds = (unsigned)(rest / (int64_t)SECOND);
    n = snprintf(buf, TIME_RFC3339_MAX, "%04d-%02u-%02uT%02u:%02u:%02u", year % 100000, month, day,
                 seconds / 3600, seconds / 60 % 60, seconds % 60);
    if (rest % (int64_t)SECOND != 0) {
        n += snprintf(buf + n, TIME_RFC3339_MAX - (size_t)n, ".%06u",
                      (unsigned)(rest % (int64_t)SECOND));
        while (buf[n - 1] == '0')
            n--;
    }
    buf[n] = 'Z';
    buf[n + 1] = '\0';
    return buf;
}

/* Exactly `n` digits. */
static bool read_digits(const char **s, unsigned n, unsigned *ret)
{
    unsigned value = 0;

    for (unsigned i = 0; i < n; i++) {
        char c = (*s)[i];

        if (c < '0' || c > '9')
            return false;
        value = value * 10 + (unsigned)(c - '0');
    }
    *s += n;
    *ret = value;
    return true;
}

static bool read_char(const char **s, const char *accepted)
{
    if (!**s || !strchr(accepted, **s))
        return false;
    (*s)++;
    return true;
}

static bool read_fraction(const char **s, unsigned *ret_usec)
{
    unsigned usec = 0, weight = 100000, digits = 0;

    if (**s != '.') {
        *ret_usec = 0;
        return true;
    }
    for ((*s)++; **s >= '0' && **s <= '9'; (*s)++) {
        usec += (unsigned)(**s - '0') * weight;
        weight /= 10;
        digits++;
    }
    *ret_usec = usec;
    return digits >= 1 && digits <= 9;
}

static unsigned days_in_month(int year, unsigned month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap);
}

static bool read_offset(const char **s, int64_t *ret_seconds)
{
    unsigned hours, minutes;
    bool negative = **s == '-';

    if (read_char(s, "Zz")) {
        *ret_seconds = 0;
        return true;
    }
    if (!read_char(s, "+-") || !read_digits(s, 2, &hours) || !read_char(s, ":") ||
        !read_digits(s, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *ret_seconds = (int64_t)(hours * 3600 + minutes * 60) * (negative ? -1 : 1);
    return true;
}

int time_parse_rfc3339(const char *s, int64_t *ret_usec)
{
    unsigned year, month, day, hour, minute, second, usec;
    int64_t offset, seconds;

    if (!read_digits(&s, 4, &year) || !read_char(&s, "-") || !read_digits(&s, 2, &month) ||
        !read_char(&s, "-") || !read_digits(&s, 2, &day) || !read_char(&s, "Tt ") ||
        !read_digits(&s, 2, &hour) || !read_char(&s, ":") || !read_digits(&s, 2, &minute) ||
        !read_char(&s, ":") || !read_digits(&s, 2, &second) || !read_fraction(&s, &usec) ||
        !read_offset(&s, &offset) || *s)
        return -EINVAL;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month((int)year, month) || hour > 23 ||
        minute > 59 || second > 60)
        return -EINVAL;

    seconds = days_from_civil((int)year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    *ret_usec = (seconds - offset) * (int64_t)SECOND + usec;
    return 0;
}

typedef struct SpanUnit {
    uint64_t usec;
    const char *name;
} SpanUnit;

static const SpanUnit span_units[] = {
    {DAY, "d"}, {HOUR, "h"}, {MINUTE, "min"}, {SECOND, "s"}, {MSEC, "ms"}, {1, "us"},
};

char *time_format_span(char buf[static TIME_SPAN_MAX], uint64_t usec)
{
    size_t n = 0, parts = 0;

    if (usec == USEC_INFINITY) {
        (void)snprintf(buf, TIME_SPAN_MAX, "never");
        return buf;
    }
    (void)snprintf(buf, TIME_SPAN_MAX, "0 s");
    /* Two units are what a person reads. */
    for (size_t i = 0; i < ELEMENTS(span_units) && parts < 2; i++) {
        uint64_t count = usec / span_units[i].usec;

        if (count == 0) {
            if (parts > 0)
                break;
            continue;
        }
        n += (size_t)snprintf(buf + n, TIME_SPAN_MAX - n, "%s%" PRIu64 " %s", parts ? " " : "",
                              count, span_units[i].name);
        usec %= span_units[i].usec;
        parts++;
    }
    return buf;
}

char *time_format_ago(char buf[static TIME_SPAN_MAX], uint64_t then_usec, uint64_t now_usec)
{
    uint64_t age = now_usec > then_usec ? now_usec - then_usec : 0;
    const SpanUnit *unit = span_units;

    if (then_usec == 0) {
        (void)snprintf(buf, TIME_SPAN_MAX, "never");
        return buf;
    }
    if (age < SECOND) {
        (void)snprintf(buf, TIME_SPAN_MAX, "just now");
        return buf;
    }
    while (age < unit->usec)
        unit++;
    (void)snprintf(buf, TIME_SPAN_MAX, "%" PRIu64 " %s ago", age / unit->usec, unit->name);
    return buf;
}
