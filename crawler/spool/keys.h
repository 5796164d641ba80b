/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_SPOOL_KEYS_H
#define CRAWLER_SPOOL_KEYS_H

/* Which rows of a series were taken before, with what values and revision. Keys lie in chunks of
 * 512 bars, a BLOB each that fills most of a page: a trading day of minutes is in one or two, and a
 * poll that reads the last few bars again touches one. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "crawler/model/bar.h"

#define KEYS_PER_CHUNK 512
#define KEYS_UNKNOWN   0 /* a hash: the row is there, with values that nobody here saw */

typedef struct Key {
    int64_t ts_usec;
    uint64_t hash;
    uint16_t revision;
    uint8_t kind;
    bool not_final; /* all that went out of the bar is a value of while it was made */
} Key;

/* What makes two observations the same, as row_same_values(): never KEYS_UNKNOWN. */
uint64_t row_values_hash(const Row *row);

/* Which chunk an instant lies in. */
int64_t keys_chunk(int64_t ts_usec, uint64_t interval_usec);

/* One chunk in memory. `at` is where the last search ended: rows come in order, and one that is
 * newer than all here needs no search. */
typedef struct Keys {
    Key *items;
    size_t n, allocated, at;
    int64_t newest_usec;
    bool changed;
} Keys;
/* Of a BLOB and back: about eleven bytes a key. */
int keys_load(Keys *keys, const void *data, size_t size) must_check; /* -EBADMSG */
int keys_format(const Keys *keys, Buf *ret) must_check;
/* What is old is only known to be there, and whether its final value is: three bytes a key. The
 * next observation is taken as its values. */
void keys_forget_values(Keys *keys);
/* 1 found, 0 absent. */
int keys_find(Keys *keys, RowKind kind, int64_t ts_usec, Key *ret);
/* Adds or replaces. */
int keys_put(Keys *keys, const Key *key) must_check;
void keys_done(Keys *keys);

#endif
