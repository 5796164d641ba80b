/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_STATUSD_PROBE_H
#define AGENT_STATUSD_PROBE_H

/* Asks a daemon for its status when somebody wants to know, and not otherwise. However many ask,
 * one call is under way at a time, and its answer serves for a second: a flood at our door stays
 * there. The connection to the bus is made again when it was lost. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"

/* Long enough for a loop that SQLite holds for a moment; short enough for a health check's own
 * limit (5 s by default). */
#define PROBE_LIMIT_USEC (1500 * UINT64_C(1000))
#define PROBE_FRESH_USEC (1000 * UINT64_C(1000))

typedef struct ProbeBus ProbeBus; /* one connection for all probes */
typedef struct Probe Probe;

typedef void (*ProbeHandler)(Probe *probe, void *userdata);

int probe_bus_new(sd_event *event, ProbeBus **ret, Error *err) must_check;
ProbeBus *probe_bus_free(ProbeBus *bus);
DEFINE_AUTO(ProbeBus, probe_bus_free)

/* `who` names the daemon in messages. on_change is called when an answer, or a failure, has come.
 */
int probe_new(ProbeBus *bus, const char *who, const char *name, const char *path,
              const char *interface, ProbeHandler on_change, void *userdata, Probe **ret,
              Error *err) must_check;
Probe *probe_free(Probe *probe);
DEFINE_AUTO(Probe, probe_free)

/* Whether what is known is fresh. If not, the daemon is being asked when this returns, and
 * on_change will follow. */
bool probe_ask(Probe *probe);
/* Its document when the last answer was one (borrowed, until the next answer), else NULL. */
const json_t *probe_document(const Probe *probe);
/* Whether it answered at all, be it with an error of its own: its loop lives. */
bool probe_is_alive(const Probe *probe);
/* Why there is no document, with its remedy; unset while there is one. */
const Error *probe_error(const Probe *probe);

#endif
