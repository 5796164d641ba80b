/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/statusd/probe.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/base/time.h"
#include "agent/io/bus.h"
#include "agent/io/json.h"

struct ProbeBus {
    sd_event *event;
    sd_bus *bus;
};

struct Probe {
    ProbeBus *bus;
    const char *who, *name, *path, *interface;
    ProbeHandler on_change;
    void *userdata;

    BusCall *call;
    sd_event_source *later; /* reports a call that could not be made */
    uint64_t answered_at;   /* 0: never */
    bool alive;
    json_t *document;
    Error err;
};

int probe_bus_new(sd_event *event, ProbeBus **ret, Error *err)
{
    auto_(probe_bus_freep) ProbeBus *bus = NULL;

    assert(event && ret);

    bus = calloc(1, sizeof(*bus));
    if (!bus)
        return error_oom(err);
    bus->event = sd_event_ref(event);
    *ret = take_ptr(bus);
    return 0;
}

ProbeBus *probe_bus_free(ProbeBus *bus)
{
    if (!bus)
        return NULL;
    (void)sd_bus_flush_close_unref(bus->bus);
    (void)sd_event_unref(bus->event);
    free(bus);
    return NULL;
}

/* The connection, made again when the bus has gone. */
static int probe_bus_ensure(ProbeBus *bus, Error *err)
{
    if (bus->bus && sd_bus_is_open(bus->bus) > 0)
        return 0;
    bus->bus = sd_bus_close_unref(bus->bus);
    return bus_open(bus->event, &bus->bus, err);
}

/* ---- Answers ---- */

static void probe_settle(Probe *probe)
{
    probe->answered_at = now_boottime_usec();
    probe->on_change(probe, probe->userdata);
}

/* Codes that mean "nobody was there to answer"; any other error came from the daemon itself. */
static bool is_silence(int code)
{
    return code == -ESRCH || code == -ETIMEDOUT || code == -ENOTCONN || code == -EBUSY ||
           code == -EPERM;
}

static void on_text(const char *text, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    json_t *document = NULL;

    probe->call = bus_call_free(probe->call);
    json_decref(probe->document);
    probe->document = NULL;
    error_done(&probe->err);

    if (err) {
        probe->alive = !is_silence(err->code);
        (void)error_copy(&probe->err, err);
    } else {
        probe->alive = true;
        if (json_parse(text, strlen(text), probe->who, &document, &probe->err) >= 0)
            probe->document = document;
    }
    if (probe->err.code < 0 && !probe->err.remedy)
        (void)error_remedy(&probe->err, probe->err.code, "systemctl status %s", probe->who);
    probe_settle(probe);
}

static int on_later(sd_event_source *source, void *userdata)
{
    probe_settle(userdata);
    return 0;
}

/* The call could not even be made. Told from the loop, as every other answer is. */
static void fail_later(Probe *probe, Error *err)
{
    json_decref(probe->document);
    probe->document = NULL;
    probe->alive = false;
    error_done(&probe->err);
    (void)error_move(&probe->err, err);
    (void)sd_event_source_set_enabled(probe->later, SD_EVENT_ONESHOT);
}

bool probe_ask(Probe *probe)
{
    auto_error Error err = {0};
    int enabled = SD_EVENT_OFF, r;

    assert(probe);

    if (probe->answered_at && now_boottime_usec() - probe->answered_at < PROBE_FRESH_USEC)
        return true;
    (void)sd_event_source_get_enabled(probe->later, &enabled);
    if (probe->call || enabled != SD_EVENT_OFF)
        return false;

    r = probe_bus_ensure(probe->bus, &err);
    if (r >= 0)
        r = bus_call_text_async(probe->bus->bus, probe->name, probe->path, probe->interface,
                                "Describe", NULL, PROBE_LIMIT_USEC, on_text, probe, &probe->call,
                                &err);
    if (r < 0)
        fail_later(probe, &err);
    return false;
}

/* ---- Questions ---- */

const json_t *probe_document(const Probe *probe)
{
    return probe->document;
}

bool probe_is_alive(const Probe *probe)
{
    return probe->alive;
}

const Error *probe_error(const Probe *probe)
{
    return &probe->err;
}

int probe_new(ProbeBus *bus, const char *who, const char *name, const char *path,
              const char *interface, ProbeHandler on_change, void *userdata, Probe **ret,
              Error *err)
{
    auto_(probe_freep) Probe *probe = NULL;
    int r;

    assert(bus && who && name && path && interface && on_change && ret);

    probe = calloc(1, sizeof(*probe));
    if (!probe)
        return error_oom(err);
    *probe = (Probe){.bus = bus,
                     .who = who,
                     .name = name,
                     .path = path,
                     .interface = interface,
                     .on_change = on_change,
                     .userdata = userdata};
    r = sd_event_add_defer(bus->event, &probe->later, on_later, probe);
    if (r >= 0)
        r = sd_event_source_set_enabled(probe->later, SD_EVENT_OFF);
    if (r < 0)
        return error_errno(err, r, "probe of %s", who);

    *ret = take_ptr(probe);
    return 0;
}

Probe *probe_free(Probe *probe)
{
    if (!probe)
        return NULL;
    (void)bus_call_free(probe->call);
    (void)sd_event_source_disable_unref(probe->later);
    json_decref(probe->document);
    error_done(&probe->err);
    free(probe);
    return NULL;
}
