/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/model/zone.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/file.h"
#include "agent/base/list.h"
#include "agent/base/str.h"
#include "agent/base/time.h"

#define ZONEINFO_DIR       "/usr/share/zoneinfo"
#define ZONE_NAME_MAX      64
#define ZONE_FILE_MAX      (1024 * 1024)
#define DAY_SEC            INT64_C(86400)
#define TRANSITIONS_MAX    20000
#define HEADER_SIZE        44
#define POSIX_OFFSET_LIMIT (INT32_C(168) * 3600)

/* When one of the two yearly changes of a POSIX TZ rule falls. */
typedef struct ZoneRule {
    enum { RULE_MONTH_WEEK_DAY, RULE_JULIAN, RULE_DAY } form;
    int month, week, day;
    int32_t time_sec; /* of local time before the change; may be negative or beyond a day */
} ZoneRule;

/* What holds after the last transition in the file: its footer. */
typedef struct ZoneTail {
    bool present, has_dst;
    int32_t std_offset, dst_offset;
    ZoneRule start, end;
} ZoneTail;

struct Zone {
    char *name;
    int64_t *at;     /* transitions, ascending */
    int32_t *offset; /* from at[i] on */
    size_t n;
    int32_t first_offset; /* before at[0] */
    ZoneTail tail;
    /* The last answer and where it holds: rows of a document come in order. */
    int64_t known_from, known_until;
    int32_t known_offset;
    LIST_FIELDS(Zone, zones);
};

static Zone *zones;

static Zone *zone_free(Zone *zone)
{
    if (!zone)
        return NULL;
    free(zone->name);
    free(zone->at);
    free(zone->offset);
    free(zone);
    return NULL;
}
DEFINE_AUTO(Zone, zone_free)

/* --- The footer: a POSIX TZ string, as in "EST5EDT,M3.2.0,M11.1.0" ------------------------------
 */

static bool read_abbreviation(const char **p)
{
    const char *s = *p;

    if (*s == '<') {
        while (*s && *s != '>')
            s++;
        if (!*s)
            return false;
        *p = s + 1;
        return true;
    }
    while ((*s >= 'A' && *s <= 'Z') || (*s >= 'a' && *s <= 'z'))
        s++;
    if (s - *p < 3)
        return false;
    *p = s;
    return true;
}

static bool read_number(const char **p, int max, int *ret)
{
    int n = 0;

    if (**p < '0' || **p > '9')
        return false;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        n = n * 10 + (**p - '0');
        if (n > max)
            return false;
    }
    *ret = n;
    return true;
}

/* [+-]hh[:mm[:ss]] */
static bool read_time(const char **p, int32_t *ret)
{
    bool negative = **p == '-';
    int h, m = 0, s = 0;

    if (**p == '-' || **p == '+')
        (*p)++;
    if (!read_number(p, 167, &h))
        return false;
    if (**p == ':') {
        (*p)++;
        if (!read_number(p, 59, &m))
            return false;
        if (**p == ':') {
            (*p)++;
            if (!read_number(p, 59, &s))
                return false;
        }
    }
    *ret = (h * 3600 + m * 60 + s) * (negative ? -1 : 1);
    return true;
}

static bool read_rule(const char **p, ZoneRule *ret)
{
    ZoneRule rule = {.time_sec = 7200};

    if (*(*p)++ != ',')
        return false;
    if (**p == 'M') {
        (*p)++;
        rule.form = RULE_MONTH_WEEK_DAY;
        if (!read_number(p, 12, &rule.month) || *(*p)++ != '.' || !read_number(p, 5, &rule.week) ||
            *(*p)++ != '.' || !read_number(p, 6, &rule.day) || rule.month < 1 || rule.week < 1)
            return false;
    } else if (**p == 'J') {
        (*p)++;
        rule.form = RULE_JULIAN;
        if (!read_number(p, 365, &rule.day) || rule.day < 1)
            return false;
    } else {
        rule.form = RULE_DAY;
        if (!read_number(p, 365, &rule.day))
            return false;
    }
    if (**p == '/') {
        (*p)++;
        if (!read_time(p, &rule.time_sec))
            return false;
    }
    *ret = rule;
    return true;
}

static bool read_tail(const char *text, ZoneTail *ret)
{
    ZoneTail tail = {.present = true};
    const char *p = text;

    if (!read_abbreviation(&p) || !read_time(&p, &tail.std_offset))
        return false;
    tail.std_offset = -tail.std_offset; /* POSIX counts west of Greenwich */
    if (*p) {
        tail.has_dst = true;
        if (!read_abbreviation(&p))
            return false;
        tail.dst_offset = tail.std_offset + 3600;
        if (*p != ',') {
            if (!read_time(&p, &tail.dst_offset))
                return false;
            tail.dst_offset = -tail.dst_offset;
        }
        if (!read_rule(&p, &tail.start) || !read_rule(&p, &tail.end) || *p)
            return false;
    }
    *ret = tail;
    return true;
}

/* Local seconds (of the time before the change) at which the rule falls in that year. */
static int64_t rule_local_sec(const ZoneRule *rule, int year)
{
    int64_t first = days_from_civil(year, 1, 1), day;
    bool leap = days_from_civil(year + 1, 1, 1) - first == 366;
    int weekday;

    switch (rule->form) {
    case RULE_JULIAN: /* 1 to 365, February 29 is never counted */
        day = first + rule->day - 1 + (leap && rule->day >= 60);
        break;
    case RULE_DAY:
        day = first + rule->day;
        break;
    case RULE_MONTH_WEEK_DAY:
        day = days_from_civil(year, (unsigned)rule->month, 1);
        weekday = (int)((day % 7 + 7 + 4) % 7); /* 1970-01-01 was a Thursday */
        day += (rule->day - weekday + 7) % 7 + (rule->week - 1) * 7;
        /* Week 5 is the last one: step back when it leaves the month. */
        if (day >= days_from_civil(rule->month == 12 ? year + 1 : year,
                                   rule->month == 12 ? 1 : (unsigned)rule->month + 1, 1))
            day -= 7;
        break;
    default:
        assert(false);
    }
    return day * DAY_SEC + rule->time_sec;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int32_t tail_offset(const ZoneTail *tail, int64_t utc_sec)
{
    int year;
    unsigned month, day;
    int64_t start, end;
    bool dst;

    if (!tail->has_dst)
        return tail->std_offset;
    civil_from_days(floor_div(utc_sec + tail->std_offset, DAY_SEC), &year, &month, &day);
    start = rule_local_sec(&tail->start, year) - tail->std_offset;
    end = rule_local_sec(&tail->end, year) - tail->dst_offset;
    if (start < end)
        dst = utc_sec >= start && utc_sec < end;
    else /* the southern half: summer spans the new year */
        dst = utc_sec >= start || utc_sec < end;
    return dst ? tail->dst_offset : tail->std_offset;
}

/* --- The file (RFC 8536) ------------------------------------------------------------------------
 */

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int64_t be64(const uint8_t *p)
{
    return (int64_t)((uint64_t)be32(p) << 32 | be32(p + 4));
}

typedef struct Counts {
    size_t isut, isstd, leap, time, type, chars;
} Counts;

static bool read_header(const uint8_t *p, size_t size, uint8_t *ret_version, Counts *ret)
{
    if (size < HEADER_SIZE || memcmp(p, "TZif", 4) != 0)
        return false;
    *ret_version = p[4];
    *ret = (Counts){
        .isut = be32(p + 20),
        .isstd = be32(p + 24),
        .leap = be32(p + 28),
        .time = be32(p + 32),
        .type = be32(p + 36),
        .chars = be32(p + 40),
    };
    return ret->time <= TRANSITIONS_MAX && ret->type >= 1 && ret->type <= 256 &&
           ret->chars <= 4096 && ret->leap <= 4096 && ret->isut <= 256 && ret->isstd <= 256;
}

static size_t body_size(const Counts *c, size_t time_size)
{
    return c->time * time_size + c->time + c->type * 6 + c->chars + c->leap * (time_size + 4) +
           c->isstd + c->isut;
}

static int zone_decode(Zone *zone, const uint8_t *p, size_t size)
{
    Counts c;
    uint8_t version;
    size_t skip, time_size = 8;
    const uint8_t *indexes, *types;

    if (!read_header(p, size, &version, &c))
        return -EBADMSG;
    if (version >= '2') {
        /* The first block is for readers of 32 bits. */
        skip = HEADER_SIZE + body_size(&c, 4);
        if (skip > size || !read_header(p + skip, size - skip, &version, &c))
            return -EBADMSG;
        p += skip;
        size -= skip;
    } else
        time_size = 4;
    skip = HEADER_SIZE + body_size(&c, time_size);
    if (skip > size)
        return -EBADMSG;

    zone->n = c.time;
    zone->at = calloc(c.time + 1, sizeof(*zone->at));
    zone->offset = calloc(c.time + 1, sizeof(*zone->offset));
    if (!zone->at || !zone->offset)
        return -ENOMEM;
    indexes = p + HEADER_SIZE + c.time * time_size;
    types = indexes + c.time;
    for (size_t i = 0; i < c.type; i++)
        if ((int32_t)be32(types + i * 6) < -POSIX_OFFSET_LIMIT ||
            (int32_t)be32(types + i * 6) > POSIX_OFFSET_LIMIT)
            return -EBADMSG;
    zone->first_offset = (int32_t)be32(types);
    for (size_t i = 0; i < c.time; i++) {
        const uint8_t *t = p + HEADER_SIZE + i * time_size;

        zone->at[i] = time_size == 8 ? be64(t) : (int32_t)be32(t);
        if (indexes[i] >= c.type || (i > 0 && zone->at[i] <= zone->at[i - 1]))
            return -EBADMSG;
        zone->offset[i] = (int32_t)be32(types + (size_t)indexes[i] * 6);
    }

    if (time_size == 8 && size - skip >= 2 && p[skip] == '\n') {
        const char *text = (const char *)p + skip + 1;
        const char *end = memchr(text, '\n', size - skip - 1);
        char footer[128];

        if (!end || (size_t)(end - text) >= sizeof(footer))
            return -EBADMSG;
        memcpy(footer, text, (size_t)(end - text));
        footer[end - text] = '\0';
        if (*footer && !read_tail(footer, &zone->tail))
            return -EBADMSG;
    }
    return 0;
}

static bool zone_name_is_valid(const char *name)
{
    size_t n = strlen(name);

    /* Reaches the file system: no way out of the directory, no hidden file, no absolute path. */
    if (n == 0 || n > ZONE_NAME_MAX || name[0] == '/' || name[n - 1] == '/' || strstr(name, ".") ||
        strstr(name, "//"))
        return false;
    for (const char *p = name; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
              strchr("_+-/", *p)))
            return false;
    return true;
}

static int zone_load(const char *name, const Zone **ret, Error *err)
{
    auto_(zone_freep) Zone *zone = NULL;
    auto_buf Buf buf = BUF_INIT(ZONE_FILE_MAX);
    auto_free char *path = NULL;
    int r;

    path = path_join(ZONEINFO_DIR, name);
    zone = calloc(1, sizeof(*zone));
    if (!path || !zone)
        return error_oom(err);
    zone->name = strdup(name);
    if (!zone->name)
        return error_oom(err);

    r = file_read(path, ZONE_FILE_MAX, &buf, err);
    if (r == -ENOENT) {
        error_done(err);
        r = error_set(err, -ENOENT, ERROR_INVALID, "time zone \"%s\" is not in " ZONEINFO_DIR,
                      name);
        return error_remedy(err, r, "check the name, or: apt-get install tzdata tzdata-legacy");
    }
    if (r < 0)
        return error_prefix(err, r, "time zone \"%s\"", name);
    r = zone_decode(zone, (const uint8_t *)buf_str(&buf), buf.size);
    if (r == -ENOMEM)
        return error_oom(err);
    if (r < 0) {
        r = error_set(err, r, ERROR_CORRUPT, "time zone \"%s\": %s is no TZif file", name, path);
        return error_remedy(err, r, "apt-get install --reinstall tzdata");
    }
    LIST_PREPEND(zones, zones, zone);
    *ret = take_ptr(zone);
    return 0;
}

int zone_get(const char *name, const Zone **ret, Error *err)
{
    assert(name && ret);

    LIST_FOREACH (zones, z, zones)
        if (streq(z->name, name)) {
            *ret = z;
            return 0;
        }
    if (!zone_name_is_valid(name))
        return error_set(err, -EINVAL, ERROR_INVALID, "\"%.64s\" is not the name of a time zone",
                         name);
    return zone_load(name, ret, err);
}

const char *zone_name(const Zone *zone)
{
    return zone->name;
}

static void zone_find(Zone *zone, int64_t utc_sec)
{
    size_t low = 0, high = zone->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (zone->at[middle] <= utc_sec)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == zone->n && zone->tail.present) {
        /* Good for this instant only, but for zones without summer time. */
        zone->known_offset = tail_offset(&zone->tail, utc_sec);
        zone->known_from = zone->tail.has_dst || low == 0 ? utc_sec : zone->at[low - 1];
        zone->known_until = zone->tail.has_dst ? utc_sec + 1 : INT64_MAX;
        return;
    }
    zone->known_offset = low == 0 ? zone->first_offset : zone->offset[low - 1];
    zone->known_from = low == 0 ? INT64_MIN : zone->at[low - 1];
    zone->known_until = low == zone->n ? INT64_MAX : zone->at[low];
}

int32_t zone_offset(const Zone *zone, int64_t utc_sec)
{
    /* Zones belong to this module's cache and are never const objects; only callers see them so. */
    Zone *z = (Zone *)zone;

    if (utc_sec < z->known_from || utc_sec >= z->known_until)
        zone_find(z, utc_sec);
    return z->known_offset;
}

static int64_t local_second(const Zone *zone, int64_t ts_usec)
{
    int64_t utc_sec = floor_div(ts_usec, (int64_t)SECOND);

    return utc_sec + zone_offset(zone, utc_sec);
}

int32_t zone_date(const Zone *zone, int64_t ts_usec)
{
    return (int32_t)floor_div(local_second(zone, ts_usec), DAY_SEC);
}

int32_t zone_second_of_day(const Zone *zone, int64_t ts_usec)
{
    int64_t local = local_second(zone, ts_usec);

    return (int32_t)(local - floor_div(local, DAY_SEC) * DAY_SEC);
}

int64_t zone_to_utc(const Zone *zone, int64_t local_sec)
{
    int32_t before = zone_offset(zone, local_sec - DAY_SEC);
    int32_t after = zone_offset(zone, local_sec + DAY_SEC);

    if (before == after || zone_offset(zone, local_sec - before) == before)
        return local_sec - before;
    if (zone_offset(zone, local_sec - after) == after)
        return local_sec - after;
    return local_sec - before;
}

void zone_forget_all(void)
{
    LIST_FOREACH_SAFE (zones, z, zones)
        zone_free(z);
    zones = NULL;
}
