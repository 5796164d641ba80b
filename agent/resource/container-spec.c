/* SPDX-License-Identifier: Apache-2.0 */
/* From the plan's words to the engine's: what is created for a release. */
#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/json.h"
#include "agent/resource/container-internal.h"

/* Owns all that the borrowed EngineContainerSpec points to. */
typedef struct Build {
    EngineContainerSpec spec;
    EnginePair *env, *labels;
    EnginePortBinding *ports;
    EngineMount *mounts;
    EngineTmpfs *tmpfs;
    EngineUlimit *ulimits;
    PlanPort *plan_ports;
    PlanVolume *plan_volumes;
    size_t n_plan_volumes;
    PlanTmpfs *plan_tmpfs;
    size_t n_plan_tmpfs;
    SecretBytes **values; /* of the environment; cleansed */
    size_t n_values;
    char **paths; /* of secret files on the host */
    char *image;
} Build;

static void build_done(Build *build)
{
    for (size_t i = 0; i < build->n_values; i++)
        secret_bytes_free(build->values[i]);
    for (size_t i = 0; i < build->n_plan_volumes; i++)
        plan_volume_done(&build->plan_volumes[i]);
    for (size_t i = 0; i < build->n_plan_tmpfs; i++)
        plan_tmpfs_done(&build->plan_tmpfs[i]);
    free(build->values);
    free(build->plan_volumes);
    free(build->plan_tmpfs);
    free(build->plan_ports);
    free(build->env);
    free(build->labels);
    free(build->ports);
    free(build->mounts);
    free(build->tmpfs);
    free(build->ulimits);
    strv_free(build->paths);
    free(build->image);
}

static int add_environment(Build *build, Container *c, const PlanContainer *plan, Error *err)
{
    const Release *release = c->want;
    int r;

    build->env = calloc(plan->env.n + 1, sizeof(*build->env));
    build->values = calloc(plan->env.n + 1, sizeof(*build->values));
    if (!build->env || !build->values)
        return error_oom(err);
    PLAN_FOREACH (PlanEnv, env, plan->env) {
        EnginePair *pair = &build->env[build->spec.n_env];

        pair->name = env->name;
        pair->value = env->value.text;
        if (env->value.secret) {
            SecretBytes **value = &build->values[build->n_values];

            r = secret_store_read(c->resource->context->secrets, env->value.secret,
                                  json_str(release->secrets, env->value.secret), value, err);
            if (r < 0)
                return r;
            build->n_values++;
            if (memchr((*value)->data, '\0', (*value)->size))
                return error_set(
                    err, -EINVAL, ERROR_INVALID,
                    "secret %s has a NUL byte, which no environment variable can hold; "
                    "give it as a file (secret_files)",
                    env->value.secret);
            pair->value = (*value)->data;
        }
        build->spec.n_env++;
    }
    build->spec.env = build->env;
    return 0;
}

static int add_labels(Build *build, Container *c, const PlanContainer *plan, Error *err)
{
    size_t n = 0;

    build->labels = calloc(plan->labels.n + 2, sizeof(*build->labels));
    if (!build->labels)
        return error_oom(err);
    PLAN_FOREACH (PlanLabel, label, plan->labels)
        build->labels[n++] = (EnginePair){label->name, label->value};
    build->labels[n++] = (EnginePair){LABEL_CONTAINER, plan->name};
    build->labels[n++] = (EnginePair){LABEL_RELEASE, c->want->id};
    build->spec.labels = build->labels;
    build->spec.n_labels = n;
    return 0;
}

static int add_ports(Build *build, const PlanContainer *plan, Error *err)
{
    size_t n = strv_length(plan->ports);

    build->ports = calloc(n + 1, sizeof(*build->ports));
    build->plan_ports = calloc(n + 1, sizeof(*build->plan_ports));
    if (!build->ports || !build->plan_ports)
        return error_oom(err);
    for (size_t i = 0; i < n; i++) {
        PlanPort *port = &build->plan_ports[i];

        if (plan_port_parse(plan->ports[i], port) < 0)
            return error_set(err, -EINVAL, ERROR_INVALID, "port \"%s\" is not understood",
                             plan->ports[i]);
        build->ports[i] = (EnginePortBinding){.host_address = port->address,
                                              .host_port = port->host_port,
                                              .container_port = port->container_port,
                                              .protocol = port->udp ? "udp" : "tcp"};
    }
    build->spec.ports = build->ports;
    build->spec.n_ports = n;
    return 0;
}

/* The file must be readable for who runs in the container. A name is known to the image alone: such
 * a file is root's, and its mode says who else may read it. */
static int publish(Container *c, const PlanContainer *plan, const PlanSecretFile *file,
                   char **ret_path, Error *err)
{
    const char *version = json_str(c->want->secrets, file->secret);
    auto_(strv_freep) char **words = str_split(plan->user ? plan->user : "", ":");
    uint64_t uid, gid;
    size_t n = strv_length(words);

    if (!words)
        return error_oom(err);
    if (!version)
        return error_set(err, -ENOENT, ERROR_INTERNAL, "release %s names no version of secret %s",
                         c->want->id, file->secret);
    if (n < 1 || parse_u64(words[0], &uid) < 0 || uid >= (uid_t)-1)
        uid = (uid_t)-1;
    if (n < 2 || parse_u64(words[1], &gid) < 0 || gid >= (gid_t)-1)
        gid = (gid_t)-1;
    return secret_store_publish(c->resource->context->secrets, plan->name, c->want->id,
                                file->secret, version, file->mode, (uid_t)uid, (gid_t)gid, ret_path,
                                err);
}

static int add_mounts(Build *build, Container *c, const PlanContainer *plan, Error *err)
{
    size_t n_volumes = strv_length(plan->volumes);
    int r;

    build->mounts = calloc(n_volumes + plan->secret_files.n + 1, sizeof(*build->mounts));
    build->plan_volumes = calloc(n_volumes + 1, sizeof(*build->plan_volumes));
    if (!build->mounts || !build->plan_volumes)
        return error_oom(err);
    for (size_t i = 0; i < n_volumes; i++) {
        PlanVolume *volume = &build->plan_volumes[i];

        if (plan_volume_parse(plan->volumes[i], volume) < 0)
            return error_set(err, -EINVAL, ERROR_INVALID, "volume \"%s\" is not understood",
                             plan->volumes[i]);
        build->n_plan_volumes++;
        build->mounts[build->spec.n_mounts++] =
            (EngineMount){.kind = volume->is_bind ? ENGINE_MOUNT_BIND_CREATE : ENGINE_MOUNT_VOLUME,
                          .source = volume->source,
                          .target = volume->target,
                          .read_only = volume->read_only};
    }
    PLAN_FOREACH (PlanSecretFile, file, plan->secret_files) {
        auto_free char *path = NULL;

        r = publish(c, plan, file, &path, err);
        if (r < 0)
            return r;
        if (strv_push(&build->paths, path) < 0)
            return error_oom(err);
        build->mounts[build->spec.n_mounts++] =
            (EngineMount){.kind = ENGINE_MOUNT_BIND,
                          .source = build->paths[strv_length(build->paths) - 1],
                          .target = file->path,
                          .read_only = true};
    }
    build->spec.mounts = build->mounts;
    return 0;
}

static int add_limits(Build *build, const PlanContainer *plan, Error *err)
{
    size_t n = strv_length(plan->tmpfs);

    build->tmpfs = calloc(n + 1, sizeof(*build->tmpfs));
    build->plan_tmpfs = calloc(n + 1, sizeof(*build->plan_tmpfs));
    build->ulimits = calloc(plan->ulimits.n + 1, sizeof(*build->ulimits));
    if (!build->tmpfs || !build->plan_tmpfs || !build->ulimits)
        return error_oom(err);
    for (size_t i = 0; i < n; i++) {
        if (plan_tmpfs_parse(plan->tmpfs[i], &build->plan_tmpfs[i]) < 0)
            return error_set(err, -EINVAL, ERROR_INVALID, "tmpfs \"%s\" is not understood",
                             plan->tmpfs[i]);
        build->n_plan_tmpfs++;
        build->tmpfs[i] = (EngineTmpfs){build->plan_tmpfs[i].path, build->plan_tmpfs[i].size_bytes};
    }
    PLAN_FOREACH (PlanUlimit, limit, plan->ulimits)
        build->ulimits[build->spec.n_ulimits++] =
            (EngineUlimit){limit->name, limit->value, limit->value};
    build->spec.tmpfs = build->tmpfs;
    build->spec.n_tmpfs = n;
    build->spec.ulimits = build->ulimits;
    build->spec.memory_bytes = plan->memory_bytes;
    build->spec.cpus = plan->cpus;
    build->spec.pids = plan->pids;
    build->spec.shm_bytes = plan->shm_bytes;
    return 0;
}

static int add_image(Build *build, const Release *release, Error *err)
{
    auto_(reference_freep) Reference *reference = NULL;
    int r;

    r = reference_parse(release->image, &reference, err);
    if (r < 0)
        return r;
    /* By digest, never by tag: a cached old image cannot win. */
    build->image = reference_by_digest(reference, release->digest);
    if (!build->image)
        return error_oom(err);
    build->spec.image = build->image;
    return 0;
}

int container_create(Container *c, const char *name, EngineHandler handler, Error *err)
{
    const PlanContainer *plan = container_want_plan(c, NULL);
    auto_(build_done) Build build = {0};
    int r;

    build.spec = (EngineContainerSpec){
        .entrypoint = (const char *const *)plan->entrypoint,
        .command = (const char *const *)plan->command,
        .user = plan->user,
        .workdir = plan->workdir,
        .network = plan->network,
        .extra_hosts = (const char *const *)plan->extra_hosts,
        .read_only = plan->read_only,
        .init = plan->init,
        .cap_add = (const char *const *)plan->cap_add,
        .cap_drop = (const char *const *)plan->cap_drop,
        .log_driver = plan_log_names[plan->log],
        .stop_signal = plan->stop_signal,
        .stop_timeout_usec = plan->stop_timeout_usec,
        /* The engine heals a crash; at boot agentd alone starts, after secrets are in place. */
        .restart = plan->mode == PLAN_MODE_JOB ? ENGINE_RESTART_NO : ENGINE_RESTART_ON_FAILURE,
    };
    r = add_image(&build, c->want, err);
    if (r >= 0)
        r = add_environment(&build, c, plan, err);
    if (r >= 0)
        r = add_labels(&build, c, plan, err);
    if (r >= 0)
        r = add_ports(&build, plan, err);
    if (r >= 0)
        r = add_mounts(&build, c, plan, err);
    if (r >= 0)
        r = add_limits(&build, plan, err);
    if (r < 0)
        return r;
    return engine_create_container(c->resource->context->engine, name, &build.spec, handler, c,
                                   &c->op, err);
}

int container_publish_secrets(Container *c, Error *err)
{
    const PlanContainer *plan = container_want_plan(c, NULL);
    int r;

    PLAN_FOREACH (PlanSecretFile, file, plan->secret_files) {
        auto_free char *path = NULL;

        r = publish(c, plan, file, &path, err);
        if (r < 0)
            return r;
    }
    return 0;
}
