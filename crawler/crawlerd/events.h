/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_EVENTS_H
#define CRAWLER_CRAWLERD_EVENTS_H

/* What an operator acts on, told to the journal under a MESSAGE_ID that its catalog explains. A
 * source that is down fails for every symbol, every minute: the same failure of the same job is
 * told once an hour, with how often it happened. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/error.h"
#include "agent/base/log.h"
#include "agent/base/time.h"

typedef struct CrawlEventKind {
    const char *name;
    const char *message_id; /* 32 hex digits; never changed once shipped */
} CrawlEventKind;

extern const CrawlEventKind crawl_event_kinds[];
extern const size_t n_crawl_event_kinds;

/* What it is about; any may be NULL. */
typedef struct CrawlEventSubject {
    const char *job, *recipe, *batch;
    const Error *err; /* its kind */
} CrawlEventSubject;

void crawl_event(LogLevel level, const char *event, const CrawlEventSubject *subject,
                 const char *format, ...) printf_like(4, 5);

/* Who else is told of each event; NULL: nobody. There is one journal, and one of these. */
typedef void (*CrawlEventListener)(LogLevel level, const char *event, const char *message_id,
                                   const char *text, void *userdata);
void crawl_event_listen(CrawlEventListener listener, void *userdata);

#define REPEATS_MAX       32
#define REPEAT_PAUSE_USEC HOUR

typedef struct Repeat {
    char key[64];
    uint64_t said_at; /* boot time; 0: free */
    unsigned more;    /* since then */
} Repeat;

typedef struct RepeatLog {
    Repeat items[REPEATS_MAX];
} RepeatLog;

/* Whether it is to be said now; then `*ret_more` is how often it happened unsaid since it was. When
 * more keys are at work than there is room for, the one said longest ago is forgotten. */
bool repeat_is_to_be_said(RepeatLog *log, const char *event, const char *subject, uint64_t now_usec,
                          unsigned *ret_more);

#endif
