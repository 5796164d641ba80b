/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_MODEL_ZONE_H
#define CRAWLER_MODEL_ZONE_H

/* IANA time zones out of the system's tzdata (/usr/share/zoneinfo, TZif versions 1 to 4), read by
 * ourselves: a daemon that asks about several zones cannot use localtime_r(), which knows only the
 * one in TZ, and the host's own zone must never reach a market date. A zone is read once and kept
 * for the life of the process (one thread; a few kB each; about thirty exchanges exist). After an
 * upgrade of tzdata a restart reads it anew. */

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/error.h"

typedef struct Zone Zone;

/* The zone of that name ("America/New_York", "UTC"); borrowed, lives until zone_forget_all().
 * -EINVAL: not a zone name; -ENOENT: tzdata does not have it (remedy: the tzdata package). */
int zone_get(const char *name, const Zone **ret, Error *err) must_check;
const char *zone_name(const Zone *zone);

/* Seconds east of UTC at that instant, daylight saving included. */
int32_t zone_offset(const Zone *zone, int64_t utc_sec);
/* The zone's calendar date at that instant, as days since 1970-01-01. */
int32_t zone_date(const Zone *zone, int64_t ts_usec);
/* Second of the local day at that instant, 0 to 86399. */
int32_t zone_second_of_day(const Zone *zone, int64_t ts_usec);
/* The instant of a local wall time (seconds since 1970-01-01 as if it were UTC). An hour that
 * exists twice gives the first; one that does not exist is read with the offset before the gap. */
int64_t zone_to_utc(const Zone *zone, int64_t local_sec);

/* Empties the cache: for leak checks at the end of a program. Borrowed zones are dead then. */
void zone_forget_all(void);

#endif
