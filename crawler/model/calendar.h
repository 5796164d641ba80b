/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_MODEL_CALENDAR_H
#define CRAWLER_MODEL_CALENDAR_H

/* Trading hours of a market as data: NAME.calendar beside the recipes, one statement a line:
 *
 *     zone America/New_York
 *     days mon-fri
 *     session pre 04:00-09:30
 *     session regular 09:30-16:00
 *     session post 16:00-20:00
 *     closed 2026-12-25 Christmas Day
 *     hours 2026-11-27 regular 09:30-13:00 day after Thanksgiving
 *     known 2025-01-01 2026-12-31
 *
 * A calendar may be missing or run out (`known`): beyond it the weekly rule holds, and a missing
 * bar is never an alarm. Holidays move, so the data is a convenience and not an authority. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/error.h"
#include "crawler/model/instrument.h"
#include "crawler/model/zone.h"

typedef struct Calendar Calendar;

/* `name` ("XNYS") is for messages. All faults of the text are in the one message, by line. */
int calendar_parse(const char *text, size_t size, const char *name, Calendar **ret, Error *err)
    must_check;
/* NAME.calendar from the first of `dirs` (NULL-terminated) that has it; -ENOENT when none does. */
int calendar_load(const char *const *dirs, const char *name, Calendar **ret, Error *err) must_check;
Calendar *calendar_free(Calendar *calendar);
DEFINE_AUTO(Calendar, calendar_free)

const char *calendar_name(const Calendar *calendar);
const Zone *calendar_zone(const Calendar *calendar);
/* Whether the date lies where closures are known. */
bool calendar_knows(const Calendar *calendar, int32_t date);
/* The session at that instant, SESSION_NONE when closed. */
Session calendar_session(const Calendar *calendar, int64_t ts_usec);
/* Whether any session that day. */
bool calendar_is_trading_day(const Calendar *calendar, int32_t date);
/* The regular session of that date: 1 and [ret_open, ret_close), or 0 when closed. */
int calendar_regular(const Calendar *calendar, int32_t date, int64_t *ret_open_usec,
                     int64_t *ret_close_usec);
/* `ts_usec` itself when any session is on, else the next opening of any; INT64_MAX when there is
 * none within 60 days. */
int64_t calendar_next_open(const Calendar *calendar, int64_t ts_usec);

#endif
