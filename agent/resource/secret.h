/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_SECRET_H
#define AGENT_RESOURCE_SECRET_H

#include "agent/resource/resource.h"

extern const ResourceOps resource_secret;

/* Ask the cloud again which version it is, unless it is pinned: another secret of the same consumer
 * moved, and they change together. */
void secret_look(Resource *resource);

#endif
