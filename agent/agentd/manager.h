/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTD_MANAGER_H
#define AGENT_AGENTD_MANAGER_H

/* agentd as one object: freeing it stops all work and touches nothing that runs. */

#include <jansson.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/io/daemon.h"

typedef struct Manager Manager;

/* `options` and `crawler_dir` (crawlerd's runtime directory) must outlive it. */
int manager_new(sd_event *event, const DaemonOptions *options, const char *crawler_dir,
                Manager **ret, Error *err) must_check;
Manager *manager_free(Manager *manager);
DEFINE_AUTO(Manager, manager_free)

/* SIGTERM: drains only when the whole machine goes down, else ends at once and leaves every
 * container running. */
void manager_stop(Manager *manager);

/* What the bus offers (agent/agentd/bus.c). New references; NULL when memory is out. */
json_t *manager_describe(Manager *manager);
json_t *manager_plan(Manager *manager);
json_t *manager_history(Manager *manager);
json_t *manager_dry_run(Manager *manager);
int manager_apply(Manager *manager, Error *err) must_check;
/* verb: "restart", "rollback", "retry". */
int manager_container_verb(Manager *manager, const char *verb, const char *name, Error *err)
    must_check;
const char *manager_state(const Manager *manager);
uint64_t manager_generation(const Manager *manager);

#endif
