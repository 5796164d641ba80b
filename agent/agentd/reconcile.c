/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentd/reconcile-internal.h"

#include <assert.h>
#include <errno.h>

#include "agent/base/crash.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/resource/container.h"
#include "agent/resource/secret.h"

#define RETRY_ACCURACY_USEC (250 * MSEC)

/* --- Plans and works ------------------------------------------------------------------------ */

PlanRef *plan_unref(PlanRef *ref)
{
    if (ref && --ref->users == 0) {
        plan_free(ref->plan);
        free(ref);
    }
    return NULL;
}

ResourceWork *work_free(ResourceWork *work)
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

void works_free(ResourceWork **head)
{
    LIST_FOREACH_SAFE (works, work, *head)
        work_free(work);
    *head = NULL;
}

ResourceWork *work_find(ResourceWork *head, const char *kind, const char *name)
{
    LIST_FOREACH (works, work, head)
        if (streq(work->resource->ops->kind, kind) && streq(work->resource->name, name))
            return work;
    return NULL;
}

void reconciler_pass_soon(Reconciler *reconciler)
{
    (void)timer_set(reconciler->pass, 0, 0);
}

static void tell_changed(Reconciler *reconciler)
{
    if (reconciler->handlers.changed)
        reconciler->handlers.changed(reconciler->userdata);
}

void reconciler_tell_left(Reconciler *reconciler)
{
    if (!reconciler->leaving && !reconciler->taking_over && reconciler->handlers.left)
        reconciler->handlers.left(reconciler->userdata);
}

/* --- One resource ---------------------------------------------------------------------------- */

static void set_state(Resource *resource, ResourceState state, Error *err)
{
    bool changed = resource->state != state || resource->error.code < 0 || (err && err->code < 0);

    if (resource->state != state)
        resource->state_at = now_realtime_usec();
    resource->state = state;
    error_done(&resource->error);
    if (err && err->code < 0)
        (void)error_move(&resource->error, err);
    if (changed)
        tell_changed(resource->work->reconciler);
}

void work_on_retry(void *userdata)
{
    ResourceWork *work = userdata;

    work->resource->dirty = true;
    reconciler_pass_soon(work->reconciler);
}

/* A failure is told once, with what follows; the same one again is counted, not repeated. */
static void tell_failure(ResourceWork *work, const Error *err, const char *verdict)
{
    const Resource *resource = work->resource;
    const char *event =
        resource->ops->failure_event ? resource->ops->failure_event(resource) : "resource-failed";
    auto_free char *kind = str_printf("ERROR_KIND=%s", error_kind_name(err->kind));
    const char *fields[] = {kind, NULL};

    work->failures++;
    if (streq_ptr(resource->told, error_text(err)) &&
        str_set(&work->said_text, error_text(err)) < 0)
        return;
    if (streq_ptr(work->said_text, error_text(err))) {
        log_debug("%s %s: %s; %s (attempt %u)", resource->ops->kind, resource->name,
                  error_text(err), verdict, work->failures);
        return;
    }
    if (str_set(&work->said_text, error_text(err)) < 0)
        return;
    resource_event(resource, err->kind == ERROR_INVALID ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
                   event, fields, "%s%s%s%s; %s", error_text(err), err->remedy ? " (remedy: " : "",
                   err->remedy ? err->remedy : "", err->remedy ? ")" : "", verdict);
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
    delay -= delay % (delay > SECOND ? SECOND : MSEC); /* it is told */
    (void)snprintf(verdict, sizeof(verdict), "retrying in %s", time_format_span(span, delay));
    tell_failure(work, err, verdict);
    (void)timer_set(work->retry, delay, RETRY_ACCURACY_USEC);
}

static void tell_recovery(ResourceWork *work)
{
    if (work->said_text)
        resource_event(work->resource, LOG_LEVEL_NOTICE, "resource-recovered", NULL,
                       "well again after %u failure%s", work->failures,
                       work->failures == 1 ? "" : "s");
    free(work->said_text);
    work->said_text = NULL;
    work->failures = 0;
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

    crash_point("resource.done");
    work->busy = false;
    if (resource->leaving && (!err || err->code == 0)) {
        LIST_REMOVE(works, reconciler->leaving, work);
        /* The resource is on the stack above us: it goes at the next turn of the loop. */
        LIST_PREPEND(works, reconciler->gone, work);
        reconciler_tell_left(reconciler);
        reconciler_pass_soon(reconciler);
        tell_changed(reconciler);
        return;
    }
    take_result(work, err);
    reconciler_pass_soon(reconciler);
}

static void on_attention(Resource *resource, void *userdata)
{
    resource->dirty = true;
    timer_cancel(resource->work->retry);
    reconciler_pass_soon(userdata);
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

/* Without memory to tell, it is taken for a user: a look too many does no harm. */
static bool uses_secret(const Resource *resource, const char *name)
{
    const PlanContainer *container = NULL;
    auto_(strv_freep) char **names = NULL;

    if (resource->ops == &resource_container)
        container = plan_container(resource->context->plan, resource->name);
    if (container)
        return container_secrets(container, &names) < 0 || strv_contains(names, name);
    return resource->ops->uses_secret && resource->ops->uses_secret(resource, name);
}

static bool share_a_consumer(const Reconciler *reconciler, const char *a, const char *b)
{
    LIST_FOREACH (works, work, reconciler->works)
        if (uses_secret(work->resource, a) && uses_secret(work->resource, b))
            return true;
    return false;
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
        if (resource->ops == &resource_secret) {
            if (share_a_consumer(reconciler, secret->name, resource->name))
                secret_look(resource);
        } else if (!uses_secret(resource, secret->name))
            continue;
        else if (resource->ops == &resource_container)
            container_look(resource);
        else
            on_attention(resource, reconciler);
    }
}

static const ResourceHost host = {
    .finished = on_finished,
    .attention = on_attention,
    .changed = on_changed,
    .event = on_event,
    .add = reconciler_add,
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
    crash_point("resource.before-apply");
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

/* What waits for a secret lets the secrets come, but neither those after it in order nor, on a
 * first boot, a container that needs it. */
static bool waits(const ResourceWork *work)
{
    return work->resource->state == RESOURCE_WAITING;
}

static bool holds_containers(const Reconciler *reconciler)
{
    if (!reconciler->context->first_boot)
        return false;
    LIST_FOREACH (works, work, reconciler->works)
        if (work->resource->required && work->resource->ops->stage < STAGE_SECRETS &&
            (waits(work) || work->resource->dirty || holds(reconciler, work)))
            return true;
    return false;
}

/* A script may have failed for want of a file whose secret is still to come: it would hold for ever
 * what it needs. */
static bool holds_next(const Reconciler *reconciler, ResourceStage stage)
{
    bool held = false;

    LIST_FOREACH (works, work, reconciler->works) {
        if (work->resource->ops->stage != stage)
            continue;
        if (work->busy)
            return true;
        held |= holds(reconciler, work);
    }
    LIST_FOREACH (works, work, reconciler->works)
        if (work->resource->ops->stage == stage && waits(work))
            return false;
    return held;
}

/* What makes room (a port, the disk) goes first. A script that runs to its end makes none. */
static bool is_leaving(const Reconciler *reconciler, ResourceStage stage)
{
    LIST_FOREACH (works, work, reconciler->leaving)
        if (work->busy && work->resource->ops->stage == stage && !work->resource->ops->ordered)
            return true;
    return false;
}

/* Resources that finish inside apply() call back before we return: they only ask for another pass.
 */
static bool stage_holds(Reconciler *reconciler, ResourceStage stage)
{
    bool held = false;

    if (is_leaving(reconciler, stage))
        return true;
    LIST_FOREACH (works, work, reconciler->works)
        if (work->resource->ops->stage == stage && work->resource->dirty && !work->busy) {
            if (work->resource->ops->ordered && held)
                continue;
            work_on(work);
            if (work->resource->ops->ordered && (holds(reconciler, work) || waits(work)))
                held = true;
        } else if (work->resource->ops->stage == stage && work->resource->ops->ordered &&
                   (holds(reconciler, work) || waits(work)))
            held = true;
    return holds_next(reconciler, stage);
}

void work_remove(ResourceWork *work)
{
    crash_point("resource.before-remove");
    work->resource->dirty = false;
    work->busy = true;
    work->resource->ops->remove(work->resource);
}

/* A removal that failed is tried again as anything else. */
static void remove_again(Reconciler *reconciler)
{
    LIST_FOREACH_SAFE (works, work, reconciler->leaving)
        if (work->resource->dirty && !work->busy)
            work_remove(work);
}

static void on_pass(void *userdata)
{
    Reconciler *reconciler = userdata;

    works_free(&reconciler->gone);
    if (reconciler->context->draining)
        return;
    remove_again(reconciler);
    for (ResourceStage stage = 0; stage < STAGE_MAX; stage++)
        if (stage_holds(reconciler, stage) ||
            (stage == STAGE_SECRETS && holds_containers(reconciler)))
            return; /* whoever holds it asks for the next pass when it is done */
    if (!timer_is_set(reconciler->pass) && reconciler->handlers.settled)
        reconciler->handlers.settled(reconciler_is_well(reconciler), reconciler->userdata);
}

static void on_drift(void *userdata)
{
    Reconciler *reconciler = userdata;

    reconciler_look_at_all(reconciler);
}

void reconciler_look_again_later(Reconciler *reconciler)
{
    uint64_t pause = reconciler->handlers.drift_usec;

    if (pause == 0)
        pause = RECONCILE_DRIFT_USEC;
    (void)timer_set(reconciler->drift, pause, MIN_OF(pause / 10, (uint64_t)DRIFT_ACCURACY_USEC));
}

void reconciler_look_at_all(Reconciler *reconciler)
{
    LIST_FOREACH (works, work, reconciler->works) {
        if (work->resource->ops == &resource_container)
            container_look(work->resource);
        else if (work->resource->ops == &resource_secret)
            secret_look(work->resource);
        work->resource->dirty = true;
    }
    LIST_FOREACH (works, work, reconciler->leaving)
        work->resource->dirty = true; /* a person may have cured what kept it */
    reconciler_look_again_later(reconciler);
    reconciler_pass_soon(reconciler);
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
    works_free(&reconciler->gone);
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

Resource *reconciler_next_leaving(const Reconciler *reconciler, const Resource *after)
{
    const ResourceWork *next = after ? after->work->works_next : reconciler->leaving;

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

bool reconciler_is_leaving(const Reconciler *reconciler)
{
    return reconciler->leaving != NULL;
}

bool reconciler_is_busy(const Reconciler *reconciler)
{
    LIST_FOREACH (works, work, reconciler->works)
        if (work->busy || work->resource->dirty)
            return true;
    LIST_FOREACH (works, work, reconciler->leaving)
        if (!work->resource->ops->ordered)
            return true;
    return false;
}

static json_t *dry_run_item(const ResourceWork *work)
{
    Resource *resource = work->resource;
    auto_free char *difference = NULL;
    auto_error Error err = {0};
    const char *action = "none";
    int r = 1;

    if (!work->busy)
        r = resource->ops->check(resource, &difference, &err);
    if (r != 0)
        action = r < 0 ? "unknown" : "change";
    return json_pack("{s:s, s:s, s:s, s:s?}", "kind", resource->ops->kind, "name", resource->name,
                     "action", action, "what",
                     r < 0        ? error_text(&err)
                     : work->busy ? "it is at work already"
                                  : difference);
}

/* check() changes nothing. */
json_t *reconciler_dry_run(Reconciler *reconciler)
{
    json_auto_t *list = json_array();
    int r = list ? 0 : -ENOMEM;

    reconciler->context->dry_run = true;
    LIST_FOREACH (works, work, reconciler->works)
        if (r >= 0)
            r = json_array_append_new(list, dry_run_item(work));
    reconciler->context->dry_run = false;
    LIST_FOREACH (works, work, reconciler->leaving)
        if (r >= 0)
            r = json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "kind",
                                                      work->resource->ops->kind, "name",
                                                      work->resource->name, "action", "remove",
                                                      "what", "it left the plan"));
    return r < 0 ? NULL : take_ptr(list);
}
