/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_FETCH_ROBOTS_H
#define CRAWLER_FETCH_ROBOTS_H

/* robots.txt (RFC 9309): the rules for one product token, and which one a path meets. Crawl-delay
 * is not in the RFC and honoured all the same, as a minimum. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/cleanup.h"

#define ROBOTS_SIZE_MAX     (500U << 10) /* the RFC wants at least that much parsed */
#define ROBOTS_MAX_AGE_USEC (UINT64_C(24) * 3600 * 1000000)
#define ROBOTS_PRODUCT      "mervis-agent"

typedef struct Robots Robots;

/* Bytes beyond ROBOTS_SIZE_MAX are ignored. Nothing is an error but -ENOMEM: what cannot be read is
 * no rule. */
int robots_parse(const char *text, size_t size, const char *product, Robots **ret) must_check;
Robots *robots_free(Robots *robots);
DEFINE_AUTO(Robots, robots_free)

/* `path` begins with '/' and has the query. The longest rule wins, Allow where two are as long. */
bool robots_allows(const Robots *robots, const char *path);
uint64_t robots_delay_usec(const Robots *robots);

#endif
