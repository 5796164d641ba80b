/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/model/bar.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"

#define ARENA_CHUNK   (16 * 1024)
#define ARENA_SHARED  64 /* how many of the first strings are looked through for the same text */
#define DEAD_TEXT_MAX 512
#define DEAD_ROWS_MAX 10000

typedef struct ArenaChunk {
    struct ArenaChunk *next;
    size_t used, size;
    char data[];
} ArenaChunk;

struct RowArena {
    ArenaChunk *chunks; /* newest first; the oldest one stays over row_set_clear() */
    struct {
        const char *s;
        size_t size;
    } shared[ARENA_SHARED];
    size_t n_shared;
};

static char *arena_alloc(RowArena *arena, size_t size)
{
    ArenaChunk *chunk = arena->chunks;

    if (!chunk || chunk->size - chunk->used < size) {
        size_t room = MAX_OF(size, (size_t)ARENA_CHUNK);

        chunk = malloc(sizeof(*chunk) + room);
        if (!chunk)
            return NULL;
        chunk->next = arena->chunks;
        chunk->size = room;
        chunk->used = 0;
        arena->chunks = chunk;
    }
    chunk->used += size;
    return chunk->data + chunk->used - size;
}

const char *row_set_string(RowSet *set, const char *s, size_t size)
{
    RowArena *arena = set->arena;
    char *copy;

    if (!arena) {
        arena = set->arena = calloc(1, sizeof(*arena));
        if (!arena)
            return NULL;
    }
    for (size_t i = 0; i < arena->n_shared; i++)
        if (arena->shared[i].size == size && memcmp(arena->shared[i].s, s, size) == 0)
            return arena->shared[i].s;

    copy = arena_alloc(arena, size + 1);
    if (!copy)
        return NULL;
    memcpy(copy, s, size);
    copy[size] = '\0';
    if (arena->n_shared < ARENA_SHARED) {
        arena->shared[arena->n_shared].s = copy;
        arena->shared[arena->n_shared].size = size;
        arena->n_shared++;
    }
    return copy;
}

int row_set_add(RowSet *set, const Row *like, Row **ret)
{
    if (set->n >= (set->max_rows ? set->max_rows : ROW_SET_MAX))
        return -EOVERFLOW;
    if (set->n == set->n_allocated) {
        size_t n = set->n_allocated ? set->n_allocated * 2 : 64;
        Row *rows = reallocarray(set->rows, n, sizeof(*rows));

        if (!rows)
            return -ENOMEM;
        set->rows = rows;
        set->n_allocated = n;
    }
    *ret = &set->rows[set->n++];
    if (like)
        **ret = *like;
    else
        **ret = (Row){0};
    return 0;
}

int row_set_add_dead(RowSet *set, int64_t ts_usec, const char *reason, const char *text,
                     size_t text_size)
{
    auto_free char *escaped = NULL;
    DeadRow dead = {.ts_usec = ts_usec};

    if (set->n_dead >= DEAD_ROWS_MAX)
        return -EOVERFLOW;
    if (set->n_dead == set->n_dead_allocated) {
        size_t n = set->n_dead_allocated ? set->n_dead_allocated * 2 : 8;
        DeadRow *rows = reallocarray(set->dead, n, sizeof(*rows));

        if (!rows)
            return -ENOMEM;
        set->dead = rows;
        set->n_dead_allocated = n;
    }
    escaped = str_escape(text, text_size, DEAD_TEXT_MAX);
    if (!escaped)
        return -ENOMEM;
    dead.reason = row_set_string(set, reason, strlen(reason));
    dead.text = row_set_string(set, escaped, strlen(escaped));
    if (!dead.reason || !dead.text)
        return -ENOMEM;
    set->dead[set->n_dead++] = dead;
    return 0;
}

void row_set_clear(RowSet *set)
{
    set->n = set->n_dead = 0;
    if (set->n_allocated > ROW_SET_KEPT) {
        free(set->rows);
        set->rows = NULL;
        set->n_allocated = 0;
    }
    if (!set->arena)
        return;
    while (set->arena->chunks && set->arena->chunks->next) {
        ArenaChunk *chunk = set->arena->chunks;

        set->arena->chunks = chunk->next;
        free(chunk);
    }
    if (set->arena->chunks)
        set->arena->chunks->used = 0;
    set->arena->n_shared = 0;
}

void row_set_done(RowSet *set)
{
    size_t max_rows = set->max_rows;

    row_set_clear(set);
    if (set->arena)
        free(set->arena->chunks);
    free(set->arena);
    free(set->rows);
    free(set->dead);
    *set = (RowSet){.max_rows = max_rows};
}

static int row_order(const Row *a, const Row *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->ts_usec != b->ts_usec)
        return a->ts_usec < b->ts_usec ? -1 : 1;
    if (a->revision != b->revision)
        return a->revision < b->revision ? -1 : 1;
    return 0;
}

/* What is sorted: rows are large. */
typedef struct RowRef {
    const Row *row;
} RowRef;

static int compare_refs(const void *a, const void *b)
{
    const Row *x = ((const RowRef *)a)->row, *y = ((const RowRef *)b)->row;
    int order = row_order(x, y);

    return order != 0 ? order : x < y ? -1 : 1; /* stable */
}

int row_set_sort(RowSet *set)
{
    auto_free RowRef *order = NULL;
    Row *sorted;
    size_t i;

    /* Sources send rows in order, forward or backward; only a real mess costs a sort. */
    for (i = 1; i < set->n && row_order(&set->rows[i - 1], &set->rows[i]) <= 0; i++)
        ;
    if (i >= set->n)
        return 0;

    order = reallocarray(NULL, set->n, sizeof(*order));
    sorted = reallocarray(NULL, set->n, sizeof(*sorted));
    if (!order || !sorted) {
        free(sorted);
        return -ENOMEM;
    }
    for (i = 0; i < set->n; i++)
        order[i].row = &set->rows[i];
    qsort(order, set->n, sizeof(*order), compare_refs);
    for (i = 0; i < set->n; i++)
        sorted[i] = *order[i].row;
    free(set->rows);
    set->rows = sorted;
    set->n_allocated = set->n;
    return 0;
}

bool row_same_values(const Row *a, const Row *b)
{
    return amount_equal(&a->open, &b->open) && amount_equal(&a->high, &b->high) &&
           amount_equal(&a->low, &b->low) && amount_equal(&a->close, &b->close) &&
           amount_equal(&a->volume, &b->volume) && amount_equal(&a->amount, &b->amount) &&
           amount_equal(&a->ratio_num, &b->ratio_num) &&
           amount_equal(&a->ratio_den, &b->ratio_den) && a->is_final == b->is_final;
}

bool row_same_identity(const Row *a, const Row *b)
{
    return a->kind == b->kind && a->ts_usec == b->ts_usec && streq_ptr(a->symbol, b->symbol) &&
           streq_ptr(a->interval, b->interval) && streq_ptr(a->source, b->source);
}
