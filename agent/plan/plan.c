/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/plan/plan.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/io/json.h"
#include "agent/plan/plan-internal.h"

static int refuse_size(size_t size, FieldErrors *ret_errors)
{
    auto_field_errors FieldErrors errors = {0};
    int r;

    r = field_errors_add(&errors, "", 0, 0,
                         "the plan has %zu bytes; at most %u are taken, since a metadata value "
                         "holds no more: move long files and scripts into the image or a secret",
                         size, PLAN_SIZE_MAX);
    if (r < 0)
        return r;
    *ret_errors = errors;
    errors = (FieldErrors){0};
    return -EINVAL;
}

int plan_parse(const char *text, size_t size, Plan **ret, FieldErrors *ret_errors)
{
    auto_(plan_freep) Plan *plan = NULL;
    int r;

    assert((text || size == 0) && ret && ret_errors);

    if (size > PLAN_SIZE_MAX)
        return refuse_size(size, ret_errors);
    plan = calloc(1, sizeof(*plan));
    if (!plan)
        return -ENOMEM;
    r = fields_decode(text, size, plan_fields(), plan_check_whole, plan, ret_errors);
    if (r < 0)
        return r;
    *ret = take_ptr(plan);
    return 0;
}

Plan *plan_free(Plan *plan)
{
    if (plan)
        fields_done(plan_fields(), plan);
    free(plan);
    return NULL;
}

int plan_hash(const char *text, size_t size, char ret[static SHA256_HEX_MAX])
{
    auto_free char *canonical = NULL;
    json_auto_t *document = NULL;

    assert(text || size == 0);

    if (size <= PLAN_SIZE_MAX && json_parse_quiet(text, size, &document) > 0) {
        canonical = json_canonical(document);
        if (!canonical)
            return -ENOMEM;
        sha256_of(canonical, strlen(canonical), ret);
        return 0;
    }
    sha256_of(text, size, ret);
    return 0;
}

const PlanSecret *plan_secret(const Plan *plan, const char *name)
{
    assert(plan && name);

    PLAN_FOREACH (const PlanSecret, secret, plan->secrets) {
        if (secret->name && streq(secret->name, name))
            return secret;
    }
    return NULL;
}

const PlanContainer *plan_container(const Plan *plan, const char *name)
{
    assert(plan && name);

    PLAN_FOREACH (const PlanContainer, container, plan->containers) {
        if (container->name && streq(container->name, name))
            return container;
    }
    return NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(char ***names, const char *name)
{
    return strv_contains(*names, name) ? 0 : strv_push(names, name);
}

static void sort_names(char **names)
{
    if (names)
        qsort(names, strv_length(names), sizeof(*names), compare_names);
}

int container_secrets(const PlanContainer *container, char ***ret)
{
    auto_(strv_freep) char **names = NULL;
    int r = 0;

    assert(container && ret);

    PLAN_FOREACH (const PlanEnv, env, container->env) {
        if (env->value.secret)
            r = add_name(&names, env->value.secret);
        if (r < 0)
            return r;
    }
    PLAN_FOREACH (const PlanSecretFile, file, container->secret_files) {
        r = add_name(&names, file->secret);
        if (r < 0)
            return r;
    }
    sort_names(names);
    *ret = take_ptr(names);
    return 0;
}

/* The agent knows nothing of what a crawl part says, but that whatever is called "secret" there
 * names one of the plan: {"recipe": …, "secret": "kis-app-key"}. */
static int walk_secrets(const json_t *value, char ***names)
{
    const json_t *name = json_object_get(value, "secret"), *item;
    const char *key;
    size_t i;
    int r;

    r = json_is_string(name) ? add_name(names, json_string_value(name)) : 0;
    if (r < 0)
        return r;
    json_object_foreach ((json_t *)value, key, item) {
        r = walk_secrets(item, names);
        if (r < 0)
            return r;
    }
    json_array_foreach (value, i, item) {
        r = walk_secrets(item, names);
        if (r < 0)
            return r;
    }
    return 0;
}

int plan_crawl_secrets(const Plan *plan, char ***ret)
{
    auto_(strv_freep) char **names = NULL;
    int r;

    assert(plan && ret);

    r = plan->crawl ? walk_secrets(plan->crawl, &names) : 0;
    if (r < 0)
        return r;
    sort_names(names);
    *ret = take_ptr(names);
    return 0;
}

/* What the cloud calls each secret that the container uses: another one behind the same name is
 * another release. */
static int add_sources(const Plan *plan, const PlanContainer *container, json_t *spec)
{
    auto_(strv_freep) char **names = NULL;
    json_auto_t *sources = json_object();
    int r;

    r = container_secrets(container, &names);
    if (r < 0)
        return r;
    STRV_FOREACH (name, names) {
        const PlanSecret *secret = plan_secret(plan, *name);

        r = json_put(sources, *name, secret ? json_string(secret->secret) : json_null());
        if (r < 0)
            return r;
    }
    return names ? json_put(spec, "secrets", take_ptr(sources)) : 0;
}

int container_spec_canonical(const Plan *plan, const PlanContainer *container, char **ret)
{
    static const char *const not_shaping[] = {"name",   "image",   "health",
                                              "update", "retries", "on_success"};
    json_auto_t *spec = NULL;
    char *text;
    int r;

    assert(plan && container && ret);

    r = fields_encode(plan_container_fields, container, FIELD_ENCODE_NO_DEFAULTS, &spec);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ELEMENTS(not_shaping); i++)
        (void)json_object_del(spec, not_shaping[i]);
    r = add_sources(plan, container, spec);
    if (r < 0)
        return r;
    text = json_canonical(spec);
    if (!text)
        return -ENOMEM;
    *ret = text;
    return 0;
}

json_t *plan_schema(void)
{
    json_auto_t *schema = fields_schema(plan_fields());

    if (!schema ||
        json_put(schema, "$schema", json_string("https://json-schema.org/draft/2020-12/schema")) <
            0 ||
        json_put(schema, "title", json_string("mervis-plan")) < 0 ||
        json_put(schema, "description",
                 json_string("What a VM with mervis-agent shall be. Rules between fields (a secret "
                             "that is named must be declared, say) are not in this schema: "
                             "`agentctl plan validate FILE` has them all.")) < 0)
        return NULL;
    return take_ptr(schema);
}

int plan_manual(Buf *ret)
{
    return fields_manual(plan_fields(), "", ret);
}
