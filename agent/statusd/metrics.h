/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_STATUSD_METRICS_H
#define AGENT_STATUSD_METRICS_H

/* The two status documents (agent/io/status-keys.h) as Prometheus text: one table row a metric.
 * Values that are null or absent are left out. */

#include <jansson.h>

#include "agent/base/buf.h"

/* `agent` and `crawler` may be NULL: then their `_up` is 0 and the rest of theirs is left out. */
int metrics_format(const json_t *agent, const json_t *crawler, Buf *ret) must_check;

#endif
