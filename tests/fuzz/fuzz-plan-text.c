/* SPDX-License-Identifier: Apache-2.0 */

/* The short texts of a plan: ports, volumes, tmpfs, extra hosts. What is taken is what it says, and
 * nothing of it can be read as more than one argument. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/plan/plan.h"
#include "tests/fuzz/fuzz.h"

static bool is_path(const char *path)
{
    return path[0] == '/' && !strchr(path, ':') && !strstr(path, "/../");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_free char *text = strndup((const char *)data, size), *name = NULL, *address = NULL;
    auto_(plan_volume_done) PlanVolume volume = {0};
    auto_(plan_tmpfs_done) PlanTmpfs tmpfs = {0};
    PlanPort port = {0};

    FUZZ_CHECK(text);
    if (plan_port_parse(text, &port) >= 0)
        FUZZ_CHECK(port.host_port > 0 && port.container_port > 0 && !strpbrk(port.address, "[] /"));
    if (plan_volume_parse(text, &volume) >= 0) {
        FUZZ_CHECK(volume.source && is_path(volume.target));
        FUZZ_CHECK(volume.is_bind ? is_path(volume.source) : !strpbrk(volume.source, "/:"));
    }
    if (plan_tmpfs_parse(text, &tmpfs) >= 0)
        FUZZ_CHECK(is_path(tmpfs.path));
    if (plan_extra_host_parse(text, &name, &address) >= 0)
        FUZZ_CHECK(*name && !strchr(name, ':') && *address);
    return 0;
}
