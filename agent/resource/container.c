/* SPDX-License-Identifier: Apache-2.0 */
/* The container as a resource: when it is looked at, how its work begins and ends. */
#include "agent/resource/container.h"

#include <assert.h>
#include <errno.h>

#include "agent/base/crash.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/resource/container-internal.h"

/* Checks of several containers gather in one wake-up, at most a tenth of their pause late. */
#define CHECK_ACCURACY(check_usec) MIN_OF((check_usec) / 10, 5 * SECOND)

/* --- Steps and ends -------------------------------------------------------------------------- */

void container_show(Container *c, RolloutState state)
{
    if (c->shown == state)
        return;
    c->shown = state;
    resource_changed(c->resource);
}

/* "before-proving", "after-proving": where a test ends the process. */
static void crash_around(const char *when, RolloutState state)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "%s-%s", when, rollout_state_name(state));
    crash_point(name);
}

int container_enter(Container *c, RolloutState state)
{
    auto_error Error err = {0};
    char boot_id[BOOT_ID_SIZE];
    int r;

    crash_around("before", state);
    r = boot_id_read(boot_id, &err);
    if (r >= 0 && str_set(&c->slot.boot_id, boot_id) < 0)
        r = error_oom(&err);
    if (r >= 0) {
        c->slot.state = state;
        c->slot.state_at = now_realtime_usec();
        r = slot_save(c->resource->context->db, c->plan->name, &c->slot, &err);
    }
    if (r < 0) {
        /* Not recorded, not done: a disk that is full now may not be later. */
        (void)error_prefix(&err, r, "state \"%s\" could not be recorded",
                           rollout_state_name(state));
        container_finish(c, &err);
        return r;
    }
    crash_around("after", state);
    container_show(c, state);
    return 0;
}

void container_cancel_operations(Container *c)
{
    c->resolve = registry_op_free(c->resolve);
    c->measure = registry_op_free(c->measure);
    c->login = cloud_op_free(c->login);
    c->fetch = cloud_op_free(c->fetch);
    c->op = engine_op_free(c->op);
    c->probe = health_probe_free(c->probe);
    c->pulling = false;
}

void container_finish(Container *c, Error *err)
{
    Resource *resource = c->resource;
    bool failed = err && err->code < 0, again = c->again || (c->resuming && !failed);

    container_cancel_operations(c);
    container_forget_want(c);
    /* It is tried again by looking again, not by finding what runs at rest. */
    c->due |= failed;
    c->again = c->resuming = c->restarting = c->approving = false;
    if (!c->leaving)
        (void)timer_set(c->check_timer, c->plan->update.check_usec,
                        CHECK_ACCURACY(c->plan->update.check_usec));
    c->working = false;
    resource_finish(resource, err);
    error_done(&c->refusal);
    if (again)
        resource_wants_attention(resource);
}

void container_finish_with(Container *c, const Error *err)
{
    auto_error Error copy = {0};

    (void)error_copy(&copy, err);
    container_finish(c, &copy);
}

void container_fail(Container *c, int code, ErrorKind kind, const char *format, ...)
{
    auto_error Error err = {0};
    va_list args;

    va_start(args, format);
    (void)error_setv(&err, code, kind, format, args);
    va_end(args);
    container_finish(c, &err);
}

/* --- Declared -------------------------------------------------------------------------------- */

static int container_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    PLAN_FOREACH (PlanContainer, container, plan->containers) {
        Container *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
            return error_oom(err);
        c->plan = container;
        c->due = true;
        r = resource_add(context, &resource_container, container->name, true, c, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static void on_timer(void *userdata)
{
    container_look(userdata);
}

bool container_watch_settling(Container *c)
{
    uint64_t now = now_realtime_usec(), settle_at;

    timer_cancel(c->settle_timer);
    /* After the wall clock was set back it begins anew, and does not last until then. */
    c->slot.committed_at = MIN_OF(c->slot.committed_at, now);
    settle_at = usec_add(c->slot.committed_at, c->plan->update.settle_usec);
    if (c->slot.committed_at == 0 || settle_at <= now)
        return false;
    return timer_set(c->settle_timer, settle_at - now, SECOND) >= 0;
}

/* Everything that needs the resource around it comes on the first use. */
int container_prepare(Resource *resource, Error *err)
{
    Container *c = container_of_resource(resource);
    int r;

    if (c->resource)
        return 0;
    r = slot_load(resource->context->db, resource->name, &c->slot, err);
    if (r < 0)
        return r;
    if (timer_new(resource->context->event, on_timer, resource, &c->check_timer) < 0 ||
        timer_new(resource->context->event, on_timer, resource, &c->settle_timer) < 0)
        return error_oom(err);
    c->resource = resource;
    c->shown = c->slot.state;
    (void)container_watch_settling(c);
    return 0;
}

/* The plan changed: where this container stands is in its slot, and goes on from there. What only
 * memory knows is handed over. */
static void container_inherit(Resource *resource, Resource *from)
{
    Container *c = container_of_resource(resource), *old = container_of_resource(from);
    auto_error Error err = {0};

    if (!old->resource || container_prepare(resource, &err) < 0)
        return;
    c->serving = old->serving;
    c->well_start = old->well_start;
    c->answer_start = old->answer_start;
    c->answers_badly = old->answers_badly;
    c->silence = take_ptr(old->silence);
    c->forced = take_ptr(old->forced);
    c->complaint = take_ptr(old->complaint);
    c->put_off = take_ptr(old->put_off);
    (void)error_move(&c->put_off_why, &old->put_off_why);
    c->put_off_until = old->put_off_until;
    c->put_off_times = old->put_off_times;
    c->outage_began = old->outage_began;
    c->excused = old->excused;
    memcpy(c->unhealed, old->unhealed, sizeof(c->unhealed));
    c->run_began = old->run_began;
    c->out_of_memory = old->out_of_memory;
    c->pull_bytes = old->pull_bytes;
    c->approved = old->approved || old->approving;
    c->restart_wanted = old->restart_wanted;
    if (old->draining)
        container_drain(resource, c->plan->stop_timeout_usec);
}

/* --- Work ------------------------------------------------------------------------------------ */

static int container_check(Resource *resource, char **ret_difference, Error *err)
{
    Container *c = container_of_resource(resource);
    bool resting;
    int r;

    r = container_prepare(resource, err);
    if (r < 0)
        return r;
    if (resource->context->dry_run)
        return container_would_change(c, ret_difference, err);
    resting = c->slot.state == ROLLOUT_SETTLED || c->slot.state == ROLLOUT_COMMITTED ||
              c->slot.state == ROLLOUT_DONE;
    if (resting && !c->due)
        return 0;
    *ret_difference =
        c->slot.current
            ? str_printf("look whether %s still is what runs, and follow it", c->plan->image)
            : str_printf("pull and start %s", c->plan->image);
    return *ret_difference ? 1 : error_oom(err);
}

static void stopped_for_restart(Container *c)
{
    container_observe(c, container_resume);
}

/* What comes after it, starts again what should run. */
static void restart(Container *c)
{
    container_switch(c, SWITCH_STOPPED, false, stopped_for_restart, stopped_for_restart);
}

static void container_apply(Resource *resource)
{
    Container *c = container_of_resource(resource);

    assert(c->resource && !c->working);
    c->working = true;
    c->due = c->again = c->resuming = false;
    c->approving = c->approved;
    c->restarting = c->restart_wanted;
    c->approved = c->restart_wanted = c->ends_at_once = false;
    c->revived = c->pulled_again = false;
    container_observe(c, c->restarting ? restart : container_resume);
}

static void container_cancel(Resource *resource)
{
    Container *c = container_of_resource(resource);

    container_cancel_operations(c);
    c->working = false;
}

static void forget_slot(Container *c)
{
    ResourceContext *context = c->resource->context;
    auto_error Error err = {0};

    (void)!secret_store_retire(context->secrets, c->plan->name, NULL, NULL);
    if (slot_delete(context->db, c->plan->name, &err) < 0) {
        container_finish(c, &err);
        return;
    }
    resource_event(c->resource, LOG_LEVEL_NOTICE, "container-removed", NULL,
                   "is in no plan any more: stopped and removed");
    container_finish(c, NULL);
}

static void remove_all(Container *c)
{
    crash_point("before-removal");
    container_switch(c, SWITCH_GONE, false, forget_slot, forget_slot);
}

static void container_remove(Resource *resource)
{
    Container *c = container_of_resource(resource);
    auto_error Error err = {0};

    if (container_prepare(resource, &err) < 0) {
        resource_finish(resource, &err);
        return;
    }
    container_cancel_operations(c);
    c->answer = health_probe_free(c->answer);
    timer_cancel(c->check_timer);
    timer_cancel(c->settle_timer);
    c->working = true;
    c->leaving = true;
    container_observe(c, remove_all);
}

static void container_release_memory(Resource *resource)
{
    Container *c = container_of_resource(resource);

    if (!c)
        return;
    container_cancel_operations(c);
    engine_op_free(c->inspect);
    health_probe_free(c->answer);
    for (size_t i = 0; i < ELEMENTS(c->stops); i++)
        engine_op_free(c->stops[i]);
    timer_free(c->check_timer);
    timer_free(c->settle_timer);
    container_forget_want(c);
    release_free(c->forced);
    registry_token_done(&c->token);
    slot_done(&c->slot);
    error_done(&c->refusal);
    error_done(&c->put_off_why);
    free(c->put_off);
    free(c->silence);
    free(c->complaint);
    free(c);
}

const ResourceOps resource_container = {
    .kind = "container",
    .stage = STAGE_CONTAINERS,
    .declare = container_declare,
    .check = container_check,
    .apply = container_apply,
    .cancel = container_cancel,
    .remove = container_remove,
    .describe = container_describe,
    .inherit = container_inherit,
    .free = container_release_memory,
};
