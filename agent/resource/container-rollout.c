/* SPDX-License-Identifier: Apache-2.0 */
/* Getting from one release to the next. Every function below either begins one operation whose
 * handler goes on, or ends in container_finish(); the state is recorded before the step that it
 * announces. */
#include <assert.h>
#include <errno.h>

#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/resource/container-internal.h"

/* Layers are kept compressed while they come in, and unpacked beside that. */
#define DISK_FACTOR 3

/* --- What is there ------------------------------------------------------------------------- */

static void take_view(Container *c, const EngineContainer *seen)
{
    const char *release = engine_container_label(seen, LABEL_RELEASE);
    SlotContainer *view;

    if (c->n_views == SLOT_CONTAINERS_MAX)
        return; /* the rest is seen when these are gone */
    view = &c->views[c->n_views++];
    *view = (SlotContainer){.running = engine_container_is_running(seen),
                            .never_started = seen->state == ENGINE_STATE_CREATED};
    (void)snprintf(view->id, sizeof(view->id), "%s", seen->id);
    (void)snprintf(view->name, sizeof(view->name), "%s", seen->name);
    (void)snprintf(view->release, sizeof(view->release), "%s", release ? release : "");
}

static void on_observed(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    ContainerStep then = c->observed;

    c->op = engine_op_free(c->op);
    if (err) {
        auto_error Error copy = {0};

        (void)error_copy(&copy, err);
        container_finish(c, &copy);
        return;
    }
    c->n_views = 0;
    for (size_t i = 0; i < reply->n_containers; i++)
        take_view(c, &reply->containers[i]);
    then(c);
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

/* --- One step after the other --------------------------------------------------------------- */

static void switch_step(Container *c);

static void on_step(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    c->op = engine_op_free(c->op);
    if (err) {
        auto_error Error copy = {0};

        (void)error_copy(&copy, err);
        /* A step that a person must look at ends the attempt where that is possible; weather is
         * waited out. */
        if (!error_is_transient(&copy) && copy.kind != ERROR_INTERNAL &&
            c->goal.goal != SWITCH_BACK && c->slot.state == ROLLOUT_SWITCHING) {
            container_go_back(c, error_text(&copy));
            return;
        }
        container_finish(c, &copy);
        return;
    }
    /* What the engine did is looked at, not assumed: a container may have died meanwhile. */
    container_observe(c, switch_step);
}

static int begin_step(Container *c, const SwitchStep *step, Error *err)
{
    Engine *engine = c->resource->context->engine;

    switch (step->verb) {
    case SWITCH_CREATE:
        return container_create(c, step->new_name, on_step, err);
    case SWITCH_START:
        c->last_start = now_boottime_usec();
        return engine_start_container(engine, step->target->id, on_step, c, &c->op, err);
    case SWITCH_STOP:
        if (c->stop_began == 0 && streq_ptr(c->slot.current, step->target->release))
            c->stop_began = now_boottime_usec();
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

    if (step.verb == SWITCH_DONE) {
        c->goal_reached(c);
        return;
    }
    if (step.verb == SWITCH_LOST) {
        c->goal_lost(c);
        return;
    }
    if (begin_step(c, &step, &err) < 0) {
        (void)error_prefix(&err, err.code, "%s", switch_verb_name(step.verb));
        container_finish(c, &err);
    }
}

void container_switch(Container *c, SwitchGoal goal, bool start_again, ContainerStep reached,
                      ContainerStep lost)
{
    c->goal = (SwitchQuery){.goal = goal,
                            .name = c->plan->name,
                            .current = c->slot.current,
                            .next = c->slot.next,
                            .start_again = start_again};
    c->goal_reached = reached;
    c->goal_lost = lost;
    switch_step(c);
}

/* --- staged ---------------------------------------------------------------------------------- */

static void cannot_be(Container *c)
{
    container_fail(c, -ENOENT, ERROR_TEMPORARY,
                   "a container that was there is gone; looking again");
}

static void on_staged(Container *c)
{
    container_go_forward(c, /* start_again= */ false);
}

static void stage(Container *c)
{
    if (container_enter(c, ROLLOUT_STAGED) < 0)
        return;
    container_switch(c, SWITCH_PREPARE, false, on_staged, cannot_be);
}

/* An image whose own ENV sets a name that the plan gives as a secret: a secret may be baked into
 * it. */
static void look_for_baked_secrets(Container *c, const EngineImage *image)
{
    const PlanContainer *plan = container_want_plan(c, NULL);

    PLAN_FOREACH (PlanEnv, env, plan->env) {
        if (!env->value.secret)
            continue;
        for (size_t i = 0; image->env && image->env[i]; i++) {
            const char *rest = startswith(image->env[i], env->name);

            if (!rest || *rest != '=')
                continue;
            resource_event(
                c->resource, LOG_LEVEL_WARNING, "secret-baked", NULL,
                "the image sets %s itself, which the plan gives as secret %s: a secret may be "
                "baked into the image; build it without that ENV and rotate the secret",
                env->name, env->value.secret);
        }
    }
}

/* --- pulling --------------------------------------------------------------------------------- */

static void on_image(Container *c, const EngineReply *reply)
{
    c->pulling = false;
    if (reply->n_images > 0)
        look_for_baked_secrets(c, &reply->images[0]);
    stage(c);
}

static void on_pulled(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    c->op = engine_op_free(c->op);
    c->pulling = false;
    if (err) {
        auto_error Error copy = {0};

        (void)error_copy(&copy, err);
        (void)error_prefix(&copy, copy.code, "pull");
        container_finish(c, &copy);
        return;
    }
    on_image(c, reply);
}

static void on_pull_progress(EngineOp *op, const EnginePullProgress *progress, void *userdata)
{
    Container *c = userdata;

    c->progress = *progress;
    resource_changed(c->resource);
}

static void pull(Container *c, const char *user, const char *password)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_error Error err = {0};
    int r;

    r = reference_parse(c->want->image, &reference, &err);
    if (r >= 0) {
        EnginePull request = {.reference = reference,
                              .digest = c->want->digest,
                              .username = user,
                              .password = password,
                              .on_progress = on_pull_progress};

        c->progress = (EnginePullProgress){0};
        c->pulling = true;
        r = engine_pull(c->resource->context->engine, &request, on_pulled, c, &c->op, &err);
    }
    if (r < 0)
        container_finish(c, &err);
}

static void on_pull_login(const char *user, const char *password, const Error *err, void *userdata)
{
    Container *c = userdata;

    c->login = cloud_op_free(c->login);
    if (err) {
        auto_error Error copy = {0};

        (void)error_copy(&copy, err);
        container_finish(c, &copy);
        return;
    }
    pull(c, user, password);
}

/* A login a pull, never kept: a cached one is what stops working after an hour. */
static void login_and_pull(Container *c)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_error Error err = {0};
    int r;

    r = reference_parse(c->want->image, &reference, &err);
    if (r >= 0 && !cloud_login_applies(c->resource->context->cloud, reference->host)) {
        pull(c, NULL, NULL);
        return;
    }
    if (r >= 0)
        r = cloud_login_get(c->resource->context->cloud, reference->host, on_pull_login, c,
                            &c->login, &err);
    if (r < 0)
        container_finish(c, &err);
}

static void on_disk_known(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    char needed[PARSE_TEXT_MAX], left[PARSE_TEXT_MAX];
    uint64_t free_bytes;

    c->op = engine_op_free(c->op);
    if (err) {
        auto_error Error copy = {0};

        (void)error_copy(&copy, err);
        container_finish(c, &copy);
        return;
    }
    if (path_free_bytes(reply->info->root_dir, &free_bytes) >= 0 &&
        free_bytes < c->pull_total * DISK_FACTOR) {
        auto_error Error full = {0};

        (void)error_set(&full, -ENOSPC, ERROR_TEMPORARY,
                        "%s needs about %s under %s, and %s are free; nothing was pulled",
                        c->want->image, format_size_human(needed, c->pull_total * DISK_FACTOR),
                        reply->info->root_dir, format_size_human(left, free_bytes));
        (void)error_remedy(&full, full.code, "sudo agentctl cleanup, or a larger boot disk");
        container_finish(c, &full);
        return;
    }
    login_and_pull(c);
}

static void on_local_image(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    auto_error Error failure = {0};
    int r;

    c->op = engine_op_free(c->op);
    if (!err) {
        on_image(c, reply); /* that very digest is here: nothing to pull */
        return;
    }
    if (err->code != -ENOENT) {
        (void)error_copy(&failure, err);
        container_finish(c, &failure);
        return;
    }
    r = engine_info(c->resource->context->engine, on_disk_known, c, &c->op, &failure);
    if (r < 0)
        container_finish(c, &failure);
}

/* c->want is chosen: fetch its image, stage it, switch to it. */
void container_bring_in(Container *c)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_free char *name = NULL;
    auto_error Error err = {0};
    int r;

    r = release_store(c->resource->context->db, c->want, &err);
    if (r >= 0 && str_set(&c->slot.next, c->want->id) < 0)
        r = error_oom(&err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    c->stop_began = 0;
    if (container_enter(c, ROLLOUT_PULLING) < 0)
        return;
    r = reference_parse(c->want->image, &reference, &err);
    name = r < 0 ? NULL : reference_by_digest(reference, c->want->digest);
    if (r >= 0 && !name)
        r = error_oom(&err);
    if (r >= 0)
        r = engine_inspect_image(c->resource->context->engine, name, on_local_image, c, &c->op,
                                 &err);
    if (r < 0)
        container_finish(c, &err);
}

/* --- proving --------------------------------------------------------------------------------- */

static void commit(Container *c)
{
    ResourceContext *context = c->resource->context;
    bool first = !c->slot.current;
    auto_error Error err = {0};
    int r;

    r = release_prove(context->db, c->plan->name, c->slot.next, &err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    if (!streq_ptr(c->slot.current, c->slot.next)) {
        free(c->slot.previous);
        c->slot.previous = take_ptr(c->slot.current);
        c->slot.current = take_ptr(c->slot.next);
    } else
        forget(&c->slot.next);
    c->slot.committed_at = now_realtime_usec();
    c->deaths = 0;
    if (container_enter(c, ROLLOUT_COMMITTED) < 0)
        return;
    resource_event(c->resource, LOG_LEVEL_NOTICE, first ? "container-started" : "rolled-out",
                   FIELDS("MERVIS_STATE=committed"), "%s %.19s of %s runs and is healthy",
                   first ? "digest" : "rolled out, digest", c->want ? c->want->digest : "",
                   c->plan->image);
    (void)timer_set(c->settle_timer, c->plan->update.settle_usec, SECOND);
    container_forget_want(c);
    container_look_at_serving(c);
    container_finish(c, NULL);
}

static void measure_downtime(Container *c, uint64_t until_healthy_usec)
{
    c->slot.downtime_usec = c->stop_began == 0 || c->plan->update.order == PLAN_START_FIRST
                                ? 0
                                : c->last_start - c->stop_began + until_healthy_usec;
}

static void on_verdict(HealthProbe *probe, const HealthVerdict *verdict, void *userdata)
{
    Container *c = userdata;

    if (!verdict->healthy) {
        auto_free char *reason = strdup(verdict->reason ? verdict->reason : "not healthy");

        c->probe = health_probe_free(c->probe);
        container_go_back(c, reason ? reason : "not healthy");
        return;
    }
    if (c->slot.current)
        measure_downtime(c, verdict->elapsed_usec);
    c->probe = health_probe_free(c->probe);
    /* start-first: the new one is well beside the old one; now names and traffic change hands. */
    container_switch(c, SWITCH_FORWARD, false, commit, cannot_be);
}

static HealthKind health_kind(const Container *c, const PlanContainer *plan)
{
    if (plan->health.http)
        return HEALTH_HTTP;
    return c->serving.has_health_check ? HEALTH_ENGINE : HEALTH_STABILITY;
}

static void start_probe(Container *c)
{
    const PlanContainer *plan = container_want_plan(c, NULL);
    const SlotContainer *view = slot_find(c->plan->name, c->slot.next, c->views, c->n_views);
    auto_error Error err = {0};
    HealthSpec spec;
    int r;

    if (!view) {
        cannot_be(c);
        return;
    }
    spec = (HealthSpec){.kind = health_kind(c, plan),
                        .container = view->id,
                        .url = plan->health.http,
                        .interval_usec = plan->health.interval_usec,
                        .timeout_usec = plan->health.timeout_usec,
                        .retries = (unsigned)plan->health.retries,
                        .start_period_usec = plan->health.start_period_usec,
                        .stable_usec = plan->health.http ? 0 : plan->health.stable_usec};
    if (spec.kind == HEALTH_ENGINE)
        spec.stable_usec = 0;
    c->probe = health_probe_free(c->probe);
    r = health_probe_start(c->resource->context->engine, c->resource->context->http,
                           c->resource->context->event, &spec, on_verdict, c, &c->probe, &err);
    if (r < 0)
        container_finish(c, &err);
}

static void on_proved_one_inspected(EngineOp *op, const EngineReply *reply, const Error *err,
                                    void *userdata)
{
    Container *c = userdata;

    c->op = engine_op_free(c->op);
    if (err) {
        auto_error Error copy = {0};

        (void)error_copy(&copy, err);
        container_finish(c, &copy);
        return;
    }
    c->serving.has_health_check = reply->n_containers > 0 && reply->containers[0].has_health_check;
    start_probe(c);
}

static void job_started(Container *c)
{
    commit(c); /* its end is the verdict: container_watch_job() */
}

static void prove(Container *c)
{
    const SlotContainer *view = slot_find(c->plan->name, c->slot.next, c->views, c->n_views);
    auto_error Error err = {0};
    int r;

    if (container_enter(c, ROLLOUT_PROVING) < 0)
        return;
    if (c->plan->mode == PLAN_MODE_JOB) {
        job_started(c);
        return;
    }
    if (!view) {
        cannot_be(c);
        return;
    }
    r = engine_inspect_container(c->resource->context->engine, view->id, on_proved_one_inspected, c,
                                 &c->op, &err);
    if (r < 0)
        container_finish(c, &err);
}

/* What was prepared is gone (somebody deleted it): back if there is a way, else from the start. */
static void next_is_lost(Container *c)
{
    if (c->slot.current && !streq_ptr(c->slot.current, c->slot.next)) {
        if (container_enter(c, ROLLOUT_ROLLING_BACK) >= 0)
            container_continue_back(c);
        return;
    }
    cannot_be(c);
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

void container_prove_again(Container *c)
{
    container_go_forward(c, /* start_again= */ true);
}

/* --- rolling back ---------------------------------------------------------------------------- */

static void went_back(Container *c)
{
    auto_(release_freep) Release *bad = NULL;
    auto_error Error err = {0};

    (void)!release_load(c->resource->context->db, c->plan->name, c->slot.next ? c->slot.next : "",
                        &bad, NULL);
    forget(&c->slot.next);
    container_forget_want(c);
    if (container_enter(c, ROLLOUT_ROLLED_BACK) < 0)
        return;
    (void)error_set(&err, -ECANCELED, ERROR_INVALID, "release %s (%.19s) was rolled back: %s",
                    bad ? bad->id : "?", bad ? bad->digest : "?",
                    bad && bad->reason ? bad->reason : "it failed");
    (void)error_remedy(&err, err.code,
                       "push a corrected image (or secret, or plan), or try it again: "
                       "sudo agentctl retry %s",
                       c->plan->name);
    resource_event(c->resource, LOG_LEVEL_ERROR, "rolled-back", FIELDS("MERVIS_STATE=rolled-back"),
                   "%s", error_text(&err));
    container_look_at_serving(c);
    container_finish(c, &err);
}

static void nothing_to_go_back_to(Container *c)
{
    forget(&c->slot.current);
    if (container_enter(c, ROLLOUT_FAILED) < 0)
        return;
    container_fail(c, -ECANCELED, ERROR_TEMPORARY,
                   "the release before it no longer has a container; nothing serves");
}

void container_continue_back(Container *c)
{
    container_switch(c, SWITCH_BACK, false, went_back, nothing_to_go_back_to);
}

/* The release in slot.next is not good. */
void container_go_back(Container *c, const char *reason)
{
    ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *good = NULL;
    bool can = c->slot.current && !streq_ptr(c->slot.current, c->slot.next);
    const char *digest = c->want ? c->want->digest : "";
    auto_error Error err = {0};
    int r = 0;

    if (!can || c->plan->update.on_failure == PLAN_CURE_KEEP) {
        if (container_enter(c, ROLLOUT_FAILED) < 0)
            return;
        (void)error_set(&err, -ECANCELED, ERROR_TEMPORARY, "%s; %s", reason,
                        can ? "it is left as it is, as update.on_failure says"
                            : "there is no earlier release to go back to");
        (void)error_remedy(&err, err.code, "agentctl logs %s", c->plan->name);
        resource_event(c->resource, LOG_LEVEL_ERROR, "release-failed",
                       FIELDS("MERVIS_STATE=failed"), "%s", error_text(&err));
        container_look_at_serving(c);
        container_finish(c, &err);
        return;
    }

    /* A bad key must not condemn the image that runs well with the former one. */
    r = release_load(context->db, c->plan->name, c->slot.current, &good, &err);
    if (r >= 0)
        r = release_quarantine(context->db, c->plan->name, c->slot.next,
                               good && !streq(good->digest, digest), reason, &err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    if (container_enter(c, ROLLOUT_ROLLING_BACK) >= 0)
        container_continue_back(c);
}

/* --- settling, and the job's end ------------------------------------------------------------- */

static void settled(Container *c)
{
    auto_error Error err = {0};

    if (c->slot.previous)
        (void)!secret_store_retire(c->resource->context->secrets, c->plan->name, c->slot.previous,
                                   NULL);
    forget(&c->slot.next);
    if (container_enter(c, ROLLOUT_SETTLED) < 0)
        return;
    if (release_trim(c->resource->context->db, c->plan->name, c->slot.current, NULL,
                     (unsigned)c->resource->context->plan->images.keep_previous + 1, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "old releases stay listed");
    container_finish(c, NULL);
}

/* The settle time is over: the old container goes. */
void container_settle(Container *c)
{
    if (str_set(&c->slot.next, c->slot.current) < 0) {
        container_fail(c, -ENOMEM, ERROR_INTERNAL, "out of memory");
        return;
    }
    container_switch(c, SWITCH_SETTLE, false, settled, cannot_be);
}

static void job_ended(Container *c, int exit_code)
{
    c->slot.exit_status = exit_code;
    if (exit_code == 0) {
        if (container_enter(c, ROLLOUT_DONE) < 0)
            return;
        resource_event(c->resource, LOG_LEVEL_NOTICE, "job-done", NULL, "ended well");
        if (c->plan->on_success == PLAN_ON_SUCCESS_POWEROFF)
            c->resource->context->host->poweroff("its job is done",
                                                 c->resource->context->host_userdata);
        resource_changed(c->resource);
        return;
    }
    c->slot.tries++;
    if (container_enter(c, c->slot.tries > c->plan->retries ? ROLLOUT_FAILED : c->slot.state) < 0)
        return;
    resource_event(c->resource, LOG_LEVEL_WARNING, "job-failed", NULL,
                   "ended with exit status %d (run %ju of %ju)", exit_code,
                   (uintmax_t)c->slot.tries, (uintmax_t)c->plan->retries + 1);
    resource_wants_attention(c->resource);
}

static void on_job_end(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    c->wait = engine_op_free(c->wait);
    if (err) /* the engine went away: it will be asked again when it is back */
        return;
    job_ended(c, reply->exit_code);
}

void container_watch_job(Container *c)
{
    const SlotContainer *view = container_serving_view(c);
    auto_error Error err = {0};

    if (c->wait || !view || c->slot.state == ROLLOUT_DONE)
        return;
    if (engine_wait_container(c->resource->context->engine, view->id, on_job_end, c, &c->wait,
                              &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "the job's end will be seen later");
}
