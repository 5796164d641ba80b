/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_CRAWLER_H
#define AGENT_RESOURCE_CRAWLER_H

/* The crawler as a resource: agentd hands the plan's crawl part to crawlerd as a file in crawlerd's
 * runtime directory and says so over D-Bus. crawlerd keeps its last accepted part itself and runs
 * on without us. What is written belongs to whoever owns that directory.
 *
 *   <crawler-dir>/crawl.json      {"crawl": …, "endpoints": {host: base URL}, "instance": id}
 *   <crawler-dir>/secrets/NAME    values that recipes name (crawler-secrets.h) */

#include "agent/resource/resource.h"

#define CRAWLER_FILE_NAME "crawl.json"
#define CRAWLER_USER      "mervis-crawler"
#define CRAWLER_UNIT      "crawlerd.service"

extern const ResourceOps resource_crawler;

#endif
