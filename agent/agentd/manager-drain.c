/* SPDX-License-Identifier: Apache-2.0 */
/* Going down in order: readiness off, the crawler flushes and containers get their stop signal side
 * by side, state is on disk. */
#include <errno.h>

#include "agent/agentd/manager-internal.h"
#include "agent/base/time.h"
#include "agent/resource/container.h"

#define SYSTEMD_NAME       "org.freedesktop.systemd1"
#define SYSTEMD_PATH       "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER    "org.freedesktop.systemd1.Manager"

/* For each of two questions: on the way down a small machine's systemd has more to do than to
 * answer. */
#define GOING_DOWN_TIMEOUT (5 * SECOND)

/* Whether systemd has a start job for shutdown.target: only then does a SIGTERM mean more than a
 * restart of ours. */
static bool has_shutdown_job(sd_bus *bus)
{
    auto_(sd_bus_message_unrefp) sd_bus_message *reply = NULL, *job = NULL;
    const char *path;
    uint32_t id;

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

/* Bounded; "no" when nobody answers. */
bool machine_is_going_down(sd_bus *bus)
{
    uint64_t usual = 0;
    bool answer;

    if (!bus)
        return false;
    (void)sd_bus_get_method_call_timeout(bus, &usual);
    (void)sd_bus_set_method_call_timeout(bus, GOING_DOWN_TIMEOUT);
    answer = has_shutdown_job(bus);
    (void)sd_bus_set_method_call_timeout(bus, usual);
    return answer;
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
    if (!m->draining || m->flush)
        return;
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r))
        if (r->ops == &resource_container && !container_is_drained(r))
            return;
    drained(m);
}

static void on_flushed(const char *text, const Error *err, void *userdata)
{
    Manager *m = userdata;

    if (err && !m->exit_when_drained)
        log_failure(LOG_LEVEL_WARNING, NULL, err, "the crawler's rows stay in its spool");
    m->flush = bus_call_free(m->flush);
    manager_drain_progress(m);
}

/* Side by side with the containers: rows that are on their way to the sink get there if the time
 * suffices, and stay in the spool if not. Where systemd stops the machine it stops crawlerd too,
 * which then sends its rows without being asked, and says what became of them. */
static void flush_crawler(Manager *m, uint64_t budget_usec)
{
    auto_error Error err = {0};

    if (!m->bus || !m->context.plan || !m->context.plan->crawl)
        return;
    if (bus_call_text_async(m->bus, BUS_CRAWLER_NAME, BUS_CRAWLER_PATH, BUS_CRAWLER_INTERFACE,
                            "Flush", NULL, budget_usec, on_flushed, m, &m->flush, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "the crawler's rows stay in its spool");
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
    daemon_status("draining: %s", why);
    manager_event(m, LOG_LEVEL_NOTICE, "draining", NULL, "draining: %s", why);
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r))
        if (r->ops == &resource_container)
            container_drain(r, budget_usec);
    if (!exit_after)
        flush_crawler(m, budget_usec);
    m->draining = true;
    manager_drain_progress(m);
}

static void say_still_on(Manager *m, const char *why)
{
    m->powering_off = false; /* the next one that wants it asks again */
    manager_event(m, LOG_LEVEL_ERROR, "resource-failed", NULL,
                  "systemd does not power off: %s (remedy: sudo systemctl poweroff)", why);
}

static int on_power_off(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    if (sd_bus_message_is_method_error(reply, NULL))
        say_still_on(userdata, sd_bus_message_get_error(reply)->message);
    return 0;
}

void manager_power_off(Manager *m, const char *reason)
{
    int r;

    if (m->powering_off)
        return;
    manager_event(m, LOG_LEVEL_NOTICE, "draining", NULL, "powering off: %s", reason);
    m->powering_off = true;
    sd_bus_slot_unref(m->power_off);
    m->power_off = NULL;
    r = m->bus ? sd_bus_call_method_async(m->bus, &m->power_off, SYSTEMD_NAME, SYSTEMD_PATH,
                                          SYSTEMD_MANAGER, "PowerOff", on_power_off, m, NULL)
               : -ENOTCONN;
    if (r < 0)
        say_still_on(m, strerror(-r));
}
