/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_CHALLENGE_H
#define AGENT_ENGINE_CHALLENGE_H

/* WWW-Authenticate (RFC 7235, section 4.1): a list of challenges, each a scheme with parameters.
 * Schemes and parameter names are case-insensitive, values are not; values are tokens or quoted
 * strings; a comma separates parameters and challenges alike. */

#include <stddef.h>

#include "agent/base/error.h"

#define CHALLENGE_HEADER_MAX 8192
#define CHALLENGES_MAX       16
#define CHALLENGE_PARAMS_MAX 32

typedef struct ChallengeParam {
    char *name; /* in lower case */
    char *value;
} ChallengeParam;

typedef struct Challenge {
    char *scheme;  /* in lower case: "bearer", "basic" */
    char *token68; /* instead of parameters, or NULL */
    ChallengeParam *params;
    size_t n_params;
} Challenge;

typedef struct Challenges {
    Challenge *items;
    size_t n_items;
} Challenges;

/* Appends the challenges of one header line (there may be several lines). -EBADMSG, kind CORRUPT,
 * with the position; what the list held before stays. */
int challenges_parse(const char *header, Challenges *list, Error *err) must_check;
void challenges_done(Challenges *list);

/* The first challenge of that scheme (lower case), or NULL. */
const Challenge *challenges_find(const Challenges *list, const char *scheme);
/* The parameter's value, or NULL; `name` in lower case. */
const char *challenge_param(const Challenge *challenge, const char *name);

#endif
