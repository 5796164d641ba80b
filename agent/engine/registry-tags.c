/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/registry-internal.h"
#include "agent/io/json.h"

#define PAGE_SIZE_ASKED 1000
#define PAGES_MAX       10

typedef struct Candidate {
    const char *tag;
    size_t distance;
} Candidate;

static int compare_candidates(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;

    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;

    return strcmp(x->tag, y->tag);
}

/* "v1, v2, latest": those that look most like what was asked for. */
static char *nearest_tags(const RegistryOp *op)
{
    auto_free Candidate *candidates = calloc(op->n_tags, sizeof(*candidates));
    const char *names[REGISTRY_NEAREST_TAGS + 1] = {NULL};

    if (!candidates)
        return NULL;
    for (size_t i = 0; i < op->n_tags; i++) {
        candidates[i].tag = op->tags[i];
        candidates[i].distance = str_distance(op->reference->tag, op->tags[i]);
    }
    qsort(candidates, op->n_tags, sizeof(*candidates), compare_candidates);
    for (size_t i = 0; i < MIN_OF(op->n_tags, (size_t)REGISTRY_NEAREST_TAGS); i++)
        names[i] = candidates[i].tag;

    return str_join(names, ", ");
}

static void fail_missing_tag(RegistryOp *op, bool listed)
{
    auto_free char *nearest = op->n_tags ? nearest_tags(op) : NULL;
    auto_error Error err = {0};

    (void)error_set(&err, -ENOENT, ERROR_INVALID, "registry %s: %s has no tag \"%s\"%s%s",
                    op->reference->host, op->reference->path, op->reference->tag,
                    nearest  ? (op->n_tags > REGISTRY_NEAREST_TAGS ? "; the nearest that exist: "
                                                                   : "; those that exist: ")
                    : listed ? "; it has no tags at all"
                             : "",
                    nearest ? nearest : "");
    (void)error_remedy(&err, -ENOENT, "docker push %s%s", op->name,
                       nearest ? ", or name one of these tags in the plan" : "");
    registry_fail(op, &err);
}

void registry_list_tags(RegistryOp *op)
{
    auto_error Error err = {0};

    op->step = REGISTRY_STEP_TAGS;
    op->tags_url =
        str_printf("%s/v2/%s/tags/list?n=%d", op->base, op->reference->path, PAGE_SIZE_ASKED);
    if (op->tags_url) {
        registry_ask(op);
        return;
    }

    (void)error_oom(&err);
    registry_fail_later(op, &err);
}

static int take_tags(RegistryOp *op, const json_t *list)
{
    size_t i;
    const json_t *value;
    char **tags;

    tags = reallocarray(op->tags, op->n_tags + json_array_size(list) + 1, sizeof(*tags));
    if (!tags)
        return -ENOMEM;
    op->tags = tags;
    op->tags[op->n_tags] = NULL;

    json_array_foreach (list, i, value) {
        const char *tag = json_string_value(value);

        if (op->n_tags >= REGISTRY_TAGS_MAX)
            break;
        /* It is printed: nothing but what a tag may be. */
        if (!tag || strlen(tag) > REFERENCE_TAG_MAX ||
            strspn(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
                strlen(tag))
            continue;
        op->tags[op->n_tags] = strdup(tag);
        if (!op->tags[op->n_tags])
            return -ENOMEM;
        op->tags[++op->n_tags] = NULL;
    }

    return 0;
}

/* Link: </v2/…?last=…&n=…>; rel="next". Only a path of the same registry is followed. */
static char *next_page(const RegistryOp *op, const HttpResponse *response)
{
    const char *link = http_response_header(response, "Link");
    const char *from = link ? strchr(link, '<') : NULL;
    const char *to = from ? strchr(from, '>') : NULL;
    auto_free char *target = NULL;
    const char *path;

    if (!to || !strstr(to, "next"))
        return NULL;
    target = strndup(from + 1, (size_t)(to - from - 1));
    if (!target)
        return NULL;
    path = startswith(target, op->base);
    if (!path)
        path = target;
    if (path[0] != '/' || path[1] == '/')
        return NULL;

    return str_printf("%s%s", op->base, path);
}

void registry_tags_page(RegistryOp *op, const HttpResponse *response)
{
    json_auto_t *doc = NULL;
    auto_free char *next = NULL;

    if (response && response->status == 404) {
        registry_fail_missing_repository(op);
        return;
    }
    if (!response || response->status != 200 ||
        json_parse_quiet(buf_str(&response->body), response->body.size, &doc) <= 0 ||
        take_tags(op, json_object_get(doc, "tags")) < 0) {
        fail_missing_tag(op, /* listed= */ op->n_tags > 0);
        return;
    }

    next = next_page(op, response);
    if (!next || ++op->pages >= PAGES_MAX || op->n_tags >= REGISTRY_TAGS_MAX) {
        fail_missing_tag(op, /* listed= */ true);
        return;
    }

    free(op->tags_url);
    op->tags_url = take_ptr(next);
    registry_ask(op);
}
