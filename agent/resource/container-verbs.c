/* SPDX-License-Identifier: Apache-2.0 */
/* What comes from outside: the engine's events, a person's verbs, the end of the machine. All of it
 * only marks the container and asks for a look; the rollout goes on from there. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/resource/container-internal.h"

void container_look(Resource *resource)
{
    Container *c = container_of_resource(resource);

    c->due = true;
    if (c->working)
        c->again = true;
    else
        resource_wants_attention(resource);
}

/* --- The engine ------------------------------------------------------------------------------ */

static bool is_of_release(const EngineEvent *event, const char *release)
{
    for (size_t i = 0; release && i < event->n_attributes; i++)
        if (streq(event->attributes[i].name, LABEL_RELEASE))
            return streq(event->attributes[i].value, release);
    return false;
}

static void count_death(Container *c)
{
    auto_error Error err = {0};

    if (!container_is_watched(c) || c->restarting)
        return;
    c->slot.deaths++;
    if (!c->working && slot_save(c->resource->context->db, c->plan->name, &c->slot, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "its deaths are counted in memory only");
}

void container_on_engine_event(Resource *resource, const EngineEvent *event)
{
    Container *c = container_of_resource(resource);

    if (!c->resource || c->draining)
        return;
    if (c->probe)
        health_probe_look(c->probe);
    if (c->answer)
        health_probe_look(c->answer);
    if (!is_of_release(event, c->slot.current))
        return;
    if (container_is_switching(c)) {
        /* The switch looks for itself, but not at what serves while another one is proved. */
        if (c->probe)
            container_look_at_serving(c);
        return;
    }
    switch (event->kind) {
    case ENGINE_EVENT_DESTROY:
        c->may_have_ended = true;
        break;
    case ENGINE_EVENT_OOM:
        c->out_of_memory = true;
        break;
    case ENGINE_EVENT_DIE:
        count_death(c);
        c->may_have_ended = true;
        break;
    case ENGINE_EVENT_CREATE:
    case ENGINE_EVENT_START:
    case ENGINE_EVENT_HEALTHY:
    case ENGINE_EVENT_UNHEALTHY:
    case ENGINE_EVENT_RENAME:
    case ENGINE_EVENT_OTHER:
        break;
    }
    container_look_at_serving(c); /* finds out what is to be done */
}

static const char by_hand[] = "rolled back by hand";

/* --- Verbs ----------------------------------------------------------------------------------- */

/* Nothing but a look is under way, if anything: the verb comes right after it. */
static bool is_at_rest(const Container *c)
{
    return !container_is_switching(c) && c->slot.state != ROLLOUT_PULLING &&
           c->slot.state != ROLLOUT_STAGED;
}

static int prepare_verb(Resource *resource, Error *err)
{
    const Container *c = container_of_resource(resource);
    int r;

    r = container_prepare(resource, err);
    if (r < 0)
        return r;
    /* One that was kept although it is bad may be proved again and again: it is nobody's turn. */
    if ((container_is_switching(c) && container_has_way_back(c)) || (c->working && !is_at_rest(c)))
        return error_set(err, -EBUSY, ERROR_INVALID,
                         "container %s is at work (%s); try again when it is done", resource->name,
                         rollout_state_name(c->shown));
    return 0;
}

/* A job's next start is a new run, with all its tries. */
static int begin_job_anew(Container *c, Error *err)
{
    c->slot.state = ROLLOUT_COMMITTED;
    c->slot.deaths = 0;
    c->slot.exit_status = -1;
    c->slot.run_again = true;
    return slot_save(c->resource->context->db, c->plan->name, &c->slot, err);
}

int container_restart(Resource *resource, Error *err)
{
    Container *c = container_of_resource(resource);
    int r;

    r = prepare_verb(resource, err);
    if (r < 0)
        return r;
    if (!c->slot.current)
        return error_set(err, -ENOENT, ERROR_INVALID, "container %s has no release that ran yet",
                         resource->name);
    if (c->plan->mode == PLAN_MODE_JOB) {
        r = begin_job_anew(c, err);
        if (r < 0)
            return r;
    }
    c->restart_wanted = true;
    container_look(resource);
    return 1;
}

/* Still being proved: a person is the judge then. 1: on its way back. */
static int judge_by_hand(Container *c)
{
    if (!c->working || !c->probe)
        return 0;
    c->probe = health_probe_free(c->probe);
    if (container_has_way_back(c)) {
        container_return(c, by_hand, /* by_hand= */ true);
        return 1;
    }
    container_finish(c, NULL);
    return 0;
}

/* Recorded before it is answered: current is condemned, with its digest where that differs, and the
 * one before it is wanted, which any later look takes up (container-resume.c). */
static int record_rollback(Container *c, const Release *previous, Error *err)
{
    Db *db = c->resource->context->db;
    auto_(release_freep) Release *current = NULL;
    auto_(db_rollbackp) Db *transaction = NULL;
    bool digest_is_bad;
    int r;

    r = release_load(db, c->plan->name, c->slot.current, &current, err);
    if (r < 0)
        return r;
    digest_is_bad = current && !streq(current->digest, previous->digest);
    if (str_set(&c->slot.next, previous->id) < 0)
        return error_oom(err);
    if (container_is_switching(c))
        c->slot.state = ROLLOUT_FAILED;
    r = db_begin(db, err);
    if (r < 0)
        return r;
    transaction = db;
    r = release_quarantine(db, c->plan->name, c->slot.current, digest_is_bad, by_hand, err);
    if (r >= 0)
        r = slot_save(db, c->plan->name, &c->slot, err);
    if (r >= 0)
        r = db_commit(db, err);
    if (r >= 0)
        transaction = NULL;
    return r;
}

int container_rollback(Resource *resource, Error *err)
{
    Container *c = container_of_resource(resource);
    auto_(release_freep) Release *previous = NULL;
    Db *db = resource->context->db;
    int r;

    if (judge_by_hand(c) > 0)
        return 1;
    r = prepare_verb(resource, err);
    if (r < 0)
        return r;
    r = c->slot.current ? release_previous(db, resource->name, c->slot.current, &previous, err) : 0;
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, -ENOENT, ERROR_INVALID,
                         "container %s has no earlier release that was proved", resource->name);
    r = record_rollback(c, previous, err);
    if (r < 0)
        return r;
    release_free(c->forced);
    c->forced = take_ptr(previous);
    container_look(resource);
    /* What a look has found out by now is no longer asked for. */
    if (c->working)
        container_finish(c, NULL);
    return 1;
}

int container_retry(Resource *resource, Error *err)
{
    Container *c = container_of_resource(resource);
    int r, lifted;

    r = container_prepare(resource, err);
    if (r < 0)
        return r;
    forget(&c->put_off);
    lifted = release_unquarantine(resource->context->db, resource->name, err);
    if (lifted < 0)
        return lifted;
    if (c->plan->mode == PLAN_MODE_JOB && c->slot.state == ROLLOUT_FAILED) {
        r = begin_job_anew(c, err);
        if (r < 0)
            return r;
    }
    container_look(resource);
    return lifted;
}

void container_approve(Resource *resource)
{
    container_of_resource(resource)->approved = true;
    container_look(resource);
}

/* --- Going down ------------------------------------------------------------------------------ */

static void drained(Container *c)
{
    c->op = engine_op_free(c->op);
    c->drained = true;
    resource_changed(c->resource);
}

static void on_drained(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    if (err && err->code != -ENOENT)
        log_failure(LOG_LEVEL_WARNING, NULL, err, "it is left to the engine to stop it");
    if (--c->n_stops == 0)
        drained(c);
}

/* In the middle of a rollout there may be two. */
static void on_drain_listed(EngineOp *op, const EngineReply *reply, const Error *err,
                            void *userdata)
{
    Container *c = userdata;

    for (size_t i = 0; !err && i < reply->n_containers && c->n_stops < SLOT_CONTAINERS_MAX; i++) {
        const EngineContainer *seen = &reply->containers[i];

        if (!engine_container_is_running(seen) && seen->state != ENGINE_STATE_RESTARTING)
            continue;
        if (engine_stop_container(c->resource->context->engine, seen->id, c->drain_usec, on_drained,
                                  c, &c->stops[c->n_stops], NULL) >= 0)
            c->n_stops++;
    }
    if (err)
        log_failure(LOG_LEVEL_WARNING, NULL, err, "it is left to the engine to stop it");
    if (c->n_stops == 0)
        drained(c);
}

/* A job that is stopped now has not come to its end, whatever it exits with. Recorded first. */
static int mark_interrupted(Container *c, Error *err)
{
    if (c->plan->mode != PLAN_MODE_JOB || c->slot.state != ROLLOUT_COMMITTED)
        return 0;
    c->slot.run_again = true;
    return slot_save(c->resource->context->db, c->plan->name, &c->slot, err);
}

void container_drain(Resource *resource, uint64_t budget_usec)
{
    Container *c = container_of_resource(resource);
    auto_free char *label = NULL;
    auto_error Error err = {0};
    int r;

    if (c->draining)
        return;
    c->draining = true;
    r = container_prepare(resource, &err);
    if (r >= 0) {
        container_cancel_operations(c);
        c->answer = health_probe_free(c->answer);
        c->working = false;
        timer_cancel(c->check_timer);
        timer_cancel(c->settle_timer);
        r = mark_interrupted(c, &err);
        if (r < 0)
            log_failure(LOG_LEVEL_WARNING, NULL, &err, "the job may count as ended");
        error_done(&err);
        c->drain_usec = MIN_OF(c->plan->stop_timeout_usec, budget_usec);
        label = str_printf(LABEL_CONTAINER "=%s", resource->name);
        r = !label ? error_oom(&err)
                   : engine_list_containers(resource->context->engine, label, on_drain_listed, c,
                                            &c->op, &err);
    }
    if (r < 0) {
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "it is left to the engine to stop it");
        c->drained = true;
    }
}

bool container_is_drained(const Resource *resource)
{
    return container_of_resource(resource)->drained;
}
