/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/model/instrument.h"

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"

const char *const row_kind_names[] = {
    [ROW_BAR] = "bar",     [ROW_DIVIDEND] = "dividend",
    [ROW_SPLIT] = "split", [ROW_CAPITAL_GAIN] = "capital_gain",
    [ROW_KIND_MAX] = NULL,
};

const char *const session_names[] = {
    [SESSION_NONE] = "none", [SESSION_REGULAR] = "regular",   [SESSION_PRE] = "pre",
    [SESSION_POST] = "post", [SESSION_COMBINED] = "combined", [SESSION_MAX] = NULL,
};

const char *row_kind_name(RowKind kind)
{
    return row_kind_names[kind];
}

const char *session_name(Session session)
{
    return session == SESSION_NONE ? NULL : session_names[session];
}

int row_kind_from_name(const char *name)
{
    for (int i = 0; i < ROW_KIND_MAX; i++)
        if (streq(row_kind_names[i], name))
            return i;
    return -EINVAL;
}

int session_from_name(const char *name)
{
    for (int i = 0; i < SESSION_MAX; i++)
        if (streq(session_names[i], name))
            return i;
    return -EINVAL;
}

bool symbol_is_valid(const char *symbol)
{
    size_t n = strlen(symbol);

    if (n == 0 || n > SYMBOL_MAX || !str_is_utf8(symbol, n))
        return false;
    for (const char *p = symbol; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == '"' || *p == '\\')
            return false;
    return true;
}

int interval_parse(const char *text, Interval *ret)
{
    static const struct {
        const char *suffix;
        int unit;
    } units[] = {
        {"mo", INTERVAL_MONTH}, {"wk", INTERVAL_WEEK}, {"s", INTERVAL_SECOND},
        {"m", INTERVAL_MINUTE}, {"h", INTERVAL_HOUR},  {"d", INTERVAL_DAY},
    };
    const char *p = text;
    uint32_t count = 0;

    /* Asked for each row: no function is called before the unit's letter fits. */
    for (; *p >= '0' && *p <= '9' && p - text <= 4; p++)
        count = count * 10 + (uint32_t)(*p - '0');
    if (p == text || p - text > 4 || text[0] == '0')
        return -EINVAL;
    for (size_t i = 0; i < ELEMENTS(units); i++)
        if (*p == *units[i].suffix && streq(p, units[i].suffix)) {
            ret->count = count;
            ret->unit = units[i].unit;
            return 0;
        }
    return -EINVAL;
}

uint64_t interval_usec(const Interval *interval)
{
    static const uint64_t units[] = {
        [INTERVAL_SECOND] = SECOND, [INTERVAL_MINUTE] = MINUTE, [INTERVAL_HOUR] = HOUR,
        [INTERVAL_DAY] = DAY,       [INTERVAL_WEEK] = 7 * DAY,  [INTERVAL_MONTH] = 31 * DAY,
    };

    return interval->count * units[interval->unit];
}

bool interval_is_intraday(const Interval *interval)
{
    return interval->unit == INTERVAL_SECOND || interval->unit == INTERVAL_MINUTE ||
           interval->unit == INTERVAL_HOUR;
}
