/* SPDX-License-Identifier: Apache-2.0 */

/* From argv to a verb: the words that name it, its options, its operands. */

#include "config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/agentctl/render.h"
#include "agent/agentctl/verb.h"
#include "agent/base/buf.h"
#include "agent/base/str.h"
#include "agent/io/json.h"

#define PROGRAM     "agentctl"
#define TEXT_MAX    65536
/* Columns of help up to the explanation. */
#define NAME_COLUMN 30

/* As it was called, for whoever is told to call it again. */
static char *const *arg_words;

char *verb_as_root(void)
{
    auto_free char *words = str_join((const char *const *)arg_words, " ");

    return words ? str_printf("sudo " PROGRAM " %s", words) : NULL;
}

int verb_print(const char *text)
{
    if (fputs(text, stdout) == EOF || fflush(stdout) != 0) {
        /* Whoever reads has seen enough (`| head`): nothing went wrong. */
        if (errno == EPIPE)
            return EXIT_WELL;
        (void)fprintf(stderr, PROGRAM ": standard output: %s\n", strerror(errno));
        return EXIT_DEGRADED;
    }
    return EXIT_WELL;
}

int verb_print_json(json_t *value)
{
    json_auto_t *owned = value;
    auto_free char *text = owned ? json_text(owned, /* pretty= */ true) : NULL;
    auto_free char *line = text ? str_printf("%s\n", text) : NULL;

    if (line)
        return verb_print(line);
    (void)fprintf(stderr, PROGRAM ": out of memory\n");
    return EXIT_DEGRADED;
}

int verb_fail(const Error *err, int status)
{
    (void)fprintf(stderr, PROGRAM ": %s\n", error_text(err));
    if (err->remedy)
        (void)fprintf(stderr, "  %s\n", err->remedy);
    return status;
}

int verb_status_of(const Error *err)
{
    switch (err->code) {
    case -ENOTCONN:
    case -ECONNREFUSED:
    case -ECONNRESET:
    case -ENOENT:
    case -ESRCH:
    case -EHOSTUNREACH:
    case -ETIMEDOUT:
        return EXIT_UNREACHABLE;
    default:
        return err->kind == ERROR_TEMPORARY ? EXIT_UNREACHABLE : EXIT_DEGRADED;
    }
}

static int add_row(Buf *text, const char *left, const char *right)
{
    const View view = {.width = RENDER_WIDTH};
    int r;

    if (strlen(left) + 4 > NAME_COLUMN)
        r = buf_printf(text, "  %s\n%*s", left, NAME_COLUMN, "");
    else
        r = buf_printf(text, "  %-*s", NAME_COLUMN - 2, left);
    return r < 0 ? r : render_wrapped(text, &view, NAME_COLUMN, COLOUR_NONE, right);
}

static int add_options(Buf *text, const VerbOption *options)
{
    int r = 0;

    for (const VerbOption *o = options; r >= 0 && o && o->name; o++) {
        const char letter[] = {'-', o->letter, ',', ' ', '\0'};
        auto_free char *left = str_printf("%s--%s%s%s", o->letter ? letter : "", o->name,
                                          o->argument ? " " : "", o->argument ? o->argument : "");

        r = left ? add_row(text, left, o->help) : -ENOMEM;
    }
    return r < 0 ? r : add_row(text, "--help", "show this");
}

/* Of "plan", "plan show" is one; NULL: all. */
static bool is_in_group(const Verb *verb, const char *group)
{
    const char *rest = group ? startswith(verb->name, group) : NULL;

    return !group || (rest && *rest == ' ');
}

static int add_verbs(Buf *text, const char *group)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < n_verbs; i++) {
        auto_free char *left =
            str_printf("%s%s%s", verbs[i].name, *verbs[i].operands ? " " : "", verbs[i].operands);

        if (is_in_group(verbs + i, group))
            r = left ? add_row(text, left, verbs[i].help) : -ENOMEM;
    }
    return r;
}

static bool is_group(const char *word)
{
    for (size_t i = 0; i < n_verbs; i++)
        if (is_in_group(verbs + i, word))
            return true;
    return false;
}

static int show_group_help(const char *group)
{
    auto_buf Buf text = BUF_INIT(TEXT_MAX);
    int r;

    r = buf_printf(&text, "Usage: " PROGRAM " %s VERB [OPTION]... [OPERAND]...\n\nVerbs:\n", group);
    if (r >= 0)
        r = add_verbs(&text, group);
    if (r >= 0)
        r = buf_add_str(&text, "\nOptions:\n");
    if (r >= 0)
        r = add_row(&text, "--help", "show this, or with a verb what it takes");
    return r < 0 ? EXIT_DEGRADED : verb_print(buf_str(&text));
}

static int show_help(void)
{
    auto_buf Buf text = BUF_INIT(TEXT_MAX);
    int r;

    r = buf_add_str(&text, "Usage: " PROGRAM " VERB [OPTION]... [OPERAND]...\n"
                           "Shows and steers mervis-agent on this machine.\n\nVerbs:\n");
    if (r >= 0)
        r = add_verbs(&text, NULL);
    if (r >= 0)
        r = buf_add_str(&text, "\nOptions:\n");
    if (r >= 0)
        r = add_row(&text, "--help", "show this, or with a verb what it takes");
    if (r >= 0)
        r = add_row(&text, "--version", "show the version");
    if (r >= 0)
        r = buf_add_str(&text, "\nExit status: 0 all is well, 1 degraded or refused, 2 not "
                               "reachable,\n64 wrong usage.\n");
    return r < 0 ? EXIT_DEGRADED : verb_print(buf_str(&text));
}

static int show_verb_help(const Verb *verb)
{
    const View view = {.width = RENDER_WIDTH};
    auto_buf Buf text = BUF_INIT(TEXT_MAX);
    int r;

    /* A row of the list begins small, a sentence does not. */
    r = buf_printf(&text, "Usage: " PROGRAM " %s [OPTION]...%s%s\n\n%c%s.\n\nOptions:\n",
                   verb->name, *verb->operands ? " " : "", verb->operands,
                   toupper((unsigned char)*verb->help), verb->help + 1);
    if (r >= 0)
        r = add_options(&text, verb->options);
    if (r >= 0 && verb->manual)
        r = buf_add_char(&text, '\n');
    if (r >= 0 && verb->manual)
        r = render_wrapped(&text, &view, 0, COLOUR_NONE, verb->manual);
    return r < 0 ? EXIT_DEGRADED : verb_print(buf_str(&text));
}

static int usage(const char *format, ...) printf_like(1, 2);

static int usage(const char *format, ...)
{
    va_list args;

    (void)fputs(PROGRAM ": ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputs("\n", stderr);
    return EXIT_USAGE;
}

/* The number of words of argv that are the verb's name; 0 when it is another. */
static size_t match_verb(const Verb *verb, char *const *argv)
{
    const char *second = strchr(verb->name, ' ');

    if (!second)
        return argv[0] && streq(verb->name, argv[0]) ? 1 : 0;
    if (!argv[0] || !argv[1] || strlen(argv[0]) != (size_t)(second - verb->name) ||
        strncmp(verb->name, argv[0], strlen(argv[0])) != 0)
        return 0;
    return streq(second + 1, argv[1]) ? 2 : 0;
}

static const Verb *find_verb(char *const *argv, size_t *ret_words)
{
    for (size_t i = 0; i < n_verbs; i++) {
        *ret_words = match_verb(verbs + i, argv);
        if (*ret_words > 0)
            return verbs + i;
    }
    return NULL;
}

/* What there is under a first word ("plan"), or else what was probably meant. */
static int unknown_verb(char *const *argv)
{
    auto_free char *both =
        argv[1] && *argv[1] != '-' ? str_printf("%s %s", argv[0], argv[1]) : NULL;
    auto_free const char **names = calloc(n_verbs + 1, sizeof(*names));
    auto_buf Buf under = BUF_INIT(TEXT_MAX);
    const char *nearest;
    int r = 0;

    if (!names)
        return EXIT_DEGRADED;
    for (size_t i = 0; r >= 0 && i < n_verbs; i++) {
        names[i] = verbs[i].name;
        if (is_in_group(verbs + i, argv[0]))
            r = buf_printf(&under, "%s%s", under.size > 0 ? ", " : "",
                           verbs[i].name + strlen(argv[0]) + 1);
    }
    if (r < 0)
        return EXIT_DEGRADED;
    nearest = both ? str_nearest(both, names, n_verbs) : NULL;
    if (!nearest)
        nearest = str_nearest(argv[0], names, n_verbs);
    if (nearest)
        return usage("no verb \"%s\"; did you mean \"%s\"?", both ? both : argv[0], nearest);
    if (under.size > 0)
        return usage("\"%s\" needs one of: %s", argv[0], buf_str(&under));
    return usage("no verb \"%s\"; `" PROGRAM " --help` lists them", argv[0]);
}

static bool is_help(const char *word)
{
    return streq_ptr(word, "--help") || streq_ptr(word, "-h");
}

/* The value of an option: what stands behind "=" or its letter, else the next word. */
static int take_value(const VerbOption *o, const char *attached, char *const *argv, int *at)
{
    if (!o->argument && attached)
        return usage("--%s takes no value", o->name);
    if (!o->argument)
        *o->value = "yes";
    else if (attached)
        *o->value = attached;
    else if (argv[*at + 1])
        *o->value = argv[++*at];
    else
        return usage("--%s needs %s", o->name, o->argument);
    return 0;
}

/* "--name", "--name=VALUE", "--name VALUE", "-n VALUE" or "-nVALUE" at argv[*at]; moves to its last
 * word. */
static int take_option(const Verb *verb, char *const *argv, int *at)
{
    bool is_long = argv[*at][1] == '-';
    const char *name = argv[*at] + (is_long ? 2 : 1), *equals = strchr(name, '=');
    size_t size = equals ? (size_t)(equals - name) : strlen(name);

    for (const VerbOption *o = verb->options; o && o->name; o++) {
        if (is_long && strlen(o->name) == size && strncmp(o->name, name, size) == 0)
            return take_value(o, equals ? equals + 1 : NULL, argv, at);
        if (!is_long && o->letter && o->letter == name[0] && (o->argument || !name[1]))
            return take_value(o, name[1] ? name + 1 : NULL, argv, at);
    }
    return usage("%s has no option %.*s; `" PROGRAM " %s --help` lists them", verb->name,
                 (int)(size + (is_long ? 2 : 1)), argv[*at], verb->name);
}

/* Runs the verb with what follows its name: options anywhere, "--" ends them. */
static int run_verb(const Verb *verb, char *const *argv)
{
    auto_free char **operands = NULL;
    bool options_end = false;
    unsigned n = 0;
    int r, count = 0;

    while (argv[count])
        count++;
    operands = calloc((size_t)count + 1, sizeof(*operands));
    if (!operands)
        return EXIT_DEGRADED;
    for (int i = 0; i < count; i++) {
        if (!options_end && streq(argv[i], "--")) {
            options_end = true;
        } else if (!options_end && is_help(argv[i])) {
            return show_verb_help(verb);
        } else if (!options_end && argv[i][0] == '-' && argv[i][1]) {
            r = take_option(verb, argv, &i);
            if (r != 0)
                return r;
        } else {
            operands[n++] = argv[i];
        }
    }
    if (n < verb->min)
        return usage("%s needs %s", verb->name, verb->operands);
    if (n > verb->max)
        return usage("%s takes no \"%s\"", verb->name, operands[verb->max]);
    /* Looked at here, so that a slip is told in agentctl's own words. */
    return verb->run(verb->passes ? argv : operands);
}

int agentctl_main(int argc, char **argv)
{
    const Verb *verb;
    size_t words;

    assert(argc >= 1 && argv);

    if (argc == 1)
        return usage("which verb? `" PROGRAM " --help` lists them");
    if (is_help(argv[1]) || streq(argv[1], "help"))
        return show_help();
    if (streq(argv[1], "--version"))
        return verb_print(PROGRAM " " PACKAGE_VERSION "\n");
    if (argv[1][0] == '-')
        return usage("no option %s; `" PROGRAM " --help` lists them", argv[1]);
    arg_words = argv + 1;
    verb = find_verb(argv + 1, &words);
    if (!verb && is_help(argv[2]) && is_group(argv[1]))
        return show_group_help(argv[1]);
    if (!verb)
        return unknown_verb(argv + 1);
    return run_verb(verb, argv + 1 + words);
}
