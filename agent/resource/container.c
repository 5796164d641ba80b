/* SPDX-License-Identifier: Apache-2.0 */
/* The container as a resource: when it is looked at, what is resumed, what it says of itself. */
#include "agent/resource/container.h"

#include <assert.h>
#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/resource/container-internal.h"

/* Checks of several containers gather in one wake-up, at most a tenth of their pause late. */
#define CHECK_ACCURACY(check_usec) MIN_OF((check_usec) / 10, 5 * SECOND)

/* --- The ends ------------------------------------------------------------------------------- */

void container_show(Container *c, RolloutState state)
{
    if (c->shown == state)
        return;
    c->shown = state;
    resource_changed(c->resource);
}

int container_enter(Container *c, RolloutState state)
{
    auto_error Error err = {0};
    char boot_id[BOOT_ID_SIZE];
    int r;

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
    container_show(c, state);
    return 0;
}

static void cancel_operations(Container *c)
{
    c->resolve = registry_op_free(c->resolve);
    c->login = cloud_op_free(c->login);
    c->op = engine_op_free(c->op);
    c->probe = health_probe_free(c->probe);
    c->pulling = false;
}

void container_finish(Container *c, Error *err)
{
    Resource *resource = c->resource;
    bool again = c->again;

    cancel_operations(c);
    c->again = false;
    c->restarting = false;
    if (!c->leaving && c->plan->mode == PLAN_MODE_SERVICE)
        (void)timer_set(c->check_timer, c->plan->update.check_usec,
                        CHECK_ACCURACY(c->plan->update.check_usec));
    if (c->plan->mode == PLAN_MODE_JOB && c->slot.state == ROLLOUT_COMMITTED)
        container_watch_job(c);
    if (c->working) {
        c->working = false;
        resource_finish(resource, err);
    } else if (err && err->code < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, err, "it will be tried again");
    if (again)
        resource_wants_attention(resource);
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

/* --- What serves ----------------------------------------------------------------------------- */

const SlotContainer *container_serving_view(const Container *c)
{
    for (size_t i = 0; i < c->n_views; i++)
        if (streq(c->views[i].name, c->plan->name))
            return &c->views[i];
    return NULL;
}

static void on_inspected(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    c->serving.known = !err && reply->n_containers > 0;
    if (c->serving.known) {
        const EngineContainer *seen = &reply->containers[0];

        (void)snprintf(c->serving.id, sizeof(c->serving.id), "%s", seen->id);
        c->serving.running = engine_container_is_running(seen);
        c->serving.oom_killed = seen->oom_killed;
        c->serving.has_health_check = seen->has_health_check;
        c->serving.health = seen->health;
        c->serving.started_at = seen->started_usec;
        c->serving.finished_at = seen->finished_usec;
        c->serving.restarts = seen->restart_count;
        c->serving.memory_bytes = seen->memory_bytes;
        c->serving.exit_code = seen->exit_code;
    }
    c->inspect = engine_op_free(c->inspect);
    resource_changed(c->resource);
}

void container_look_at_serving(Container *c)
{
    auto_error Error err = {0};

    c->inspect = engine_op_free(c->inspect);
    if (engine_inspect_container(c->resource->context->engine, c->plan->name, on_inspected, c,
                                 &c->inspect, &err) < 0)
        c->serving.known = false;
}

/* --- Resuming -------------------------------------------------------------------------------- */

static void gone_while_running(Container *c)
{
    container_decide(c); /* somebody deleted it: its release is made anew */
}

/* Its secret files were on a ramfs that a reboot took. */
static int restore_secrets(Container *c, Error *err)
{
    auto_(release_freep) Release *release = NULL;
    auto_(plan_freep) Plan *older = NULL;
    const PlanContainer *plan = c->plan;
    int r;

    r = release_load(c->resource->context->db, c->plan->name, c->slot.current, &release, err);
    if (r <= 0)
        return r;
    if (release->generation != c->resource->context->generation &&
        release_plan(c->resource->context->db, release, &older, NULL) >= 0 &&
        plan_container(older, c->plan->name))
        plan = plan_container(older, c->plan->name);
    return container_publish_secrets(c, plan, release, err);
}

/* The engine heals a crash; after a boot, or when somebody stopped it, we start what served. */
static void keep_running(Container *c)
{
    const SlotContainer *view =
        c->slot.current ? slot_find(c->plan->name, c->slot.current, c->views, c->n_views) : NULL;
    auto_error Error err = {0};
    int r;

    if (!view || c->draining || c->resource->context->draining) {
        container_decide(c);
        return;
    }
    if (c->plan->mode == PLAN_MODE_JOB) {
        bool ended = c->slot.state == ROLLOUT_DONE || c->slot.state == ROLLOUT_FAILED;

        if (ended || view->running) {
            container_decide(c);
            return;
        }
    }
    if (!view->running) {
        r = restore_secrets(c, &err);
        if (r == -ENOENT) {
            error_done(&err);
            (void)error_set(&err, -EINPROGRESS, ERROR_TEMPORARY,
                            "waits for the values of its secret files before it is started");
            container_show(c, ROLLOUT_WAITING);
        }
        if (r < 0) {
            container_finish(c, &err);
            return;
        }
    }
    container_switch(c, SWITCH_RUN, false, container_decide, gone_while_running);
}

static bool machine_was_rebooted(const Container *c)
{
    char boot_id[BOOT_ID_SIZE];

    return boot_id_read(boot_id, NULL) < 0 || !streq_ptr(c->slot.boot_id, boot_id);
}

/* After the engine was looked at: go on where the record says we were. */
void container_resume(Container *c)
{
    auto_error Error err = {0};
    int r;

    container_look_at_serving(c);
    switch (c->slot.state) {
    case ROLLOUT_SWITCHING:
    case ROLLOUT_PROVING:
        r = c->slot.next ? container_load_want(c, c->slot.next, &err) : 0;
        if (r < 0) {
            container_finish(c, &err);
            return;
        }
        if (r > 0) {
            container_go_forward(c, machine_was_rebooted(c));
            return;
        }
        keep_running(c);
        return;
    case ROLLOUT_ROLLING_BACK:
        container_continue_back(c);
        return;
    case ROLLOUT_COMMITTED:
        if (!timer_is_set(c->settle_timer) &&
            usec_add(c->slot.committed_at, c->plan->update.settle_usec) <= now_realtime_usec() &&
            c->plan->mode == PLAN_MODE_SERVICE) {
            container_settle(c);
            return;
        }
        keep_running(c);
        return;
    case ROLLOUT_NEW:
    case ROLLOUT_RESOLVING:
    case ROLLOUT_PULLING:
    case ROLLOUT_STAGED:
    case ROLLOUT_SETTLED:
    case ROLLOUT_ROLLED_BACK:
    case ROLLOUT_FAILED:
    case ROLLOUT_WAITING:
    case ROLLOUT_DONE:
    case ROLLOUT_STATE_MAX:
        keep_running(c);
        return;
    }
}

static void restart_now(Container *c);

static void on_restart_stopped(EngineOp *op, const EngineReply *reply, const Error *err,
                               void *userdata)
{
    Container *c = userdata;
    auto_error Error copy = {0};

    c->op = engine_op_free(c->op);
    if (err) {
        (void)error_copy(&copy, err);
        container_finish(c, &copy);
        return;
    }
    container_observe(c, container_resume);
}

static void restart_now(Container *c)
{
    auto_error Error err = {0};

    c->restarting = false;
    if (engine_stop_container(c->resource->context->engine, c->plan->name,
                              c->plan->stop_timeout_usec, on_restart_stopped, c, &c->op, &err) < 0)
        container_finish(c, &err);
}

/* --- As a resource --------------------------------------------------------------------------- */

static void on_check_timer(void *userdata)
{
    container_look(userdata);
}

static void on_settle_timer(void *userdata)
{
    container_look(userdata);
}

static int declare_one(ResourceContext *context, const PlanContainer *plan, Error *err)
{
    auto_free char *fingerprint = NULL;
    Container *c = calloc(1, sizeof(*c));
    int r = -ENOMEM;

    if (!c)
        return error_oom(err);
    c->plan = plan;
    c->due = true;
    if (container_spec_canonical(context->plan, plan, &fingerprint) >= 0)
        r = resource_add(context, &resource_container, plan->name, fingerprint, true, c, err);
    else {
        free(c);
        return error_oom(err);
    }
    return r;
}

static int container_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    int r;

    PLAN_FOREACH (PlanContainer, container, plan->containers) {
        r = declare_one(context, container, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Everything that needs the resource around it comes on the first use. */
static int container_prepare(Resource *resource, Error *err)
{
    Container *c = container_of_resource(resource);
    uint64_t settle_at;
    int r;

    if (c->resource)
        return 0;
    r = slot_load(resource->context->db, resource->name, &c->slot, err);
    if (r < 0)
        return r;
    if (timer_new(resource->context->event, on_check_timer, resource, &c->check_timer) < 0 ||
        timer_new(resource->context->event, on_settle_timer, resource, &c->settle_timer) < 0)
        return error_oom(err);
    c->resource = resource;
    c->shown = c->slot.state;
    settle_at = usec_add(c->slot.committed_at, c->plan->update.settle_usec);
    if (c->slot.state == ROLLOUT_COMMITTED && settle_at > now_realtime_usec())
        (void)timer_set(c->settle_timer, settle_at - now_realtime_usec(), SECOND);
    return 0;
}

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
    if (resting && !c->due && !c->restarting && !c->forced)
        return 0;
    *ret_difference =
        c->slot.current
            ? str_printf("look whether %s still is what runs, and follow it", c->plan->image)
            : str_printf("pull and start %s", c->plan->image);
    return *ret_difference ? 1 : error_oom(err);
}

static void container_apply(Resource *resource)
{
    Container *c = container_of_resource(resource);

    assert(c->resource && !c->working);
    c->working = true;
    c->due = false;
    c->again = false;
    if (c->restarting)
        restart_now(c);
    else
        container_observe(c, container_resume);
}

static void container_cancel(Resource *resource)
{
    Container *c = container_of_resource(resource);

    cancel_operations(c);
    c->working = false;
}

static void forget_slot(Container *c)
{
    ResourceContext *context = c->resource->context;
    auto_error Error err = {0};

    (void)!secret_store_retire(context->secrets, c->plan->name, NULL, NULL);
    (void)!slot_delete(context->db, c->plan->name, &err);
    container_finish(c, err.code < 0 ? &err : NULL);
}

static void remove_all(Container *c)
{
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
    cancel_operations(c);
    c->working = true;
    c->leaving = true;
    c->n_views = 0;
    container_observe(c, remove_all);
}

static void container_release_memory(Resource *resource)
{
    Container *c = container_of_resource(resource);

    if (!c)
        return;
    cancel_operations(c);
    engine_op_free(c->inspect);
    engine_op_free(c->wait);
    timer_free(c->check_timer);
    timer_free(c->settle_timer);
    container_forget_want(c);
    release_free(c->forced);
    slot_done(&c->slot);
    free(c);
}

/* --- What it says of itself ------------------------------------------------------------------ */

static json_t *json_time(uint64_t usec)
{
    char text[TIME_RFC3339_MAX];

    return usec == 0 ? json_null() : json_string(time_format_rfc3339(text, (int64_t)usec));
}

static const char *const health_names[] = {
    [ENGINE_HEALTH_NONE] = "none",
    [ENGINE_HEALTH_STARTING] = "starting",
    [ENGINE_HEALTH_HEALTHY] = "healthy",
    [ENGINE_HEALTH_UNHEALTHY] = "unhealthy",
};

/* What was proved by http or by staying up is healthy although the engine has no opinion. */
static const char *health_text(const Container *c)
{
    if (!c->serving.known || !c->serving.running)
        return "none";
    if (c->serving.health != ENGINE_HEALTH_NONE)
        return health_names[c->serving.health];
    switch (c->slot.state) {
    case ROLLOUT_COMMITTED:
    case ROLLOUT_SETTLED:
    case ROLLOUT_ROLLED_BACK:
        return "healthy";
    case ROLLOUT_PROVING:
    case ROLLOUT_SWITCHING:
        return "starting";
    case ROLLOUT_FAILED:
        return "unhealthy";
    default:
        return "none";
    }
}

static json_t *describe_progress(const Container *c)
{
    if (!c->pulling)
        return json_null();
    return json_pack("{s:s, s:I, s:o}", "phase", c->progress.extracting ? "extracting" : "pulling",
                     "done_bytes", (json_int_t)c->progress.current_bytes, "total_bytes",
                     c->pull_total ? json_integer((json_int_t)c->pull_total) : json_null());
}

static int describe_release(const Container *c, json_t *item)
{
    Db *db = c->resource->context->db;
    auto_(release_freep) Release *current = NULL, *previous = NULL;
    json_t *quarantined = NULL;

    if (c->slot.current)
        (void)!release_load(db, c->plan->name, c->slot.current, &current, NULL);
    if (c->slot.current)
        (void)!release_previous(db, c->plan->name, c->slot.current, &previous, NULL);
    if (release_list_quarantined(db, c->plan->name, &quarantined, NULL) < 0)
        quarantined = json_array();
    if (json_put(item, "digest", current ? json_string(current->digest) : json_null()) < 0 ||
        json_put(item, "release", current ? json_string(current->id) : json_null()) < 0 ||
        json_put(item, "previous_digest", previous ? json_string(previous->digest) : json_null()) <
            0 ||
        json_put(item, "held_digest",
                 c->slot.held_digest ? json_string(c->slot.held_digest) : json_null()) < 0) {
        json_decref(quarantined);
        return -ENOMEM;
    }
    return json_put(item, "quarantined", quarantined);
}

static json_t *json_text_or_null(const char *s)
{
    return s ? json_string(s) : json_null();
}

static json_t *container_describe(const Resource *resource)
{
    const Container *c = container_of_resource(resource);
    bool ended = c->plan->mode == PLAN_MODE_JOB && c->slot.exit_status >= 0;
    bool wrong = resource->error.code < 0 && resource->error.code != -EINPROGRESS;
    json_auto_t *item = json_object();

    if (!item || json_put(item, "name", json_string(resource->name)) < 0 ||
        json_put(item, "mode", json_string(plan_mode_names[c->plan->mode])) < 0 ||
        json_put(item, "image", json_string(c->plan->image)) < 0 || describe_release(c, item) < 0 ||
        json_put(item, "state", json_string(rollout_state_name(c->shown))) < 0 ||
        json_put(item, "running", json_boolean(c->serving.known && c->serving.running)) < 0 ||
        json_put(item, "health", json_string(health_text(c))) < 0 ||
        json_put(item, "since",
                 json_time(c->serving.known && c->serving.running ? c->serving.started_at
                                                                  : c->slot.state_at)) < 0 ||
        json_put(item, "restarts", json_integer((json_int_t)c->serving.restarts)) < 0 ||
        json_put(item, "exit_status", ended ? json_integer(c->slot.exit_status) : json_null()) <
            0 ||
        json_put(item, "memory_bytes",
                 c->serving.memory_bytes ? json_integer((json_int_t)c->serving.memory_bytes)
                                         : json_null()) < 0 ||
        json_put(item, "downtime_usec",
                 c->slot.downtime_usec == UINT64_MAX
                     ? json_null()
                     : json_integer((json_int_t)c->slot.downtime_usec)) < 0 ||
        json_put(item, "progress", describe_progress(c)) < 0 ||
        json_put(item, "message", json_text_or_null(wrong ? error_text(&resource->error) : NULL)) <
            0 ||
        json_put(item, "remedy", json_text_or_null(wrong ? resource->error.remedy : NULL)) < 0)
        return NULL;
    return take_ptr(item);
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
    .free = container_release_memory,
};

/* --- Events and verbs ------------------------------------------------------------------------ */

void container_look(Resource *resource)
{
    Container *c = container_of_resource(resource);

    c->due = true;
    if (c->working)
        c->again = true;
    else
        resource_wants_attention(resource);
}

/* A committed release that keeps dying, or whose own check fails, is bad after all: the release
 * before it is still here. */
static bool has_turned_bad(Container *c, const EngineEvent *event, char **ret_reason)
{
    if (c->slot.state != ROLLOUT_COMMITTED || !c->slot.previous || c->working ||
        c->plan->mode != PLAN_MODE_SERVICE)
        return false;
    if (event->kind == ENGINE_EVENT_DIE)
        c->deaths++;
    if (c->deaths >= CONTAINER_CRASH_LOOP_DEATHS)
        *ret_reason = str_printf(
            "crash loop: it ended %u times within %ju s of its rollout, last with "
            "exit status %d",
            c->deaths, (uintmax_t)(c->plan->update.settle_usec / SECOND), event->exit_code);
    else if (event->kind == ENGINE_EVENT_UNHEALTHY)
        *ret_reason = strdup("its HEALTHCHECK turned unhealthy after the rollout");
    return *ret_reason != NULL;
}

/* What serves becomes what is taken out, and the release before it what serves. */
static void turn_back(Container *c, const char *reason)
{
    auto_error Error err = {0};
    int r;

    c->working = true;
    free(c->slot.next);
    c->slot.next = take_ptr(c->slot.current);
    c->slot.current = take_ptr(c->slot.previous);
    timer_cancel(c->settle_timer);
    r = container_load_want(c, c->slot.next, &err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    c->observed = NULL;
    {
        auto_free char *why = strdup(reason);
        auto_(release_freep) Release *good = NULL;

        (void)!release_load(c->resource->context->db, c->plan->name, c->slot.current, &good, NULL);
        r = release_quarantine(c->resource->context->db, c->plan->name, c->slot.next,
                               good && c->want && !streq(good->digest, c->want->digest),
                               why ? why : "it failed", &err);
        if (r < 0) {
            container_finish(c, &err);
            return;
        }
    }
    if (container_enter(c, ROLLOUT_ROLLING_BACK) >= 0)
        container_observe(c, container_continue_back);
}

void container_on_engine_event(Resource *resource, const EngineEvent *event)
{
    Container *c = container_of_resource(resource);
    auto_free char *reason = NULL;

    if (!c->resource)
        return;
    if (c->probe)
        health_probe_look(c->probe);
    if (has_turned_bad(c, event, &reason)) {
        resource->state = RESOURCE_APPLYING;
        turn_back(c, reason);
        return;
    }
    switch (event->kind) {
    case ENGINE_EVENT_DIE:
    case ENGINE_EVENT_DESTROY:
        if (!c->working && !c->draining)
            container_look(resource);
        break;
    case ENGINE_EVENT_CREATE:
    case ENGINE_EVENT_START:
    case ENGINE_EVENT_OOM:
    case ENGINE_EVENT_HEALTHY:
    case ENGINE_EVENT_UNHEALTHY:
    case ENGINE_EVENT_RENAME:
    case ENGINE_EVENT_OTHER:
        break;
    }
    if (!c->working)
        container_look_at_serving(c);
}

static int refuse_when_busy(const Container *c, Error *err)
{
    if (c->working)
        return error_set(err, -EBUSY, ERROR_TEMPORARY,
                         "container %s is at work (%s); try again when it is done", c->plan->name,
                         rollout_state_name(c->shown));
    return 0;
}

int container_restart(Resource *resource, Error *err)
{
    Container *c = container_of_resource(resource);
    int r;

    r = container_prepare(resource, err);
    if (r >= 0)
        r = refuse_when_busy(c, err);
    if (r < 0)
        return r;
    if (!c->slot.current)
        return error_set(err, -ENOENT, ERROR_INVALID, "container %s has no release that ran yet",
                         resource->name);
    c->restarting = true;
    resource_wants_attention(resource);
    return 1;
}

int container_rollback(Resource *resource, Error *err)
{
    Container *c = container_of_resource(resource);
    auto_(release_freep) Release *previous = NULL;
    Db *db = resource->context->db;
    int r;

    r = container_prepare(resource, err);
    if (r >= 0)
        r = refuse_when_busy(c, err);
    if (r < 0)
        return r;
    r = c->slot.current ? release_previous(db, resource->name, c->slot.current, &previous, err) : 0;
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, -ENOENT, ERROR_INVALID,
                         "container %s has no earlier release that was proved", resource->name);
    r = release_quarantine(db, resource->name, c->slot.current, false, "rolled back by hand", err);
    if (r < 0)
        return r;
    release_free(c->forced);
    c->forced = take_ptr(previous);
    container_look(resource);
    return 1;
}

int container_retry(Resource *resource, Error *err)
{
    Container *c = container_of_resource(resource);
    int r;

    r = container_prepare(resource, err);
    if (r < 0)
        return r;
    r = release_unquarantine(resource->context->db, resource->name, err);
    if (r < 0)
        return r;
    if (c->plan->mode == PLAN_MODE_JOB && c->slot.state == ROLLOUT_FAILED) {
        c->slot.tries = 0;
        c->slot.exit_status = -1;
        c->slot.state = ROLLOUT_SETTLED;
    }
    container_look(resource);
    return r;
}

void container_approve(Resource *resource)
{
    Container *c = container_of_resource(resource);

    if (c->resource) {
        c->approved = true;
        container_look(resource);
    }
}

bool container_is_ready(const Resource *resource)
{
    const Container *c = container_of_resource(resource);

    if (c->plan->mode == PLAN_MODE_JOB)
        return true;
    return c->serving.known && c->serving.running && !c->draining &&
           c->serving.health != ENGINE_HEALTH_UNHEALTHY &&
           (c->slot.state == ROLLOUT_COMMITTED || c->slot.state == ROLLOUT_SETTLED ||
            c->slot.state == ROLLOUT_ROLLED_BACK ||
            (c->slot.current && c->slot.state != ROLLOUT_FAILED));
}

/* --- Going down ------------------------------------------------------------------------------ */

static void on_drained(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    c->op = engine_op_free(c->op);
    c->drained = true;
    resource_changed(c->resource);
}

void container_drain(Resource *resource, uint64_t budget_usec)
{
    Container *c = container_of_resource(resource);
    auto_error Error err = {0};

    if (c->draining)
        return;
    c->draining = true;
    if (container_prepare(resource, &err) < 0) {
        c->drained = true;
        return;
    }
    cancel_operations(c);
    c->working = false;
    timer_cancel(c->check_timer);
    timer_cancel(c->settle_timer);
    if (engine_stop_container(resource->context->engine, resource->name,
                              MIN_OF(c->plan->stop_timeout_usec, budget_usec), on_drained, c,
                              &c->op, &err) < 0) {
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "it is left to the engine to stop it");
        c->drained = true;
    }
}

bool container_is_drained(const Resource *resource)
{
    return container_of_resource(resource)->drained;
}
