/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl apply | restart | rollback | retry */

#include <errno.h>
#include <unistd.h>

#include "agent/agentctl/ask.h"
#include "agent/agentctl/document.h"
#include "agent/agentctl/verb.h"
#include "agent/base/str.h"

#define PAGE_MAX (4U << 20)

static const char *arg_dry_run, *arg_json;

const VerbOption apply_options[] = {
    {"dry-run", NULL, &arg_dry_run, "show what would be done, and do nothing", 0},
    {"json", NULL, &arg_json, "print it as JSON", 0},
    {0},
};
const VerbOption container_options[] = {
    {"json", NULL, &arg_json, "print the outcome as JSON", 0},
    {0},
};

/* What would be done, one row each; what is as declared is counted. */
static int changes_view(const json_t *changes, const View *view, Buf *page)
{
    static const Column columns[] = {
        {"ITEM", COLUMN_SHRINK | COLUMN_KEEP_END}, {"ACTION", 0}, {"WHAT", COLUMN_SHRINK}};
    auto_(table_freep) Table *table = NULL;
    const json_t *item;
    size_t i, rows = 0;
    int r;

    r = table_new(columns, ELEMENTS(columns), &table);
    json_array_foreach (changes, i, item) {
        const char *action = text_of(item, "action", "?");
        auto_free char *name = NULL;

        if (r < 0)
            return r;
        if (streq(action, "none"))
            continue;
        name = str_printf("%s %s", text_of(item, "kind", "?"), text_of(item, "name", ""));
        r = name
                ? table_add(table, (const char *const[]){name, action, text_of(item, "what", NULL)})
                : -ENOMEM;
        rows++;
    }
    if (r >= 0 && rows > 0)
        r = table_render(table, view, 0, page);
    if (r >= 0 && json_array_size(changes) > rows)
        r = buf_printf(page, "%zu item%s as declared\n", json_array_size(changes) - rows,
                       json_array_size(changes) - rows == 1 ? " is" : "s are");
    return r < 0 || json_array_size(changes) > 0 ? r : buf_add_str(page, "No plan is in force.\n");
}

static int dry_run(void)
{
    const View view = render_view_of(STDOUT_FILENO);
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    json_auto_t *changes = NULL;
    auto_error Error err = {0};

    if (ask(&peer_agent, "DryRun", NULL, &changes, &err) < 0)
        return verb_fail(&err, verb_status_of(&err));
    if (arg_json)
        return verb_print_json(json_incref(changes));
    if (changes_view(changes, &view, &page) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    return verb_print(buf_str(&page));
}

int verb_apply(char *const *operands)
{
    if (arg_dry_run)
        return dry_run();
    return ask_to(&peer_agent, "Apply", NULL, arg_json,
                  "agentd looks at everything; agentctl status --watch shows how it goes");
}

static int container_verb(const char *method, char *const *operands, const char *what)
{
    return ask_to(&peer_agent, method, (const char *const[]){operands[0], NULL}, arg_json,
                  "container %s: %s; agentctl status --watch shows how it goes", operands[0], what);
}

int verb_restart(char *const *operands)
{
    return container_verb("Restart", operands, "restarting");
}

int verb_rollback(char *const *operands)
{
    return container_verb("Rollback", operands, "rolling back");
}

int verb_retry(char *const *operands)
{
    return container_verb("Retry", operands, "trying again");
}
