/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/engine-internal.h"
#include "agent/io/json.h"

/* ---- Reading -------------------------------------------------------------------------------- */

static void list_answered(EngineOp *op, const HttpResponse *response)
{
    auto_(engine_doc_done) EngineDoc doc = {0};
    auto_error Error err = {0};
    json_t *value = engine_op_json(op, response);

    if (!value)
        return;
    if (engine_parse_image_list(value, &doc, &err) < 0)
        engine_op_fail(op, &err);
    else
        engine_op_succeed(op, &(EngineReply){.images = doc.images, .n_images = doc.n_images});
}

int engine_list_images(Engine *engine, EngineHandler handler, void *userdata, EngineOp **ret,
                       Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    r = engine_op_new(engine, "GET", handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->answered = list_answered;
    op->max_body = ENGINE_LIST_BODY_MAX;
    r = engine_op_describe(op, err, "list images");
    if (r >= 0)
        r = engine_op_path(op, err, "/images/json");
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}

void engine_image_answered(EngineOp *op, const HttpResponse *response)
{
    auto_(engine_doc_done) EngineDoc doc = {0};
    auto_error Error err = {0};
    json_t *value = engine_op_json(op, response);

    if (!value)
        return;
    if (engine_parse_image(value, &doc, &err) < 0)
        engine_op_fail(op, &err);
    else
        engine_op_succeed(
            op, &(EngineReply){
                    .id = doc.images[0].id, .changed = true, .images = doc.images, .n_images = 1});
}

int engine_inspect_image(Engine *engine, const char *name, EngineHandler handler, void *userdata,
                         EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    r = engine_op_on(engine, &(EngineObject){"GET", "images", "image", name, "/json"},
                     engine_image_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}

/* ---- Changing ------------------------------------------------------------------------------- */

/* [{"Untagged": "…"}, {"Deleted": "…"}] */
static int collect(const json_t *list, const char *key, char ***ret)
{
    const json_t *value;
    size_t i;

    json_array_foreach (list, i, value) {
        const char *text = json_str(value, key);

        if (text && strv_push(ret, text) < 0)
            return -ENOMEM;
    }

    return 0;
}

static void remove_answered(EngineOp *op, const HttpResponse *response)
{
    static const char *const none[] = {NULL};
    auto_(strv_freep) char **untagged = NULL;
    auto_(strv_freep) char **deleted = NULL;
    json_auto_t *list = engine_op_json(op, response);
    auto_error Error err = {0};

    if (!list)
        return;
    if (collect(list, "Untagged", &untagged) < 0 || collect(list, "Deleted", &deleted) < 0) {
        (void)error_oom(&err);
        engine_op_fail(op, &err);
        return;
    }

    engine_op_succeed(op, &(EngineReply){
                              .changed = true,
                              .untagged = untagged ? (const char *const *)untagged : none,
                              .deleted = deleted ? (const char *const *)deleted : none,
                          });
}

int engine_remove_image(Engine *engine, const char *name, EngineHandler handler, void *userdata,
                        EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    int r;

    /* Never force: it would take the image from under a stopped container, and some services
     * remove the container itself. */
    r = engine_op_on(engine, &(EngineObject){"DELETE", "images", "remove image", name, ""},
                     remove_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;
    op->timeout_usec = ENGINE_REMOVE_TIMEOUT_USEC;
    op->max_body = ENGINE_LIST_BODY_MAX;

    return engine_op_start(&op, ret, err);
}

static void tag_answered(EngineOp *op, const HttpResponse *response)
{
    engine_op_succeed(op, &(EngineReply){.changed = true});
}

int engine_tag_image(Engine *engine, const char *name, const char *repository, const char *tag,
                     EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
{
    auto_(engine_op_freep) EngineOp *op = NULL;
    auto_free char *escaped_repository = url_escape(repository, "");
    auto_free char *escaped_tag = url_escape(tag, "");
    auto_free char *rest = NULL;
    int r;

    if (escaped_repository && escaped_tag)
        rest = str_printf("/tag?repo=%s&tag=%s", escaped_repository, escaped_tag);
    if (!rest)
        return error_oom(err);
    r = engine_op_on(engine, &(EngineObject){"POST", "images", "tag image", name, rest},
                     tag_answered, handler, userdata, &op, err);
    if (r < 0)
        return r;

    return engine_op_start(&op, ret, err);
}
