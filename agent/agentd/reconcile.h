/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTD_RECONCILE_H
#define AGENT_AGENTD_RECONCILE_H

/* Brings resources to what the plan declares, in stages, with back-off per resource, and keeps them
 * there. It knows no kind by name: triggers mark resources dirty, a pass looks at the dirty ones,
 * stage after stage; what failed comes back by its own timer. Nothing is polled here but a drift
 * pass an hour. */

#include <jansson.h>

#include "agent/resource/resource.h"

#define RECONCILE_BACKOFF_BASE_USEC SECOND
#define RECONCILE_BACKOFF_CAP_USEC  (5 * MINUTE)
#define RECONCILE_DRIFT_USEC        HOUR

typedef struct Reconciler Reconciler;

typedef struct ReconcilerHandlers {
    void (*changed)(void *userdata); /* some description did */
    /* A pass came to its end; `well`: everything is as declared. */
    void (*settled)(bool well, void *userdata);
    /* All that former plans left behind is undone. */
    void (*left)(void *userdata);
    void (*event)(LogLevel level, const char *event, const char *const *fields, const char *text,
                  void *userdata);
    void (*poweroff)(const char *reason, void *userdata);
    uint64_t drift_usec; /* how often everything is looked at; 0: RECONCILE_DRIFT_USEC */
} ReconcilerHandlers;

/* `context` is borrowed and completed (plan, generation, host): everything else in it is the
 * caller's. */
int reconciler_new(ResourceContext *context, const ReconcilerHandlers *handlers, void *userdata,
                   Reconciler **ret, Error *err) must_check;
Reconciler *reconciler_free(Reconciler *reconciler);
DEFINE_AUTO(Reconciler, reconciler_free)

/* A new plan is in force (taken, on success). What left is undone, what is new is added, what is
 * unchanged goes on. */
int reconciler_set_plan(Reconciler *reconciler, Plan *plan, uint64_t generation, Error *err)
    must_check;
/* What an earlier plan had and the one in force has not is undone: after a restart, when that had
 * not come to its end. The plan is taken, on success. */
int reconciler_retire_plan(Reconciler *reconciler, Plan *plan, uint64_t generation, Error *err)
    must_check;
/* No plan is in force any more, and nothing is undone: it was another machine's. Not from within a
 * resource's own call. */
void reconciler_forget(Reconciler *reconciler);
/* Looks at everything again, at what the cloud says of it too: by hand, and every hour. */
void reconciler_look_at_all(Reconciler *reconciler);

/* In plan order; the iterator's own: NULL begins. */
Resource *reconciler_next(const Reconciler *reconciler, const Resource *after);
/* The same of what left the plan and is not undone yet. */
Resource *reconciler_next_leaving(const Reconciler *reconciler, const Resource *after);
Resource *reconciler_find(const Reconciler *reconciler, const char *kind, const char *name);
/* No resource of the plan is wrong or at work. */
bool reconciler_is_well(const Reconciler *reconciler);
bool reconciler_is_leaving(const Reconciler *reconciler);
/* Anything is at work or to be looked at, but for scripts that left and run to their end. */
bool reconciler_is_busy(const Reconciler *reconciler);

/* What a pass would do, without doing it: [{"kind", "name", "action": "none|change|remove|unknown",
 * "what"}]. */
json_t *reconciler_dry_run(Reconciler *reconciler);

#endif
