/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl history */

#include <unistd.h>

#include "agent/agentctl/ask.h"
#include "agent/agentctl/history-view.h"
#include "agent/agentctl/verb.h"

#define PAGE_MAX (4U << 20)

static const char *arg_json;

const VerbOption history_options[] = {
    {"json", NULL, &arg_json, "print it as JSON", 0},
    {0},
};

int verb_history(char *const *operands)
{
    const View view = render_view_of(STDOUT_FILENO);
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    json_auto_t *answer = NULL;
    auto_error Error err = {0};

    if (ask(&peer_agent, "History", NULL, &answer, &err) < 0)
        return verb_fail(&err, verb_status_of(&err));
    if (arg_json)
        return verb_print_json(json_incref(answer));
    if (history_view(answer, &view, &page) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    return verb_print(buf_str(&page));
}
