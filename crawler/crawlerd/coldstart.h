/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_COLDSTART_H
#define CRAWLER_CRAWLERD_COLDSTART_H

/* An empty disk (a Spot VM that was made again): before anything is fetched, waits until no load of
 * our job set is pending or running any more, since a dead machine's last load is not in the table
 * yet, and then learns which rows the look-back window has. What is missing, holes too, is fetched
 * afterwards; what is there makes no second row. */

#include "crawler/crawlerd/errander.h"
#include "crawler/spool/spool.h"

typedef struct Coldstart Coldstart;

typedef struct ColdstartHandlers {
    void (*done)(uint64_t keys, void *userdata);
    /* What it waits for, once a change; `err` when a person may have to act. */
    void (*waits)(const char *what, const Error *err, void *userdata);
    void *userdata;
} ColdstartHandlers;

/* `sources` is borrowed; ends with NULL. A table whose look-back is 0 is not asked. */
int coldstart_new(const ErranderContext *context, Spool *spool, const char *const *sources,
                  const uint64_t lookback_usec[static SPOOL_TABLES],
                  const ColdstartHandlers *handlers, Coldstart **ret, Error *err) must_check;
Coldstart *coldstart_free(Coldstart *coldstart);
DEFINE_AUTO(Coldstart, coldstart_free)

#endif
