/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of resources, in stage order: one row to add one. */
#include "agent/resource/container.h"
#include "agent/resource/crawler.h"
#include "agent/resource/images.h"
#include "agent/resource/resource.h"
#include "agent/resource/secret.h"
#include "agent/resource/system.h"

const ResourceOps *const resource_kinds[] = {
    &resource_timezone, &resource_swap,    &resource_file,
    &resource_script,   &resource_secret,  &resource_container,
    &resource_images,   &resource_crawler, NULL,
};
