/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl secrets */

#include <unistd.h>

#include "agent/agentctl/ask.h"
#include "agent/agentctl/status-view.h"
#include "agent/agentctl/verb.h"

#define PAGE_MAX (4U << 20)

static const char *arg_json;

const VerbOption secrets_options[] = {
    {"json", NULL, &arg_json, "print them as JSON", 0},
    {0},
};

int verb_secrets(char *const *operands)
{
    const View view = render_view_of(STDOUT_FILENO);
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    json_auto_t *status = NULL;
    auto_error Error err = {0};
    bool well;

    if (ask(&peer_agent, "Describe", NULL, &status, &err) < 0)
        return verb_fail(&err, verb_status_of(&err));
    if (arg_json)
        return verb_print_json(json_incref(json_object_get(status, "secrets")));
    if (status_view_secrets(status, &view, &well, &page) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    return verb_print(buf_str(&page)) != EXIT_WELL || !well ? EXIT_DEGRADED : EXIT_WELL;
}
