/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/file.h"
#include "agent/base/time.h"
#include "crawler/extract/extract.h"
#include "crawler/model/bar.h"
#include "crawler/model/zone.h"
#include "crawler/recipe/recipe.h"

/* What the recorded replies cannot show: weeks of daylight saving, Sydney, live bars at the moment
 * they are live, bombs. */

typedef struct Reply {
    RowSet rows;
    ExtractOutcome outcome;
    Buf lines;
} Reply;

static void reply_done(Reply *reply)
{
    row_set_done(&reply->rows);
    extract_outcome_done(&reply->outcome);
    buf_done(&reply->lines);
}
#define auto_reply auto_(reply_done)

static int64_t instant(const char *text)
{
    int64_t usec;

    assert_int_equal(time_parse_rfc3339(text, &usec), 0);
    return usec;
}

static const ExtractRequest later = {
    .from_usec = CURSOR_NEVER,
    .to_usec = INT64_MAX,
    .now_usec = INT64_C(1795000000000000), /* 2026-11-18 */
};

static void run_with(const Recipe *recipe, const ExtractRequest *request, const char *body,
                     size_t size, long status, const char *type, Reply *ret)
{
    auto_error Error err = {0};

    *ret = (Reply){.lines = BUF_INIT(1 << 22)};
    assert_ok(
        extract_run(recipe, request, body, size, status, type, &ret->rows, &ret->outcome, &err),
        &err);
    for (size_t i = 0; i < ret->rows.n; i++)
        assert_int_equal(row_encode_ndjson(&ret->rows.rows[i], &ret->lines), 0);
}

static void run(const char *name, const ExtractRequest *request, const char *body, long status,
                Reply *ret)
{
    auto_(recipe_freep) Recipe *recipe = NULL;
    auto_error Error err = {0};

    assert_ok(recipe_load(name, &recipe, &err), &err);
    run_with(recipe, request, body, strlen(body), status, NULL, ret);
}

static Recipe *compiled(const char *text)
{
    auto_error Error err = {0};
    Recipe *recipe = NULL;

    assert_ok(recipe_compile(text, strlen(text), "test.json", &recipe, NULL, &err), &err);
    return recipe;
}

/* A chart as Yahoo sends it. `columns` are the arrays of quote[0]. */
static char *chart(const char *zone, const char *interval, const char *head, const char *stamps,
                   const char *columns)
{
    char *body = str_printf(
        "{\"chart\":{\"result\":[{\"meta\":{\"currency\":\"USD\",\"symbol\":\"TEST\","
        "\"exchangeName\":"
        "\"NMS\",\"exchangeTimezoneName\":\"%s\",\"dataGranularity\":\"%s\"%s},\"timestamp\":[%s],"
        "\"indicators\":{\"quote\":[{%s}]}}],\"error\":null}}",
        zone, interval, head, stamps, columns);

    assert_non_null(body);
    return body;
}

#define ONE_BAR  "\"open\":[1],\"high\":[2],\"low\":[1],\"close\":[2],\"volume\":[5]"
#define TWO_BARS "\"open\":[1,2],\"high\":[2,3],\"low\":[1,2],\"close\":[2,3],\"volume\":[5,6]"

static const char *date_of(const Row *row)
{
    static char buf[ROW_DATE_MAX];

    (void)row_date_format(row->trade_date, buf);
    return buf;
}

static const char *ts_of(const Row *row)
{
    static char buf[TIME_RFC3339_MAX];

    return time_format_rfc3339(buf, row->ts_usec);
}

static const char *text_of(const Amount *amount)
{
    static char buf[AMOUNT_TEXT_MAX + 1];

    if (!amount->present)
        return "null";
    buf[amount_format(amount, buf)] = '\0';
    return buf;
}

/* --- Dates --------------------------------------------------------------------------------------
 */

static void trade_dates_hold_in_weeks_of_daylight_saving_and_in_sydney(void **state)
{
    static const struct {
        const char *zone, *when, *date;
    } cases[] = {
        {"America/New_York", "2025-03-07T14:30:00Z", "2025-03-07"}, /* 09:30 EST */
        {"America/New_York", "2025-03-10T13:30:00Z", "2025-03-10"}, /* 09:30 EDT */
        {"America/New_York", "2025-11-03T14:30:00Z", "2025-11-03"},
        {"America/New_York", "2025-03-11T03:30:00Z",
         "2025-03-10"},                                          /* a daily bar stamped 23:30 EDT */
        {"Europe/London", "2025-03-30T23:00:00Z", "2025-03-31"}, /* midnight BST */
        {"Europe/London", "2025-10-27T00:00:00Z", "2025-10-27"}, /* midnight GMT */
        {"Europe/Berlin", "2025-10-26T23:00:00Z", "2025-10-27"},
        {"Australia/Sydney", "2025-01-05T23:00:00Z", "2025-01-06"}, /* 10:00 AEDT */
        {"Australia/Sydney", "2025-04-07T00:00:00Z", "2025-04-07"}, /* 10:00 AEST */
        {"Asia/Seoul", "2026-10-07T00:00:00Z", "2026-10-07"},
        {"Asia/Tokyo", "2026-10-06T15:00:00Z", "2026-10-07"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_free char *stamp =
            str_printf("%lld", (long long)(instant(cases[i].when) / (int64_t)SECOND));
        auto_free char *body = chart(cases[i].zone, "1d", "", stamp, ONE_BAR);
        auto_reply Reply reply;

        run("yahoo-chart", &later, body, 200, &reply);
        assert_int_equal(reply.outcome.verdict, EXTRACT_ROWS);
        assert_int_equal(reply.rows.n, 1);
        assert_string_equal(date_of(&reply.rows.rows[0]), cases[i].date);
        assert_string_equal(ts_of(&reply.rows.rows[0]), cases[i].when);
    }
}

static void an_unknown_zone_is_refused_and_not_guessed(void **state)
{
    auto_free char *body = chart("Mars/Olympus", "1d", "", "1577975400", ONE_BAR);
    auto_reply Reply reply;

    run("yahoo-chart", &later, body, 200, &reply);
    assert_int_equal(reply.outcome.verdict, EXTRACT_REFUSED);
    assert_contains(reply.outcome.text, "Mars/Olympus");
    assert_int_equal(reply.rows.n, 0);
}

/* --- Live and final -----------------------------------------------------------------------------
 */

/* 2026-10-07, a Wednesday; New York is at UTC-4: the session is 13:30 to 20:00 UTC. */
#define SESSION_HEAD(market_time)                                                                  \
    ",\"regularMarketTime\":" market_time                                                          \
    ",\"currentTradingPeriod\":{\"pre\":{\"start\":1791360000},\"regular\":{"                      \
    "\"start\":1791379800,\"end\":1791403200},\"post\":{\"end\":1791417600}}"

static void a_day_is_final_when_it_is_over(void **state)
{
    auto_free char *body = chart("America/New_York", "1d", "", "1791293400,1791379800", TWO_BARS);
    static const struct {
        const char *now;
        bool first, second;
    } cases[] = {
        {"2026-10-07T19:00:00Z", true, false},
        {"2026-10-08T03:59:59Z", true, false}, /* 23:59:59 in New York */
        {"2026-10-08T04:00:00Z", true, true},
        {"2026-10-07T03:00:00Z", false, false},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        ExtractRequest request = later;
        auto_reply Reply reply;

        request.now_usec = instant(cases[i].now);
        run("yahoo-chart", &request, body, 200, &reply);
        assert_int_equal(reply.rows.n, 2);
        assert_int_equal(reply.rows.rows[0].is_final, cases[i].first);
        assert_int_equal(reply.rows.rows[1].is_final, cases[i].second);
        if (cases[i].first)
            assert_int_equal(reply.outcome.page.newest_final_usec,
                             reply.rows.rows[cases[i].second].ts_usec);
    }
}

static void the_live_row_becomes_the_bar_of_its_day(void **state)
{
    /* The day's bar, and again with the last trade's time and the newer volume. */
    auto_free char *body =
        chart("America/New_York", "1d", SESSION_HEAD("1791390000"), "1791379800,1791390000",
              "\"open\":[1,1],\"high\":[2,2],\"low\":[1,1],\"close\":[2,1.5],\"volume\":[5,7]");
    auto_free char *alone =
        chart("America/New_York", "1d", SESSION_HEAD("1791390000"), "1791390000", ONE_BAR);
    auto_reply Reply reply, single;

    /* Read long after: what it says about its own moment counts. */
    run("yahoo-chart", &later, body, 200, &reply);
    assert_int_equal(reply.rows.n, 1);
    assert_string_equal(ts_of(&reply.rows.rows[0]), "2026-10-07T13:30:00Z");
    assert_string_equal(text_of(&reply.rows.rows[0].volume), "7");
    assert_false(reply.rows.rows[0].is_final);
    run("yahoo-chart", &later, alone, 200, &single);
    assert_string_equal(ts_of(&single.rows.rows[0]), "2026-10-07T13:30:00Z");
    assert_false(single.rows.rows[0].is_final);
}

static void the_live_row_of_minutes_is_no_bar_of_its_own(void **state)
{
    /* 16:40:00 and 16:40:23 UTC: the same minute. */
    auto_free char *same = chart("America/New_York", "1m", SESSION_HEAD("1791391223"),
                                 "1791391200,1791391223", TWO_BARS);
    /* 16:39:00 and 16:40:23: the minute's own bar is not there yet. */
    auto_free char *next = chart("America/New_York", "1m", SESSION_HEAD("1791391223"),
                                 "1791391140,1791391223", TWO_BARS);
    auto_reply Reply one, two;

    run("yahoo-chart", &later, same, 200, &one);
    assert_int_equal(one.rows.n, 1);
    assert_int_equal(one.outcome.dropped, 1);
    assert_false(one.rows.rows[0].is_final);
    run("yahoo-chart", &later, next, 200, &two);
    assert_int_equal(two.rows.n, 2);
    assert_true(two.rows.rows[0].is_final);
    assert_string_equal(ts_of(&two.rows.rows[1]), "2026-10-07T16:40:00Z");
    assert_false(two.rows.rows[1].is_final);
}

static void rows_past_the_range_are_cut(void **state)
{
    auto_free char *body = chart("America/New_York", "1d", "", "1791293400,1791379800", TWO_BARS);
    ExtractRequest request = later;
    auto_reply Reply reply;

    request.to_usec = instant("2026-10-07T00:00:00Z");
    run("yahoo-chart", &request, body, 200, &reply);
    assert_int_equal(reply.rows.n, 1);
    assert_string_equal(date_of(&reply.rows.rows[0]), "2026-10-06");
}

static void minutes_outside_of_the_session_are_named(void **state)
{
    auto_free char *body =
        chart("America/New_York", "1m", SESSION_HEAD("1791410000"),
              "1791293340,1791293400,1791316740,1791316860",
              "\"open\":[1,1,1,1],\"high\":[1,1,1,1],\"low\":[1,1,1,1],\"close\":[1,1,1,1],"
              "\"volume\":[1,1,1,1]");
    static const Session expected[] = {SESSION_PRE, SESSION_REGULAR, SESSION_REGULAR, SESSION_POST};
    auto_reply Reply reply;

    run("yahoo-chart", &later, body, 200, &reply);
    assert_int_equal(reply.rows.n, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(reply.rows.rows[i].session, expected[i]);
}

static void weeks_and_months_end_by_the_calendar(void **state)
{
    static const struct {
        const char *interval, *stamp, *open_until;
    } cases[] = {
        {"1wk", "1791172800", "2026-10-12T04:00:00Z"}, /* Monday October 5 → Monday 12 */
        {"1mo", "1790827200",
         "2026-11-01T04:00:00Z"}, /* October 1 → November 1, still EDT at midnight */
        {"3mo", "1790827200", "2027-01-01T05:00:00Z"},
        {"1h", "1791379800", "2026-10-07T14:30:00Z"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_free char *body =
            chart("America/New_York", cases[i].interval, "", cases[i].stamp, ONE_BAR);
        ExtractRequest request = later;
        auto_reply Reply before, after;

        request.now_usec = instant(cases[i].open_until) - 1;
        run("yahoo-chart", &request, body, 200, &before);
        assert_false(before.rows.rows[0].is_final);
        request.now_usec++;
        run("yahoo-chart", &request, body, 200, &after);
        assert_true(after.rows.rows[0].is_final);
    }
}

static void naver_is_final_on_the_next_trading_day(void **state)
{
    /* A Friday, and a close above the high. */
    const char *friday = "<protocol><chartdata symbol=\"005930\" timeframe=\"day\"><item "
                         "data=\"20261002|10|12|9|11|5\"/>"
                         "</chartdata></protocol>";
    const char *evening = "<protocol><chartdata symbol=\"005930\" timeframe=\"day\"><item "
                          "data=\"20261002|10|12|9|13|5\"/>"
                          "</chartdata></protocol>";
    const char *with_monday =
        "<protocol><chartdata symbol=\"005930\" timeframe=\"day\"><item "
        "data=\"20261002|10|12|9|11|5\"/><item data=\"20261005|11|11|11|11|1\"/>"
        "</chartdata></protocol>";
    ExtractRequest request = later;
    auto_reply Reply saturday, holiday, monday, long_after, after_hours;

    request.now_usec = instant("2026-10-03T03:00:00Z");
    run("naver-day", &request, friday, 200, &saturday);
    assert_false(saturday.rows.rows[0].is_final);
    /* A Monday without trade looks like this, whether or not anybody's list has it. */
    request.now_usec = instant("2026-10-05T03:00:00Z");
    run("naver-day", &request, friday, 200, &holiday);
    assert_false(holiday.rows.rows[0].is_final);
    run("naver-day", &request, with_monday, 200, &monday);
    assert_true(monday.rows.rows[0].is_final);
    assert_int_equal(monday.rows.rows[0].session, SESSION_REGULAR);
    assert_false(monday.rows.rows[1].is_final);
    /* A share that is traded no more. */
    request.now_usec = instant("2026-10-14T03:00:00Z");
    run("naver-day", &request, friday, 200, &long_after);
    assert_true(long_after.rows.rows[0].is_final);
    run("naver-day", &later, evening, 200, &after_hours);
    assert_false(after_hours.rows.rows[0].is_final);
    assert_int_equal(after_hours.rows.rows[0].session, SESSION_COMBINED);
    assert_string_equal(text_of(&after_hours.rows.rows[0].close), "13"); /* not clamped */
}

/* --- Values -------------------------------------------------------------------------------------
 */

static void nulls_are_kept_or_the_row_is_none(void **state)
{
    auto_free char *body =
        chart("America/New_York", "1d", "", "1,86401,172801",
              "\"open\":[null,1,null],\"high\":[null,null,null],\"low\":[null,1,null],"
              "\"close\":[null,2,3],\"volume\":[0,null,4]");
    auto_reply Reply reply;

    run("yahoo-chart", &later, body, 200, &reply);
    assert_int_equal(reply.rows.n, 2);
    assert_int_equal(reply.outcome.dropped, 1);
    assert_string_equal(text_of(&reply.rows.rows[0].high), "null");
    assert_string_equal(text_of(&reply.rows.rows[0].volume), "null");
    assert_string_equal(text_of(&reply.rows.rows[1].open), "null");
    assert_string_equal(text_of(&reply.rows.rows[1].close), "3");
}

static void one_bad_row_holds_nobody_up(void **state)
{
    auto_free char *body =
        chart("America/New_York", "1d", "", "1,86401,\"soon\"",
              "\"open\":[0.12345678912,1,1],\"high\":[1,1,1],\"low\":[1,1,1],\"close\":[1,2,1],"
              "\"volume\":[1,1,1]");
    auto_reply Reply reply;

    run("yahoo-chart", &later, body, 200, &reply);
    assert_int_equal(reply.outcome.verdict, EXTRACT_ROWS);
    assert_int_equal(reply.rows.n, 1);
    assert_int_equal(reply.rows.n_dead, 2);
    assert_string_equal(reply.rows.dead[0].reason,
                        "open: 0.12345678912 does not fit 29 digits and 9 decimals");
    assert_int_equal(reply.rows.dead[0].ts_usec, 1000000);
    assert_contains(reply.rows.dead[1].reason, "ts: soon is no time");
}

static void nothing_but_bad_rows_is_a_changed_source(void **state)
{
    auto_free char *body =
        chart("America/New_York", "1d", "", "1577975400000,1577975500000", TWO_BARS);
    auto_reply Reply reply;

    run("yahoo-chart", &later, body, 200, &reply);
    assert_int_equal(reply.outcome.verdict, EXTRACT_REFUSED);
    assert_contains(reply.outcome.text, "is the unit right?");
    assert_int_equal(reply.rows.n_dead, 0);
}

static void unequal_arrays_are_refused(void **state)
{
    static const char *const columns[] = {
        "\"open\":[1],\"high\":[2,3],\"low\":[1,2],\"close\":[2,3],\"volume\":[5,6]",
        "\"opfn\":[1,2],\"high\":[2,3],\"low\":[1,2],\"close\":[2,3],\"volume\":[5,6]",
        "\"open\":[1,2],\"high\":[2,3],\"low\":[1,2],\"volume\":[5,6]",
        "\"open\":[1,2,3],\"high\":[2,3],\"low\":[1,2],\"close\":[2,3],\"volume\":[5,6]",
        "\"open\":{},\"high\":[2,3],\"low\":[1,2],\"close\":[2,3],\"volume\":[5,6]",
        ("\"open\":[1,2],\"open\":[1,2],\"high\":[2,3],\"low\":[1,2],\"close\":[2,3],\"volume\":[5,"
         "6]"),
    };

    for (size_t i = 0; i < ELEMENTS(columns); i++) {
        auto_free char *body = chart("America/New_York", "1d", "", "1,86401", columns[i]);
        auto_reply Reply reply;

        run("yahoo-chart", &later, body, 200, &reply);
        assert_int_equal(reply.outcome.verdict, EXTRACT_REFUSED);
        assert_int_equal(reply.rows.n, 0);
    }
}

static void a_reply_about_something_else_is_refused(void **state)
{
    auto_free char *body = chart("America/New_York", "60m", "", "1577975400", ONE_BAR);
    ExtractRequest request = later;
    auto_reply Reply other, finer, same;

    request.symbol = "AAPL";
    run("yahoo-chart", &request, body, 200, &other);
    assert_int_equal(other.outcome.verdict, EXTRACT_REFUSED);
    assert_string_equal(other.outcome.text, "the reply's symbol is \"TEST\", asked was \"AAPL\"");
    request.symbol = "test";
    request.interval = "30m"; /* known to be answered with hours */
    run("yahoo-chart", &request, body, 200, &finer);
    assert_int_equal(finer.outcome.verdict, EXTRACT_REFUSED);
    request.interval = "1h";
    run("yahoo-chart", &request, body, 200, &same);
    assert_int_equal(same.outcome.verdict, EXTRACT_ROWS);
    assert_string_equal(same.rows.rows[0].interval, "1h");
    assert_string_equal(same.rows.rows[0].symbol, "test");
}

static void one_currency_of_many_is_taken_or_all(void **state)
{
    const char *body = "<e:Envelope xmlns:e='x' xmlns='y'><Cube><Cube time='2026-10-07'><Cube "
                       "currency='USD' rate='1.1'/>"
                       "<Cube currency='KRW' rate='1500.25'/></Cube></Cube></e:Envelope>";
    ExtractRequest request = later;
    auto_reply Reply one, all, none;

    request.symbol = "EURKRW";
    run("ecb-fx", &request, body, 200, &one);
    assert_int_equal(one.rows.n, 1);
    assert_string_equal(text_of(&one.rows.rows[0].close), "1500.25");
    assert_string_equal(one.rows.rows[0].currency, "KRW");
    request.symbol = "*";
    run("ecb-fx", &request, body, 200, &all);
    assert_int_equal(all.rows.n, 2);
    request.symbol = "EURXXX";
    run("ecb-fx", &request, body, 200, &none);
    assert_int_equal(none.outcome.verdict, EXTRACT_EMPTY);
}

static void korean_text_comes_out_whole(void **state)
{
    /* CP949 under the name of EUC-KR, with a syllable that only CP949 has, and a broken byte. */
    static const char body[] =
        "\n\n<?xml version=\"1.0\" encoding=\"EUC-KR\" ?>\n<protocol><chartdata symbol=\"1\" "
        "name=\""
        "\xbb\xef\xbc\xba\x94\xee\xff\"><item data=\"20261007|1\"/></chartdata></protocol>";
    auto_(recipe_freep) Recipe *recipe =
        compiled("{\"name\":\"k\",\"hosts\":[\"a.example\"],\"format\":\"xml\",\"charset\":\"EUC-"
                 "KR\",\"root\":\"protocol\","
                 "\"request\":{\"url\":\"https://a.example/"
                 "\"},\"intervals\":{\"1d\":{}},\"tables\":[{\"rows\":\"//item\",\"split\":"
                 "\"|\",\"attribute\":\"@data\",\"columns\":{\"symbol\":{\"header\":\"//chartdata/"
                 "@symbol\"},\"venue\":{\"header\":"
                 "\"//chartdata/@name\"},\"interval\":{\"const\":\"1d\"},\"tz\":{\"const\":\"Asia/"
                 "Seoul\"},\"ts\":{\"path\":\"[0]\","
                 "\"type\":\"date\",\"format\":\"%Y%m%d\"},\"close\":{\"path\":\"[1]\"}}}]}");
    auto_reply Reply reply;

    run_with(recipe, &later, body, sizeof(body) - 1, 200, "text/xml", &reply);
    assert_int_equal(reply.outcome.verdict, EXTRACT_ROWS);
    assert_string_equal(reply.rows.rows[0].venue,
                        "\xec\x82\xbc\xec\x84\xb1\xeb\xb7\x81\xef\xbf\xbd");
}

static void units_and_words_are_translated(void **state)
{
    auto_(recipe_freep) Recipe *recipe =
        compiled("{\"name\":\"u\",\"hosts\":[\"a.example\"],\"root\":\"object\",\"request\":{"
                 "\"url\":\"https://a.example/\"},"
                 "\"intervals\":{\"1d\":{}},\"final\":\"at-once\",\"tables\":[{\"rows\":\"d[]\","
                 "\"columns\":{\"symbol\":{\"path\":"
                 "\"s\",\"until\":\".\"},\"currency\":{\"path\":\"c\",\"map\":{\"p\":\"GBp\"}},"
                 "\"interval\":{\"const\":\"1d\"},\"tz\":"
                 "{\"const\":\"UTC\"},\"ts\":{\"path\":\"t\",\"type\":\"datetime\",\"format\":\"%Y-"
                 "%m-%dT%H:%M:%S%z\"},\"close\":"
                 "{\"path\":\"v\",\"over_10_to\":2},\"volume\":{\"path\":\"n\",\"times_10_to\":3,"
                 "\"type\":\"integer\"}}}]}");
    const char *body =
        "{\"d\":[{\"s\":\"A.L\",\"c\":\"p\",\"t\":\"2026-10-07T09:00:00+09:00\",\"v\":\"1293.5\","
        "\"n\":7},"
        "{\"s\":\"B\",\"c\":\"\\u20ac\",\"t\":\"2026-10-07T00:00:00Z\",\"v\":1,\"n\":0.5},"
        "{\"s\":\"C\",\"c\":\"x\",\"t\":\"2026-10-07T00:00:00Z\",\"v\":1,\"n\":0.0005}]}";
    auto_reply Reply reply;

    run_with(recipe, &later, body, strlen(body), 200, NULL, &reply);
    assert_int_equal(reply.rows.n, 2);
    assert_string_equal(ts_of(&reply.rows.rows[0]), "2026-10-07T00:00:00Z");
    assert_string_equal(reply.rows.rows[0].symbol, "A");
    assert_string_equal(reply.rows.rows[0].currency, "GBp");
    assert_string_equal(text_of(&reply.rows.rows[0].close), "12.935");
    assert_string_equal(text_of(&reply.rows.rows[0].volume), "7000");
    assert_string_equal(reply.rows.rows[1].currency, "\xe2\x82\xac");
    assert_int_equal(reply.rows.n_dead, 1);
    assert_contains(reply.rows.dead[0].reason, "is no whole number");
}

static void events_come_without_bars_and_gains_are_rows(void **state)
{
    static const char events[] =
        "\"events\":{\"capitalGains\":{\"1577975400\":{\"amount\":0.5,\"date\":1577975400}},"
        "\"dividends\":{\"1577975400\":{"
        "\"amount\":0.8199999928474426,\"date\":1577975400,\"currency\":\"EUR\"}}}";
    auto_free char *body = str_printf("{\"chart\":{\"result\":[{\"meta\":{\"currency\":\"USD\","
                                      "\"symbol\":\"F\",\"exchangeTimezoneName\":\"America/"
                                      "New_York\",\"dataGranularity\":\"1m\"},%s,\"indicators\":{"
                                      "\"quote\":[{}]}}],\"error\":null}}",
                                      events);
    auto_free char *changed =
        str_printf("{\"chart\":{\"result\":[{\"meta\":{\"symbol\":\"F\",\"exchangeTimezoneName\":"
                   "\"UTC\",\"dataGranularity\":\"1d\"},%s,"
                   "\"indicatorz\":{\"quote\":[{}]}}],\"error\":null}}",
                   events);
    auto_reply Reply reply, other;

    run("yahoo-chart", &later, body, 200, &reply);
    assert_int_equal(reply.outcome.verdict, EXTRACT_ROWS);
    assert_int_equal(reply.rows.n, 2);
    assert_int_equal(reply.rows.rows[0].kind, ROW_DIVIDEND);
    assert_string_equal(text_of(&reply.rows.rows[0].amount), "0.82");
    assert_string_equal(reply.rows.rows[0].currency, "EUR");
    assert_string_equal(reply.rows.rows[0].interval, "1d"); /* whatever bars were asked for */
    assert_int_equal(reply.rows.rows[1].kind, ROW_CAPITAL_GAIN);
    assert_string_equal(text_of(&reply.rows.rows[1].amount), "0.5");
    assert_string_equal(reply.rows.rows[1].currency, "USD");
    assert_true(reply.rows.rows[1].is_final);
    assert_int_equal(reply.outcome.page.n_rows, 0);
    run("yahoo-chart", &later, changed, 200, &other); /* bars must not vanish in silence */
    assert_int_equal(other.outcome.verdict, EXTRACT_REFUSED);
}

static void hours_under_the_name_of_half_hours_are_refused(void **state)
{
    auto_free char *hours =
        chart("America/New_York", "30m", "",
              "1791379800,1791383400,1791387000,1791390600,1791394200,1791397800",
              "\"close\":[1,1,1,1,1,1]");
    auto_free char *halves =
        chart("America/New_York", "30m", "",
              "1791379800,1791381600,1791387000,1791390600,1791394200,1791397800",
              "\"close\":[1,1,1,1,1,1]");
    auto_reply Reply wide, right;

    run("yahoo-chart", &later, hours, 200, &wide);
    assert_int_equal(wide.outcome.verdict, EXTRACT_REFUSED);
    assert_contains(wide.outcome.text, "wider");
    run("yahoo-chart", &later, halves, 200, &right);
    assert_int_equal(right.rows.n, 6);
}

/* In CP949: date, close, change, open, high, low, volume. */
#define HEADING                                                                                    \
    "<th>\xb3\xaf\xc2\xa5</th><th>\xc1\xbe\xb0\xa1</th><th>x</th><th>\xbd\xc3\xb0\xa1</th>"        \
    "<th>\xb0\xed\xb0\xa1</th><th>\xc0\xfa\xb0\xa1</th><th>\xb0\xc5\xb7\xa1\xb7\xae</th>"

static void rows_of_nothing_fill_a_page_up(void **state)
{
    static const char page[] =
        "<table class=\"type2\"><tr>" HEADING
        "</tr>%s<tr><td>&nbsp;</td><td>&nbsp;</td><td></td><td></td><td></td>"
        "<td></td><td> "
        "</td></tr><tr><td></td><td></td><td></td><td></td><td></td><td></"
        "td><td></td></tr></table>";
    auto_free char *one = str_printf("<table class=\"type2\"><tr>" HEADING
                                     "</tr><tr><td>2026.10.02</td><td>1,000</td>"
                                     "<td>5</td><td>0</td><td>0</td><td>0</td><td>0</td></tr>%s",
                                     strstr(page, "%s") + 2);
    auto_free char *none =
        str_printf("%.*s%s", (int)(strstr(page, "%s") - page), page, strstr(page, "%s") + 2);
    auto_reply Reply reply, empty;

    run("naver-sise-day", &later, one, 200, &reply);
    assert_int_equal(reply.rows.n, 1);
    assert_int_equal(reply.rows.n_dead, 0);
    /* A halted day: its close, and no other price. */
    assert_string_equal(text_of(&reply.rows.rows[0].close), "1000");
    assert_string_equal(text_of(&reply.rows.rows[0].open), "null");
    assert_string_equal(text_of(&reply.rows.rows[0].volume), "0");
    assert_true(reply.outcome.page.more_known);
    assert_false(reply.outcome.page.more);
    run("naver-sise-day", &later, none, 200, &empty);
    assert_int_equal(empty.outcome.verdict, EXTRACT_EMPTY);
}

static void index_points_are_no_won(void **state)
{
    static const char *const symbols[] = {"KOSPI", "KOSDAQ", "KPI200", "KPI100", "KVALUE", "FUT"};

    for (size_t i = 0; i < ELEMENTS(symbols); i++) {
        auto_free char *body =
            str_printf("<protocol><chartdata symbol=\"%s\" timeframe=\"day\"><item "
                       "data=\"20261002|2500.1|2501|2499|2500.53|5\"/>"
                       "<item data=\"20261005|||||\"/></chartdata></protocol>",
                       symbols[i]);
        auto_reply Reply reply;

        run("naver-day", &later, body, 200, &reply);
        assert_int_equal(reply.rows.n, 1);
        assert_int_equal(reply.outcome.dropped, 1);
        assert_null(reply.rows.rows[0].currency);
        assert_string_equal(text_of(&reply.rows.rows[0].close), "2500.53");
    }
}

/* --- What is no data ----------------------------------------------------------------------------
 */

static void statuses_are_told_apart_without_a_body_to_read(void **state)
{
    static const struct {
        long status;
        ErrorKind kind;
    } cases[] = {{401, ERROR_DENIED},    {403, ERROR_DENIED},    {404, ERROR_INVALID},
                 {418, ERROR_THROTTLED}, {429, ERROR_THROTTLED}, {451, ERROR_DENIED},
                 {500, ERROR_TEMPORARY}, {503, ERROR_TEMPORARY}, {400, ERROR_INVALID},
                 {301, ERROR_INVALID}};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_reply Reply reply;

        run("ecb-fx", &later, "<html>\x01 sorry</html>", cases[i].status, &reply);
        assert_int_equal(reply.outcome.verdict, EXTRACT_SOURCE_ERROR);
        assert_int_equal(reply.outcome.kind, cases[i].kind);
        assert_contains(reply.outcome.text, "\\x01 sorry");
    }
}

static void a_page_with_200_is_refused_by_type_and_by_content(void **state)
{
    const char *page = "<!DOCTYPE html><html><body>Please log in</body></html>";
    static const char *const names[] = {"binance-klines", "ecb-fx",          "naver-day",
                                        "naver-sise-day", "naver-sise-json", "stooq-day",
                                        "upbit-candles",  "yahoo-chart"};

    for (size_t i = 0; i < ELEMENTS(names); i++) {
        auto_(recipe_freep) Recipe *recipe = NULL;
        auto_error Error err = {0};
        auto_reply Reply typed, untyped, empty;

        assert_ok(recipe_load(names[i], &recipe, &err), &err);
        run_with(recipe, &later, page, strlen(page), 200, "text/html; charset=utf-8", &typed);
        assert_int_equal(typed.outcome.verdict, EXTRACT_REFUSED);
        run_with(recipe, &later, page, strlen(page), 200, NULL, &untyped);
        assert_int_equal(untyped.outcome.verdict, EXTRACT_REFUSED);
        run_with(recipe, &later, NULL, 0, 200, NULL, &empty);
        assert_int_equal(empty.outcome.verdict, EXTRACT_REFUSED);
    }
}

static void words_of_an_error_page_inside_of_data_are_data(void **state)
{
    auto_free char *body =
        chart("America/New_York", "1d",
              ",\"longName\":\"Too Many Requests Will be right back Inc\"", "1577975400", ONE_BAR);
    auto_reply Reply reply;

    run("yahoo-chart", &later, body, 200, &reply);
    assert_int_equal(reply.outcome.verdict, EXTRACT_ROWS);
}

static void bombs_and_entities_are_refused_unread(void **state)
{
    static const char *const bodies[] = {
        "<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"x\"><!ENTITY b \"&a;&a;&a;&a;\"><!ENTITY "
        "c \"&b;&b;&b;&b;\">]>"
        "<protocol><chartdata symbol=\"&c;\"/></protocol>",
        ("<?xml version=\"1.0\"?><!DOCTYPE p [<!ENTITY x SYSTEM "
         "\"file:///etc/passwd\">]><protocol>&x;</protocol>"),
        "<?xml version=\"1.0\"?><!DOCTYPE p SYSTEM \"http://127.0.0.1:1/x.dtd\"><protocol/>",
    };

    for (size_t i = 0; i < ELEMENTS(bodies); i++) {
        auto_reply Reply reply;

        run("naver-day", &later, bodies[i], 200, &reply);
        assert_int_equal(reply.outcome.verdict, EXTRACT_REFUSED);
        assert_contains(reply.outcome.text, "document type");
    }
}

static void depth_and_size_end_somewhere(void **state)
{
    auto_buf Buf deep = BUF_INIT(1 << 20);
    auto_reply Reply json, xml;

    for (int i = 0; i < 100000; i++)
        assert_int_equal(buf_add_char(&deep, '['), 0);
    run("upbit-candles", &later, buf_str(&deep), 200, &json);
    assert_int_equal(json.outcome.verdict, EXTRACT_REFUSED);
    buf_clear(&deep);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(buf_add_str(&deep, "<protocol>"), 0);
    run("naver-day", &later, buf_str(&deep), 200, &xml);
    assert_int_equal(xml.outcome.verdict, EXTRACT_REFUSED);
}

static void rows_of_several_documents_gather_in_one_set(void **state)
{
    auto_free char *body = chart("America/New_York", "1d", "", "1577975400", ONE_BAR);
    auto_(recipe_freep) Recipe *recipe = NULL;
    auto_row_set RowSet rows = {0};
    auto_error Error err = {0};

    assert_ok(recipe_load("yahoo-chart", &recipe, &err), &err);
    for (size_t i = 1; i <= 3; i++) {
        auto_extract_outcome ExtractOutcome outcome = {0};

        assert_ok(extract_run(recipe, &later, body, strlen(body), 200, "", &rows, &outcome, &err),
                  &err);
        assert_int_equal(rows.n, i);
        assert_int_equal(outcome.page.n_rows, 1);
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trade_dates_hold_in_weeks_of_daylight_saving_and_in_sydney),
        cmocka_unit_test(an_unknown_zone_is_refused_and_not_guessed),
        cmocka_unit_test(a_day_is_final_when_it_is_over),
        cmocka_unit_test(the_live_row_becomes_the_bar_of_its_day),
        cmocka_unit_test(the_live_row_of_minutes_is_no_bar_of_its_own),
        cmocka_unit_test(rows_past_the_range_are_cut),
        cmocka_unit_test(minutes_outside_of_the_session_are_named),
        cmocka_unit_test(weeks_and_months_end_by_the_calendar),
        cmocka_unit_test(naver_is_final_on_the_next_trading_day),
        cmocka_unit_test(nulls_are_kept_or_the_row_is_none),
        cmocka_unit_test(one_bad_row_holds_nobody_up),
        cmocka_unit_test(nothing_but_bad_rows_is_a_changed_source),
        cmocka_unit_test(unequal_arrays_are_refused),
        cmocka_unit_test(a_reply_about_something_else_is_refused),
        cmocka_unit_test(one_currency_of_many_is_taken_or_all),
        cmocka_unit_test(korean_text_comes_out_whole),
        cmocka_unit_test(units_and_words_are_translated),
        cmocka_unit_test(events_come_without_bars_and_gains_are_rows),
        cmocka_unit_test(hours_under_the_name_of_half_hours_are_refused),
        cmocka_unit_test(rows_of_nothing_fill_a_page_up),
        cmocka_unit_test(index_points_are_no_won),
        cmocka_unit_test(statuses_are_told_apart_without_a_body_to_read),
        cmocka_unit_test(a_page_with_200_is_refused_by_type_and_by_content),
        cmocka_unit_test(words_of_an_error_page_inside_of_data_are_data),
        cmocka_unit_test(bombs_and_entities_are_refused_unread),
        cmocka_unit_test(depth_and_size_end_somewhere),
        cmocka_unit_test(rows_of_several_documents_gather_in_one_set),
    };

    return cmocka_run_group_tests_name("extract", tests, group_setup, group_teardown);
}
