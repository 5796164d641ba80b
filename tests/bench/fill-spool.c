/* SPDX-License-Identifier: Apache-2.0 */

/* A spool with rows that wait for their sink: fill-spool FILE ROWS. For tests/bench/delivery. */

#include <stdio.h>
#include <stdlib.h>

#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "crawler/sink/sink.h"
#include "crawler/spool/spool.h"

#define BARS 390

static int table_of(const char *interval)
{
    return (int)sink_table_of_interval(interval);
}

static Amount cents(uint64_t value)
{
    Amount amount = amount_from_i64((int64_t)value);
    Amount ret = AMOUNT_ABSENT;

    return amount_shift(&amount, -2, AMOUNT_SCALE_NUMERIC, &ret) < 0 ? AMOUNT_ABSENT : ret;
}

static int add_row(RowSet *set, const Row *like, uint64_t number)
{
    uint64_t price = 10001 + number * 7919 % 89000;
    Row *row;
    int r = row_set_add(set, like, &row);

    if (r < 0)
        return r;
    row->ts_usec = (int64_t)((UINT64_C(1700000000) / 60 + number % BARS) * MINUTE);
    row->trade_date = (int32_t)((uint64_t)row->ts_usec / DAY);
    row->open = cents(price);
    row->high = cents(price + 11);
    row->low = cents(price - 7);
    row->close = cents(price + 3);
    row->volume = amount_from_i64((int64_t)(1000 + number % 900000));
    return 0;
}

static int add_document(Spool *spool, uint64_t first, uint64_t n, Error *err)
{
    auto_row_set RowSet set = {0};
    char symbol[32];
    Row like = {.source = "bench-chart",
                .symbol = symbol,
                .venue = "NMS",
                .currency = "USD",
                .interval = "1m",
                .tz = "America/New_York",
                .session = SESSION_REGULAR,
                .is_final = true};
    SpoolDocument document = {.job = "bench",
                              .symbol = symbol,
                              .range = "",
                              .rows = &set,
                              .table_of = table_of,
                              .now_usec = (int64_t)now_realtime_usec()};
    SpoolAccepted count;

    (void)snprintf(symbol, sizeof(symbol), "F%06u", (unsigned)(first / BARS));
    for (uint64_t i = 0; i < n; i++)
        if (add_row(&set, &like, first + i) < 0)
            return error_oom(err);
    return spool_accept(spool, &document, &count, err);
}

int main(int argc, char **argv)
{
    SpoolLimits limits = SPOOL_LIMITS_DEFAULT;
    auto_(spool_closep) Spool *spool = NULL;
    auto_free char *aside = NULL;
    auto_error Error err = {0};
    uint64_t rows;
    int r;

    if (argc != 3 || parse_u64(argv[2], &rows) < 0) {
        (void)fprintf(stderr, "usage: fill-spool FILE ROWS\n");
        return EXIT_FAILURE;
    }
    r = spool_open(argv[1], &limits, &spool, &aside, &err);
    for (uint64_t at = 0; at < rows && r >= 0; at += BARS)
        r = add_document(spool, at, MIN_OF(rows - at, (uint64_t)BARS), &err);
    if (r >= 0)
        r = spool_sync(spool, &err);
    if (r < 0) {
        (void)fprintf(stderr, "fill-spool: %s\n", error_text(&err));
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
