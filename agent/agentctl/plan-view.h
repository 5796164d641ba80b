/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_PLAN_VIEW_H
#define AGENT_AGENTCTL_PLAN_VIEW_H

/* The answer of Agent1.Plan() for people: the facts, what was refused, and the document. */

#include <jansson.h>

#include "agent/base/buf.h"

int plan_view(const json_t *answer, Buf *text) must_check;

#endif
