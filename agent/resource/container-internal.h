/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_CONTAINER_INTERNAL_H
#define AGENT_RESOURCE_CONTAINER_INTERNAL_H

/* Shared by container.c (the resource) and its parts: container-resume.c (where were we?),
 * container-want.c and container-resolve.c (which release should it be?), container-pull.c,
 * container-rollout.c and container-step.c (getting there, and back), container-job.c,
 * container-secrets.c, container-spec.c, container-verbs.c (events and people), container-serving.c
 * (what runs now), container-describe.c.
 *
 * Every function of them either begins one operation whose handler goes on, or ends in
 * container_finish(); a state is recorded before the step that it announces. */

#include "agent/engine/health.h"
#include "agent/engine/registry.h"
#include "agent/io/loop.h"
#include "agent/resource/container.h"
#include "agent/resource/release.h"
#include "agent/resource/secrets.h"
#include "agent/resource/switch.h"

#define SLOT_CONTAINERS_MAX 16

/* What the engine last said of the container that serves, or of the one that is to. */
typedef struct Serving {
    char id[65], release[65];
    bool known, running;
    bool proved;     /* by the switch under way, which goes on to take down what it replaces */
    bool unanswered; /* it has yet to answer at health.http, since its last start */
    EngineHealth health;
    uint64_t started_at, restarts, memory_bytes;
} Serving;

typedef struct Container Container;
typedef void (*ContainerStep)(Container *c);
typedef void (*ContainerFailure)(Container *c, Error *err);

struct Container {
    Resource *resource; /* NULL until it is worked on for the first time */
    const PlanContainer *plan;
    Slot slot;

    SlotContainer views[SLOT_CONTAINERS_MAX];
    size_t n_views;
    Serving serving;
    Serving tried; /* slot.next, as it was when its proof began */

    Release *want;      /* that is being brought in, or looked at */
    Plan *want_plan;    /* where an older plan describes it; NULL: the plan in force */
    Release *forced;    /* by `agentctl rollback`: wanted instead of what the plan says */
    RolloutState shown; /* what status says: steps without an effect are not recorded */
    Error refusal; /* why what the tag stands for is not rolled out: told when a look ends well */
    char *put_off; /* release that a fault of the machine kept from being started */
    Error put_off_why;
    uint64_t put_off_until; /* boottime */
    unsigned put_off_times;
    char *complaint; /* why the committed release is bad after all; NULL: it is not */

    RegistryOp *resolve, *measure;
    RegistryToken token; /* of the plan's image */
    EngineOp *stops[SLOT_CONTAINERS_MAX]; /* of a drain, side by side */
    size_t n_stops;                       /* that are not answered yet */
    uint64_t drain_usec;                  /* what each of them may take */
    CloudOp *login, *fetch;
    EngineOp *op;      /* the one step under way */
    EngineOp *inspect; /* of the serving one, for status */
    HealthProbe *probe;
    HealthProbe *answer;   /* of the serving one, after a start that no rollout proved */
    uint64_t answer_start; /* the start that it is about, as the engine names it */
    uint64_t well_start;   /* the start after which it was found well */
    bool answers_badly;    /* its time to begin to answer is over */
    char *silence;         /* what it did instead */
    Timer *check_timer, *settle_timer;

    SwitchQuery goal;
    SwitchVerb step;                  /* under way */
    char step_target[65];             /* id; "" where it has none */
    char taken_name[SWITCH_NAME_MAX]; /* the name that it gives */
    char step_name[64];               /* for tests that end the process after it */
    char unhealed[65];                /* id; runs, and the engine would not be told to heal it */
    unsigned renames_refused;
    ContainerStep observed;                /* goes on after the engine was looked at */
    ContainerStep goal_reached, goal_lost; /* and after the switch came to its end */
    ContainerStep settled;                 /* and when only what serves is left */
    ContainerStep running;                 /* and when what should serve runs */
    ContainerStep heals;                   /* and when the engine was asked again to heal it */
    ContainerStep measured;                /* and when the size of a pull is known */
    ContainerStep files_here;              /* and when its secret files are written */
    ContainerStep secrets_here;            /* and when all values are on this machine */
    ContainerFailure secrets_missing;
    uint64_t run_began;     /* boottime; when what serves was last started at rest */
    uint64_t outage_began;  /* boottime; 0: what serves was not stopped by this process */
    uint64_t probe_began;   /* boottime */
    unsigned probe_outages; /* of the engine, as counted when the probe began */
    unsigned excused;       /* times that the engine went away while c->want was tried */

    bool working;        /* between apply() and resource_finish() */
    bool leaving;        /* remove() */
    bool due;            /* a look at the registry is due */
    bool deferred;       /* the last look gave way to the next one, for something happened */
    bool again;          /* something happened meanwhile */
    bool resuming;       /* this look ends what a former one began; where it can, another follows */
    bool approved;       /* by `agentctl apply`: the next look lets a held digest in */
    bool approving;      /* this look does */
    bool restart_wanted; /* by `agentctl restart` */
    bool restarting;     /* this look does */
    bool may_have_ended; /* what serves: to be looked at */
    bool pulled_again;   /* this look found an image that was taken away while it looked */
    bool revived;        /* this look tries to make anew what served and is gone */
    bool ends_at_once;   /* it did right after its last start: it waits before the next one */
    bool draining, drained;
    bool out_of_memory; /* the engine said so of one of its deaths */

    bool pulling;
    EnginePullProgress progress;
    uint64_t pull_bytes; /* compressed, as the registry told; 0: unknown */
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
int container_prepare(Resource *resource, Error *err) must_check;
void container_cancel_operations(Container *c);
void container_finish(Container *c, Error *err);
/* The same with an error that is somebody else's: it is copied. */
void container_finish_with(Container *c, const Error *err);
void container_fail(Container *c, int code, ErrorKind kind, const char *format, ...)
    printf_like(4, 5);
/* Records the state (and what else changed in the slot) and shows it. Negative: it could not be
 * recorded, and the step must not be taken: already finished. */
int container_enter(Container *c, RolloutState state) must_check;
void container_show(Container *c, RolloutState state);

/* Sets the timer of the settle time; whether it runs. */
bool container_watch_settling(Container *c);

/* container-resume.c */
void container_resume(Container *c);
bool container_machine_was_rebooted(const Container *c);
/* Starts what should serve, its secret files first. */
void container_run_current(Container *c, ContainerStep then);

/* container-want.c: chooses the release, then container_bring_in() or finish. */
void container_decide(Container *c);
int container_load_want(Container *c, const char *id, Error *err) must_check;
void container_forget_want(Container *c);
/* Where a container rests whose present release is the wanted one. */
RolloutState container_resting_state(const Container *c);
/* The end of a look that changes nothing: well, but for what is refused. */
void container_stay(Container *c);
/* What was to be brought in cannot be had: the end of the look, unless what should serve is gone
 * and can be made anew meanwhile. */
void container_cannot_be_had(Container *c, Error *err);
/* Sets `err`: why that release is not rolled out, and what a person can do. */
void container_explain_quarantine(const Container *c, const Release *bad, Error *err);
/* What an apply would do, by what is known without asking the registry: 1 and words (free()), or 0.
 */
int container_would_change(const Container *c, char **ret, Error *err) must_check;
/* The plan and the item of it that describe c->want. */
const PlanContainer *container_want_plan(const Container *c, const Plan **ret_plan);
/* Whether the plan in force describes c->want with other words than its own: 1, 0. */
int container_want_is_outdated(const Container *c, Error *err) must_check;
/* The same of any release. */
int container_outdates(const Container *c, const Release *release, Error *err) must_check;

/* The tag stands for that digest now: is it what serves, is it wanted, can it be brought in? */
void container_choose(Container *c, const char *digest);

/* container-resolve.c: asks the registry what the tag stands for, then container_choose(). */
void container_resolve(Container *c);
/* Asks the registry how large c->want is, where that is not known; then, whatever it says, goes on.
 */
void container_measure(Container *c, ContainerStep then);
/* container-pull.c: c->want's image and secrets, then container_stage(). */
void container_bring_in(Container *c);

/* container-step.c */
void container_observe(Container *c, ContainerStep then);
void container_switch(Container *c, SwitchGoal goal, bool start_again, ContainerStep reached,
                      ContainerStep lost);
const SlotContainer *container_view(const Container *c, const char *release);
/* Where the engine refused to heal this one, which runs, it is asked again. */
void container_heal(Container *c, const SlotContainer *view, ContainerStep then);
/* For a goal whose container must be there. */
void container_is_lost(Container *c);
/* The downtime ended at that moment (boottime), when something was well again. */
void container_measure_downtime(Container *c, uint64_t until);
/* c->want failed while the engine went away: whether that says nothing against it once more. */
bool container_is_excused(Container *c);
void container_ends_engine(Container *c);

/* container-rollout.c */
void container_stage(Container *c);
void container_go_forward(Container *c, bool start_again);
bool container_has_way_back(const Container *c);
/* Whether what serves may still prove bad by how it ends. */
bool container_is_watched(const Container *c);
/* c->want failed: back, where there is a way and the plan does not say to keep it. `remedy` may be
 * NULL. */
void container_go_back(Container *c, const char *reason, const char *remedy);
/* Back, whatever the plan says. `by_hand`: a person condemns the digest wherever it is another;
 * else it must be all that changed. */
void container_return(Container *c, const char *reason, bool by_hand);
void container_continue_back(Container *c);
void container_settle(Container *c, ContainerStep then);

/* container-job.c: a job that was started. */
/* A job runs once a release: neither a successor that cannot be started nor somebody who removes
 * its container is a reason to run it again. */
bool container_has_had_its_run(const Container *c);
void container_resume_job(Container *c);
void container_job_is_done(Container *c);
void container_job_has_failed(Container *c);

/* container-serving.c */
/* What the engine's HEALTHCHECK says of what serves, where the plan does not look by http: then the
 * image's own opinion counts for nothing. */
EngineHealth container_engine_health(const Container *c);
void container_look_at_serving(Container *c);
/* Names, containers and what serves are on the move: between two releases. */
bool container_is_switching(const Container *c);
/* This one is being proved, as the engine shows it; and it was proved: from now on it serves,
 * whatever has to be done yet. */
void container_tries(Container *c, const EngineContainer *seen);
void container_tried_well(Container *c);
/* The end of a look that found nothing else wrong: sets `err` where what serves does not answer. */
void container_explain_silence(const Container *c, Error *err);
/* We are about to stop that one. */
void container_takes_down(Container *c, const SlotContainer *target);

/* container-describe.c */
json_t *container_describe(const Resource *resource);

/* container-secrets.c, and its files as they are mounted: container-spec.c */
/* Fetches the values of c->want's secrets that are not on this machine, by their versions;
 * `files_only`: those that it mounts. */
void container_fetch_secrets(Container *c, bool files_only, ContainerStep here,
                             ContainerFailure missing);
/* Before its container is started again: what it mounts is on a ramfs, which a reboot empties. */
void container_have_files(Container *c, ContainerStep here, ContainerFailure missing);
/* Writes the secret files of c->want. */
int container_publish_secrets(Container *c, Error *err) must_check;
/* Values that no release needs any more. */
void container_trim_secrets(Container *c);

/* container-spec.c: creates c->want's container. */
int container_create(Container *c, const char *name, EngineHandler handler, Error *err) must_check;

#endif
