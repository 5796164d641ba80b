/* SPDX-License-Identifier: Apache-2.0 */

/* The floor: what the work costs with nothing around it. One loop, one connection, no database, no
 * scheduler, no error handling but giving up.
 *
 *     floor crawl MARKET-URL SYMBOLS FILE    fetch, scan, encode, append with fdatasync a document
 *     floor copy MARKET-URL SYMBOLS FILE     the same, but numbers are copied as the document has
 * them floor encode ROWS [SINK-URL]           encode rows that are in memory already, and send them
 *
 * Lines are those that the sink sends: JSON, absent values left out, prices as the shortest text of
 * the float32 that was sent. Scanning and numbers are the daemon's own functions, so that the first
 * floor says what is around them; the second one has no number functions but the instant's. */

#include <curl/curl.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json-scan.h"
#include "crawler/model/amount.h"
#include "crawler/model/bar.h"

#define BARS_MAX      4096
#define BODY_MAX      (16U << 20)
#define LINES_MAX     (64U << 20)
#define LINE_MAX_SIZE 1024
#define NUMBER_MAX    64
#define PIECE         (8U << 20)
#define TAIL                                                                                       \
    ",\"is_final\":true,\"revision\":0,\"ingested_at\":\"2026-01-01T00:00:00Z\","                  \
    "\"batch_id\":\"0123456789abcdefghijkl\"}\n"

static const char *const names[] = {"timestamp", "open", "high", "low", "close", "volume"};

#define COLUMNS ELEMENTS(names)

typedef struct Text {
    const char *text;
    size_t size;
} Text;

typedef struct Document {
    Text values[COLUMNS][BARS_MAX];
    size_t n[COLUMNS];
    Text symbol;
} Document;

_Noreturn static void give_up(const char *what)
{
    (void)fprintf(stderr, "floor: %s\n", what);
    exit(EXIT_FAILURE);
}

static size_t take_body(char *data, size_t size, size_t n, void *userdata)
{
    return buf_add(userdata, data, size * n) < 0 ? 0 : size * n;
}

/* --- Scan ----------------------------------------------------------------------------------- */

static void scan_column(JsonScan *scan, Document *document, size_t column)
{
    size_t *n = &document->n[column];
    JsonToken token;

    if (json_scan_next(scan) != JSON_TOKEN_ARRAY_BEGIN)
        give_up("no array");
    while ((token = json_scan_next(scan)) == JSON_TOKEN_NUMBER || token == JSON_TOKEN_NULL) {
        if (*n == BARS_MAX)
            give_up("too many bars");
        document->values[column][(*n)++] =
            (Text){token == JSON_TOKEN_NULL ? NULL : scan->text, scan->text_size};
    }
}

static void scan_document(const Buf *body, Document *document)
{
    JsonScan scan;
    JsonToken token;

    memset(document->n, 0, sizeof(document->n));
    json_scan_init(&scan, body->data, body->size);
    while ((token = json_scan_next(&scan)) != JSON_TOKEN_END) {
        if (token == JSON_TOKEN_ERROR)
            give_up("not JSON");
        if (token != JSON_TOKEN_KEY)
            continue;
        for (size_t i = 0; i < COLUMNS; i++)
            if (json_scan_is(&scan, names[i])) {
                scan_column(&scan, document, i);
                break;
            }
        if (json_scan_is(&scan, "symbol") && json_scan_next(&scan) == JSON_TOKEN_STRING)
            document->symbol = (Text){scan.text, scan.text_size};
    }
}

/* --- Encode --------------------------------------------------------------------------------- */

static char *put(char *at, const char *text, size_t size)
{
    memcpy(at, text, size);
    return at + size;
}

#define put_literal(at, literal) put((at), (literal), sizeof(literal) - 1)

static char *put_two(char *at, unsigned value)
{
    *at++ = (char)('0' + value / 10);
    *at++ = (char)('0' + value % 10);
    return at;
}

static char *put_amount(char *at, const char *name, const Amount *amount)
{
    if (!amount->present)
        return at;
    at = put_literal(at, ",\"");
    at = put(at, name, strlen(name));
    at = put_literal(at, "\":\"");
    at += amount_format(amount, at);
    *at++ = '"';
    return at;
}

static char *put_text(char *at, const char *name, Text text)
{
    if (!text.text)
        return at;
    at = put_literal(at, ",\"");
    at = put(at, name, strlen(name));
    at = put_literal(at, "\":\"");
    at = put(at, text.text, text.size);
    *at++ = '"';
    return at;
}

/* AMOUNTS, or where that is NULL the TEXTS of them. */
static void encode_row(Buf *lines, Text symbol, uint64_t ts, const Amount *amounts,
                       const Text *texts)
{
    char date[ROW_DATE_MAX];
    char *at;
    size_t n = row_date_format((int32_t)(ts / 86400), date);
    unsigned second = (unsigned)(ts % 86400);

    if (buf_reserve(lines, LINE_MAX_SIZE) < 0)
        give_up("out of memory");
    at = lines->data + lines->size;
    at = put_literal(at, "{\"source\":\"bench-chart\",\"symbol\":\"");
    at = put(at, symbol.text, symbol.size);
    at = put_literal(at, "\",\"venue\":\"NMS\",\"currency\":\"USD\",\"interval\":\"1m\","
                         "\"kind\":\"bar\",\"ts\":\"");
    at = put(at, date, n);
    *at++ = 'T';
    at = put_two(at, second / 3600);
    *at++ = ':';
    at = put_two(at, second / 60 % 60);
    *at++ = ':';
    at = put_two(at, second % 60);
    at = put_literal(at, "Z\",\"trade_date\":\"");
    at = put(at, date, n);
    at = put_literal(at, "\",\"tz\":\"America/New_York\",\"session\":\"regular\"");
    for (size_t i = 1; i < COLUMNS; i++)
        at = amounts ? put_amount(at, names[i], &amounts[i]) : put_text(at, names[i], texts[i]);
    at = put_literal(at, TAIL);
    lines->size = (size_t)(at - lines->data);
}

static void parse_amounts(const Text *texts, Amount *amounts)
{
    for (size_t i = 1; i < COLUMNS; i++) {
        unsigned flags = AMOUNT_BINARY | (i < 5 ? (unsigned)AMOUNT_FLOAT32 : 0U);

        if (texts[i].text && amount_parse(texts[i].text, texts[i].size, flags, AMOUNT_SCALE_NUMERIC,
                                          &amounts[i]) < 0)
            give_up("no amount");
    }
}

static void encode_document(Buf *lines, const Document *document, bool copies)
{
    for (size_t row = 0; row < document->n[0]; row++) {
        Amount amounts[COLUMNS] = {0};
        Text texts[COLUMNS] = {0};
        uint64_t ts;

        if (parse_u64_n(document->values[0][row].text, document->values[0][row].size, &ts) < 0)
            give_up("no timestamp");
        for (size_t i = 1; i < COLUMNS; i++) {
            if (row < document->n[i])
                texts[i] = document->values[i][row];
            if (texts[i].size > NUMBER_MAX)
                give_up("no number");
        }
        if (!copies)
            parse_amounts(texts, amounts);
        encode_row(lines, document->symbol, ts, copies ? NULL : amounts, texts);
    }
}

/* --- The two loops -------------------------------------------------------------------------- */

static void crawl(const char *market, uint64_t symbols, const char *path, bool copies)
{
    static Document document;
    auto_buf Buf body = BUF_INIT(BODY_MAX), lines = BUF_INIT(LINES_MAX);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CURL *curl = curl_easy_init();
    char url[256];

    if (fd < 0 || !curl)
        give_up("cannot begin");
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
    (void)curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    for (uint64_t i = 0; i < symbols; i++) {
        (void)snprintf(url, sizeof(url), "%s/v8/finance/chart/B%05u?interval=1m", market,
                       (unsigned)i);
        buf_clear(&body);
        buf_clear(&lines);
        (void)curl_easy_setopt(curl, CURLOPT_URL, url);
        if (curl_easy_perform(curl) != CURLE_OK)
            give_up("a document could not be fetched");
        scan_document(&body, &document);
        encode_document(&lines, &document, copies);
        if (fd_write_all(fd, lines.data, lines.size) < 0 || fdatasync(fd) < 0)
            give_up("cannot write");
    }
    curl_easy_cleanup(curl);
    (void)close(fd);
}

/* In pieces, as large as the daemon's. */
static void send_lines(CURL *curl, const Buf *lines)
{
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, lines->data);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)lines->size);
    if (curl_easy_perform(curl) != CURLE_OK)
        give_up("a piece could not be sent");
}

static CURL *sender(const char *sink, Buf *reply, struct curl_slist **ret_headers)
{
    CURL *curl = curl_easy_init();

    *ret_headers = curl_slist_append(NULL, "Expect:");
    if (!curl || !*ret_headers || curl_easy_setopt(curl, CURLOPT_URL, sink) != CURLE_OK)
        give_up("cannot begin");
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, *ret_headers);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, reply);
    return curl;
}

static void encode(uint64_t rows, const char *sink)
{
    auto_buf Buf lines = BUF_INIT(LINES_MAX), reply = BUF_INIT(BODY_MAX);
    struct curl_slist *headers = NULL;
    CURL *curl = sink ? sender(sink, &reply, &headers) : NULL;
    uint64_t bytes = 0;

    for (uint64_t i = 0; i < rows; i++) {
        Amount amounts[COLUMNS] = {0};
        uint64_t ts = 1700000000 / 60 * 60 + i % BARS_MAX * 60;

        for (size_t k = 1; k < COLUMNS; k++)
            amounts[k] = (Amount){.mantissa = (AmountMantissa)(10001 + (i * 7 + k) % 90000) *
                                              (k == 5 ? 7 : 1),
                                  .scale = k == 5 ? 0 : 2,
                                  .present = true};
        encode_row(&lines, (Text){"B00042", 6}, ts, amounts, NULL);
        if (lines.size > PIECE || i + 1 == rows) {
            bytes += lines.size;
            if (curl)
                send_lines(curl, &lines);
            buf_clear(&lines);
        }
    }
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    (void)printf("%llu bytes\n", (unsigned long long)bytes);
}

int main(int argc, char **argv)
{
    uint64_t n;

    if (argc == 5 && (streq(argv[1], "crawl") || streq(argv[1], "copy")) &&
        parse_u64(argv[3], &n) >= 0)
        crawl(argv[2], n, argv[4], streq(argv[1], "copy"));
    else if ((argc == 3 || argc == 4) && streq(argv[1], "encode") && parse_u64(argv[2], &n) >= 0)
        encode(n, argc == 4 ? argv[3] : NULL);
    else
        give_up("usage: floor crawl|copy MARKET-URL SYMBOLS FILE | floor encode ROWS [SINK-URL]");
    return EXIT_SUCCESS;
}
