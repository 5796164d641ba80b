/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_BAR_FIXTURE_H
#define TESTS_UNIT_BAR_FIXTURE_H

/* Bars for the tests of the spool and its blocks. */

#include "tests/unit/test.h"

#include "agent/base/time.h"
#include "crawler/model/bar.h"

#define T0 INT64_C(1791331200000000) /* 2026-10-07T00:00:00Z */

static Amount amount(const char *text)
{
    Amount a;

    assert_int_equal(amount_from_text(text, &a), 0);
    return a;
}

static Row *add_bar(RowSet *set, const char *symbol, int64_t ts, const char *close)
{
    Row *row;

    assert_int_equal(row_set_add(set, NULL, &row), 0);
    row->source = "yahoo-chart";
    row->symbol = row_set_string(set, symbol, strlen(symbol));
    row->currency = "USD";
    row->interval = "1m";
    row->tz = "America/New_York";
    row->ts_usec = ts;
    row->trade_date = (int32_t)(ts / (int64_t)DAY);
    row->session = SESSION_REGULAR;
    row->is_final = true;
    row->open = amount("73.72");
    row->high = amount("100000000000000000000.123456789");
    row->low = amount("-0.000000001");
    row->close = amount(close);
    row->volume = amount("123456789012345678901234567890.5");
    return row;
}

#endif
