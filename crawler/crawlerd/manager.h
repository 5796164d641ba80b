/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_MANAGER_H
#define CRAWLER_CRAWLERD_MANAGER_H

/* The daemon as a whole: which document is in force, who we are, when fetching may begin, and how
 * it ends. */

#include <jansson.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"

typedef struct Manager Manager;

typedef struct ManagerOptions {
    const char *state_dir, *runtime_dir;
    const char *plan_file; /* --once: instead of <runtime-dir>/crawl.json */
    const char *root;
    bool once;             /* every job one round, deliver, end */
    uint64_t timeout_usec; /* … within that; 0: none */
    bool bus;              /* serve io.mervis.Crawler1 */
} ManagerOptions;

#define MANAGER_DOCUMENT_NAME "crawl.json"
/* systemd gives us 22 s, a preempted VM 30 s in all. */
#define MANAGER_DRAIN_USEC    (UINT64_C(18) * 1000000)

/* The loop ends with the exit status (sd_event_exit()). */
int manager_new(sd_event *event, const ManagerOptions *options, Manager **ret, Error *err)
    must_check;
Manager *manager_free(Manager *manager);
DEFINE_AUTO(Manager, manager_free)

/* SIGHUP, Reload(): reads the document again. -EINVAL: it is refused, the last one stays. */
int manager_reload(Manager *manager, Error *err) must_check;
/* SIGTERM: sends what is spooled, within the drain budget, then ends the loop. */
void manager_stop(Manager *manager);

/* Verbs of the bus. */
json_t *manager_describe(Manager *manager);
int manager_run_job(Manager *manager, const char *job, Error *err) must_check;
/* Texts are RFC 3339 or dates; "" for `to` is now. */
int manager_backfill(Manager *manager, const char *job, const char *from, const char *to,
                     Error *err) must_check;
int manager_flush(Manager *manager, Error *err) must_check;
json_t *manager_dead_letters(Manager *manager, Error *err);
int manager_replay(Manager *manager, json_t **ret, Error *err) must_check;

#endif
