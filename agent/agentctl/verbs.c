/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/verb.h"

#include "agent/base/cleanup.h"

#define JSON_OF_A_CHANGE                                                                           \
    "JSON: {\"ok\": bool, \"message\": string, \"remedy\": string or null}. Only root may do it."

/* clang-format off */
const Verb verbs[] = {
    {.name = "status", .run = verb_status, .options = status_options,
     .operands = "",
     .help = "show what runs, what does not, and what to do",
     .manual = "Exit status 0: all is well; 1: degraded; 2: agentd does not answer, and its last "
               "recorded state is shown. With --watch and --json each look is a document on a line of its own, "
               "and it ends with status 2 when agentd has not answered for ten seconds. The keys of the JSON are in "
               "agentctl(1), under STATUS."},
    {.name = "doctor", .run = verb_doctor, .options = doctor_options,
     .operands = "",
     .help = "look for what is wrong, and how to cure it",
     .manual = "Looks at everything itself, so that it works while agentd does not. Exit status 1 when anything is "
               "wrong. JSON: {\"ok\": bool, \"checks\": [{\"id\", \"ok\": bool, or null where it was not looked at, "
               "\"message\", \"remedy\": string or null}]}."},
    {.name = "plan show", .run = verb_plan_show, .options = plan_show_options,
     .operands = "",
     .help = "show the plan in force, and the last refused one",
     .manual = "JSON: \"generation\", \"sha256\", \"source\", \"accepted_at\", \"outcome\", \"refused\", \"message\", "
               "\"remedy\" as in the status, and \"document\", the plan itself. Only root may read it."},
    {.name = "plan validate", .run = verb_plan_validate, .options = plan_validate_options,
     .operands = "FILE", .min = 1, .max = 1,
     .help = "check a plan (\"-\": standard input): 0 valid, 1 not",
     .manual = "JSON: {\"valid\": bool, \"truncated\": bool, \"errors\": [{\"path\", \"message\", \"line\", \"column\"}], "
               "\"warnings\": [string]}."},
    {.name = "plan schema", .run = verb_plan_schema,
     .operands = "",
     .help = "print the JSON Schema of a plan"},
    {.name = "apply", .run = verb_apply, .options = apply_options,
     .operands = "",
     .help = "look at everything again, and take held updates",
     .manual = "Does not wait for the end: `agentctl status --watch` shows how it goes. "
               JSON_OF_A_CHANGE " With --dry-run: "
               "[{\"kind\", \"name\", \"action\": \"none\" | \"change\" | \"remove\" | \"unknown\", \"what\": string or null}], "
               "which everybody may read."},
    {.name = "history", .run = verb_history, .options = history_options,
     .operands = "",
     .help = "show accepted plans, and what happened",
     .manual = "JSON: {\"generations\": [{\"generation\", \"sha256\", \"source\", \"accepted_at\", \"applied_at\"}], "
               "\"events\": [{\"at\", \"event\", \"level\", \"text\"}]}, newest first."},
    {.name = "restart", .run = verb_restart, .options = container_options,
     .operands = "NAME", .min = 1, .max = 1,
     .help = "restart a container of the plan",
     .manual = JSON_OF_A_CHANGE},
    {.name = "rollback", .run = verb_rollback, .options = container_options,
     .operands = "NAME", .min = 1, .max = 1,
     .help = "return a container to its previous release",
     .manual = "The present release is quarantined until the tag, the plan or a secret moves, or `agentctl retry`. "
               JSON_OF_A_CHANGE},
    {.name = "retry", .run = verb_retry, .options = container_options,
     .operands = "NAME", .min = 1, .max = 1,
     .help = "lift a container's quarantine and try at once",
     .manual = JSON_OF_A_CHANGE},
    {.name = "cleanup", .run = verb_cleanup, .options = cleanup_options,
     .operands = "",
     .help = "remove old images that nothing needs",
     .manual = "What a container uses, what serves, what a rollback goes to and what came lately stays, and so does what "
               "others brought unless the plan says \"scope\": \"all\". With --dry-run, which everybody may ask, nothing "
               "is removed. JSON: {\"dry_run\": bool, \"disk\": string, \"disk_used_percent\", \"removed\", \"freed_bytes\": "
               "integer, \"containers\": [{\"id\", \"name\"}], \"images\": [{\"id\", \"names\", \"size_bytes\", "
               "\"last_used_at\", \"action\": \"remove\" | \"keep\", \"why\", \"message\"}]}."},
    {.name = "secrets", .run = verb_secrets, .options = secrets_options,
     .operands = "",
     .help = "show names, versions and ages of the secrets",
     .manual = "Never a value. JSON: \"secrets\" of the status."},
    {.name = "crawl status", .run = verb_crawl_status, .options = crawl_options,
     .operands = "",
     .help = "show jobs, backlog and delivery of the crawler",
     .manual = "JSON: \"crawler\" of the status. Exit status 1 when it is degraded or paused, 2 when it does not answer."},
    {.name = "crawl run", .run = verb_crawl_run, .options = crawl_options,
     .operands = "JOB", .min = 1, .max = 1,
     .help = "run a crawl job now",
     .manual = JSON_OF_A_CHANGE},
    {.name = "crawl backfill", .run = verb_crawl_backfill, .options = backfill_options,
     .operands = "JOB [FROM [TO]]", .min = 1, .max = 3,
     .help = "fetch a past range of a crawl job",
     .manual = "FROM and TO are --from and --to in short. It goes on after a restart; what is stored already is not stored "
               "again.  " JSON_OF_A_CHANGE},
    {.name = "crawl flush", .run = verb_crawl_flush, .options = crawl_options,
     .operands = "",
     .help = "deliver what waits now, not at the next load",
     .manual = "Each load counts against BigQuery's limit of 1,500 a table and day. " JSON_OF_A_CHANGE},
    {.name = "crawl dead-letters", .run = verb_crawl_dead_letters, .options = crawl_options,
     .operands = "",
     .help = "show refused rows and documents, and why",
     .manual = "JSON: {\"rows\": [{\"at\", \"job\", \"symbol\", \"ts\", \"reason\", \"text\"}], "
               "\"documents\": [{\"at\", \"job\", \"symbol\", \"status\", \"content_type\", \"reason\"}]}. Only root may read them."},
    {.name = "crawl replay", .run = verb_crawl_replay, .options = crawl_options,
     .operands = "",
     .help = "read refused documents again, after a fix",
     .manual = "They fill gaps: a bar that was fetched meanwhile keeps its newer values. "
               "JSON: {\"documents\": integer, \"rows\": integer}: how many are read now. Only root may do it."},
    {.name = "recipe list", .run = verb_recipe_list, .options = recipe_list_options, .passes = true,
     .operands = "",
     .help = "list the recipes that a crawl job may name"},
    {.name = "recipe show", .run = verb_recipe_show, .passes = true,
     .operands = "NAME_OR_FILE", .min = 1, .max = 1,
     .help = "print a recipe as JSON"},
    {.name = "recipe test", .run = verb_recipe_test, .options = recipe_test_options, .passes = true,
     .operands = "NAME_OR_FILE", .min = 1, .max = 1,
     .help = "show the rows that a recipe finds in a reply",
     .manual = "Exit status 0: rows, or an answer that is rightly empty; 3: an error that the source reported; "
               "4: a refused document; 1: anything else."},
    {.name = "logs", .run = verb_logs, .options = logs_options,
     .operands = "[NAME]", .max = 1,
     .help = "show the journal, of all or of one by name",
     .manual = "NAME is a container, a script, or agentd, crawlerd or statusd. Containers are in the journal "
               "unless their \"log\" in the plan says otherwise. The exit status is journalctl's."},
};
/* clang-format on */

const size_t n_verbs = ELEMENTS(verbs);
