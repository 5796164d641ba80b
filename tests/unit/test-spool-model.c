/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "crawler/spool/spool.h"

/* The spool against a model of it that fits on a page: chains of events chosen by a seed, and after
 * each one everything that can be asked is compared. What must hold: every row lies in exactly one
 * place (open, one batch, delivered, dead); a frozen batch is the same whenever it is looked at;
 * revisions of a bar count up without a gap; a final value follows one that was taken before the
 * bar was over, be it from a replay; a cursor is where its rows are; what was durable is there
 * after a crash, and what was not is gone with its cursor.
 *
 *     MERVIS_MODEL_SEED=7 MERVIS_MODEL_STEPS=5000 tests/unit/test-spool-model
 *
 * runs one seed, and longer. */

#define T0         INT64_C(1791331200000000) /* 2026-10-07T00:00:00Z */
#define SYMBOLS    3
#define INTERVALS  2
#define SLOTS      40
#define ROWS_MAX   40000
#define BATCHES    512
#define SEEDS      6
#define STEPS      250
#define BATCH_ROWS 60

static const char *const symbols[SYMBOLS] = {"AAPL", "BRK-B", "005930"};
static const char *const intervals[INTERVALS] = {"1m", "1d"};

typedef enum Place { PLACE_OPEN, PLACE_BATCH, PLACE_DELIVERED, PLACE_DEAD } Place;

/* A bar as the spool knows it. */
typedef struct Bar {
    bool known, has_value, is_final;
    uint32_t revision;
    int value;
} Bar;

typedef struct Item {
    unsigned symbol, interval, slot;
    uint32_t revision;
    int value;
    bool is_final;
    Place place;
    int64_t batch;
} Item;

/* All that the spool should know: copied whole, since a crash brings an older one back. */
typedef struct Model {
    Bar bars[SYMBOLS][INTERVALS][SLOTS];
    bool has_cursor[SYMBOLS][INTERVALS];
    int64_t cursors[SYMBOLS][INTERVALS];
    SpoolBatch batches[BATCHES]; /* frozen or wrong */
    size_t n_batches, n_items;
    uint64_t delivered;
    Item items[ROWS_MAX];
} Model;

typedef struct World {
    char *dir, *path;
    unsigned n_crashes;
    Spool *spool;
    RowSet rows;
    Error err;
    uint64_t seed, random;
    unsigned step;
    const char *event;
    Model now, durable;
} World;

/* Where it went wrong, so that it can be done again. */
#define HOLDS(w, condition)                                                                        \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("seed %llu, step %u, %s: does not hold: %s (%s)",                             \
                     (unsigned long long)(w)->seed, (w)->step, (w)->event, #condition,             \
                     error_text(&(w)->err));                                                       \
    } while (0)
#define WELL(w, call) HOLDS(w, (call) >= 0)

/* xorshift64*: the same numbers everywhere. */
static unsigned pick(World *w, unsigned n)
{
    w->random ^= w->random >> 12;
    w->random ^= w->random << 25;
    w->random ^= w->random >> 27;
    return (unsigned)((w->random * UINT64_C(2685821657736338717)) >> 33) % n;
}

static int table_of(const char *interval)
{
    return streq(interval, "1d");
}

static int64_t ts_of(unsigned interval, unsigned slot)
{
    return T0 + (int64_t)slot * (int64_t)(interval ? DAY : MINUTE);
}

/* --- Rows ------------------------------------------------------------------------------------ */

static void add_row(World *w, unsigned symbol, unsigned interval, unsigned slot, int value,
                    bool is_final)
{
    Row *row;

    HOLDS(w, row_set_add(&w->rows, NULL, &row) == 0);
    row->source = "yahoo-chart";
    row->symbol = symbols[symbol];
    row->interval = intervals[interval];
    row->tz = "America/New_York";
    row->ts_usec = ts_of(interval, slot);
    row->trade_date = (int32_t)(row->ts_usec / (int64_t)DAY);
    row->is_final = is_final;
    row->close = amount_from_i64(value);
}

/* What the spool is to make of it: adds to `ret` what it should count. */
static void model_row(World *w, unsigned symbol, unsigned interval, unsigned slot, int value,
                      bool is_final, bool is_old, SpoolAccepted *ret)
{
    Bar *bar = &w->now.bars[symbol][interval][slot];
    bool ends = bar->known && !bar->is_final && is_final;
    bool same = !bar->has_value || (bar->value == value && bar->is_final == is_final);

    if (bar->known && !ends && (same || is_old)) {
        if (!is_old)
            *bar = (Bar){true, true, is_final, bar->revision, value};
        ret->known++;
        return;
    }
    ret->rows++;
    ret->revisions += bar->known;
    *bar = (Bar){true, true, is_final, bar->known ? bar->revision + 1 : 0, value};
    HOLDS(w, w->now.n_items < ROWS_MAX);
    w->now.items[w->now.n_items++] = (Item){.symbol = symbol,
                                            .interval = interval,
                                            .slot = slot,
                                            .revision = bar->revision,
                                            .value = value,
                                            .is_final = is_final,
                                            .place = PLACE_OPEN};
}

/* A reply of now, of a job that may want what is not final; or an old one once more, which moves no
 * cursor. */
static void accept(World *w, bool live, bool is_old)
{
    unsigned symbol = pick(w, SYMBOLS), interval = pick(w, INTERVALS), slot = pick(w, SLOTS);
    unsigned n = 1 + pick(w, 12);
    SpoolAccepted expected = {0}, count = {0};
    Cursor cursor = CURSOR_INIT;

    row_set_clear(&w->rows);
    for (unsigned i = 0; i < n && slot < SLOTS; i++, slot += 1 + pick(w, 2)) {
        bool is_final = pick(w, live ? 3 : 16) > 0;
        int value = 100 + (int)pick(w, 3);

        add_row(w, symbol, interval, slot, value, is_final);
        if (is_final || live)
            model_row(w, symbol, interval, slot, value, is_final, is_old, &expected);
        else
            expected.not_final++;
    }
    cursor.newest_final_usec = w->rows.rows[w->rows.n - 1].ts_usec;
    const SpoolDocument document = {.job = intervals[interval],
                                    .symbol = symbols[symbol],
                                    .range = "",
                                    .cursor = is_old ? NULL : &cursor,
                                    .rows = &w->rows,
                                    .live = live,
                                    .is_old = is_old,
                                    .table_of = table_of,
                                    .now_usec = T0 + (int64_t)w->step};
    WELL(w, spool_accept(w->spool, &document, &count, &w->err));
    HOLDS(w, count.rows == expected.rows && count.revisions == expected.revisions);
    HOLDS(w, count.known == expected.known && count.not_final == expected.not_final);
    HOLDS(w, count.dead == 0);
    if (is_old)
        return;
    w->now.has_cursor[symbol][interval] = true;
    w->now.cursors[symbol][interval] = cursor.newest_final_usec;
}

static void event_accept(World *w)
{
    accept(w, /* live= */ pick(w, 3) == 0, /* is_old= */ false);
}

static void event_replay(World *w)
{
    accept(w, /* live= */ false, /* is_old= */ true);
}

static void event_known(World *w)
{
    unsigned symbol = pick(w, SYMBOLS), interval = pick(w, INTERVALS), slot = pick(w, SLOTS);
    Bar *bar = &w->now.bars[symbol][interval][slot];

    if (bar->known)
        return;
    *bar = (Bar){.known = true, .is_final = pick(w, 2), .revision = pick(w, 4)};
    WELL(w, spool_add_known(w->spool, "yahoo-chart", symbols[symbol], intervals[interval], ROW_BAR,
                            ts_of(interval, slot), bar->revision, bar->is_final, &w->err));
}

/* --- Batches --------------------------------------------------------------------------------- */

static Item *item_of_row(World *w, const Row *row, Place place, int64_t batch)
{
    for (size_t i = 0; i < w->now.n_items; i++) {
        Item *item = &w->now.items[i];

        if (item->place == place && (place == PLACE_OPEN || item->batch == batch) &&
            item->revision == row->revision && streq(symbols[item->symbol], row->symbol) &&
            streq(intervals[item->interval], row->interval) &&
            ts_of(item->interval, item->slot) == row->ts_usec) {
            Amount close = amount_from_i64(item->value);

            HOLDS(w, amount_equal(&close, &row->close) && item->is_final == row->is_final);
            return item;
        }
    }
    return NULL;
}

/* Its rows, which were `from` (open, or of a batch that is gone), are its own now. */
static void adopt(World *w, const SpoolBatch *batch, Place from, int64_t from_batch)
{
    auto_(spool_reader_freep) SpoolReader *reader = NULL;
    uint64_t n = 0;
    Row row;
    int r;

    WELL(w, spool_reader_new(w->spool, batch, &reader, &w->err));
    while ((r = spool_reader_row(reader, &row, &w->err)) > 0) {
        Item *item = item_of_row(w, &row, from, from_batch);

        HOLDS(w, item && (int)item->interval == batch->table);
        item->place = PLACE_BATCH;
        item->batch = batch->number;
        n++;
    }
    HOLDS(w, r == 0 && n == batch->rows && n > 0);
    HOLDS(w, w->now.n_batches < BATCHES);
    w->now.batches[w->now.n_batches++] = *batch;
}

static SpoolBatch *batch_find(World *w, int64_t number)
{
    for (size_t i = 0; i < w->now.n_batches; i++)
        if (w->now.batches[i].number == number)
            return &w->now.batches[i];
    return NULL;
}

static void batch_forget(World *w, SpoolBatch *batch)
{
    *batch = w->now.batches[--w->now.n_batches];
}

/* Batches that the model has not seen: made of open rows, or of those of `from_batch`. */
static void adopt_new(World *w, Place from, int64_t from_batch)
{
    SpoolBatch batch;

    for (int64_t after = 0; spool_next_frozen(w->spool, after, &batch, &w->err) > 0;
         after = batch.number)
        if (!batch_find(w, batch.number))
            adopt(w, &batch, from, from_batch);
}

static void event_freeze(World *w)
{
    WELL(w, spool_freeze(w->spool, (int)pick(w, INTERVALS), &w->err));
}

/* One that waits to be delivered, or NULL. */
static SpoolBatch *any_batch(World *w)
{
    SpoolBatch *batch =
        w->now.n_batches ? &w->now.batches[pick(w, (unsigned)w->now.n_batches)] : NULL;

    return batch && batch->state == SPOOL_BATCH_FROZEN ? batch : NULL;
}

static void event_attempt(World *w)
{
    SpoolBatch *batch = any_batch(w);
    SpoolBatch given;

    if (!batch)
        return;
    given = *batch;
    if (pick(w, 2)) {
        WELL(w, spool_batch_asked(w->spool, &given, &w->err));
        batch->asked = true;
    } else {
        WELL(w, spool_batch_next_attempt(w->spool, &given, &w->err));
        batch->attempt++;
        batch->asked = false;
    }
    HOLDS(w, given.attempt == batch->attempt && given.asked == batch->asked);
}

/* Rows of the batch as they are read now go to that place; each was in it, and only there. */
static void move_all(World *w, const SpoolBatch *batch, Place to)
{
    auto_(spool_reader_freep) SpoolReader *reader = NULL;
    Row row;

    WELL(w, spool_reader_new(w->spool, batch, &reader, &w->err));
    for (uint64_t i = 0; i < batch->rows; i++) {
        Item *item;

        HOLDS(w, spool_reader_row(reader, &row, &w->err) > 0);
        item = item_of_row(w, &row, PLACE_BATCH, batch->number);
        HOLDS(w, item);
        item->place = to;
    }
}

static void event_deliver(World *w)
{
    SpoolBatch *batch = any_batch(w);

    if (!batch)
        return;
    move_all(w, batch, PLACE_DELIVERED);
    w->now.delivered += batch->rows;
    WELL(w, spool_delivered(w->spool, batch, &w->err));
    batch_forget(w, batch);
}

static void event_wrong(World *w)
{
    SpoolBatch *batch = any_batch(w);

    if (!batch || pick(w, 8))
        return;
    WELL(w, spool_batch_wrong(w->spool, batch, &w->err));
    batch->state = SPOOL_BATCH_WRONG;
}

/* Where the line of that number begins. */
static uint64_t offset_of_line(World *w, const SpoolBatch *batch, uint64_t line)
{
    auto_(spool_reader_freep) SpoolReader *reader = NULL;
    auto_free char *text = calloc(1, batch->bytes + 1);
    size_t at = 0;

    WELL(w, spool_reader_new(w->spool, batch, &reader, &w->err));
    HOLDS(w, spool_reader_seek(reader, 0) == 0);
    for (ptrdiff_t n;
         at < batch->bytes && (n = spool_reader_read(text + at, batch->bytes - at, reader)) > 0;)
        at += (size_t)n;
    HOLDS(w, at == batch->bytes);
    for (at = 0; line > 0; at++)
        line -= text[at] == '\n';
    return at;
}

static void bury_left_overs(World *w, int64_t number, uint64_t expected)
{
    uint64_t n = 0;

    for (size_t i = 0; i < w->now.n_items; i++)
        if (w->now.items[i].place == PLACE_BATCH && w->now.items[i].batch == number) {
            w->now.items[i].place = PLACE_DEAD;
            n++;
        }
    HOLDS(w, n == expected);
}

static void event_repair(World *w)
{
    SpoolBatch *batch = any_batch(w);
    bool named = pick(w, 2);
    SpoolBatch old;
    uint64_t offset;

    if (!batch)
        return;
    old = *batch;
    offset = named ? offset_of_line(w, &old, pick(w, (unsigned)old.rows)) : UINT64_MAX;
    batch_forget(w, batch);
    WELL(w, spool_repair(w->spool, &old, offset, "refused", &w->err));
    adopt_new(w, PLACE_BATCH, old.number);
    bury_left_overs(w, old.number, named || old.rows == 1 ? 1 : 0);
}

/* --- The whole, and its accidents ------------------------------------------------------------ */

static void open_at(World *w, const char *path)
{
    SpoolLimits limits = SPOOL_LIMITS_DEFAULT;
    auto_free char *aside = NULL;

    limits.batch_rows = BATCH_ROWS;
    WELL(w, spool_open(path, &limits, &w->spool, &aside, &w->err));
    HOLDS(w, !aside);
}

static void copy_file(World *w, const char *from, const char *to, const char *suffix)
{
    auto_free char *source = str_printf("%s%s", from, suffix),
                   *target = str_printf("%s%s", to, suffix);
    auto_buf Buf data = BUF_INIT(64U << 20);

    if (access(source, F_OK) < 0)
        return;
    WELL(w, file_read(source, 64U << 20, &data, &w->err));
    WELL(w, file_replace(target, buf_str(&data), data.size, 0600, &w->err));
}

/* The disk as a kill -9 leaves it at this moment: database and log, without what is in memory. */
static void event_crash(World *w)
{
    char *path = str_printf("%s/spool-%u.db", w->dir, ++w->n_crashes);
    Spool *old = w->spool;

    copy_file(w, w->path, path, "");
    copy_file(w, w->path, path, "-wal");
    open_at(w, path);
    spool_close(old);
    free(w->path);
    w->path = path;
    w->now = w->durable;
}

static void event_restart(World *w)
{
    w->spool = spool_close(w->spool);
    open_at(w, w->path);
    w->now = w->durable;
}

static void event_sync(World *w)
{
    WELL(w, spool_sync(w->spool, &w->err));
    HOLDS(w, !spool_is_dirty(w->spool));
}

static void check_batches(World *w)
{
    uint64_t seen = 0, frozen = 0;
    SpoolBatch batch;

    for (int64_t after = 0; spool_next_frozen(w->spool, after, &batch, &w->err) > 0;
         after = batch.number, seen++) {
        const SpoolBatch *known = batch_find(w, batch.number);

        HOLDS(w, known && known->state == SPOOL_BATCH_FROZEN && streq(known->id, batch.id));
        HOLDS(w, streq(known->sha256, batch.sha256) && known->rows == batch.rows);
        HOLDS(w, known->bytes == batch.bytes && known->partitions == batch.partitions);
        HOLDS(w, known->table == batch.table && known->frozen_usec == batch.frozen_usec);
        HOLDS(w, known->attempt == batch.attempt && known->asked == batch.asked);
    }
    for (size_t i = 0; i < w->now.n_batches; i++)
        frozen += w->now.batches[i].state == SPOOL_BATCH_FROZEN;
    HOLDS(w, seen == frozen);
}

static void check_counts(World *w)
{
    uint64_t open[INTERVALS] = {0}, waiting = 0, dead = 0;
    SpoolStatus status;

    for (size_t i = 0; i < w->now.n_items; i++) {
        const Item *item = &w->now.items[i];

        open[item->interval] += item->place == PLACE_OPEN;
        waiting += item->place == PLACE_OPEN || item->place == PLACE_BATCH;
        dead += item->place == PLACE_DEAD;
    }
    for (int table = 0; table < INTERVALS; table++) {
        SpoolBatch batch = {0};
        int r = spool_open_batch(w->spool, table, &batch, &w->err);

        WELL(w, r);
        HOLDS(w, (r > 0 ? batch.rows : 0) == open[table]);
    }
    WELL(w, spool_status(w->spool, &status, &w->err));
    HOLDS(w, status.rows == waiting && status.rows_delivered == w->now.delivered);
    HOLDS(w, status.dead == dead);
    HOLDS(w, status.batches_frozen + status.batches_wrong == w->now.n_batches);
}

static void check_cursors(World *w)
{
    FetchMemory memory = spool_fetch_memory(w->spool);

    for (unsigned s = 0; s < SYMBOLS; s++)
        for (unsigned i = 0; i < INTERVALS; i++) {
            Cursor cursor = CURSOR_INIT;
            int r =
                memory.cursor_load(memory.userdata, intervals[i], symbols[s], "", &cursor, &w->err);

            WELL(w, r);
            HOLDS(w, (r > 0) == w->now.has_cursor[s][i]);
            HOLDS(w, r == 0 || cursor.newest_final_usec == w->now.cursors[s][i]);
        }
}

static void check_all(World *w)
{
    adopt_new(w, PLACE_OPEN, 0);
    check_batches(w);
    check_counts(w);
    check_cursors(w);
    if (!spool_is_dirty(w->spool))
        w->durable = w->now;
}

/* Every revision of every bar is there once, counting up from its first. */
static void check_history(World *w)
{
    for (size_t i = 0; i < w->now.n_items; i++)
        for (size_t k = i + 1; k < w->now.n_items; k++) {
            const Item *a = &w->now.items[i], *b = &w->now.items[k];

            if (a->symbol == b->symbol && a->interval == b->interval && a->slot == b->slot) {
                HOLDS(w, b->revision == a->revision + 1);
                break;
            }
        }
}

/* All that is not wrong goes: then nothing waits. */
static void check_end(World *w)
{
    SpoolStatus status;
    uint64_t wrong = 0;

    w->event = "the end";
    for (int table = 0; table < INTERVALS; table++)
        WELL(w, spool_freeze(w->spool, table, &w->err));
    check_all(w);
    for (size_t i = w->now.n_batches; i > 0; i--) {
        SpoolBatch *batch = &w->now.batches[i - 1];

        if (batch->state == SPOOL_BATCH_WRONG) {
            wrong += batch->rows;
            continue;
        }
        move_all(w, batch, PLACE_DELIVERED);
        w->now.delivered += batch->rows;
        WELL(w, spool_delivered(w->spool, batch, &w->err));
        batch_forget(w, batch);
    }
    check_all(w);
    check_history(w);
    WELL(w, spool_status(w->spool, &status, &w->err));
    HOLDS(w, status.rows == wrong);
}

/* clang-format off */
static const struct {
    const char *name;
    void (*happen)(World *w);
    unsigned weight;
} events[] = {
    {"accept",  event_accept,  40},
    {"replay",  event_replay,   6},
    {"known",   event_known,    4},
    {"sync",    event_sync,    10},
    {"freeze",  event_freeze,   8},
    {"attempt", event_attempt, 10},
    {"deliver", event_deliver,  6},
    {"repair",  event_repair,   6},
    {"wrong",   event_wrong,    2},
    {"restart", event_restart,  4},
    {"crash",   event_crash,    6},
};
/* clang-format on */

static void happen(World *w)
{
    unsigned total = 0, at;
    size_t i = 0;

    for (size_t k = 0; k < ELEMENTS(events); k++)
        total += events[k].weight;
    for (at = pick(w, total); at >= events[i].weight; i++)
        at -= events[i].weight;
    w->event = events[i].name;
    events[i].happen(w);
    check_all(w);
}

static void run(uint64_t seed, unsigned steps)
{
    World *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    w->seed = seed;
    w->random = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    w->event = "the beginning";
    w->dir = test_dir_new();
    w->path = str_printf("%s/spool.db", w->dir);
    open_at(w, w->path);
    for (w->step = 0; w->step < steps; w->step++)
        happen(w);
    check_end(w);
    spool_close(w->spool);
    row_set_done(&w->rows);
    error_done(&w->err);
    test_dir_done(&w->dir);
    free(w->path);
    free(w);
}

static uint64_t number_of_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t value;

    return text && parse_u64(text, &value) >= 0 ? value : otherwise;
}

static void the_spool_does_what_its_model_does(void **state)
{
    unsigned steps = (unsigned)number_of_environment("MERVIS_MODEL_STEPS", STEPS);
    uint64_t seed = number_of_environment("MERVIS_MODEL_SEED", 0);

    if (seed)
        run(seed, steps);
    for (uint64_t s = 1; !seed && s <= SEEDS; s++)
        run(s, steps);
}

TEST_MAIN(cmocka_unit_test(the_spool_does_what_its_model_does))
