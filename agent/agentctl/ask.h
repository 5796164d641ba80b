/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_ASK_H
#define AGENT_AGENTCTL_ASK_H

/* One question to a daemon, for verbs that ask nothing else. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/error.h"

typedef struct Peer Peer;
extern const Peer peer_agent, peer_crawler;

/* The method's answer as JSON; null where it returns nothing. Who does not answer is said with the
 * command that shows why. */
int ask(const Peer *peer, const char *method, const char *const *args, json_t **ret, Error *err)
    must_check;
/* The same of a method whose answer may take that long. */
int ask_for(const Peer *peer, const char *method, const char *const *args, uint64_t timeout_usec,
            json_t **ret, Error *err) must_check;
/* Puts on the error of a daemon that did not answer where to look. */
void ask_explain(const Peer *peer, Error *err);

/* A whole verb that changes something: calls, and says `done` (formatted) or why not. With `json`
 * {"ok": bool, "message": string, "remedy": string | null} either way. The exit status. */
int ask_to(const Peer *peer, const char *method, const char *const *args, bool json,
           const char *done, ...) printf_like(5, 6);

#endif
