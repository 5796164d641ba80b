/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/spool/block.h"

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"

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

#define OFFSET(member) offsetof(Row, member),
static const size_t amounts[] = {BLOCK_AMOUNTS(OFFSET)};
static const size_t strings[] = {BLOCK_STRINGS(OFFSET)};
#undef OFFSET

#define N_AMOUNTS ELEMENTS(amounts)

static const Amount *row_amount(const Row *row, size_t i)
{
    return (const Amount *)(const void *)((const char *)row + amounts[i]);
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
        Amount *amount = (Amount *)(void *)((char *)&reader->row + amounts[i]);

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

int block_step(BlockReader *reader)
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
    int r = block_step(reader);

    if (r > 0)
        *ret = reader->row;
    return r;
}
