/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_SYSTEM_H
#define AGENT_RESOURCE_SYSTEM_H

/* The kinds of the plan's `system` part, each in its own file. */

#include "agent/resource/resource.h"

extern const ResourceOps resource_timezone;
extern const ResourceOps resource_swap;
extern const ResourceOps resource_file;
extern const ResourceOps resource_script;

#endif
