/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of resources, in stage order: one row to add one. */
#include "agent/resource/container.h"
#include "agent/resource/resource.h"

const ResourceOps *const resource_kinds[] = {
    &resource_container,
    NULL,
};
