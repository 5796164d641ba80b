/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_VERB_H
#define AGENT_AGENTCTL_VERB_H

/* The verbs of agentctl. A verb is one verb-*.c and one row in verbs.c; its help, the completion
 * and the manual come from the row. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "agent/base/error.h"
#include "agent/io/bus.h" /* ExitStatus */

/* An option of a verb. Values stay in the verb's own file, as `arg_…`. */
typedef struct VerbOption {
    const char *name;     /* "state-dir" for --state-dir DIR and --state-dir=DIR */
    const char *argument; /* "DIR", or NULL for a switch */
    const char **value;   /* where the argument goes; a switch sets it to "yes" */
    const char *help;
    char letter; /* 'n' for -n as well; 0: none */
} VerbOption;

typedef struct Verb {
    const char *name;     /* one or two words: "status", "plan validate" */
    const char *operands; /* for help: "FILE", "[NAME]", "" */
    unsigned min, max;    /* how many operands */
    bool passes;          /* options and operands as they stand, to another program */
    /* Runs it; `operands` ends with NULL. The status is one of ExitStatus, or what the verb's help
     * says. What went wrong has been said on stderr by then (verb_fail()). */
    int (*run)(char *const *operands);
    const VerbOption *options; /* ends with a NULL name; NULL: none */
    const char *help;          /* one line, a verb in the imperative first */
    const char *manual;        /* what else there is to know, the keys of its JSON among it; NULL */
} Verb;

extern const Verb verbs[];
extern const size_t n_verbs;

/* Runs what argv says. The exit status for main. */
int agentctl_main(int argc, char **argv);

/* "agentctl: message", and the remedy on a line of its own; releases nothing. Returns `status`. */
int verb_fail(const Error *err, int status);
/* The status for a call that failed: unreachable, or refused. */
int verb_status_of(const Error *err);
/* "sudo agentctl restart web": this very call, as root. free(); NULL when memory is out. */
char *verb_as_root(void);
/* Writes it all to standard output; EXIT_DEGRADED when that fails (a full disk, a closed pipe). */
int verb_print(const char *text);
/* The same of a value, which is taken; NULL is memory that is out. */
int verb_print_json(json_t *value);

/* -- one per verb-*.c -- */
extern const VerbOption apply_options[], backfill_options[], cleanup_options[], container_options[],
    crawl_options[], doctor_options[], history_options[], logs_options[], plan_show_options[],
    plan_validate_options[], recipe_list_options[], recipe_test_options[], secrets_options[],
    status_options[];
int verb_apply(char *const *operands);
int verb_cleanup(char *const *operands);
int verb_crawl_backfill(char *const *operands);
int verb_crawl_flush(char *const *operands);
int verb_crawl_dead_letters(char *const *operands);
int verb_crawl_replay(char *const *operands);
int verb_crawl_run(char *const *operands);
int verb_crawl_status(char *const *operands);
int verb_doctor(char *const *operands);
int verb_history(char *const *operands);
int verb_logs(char *const *operands);
int verb_plan_schema(char *const *operands);
int verb_plan_show(char *const *operands);
int verb_plan_validate(char *const *operands);
int verb_recipe_list(char *const *arguments);
int verb_recipe_show(char *const *arguments);
int verb_recipe_test(char *const *arguments);
int verb_restart(char *const *operands);
int verb_retry(char *const *operands);
int verb_rollback(char *const *operands);
int verb_secrets(char *const *operands);
int verb_status(char *const *operands);

#endif
