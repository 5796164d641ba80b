/* SPDX-License-Identifier: Apache-2.0 */
/* The image and the secrets of a release: on this machine before anything that runs is touched. */
#include <errno.h>

#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/json.h"
#include "agent/resource/container-internal.h"

/* Layers are kept compressed while they come in, and unpacked beside that. */
#define DISK_FACTOR 3

/* --- Here ---------------------------------------------------------------------------------------
 */

/* An image whose own ENV sets a name that the plan gives as a secret: a secret may be baked into
 * it. */
static void look_for_baked_secrets(Container *c, const EngineImage *image)
{
    const PlanContainer *plan = container_want_plan(c, NULL);

    PLAN_FOREACH (PlanEnv, env, plan->env) {
        if (!env->value.secret)
            continue;
        for (size_t i = 0; image->env && image->env[i]; i++) {
            const char *rest = startswith(image->env[i], env->name);

            if (!rest || *rest != '=')
                continue;
            resource_event(
                c->resource, LOG_LEVEL_WARNING, "secret-baked", NULL,
                "the image sets %s itself, which the plan gives as secret %s: a secret may be "
                "baked into the image; build it without that ENV and rotate the secret",
                env->name, env->value.secret);
        }
    }
}

static void on_image(Container *c, const EngineReply *reply)
{
    c->pulling = false;
    if (reply->n_images > 0)
        look_for_baked_secrets(c, &reply->images[0]);
    c->op = engine_op_free(c->op);
    container_fetch_secrets(c, /* files_only= */ false, container_stage, container_cannot_be_had);
}

/* --- Pulled ------------------------------------------------------------------------------------
 */

static void on_pulled(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    auto_error Error copy = {0};

    if (!err) {
        on_image(c, reply);
        return;
    }
    (void)error_copy(&copy, err);
    container_cannot_be_had(c, &copy);
}

static void on_pull_progress(EngineOp *op, const EnginePullProgress *progress, void *userdata)
{
    Container *c = userdata;

    c->progress = *progress;
    resource_changed(c->resource);
}

static void pull(Container *c, const char *user, const char *password)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_error Error err = {0};
    int r;

    r = reference_parse(c->want->image, &reference, &err);
    if (r >= 0) {
        EnginePull request = {.reference = reference,
                              .digest = c->want->digest,
                              .username = user,
                              .password = password,
                              .on_progress = on_pull_progress};

        c->progress = (EnginePullProgress){0};
        c->pulling = true;
        r = engine_pull(c->resource->context->engine, &request, on_pulled, c, &c->op, &err);
    }
    if (r < 0)
        container_finish(c, &err);
}

static void on_pull_login(const char *user, const char *password, const Error *err, void *userdata)
{
    Container *c = userdata;

    if (err) {
        auto_error Error copy = {0};

        (void)error_copy(&copy, err);
        container_cannot_be_had(c, &copy);
        return;
    }
    pull(c, user, password);
    c->login = cloud_op_free(c->login);
}

/* A login a pull, never kept: a cached one is what stops working after an hour. */
static void login_and_pull(Container *c)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_error Error err = {0};
    int r;

    r = reference_parse(c->want->image, &reference, &err);
    if (r >= 0 && !cloud_login_applies(c->resource->context->cloud, reference->host)) {
        pull(c, NULL, NULL);
        return;
    }
    if (r >= 0)
        r = cloud_login_get(c->resource->context->cloud, reference->host, on_pull_login, c,
                            &c->login, &err);
    if (r < 0)
        container_cannot_be_had(c, &err);
}

static int check_disk(const Container *c, const char *root_dir, Error *err)
{
    uint64_t needed = c->pull_bytes * DISK_FACTOR, left;
    char needed_text[PARSE_TEXT_MAX], left_text[PARSE_TEXT_MAX];

    if (path_free_bytes(root_dir, &left) < 0 || left >= needed)
        return 0;
    (void)error_set(err, -ENOSPC, ERROR_TEMPORARY,
                    "%s needs about %s under %s, and %s are free; nothing was pulled",
                    c->want->image, format_size_human(needed_text, needed), root_dir,
                    format_size_human(left_text, left));
    return error_remedy(err, -ENOSPC, "sudo agentctl cleanup, or a larger boot disk");
}

static void on_disk_known(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    auto_error Error full = {0};

    if (err) {
        container_finish_with(c, err);
        return;
    }
    if (check_disk(c, reply->info->root_dir, &full) < 0) {
        container_cannot_be_had(c, &full);
        return;
    }
    c->op = engine_op_free(c->op);
    login_and_pull(c);
}

static void ask_for_disk(Container *c)
{
    auto_error Error err = {0};

    if (engine_info(c->resource->context->engine, on_disk_known, c, &c->op, &err) < 0)
        container_finish(c, &err);
}

static void on_local_image(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;

    if (!err) {
        on_image(c, reply); /* that very digest is here: nothing to pull */
        return;
    }
    if (err->code != -ENOENT) {
        container_finish_with(c, err);
        return;
    }
    c->op = engine_op_free(c->op);
    container_measure(c, ask_for_disk);
}

static int look_for_image(Container *c, Error *err)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_free char *name = NULL;
    int r;

    r = reference_parse(c->want->image, &reference, err);
    if (r < 0)
        return r;
    name = reference_by_digest(reference, c->want->digest);
    if (!name)
        return error_oom(err);
    return engine_inspect_image(c->resource->context->engine, name, on_local_image, c, &c->op, err);
}

void container_bring_in(Container *c)
{
    auto_error Error err = {0};
    int r;

    r = release_store(c->resource->context->db, c->want, &err);
    if (r >= 0 && str_set(&c->slot.next, c->want->id) < 0)
        r = error_oom(&err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    c->slot.stopped_at = 0;
    c->outage_began = 0;
    c->excused = 0;
    if (container_enter(c, ROLLOUT_PULLING) < 0)
        return;
    if (look_for_image(c, &err) < 0)
        container_finish(c, &err);
}
