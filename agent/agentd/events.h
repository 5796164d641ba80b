/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTD_EVENTS_H
#define AGENT_AGENTD_EVENTS_H

/* What an operator acts on: each event has a name (status, notify.on), and a MESSAGE_ID under which
 * the journal's catalog explains it. */

#include <stddef.h>

typedef struct EventKind {
    const char *name;
    const char *message_id; /* 32 hex digits; never changed once shipped */
} EventKind;

extern const EventKind event_kinds[];
extern const size_t n_event_kinds;

/* NULL for a name that is no event. */
const EventKind *event_kind(const char *name);

#endif
