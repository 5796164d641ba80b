/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/crawlerd/delivery.h"

#include <errno.h>

#include "agent/base/crash.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"

#define LANES_PER_TABLE  2
#define LANES            (SPOOL_TABLES * LANES_PER_TABLE)
#define RETRY_SPOOL_USEC (5 * SECOND)

typedef enum TableState {
    TABLE_UNKNOWN, /* to be looked at before anything is sent */
    TABLE_CHECKING,
    TABLE_READY,
} TableState;

typedef struct Table {
    Delivery *delivery;
    int number;
    TableState state;
    Errander *errander;
    uint64_t paused_until_usec; /* boottime */
    bool said;                  /* its trouble was told */
    Error error;
} Table;

/* One batch on its way. */
typedef struct Lane {
    Delivery *delivery;
    bool busy;
    bool blamed; /* its job failed on a row: the table is looked at first */
    SpoolBatch batch;
    SpoolReader *reader;
    Errander *errander;
    uint64_t bad_offset;
    char *reason;
} Lane;

struct Delivery {
    ErranderContext context;
    Spool *spool;
    DeliveryHandlers handlers;
    Table tables[SPOOL_TABLES];
    Lane lanes[LANES];
    Timer *timer;
    bool flushing;
    struct {
        int64_t number;      /* the open batch that was seen last */
        uint64_t since_usec; /* boottime: since when it is open */
        uint64_t frozen_at_usec; /* boottime of the table's last freeze; 0: none since we started */
    } open[SPOOL_TABLES];
    Errander *writers; /* looks for another writer */
    uint64_t writers_at_usec;
    bool other_writer;
    Error error; /* of the spool or of a local sink */
    bool failed; /* … in this look */
    bool was_busy;
};

static void pump(Delivery *d);

/* --- Saying --------------------------------------------------------------------------------- */

static void table_trouble(Table *table, const Error *err, uint64_t wait_usec)
{
    Delivery *d = table->delivery;
    bool same = table->said && streq_ptr(table->error.message, err->message);

    table->paused_until_usec = usec_add(now_boottime_usec(), wait_usec);
    error_done(&table->error);
    (void)error_copy(&table->error, err);
    table->said = true;
    if (!same)
        d->handlers.trouble(table->number, err, wait_usec, d->handlers.userdata);
}

static void table_well(Table *table)
{
    Delivery *d = table->delivery;

    table->paused_until_usec = 0;
    error_done(&table->error);
    if (table->said)
        d->handlers.trouble(table->number, NULL, 0, d->handlers.userdata);
    table->said = false;
}

static void spool_trouble(Delivery *d, const Error *err)
{
    bool same = streq_ptr(d->error.message, err->message);

    d->failed = true;
    error_done(&d->error);
    (void)error_copy(&d->error, err);
    if (!same)
        d->handlers.trouble(-1, err, RETRY_SPOOL_USEC, d->handlers.userdata);
    (void)timer_set(d->timer, RETRY_SPOOL_USEC, SECOND);
}

static void spool_well(Delivery *d)
{
    if (d->error.code == 0)
        return;
    error_done(&d->error);
    d->handlers.trouble(-1, NULL, 0, d->handlers.userdata);
}

/* --- Lanes ---------------------------------------------------------------------------------- */

static void lane_clear(Lane *lane)
{
    lane->errander = errander_free(lane->errander);
    lane->reader = spool_reader_free(lane->reader);
    free(lane->reason);
    *lane = (Lane){.delivery = lane->delivery};
}

static void lane_finish(Lane *lane, int r, const Error *err)
{
    Delivery *d = lane->delivery;

    lane_clear(lane);
    if (r < 0)
        spool_trouble(d, err);
}

static void batch_delivered(Lane *lane)
{
    Delivery *d = lane->delivery;
    auto_error Error err = {0};
    SpoolBatch batch = lane->batch;
    int r;

    crash_point("delivered.before-commit");
    r = spool_delivered(d->spool, &batch, &err);
    crash_point("delivered.after-commit");
    table_well(&d->tables[batch.table]);
    lane_finish(lane, r, &err);
    if (r >= 0)
        d->handlers.delivered(&batch, d->handlers.userdata);
}

static void next_attempt(Lane *lane, uint64_t wait_usec)
{
    Delivery *d = lane->delivery;
    Table *table = &d->tables[lane->batch.table];
    auto_error Error err = {0};
    int r;

    crash_point("attempt.before-commit");
    r = spool_batch_next_attempt(d->spool, &lane->batch, &err);
    crash_point("attempt.after-commit");
    table->paused_until_usec =
        MAX_OF(table->paused_until_usec, usec_add(now_boottime_usec(), wait_usec));
    lane_finish(lane, r, &err);
}

static bool repairs_are_spent(Delivery *d, int table, Error *err)
{
    SpoolDay day = {0};

    if (spool_day(d->spool, table, (int64_t)now_realtime_usec(), &day, err) < 0)
        return false;
    return day.repairs >= DELIVERY_REPAIRS_MAX;
}

/* The table is as it should be, so the row is to blame (or the size). */
static void repair(Lane *lane)
{
    Delivery *d = lane->delivery;
    Table *table = &d->tables[lane->batch.table];
    auto_error Error err = {0};
    int r;

    if (repairs_are_spent(d, table->number, &err)) {
        (void)error_set(&err, -EDQUOT, ERROR_INVALID,
                        "%d loads of this table were repaired today: something is wrong with its "
                        "rows: %s",
                        DELIVERY_REPAIRS_MAX, lane->reason);
        (void)error_remedy(&err, -EDQUOT, "agentctl crawl dead-letters shows the refused rows");
        table_trouble(table, &err, DAY - now_realtime_usec() % DAY);
        error_done(&err);
        next_attempt(lane, 0);
        return;
    }
    crash_point("repair.before-commit");
    r = spool_repair(d->spool, &lane->batch, lane->bad_offset, lane->reason, &err);
    crash_point("repair.after-commit");
    lane_finish(lane, r, &err);
}

static void batch_wrong(Lane *lane, const Error *why)
{
    Delivery *d = lane->delivery;
    auto_error Error err = {0};
    int r = spool_batch_wrong(d->spool, &lane->batch, &err);

    d->handlers.trouble(lane->batch.table, why, 0, d->handlers.userdata);
    lane_finish(lane, r, &err);
}

static void blame(Lane *lane, const Errand *e, uint64_t bad_offset)
{
    lane->blamed = true;
    lane->bad_offset = bad_offset;
    if (str_set(&lane->reason, error_text(&e->error)) < 0)
        lane->reason = NULL;
}

static void on_batch(Errander *errander, Errand *e, void *userdata)
{
    Lane *lane = userdata;
    Delivery *d = lane->delivery;
    Table *table = &d->tables[lane->batch.table];

    if (e->recheck_table && table->state == TABLE_READY)
        table->state = TABLE_UNKNOWN;
    switch (e->state) {
    case ERRAND_ASKING:
        table_trouble(table, &e->error, e->wait_usec);
        return; /* it goes on by itself */
    case ERRAND_DONE:
        batch_delivered(lane);
        break;
    case ERRAND_NEXT_TRY:
        if (e->error.kind != ERROR_TEMPORARY || lane->batch.attempt >= ERRANDER_PATIENCE)
            table_trouble(table, &e->error, e->wait_usec);
        next_attempt(lane, e->wait_usec);
        break;
    case ERRAND_BAD_ROW:
        blame(lane, e, e->bad_offset);
        break; /* the table is looked at first */
    case ERRAND_TOO_LARGE:
        blame(lane, e, SINK_OFFSET_UNKNOWN);
        repair(lane);
        break;
    case ERRAND_PAUSED:
        table_trouble(table, &e->error, e->wait_usec);
        break; /* it goes on by itself */
    case ERRAND_WRONG:
        batch_wrong(lane, &e->error);
        break;
    }
    pump(d);
}

static SinkBatch sink_batch_of(const SpoolBatch *batch)
{
    SinkBatch ret = {.table = (SinkTable)batch->table,
                     .rows = batch->rows,
                     .bytes = batch->bytes,
                     .attempt = batch->attempt,
                     .asked = batch->asked};

    (void)snprintf(ret.id, sizeof(ret.id), "%s", batch->id);
    (void)snprintf(ret.sha256, sizeof(ret.sha256), "%s", batch->sha256);
    return ret;
}

static int store_locally(Lane *lane, Error *err)
{
    Delivery *d = lane->delivery;
    SinkBatch batch = sink_batch_of(&lane->batch);
    int r =
        d->context.sink->ops->store(d->context.sink, &batch, spool_reader_row, lane->reader, err);

    crash_point("stored.before-commit");
    return r;
}

static int lane_send(Lane *lane, Error *err)
{
    Delivery *d = lane->delivery;
    SinkSource source = {
        .seek = spool_reader_seek, .read = spool_reader_read, .userdata = lane->reader};
    SinkBatch batch = sink_batch_of(&lane->batch);
    int r;

    /* Whether it was asked before is what the errand begins with; that it is asked now must be on
     * disk before it leaves. */
    r = spool_batch_asked(d->spool, &lane->batch, err);
    crash_point("asked.after-commit");
    if (r < 0)
        return r;
    r = errander_new(&d->context, on_batch, lane, &lane->errander);
    if (r < 0)
        return error_oom(err);
    errand_init_batch(errander_errand(lane->errander), &batch, &source);
    errander_go(lane->errander, 0);
    return 0;
}

static void lane_start(Lane *lane, const SpoolBatch *batch)
{
    Delivery *d = lane->delivery;
    auto_error Error err = {0};
    int r;

    lane->busy = true;
    lane->batch = *batch;
    lane->bad_offset = SINK_OFFSET_UNKNOWN;
    r = spool_reader_new(d->spool, batch, &lane->reader, &err);
    if (r >= 0 && !d->context.sink->ops->is_local)
        r = lane_send(lane, &err);
    else if (r >= 0) {
        r = store_locally(lane, &err);
        if (r >= 0) {
            batch_delivered(lane);
            return;
        }
    }
    if (r < 0)
        lane_finish(lane, r, &err);
}

static Lane *free_lane(Delivery *d, int table)
{
    for (size_t i = 0; i < LANES_PER_TABLE; i++) {
        Lane *lane = &d->lanes[(size_t)table * LANES_PER_TABLE + i];

        if (!lane->busy)
            return lane;
    }
    return NULL;
}

static bool is_on_its_way(const Delivery *d, const SpoolBatch *batch)
{
    for (size_t i = 0; i < LANES; i++)
        if (d->lanes[i].busy && d->lanes[i].batch.number == batch->number)
            return true;
    return false;
}

/* --- Tables --------------------------------------------------------------------------------- */

static void blamed_lanes(Delivery *d, int table, bool table_is_fine)
{
    for (size_t i = 0; i < LANES_PER_TABLE; i++) {
        Lane *lane = &d->lanes[(size_t)table * LANES_PER_TABLE + i];

        if (!lane->busy || !lane->blamed)
            continue;
        if (table_is_fine)
            repair(lane);
        else
            next_attempt(lane, 0);
    }
}

static void on_table(Errander *errander, Errand *e, void *userdata)
{
    Table *table = userdata;
    Delivery *d = table->delivery;

    if (e->state == ERRAND_PAUSED || e->state == ERRAND_ASKING) {
        table_trouble(table, &e->error, e->wait_usec);
        blamed_lanes(d, table->number, /* table_is_fine= */ false);
        return; /* it goes on by itself */
    }
    table->errander = errander_free(table->errander);
    table->state = TABLE_READY;
    table_well(table);
    blamed_lanes(d, table->number, /* table_is_fine= */ true);
    pump(d);
}

static void table_check(Table *table)
{
    Delivery *d = table->delivery;

    if (errander_new(&d->context, on_table, table, &table->errander) < 0)
        return;
    table->state = TABLE_CHECKING;
    errand_init_table(errander_errand(table->errander), (SinkTable)table->number);
    errander_go(table->errander, 0);
}

/* A job failed on a row: is it the row, or has the table changed? */
static void look_at_blamed(Delivery *d)
{
    for (size_t i = 0; i < LANES; i++)
        if (d->lanes[i].busy && d->lanes[i].blamed &&
            d->tables[d->lanes[i].batch.table].state == TABLE_UNKNOWN)
            table_check(&d->tables[d->lanes[i].batch.table]);
}

/* Whether something may be sent to it now; looks at it first when need be. */
static bool table_may_load(Delivery *d, Table *table)
{
    if (d->context.sink->ops->is_local)
        return true;
    /* The view over both is made with the second, so the first comes first, whether or not it gets
     * rows. */
    if (table->state == TABLE_UNKNOWN && d->tables[0].state == TABLE_READY)
        table_check(table);
    else if (d->tables[0].state == TABLE_UNKNOWN)
        table_check(&d->tables[0]);
    return table->state == TABLE_READY && now_boottime_usec() >= table->paused_until_usec;
}

/* Attempts that the server does not know yet count against the day. */
static bool day_has_room(Delivery *d, Table *table, const SpoolBatch *batch)
{
    auto_error Error err = {0};
    SpoolDay day = {0};
    uint64_t wait = DAY - now_realtime_usec() % DAY;

    if (d->context.sink->ops->is_local || batch->asked ||
        spool_day(d->spool, table->number, (int64_t)now_realtime_usec(), &day, &err) < 0)
        return true;
    if (day.loads < DELIVERY_LOADS_MAX &&
        day.partitions + batch->partitions <= DELIVERY_PARTITIONS_MAX)
        return true;
    (void)error_set(&err, -EDQUOT, ERROR_THROTTLED,
                    "today's %llu loads and %llu partition changes of table %s are near what "
                    "BigQuery allows; the rows wait for 00:00 UTC",
                    (unsigned long long)day.loads, (unsigned long long)day.partitions,
                    sink_table_suffix((SinkTable)table->number));
    (void)error_remedy(&err, -EDQUOT, "set a longer `flush` in the plan's sink");
    table_trouble(table, &err, wait);
    return false;
}

/* --- Another writer ------------------------------------------------------------------------- */

static void on_writers(Errander *errander, Errand *e, void *userdata)
{
    Delivery *d = userdata;
    bool other = e->state == ERRAND_DONE && e->has_other_writer;

    if (e->state == ERRAND_DONE && other != d->other_writer) {
        d->other_writer = other;
        d->handlers.other_writer(other ? e->other_instance : NULL, d->handlers.userdata);
    }
    /* Whoever may not list jobs goes without this check: it is a safeguard. */
    d->writers = errander_free(d->writers);
    d->writers_at_usec = now_boottime_usec();
    delivery_kick(d); /* for the time of the next look */
}

/* From the beginning on, and whether or not anything is to be sent: who pauses must not have fetched
 * for hours what another sends. */
static void look_for_writers(Delivery *d, uint64_t *wait)
{
    const Sink *sink = d->context.sink;
    uint64_t interval = MAX_OF(sink->flush_usec, MINUTE), now = now_realtime_usec(), passed;

    if (sink->ops->is_local || sink->second_writer || d->writers)
        return;
    passed = now_boottime_usec() - d->writers_at_usec;
    if (d->writers_at_usec != 0 && passed < interval) {
        *wait = MIN_OF(*wait, interval - passed);
        return;
    }
    if (errander_new(&d->context, on_writers, d, &d->writers) < 0)
        return;
    /* Only what was begun since we are here: a dead machine's jobs are no writer. */
    errand_init_jobs(errander_errand(d->writers),
                     MAX_OF(sink->identity.started_usec, now - 3 * interval),
                     /* finished_too= */ true);
    errander_go(d->writers, 0);
}

/* --- What is due ---------------------------------------------------------------------------- */

/* How long an open batch of that age still gathers rows. `flush` is the pause between two loads and
 * not a delay of every row: after a quiet time the first rows go as soon as those that come with
 * them are here. */
static uint64_t pause_before_freeze(const Delivery *d, int table, uint64_t age, uint64_t flush)
{
    uint64_t frozen_at = d->open[table].frozen_at_usec, now = now_boottime_usec();
    uint64_t rest = frozen_at == 0 || now - frozen_at >= flush ? 0 : flush - (now - frozen_at);
    uint64_t gather = MIN_OF(flush, (uint64_t)DELIVERY_GATHER_USEC);

    if (d->flushing || age >= flush)
        return 0;
    return MIN_OF(flush - age, MAX_OF(rest, age < gather ? gather - age : 0));
}

/* By the wall clock only when a batch is seen first, since it may be of a process before. */
static uint64_t age_of_open(Delivery *d, const SpoolBatch *batch)
{
    uint64_t now = now_boottime_usec(), wall = now_realtime_usec();
    uint64_t opened = (uint64_t)batch->opened_usec;

    if (d->open[batch->table].number != batch->number) {
        d->open[batch->table].number = batch->number;
        d->open[batch->table].since_usec = now - MIN_OF(now, wall > opened ? wall - opened : 0);
    }
    return now - d->open[batch->table].since_usec;
}

/* Closes open batches that are old enough; `*wait`: until the next one will be. */
static int freeze_due(Delivery *d, uint64_t *wait, Error *err)
{
    uint64_t flush = d->context.sink->flush_usec;
    SpoolBatch batch;
    int r;

    for (int table = 0; table < SPOOL_TABLES; table++) {
        uint64_t age, pause;

        r = spool_open_batch(d->spool, table, &batch, err);
        if (r < 0)
            return r;
        if (r == 0)
            continue;
        age = age_of_open(d, &batch);
        pause = pause_before_freeze(d, table, age, flush);
        if (pause > 0) {
            *wait = MIN_OF(*wait, pause);
            continue;
        }
        crash_point("freeze.before-commit");
        r = spool_freeze(d->spool, table, err);
        crash_point("freeze.after-commit");
        if (r < 0)
            return r;
        d->open[table].frozen_at_usec = now_boottime_usec();
    }
    return 0;
}

/* Sends what can be sent. 1 when something is left (on its way or held up). */
static int send_due(Delivery *d, uint64_t *wait, Error *err)
{
    int64_t after = 0;
    SpoolBatch batch;
    int r, left = 0;

    while ((r = spool_next_frozen(d->spool, after, &batch, err)) > 0) {
        Table *table = &d->tables[batch.table];
        uint64_t now = now_boottime_usec();
        Lane *lane;

        after = batch.number;
        left = 1;
        if (is_on_its_way(d, &batch))
            continue;
        lane = free_lane(d, batch.table);
        if (!lane) {
            if (!free_lane(d, !batch.table))
                break;
            continue;
        }
        if (!table_may_load(d, table) || !day_has_room(d, table, &batch)) {
            if (table->paused_until_usec > now)
                *wait = MIN_OF(*wait, table->paused_until_usec - now);
            continue;
        }
        lane_start(lane, &batch);
        if (d->failed)
            break;
        if (!lane->busy) /* a local sink has it already */
            after = 0;
    }
    return r < 0 ? r : left;
}

bool delivery_is_idle(const Delivery *d)
{
    SpoolBatch batch;

    for (size_t i = 0; i < LANES; i++)
        if (d->lanes[i].busy)
            return false;
    for (int table = 0; table < SPOOL_TABLES; table++)
        if (spool_open_batch(d->spool, table, &batch, NULL) != 0)
            return false;
    return spool_next_frozen(d->spool, 0, &batch, NULL) == 0;
}

bool delivery_is_stuck(Delivery *d, uint64_t within_usec)
{
    uint64_t until = usec_add(now_boottime_usec(), within_usec);
    int64_t after = 0;
    SpoolBatch batch;

    while (spool_next_frozen(d->spool, after, &batch, NULL) > 0) {
        if (d->tables[batch.table].paused_until_usec <= until)
            return false;
        after = batch.number;
    }
    for (int table = 0; table < SPOOL_TABLES; table++)
        if (spool_open_batch(d->spool, table, &batch, NULL) > 0 &&
            d->tables[table].paused_until_usec <= until)
            return false;
    return after > 0;
}

static void pump(Delivery *d)
{
    auto_error Error err = {0};
    uint64_t wait = USEC_INFINITY;
    bool busy;
    int r;

    d->failed = false;
    look_at_blamed(d);
    r = freeze_due(d, &wait, &err);
    if (r >= 0)
        r = send_due(d, &wait, &err);
    if (r < 0) {
        spool_trouble(d, &err);
        return;
    }
    if (!d->failed)
        spool_well(d);
    look_for_writers(d, &wait);
    if (wait != USEC_INFINITY && !d->failed)
        (void)timer_set(d->timer, wait + MSEC, SECOND / 4);
    busy = !delivery_is_idle(d);
    if (!busy && (d->was_busy || d->flushing)) {
        d->flushing = false;
        d->was_busy = false;
        d->handlers.idle(d->handlers.userdata);
        return;
    }
    d->was_busy = busy;
}

static void on_timer(void *userdata)
{
    pump(userdata);
}

void delivery_kick(Delivery *d)
{
    /* At the next turn: many documents, one look. */
    if (!timer_is_set(d->timer) || timer_left_usec(d->timer) > 50 * MSEC)
        (void)timer_set(d->timer, 50 * MSEC, 50 * MSEC);
}

void delivery_flush(Delivery *d)
{
    d->flushing = true;
    (void)timer_set(d->timer, 0, 0);
}

int delivery_new(const ErranderContext *context, Spool *spool, const DeliveryHandlers *handlers,
                 Delivery **ret, Error *err)
{
    auto_(delivery_freep) Delivery *d = calloc(1, sizeof(*d));

    if (!d || timer_new(context->event, on_timer, d, &d->timer) < 0)
        return error_oom(err);
    d->context = *context;
    d->spool = spool;
    d->handlers = *handlers;
    for (int i = 0; i < SPOOL_TABLES; i++)
        d->tables[i] = (Table){.delivery = d, .number = i};
    for (size_t i = 0; i < LANES; i++)
        d->lanes[i].delivery = d;
    delivery_kick(d);
    *ret = take_ptr(d);
    return 0;
}

Delivery *delivery_free(Delivery *d)
{
    if (!d)
        return NULL;
    for (size_t i = 0; i < LANES; i++)
        lane_clear(&d->lanes[i]);
    for (size_t i = 0; i < SPOOL_TABLES; i++) {
        (void)errander_free(d->tables[i].errander);
        error_done(&d->tables[i].error);
    }
    (void)errander_free(d->writers);
    (void)timer_free(d->timer);
    error_done(&d->error);
    free(d);
    return NULL;
}

void delivery_status(Delivery *d, DeliveryStatus *ret)
{
    uint64_t flush = MAX_OF(d->context.sink->flush_usec, SECOND);

    *ret = (DeliveryStatus){.loads_forecast = DAY / flush};
    for (size_t i = 0; i < LANES; i++)
        ret->in_flight += d->lanes[i].busy;
    for (int i = SPOOL_TABLES - 1; i >= 0; i--) {
        if (spool_day(d->spool, i, (int64_t)now_realtime_usec(), &ret->today[i], NULL) < 0)
            ret->today[i] = (SpoolDay){0};
        if (d->tables[i].error.code < 0) {
            ret->message = d->tables[i].error.message;
            ret->remedy = d->tables[i].error.remedy;
        }
    }
    if (d->error.code < 0) {
        ret->message = d->error.message;
        ret->remedy = d->error.remedy;
    }
}
