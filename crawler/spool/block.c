/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/spool/block.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"

/* Layout: version, six strings (length + 1, bytes; 0 is NULL), ingested, unit of instants, rows; a
 * row: how it follows the one before, [flags, presence, [revision], [date as difference]], [instant
 * as difference], amounts. Signed numbers are zigzag. The last eight bytes are the sum of the
 * others.
 *
 * Amounts of one kind have one scale, which only grows, so that they are told apart as whole
 * numbers: an open from the close before it, the others of a bar from its open. An amount that does
 * not go into that (a new scale, too many digits) stands for itself. */
#define BLOCK_VERSION 2
#define SUM_BYTES     sizeof(uint64_t)

enum {
    FOLLOWS_ALIKE = 1,   /* flags and presence are those of the row before */
    FOLLOWS_IN_STEP = 2, /* as far from it as that one was from its own */
    FOLLOWS_ALL = 3,
};

/* The lowest bit of an amount's first number: the rest is its scale, and the mantissa follows. */
enum { AMOUNT_ITSELF = 1 };
#define SHARED_SCALE_MAX 18 /* what goes into 64 bits */

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
_Static_assert(N_AMOUNTS == BLOCK_COLUMNS, "the past has a place for each");

enum { OPEN = 0, CLOSE = 3, VOLUME = 4, ADJ_CLOSE = 5, AMOUNT = 6, NUM = 7, DEN = 8 };
/* Whose scale a column has, and what it is told from. */
static const uint8_t kind_of[] = {OPEN, OPEN, OPEN, OPEN, VOLUME, OPEN, AMOUNT, NUM, DEN};
static const uint8_t told_from[] = {CLOSE, OPEN, OPEN, OPEN, VOLUME, ADJ_CLOSE, AMOUNT, NUM, DEN};

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

/* One to one in each of its operands: two blocks that differ in one word never agree. */
static inline uint64_t sum_word(uint64_t sum, uint64_t word)
{
    sum = (sum ^ le64toh(word)) * UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ sum >> 32;
}

uint64_t block_sum(const void *data, size_t size)
{
    const char *at = data;
    uint64_t sum = size, word;

    for (; size >= sizeof(word); size -= sizeof(word), at += sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        sum = sum_word(sum, word);
    }
    word = 0;
    memcpy(&word, at, size);
    return sum_word(sum, word);
}

/* --- The past ------------------------------------------------------------------------------- */

/* `*value` * 10^n; false when that leaves 64 bits. */
static bool scale_up(int64_t *value, unsigned n)
{
    for (; n > 0; n--)
        if (__builtin_mul_overflow(*value, INT64_C(10), value))
            return false;
    return true;
}

/* The amount as a whole number at its kind's scale, if that is exactly what it comes back from. */
static inline bool past_value(const BlockPast *past, size_t column, const Amount *amount,
                              int64_t *ret)
{
    unsigned scale = past->scales[kind_of[column]];
    int64_t value = (int64_t)amount->mantissa;

    if (amount->mantissa != value || amount->scale > scale ||
        (amount->scale > 0 && value % 10 == 0) || !scale_up(&value, scale - amount->scale))
        return false;
    *ret = value;
    return true;
}

/* An amount that stood for itself: its kind has its scale from here on. */
static void past_learn(BlockPast *past, size_t column, const Amount *amount)
{
    uint8_t kind = kind_of[column];
    int64_t value;

    if (amount->scale > past->scales[kind] && amount->scale <= SHARED_SCALE_MAX) {
        for (size_t i = 0; i < N_AMOUNTS; i++)
            if (kind_of[i] == kind && !scale_up(&past->last[i], amount->scale - past->scales[kind]))
                past->last[i] = 0;
        past->scales[kind] = amount->scale;
    }
    if (past_value(past, column, amount, &value))
        past->last[column] = value;
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

#define ROW_BYTES_MAX (40 + N_AMOUNTS * 24)

static inline uint8_t *put_amount(uint8_t *at, BlockPast *past, size_t column, const Amount *amount)
{
    int64_t value, delta;

    /* Two bits less than 64, for the sign and for what says that it stands for itself. */
    if (past_value(past, column, amount, &value) &&
        !__builtin_sub_overflow(value, past->last[told_from[column]], &delta) &&
        delta >= INT64_MIN / 4 && delta <= INT64_MAX / 4) {
        past->last[column] = value;
        return put_wide(at, (((uint64_t)delta << 1) ^ (delta < 0 ? UINT64_MAX : 0)) << 1);
    }
    at = put_wide(at, (unsigned)amount->scale << 1 | AMOUNT_ITSELF);
    past_learn(past, column, amount);
    return put_signed(at, amount->mantissa);
}

static uint16_t presence_of(const Row *row)
{
    unsigned present = 0;

    for (size_t i = 0; i < N_AMOUNTS; i++)
        present |= (unsigned)row_amount(row, i)->present << i;
    return (uint16_t)present;
}

/* `ts` is in units. */
static uint8_t *put_row(uint8_t *at, BlockPast *past, const Row *row, int64_t ts)
{
    uint16_t present = presence_of(row);
    uint8_t flags =
        (uint8_t)(((unsigned)row->kind & FLAG_KIND) |
                  (((unsigned)row->session << FLAG_SESSION_SHIFT) & FLAG_SESSION) |
                  (row->is_final ? FLAG_FINAL : 0) | (row->revision ? FLAG_REVISED : 0) |
                  (row->trade_date != past->date ? FLAG_NEW_DATE : 0));
    int64_t step = (int64_t)((uint64_t)ts - (uint64_t)past->ts);
    bool alike = flags == past->flags && present == past->present &&
                 !(flags & (FLAG_REVISED | FLAG_NEW_DATE));

    *at++ = (uint8_t)((alike ? FOLLOWS_ALIKE : 0) | (step == past->step ? FOLLOWS_IN_STEP : 0));
    if (!alike) {
        *at++ = flags;
        *at++ = (uint8_t)present;
        *at++ = (uint8_t)(present >> 8);
        if (flags & FLAG_REVISED)
            at = put_wide(at, row->revision);
        if (flags & FLAG_NEW_DATE)
            at = put_signed(at, (int64_t)row->trade_date - past->date);
    }
    if (step != past->step)
        at = put_signed(at, step);
    past->flags = flags & (uint8_t) ~(FLAG_REVISED | FLAG_NEW_DATE);
    past->present = present;
    past->date = row->trade_date;
    past->ts = ts;
    past->step = step;
    for (size_t i = 0; i < N_AMOUNTS; i++)
        if (present & 1U << i)
            at = put_amount(at, past, i, row_amount(row, i));
    return at;
}

int block_encode(const Row *rows, const uint32_t *indices, size_t n, Buf *ret)
{
    const size_t begin = ret->size;
    BlockPast past = {0};
    uint64_t sum;
    int64_t unit;
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
        end = put_row(at, &past, row, row->ts_usec / unit);
        ret->size += (size_t)(end - at);
    }
    sum = htole64(block_sum(ret->data + begin, ret->size - begin));
    return buf_add(ret, &sum, SUM_BYTES);
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

static bool sum_is_right(const char *data, size_t size)
{
    uint64_t sum;

    memcpy(&sum, data + size - SUM_BYTES, SUM_BYTES);
    return le64toh(sum) == block_sum(data, size - SUM_BYTES);
}

int block_open(BlockReader *reader, const void *data, size_t size)
{
    Wide unit = 0, n = 0;
    int r;

    *reader = (BlockReader){.data = data, .size = size - SUM_BYTES, .at = 1};
    if (size <= SUM_BYTES || reader->data[0] != BLOCK_VERSION || !sum_is_right(data, size))
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

/* The amount that comes back from a whole number at that scale. */
static inline void set_amount(Amount *amount, int64_t value, unsigned scale)
{
    while (scale > 0 && value % 10 == 0) {
        value /= 10;
        scale--;
    }
    *amount = (Amount){.mantissa = value, .scale = (uint8_t)scale, .present = true};
}

static inline int get_amount(BlockReader *reader, size_t column, Amount *amount)
{
    BlockPast *past = &reader->past;
    uint64_t number, delta;
    int64_t value;
    int r;

    if (!get_small(reader, &number))
        return -EBADMSG;
    if (number & AMOUNT_ITSELF) {
        if (number >> 1 > AMOUNT_SCALE_MAX)
            return -EBADMSG;
        amount->scale = (uint8_t)(number >> 1);
        amount->present = true;
        r = get_signed(reader, &amount->mantissa);
        if (r >= 0)
            past_learn(past, column, amount);
        return r;
    }
    delta = number >> 1;
    if (__builtin_add_overflow(past->last[told_from[column]],
                               (int64_t)(delta >> 1) ^ -(int64_t)(delta & 1), &value))
        return -EBADMSG;
    past->last[column] = value;
    set_amount(amount, value, past->scales[kind_of[column]]);
    return 0;
}

static int get_amounts(BlockReader *reader)
{
    uint16_t present = reader->past.present;
    int r = 0;

    for (size_t i = 0; i < N_AMOUNTS && r >= 0; i++) {
        Amount *amount = (Amount *)(void *)((char *)&reader->row + amounts[i]);

        if (present & 1U << i)
            r = get_amount(reader, i, amount);
        else
            *amount = AMOUNT_ABSENT;
    }
    return r;
}

/* Flags, presence, revision and date of a row that is not like the one before. */
static int get_shape(BlockReader *reader)
{
    BlockPast *past = &reader->past;
    Row *row = &reader->row;
    int64_t date = 0;
    Wide revision = 0;
    uint8_t flags;
    int r = 0;

    if (reader->size - reader->at < 3)
        return -EBADMSG;
    flags = reader->data[reader->at];
    past->present = (uint16_t)(reader->data[reader->at + 1] | reader->data[reader->at + 2] << 8);
    reader->at += 3;
    if (flags & FLAG_REVISED)
        r = get_wide(reader, &revision);
    if (r >= 0 && (flags & FLAG_NEW_DATE))
        r = get_i64(reader, &date);
    if (r < 0)
        return r;
    if (past->present >> N_AMOUNTS || revision > UINT32_MAX ||
        __builtin_add_overflow(row->trade_date, date, &row->trade_date))
        return -EBADMSG;
    row->kind = (RowKind)(flags & FLAG_KIND);
    row->session = (Session)((flags & FLAG_SESSION) >> FLAG_SESSION_SHIFT);
    row->is_final = flags & FLAG_FINAL;
    row->revision = (uint32_t)revision;
    return row->session >= SESSION_MAX ? -EBADMSG : 0;
}

int block_step(BlockReader *reader)
{
    BlockPast *past = &reader->past;
    Row *row = &reader->row;
    uint8_t follows;
    int r = 0;

    if (reader->next == reader->n_rows)
        return reader->at == reader->size ? 0 : -EBADMSG;
    if (reader->at == reader->size)
        return -EBADMSG;
    follows = reader->data[reader->at++];
    if (follows & ~FOLLOWS_ALL)
        return -EBADMSG;
    if (follows & FOLLOWS_ALIKE)
        row->revision = 0;
    else
        r = get_shape(reader);
    if (r >= 0 && !(follows & FOLLOWS_IN_STEP))
        r = get_i64(reader, &past->step);
    if (r < 0)
        return r;
    if (__builtin_add_overflow(past->ts, past->step, &past->ts) ||
        __builtin_mul_overflow(past->ts, reader->unit_usec, &row->ts_usec))
        return -EBADMSG;
    r = get_amounts(reader);
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
