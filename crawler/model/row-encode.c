/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/base/time.h"
#include "crawler/model/bar.h"

/* clang-format off */
const RowColumn row_columns[] = {
    {"source",      ROW_COLUMN_STRING,     true},
    {"symbol",      ROW_COLUMN_STRING,     true},
    {"venue",       ROW_COLUMN_STRING,     false},
    {"currency",    ROW_COLUMN_STRING,     false},
    {"interval",    ROW_COLUMN_STRING,     true},
    {"kind",        ROW_COLUMN_STRING,     true},
    {"ts",          ROW_COLUMN_TIMESTAMP,  true},
    {"trade_date",  ROW_COLUMN_DATE,       true},
    {"tz",          ROW_COLUMN_STRING,     false},
    {"session",     ROW_COLUMN_STRING,     false},
    {"open",        ROW_COLUMN_NUMERIC,    false},
    {"high",        ROW_COLUMN_NUMERIC,    false},
    {"low",         ROW_COLUMN_NUMERIC,    false},
    {"close",       ROW_COLUMN_NUMERIC,    false},
    {"volume",      ROW_COLUMN_BIGNUMERIC, false},
    {"adj_close",   ROW_COLUMN_NUMERIC,    false},
    {"amount",      ROW_COLUMN_NUMERIC,    false},
    {"ratio_num",   ROW_COLUMN_NUMERIC,    false},
    {"ratio_den",   ROW_COLUMN_NUMERIC,    false},
    {"is_final",    ROW_COLUMN_BOOL,       true},
    {"revision",    ROW_COLUMN_INT64,      true},
    {"ingested_at", ROW_COLUMN_TIMESTAMP,  false},
    {"batch_id",    ROW_COLUMN_STRING,     false},
    {NULL, 0, false},
};
/* clang-format on */

_Static_assert(ELEMENTS(row_columns) == ROW_COLUMNS + 1, "ROW_COLUMNS counts the table");

/* A row without its strings: names, punctuation and 23 values at their longest. */
#define ROW_FIXED_MAX 1200

/* Straight into reserved memory: this runs once for each of millions of rows. */
typedef struct Out {
    char *p;
} Out;

static void out_raw(Out *o, const char *s, size_t n)
{
    memcpy(o->p, s, n);
    o->p += n;
}

#define out_lit(o, literal) out_raw((o), (literal), sizeof(literal) - 1)

static void out_digits(Out *o, uint32_t value, unsigned width)
{
    for (unsigned i = width; i-- > 0; value /= 10)
        o->p[i] = (char)('0' + value % 10);
    o->p += width;
}

/* What JSON cannot have in a string as it is. */
static bool needs_escape(unsigned char c)
{
    return c < 0x20 || c == '"' || c == '\\' || c == 0x7f;
}

static void out_escaped(Out *o, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";

    if (c == '"' || c == '\\') {
        *o->p++ = '\\';
        *o->p++ = (char)c;
        return;
    }
    out_lit(o, "\\u00");
    *o->p++ = hex[c >> 4];
    *o->p++ = hex[c & 15];
}

/* Worst case six bytes a character; the caller reserved that. */
static void out_string(Out *o, const char *s)
{
    char *p;

    if (!s) {
        out_lit(o, "null");
        return;
    }
    p = o->p;
    *p++ = '"';
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if (__builtin_expect(needs_escape(c), 0)) {
            o->p = p;
            out_escaped(o, c);
            p = o->p;
        } else
            *p++ = (char)c;
    }
    *p++ = '"';
    o->p = p;
}

static void out_amount(Out *o, const Amount *amount)
{
    char *quote = o->p;

    if (!amount->present) {
        out_lit(o, "null");
        return;
    }
    *quote = '"';
    o->p += 1 + amount_format(amount, quote + 1);
    *o->p++ = '"';
}

static void out_date(Out *o, int32_t days)
{
    int year;
    unsigned month, day;

    civil_from_days(days, &year, &month, &day);
    if (year < 0 || year > 9999)
        year = year < 0 ? 0 : 9999; /* extraction refuses such days; keep the width */
    out_digits(o, (uint32_t)year, 4);
    *o->p++ = '-';
    out_digits(o, month, 2);
    *o->p++ = '-';
    out_digits(o, day, 2);
}

/* RFC 3339 in UTC; microseconds only when there are any. */
static void out_time(Out *o, int64_t usec)
{
    int64_t day_usec = (int64_t)DAY, days = usec / day_usec, rest = usec % day_usec;
    uint32_t sec, micro;

    if (rest < 0) {
        rest += day_usec;
        days--;
    }
    sec = (uint32_t)(rest / (int64_t)SECOND);
    micro = (uint32_t)(rest % (int64_t)SECOND);
    *o->p++ = '"';
    out_date(o, (int32_t)days);
    *o->p++ = 'T';
    out_digits(o, sec / 3600, 2);
    *o->p++ = ':';
    out_digits(o, sec / 60 % 60, 2);
    *o->p++ = ':';
    out_digits(o, sec % 60, 2);
    if (micro != 0) {
        *o->p++ = '.';
        out_digits(o, micro, 6);
        while (o->p[-1] == '0')
            o->p--;
    }
    out_lit(o, "Z\"");
}

static void out_u32(Out *o, uint32_t value)
{
    char digits[10];
    size_t n = 0;

    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    while (n > 0)
        *o->p++ = digits[--n];
}

static size_t string_room(const char *s)
{
    return s ? strlen(s) * 6 : 0;
}

static int encode_head(const Row *row, Buf *buf)
{
    size_t room = ROW_FIXED_MAX + string_room(row->source) + string_room(row->symbol) +
                  string_room(row->venue) + string_room(row->currency) +
                  string_room(row->interval) + string_room(row->tz);
    Out o;
    int r;

    r = buf_reserve(buf, room);
    if (r < 0)
        return r;
    o.p = buf->data + buf->size;

    out_lit(&o, "{\"source\":");
    out_string(&o, row->source);
    out_lit(&o, ",\"symbol\":");
    out_string(&o, row->symbol);
    out_lit(&o, ",\"venue\":");
    out_string(&o, row->venue);
    out_lit(&o, ",\"currency\":");
    out_string(&o, row->currency);
    out_lit(&o, ",\"interval\":");
    out_string(&o, row->interval);
    out_lit(&o, ",\"kind\":");
    out_string(&o, row_kind_name(row->kind));
    out_lit(&o, ",\"ts\":");
    out_time(&o, row->ts_usec);
    out_lit(&o, ",\"trade_date\":\"");
    out_date(&o, row->trade_date);
    out_lit(&o, "\",\"tz\":");
    out_string(&o, row->tz);
    out_lit(&o, ",\"session\":");
    out_string(&o, session_name(row->session));
    out_lit(&o, ",\"open\":");
    out_amount(&o, &row->open);
    out_lit(&o, ",\"high\":");
    out_amount(&o, &row->high);
    out_lit(&o, ",\"low\":");
    out_amount(&o, &row->low);
    out_lit(&o, ",\"close\":");
    out_amount(&o, &row->close);
    out_lit(&o, ",\"volume\":");
    out_amount(&o, &row->volume);
    out_lit(&o, ",\"adj_close\":");
    out_amount(&o, &row->adj_close);
    out_lit(&o, ",\"amount\":");
    out_amount(&o, &row->amount);
    out_lit(&o, ",\"ratio_num\":");
    out_amount(&o, &row->ratio_num);
    out_lit(&o, ",\"ratio_den\":");
    out_amount(&o, &row->ratio_den);
    if (row->is_final)
        out_lit(&o, ",\"is_final\":true,\"revision\":");
    else
        out_lit(&o, ",\"is_final\":false,\"revision\":");
    out_u32(&o, row->revision);

    buf->size = (size_t)(o.p - buf->data);
    buf->data[buf->size] = '\0';
    return 0;
}

static int encode_tail(int64_t ingested_usec, const char *batch_id, Buf *buf)
{
    Out o;
    int r;

    r = buf_reserve(buf, 128 + string_room(batch_id));
    if (r < 0)
        return r;
    o.p = buf->data + buf->size;

    out_lit(&o, ",\"ingested_at\":");
    if (ingested_usec != 0)
        out_time(&o, ingested_usec);
    else
        out_lit(&o, "null");
    out_lit(&o, ",\"batch_id\":");
    out_string(&o, batch_id);
    out_lit(&o, "}\n");

    buf->size = (size_t)(o.p - buf->data);
    buf->data[buf->size] = '\0';
    return 0;
}

int row_encode_ndjson(const Row *row, Buf *buf)
{
    size_t size = buf->size;
    int r;

    r = encode_head(row, buf);
    if (r < 0)
        return r;
    r = encode_tail(row->ingested_usec, row->batch_id, buf);
    if (r < 0) {
        buf->size = size; /* no half rows */
        buf->data[size] = '\0';
    }
    return r;
}

size_t row_date_format(int32_t days, char buf[static ROW_DATE_MAX])
{
    Out o = {.p = buf};

    out_date(&o, days);
    *o.p = '\0';
    return (size_t)(o.p - buf);
}

int row_date_parse(const char *text, size_t size, int32_t *ret_days)
{
    unsigned parts[3] = {0}, month, day;
    int64_t days;
    int year;

    if (size != 10 || text[4] != '-' || text[7] != '-')
        return -EINVAL;
    for (size_t i = 0; i < size; i++) {
        if (i == 4 || i == 7)
            continue;
        if (text[i] < '0' || text[i] > '9')
            return -EINVAL;
        parts[i < 4 ? 0 : i < 7 ? 1 : 2] *= 10;
        parts[i < 4 ? 0 : i < 7 ? 1 : 2] += (unsigned)(text[i] - '0');
    }
    if (parts[1] < 1 || parts[1] > 12 || parts[2] < 1 || parts[2] > 31)
        return -EINVAL;
    days = days_from_civil((int)parts[0], parts[1], parts[2]);
    civil_from_days(days, &year, &month, &day); /* February 30 comes back as March */
    if (month != parts[1] || day != parts[2])
        return -EINVAL;
    *ret_days = (int32_t)days;
    return 0;
}
