/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"

#define FRACTION_DIGITS_MAX 15 /* what a double keeps exactly */
#define DIGITS_SAFE         19 /* never too much for 64 bits */

typedef struct Unit {
    const char *name;
    uint64_t factor;
} Unit;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

int parse_u64_n(const char *s, size_t size, uint64_t *ret)
{
    uint64_t value = 0;
    size_t i;

    if (size == 0)
        return -EINVAL;
    for (i = 0; i < MIN_OF(size, (size_t)DIGITS_SAFE); i++) {
        if (!is_digit(s[i]))
            return -EINVAL;
        value = value * 10 + (uint64_t)(s[i] - '0');
    }
    for (; i < size; i++) {
        if (!is_digit(s[i]))
            return -EINVAL;
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(s[i] - '0'), &value))
            return -ERANGE;
    }
    *ret = value;
    return 0;
}

int parse_u64(const char *s, uint64_t *ret)
{
    return parse_u64_n(s, strlen(s), ret);
}

int parse_i64(const char *s, int64_t *ret)
{
    bool negative = *s == '-';
    uint64_t value;
    int r;

    r = parse_u64(negative ? s + 1 : s, &value);
    if (r < 0)
        return r;
    if (value > (uint64_t)INT64_MAX + negative)
        return -ERANGE;
    *ret = negative ? (int64_t)(0 - value) : (int64_t)value;
    return 0;
}

int parse_u16(const char *s, uint16_t *ret)
{
    uint64_t value;
    int r;

    r = parse_u64(s, &value);
    if (r < 0)
        return r;
    if (value > UINT16_MAX)
        return -ERANGE;
    *ret = (uint16_t)value;
    return 0;
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -EINVAL;
}

int parse_hex_u64(const char *s, uint64_t *ret)
{
    uint64_t value = 0;

    if (!*s)
        return -EINVAL;
    for (; *s; s++) {
        int digit = hex_digit(*s);

        if (digit < 0)
            return -EINVAL;
        if (value >> 60)
            return -ERANGE;
        value = value << 4 | (uint64_t)digit;
    }
    *ret = value;
    return 0;
}

int parse_fraction(const char *s, double *ret)
{
    uint64_t mantissa = 0;
    double divisor = 1;
    unsigned digits = 0;
    bool negative = *s == '-', point = false;

    for (s += negative; *s; s++) {
        if (*s == '.' && !point && digits > 0) {
            point = true;
            continue;
        }
        if (!is_digit(*s))
            return -EINVAL;
        if (++digits > FRACTION_DIGITS_MAX)
            return -ERANGE;
        mantissa = mantissa * 10 + (uint64_t)(*s - '0');
        if (point)
            divisor *= 10;
    }
    if (digits == 0 || s[-1] == '.')
        return -EINVAL;
    *ret = (negative ? -1.0 : 1.0) * (double)mantissa / divisor;
    return 0;
}

int parse_bool(const char *s, bool *ret)
{
    if (streq(s, "true"))
        *ret = true;
    else if (streq(s, "false"))
        *ret = false;
    else
        return -EINVAL;
    return 0;
}

/* "12.5" times `factor`, exact: the result must be whole. Moves *s behind the number. */
static int parse_scaled(const char **s, size_t number_size, uint64_t factor, uint64_t *ret)
{
    const char *point = memchr(*s, '.', number_size);
    size_t whole_size = point ? (size_t)(point - *s) : number_size;
    uint64_t whole, rest = 0, scale = 1;
    int r;

    r = parse_u64_n(*s, whole_size, &whole);
    if (r < 0)
        return r;
    if (__builtin_mul_overflow(whole, factor, &whole))
        return -ERANGE;
    if (point) {
        size_t digits = number_size - whole_size - 1;

        if (digits > 9)
            return -ERANGE;
        r = parse_u64_n(point + 1, digits, &rest);
        if (r < 0)
            return r;
        for (size_t i = 0; i < digits; i++)
            scale *= 10;
        if (__builtin_mul_overflow(rest, factor, &rest))
            return -ERANGE;
        if (rest % scale != 0)
            return -EINVAL;
        rest /= scale;
    }
    if (__builtin_add_overflow(whole, rest, ret))
        return -ERANGE;
    *s += number_size;
    return 0;
}

/* The unit whose name is the next letters. */
static const Unit *unit_at(const char *s, const Unit *units, size_t n_units)
{
    size_t size = 0;

    while ((s[size] >= 'a' && s[size] <= 'z') || (s[size] >= 'A' && s[size] <= 'Z'))
        size++;
    for (size_t i = 0; i < n_units; i++)
        if (strlen(units[i].name) == size && strncmp(units[i].name, s, size) == 0)
            return units + i;
    return NULL;
}

static const Unit duration_units[] = {
    {"d", DAY}, {"h", HOUR}, {"m", MINUTE}, {"s", SECOND}, {"ms", MSEC}, {"us", 1},
};

int parse_duration(const char *s, uint64_t *ret_usec)
{
    uint64_t total = 0;

    if (!*s)
        return -EINVAL;
    while (*s) {
        size_t number_size = strspn(s, "0123456789.");
        const Unit *unit = unit_at(s + number_size, duration_units, ELEMENTS(duration_units));
        uint64_t part;
        int r;

        if (!unit)
            return -EINVAL;
        r = parse_scaled(&s, number_size, unit->factor, &part);
        if (r < 0)
            return r;
        s += strlen(unit->name);
        if (__builtin_add_overflow(total, part, &total))
            return -ERANGE;
    }
    *ret_usec = total;
    return 0;
}

static const Unit size_units[] = {
    {"TiB", UINT64_C(1) << 40},
    {"GiB", UINT64_C(1) << 30},
    {"MiB", UINT64_C(1) << 20},
    {"KiB", UINT64_C(1) << 10},
    {"TB", UINT64_C(1000000000000)},
    {"GB", 1000000000},
    {"MB", 1000000},
    {"kB", 1000},
    {"B", 1},
    {"", 1},
};

int parse_size(const char *s, uint64_t *ret_bytes)
{
    size_t number_size = strspn(s, "0123456789.");
    const Unit *unit = unit_at(s + number_size, size_units, ELEMENTS(size_units));

    if (!unit || s[number_size + strlen(unit->name)])
        return -EINVAL;
    return parse_scaled(&s, number_size, unit->factor, ret_bytes);
}

int parse_mode(const char *s, mode_t *ret)
{
    mode_t mode = 0;
    size_t size = strlen(s);

    if (size < 3 || size > 5)
        return -EINVAL;
    for (; *s; s++) {
        if (*s < '0' || *s > '7')
            return -EINVAL;
        mode = mode << 3 | (mode_t)(*s - '0');
    }
    if (mode > 07777)
        return -ERANGE;
    *ret = mode;
    return 0;
}

char *format_duration(char buf[static PARSE_TEXT_MAX], uint64_t usec)
{
    size_t n = 0;

    (void)snprintf(buf, PARSE_TEXT_MAX, "0s");
    for (size_t i = 0; i < ELEMENTS(duration_units); i++) {
        uint64_t count = usec / duration_units[i].factor;

        if (count == 0)
            continue;
        n += (size_t)snprintf(buf + n, PARSE_TEXT_MAX - n, "%" PRIu64 "%s", count,
                              duration_units[i].name);
        usec %= duration_units[i].factor;
    }
    return buf;
}

char *format_size(char buf[static PARSE_TEXT_MAX], uint64_t bytes)
{
    const Unit *unit = size_units;

    /* Only the binary units: they come first, largest first. */
    while (unit->factor > 1024 && (bytes == 0 || bytes % unit->factor != 0))
        unit++;
    if (bytes == 0 || bytes % unit->factor != 0)
        (void)snprintf(buf, PARSE_TEXT_MAX, "%" PRIu64, bytes);
    else
        (void)snprintf(buf, PARSE_TEXT_MAX, "%" PRIu64 "%s", bytes / unit->factor, unit->name);
    return buf;
}

char *format_size_human(char buf[static PARSE_TEXT_MAX], uint64_t bytes)
{
    const Unit *unit = size_units;

    while (unit->factor > 1024 && bytes < unit->factor)
        unit++;
    if (bytes < unit->factor)
        (void)snprintf(buf, PARSE_TEXT_MAX, "%" PRIu64 " B", bytes);
    else
        (void)snprintf(buf, PARSE_TEXT_MAX, "%.1f %s", (double)bytes / (double)unit->factor,
                       unit->name);
    return buf;
}
