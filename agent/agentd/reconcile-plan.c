/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "agent/agentd/reconcile-internal.h"
#include "agent/base/str.h"
#include "agent/base/time.h"

int reconciler_add(Resource *resource, void *userdata)
{
    Reconciler *reconciler = userdata;
    ResourceWork *work = calloc(1, sizeof(*work));

    if (!work)
        return -ENOMEM;
    work->backoff =
        (Backoff){.base_usec = RECONCILE_BACKOFF_BASE_USEC, .cap_usec = RECONCILE_BACKOFF_CAP_USEC};
    work->reconciler = reconciler;
    if (timer_new(reconciler->context->event, work_on_retry, work, &work->retry) < 0) {
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

/* Fills `adding`. On failure nothing is in force that was not before, and the plan is the caller's.
 */
static int declare_all(Reconciler *reconciler, Plan *plan, uint64_t generation, PlanRef **ret,
                       Error *err)
{
    ResourceContext *context = reconciler->context;
    const Plan *former = context->plan;
    uint64_t former_generation = context->generation;
    PlanRef *ref = calloc(1, sizeof(*ref));
    int r = 0;

    if (!ref)
        return error_oom(err);
    *ref = (PlanRef){.plan = plan, .users = 1};
    reconciler->adding_plan = ref;
    context->plan = plan;
    context->generation = generation;
    for (size_t i = 0; resource_kinds[i] && r >= 0; i++)
        r = resource_kinds[i]->declare(context, plan, err);
    reconciler->adding_plan = NULL;
    context->plan = former;
    context->generation = former_generation;
    if (r < 0) {
        ref->plan = NULL;
        works_free(&reconciler->adding);
        plan_unref(ref);
        return r;
    }
    *ret = ref;
    return 0;
}

static bool is_left_alone(const Resource *resource)
{
    return resource->ops->left_alone && !(resource->ops->goes && resource->ops->goes(resource));
}

static void say_left_alone(Reconciler *reconciler, const Resource *resource)
{
    auto_free char *text = str_printf("%s %s left the plan: %s", resource->ops->kind,
                                      resource->name, resource->ops->left_alone);

    reconciler->handlers.event(LOG_LEVEL_NOTICE, "left-alone", NULL,
                               text ? text : resource->ops->left_alone, reconciler->userdata);
}

static void leave(Reconciler *reconciler, ResourceWork *work)
{
    Resource *resource = work->resource;

    timer_cancel(work->retry);
    if (work->busy && resource->ops->cancel)
        resource->ops->cancel(resource);
    work->busy = false;
    if (!resource->ops->remove) {
        work_free(work);
        return;
    }
    resource->leaving = true;
    LIST_PREPEND(works, reconciler->leaving, work);
    work_remove(work);
}

/* The new resources are in `adding`; those of the plan before hand over, or leave. */
static void take_over(Reconciler *reconciler)
{
    ResourceWork *former = reconciler->works;

    /* One that leaves at once must not say that all have left while the next is still to come. */
    reconciler->taking_over = true;
    reconciler->works = take_ptr(reconciler->adding);
    /* What was leaving and is wanted again: how far that came is what check() sees. */
    LIST_FOREACH_SAFE (works, work, reconciler->leaving)
        if (work_find(reconciler->works, work->resource->ops->kind, work->resource->name)) {
            LIST_REMOVE(works, reconciler->leaving, work);
            if (work->busy && work->resource->ops->cancel)
                work->resource->ops->cancel(work->resource);
            work_free(work);
        }
    LIST_FOREACH_SAFE (works, old, former) {
        ResourceWork *new_ =
            work_find(reconciler->works, old->resource->ops->kind, old->resource->name);

        LIST_REMOVE(works, former, old);
        if (!new_) {
            if (is_left_alone(old->resource))
                say_left_alone(reconciler, old->resource);
            leave(reconciler, old);
            continue;
        }
        if (old->resource->ops->inherit)
            old->resource->ops->inherit(new_->resource, old->resource);
        work_free(old);
    }
    reconciler->taking_over = false;
}

int reconciler_set_plan(Reconciler *reconciler, Plan *plan, uint64_t generation, Error *err)
{
    PlanRef *ref;
    int r;

    r = declare_all(reconciler, plan, generation, &ref, err);
    if (r < 0)
        return r;
    reconciler->context->plan = plan;
    reconciler->context->generation = generation;
    take_over(reconciler);
    plan_unref(reconciler->plan);
    reconciler->plan = ref;
    reconciler_look_again_later(reconciler);
    reconciler_pass_soon(reconciler);
    reconciler_tell_left(reconciler);
    return 0;
}

int reconciler_retire_plan(Reconciler *reconciler, Plan *plan, uint64_t generation, Error *err)
{
    PlanRef *ref;
    int r;

    r = declare_all(reconciler, plan, generation, &ref, err);
    if (r < 0)
        return r;
    LIST_FOREACH_SAFE (works, work, reconciler->adding) {
        const Resource *resource = work->resource;

        LIST_REMOVE(works, reconciler->adding, work);
        /* What nobody undoes was said when it left. */
        if (!resource->ops->remove ||
            work_find(reconciler->works, resource->ops->kind, resource->name) ||
            work_find(reconciler->leaving, resource->ops->kind, resource->name))
            work_free(work);
        else
            leave(reconciler, work);
    }
    plan_unref(ref);
    reconciler_tell_left(reconciler);
    return 0;
}

void reconciler_forget(Reconciler *reconciler)
{
    works_free(&reconciler->works);
    works_free(&reconciler->leaving);
    reconciler->plan = plan_unref(reconciler->plan);
    reconciler->context->plan = NULL;
    reconciler->context->generation = 0;
    timer_cancel(reconciler->pass);
    timer_cancel(reconciler->drift);
}
