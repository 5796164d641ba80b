/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/bar-fixture.h"

#include <errno.h>
#include <fcntl.h>

#include "agent/base/time.h"
#include "crawler/spool/keys.h"
#include "crawler/spool/spool.h"

static int table_of(const char *interval)
{
    return streq(interval, "1d");
}

typedef struct Fixture {
    char *dir, *path;
    Spool *spool;
    Error err;
    RowSet rows;
} Fixture;

static void reopen(Fixture *f)
{
    auto_free char *aside = NULL;

    f->spool = spool_close(f->spool);
    assert_ok(spool_open(f->path, &SPOOL_LIMITS_DEFAULT, &f->spool, &aside, &f->err), &f->err);
    assert_null(aside);
}

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    f->dir = test_dir_new();
    f->path = str_printf("%s/spool.db", f->dir);
    reopen(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    spool_close(f->spool);
    row_set_done(&f->rows);
    error_done(&f->err);
    test_dir_done(&f->dir);
    free(f->path);
    free(f);
    return 0;
}

static SpoolAccepted accept_old_rows(Fixture *f)
{
    SpoolDocument document = {.job = "us",
                              .symbol = "AAPL",
                              .range = "",
                              .rows = &f->rows,
                              .is_old = true,
                              .table_of = table_of,
                              .now_usec = T0};
    SpoolAccepted count;

    assert_ok(spool_accept(f->spool, &document, &count, &f->err), &f->err);
    row_set_clear(&f->rows);
    return count;
}

static SpoolAccepted accept_rows(Fixture *f, bool live)
{
    Cursor cursor = CURSOR_INIT;
    SpoolDocument document = {.job = "us",
                              .symbol = "AAPL",
                              .range = "",
                              .cursor = &cursor,
                              .rows = &f->rows,
                              .live = live,
                              .table_of = table_of,
                              .now_usec = T0};
    SpoolAccepted count;

    cursor.newest_final_usec = f->rows.n ? f->rows.rows[f->rows.n - 1].ts_usec : T0;
    assert_ok(spool_accept(f->spool, &document, &count, &f->err), &f->err);
    row_set_clear(&f->rows);
    return count;
}

static void fill(Fixture *f, size_t n, int64_t from)
{
    for (size_t i = 0; i < n; i++)
        add_bar(&f->rows, "AAPL", from + (int64_t)(i * MINUTE), "258.1");
    (void)accept_rows(f, false);
}

static char *read_all(Fixture *f, const SpoolBatch *batch, size_t piece)
{
    auto_(spool_reader_freep) SpoolReader *reader = NULL;
    char *text = calloc(1, batch->bytes + 1);
    size_t at = 0;
    ptrdiff_t n;

    assert_ok(spool_reader_new(f->spool, batch, &reader, &f->err), &f->err);
    assert_int_equal(spool_reader_seek(reader, 0), 0);
    while (at < batch->bytes &&
           (n = spool_reader_read(text + at, MIN_OF(piece, (size_t)batch->bytes - at), reader)) > 0)
        at += (size_t)n;
    assert_int_equal(at, batch->bytes);
    return text;
}

static size_t count_lines(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

/* --- Rows ----------------------------------------------------------------------------------- */

static void a_bar_that_comes_back_the_same_is_no_second_row(void **state)
{
    Fixture *f = *state;
    SpoolAccepted count;

    add_bar(&f->rows, "AAPL", T0, "258.1");
    add_bar(&f->rows, "AAPL", T0 + (int64_t)MINUTE, "258.2");
    count = accept_rows(f, false);
    assert_int_equal(count.rows, 2);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);

    reopen(f);
    add_bar(&f->rows, "AAPL", T0 + (int64_t)MINUTE, "258.2")->adj_close = amount("12.5");
    add_bar(&f->rows, "AAPL", T0 + 2 * (int64_t)MINUTE, "258.3");
    count = accept_rows(f, false);
    assert_int_equal(count.rows, 1);
    assert_int_equal(count.known, 1);
}

static void a_bar_that_comes_back_changed_is_the_next_revision(void **state)
{
    Fixture *f = *state;
    auto_free char *text = NULL;
    SpoolBatch batch;
    SpoolAccepted count;

    add_bar(&f->rows, "AAPL", T0, "258.1");
    (void)accept_rows(f, false);
    add_bar(&f->rows, "AAPL", T0, "258.2");
    count = accept_rows(f, false);
    assert_int_equal(count.rows, 1);
    assert_int_equal(count.revisions, 1);
    add_bar(&f->rows, "AAPL", T0, "258.1"); /* and back: said again, so a third one */
    assert_int_equal(accept_rows(f, false).revisions, 1);
    assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
    text = read_all(f, &batch, 7);
    assert_contains(text, "\"close\":\"258.1\"");
    assert_contains(text, "\"revision\":2");
}

static void an_old_bar_fills_a_gap_and_changes_nothing(void **state)
{
    Fixture *f = *state;
    SpoolAccepted count;

    add_bar(&f->rows, "AAPL", T0, "258.1");
    (void)accept_rows(f, false);
    assert_ok(spool_add_known(f->spool, "yahoo-chart", "AAPL", "1m", ROW_BAR, T0 + (int64_t)MINUTE,
                              0, /* is_final= */ true, &f->err),
              &f->err);
    for (int64_t i = 0; i < 3; i++)
        add_bar(&f->rows, "AAPL", T0 + i * (int64_t)MINUTE, "257.9");
    count = accept_old_rows(f);
    assert_int_equal(count.rows, 1);
    assert_int_equal(count.known, 2);
    assert_int_equal(count.revisions, 0);
    /* Nor are its values taken for those that the sink has. */
    add_bar(&f->rows, "AAPL", T0 + (int64_t)MINUTE, "258.2");
    assert_int_equal(accept_rows(f, false).known, 1);
}

/* Its final value came in a document that was refused: the replay of that is all there is of it. */
static void an_old_final_value_ends_a_bar_that_went_out_live(void **state)
{
    Fixture *f = *state;
    SpoolAccepted count;

    for (int64_t i = 0; i < 2; i++)
        add_bar(&f->rows, "AAPL", T0 + i * (int64_t)MINUTE, "258.1")->is_final = false;
    assert_int_equal(accept_rows(f, true).rows, 2);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    reopen(f);

    add_bar(&f->rows, "AAPL", T0, "258.1"); /* said before, but not as the last word */
    count = accept_old_rows(f);
    assert_int_equal(count.rows, 1);
    assert_int_equal(count.revisions, 1);
    /* Once: what is final stands against what is older. */
    add_bar(&f->rows, "AAPL", T0, "258.1");
    add_bar(&f->rows, "AAPL", T0, "257.7");
    count = accept_old_rows(f);
    assert_int_equal(count.rows, 0);
    assert_int_equal(count.known, 2);

    /* Nor is that forgotten with the values. */
    assert_ok(spool_compact(f->spool, T0 + 30 * (int64_t)DAY, &f->err), &f->err);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    reopen(f);
    for (int64_t i = 0; i < 2; i++)
        add_bar(&f->rows, "AAPL", T0 + i * (int64_t)MINUTE, "259.9");
    count = accept_rows(f, false);
    assert_int_equal(count.revisions, 1);
    assert_int_equal(count.known, 1);
}

/* Byte by byte, as they lie on every disk: another layout is another version of the spool. */
static void keys_are_written_as_ever(void **state)
{
    static const char written[] =
        "\x00\x80\xae\xac\xac\x0d\x08\x07\x06\x05\x04\x03\x02\x01\xa1\x78\x03";
    const size_t size = sizeof(written) - 1;
    auto_(keys_done) Keys keys = {0};
    auto_buf Buf text = BUF_INIT(100);

    assert_int_equal(keys_load(&keys, written, size), 0);
    assert_int_equal(keys.n, 2);
    assert_int_equal(keys.items[0].ts_usec, T0);
    assert_int_equal(keys.items[0].hash, UINT64_C(0x0102030405060708));
    assert_int_equal(keys.items[1].ts_usec - keys.items[0].ts_usec, MINUTE);
    assert_int_equal(keys.items[1].hash, KEYS_UNKNOWN);
    assert_int_equal(keys.items[1].revision, 3);
    for (size_t i = 0; i < 2; i++)
        assert_false(keys.items[i].not_final);
    assert_int_equal(keys_format(&keys, &text), 0);
    assert_int_equal(text.size, size);
    assert_memory_equal(text.data, written, size);

    keys.items[1].not_final = true;
    buf_clear(&text);
    assert_int_equal(keys_format(&keys, &text), 0);
    assert_int_equal(text.size, size);
    assert_int_equal(keys_load(&keys, text.data, text.size), 0);
    assert_true(keys.items[1].not_final && keys.items[1].kind == 1);
    assert_false(keys.items[0].not_final);
}

static void a_bar_that_is_not_final_waits_unless_live_is_wanted(void **state)
{
    Fixture *f = *state;
    SpoolAccepted count;

    add_bar(&f->rows, "AAPL", T0, "258.1")->is_final = false;
    count = accept_rows(f, false);
    assert_int_equal(count.rows, 0);
    assert_int_equal(count.not_final, 1);
    add_bar(&f->rows, "AAPL", T0, "258.1")->is_final = false;
    assert_int_equal(accept_rows(f, true).rows, 1);
    add_bar(&f->rows, "AAPL", T0, "258.1");
    assert_int_equal(accept_rows(f, true).revisions, 1);
}

static void a_key_that_the_sink_has_is_no_row_and_its_values_are_learned(void **state)
{
    Fixture *f = *state;

    assert_ok(spool_add_known(f->spool, "yahoo-chart", "AAPL", "1m", ROW_BAR, T0, 4,
                              /* is_final= */ true, &f->err),
              &f->err);
    add_bar(&f->rows, "AAPL", T0, "258.1");
    assert_int_equal(accept_rows(f, false).known, 1);
    add_bar(&f->rows, "AAPL", T0, "258.2");
    assert_int_equal(accept_rows(f, false).revisions, 1);
}

/* A machine that is no more delivered a bar while it was made. */
static void a_live_bar_that_the_sink_has_gets_its_final_value(void **state)
{
    Fixture *f = *state;
    SpoolAccepted count;

    for (int64_t i = 0; i < 2; i++)
        assert_ok(spool_add_known(f->spool, "yahoo-chart", "AAPL", "1m", ROW_BAR,
                                  T0 + i * (int64_t)MINUTE, 4, /* is_final= */ i == 1, &f->err),
                  &f->err);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    reopen(f);
    for (int64_t i = 0; i < 2; i++)
        add_bar(&f->rows, "AAPL", T0 + i * (int64_t)MINUTE, "258.1");
    count = accept_rows(f, true);
    assert_int_equal(count.revisions, 1);
    assert_int_equal(count.known, 1);
    add_bar(&f->rows, "AAPL", T0, "258.1");
    assert_int_equal(accept_rows(f, true).known, 1);
}

static void rows_and_cursor_come_and_go_together(void **state)
{
    Fixture *f = *state;
    FetchMemory memory = spool_fetch_memory(f->spool);
    Cursor cursor;
    SpoolBatch batch;

    fill(f, 3, T0);
    /* No sync: the process dies here. */
    reopen(f);
    memory = spool_fetch_memory(f->spool);
    assert_int_equal(memory.cursor_load(memory.userdata, "us", "AAPL", "", &cursor, &f->err), 0);
    assert_int_equal(spool_open_batch(f->spool, 0, &batch, &f->err), 0);

    fill(f, 3, T0);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    reopen(f);
    memory = spool_fetch_memory(f->spool);
    assert_int_equal(memory.cursor_load(memory.userdata, "us", "AAPL", "", &cursor, &f->err), 1);
    assert_int_equal(cursor.newest_final_usec, T0 + 2 * (int64_t)MINUTE);
    assert_int_equal(spool_open_batch(f->spool, 0, &batch, &f->err), 1);
    assert_int_equal(batch.rows, 3);
}

static void a_row_that_the_table_would_refuse_is_a_dead_letter_and_holds_nobody_up(void **state)
{
    Fixture *f = *state;
    SpoolAccepted count;

    add_bar(&f->rows, "AAPL", T0, "123456789012345678901234567890"); /* 30 digits */
    add_bar(&f->rows, "AAPL", T0 + (int64_t)MINUTE, "0.0000000001");
    add_bar(&f->rows, "AAPL", INT64_MAX / 2, "1");
    add_bar(&f->rows, "AAPL", T0 + 2 * (int64_t)MINUTE, "1");
    count = accept_rows(f, false);
    assert_int_equal(count.rows, 1);
    assert_int_equal(count.dead, 3);
}

static void dead_rows_are_kept_once(void **state)
{
    Fixture *f = *state;
    SpoolStatus status;

    for (int i = 0; i < 3; i++) {
        assert_ok(row_set_add_dead(&f->rows, T0, "close: too many decimals", "{\"c\":1}", 7), NULL);
        assert_int_equal(accept_rows(f, false).dead, i == 0);
    }
    assert_ok(spool_status(f->spool, &status, &f->err), &f->err);
    assert_int_equal(status.dead, 1);
}

static void old_values_are_forgotten_and_old_bars_are_still_known(void **state)
{
    Fixture *f = *state;
    const int64_t later = T0 + 30 * (int64_t)DAY;

    fill(f, 390, T0);
    add_bar(&f->rows, "AAPL", T0, "999"); /* a revision, whose number must stay */
    assert_int_equal(accept_rows(f, false).revisions, 1);
    fill(f, 5, later - (int64_t)DAY);
    assert_ok(spool_compact(f->spool, later, &f->err), &f->err);
    assert_ok(spool_compact(f->spool, later, &f->err), &f->err);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    reopen(f);

    /* Known, and with other values learned: not a revision. */
    add_bar(&f->rows, "AAPL", T0 + (int64_t)MINUTE, "1.5");
    assert_int_equal(accept_rows(f, false).known, 1);
    add_bar(&f->rows, "AAPL", T0 + (int64_t)MINUTE, "1.5");
    add_bar(&f->rows, "AAPL", T0 + (int64_t)MINUTE, "1.6");
    assert_int_equal(accept_rows(f, false).revisions, 1);
    /* Young ones are as before. */
    add_bar(&f->rows, "AAPL", later - (int64_t)DAY, "1.5");
    assert_int_equal(accept_rows(f, false).revisions, 1);
}

/* --- Batches -------------------------------------------------------------------------------- */

static void a_frozen_batch_never_changes_and_reads_the_same_in_any_pieces(void **state)
{
    Fixture *f = *state;
    auto_free char *whole = NULL, *pieces = NULL, *again = NULL;
    SpoolBatch batch, later;

    fill(f, 100, T0);
    fill(f, 100, T0 + (int64_t)DAY);
    assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
    assert_int_equal(batch.rows, 200);
    assert_int_equal(batch.partitions, 2);
    whole = read_all(f, &batch, SIZE_MAX);
    pieces = read_all(f, &batch, 13);
    assert_string_equal(whole, pieces);
    assert_int_equal(count_lines(whole), 200);

    fill(f, 100, T0 + 2 * (int64_t)DAY);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    reopen(f);
    assert_int_equal(spool_next_frozen(f->spool, 0, &later, &f->err), 1);
    assert_string_equal(later.sha256, batch.sha256);
    assert_string_equal(later.id, batch.id);
    again = read_all(f, &later, 4096);
    assert_string_equal(whole, again);
}

static void a_reader_goes_on_at_any_offset(void **state)
{
    Fixture *f = *state;
    auto_(spool_reader_freep) SpoolReader *reader = NULL;
    auto_free char *whole = NULL;
    SpoolBatch batch;
    char piece[64];

    fill(f, 30, T0);
    fill(f, 30, T0 + (int64_t)DAY);
    assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
    whole = read_all(f, &batch, SIZE_MAX);
    assert_ok(spool_reader_new(f->spool, &batch, &reader, &f->err), &f->err);
    for (uint64_t at = 0; at + sizeof(piece) <= batch.bytes; at += 97) {
        assert_int_equal(spool_reader_seek(reader, at), 0);
        assert_int_equal(spool_reader_read(piece, sizeof(piece), reader), sizeof(piece));
        assert_memory_equal(piece, whole + at, sizeof(piece));
    }
    /* Where it is already, and back. */
    for (uint64_t at = 640; at > 0; at -= 64) {
        assert_int_equal(spool_reader_seek(reader, at), 0);
        assert_int_equal(spool_reader_read(piece, 32, reader), 32);
        assert_int_equal(spool_reader_seek(reader, at + 32), 0);
        assert_int_equal(spool_reader_read(piece + 32, 32, reader), 32);
        assert_memory_equal(piece, whole + at, sizeof(piece));
    }
    assert_int_equal(spool_reader_seek(reader, batch.bytes), 0);
    assert_int_equal(spool_reader_read(piece, sizeof(piece), reader), 0);
    assert_true(spool_reader_seek(reader, batch.bytes + 1) < 0);
}

static void a_full_batch_is_frozen_by_itself(void **state)
{
    Fixture *f = *state;
    SpoolLimits limits = SPOOL_LIMITS_DEFAULT;
    SpoolBatch batch;

    limits.batch_rows = 10;
    spool_set_limits(f->spool, &limits);
    fill(f, 12, T0);
    fill(f, 3, T0 + (int64_t)DAY);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
    assert_int_equal(batch.rows, 12);
    assert_int_equal(spool_open_batch(f->spool, 0, &batch, &f->err), 1);
    assert_int_equal(batch.rows, 3);
}

/* The least that a plan may give: what was written and delivered leaves a log and free pages, more
 * than that, and in them is nothing. */
static void what_is_kept_for_speed_makes_no_spool_full(void **state)
{
    Fixture *f = *state;
    SpoolLimits limits = SPOOL_LIMITS_DEFAULT;
    SpoolStatus status = {0};
    SpoolBatch batch;

    limits.max_bytes = UINT64_C(8) << 20;
    spool_set_limits(f->spool, &limits);
    for (int64_t i = 0; i < 100 && status.disk_bytes < limits.max_bytes; i++) {
        fill(f, 4000, T0 + i * 3 * (int64_t)DAY);
        assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
        assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
        assert_ok(spool_delivered(f->spool, &batch, &f->err), &f->err);
        assert_ok(spool_status(f->spool, &status, &f->err), &f->err);
    }
    assert_true(status.disk_bytes >= limits.max_bytes);
    fill(f, 5, T0 - 90 * (int64_t)DAY);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    assert_false(spool_is_full(f->spool));
    assert_ok(spool_status(f->spool, &status, &f->err), &f->err);
    assert_true(status.disk_bytes < limits.max_bytes / 2);
    assert_int_equal(status.rows, 5);
}

static void a_delivered_batch_leaves_and_its_keys_stay(void **state)
{
    Fixture *f = *state;
    SpoolBatch batch;
    SpoolStatus status;

    fill(f, 5, T0);
    assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
    assert_ok(spool_batch_asked(f->spool, &batch, &f->err), &f->err);
    assert_ok(spool_delivered(f->spool, &batch, &f->err), &f->err);
    reopen(f);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 0);
    assert_ok(spool_status(f->spool, &status, &f->err), &f->err);
    assert_int_equal(status.rows, 0);
    assert_int_equal(status.rows_delivered, 5);
    add_bar(&f->rows, "AAPL", T0, "258.1");
    assert_int_equal(accept_rows(f, false).known, 1);
}

static void an_attempt_grows_once_and_asked_is_durable(void **state)
{
    Fixture *f = *state;
    SpoolBatch batch, again;
    SpoolDay day;

    fill(f, 5, T0);
    assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
    assert_int_equal(batch.attempt, 1);
    assert_false(batch.asked);
    assert_ok(spool_batch_asked(f->spool, &batch, &f->err), &f->err);
    reopen(f);
    assert_int_equal(spool_next_frozen(f->spool, 0, &again, &f->err), 1);
    assert_true(again.asked);
    assert_ok(spool_batch_next_attempt(f->spool, &again, &f->err), &f->err);
    reopen(f);
    assert_int_equal(spool_next_frozen(f->spool, 0, &again, &f->err), 1);
    assert_int_equal(again.attempt, 2);
    assert_false(again.asked);
    assert_ok(spool_day(f->spool, 0, (int64_t)now_realtime_usec(), &day, &f->err), &f->err);
    assert_int_equal(day.loads, 1);
}

static void one_bad_row_is_buried_and_the_others_go_on(void **state)
{
    Fixture *f = *state;
    auto_free char *whole = NULL, *mended = NULL;
    SpoolBatch batch, next;
    SpoolStatus status;
    const char *line;

    fill(f, 20, T0);
    fill(f, 20, T0 + (int64_t)DAY);
    assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
    whole = read_all(f, &batch, SIZE_MAX);
    line = whole;
    for (int i = 0; i < 27; i++)
        line = strchr(line, '\n') + 1;
    assert_ok(spool_repair(f->spool, &batch, (uint64_t)(line - whole), "refused", &f->err),
              &f->err);
    assert_int_equal(spool_next_frozen(f->spool, 0, &next, &f->err), 1);
    assert_string_not_equal(next.id, batch.id);
    assert_int_equal(next.rows, 39);
    mended = read_all(f, &next, SIZE_MAX);
    assert_int_equal(count_lines(mended), 39);
    assert_null(strstr(mended, "2026-10-08T00:07:00Z"));
    assert_non_null(strstr(mended, "2026-10-08T00:08:00Z"));
    assert_int_equal(spool_next_frozen(f->spool, next.number, &next, &f->err), 0);
    assert_ok(spool_status(f->spool, &status, &f->err), &f->err);
    assert_int_equal(status.dead, 1);
    assert_int_equal(status.rows, 39);
}

static void a_bad_row_that_nobody_names_is_found_by_halves(void **state)
{
    Fixture *f = *state;
    SpoolBatch batch;
    SpoolStatus status;
    int repairs = 0;

    fill(f, 9, T0);
    fill(f, 8, T0 + (int64_t)DAY);
    assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
    /* The sink refuses whatever holds the third minute. */
    for (int64_t after = 0; spool_next_frozen(f->spool, after, &batch, &f->err) > 0;) {
        auto_free char *text = read_all(f, &batch, SIZE_MAX);

        assert_int_equal(count_lines(text), batch.rows);
        if (strstr(text, "2026-10-07T00:03:00Z")) {
            assert_ok(spool_repair(f->spool, &batch, UINT64_MAX, "refused", &f->err), &f->err);
            repairs++;
        }
        after = batch.number;
    }
    assert_in_range(repairs, 4, 6);
    assert_ok(spool_status(f->spool, &status, &f->err), &f->err);
    assert_int_equal(status.rows, 16);
    assert_int_equal(status.dead, 1);
}

/* --- Accidents ------------------------------------------------------------------------------ */

static void a_destroyed_spool_is_moved_aside_and_begun_anew(void **state)
{
    Fixture *f = *state;
    auto_free char *aside = NULL;
    auto_close int fd = -EBADF;
    char noise[8192];

    fill(f, 5, T0);
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    f->spool = spool_close(f->spool);
    memset(noise, 0x5a, sizeof(noise));
    fd = open(f->path, O_WRONLY);
    assert_int_equal(write(fd, noise, sizeof(noise)), sizeof(noise));
    assert_ok(spool_open(f->path, &SPOOL_LIMITS_DEFAULT, &f->spool, &aside, &f->err), &f->err);
    assert_non_null(aside);
    assert_int_equal(access(aside, F_OK), 0);
    assert_int_equal(spool_is_new(f->spool, &f->err), 1);
}

static const char *const second[] = {NULL, ""}; /* the spool's version, nothing made */

/* What is on disk, changed behind the spool's back. */
static void tamper(Fixture *f, const char *sql)
{
    auto_(db_closep) Db *db = NULL;

    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    f->spool = spool_close(f->spool);
    assert_ok(db_open(f->path, second, 2, 0, &db, &f->err), &f->err);
    assert_ok(db_exec(db, sql, &f->err), &f->err);
    db = db_close(db);
}

static void after_a_damaged_block_a_reader_gives_nothing_until_it_is_sought(void **state)
{
    static const char *const damages[] = {
        "UPDATE blocks SET data = x'00' WHERE id = 2",
        "UPDATE blocks SET data = substr(data, 1, 60) || x'5a' || substr(data, 62) WHERE id = 5",
    };
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(damages); i++) {
        auto_(spool_reader_freep) SpoolReader *reader = NULL;
        auto_free char *lines = NULL, *again = NULL;
        SpoolBatch batch;

        for (int64_t day = 0; day < 3; day++)
            fill(f, 5, T0 + (day + (int64_t)i * 3) * (int64_t)DAY);
        assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
        tamper(f, damages[i]);
        reopen(f);
        assert_int_equal(spool_next_frozen(f->spool, (int64_t)i, &batch, &f->err), 1);
        lines = calloc(1, batch.bytes + 1);
        again = calloc(1, batch.bytes + 1);
        assert_ok(spool_reader_new(f->spool, &batch, &reader, &f->err), &f->err);
        assert_int_equal(spool_reader_read(lines, batch.bytes, reader), -EBADMSG);
        assert_int_equal(spool_reader_read(again, batch.bytes, reader), -EIO);
        assert_int_equal(spool_reader_seek(reader, 0), 0);
        assert_int_equal(spool_reader_read(again, 100, reader), 100);
        assert_memory_equal(again, lines, 100);
        assert_int_equal(spool_reader_seek(reader, batch.bytes - 100), 0);
        assert_int_equal(spool_reader_read(again, 100, reader), 100);
    }
}

static void damaged_keys_take_no_others_with_them(void **state)
{
    Fixture *f = *state;
    const int64_t far = T0 + 30 * (int64_t)DAY;

    fill(f, 5, T0);
    fill(f, 5, far);
    tamper(f, "UPDATE keys SET data = x'00' WHERE id = (SELECT MAX(id) FROM keys)");
    reopen(f);
#define ADD(ts)                                                                                    \
    spool_add_known(f->spool, "yahoo-chart", "AAPL", "1m", ROW_BAR, ts, 0, true, &f->err)
    assert_ok(ADD(T0 + 10 * (int64_t)MINUTE), &f->err);
    assert_int_equal(ADD(far), -EBADMSG);
    error_done(&f->err);
    assert_ok(ADD(T0 + 11 * (int64_t)MINUTE), &f->err);
#undef ADD
    assert_ok(spool_sync(f->spool, &f->err), &f->err);
    reopen(f);
    for (int64_t i = 0; i < 5; i++)
        add_bar(&f->rows, "AAPL", T0 + i * (int64_t)MINUTE, "258.1");
    assert_int_equal(accept_rows(f, false).known, 5);
}

/* Its keys lie elsewhere and its blocks are written in another way, in the same tables. */
static void a_spool_of_the_first_version_is_moved_aside_whole(void **state)
{
    Fixture *f = *state;
    auto_free char *aside = NULL;
    auto_(db_closep) Db *db = NULL;
    int64_t rows = 0;

    fill(f, 5, T0);
    tamper(f, "PRAGMA user_version = 1");
    assert_ok(spool_open(f->path, &SPOOL_LIMITS_DEFAULT, &f->spool, &aside, &f->err), &f->err);
    assert_non_null(aside);
    assert_int_equal(spool_is_new(f->spool, &f->err), 1);
    fill(f, 3, T0);
    reopen(f);

    /* What waited in it is still there. */
    assert_ok(db_open(aside, (const char *const[]){""}, 1, DB_READ_ONLY, &db, &f->err), &f->err);
    assert_int_equal(db_query_i64(db, "SELECT SUM(rows) FROM batches", &rows, &f->err, ""), 1);
    assert_int_equal(rows, 5);
}

static int see_refused(const SpoolRefused *document, void *userdata)
{
    int *n = userdata;

    assert_int_equal(document->size, 13);
    assert_memory_equal(document->body, "<html>ha</ha>", 13);
    (*n)++;
    return 0;
}

static void refused_documents_are_kept_and_bounded(void **state)
{
    Fixture *f = *state;
    SpoolRefused document = {.job = "us",
                             .symbol = "AAPL",
                             .interval = "1m",
                             .reason = "not JSON",
                             .status = 200,
                             .body = "<html>ha</ha>",
                             .size = 13};
    int n = 0;

    for (int i = 0; i < SPOOL_REFUSED_MAX + 7; i++)
        assert_ok(spool_refuse(f->spool, &document, &f->err), &f->err);
    assert_ok(spool_each_refused_body(f->spool, see_refused, &n, &f->err), &f->err);
    assert_int_equal(n, SPOOL_REFUSED_MAX);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(
    T(a_bar_that_comes_back_the_same_is_no_second_row),
    T(a_bar_that_comes_back_changed_is_the_next_revision),
    T(an_old_bar_fills_a_gap_and_changes_nothing),
    T(an_old_final_value_ends_a_bar_that_went_out_live), cmocka_unit_test(keys_are_written_as_ever),
    T(a_bar_that_is_not_final_waits_unless_live_is_wanted),
    T(a_key_that_the_sink_has_is_no_row_and_its_values_are_learned),
    T(a_live_bar_that_the_sink_has_gets_its_final_value), T(rows_and_cursor_come_and_go_together),
    T(a_row_that_the_table_would_refuse_is_a_dead_letter_and_holds_nobody_up),
    T(dead_rows_are_kept_once), T(old_values_are_forgotten_and_old_bars_are_still_known),
    T(a_frozen_batch_never_changes_and_reads_the_same_in_any_pieces),
    T(a_reader_goes_on_at_any_offset), T(a_full_batch_is_frozen_by_itself),
    T(what_is_kept_for_speed_makes_no_spool_full), T(a_delivered_batch_leaves_and_its_keys_stay),
    T(an_attempt_grows_once_and_asked_is_durable), T(one_bad_row_is_buried_and_the_others_go_on),
    T(a_bad_row_that_nobody_names_is_found_by_halves),
    T(a_destroyed_spool_is_moved_aside_and_begun_anew),
    T(after_a_damaged_block_a_reader_gives_nothing_until_it_is_sought),
    T(damaged_keys_take_no_others_with_them), T(a_spool_of_the_first_version_is_moved_aside_whole),
    T(refused_documents_are_kept_and_bounded))
