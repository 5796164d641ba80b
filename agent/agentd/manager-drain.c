/* SPDX-License-Identifier: Apache-2.0 */
/* Going down in order: readiness off, the crawler flushes and containers get their stop signal side
 * by side, state is on disk. */
#include <errno.h>

#include "agent/agentd/manager-internal.h"
#include "agent/base/time.h"
#include "agent/resource/container.h"

#define SYSTEMD_NAME    "org.freedesktop.systemd1"
#define SYSTEMD_PATH    "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER "org.freedesktop.systemd1.Manager"

/* Whether systemd has a start job for shutdown.target: only then does a SIGTERM mean more than a
 * restart of ours. Bounded; "no" when nobody answers. */
bool machine_is_going_down(sd_bus *bus)
{
    auto_(sd_bus_message_unrefp) sd_bus_message *reply = NULL, *job = NULL;
    const char *path;
    uint32_t id;

    if (!bus)
        return false;
    /* GetUnit() fails while the unit is not loaded, and it is not before a shutdown begins. */
    if (sd_bus_call_method(bus, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER, "GetUnit", NULL,
                           &reply, "s", "shutdown.target") < 0 ||
        sd_bus_message_read(reply, "o", &path) < 0)
        return false;
    if (sd_bus_get_property(bus, SYSTEMD_NAME, path, SYSTEMD_NAME ".Unit", "Job", NULL, &job,
                            "(uo)") < 0 ||
        sd_bus_message_enter_container(job, 'r', "uo") < 0 ||
        sd_bus_message_read(job, "u", &id) < 0)
        return false;
    return id != 0;
}

static void drained(Manager *m)
{
    timer_cancel(m->drain);
    m->draining = false; /* said once; readiness stays off by context.draining */
    manager_event(m, LOG_LEVEL_NOTICE, "drained", NULL, "containers are stopped");
    if (m->exit_when_drained)
        (void)sd_event_exit(m->event, 0);
}

static void on_budget_over(void *userdata)
{
    Manager *m = userdata;

    manager_event(m, LOG_LEVEL_WARNING, "drained", NULL,
                  "the time for draining is over; what still runs is left to the engine");
    m->draining = false;
    if (m->exit_when_drained)
        (void)sd_event_exit(m->event, 0);
}

void manager_drain_progress(Manager *m)
{
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r))
        if (r->ops == &resource_container && !container_is_drained(r))
            return;
    drained(m);
}

void manager_begin_drain(Manager *m, const char *why, uint64_t budget_usec, bool exit_after)
{
    bool again = m->context.draining;

    m->exit_when_drained |= exit_after;
    if (!m->drain && timer_new(m->event, on_budget_over, m, &m->drain) < 0) {
        (void)sd_event_exit(m->event, 0);
        return;
    }
    (void)timer_set(m->drain, budget_usec, 0);
    if (again) {
        /* The notice came first, now SIGTERM: what is drained already is. */
        if (!m->draining && m->exit_when_drained)
            (void)sd_event_exit(m->event, 0);
        return;
    }
    m->context.draining = true;
    m->draining = true;
    daemon_status("draining: %s", why);
    manager_event(m, LOG_LEVEL_NOTICE, "draining", NULL, "draining: %s", why);
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r))
        if (r->ops == &resource_container)
            container_drain(r, budget_usec);
    manager_drain_progress(m);
}

void manager_power_off(Manager *m, const char *reason)
{
    if (m->powering_off)
        return;
    manager_event(m, LOG_LEVEL_NOTICE, "draining", NULL, "powering off: %s", reason);
    m->powering_off = true;
    if (!m->bus || sd_bus_call_method_async(m->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH,
                                            SYSTEMD_MANAGER, "PowerOff", NULL, NULL, NULL) < 0)
        manager_event(m, LOG_LEVEL_ERROR, "resource-failed", NULL,
                      "systemd could not be asked to power off: sudo systemctl poweroff");
}
