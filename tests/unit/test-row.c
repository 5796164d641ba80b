/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/time.h"
#include "agent/io/json.h"
#include "crawler/model/bar.h"
#include "crawler/model/cursor.h"

static Amount amount(const char *text)
{
    Amount a;

    assert_int_equal(amount_from_text(text, &a), 0);
    return a;
}

static Row sample(void)
{
    return (Row){
        .source = "yahoo-chart",
        .symbol = "OCDO.L",
        .venue = "LSE",
        .currency = "GBp",
        .interval = "1d",
        .tz = "Europe/London",
        .ts_usec = INT64_C(1577952000000000),
        .trade_date = 18263,
        .kind = ROW_BAR,
        .session = SESSION_REGULAR,
        .is_final = true,
        .open = amount("1286.5"),
        .close = amount("1293"),
        .volume = amount("1132546"),
    };
}

static void a_row_is_one_line_with_all_columns(void **state)
{
    auto_buf Buf buf = BUF_INIT(4096);
    Row row = sample();

    assert_int_equal(row_encode_ndjson(&row, &buf), 0);
    assert_string_equal(
        buf_str(&buf),
        "{\"source\":\"yahoo-chart\",\"symbol\":\"OCDO.L\",\"venue\":\"LSE\",\"currency\":\"GBp\","
        "\"interval\":\"1d\",\"kind\":\"bar\",\"ts\":\"2020-01-02T08:00:00Z\",\"trade_date\":"
        "\"2020-01-02\",\"tz\":\"Europe/London\",\"session\":\"regular\",\"open\":\"1286.5\","
        "\"high\":null,\"low\":null,\"close\":\"1293\",\"volume\":\"1132546\",\"adj_close\":null,"
        "\"amount\":null,\"ratio_num\":null,\"ratio_den\":null,\"is_final\":true,\"revision\":0,"
        "\"ingested_at\":null,\"batch_id\":null}\n");
}

static void every_column_of_the_table_is_in_the_line(void **state)
{
    auto_buf Buf buf = BUF_INIT(4096);
    auto_error Error err = {0};
    json_auto_t *object = NULL;
    Row row = sample();
    const char *key;
    json_t *value;
    size_t i = 0;

    row.symbol = "\xec\x82\xbc\xec\x84\xb1 \"quoted\\\" \x01";
    row.kind = ROW_CAPITAL_GAIN;
    row.revision = UINT32_MAX;
    row.ingested_usec = INT64_C(1791354600120000);
    row.batch_id = "b1";
    row.ts_usec = -1;
    assert_int_equal(row_encode_ndjson(&row, &buf), 0);
    assert_ok(json_parse(buf.data, buf.size - 1, "row", &object, &err), &err);
    json_object_foreach (object, key, value)
        assert_string_equal(key, row_columns[i++].name);
    assert_int_equal(i, ROW_COLUMNS);
    assert_string_equal(json_str(object, "symbol"), row.symbol);
    assert_string_equal(json_str(object, "kind"), "capital_gain");
    assert_string_equal(json_str(object, "ts"), "1969-12-31T23:59:59.999999Z");
    assert_string_equal(json_str(object, "ingested_at"), "2026-10-07T06:30:00.12Z");
    assert_int_equal(json_integer_value(json_object_get(object, "revision")), UINT32_MAX);
}

static void a_row_that_does_not_fit_the_buffer_leaves_no_half_line(void **state)
{
    auto_buf Buf buf = BUF_INIT(1300);
    Row row = sample();
    size_t size = 0;

    while (row_encode_ndjson(&row, &buf) == 0)
        size = buf.size;
    assert_int_equal(buf.size, size);
}

static void strings_of_a_set_are_shared_and_rows_survive_growth(void **state)
{
    auto_row_set RowSet set = {0};
    const char *a, *b;
    Row *row;

    a = row_set_string(&set, "AAPLx", 4);
    b = row_set_string(&set, "AAPL", 4);
    assert_ptr_equal(a, b);
    assert_string_equal(a, "AAPL");
    for (int i = 0; i < 1000; i++) {
        char text[16];
        int n = snprintf(text, sizeof(text), "s%d", i);

        assert_int_equal(row_set_add(&set, NULL, &row), 0);
        row->symbol = row_set_string(&set, text, (size_t)n);
        row->ts_usec = 1000 - i;
    }
    assert_string_equal(set.rows[0].symbol, "s0");
    assert_string_equal(set.rows[999].symbol, "s999");
    assert_int_equal(row_set_sort(&set), 0);
    assert_string_equal(set.rows[0].symbol, "s999");
    row_set_clear(&set);
    assert_int_equal(set.n, 0);
    set.max_rows = 1;
    assert_int_equal(row_set_add(&set, NULL, &row), 0);
    assert_int_equal(row_set_add(&set, NULL, &row), -EOVERFLOW);
}

static void dead_rows_keep_their_reason_and_printable_text(void **state)
{
    auto_row_set RowSet set = {0};

    assert_int_equal(row_set_add_dead(&set, 5, "close: no number", "a\x01\xff", 3), 0);
    assert_int_equal(set.n_dead, 1);
    assert_string_equal(set.dead[0].reason, "close: no number");
    assert_string_equal(set.dead[0].text, "a\\x01\\xff");
}

static void adj_close_alone_is_no_new_observation(void **state)
{
    Row a = sample(), b = sample();

    b.adj_close = amount("1200.5");
    assert_true(row_same_values(&a, &b));
    assert_true(row_same_identity(&a, &b));
    b.volume = amount("1132547");
    assert_false(row_same_values(&a, &b));
    b = sample();
    b.is_final = false;
    assert_false(row_same_values(&a, &b));
    b.kind = ROW_DIVIDEND;
    assert_false(row_same_identity(&a, &b));
}

static void dates_are_strict(void **state)
{
    const char *const bad[] = {"2026-02-29", "2026-13-01", "2026-00-10", "2026-1-011",
                               "20260101",   "2026-01-32", "",           "x026-01-01"};
    int32_t days = 7;

    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_int_equal(row_date_parse(bad[i], strlen(bad[i]), &days), -EINVAL);
    assert_int_equal(days, 7);
    assert_int_equal(row_date_parse("2024-02-29", 10, &days), 0);
    assert_int_equal(days, days_from_civil(2024, 2, 29));
}

static void cursors_survive_their_text(void **state)
{
    Cursor cursor = CURSOR_INIT, back;
    char text[CURSOR_TEXT_MAX];

    cursor.page = 17;
    cursor.pages = UINT32_MAX;
    cursor.newest_final_usec = INT64_MAX;
    assert_int_equal(cursor_parse(cursor_format(text, &cursor), &back), 0);
    assert_memory_equal(&cursor, &back, sizeof(cursor));
    cursor_start(&cursor, 5, 9);
    assert_int_equal(cursor.page, 0);
    assert_int_equal(cursor.newest_final_usec, INT64_MAX);

    assert_int_equal(cursor_parse("", &back), -EINVAL);
    assert_int_equal(cursor_parse("2 0 0 0 0 0 0 0 0", &back), -EINVAL);
    assert_int_equal(cursor_parse("1 0 0 0 0 0 2 0 0", &back), -EINVAL);
    assert_int_equal(cursor_parse("1 0 0 0 -1 0 0 0 0", &back), -EINVAL);
    assert_int_equal(cursor_parse("1 0 0 0 0 0 0 0 0 0", &back), -EINVAL);
    assert_int_equal(cursor_parse("1 0 0 0 0 0 0 0", &back), -EINVAL);
}

static void intervals_and_symbols_are_checked(void **state)
{
    Interval interval;

    assert_int_equal(interval_parse("90m", &interval), 0);
    assert_int_equal(interval_usec(&interval), 90 * MINUTE);
    assert_true(interval_is_intraday(&interval));
    assert_int_equal(interval_parse("1mo", &interval), 0);
    assert_false(interval_is_intraday(&interval));
    assert_int_equal(interval_parse("m", &interval), -EINVAL);
    assert_int_equal(interval_parse("01m", &interval), -EINVAL);
    assert_int_equal(interval_parse("1x", &interval), -EINVAL);
    assert_true(symbol_is_valid("^KS11"));
    assert_true(symbol_is_valid("BRK-B"));
    assert_false(symbol_is_valid(""));
    assert_false(symbol_is_valid("A B"));
    assert_false(symbol_is_valid("A\n"));
    assert_false(symbol_is_valid("\xff"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_is_one_line_with_all_columns),
        cmocka_unit_test(every_column_of_the_table_is_in_the_line),
        cmocka_unit_test(a_row_that_does_not_fit_the_buffer_leaves_no_half_line),
        cmocka_unit_test(strings_of_a_set_are_shared_and_rows_survive_growth),
        cmocka_unit_test(dead_rows_keep_their_reason_and_printable_text),
        cmocka_unit_test(adj_close_alone_is_no_new_observation),
        cmocka_unit_test(dates_are_strict),
        cmocka_unit_test(cursors_survive_their_text),
        cmocka_unit_test(intervals_and_symbols_are_checked),
    };

    return cmocka_run_group_tests_name("row", tests, NULL, NULL);
}
