/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_HISTORY_VIEW_H
#define AGENT_AGENTCTL_HISTORY_VIEW_H

/* The answer of Agent1.History() as a page, and the two lists of Crawler1.DeadLetters(). */

#include <jansson.h>

#include "agent/agentctl/render.h"

int history_view(const json_t *answer, const View *view, Buf *page) must_check;
int dead_letters_view(const json_t *answer, const View *view, Buf *page) must_check;

#endif
