/* SPDX-License-Identifier: Apache-2.0 */
/* Whose state this is. An image that was made of a running machine brings that machine's plan
 * along: after a boot nothing of it is begun before the cloud has said who we are, or does not
 * answer. */
#include <errno.h>

#include "agent/agentd/manager-internal.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/resource/release.h"

#define CLAIM_ACCURACY_USEC (250 * MSEC)

static bool is_same_boot(Manager *m)
{
    char boot_id[BOOT_ID_SIZE];

    return boot_id_read(boot_id, NULL) >= 0 && state_boot_is(&m->state, boot_id);
}

void manager_begin(Manager *m)
{
    auto_error Error err = {0};

    /* No machine becomes another one without a boot in between. */
    if (is_same_boot(m)) {
        manager_resume_plan(m);
        return;
    }
    m->waiting_for_identity = true;
    if (state_generation_last(&m->state, &m->generation, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "ignoring");
}

void manager_begin_anyway(Manager *m)
{
    if (!m->waiting_for_identity)
        return;
    m->waiting_for_identity = false;
    manager_resume_plan(m);
}

static void on_reread(const CloudSnapshot *snapshot, const Error *err, void *userdata);

static void reread(void *userdata)
{
    Manager *m = userdata;

    m->reread = cloud_op_free(m->reread);
    if (cloud_read(m->cloud, on_reread, m, &m->reread, NULL) < 0)
        (void)timer_set(m->claim_again, backoff_next(&m->claim_backoff, 0), CLAIM_ACCURACY_USEC);
}

static void on_reread(const CloudSnapshot *snapshot, const Error *err, void *userdata)
{
    Manager *m = userdata;

    if (snapshot)
        manager_take_snapshot(m, snapshot, CLOUD_CHANGED_ALL);
    else if (m->claim_again)
        (void)timer_set(m->claim_again, backoff_next(&m->claim_backoff, 0), CLAIM_ACCURACY_USEC);
}

/* The disk is full, or so. What is in the state is another machine's, and so is what it would be
 * followed by: a plan that is recorded now would be forgotten with it. */
static void claim_later(Manager *m, const char *instance_id, Error *err)
{
    if (!m->unclaimed) {
        m->unclaimed = true;
        m->claim_backoff = (Backoff){.base_usec = RECONCILE_BACKOFF_BASE_USEC,
                                     .cap_usec = RECONCILE_BACKOFF_CAP_USEC};
        manager_event(m, LOG_LEVEL_ERROR, "resource-failed", NULL,
                      "this is instance %s, a copy of another, and its state cannot be begun anew: "
                      "%s; no plan is in force until it can (remedy: df -h %s)",
                      instance_id, error_text(err), m->options->state_dir);
        manager_forget_plan(m);
    }
    if (!m->claim_again && timer_new(m->event, reread, m, &m->claim_again) < 0)
        return;
    (void)timer_set(m->claim_again, backoff_next(&m->claim_backoff, 0), CLAIM_ACCURACY_USEC);
}

static void remember_boot(Manager *m)
{
    char boot_id[BOOT_ID_SIZE];
    auto_error Error err = {0};

    if (boot_id_read(boot_id, &err) < 0 || state_set_boot(&m->state, boot_id, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "the next start waits for the cloud again");
}

bool manager_claim(Manager *m, const char *instance_id)
{
    bool is_other = !str_is_empty(m->instance_id) && !streq(m->instance_id, instance_id);
    auto_error Error err = {0};
    int r;

    if (str_is_empty(instance_id))
        return !m->unclaimed; /* half an answer is no other machine: nothing is forgotten for it */
    r = state_claim(&m->state, instance_id, &err);
    if (r < 0 && is_other) {
        claim_later(m, instance_id, &err);
        return false;
    }
    if (r < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "ignoring: it is ours, or nobody's yet");
    if (r > 0) {
        manager_event(m, LOG_LEVEL_NOTICE, "instance-changed", NULL,
                      "this is instance %s, a copy of another: its state is begun anew",
                      instance_id);
        manager_forget_plan(m);
    }
    m->unclaimed = false;
    m->claim_again = timer_free(m->claim_again);
    if (str_set(&m->instance_id, instance_id) >= 0)
        m->context.instance_id = m->instance_id;
    remember_boot(m);
    return true;
}
