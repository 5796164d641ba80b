/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTD_RECONCILE_INTERNAL_H
#define AGENT_AGENTD_RECONCILE_INTERNAL_H

/* Shared by reconcile.c (passes, and what becomes of each resource) and reconcile-plan.c (what
 * comes and what leaves with a plan). */

#include "agent/agentd/reconcile.h"
#include "agent/base/backoff.h"
#include "agent/base/list.h"
#include "agent/io/loop.h"

#define DRIFT_ACCURACY_USEC MINUTE

/* A plan lives as long as a resource of it does: one that leaves may still be at work when the next
 * plan is in force. */
typedef struct PlanRef {
    Plan *plan;
    size_t users;
} PlanRef;

typedef struct ResourceWork {
    Resource *resource;
    Reconciler *reconciler;
    PlanRef *plan;
    Timer *retry;
    Backoff backoff;
    bool busy;
    char *said_text;   /* its failure as it was told: the same one again is not */
    unsigned failures; /* since it was well */
    LIST_FIELDS(struct ResourceWork, works);
} ResourceWork;

struct Reconciler {
    ResourceContext *context;
    ReconcilerHandlers handlers;
    void *userdata;
    ResourceWork *works;  /* of the plan in force, in stage order */
    ResourceWork *adding; /* of the plan that is being taken over */
    ResourceWork *leaving;
    ResourceWork *gone; /* to be freed at the next turn of the loop */
    PlanRef *plan;
    PlanRef *adding_plan;
    bool taking_over;
    Timer *pass, *drift;
};

/* reconcile.c */
PlanRef *plan_unref(PlanRef *ref);
ResourceWork *work_free(ResourceWork *work);
ResourceWork *work_find(ResourceWork *head, const char *kind, const char *name);
void works_free(ResourceWork **head);
void work_on_retry(void *userdata);
void work_remove(ResourceWork *work);
void reconciler_pass_soon(Reconciler *reconciler);
void reconciler_tell_left(Reconciler *reconciler);
void reconciler_look_again_later(Reconciler *reconciler);

/* reconcile-plan.c: the host's part of resource_add() */
int reconciler_add(Resource *resource, void *userdata);

#endif
