/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/verb.h"

#include "agent/base/cleanup.h"

/* clang-format off */
const Verb verbs[] = {
    {"status",        "",     0, 0, verb_status,        status_options,        "show what runs, what does not, and what to do"},
    {"plan show",     "",     0, 0, verb_plan_show,     plan_show_options,     "show the plan in force, and the last refused one"},
    {"plan validate", "FILE", 1, 1, verb_plan_validate, plan_validate_options, "check a plan (\"-\": standard input): 0 valid, 1 not"},
    {"plan schema",   "",     0, 0, verb_plan_schema,   NULL,                  "print the JSON Schema of a plan"},
};
/* clang-format on */

const size_t n_verbs = ELEMENTS(verbs);
