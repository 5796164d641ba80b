/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_DOCUMENT_H
#define AGENT_AGENTCTL_DOCUMENT_H

/* Members of the daemons' documents as people read them. What is absent or of another type reads
 * as null: both sides may grow apart by a version. */

#include <jansson.h>
#include <stdbool.h>

#include "agent/agentctl/render.h"
#include "agent/base/time.h"

#define DIGEST_DIGITS 12

/* The string, or `otherwise` for null and "". Borrowed. */
const char *text_of(const json_t *object, const char *key, const char *otherwise);
/* A non-negative integer; false when it is null or absent. */
bool number_of(const json_t *object, const char *key, uint64_t *ret);
/* The same with null as 0; and as "12,345". */
uint64_t count_of(const json_t *object, const char *key);
const char *number_text(const json_t *object, const char *key, char buf[static NUMBER_TEXT_MAX]);
/* Wall clock of a time, 0 when null. */
uint64_t time_of(const json_t *object, const char *key);
/* "3 min ago", "never" for null. */
char *ago_of(const json_t *object, const char *key, const View *view,
             char buf[static TIME_SPAN_MAX]);
/* The same of "since", NULL (a dash in tables) for what has not been. */
const char *since_of(const json_t *object, const View *view, char buf[static TIME_SPAN_MAX]);
/* "in 40 s" for what is to come, "now" for what is due, NULL for null. */
const char *until_of(const json_t *object, const char *key, const View *view,
                     char buf[static TIME_SPAN_MAX]);
/* "1f2e3d4c5b6a" of "sha256:1f2e3d4c5b6a…"; anything else as it is. */
const char *short_digest(const char *digest, char buf[static DIGEST_DIGITS + 1]);

#endif
