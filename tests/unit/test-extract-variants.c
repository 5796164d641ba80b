/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>
#include <time.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/extract/extract.h"
#include "crawler/model/bar.h"
#include "crawler/model/zone.h"
#include "crawler/recipe/recipe.h"

/* What the built-in sources may send beside what was recorded: each variant with its verdict, and
 * words that its rows (or its message) must have. */

typedef struct Variant {
    const char *name, *recipe, *symbol, *interval, *now;
    long status;
    const char *body;
    ExtractVerdict verdict;
    ErrorKind kind;       /* of errors */
    const char *words[4]; /* in the rows as NDJSON, else in the text */
    size_t rows, dead;
} Variant;

/* clang-format off */
#define META(more) \
    "\"meta\":{\"currency\":\"USD\",\"symbol\":\"T\",\"exchangeName\":\"NMS\",\"exchangeTimezoneName\":\"America/New_York\"" more "}"
#define CHART(result) "{\"chart\":{\"result\":[{" result "}],\"error\":null}}"
#define WEEK_LIVE ",\"dataGranularity\":\"1wk\",\"regularMarketTime\":1727879400," \
    "\"currentTradingPeriod\":{\"regular\":{\"start\":1727875800,\"end\":1727899200}}"
#define LIVE(interval, at) ",\"dataGranularity\":\"" interval "\",\"regularMarketTime\":" at "," \
    "\"currentTradingPeriod\":{\"regular\":{\"start\":1727875800,\"end\":1727899200}}"
#define FCHART(frame, items) \
    "\n\n<?xml version=\"1.0\" encoding=\"EUC-KR\" ?><protocol><chartdata symbol=\"005930\" name=\"x\" timeframe=\"" frame "\">" \
    items "</chartdata></protocol>"
/* In CP949: date, close, change, open, high, low, volume. */
#define SISE(fourth, fifth) \
    "<html><table class=\"type2\"><tr><th>\xb3\xaf\xc2\xa5</th><th>\xc1\xbe\xb0\xa1</th><th>x</th><th>" fourth "</th><th>" fifth \
    "</th><th>\xc0\xfa\xb0\xa1</th><th>\xb0\xc5\xb7\xa1\xb7\xae</th></tr><tr><td>2026.08.12</td><td>1,000</td><td>10</td>" \
    "<td>990</td><td>1,010</td><td>980</td><td>12,345</td></tr><tr><td>&nbsp;</td><td></td><td></td><td></td><td></td><td></td><td></td>" \
    "</tr></table></html>"
#define SISE_JSON(second, third) \
    "[['날짜', '" second "', '" third "', '저가', '종가', '거래량', '외국인소진율'],\n[\"20260812\", 1, 3, 1, 2, 100, 5.1],\n]"
#define CANDLE(more) \
    "[{\"market\":\"KRW-BTC\",\"candle_date_time_utc\":\"2026-02-01T00:00:00\",\"opening_price\":1.4E-7,\"high_price\":2,\"low_price\":1," \
    "\"trade_price\":1.5,\"candle_acc_trade_price\":3.25,\"candle_acc_trade_volume\":1.0E-8" more "}]"
#define ECB(cubes) \
    "<gesmes:Envelope xmlns:gesmes=\"http://www.gesmes.org/xml/2002-08-01\" xmlns=\"http://www.ecb.int/vocabulary/2002-08-01/eurofxref\">" \
    "<Cube><Cube time='2026-04-13'>" cubes "</Cube></Cube></gesmes:Envelope>"
#define STOOQ "Date,Open,High,Low,Close,Volume\r\n"

static const Variant variants[] = {
    /* Yahoo: nothing in the range, in its several ways. */
    {"no timestamps, nothing in the quote", "yahoo-chart", .status = 200, .verdict = EXTRACT_EMPTY,
     .body = CHART(META("") ",\"indicators\":{\"quote\":[{}]}")},
    {"no timestamps, a quote that is null", "yahoo-chart", .status = 200, .verdict = EXTRACT_EMPTY,
     .body = CHART(META("") ",\"indicators\":{\"quote\":[null]}")},
    {"no timestamps, nulls in the quote", "yahoo-chart", .status = 200, .verdict = EXTRACT_EMPTY,
     .body = CHART(META("") ",\"indicators\":{\"quote\":[{\"open\":[null],\"high\":[null],\"low\":[null],\"close\":[null],\"volume\":[null]}]}")},
    {"prices without timestamps", "yahoo-chart", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = CHART(META("") ",\"indicators\":{\"quote\":[{\"close\":[1.5]}]}"), .words = {"close has values, and there is no ts"}},
    {"empty arrays", "yahoo-chart", .status = 200, .verdict = EXTRACT_EMPTY,
     .body = CHART(META("") ",\"timestamp\":[],\"indicators\":{\"quote\":[{\"open\":[],\"high\":[],\"low\":[],\"close\":[],\"volume\":[]}]}")},
    {"a range before the listing", "yahoo-chart", .status = 400, .verdict = EXTRACT_SOURCE_ERROR, .kind = ERROR_INVALID,
     .body = "{\"chart\":{\"result\":null,\"error\":{\"code\":\"Bad Request\",\"description\":\"Data doesn't exist for startDate = 1, endDate = 2\"}}}",
     .words = {"there are no bars of that time"}},
    {"429 as JSON under another status", "yahoo-chart", .status = 200, .verdict = EXTRACT_SOURCE_ERROR, .kind = ERROR_THROTTLED,
     .body = "{\"finance\":{\"result\":null,\"error\":{\"code\":\"Too Many Requests\",\"description\":\"Rate limited\"}}}"},
    /* Yahoo: rows. */
    {"head last, values before", "yahoo-chart", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = "{\"chart\":{\"error\":null,\"result\":[{\"indicators\":{\"quote\":[{\"close\":[7.889999824692495E-6]}]},\"timestamp\":[1577975400],"
             META("") "}]}}", .words = {"\"close\":\"0.00000789\"", "\"trade_date\":\"2020-01-02\""}},
    {"no currency", "yahoo-chart", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = CHART("\"meta\":{\"currency\":null,\"symbol\":\"^T\",\"exchangeTimezoneName\":\"Asia/Seoul\"},\"timestamp\":[1577975400],"
                   "\"indicators\":{\"quote\":[{\"close\":[1]}]}"), .words = {"\"currency\":null", "\"trade_date\":\"2020-01-02\""}},
    {"the first live row of a week", "yahoo-chart", .interval = "1wk", .now = "2024-10-02T14:31:00Z", .status = 200,
     .verdict = EXTRACT_ROWS, .rows = 2,
     .body = CHART(META(WEEK_LIVE) ",\"timestamp\":[1727064000,1727879400],\"indicators\":{\"quote\":[{\"close\":[1,2]}]}"),
     .words = {"\"ts\":\"2024-09-30T04:00:00Z\",\"trade_date\":\"2024-09-30\"", "\"close\":\"2\"", "\"is_final\":false"}},
    {"a live row on a whole minute inside of a bar", "yahoo-chart", .interval = "5m", .now = "2024-10-02T14:33:05Z", .status = 200,
     .verdict = EXTRACT_ROWS, .rows = 1,
     .body = CHART(META(LIVE("5m", "1727879520")) ",\"timestamp\":[1727879400,1727879520],\"indicators\":{\"quote\":[{\"close\":[1,2]}]}"),
     .words = {"\"ts\":\"2024-10-02T14:30:00Z\"", "\"close\":\"1\"", "\"is_final\":false"}},
    {"the first live row of hours that begin at half past", "yahoo-chart", .interval = "1h", .now = "2024-10-02T14:33:05Z", .status = 200,
     .verdict = EXTRACT_ROWS, .rows = 1,
     .body = CHART(META(LIVE("1h", "1727879585")) ",\"timestamp\":[1727879585],\"indicators\":{\"quote\":[{\"close\":[1]}]}"),
     .words = {"\"ts\":\"2024-10-02T14:30:00Z\"", "\"is_final\":false"}},
    {"a byte order mark, lines that end in CRLF, numbers of other forms", "yahoo-chart", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = "\xef\xbb\xbf" CHART(META("") ",\r\n\"timestamp\":[\"1.5779754E9\"],\r\n\"indicators\":{\"quote\":[{\"close\":[\"1.5\"],\"x\":[null]}]}"),
     .words = {"\"ts\":\"2020-01-02T14:30:00Z\"", "\"close\":\"1.5\""}},
    {"a result that is empty", "yahoo-chart", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = "{\"chart\":{\"result\":[],\"error\":null}}", .words = {"there is no chart.result[0]"}},
    {"volumes gone", "yahoo-chart", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = CHART(META("") ",\"timestamp\":[1577975400],\"indicators\":{\"quote\":[{\"open\":[1],\"high\":[1],\"low\":[1],\"close\":[1]}]}"),
     .words = {"volume has 0 values"}},
    {"dividends in an array", "yahoo-chart", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = CHART(META("") ",\n\"timestamp\":[1577975400],\"events\":{\"dividends\":[{\"amount\":0.5,\"date\":1577975400}]},"
                   "\"indicators\":{\"quote\":[{\"close\":[1]}]}"),
     .words = {"line 2, column 48: an array stands where the rows are members of an object"}},
    {"no dividends, as PHP says it", "yahoo-chart", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = CHART(META("") ",\"timestamp\":[1577975400],\"events\":{\"dividends\":[]},\"indicators\":{\"quote\":[{\"close\":[1]}]}"),
     .words = {"\"close\":\"1\""}},
    {"dividends in an array beside an error", "yahoo-chart", .status = 200, .verdict = EXTRACT_SOURCE_ERROR, .kind = ERROR_THROTTLED,
     .body = "{\"chart\":{\"result\":[{\"events\":{\"dividends\":[1]}}]},"
             "\"finance\":{\"error\":{\"code\":\"Too Many Requests\",\"description\":\"Rate limited\"}}}"},
    /* Naver. */
    {"minutes from the middle of a day", "naver-day", .interval = "1m", .status = 200, .verdict = EXTRACT_ROWS, .rows = 2,
     .body = FCHART("minute", "<item data=\"202608141000|null|null|null|10|700\"/><item data=\"202608141001|null|null|null|11|750\"/>"),
     .words = {"\"close\":\"10\",\"volume\":null", "\"close\":\"11\",\"volume\":\"50\"", "\"is_final\":false"}},
    {"minutes from the opening on", "naver-day", .interval = "1m", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = FCHART("minute", "<item data=\"202608140900|null|null|null|10|700\"/>"), .words = {"\"close\":\"10\",\"volume\":\"700\""}},
    {"minutes, the newest first", "naver-day", .interval = "1m", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = FCHART("minute", "<item data=\"202608140901|null|null|null|11|750\"/><item data=\"202608140900|null|null|null|10|700\"/>"),
     .words = {"volume counts over the day, and the rows are not in its order"}},
    {"a halted day and a day of nothing", "naver-day", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = FCHART("day", "<item data=\"20260812|0|0|0|274500|0\"/><item data=\"20260813|||||\"/>"),
     .words = {"\"open\":null,\"high\":null,\"low\":null,\"close\":\"274500\",\"volume\":\"0\""}},
    {"a table as it is", "naver-sise-day", .symbol = "005930", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = SISE("\xbd\xc3\xb0\xa1", "\xb0\xed\xb0\xa1"), .words = {"\"open\":\"990\",\"high\":\"1010\",\"low\":\"980\",\"close\":\"1000\""}},
    {"a table whose columns changed their places", "naver-sise-day", .symbol = "005930", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = SISE("\xb0\xed\xb0\xa1", "\xbd\xc3\xb0\xa1"), .words = {"the page has no "}},
    {"lists as they are", "naver-sise-json", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = SISE_JSON("시가", "고가"), .words = {"\"open\":\"1\",\"high\":\"3\""}},
    {"lists whose columns changed their places", "naver-sise-json", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = SISE_JSON("고가", "시가"), .words = {"the first row is no known heading"}},
    /* Upbit. */
    {"candles of another unit", "upbit-candles", .interval = "1m", .status = 200, .verdict = EXTRACT_REFUSED, .body = CANDLE(",\"unit\":3"),
     .words = {"the reply's interval is \"3m\", asked was \"1m\""}},
    {"an hour is sixty minutes", "upbit-candles", .interval = "1h", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1, .body = CANDLE(",\"unit\":60"),
     .words = {"\"interval\":\"1h\"", "\"open\":\"0.00000014\"", "\"volume\":\"0.00000001\""}},
    {"the last hours of February", "upbit-candles", .interval = "1mo", .now = "2026-02-28T23:59:59Z", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = CANDLE(""), .words = {"\"is_final\":false"}},
    {"February is over", "upbit-candles", .interval = "1mo", .now = "2026-03-01T00:00:00Z", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = CANDLE(""), .words = {"\"is_final\":true"}},
    {"candles without a close", "upbit-candles", .status = 200, .verdict = EXTRACT_ROWS, .dead = 1,
     .body = "[{\"market\":\"KRW-BTC\",\"candle_date_time_utc\":\"2026-02-01T00:00:00\",\"opening_price\":1,\"high_price\":2,"
             "\"low_price\":1,\"closing_price\":1.5,\"candle_acc_trade_price\":3,\"candle_acc_trade_volume\":1}]"},
    {"too many, under a wrong status", "upbit-candles", .status = 200, .verdict = EXTRACT_SOURCE_ERROR, .kind = ERROR_THROTTLED,
     .body = "{\"error\":{\"name\":\"too_many_requests\",\"message\":\"slow down\"}}", .words = {"slow down"}},
    /* Binance. */
    {"trouble with a code", "binance-klines", .status = 503, .verdict = EXTRACT_SOURCE_ERROR, .kind = ERROR_TEMPORARY,
     .body = "{\"code\":-1001,\"msg\":\"Internal error; unable to process your request.\"}"},
    {"seconds", "binance-klines", .symbol = "BTCUSDT", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = "[[1785542400,\"1\",\"2\",\"1\",\"1\",\"1\"]]", .words = {"first weeks of 1970: is the unit of ts"}},
    {"a kline cut off", "binance-klines", .symbol = "BTCUSDT", .status = 200, .verdict = EXTRACT_ROWS, .dead = 1,
     .body = "[[1785542400000,\"1\",\"2\"]]"},
    {"microseconds", "binance-klines", .symbol = "BTCUSDT", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = "[[1785542400000000,\"1\",\"2\",\"1\",\"1\",\"1\"],[1785542460000000,\"1\",\"2\",\"1\",\"1\",\"1\"]]", .words = {"is the unit right?"}},
    {"a young quote currency", "binance-klines", .symbol = "XRPUSD1", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = "[[1785542400000,\"1e-8\",\"2\",\"1\",\"1\",\"1\"]]", .words = {"\"currency\":\"USD1\"", "\"open\":\"0.00000001\""}},
    {"an old quote currency", "binance-klines", .symbol = "BTCBKRW", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = "[[1785542400000,\"1\",\"2\",\"1\",\"1\",\"1\"]]", .words = {"\"currency\":\"BKRW\""}},
    {"no known quote currency", "binance-klines", .symbol = "BTCXYZ", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = "[[1785542400000,\"1\",\"2\",\"1\",\"1\",\"1\"]]", .words = {"\"currency\":null"}},
    /* The ECB. */
    {"a currency without a rate", "ecb-fx", .symbol = "*", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = ECB("<Cube currency='BGN' rate='N/A'/><Cube currency='TRL' rate=''/><Cube currency='USD' rate='1.1684'/>"),
     .words = {"\"symbol\":\"EURUSD\"", "\"ts\":\"2026-04-13T14:00:00Z\""}},
    {"nothing but a dead currency", "ecb-fx", .symbol = "EURBGN", .status = 200, .verdict = EXTRACT_EMPTY,
     .body = ECB("<Cube currency='BGN' rate='N/A'/>")},
    /* Stooq. */
    {"a byte order mark, short rows, blank lines", "stooq-day", .symbol = "aapl.us", .status = 200, .verdict = EXTRACT_ROWS, .rows = 2,
     .body = "\xef\xbb\xbf" STOOQ "2026-10-07,1.5,2,1,1.7,9100614.971493712345678\r\n2026-10-08,1\r\n\r\n",
     .words = {"\"volume\":\"9100614.971493712345678\"", "\"open\":\"1\",\"high\":null,\"low\":null,\"close\":null"}},
    {"a price below zero", "stooq-day", .symbol = "cl.f", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = STOOQ "2020-04-20,17.73,17.85,-40.32,-37.63,1\n", .words = {"\"low\":\"-40.32\",\"close\":\"-37.63\""}},
    {"a heading and nothing else", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_EMPTY, .body = STOOQ},
    {"a heading in English with LOP", "stooq-day", .symbol = "fw20", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = "Date,Open,High,Low,Close,Volume,LOP\r\n2026-10-08,1,2,1,1,5,77\r\n", .words = {"\"volume\":\"5\""}},
    {"cut inside of a price", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = STOOQ "2026-10-07,1,2,1,1,1\r\n2026-10-08,1,2,1,15", .words = {"the last line is cut off"}},
    {"cut after a comma", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_REFUSED, .body = STOOQ "2026-10-08,1,2,"},
    {"a whole last line without an end", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = STOOQ "2026-10-08,1,2,1,1,1"},
    {"a comma in a number", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = STOOQ "2026-10-07,1,5,2,5,1,5,1,5,100\r\n", .words = {"a line has 10 cells, and the heading 6"}},
    {"a comma too many", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = STOOQ "2026-10-07,1,2,1,1,100,\r\n", .words = {"\"volume\":\"100\""}},
    {"text after a quote", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_REFUSED,
     .body = STOOQ "2026-10-07,\"1\"5,2,1,1,100\r\n", .words = {"goes on after its quote"}},
    {"quotes and blanks", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1,
     .body = STOOQ "\"2026-10-07\",\"1\",\"2\" ,1,1, 1.2E7 \r\n", .dead = 0, .words = {"\"volume\":\"12000000\""}},
    {"no heading", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_REFUSED, .body = "2026-10-07,1,2,1,1,1\n"},
    {"a decimal that does not fit", "stooq-day", .symbol = "x", .status = 200, .verdict = EXTRACT_ROWS, .rows = 1, .dead = 1,
     .body = STOOQ "2026-10-07,1.00000000001,2,1,1,1\n2026-10-08,1,2,1,1,1\n"},
};
/* clang-format on */

static void check(const Variant *v)
{
    ExtractRequest request = {.symbol = v->symbol,
                              .interval = v->interval,
                              .from_usec = CURSOR_NEVER,
                              .to_usec = INT64_MAX,
                              .now_usec = INT64_C(1795000000000000)}; /* 2026-11-18 */
    auto_(recipe_freep) Recipe *recipe = NULL;
    auto_extract_outcome ExtractOutcome outcome = {0};
    auto_buf Buf lines = BUF_INIT(1 << 20);
    auto_row_set RowSet rows = {0};
    auto_error Error err = {0};

    print_message("# TZ=%s %s: %s\n", getenv("TZ"), v->recipe, v->name);
    if (v->now)
        assert_int_equal(time_parse_rfc3339(v->now, &request.now_usec), 0);
    assert_ok(recipe_load(v->recipe, &recipe, &err), &err);
    assert_ok(extract_run(recipe, &request, v->body, strlen(v->body), v->status, NULL, &rows,
                          &outcome, &err),
              &err);
    assert_string_equal(extract_verdict_name(outcome.verdict), extract_verdict_name(v->verdict));
    assert_int_equal(rows.n, v->rows);
    assert_int_equal(rows.n_dead, v->dead);
    if (v->verdict == EXTRACT_SOURCE_ERROR)
        assert_int_equal(outcome.kind, v->kind);
    for (size_t i = 0; i < rows.n; i++)
        assert_int_equal(row_encode_ndjson(&rows.rows[i], &lines), 0);
    for (size_t i = 0; i < ELEMENTS(v->words) && v->words[i]; i++)
        assert_contains(outcome.text ? outcome.text : buf_str(&lines), v->words[i]);
}

static void each_variant_gives_its_rows_or_its_reason(void **state)
{
    static const char *const zones[] = {"UTC", "Pacific/Kiritimati", "America/Los_Angeles"};

    /* The host's own zone is nobody's business. */
    for (size_t z = 0; z < ELEMENTS(zones); z++) {
        assert_int_equal(setenv("TZ", zones[z], 1), 0);
        tzset();
        for (size_t i = 0; i < ELEMENTS(variants); i++)
            check(&variants[i]);
    }
}

/* A source's "nothing there" that looks like an error must not end a range for ever. */
static void an_error_that_means_nothing_there_is_read_past(void **state)
{
    const ExtractRequest request = {.from_usec = CURSOR_NEVER, .to_usec = INT64_MAX};
    static const char *const bodies[] = {
        "{\"chart\":{\"error\":{\"code\":\"Bad Request\",\"description\":\"Data doesn't exist for "
        "startDate = 1\"}}}",
        "{\"chart\":{\"error\":{\"code\":\"Bad Request\",\"description\":\"Invalid interval\"}}}",
    };

    for (size_t i = 0; i < ELEMENTS(bodies); i++) {
        auto_(recipe_freep) Recipe *recipe = NULL;
        auto_extract_outcome ExtractOutcome outcome = {0};
        auto_row_set RowSet rows = {0};
        auto_error Error err = {0};

        assert_ok(recipe_load("yahoo-chart", &recipe, &err), &err);
        assert_ok(extract_run(recipe, &request, bodies[i], strlen(bodies[i]), 400,
                              "application/json", &rows, &outcome, &err),
                  &err);
        assert_int_equal(outcome.verdict, EXTRACT_SOURCE_ERROR);
        assert_int_equal(outcome.nothing, i == 0);
    }
}

#define TABLE(rows)                                                                                \
    "{\"rows\":\"" rows                                                                            \
    "\",\"optional\":true,\"columns\":{\"symbol\":{\"const\":\"X\"},\"interval\":"                 \
    "{\"const\":\"1d\"},\"tz\":{\"const\":\"UTC\"},\"ts\":{\"path\":\"t\",\"type\":\"epoch-s\"},"  \
    "\"close\":"                                                                                   \
    "{\"path\":\"v\"}}}"
#define ROW "{\"t\":1785542400,\"v\":1}"

/* Rows that are all passed over look like a time without any. */
static void rows_in_a_container_of_the_other_kind_are_refused(void **state)
{
    static const struct {
        const char *tables, *body;
        ExtractVerdict verdict;
        const char *reason;
    } cases[] = {
        {TABLE("d[]"), "{\"d\":[" ROW "]}", EXTRACT_ROWS, NULL},
        {TABLE("d[]"), "{\"d\":\n {\"a\":" ROW "}}", EXTRACT_REFUSED,
         "line 2, column 2: an object stands where the rows are elements of an array"},
        {TABLE("d[]"), "{\"d\":{}}", EXTRACT_EMPTY, NULL},
        {TABLE("d.*"), "{\"d\":[" ROW "]}", EXTRACT_REFUSED,
         "line 1, column 6: an array stands where the rows are members of an object"},
        {TABLE("d.*"), "{\"d\":[null]}", EXTRACT_REFUSED, "column 6: an array stands"},
        {TABLE("d.*"), "{\"d\":[]}", EXTRACT_EMPTY, NULL},
        /* A recipe may know both. */
        {TABLE("d.*") "," TABLE("d[]"), "{\"d\":[" ROW "]}", EXTRACT_ROWS, NULL},
        {TABLE("d.*") "," TABLE("d[]"), "{\"d\":{\"a\":" ROW "}}", EXTRACT_ROWS, NULL},
    };
    const ExtractRequest request = {.from_usec = CURSOR_NEVER, .to_usec = INT64_MAX};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_free char *text = str_printf(
            "{\"name\":\"r\",\"hosts\":[\"h.example\"],\"root\":\"object\",\"request\":"
            "{\"url\":\"https://h.example/\"},\"intervals\":{\"1d\":{}},\"tables\":[%s]}",
            cases[i].tables);
        auto_(recipe_freep) Recipe *recipe = NULL;
        auto_extract_outcome ExtractOutcome outcome = {0};
        auto_row_set RowSet rows = {0};
        auto_error Error err = {0};

        print_message("# case %zu\n", i);
        assert_non_null(text);
        assert_ok(recipe_compile(text, strlen(text), "r.json", &recipe, NULL, &err), &err);
        assert_ok(extract_run(recipe, &request, cases[i].body, strlen(cases[i].body), 200, NULL,
                              &rows, &outcome, &err),
                  &err);
        assert_string_equal(extract_verdict_name(outcome.verdict),
                            extract_verdict_name(cases[i].verdict));
        assert_int_equal(rows.n, cases[i].verdict == EXTRACT_ROWS);
        if (cases[i].reason)
            assert_contains(outcome.text, cases[i].reason);
    }
}

static int group_setup(void **state)
{
    auto_free char *dir =
        str_printf("%s/crawler/recipe", getenv("srcdir") ? getenv("srcdir") : ".");

    extract_init();
    return dir ? setenv("MERVIS_RECIPES_DIR", dir, 1) : -1;
}

static int group_teardown(void **state)
{
    zone_forget_all();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_variant_gives_its_rows_or_its_reason),
        cmocka_unit_test(an_error_that_means_nothing_there_is_read_past),
        cmocka_unit_test(rows_in_a_container_of_the_other_kind_are_refused),
    };

    return cmocka_run_group_tests_name("extract-variants", tests, group_setup, group_teardown);
}
