/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/file.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "crawler/extract/extract.h"
#include "crawler/model/zone.h"
#include "crawler/recipe/recipe-fields.h"
#include "crawler/recipe/recipe.h"

#define HOUR_ (int64_t) HOUR
#define DAY_  (int64_t) DAY

static int64_t instant(const char *text)
{
    int64_t usec;

    assert_int_equal(time_parse_rfc3339(text, &usec), 0);
    return usec;
}

static Recipe *built_in(const char *name)
{
    auto_error Error err = {0};
    Recipe *recipe = NULL;

    assert_ok(recipe_load(name, &recipe, &err), &err);
    return recipe;
}

static int group_setup(void **state)
{
    const char *srcdir = getenv("srcdir");
    auto_free char *dir = str_printf("%s/crawler/recipe", srcdir ? srcdir : ".");

    extract_init();
    return dir && setenv("MERVIS_RECIPES_DIR", dir, 1) == 0 ? 0 : -1;
}

static int group_teardown(void **state)
{
    zone_forget_all();
    return 0;
}

/* --- Recipes as data ----------------------------------------------------------------------------
 */

static void the_tables_are_sound(void **state)
{
    auto_error Error err = {0};
    json_auto_t *schema = recipe_schema();

    assert_ok(fields_check_table(recipe_fields, &err), &err);
    assert_non_null(schema);
}

static void every_built_in_recipe_compiles(void **state)
{
    static const char *const names[] = {"binance-klines", "ecb-fx",          "naver-day",
                                        "naver-sise-day", "naver-sise-json", "stooq-day",
                                        "upbit-candles",  "yahoo-chart"};
    auto_(strv_freep) char **found = NULL;
    auto_error Error err = {0};

    assert_ok(recipe_list(&found, &err), &err);
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        auto_(recipe_freep) Recipe *recipe = built_in(names[i]);

        assert_string_equal(recipe->name, names[i]);
        assert_true(strv_contains(found, names[i]));
        /* What robots.txt forbids runs only where somebody says so. */
        if (recipe->politeness.robots == RECIPE_ROBOTS_OBEY)
            assert_true(recipe->terms.acknowledge);
    }
}

static void an_unknown_recipe_names_the_nearest(void **state)
{
    auto_(recipe_freep) Recipe *recipe = NULL;
    auto_error Error err = {0};

    assert_int_equal(recipe_load("yahoo-chrat", &recipe, &err), -ENOENT);
    assert_contains(error_text(&err), "did you mean \"yahoo-chart\"?");
    assert_contains(err.remedy, "upbit-candles");
    error_done(&err);
    assert_int_equal(recipe_load("../recipe/yahoo-chart", &recipe, &err), -ENOENT);
}

static void all_faults_are_told_at_once_with_their_place(void **state)
{
    static const char text[] =
        "{\n"
        "  \"name\": \"Bad Name\",\n"
        "  \"hosts\": [\"a.example.com\"],\n"
        "  \"formatt\": \"json\",\n"
        "  \"request\": {\"url\": \"http://b.example.com/{symbl}\"},\n"
        "  \"intervals\": {\"1day\": {}},\n"
        "  \"paging\": {\"by\": \"page\"},\n"
        "  \"fixups\": [\"nonesuch\"],\n"
        "  \"tables\": [{\"kind\": \"bar\", \"rows\": \"data[\", \"columns\": {\n"
        "    \"opn\": {\"path\": \"o\"},\n"
        "    \"symbol\": {},\n"
        "    \"tz\": {\"const\": \"Mars/Olympus\"},\n"
        "    \"ts\": {\"path\": \"t\", \"type\": \"date\", \"format\": \"%Y-%b\"},\n"
        "    \"close\": {\"path\": \"a..b\", \"type\": \"text\"}\n"
        "  }}],\n"
        "  \"errors\": [{\"kind\": \"throttled\"}, {\"status\": [\"5x\"]}]\n"
        "}\n";
    static const char *const faults[] = {
        "2:11: name: ",
        "formatt: unknown key \"formatt\"; did you mean \"format\"?",
        "5:",
        "request.url: ",
        "intervals.1day: ",
        "paging.by: the URL has no {page}",
        "fixups: there is no fixup \"nonesuch\"",
        "tables[0].rows: \"data[\" is no path",
        "tables[0].columns.opn: ",
        "tables[0].columns.symbol: nothing says where it comes from",
        "tables[0].columns.tz.const: time zone \"Mars/Olympus\"",
        "tables[0].columns.ts.format: only %Y %m %d",
        "tables[0].columns.close.path: \"a..b\" is no path: expected a key",
        "tables[0].columns.close.type: an amount is decimal or integer",
        "tables[0].columns: there is no interval",
        "errors[0]: it says nothing",
        "errors[1].status[0]: ",
    };
    auto_field_errors FieldErrors errors = {0};
    auto_(recipe_freep) Recipe *recipe = NULL;
    auto_buf Buf all = BUF_INIT(65536);
    auto_error Error err = {0};

    assert_int_equal(recipe_compile(text, strlen(text), "bad.json", &recipe, &errors, &err),
                     -EINVAL);
    assert_int_equal(field_errors_format(&errors, true, &all), 0);
    for (size_t i = 0; i < ELEMENTS(faults); i++)
        assert_contains(buf_str(&all), faults[i]);
    assert_contains(error_text(&err), "bad.json");
}

static void paths_are_read_or_refused(void **state)
{
    static const char *const good[] = {"",        "a",   "a.b[0].c", "[]",
                                       "[12][3]", "a.*", "'a b'.c",  "a[].b"};
    static const char *const bad[] = {"a.", ".a",  "a..b", "[",           "[x]",
                                      "[1", "a b", "'a",   "[999999999]", "a]"};

    for (size_t i = 0; i < ELEMENTS(good); i++) {
        auto_(path_freep) RecipePath *path = NULL;

        assert_null(path_parse(good[i], &path));
        assert_non_null(path);
    }
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        auto_(path_freep) RecipePath *path = NULL;

        if (!path_parse(bad[i], &path))
            fail_msg("\"%s\" was taken for a path", bad[i]);
        assert_null(path);
    }
}

/* --- Requests -----------------------------------------------------------------------------------
 */

static char *next_url(const Recipe *recipe, const RecipeQuery *query, const Cursor *cursor)
{
    auto_recipe_request RecipeRequest request = {0};
    auto_error Error err = {0};
    int r = recipe_next(recipe, query, cursor, &request, &err);

    assert_ok(r, &err);
    return r == 0 ? NULL : take_ptr(request.url);
}

static void assert_url(const Recipe *recipe, const RecipeQuery *query, const Cursor *cursor,
                       const char *expected)
{
    auto_free char *url = next_url(recipe, query, cursor);

    assert_non_null(url);
    assert_string_equal(url, expected);
}

static void symbols_are_encoded(void **state)
{
    auto_(recipe_freep) Recipe *recipe = built_in("yahoo-chart");
    static const struct {
        const char *symbol, *part;
    } cases[] = {
        {"^KS11", "/chart/%5EKS11?"},
        {"KRW=X", "/chart/KRW%3DX?"},
        {"BRK-B", "/chart/BRK-B?"},
        {"a/../../b?c", "/chart/a%2F..%2F..%2Fb%3Fc?"},
        {"\xec\x82\xbc", "/chart/%EC%82%BC?"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        RecipeQuery query = {.symbol = cases[i].symbol,
                             .interval = "1d",
                             .now_usec = instant("2026-10-07T06:30:00Z")};
        auto_error Error err = {0};
        auto_free char *url = NULL;
        Cursor cursor = CURSOR_INIT;

        assert_ok(recipe_begin(recipe, &query, CURSOR_NEVER, INT64_MAX, &cursor, &err), &err);
        url = next_url(recipe, &query, &cursor);
        assert_contains(url, cases[i].part);
    }
}

static void what_cannot_be_asked_is_said(void **state)
{
    auto_(recipe_freep) Recipe *recipe = built_in("yahoo-chart");
    RecipeQuery query = {
        .symbol = "AAPL", .interval = "7m", .now_usec = instant("2026-10-07T06:30:00Z")};
    static const char *const bad[] = {"", ".", "..", "A B", "\xff"};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT;

    assert_int_equal(recipe_begin(recipe, &query, CURSOR_NEVER, INT64_MAX, &cursor, &err), -EINVAL);
    assert_contains(error_text(&err), "no interval \"7m\"; it has 1d, 1m");
    query.interval = "1d";
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        auto_error Error fault = {0};

        query.symbol = bad[i];
        assert_int_equal(recipe_begin(recipe, &query, CURSOR_NEVER, INT64_MAX, &cursor, &fault),
                         -EINVAL);
        assert_contains(error_text(&fault), "is no symbol");
    }
}

static void yahoo_minutes_are_read_by_weeks_within_the_look_back(void **state)
{
    auto_(recipe_freep) Recipe *recipe = built_in("yahoo-chart");
    RecipeQuery query = {
        .symbol = "AAPL", .interval = "1m", .now_usec = instant("2026-10-07T06:30:00Z")};
    RecipePage page = {.oldest_usec = CURSOR_NEVER,
                       .newest_usec = CURSOR_NEVER,
                       .newest_final_usec = CURSOR_NEVER};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT, copy;
    char text[CURSOR_TEXT_MAX];
    int pages = 0;

    assert_ok(recipe_begin(recipe, &query, query.now_usec - 365 * DAY_, INT64_MAX, &cursor, &err),
              &err);
    assert_int_equal(cursor.from_usec, query.now_usec - 29 * DAY_);
    assert_url(recipe, &query, &cursor,
               "https://query1.finance.yahoo.com/v8/finance/chart/"
               "AAPL?period1=1788849000&period2=1789453800&"
               "interval=1m&includePrePost=false&events=div%2Csplits%2CcapitalGains&"
               "includeAdjustedClose=true");
    for (int more = 1; more > 0; pages++) {
        page.newest_final_usec = cursor.from_usec + pages * DAY_;
        more = recipe_advance(recipe, &query, &page, &cursor);
        /* The cursor is the whole memory: another process goes on from its text. */
        assert_int_equal(cursor_parse(cursor_format(text, &cursor), &copy), 0);
        cursor = copy;
    }
    assert_int_equal(pages, 5); /* 29 days by sevens */
    assert_true(cursor.done);
    assert_null(next_url(recipe, &query, &cursor));
    assert_int_equal(cursor.newest_final_usec, cursor.from_usec + 4 * DAY_);

    /* The next poll begins three bars before that. */
    assert_ok(recipe_poll(recipe, &query, 0, &cursor, &err), &err);
    assert_int_equal(cursor.from_usec, query.now_usec - 25 * DAY_ - 3 * (int64_t)MINUTE);
}

static void upbit_is_read_backward_and_counts_only_when_done(void **state)
{
    auto_(recipe_freep) Recipe *recipe = built_in("upbit-candles");
    RecipeQuery query = {
        .symbol = "KRW-BTC", .interval = "1m", .now_usec = instant("2026-10-07T06:30:00Z")};
    RecipePage page = {.n_rows = 200};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT;

    assert_ok(recipe_poll(recipe, &query, 5 * HOUR, &cursor, &err), &err);
    assert_url(recipe, &query, &cursor,
               "https://api.upbit.com/v1/candles/minutes/"
               "1?market=KRW-BTC&count=200&to=2026-10-07T06%3A30%3A00Z");
    page.newest_usec = query.now_usec - (int64_t)MINUTE;
    page.newest_final_usec = query.now_usec - 2 * (int64_t)MINUTE;
    page.oldest_usec = query.now_usec - 200 * (int64_t)MINUTE;
    assert_int_equal(recipe_advance(recipe, &query, &page, &cursor), 1);
    assert_int_equal(cursor.newest_final_usec, CURSOR_NEVER); /* there is a hole behind it */
    assert_url(recipe, &query, &cursor,
               "https://api.upbit.com/v1/candles/minutes/"
               "1?market=KRW-BTC&count=101&to=2026-10-07T03%3A10%3A00Z");
    page.oldest_usec = page.newest_usec = page.newest_final_usec = query.now_usec - 5 * HOUR_;
    assert_int_equal(recipe_advance(recipe, &query, &page, &cursor), 0);
    assert_int_equal(cursor.newest_final_usec, query.now_usec - 2 * (int64_t)MINUTE);
}

static void a_source_that_repeats_a_page_is_left(void **state)
{
    auto_(recipe_freep) Recipe *recipe = built_in("upbit-candles");
    RecipeQuery query = {
        .symbol = "KRW-BTC", .interval = "1m", .now_usec = instant("2026-10-07T06:30:00Z")};
    RecipePage page = {.n_rows = 200};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT;

    assert_ok(recipe_begin(recipe, &query, query.now_usec - 5 * DAY_, INT64_MAX, &cursor, &err),
              &err);
    page.oldest_usec = query.now_usec - 200 * (int64_t)MINUTE;
    assert_int_equal(recipe_advance(recipe, &query, &page, &cursor), 1);
    assert_int_equal(recipe_advance(recipe, &query, &page, &cursor), 0);
}

/* A recipe of minutes, two pages at a time; `paging` has its own words. */
static Recipe *of_two_pages(const char *paging, const char *interval)
{
    auto_free char *text = str_printf(
        "{\"name\":\"t\",\"hosts\":[\"a.example\"],\"format\":\"json\",\"root\":\"array\","
        "\"request\":{\"url\":\"https://a.example/{symbol}?p={page}&f={from:s}&t={to:s}\"},"
        "\"intervals\":{\"1m\":{%s}},\"paging\":{%s,\"max_pages\":2},"
        "\"tables\":[{\"kind\":\"bar\",\"rows\":\"[]\",\"columns\":{\"symbol\":{\"request\":"
        "\"symbol\"},\"interval\":{\"const\":\"1m\"},\"tz\":{\"const\":\"UTC\"},\"ts\":{\"path\":"
        "\"t\",\"type\":\"epoch-s\"},"
        "\"close\":{\"path\":\"c\"}}}]}",
        interval, paging);
    auto_error Error err = {0};
    Recipe *recipe = NULL;

    assert_non_null(text);
    assert_ok(recipe_compile(text, strlen(text), "t.json", &recipe, NULL, &err), &err);
    return recipe;
}

static void after_max_pages_the_range_goes_on_at_the_next_poll(void **state)
{
    auto_(recipe_freep) Recipe *recipe = of_two_pages("\"by\":\"page\",\"first\":1", "");
    RecipeQuery query = {
        .symbol = "A", .interval = "1m", .now_usec = instant("2026-10-07T00:00:00Z")};
    RecipePage page = {.n_rows = 10, .more_known = true, .more = true};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT;

    assert_ok(
        recipe_begin(recipe, &query, instant("2026-10-06T00:00:00Z"), INT64_MAX, &cursor, &err),
        &err);
    page.newest_final_usec = query.now_usec - (int64_t)MINUTE;
    for (int i = 1; i <= 2; i++) {
        page.oldest_usec = query.now_usec - i * 10 * (int64_t)MINUTE;
        assert_int_equal(recipe_advance(recipe, &query, &page, &cursor), 1);
    }
    /* Enough for now, and what is behind it is not taken for read. */
    assert_null(next_url(recipe, &query, &cursor));
    assert_false(cursor.done);
    assert_int_equal(cursor.newest_final_usec, CURSOR_NEVER);

    assert_ok(recipe_poll(recipe, &query, 0, &cursor, &err), &err);
    assert_url(recipe, &query, &cursor, "https://a.example/A?p=3&f=1791244800&t=1791331200");
    page.oldest_usec = instant("2026-10-06T00:00:00Z");
    assert_int_equal(recipe_advance(recipe, &query, &page, &cursor), 0);
    assert_int_equal(cursor.newest_final_usec, query.now_usec - (int64_t)MINUTE);
}

static void a_range_that_slept_goes_on_where_the_source_still_reaches(void **state)
{
    auto_(recipe_freep) Recipe *recipe =
        of_two_pages("\"by\":\"range\"", "\"lookback\":\"10d\",\"span\":\"1d\"");
    RecipeQuery query = {
        .symbol = "A", .interval = "1m", .now_usec = instant("2026-10-07T00:00:00Z")};
    RecipePage page = {.newest_final_usec = CURSOR_NEVER};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT;

    assert_ok(recipe_begin(recipe, &query, CURSOR_NEVER, INT64_MAX, &cursor, &err), &err);
    assert_int_equal(recipe_advance(recipe, &query, &page, &cursor), 1);
    assert_int_equal(cursor.at_usec, query.now_usec - 9 * DAY_);

    query.now_usec += 5 * DAY_;
    assert_ok(recipe_poll(recipe, &query, 0, &cursor, &err), &err);
    assert_int_equal(cursor.at_usec, query.now_usec - 10 * DAY_);
    /* So long that nothing of it can be had: a new range. */
    query.now_usec += 20 * DAY_;
    assert_ok(recipe_poll(recipe, &query, 3 * DAY, &cursor, &err), &err);
    assert_int_equal(cursor.from_usec, query.now_usec - 3 * DAY_);
    assert_int_equal(cursor.to_usec, query.now_usec);
}

static void binance_windows_hold_a_thousand_bars(void **state)
{
    auto_(recipe_freep) Recipe *recipe = built_in("binance-klines");
    RecipeQuery query = {
        .symbol = "BTCUSDT", .interval = "1h", .now_usec = instant("2026-10-07T06:30:00Z")};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT;

    assert_ok(
        recipe_begin(recipe, &query, instant("2026-01-01T00:00:00Z"), INT64_MAX, &cursor, &err),
        &err);
    assert_url(recipe, &query, &cursor,
               "https://data-api.binance.vision/api/v3/"
               "klines?symbol=BTCUSDT&interval=1h&startTime=1767225600000&"
               "endTime=1770825599999&limit=1000");
}

static void naver_counts_back_from_today_and_pages_from_one(void **state)
{
    auto_(recipe_freep) Recipe *day = built_in("naver-day"), *page = built_in("naver-sise-day");
    RecipeQuery query = {
        .symbol = "005930", .interval = "1d", .now_usec = instant("2026-10-07T06:30:00Z")};
    RecipePage result = {.n_rows = 10,
                         .oldest_usec = instant("2026-09-22T00:00:00Z"),
                         .more_known = true,
                         .more = true};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT;

    assert_ok(recipe_begin(day, &query, query.now_usec - 20 * DAY_, INT64_MAX, &cursor, &err),
              &err);
    assert_url(day, &query, &cursor,
               "https://fchart.stock.naver.com/"
               "sise.nhn?symbol=005930&timeframe=day&count=25&requestType=0");
    cursor = CURSOR_INIT;
    assert_ok(recipe_begin(page, &query, query.now_usec - 20 * DAY_, INT64_MAX, &cursor, &err),
              &err);
    assert_url(page, &query, &cursor,
               "https://finance.naver.com/item/sise_day.naver?code=005930&page=1");
    assert_int_equal(recipe_advance(page, &query, &result, &cursor), 1);
    assert_url(page, &query, &cursor,
               "https://finance.naver.com/item/sise_day.naver?code=005930&page=2");
    result.oldest_usec = instant("2026-09-08T00:00:00Z");
    assert_int_equal(recipe_advance(page, &query, &result, &cursor), 0);
    /* The last page ends it whatever the range. */
    cursor = CURSOR_INIT;
    assert_ok(recipe_begin(page, &query, CURSOR_NEVER, INT64_MAX, &cursor, &err), &err);
    result.more = false;
    assert_int_equal(recipe_advance(page, &query, &result, &cursor), 0);
}

static void ecb_is_asked_for_the_smallest_file_that_reaches(void **state)
{
    auto_(recipe_freep) Recipe *recipe = built_in("ecb-fx");
    RecipeQuery query = {
        .symbol = "EURUSD", .interval = "1d", .now_usec = instant("2026-10-07T16:30:00Z")};
    static const struct {
        int64_t back;
        const char *file;
    } cases[] = {{DAY_, "-daily.xml"}, {30 * DAY_, "-hist-90d.xml"}, {4000 * DAY_, "-hist.xml"}};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_error Error err = {0};
        auto_free char *url = NULL;
        Cursor cursor = CURSOR_INIT;

        assert_ok(
            recipe_begin(recipe, &query, query.now_usec - cases[i].back, INT64_MAX, &cursor, &err),
            &err);
        url = next_url(recipe, &query, &cursor);
        assert_non_null(endswith(url, cases[i].file));
    }
}

static void dates_in_a_url_are_of_the_source(void **state)
{
    auto_(recipe_freep) Recipe *recipe = built_in("naver-sise-json");
    /* Half past midnight in Seoul is the day before in UTC. */
    RecipeQuery query = {
        .symbol = "005930", .interval = "1d", .now_usec = instant("2026-10-06T15:30:00Z")};
    auto_error Error err = {0};
    Cursor cursor = CURSOR_INIT;

    assert_ok(
        recipe_begin(recipe, &query, instant("2026-09-30T15:00:00Z"), INT64_MAX, &cursor, &err),
        &err);
    assert_url(recipe, &query, &cursor,
               "https://api.finance.naver.com/"
               "siseJson.naver?symbol=005930&requestType=1&startTime=20261001&"
               "endTime=20261007&timeframe=day");
}

static void a_users_recipe_wins_and_must_be_called_as_its_file(void **state)
{
    auto_(test_dir_done) char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "mine.json"), *old = strdup(getenv("MERVIS_RECIPES_DIR"));
    auto_(recipe_freep) Recipe *recipe = NULL;
    auto_buf Buf text = BUF_INIT(65536);
    auto_free char *file = NULL;
    auto_error Error err = {0};

    assert_ok(recipe_read("ecb-fx", &text, &file, &err), &err);
    assert_ok(file_replace(path, text.data, text.size, 0644, &err), &err);
    assert_int_equal(setenv("MERVIS_RECIPES_DIR", dir, 1), 0);
    assert_int_equal(recipe_load("mine", &recipe, &err), -EINVAL);
    assert_contains(error_text(&err), "it is called \"ecb-fx\"");
    error_done(&err);
    assert_ok(recipe_load(path, &recipe, &err), &err); /* by file, any name will do */
    assert_int_equal(setenv("MERVIS_RECIPES_DIR", old, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tables_are_sound),
        cmocka_unit_test(every_built_in_recipe_compiles),
        cmocka_unit_test(an_unknown_recipe_names_the_nearest),
        cmocka_unit_test(all_faults_are_told_at_once_with_their_place),
        cmocka_unit_test(paths_are_read_or_refused),
        cmocka_unit_test(symbols_are_encoded),
        cmocka_unit_test(what_cannot_be_asked_is_said),
        cmocka_unit_test(yahoo_minutes_are_read_by_weeks_within_the_look_back),
        cmocka_unit_test(upbit_is_read_backward_and_counts_only_when_done),
        cmocka_unit_test(a_source_that_repeats_a_page_is_left),
        cmocka_unit_test(binance_windows_hold_a_thousand_bars),
        cmocka_unit_test(after_max_pages_the_range_goes_on_at_the_next_poll),
        cmocka_unit_test(a_range_that_slept_goes_on_where_the_source_still_reaches),
        cmocka_unit_test(naver_counts_back_from_today_and_pages_from_one),
        cmocka_unit_test(ecb_is_asked_for_the_smallest_file_that_reaches),
        cmocka_unit_test(dates_in_a_url_are_of_the_source),
        cmocka_unit_test(a_users_recipe_wins_and_must_be_called_as_its_file),
    };

    return cmocka_run_group_tests_name("recipe", tests, group_setup, group_teardown);
}
