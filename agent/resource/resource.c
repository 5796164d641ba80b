/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resource/resource.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"

static const char *const state_names[RESOURCE_STATE_MAX] = {
    [RESOURCE_PENDING] = "pending", [RESOURCE_APPLYING] = "applying", [RESOURCE_OK] = "ok",
    [RESOURCE_WAITING] = "waiting", [RESOURCE_FAILED] = "failed",
};

const char *resource_state_name(ResourceState state)
{
    assert(state < RESOURCE_STATE_MAX);
    return state_names[state];
}

const ResourceOps *resource_kind(const char *kind)
{
    for (size_t i = 0; resource_kinds[i]; i++)
        if (streq(resource_kinds[i]->kind, kind))
            return resource_kinds[i];
    return NULL;
}

int resource_add(ResourceContext *context, const ResourceOps *ops, const char *name, bool required,
                 void *item, Error *err)
{
    auto_(resource_freep) Resource *resource = calloc(1, sizeof(*resource));
    int r;

    if (!resource) {
        Resource doomed = {.ops = ops, .context = context, .item = item};

        if (ops->free)
            ops->free(&doomed);
        return error_oom(err);
    }
    resource->ops = ops;
    resource->context = context;
    resource->item = item;
    resource->required = required;
    resource->name = strdup(name);
    if (!resource->name)
        return error_oom(err);

    r = context->host->add(resource, context->host_userdata);
    if (r < 0)
        return error_errno(err, r, "%s %s", ops->kind, name);
    resource = NULL; /* the host's now */
    return 0;
}

Resource *resource_free(Resource *resource)
{
    if (!resource)
        return NULL;

    if (resource->ops->free)
        resource->ops->free(resource);
    error_done(&resource->error);
    free(resource->name);
    free(resource->told);
    free(resource);
    return NULL;
}

void resource_finish(Resource *resource, Error *err)
{
    resource->context->host->finished(resource, err, resource->context->host_userdata);
}

void resource_wants_attention(Resource *resource)
{
    resource->context->host->attention(resource, resource->context->host_userdata);
}

void resource_changed(Resource *resource)
{
    resource->context->host->changed(resource, resource->context->host_userdata);
}

#define EVENT_FIELDS_MAX 12

/* "MERVIS_CONTAINER=web": the kind is the field's name. */
static char *kind_field(const Resource *resource)
{
    char *field = str_printf("MERVIS_%s=%s", resource->ops->kind, resource->name);

    for (char *c = field ? field + strlen("MERVIS_") : NULL; c && *c != '='; c++)
        *c = (char)toupper((unsigned char)*c);
    return field;
}

void resource_event(const Resource *resource, LogLevel level, const char *event,
                    const char *const *fields, const char *format, ...)
{
    const ResourceContext *context = resource->context;
    auto_free char *text = NULL, *whole = NULL, *own = kind_field(resource);
    auto_free char *item = str_printf("MERVIS_RESOURCE=%s/%s", resource->ops->kind, resource->name);
    const char *all[EVENT_FIELDS_MAX + 1];
    size_t n_all = 0;
    va_list args;
    int n;

    if (own)
        all[n_all++] = own;
    if (item)
        all[n_all++] = item;
    for (; fields && *fields && n_all < EVENT_FIELDS_MAX; fields++)
        all[n_all++] = *fields;
    all[n_all] = NULL;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        text = NULL;
    whole = str_printf("%s %s: %s", resource->ops->kind, resource->name, text ? text : event);
    context->host->event(level, event, all, whole ? whole : event, context->host_userdata);
}

char *resource_path(const ResourceContext *context, const char *path)
{
    return str_is_empty(context->root) || streq(context->root, "/")
               ? strdup(path)
               : path_join(context->root, path);
}
