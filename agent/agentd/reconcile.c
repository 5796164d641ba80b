/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentd/reconcile.h"

#include <assert.h>
#include <errno.h>

#include "agent/base/backoff.h"
#include "agent/base/list.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/io/loop.h"
#include "agent/resource/container.h"
#include "agent/resource/secret.h"

#define RETRY_ACCURACY_USEC (250 * MSEC)
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
    char *said_text; /* its failure as it was told: the same one again is not */
    LIST_FIELDS(struct ResourceWork, works);
} ResourceWork;

struct Reconciler {
    ResourceContext *context;
    ReconcilerHandlers handlers;
    void *userdata;
    ResourceWork *works;  /* of the plan in force, in stage order */
    ResourceWork *adding; /* of the plan that is being taken over */
    ResourceWork *leaving;
    PlanRef *plan;
    PlanRef *adding_plan;
    Timer *pass, *drift;
};

/* --- Plans and works ------------------------------------------------------------------------ */

static PlanRef *plan_unref(PlanRef *ref)
{
    if (ref && --ref->users == 0) {
        plan_free(ref->plan);
        free(ref);
    }
    return NULL;
}

static ResourceWork *work_free(ResourceWork *work)
{
    if (!work)
        return NULL;

    timer_free(work->retry);
    resource_free(work->resource);
    plan_unref(work->plan);
    free(work->said_text);
    free(work);
    return NULL;
}

static void works_free(ResourceWork **head)
{
    LIST_FOREACH_SAFE (works, work, *head)
        work_free(work);
    *head = NULL;
}

static ResourceWork *work_find(ResourceWork *head, const char *kind, const char *name)
{
    LIST_FOREACH (works, work, head)
        if (streq(work->resource->ops->kind, kind) && streq(work->resource->name, name))
            return work;
    return NULL;
}

static void pass_soon(Reconciler *reconciler)
{
    (void)timer_set(reconciler->pass, 0, 0);
}

static void tell_changed(Reconciler *reconciler)
{
    if (reconciler->handlers.changed)
        reconciler->handlers.changed(reconciler->userdata);
}

/* --- One resource ---------------------------------------------------------------------------- */

static void set_state(Resource *resource, ResourceState state, Error *err)
{
    if (resource->state != state)
        resource->state_at = now_realtime_usec();
    resource->state = state;
    error_done(&resource->error);
    if (err && err->code < 0)
        (void)error_move(&resource->error, err);
    tell_changed(resource->work->reconciler);
}

static void on_retry(void *userdata)
{
    ResourceWork *work = userdata;

    work->resource->dirty = true;
    pass_soon(work->reconciler);
}

/* A failure is told once, with what follows; the same one again is counted, not repeated. */
static void tell_failure(ResourceWork *work, const Error *err, const char *verdict)
{
    const Resource *resource = work->resource;
    auto_free char *kind = str_printf("MERVIS_RESOURCE=%s/%s", resource->ops->kind, resource->name);
    const char *fields[] = {kind, NULL};

    if (streq_ptr(work->said_text, error_text(err))) {
        log_debug("%s %s: %s; %s (attempt %u)", resource->ops->kind, resource->name,
                  error_text(err), verdict, work->backoff.attempts);
        return;
    }
    if (str_set(&work->said_text, error_text(err)) < 0)
        return;
    {
        auto_free char *text =
            str_printf("%s %s: %s%s%s%s; %s", resource->ops->kind, resource->name, error_text(err),
                       err->remedy ? " (remedy: " : "", err->remedy ? err->remedy : "",
                       err->remedy ? ")" : "", verdict);

        work->reconciler->handlers.event(
            err->kind == ERROR_INVALID ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, "resource-failed",
            fields, text ? text : error_text(err), work->reconciler->userdata);
    }
}

static void schedule_retry(ResourceWork *work, Error *err)
{
    char verdict[96], span[TIME_SPAN_MAX];
    uint64_t delay;

    if (err->kind == ERROR_INVALID || err->kind == ERROR_CORRUPT) {
        tell_failure(work, err, "waiting for a person, or a new plan");
        return;
    }
    delay = backoff_next(&work->backoff, err->retry_after_usec);
    (void)snprintf(verdict, sizeof(verdict), "retrying in %s", time_format_span(span, delay));
    tell_failure(work, err, verdict);
    (void)timer_set(work->retry, delay, RETRY_ACCURACY_USEC);
}

static void tell_recovery(ResourceWork *work)
{
    auto_free char *text = NULL;

    if (!work->said_text)
        return;
    text = str_printf("%s %s: well again", work->resource->ops->kind, work->resource->name);
    work->reconciler->handlers.event(LOG_LEVEL_NOTICE, "resource-recovered", NULL,
                                     text ? text : "well again", work->reconciler->userdata);
    free(work->said_text);
    work->said_text = NULL;
}

static void take_result(ResourceWork *work, Error *err)
{
    Resource *resource = work->resource;

    if (!err || err->code == 0) {
        backoff_reset(&work->backoff);
        tell_recovery(work);
        set_state(resource, RESOURCE_OK, NULL);
    } else if (err->code == -EINPROGRESS) {
        set_state(resource, RESOURCE_WAITING, err);
    } else {
        schedule_retry(work, err);
        set_state(resource, RESOURCE_FAILED, err);
    }
}

static void on_finished(Resource *resource, Error *err, void *userdata)
{
    Reconciler *reconciler = userdata;
    ResourceWork *work = resource->work;

    work->busy = false;
    if (resource->leaving && (!err || err->code == 0)) {
        LIST_REMOVE(works, reconciler->leaving, work);
        /* The resource is on the stack above us: it goes at the next turn of the loop. */
        LIST_PREPEND(works, reconciler->adding, work);
        pass_soon(reconciler);
        tell_changed(reconciler);
        return;
    }
    take_result(work, err);
    pass_soon(reconciler);
}

static void on_attention(Resource *resource, void *userdata)
{
    resource->dirty = true;
    timer_cancel(resource->work->retry);
    pass_soon(userdata);
}

static void on_changed(Resource *resource, void *userdata)
{
    tell_changed(userdata);
}

static void on_event(LogLevel level, const char *event, const char *const *fields, const char *text,
                     void *userdata)
{
    Reconciler *reconciler = userdata;

    reconciler->handlers.event(level, event, fields, text, reconciler->userdata);
}

static void on_poweroff(const char *reason, void *userdata)
{
    Reconciler *reconciler = userdata;

    reconciler->handlers.poweroff(reason, reconciler->userdata);
}

/* All secrets of a consumer change together: the others are read again in the same pass, and only
 * then their consumers are looked at. */
static void on_secret_changed(Resource *secret, void *userdata)
{
    Reconciler *reconciler = userdata;

    LIST_FOREACH (works, work, reconciler->works) {
        Resource *resource = work->resource;

        if (resource == secret)
            continue;
        if (resource->ops == &resource_secret)
            secret_look(resource);
        else if (resource->ops == &resource_container)
            container_look(resource);
        else
            on_attention(resource, reconciler);
    }
}

static int on_add(Resource *resource, void *userdata)
{
    Reconciler *reconciler = userdata;
    ResourceWork *work = calloc(1, sizeof(*work));

    if (!work)
        return -ENOMEM;
    work->backoff =
        (Backoff){.base_usec = RECONCILE_BACKOFF_BASE_USEC, .cap_usec = RECONCILE_BACKOFF_CAP_USEC};
    work->reconciler = reconciler;
    if (timer_new(reconciler->context->event, on_retry, work, &work->retry) < 0) {
        free(work);
        return -ENOMEM;
    }
    work->resource = resource;
    work->plan = reconciler->adding_plan;
    work->plan->users++;
    resource->work = work;
    resource->dirty = true;
    LIST_APPEND(works, reconciler->adding, work);
    return 0;
}

static const ResourceHost host = {
    .finished = on_finished,
    .attention = on_attention,
    .changed = on_changed,
    .event = on_event,
    .add = on_add,
    .secret_changed = on_secret_changed,
    .poweroff = on_poweroff,
};

/* --- A pass ----------------------------------------------------------------------------------- */

static void work_on(ResourceWork *work)
{
    Resource *resource = work->resource;
    auto_free char *difference = NULL;
    auto_error Error err = {0};
    int r;

    resource->dirty = false;
    timer_cancel(work->retry);
    r = resource->ops->check(resource, &difference, &err);
    if (r < 0) {
        take_result(work, &err);
        return;
    }
    if (r == 0) {
        take_result(work, NULL);
        return;
    }
    log_debug("%s %s: %s", resource->ops->kind, resource->name, difference);
    work->busy = true;
    set_state(resource, RESOURCE_APPLYING, NULL);
    resource->ops->apply(resource);
}

/* Whether later stages must wait for this one: it is at work, or it failed where a first boot
 * cannot go on without it. */
static bool holds(const Reconciler *reconciler, const ResourceWork *work)
{
    const Resource *resource = work->resource;

    if (work->busy)
        return true;
    return reconciler->context->first_boot && resource->required &&
           resource->state == RESOURCE_FAILED && resource->ops->stage < STAGE_CONTAINERS;
}

/* Resources that finish inside apply() call back before we return: they only ask for another pass.
 */
static bool stage_holds(Reconciler *reconciler, ResourceStage stage)
{
    bool held = false;

    LIST_FOREACH (works, work, reconciler->works)
        if (work->resource->ops->stage == stage && work->resource->dirty && !work->busy) {
            if (work->resource->ops->ordered && held)
                continue;
            work_on(work);
            if (work->resource->ops->ordered && holds(reconciler, work))
                held = true;
        } else if (work->resource->ops->stage == stage && work->resource->ops->ordered &&
                   holds(reconciler, work))
            held = true;
    LIST_FOREACH (works, work, reconciler->works)
        if (work->resource->ops->stage == stage && holds(reconciler, work))
            return true;
    return false;
}

/* What was removed in a callback and could not be freed there. */
static void free_gone(Reconciler *reconciler)
{
    works_free(&reconciler->adding);
}

static void on_pass(void *userdata)
{
    Reconciler *reconciler = userdata;

    free_gone(reconciler);
    for (ResourceStage stage = 0; stage < STAGE_MAX; stage++)
        if (stage_holds(reconciler, stage))
            return; /* whoever holds it asks for the next pass when it is done */
    if (!timer_is_set(reconciler->pass) && reconciler->handlers.settled)
        reconciler->handlers.settled(reconciler_is_well(reconciler), reconciler->userdata);
}

static void on_drift(void *userdata)
{
    Reconciler *reconciler = userdata;

    reconciler_look_at_all(reconciler);
}

void reconciler_look_at_all(Reconciler *reconciler)
{
    LIST_FOREACH (works, work, reconciler->works) {
        if (work->resource->ops == &resource_container)
            container_look(work->resource);
        work->resource->dirty = true;
    }
    (void)timer_set(reconciler->drift, RECONCILE_DRIFT_USEC, DRIFT_ACCURACY_USEC);
    pass_soon(reconciler);
}

/* --- Plans -------------------------------------------------------------------------------------
 */

static int declare_all(Reconciler *reconciler, const Plan *plan, Error *err)
{
    int r;

    for (size_t i = 0; resource_kinds[i]; i++) {
        r = resource_kinds[i]->declare(reconciler->context, plan, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static void leave(Reconciler *reconciler, ResourceWork *work)
{
    Resource *resource = work->resource;

    timer_cancel(work->retry);
    if (work->busy && resource->ops->cancel)
        resource->ops->cancel(resource);
    work->busy = false;
    if (!resource->ops->remove) {
        if (resource->ops->left_alone) {
            auto_free char *text = str_printf("%s %s left the plan: %s", resource->ops->kind,
                                              resource->name, resource->ops->left_alone);

            reconciler->handlers.event(LOG_LEVEL_NOTICE, "left-alone", NULL,
                                       text ? text : resource->ops->left_alone,
                                       reconciler->userdata);
        }
        work_free(work);
        return;
    }
    resource->leaving = true;
    work->busy = true;
    LIST_PREPEND(works, reconciler->leaving, work);
    resource->ops->remove(resource);
}

/* The new resources are in `adding`; those of the plan before hand over, or leave. */
static void take_over(Reconciler *reconciler)
{
    ResourceWork *former = reconciler->works;

    reconciler->works = take_ptr(reconciler->adding);
    LIST_FOREACH_SAFE (works, old, former) {
        ResourceWork *new_ =
            work_find(reconciler->works, old->resource->ops->kind, old->resource->name);

        LIST_REMOVE(works, former, old);
        if (!new_) {
            leave(reconciler, old);
            continue;
        }
        if (old->resource->ops->inherit)
            old->resource->ops->inherit(new_->resource, old->resource);
        work_free(old);
    }
}

int reconciler_set_plan(Reconciler *reconciler, Plan *plan, uint64_t generation, Error *err)
{
    const Plan *former = reconciler->context->plan;
    uint64_t former_generation = reconciler->context->generation;
    PlanRef *ref = calloc(1, sizeof(*ref));
    int r;

    if (!ref)
        return error_oom(err);
    free_gone(reconciler);
    *ref = (PlanRef){.plan = plan, .users = 1};
    reconciler->adding_plan = ref;
    reconciler->context->plan = plan;
    reconciler->context->generation = generation;
    r = declare_all(reconciler, plan, err);
    reconciler->adding_plan = NULL;
    if (r < 0) {
        works_free(&reconciler->adding);
        reconciler->context->plan = former;
        reconciler->context->generation = former_generation;
        free(ref); /* the plan stays the caller's */
        return r;
    }
    take_over(reconciler);
    plan_unref(reconciler->plan);
    reconciler->plan = ref;
    reconciler_look_at_all(reconciler);
    return 0;
}

int reconciler_new(ResourceContext *context, const ReconcilerHandlers *handlers, void *userdata,
                   Reconciler **ret, Error *err)
{
    auto_(reconciler_freep) Reconciler *reconciler = calloc(1, sizeof(*reconciler));

    if (!reconciler)
        return error_oom(err);
    reconciler->context = context;
    reconciler->handlers = *handlers;
    reconciler->userdata = userdata;
    context->host = &host;
    context->host_userdata = reconciler;
    if (timer_new(context->event, on_pass, reconciler, &reconciler->pass) < 0 ||
        timer_new(context->event, on_drift, reconciler, &reconciler->drift) < 0)
        return error_oom(err);
    *ret = take_ptr(reconciler);
    return 0;
}

Reconciler *reconciler_free(Reconciler *reconciler)
{
    if (!reconciler)
        return NULL;

    works_free(&reconciler->works);
    works_free(&reconciler->adding);
    works_free(&reconciler->leaving);
    plan_unref(reconciler->plan);
    timer_free(reconciler->pass);
    timer_free(reconciler->drift);
    free(reconciler);
    return NULL;
}

/* --- Questions ---------------------------------------------------------------------------------
 */

Resource *reconciler_next(const Reconciler *reconciler, const Resource *after)
{
    const ResourceWork *next = after ? after->work->works_next : reconciler->works;

    return next ? next->resource : NULL;
}

Resource *reconciler_find(const Reconciler *reconciler, const char *kind, const char *name)
{
    ResourceWork *work = work_find(reconciler->works, kind, name);

    return work ? work->resource : NULL;
}

bool reconciler_is_well(const Reconciler *reconciler)
{
    LIST_FOREACH (works, work, reconciler->works)
        if (work->busy || work->resource->state != RESOURCE_OK)
            return false;
    return true;
}

bool reconciler_is_busy(const Reconciler *reconciler)
{
    LIST_FOREACH (works, work, reconciler->works)
        if (work->busy || work->resource->dirty)
            return true;
    return reconciler->leaving != NULL;
}

static json_t *dry_run_item(Resource *resource)
{
    auto_free char *difference = NULL;
    auto_error Error err = {0};
    const char *action = "none";
    int r;

    r = resource->ops->check(resource, &difference, &err);
    if (r != 0)
        action = r < 0 ? "unknown" : "change";
    return json_pack("{s:s, s:s, s:s, s:s?}", "kind", resource->ops->kind, "name", resource->name,
                     "action", action, "what", r < 0 ? error_text(&err) : difference);
}

/* Declares the plan beside the one in force, asks each resource, and throws it away: check()
 * changes nothing. */
json_t *reconciler_dry_run(Reconciler *reconciler, const Plan *plan)
{
    const Plan *former = reconciler->context->plan;
    PlanRef ref = {.users = 1};
    json_auto_t *list = json_array();
    int r;

    if (!list)
        return NULL;
    free_gone(reconciler);
    reconciler->adding_plan = &ref;
    reconciler->context->plan = plan;
    r = declare_all(reconciler, plan, NULL);
    LIST_FOREACH (works, work, reconciler->adding)
        if (r >= 0)
            r = json_array_append_new(list, dry_run_item(work->resource));
    LIST_FOREACH (works, work, reconciler->works)
        if (r >= 0 &&
            !work_find(reconciler->adding, work->resource->ops->kind, work->resource->name))
            r = json_array_append_new(
                list, json_pack("{s:s, s:s, s:s, s:s?}", "kind", work->resource->ops->kind, "name",
                                work->resource->name, "action",
                                work->resource->ops->remove ? "remove" : "none", "what",
                                work->resource->ops->left_alone));
    works_free(&reconciler->adding);
    reconciler->adding_plan = NULL;
    reconciler->context->plan = former;
    return r < 0 ? NULL : take_ptr(list);
}
