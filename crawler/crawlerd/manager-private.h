/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_MANAGER_PRIVATE_H
#define CRAWLER_CRAWLERD_MANAGER_PRIVATE_H

#include <systemd/sd-bus.h>

#include "agent/base/backoff.h"
#include "agent/cloud/cloud.h"
#include "agent/io/loop.h"
#include "crawler/crawlerd/coldstart.h"
#include "crawler/crawlerd/crawl-plan.h"
#include "crawler/crawlerd/delivery.h"
#include "crawler/crawlerd/events.h"
#include "crawler/crawlerd/intake.h"
#include "crawler/crawlerd/manager.h"
#include "crawler/fetch/fetch.h"
#include "crawler/spool/spool.h"

typedef enum ManagerPhase {
    PHASE_IDLE,     /* no jobs */
    PHASE_IDENTITY, /* asking the cloud who we are */
    PHASE_COLD,     /* learning what is there */
    PHASE_RUNNING,
    PHASE_DRAINING,
} ManagerPhase;

struct Manager {
    RepeatLog repeats;
    sd_event *event;
    ManagerOptions options;
    char *spool_path, *document_path;
    HttpClient *http;
    Cloud *cloud;
    sd_bus *bus;
    sd_event_source *turn;    /* looks whether the state changed */
    uint64_t state_looked_at; /* boot time */
    const char *state_told;   /* static */
    Spool *spool; /* this and the next two: NULL while the disk takes nothing at the start */
    Intake *intake;
    Fetcher *fetcher;
    Sink *sink;
    Delivery *delivery;
    Coldstart *coldstart;

    CrawlDocument document; /* in force; plan NULL: none */
    FetchJob *jobs;
    char **secrets;       /* values for the jobs' secret_header, cleansed */
    const char **sources; /* recipe names, for the cold start */
    ManagerPhase phase;
    bool withdrawn; /* the document is not wanted any more; its sink still is */
    CloudOp *identity_op;
    HttpOp *egress_op;
    Timer *timer; /* the drain's end; the time limit of --once */
    Timer *again; /* the identity is asked again */
    Backoff identity_backoff;
    Error waits; /* what the beginning waits for: identity, cold start */
    uint64_t started_usec;
    uint64_t dead_before; /* dead letters when --once began */
    uint64_t refused_now; /* documents refused since the start */

    /* --once. */
    Timer *patience;
    Error given_up; /* the last symbol that was */
    Error failure;  /* why the exit status is not 0 */

    /* Why fetching is held, most severe first; NULL where not. */
    char *hold_spool, *hold_full, *hold_cold, *hold_writer;
    char *spool_remedy;
    char *refused_message; /* the document's fault */
    char *aside_message;   /* the spool was moved aside */
    char *egress_message;
    char *egress_remedy;
};

/* As Describe() says it; static. */
const char *manager_state(Manager *m);
int manager_serve_bus(Manager *m, Error *err) must_check;

/* manager-parts.c: what intake, fetcher and delivery are to tell; without the manager in it. */
extern const IntakeHandlers manager_intake_handlers;
extern const FetchHandlers manager_fetch_handlers;
extern const DeliveryHandlers manager_delivery_handlers;
/* `which` of the reasons to hold, NULL: no longer. */
void manager_hold(Manager *m, char **which, const char *reason);
void manager_hold_changed(Manager *m);
const char *manager_hold_reason(const Manager *m);
void manager_hold_for_spool(Manager *m, const Error *err);
void manager_spool_is_back(Manager *m);
/* Whether the spool is full, or has room again. */
void manager_look_at_size(Manager *m);
/* A stop does not wait for what cannot move before the time is up. */
void manager_drain_until_stuck(Manager *m, uint64_t budget_usec);

/* manager-document.c */
/* The file, else the last accepted one, else none. 1 read, 0 none or unchanged. */
int manager_load_document(Manager *m, bool starting, Error *err) must_check;
/* And all that works by it: jobs, sink, delivery. */
void manager_forget_document(Manager *m);
/* Why the document, or the beginning with it, was refused: for status. */
void manager_set_refused(Manager *m, const Error *err);

/* once.c */
int once_begin(Manager *m) must_check;
void once_given_up(Manager *m, const char *job, const char *symbol, const char *message,
                   const char *remedy);
/* Every job had its round: deliver, then end with once_verdict(). */
void once_over(Manager *m);
void once_interrupted(Manager *m);
/* The last line and the exit status, once all that can be is delivered. */
int once_verdict(Manager *m) must_check;
/* The last line, and the end at once. */
void once_fail(Manager *m, const Error *why);
void once_time_is_up(Manager *m);

#endif
