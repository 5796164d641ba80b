/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl plan show | validate | schema */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/agentctl/ask.h"
#include "agent/agentctl/plan-view.h"
#include "agent/agentctl/validate.h"
#include "agent/agentctl/verb.h"
#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/io/daemon.h"
#include "agent/io/json.h"
#include "agent/plan/plan.h"

/* More than a plan may have, so that one that is too big is told so by its own check. */
#define FILE_SIZE_MAX   (4u << 20)
#define OUTPUT_SIZE_MAX (16u << 20)

static const char *arg_json;

const VerbOption plan_show_options[] = {
    {"json", NULL, &arg_json, "print it as JSON", 0},
    {0},
};

const VerbOption plan_validate_options[] = {
    {"json", NULL, &arg_json, "print the verdict as JSON", 0},
    {0},
};

/* -- validate -- */

static int read_plan(const char *path, Buf *ret, Error *err)
{
    if (streq(path, "-"))
        path = "/dev/stdin";
    return file_read(path, FILE_SIZE_MAX, ret, err);
}

static json_t *verdict_json(const Verdict *verdict)
{
    json_auto_t *errors = json_array(), *warnings = json_array();

    for (size_t i = 0; i < verdict->errors.n; i++) {
        const FieldError *e = verdict->errors.items + i;
        json_t *item = json_pack("{s:s, s:s, s:i, s:i}", "path", e->path, "message", e->message,
                                 "line", (int)e->line, "column", (int)e->column);

        if (json_array_append_new(errors, item) < 0)
            return NULL;
    }
    if (verdict->warning && json_array_append_new(warnings, json_string(verdict->warning)) < 0)
        return NULL;
    return json_pack("{s:b, s:b, s:O, s:O}", "truncated", verdict->errors.truncated, "valid",
                     verdict->errors.n == 0, "errors", errors, "warnings", warnings);
}

/* "FILE:LINE:COLUMN: path: message", as compilers do, so that editors find the place. */
static int print_verdict(const char *file, const Verdict *verdict)
{
    auto_buf Buf text = BUF_INIT(OUTPUT_SIZE_MAX);
    int r = 0;

    for (size_t i = 0; r >= 0 && i < verdict->errors.n; i++) {
        const FieldError *e = verdict->errors.items + i;

        r = buf_printf(&text, "%s:", file);
        if (r >= 0 && e->line > 0)
            r = buf_printf(&text, "%u:%u:", e->line, e->column);
        if (r >= 0)
            r = buf_printf(&text, " %s%s%s\n", e->path, *e->path ? ": " : "", e->message);
    }
    if (r >= 0 && verdict->warning)
        r = buf_printf(&text, "%s: warning: %s\n", file, verdict->warning);
    if (r >= 0 && verdict->errors.n == 0)
        r = buf_printf(&text, "%s: valid\n", file);
    else if (r >= 0)
        r = buf_printf(&text, "%s: %zu fault%s%s\n", file, verdict->errors.n,
                       verdict->errors.n == 1 ? "" : "s",
                       verdict->errors.truncated ? " and more" : "");
    return r < 0 ? EXIT_DEGRADED : verb_print(buf_str(&text));
}

int verb_plan_validate(char *const *operands)
{
    auto_buf Buf text = BUF_INIT(FILE_SIZE_MAX);
    auto_verdict Verdict verdict = {0};
    auto_free char *crawlerd = daemon_sibling("crawlerd");
    auto_error Error err = {0};
    int r;

    r = read_plan(operands[0], &text, &err);
    if (r < 0) {
        if (err.code == 0) /* absent: file_read() says nothing of it */
            (void)error_errno(&err, r, "%s", operands[0]);
        if (r == -ENOENT)
            (void)error_remedy(&err, r,
                               "name a file that has a plan (- is standard input); `agentctl plan "
                               "schema` tells what is in one");
        return verb_fail(&err, EXIT_DEGRADED);
    }
    if (!crawlerd)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    r = plan_judge(buf_str(&text), text.size, crawlerd, &verdict, &err);
    if (r < 0)
        return verb_fail(&err, EXIT_DEGRADED);
    r = arg_json
            ? verb_print_json(verdict_json(&verdict))
            : print_verdict(streq(operands[0], "-") ? "standard input" : operands[0], &verdict);
    return r != EXIT_WELL || verdict.errors.n > 0 ? EXIT_DEGRADED : EXIT_WELL;
}

/* -- schema -- */

int verb_plan_schema(char *const *operands)
{
    return verb_print_json(plan_schema());
}

/* -- show -- */

int verb_plan_show(char *const *operands)
{
    auto_buf Buf text = BUF_INIT(OUTPUT_SIZE_MAX);
    json_auto_t *answer = NULL;
    auto_error Error err = {0};

    if (ask(&peer_agent, "Plan", NULL, &answer, &err) < 0)
        return verb_fail(&err, verb_status_of(&err));
    if (arg_json)
        return verb_print_json(json_incref(answer));
    if (plan_view(answer, &text) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    return verb_print(buf_str(&text));
}
