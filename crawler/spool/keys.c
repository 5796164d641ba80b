/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/spool/keys.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/time.h"

static uint64_t mix(uint64_t hash, uint64_t word)
{
    /* splitmix64's finaliser: every bit of a word reaches every bit of the hash. */
    hash ^= word + UINT64_C(0x9e3779b97f4a7c15);
    hash = (hash ^ (hash >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    hash = (hash ^ (hash >> 27)) * UINT64_C(0x94d049bb133111eb);
    return hash ^ (hash >> 31);
}

uint64_t row_values_hash(const Row *row)
{
    const Amount *const amounts[] = {&row->open,   &row->high,   &row->low,       &row->close,
                                     &row->volume, &row->amount, &row->ratio_num, &row->ratio_den};
    unsigned present = 0;
    uint64_t hash;

    for (size_t i = 0; i < ELEMENTS(amounts); i++)
        present |= (unsigned)amounts[i]->present << i;
    hash = mix(row->is_final, present);
    for (size_t i = 0; i < ELEMENTS(amounts); i++) {
        const Amount *amount = amounts[i];
        int64_t low = (int64_t)amount->mantissa;

        if (!amount->present)
            continue;
        /* No price has that many digits that it reaches the scale's bits. */
        hash = mix(hash, (uint64_t)low ^ (uint64_t)amount->scale << 57);
        if (amount->mantissa != low)
            hash = mix(hash, (uint64_t)(amount->mantissa >> 64));
    }
    return hash == KEYS_UNKNOWN ? 1 : hash;
}

int64_t keys_chunk(int64_t ts_usec, uint64_t interval_usec)
{
    int64_t span = (int64_t)interval_usec * KEYS_PER_CHUNK;

    return ts_usec / span - (ts_usec % span < 0);
}

/* Layout of a key: the instant as a zigzag difference to the one before (in seconds, or in
 * microseconds where those are not whole), kind and flags, hash where it is known, revision where
 * there is one. */
enum {
    FLAG_KIND = 7,
    FLAG_NOT_FINAL = 1 << 4,
    FLAG_UNKNOWN = 1 << 5,
    FLAG_MICROSECONDS = 1 << 6,
    FLAG_REVISED = 1 << 7,
};
#define KEY_BYTES_MAX 24

static size_t put_u64(char *at, uint64_t value)
{
    size_t n = 0;

    for (; value >= 0x80; value >>= 7)
        at[n++] = (char)(value | 0x80);
    at[n++] = (char)value;
    return n;
}

static int get_u64(const char *data, size_t size, size_t *at, uint64_t *ret)
{
    uint64_t value = 0;

    for (unsigned shift = 0; *at < size && shift < 64; shift += 7) {
        unsigned char byte = (unsigned char)data[(*at)++];

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return 0;
        }
    }
    return -EBADMSG;
}

static size_t key_write(char *at, const Key *key, int64_t before_usec)
{
    int64_t delta = (int64_t)((uint64_t)key->ts_usec - (uint64_t)before_usec);
    bool whole = delta % (int64_t)SECOND == 0;
    uint64_t hash = htole64(key->hash);
    size_t n = 1;

    if (whole)
        delta /= (int64_t)SECOND;
    at[0] =
        (char)((key->kind & FLAG_KIND) | (key->not_final ? FLAG_NOT_FINAL : 0) |
               (whole ? 0 : FLAG_MICROSECONDS) | (key->hash == KEYS_UNKNOWN ? FLAG_UNKNOWN : 0) |
               (key->revision ? FLAG_REVISED : 0));
    n += put_u64(at + n, ((uint64_t)delta << 1) ^ (delta < 0 ? UINT64_MAX : 0));
    if (key->hash != KEYS_UNKNOWN) {
        memcpy(at + n, &hash, sizeof(hash));
        n += sizeof(hash);
    }
    if (key->revision)
        n += put_u64(at + n, key->revision);
    return n;
}

static int key_read(const char *data, size_t size, size_t *at, int64_t before_usec, Key *ret)
{
    uint64_t delta, hash = KEYS_UNKNOWN, revision = 0;
    unsigned char flags = (unsigned char)data[(*at)++];
    int64_t signed_delta;

    if (get_u64(data, size, at, &delta) < 0 ||
        (!(flags & FLAG_UNKNOWN) && size - *at < sizeof(hash)))
        return -EBADMSG;
    if (!(flags & FLAG_UNKNOWN)) {
        memcpy(&hash, data + *at, sizeof(hash));
        *at += sizeof(hash);
    }
    if ((flags & FLAG_REVISED) && (get_u64(data, size, at, &revision) < 0 || revision > UINT16_MAX))
        return -EBADMSG;
    signed_delta = (int64_t)(delta >> 1) ^ -(int64_t)(delta & 1);
    if (!(flags & FLAG_MICROSECONDS) &&
        __builtin_mul_overflow(signed_delta, (int64_t)SECOND, &signed_delta))
        return -EBADMSG;
    *ret = (Key){.ts_usec = (int64_t)((uint64_t)before_usec + (uint64_t)signed_delta),
                 .hash = le64toh(hash),
                 .revision = (uint16_t)revision,
                 .kind = flags & FLAG_KIND,
                 .not_final = flags & FLAG_NOT_FINAL};
    return 0;
}

static int grow(Keys *keys)
{
    size_t wanted = keys->allocated ? 2 * keys->allocated : KEYS_PER_CHUNK;
    Key *items;

    if (keys->n < keys->allocated)
        return 0;
    items = realloc(keys->items, wanted * sizeof(*items));
    if (!items)
        return -ENOMEM;
    keys->items = items;
    keys->allocated = wanted;
    return 0;
}

int keys_load(Keys *keys, const void *data, size_t size)
{
    int64_t before = 0;
    int r;

    keys->n = keys->at = 0;
    keys->newest_usec = INT64_MIN;
    keys->changed = false;
    for (size_t at = 0; at < size;) {
        r = grow(keys);
        if (r >= 0)
            r = key_read(data, size, &at, before, &keys->items[keys->n]);
        if (r < 0)
            return r;
        before = keys->items[keys->n++].ts_usec;
        keys->newest_usec = MAX_OF(keys->newest_usec, before);
    }
    return 0;
}

int keys_format(const Keys *keys, Buf *ret)
{
    int64_t before = 0;

    for (size_t i = 0; i < keys->n; i++) {
        int r = buf_reserve(ret, KEY_BYTES_MAX);

        if (r < 0)
            return r;
        ret->size += key_write(ret->data + ret->size, &keys->items[i], before);
        before = keys->items[i].ts_usec;
    }
    return 0;
}

void keys_forget_values(Keys *keys)
{
    for (size_t i = 0; i < keys->n; i++)
        keys->items[i].hash = KEYS_UNKNOWN;
}

int keys_find(Keys *keys, RowKind kind, int64_t ts_usec, Key *ret)
{
    if (keys->n == 0 || ts_usec > keys->newest_usec)
        return 0;
    for (size_t i = 0; i < keys->n; i++) {
        size_t at = keys->at + i < keys->n ? keys->at + i : keys->at + i - keys->n;

        if (keys->items[at].ts_usec == ts_usec && keys->items[at].kind == (uint8_t)kind) {
            keys->at = at;
            *ret = keys->items[at];
            return 1;
        }
    }
    return 0;
}

int keys_put(Keys *keys, const Key *key)
{
    Key old;
    int r;

    keys->changed = true;
    if (keys_find(keys, (RowKind)key->kind, key->ts_usec, &old) > 0) {
        keys->items[keys->at] = *key;
        return 0;
    }
    r = grow(keys);
    if (r < 0)
        return r;
    keys->newest_usec = keys->n > 0 ? MAX_OF(keys->newest_usec, key->ts_usec) : key->ts_usec;
    keys->items[keys->n++] = *key;
    return 0;
}

void keys_done(Keys *keys)
{
    free(keys->items);
    *keys = (Keys){0};
}
