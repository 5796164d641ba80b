/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_ERRANDER_H
#define CRAWLER_CRAWLERD_ERRANDER_H

/* Runs one errand of a sink: sends what next() asks for with the machine's token, hands the reply
 * to judge(), waits where it says so. */

#include <systemd/sd-event.h>

#include "agent/cloud/cloud.h"
#include "crawler/sink/sink.h"

typedef struct Errander Errander;

typedef struct ErranderContext {
    sd_event *event;
    HttpClient *http;
    Cloud *cloud;
    Sink *sink;
} ErranderContext;

#define ERRANDER_PATIENCE 3 /* failures in a row before they are told */

/* The errand left ERRAND_ASKING, or is still in it and fails time and again: `error` says why.
 * These and paused ones go on by themselves after wait_usec; all others are over. The handler may
 * free the errander. */
typedef void (*ErranderHandler)(Errander *errander, Errand *e, void *userdata);

int errander_new(const ErranderContext *context, ErranderHandler handler, void *userdata,
                 Errander **ret) must_check;
/* Cancels it. */
Errander *errander_free(Errander *errander);
DEFINE_AUTO(Errander, errander_free)
/* To be filled by errand_init_…() before errander_go(). */
Errand *errander_errand(Errander *errander);
/* First request after `delay_usec`. */
void errander_go(Errander *errander, uint64_t delay_usec);

#endif
