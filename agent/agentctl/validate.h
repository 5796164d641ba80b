/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_VALIDATE_H
#define AGENT_AGENTCTL_VALIDATE_H

/* A whole plan judged without any daemon: our part by agent/plan, the crawl part by crawlerd, whose
 * faults are put where they stand in the document. */

#include "agent/io/fields.h"

typedef struct Verdict {
    FieldErrors errors; /* in the order of the document */
    char *warning;      /* what could not be checked, or NULL */
} Verdict;

/* `crawlerd` is the program to run (daemon_sibling()). Returns 0 with a verdict, whatever it is. */
int plan_judge(const char *text, size_t size, const char *crawlerd, Verdict *ret, Error *err)
    must_check;
void verdict_done(Verdict *verdict);
#define auto_verdict auto_(verdict_done)

/* The value of a key of the outermost object, as it stands in the document: 1 found, 0 not there
 * (or no JSON before it). */
int json_slice(const char *text, size_t size, const char *key, size_t *ret_offset,
               size_t *ret_size);

#endif
