/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/extract/when.h"

#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "crawler/model/amount.h"

/* Parts of a local time as a format names them. */
typedef struct Parts {
    int year, month, day, hour, minute, second;
    int64_t micro;
    bool has_offset;
    int32_t offset_sec;
} Parts;

static bool read_digits(const char **p, const char *end, size_t min, size_t max, int *ret)
{
    int n = 0;
    size_t i;

    for (i = 0; i < max && *p + i < end && (*p)[i] >= '0' && (*p)[i] <= '9'; i++)
        n = n * 10 + ((*p)[i] - '0');
    if (i < min)
        return false;
    *p += i;
    *ret = n;
    return true;
}

/* One to nine digits; what is below a microsecond is cut. */
static bool read_fraction(const char **p, const char *end, int64_t *ret)
{
    int64_t micro = 0;
    size_t i;

    for (i = 0; i < 9 && *p + i < end && (*p)[i] >= '0' && (*p)[i] <= '9'; i++)
        if (i < 6)
            micro = micro * 10 + ((*p)[i] - '0');
    if (i == 0)
        return false;
    *p += i;
    for (; i < 6; i++)
        micro *= 10;
    *ret = micro;
    return true;
}

/* "Z", "+09:00", "+0900". */
static bool read_offset(const char **p, const char *end, Parts *parts)
{
    bool negative;
    int hour, minute;

    parts->has_offset = true;
    if (*p < end && **p == 'Z') {
        (*p)++;
        parts->offset_sec = 0;
        return true;
    }
    if (*p == end || (**p != '+' && **p != '-'))
        return false;
    negative = *(*p)++ == '-';
    if (!read_digits(p, end, 2, 2, &hour))
        return false;
    if (*p < end && **p == ':')
        (*p)++;
    if (!read_digits(p, end, 2, 2, &minute) || hour > 18 || minute > 59)
        return false;
    parts->offset_sec = (hour * 3600 + minute * 60) * (negative ? -1 : 1);
    return true;
}

static bool read_part(char conversion, const char **p, const char *end, Parts *parts)
{
    switch (conversion) {
    case 'Y':
        return read_digits(p, end, 4, 4, &parts->year);
    case 'm':
        return read_digits(p, end, 2, 2, &parts->month) && parts->month >= 1 && parts->month <= 12;
    case 'd':
        return read_digits(p, end, 2, 2, &parts->day) && parts->day >= 1 && parts->day <= 31;
    case 'H':
        return read_digits(p, end, 2, 2, &parts->hour) && parts->hour <= 23;
    case 'M':
        return read_digits(p, end, 2, 2, &parts->minute) && parts->minute <= 59;
    case 'S':
        return read_digits(p, end, 2, 2, &parts->second) && parts->second <= 59;
    case 'f':
        return read_fraction(p, end, &parts->micro);
    default:
        return read_offset(p, end, parts);
    }
}

static int read_parts(const char *format, const char *text, size_t size, Parts *ret)
{
    const char *p = text, *end = text + size;
    Parts parts = {0};
    int year;
    unsigned month, day;

    for (; *format; format++) {
        if (*format == '%') {
            if (!format[1] || !read_part(*++format, &p, end, &parts))
                return -EINVAL;
        } else if (p == end || *p++ != *format)
            return -EINVAL;
    }
    if (p != end)
        return -EINVAL;
    /* February 30 comes back as March. */
    civil_from_days(days_from_civil(parts.year, (unsigned)parts.month, (unsigned)parts.day), &year,
                    &month, &day);
    if ((int)month != parts.month)
        return -EINVAL;
    *ret = parts;
    return 0;
}

static int read_epoch(const char *text, size_t size, int64_t unit_usec, int64_t *ret)
{
    uint64_t whole;
    Amount amount;
    int r;

    /* Nearly always it is a whole number of its unit. */
    if (parse_u64_n(text, size, &whole) >= 0 && whole <= (uint64_t)(INT64_MAX / unit_usec)) {
        *ret = (int64_t)whole * unit_usec;
        return 0;
    }
    /* As a number of any form: "1.5779754E9" is one, too. */
    r = amount_parse(text, size, 0, 6, &amount);
    if (r < 0)
        return -EINVAL;
    r = amount_shift(&amount,
                     unit_usec == (int64_t)SECOND ? 6
                     : unit_usec == (int64_t)MSEC ? 3
                                                  : 0,
                     6, &amount);
    if (r < 0 || amount.scale > 0 || amount.mantissa > INT64_MAX || amount.mantissa < INT64_MIN)
        return -EINVAL;
    *ret = (int64_t)amount.mantissa;
    return 0;
}

static int read_local(const RecipeColumn *column, const Zone *zone, const char *text, size_t size,
                      When *ret)
{
    Parts parts;
    int64_t days, second;
    int r;

    r = read_parts(column->format, text, size, &parts);
    if (r < 0)
        return r;
    days = days_from_civil(parts.year, (unsigned)parts.month, (unsigned)parts.day);
    second = days * 86400 + parts.hour * 3600 + parts.minute * 60 + parts.second;
    if (column->type == COLUMN_DATE)
        second = days * 86400 + column->time_sec;
    second = parts.has_offset ? second - parts.offset_sec : zone_to_utc(zone, second);
    *ret = (When){
        .ts_usec = second * (int64_t)SECOND + parts.micro,
        .has_date = column->type == COLUMN_DATE,
        .date = (int32_t)days,
    };
    return 0;
}

int when_parse(const RecipeColumn *column, const Zone *zone, const char *text, size_t size,
               When *ret)
{
    static const int64_t units[] = {[COLUMN_EPOCH_S] = (int64_t)SECOND,
                                    [COLUMN_EPOCH_MS] = (int64_t)MSEC,
                                    [COLUMN_EPOCH_US] = 1};
    int64_t ts;
    int r;

    if (column->type == COLUMN_DATE || column->type == COLUMN_DATETIME)
        return read_local(column, zone, text, size, ret);
    r = read_epoch(text, size, units[column->type], &ts);
    if (r < 0)
        return r;
    *ret = (When){.ts_usec = ts};
    return 0;
}
