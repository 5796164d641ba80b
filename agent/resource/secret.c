/* SPDX-License-Identifier: Apache-2.0 */
/* A secret of the plan as a resource: fetched when it is not here, looked at again where its
 * version may move. */
#include "agent/resource/secret.h"

#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/io/loop.h"
#include "agent/resource/secrets.h"

/* Refreshes of several secrets share a wake-up, at most a tenth of their pause late. */
#define REFRESH_ACCURACY(refresh_usec) MIN_OF((refresh_usec) / 10, 10 * SECOND)

typedef struct SecretItem {
    const PlanSecret *plan;
    CloudOp *fetch;
    Timer *refresh;
    bool due;
} SecretItem;

static bool is_pinned(const PlanSecret *plan)
{
    uint64_t number;

    return parse_u64(plan->version, &number) >= 0;
}

static void on_refresh(void *userdata)
{
    secret_look(userdata);
}

void secret_look(Resource *resource)
{
    SecretItem *item = resource->item;

    if (is_pinned(item->plan))
        return;
    item->due = true;
    resource_wants_attention(resource);
}

static int secret_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    PLAN_FOREACH (PlanSecret, secret, plan->secrets) {
        SecretItem *item = calloc(1, sizeof(*item));
        int r;

        if (!item)
            return error_oom(err);
        item->plan = secret;
        r = resource_add(context, &resource_secret, secret->name, false, item, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int secret_check(Resource *resource, char **ret_difference, Error *err)
{
    SecretItem *item = resource->item;
    const PlanSecret *plan = item->plan;
    auto_(secret_record_done) SecretRecord record = {0};
    int r;

    if (!item->refresh && !is_pinned(plan)) {
        r = timer_new(resource->context->event, on_refresh, resource, &item->refresh);
        if (r < 0)
            return error_oom(err);
        (void)timer_set(item->refresh, plan->refresh_usec, REFRESH_ACCURACY(plan->refresh_usec));
    }
    r = secret_store_record(resource->context->secrets, resource->name, &record, err);
    if (r < 0)
        return r;
    if (r > 0 && !item->due && streq(record.secret, plan->secret) &&
        streq(record.wanted, plan->version) &&
        secret_store_has(resource->context->secrets, resource->name, record.version))
        return 0;
    *ret_difference =
        r > 0 && item->due
            ? str_printf("look whether %s is still version %s", plan->secret, record.version)
            : str_printf("fetch %s version %s", plan->secret, plan->version);
    return *ret_difference ? 1 : error_oom(err);
}

static void look_again_later(SecretItem *item)
{
    if (item->refresh)
        (void)timer_set(item->refresh, item->plan->refresh_usec,
                        REFRESH_ACCURACY(item->plan->refresh_usec));
}

/* The value that we have is no answer to a look that failed: it is asked again. What a person cures
 * (IAM, a missing version) is cured in the cloud, and no new plan tells us. True: it was in doubt
 * and is no longer, which those know nothing of who held their set for it. */
static bool take_answer(Resource *resource, const Error *err, Error *ret_failure)
{
    SecretItem *item = resource->item;
    bool doubted = secret_store_is_in_doubt(resource->context->secrets, resource->name);

    if (err) {
        (void)error_copy(ret_failure, err);
        item->due = true;
        if (ret_failure->kind == ERROR_INVALID || ret_failure->kind == ERROR_CORRUPT)
            ret_failure->kind = ERROR_TEMPORARY;
    }
    if (secret_store_set_doubt(resource->context->secrets, resource->name, err != NULL) < 0 && !err)
        (void)error_oom(ret_failure);
    return doubted && !err;
}

static void on_fetched(CloudSecret *secret, const Error *err, void *userdata)
{
    Resource *resource = userdata;
    SecretItem *item = resource->item;
    auto_(secret_record_done) SecretRecord before = {0};
    auto_error Error failure = {0};
    bool was_here = false, cleared;
    int changed;

    cleared = take_answer(resource, err, &failure);
    changed = failure.code < 0 ? failure.code
                               : secret_store_record(resource->context->secrets, resource->name,
                                                     &before, &failure);
    if (changed > 0)
        was_here = secret_store_has(resource->context->secrets, resource->name, before.version);
    if (changed >= 0)
        changed = secret_store_put(resource->context->secrets, resource->name, item->plan->secret,
                                   item->plan->version, secret->version, secret->bytes, &failure);
    if (changed > 0)
        resource_event(
            resource, LOG_LEVEL_NOTICE, before.version ? "secret-changed" : "secret-fetched", NULL,
            before.version ? "version %s (was %s)" : "version %s", secret->version, before.version);
    item->fetch = cloud_op_free(item->fetch);
    look_again_later(item);
    /* After a reboot the version is the old one, and yet somebody waits for its value. */
    if (changed > 0 || (changed == 0 && (!was_here || cleared)))
        resource->context->host->secret_changed(resource, resource->context->host_userdata);
    resource_finish(resource, failure.code < 0 ? &failure : NULL);
}

static void fetch(Resource *resource)
{
    SecretItem *item = resource->item;
    auto_error Error err = {0};

    item->fetch = cloud_op_free(item->fetch);
    if (cloud_secret_fetch(resource->context->cloud, item->plan->secret, item->plan->version,
                           on_fetched, resource, &item->fetch, &err) < 0)
        resource_finish(resource, &err);
}

/* Whether the value is here already, of the secret and the version that the plan means. */
static bool is_here(Resource *resource, const char *version)
{
    const PlanSecret *plan = ((SecretItem *)resource->item)->plan;
    auto_(secret_record_done) SecretRecord record = {0};

    return secret_store_record(resource->context->secrets, resource->name, &record, NULL) > 0 &&
           streq(record.secret, plan->secret) && streq(record.wanted, plan->version) &&
           (!version || streq(record.version, version)) &&
           secret_store_has(resource->context->secrets, resource->name, record.version);
}

static void on_resolved(CloudSecret *secret, const Error *err, void *userdata)
{
    Resource *resource = userdata;
    SecretItem *item = resource->item;
    auto_error Error failure = {0};

    if (!err && !is_here(resource, secret->version)) {
        fetch(resource);
        return;
    }
    if (take_answer(resource, err, &failure))
        resource->context->host->secret_changed(resource, resource->context->host_userdata);
    item->fetch = cloud_op_free(item->fetch);
    look_again_later(item);
    resource_finish(resource, failure.code < 0 ? &failure : NULL);
}

/* A value that is here is not read again only to find that it is the same. */
static void secret_apply(Resource *resource)
{
    SecretItem *item = resource->item;
    auto_error Error err = {0};
    bool look_only = item->due && is_here(resource, NULL);

    item->due = false;
    if (!look_only)
        fetch(resource);
    else if (cloud_secret_resolve(resource->context->cloud, item->plan->secret, item->plan->version,
                                  on_resolved, resource, &item->fetch, &err) < 0)
        resource_finish(resource, &err);
}

static void secret_cancel(Resource *resource)
{
    SecretItem *item = resource->item;

    item->fetch = cloud_op_free(item->fetch);
}

static void secret_remove(Resource *resource)
{
    auto_error Error err = {0};

    secret_cancel(resource);
    (void)!secret_store_set_doubt(resource->context->secrets, resource->name, false);
    (void)!secret_store_forget(resource->context->secrets, resource->name, &err);
    resource_finish(resource, err.code < 0 ? &err : NULL);
}

/* "stale": its last good value is in use although it cannot be read any more. */
static json_t *secret_describe(const Resource *resource)
{
    const SecretItem *item = resource->item;
    auto_(secret_record_done) SecretRecord record = {0};
    char at[TIME_RFC3339_MAX];
    const char *state = "pending";
    int found;

    found = secret_store_record(resource->context->secrets, resource->name, &record, NULL);
    if (resource->state == RESOURCE_FAILED)
        state = found > 0 ? "stale" : "failed";
    else if (found > 0)
        state = "ok";
    return json_pack("{s:s, s:s, s:s?, s:s?, s:s, s:s?, s:s?}", "name", resource->name, "secret",
                     item->plan->secret, "version", record.version, "fetched_at",
                     found > 0 ? time_format_rfc3339(at, (int64_t)record.fetched_at) : NULL,
                     "state", state, "message",
                     resource->error.code < 0 ? error_text(&resource->error) : NULL, "remedy",
                     resource->error.remedy);
}

static const char *secret_failure_event(const Resource *resource)
{
    auto_(secret_record_done) SecretRecord record = {0};

    return secret_store_record(resource->context->secrets, resource->name, &record, NULL) > 0
               ? "secret-stale"
               : "resource-failed";
}

static void secret_free(Resource *resource)
{
    SecretItem *item = resource->item;

    if (!item)
        return;
    cloud_op_free(item->fetch);
    timer_free(item->refresh);
    free(item);
}

const ResourceOps resource_secret = {
    .kind = "secret",
    .stage = STAGE_SECRETS,
    .declare = secret_declare,
    .check = secret_check,
    .apply = secret_apply,
    .cancel = secret_cancel,
    .remove = secret_remove,
    .describe = secret_describe,
    .failure_event = secret_failure_event,
    .free = secret_free,
};
