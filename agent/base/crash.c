/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/crash.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/parse.h"

#define CRASH_STATUS 137 /* as after SIGKILL */

void crash_point(const char *name)
{
    static const char *wanted;
    static bool looked;
    static uint64_t left = 1, any; /* `any`: 0, nobody counts */
    const char *count;
    size_t size;

    if (!looked) {
        looked = true;
        wanted = getenv("MERVIS_CRASH_AT");
        if (wanted && strchr(wanted, ':') && parse_u64(strchr(wanted, ':') + 1, &left) < 0)
            wanted = NULL;
        count = getenv("MERVIS_CRASH_COUNT");
        if (count && parse_u64(count, &any) < 0)
            any = 0;
    }
    if (any > 0 && --any == 0)
        _exit(CRASH_STATUS);
    if (!wanted)
        return;
    size = strcspn(wanted, ":");
    if (strlen(name) == size && strncmp(wanted, name, size) == 0 && --left == 0)
        _exit(CRASH_STATUS);
}
