/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/spool/block.h"

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"

/* Layout: version, six strings (length + 1, bytes; 0 is NULL), ingested, unit of instants, rows;
 * a row: flags, presence, [revision], instant as difference, [date as difference], amounts.
 * Signed numbers are zigzag. */
#define BLOCK_VERSION 1

enum {
    FLAG_KIND = 3,          /* RowKind */
    FLAG_SESSION_SHIFT = 2, /* Session: three bits */
    FLAG_SESSION = 7 << 2,
    FLAG_FINAL = 1 << 5,
    FLAG_REVISED = 1 << 6,
    FLAG_NEW_DATE = 1 << 7,
};

#define N_AMOUNTS 9

static const struct {
    const char *name; /* as JSON lines have it */
    size_t offset;
    size_t name_size;
} amounts[N_AMOUNTS] = {
#define AMOUNT(n)                                                                                  \
    {                                                                                              \
        ",\"" #n "\":\"", offsetof(Row, n), sizeof(",\"" #n "\":\"") - 1                           \
    }
    AMOUNT(open),      AMOUNT(high),   AMOUNT(low),       AMOUNT(close),     AMOUNT(volume),
    AMOUNT(adj_close), AMOUNT(amount), AMOUNT(ratio_num), AMOUNT(ratio_den),
#undef AMOUNT
};

static const size_t strings[] = {
    offsetof(Row, source),   offsetof(Row, symbol),   offsetof(Row, venue),
    offsetof(Row, currency), offsetof(Row, interval), offsetof(Row, tz),
};

static const Amount *row_amount(const Row *row, size_t i)
{
    return (const Amount *)(const void *)((const char *)row + amounts[i].offset);
}

static const char **row_string(Row *row, size_t i)
{
    return (const char **)(void *)((char *)row + strings[i]);
}

static const char *row_string_peek(const Row *row, size_t i)
{
    return *(const char *const *)(const void *)((const char *)row + strings[i]);
}

/* --- Writing -------------------------------------------------------------------------------- */

typedef unsigned __int128 Wide;

/* Into `at`, which has room for 19 bytes; the end. */
static uint8_t *put_wide(uint8_t *at, Wide value)
{
    uint64_t small;

    for (; value >> 64; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    for (small = (uint64_t)value; small >= 0x80; small >>= 7)
        *at++ = (uint8_t)(small | 0x80);
    *at++ = (uint8_t)small;
    return at;
}

static uint8_t *put_signed(uint8_t *at, __int128 value)
{
    return put_wide(at, ((Wide)value << 1) ^ (Wide)(value >> 127));
}

bool block_rows_agree(const Row *a, const Row *b)
{
    for (size_t i = 0; i < ELEMENTS(strings); i++) {
        const char *x = row_string_peek(a, i), *y = row_string_peek(b, i);

        /* Rows of a document share their strings, so the pointers nearly always settle it. */
        if (x != y && !streq_ptr(x, y))
            return false;
    }
    return a->ingested_usec == b->ingested_usec;
}

static int64_t common_unit(const Row *rows, const uint32_t *indices, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (rows[indices[i]].ts_usec % (int64_t)SECOND != 0)
            return 1;
    return (int64_t)SECOND;
}

static int put_header(const Row *row, int64_t unit, size_t n, Buf *ret)
{
    uint8_t head[64], *at = head;
    int r;

    *at++ = BLOCK_VERSION;
    r = buf_add(ret, head, 1);
    for (size_t i = 0; i < ELEMENTS(strings) && r >= 0; i++) {
        const char *s = row_string_peek(row, i);
        size_t size = s ? strlen(s) : 0;

        at = put_wide(head, s ? size + 1 : 0);
        r = buf_add(ret, head, (size_t)(at - head));
        if (r >= 0 && size > 0)
            r = buf_add(ret, s, size);
    }
    if (r < 0)
        return r;
    at = put_signed(head, row->ingested_usec);
    at = put_wide(at, (Wide)unit);
    at = put_wide(at, n);
    return buf_add(ret, head, (size_t)(at - head));
}

#define ROW_BYTES_MAX (32 + N_AMOUNTS * 24)

static uint8_t *put_row(uint8_t *at, const Row *row, int64_t ts_delta, int32_t date_delta)
{
    uint8_t *flags = at++;
    uint16_t present = 0;
    uint8_t *presence = at;

    at += 2;
    *flags = (uint8_t)(((unsigned)row->kind & FLAG_KIND) |
                       (((unsigned)row->session << FLAG_SESSION_SHIFT) & FLAG_SESSION) |
                       (row->is_final ? FLAG_FINAL : 0) | (row->revision ? FLAG_REVISED : 0) |
                       (date_delta ? FLAG_NEW_DATE : 0));
    if (row->revision)
        at = put_wide(at, row->revision);
    at = put_signed(at, ts_delta);
    if (date_delta)
        at = put_signed(at, date_delta);
    for (size_t i = 0; i < N_AMOUNTS; i++) {
        const Amount *amount = row_amount(row, i);

        if (!amount->present)
            continue;
        present = (uint16_t)(present | 1U << i);
        *at++ = amount->scale;
        at = put_signed(at, amount->mantissa);
    }
    presence[0] = (uint8_t)present;
    presence[1] = (uint8_t)(present >> 8);
    return at;
}

int block_encode(const Row *rows, const uint32_t *indices, size_t n, Buf *ret)
{
    int64_t unit, ts = 0;
    int32_t date = 0;
    int r;

    if (n == 0 || n > BLOCK_ROWS_MAX)
        return -EINVAL;
    unit = common_unit(rows, indices, n);
    r = put_header(&rows[indices[0]], unit, n, ret);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        const Row *row = &rows[indices[i]];
        uint8_t *at, *end;

        r = buf_reserve(ret, ROW_BYTES_MAX);
        if (r < 0)
            return r;
        at = (uint8_t *)ret->data + ret->size;
        end = put_row(at, row, (row->ts_usec - ts) / unit, row->trade_date - date);
        ret->size += (size_t)(end - at);
        ts = row->ts_usec;
        date = row->trade_date;
    }
    ret->data[ret->size] = '\0';
    return 0;
}

/* --- Reading -------------------------------------------------------------------------------- */

/* Nearly all numbers end within nine bytes, where 64 bits suffice. False: it is longer, or cut. */
static inline bool get_small(BlockReader *reader, uint64_t *ret)
{
    const uint8_t *p = reader->data + reader->at, *end = reader->data + reader->size;
    uint64_t value = 0;

    for (unsigned shift = 0; p < end && shift < 63; shift += 7) {
        uint8_t byte = *p++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            reader->at = (size_t)(p - reader->data);
            *ret = value;
            return true;
        }
    }
    return false;
}

static int get_wide(BlockReader *reader, Wide *ret)
{
    uint64_t small;
    Wide value = 0;

    if (get_small(reader, &small)) {
        *ret = small;
        return 0;
    }
    for (unsigned shift = 0; reader->at < reader->size && shift < 128; shift += 7) {
        uint8_t byte = reader->data[reader->at++];

        value |= (Wide)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return 0;
        }
    }
    return -EBADMSG;
}

static inline int get_signed(BlockReader *reader, __int128 *ret)
{
    uint64_t small;
    Wide value;
    int r;

    if (get_small(reader, &small)) {
        *ret = (int64_t)(small >> 1) ^ -(int64_t)(small & 1);
        return 0;
    }
    r = get_wide(reader, &value);
    if (r >= 0)
        *ret = (__int128)(value >> 1) ^ -(__int128)(value & 1);
    return r;
}

static int get_i64(BlockReader *reader, int64_t *ret)
{
    __int128 value;
    int r = get_signed(reader, &value);

    if (r < 0)
        return r;
    if (value < INT64_MIN || value > INT64_MAX)
        return -EBADMSG;
    *ret = (int64_t)value;
    return 0;
}

static int get_strings(BlockReader *reader)
{
    /* All strings are shorter than the block, so their copies with NULs fit beside it. */
    /* cppcheck-suppress sizeofDivisionMemfunc */
    char *to = reader->strings = malloc(reader->size + ELEMENTS(strings));
    Wide size;
    int r;

    if (!to)
        return -ENOMEM;
    for (size_t i = 0; i < ELEMENTS(strings); i++) {
        r = get_wide(reader, &size);
        if (r < 0)
            return r;
        if (size == 0)
            continue;
        size--;
        if (size > reader->size - reader->at)
            return -EBADMSG;
        memcpy(to, reader->data + reader->at, (size_t)size);
        reader->at += (size_t)size;
        *row_string(&reader->row, i) = to;
        to += size;
        *to++ = '\0';
    }
    return 0;
}

int block_open(BlockReader *reader, const void *data, size_t size)
{
    Wide unit = 0, n = 0;
    int r;

    *reader = (BlockReader){.data = data, .size = size, .at = 1};
    if (size == 0 || reader->data[0] != BLOCK_VERSION)
        return -EBADMSG;
    r = get_strings(reader);
    if (r >= 0)
        r = get_i64(reader, &reader->row.ingested_usec);
    if (r >= 0)
        r = get_wide(reader, &unit);
    if (r >= 0)
        r = get_wide(reader, &n);
    if (r >= 0 && ((unit != 1 && unit != SECOND) || n == 0 || n > BLOCK_ROWS_MAX ||
                   !reader->row.source || !reader->row.symbol || !reader->row.interval))
        r = -EBADMSG;
    if (r < 0) {
        block_close(reader);
        return r;
    }
    reader->unit_usec = (int64_t)unit;
    reader->n_rows = (uint32_t)n;
    return 0;
}

void block_close(BlockReader *reader)
{
    free(reader->strings);
    *reader = (BlockReader){0};
}

static int get_amounts(BlockReader *reader, uint16_t present)
{
    int r;

    if (present >> N_AMOUNTS)
        return -EBADMSG;
    for (size_t i = 0; i < N_AMOUNTS; i++) {
        Amount *amount = (Amount *)(void *)((char *)&reader->row + amounts[i].offset);

        if (!(present & 1U << i)) {
            *amount = AMOUNT_ABSENT;
            continue;
        }
        if (reader->at >= reader->size || reader->data[reader->at] > AMOUNT_SCALE_MAX)
            return -EBADMSG;
        amount->scale = reader->data[reader->at++];
        amount->present = true;
        r = get_signed(reader, &amount->mantissa);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The next row into reader->row; 1, 0 at the end. */
static int next_row(BlockReader *reader)
{
    Row *row = &reader->row;
    int64_t delta = 0, date = 0;
    Wide revision = 0;
    uint16_t present;
    uint8_t flags;
    int r = 0;

    if (reader->next == reader->n_rows)
        return reader->at == reader->size ? 0 : -EBADMSG;
    if (reader->size - reader->at < 4)
        return -EBADMSG;
    flags = reader->data[reader->at];
    present = (uint16_t)(reader->data[reader->at + 1] | reader->data[reader->at + 2] << 8);
    reader->at += 3;

    if (flags & FLAG_REVISED)
        r = get_wide(reader, &revision);
    if (r >= 0)
        r = get_i64(reader, &delta);
    if (r >= 0 && (flags & FLAG_NEW_DATE))
        r = get_i64(reader, &date);
    if (r < 0)
        return r;
    if (__builtin_mul_overflow(delta, reader->unit_usec, &delta) ||
        __builtin_add_overflow(row->ts_usec, delta, &row->ts_usec) ||
        __builtin_add_overflow(row->trade_date, date, &row->trade_date) || revision > UINT32_MAX)
        return -EBADMSG;

    row->kind = (RowKind)(flags & FLAG_KIND);
    row->session = (Session)((flags & FLAG_SESSION) >> FLAG_SESSION_SHIFT);
    if (row->session >= SESSION_MAX)
        return -EBADMSG;
    row->is_final = flags & FLAG_FINAL;
    row->revision = (uint32_t)revision;
    r = get_amounts(reader, present);
    if (r < 0)
        return r;

    reader->next++;
    return 1;
}

int block_next(BlockReader *reader, Row *ret)
{
    int r = next_row(reader);

    if (r > 0)
        *ret = reader->row;
    return r;
}

/* --- JSON lines ----------------------------------------------------------------------------- */

static int add_parts(Buf *buf, const char *const *parts, size_t n)
{
    int r = 0;

    for (size_t i = 0; i < n && r >= 0; i++)
        r = buf_add_str(buf, parts[i]);
    return r;
}

/* Whether it is JSON once it stands between quotes: symbols, intervals and zones nearly always. */
static bool is_plain(const char *text)
{
    for (; *text; text++)
        if (*text < 0x20 || *text > 0x7e || *text == '"' || *text == '\\')
            return false;
    return true;
}

/* `,"name":"value"`. */
static int add_json_string(Buf *buf, const char *name, const char *value)
{
    const char *const before[] = {buf->size > 1 ? "," : "", "\"", name, "\":"};
    const char *const between_quotes[] = {"\"", value, "\""};
    json_auto_t *text = NULL;
    auto_free char *quoted = NULL;
    int r;

    if (!value)
        return 0;
    r = add_parts(buf, before, ELEMENTS(before));
    if (r < 0)
        return r;
    if (is_plain(value))
        return add_parts(buf, between_quotes, ELEMENTS(between_quotes));
    text = json_string(value);
    if (!text)
        return -EBADMSG; /* not UTF-8 */
    quoted = json_dumps(text, JSON_ENCODE_ANY);
    return quoted ? buf_add_str(buf, quoted) : -ENOMEM;
}

/* `{"source":…,"tz":…` and `,"ingested_at":…,"batch_id":…}\n`: the same for every row. */
static int make_frame(const Row *like, const char *batch_id, Buf *prefix, Buf *suffix)
{
    static const char *const names[] = {"source", "symbol", "venue", "currency", "interval", "tz"};
    char at[TIME_RFC3339_MAX];
    int r = buf_add_char(prefix, '{');

    for (size_t i = 0; i < ELEMENTS(strings) && r >= 0; i++)
        r = add_json_string(prefix, names[i], row_string_peek(like, i));
    if (r >= 0 && like->ingested_usec != 0) {
        const char *const parts[] = {",\"ingested_at\":\"",
                                     time_format_rfc3339(at, like->ingested_usec), "\""};

        r = add_parts(suffix, parts, ELEMENTS(parts));
    }
    if (r >= 0)
        r = buf_add_str(suffix, ",\"batch_id\":\"");
    if (r >= 0)
        r = buf_add(suffix, batch_id, BLOCK_BATCH_ID_SIZE);
    return r < 0 ? r : buf_add_str(suffix, "\"}\n");
}

static char *put_text(char *at, const char *text, size_t size)
{
    memcpy(at, text, size);
    return at + size;
}

#define PUT(at, literal) put_text((at), "" literal, sizeof(literal) - 1)

static char *put_two(char *at, unsigned value)
{
    *at++ = (char)('0' + value / 10 % 10);
    *at++ = (char)('0' + value % 10);
    return at;
}

#define DATE_SIZE (sizeof("2026-10-07") - 1)

/* The text of the last date: rows of a day come together. */
typedef struct DateText {
    int32_t days;
    bool known;
    char text[ROW_DATE_MAX];
} DateText;

static char *put_date(char *at, int32_t days, DateText *last)
{
    if (!last->known || last->days != days) {
        (void)row_date_format(days, last->text);
        last->days = days;
        last->known = true;
    }
    return put_text(at, last->text, DATE_SIZE);
}

/* An instant of whole seconds in the years 0 to 9999; others go the slow way. */
static char *put_instant(char *at, int64_t ts_usec, DateText *last)
{
    int64_t seconds = ts_usec / (int64_t)SECOND, days = seconds / 86400;
    char text[TIME_RFC3339_MAX];
    unsigned of_day;

    if (ts_usec < 0 || ts_usec % (int64_t)SECOND != 0 || seconds >= INT64_C(253402300800)) {
        (void)time_format_rfc3339(text, ts_usec);
        return put_text(at, text, strlen(text));
    }
    of_day = (unsigned)(seconds % 86400);
    at = put_date(at, (int32_t)days, last);
    *at++ = 'T';
    at = put_two(at, of_day / 3600);
    *at++ = ':';
    at = put_two(at, of_day / 60 % 60);
    *at++ = ':';
    at = put_two(at, of_day % 60);
    *at++ = 'Z';
    return at;
}

/* The longest middle of a line: names, instants and amounts. */
#define MIDDLE_MAX (256 + N_AMOUNTS * (AMOUNT_TEXT_MAX + 20))

static char *put_middle(char *at, const Row *row, DateText *last)
{
    const char *kind = row_kind_name(row->kind), *session = session_name(row->session);
    char number[32];
    int n;

    at = PUT(at, ",\"kind\":\"");
    at = put_text(at, kind, strlen(kind));
    at = PUT(at, "\",\"ts\":\"");
    at = put_instant(at, row->ts_usec, last);
    at = PUT(at, "\",\"trade_date\":\"");
    at = put_date(at, row->trade_date, last);
    *at++ = '"';
    if (session) {
        at = PUT(at, ",\"session\":\"");
        at = put_text(at, session, strlen(session));
        *at++ = '"';
    }
    for (size_t i = 0; i < N_AMOUNTS; i++) {
        const Amount *amount = row_amount(row, i);

        if (!amount->present)
            continue;
        at = put_text(at, amounts[i].name, amounts[i].name_size);
        at += amount_format(amount, at);
        *at++ = '"';
    }
    at = row->is_final ? PUT(at, ",\"is_final\":true,\"revision\":")
                       : PUT(at, ",\"is_final\":false,\"revision\":");
    if (row->revision < 10) {
        *at++ = (char)('0' + row->revision);
        return at;
    }
    n = snprintf(number, sizeof(number), "%u", row->revision);
    return put_text(at, number, (size_t)n);
}

static int add_line(const Row *row, const Buf *prefix, const Buf *suffix, DateText *last, Buf *ret)
{
    int r = buf_reserve(ret, prefix->size + MIDDLE_MAX + suffix->size);
    char *at;

    if (r < 0)
        return r;
    at = put_text(ret->data + ret->size, prefix->data, prefix->size);
    at = put_middle(at, row, last);
    at = put_text(at, suffix->data, suffix->size);
    ret->size = (size_t)(at - ret->data);
    *at = '\0';
    return 0;
}

int block_expand(const void *data, size_t size, const char *batch_id, Buf *ret)
{
    auto_block BlockReader reader = {0};
    auto_buf Buf prefix = BUF_INIT(64U << 10), suffix = BUF_INIT(1024);
    DateText last = {0};
    int r;

    r = block_open(&reader, data, size);
    if (r >= 0)
        r = make_frame(&reader.row, batch_id, &prefix, &suffix);
    while (r >= 0 && (r = next_row(&reader)) > 0)
        r = add_line(&reader.row, &prefix, &suffix, &last, ret);
    return r;
}

static size_t digits_of(uint32_t value)
{
    size_t n = 1;

    for (; value >= 10; value /= 10)
        n++;
    return n;
}

static size_t middle_size(const Row *row)
{
    const char *session = session_name(row->session);
    char instant[TIME_RFC3339_MAX];
    size_t n;

    n = sizeof(",\"kind\":\"\",\"ts\":\"\",\"trade_date\":\"\"") - 1 +
        strlen(row_kind_name(row->kind)) + DATE_SIZE;
    if (row->ts_usec >= 0 && row->ts_usec % (int64_t)SECOND == 0 &&
        row->ts_usec / (int64_t)SECOND < INT64_C(253402300800))
        n += sizeof("2026-10-07T06:30:00Z") - 1;
    else
        n += strlen(time_format_rfc3339(instant, row->ts_usec));
    if (session)
        n += sizeof(",\"session\":\"\"") - 1 + strlen(session);
    for (size_t i = 0; i < N_AMOUNTS; i++)
        if (row_amount(row, i)->present)
            n += amounts[i].name_size + amount_text_size(row_amount(row, i)) + 1;
    return n + sizeof(",\"is_final\":,\"revision\":") - 1 + (row->is_final ? 4 : 5) +
           digits_of(row->revision);
}

int block_lines_size(const Row *rows, const uint32_t *indices, size_t n, uint64_t *ret)
{
    static const char any[BLOCK_BATCH_ID_SIZE + 1] = "----------------------";
    auto_buf Buf prefix = BUF_INIT(64U << 10), suffix = BUF_INIT(1024);
    uint64_t size = 0;
    int r = make_frame(&rows[indices[0]], any, &prefix, &suffix);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        size += prefix.size + middle_size(&rows[indices[i]]) + suffix.size;
    *ret = size;
    return 0;
}
