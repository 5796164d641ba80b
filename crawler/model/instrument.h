/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_MODEL_INSTRUMENT_H
#define CRAWLER_MODEL_INSTRUMENT_H

/* Names that rows carry: symbols, intervals, sessions, kinds. */

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/cleanup.h"

typedef enum RowKind {
    ROW_BAR,
    ROW_DIVIDEND,
    ROW_SPLIT,
    ROW_CAPITAL_GAIN,
    ROW_KIND_MAX,
} RowKind;

typedef enum Session {
    SESSION_NONE, /* the source does not tell: null */
    SESSION_REGULAR,
    SESSION_PRE,
    SESSION_POST,
    SESSION_COMBINED, /* regular and after-hours trading in one bar */
    SESSION_MAX,
} Session;

/* Lower-case names as rows have them ("capital_gain"); NULL for SESSION_NONE. */
const char *row_kind_name(RowKind kind);
const char *session_name(Session session);
/* -EINVAL when unknown. */
int row_kind_from_name(const char *name);
int session_from_name(const char *name);
/* For enum fields: NULL-terminated, indexed by the enum (SESSION_NONE is "none"). */
extern const char *const row_kind_names[];
extern const char *const session_names[];

/* Printable, no blanks or control characters, 1 to SYMBOL_MAX bytes of UTF-8; "BRK-B", "^KS11",
 * "KRW=X", "005930". */
#define SYMBOL_MAX 64
bool symbol_is_valid(const char *symbol);

/* Bar lengths: a number and one of s m h d wk mo: "1m", "90m", "1h", "1d", "1wk", "1mo". */
typedef struct Interval {
    uint32_t count;
    enum {
        INTERVAL_SECOND,
        INTERVAL_MINUTE,
        INTERVAL_HOUR,
        INTERVAL_DAY,
        INTERVAL_WEEK,
        INTERVAL_MONTH
    } unit;
} Interval;

int interval_parse(const char *text, Interval *ret) must_check;
/* A month counts as 31 days here, so that "over" is never said too early. */
uint64_t interval_usec(const Interval *interval);
/* "1h", "1m": shorter than a day, so that the bar's instant matters and not only its date. */
bool interval_is_intraday(const Interval *interval);

#endif
