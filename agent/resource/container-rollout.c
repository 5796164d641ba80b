/* SPDX-License-Identifier: Apache-2.0 */
/* Getting from one release to the next, and back. */
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

static void prove(Container *c);

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

static void name_is_taken(Container *c)
{
    auto_error Error err = {0};

    if (has_view_named(c, c->taken_name)) {
        switch_step(c); /* by us: a step that was told before a restart of ours came late */
        return;
    }
    (void)error_set(&err, -EEXIST, ERROR_INVALID,
                    "the name %s is taken by a container that mervis-agent did not make",
                    c->taken_name);
    (void)error_remedy(&err, err.code, "docker rename %s another-name, or docker rm %s",
                       c->taken_name, c->taken_name);
    container_finish(c, &err);
}

/* The engine refuses to rename one that it is about to restart, which its list may not show yet; so
 * it is stopped first, unless it is what is to serve. */
static bool may_be_stopped(const Container *c)
{
    const SlotContainer *target = NULL;

    for (size_t i = 0; i < c->n_views; i++)
        if (streq(c->views[i].id, c->step_target))
            target = &c->views[i];
    return c->goal.goal != SWITCH_FORWARD || !(target && streq_ptr(target->release, c->goal.next));
}

static void stop_before_rename(Container *c)
{
    auto_error Error err = {0};

    c->step = SWITCH_STOP;
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

/* Whether its failure says nothing against it, for the engine went away, and may be once more. */
static bool is_excused(Container *c)
{
    return c->excused++ < EXCUSES_MAX;
}

static void ends_engine(Container *c)
{
    auto_free char *reason =
        str_printf("the container engine went away %u times while it was tried", c->excused);

    container_go_back(c, reason ? reason : "it ends the container engine",
                      "journalctl -u docker says why");
}

static void step_failed(Container *c, const Error *err)
{
    auto_error Error copy = {0};

    (void)error_copy(&copy, err);
    c->op = engine_op_free(c->op);
    if (copy.code == -EEXIST)
        container_observe(c, name_is_taken);
    else if (c->step == SWITCH_RENAME && !is_engine_away(&copy) && may_be_stopped(c) &&
             c->renames_refused++ < 3)
        stop_before_rename(c);
    else if (c->step == SWITCH_CREATE && copy.code == -ENOENT && !c->pulled_again) {
        /* Its image was cleaned up between our look at it and now. */
        c->pulled_again = true;
        container_bring_in(c);
    } else if (c->step == SWITCH_START && is_being_tried(c) && !is_engine_away(&copy))
        could_not_start(c, &copy);
    else if (c->step == SWITCH_START && is_being_tried(c) && !is_excused(c))
        ends_engine(c);
    else
        container_finish(c, &copy);
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
    /* What the engine did is looked at, not assumed: a container may have died meanwhile. */
    container_observe(c, switch_step);
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

/* Until a moment (boottime) when something was well again. By the wall clock only where another
 * process of ours stopped what served. */
static void measure_downtime(Container *c, uint64_t until)
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
        return engine_start_container(engine, step->target->id, on_step, c, &c->op, err);
    case SWITCH_STOP:
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

/* --- Forward --------------------------------------------------------------------------------- */

static void forward(Container *c)
{
    container_go_forward(c, /* start_again= */ false);
}

/* It may have been created before a reboot. */
static void staged(Container *c)
{
    container_have_files(c, forward, container_cannot_be_had);
}

void container_stage(Container *c)
{
    if (container_enter(c, ROLLOUT_STAGED) >= 0)
        container_switch(c, SWITCH_PREPARE, false, staged, container_is_lost);
}

/* What was prepared is gone (somebody deleted it): back if there is a way, else from the start. */
static void next_is_lost(Container *c)
{
    if (!c->slot.current || streq_ptr(c->slot.current, c->slot.next))
        container_decide(c);
    else if (container_enter(c, ROLLOUT_ROLLING_BACK) >= 0)
        container_continue_back(c);
}

void container_go_forward(Container *c, bool start_again)
{
    bool beside = c->plan->update.order == PLAN_START_FIRST && c->plan->mode == PLAN_MODE_SERVICE &&
                  c->slot.current && !streq_ptr(c->slot.current, c->slot.next);

    /* A start-first rollout that was proving when we were killed may have changed names already:
     * FORWARD knows. */
    if (c->slot.state != ROLLOUT_PROVING && container_enter(c, ROLLOUT_SWITCHING) < 0)
        return;
    container_switch(c, beside ? SWITCH_BESIDE : SWITCH_FORWARD, start_again, prove, next_is_lost);
}

/* --- Proving --------------------------------------------------------------------------------- */

static void take_over(Container *c)
{
    if (streq_ptr(c->slot.current, c->slot.next)) {
        forget(&c->slot.next);
    } else {
        free(c->slot.previous);
        c->slot.previous = take_ptr(c->slot.current);
        c->slot.current = take_ptr(c->slot.next);
    }
    forget(&c->complaint);
    forget(&c->put_off);
    c->forced = release_free(c->forced);
    c->slot.committed_at = now_realtime_usec();
    c->slot.deaths = 0;
    c->slot.exit_status = -1;
    c->slot.run_again = false;
    c->out_of_memory = false;
}

/* A field of the journal; where memory is out the record goes without it. */
static char *digest_field(const char *digest)
{
    return str_printf("MERVIS_DIGEST=%s", digest);
}

static void commit(Container *c)
{
    ResourceContext *context = c->resource->context;
    auto_free char *digest = digest_field(c->want->digest);
    bool first = !c->slot.current;
    auto_error Error err = {0};

    if (release_prove(context->db, c->plan->name, c->slot.next, &err) < 0) {
        container_finish(c, &err);
        return;
    }
    take_over(c);
    if (container_enter(c, ROLLOUT_COMMITTED) < 0)
        return;
    resource_event(c->resource, LOG_LEVEL_NOTICE, first ? "container-started" : "rolled-out",
                   FIELDS("MERVIS_STATE=committed", digest), "%s %.19s of %s %s",
                   first ? "digest" : "rolled out, digest", c->want->digest, c->want->image,
                   c->plan->mode == PLAN_MODE_JOB ? "runs" : "runs and is healthy");
    (void)timer_set(c->settle_timer, c->plan->update.settle_usec, SECOND);
    c->may_have_ended = c->plan->mode == PLAN_MODE_JOB; /* a short one, by now */
    container_look_at_serving(c);
    container_finish(c, NULL);
}

static void prove_again(Container *c)
{
    container_go_forward(c, /* start_again= */ true);
}

static void on_verdict(HealthProbe *probe, const HealthVerdict *verdict, void *userdata)
{
    Container *c = userdata;
    bool healthy = verdict->healthy;
    bool engine_was_away = c->resource->context->engine_outages != c->probe_outages;
    auto_free char *reason = strdup(verdict->reason ? verdict->reason : "not healthy");

    if (healthy && c->slot.current)
        measure_downtime(c, c->probe_began + verdict->elapsed_usec);
    c->probe = health_probe_free(c->probe);
    if (healthy)
        /* start-first: well beside the old one; now names and traffic change hands. */
        container_switch(c, SWITCH_FORWARD, false, commit, container_is_lost);
    else if (engine_was_away && is_excused(c))
        container_observe(c, prove_again); /* its containers died with it: that proves nothing */
    else if (engine_was_away)
        ends_engine(c);
    else
        container_go_back(c, reason ? reason : "not healthy", NULL);
}

static void start_probe(Container *c, const char *id, bool has_health_check)
{
    const PlanContainer *plan = container_want_plan(c, NULL);
    ResourceContext *context = c->resource->context;
    auto_error Error err = {0};
    HealthSpec spec = {
        .kind = has_health_check ? HEALTH_ENGINE : HEALTH_STABILITY,
        .container = id,
        .url = plan->health.http,
        .interval_usec = plan->health.interval_usec,
        .timeout_usec = plan->health.timeout_usec,
        .retries = (unsigned)plan->health.retries,
        .start_period_usec = plan->health.start_period_usec,
    };

    if (plan->health.http)
        spec.kind = HEALTH_HTTP;
    if (spec.kind == HEALTH_STABILITY)
        spec.stable_usec = plan->health.stable_usec;
    c->probe_began = now_boottime_usec();
    c->probe_outages = context->engine_outages;
    c->probe = health_probe_free(c->probe);
    if (health_probe_start(context->engine, context->http, context->event, &spec, on_verdict, c,
                           &c->probe, &err) < 0)
        container_finish(c, &err);
}

static void on_next_inspected(EngineOp *op, const EngineReply *reply, const Error *err,
                              void *userdata)
{
    Container *c = userdata;

    if (err) {
        container_finish_with(c, err);
        return;
    }
    start_probe(c, reply->containers[0].id, reply->containers[0].has_health_check);
    c->op = engine_op_free(c->op);
}

static void prove(Container *c)
{
    const SlotContainer *view = container_view(c, c->slot.next);
    auto_error Error err = {0};

    if (container_enter(c, ROLLOUT_PROVING) < 0)
        return;
    if (c->plan->mode == PLAN_MODE_JOB)
        commit(c); /* its end is the verdict */
    else if (!view)
        container_is_lost(c);
    else if (engine_inspect_container(c->resource->context->engine, view->id, on_next_inspected, c,
                                      &c->op, &err) < 0)
        container_finish(c, &err);
}

bool container_has_way_back(const Container *c)
{
    return c->slot.current && !streq_ptr(c->slot.current, c->slot.next);
}

/* --- Back ------------------------------------------------------------------------------------ */

static void tell_rollback(Container *c, const Release *bad, Error *err)
{
    auto_free char *digest = digest_field(bad->digest);
    char span[TIME_SPAN_MAX];

    container_explain_quarantine(c, bad, err);
    resource_event(c->resource, LOG_LEVEL_ERROR, "rolled-back",
                   FIELDS("MERVIS_STATE=rolled-back", digest), "%s (downtime %s; remedy: %s)",
                   error_text(err), time_format_span(span, c->slot.downtime_usec), err->remedy);
    (void)!str_set(&c->resource->told, error_text(err));
}

/* What it went back to had perhaps not settled itself: then it is watched on. */
static RolloutState state_after_way_back(Container *c)
{
    if (c->plan->mode == PLAN_MODE_JOB) {
        c->slot.run_again = false;
        c->may_have_ended = true;
        return container_resting_state(c);
    }
    if (c->slot.previous && container_watch_settling(c))
        return ROLLOUT_COMMITTED;
    timer_cancel(c->settle_timer);
    return ROLLOUT_ROLLED_BACK;
}

static void went_back(Container *c)
{
    auto_free char *next = take_ptr(c->slot.next);
    auto_error Error err = {0};
    bool is_put_off;
    int r;

    measure_downtime(c, now_boottime_usec());
    r = next ? container_load_want(c, next, &err) : 0;
    if (r < 0)
        error_done(&err); /* the row is told below as far as it was read */
    is_put_off = c->want && streq_ptr(c->want->id, c->put_off);
    if (is_put_off && c->want->proved_at > 0)
        (void)!str_set(&c->slot.next, next); /* what a person wants back stays wanted */
    if (container_enter(c, state_after_way_back(c)) < 0)
        return;
    container_show(c, ROLLOUT_ROLLED_BACK);
    if (next)
        (void)!secret_store_retire(c->resource->context->secrets, c->plan->name, next, NULL);
    if (c->want && c->want->quarantined_at > 0)
        tell_rollback(c, c->want, &err);
    else if (is_put_off)
        (void)error_copy(&err, &c->put_off_why);
    else
        container_look(c->resource); /* given up for something newer, which comes now */
    container_look_at_serving(c);
    container_finish(c, &err);
}

/* The rollback copy was deleted by somebody. It is made anew from what is recorded of it, as a
 * rollback by hand is: what it is to replace serves until it is here, however badly, and goes on
 * where it cannot be had. */
static void make_old_one_anew(Container *c)
{
    auto_free char *lost = take_ptr(c->slot.current);
    bool is_there = c->slot.next && container_view(c, c->slot.next);
    auto_error Error err = {0};
    int r;

    r = release_load(c->resource->context->db, c->plan->name, lost, &c->forced, &err);
    if (r < 0) {
        c->slot.current = take_ptr(lost);
        container_finish(c, &err);
        return;
    }
    resource_event(c->resource, LOG_LEVEL_WARNING, "release-failed",
                   FIELDS("MERVIS_STATE=rolling-back"), "the container to go back to is gone; %s",
                   c->forced ? "it is made anew"
                             : "nothing is known of it, and what is there stays");
    free(c->slot.previous);
    c->slot.previous = NULL;
    if (is_there)
        c->slot.current = take_ptr(c->slot.next);
    else if (c->forced)
        c->slot.current = strdup(lost);
    forget(&c->slot.next);
    if (c->forced)
        c->slot.next = take_ptr(lost);
    if (container_enter(c, c->forced ? ROLLOUT_PULLING : ROLLOUT_FAILED) >= 0)
        container_decide(c);
}

static void go_back(Container *c)
{
    container_switch(c, SWITCH_BACK, false, went_back, make_old_one_anew);
}

void container_continue_back(Container *c)
{
    const SlotContainer *old = container_view(c, c->slot.current);

    if (!old || old->running || container_load_want(c, c->slot.current, NULL) <= 0)
        go_back(c);
    else
        container_have_files(c, go_back, container_finish);
}

/* The plan says to keep a bad release: it is what serves, and the one before it what `agentctl
 * rollback` returns to. Else nothing does. */
static int keep_or_forget(Container *c, bool *ret_kept)
{
    *ret_kept = c->slot.current && c->plan->update.on_failure == PLAN_CURE_KEEP &&
                (container_has_way_back(c) || c->slot.previous);
    if (!*ret_kept) {
        forget(&c->slot.current);
        return 0;
    }
    if (!container_has_way_back(c))
        return 0; /* it was kept before, and tried again */
    free(c->slot.previous);
    c->slot.previous = take_ptr(c->slot.current);
    return str_set(&c->slot.current, c->slot.next);
}

/* There is no way back, or the plan says not to go it. */
static void fail_in_place(Container *c, const char *reason, const char *remedy)
{
    auto_error Error err = {0};
    bool kept;

    if (keep_or_forget(c, &kept) < 0) {
        container_fail(c, -ENOMEM, ERROR_INTERNAL, "out of memory");
        return;
    }
    if (container_enter(c, ROLLOUT_FAILED) < 0)
        return;
    (void)error_set(&err, -ECANCELED, ERROR_TEMPORARY, "%s; %s", reason,
                    kept ? "it is left as it is, as update.on_failure says"
                         : "there is no earlier release to go back to");
    if (remedy)
        (void)error_remedy(&err, err.code, "%s", remedy);
    else
        (void)error_remedy(&err, err.code, "agentctl logs %s", c->plan->name);
    resource_event(c->resource, LOG_LEVEL_ERROR, "release-failed", FIELDS("MERVIS_STATE=failed"),
                   "%s", error_text(&err));
    container_look_at_serving(c);
    container_finish(c, &err);
}

/* 1: with the plan and the secrets of what served, that digest makes c->want: nothing but the
 * digest changed, so it is what is bad. */
static int only_digest_changed(const Container *c, const Release *good, Error *err)
{
    ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *same = NULL;
    auto_(plan_freep) Plan *older = NULL;
    const Plan *plan = context->plan;
    const PlanContainer *item;
    int r;

    if (streq(good->digest, c->want->digest))
        return 0;
    if (good->generation != context->generation) {
        if (release_plan(context->db, good, &older, NULL) < 0)
            return 0; /* nobody can say */
        plan = older;
    }
    item = plan_container(plan, c->plan->name);
    if (!item)
        return 0;
    r = release_new(plan, item, good->generation, c->want->digest, good->secrets, &same, err);
    return r < 0 ? r : streq(same->id, c->want->id);
}

/* c->want, which is slot.next, is condemned. */
void container_return(Container *c, const char *reason, bool by_hand)
{
    Db *db = c->resource->context->db;
    auto_(release_freep) Release *good = NULL;
    auto_(release_freep) Release *earlier = NULL;
    auto_error Error err = {0};
    int r, digest_is_bad = 0;

    /* A bad key must not condemn the image that runs well with the former one. */
    r = release_load(db, c->plan->name, c->slot.current, &good, &err);
    if (r > 0)
        digest_is_bad = r =
            by_hand ? !streq(good->digest, c->want->digest) : only_digest_changed(c, good, &err);
    if (r >= 0)
        r = release_quarantine(db, c->plan->name, c->slot.next, digest_is_bad, reason, &err);
    /* Where that one goes back to, should it prove bad after all. */
    if (r >= 0 && !c->slot.previous)
        r = release_previous(db, c->plan->name, c->slot.current, &earlier, &err);
    if (r >= 0 && earlier && str_set(&c->slot.previous, earlier->id) < 0)
        r = error_oom(&err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    if (container_enter(c, ROLLOUT_ROLLING_BACK) >= 0)
        container_continue_back(c);
}

void container_go_back(Container *c, const char *reason, const char *remedy)
{
    if (container_has_way_back(c) && c->plan->update.on_failure == PLAN_CURE_ROLLBACK)
        container_return(c, reason, /* by_hand= */ false);
    else
        fail_in_place(c, reason, remedy);
}

/* --- Settling -------------------------------------------------------------------------------- */

static void settled(Container *c)
{
    ResourceContext *context = c->resource->context;
    auto_error Error err = {0};

    if (c->slot.previous)
        (void)!secret_store_retire(context->secrets, c->plan->name, c->slot.previous, NULL);
    forget(&c->slot.next);
    c->slot.committed_at = 0;
    if (container_enter(c, ROLLOUT_SETTLED) < 0)
        return;
    /* One to go back to is always remembered: its image can be pulled again. */
    if (release_trim(context->db, c->plan->name, c->slot.current,
                     MAX_OF((unsigned)context->plan->images.keep_previous, 1U) + 1, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "old releases stay listed");
    container_trim_secrets(c);
    c->settled(c);
}

static void take_others_away(Container *c)
{
    for (size_t i = 0; i < c->n_views; i++)
        if (!streq(c->views[i].release, c->slot.current) && c->views[i].release[0])
            (void)!secret_store_retire(c->resource->context->secrets, c->plan->name,
                                       c->views[i].release, NULL);
    container_switch(c, SWITCH_SETTLE, false, settled, container_is_lost);
}

/* What serves is what is wanted, and has been well for long enough: the others go. */
void container_settle(Container *c, ContainerStep then)
{
    c->settled = then;
    /* Not by way of another decision, which would lead here again. */
    if (!c->slot.current || !container_view(c, c->slot.current)) {
        container_is_lost(c);
        return;
    }
    if (str_set(&c->slot.next, c->slot.current) < 0) {
        container_fail(c, -ENOMEM, ERROR_INTERNAL, "out of memory");
        return;
    }
    container_run_current(c, take_others_away);
}
