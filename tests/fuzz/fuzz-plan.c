/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a plan: refused with faults that have a place, or taken, and then every question
 * that can be asked about it has an answer. */

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/plan/plan.h"
#include "tests/fuzz/fuzz.h"

static void check_container(const Plan *plan, const PlanContainer *c)
{
    auto_free char *spec = NULL;
    char **names = NULL;

    FUZZ_CHECK(c->name && c->image && c->network && c->update.order >= 0);
    FUZZ_CHECK(container_secrets(c, &names) == 0);
    STRV_FOREACH (name, names)
        FUZZ_CHECK(plan_secret(plan, *name));
    strv_free(names);
    FUZZ_CHECK(container_spec_canonical(plan, c, &spec) == 0);
    STRV_FOREACH (text, c->ports) {
        PlanPort port;

        FUZZ_CHECK(plan_port_parse(*text, &port) == 0 && port.host_port > 0);
    }
    STRV_FOREACH (text, c->volumes) {
        PlanVolume volume = {0};

        FUZZ_CHECK(plan_volume_parse(*text, &volume) == 0 && *volume.target == '/');
        plan_volume_done(&volume);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    FieldErrors errors = {0};
    char hash[SHA256_HEX_MAX];
    Plan *plan = NULL;
    int r;

    FUZZ_CHECK(plan_hash(text, size, hash) == 0 && strlen(hash) == 64);
    r = plan_parse(text, size, &plan, &errors);
    FUZZ_CHECK(r == 0 ? plan && errors.n == 0 : r == -EINVAL && !plan && errors.n > 0);
    if (plan) {
        char **names = NULL;

        PLAN_FOREACH (const PlanContainer, c, plan->containers)
            check_container(plan, c);
        FUZZ_CHECK(plan_crawl_secrets(plan, &names) == 0);
        strv_free(names);
        (void)!plan_check_identity(plan, true, &errors);
    }
    field_errors_done(&errors);
    plan_free(plan);
    return 0;
}
