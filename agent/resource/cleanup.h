/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_CLEANUP_H
#define AGENT_RESOURCE_CLEANUP_H

/* Which images and stopped containers nobody needs any more: a pure function over what the engine
 * lists and what state.db remembers. What is shown by --dry-run and what a run removes is the same
 * answer. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/error.h"
#include "agent/engine/engine.h"

/* A release of a container, as state.db has it. */
typedef struct CleanupRelease {
    const char *container;
    const char *id;
    const char *digest;
    uint64_t proved_at; /* wall clock; 0: never */
    bool is_quarantined;
    bool is_current, is_next, is_previous; /* of its slot */
} CleanupRelease;

/* What was observed of an image before. */
typedef struct CleanupSeen {
    const char *id;
    uint64_t first_seen_at; /* when it came here, as far as we saw; wall clock */
    uint64_t last_used_at;  /* when a container last used it; 0: never */
} CleanupSeen;

typedef struct CleanupFacts {
    const EngineImage *images;
    size_t n_images;
    const EngineContainer *containers; /* everybody's, stopped ones too */
    size_t n_containers;
    const CleanupRelease *releases;
    size_t n_releases;
    const CleanupSeen *seen;
    size_t n_seen;
    const char *const *repositories; /* "host/path" that the plan names or named; NULL-terminated */
    bool all_unused;                 /* scope "all": whoever brought them */
    uint64_t keep_previous;
    uint64_t min_age_usec;
    uint64_t now; /* wall clock */
} CleanupFacts;

typedef enum CleanupVerdict {
    CLEANUP_REMOVE,
    CLEANUP_FOREIGN,  /* of a repository that the plan does not name */
    CLEANUP_IN_USE,   /* by a container, anybody's, running or not */
    CLEANUP_CURRENT,  /* of a release that serves or is being brought in */
    CLEANUP_PREVIOUS, /* one of the last proved ones: what a rollback goes to */
    CLEANUP_YOUNG,
    CLEANUP_SHARED, /* it has names of repositories that are not ours, too */
    CLEANUP_PARENT, /* another image that stays is built upon it */
    CLEANUP_VERDICT_MAX,
} CleanupVerdict;
const char *cleanup_verdict_name(CleanupVerdict verdict);

typedef struct CleanupPlan {
    CleanupVerdict *verdicts; /* of facts.images */
    size_t *images;           /* to remove, least recently used first, children before parents */
    size_t n_images;
    size_t *containers; /* to remove before them: stopped, ours, of no release that counts */
    size_t n_containers;
} CleanupPlan;

int cleanup_select(const CleanupFacts *facts, CleanupPlan *ret, Error *err) must_check;
void cleanup_plan_done(CleanupPlan *plan);

/* What to give to the engine, one after the other, so that the image goes without force: its id
 * where that is enough, else each of its names. strv_free() it; NULL when memory is out. */
char **cleanup_names(const EngineImage *image);
/* When it was last of use to anybody. */
uint64_t cleanup_last_used(const CleanupFacts *facts, const EngineImage *image);

#endif
