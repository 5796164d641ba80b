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

static void on_inspected(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    bool is_known = !err || err->code == -ENOENT;

    c->serving = err ? (Serving){0} : serving_of(&reply->containers[0]);
    c->inspect = engine_op_free(c->inspect);
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
    c->serving = (Serving){0};
    resource_changed(c->resource);
}

/* --- Is it ready? ----------------------------------------------------------------------------- */

/* Not yet, or no more: what is being proved, and what is given up. */
static bool is_in_office(const Container *c)
{
    if (!container_is_switching(c) || c->serving.proved)
        return true;
    return container_has_way_back(c) && streq(c->serving.release, c->slot.current);
}

bool container_is_ready(const Resource *resource)
{
    const Container *c = container_of_resource(resource);
    EngineHealth health = container_engine_health(c);

    if (c->plan->mode == PLAN_MODE_JOB)
        return true;
    /* After a boot its HEALTHCHECK begins anew: no balancer sends anybody there before it passed.
     */
    return c->slot.current && c->slot.state != ROLLOUT_FAILED && !c->draining && c->serving.known &&
           c->serving.running && is_in_office(c) && health != ENGINE_HEALTH_UNHEALTHY &&
           health != ENGINE_HEALTH_STARTING;
}
