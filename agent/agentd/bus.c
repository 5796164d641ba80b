/* SPDX-License-Identifier: Apache-2.0 */
/* io.mervis.Agent1: everybody may read, uid 0 may change. */
#include <errno.h>

#include "agent/agentd/manager-internal.h"
#include "agent/base/str.h"
#include "agent/io/json.h"

static int reply_json(sd_bus_message *message, json_t *value)
{
    json_auto_t *owned = value;
    auto_free char *text = owned ? json_text(owned, false) : NULL;

    if (!text)
        return -ENOMEM;
    return sd_bus_reply_method_return(message, "s", text);
}

static int method_describe(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return reply_json(message, manager_describe(userdata));
}

static int method_plan(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    int r;

    /* A plan may carry a person's texts (files, scripts): only root reads it whole. */
    r = bus_require_root(message, "plan show", error);
    return r < 0 ? r : reply_json(message, manager_plan(userdata));
}

static int method_history(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return reply_json(message, manager_history(userdata));
}

static int method_dry_run(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return reply_json(message, manager_dry_run(userdata));
}

static int reply_result(sd_bus_message *message, sd_bus_error *error, int r, const Error *err)
{
    return r < 0 ? bus_error_from(error, err) : sd_bus_reply_method_return(message, "");
}

static int method_apply(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    auto_error Error err = {0};
    int r;

    r = bus_require_root(message, "apply", error);
    if (r < 0)
        return r;
    r = manager_apply(userdata, &err);
    return reply_result(message, error, r, &err);
}

static int container_method(sd_bus_message *message, Manager *m, const char *verb,
                            sd_bus_error *error)
{
    auto_error Error err = {0};
    const char *name;
    int r;

    r = bus_require_root(message, verb, error);
    if (r < 0)
        return r;
    r = sd_bus_message_read(message, "s", &name);
    if (r < 0)
        return r;
    r = manager_container_verb(m, verb, name, &err);
    return reply_result(message, error, r, &err);
}

static int method_restart(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return container_method(message, userdata, "restart", error);
}

static int method_rollback(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return container_method(message, userdata, "rollback", error);
}

static int method_retry(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return container_method(message, userdata, "retry", error);
}

static int property_state(sd_bus *bus, const char *path, const char *interface,
                          const char *property, sd_bus_message *reply, void *userdata,
                          sd_bus_error *error)
{
    return sd_bus_message_append(reply, "s", manager_state(userdata));
}

static int property_generation(sd_bus *bus, const char *path, const char *interface,
                               const char *property, sd_bus_message *reply, void *userdata,
                               sd_bus_error *error)
{
    return sd_bus_message_append(reply, "t", manager_generation(userdata));
}

static int property_ready(sd_bus *bus, const char *path, const char *interface,
                          const char *property, sd_bus_message *reply, void *userdata,
                          sd_bus_error *error)
{
    auto_free char *reason = NULL;

    return sd_bus_message_append(reply, "b", manager_is_ready(userdata, &reason));
}

/* clang-format off */
static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_PROPERTY("State", "s", property_state, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Generation", "t", property_generation, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Ready", "b", property_ready, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_METHOD_WITH_ARGS("Describe", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", status), method_describe, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("History", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", history), method_history, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Plan", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", plan), method_plan, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("DryRun", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", changes), method_dry_run, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Apply", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_apply, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Cleanup", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", report), bus_method_cleanup, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("CleanupDryRun", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", report), bus_method_cleanup_dry_run, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Restart", SD_BUS_ARGS("s", container), SD_BUS_NO_RESULT, method_restart, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Rollback", SD_BUS_ARGS("s", container), SD_BUS_NO_RESULT, method_rollback, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Retry", SD_BUS_ARGS("s", container), SD_BUS_NO_RESULT, method_retry, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_SIGNAL_WITH_NAMES(BUS_EVENT_SIGNAL, BUS_EVENT_SIGNATURE, SD_BUS_PARAM(event) SD_BUS_PARAM(message_id) SD_BUS_PARAM(level) SD_BUS_PARAM(text), 0),
    SD_BUS_VTABLE_END,
};
/* clang-format on */

/* crawlerd logs its events itself; here they become part of the history, and go to those whom the
 * plan wants told. Only the owner of its name can send them. */
static int on_crawler_event(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    const char *event, *message_id, *text;
    uint32_t level;

    if (sd_bus_message_read(message, BUS_EVENT_SIGNATURE, &event, &message_id, &level, &text) < 0)
        return 0;
    if (!strv_contains((char *const *)(uintptr_t)plan_event_names, event) ||
        level < LOG_LEVEL_ERROR || level > LOG_LEVEL_NOTICE)
        return 0;
    manager_tell_event(userdata, (LogLevel)level, event, message_id, text);
    return 0;
}

static int serve(Manager *m, Error *err)
{
    int r;

    r = bus_open(m->event, &m->bus, err);
    if (r >= 0)
        r = bus_serve(m->bus, BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE, vtable, m, err);
    if (r >= 0) {
        r = sd_bus_match_signal_async(m->bus, NULL, BUS_CRAWLER_NAME, BUS_CRAWLER_PATH,
                                      BUS_CRAWLER_INTERFACE, BUS_EVENT_SIGNAL, on_crawler_event,
                                      NULL, m);
        if (r < 0)
            (void)error_errno(err, r, "listen to " BUS_CRAWLER_NAME);
    }
    if (r < 0)
        m->bus = sd_bus_flush_close_unref(m->bus);
    return r;
}

/* Whoever needed it failed and comes back by itself; they need not wait for that. */
static void serve_again(void *userdata)
{
    Manager *m = userdata;

    if (serve(m, NULL) < 0) {
        (void)timer_set(m->bus_again, backoff_next(&m->bus_backoff, 0), SECOND);
        return;
    }
    m->bus_again = timer_free(m->bus_again);
    m->context.bus = m->bus;
    log_info("the bus is there: agentctl can reach us");
    reconciler_look_at_all(m->reconciler);
}

/* A bus that goes away later ends us, and we are started afresh; one that is not there yet does not
 * keep us from the containers, which matter more than the people who look at them. */
int manager_serve_bus(Manager *m, Error *err)
{
    auto_error Error failure = {0};

    if (serve(m, &failure) >= 0)
        return 0;
    log_failure(LOG_LEVEL_WARNING, NULL, &failure,
                "going on without D-Bus until it is there: agentctl cannot reach us");
    m->bus_backoff =
        (Backoff){.base_usec = RECONCILE_BACKOFF_BASE_USEC, .cap_usec = RECONCILE_BACKOFF_CAP_USEC};
    if (timer_new(m->event, serve_again, m, &m->bus_again) < 0)
        return error_oom(err);
    (void)timer_set(m->bus_again, backoff_next(&m->bus_backoff, 0), SECOND);
    return 0;
}

void manager_emit_changed(Manager *m)
{
    if (m->bus)
        (void)sd_bus_emit_properties_changed(m->bus, BUS_AGENT_PATH, BUS_AGENT_INTERFACE, "State",
                                             "Generation", "Ready", NULL);
}
