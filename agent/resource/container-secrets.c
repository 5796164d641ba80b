/* SPDX-License-Identifier: Apache-2.0 */
/* The secret values of one release: by version, for a release of before may need one that is no
 * longer the newest; gone when no release needs them. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/io/json.h"
#include "agent/resource/container-internal.h"

static void fetch_next(Container *c, bool files_only);

static bool mounts(const PlanContainer *plan, const char *name)
{
    PLAN_FOREACH (PlanSecretFile, file, plan->secret_files)
        if (streq(file->secret, name))
            return true;
    return false;
}

/* The first of c->want's secrets whose value is not here: its name, or NULL. */
static const char *find_missing(const Container *c, bool files_only, const char **ret_version)
{
    const PlanContainer *plan = container_want_plan(c, NULL);
    const char *name;
    json_t *version;

    json_object_foreach (c->want->secrets, name, version) {
        if (files_only && !mounts(plan, name))
            continue;
        if (secret_store_has(c->resource->context->secrets, name, json_string_value(version)))
            continue;
        *ret_version = json_string_value(version);
        return name;
    }
    return NULL;
}

static void keep_value(Container *c, CloudSecret *secret, bool files_only)
{
    const char *version = NULL, *name = find_missing(c, files_only, &version);
    auto_error Error err = {0};
    int r = 0;

    if (name && !streq(secret->version, version))
        r = error_set(&err, -EBADMSG, ERROR_CORRUPT, "secret %s: version %s was asked, %s came",
                      name, version, secret->version);
    else if (name)
        r = secret_store_put_version(c->resource->context->secrets, name, version, secret->bytes,
                                     &err);
    c->fetch = cloud_op_free(c->fetch);
    if (r < 0)
        container_finish(c, &err);
    else
        fetch_next(c, files_only);
}

static void fetch_failed(Container *c, const Error *err, bool files_only)
{
    const char *version = NULL, *name = find_missing(c, files_only, &version);
    auto_error Error copy = {0};

    (void)error_copy(&copy, err);
    (void)error_prefix(&copy, copy.code, "secret %s version %s", name ? name : "?",
                       version ? version : "?");
    c->fetch = cloud_op_free(c->fetch);
    c->secrets_missing(c, &copy);
}

static void on_file_value(CloudSecret *secret, const Error *err, void *userdata)
{
    if (err)
        fetch_failed(userdata, err, true);
    else
        keep_value(userdata, secret, true);
}

static void on_value(CloudSecret *secret, const Error *err, void *userdata)
{
    if (err)
        fetch_failed(userdata, err, false);
    else
        keep_value(userdata, secret, false);
}

static void fetch_next(Container *c, bool files_only)
{
    const char *version = NULL, *name = find_missing(c, files_only, &version);
    const PlanSecret *declared;
    const Plan *plan = NULL;
    auto_error Error err = {0};

    if (!name) {
        c->secrets_here(c);
        return;
    }
    (void)container_want_plan(c, &plan);
    declared = plan_secret(plan, name);
    if (!declared)
        (void)error_set(&err, -ENOENT, ERROR_INVALID, "no plan says any more what secret %s is",
                        name);
    else
        (void)!cloud_secret_fetch(c->resource->context->cloud, declared->secret, version,
                                  files_only ? on_file_value : on_value, c, &c->fetch, &err);
    if (err.code < 0)
        c->secrets_missing(c, &err);
}

void container_fetch_secrets(Container *c, bool files_only, ContainerStep here,
                             ContainerFailure missing)
{
    c->secrets_here = here;
    c->secrets_missing = missing;
    fetch_next(c, files_only);
}

static void publish_files(Container *c)
{
    auto_error Error err = {0};

    if (container_publish_secrets(c, &err) < 0)
        container_finish(c, &err);
    else
        c->files_here(c);
}

void container_have_files(Container *c, ContainerStep here, ContainerFailure missing)
{
    c->files_here = here;
    container_fetch_secrets(c, /* files_only= */ true, publish_files, missing);
}

/* {"name": "version"} as "name/version", added to what is kept. */
static int add_versions(char ***keep, const char *text)
{
    json_auto_t *versions = NULL;
    const char *name;
    json_t *version;

    if (json_parse_quiet(text, strlen(text), &versions) <= 0)
        return 0;
    json_object_foreach (versions, name, version) {
        auto_free char *key = str_printf("%s/%s", name, json_string_value(version));

        if (!key || strv_push(keep, key) < 0)
            return -ENOMEM;
    }
    return 0;
}

void container_trim_secrets(Container *c)
{
    auto_(strv_freep) char **keep = calloc(1, sizeof(char *));
    auto_(db_donep) DbStmt *stmt = NULL;
    auto_error Error err = {0};
    int r;

    if (!keep)
        return;
    r = db_prepare(c->resource->context->db, "SELECT secrets FROM release WHERE quarantined_at = 0",
                   &stmt, &err);
    if (r < 0) {
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "old secret values stay where they are");
        return;
    }
    while ((r = db_step(stmt, &err)) > 0)
        if (add_versions(&keep, db_text(stmt, 0)) < 0)
            return;
    if (r >= 0)
        r = secret_store_trim(c->resource->context->secrets, keep, &err);
    if (r < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "old secret values stay where they are");
}
