/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/spool/keys.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static uint64_t mix(uint64_t hash, uint64_t word)
{
    /* splitmix64's finaliser: every bit of a word reaches every bit of the hash. */
    hash ^= word + UINT64_C(0x9e3779b97f4a7c15);
    hash = (hash ^ (hash >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    hash = (hash ^ (hash >> 27)) * UINT64_C(0x94d049bb133111eb);
    return hash ^ (hash >> 31);
}

static uint64_t mix_amount(uint64_t hash, const Amount *amount)
{
    unsigned __int128 mantissa = (unsigned __int128)amount->mantissa;

    if (!amount->present)
        return mix(hash, 1);
    hash = mix(hash, UINT64_C(2) + amount->scale);
    hash = mix(hash, (uint64_t)mantissa);
    return mix(hash, (uint64_t)(mantissa >> 64));
}

uint64_t row_values_hash(const Row *row)
{
    uint64_t hash = mix(0, row->is_final);

    hash = mix_amount(hash, &row->open);
    hash = mix_amount(hash, &row->high);
    hash = mix_amount(hash, &row->low);
    hash = mix_amount(hash, &row->close);
    hash = mix_amount(hash, &row->volume);
    hash = mix_amount(hash, &row->amount);
    hash = mix_amount(hash, &row->ratio_num);
    hash = mix_amount(hash, &row->ratio_den);
    return hash == KEYS_UNKNOWN ? 1 : hash;
}

int64_t keys_chunk(int64_t ts_usec, uint64_t interval_usec)
{
    int64_t span = (int64_t)interval_usec * KEYS_PER_CHUNK;

    return ts_usec / span - (ts_usec % span < 0);
}

static void key_read(const char *at, Key *ret)
{
    uint64_t ts, hash;
    uint16_t revision;

    memcpy(&ts, at, 8);
    memcpy(&hash, at + 8, 8);
    memcpy(&revision, at + 16, 2);
    *ret = (Key){.ts_usec = (int64_t)le64toh(ts),
                 .hash = le64toh(hash),
                 .revision = le16toh(revision),
                 .kind = (uint8_t)at[18]};
}

static void key_write(char *at, const Key *key)
{
    uint64_t ts = htole64((uint64_t)key->ts_usec), hash = htole64(key->hash);
    uint16_t revision = htole16(key->revision);

    memcpy(at, &ts, 8);
    memcpy(at + 8, &hash, 8);
    memcpy(at + 16, &revision, 2);
    at[18] = (char)key->kind;
    at[19] = 0;
}

int keys_load(Keys *keys, const void *data, size_t size)
{
    if (size % KEY_SIZE != 0)
        return -EBADMSG;
    keys->data.max = 64U << 20;
    buf_clear(&keys->data);
    keys->at = 0;
    keys->changed = false;
    return size > 0 ? buf_add(&keys->data, data, size) : 0;
}

int keys_find(Keys *keys, RowKind kind, int64_t ts_usec, Key *ret)
{
    size_t n = keys->data.size / KEY_SIZE;

    for (size_t i = 0; i < n; i++) {
        size_t at = keys->at + i < n ? keys->at + i : keys->at + i - n;
        Key key;

        key_read(keys->data.data + at * KEY_SIZE, &key);
        if (key.ts_usec == ts_usec && key.kind == (uint8_t)kind) {
            keys->at = at;
            *ret = key;
            return 1;
        }
    }
    return 0;
}

int keys_put(Keys *keys, const Key *key)
{
    char bytes[KEY_SIZE];
    Key old;

    keys->changed = true;
    if (keys_find(keys, (RowKind)key->kind, key->ts_usec, &old) > 0) {
        key_write(keys->data.data + keys->at * KEY_SIZE, key);
        return 0;
    }
    key_write(bytes, key);
    keys->at = 0;
    return buf_add(&keys->data, bytes, sizeof(bytes));
}

void keys_done(Keys *keys)
{
    buf_done(&keys->data);
    *keys = (Keys){0};
}
