/* SPDX-License-Identifier: Apache-2.0 */
/* Which release a container should be: what the tag stands for now, with this plan and these
 * versions of its secrets. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/resource/container-internal.h"

void container_forget_want(Container *c)
{
    c->want = release_free(c->want);
    c->want_plan = plan_free(c->want_plan);
}

const PlanContainer *container_want_plan(const Container *c, const Plan **ret_plan)
{
    const PlanContainer *older = c->want_plan ? plan_container(c->want_plan, c->plan->name) : NULL;

    if (ret_plan)
        *ret_plan = older ? c->want_plan : c->resource->context->plan;
    return older ? older : c->plan;
}

/* 1: c->want is that release, with the plan that describes it; 0: nobody knows it any more. */
int container_load_want(Container *c, const char *id, Error *err)
{
    ResourceContext *context = c->resource->context;
    int r;

    container_forget_want(c);
    r = release_load(context->db, c->plan->name, id, &c->want, err);
    if (r <= 0)
        return r;
    if (c->want->generation != context->generation) {
        r = release_plan(context->db, c->want, &c->want_plan, err);
        if (r < 0)
            return r;
    }
    return 1;
}

/* {"name": "version"} of all its secrets, as they are now. 0: one was never fetched (`err` says
 * which). */
static int current_versions(const Container *c, json_t **ret, Error *err)
{
    auto_(strv_freep) char **names = NULL;
    json_auto_t *versions = json_object();
    int r;

    if (!versions || container_secrets(c->plan, &names) < 0)
        return error_oom(err);
    STRV_FOREACH (name, names) {
        auto_(secret_record_done) SecretRecord record = {0};

        r = secret_store_record(c->resource->context->secrets, *name, &record, err);
        if (r < 0)
            return r;
        if (r == 0 || !secret_store_has(c->resource->context->secrets, *name, record.version)) {
            (void)error_set(err, -EINPROGRESS, ERROR_TEMPORARY, "waits for secret %s", *name);
            return 0;
        }
        if (json_put(versions, *name, json_string(record.version)) < 0)
            return error_oom(err);
    }
    *ret = take_ptr(versions);
    return 1;
}

/* It is the one that serves already: nothing to do but to see that it runs. */
static void unchanged(Container *c)
{
    ResourceContext *context = c->resource->context;
    auto_free char *reason = NULL;
    auto_error Error err = {0};
    int r;

    r = release_is_quarantined(context->db, c->plan->name, c->want->id, c->want->digest, &reason,
                               &err);
    container_forget_want(c);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    if (c->slot.state == ROLLOUT_COMMITTED || c->slot.state == ROLLOUT_DONE) {
        container_show(c, c->slot.state);
        container_finish(c, NULL);
        return;
    }
    if (c->slot.state == ROLLOUT_FAILED && c->plan->mode == PLAN_MODE_JOB) {
        container_show(c, ROLLOUT_FAILED);
        container_fail(c, -ECANCELED, ERROR_INVALID, "the job ended with exit status %d, %ju times",
                       c->slot.exit_status, (uintmax_t)c->slot.tries);
        return;
    }
    if (c->slot.state != ROLLOUT_SETTLED && container_enter(c, ROLLOUT_SETTLED) < 0)
        return;
    container_show(c, ROLLOUT_SETTLED);
    container_finish(c, NULL);
}

/* The wanted release is known to be bad: what serves goes on serving, and status says why. */
static void refuse_quarantined(Container *c, const char *reason)
{
    bool serves = c->slot.current != NULL;
    auto_error Error err = {0};

    (void)error_set(&err, -ECANCELED, ERROR_INVALID, "release %s (%.19s) is quarantined: %s",
                    c->want->id, c->want->digest, reason);
    (void)error_remedy(&err, err.code,
                       "push a corrected image (or secret, or plan), or try it again: "
                       "sudo agentctl retry %s",
                       c->plan->name);
    container_forget_want(c);
    container_show(c, serves ? ROLLOUT_ROLLED_BACK : ROLLOUT_FAILED);
    container_finish(c, &err);
}

/* update.policy "manual": a new digest waits for a person; everything else of the plan is followed
 * with the digest that runs. 1: held. */
static int hold_digest(Container *c, const char **digest, const Release *serving)
{
    if (c->plan->update.policy != PLAN_UPDATE_MANUAL || c->approved || !serving ||
        streq(serving->digest, *digest) || !streq(serving->image, c->plan->image)) {
        if (c->slot.held_digest)
            forget(&c->slot.held_digest);
        return 0;
    }
    if (!streq_ptr(c->slot.held_digest, *digest)) {
        resource_event(c->resource, LOG_LEVEL_NOTICE, "update-held", NULL,
                       "a new digest %.19s waits: sudo agentctl apply", *digest);
        if (str_set(&c->slot.held_digest, *digest) < 0)
            return -ENOMEM;
    }
    *digest = serving->digest;
    return 1;
}

static int make_want(Container *c, const char *digest, Error *err)
{
    ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *serving = NULL;
    json_auto_t *versions = NULL;
    int r;

    r = current_versions(c, &versions, err);
    if (r <= 0)
        return r;
    if (c->slot.current) {
        r = release_load(context->db, c->plan->name, c->slot.current, &serving, err);
        if (r < 0)
            return r;
    }
    if (hold_digest(c, &digest, serving) < 0)
        return error_oom(err);
    container_forget_want(c);
    r = release_new(context->plan, c->plan, context->generation, digest, versions, &c->want, err);
    return r < 0 ? r : 1;
}

static void choose(Container *c, const char *digest)
{
    ResourceContext *context = c->resource->context;
    auto_free char *reason = NULL;
    auto_error Error err = {0};
    bool here;
    int r;

    r = make_want(c, digest, &err);
    if (r <= 0) {
        if (r == 0)
            container_show(c, ROLLOUT_WAITING);
        container_finish(c, &err);
        return;
    }
    here = slot_find(c->plan->name, c->want->id, c->views, c->n_views) != NULL;
    if (here && streq_ptr(c->slot.current, c->want->id)) {
        unchanged(c);
        return;
    }
    if (here && c->slot.state == ROLLOUT_FAILED && streq_ptr(c->slot.next, c->want->id)) {
        container_prove_again(
            c); /* it failed before, and nothing better came: it may be well by now */
        return;
    }
    r = release_is_quarantined(context->db, c->plan->name, c->want->id, c->want->digest, &reason,
                               &err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    if (r > 0) {
        refuse_quarantined(c, reason);
        return;
    }
    c->slot.tries = 0;
    c->slot.exit_status = -1;
    container_bring_in(c);
}

static void on_resolved(RegistryOp *op, const RegistryImage *image, const Error *err,
                        void *userdata)
{
    Container *c = userdata;
    auto_free char *digest = image ? strdup(image->digest) : NULL;
    auto_error Error failure = {0};

    if (image)
        c->pull_total = image->unchanged ? 0 : image->compressed_bytes;
    if (err)
        (void)error_copy(&failure, err);
    c->resolve = registry_op_free(c->resolve);
    if (failure.code < 0) {
        (void)error_prefix(&failure, failure.code, "%s", c->plan->image);
        container_show(c, c->slot.current ? c->slot.state : ROLLOUT_FAILED);
        container_finish(c, &failure);
        return;
    }
    if (!digest || ((!streq_ptr(c->slot.resolved_digest, digest) ||
                     !streq_ptr(c->slot.resolved_image, c->plan->image)) &&
                    (str_set(&c->slot.resolved_image, c->plan->image) < 0 ||
                     str_set(&c->slot.resolved_digest, digest) < 0))) {
        container_fail(c, -ENOMEM, ERROR_INTERNAL, "out of memory");
        return;
    }
    choose(c, digest);
}

static void on_login(const char *user, const char *password, const Error *err, void *userdata)
{
    Container *c = userdata;

    c->login = cloud_op_free(c->login);
    registry_give_credentials(c->resolve, user, password, err);
}

static void want_credentials(RegistryOp *op, const char *host, bool again, void *userdata)
{
    Container *c = userdata;
    Cloud *cloud = c->resource->context->cloud;
    const char *realm = registry_realm(op);
    auto_error Error err = {0};

    /* A registry of the cloud's that names a stranger's token service gets no login either. */
    if (!cloud_login_applies(cloud, host) ||
        (realm && !cloud_login_realm_allowed(cloud, host, realm))) {
        registry_give_credentials(op, NULL, NULL, NULL);
        return;
    }
    if (again)
        cloud_login_refused(cloud, host);
    c->login = cloud_op_free(c->login);
    if (cloud_login_get(cloud, host, on_login, c, &c->login, &err) < 0)
        registry_give_credentials(op, NULL, NULL, &err);
}

static void explain_denial(const RegistryDenial *denial, Error *err, void *userdata)
{
    Container *c = userdata;

    if (denial->had_credentials)
        (void)cloud_login_explain(c->resource->context->cloud, denial->host, denial->path, err);
}

static const RegistryAuth registry_auth = {
    .want_credentials = want_credentials,
    .explain = explain_denial,
};

static void resolve(Container *c)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_error Error err = {0};
    RegistryQuery query;
    int r;

    r = reference_parse(c->plan->image, &reference, &err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    query = (RegistryQuery){.reference = reference, .auth = &registry_auth, .auth_userdata = c};
    /* Only what a release was made of may answer from memory: else platform and size were not
     * looked at. */
    if (streq_ptr(c->slot.resolved_image, c->plan->image) && c->slot.current)
        query.known_digest = c->slot.resolved_digest;
    container_show(c, c->slot.current ? c->slot.state : ROLLOUT_RESOLVING);
    r = registry_resolve(c->resource->context->http, c->resource->context->event, &query,
                         on_resolved, c, &c->resolve, &err);
    if (r < 0)
        container_finish(c, &err);
}

/* A release of before, by hand: its own digest, spec and secret versions. */
static void bring_in_forced(Container *c)
{
    auto_free char *id = strdup(c->forced->id);
    auto_error Error err = {0};
    int r;

    c->forced = release_free(c->forced);
    r = id ? container_load_want(c, id, &err) : error_oom(&err);
    if (r == 0)
        r = error_set(&err, -ENOENT, ERROR_INVALID, "release %s is no longer known", id);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    container_bring_in(c);
}

/* 1: with the digest that the tag had when it was last looked up, the plan and the secrets make
 * another release than the one that serves. */
static int release_differs(const Container *c, Error *err)
{
    ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *want = NULL;
    json_auto_t *versions = NULL;
    int r;

    r = current_versions(c, &versions, err);
    if (r <= 0)
        return r < 0 ? r : err ? err->code : -EINPROGRESS;
    r = release_new(context->plan, c->plan, context->generation, c->slot.resolved_digest, versions,
                    &want, err);
    return r < 0 ? r : !streq(want->id, c->slot.current);
}

int container_would_change(const Container *c, char **ret, Error *err)
{
    const Slot *slot = &c->slot;
    bool is_service = c->plan->mode == PLAN_MODE_SERVICE;
    int r;

    if (!slot->current)
        *ret = str_printf("pull and start %s", c->plan->image);
    else if (slot->held_digest)
        *ret = str_printf("roll out the held %.19s of %s", slot->held_digest, c->plan->image);
    else if (slot->next && !streq(slot->next, slot->current))
        *ret = str_printf("go on with its rollout (%s)", rollout_state_name(slot->state));
    else if (is_service && c->serving.known && !c->serving.running)
        *ret = strdup("start it");
    else if (!slot->resolved_digest || !streq_ptr(slot->resolved_image, c->plan->image))
        *ret = str_printf("look up %s and roll it out", c->plan->image);
    else {
        r = release_differs(c, err);
        if (r <= 0)
            return r;
        *ret = strdup("roll out the changed plan or secrets");
    }
    return *ret ? 1 : error_oom(err);
}

/* What serves, serves. Now: is it what is wanted? */
void container_decide(Container *c)
{
    json_auto_t *versions = NULL;
    auto_error Error err = {0};
    int r;

    if (c->resource->context->draining || c->draining) {
        container_finish(c, NULL);
        return;
    }
    if (c->forced) {
        bring_in_forced(c);
        return;
    }
    /* Without its secrets no release can be named: the registry need not be asked. */
    r = current_versions(c, &versions, &err);
    if (r <= 0) {
        if (r == 0)
            container_show(c, c->slot.current ? c->slot.state : ROLLOUT_WAITING);
        container_finish(c, &err);
        return;
    }
    resolve(c);
}
