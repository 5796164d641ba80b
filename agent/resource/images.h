/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_IMAGES_H
#define AGENT_RESOURCE_IMAGES_H

/* Image cleanup: runs after a release settled, every hour, and at once when the disk under the
 * engine's root is nearly full. What goes is decided by cleanup.h; here it is found out, done and
 * measured. Nothing is removed by force, nothing while an image is being pulled. */

#include <jansson.h>

#include "agent/resource/resource.h"

#define IMAGES_NAME          "cleanup" /* of the one resource of this kind */
#define IMAGES_RUN_USEC      HOUR
#define IMAGES_DISK_USEC     MINUTE        /* how often the disk is looked at */
#define IMAGES_PRESSURE_USEC (10 * MINUTE) /* between two runs for a full disk */
#define IMAGES_BUSY_USEC     (20 * SECOND) /* a pull is under way: later */

extern const ResourceOps resource_images;

/* A pass of the reconciler came to its end: if a release settled in it, images are looked at. */
void images_pass_ended(Resource *resource);

/* The part "images" of the status document (agent/io/status-keys.h); `resource` NULL: there is no
 * cleanup in the plan. */
json_t *images_describe(const Resource *resource);

/* A run by hand came to its end: its numbers are added to the sums. */
void images_record(Resource *resource, const json_t *report);

/* ---- One run -------------------------------------------------------------------------------- */

typedef struct ImagesRun ImagesRun;

/* What a run did, or with dry_run would do:
 *   {"dry_run": bool, "disk": string (the engine's root), "disk_used_percent": integer,
 *    "removed": integer, "freed_bytes": integer,
 *    "containers": [{"id", "name"}],
 *    "images": [{"id", "names", "size_bytes", "last_used_at", "action": "remove" | "keep", "why",
 *                "message"}]}
 * "why" of what is kept is the verdict's name; "message" says why a removal did not happen. Images
 * to remove come first, in the order of removal. `report` (borrowed) is there also when `err` ended
 * the run half-way; NULL when nothing was found out. May free the run. */
typedef void (*ImagesRunHandler)(ImagesRun *run, const json_t *report, const Error *err,
                                 void *userdata);

typedef struct ImagesRunSpec {
    bool dry_run;
    bool for_disk; /* only down to disk_low */
} ImagesRunSpec;

/* -EBUSY while an image is pulled, but for a dry run. */
int images_run_start(ResourceContext *context, const ImagesRunSpec *spec, ImagesRunHandler handler,
                     void *userdata, ImagesRun **ret, Error *err) must_check;
ImagesRun *images_run_free(ImagesRun *run);
DEFINE_AUTO(ImagesRun, images_run_free)

/* Migration of state.db that makes the tables of this kind. */
extern const char images_schema[];

#endif
