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

static void on_inspected(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    bool is_known = !err || err->code == -ENOENT;

    c->serving = (Serving){.known = !err};
    if (!err) {
        const EngineContainer *seen = &reply->containers[0];

        c->serving.running = engine_container_is_running(seen);
        c->serving.health = seen->health;
        c->serving.started_at = seen->started_usec;
        c->serving.restarts = seen->restart_count;
        c->serving.memory_bytes = seen->memory_bytes;
    }
    c->inspect = engine_op_free(c->inspect);
    look_for_complaints(c);
    /* The engine tells of an end before its list shows it; inspect waits for that. */
    if (c->may_have_ended && is_known && !c->serving.running && !c->draining)
        container_look(c->resource);
    c->may_have_ended = false;
    resource_changed(c->resource);
}

/* Names change hands before the stop and the start: until then the one that has it does not run. */
static const char *what_serves(const Container *c)
{
    const SlotContainer *old = NULL;

    if (c->slot.state == ROLLOUT_SWITCHING && c->slot.current)
        old = container_view(c, c->slot.current);
    return old && old->running ? old->id : c->plan->name;
}

void container_look_at_serving(Container *c)
{
    auto_error Error err = {0};

    c->inspect = engine_op_free(c->inspect);
    if (engine_inspect_container(c->resource->context->engine, what_serves(c), on_inspected, c,
                                 &c->inspect, &err) < 0)
        c->serving.known = false;
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
           c->serving.running && health != ENGINE_HEALTH_UNHEALTHY &&
           health != ENGINE_HEALTH_STARTING;
}
