/* SPDX-License-Identifier: Apache-2.0 */
/* Getting from one release to the next, and back. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/resource/container-internal.h"

static void prove(Container *c);

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
        container_measure_downtime(c, c->probe_began + verdict->elapsed_usec);
    c->probe = health_probe_free(c->probe);
    if (healthy)
        container_tried_well(c);
    if (healthy)
        /* start-first: well beside the old one; now names and traffic change hands. */
        container_switch(c, SWITCH_FORWARD, false, commit, container_is_lost);
    else if (engine_was_away && container_is_excused(c))
        container_observe(c, prove_again); /* its containers died with it: that proves nothing */
    else if (engine_was_away)
        container_ends_engine(c);
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
    container_tries(c, &reply->containers[0]);
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

    container_measure_downtime(c, now_boottime_usec());
    r = next ? container_load_want(c, next, &err) : 0;
    if (r < 0)
        error_done(&err); /* the row is told below as far as it was read */
    is_put_off = c->want && streq_ptr(c->want->id, c->put_off);
    if (is_put_off && c->want->proved_at > 0)
        (void)!str_set(&c->slot.next, next); /* what a person wants back stays wanted */
    if (container_enter(c, state_after_way_back(c)) < 0)
        return;
    container_show(c, ROLLOUT_ROLLED_BACK);
    c->again |= c->resuming; /* it has come to its end, whatever is told of it */
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
    if (container_enter(c, c->forced ? ROLLOUT_PULLING : ROLLOUT_FAILED) < 0)
        return;
    container_look_at_serving(c);
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
