/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_STATUS_VIEW_H
#define AGENT_AGENTCTL_STATUS_VIEW_H

/* The status document of agent/io/status-keys.h as a page: what is wrong first, with its remedy,
 * then the plan, and everything that it declares. A pure function of document, width and clock. */

#include <jansson.h>

#include "agent/agentctl/render.h"

/* `status` is what `agentctl status --json` prints: the agent's document with "reachable" and
 * "crawler". An object without "kind" is a machine of which nothing was ever recorded. */
int status_view(const json_t *status, const View *view, Buf *ret) must_check;

/* Its secrets and its crawler alone, what is wrong with them said too; `*ret_well` when nothing is.
 */
int status_view_secrets(const json_t *status, const View *view, bool *ret_well, Buf *ret)
    must_check;
int status_view_crawler(const json_t *crawler, const View *view, bool *ret_well, Buf *ret)
    must_check;

/* Whether all is well: the agent says so, and the crawler, if it is there, is not degraded. */
bool status_is_well(const json_t *status);

#endif
