/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl doctor: secrets and images, by the cheapest real call: what says that one may is less
 * than doing it. */

#include <errno.h>

#include "agent/agentctl/doctor-internal.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"

/* ---- Secrets ---- */

/* The containers that get the secret as environment, joined; NULL: none. */
static char *environment_of(const Plan *plan, const char *secret)
{
    auto_(strv_freep) char **names = NULL;

    PLAN_FOREACH (PlanContainer, container, plan->containers)
        PLAN_FOREACH (PlanEnv, env, container->env)
            if (streq_ptr(env->value.secret, secret) && !strv_contains(names, container->name) &&
                strv_push(&names, container->name) < 0)
                return NULL;
    return names ? str_join((const char *const *)names, ", ") : NULL;
}

static void on_secret(CloudSecret *secret, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    auto_free char *containers = NULL;

    if (err) {
        probe_failed(probe, err, NULL);
        return;
    }
    containers = environment_of(probe->doctor->plan, probe->subject);
    if (containers)
        probe_ok(probe,
                 "version %s may be read; as environment of %s it is kept in the engine's files on "
                 "disk, too (secret_files are not)",
                 secret->version, containers);
    else
        probe_ok(probe, "version %s may be read", secret->version);
}

static void check_secret(Doctor *doctor, const PlanSecret *secret)
{
    Probe *probe = probe_new(doctor, "secret.%s", secret->name);
    auto_error Error err = {0};

    if (!probe)
        return;
    if (str_set(&probe->subject, secret->name) < 0)
        doctor->memory_is_out = true;
    /* On a machine without a cloud they are files. */
    if (!is_cloud_vm(doctor) || cloud_is_ready(doctor, probe))
        probe_began(probe,
                    cloud_secret_resolve(doctor->cloud, secret->secret, secret->version, on_secret,
                                         probe, &probe->cloud_op, &err),
                    &err);
}

void check_secrets(Doctor *doctor)
{
    if (doctor->plan)
        PLAN_FOREACH (PlanSecret, secret, doctor->plan->secrets)
            check_secret(doctor, secret);
}

/* ---- Images ---- */

static void on_login(const char *user, const char *password, const Error *err, void *userdata)
{
    Probe *probe = userdata;

    registry_give_credentials(probe->registry_op, user, password, err);
}

static void want_credentials(RegistryOp *op, const char *host, bool again, void *userdata)
{
    Probe *probe = userdata;
    auto_error Error err = {0};

    if (!cloud_login_applies(probe->doctor->cloud, host)) {
        registry_give_credentials(op, NULL, NULL, NULL);
        return;
    }
    probe->login_op = cloud_op_free(probe->login_op);
    if (cloud_login_get(probe->doctor->cloud, host, on_login, probe, &probe->login_op, &err) < 0)
        registry_give_credentials(op, NULL, NULL, &err);
}

static void explain_denial(const RegistryDenial *denial, Error *err, void *userdata)
{
    const Probe *probe = userdata;

    if (denial->had_credentials)
        (void)cloud_login_explain(probe->doctor->cloud, denial->host, denial->path, err);
}

static const RegistryAuth registry_auth = {
    .want_credentials = want_credentials,
    .explain = explain_denial,
};

static void on_image(RegistryOp *op, const RegistryImage *image, const Error *err, void *userdata)
{
    char platform[PLATFORM_TEXT_MAX], size[PARSE_TEXT_MAX];
    Probe *probe = userdata;

    if (err) {
        probe_failed(probe, err, NULL);
        return;
    }
    probe_ok(probe, "%.19s, %s, %s to download", image->digest,
             platform_text(platform, &image->platform),
             format_size_human(size, image->compressed_bytes));
}

static void check_image(Doctor *doctor, const PlanContainer *container)
{
    Probe *probe = probe_new(doctor, "image.%s", container->name);
    auto_(reference_freep) Reference *reference = NULL;
    auto_error Error err = {0};
    RegistryQuery query;
    int r;

    if (!probe)
        return;
    r = reference_parse(container->image, &reference, &err);
    if (r < 0) {
        probe_failed(probe, &err, NULL);
        return;
    }
    if (cloud_login_applies(doctor->cloud, reference->host) && !cloud_is_ready(doctor, probe))
        return;
    query = (RegistryQuery){
        .reference = reference, .auth = &registry_auth, .auth_userdata = probe, .tries = 1};
    probe_began(probe,
                registry_resolve(doctor->http, doctor->event, &query, on_image, probe,
                                 &probe->registry_op, &err),
                &err);
}

void check_images(Doctor *doctor)
{
    if (doctor->plan)
        PLAN_FOREACH (PlanContainer, container, doctor->plan->containers)
            check_image(doctor, container);
}
