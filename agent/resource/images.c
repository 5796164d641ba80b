/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resource/images.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/io/loop.h"
#include "agent/resource/images-internal.h"

typedef struct Images {
    Resource *resource;
    Timer *tick;
    ImagesRun *run;
    EngineOp *info;     /* where is the disk? */
    char *root_dir;     /* NULL until the engine said it */
    bool due, for_disk; /* a run is wanted, and why */
    bool knows_percent;
    unsigned percent;
    uint64_t ran_at;     /* boottime of the last run; 0: never */
    uint64_t pressed_at; /* boottime of the last run for a full disk */
    char *signature;     /* of what had settled then */
    bool still_full;     /* the last such run did not help enough */
    ImagesTotals totals;
} Images;

static void set_tick(Images *images, uint64_t usec)
{
    (void)timer_set(images->tick, usec, usec / 10);
}

static void want_run(Images *images, bool for_disk)
{
    images->due = true;
    images->for_disk = for_disk;
    resource_wants_attention(images->resource);
}

/* ---- The disk ------------------------------------------------------------------------------- */

static void look_at_disk(Images *images)
{
    const PlanImages *plan = &images->resource->context->plan->images;
    unsigned before = images->percent;
    uint64_t free_now = 0, now = now_boottime_usec();

    images->knows_percent =
        images->root_dir &&
        images_disk_usage(images->root_dir, &images->percent, &free_now, NULL) >= 0;
    if (!images->knows_percent)
        return;
    if (images->percent != before)
        resource_changed(images->resource);
    if (images->percent < plan->disk_high) {
        images->still_full = false;
        return;
    }
    if (!images->due &&
        (images->pressed_at == 0 || now - images->pressed_at >= IMAGES_PRESSURE_USEC))
        want_run(images, /* for_disk= */ true);
}

static void on_info(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Images *images = userdata;

    /* The runs say what is wrong with the engine; here only the path is wanted. */
    if (reply && str_set(&images->root_dir, reply->info->root_dir) >= 0)
        look_at_disk(images);
    images->info = engine_op_free(images->info);
}

static void on_tick(void *userdata)
{
    Images *images = userdata;

    set_tick(images, IMAGES_DISK_USEC);
    if (images->run)
        return;
    if (!images->root_dir && !images->info &&
        engine_info(images->resource->context->engine, on_info, images, &images->info, NULL) < 0)
        return;
    look_at_disk(images);
    if (!images->due && now_boottime_usec() - images->ran_at >= IMAGES_RUN_USEC)
        want_run(images, /* for_disk= */ false);
    else if (images->due) /* it was put off */
        resource_wants_attention(images->resource);
}

/* ---- A run ---------------------------------------------------------------------------------- */

static void tell_removed(Images *images, const json_t *report)
{
    uint64_t removed = 0, freed = 0;
    auto_error Error err = {0};
    const char *disk = json_str(report, "disk");
    auto_free char *number = NULL, *bytes = NULL;
    char size[PARSE_TEXT_MAX];

    (void)(json_u64(report, "removed", &removed) + json_u64(report, "freed_bytes", &freed));
    if (disk && str_set(&images->root_dir, disk) < 0)
        log_warning("out of memory, ignoring: the disk is not watched");
    images->totals.removed += removed;
    images->totals.freed_bytes += freed;
    images->totals.last_run_at = now_realtime_usec();
    if (images_totals_save(images->resource->context->db, &images->totals, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "ignoring: the sums of the cleanup are lost");
    if (removed == 0)
        return;

    number = str_printf("MERVIS_REMOVED=%" PRIu64, removed);
    bytes = str_printf("MERVIS_FREED_BYTES=%" PRIu64, freed);
    resource_event(images->resource, LOG_LEVEL_NOTICE, "images-removed",
                   number && bytes ? FIELDS(number, bytes) : NULL,
                   "%" PRIu64 " image%s removed, %s freed", removed, removed == 1 ? "" : "s",
                   format_size_human(size, freed));
}

void images_record(Resource *resource, const json_t *report)
{
    Images *images = resource->item;

    if (json_flag(report, "dry_run"))
        return;
    tell_removed(images, report);
    look_at_disk(images);
    resource_changed(resource);
}

static void on_run(ImagesRun *run, const json_t *report, const Error *err, void *userdata)
{
    Images *images = userdata;
    Resource *resource = images->resource;
    auto_error Error mine = {0};
    bool put_off = err && err->code == -EBUSY;

    if (err)
        (void)error_copy(&mine, err);
    if (report)
        tell_removed(images, report);
    images->run = images_run_free(images->run);
    if (!err) {
        images->due = false;
        images->ran_at = now_boottime_usec();
        if (images->for_disk)
            images->pressed_at = images->ran_at;
    }
    images->for_disk = false;
    look_at_disk(images);
    images->still_full = !err && images->knows_percent &&
                         images->percent >= resource->context->plan->images.disk_high;
    set_tick(images, put_off ? IMAGES_BUSY_USEC : IMAGES_DISK_USEC);
    resource_changed(resource);
    resource_finish(resource, put_off ? NULL : &mine);
}

static void images_apply(Resource *resource)
{
    Images *images = resource->item;
    const ImagesRunSpec spec = {.for_disk = images->for_disk};
    auto_error Error err = {0};
    bool put_off;

    if (resource->context->draining) {
        resource_finish(resource, NULL);
        return;
    }
    free(images->signature);
    images->signature = images_settled_signature(resource->context->db);
    if (images_run_start(resource->context, &spec, on_run, images, &images->run, &err) >= 0)
        return;

    put_off = err.code == -EBUSY;
    if (put_off)
        set_tick(images, IMAGES_BUSY_USEC);
    resource_finish(resource, put_off ? NULL : &err);
}

static void images_cancel(Resource *resource)
{
    Images *images = resource->item;

    images->run = images_run_free(images->run);
}

static int images_check(Resource *resource, char **ret_difference, Error *err)
{
    Images *images = resource->item;

    if (!images->due || engine_is_pulling(resource->context->engine))
        return 0;

    *ret_difference = strdup("remove the images that nothing needs (agentctl cleanup --dry-run "
                             "lists them)");
    return *ret_difference ? 1 : error_oom(err);
}

void images_pass_ended(Resource *resource)
{
    Images *images = resource->item;
    auto_free char *signature = images_settled_signature(resource->context->db);

    if (signature && !images->run && !images->due && images->ran_at > 0 &&
        !streq_ptr(signature, images->signature))
        want_run(images, /* for_disk= */ false);
}

/* ---- The resource --------------------------------------------------------------------------- */

static void images_free(Resource *resource)
{
    Images *images = resource->item;

    if (!images)
        return;
    (void)images_run_free(images->run);
    (void)engine_op_free(images->info);
    (void)timer_free(images->tick);
    free(images->root_dir);
    free(images->signature);
    free(images);
    resource->item = NULL;
}

/* resource_add() knows its resource only after it was made: the rest is set up at the first look.
 */
static int set_up(Resource *resource, Error *err)
{
    Images *images = resource->item;
    int r;

    if (images->resource)
        return 0;
    images->resource = resource;
    r = timer_new(resource->context->event, on_tick, images, &images->tick);
    if (r < 0)
        return error_errno(err, r, "timer");
    set_tick(images, SECOND);

    return images_totals_load(resource->context->db, &images->totals, err);
}

static int check_and_set_up(Resource *resource, char **ret_difference, Error *err)
{
    int r = set_up(resource, err);

    return r < 0 ? r : images_check(resource, ret_difference, err);
}

static void images_inherit(Resource *resource, Resource *from)
{
    Images *images = resource->item;
    Images *old = from->item;

    images->ran_at = old->ran_at;
    images->pressed_at = old->pressed_at;
    images->root_dir = take_ptr(old->root_dir);
    images->knows_percent = old->knows_percent;
    images->percent = old->percent;
    images->still_full = old->still_full;
    images->signature = take_ptr(old->signature);
    /* A run in hand goes with the old one; what it did not do is due. */
    images->due = old->due || old->run;
}

static int images_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    const PlanImages *wanted = &plan->images;
    Images *images;

    if (plan->containers.n == 0 && wanted->scope != PLAN_SCOPE_ALL)
        return 0;

    images = calloc(1, sizeof(*images));
    if (!images)
        return error_oom(err);
    images->due = true;
    return resource_add(context, &resource_images, IMAGES_NAME, false, images, err);
}

json_t *images_describe(const Resource *resource)
{
    const Images *images = resource ? resource->item : NULL;
    const PlanImages *plan = resource ? &resource->context->plan->images : NULL;
    char at[TIME_RFC3339_MAX];
    json_t *object;
    int r;

    object = json_pack("{s:n, s:I, s:I, s:n, s:n, s:n}", "disk_used_percent", "freed_bytes",
                       (json_int_t)(images ? images->totals.freed_bytes : 0), "removed",
                       (json_int_t)(images ? images->totals.removed : 0), "last_run_at", "message",
                       "remedy");
    if (!object || !images)
        return object;

    r = 0;
    if (images->knows_percent)
        r = json_put(object, "disk_used_percent", json_integer(images->percent));
    if (r >= 0 && images->totals.last_run_at)
        r = json_put(object, "last_run_at",
                     json_string(time_format_rfc3339(at, (int64_t)images->totals.last_run_at)));
    if (r >= 0 && images->still_full) {
        r = json_put(object, "message",
                     json_sprintf("the disk under %s is %u %% full (disk_high is %" PRIu64
                                  " %%), and no further image may be removed",
                                  images->root_dir, images->percent, plan->disk_high));
        if (r >= 0)
            r = json_put(object, "remedy",
                         json_string("agentctl cleanup --dry-run says what is kept and why; "
                                     "or a larger disk"));
    }
    if (r < 0) {
        json_decref(object);
        return NULL;
    }

    return object;
}

const ResourceOps resource_images = {
    .kind = "images",
    .stage = STAGE_IMAGES,
    .declare = images_declare,
    .check = check_and_set_up,
    .apply = images_apply,
    .cancel = images_cancel,
    .left_alone = "images stay as they are: nobody cleans them up any more",
    .inherit = images_inherit,
    .free = images_free,
};
