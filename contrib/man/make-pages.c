/* SPDX-License-Identifier: Apache-2.0 */

/* Writes what comes from the tables: agentctl(1) from the verbs, mervis-plan(5) from the plan's
 * fields, the completion from both. `make-pages PAGE [STATUS-KEYS.H]` prints one on standard
 * output. */

#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "agent/agentctl/doctor.h"
#include "agent/agentctl/verb.h"
#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/plan/plan.h"

#define PAGE_MAX (4U << 20)

/* Text as roff reads it as itself: no line begins with a control character, no backslash and no
 * hyphen is taken for something else. */
static int add_text(Buf *page, const char *text)
{
    bool begins = page->size == 0 || page->data[page->size - 1] == '\n';
    int r = 0;

    for (; r >= 0 && *text; text++) {
        if (begins && (*text == '.' || *text == '\''))
            r = buf_add_str(page, "\\&");
        begins = *text == '\n';
        if (r < 0)
            return r;
        if (*text == '\\')
            r = buf_add_str(page, "\\e");
        else if (*text == '-')
            r = buf_add_str(page, "\\-");
        else
            r = buf_add_char(page, *text);
    }
    return r;
}

static int add_header(Buf *page, const char *name, const char *section, const char *summary)
{
    return buf_printf(page,
                      ".\\\" SPDX-License-Identifier: Apache-2.0\n"
                      ".TH %s %s \"\" \"mervis-agent " PACKAGE_VERSION "\" \"mervis-agent\"\n"
                      ".SH NAME\n%s \\- %s\n",
                      name, section, name, summary);
}

/* ---- agentctl(1) ---- */

static int add_option(Buf *page, const VerbOption *option)
{
    int r = buf_add_str(page, ".RS\n.TP\n.B ");

    if (r >= 0 && option->letter)
        r = buf_printf(page, "\\-%c, ", option->letter);
    if (r >= 0)
        r = add_text(page, "--");
    if (r >= 0)
        r = add_text(page, option->name);
    if (r >= 0 && option->argument)
        r = buf_printf(page, " \\fI%s\\fR", option->argument);
    if (r >= 0)
        r = buf_add_char(page, '\n');
    if (r >= 0)
        r = add_text(page, option->help);
    return r < 0 ? r : buf_add_str(page, "\n.RE\n");
}

static int add_verb(Buf *page, const Verb *verb)
{
    int r;

    r = buf_printf(page, ".TP\n\\fBagentctl %s\\fR", verb->name);
    if (r >= 0 && *verb->operands)
        r = buf_printf(page, " \\fI%s\\fR", verb->operands);
    if (r >= 0)
        r = buf_add_char(page, '\n');
    if (r >= 0)
        r = buf_add_char(page, (char)toupper((unsigned char)*verb->help));
    if (r >= 0)
        r = add_text(page, verb->help + 1);
    if (r >= 0)
        r = buf_add_str(page, ".\n");
    if (r >= 0 && verb->manual)
        r = add_text(page, verb->manual);
    if (r >= 0 && verb->manual)
        r = buf_add_char(page, '\n');
    for (const VerbOption *option = verb->options; r >= 0 && option && option->name; option++)
        r = add_option(page, option);
    return r;
}

static int add_checks(Buf *page)
{
    int r = buf_add_str(page, ".SH CHECKS OF DOCTOR\n");

    for (const DoctorHelp *line = doctor_manual(); r >= 0 && line->id; line++) {
        r = buf_add_str(page, ".TP\n.B ");
        if (r >= 0)
            r = add_text(page, line->id);
        if (r >= 0)
            r = buf_add_char(page, '\n');
        if (r >= 0)
            r = add_text(page, line->help);
        if (r >= 0)
            r = buf_add_char(page, '\n');
    }
    return r;
}

/* The comment of status-keys.h, which is where the keys are written down, as it stands. */
static int add_status_keys(Buf *page, const char *path)
{
    auto_buf Buf text = BUF_INIT(PAGE_MAX);
    char *line, *end;
    int r;

    r = file_read(path, PAGE_MAX, &text, NULL);
    if (r < 0)
        return r;
    line = strstr(text.data, "/* The two status");
    end = line ? strstr(line, "*/") : NULL;
    if (!end)
        return -1;
    *end = '\0';
    r = buf_add_str(page, ".SH STATUS\n.nf\n");
    line += strlen("/* ");
    for (char *next; r >= 0 && line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (startswith(line, " * "))
            line += strlen(" * ");
        else if (streq(line, " *"))
            line += strlen(" *");
        r = add_text(page, line);
        if (r >= 0)
            r = buf_add_char(page, '\n');
    }
    return r < 0 ? r : buf_add_str(page, ".fi\n");
}

static int agentctl_page(Buf *page, const char *keys)
{
    int r;

    r = add_header(page, "agentctl", "1", "show and steer mervis-agent on this machine");
    if (r >= 0)
        r = buf_add_str(page, ".SH SYNOPSIS\n.B agentctl\n.I VERB\n[\\fIOPTION\\fR]... "
                              "[\\fIOPERAND\\fR]...\n"
                              ".SH DESCRIPTION\nReads need no root; what changes something does. "
                              "Colour is used on a terminal alone, unless NO_COLOR is set.\n"
                              ".SH VERBS\n");
    for (size_t i = 0; r >= 0 && i < n_verbs; i++)
        r = add_verb(page, verbs + i);
    if (r >= 0)
        r = buf_add_str(page, ".SH EXIT STATUS\n.TP\n.B 0\nall is well\n.TP\n.B 1\ndegraded, or "
                              "refused\n.TP\n.B 2\na daemon, or a program, is not to be reached\n"
                              ".TP\n.B 64\nwrong usage\n.PP\nWhere a verb has others, it says "
                              "so.\n");
    if (r >= 0)
        r = add_checks(page);
    if (r >= 0)
        r = add_status_keys(page, keys);
    return r < 0 ? r
                 : buf_add_str(page, ".SH SEE ALSO\n.BR mervis-plan (5),\n.BR agentd (8),\n.BR "
                                     "crawlerd (8),\n.BR statusd (8)\n");
}

/* ---- mervis-plan(5) ---- */

static int plan_page(Buf *page)
{
    int r;

    r = add_header(page, "mervis\\-plan", "5", "what a VM shall be");
    if (r >= 0)
        r = buf_add_str(
            page,
            ".SH DESCRIPTION\nOne JSON document: the metadata attribute \\fBmervis\\-plan\\fR of "
            "the instance, else of the project (\\fBmervis\\-plan\\-ROLE\\fR where "
            "\\fBmervis\\-role\\fR is set); on a machine that is no cloud VM "
            "\\fI/etc/mervis\\-agent/plan.json\\fR. An unknown or repeated key, a wrong type and a "
            "value out of bounds are errors, and a plan with an error is not applied: the last "
            "good one stays in force. \\fBagentctl plan validate\\fR lists every error with line "
            "and column, \\fBagentctl plan schema\\fR prints the JSON Schema.\n.SH KEYS\n");
    if (r >= 0)
        r = plan_manual(page);
    return r < 0 ? r : buf_add_str(page, ".SH SEE ALSO\n.BR agentctl (1),\n.BR agentd (8)\n");
}

/* ---- Completion ---- */

static size_t first_word(const char *name)
{
    return strcspn(name, " ");
}

static int add_first_words(Buf *page)
{
    int r = buf_add_str(page, "    local verbs='");

    for (size_t i = 0; r >= 0 && i < n_verbs; i++) {
        size_t size = first_word(verbs[i].name);

        if (i > 0 && first_word(verbs[i - 1].name) == size &&
            strncmp(verbs[i - 1].name, verbs[i].name, size) == 0)
            continue;
        r = buf_printf(page, "%.*s ", (int)size, verbs[i].name);
    }
    return r < 0 ? r : buf_add_str(page, "--help --version'\n");
}

/* "        plan) words='show validate schema' ;;" */
static int add_second_words(Buf *page)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < n_verbs; i++) {
        size_t size = first_word(verbs[i].name);
        bool begins = i == 0 || strncmp(verbs[i - 1].name, verbs[i].name, size + 1) != 0;
        bool ends = i + 1 == n_verbs || strncmp(verbs[i + 1].name, verbs[i].name, size + 1) != 0;

        if (!verbs[i].name[size])
            continue;
        if (begins)
            r = buf_printf(page, "        %.*s) words='", (int)size, verbs[i].name);
        if (r >= 0)
            r = buf_printf(page, "%s%s", verbs[i].name + size + 1, ends ? "' ;;\n" : " ");
    }
    return r;
}

static int add_option_words(Buf *page)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < n_verbs; i++) {
        r = buf_printf(page, "        '%s') words='", verbs[i].name);
        for (const VerbOption *option = verbs[i].options; r >= 0 && option && option->name;
             option++)
            r = buf_printf(page, "--%s ", option->name);
        if (r >= 0)
            r = buf_add_str(page, "--help' ;;\n");
    }
    return r;
}

/* Verbs that take a container's name are completed from the status. */
static int add_name_verbs(Buf *page)
{
    int r = buf_add_str(page, "        ");
    bool first = true;

    for (size_t i = 0; r >= 0 && i < n_verbs; i++) {
        if (!streq(verbs[i].operands, "NAME") && !streq(verbs[i].operands, "[NAME]"))
            continue;
        r = buf_printf(page, "%s%s", first ? "" : "|", verbs[i].name);
        first = false;
    }
    return r < 0 ? r : buf_add_str(page, ") words=$(_agentctl_names) ;;\n");
}

static int completion(Buf *page)
{
    int r;

    r = buf_add_str(
        page,
        "# SPDX-License-Identifier: Apache-2.0\n"
        "# bash completion of agentctl, made from its table of verbs.\n"
        "_agentctl_names() {\n"
        "    agentctl status --json 2>/dev/null | sed -n '/^  \"containers\"/,/^  \\]/s/^      "
        "\"name\": \"\\(.*\\)\",*$/\\1/p'\n"
        "}\n\n"
        "_agentctl() {\n"
        "    local current=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words=\n");
    if (r >= 0)
        r = add_first_words(page);
    if (r >= 0)
        r = buf_add_str(page, "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                              "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$current\"))\n"
                              "        return\n    fi\n"
                              "    case $verb in\n");
    if (r >= 0)
        r = add_second_words(page);
    if (r >= 0)
        r = buf_add_str(page, "    esac\n"
                              "    if [ -n \"$words\" ] && [ \"$COMP_CWORD\" -eq 2 ]; then\n"
                              "        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
                              "        return\n    fi\n"
                              "    [ -z \"$words\" ] || verb=\"$verb ${COMP_WORDS[2]}\"\n"
                              "    words=\n"
                              "    case $current in\n    -*) case $verb in\n");
    if (r >= 0)
        r = add_option_words(page);
    if (r >= 0)
        r = buf_add_str(page, "        esac ;;\n    *) case $verb in\n");
    if (r >= 0)
        r = add_name_verbs(page);
    return r < 0 ? r
                 : buf_add_str(page, "        'plan validate'|'recipe show'|'recipe test') "
                                     "COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n"
                                     "        esac ;;\n    esac\n"
                                     "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n}\n"
                                     "complete -F _agentctl agentctl\n");
}

int main(int argc, char **argv)
{
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    int r = -1;

    if (argc == 3 && streq(argv[1], "agentctl.1"))
        r = agentctl_page(&page, argv[2]);
    else if (argc == 2 && streq(argv[1], "mervis-plan.5"))
        r = plan_page(&page);
    else if (argc == 2 && streq(argv[1], "agentctl.bash"))
        r = completion(&page);
    if (r < 0 || fputs(buf_str(&page), stdout) == EOF || fflush(stdout) != 0) {
        (void)fputs("make-pages: nothing made\n", stderr);
        return 1;
    }
    return 0;
}
