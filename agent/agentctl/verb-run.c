/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl recipe list | show | test, agentctl logs: another program in our place. */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/agentctl/verb.h"
#include "agent/base/buf.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/daemon.h"

#define LOG_LINES_DEFAULT "100"
#define NAME_SIZE_MAX     128

/* Only for help and completion: crawlerd reads them. */
static const char *arg_passed;
static const char *arg_lines = LOG_LINES_DEFAULT, *arg_follow, *arg_explain, *arg_since;

const VerbOption recipe_list_options[] = {
    {"json", NULL, &arg_passed, "print them as JSON", 0},
    {0},
};
const VerbOption recipe_test_options[] = {
    {"reply", "BODY", &arg_passed, "the recorded reply, \"-\" for standard input; needed", 0},
    {"status", "N", &arg_passed, "its HTTP status (200)", 0},
    {"content-type", "TYPE", &arg_passed, "its Content-Type", 0},
    {"symbol", "SYMBOL", &arg_passed, "the symbol that was asked for", 0},
    {"interval", "INTERVAL", &arg_passed, "the interval that was asked for", 0},
    {"now", "TIME", &arg_passed, "when the reply came: what was not over then is not final", 0},
    {0},
};
const VerbOption logs_options[] = {
    {"lines", "N", &arg_lines, "the last N records (" LOG_LINES_DEFAULT ")", 'n'},
    {"follow", NULL, &arg_follow, "go on as records come", 'f'},
    {"explain", NULL, &arg_explain, "explain events, and name their remedies", 'x'},
    {"since", "TIME", &arg_since, "from then on: \"1 hour ago\", \"today\", a date", 0},
    {0},
};

/* Returns only when it cannot be run. */
static int become(char **argv)
{
    auto_error Error err = {0};

    (void)execvp(argv[0], argv);
    (void)error_errno(&err, errno, "run %s", argv[0]);
    return verb_fail(&err, EXIT_UNREACHABLE);
}

static int out_of_memory(void)
{
    auto_error Error err = {0};

    return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
}

/* -- recipe -- */

static int recipe(const char *verb, char *const *arguments)
{
    auto_free char *crawlerd = daemon_sibling("crawlerd");
    auto_(strv_freep) char **argv = NULL;

    if (!crawlerd || strv_push(&argv, crawlerd) < 0 || strv_push(&argv, "recipe") < 0 ||
        strv_push(&argv, verb) < 0)
        return out_of_memory();
    STRV_FOREACH (argument, arguments)
        if (strv_push(&argv, *argument) < 0)
            return out_of_memory();
    return become(argv);
}

int verb_recipe_list(char *const *arguments)
{
    return recipe("list", arguments);
}

int verb_recipe_show(char *const *arguments)
{
    return recipe("show", arguments);
}

int verb_recipe_test(char *const *arguments)
{
    return recipe("test", arguments);
}

/* -- logs -- */

/* What the names of containers, scripts and units consist of; nothing that journalctl would read
 * as an option or a pattern. */
static bool is_name(const char *s)
{
    if (!isalnum((unsigned char)*s) || strlen(s) > NAME_SIZE_MAX)
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("_.-", *s))
            return false;
    return true;
}

static bool is_daemon(const char *name)
{
    return streq(name, "agentd") || streq(name, "crawlerd") || streq(name, "statusd");
}

static int push_printf(char ***argv, const char *format, const char *name)
{
    auto_buf Buf text = BUF_INIT(4 * NAME_SIZE_MAX);
    const char *at = strchr(format, '%');

    if (buf_add(&text, format, (size_t)(at - format)) < 0 || buf_add_str(&text, name) < 0 ||
        buf_add_str(&text, at + 1) < 0)
        return -ENOMEM;
    return strv_push(argv, buf_str(&text));
}

/* A container writes under the name that it was started with; what agentd did to it, and the unit
 * of a script of that name, stand between. */
static int push_matches(char ***argv, const char *name)
{
    static const char *const everything[] = {"--unit=agentd", "--unit=crawlerd", "--unit=statusd",
                                             "--unit=mervis-script-*"};
    static const char *const of_one[] = {"CONTAINER_NAME=%",
                                         "+",
                                         "CONTAINER_NAME=%.next",
                                         "+",
                                         "CONTAINER_NAME=%.previous",
                                         "+",
                                         "MERVIS_RESOURCE=container/%",
                                         "+",
                                         "MERVIS_RESOURCE=script/%",
                                         "+",
                                         "_SYSTEMD_UNIT=mervis-script-%.service"};
    int r = 0;

    for (size_t i = 0; !name && r >= 0 && i < ELEMENTS(everything); i++)
        r = strv_push(argv, everything[i]);
    if (name && is_daemon(name))
        return push_printf(argv, "--unit=%", name);
    for (size_t i = 0; name && r >= 0 && i < ELEMENTS(of_one); i++)
        r = streq(of_one[i], "+") ? strv_push(argv, "+") : push_printf(argv, of_one[i], name);
    return r;
}

int verb_logs(char *const *operands)
{
    auto_(strv_freep) char **argv = NULL;
    auto_error Error err = {0};
    uint64_t lines;

    if (parse_u64(arg_lines, &lines) < 0) {
        (void)error_set(&err, -EINVAL, ERROR_INVALID, "--lines takes a number, not \"%s\"",
                        arg_lines);
        return verb_fail(&err, EXIT_USAGE);
    }
    if (operands[0] && !is_name(operands[0])) {
        (void)error_set(&err, -EINVAL, ERROR_INVALID, "\"%s\" is no name of a container or daemon",
                        operands[0]);
        return verb_fail(&err, EXIT_USAGE);
    }
    if (strv_push(&argv, "journalctl") < 0 || push_printf(&argv, "--lines=%", arg_lines) < 0 ||
        (arg_follow && strv_push(&argv, "--follow") < 0) ||
        (arg_explain && strv_push(&argv, "--catalog") < 0) ||
        (arg_since && push_printf(&argv, "--since=%", arg_since) < 0) ||
        push_matches(&argv, operands[0]) < 0)
        return out_of_memory();
    return become(argv);
}
