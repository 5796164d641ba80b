/* SPDX-License-Identifier: Apache-2.0 */

/* io.mervis.Crawler1: everybody may read, uid 0 may change. Every method answers one string, so
 * that one call serves them all. */

#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/bus.h"
#include "agent/io/json.h"
#include "crawler/crawlerd/manager-private.h"

#define STATE_PAUSE_USEC (2 * SECOND)

static int reply_json(sd_bus_message *message, json_t *value, sd_bus_error *error, const Error *err)
{
    json_auto_t *owned = value;
    auto_free char *text = owned ? json_text(owned, false) : NULL;

    if (!text)
        return err && err->code < 0 ? bus_error_from(error, err) : -ENOMEM;
    return sd_bus_reply_method_return(message, "s", text);
}

static int reply_done(sd_bus_message *message, int r, sd_bus_error *error, const Error *err)
{
    return r < 0 ? bus_error_from(error, err) : sd_bus_reply_method_return(message, "s", "");
}

static int method_describe(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return reply_json(message, manager_describe(userdata), error, NULL);
}

static int method_reload(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    auto_error Error err = {0};
    int r = bus_require_root(message, "apply", error);

    return r < 0 ? r : reply_done(message, manager_reload(userdata, &err), error, &err);
}

static int method_run_job(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    auto_error Error err = {0};
    const char *job;
    int r = bus_require_root(message, "crawl run", error);

    if (r >= 0)
        r = sd_bus_message_read(message, "s", &job);
    return r < 0 ? r : reply_done(message, manager_run_job(userdata, job, &err), error, &err);
}

static int method_backfill(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    auto_error Error err = {0};
    const char *job, *from, *to;
    int r = bus_require_root(message, "crawl backfill", error);

    if (r >= 0)
        r = sd_bus_message_read(message, "sss", &job, &from, &to);
    return r < 0
               ? r
               : reply_done(message, manager_backfill(userdata, job, from, to, &err), error, &err);
}

static int method_flush(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    auto_error Error err = {0};
    int r = bus_require_root(message, "crawl flush", error);

    return r < 0 ? r : reply_done(message, manager_flush(userdata, &err), error, &err);
}

static int method_dead_letters(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    auto_error Error err = {0};
    int r = bus_require_root(message, "crawl dead-letters", error);

    return r < 0 ? r : reply_json(message, manager_dead_letters(userdata, &err), error, &err);
}

static int method_replay(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    auto_error Error err = {0};
    json_t *result = NULL;
    int r = bus_require_root(message, "crawl replay", error);

    if (r < 0)
        return r;
    r = manager_replay(userdata, &result, &err);
    return r < 0 ? bus_error_from(error, &err) : reply_json(message, result, error, NULL);
}

static int property_state(sd_bus *bus, const char *path, const char *interface,
                          const char *property, sd_bus_message *reply, void *userdata,
                          sd_bus_error *error)
{
    return sd_bus_message_append(reply, "s", manager_state(userdata));
}

static void tell_event(LogLevel level, const char *event, const char *message_id, const char *text,
                       void *userdata)
{
    const Manager *m = userdata;

    bus_emit_event(m->bus, BUS_CRAWLER_PATH, BUS_CRAWLER_INTERFACE, event, message_id, level, text);
}

/* After whatever happened. A crawler at work handles many events a second, and its state is looked
 * at once in two: the last change before a pause is told when the loop turns after it. */
static int on_turn(sd_event_source *source, void *userdata)
{
    Manager *m = userdata;
    uint64_t now = now_boottime_usec();
    const char *state;

    if (now - m->state_looked_at < STATE_PAUSE_USEC)
        return 0;
    m->state_looked_at = now;
    state = manager_state(m);
    if (m->state_told && streq(m->state_told, state))
        return 0;
    m->state_told = state;
    (void)sd_bus_emit_properties_changed(m->bus, BUS_CRAWLER_PATH, BUS_CRAWLER_INTERFACE, "State",
                                         NULL);
    return 0;
}

/* clang-format off */
static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_PROPERTY("State", "s", property_state, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_METHOD("Describe", "", "s", method_describe, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Reload", "", "s", method_reload, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("RunJob", "s", SD_BUS_PARAM(job), "s", SD_BUS_PARAM(result),
                             method_run_job, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("Backfill", "sss", SD_BUS_PARAM(job) SD_BUS_PARAM(from) SD_BUS_PARAM(to),
                             "s", SD_BUS_PARAM(result), method_backfill, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Flush", "", "s", method_flush, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("DeadLetters", "", "s", method_dead_letters, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Replay", "", "s", method_replay, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_SIGNAL_WITH_NAMES(BUS_EVENT_SIGNAL, BUS_EVENT_SIGNATURE, SD_BUS_PARAM(event) SD_BUS_PARAM(message_id)
                             SD_BUS_PARAM(level) SD_BUS_PARAM(text), 0),
    SD_BUS_VTABLE_END,
};
/* clang-format on */

int manager_serve_bus(Manager *m, Error *err)
{
    int r = bus_open(m->event, &m->bus, err);

    if (r < 0)
        return r;
    r = bus_serve(m->bus, BUS_CRAWLER_NAME, BUS_CRAWLER_PATH, BUS_CRAWLER_INTERFACE, vtable, m,
                  err);
    if (r < 0)
        return r;
    r = sd_event_add_post(m->event, &m->turn, on_turn, m);
    if (r < 0)
        return error_errno(err, r, "watch the state");
    crawl_event_listen(tell_event, m);
    return 0;
}
