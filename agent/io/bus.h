/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_BUS_H
#define AGENT_IO_BUS_H

/* sd-bus as our daemons and tools use it: names, connecting (DBUS_SYSTEM_BUS_ADDRESS), who the
 * caller is, and calls that do not block. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/base/log.h"

#define BUS_AGENT_NAME        "io.mervis.Agent1"
#define BUS_AGENT_PATH        "/io/mervis/Agent1"
#define BUS_AGENT_INTERFACE   "io.mervis.Agent1"
#define BUS_CRAWLER_NAME      "io.mervis.Crawler1"
#define BUS_CRAWLER_PATH      "/io/mervis/Crawler1"
#define BUS_CRAWLER_INTERFACE "io.mervis.Crawler1"

#define BUS_CALL_TIMEOUT_USEC (5 * UINT64_C(1000000))

/* Exit statuses of agentctl, the same for every verb. */
typedef enum ExitStatus {
    EXIT_WELL = 0,
    EXIT_DEGRADED = 1, /* or refused */
    EXIT_UNREACHABLE = 2,
    EXIT_USAGE = 64,
} ExitStatus;

/* The system bus, attached to the loop when `event` is given. -ECONNREFUSED … as TEMPORARY with a
 * remedy. */
int bus_open(sd_event *event, sd_bus **ret, Error *err) must_check;
/* Publishes the vtable and requests the name (asynchronously). A daemon that serves lives with its
 * bus: when the name is another's, or the connection is lost later, the loop exits with a failure,
 * and the service manager starts us afresh. `bus` is attached to a loop. */
int bus_serve(sd_bus *bus, const char *name, const char *path, const char *interface,
              const sd_bus_vtable *vtable, void *userdata, Error *err) must_check;

/* Every method is SD_BUS_VTABLE_UNPRIVILEGED (sd-bus would otherwise ask for CAP_SYS_ADMIN and
 * refuse in words of its own); one that changes something calls this first: 0 when the sender is
 * uid 0 (or our own uid, in tests run unprivileged), else -EPERM and the D-Bus error set, whose
 * text says `sudo agentctl <verb>`. */
int bus_require_root(sd_bus_message *message, const char *verb, sd_bus_error *error) must_check;

/* Blocking call for tools: method without or with string arguments (NULL-terminated `args`), one
 * string returned (free()), "" where the method returns nothing. -ESRCH when nobody owns the name
 * (nothing is started by asking), -ETIMEDOUT, -ENOTCONN when the bus went away, -EPERM when the
 * caller may not. */
int bus_call_text(sd_bus *bus, const char *name, const char *path, const char *interface,
                  const char *method, const char *const *args, uint64_t timeout_usec, char **ret,
                  Error *err) must_check;

/* The same without blocking; freeing the call cancels it. `text` is NULL when `err` is set; the
 * handler may free the call. */
typedef void (*BusTextHandler)(const char *text, const Error *err, void *userdata);
typedef struct BusCall BusCall;
int bus_call_text_async(sd_bus *bus, const char *name, const char *path, const char *interface,
                        const char *method, const char *const *args, uint64_t timeout_usec,
                        BusTextHandler handler, void *userdata, BusCall **ret, Error *err)
    must_check;
BusCall *bus_call_free(BusCall *call);
DEFINE_AUTO(BusCall, bus_call_free)

/* What an operator acts on, told to whoever listens: both daemons have the signal
 * Event(s event, s message_id, u level, s text). Nobody waits for it, and losing one is no fault.
 */
#define BUS_EVENT_SIGNAL    "Event"
#define BUS_EVENT_SIGNATURE "ssus"
void bus_emit_event(sd_bus *bus, const char *path, const char *interface, const char *event,
                    const char *message_id, LogLevel level, const char *text);

/* Our Error as a D-Bus error reply ("io.mervis.Error.Denied", message with its remedy). Returns the
 * negative errno. */
int bus_error_from(sd_bus_error *error, const Error *err);
/* And back: the kind and the remedy as they were sent; what the bus itself says in our words.
 * `code` is the negative errno of the failed call, `what` comes before the message. */
int bus_error_to(const sd_bus_error *error, int code, const char *what, Error *err);

#endif
