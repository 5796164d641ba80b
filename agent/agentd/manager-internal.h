/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTD_MANAGER_INTERNAL_H
#define AGENT_AGENTD_MANAGER_INTERNAL_H

/* Shared by manager.c (life), manager-identity.c (whose state this is), manager-plan.c (which plan
 * is in force), manager-drain.c (going down), status.c and bus.c. */

#include "agent/agentd/manager.h"
#include "agent/agentd/notify.h"
#include "agent/agentd/reconcile.h"
#include "agent/agentd/state.h"
#include "agent/base/backoff.h"
#include "agent/io/bus.h"
#include "agent/io/loop.h"
#include "agent/resource/resource.h"
#include "agent/resource/secrets.h"

#define STATUS_DELAY_USEC (500 * MSEC) /* changes gather before they are written and published */
#define DRAIN_BUDGET_USEC                                                                          \
    (18 * SECOND) /* of the 30 s that a preempted machine has, after what systemd needs */
#define DRAIN_NOTICE_USEC                                                                          \
    (25 * SECOND) /* after a notice: the machine is told to stop at the same time, or 90 s later   \
                   */

struct Manager {
    sd_event *event;
    const DaemonOptions *options;
    const char *crawler_dir;
    HttpClient *http;
    Cloud *cloud;
    Engine *engine;
    EngineEvents *engine_events;
    State state;
    ResourceContext context;
    SecretStore *secrets;
    Reconciler *reconciler;
    Notifier *notifier;
    sd_bus *bus;
    Timer *bus_again; /* there was none when we started */
    Backoff bus_backoff;

    CloudOp *watch;
    Child *crawl_check; /* crawlerd validate, for the candidate */
    Generation candidate;
    Plan *candidate_plan;
    Timer *check_again;  /* crawlerd did not get to judge the candidate */
    Timer *accept_again; /* the candidate could not be recorded */
    Backoff candidate_backoff;

    Generation generation; /* in force */
    char *refused_sha256;  /* of the plan that was refused last: it is not judged again ... */
    bool refused_by_us;    /* ... but once by every version of ours */
    char *instance_id;     /* as last known, over restarts */
    Plan *cloned_plan;     /* of the machine whose image this is: undone when ours is in force */
    bool waiting_for_identity; /* after a boot: what is in force is not begun yet */
    bool unclaimed;            /* the state is another machine's, and could not be begun anew */
    Timer *claim_again;
    Backoff claim_backoff;
    CloudOp *reread;
    bool plan_removed;
    char *plan_missing; /* where none was found, while none was ever in force */
    bool plan_applied;
    bool resuming;
    bool looked; /* at all of it, since we started */

    Timer *status, *drain;
    char status_sha256[SHA256_HEX_MAX]; /* of what was written last, without its time */
    sd_bus_slot *power_off;
    BusCall *flush;            /* crawlerd's, while draining */
    struct ImagesRun *cleanup; /* by hand, for cleanup_request */
    sd_bus_message *cleanup_request;
    uint64_t started_at; /* wall clock */
    bool preempted;
    CloudMaintenance maintenance;
    bool stopping, draining, exit_when_drained, powering_off;
    Error metadata_trouble, engine_trouble;
    const char *shown_state; /* the one last told: "well", "degraded" */
};

/* manager.c */
/* An event that is in the journal already, for the history and for whoever wants to be told. */
void manager_tell_event(Manager *m, LogLevel level, const char *event, const char *message_id,
                        const char *text);
void manager_event(Manager *m, LogLevel level, const char *event, const char *const *fields,
                   const char *format, ...) printf_like(5, 6);
void manager_changed(Manager *m);
void manager_take_snapshot(Manager *m, const CloudSnapshot *snapshot, unsigned changes);

/* manager-identity.c */
/* At start: takes up the last plan, at once or when it is known that it is ours. */
void manager_begin(Manager *m);
/* The cloud does not answer, and this machine shall come up. */
void manager_begin_anyway(Manager *m);
/* False: the state is another machine's, and nothing may be in force yet. */
bool manager_claim(Manager *m, const char *instance_id);

/* manager-plan.c */
/* Another instance than the one that wrote the state: nothing is in force any more. */
void manager_forget_plan(Manager *m);
void manager_take_snapshot_plan(Manager *m, const CloudSnapshot *snapshot);
void manager_resume_plan(Manager *m);
void manager_on_left(void *userdata);

/* manager-drain.c */
void manager_begin_drain(Manager *m, const char *why, uint64_t budget_usec, bool exit_after);
void manager_drain_progress(Manager *m);
void manager_power_off(Manager *m, const char *reason);
bool machine_is_going_down(sd_bus *bus);

/* status.c */
char *manager_summary(const Manager *m); /* free(); NULL when memory is out */
bool manager_is_ready(const Manager *m, char **ret_reason);

/* bus.c */
int manager_serve_bus(Manager *m, Error *err) must_check;
void manager_emit_changed(Manager *m);

/* bus-cleanup.c */
int bus_method_cleanup(sd_bus_message *message, void *userdata, sd_bus_error *error);
int bus_method_cleanup_dry_run(sd_bus_message *message, void *userdata, sd_bus_error *error);
void manager_cancel_cleanup(Manager *m);

#endif
