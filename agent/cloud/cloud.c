/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "agent/cloud/cloud.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud-private.h"

/* The first that recognises the machine; the last one always does. */
static const CloudOps *const clouds[] = {&cloud_gce, &cloud_local};

/* --- State ---------------------------------------------------------------------------------- */

CloudState *cloud_state_new(void)
{
    CloudState *state = calloc(1, sizeof(*state));

    if (state)
        state->n_ref = 1;
    return state;
}

CloudState *cloud_state_ref(CloudState *state)
{
    if (state)
        state->n_ref++;
    return state;
}

CloudState *cloud_state_unref(CloudState *state)
{
    CloudIdentity *identity;

    if (!state || --state->n_ref > 0)
        return NULL;

    identity = &state->identity;
    free(identity->instance_id);
    free(identity->name);
    free(identity->project);
    free(identity->project_number);
    free(identity->zone);
    free(identity->region);
    free(identity->machine_type);
    free(identity->service_account);
    strv_free(identity->scopes);
    free(identity->group);
    free(identity->role);
    free(identity->universe);
    free(state->plan_where);
    free(state->plan);
    free(state->clock_token);
    free(state);
    return NULL;
}

int cloud_state_set_plan(CloudState *state, const char *plan, size_t size)
{
    char *copy = malloc(size + 1);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, plan, size);
    copy[size] = '\0';
    free(state->plan);
    state->plan = copy;
    state->plan_size = size;
    sha256_of(copy, size, state->plan_sha256);
    return 0;
}

static bool identity_equals(const CloudIdentity *a, const CloudIdentity *b)
{
    auto_free char *scopes_a = str_join((const char *const *)a->scopes, " ");
    auto_free char *scopes_b = str_join((const char *const *)b->scopes, " ");

    return streq_ptr(a->instance_id, b->instance_id) && streq_ptr(a->name, b->name) &&
           streq_ptr(a->project, b->project) && streq_ptr(a->project_number, b->project_number) &&
           streq_ptr(a->zone, b->zone) && streq_ptr(a->machine_type, b->machine_type) &&
           streq_ptr(a->service_account, b->service_account) && streq_ptr(scopes_a, scopes_b) &&
           streq_ptr(a->group, b->group) && streq_ptr(a->role, b->role) &&
           streq_ptr(a->universe, b->universe) && a->spot == b->spot &&
           a->publishes == b->publishes && a->startup_script == b->startup_script;
}

unsigned cloud_state_compare(const CloudState *before, const CloudState *after)
{
    unsigned changes = 0;

    if (!before)
        return CLOUD_CHANGED_ALL;
    if (!identity_equals(&before->identity, &after->identity))
        changes |= CLOUD_CHANGED_IDENTITY;
    if (before->plan_source != after->plan_source ||
        !streq(before->plan_sha256, after->plan_sha256) ||
        !streq_ptr(before->plan_where, after->plan_where))
        changes |= CLOUD_CHANGED_PLAN;
    if (before->preempted != after->preempted)
        changes |= CLOUD_CHANGED_PREEMPTED;
    if (before->maintenance != after->maintenance)
        changes |= CLOUD_CHANGED_MAINTENANCE;
    if (!streq_ptr(before->clock_token, after->clock_token))
        changes |= CLOUD_CHANGED_CLOCK;
    return changes;
}

CloudSnapshot cloud_state_snapshot(const CloudState *state)
{
    CloudSnapshot snapshot = {
        .identity = &state->identity,
        .plan_source = state->plan_source,
        .plan_where = state->plan_where,
        .plan = state->plan,
        .plan_size = state->plan_size,
        .preempted = state->preempted,
        .maintenance = state->maintenance,
    };

    memcpy(snapshot.plan_sha256, state->plan_sha256, sizeof(snapshot.plan_sha256));
    return snapshot;
}

void cloud_state_adopt(Cloud *cloud, CloudState *state)
{
    CloudState *former = cloud->state;

    cloud->state = cloud_state_ref(state);
    cloud_state_unref(former);
}

/* --- Operations ----------------------------------------------------------------------------- */

void *cloud_op_new(Cloud *cloud, size_t size, void (*release)(CloudOp *op))
{
    CloudOp *op = calloc(1, size);

    if (!op)
        return NULL;
    op->cloud = cloud;
    op->release = release;
    LIST_PREPEND(all, cloud->all_ops, op);
    return op;
}

static void on_later(void *userdata)
{
    CloudOp *op = userdata;

    op->later(op);
}

int cloud_op_defer(CloudOp *op, uint64_t delay_usec, void (*later)(CloudOp *op))
{
    int r;

    if (!op->timer) {
        r = timer_new(op->cloud->event, on_later, op, &op->timer);
        if (r < 0)
            return r;
    }
    op->later = later;
    return timer_set(op->timer, delay_usec, 0);
}

static void op_detach(CloudOp *op)
{
    op->timer = timer_free(op->timer);
    op->release(op);
    if (op->cloud)
        LIST_REMOVE(all, op->cloud->all_ops, op);
    op->cloud = NULL;
}

CloudOp *cloud_op_free(CloudOp *op)
{
    if (!op)
        return NULL;

    if (op->freed)
        *op->freed = true;
    op_detach(op);
    free(op);
    return NULL;
}

/* --- The cloud ------------------------------------------------------------------------------ */

void *cloud_object_new(const CloudOps *ops, size_t size, const CloudConfig *config)
{
    const char *root = config->root && !streq(config->root, "/") ? config->root : "";
    Cloud *cloud = calloc(1, size);

    if (!cloud)
        return NULL;
    cloud->ops = ops;
    cloud->event = sd_event_ref(config->event);
    cloud->http = config->http;
    cloud->root = strdup(root);
    if (!cloud->root)
        return cloud_free(cloud);
    return cloud;
}

int cloud_new(const CloudConfig *config, Cloud **ret, Error *err)
{
    assert(config && config->event && config->http && ret);

    for (size_t i = 0; i < ELEMENTS(clouds); i++)
        if (clouds[i]->detect(config))
            return clouds[i]->open(config, ret, err);
    return error_set(err, -ENODEV, ERROR_INTERNAL, "no cloud recognises this machine");
}

Cloud *cloud_free(Cloud *cloud)
{
    if (!cloud)
        return NULL;

    /* From the start each time: an operation may own others. */
    while (cloud->all_ops)
        op_detach(cloud->all_ops);
    if (cloud->ops->close)
        cloud->ops->close(cloud);
    cloud_state_unref(cloud->state);
    sd_event_unref(cloud->event);
    free(cloud->root);
    free(cloud);
    return NULL;
}

const char *cloud_name(const Cloud *cloud)
{
    return cloud->ops->name;
}

int cloud_watch(Cloud *cloud, const CloudWatchHandlers *handlers, void *userdata, CloudOp **ret,
                Error *err)
{
    assert(cloud && handlers && handlers->changed && ret);

    return cloud->ops->watch(cloud, handlers, userdata, ret, err);
}

const CloudIdentity *cloud_identity_peek(const Cloud *cloud)
{
    return cloud->state ? &cloud->state->identity : NULL;
}

int cloud_read(Cloud *cloud, CloudSnapshotHandler handler, void *userdata, CloudOp **ret,
               Error *err)
{
    assert(cloud && handler && ret);

    return cloud->ops->read(cloud, handler, userdata, ret, err);
}

int cloud_token_get(Cloud *cloud, CloudTokenHandler handler, void *userdata, CloudOp **ret,
                    Error *err)
{
    assert(cloud && handler && ret);

    if (!cloud->ops->token) {
        (void)error_set(err, -EOPNOTSUPP, ERROR_INVALID,
                        "this machine has no service account: it runs in no known cloud");
        return error_remedy(err, -EOPNOTSUPP,
                            "run on a Compute Engine VM, or set GCE_METADATA_HOST to a metadata "
                            "server");
    }
    return cloud->ops->token(cloud, handler, userdata, ret, err);
}

void cloud_token_invalidate(Cloud *cloud, const char *token)
{
    if (cloud->ops->token_invalidate && token)
        cloud->ops->token_invalidate(cloud, token);
}

int cloud_judge(const Cloud *cloud, const HttpResponse *response, const CloudNeed *need, Error *err)
{
    assert(cloud && response && need && need->what);

    if (!cloud->ops->judge)
        return http_response_error(response, need->what, err);
    return cloud->ops->judge(cloud, response, need, err);
}

bool cloud_scopes_suffice(const Cloud *cloud, const CloudIdentity *identity, char **ret_remedy)
{
    if (ret_remedy)
        *ret_remedy = NULL;
    return !cloud->ops->scopes_suffice || cloud->ops->scopes_suffice(identity, ret_remedy);
}

int cloud_secret_fetch(Cloud *cloud, const char *name, const char *version,
                       CloudSecretHandler handler, void *userdata, CloudOp **ret, Error *err)
{
    assert(cloud && name && handler && ret);

    return cloud->ops->secret(cloud, name, version ? version : "latest", false, handler, userdata,
                              ret, err);
}

int cloud_secret_resolve(Cloud *cloud, const char *name, const char *version,
                         CloudSecretHandler handler, void *userdata, CloudOp **ret, Error *err)
{
    assert(cloud && name && handler && ret);

    return cloud->ops->secret(cloud, name, version ? version : "latest", true, handler, userdata,
                              ret, err);
}

/* What was meant as a full name; but no single word: a key or a token that was pasted in its place
 * may look like one ("eyJhbGci.eyJzdWIi"). */
static bool may_be_shown(const char *name)
{
    return startswith(name, "projects/") && str_is_utf8(name, strlen(name));
}

int cloud_refuse_secret_name(const char *name, Error *err)
{
    if (may_be_shown(name))
        return error_set(err, -EINVAL, ERROR_INVALID, "%s is no name of a secret", name);
    return error_set(err, -EINVAL, ERROR_INVALID,
                     "%zu bytes that are not shown, since they may be the secret itself, are no "
                     "name of a secret",
                     strlen(name));
}

int cloud_secret_check_name(const Cloud *cloud, const char *name, Error *err)
{
    return cloud->ops->secret_check_name(name, err);
}

/* --- Registries, for clouds that have none --------------------------------------------------- */

bool cloud_login_applies(const Cloud *cloud, const char *registry_host)
{
    return cloud->ops->login_applies && cloud->ops->login_applies(cloud, registry_host);
}

bool cloud_login_realm_allowed(const Cloud *cloud, const char *registry_host, const char *realm_url)
{
    return cloud_login_applies(cloud, registry_host) &&
           cloud->ops->login_realm_allowed(cloud, registry_host, realm_url);
}

typedef struct AnonymousOp {
    CloudOp op;
    CloudLoginHandler handler;
    void *userdata;
} AnonymousOp;

static void anonymous_release(CloudOp *op)
{
}

static void anonymous_done(CloudOp *op)
{
    const AnonymousOp *anonymous = container_of(op, AnonymousOp, op);

    anonymous->handler(NULL, NULL, NULL, anonymous->userdata);
}

int cloud_login_get(Cloud *cloud, const char *registry_host, CloudLoginHandler handler,
                    void *userdata, CloudOp **ret, Error *err)
{
    AnonymousOp *anonymous;

    assert(cloud && registry_host && handler && ret);

    if (cloud_login_applies(cloud, registry_host))
        return cloud->ops->login(cloud, registry_host, handler, userdata, ret, err);

    anonymous = cloud_op_new(cloud, sizeof(*anonymous), anonymous_release);
    if (!anonymous)
        return error_oom(err);
    anonymous->handler = handler;
    anonymous->userdata = userdata;
    if (cloud_op_defer(&anonymous->op, 0, anonymous_done) < 0) {
        cloud_op_free(&anonymous->op);
        return error_oom(err);
    }
    *ret = &anonymous->op;
    return 0;
}

void cloud_login_refused(Cloud *cloud, const char *registry_host)
{
    if (cloud_login_applies(cloud, registry_host))
        cloud->ops->login_refused(cloud, registry_host);
}

int cloud_login_explain(const Cloud *cloud, const char *registry_host, const char *repository,
                        Error *err)
{
    if (!err || !cloud_login_applies(cloud, registry_host))
        return err ? err->code : 0;
    return cloud->ops->login_explain(cloud, registry_host, repository, err);
}

const CloudApis *cloud_apis(const Cloud *cloud)
{
    return cloud->ops->apis;
}

char *cloud_cure(const Cloud *cloud, CloudTrouble trouble)
{
    assert(trouble < CLOUD_TROUBLE_MAX);

    return cloud->ops->cure ? cloud->ops->cure(cloud_identity_peek(cloud), trouble) : NULL;
}

void cloud_publish(Cloud *cloud, const char *key, const char *text)
{
    if (cloud->ops->publish)
        cloud->ops->publish(cloud, key, text);
}
