/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/model/calendar.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/model/bar.h"

#define CALENDAR_FILE_MAX  (256 * 1024)
#define CALENDAR_DAYS_MAX  5000
#define HOURS_MAX          8
#define SEARCH_DAYS        60
#define DAY_SEC            INT64_C(86400)
#define MESSAGE_FAULTS_MAX 4096

/* Local wall time of one session: [from, to) seconds of the day; `to` may pass midnight. */
typedef struct Hours {
    Session session;
    int32_t from_sec, to_sec;
} Hours;

typedef struct SpecialDay {
    int32_t date;
    bool closed;
    Hours hours[HOURS_MAX]; /* instead of the usual ones, session by session */
    size_t n_hours;
} SpecialDay;

struct Calendar {
    char *name;
    const Zone *zone;
    bool weekdays[7]; /* Monday first */
    Hours hours[HOURS_MAX];
    size_t n_hours;
    SpecialDay *days;
    size_t n_days, n_allocated;
    int32_t known_from, known_until;
    bool has_known;
};

Calendar *calendar_free(Calendar *calendar)
{
    if (!calendar)
        return NULL;
    free(calendar->name);
    free(calendar->days);
    free(calendar);
    return NULL;
}

/* --- Reading ------------------------------------------------------------------------------------
 */

typedef struct Reader {
    Calendar *calendar;
    Buf faults;
    unsigned line;
} Reader;

static int fault(Reader *reader, const char *format, ...) printf_like(2, 3);
static int fault(Reader *reader, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    /* What does not fit is the tail of a long list. */
    (void)!buf_printf(&reader->faults, "%sline %u: %s", reader->faults.size ? "; " : "",
                      reader->line, text);
    return 0;
}

static bool read_clock(const char *text, size_t size, int32_t *ret)
{
    int h, m;

    if (size != 5 || text[2] != ':')
        return false;
    for (size_t i = 0; i < size; i++)
        if (i != 2 && (text[i] < '0' || text[i] > '9'))
            return false;
    h = (text[0] - '0') * 10 + text[1] - '0';
    m = (text[3] - '0') * 10 + text[4] - '0';
    if (h > 24 || m > 59 || (h == 24 && m > 0))
        return false;
    *ret = h * 3600 + m * 60;
    return true;
}

/* "regular 09:30-16:00" in two words. */
static bool read_hours(const char *session, const char *range, Hours *ret)
{
    int s = session_from_name(session);
    Hours hours;

    if (s <= SESSION_NONE || strlen(range) != 11 || range[5] != '-' ||
        !read_clock(range, 5, &hours.from_sec) || !read_clock(range + 6, 5, &hours.to_sec))
        return false;
    hours.session = (Session)s;
    if (hours.to_sec <= hours.from_sec)
        hours.to_sec += (int32_t)DAY_SEC; /* over midnight */
    *ret = hours;
    return true;
}

static SpecialDay *special_day(Calendar *calendar, int32_t date)
{
    for (size_t i = 0; i < calendar->n_days; i++)
        if (calendar->days[i].date == date)
            return &calendar->days[i];
    if (calendar->n_days >= CALENDAR_DAYS_MAX)
        return NULL;
    if (calendar->n_days == calendar->n_allocated) {
        size_t n = calendar->n_allocated ? calendar->n_allocated * 2 : 32;
        SpecialDay *days = reallocarray(calendar->days, n, sizeof(*days));

        if (!days)
            return NULL;
        calendar->days = days;
        calendar->n_allocated = n;
    }
    calendar->days[calendar->n_days] = (SpecialDay){.date = date};
    return &calendar->days[calendar->n_days++];
}

static int read_zone(Reader *reader, char *const *words)
{
    auto_error Error error = {0};

    if (zone_get(words[0], &reader->calendar->zone, &error) < 0)
        return fault(reader, "%s", error_text(&error));
    return 0;
}

static int weekday_from_name(const char *name, size_t size)
{
    static const char *const names[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

    for (int i = 0; i < 7; i++)
        if (size == 3 && memcmp(names[i], name, 3) == 0)
            return i;
    return -EINVAL;
}

static int read_days(Reader *reader, char *const *words)
{
    const char *dash = strchr(words[0], '-');
    int first, last;

    first = weekday_from_name(words[0], dash ? (size_t)(dash - words[0]) : strlen(words[0]));
    last = dash ? weekday_from_name(dash + 1, strlen(dash + 1)) : first;
    if (first < 0 || last < 0)
        return fault(reader, "\"%s\" is no range of week days like mon-fri", words[0]);
    for (int i = first;; i = (i + 1) % 7) {
        reader->calendar->weekdays[i] = true;
        if (i == last)
            return 0;
    }
}

static int read_session(Reader *reader, char *const *words)
{
    Calendar *calendar = reader->calendar;

    if (calendar->n_hours == HOURS_MAX ||
        !read_hours(words[0], words[1], &calendar->hours[calendar->n_hours]))
        return fault(reader, "expected \"session regular 09:30-16:00\", at most %d of them",
                     HOURS_MAX);
    calendar->n_hours++;
    return 0;
}

static int read_closed(Reader *reader, char *const *words)
{
    SpecialDay *day;
    int32_t date;

    if (row_date_parse(words[0], strlen(words[0]), &date) < 0)
        return fault(reader, "\"%s\" is no date like 2026-12-25", words[0]);
    day = special_day(reader->calendar, date);
    if (!day)
        return -ENOMEM;
    day->closed = true;
    return 0;
}

static int read_special(Reader *reader, char *const *words)
{
    SpecialDay *day;
    Hours hours;
    int32_t date;

    if (row_date_parse(words[0], strlen(words[0]), &date) < 0 ||
        !read_hours(words[1], words[2], &hours))
        return fault(reader, "expected \"hours 2026-11-27 regular 09:30-13:00\"");
    day = special_day(reader->calendar, date);
    if (!day)
        return -ENOMEM;
    if (day->n_hours == HOURS_MAX)
        return fault(reader, "more than %d sessions a day", HOURS_MAX);
    day->hours[day->n_hours++] = hours;
    return 0;
}

static int read_known(Reader *reader, char *const *words)
{
    Calendar *calendar = reader->calendar;

    if (row_date_parse(words[0], strlen(words[0]), &calendar->known_from) < 0 ||
        row_date_parse(words[1], strlen(words[1]), &calendar->known_until) < 0)
        return fault(reader, "expected \"known 2025-01-01 2026-12-31\"");
    calendar->has_known = true;
    return 0;
}

/* `words`: how many are needed; what follows them is a remark. */
static const struct {
    const char *name;
    size_t words;
    int (*read)(Reader *reader, char *const *words);
} statements[] = {
    {"zone", 1, read_zone},     {"days", 1, read_days},     {"session", 2, read_session},
    {"closed", 1, read_closed}, {"hours", 3, read_special}, {"known", 2, read_known},
};

static int read_line(Reader *reader, const char *text, size_t size)
{
    auto_free char *line = NULL;
    auto_(strv_freep) char **words = NULL;

    line = strndup(text, size);
    if (!line)
        return -ENOMEM;
    line[strcspn(line, "#\r")] = '\0';
    words = str_split(line, " \t");
    if (!words)
        return -ENOMEM;
    if (!words[0])
        return 0;
    for (size_t i = 0; i < ELEMENTS(statements); i++)
        if (streq(words[0], statements[i].name)) {
            if (strv_length(words) < statements[i].words + 1)
                return fault(reader, "\"%s\" needs %zu words", words[0], statements[i].words);
            return statements[i].read(reader, words + 1);
        }
    return fault(reader, "unknown statement \"%.32s\"", words[0]);
}

static int compare_days(const void *a, const void *b)
{
    const SpecialDay *x = a, *y = b;

    return x->date < y->date ? -1 : x->date > y->date;
}

static int read_text(Reader *reader, const char *text, size_t size)
{
    Calendar *calendar = reader->calendar;
    int r;

    for (const char *p = text, *end = text + size; p < end;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));

        if (!stop)
            stop = end;
        reader->line++;
        r = read_line(reader, p, (size_t)(stop - p));
        if (r < 0)
            return r;
        p = stop + 1;
    }
    if (!calendar->zone && reader->faults.size == 0)
        (void)fault(reader, "no zone");
    if (calendar->n_hours == 0)
        (void)fault(reader, "no session");
    return 0;
}

int calendar_parse(const char *text, size_t size, const char *name, Calendar **ret, Error *err)
{
    auto_(calendar_freep) Calendar *calendar = NULL;
    auto_buf Buf faults = BUF_INIT(MESSAGE_FAULTS_MAX);
    Reader reader;
    int r;

    assert(text && name && ret);

    calendar = calloc(1, sizeof(*calendar));
    if (!calendar)
        return error_oom(err);
    calendar->name = strdup(name);
    if (!calendar->name)
        return error_oom(err);

    reader = (Reader){.calendar = calendar, .faults = faults};
    r = read_text(&reader, text, size);
    faults = reader.faults;
    if (r < 0)
        return error_oom(err);
    if (faults.size > 0)
        return error_set(err, -EINVAL, ERROR_INVALID, "calendar %s: %s", name, buf_str(&faults));
    if (calendar->n_days > 0)
        qsort(calendar->days, calendar->n_days, sizeof(*calendar->days), compare_days);
    *ret = take_ptr(calendar);
    return 0;
}

int calendar_load(const char *const *dirs, const char *name, Calendar **ret, Error *err)
{
    int r;

    if (str_is_empty(name) || strchr(name, '/') || name[0] == '.')
        return error_set(err, -EINVAL, ERROR_INVALID, "\"%.64s\" is not the name of a calendar",
                         name);
    for (size_t i = 0; dirs[i]; i++) {
        auto_buf Buf buf = BUF_INIT(CALENDAR_FILE_MAX);
        auto_error Error error = {0};
        auto_free char *path = str_printf("%s/%s.calendar", dirs[i], name);

        if (!path)
            return error_oom(err);
        r = file_read(path, CALENDAR_FILE_MAX, &buf, &error);
        if (r == -ENOENT)
            continue;
        if (r < 0)
            return error_move(err, &error);
        return calendar_parse(buf_str(&buf), buf.size, name, ret, err);
    }
    return error_set(err, -ENOENT, ERROR_INVALID, "there is no calendar \"%s\"", name);
}

/* --- Asking -------------------------------------------------------------------------------------
 */

const char *calendar_name(const Calendar *calendar)
{
    return calendar->name;
}

const Zone *calendar_zone(const Calendar *calendar)
{
    return calendar->zone;
}

bool calendar_knows(const Calendar *calendar, int32_t date)
{
    return calendar->has_known && date >= calendar->known_from && date <= calendar->known_until;
}

static const SpecialDay *find_day(const Calendar *calendar, int32_t date)
{
    SpecialDay key = {.date = date};

    if (calendar->n_days == 0)
        return NULL;
    return bsearch(&key, calendar->days, calendar->n_days, sizeof(key), compare_days);
}

bool calendar_is_trading_day(const Calendar *calendar, int32_t date)
{
    const SpecialDay *day = find_day(calendar, date);

    if (day && (day->closed || day->n_hours > 0))
        return !day->closed;
    return calendar->weekdays[((date + 3) % 7 + 7) % 7]; /* day 0 was a Thursday */
}

/* The hours of one session that day: the special ones when there are any of that session. */
static const Hours *hours_of(const SpecialDay *day, const Hours *usual)
{
    for (size_t i = 0; day && i < day->n_hours; i++)
        if (day->hours[i].session == usual->session)
            return &day->hours[i];
    return usual;
}

static int64_t local_usec(const Calendar *calendar, int32_t date, int32_t second)
{
    return zone_to_utc(calendar->zone, (int64_t)date * DAY_SEC + second) * (int64_t)SECOND;
}

Session calendar_session(const Calendar *calendar, int64_t ts_usec)
{
    int32_t today = zone_date(calendar->zone, ts_usec);

    /* Yesterday's sessions may pass midnight. */
    for (int32_t date = today - 1; date <= today; date++) {
        const SpecialDay *day = find_day(calendar, date);

        if (!calendar_is_trading_day(calendar, date))
            continue;
        for (size_t i = 0; i < calendar->n_hours; i++) {
            const Hours *hours = hours_of(day, &calendar->hours[i]);

            if (ts_usec >= local_usec(calendar, date, hours->from_sec) &&
                ts_usec < local_usec(calendar, date, hours->to_sec))
                return hours->session;
        }
    }
    return SESSION_NONE;
}

int calendar_regular(const Calendar *calendar, int32_t date, int64_t *ret_open_usec,
                     int64_t *ret_close_usec)
{
    if (!calendar_is_trading_day(calendar, date))
        return 0;
    for (size_t i = 0; i < calendar->n_hours; i++) {
        const Hours *hours;

        if (calendar->hours[i].session != SESSION_REGULAR)
            continue;
        hours = hours_of(find_day(calendar, date), &calendar->hours[i]);
        *ret_open_usec = local_usec(calendar, date, hours->from_sec);
        *ret_close_usec = local_usec(calendar, date, hours->to_sec);
        return 1;
    }
    return 0;
}

int64_t calendar_next_open(const Calendar *calendar, int64_t ts_usec)
{
    int32_t today = zone_date(calendar->zone, ts_usec);

    if (calendar_session(calendar, ts_usec) != SESSION_NONE)
        return ts_usec;
    for (int32_t date = today; date <= today + SEARCH_DAYS; date++) {
        int64_t next = INT64_MAX;

        if (!calendar_is_trading_day(calendar, date))
            continue;
        for (size_t i = 0; i < calendar->n_hours; i++) {
            const Hours *hours = hours_of(find_day(calendar, date), &calendar->hours[i]);
            int64_t open = local_usec(calendar, date, hours->from_sec);

            if (open >= ts_usec)
                next = MIN_OF(next, open);
        }
        if (next != INT64_MAX)
            return next;
    }
    return INT64_MAX;
}
