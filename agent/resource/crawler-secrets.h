/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_CRAWLER_SECRETS_H
#define AGENT_RESOURCE_CRAWLER_SECRETS_H

/* The values that recipes name, where crawlerd reads them: <crawler-dir>/secrets/NAME, 0400, on a
 * ramfs of their own that belongs to crawlerd's user. They stay there while agentd is away, for
 * crawlerd runs on without it. */

#include "agent/resource/resource.h"

/* Whether the good version of each, and nothing else, is there. What cannot be read is not. */
bool crawler_secrets_are_handed(const ResourceContext *context, char *const *names);

/* `dir_fd` is crawlerd's runtime directory, `uid` and `gid` its owner (-1: leave them). All that
 * are needed are in the store before the first one is written (-EINPROGRESS until then): they
 * change together. What is there beside them goes. */
int crawler_secrets_write(const ResourceContext *context, char *const *names, int dir_fd, uid_t uid,
                          gid_t gid, Error *err) must_check;

/* Nothing of them is left behind, nor the ramfs. */
int crawler_secrets_remove(const char *crawler_dir, Error *err) must_check;

#endif
