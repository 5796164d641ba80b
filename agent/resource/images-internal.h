/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_IMAGES_INTERNAL_H
#define AGENT_RESOURCE_IMAGES_INTERNAL_H

/* images-state.c: what state.db knows of images. Times are the wall clock. */

#include "agent/io/db.h"
#include "agent/resource/cleanup.h"
#include "agent/resource/images.h"

/* Everything of CleanupFacts that comes from state.db; texts and arrays are owned here. */
typedef struct ImagesState {
    CleanupRelease *releases;
    size_t n_releases;
    CleanupSeen *seen;
    size_t n_seen;
    char **repositories;
    char **texts; /* what the others point to */
} ImagesState;

/* Notes which images are here and which of them a running container uses, and forgets those that
 * are gone; then the repositories that the plan names. */
int images_state_observe(Db *db, const CleanupFacts *facts, Error *err) must_check;
int images_state_name_repositories(Db *db, const Plan *plan, uint64_t now, Error *err) must_check;
int images_state_load(Db *db, ImagesState *ret, Error *err) must_check;
void images_state_done(ImagesState *state);

typedef struct ImagesTotals {
    uint64_t removed, freed_bytes, last_run_at;
} ImagesTotals;
int images_totals_load(Db *db, ImagesTotals *ret, Error *err) must_check;
int images_totals_save(Db *db, const ImagesTotals *totals, Error *err) must_check;

/* Of which release each settled container is: changes when one settles. free(); NULL when it
 * cannot be known. */
char *images_settled_signature(Db *db);

/* Use of the disk under that path, as df shows it, and what is free for root. */
int images_disk_usage(const char *path, unsigned *ret_percent, uint64_t *ret_free, Error *err)
    must_check;

#endif
