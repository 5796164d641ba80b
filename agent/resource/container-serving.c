/* SPDX-License-Identifier: Apache-2.0 */
/* What serves: as the engine shows it, and whether it is ready for those who ask. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/resource/container-internal.h"

EngineHealth container_engine_health(const Container *c)
{
    return c->plan->health.http ? ENGINE_HEALTH_NONE : c->serving.health;
}

/* After the rollout, too, a release may show itself as bad; while agentd was away nobody saw it. */
static void look_for_complaints(Container *c)
{
    if (!container_is_watched(c) || c->complaint)
        return;
    c->slot.deaths = MAX_OF(c->slot.deaths, c->serving.restarts);
    if (container_engine_health(c) == ENGINE_HEALTH_UNHEALTHY)
        c->complaint = strdup("its HEALTHCHECK turned unhealthy after the rollout");
    if (c->complaint || c->slot.deaths >= CONTAINER_CRASH_LOOP_DEATHS)
        container_look(c->resource);
}

bool container_is_switching(const Container *c)
{
    return c->slot.state == ROLLOUT_SWITCHING || c->slot.state == ROLLOUT_PROVING ||
           c->slot.state == ROLLOUT_ROLLING_BACK;
}

static Serving serving_of(const EngineContainer *seen)
{
    const char *release = engine_container_label(seen, LABEL_RELEASE);
    Serving serving = {.known = true,
                       .running = engine_container_is_running(seen),
                       .health = seen->health,
                       .started_at = seen->started_usec,
                       .restarts = seen->restart_count,
                       .memory_bytes = seen->memory_bytes};

    (void)snprintf(serving.id, sizeof(serving.id), "%s", seen->id);
    (void)snprintf(serving.release, sizeof(serving.release), "%s", release ? release : "");
    return serving;
}

/* Not yet, or no more: what is being proved, and what is given up. */
static bool is_in_office(const Container *c)
{
    if (!container_is_switching(c) || c->serving.proved)
        return true;
    return container_has_way_back(c) && streq(c->serving.release, c->slot.current);
}

/* --- Its answer ------------------------------------------------------------------------------- */

static void on_answered(HealthProbe *probe, const HealthVerdict *verdict, void *userdata)
{
    Container *c = userdata;
    bool well = verdict->healthy;

    (void)!str_set(&c->silence, well ? NULL : verdict->reason);
    c->answer = health_probe_free(c->answer);
    if (!well) {
        container_look_at_serving(c); /* as long as it runs it is asked again */
        return;
    }
    c->well_start = c->answer_start;
    c->serving.unanswered = false;
    if (c->answers_badly)
        container_look(c->resource); /* says that this is over */
    c->answers_badly = false;
    resource_changed(c->resource);
}

void container_explain_silence(const Container *c, Error *err)
{
    if (!c->serving.unanswered || !c->answers_badly || !c->silence)
        return;
    (void)error_set(err, -EHOSTDOWN, ERROR_TEMPORARY,
                    "it runs, and is not well since it was started: %s", c->silence);
    (void)error_remedy(err, err->code, "agentctl logs %s", c->plan->name);
}

/* How the plan that describes what serves wants it to be asked; *ret_older: that plan, where it is
 * another than the one in force. Health is no part of a release: where the one in force would make
 * the same, its word counts. */
static const PlanHealth *health_of_serving(const Container *c, Plan **ret_older)
{
    const ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *release = NULL;
    const PlanContainer *item = NULL;

    if (release_load(context->db, c->plan->name, c->slot.current, &release, NULL) > 0 &&
        container_outdates(c, release, NULL) > 0 &&
        release_plan(context->db, release, ret_older, NULL) >= 0)
        item = plan_container(*ret_older, c->plan->name);
    return item ? &item->health : &c->plan->health;
}

static int ask_it(Container *c, const PlanHealth *health, Error *err)
{
    const ResourceContext *context = c->resource->context;
    const HealthSpec spec = {
        .kind = HEALTH_HTTP,
        .container = c->serving.id,
        .url = health->http,
        .interval_usec = health->interval_usec,
        .timeout_usec = health->timeout_usec,
        .retries = (unsigned)health->retries,
        .start_period_usec = health->start_period_usec,
    };

    return health_probe_start(context->engine, context->http, context->event, &spec, on_answered, c,
                              &c->answer, err);
}

/* What is asked is of that start, and not of one before. */
static void note_start(Container *c)
{
    if (c->answer_start == c->serving.started_at)
        return;
    c->answer = health_probe_free(c->answer);
    c->answer_start = c->serving.started_at;
    c->answers_badly = false;
    forget(&c->silence);
}

/* After a boot, a crash or a way back it runs before it can serve: it is asked as it was in its
 * rollout, and as long as it takes; what it fails to answer in the time that the plan gives it is
 * told. One with a HEALTHCHECK is asked by the engine. */
static void look_for_an_answer(Container *c)
{
    auto_(plan_freep) Plan *older = NULL;
    const PlanHealth *health;
    auto_error Error err = {0};

    if (!c->serving.running || c->plan->mode != PLAN_MODE_SERVICE || c->draining ||
        !c->slot.current || c->slot.state == ROLLOUT_FAILED || !is_in_office(c) ||
        c->serving.started_at == c->well_start)
        return;
    note_start(c);
    c->serving.unanswered = true;
    if (c->answer)
        return;
    if (c->silence && !c->answers_badly) {
        c->answers_badly = true;
        container_look(c->resource); /* says so */
    }
    health = health_of_serving(c, &older);
    if (!health->http) {
        c->well_start = c->serving.started_at;
        c->serving.unanswered = false;
    } else if (ask_it(c, health, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "it is asked at the next look");
}

static void on_inspected(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    bool is_known = !err || err->code == -ENOENT;

    c->serving = (Serving){0};
    if (!err)
        c->serving = serving_of(&reply->containers[0]);
    c->inspect = engine_op_free(c->inspect);
    look_for_an_answer(c);
    look_for_complaints(c);
    /* The engine tells of an end before its list shows it; inspect waits for that. */
    if (c->may_have_ended && is_known && !c->serving.running && !c->draining)
        container_look(c->resource);
    c->may_have_ended = false;
    resource_changed(c->resource);
}

/* What is to be replaced, while it runs; NULL. */
static const SlotContainer *old_one(const Container *c)
{
    const SlotContainer *old =
        container_has_way_back(c) ? container_view(c, c->slot.current) : NULL;

    return old && old->running ? old : NULL;
}

/* Names change hands before the stop and the start: until then the one that has it does not run;
 * and beside the old one it is not proved. */
static const char *what_serves(const Container *c)
{
    const SlotContainer *old = NULL;

    if (c->slot.state == ROLLOUT_SWITCHING || c->slot.state == ROLLOUT_PROVING)
        old = old_one(c);
    return old ? old->id : c->plan->name;
}

void container_look_at_serving(Container *c)
{
    auto_error Error err = {0};

    c->inspect = engine_op_free(c->inspect);
    if (engine_inspect_container(c->resource->context->engine, what_serves(c), on_inspected, c,
                                 &c->inspect, &err) < 0)
        c->serving.known = false;
}

/* --- Through a switch --------------------------------------------------------------------------
 */

void container_tries(Container *c, const EngineContainer *seen)
{
    c->tried = serving_of(seen);
    if (!old_one(c))
        c->serving = c->tried;
}

void container_tried_well(Container *c)
{
    c->inspect = engine_op_free(c->inspect); /* of what it replaces */
    c->serving = c->tried;
    c->serving.proved = true;
    c->well_start = c->serving.started_at;
    if (c->serving.health != ENGINE_HEALTH_NONE)
        c->serving.health = ENGINE_HEALTH_HEALTHY;
    resource_changed(c->resource);
}

/* From the moment that it is told to: it takes no more requests, though its end may take a while.
 */
void container_takes_down(Container *c, const SlotContainer *target)
{
    if (c->serving.proved ||
        !(streq(target->id, c->serving.id) || streq_ptr(target->release, c->slot.current)))
        return;
    c->inspect = engine_op_free(c->inspect);
    c->answer = health_probe_free(c->answer);
    c->serving = (Serving){0};
    resource_changed(c->resource);
}

/* --- Is it ready? ----------------------------------------------------------------------------- */

bool container_is_ready(const Resource *resource)
{
    const Container *c = container_of_resource(resource);
    EngineHealth health = container_engine_health(c);

    if (c->plan->mode == PLAN_MODE_JOB)
        return true;
    /* After a boot its health begins anew: no balancer sends anybody there before it was found
     * well. */
    return c->slot.current && c->slot.state != ROLLOUT_FAILED && !c->draining && c->serving.known &&
           c->serving.running && is_in_office(c) && !c->serving.unanswered &&
           health != ENGINE_HEALTH_UNHEALTHY && health != ENGINE_HEALTH_STARTING;
}
