/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_EXTRACT_CHECK_H
#define TESTS_UNIT_EXTRACT_CHECK_H

/* What must hold for the extraction of any bytes whatever; for tests and fuzzers alike. */

#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/extract/extract.h"
#include "crawler/model/bar.h"

/* NULL when all is well, else what does not hold. */
static inline unused_ const char *extract_fault_row(const Row *row, Buf *buf)
{
    int64_t utc_day = row->ts_usec / (int64_t)DAY - (row->ts_usec % (int64_t)DAY < 0);
    const Amount *numeric[] = {&row->open,      &row->high,   &row->low,       &row->close,
                               &row->adj_close, &row->amount, &row->ratio_num, &row->ratio_den};
    bool has_price =
        row->open.present || row->high.present || row->low.present || row->close.present;

    if (!row->source || !row->interval || !row->tz)
        return "a row has no source, interval or tz";
    if (row->symbol && !symbol_is_valid(row->symbol) && !streq(row->symbol, ""))
        return "a row's symbol is none";
    if (row->kind < ROW_BAR || row->kind >= ROW_KIND_MAX || row->session >= SESSION_MAX)
        return "a row's kind or session is none";
    if (row->trade_date < utc_day - 1 || row->trade_date > utc_day + 1)
        return "a trade date is not near its instant";
    if (row->kind == ROW_BAR && !has_price)
        return "a bar has no price";
    if (row->kind != ROW_BAR && !row->amount.present && !row->ratio_num.present)
        return "an event has no amount";
    for (size_t i = 0; i < ELEMENTS(numeric); i++)
        if (!amount_fits(numeric[i], AMOUNT_SCALE_NUMERIC))
            return "a price does not fit NUMERIC";
    if (!amount_fits(&row->volume, AMOUNT_SCALE_MAX))
        return "a volume does not fit BIGNUMERIC";
    buf_clear(buf);
    if (row_encode_ndjson(row, buf) < 0 || !str_is_utf8(buf->data, buf->size) ||
        memchr(buf->data, '\n', buf->size) != buf->data + buf->size - 1)
        return "a row is not one line of UTF-8";
    return NULL;
}

static inline unused_ const char *extract_fault(const RowSet *rows, const ExtractOutcome *outcome,
                                                Buf *buf)
{
    const char *fault;

    switch (outcome->verdict) {
    case EXTRACT_ROWS:
        if (rows->n + rows->n_dead == 0)
            return "rows without rows";
        break;
    case EXTRACT_EMPTY:
        if (rows->n + rows->n_dead > 0)
            return "an empty answer with rows";
        break;
    case EXTRACT_SOURCE_ERROR:
    case EXTRACT_REFUSED:
        if (rows->n + rows->n_dead > 0 || str_is_empty(outcome->text))
            return "a refusal with rows or without a reason";
        if (!str_is_utf8(outcome->text, strlen(outcome->text)))
            return "a reason is not UTF-8";
        break;
    case EXTRACT_VERDICT_MAX:
        return "no verdict";
    }
    for (size_t i = 0; i < rows->n_dead; i++)
        if (str_is_empty(rows->dead[i].reason))
            return "a dead row without a reason";
    for (size_t i = 0; i < rows->n; i++) {
        fault = extract_fault_row(&rows->rows[i], buf);
        if (fault)
            return fault;
    }
    return NULL;
}

#endif
