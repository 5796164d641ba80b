/* SPDX-License-Identifier: Apache-2.0 */
/* Documents that were refused, read again after a fix. */
#include "tests/unit/test.h"

#include "agent/base/time.h"
#include "agent/io/loop.h"
#include "crawler/crawlerd/intake.h"

#define T0   INT64_C(1791354600000000) /* 2026-10-07T06:30:00Z */
#define OPEN (T0 - 10 * (int64_t)MINUTE)

typedef struct Fixture {
    char *dir;
    sd_event *event;
    Spool *spool;
    Intake *intake;
    Recipe *recipe;
    FetchJob job;
    Error err;
} Fixture;

static void on_refused(const char *job, const char *symbol, const char *reason, void *userdata)
{
}

static void on_taken(const char *job, const SpoolAccepted *count, void *userdata)
{
}

static void on_lost(const Error *err, void *userdata)
{
    fail_msg("the spool is lost: %s", error_text(err));
}

static void on_committed(void *userdata)
{
}

static int setup(void **state)
{
    static const IntakeHandlers handlers = {
        .refused = on_refused, .taken = on_taken, .lost = on_lost, .committed = on_committed};
    Fixture *f = calloc(1, sizeof(*f));
    const char *srcdir = getenv("srcdir");
    auto_free char *recipes = str_printf("%s/crawler/recipe", srcdir ? srcdir : ".");
    auto_free char *path = NULL, *aside = NULL;

    assert_non_null(f);
    assert_int_equal(setenv("MERVIS_RECIPES_DIR", recipes, 1), 0);
    f->dir = test_dir_new();
    path = str_printf("%s/spool.db", f->dir);
    assert_ok(loop_new(&f->event, &f->err), &f->err);
    assert_ok(spool_open(path, &SPOOL_LIMITS_DEFAULT, &f->spool, &aside, &f->err), &f->err);
    assert_ok(intake_new(f->event, f->spool, &handlers, &f->intake, &f->err), &f->err);
    assert_ok(recipe_load("upbit-candles", &f->recipe, &f->err), &f->err);
    f->job = (FetchJob){.name = "krw", .recipe = f->recipe, .interval = "1m"};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    (void)intake_free(f->intake);
    (void)spool_close(f->spool);
    (void)recipe_free(f->recipe);
    (void)sd_event_unref(f->event);
    error_done(&f->err);
    test_dir_done(&f->dir);
    free(f);
    return 0;
}

/* One candle a character of `prices`, a minute apart from 06:20 on; '-': none. */
static char *reply(const char *prices)
{
    json_auto_t *list = json_array();

    for (size_t i = strlen(prices); i-- > 0;) {
        char at[32];
        int price = prices[i] - '0';

        if (prices[i] == '-')
            continue;
        (void)snprintf(at, sizeof(at), "2026-10-07T06:%02zu:00", 20 + i);
        assert_int_equal(
            json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}",
                                                  "market", "KRW-BTC", "candle_date_time_utc", at,
                                                  "opening_price", price, "high_price", price,
                                                  "low_price", price, "trade_price", price,
                                                  "candle_acc_trade_volume", 1,
                                                  "candle_acc_trade_price", 1, "unit", 1)),
            0);
    }
    return json_dumps(list, 0);
}

static void refuse(Fixture *f, int64_t at_usec, const char *prices)
{
    auto_free char *body = reply(prices);
    SpoolRefused document = {.job = "krw",
                             .symbol = "KRW-BTC",
                             .interval = "1m",
                             .content_type = "application/json",
                             .reason = "a recipe that did not know it",
                             .status = 200,
                             .at_usec = at_usec,
                             .from_usec = OPEN,
                             .to_usec = at_usec,
                             .body = body,
                             .size = strlen(body)};

    assert_ok(spool_refuse(f->spool, &document, &f->err), &f->err);
}

static void crawl(Fixture *f, int64_t at_usec, const char *prices)
{
    auto_free char *body = reply(prices);
    HttpResponse response = {.status = 200, .content_type = (char *)(uintptr_t) "application/json"};
    RecipeRequest request = {.from_usec = OPEN, .to_usec = at_usec};
    FetchDocument document = {.job = &f->job,
                              .symbol = "KRW-BTC",
                              .range = "",
                              .request = &request,
                              .response = &response,
                              .now_usec = at_usec};
    Cursor cursor = CURSOR_INIT;
    FetchResult result;

    response.body = BUF_INIT(1U << 20);
    assert_true(buf_add(&response.body, body, strlen(body)) >= 0);
    intake_document(f->intake, &document, /* live= */ false, &cursor, &result);
    buf_done(&response.body);
    assert_string_equal(result.message, "");
    assert_int_equal(result.verdict, FETCH_TAKEN);
}

static uint64_t replay(Fixture *f)
{
    uint64_t documents = 0, rows = 0;

    assert_ok(intake_replay(f->intake, &f->job, 1, &documents, &rows, &f->err), &f->err);
    return rows;
}

/* "12": the last close of each minute from 06:20 on, by the highest revision; '-': none. */
static void check_latest(Fixture *f, const char *expected)
{
    auto_(spool_reader_freep) SpoolReader *reader = NULL;
    uint32_t revisions[10] = {0};
    char latest[11] = "----------";
    SpoolBatch batch;
    Row row;

    assert_int_equal(spool_freeze(f->spool, 0, &f->err), 1);
    assert_int_equal(spool_next_frozen(f->spool, 0, &batch, &f->err), 1);
    assert_ok(spool_reader_new(f->spool, &batch, &reader, &f->err), &f->err);
    while (spool_reader_row(reader, &row, &f->err) > 0) {
        size_t i = (size_t)((row.ts_usec - OPEN) / (int64_t)MINUTE);

        assert_true(i < ELEMENTS(revisions));
        if (latest[i] == '-' || row.revision >= revisions[i])
            latest[i] = (char)('0' + (int)row.close.mantissa);
        revisions[i] = MAX_OF(revisions[i], row.revision);
    }
    latest[strlen(expected)] = '\0';
    assert_string_equal(latest, expected);
}

static void a_bar_that_was_fetched_later_stands(void **state)
{
    Fixture *f = *state;

    refuse(f, T0, "111");
    crawl(f, T0 + (int64_t)MINUTE, "-2--");
    assert_int_equal(replay(f), 2);
    check_latest(f, "121-");
}

static void of_several_the_newest_tells_a_bars_values(void **state)
{
    Fixture *f = *state;

    refuse(f, T0, "11");
    refuse(f, T0 + (int64_t)MINUTE, "-22");
    refuse(f, T0 + 2 * (int64_t)MINUTE, "--33");
    assert_int_equal(replay(f), 4);
    assert_int_equal(replay(f), 0); /* they are no longer refused */
    check_latest(f, "1233");
}

TEST_MAIN(cmocka_unit_test_setup_teardown(a_bar_that_was_fetched_later_stands, setup, teardown),
          cmocka_unit_test_setup_teardown(of_several_the_newest_tells_a_bars_values, setup,
                                          teardown))
