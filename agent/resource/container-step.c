/* SPDX-License-Identifier: Apache-2.0 */
/* One step of the engine after the other, until the goal of a switch is reached; and what a step
 * that fails says of the release and of the machine. */
#include <errno.h>

#include "agent/base/crash.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/resource/container-internal.h"

#define PUT_OFF_USEC      MINUTE
#define PUT_OFF_DOUBLINGS 6U
/* So often may the engine go away while one release is tried; then it is the release that ends it.
 */
#define EXCUSES_MAX       3U

/* --- What is there ------------------------------------------------------------------------- */

static void take_view(Container *c, const EngineContainer *seen)
{
    const char *release = engine_container_label(seen, LABEL_RELEASE);
    SlotContainer *view;

    if (c->n_views == SLOT_CONTAINERS_MAX)
        return; /* the rest is seen when these are gone */
    view = &c->views[c->n_views++];
    *view = (SlotContainer){.running = engine_container_is_running(seen),
                            .restarting = seen->state == ENGINE_STATE_RESTARTING,
                            .never_started = seen->state == ENGINE_STATE_CREATED};
    (void)snprintf(view->id, sizeof(view->id), "%s", seen->id);
    (void)snprintf(view->name, sizeof(view->name), "%s", seen->name);
    (void)snprintf(view->release, sizeof(view->release), "%s", release ? release : "");
}

static void on_observed(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    if (err) {
        container_finish_with(c, err);
        return;
    }
    c->n_views = 0;
    for (size_t i = 0; i < reply->n_containers; i++)
        take_view(c, &reply->containers[i]);
    c->op = engine_op_free(c->op);
    c->observed(c);
}

/* Reads the slot's containers from the engine, then goes on. */
void container_observe(Container *c, ContainerStep then)
{
    auto_free char *label = str_printf(LABEL_CONTAINER "=%s", c->plan->name);
    auto_error Error err = {0};
    int r;

    c->observed = then;
    c->op = engine_op_free(c->op);
    if (!label)
        r = error_oom(&err);
    else
        r = engine_list_containers(c->resource->context->engine, label, on_observed, c, &c->op,
                                   &err);
    if (r < 0)
        container_finish(c, &err);
}

const SlotContainer *container_view(const Container *c, const char *release)
{
    return slot_find(c->plan->name, release, c->views, c->n_views);
}

void container_is_lost(Container *c)
{
    container_fail(c, -ENOENT, ERROR_TEMPORARY,
                   "a container that was there is gone; looking again");
}

/* --- One step after the other --------------------------------------------------------------- */

static void switch_step(Container *c);
static void on_step(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata);

/* The engine is away: nobody's fault, and waited out. Anything else that keeps a release from being
 * started speaks against it. */
static bool is_engine_away(const Error *err)
{
    return err->code == -ENOTCONN || err->code == -ETIMEDOUT;
}

/* What is wrong with the release itself, as opposed to the machine: its disk is full, its engine
 * fails, a stranger has its port. That says nothing against an image. */
static bool speaks_against_release(const Error *err)
{
    return (err->kind == ERROR_INVALID || err->kind == ERROR_CORRUPT) && err->code != -EADDRINUSE;
}

static bool has_view_named(const Container *c, const char *name)
{
    for (size_t i = 0; i < c->n_views; i++)
        if (streq(c->views[i].name, name))
            return true;
    return false;
}

/* An engine that was renaming a container while somebody deleted it gives its name to nobody until
 * it is started anew (seen with Docker 20.10.24). That may happen without us: it is tried again. */
static void name_is_lost(Container *c)
{
    auto_error Error err = {0};

    (void)error_set(&err, -EAGAIN, ERROR_TEMPORARY,
                    "the engine keeps the name %s for a container that is gone", c->taken_name);
    (void)error_remedy(&err, err.code, "sudo systemctl restart docker");
    container_finish(c, &err);
}

static void on_holder_inspected(EngineOp *op, const EngineReply *reply, const Error *failure,
                                void *userdata)
{
    Container *c = userdata;
    auto_error Error err = {0};

    if (failure && failure->code == -ENOENT) {
        name_is_lost(c);
        return;
    }
    if (failure)
        (void)error_copy(&err, failure);
    else {
        (void)error_set(&err, -EEXIST, ERROR_INVALID,
                        "the name %s is taken by a container that mervis-agent did not make",
                        c->taken_name);
        (void)error_remedy(&err, err.code, "docker rename %s another-name, or docker rm %s",
                           c->taken_name, c->taken_name);
    }
    container_finish(c, &err);
}

static void name_is_taken(Container *c)
{
    auto_error Error err = {0};

    if (has_view_named(c, c->taken_name))
        switch_step(c); /* by us: a step that was told before a restart of ours came late */
    else if (engine_inspect_container(c->resource->context->engine, c->taken_name,
                                      on_holder_inspected, c, &c->op, &err) < 0)
        container_finish(c, &err);
}

static const SlotContainer *target_of_step(const Container *c)
{
    for (size_t i = 0; i < c->n_views; i++)
        if (streq(c->views[i].id, c->step_target))
            return &c->views[i];
    return NULL;
}

/* The engine refuses to rename one that it is about to restart, which its list may not show yet; so
 * it is stopped first, unless it is what is to serve. */
static bool may_be_stopped(const Container *c)
{
    const SlotContainer *target = target_of_step(c);

    return c->goal.goal != SWITCH_FORWARD || !(target && streq_ptr(target->release, c->goal.next));
}

static void stop_before_rename(Container *c)
{
    const SlotContainer *target = target_of_step(c);
    auto_error Error err = {0};

    c->step = SWITCH_STOP;
    if (target)
        container_takes_down(c, target);
    if (engine_stop_container(c->resource->context->engine, c->step_target,
                              c->plan->stop_timeout_usec, on_step, c, &c->op, &err) < 0)
        container_finish(c, &err);
}

static bool is_being_tried(const Container *c)
{
    return c->slot.state == ROLLOUT_SWITCHING || c->slot.state == ROLLOUT_PROVING;
}

/* c->want is not started now, and not condemned either: what ran before serves meanwhile. */
static void put_off(Container *c, const Error *err)
{
    unsigned times = streq_ptr(c->put_off, c->slot.next) ? c->put_off_times : 0;
    uint64_t delay = PUT_OFF_USEC << MIN_OF(times, PUT_OFF_DOUBLINGS);
    char span[TIME_SPAN_MAX];

    if (str_set(&c->put_off, c->slot.next) < 0) {
        container_fail(c, -ENOMEM, ERROR_INTERNAL, "out of memory");
        return;
    }
    c->put_off_times = times + 1;
    c->put_off_until = now_boottime_usec() + delay;
    error_done(&c->put_off_why);
    (void)error_set(&c->put_off_why, -EAGAIN, ERROR_TEMPORARY,
                    "%s; nothing speaks against the release: what ran before serves, and it is "
                    "tried again in %s",
                    error_text(err), time_format_span(span, delay));
    if (err->remedy)
        (void)error_remedy(&c->put_off_why, -EAGAIN, "%s; then: sudo agentctl retry %s",
                           err->remedy, c->plan->name);
    c->put_off_why.retry_after_usec = delay;
    resource_event(c->resource, LOG_LEVEL_WARNING, "release-failed",
                   FIELDS("MERVIS_STATE=rolling-back"), "%s", error_text(&c->put_off_why));
    if (container_enter(c, ROLLOUT_ROLLING_BACK) >= 0)
        container_continue_back(c);
}

static void could_not_start(Container *c, const Error *err)
{
    if (speaks_against_release(err) || !container_has_way_back(c))
        container_go_back(c, error_text(err), err->remedy);
    else
        put_off(c, err);
}

bool container_is_excused(Container *c)
{
    return c->excused++ < EXCUSES_MAX;
}

void container_ends_engine(Container *c)
{
    auto_free char *reason =
        str_printf("the container engine went away %u times while it was tried", c->excused);

    container_go_back(c, reason ? reason : "it ends the container engine",
                      "journalctl -u docker says why");
}

/* Silent for as long as a start may take: what it hangs at is the engine's. What ran before comes
 * back as soon as it answers again; where there is none, the same is asked again. */
static void engine_hangs(Container *c, Error *err)
{
    if (container_has_way_back(c))
        put_off(c, err);
    else
        container_finish(c, err);
}

static void step_failed(Container *c, const Error *err)
{
    auto_error Error copy = {0};

    (void)error_copy(&copy, err);
    c->op = engine_op_free(c->op);
    if (c->step == SWITCH_STOP)
        container_look_at_serving(c); /* it may not have been stopped */
    if (copy.code == -EEXIST)
        container_observe(c, name_is_taken);
    else if (copy.code == -ENOENT && (c->step == SWITCH_STOP || c->step == SWITCH_RENAME))
        container_is_lost(c); /* somebody deleted it between our look and this */
    else if (c->step == SWITCH_RENAME && !is_engine_away(&copy) && may_be_stopped(c) &&
             c->renames_refused++ < 3)
        stop_before_rename(c);
    else if (c->step == SWITCH_CREATE && copy.code == -ENOENT && !c->pulled_again) {
        /* Its image was cleaned up between our look at it and now. */
        c->pulled_again = true;
        container_bring_in(c);
    } else if (c->step == SWITCH_START && is_being_tried(c) && !is_engine_away(&copy))
        could_not_start(c, &copy);
    else if (c->step == SWITCH_START && is_being_tried(c) && copy.code == -ETIMEDOUT)
        engine_hangs(c, &copy);
    else if (c->step == SWITCH_START && is_being_tried(c) && !container_is_excused(c))
        container_ends_engine(c);
    else
        container_finish(c, &copy);
}

/* What the engine did is looked at, not assumed: a container may have died meanwhile. */
static void look_again(Container *c)
{
    container_observe(c, switch_step);
}

static void on_left_alone(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    if (err && err->code != -ENOENT)
        log_failure(LOG_LEVEL_WARNING, NULL, err,
                    "ignoring: when the engine starts it may start one that was stopped");
    look_again(c);
}

/* At its own start the engine starts whatever last ended with a failure, and takes one that was
 * stopped for that (moby#47846): until we look, the copy to go back to would serve beside the new
 * one. Only when it is stopped: what runs is always healed. */
static void leave_it_stopped(Container *c)
{
    auto_error Error err = {0};

    c->op = engine_op_free(c->op);
    if (engine_set_restart(c->resource->context->engine, c->step_target, ENGINE_RESTART_NO,
                           on_left_alone, c, &c->op, &err) < 0)
        container_finish(c, &err);
}

static void on_step(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    if (err) {
        step_failed(c, err);
        return;
    }
    crash_point(c->step_name);
    c->goal.started |= c->step == SWITCH_START;
    if (c->step == SWITCH_START && c->goal.goal == SWITCH_RUN)
        container_look_at_serving(c);
    if (c->step == SWITCH_STOP && c->plan->mode == PLAN_MODE_SERVICE)
        leave_it_stopped(c);
    else
        look_again(c);
}

/* That the engine would not heal it is no reason to keep it down: what ends is started by us, and
 * the policy is asked for again. */
static void on_healed_again(EngineOp *op, const EngineReply *reply, const Error *err,
                            void *userdata)
{
    Container *c = userdata;
    auto_error Error failure = {0};

    if (err && is_engine_away(err)) {
        step_failed(c, err);
        return;
    }
    (void)snprintf(c->unhealed, sizeof(c->unhealed), "%s", err ? c->step_target : "");
    if (err && err->code != -ENOENT)
        log_failure(
            LOG_LEVEL_WARNING, NULL, err,
            "ignoring: it is started; this is tried again, and meanwhile mervis-agent alone "
            "starts it when it crashes");
    c->op = engine_op_free(c->op);
    if (engine_start_container(c->resource->context->engine, c->step_target, on_step, c, &c->op,
                               &failure) < 0)
        container_finish(c, &failure);
}

static void on_heals(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    if (!err || err->code == -ENOENT)
        c->unhealed[0] = '\0';
    c->op = engine_op_free(c->op); /* a refusal was told the first time */
    c->heals(c);
}

void container_heal(Container *c, const SlotContainer *view, ContainerStep then)
{
    auto_error Error err = {0};

    if (!streq(view->id, c->unhealed)) {
        then(c);
        return;
    }
    c->heals = then;
    if (engine_set_restart(c->resource->context->engine, view->id, ENGINE_RESTART_ON_FAILURE,
                           on_heals, c, &c->op, &err) < 0)
        container_finish(c, &err);
}

/* One that was stopped gets back what leave_it_stopped() took. */
static int start(Container *c, const SlotContainer *target, Error *err)
{
    Engine *engine = c->resource->context->engine;

    if (target->never_started || c->plan->mode == PLAN_MODE_JOB)
        return engine_start_container(engine, target->id, on_step, c, &c->op, err);
    return engine_set_restart(engine, target->id, ENGINE_RESTART_ON_FAILURE, on_healed_again, c,
                              &c->op, err);
}

static size_t count_running(const Container *c)
{
    size_t n = 0;

    for (size_t i = 0; i < c->n_views; i++)
        n += c->views[i].running;
    return n;
}

/* Downtime begins when the last one that runs is stopped (or nothing ran any more). */
static void note_outage(Container *c, SwitchVerb verb)
{
    size_t running = count_running(c);

    if (c->slot.stopped_at > 0 || !c->slot.current || streq_ptr(c->slot.current, c->slot.next))
        return;
    if ((verb == SWITCH_STOP && running == 1) || (verb == SWITCH_START && running == 0)) {
        c->slot.stopped_at = now_realtime_usec();
        c->outage_began = now_boottime_usec();
    }
}

/* By the wall clock only where another process of ours stopped what served. */
void container_measure_downtime(Container *c, uint64_t until)
{
    uint64_t ago = now_boottime_usec() - until, now = now_realtime_usec();

    if (c->slot.stopped_at == 0)
        c->slot.downtime_usec = 0;
    else if (c->outage_began > 0)
        c->slot.downtime_usec = until - MIN_OF(until, c->outage_began);
    else
        c->slot.downtime_usec = now - MIN_OF(now, c->slot.stopped_at + ago);
    c->slot.stopped_at = 0;
    c->outage_began = 0;
}

static int begin_step(Container *c, const SwitchStep *step, Error *err)
{
    Engine *engine = c->resource->context->engine;

    c->step = step->verb;
    if (c->goal.goal == SWITCH_RUN && step->verb == SWITCH_START)
        c->run_began = now_boottime_usec();
    (void)snprintf(c->step_target, sizeof(c->step_target), "%s",
                   step->target ? step->target->id : "");
    (void)snprintf(c->taken_name, sizeof(c->taken_name), "%s", step->new_name);
    (void)snprintf(c->step_name, sizeof(c->step_name), "after-%s-in-%s",
                   switch_verb_name(step->verb), rollout_state_name(c->slot.state));
    note_outage(c, step->verb);
    switch (step->verb) {
    case SWITCH_CREATE:
        return container_create(c, step->new_name, on_step, err);
    case SWITCH_START:
        return start(c, step->target, err);
    case SWITCH_STOP:
        container_takes_down(c, step->target);
        return engine_stop_container(engine, step->target->id, c->plan->stop_timeout_usec, on_step,
                                     c, &c->op, err);
    case SWITCH_RENAME:
        return engine_rename_container(engine, step->target->id, step->new_name, on_step, c, &c->op,
                                       err);
    case SWITCH_REMOVE:
        return engine_remove_container(engine, step->target->id, /* force= */ false, on_step, c,
                                       &c->op, err);
    case SWITCH_DONE:
    case SWITCH_LOST:
        break;
    }
    return error_set(err, -EINVAL, ERROR_INTERNAL, "no step to take");
}

static void switch_step(Container *c)
{
    SwitchStep step = switch_next(&c->goal, c->views, c->n_views);
    auto_error Error err = {0};

    if (step.verb == SWITCH_DONE)
        c->goal_reached(c);
    else if (step.verb == SWITCH_LOST)
        c->goal_lost(c);
    else if (begin_step(c, &step, &err) < 0) {
        (void)error_prefix(&err, err.code, "%s", switch_verb_name(step.verb));
        container_finish(c, &err);
    }
}

void container_switch(Container *c, SwitchGoal goal, bool start_again, ContainerStep reached,
                      ContainerStep lost)
{
    bool has_next = goal != SWITCH_RUN && goal != SWITCH_STOPPED && goal != SWITCH_GONE;

    c->goal = (SwitchQuery){.goal = goal,
                            .name = c->plan->name,
                            .current = c->slot.current,
                            .next = has_next ? c->slot.next : NULL,
                            .spare = c->slot.previous,
                            .leave_stopped = container_has_had_its_run(c),
                            .start_again = start_again};
    c->goal_reached = reached;
    c->goal_lost = lost;
    c->renames_refused = 0;
    switch_step(c);
}
