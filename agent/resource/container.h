/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_CONTAINER_H
#define AGENT_RESOURCE_CONTAINER_H

/* A container of the plan: one rollout state machine each (design: settled → resolving → pulling →
 * staged → switching → proving → committed → settled, with its ways back). What it stands at is in
 * state.db before it acts; what there is, the engine tells; so a new object of the same name goes
 * on where a former one, or a former agentd, was. */

#include "agent/engine/engine.h"
#include "agent/resource/resource.h"

#define CONTAINER_CRASH_LOOP_DEATHS 3 /* within the settle time: the release is bad after all */

extern const ResourceOps resource_container;

/* The engine says that something happened to a container that carries our label. */
void container_on_engine_event(Resource *resource, const EngineEvent *event);
/* Look at the registry and at the engine, whatever the timers say: the plan was applied by hand,
 * the engine came back, a secret changed. */
void container_look(Resource *resource);

/* The verbs of agentctl; each begins its work and returns. -EBUSY while a rollout is under way. */
int container_restart(Resource *resource, Error *err) must_check;
int container_rollback(Resource *resource, Error *err) must_check;
/* Lifts quarantines and tries again: the number lifted. */
int container_retry(Resource *resource, Error *err) must_check;
/* update.policy "manual": the digest that is held may come in. */
void container_approve(Resource *resource);

/* Serving: runs, was proved, and is healthy as far as is known; a finished job counts as well. In a
 * switch that stops first nothing serves until the new one, or again the old one, is well. */
bool container_is_ready(const Resource *resource);

/* The machine goes down: SIGTERM and the container's own stop time-out, at most `budget_usec`. The
 * drain waits until container_is_drained(). */
void container_drain(Resource *resource, uint64_t budget_usec);
bool container_is_drained(const Resource *resource);

#endif
