/* SPDX-License-Identifier: Apache-2.0 */
/* What a registry is asked: what the tag stands for now, and how large that is. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/resource/container-internal.h"

static void on_resolved(RegistryOp *op, const RegistryImage *image, const Error *err,
                        void *userdata)
{
    Container *c = userdata;
    auto_free char *digest = NULL;

    if (err) {
        auto_error Error failure = {0};

        (void)error_copy(&failure, err);
        (void)error_prefix(&failure, failure.code, "%s", c->plan->image);
        container_show(c, c->slot.current ? c->slot.state : ROLLOUT_FAILED);
        container_cannot_be_had(c, &failure);
        return;
    }
    digest = strdup(image->digest);
    c->pull_bytes = image->unchanged ? 0 : image->compressed_bytes;
    c->resolve = registry_op_free(c->resolve);
    if (digest)
        container_choose(c, digest);
    else
        container_fail(c, -ENOMEM, ERROR_INTERNAL, "out of memory");
}

static void on_login(const char *user, const char *password, const Error *err, void *userdata)
{
    Container *c = userdata;

    c->login = cloud_op_free(c->login);
    registry_give_credentials(c->measure ? c->measure : c->resolve, user, password, err);
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

/* Only the digest that serves may answer from memory: of any other, platform and size are looked at
 * before a byte of it is pulled. */
void container_resolve(Container *c)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_(release_freep) Release *serving = NULL;
    auto_error Error err = {0};
    RegistryQuery query;
    int r = 0;

    if (c->slot.current)
        r = release_load(c->resource->context->db, c->plan->name, c->slot.current, &serving, &err);
    if (r >= 0)
        r = reference_parse(c->plan->image, &reference, &err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    query = (RegistryQuery){.reference = reference,
                            .known_digest = serving ? serving->digest : NULL,
                            .auth = &registry_auth,
                            .auth_userdata = c,
                            .token = &c->token};
    container_show(c, c->slot.current ? c->slot.state : ROLLOUT_RESOLVING);
    r = registry_resolve(c->resource->context->http, c->resource->context->event, &query,
                         on_resolved, c, &c->resolve, &err);
    if (r < 0)
        container_finish(c, &err);
}

static void on_measured(RegistryOp *op, const RegistryImage *image, const Error *err,
                        void *userdata)
{
    Container *c = userdata;

    if (image)
        c->pull_bytes = image->compressed_bytes;
    c->measure = registry_op_free(c->measure);
    c->measured(c); /* where nobody says, the engine will when the disk is full */
}

void container_measure(Container *c, ContainerStep then)
{
    auto_(reference_freep) Reference *reference = NULL, *exact = NULL;
    auto_free char *name = NULL;
    RegistryQuery query = {
        .auth = &registry_auth, .auth_userdata = c, .token = &c->token, .tries = 1};

    c->measured = then;
    if (c->pull_bytes == 0 && reference_parse(c->want->image, &reference, NULL) >= 0)
        name = reference_by_digest(reference, c->want->digest);
    if (name && reference_parse(name, &exact, NULL) >= 0) {
        query.reference = exact;
        if (registry_resolve(c->resource->context->http, c->resource->context->event, &query,
                             on_measured, c, &c->measure, NULL) >= 0)
            return;
    }
    then(c);
}
