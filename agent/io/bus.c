/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/bus.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/str.h"
#include "agent/base/time.h"

/* ---- Errors over the bus ---- */

#define ERROR_NAME_PREFIX "io.mervis.Error."
#define REMEDY_OPENS      " (remedy: "

/* Our kinds on the bus, and the number that a receiver gives them. */
static const struct {
    const char *name;
    int code;
} kinds[ERROR_KIND_MAX] = {
    [ERROR_INTERNAL] = {ERROR_NAME_PREFIX "Internal", -EIO},
    [ERROR_INVALID] = {ERROR_NAME_PREFIX "Invalid", -EINVAL},
    [ERROR_TEMPORARY] = {ERROR_NAME_PREFIX "Temporary", -EAGAIN},
    [ERROR_THROTTLED] = {ERROR_NAME_PREFIX "Throttled", -EBUSY},
    [ERROR_DENIED] = {ERROR_NAME_PREFIX "Denied", -EPERM},
    [ERROR_CORRUPT] = {ERROR_NAME_PREFIX "Corrupt", -EBADMSG},
};

/* What the bus itself, or sd-bus, says. A NULL text keeps the sender's own words. */
static const struct {
    const char *name;
    int code;
    ErrorKind kind;
    const char *text;
} bus_errors[] = {
    {SD_BUS_ERROR_SERVICE_UNKNOWN, -ESRCH, ERROR_TEMPORARY, " is not running"},
    {SD_BUS_ERROR_NAME_HAS_NO_OWNER, -ESRCH, ERROR_TEMPORARY, " is not running"},
    {SD_BUS_ERROR_NO_REPLY, -ETIMEDOUT, ERROR_TEMPORARY, " went away or did not answer in time"},
    {SD_BUS_ERROR_TIMEOUT, -ETIMEDOUT, ERROR_TEMPORARY, " did not answer in time"},
    {"org.freedesktop.DBus.Error.TimedOut", -ETIMEDOUT, ERROR_TEMPORARY, " did not answer in time"},
    {SD_BUS_ERROR_DISCONNECTED, -ENOTCONN, ERROR_TEMPORARY, ": the connection to the bus was lost"},
    {SD_BUS_ERROR_LIMITS_EXCEEDED, -EBUSY, ERROR_THROTTLED, ": the bus refuses more calls for now"},
    {SD_BUS_ERROR_UNKNOWN_METHOD, -ENOSYS, ERROR_INVALID, NULL},
    {SD_BUS_ERROR_UNKNOWN_OBJECT, -ENOSYS, ERROR_INVALID, NULL},
    {SD_BUS_ERROR_UNKNOWN_INTERFACE, -ENOSYS, ERROR_INVALID, NULL},
    {SD_BUS_ERROR_INVALID_ARGS, -EINVAL, ERROR_INVALID, NULL},
    {SD_BUS_ERROR_ACCESS_DENIED, -EPERM, ERROR_DENIED, NULL},
};

int bus_error_from(sd_bus_error *error, const Error *err)
{
    assert(err && err->code < 0);

    (void)sd_bus_error_setf(error, kinds[err->kind].name, "%s%s%s%s", error_text(err),
                            err->remedy ? REMEDY_OPENS : "", err->remedy ? err->remedy : "",
                            err->remedy ? ")" : "");
    return err->code;
}

/* "message (remedy: do this)" apart again. */
static int set_with_remedy(Error *err, int code, ErrorKind kind, const char *what, const char *text)
{
    const char *opens = strstr(text, REMEDY_OPENS);
    size_t size = strlen(text);
    int r;

    if (!opens || text[size - 1] != ')')
        return error_set(err, code, kind, "%s: %s", what, text);

    r = error_set(err, code, kind, "%s: %.*s", what, (int)(opens - text), text);
    opens += strlen(REMEDY_OPENS);
    return error_remedy(err, r, "%.*s", (int)(text + size - 1 - opens), opens);
}

/* A person knows daemons, not names of the bus. */
static const char *who_is(const char *name)
{
    static const struct {
        const char *name, *daemon;
    } ours[] = {{BUS_AGENT_NAME, "agentd"}, {BUS_CRAWLER_NAME, "crawlerd"}};

    for (size_t i = 0; i < ELEMENTS(ours); i++)
        if (streq(ours[i].name, name))
            return ours[i].daemon;
    return name;
}

int bus_error_to(const sd_bus_error *error, int code, const char *what, Error *err)
{
    const char *name = error ? error->name : NULL;
    const char *text = error && error->message ? error->message : "it gave no reason";

    assert(code < 0 && what);

    what = who_is(what);
    if (!name)
        return error_errno(err, code, "%s", what);

    for (size_t i = 0; i < ELEMENTS(kinds); i++)
        if (streq(name, kinds[i].name))
            return set_with_remedy(err, kinds[i].code, (ErrorKind)i, what, text);

    /* The bus daemon's own refusal quotes its rules; ours, by bus_require_root(), has its text. */
    if (streq(name, SD_BUS_ERROR_ACCESS_DENIED) && startswith(text, "Rejected ")) {
        code = error_set(err, -EPERM, ERROR_DENIED, "%s: the bus policy refuses it to this user",
                         what);
        return error_remedy(err, code, "run the same command with sudo");
    }
    for (size_t i = 0; i < ELEMENTS(bus_errors); i++)
        if (streq(name, bus_errors[i].name))
            return bus_errors[i].text
                       ? error_set(err, bus_errors[i].code, bus_errors[i].kind, "%s%s", what,
                                   bus_errors[i].text)
                       : set_with_remedy(err, bus_errors[i].code, bus_errors[i].kind, what, text);
    return error_set(err, code, ERROR_TEMPORARY, "%s: %s", what, text);
}

/* ---- Connecting and serving ---- */

int bus_open(sd_event *event, sd_bus **ret, Error *err)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    int r;

    assert(ret);

    r = sd_bus_open_system(&bus);
    if (r < 0) {
        r = error_set(err, r, ERROR_TEMPORARY, "system bus: %s", strerror(-r));
        return error_remedy(err, r, "systemctl start dbus.socket");
    }
    if (event) {
        r = sd_bus_attach_event(bus, event, SD_EVENT_PRIORITY_NORMAL);
        if (r < 0)
            return error_errno(err, r, "system bus: attach to the loop");
    }

    *ret = take_ptr(bus);
    return 0;
}

static int on_name_requested(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const sd_bus_error *failure = sd_bus_message_get_error(reply);
    sd_event *event = sd_bus_get_event(sd_bus_message_get_bus(reply));
    uint32_t answer = 0;

    /* Two that serve one name would both act on this machine: the later one ends. Logged here, as
     * nobody is left to return it to. */
    if (failure) {
        log_error(": the bus refuses us its name: %s; exiting", failure->message);
        return sd_event_exit(event, EXIT_FAILURE);
    }
    if (sd_bus_message_read(reply, "u", &answer) < 0 || (answer != 1 && answer != 4)) {
        log_error("another process serves the same bus name already; exiting");
        return sd_event_exit(event, EXIT_FAILURE);
    }
    return 0;
}

int bus_serve(sd_bus *bus, const char *name, const char *path, const char *interface,
              const sd_bus_vtable *vtable, void *userdata, Error *err)
{
    int r;

    assert(bus && name && path && interface && vtable && sd_bus_get_event(bus));

    r = sd_bus_set_exit_on_disconnect(bus, true);
    if (r < 0)
        return error_errno(err, r, "%s", name);
    r = sd_bus_add_object_vtable(bus, NULL, path, interface, vtable, userdata);
    if (r < 0)
        return error_errno(err, r, "publish %s", interface);
    /* Without a queue: 1 is ours, 4 was ours already. */
    r = sd_bus_request_name_async(bus, NULL, name, 0, on_name_requested, NULL);
    if (r < 0)
        return error_errno(err, r, "request the bus name %s", name);
    return 0;
}

void bus_emit_event(sd_bus *bus, const char *path, const char *interface, const char *event,
                    const char *message_id, LogLevel level, const char *text)
{
    if (bus)
        (void)sd_bus_emit_signal(bus, path, interface, BUS_EVENT_SIGNAL, BUS_EVENT_SIGNATURE, event,
                                 message_id ? message_id : "", (uint32_t)level, text);
}

int bus_require_root(sd_bus_message *message, const char *verb, sd_bus_error *error)
{
    auto_(sd_bus_creds_unrefp) sd_bus_creds *creds = NULL;
    uid_t uid = (uid_t)-1;
    int r;

    assert(message && verb);

    r = sd_bus_query_sender_creds(message, SD_BUS_CREDS_EUID, &creds);
    if (r >= 0)
        r = sd_bus_creds_get_euid(creds, &uid);
    if (r >= 0 && (uid == 0 || uid == geteuid()))
        return 0;

    /* Whoever cannot be told apart from others is refused. */
    (void)sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                            "only root may do that" REMEDY_OPENS "sudo agentctl %s)", verb);
    return -EPERM;
}

/* ---- Calling ---- */

/* What a method returned; "" of one that returns nothing, NULL when it is something else. */
static const char *reply_text(sd_bus_message *reply)
{
    const char *text;

    if (sd_bus_message_has_signature(reply, "") > 0)
        return "";
    return sd_bus_message_read_basic(reply, 's', &text) < 0 ? NULL : text;
}

static int new_call(sd_bus *bus, const char *name, const char *path, const char *interface,
                    const char *method, const char *const *args, sd_bus_message **ret)
{
    auto_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
    int r;

    r = sd_bus_message_new_method_call(bus, &message, name, path, interface, method);
    if (r < 0)
        return r;
    /* A question must not start the daemon that it asks about. */
    r = sd_bus_message_set_auto_start(message, false);
    if (r < 0)
        return r;
    for (; args && *args; args++) {
        r = sd_bus_message_append_basic(message, 's', *args);
        if (r < 0)
            return r;
    }
    *ret = take_ptr(message);
    return 0;
}

int bus_call_text(sd_bus *bus, const char *name, const char *path, const char *interface,
                  const char *method, const char *const *args, uint64_t timeout_usec, char **ret,
                  Error *err)
{
    auto_(sd_bus_message_unrefp) sd_bus_message *message = NULL, *reply = NULL;
    auto_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    const char *text;
    char *copy;
    int r;

    assert(bus && name && path && interface && method && ret);

    r = new_call(bus, name, path, interface, method, args, &message);
    if (r < 0)
        return error_errno(err, r, "%s.%s", name, method);
    r = sd_bus_call(bus, message, timeout_usec, &error, &reply);
    if (r < 0)
        return bus_error_to(&error, r, name, err);
    text = reply_text(reply);
    if (!text)
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "%s.%s: the reply is no text", name, method);

    copy = strdup(text);
    if (!copy)
        return error_oom(err);
    *ret = copy;
    return 0;
}

struct BusCall {
    sd_bus_slot *slot;
    char *name;
    BusTextHandler handler;
    void *userdata;
};

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
    BusCall *call = userdata;
    auto_error Error err = {0};
    const char *text = NULL;

    if (sd_bus_message_is_method_error(reply, NULL)) {
        (void)bus_error_to(sd_bus_message_get_error(reply),
                           -MAX_OF(sd_bus_message_get_errno(reply), 1), call->name, &err);
    } else {
        text = reply_text(reply);
        if (!text)
            (void)error_set(&err, -EBADMSG, ERROR_CORRUPT, "%s: the reply is no text", call->name);
    }

    /* Last: the handler may free the call. */
    call->handler(err.code < 0 ? NULL : text, err.code < 0 ? &err : NULL, call->userdata);
    return 0;
}

int bus_call_text_async(sd_bus *bus, const char *name, const char *path, const char *interface,
                        const char *method, const char *const *args, uint64_t timeout_usec,
                        BusTextHandler handler, void *userdata, BusCall **ret, Error *err)
{
    auto_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
    auto_(bus_call_freep) BusCall *call = NULL;
    int r;

    assert(bus && name && path && interface && method && handler && ret);

    call = calloc(1, sizeof(*call));
    if (!call)
        return error_oom(err);
    *call = (BusCall){.name = strdup(name), .handler = handler, .userdata = userdata};
    if (!call->name)
        return error_oom(err);

    r = new_call(bus, name, path, interface, method, args, &message);
    if (r >= 0)
        r = sd_bus_call_async(bus, &call->slot, message, on_reply, call, timeout_usec);
    if (r == -ENOTCONN || r == -ECONNRESET)
        return error_set(err, -ENOTCONN, ERROR_TEMPORARY, "%s: the connection to the bus was lost",
                         name);
    if (r < 0)
        return error_errno(err, r, "%s.%s", name, method);

    *ret = take_ptr(call);
    return 0;
}

BusCall *bus_call_free(BusCall *call)
{
    if (!call)
        return NULL;
    (void)sd_bus_slot_unref(call->slot);
    free(call->name);
    free(call);
    return NULL;
}
