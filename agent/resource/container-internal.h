/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_CONTAINER_INTERNAL_H
#define AGENT_RESOURCE_CONTAINER_INTERNAL_H

/* Shared by container.c (the resource), container-want.c (which release it should be),
 * container-rollout.c (getting there) and container-spec.c. */

#include "agent/engine/health.h"
#include "agent/engine/registry.h"
#include "agent/io/loop.h"
#include "agent/resource/container.h"
#include "agent/resource/release.h"
#include "agent/resource/secrets.h"
#include "agent/resource/switch.h"

#define SLOT_CONTAINERS_MAX 16

/* What the engine last said of the container that serves; for status. */
typedef struct Serving {
    char id[65];
    bool known, running, oom_killed, has_health_check;
    EngineHealth health;
    uint64_t started_at, finished_at, restarts, memory_bytes;
    int exit_code;
} Serving;

typedef struct Container Container;
typedef void (*ContainerStep)(Container *c);

struct Container {
    Resource *resource;
    const PlanContainer *plan;
    Slot slot;

    SlotContainer views[SLOT_CONTAINERS_MAX];
    size_t n_views;
    Serving serving;

    Release *want;      /* that is being brought in */
    Release *forced;    /* by `agentctl rollback`: wanted instead of what the plan says */
    Plan *want_plan;    /* of a release that an older plan describes; NULL: the plan in force */
    RolloutState shown; /* what status says: steps without an effect are not recorded */

    RegistryOp *resolve;
    CloudOp *login;
    EngineOp *op;      /* the one step under way */
    EngineOp *inspect; /* of the serving one */
    EngineOp *wait;    /* for a job's end */
    HealthProbe *probe;
    Timer *check_timer, *settle_timer;

    SwitchQuery goal;
    ContainerStep observed;                /* goes on after the engine was looked at */
    ContainerStep goal_reached, goal_lost; /* and after the switch came to its end */
    uint64_t stop_began;                   /* boottime; 0: this switch stopped nothing */
    uint64_t last_start;                   /* boottime, of the new one */
    unsigned deaths;
    bool working;    /* between apply() and resource_finish() */
    bool leaving;    /* remove() */
    bool due;        /* a look at the registry is due */
    bool again;      /* something happened meanwhile */
    bool approved;   /* the held digest may come in */
    bool restarting; /* by hand */
    bool draining, drained;
    bool pulling;
    bool warned_env;
    EnginePullProgress progress;
    uint64_t pull_total;
};

static inline void forget(char **text)
{
    free(*text);
    *text = NULL;
}

static inline Container *container_of_resource(const Resource *resource)
{
    return resource->item;
}

/* container.c */
void container_finish(Container *c, Error *err);
void container_fail(Container *c, int code, ErrorKind kind, const char *format, ...)
    printf_like(4, 5);
/* Records the state (and what else changed in the slot) and shows it. Negative: it could not be
 * recorded, and the step must not be taken: already finished. */
int container_enter(Container *c, RolloutState state) must_check;
void container_show(Container *c, RolloutState state);
void container_look_at_serving(Container *c);
const SlotContainer *container_serving_view(const Container *c);

/* container-want.c: chooses the release, then container_bring_in() or finish. */
void container_decide(Container *c);
int container_load_want(Container *c, const char *id, Error *err) must_check;
void container_forget_want(Container *c);
/* What an apply would do, by what is known without asking the registry: 1 and words (free()), or 0.
 */
int container_would_change(const Container *c, char **ret, Error *err) must_check;
/* The plan and the item of it that describe c->want. */
const PlanContainer *container_want_plan(const Container *c, const Plan **ret_plan);

/* container-rollout.c */
void container_observe(Container *c, ContainerStep then);
void container_bring_in(Container *c);
void container_prove_again(Container *c);
void container_switch(Container *c, SwitchGoal goal, bool start_again, ContainerStep reached,
                      ContainerStep lost);
void container_resume(Container *c);
void container_go_forward(Container *c, bool start_again);
void container_go_back(Container *c, const char *reason);
void container_continue_back(Container *c);
void container_settle(Container *c);
void container_watch_job(Container *c);

/* container-spec.c: creates NAME.next of c->want. */
int container_create(Container *c, const char *name, EngineHandler handler, Error *err) must_check;
/* Writes the secret files of a release; 0 when all are there. -ENOENT: a value is not on this
 * machine. */
int container_publish_secrets(Container *c, const PlanContainer *plan, const Release *release,
                              Error *err) must_check;

#endif
