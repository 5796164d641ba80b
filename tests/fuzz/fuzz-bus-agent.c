/* SPDX-License-Identifier: Apache-2.0 */

/* io.mervis.Agent1: any arguments to any method. What the manager is asked is a text; the daemon
 * answers, whatever it was sent. The manager's side is a double. */

#include <errno.h>
#include <string.h>

#include "agent/agentd/manager-internal.h"
#include "agent/base/str.h"
#include "tests/fuzz/bus-pair.h"

json_t *__wrap_manager_describe(Manager *m);
json_t *__wrap_manager_plan(Manager *m);
json_t *__wrap_manager_history(Manager *m);
json_t *__wrap_manager_dry_run(Manager *m);
int __wrap_manager_apply(Manager *m, Error *err);
int __wrap_manager_container_verb(Manager *m, const char *verb, const char *name, Error *err);
const char *__wrap_manager_state(const Manager *m);
uint64_t __wrap_manager_generation(const Manager *m);
bool __wrap_manager_is_ready(const Manager *m, char **ret_reason);
int __wrap_bus_method_cleanup(sd_bus_message *message, void *userdata, sd_bus_error *error);
int __wrap_bus_method_cleanup_dry_run(sd_bus_message *message, void *userdata, sd_bus_error *error);

json_t *__wrap_manager_describe(Manager *m)
{
    return json_pack("{s:s}", "kind", "agent");
}

json_t *__wrap_manager_plan(Manager *m)
{
    return json_object();
}

json_t *__wrap_manager_history(Manager *m)
{
    return json_array();
}

json_t *__wrap_manager_dry_run(Manager *m)
{
    return json_array();
}

int __wrap_manager_apply(Manager *m, Error *err)
{
    return 0;
}

int __wrap_manager_container_verb(Manager *m, const char *verb, const char *name, Error *err)
{
    int r;

    FUZZ_CHECK(verb && name && str_is_utf8(name, strlen(name)));
    if (streq(name, "web"))
        return 0;
    r = error_set(err, -ENOENT, ERROR_INVALID, "there is no container \"%s\"", name);
    return error_remedy(err, r, "agentctl status");
}

const char *__wrap_manager_state(const Manager *m)
{
    return "well";
}

uint64_t __wrap_manager_generation(const Manager *m)
{
    return 1;
}

bool __wrap_manager_is_ready(const Manager *m, char **ret_reason)
{
    return true;
}

int __wrap_bus_method_cleanup(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return sd_bus_reply_method_return(message, "s", "{}");
}

int __wrap_bus_method_cleanup_dry_run(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return sd_bus_reply_method_return(message, "s", "{}");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"Restart",       "Rollback", "Retry",  "Describe",
                                          "History",       "Plan",     "DryRun", "Cleanup",
                                          "CleanupDryRun", "Apply",    "Nothing"};
    Manager m = {0};
    BusPair pair;

    bus_pair_init(&pair);
    m.event = pair.event;
    FUZZ_CHECK(manager_serve_bus(&m, NULL) >= 0 && m.bus);
    bus_pair_call(&pair, methods, ELEMENTS(methods), data, size);
    m.bus = sd_bus_unref(m.bus);
    bus_pair_done(&pair);
    return 0;
}
