/* SPDX-License-Identifier: Apache-2.0 */

/* In which form rows should be loaded: formats [ROWS]. The same rows as NDJSON, CSV and Avro, what
 * each costs to make, to hash (a frozen batch has a SHA-256), to encrypt (as TLS does) and to
 * compress, and how many bytes leave. BigQuery reads all three; its network is free on Google's
 * side, a small machine's CPU is not. */

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "agent/base/buf.h"
#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "crawler/model/bar.h"

#define BATCH    50000 /* rows that are encoded at a time */
#define BUF_MAX_ ((size_t)256 << 20)
#define PIECE    65536

_Noreturn static void give_up(const char *what)
{
    (void)fprintf(stderr, "formats: %s\n", what);
    exit(EXIT_FAILURE);
}

static double cpu(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void must(int r)
{
    if (r < 0)
        give_up(strerror(-r));
}

/* --- Rows ----------------------------------------------------------------------------------- */

static Amount cents(uint64_t value)
{
    Amount amount = amount_from_i64((int64_t)value), ret;

    must(amount_shift(&amount, -2, AMOUNT_SCALE_NUMERIC, &ret));
    return ret;
}

static Row make_row(uint64_t number)
{
    static char symbol[16];
    uint64_t price = 10001 + number * 7919 % 89000;

    (void)snprintf(symbol, sizeof(symbol), "F%06u", (unsigned)(number / 390));
    return (Row){
        .source = "yahoo-chart",
        .symbol = symbol,
        .venue = "NMS",
        .currency = "USD",
        .interval = "1m",
        .tz = "America/New_York",
        .batch_id = "0123456789abcdefghijkl",
        .ts_usec = (int64_t)((UINT64_C(1700000000) / 60 + number % 390) * MINUTE),
        .ingested_usec = INT64_C(1791361800123456),
        .trade_date = 19675,
        .session = SESSION_REGULAR,
        .is_final = true,
        .open = cents(price),
        .high = cents(price + 11),
        .low = cents(price - 7),
        .close = cents(price + 3),
        .volume = amount_from_i64((int64_t)(1000 + number % 900000)),
    };
}

/* --- Text: no call but to memcpy and for amounts, as the sink's own encoder has none
 * -------------- */

static char *put_bytes(char *p, const char *bytes, size_t n)
{
    memcpy(p, bytes, n);
    return p + n;
}

static char *put(char *p, const char *text)
{
    return put_bytes(p, text, strlen(text));
}

static char *put_digits(char *p, unsigned value, unsigned width)
{
    for (unsigned i = width; i-- > 0; value /= 10)
        p[i] = (char)('0' + value % 10);
    return p + width;
}

static char *put_date(char *p, int64_t days)
{
    int year;
    unsigned month, day;

    civil_from_days(days, &year, &month, &day);
    p = put_digits(p, (unsigned)year, 4);
    *p++ = '-';
    p = put_digits(p, month, 2);
    *p++ = '-';
    return put_digits(p, day, 2);
}

static char *put_time(char *p, int64_t usec)
{
    unsigned second = (unsigned)(usec / (int64_t)SECOND % 86400);
    unsigned micro = (unsigned)(usec % (int64_t)SECOND);

    p = put_date(p, usec / (int64_t)DAY);
    *p++ = 'T';
    p = put_digits(p, second / 3600, 2);
    *p++ = ':';
    p = put_digits(p, second / 60 % 60, 2);
    *p++ = ':';
    p = put_digits(p, second % 60, 2);
    if (micro > 0) {
        *p++ = '.';
        p = put_digits(p, micro, 6);
    }
    *p++ = 'Z';
    return p;
}

/* --- NDJSON, absent columns left out as the sink does ---------------------------------------- */

static char *json_text(char *p, const char *name, const char *text)
{
    if (!text)
        return p;
    p = put(p, name);
    p = put(p, text);
    return put(p, "\",");
}

static void as_ndjson(const Row *row, Buf *buf)
{
    static const char *const names[] = {
        "\"open\":\"",   "\"high\":\"",      "\"low\":\"",
        "\"close\":\"",  "\"volume\":\"",    "\"adj_close\":\"",
        "\"amount\":\"", "\"ratio_num\":\"", "\"ratio_den\":\"",
    };
    const Amount *amount = &row->open;
    char *p;

    must(buf_reserve(buf, 1200));
    p = buf->data + buf->size;
    p = json_text(p, "{\"source\":\"", row->source);
    p = json_text(p, "\"symbol\":\"", row->symbol);
    p = json_text(p, "\"venue\":\"", row->venue);
    p = json_text(p, "\"currency\":\"", row->currency);
    p = json_text(p, "\"interval\":\"", row->interval);
    p = json_text(p, "\"kind\":\"", "bar");
    p = put_time(put(p, "\"ts\":\""), row->ts_usec);
    p = put_date(put(p, "\",\"trade_date\":\""), row->trade_date);
    p = json_text(p, "\",\"tz\":\"", row->tz);
    p = json_text(p, "\"session\":\"", "regular");
    for (size_t i = 0; i < ELEMENTS(names); i++, amount++)
        if (amount->present) {
            p = put(p, names[i]);
            p += amount_format(amount, p);
            p = put(p, "\",");
        }
    p = put(p, row->is_final ? "\"is_final\":true,\"revision\":0,\"ingested_at\":\""
                             : "\"is_final\":false,\"revision\":0,\"ingested_at\":\"");
    p = put_time(p, row->ingested_usec);
    p = put(json_text(p, "\",\"batch_id\":\"", row->batch_id) - 1, "}\n");
    buf->size = (size_t)(p - buf->data);
}

/* --- CSV ------------------------------------------------------------------------------------ */

/* Nothing in a row of ours needs quotes; one that did would cost more, not less. */
static char *csv_text(char *p, const char *text)
{
    p = text ? put(p, text) : p;
    *p++ = ',';
    return p;
}

static void as_csv(const Row *row, Buf *buf)
{
    char *p;

    must(buf_reserve(buf, 1200));
    p = buf->data + buf->size;
    p = csv_text(p, row->source);
    p = csv_text(p, row->symbol);
    p = csv_text(p, row->venue);
    p = csv_text(p, row->currency);
    p = csv_text(p, row->interval);
    p = csv_text(p, "bar");
    p = put(put_time(p, row->ts_usec), ",");
    p = put(put_date(p, row->trade_date), ",");
    p = csv_text(p, row->tz);
    p = csv_text(p, "regular");
    for (const Amount *amount = &row->open; amount <= &row->ratio_den; amount++) {
        if (amount->present)
            p += amount_format(amount, p);
        *p++ = ',';
    }
    p = put(p, row->is_final ? "true,0," : "false,0,");
    p = put(put_time(p, row->ingested_usec), ",");
    p = put(put(p, row->batch_id), "\n");
    buf->size = (size_t)(p - buf->data);
}

/* --- Avro: the block's rows, without its header (a few hundred bytes a file) ------------------ */

static char *avro_long(char *p, int64_t value)
{
    uint64_t zigzag = (uint64_t)value << 1 ^ (uint64_t)(value >> 63);

    for (; zigzag >= 0x80; zigzag >>= 7)
        *p++ = (char)(zigzag | 0x80);
    *p++ = (char)zigzag;
    return p;
}

/* A union of null and string, as every column that may be null is one. */
static char *avro_text(char *p, const char *text)
{
    size_t n = text ? strlen(text) : 0;

    p = avro_long(p, text ? 1 : 0);
    if (!text)
        return p;
    return put_bytes(avro_long(p, (int64_t)n), text, n);
}

/* Decimal of a fixed scale (9, as NUMERIC has; Avro has one a column), big-endian, shortest. */
static char *avro_amount(char *p, const Amount *amount)
{
    AmountMantissa value = amount->mantissa;
    unsigned char bytes[16];
    size_t n = 0;

    p = avro_long(p, amount->present ? 1 : 0);
    if (!amount->present)
        return p;
    for (unsigned i = amount->scale; i < AMOUNT_SCALE_NUMERIC; i++)
        value *= 10;
    do {
        bytes[n++] = (unsigned char)value;
        value >>= 8;
    } while (n < sizeof(bytes) &&
             !((value == 0 && bytes[n - 1] < 0x80) || (value == -1 && bytes[n - 1] >= 0x80)));
    p = avro_long(p, (int64_t)n);
    while (n > 0)
        *p++ = (char)bytes[--n];
    return p;
}

static void as_avro(const Row *row, Buf *buf)
{
    char *p;

    must(buf_reserve(buf, 1200));
    p = buf->data + buf->size;
    p = avro_text(p, row->source);
    p = avro_text(p, row->symbol);
    p = avro_text(p, row->venue);
    p = avro_text(p, row->currency);
    p = avro_text(p, row->interval);
    p = avro_text(p, "bar");
    p = avro_long(p, row->ts_usec);
    p = avro_long(p, row->trade_date);
    p = avro_text(p, row->tz);
    p = avro_text(p, "regular");
    for (const Amount *amount = &row->open; amount <= &row->ratio_den; amount++)
        p = avro_amount(p, amount);
    *p++ = row->is_final;
    p = avro_long(p, 0);
    p = avro_long(avro_long(p, 1), row->ingested_usec);
    p = avro_text(p, row->batch_id);
    buf->size = (size_t)(p - buf->data);
}

/* --- What is done with the bytes -------------------------------------------------------------- */

static size_t hashed(const Buf *buf)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    if (EVP_Digest(buf->data, buf->size, digest, &n, EVP_sha256(), NULL) != 1)
        give_up("SHA-256");
    return buf->size;
}

static size_t encrypted(const Buf *buf)
{
    static const unsigned char key[16] = {1}, nonce[12] = {2};
    static unsigned char out[PIECE + 32];
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int n = 0;

    if (!context || EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, key, nonce) != 1)
        give_up("AES");
    for (size_t at = 0; at < buf->size; at += PIECE)
        if (EVP_EncryptUpdate(context, out, &n, (const unsigned char *)buf->data + at,
                              (int)MIN_OF(buf->size - at, (size_t)PIECE)) != 1)
            give_up("AES");
    EVP_CIPHER_CTX_free(context);
    return buf->size;
}

static size_t compressed(const Buf *buf, int level)
{
    static unsigned char out[PIECE];
    z_stream stream = {.next_in = (unsigned char *)buf->data, .avail_in = (unsigned)buf->size};
    int r;

    if (deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        give_up("zlib");
    do {
        stream.next_out = out;
        stream.avail_out = PIECE;
        r = deflate(&stream, Z_FINISH);
    } while (r == Z_OK);
    (void)deflateEnd(&stream);
    if (r != Z_STREAM_END)
        give_up("zlib");
    return stream.total_out;
}

static size_t gzip_1(const Buf *buf)
{
    return compressed(buf, 1);
}

static size_t gzip_6(const Buf *buf)
{
    return compressed(buf, 6);
}

/* --- The table ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    void (*encode)(const Row *row, Buf *buf);
} formats[] = {{"NDJSON", as_ndjson}, {"CSV", as_csv}, {"Avro", as_avro}};

static const struct {
    const char *name;
    size_t (*run)(const Buf *buf);
} steps[] = {
    {"SHA-256", hashed}, {"AES-128-GCM", encrypted}, {"gzip -1", gzip_1}, {"gzip -6", gzip_6}};

static void measure(size_t format, uint64_t rows)
{
    static Row batch[BATCH];
    auto_buf Buf buf = BUF_INIT(BUF_MAX_);
    double encode = 0, step[ELEMENTS(steps)] = {0}, begun;
    uint64_t bytes = 0, out[ELEMENTS(steps)] = {0};

    for (uint64_t at = 0; at < rows; at += BATCH) {
        uint64_t n = MIN_OF(rows - at, (uint64_t)BATCH);

        for (uint64_t i = 0; i < n; i++)
            batch[i] = make_row(at + i);
        buf_clear(&buf);
        begun = cpu();
        for (uint64_t i = 0; i < n; i++)
            formats[format].encode(&batch[i], &buf);
        encode += cpu() - begun;
        bytes += buf.size;
        for (size_t s = 0; s < ELEMENTS(steps); s++) {
            begun = cpu();
            out[s] += steps[s].run(&buf);
            step[s] += cpu() - begun;
        }
    }
    (void)printf("%-8s %8.1f %8.3f", formats[format].name, (double)bytes / (double)rows,
                 encode / (double)rows * 1e6);
    for (size_t s = 0; s < ELEMENTS(steps); s++)
        (void)printf(" %12.3f", step[s] / (double)rows * 1e6);
    (void)printf(" %10.1f %10.1f\n", (double)out[2] / (double)rows, (double)out[3] / (double)rows);
}

int main(int argc, char **argv)
{
    uint64_t rows = 1000000;

    if (argc > 2 || (argc == 2 && (parse_u64(argv[1], &rows) < 0 || rows == 0))) {
        (void)fprintf(stderr, "usage: formats [ROWS]\n");
        return EXIT_FAILURE;
    }
    (void)printf("CPU seconds a million rows\n%-8s %8s %8s", "", "bytes/row", "encode");
    for (size_t s = 0; s < ELEMENTS(steps); s++)
        (void)printf(" %12s", steps[s].name);
    (void)printf(" %10s %10s\n", "B/row -1", "B/row -6");
    for (size_t i = 0; i < ELEMENTS(formats); i++)
        measure(i, rows);
    return EXIT_SUCCESS;
}
