/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_DELIVERY_H
#define CRAWLER_CRAWLERD_DELIVERY_H

/* From the spool to the sink: closes batches that are old enough, sends frozen ones, a few at a
 * time and each table for itself, and lets them leave only when the sink has them. Says at most
 * once what is wrong with a table; keeps within what a table may be asked to do in a day. */

#include <stdbool.h>
#include <stdint.h>

#include "crawler/crawlerd/errander.h"
#include "crawler/spool/spool.h"

typedef struct Delivery Delivery;

/* Of 1,500 loads and 30,000 partition changes a table and day, with room for what others do. */
#define DELIVERY_GATHER_USEC    (5 * SECOND) /* after a quiet time: what comes with the first row */
#define DELIVERY_LOADS_MAX      1400
#define DELIVERY_PARTITIONS_MAX 28000
#define DELIVERY_REPAIRS_MAX    40

typedef struct DeliveryHandlers {
    /* A batch left the spool. */
    void (*delivered)(const SpoolBatch *batch, void *userdata);
    /* Nothing is left to deliver, open batches included. */
    void (*idle)(void *userdata);
    /* Something does not move without a person, or not for long: `err` says what; NULL: over. */
    void (*trouble)(int table, const Error *err, uint64_t wait_usec, void *userdata);
    /* Another instance loads our job set (its label), or does not any more (NULL). */
    void (*other_writer)(const char *instance, void *userdata);
    void *userdata;
} DeliveryHandlers;

int delivery_new(const ErranderContext *context, Spool *spool, const DeliveryHandlers *handlers,
                 Delivery **ret, Error *err) must_check;
/* Cancels what is under way; the spool knows where it was. */
Delivery *delivery_free(Delivery *delivery);
DEFINE_AUTO(Delivery, delivery_free)

/* Rows may have come: looks what is due. Cheap. */
void delivery_kick(Delivery *delivery);
/* Freezes what is open and sends everything now. */
void delivery_flush(Delivery *delivery);
bool delivery_is_idle(const Delivery *delivery);
/* Nothing of what waits can move within that time: no use in waiting for it. */
bool delivery_is_stuck(Delivery *delivery, uint64_t within_usec);

typedef struct DeliveryStatus {
    size_t in_flight;
    const char *message, *remedy; /* borrowed; NULL while all is well */
    SpoolDay today[SPOOL_TABLES];
    uint64_t loads_forecast; /* at this flush interval, a table and day */
} DeliveryStatus;
void delivery_status(Delivery *delivery, DeliveryStatus *ret);

#endif
