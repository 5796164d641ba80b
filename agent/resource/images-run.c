/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/io/loop.h"
#include "agent/resource/images-internal.h"
#include "agent/resource/release.h"

/* One thing to remove: a container, or an image by each of its names. */
typedef struct Item {
    bool is_container;
    char **names;
    size_t next_name;
    json_t *row; /* in the report; borrowed */
} Item;

struct ImagesRun {
    ResourceContext *context;
    ImagesRunSpec spec;
    ImagesRunHandler handler;
    void *userdata;
    Timer *turn; /* the next item, from the loop: no recursion over many images */
    EngineOp *op;
    char *root_dir;
    uint64_t free_before;

    EngineContainer *containers; /* copies: a reply lives for its handler only */
    size_t n_containers;
    EnginePair (*labels)[2];
    char **texts;

    Item *items;
    size_t n_items, at;
    size_t n_removed; /* images */
    bool removed_any; /* or a container */
    json_t *report;
};

static void go_on(ImagesRun *run);

/* ---- Ending --------------------------------------------------------------------------------- */

static uint64_t freed_bytes(const ImagesRun *run)
{
    unsigned percent;
    uint64_t now = 0;

    /* What others remove meanwhile is not ours to count. */
    if (!run->removed_any || images_disk_usage(run->root_dir, &percent, &now, NULL) < 0)
        return 0;

    /* Others write, too: less than nothing was not freed. */
    return now > run->free_before ? now - run->free_before : 0;
}

static void end(ImagesRun *run, const Error *err)
{
    unsigned percent = 0;
    uint64_t free_now = 0;

    run->op = engine_op_free(run->op);
    if (run->report) {
        if (images_disk_usage(run->root_dir, &percent, &free_now, NULL) >= 0)
            (void)json_object_set_new(run->report, "disk_used_percent", json_integer(percent));
        (void)json_object_set_new(run->report, "removed", json_integer((json_int_t)run->n_removed));
        (void)json_object_set_new(run->report, "freed_bytes",
                                  json_integer((json_int_t)freed_bytes(run)));
    }
    run->handler(run, run->report, err, run->userdata);
}

static void end_oom(ImagesRun *run)
{
    auto_error Error err = {0};

    (void)error_oom(&err);
    end(run, &err);
}

/* ---- Removing ------------------------------------------------------------------------------- */

static void say(Item *item, const char *message)
{
    (void)json_object_set_new(item->row, "message", json_string(message));
}

/* Nothing else would be answered either. */
static bool is_engine_away(const Error *err)
{
    return err->code == -ENOTCONN || err->code == -ETIMEDOUT;
}

/* In use after all is an answer; a failure is this one's own, and keeps none of the others. */
static void pass_over(ImagesRun *run, const Error *err)
{
    say(&run->items[run->at++], error_text(err));
    if (err->code != -EBUSY)
        log_failure(LOG_LEVEL_WARNING, NULL, err, "it stays, and the cleanup goes on");
}

static void on_removed(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    ImagesRun *run = userdata;
    Item *item = &run->items[run->at];

    if (err && is_engine_away(err)) {
        say(item, error_text(err));
        end(run, err);
        return;
    }
    /* Gone already is well. */
    if (err && err->code != -ENOENT) {
        pass_over(run, err);
    } else if (++item->next_name == strv_length(item->names)) {
        run->n_removed += !item->is_container;
        run->removed_any = true;
        (void)json_object_set_new(item->row, "done", json_true());
        run->at++;
    }

    (void)timer_set(run->turn, 0, 0);
}

static bool disk_is_low_enough(const ImagesRun *run)
{
    unsigned percent = 0;
    uint64_t free_now = 0;

    return images_disk_usage(run->root_dir, &percent, &free_now, NULL) >= 0 &&
           percent <= run->context->plan->images.disk_low;
}

static void go_on(ImagesRun *run)
{
    auto_error Error err = {0};
    const char *name;
    Item *item;
    int r;

    run->op = engine_op_free(run->op);
    if (run->spec.dry_run || run->at == run->n_items ||
        (run->spec.for_disk && !run->items[run->at].is_container && disk_is_low_enough(run))) {
        end(run, NULL);
        return;
    }
    if (engine_is_pulling(run->context->engine)) {
        (void)error_set(&err, -EBUSY, ERROR_TEMPORARY, "an image is being pulled");
        end(run, &err);
        return;
    }

    item = &run->items[run->at];
    name = item->names[item->next_name];
    r = item->is_container
            ? engine_remove_container(run->context->engine, name, /* force= */ false, on_removed,
                                      run, &run->op, &err)
            : engine_remove_image(run->context->engine, name, on_removed, run, &run->op, &err);
    if (r < 0)
        end(run, &err);
}

static void on_turn(void *userdata)
{
    go_on(userdata);
}

/* ---- Choosing ------------------------------------------------------------------------------- */

static Item *add_item(ImagesRun *run, bool is_container, json_t *row)
{
    Item *item = &run->items[run->n_items++];

    item->is_container = is_container;
    item->row = row;
    return item;
}

static json_t *names_of(const EngineImage *image)
{
    json_t *names = json_array();

    for (const char *const *name = image->repo_tags; names && name && *name; name++)
        (void)json_array_append_new(names, json_string(*name));
    for (const char *const *name = image->repo_digests; names && name && *name; name++)
        (void)json_array_append_new(names, json_string(*name));

    return names;
}

/* The row, borrowed from the report; NULL when memory is out. */
static json_t *report_image(ImagesRun *run, const CleanupFacts *facts, const EngineImage *image,
                            CleanupVerdict verdict)
{
    json_t *images = json_object_get(run->report, "images");
    char at[TIME_RFC3339_MAX];
    json_t *row = json_pack(
        "{s:s, s:o, s:I, s:s, s:s, s:s}", "id", image->id, "names", names_of(image), "size_bytes",
        (json_int_t)image->size_bytes, "last_used_at",
        time_format_rfc3339(at, (int64_t)cleanup_last_used(facts, image)), "action",
        verdict == CLEANUP_REMOVE ? "remove" : "keep", "why", cleanup_verdict_name(verdict));

    return json_array_append_new(images, row) < 0 ? NULL : row;
}

static int report_container(ImagesRun *run, const EngineContainer *container)
{
    json_t *row = json_pack("{s:s, s:s}", "id", container->id, "name", container->name);
    Item *item;

    if (json_array_append_new(json_object_get(run->report, "containers"), row) < 0)
        return -ENOMEM;
    item = add_item(run, /* is_container= */ true, row);

    return strv_push(&item->names, container->id);
}

static int take_plan(ImagesRun *run, const CleanupFacts *facts, const CleanupPlan *plan)
{
    run->report = json_pack("{s:b, s:s, s:[], s:[]}", "dry_run", run->spec.dry_run, "disk",
                            run->root_dir, "containers", "images");
    run->items = calloc(plan->n_containers + plan->n_images + 1, sizeof(*run->items));
    if (!run->report || !run->items)
        return -ENOMEM;

    for (size_t i = 0; i < plan->n_containers; i++)
        if (report_container(run, &facts->containers[plan->containers[i]]) < 0)
            return -ENOMEM;
    for (size_t i = 0; i < plan->n_images; i++) {
        const EngineImage *image = &facts->images[plan->images[i]];
        json_t *row = report_image(run, facts, image, CLEANUP_REMOVE);
        Item *item;

        if (!row)
            return -ENOMEM;
        item = add_item(run, /* is_container= */ false, row);
        item->names = cleanup_names(image);
        if (!item->names)
            return -ENOMEM;
    }
    for (size_t i = 0; i < facts->n_images; i++)
        if (plan->verdicts[i] != CLEANUP_REMOVE &&
            !report_image(run, facts, &facts->images[i], plan->verdicts[i]))
            return -ENOMEM;

    return 0;
}

static int choose(ImagesRun *run, const EngineReply *reply, Error *err)
{
    auto_(images_state_done) ImagesState state = {0};
    auto_(cleanup_plan_done) CleanupPlan plan = {0};
    const PlanImages *wanted = &run->context->plan->images;
    static const char *const none[] = {NULL};
    CleanupFacts facts = {
        .images = reply->images,
        .n_images = reply->n_images,
        .containers = run->containers,
        .n_containers = run->n_containers,
        .all_unused = wanted->scope == PLAN_SCOPE_ALL,
        .keep_previous = wanted->keep_previous,
        .min_age_usec = wanted->min_age_usec,
        .now = now_realtime_usec(),
    };
    int r;

    r = images_state_name_repositories(run->context->db, run->context->plan, facts.now, err);
    if (r >= 0)
        r = images_state_observe(run->context->db, &facts, err);
    if (r >= 0)
        r = images_state_load(run->context->db, &state, err);
    if (r < 0)
        return r;

    facts.releases = state.releases;
    facts.n_releases = state.n_releases;
    facts.seen = state.seen;
    facts.n_seen = state.n_seen;
    facts.repositories = state.repositories ? (const char *const *)state.repositories : none;
    r = cleanup_select(&facts, &plan, err);
    if (r < 0)
        return r;

    return take_plan(run, &facts, &plan) < 0 ? error_oom(err) : 0;
}

static void on_images(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    ImagesRun *run = userdata;
    auto_error Error mine = {0};
    unsigned percent;

    if (err) {
        end(run, err);
        return;
    }
    if (choose(run, reply, &mine) < 0 ||
        images_disk_usage(run->root_dir, &percent, &run->free_before, &mine) < 0) {
        end(run, &mine);
        return;
    }

    (void)timer_set(run->turn, 0, 0);
}

/* ---- Finding out ---------------------------------------------------------------------------- */

static const char *keep_text(ImagesRun *run, const char *text)
{
    return strv_push(&run->texts, text ? text : "") < 0 ? NULL
                                                        : run->texts[strv_length(run->texts) - 1];
}

static int copy_container(ImagesRun *run, const EngineContainer *from)
{
    EngineContainer *to = &run->containers[run->n_containers];
    EnginePair *labels = run->labels[run->n_containers];
    const char *name = engine_container_label(from, LABEL_CONTAINER);
    const char *release = engine_container_label(from, LABEL_RELEASE);

    *to = (EngineContainer){
        .id = keep_text(run, from->id),
        .name = keep_text(run, from->name),
        .image = keep_text(run, from->image),
        .image_id = keep_text(run, from->image_id),
        .state = from->state,
        .created_usec = from->created_usec,
        .labels = labels,
    };
    if (name && release) {
        labels[to->n_labels++] = (EnginePair){LABEL_CONTAINER, keep_text(run, name)};
        labels[to->n_labels++] = (EnginePair){LABEL_RELEASE, keep_text(run, release)};
    }
    if (!to->id || !to->name || !to->image || !to->image_id ||
        (to->n_labels && (!labels[0].value || !labels[1].value)))
        return -ENOMEM;

    run->n_containers++;
    return 0;
}

static void on_containers(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    ImagesRun *run = userdata;
    auto_error Error mine = {0};

    if (err) {
        end(run, err);
        return;
    }
    run->containers = calloc(reply->n_containers + 1, sizeof(*run->containers));
    run->labels = calloc(reply->n_containers + 1, sizeof(*run->labels));
    for (size_t i = 0; i < reply->n_containers; i++)
        if (!run->containers || !run->labels || copy_container(run, &reply->containers[i]) < 0) {
            end_oom(run);
            return;
        }

    run->op = engine_op_free(run->op);
    if (engine_list_images(run->context->engine, on_images, run, &run->op, &mine) < 0)
        end(run, &mine);
}

static void on_info(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    ImagesRun *run = userdata;
    auto_error Error mine = {0};

    if (err) {
        end(run, err);
        return;
    }
    run->root_dir = strdup(reply->info->root_dir);
    if (!run->root_dir) {
        end_oom(run);
        return;
    }

    run->op = engine_op_free(run->op);
    if (engine_list_containers(run->context->engine, NULL, on_containers, run, &run->op, &mine) < 0)
        end(run, &mine);
}

/* ---- Beginning and end ---------------------------------------------------------------------- */

int images_run_start(ResourceContext *context, const ImagesRunSpec *spec, ImagesRunHandler handler,
                     void *userdata, ImagesRun **ret, Error *err)
{
    auto_(images_run_freep) ImagesRun *run = NULL;
    int r;

    if (!spec->dry_run && engine_is_pulling(context->engine))
        return error_set(err, -EBUSY, ERROR_TEMPORARY, "an image is being pulled");

    run = calloc(1, sizeof(*run));
    if (!run)
        return error_oom(err);
    run->context = context;
    run->spec = *spec;
    run->handler = handler;
    run->userdata = userdata;
    r = timer_new(context->event, on_turn, run, &run->turn);
    if (r < 0)
        return error_errno(err, r, "timer");
    r = engine_info(context->engine, on_info, run, &run->op, err);
    if (r < 0)
        return r;

    *ret = take_ptr(run);
    return 0;
}

ImagesRun *images_run_free(ImagesRun *run)
{
    if (!run)
        return NULL;

    (void)engine_op_free(run->op);
    (void)timer_free(run->turn);
    for (size_t i = 0; i < run->n_items; i++)
        (void)strv_free(run->items[i].names);
    free(run->items);
    free(run->containers);
    free(run->labels);
    (void)strv_free(run->texts);
    free(run->root_dir);
    json_decref(run->report);
    free(run);
    return NULL;
}
