/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as robots.txt, and the last line of them as a path: robots.txt itself is always
 * allowed, a delay is bounded, and the answer does not depend on when it is asked. */

#include <string.h>

#include "agent/base/time.h"
#include "crawler/fetch/robots.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_(robots_freep) Robots *robots = NULL;
    auto_free char *text = strndup((const char *)data, size);
    const char *line;
    bool first;

    FUZZ_CHECK(text);
    if (robots_parse((const char *)data, size, ROBOTS_PRODUCT, &robots) < 0)
        return 0;
    FUZZ_CHECK(robots_delay_usec(robots) <= DAY);
    FUZZ_CHECK(robots_allows(robots, "/robots.txt"));
    line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    first = robots_allows(robots, line);
    FUZZ_CHECK(robots_allows(robots, line) == first);
    return 0;
}
