/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/base/file.h"
#include "agent/io/db.h"
#include "agent/io/gzip.h"
#include "crawler/sink/sink.h"

#define T0 INT64_C(1791331200000000)

typedef struct Rows {
    int n, at;
} Rows;

static int next_row(void *userdata, Row *ret, Error *err)
{
    Rows *rows = userdata;

    if (rows->at == rows->n)
        return 0;
    *ret = (Row){.source = "upbit-candles",
                 .symbol = "KRW-BTC",
                 .interval = "1m",
                 .ts_usec = T0 + rows->at * (int64_t)MINUTE,
                 .trade_date = 20733,
                 .ingested_usec = T0,
                 .is_final = true};
    assert_int_equal(amount_from_text("0.1", &ret->close), 0);
    rows->at++;
    return 1;
}

static SinkBatch batch(const char *id, uint64_t rows)
{
    SinkBatch b = {.rows = rows, .attempt = 1};

    (void)snprintf(b.id, sizeof(b.id), "%s", id);
    return b;
}

static int store(Sink *sink, const char *id, int n)
{
    auto_error Error err = {0};
    SinkBatch b = batch(id, (uint64_t)n);
    Rows rows = {.n = n};
    int r = sink->ops->store(sink, &b, next_row, &rows, &err);

    if (r < 0)
        fail_msg("store: %s", error_text(&err));
    return r;
}

static void sqlite_takes_a_batch_once_and_keeps_amounts_as_text(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "bars.db"), *text = NULL;
    auto_error Error err = {0};
    auto_(sink_freep) Sink *sink = NULL;
    auto_(db_closep) Db *db = NULL;
    const char *const version[] = {""};
    SinkIdentity identity = {0};
    int64_t n = 0;

    assert_ok(sink_new(NULL, dir, NULL, &identity, &sink, &err), &err);
    assert_string_equal(sink->ops->name, "sqlite");
    assert_int_equal(store(sink, "a", 3), 1);
    assert_int_equal(store(sink, "a", 3), 0); /* the crash came before the spool knew */
    assert_int_equal(store(sink, "b", 5), 1); /* three of them are there already */
    assert_ok(db_open(path, version, ELEMENTS(version), DB_READ_ONLY, &db, &err), &err);
    assert_int_equal(db_query_i64(db, "SELECT COUNT(*) FROM bars", &n, &err, ""), 1);
    assert_int_equal(n, 5);
    assert_int_equal(db_query_text(db, "SELECT close || ' ' || ts || ' ' || trade_date FROM bars",
                                   &text, &err, ""),
                     1);
    assert_string_equal(text, "0.1 2026-10-07T00:00:00Z 2026-10-07");
}

static size_t count_files(const char *dir, const char *suffix, Buf *content)
{
    const char *const names[] = {"a", "b", NULL};
    size_t n = 0;

    for (const char *const *name = names; *name; name++) {
        auto_free char *path = str_printf("%s/bars-%s%s", dir, *name, suffix);
        auto_error Error err = {0};

        if (access(path, F_OK) < 0)
            continue;
        n++;
        assert_ok(file_read(path, 1 << 20, content, &err), &err);
    }
    return n;
}

static size_t lines_of(const Buf *text)
{
    size_t n = 0;

    for (size_t i = 0; i < text->size; i++)
        n += text->data[i] == '\n';
    return n;
}

static void ndjson_cuts_back_what_a_crash_left_and_never_repeats_a_batch(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *part = path_join(dir, ".part");
    auto_buf Buf text = BUF_INIT(1 << 20);
    auto_error Error err = {0};
    auto_(sink_freep) Sink *sink = NULL;
    SinkNdjsonPlan ndjson = {.path = dir, .rotate_size_bytes = 1 << 20, .rotate_age_usec = HOUR};
    SinkPlan plan = {.ndjson = &ndjson};
    SinkIdentity identity = {0};
    FILE *file;

    assert_ok(sink_new(&plan, dir, NULL, &identity, &sink, &err), &err);
    assert_int_equal(store(sink, "a", 3), 1);
    sink = sink_free(sink);
    /* Killed in the middle of writing the next batch. */
    file = fopen(part, "a");
    assert_non_null(file);
    assert_true(fputs("{\"source\":\"upb", file) >= 0);
    assert_int_equal(fclose(file), 0);

    ndjson.rotate_size_bytes = 100;
    assert_ok(sink_new(&plan, dir, NULL, &identity, &sink, &err), &err);
    assert_int_equal(store(sink, "a", 3), 0);
    assert_int_equal(store(sink, "b", 2), 1);
    assert_int_equal(count_files(dir, ".ndjson", &text), 1);
    assert_int_equal(lines_of(&text), 5);
    assert_contains(text.data, "\"close\":\"0.1\"");
    assert_true(access(part, F_OK) < 0);
    assert_int_equal(store(sink, "b", 2), 0);
}

static void ndjson_has_no_batch_of_which_its_state_does_not_tell(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *part = path_join(dir, ".part"), *file = path_join(dir, ".state.json");
    auto_buf Buf text = BUF_INIT(1 << 20);
    auto_error Error err = {0};
    auto_(sink_freep) Sink *sink = NULL;
    SinkNdjsonPlan ndjson = {.path = dir, .rotate_size_bytes = 1 << 20, .rotate_age_usec = HOUR};
    SinkPlan plan = {.ndjson = &ndjson};
    SinkIdentity identity = {0};
    SinkBatch b = batch("b", 3);

    assert_ok(sink_new(&plan, NULL, NULL, &identity, &sink, &err), &err);
    assert_int_equal(store(sink, "a", 2), 1);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mkdir(file, 0755), 0); /* nothing can be renamed over it */
    for (int i = 0; i < 2; i++) {
        Rows rows = {.n = 3};

        assert_true(sink->ops->store(sink, &b, next_row, &rows, &err) < 0);
        error_done(&err);
    }
    assert_int_equal(rmdir(file), 0);
    assert_int_equal(store(sink, "b", 3), 1);
    sink = sink_free(sink);
    assert_ok(sink_new(&plan, NULL, NULL, &identity, &sink, &err), &err);
    assert_int_equal(store(sink, "b", 3), 0);
    assert_int_equal(store(sink, "c", 1), 1);
    assert_ok(file_read(part, 1 << 20, &text, &err), &err);
    assert_int_equal(lines_of(&text), 6);
}

static void ndjson_files_may_be_gzip_members_one_after_the_other(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_buf Buf packed = BUF_INIT(1 << 20), text = BUF_INIT(1 << 20);
    auto_error Error err = {0};
    auto_(sink_freep) Sink *sink = NULL;
    SinkNdjsonPlan ndjson = {
        .path = dir, .rotate_size_bytes = 300, .rotate_age_usec = HOUR, .gzip = true};
    SinkPlan plan = {.ndjson = &ndjson};
    SinkIdentity identity = {0};

    assert_ok(sink_new(&plan, dir, NULL, &identity, &sink, &err), &err);
    assert_int_equal(store(sink, "a", 3), 1);
    assert_int_equal(store(sink, "b", 3), 1);
    assert_int_equal(count_files(dir, ".ndjson.gz", &packed), 1);
    assert_int_equal(gunzip_add(&text, packed.data, packed.size), 0);
    assert_int_equal(lines_of(&text), 6);
    assert_true(gunzip_add(&text, packed.data, packed.size - 1) < 0);
}

TEST_MAIN(cmocka_unit_test(sqlite_takes_a_batch_once_and_keeps_amounts_as_text),
          cmocka_unit_test(ndjson_cuts_back_what_a_crash_left_and_never_repeats_a_batch),
          cmocka_unit_test(ndjson_has_no_batch_of_which_its_state_does_not_tell),
          cmocka_unit_test(ndjson_files_may_be_gzip_members_one_after_the_other))
