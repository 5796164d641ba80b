/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/engine-spec.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/engine/engine-internal.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

#define MEMORY_MIN  (6U << 20) /* the engine's own limit */
#define NSEC_A_USEC 1000
#define NANO_CPUS   1e9

/* Everything below returns 0 or -ENOMEM: json_put() takes NULL for "memory was out". */

static json_t *strings(const char *const *list)
{
    json_t *array = json_array();

    for (; array && list && *list; list++)
        if (json_array_append_new(array, json_string(*list)) < 0) {
            json_decref(array);
            return NULL;
        }

    return array;
}

static int put_strings(json_t *object, const char *key, const char *const *list)
{
    return list && *list ? json_put(object, key, strings(list)) : 0;
}

static int put_string(json_t *object, const char *key, const char *value)
{
    return str_is_empty(value) ? 0 : json_put(object, key, json_string(value));
}

static int put_integer(json_t *object, const char *key, uint64_t value)
{
    return value ? json_put(object, key, json_integer((json_int_t)value)) : 0;
}

static int put_pairs(json_t *object, const char *key, const EnginePair *pairs, size_t n)
{
    json_t *map = json_object();
    int r = map ? 0 : -ENOMEM;

    for (size_t i = 0; r >= 0 && i < n; i++)
        r = json_put(map, pairs[i].name, json_string(pairs[i].value));
    if (r < 0) {
        json_decref(map);
        return r;
    }

    return json_put(object, key, map);
}

/* ---- Config --------------------------------------------------------------------------------- */

static int put_env(json_t *config, const EngineContainerSpec *spec)
{
    json_t *env = json_array();
    int r = env ? 0 : -ENOMEM;

    for (size_t i = 0; r >= 0 && i < spec->n_env; i++) {
        auto_secret_str char *line = str_printf("%s=%s", spec->env[i].name, spec->env[i].value);

        r = line && json_array_append_new(env, json_string(line)) == 0 ? 0 : -ENOMEM;
    }
    if (r < 0) {
        json_cleanse(env);
        return r;
    }

    return json_put(config, "Env", env);
}

static int put_health_check(json_t *config, const EngineHealthCheck *check)
{
    json_t *object;
    int r;

    if (!check->test)
        return 0;
    r = json_put(config, "Healthcheck", json_object());
    object = json_object_get(config, "Healthcheck");

    if (r >= 0)
        r = put_strings(object, "Test", check->test);
    if (r >= 0)
        r = put_integer(object, "Interval", check->interval_usec * NSEC_A_USEC);
    if (r >= 0)
        r = put_integer(object, "Timeout", check->timeout_usec * NSEC_A_USEC);
    if (r >= 0)
        r = put_integer(object, "StartPeriod", check->start_period_usec * NSEC_A_USEC);
    if (r >= 0)
        r = put_integer(object, "Retries", check->retries);

    return r;
}

static char *port_key(const EnginePortBinding *port)
{
    return str_printf("%u/%s", port->container_port, port->protocol ? port->protocol : "tcp");
}

static int put_exposed_ports(json_t *config, const EngineContainerSpec *spec)
{
    json_t *ports;
    int r;

    if (spec->n_ports == 0)
        return 0;
    r = json_put(config, "ExposedPorts", json_object());
    ports = json_object_get(config, "ExposedPorts");

    for (size_t i = 0; r >= 0 && i < spec->n_ports; i++) {
        auto_free char *key = port_key(&spec->ports[i]);

        r = key ? json_put(ports, key, json_object()) : -ENOMEM;
    }

    return r;
}

static int put_config(json_t *config, const EngineContainerSpec *spec)
{
    int r;

    r = put_string(config, "Image", spec->image);
    if (r >= 0)
        r = put_string(config, "Hostname", spec->hostname);
    if (r >= 0)
        r = put_string(config, "User", spec->user);
    if (r >= 0)
        r = put_string(config, "WorkingDir", spec->workdir);
    if (r >= 0)
        r = put_strings(config, "Entrypoint", spec->entrypoint);
    if (r >= 0)
        r = put_strings(config, "Cmd", spec->command);
    if (r >= 0)
        r = put_env(config, spec);
    if (r >= 0)
        r = put_pairs(config, "Labels", spec->labels, spec->n_labels);
    if (r >= 0)
        r = put_exposed_ports(config, spec);
    if (r >= 0)
        r = put_string(config, "StopSignal", spec->stop_signal);
    if (r >= 0)
        r = put_integer(config, "StopTimeout", (spec->stop_timeout_usec + SECOND - 1) / SECOND);
    if (r >= 0)
        r = put_health_check(config, &spec->health_check);

    return r;
}

/* ---- HostConfig ----------------------------------------------------------------------------- */

static int put_binding(json_t *bindings, const EnginePortBinding *port)
{
    auto_free char *key = port_key(port);
    auto_free char *host_port = str_printf("%u", port->host_port);
    json_t *binding = json_object();
    json_t *list;
    int r;

    if (!key || !host_port || !binding) {
        json_decref(binding);
        return -ENOMEM;
    }
    r = json_put(binding, "HostIp", json_string(port->host_address ? port->host_address : ""));
    if (r >= 0)
        r = json_put(binding, "HostPort", json_string(host_port));
    if (r >= 0 && !json_object_get(bindings, key))
        r = json_put(bindings, key, json_array());
    if (r < 0) {
        json_decref(binding);
        return r;
    }

    list = json_object_get(bindings, key);
    return json_array_append_new(list, binding) < 0 ? -ENOMEM : 0;
}

static int put_ports(json_t *host, const EngineContainerSpec *spec)
{
    json_t *bindings;
    int r;

    r = json_put(host, "PortBindings", json_object());
    bindings = json_object_get(host, "PortBindings");
    for (size_t i = 0; r >= 0 && i < spec->n_ports; i++)
        if (spec->ports[i].host_port)
            r = put_binding(bindings, &spec->ports[i]);

    return r;
}

static int add_mount(json_t *mounts, const EngineMount *mount)
{
    json_t *object = json_object();
    int r;

    r = json_put(object, "Type",
                 json_string(mount->kind == ENGINE_MOUNT_VOLUME ? "volume" : "bind"));
    if (r >= 0)
        r = json_put(object, "Source", json_string(mount->source));
    if (r >= 0)
        r = json_put(object, "Target", json_string(mount->target));
    if (r >= 0 && mount->read_only)
        r = json_put(object, "ReadOnly", json_true());
    if (r < 0) {
        json_decref(object);
        return r;
    }

    return json_array_append_new(mounts, object) < 0 ? -ENOMEM : 0;
}

static int add_bind(json_t *binds, const EngineMount *mount)
{
    auto_free char *text =
        str_printf("%s:%s%s", mount->source, mount->target, mount->read_only ? ":ro" : "");

    return text && json_array_append_new(binds, json_string(text)) == 0 ? 0 : -ENOMEM;
}

static int put_mounts(json_t *host, const EngineContainerSpec *spec)
{
    int r;

    r = json_put(host, "Mounts", json_array());
    if (r >= 0)
        r = json_put(host, "Binds", json_array());
    for (size_t i = 0; r >= 0 && i < spec->n_mounts; i++)
        r = spec->mounts[i].kind == ENGINE_MOUNT_BIND_CREATE
                ? add_bind(json_object_get(host, "Binds"), &spec->mounts[i])
                : add_mount(json_object_get(host, "Mounts"), &spec->mounts[i]);

    return r;
}

static int put_tmpfs(json_t *host, const EngineContainerSpec *spec)
{
    json_t *map;
    int r;

    if (spec->n_tmpfs == 0)
        return 0;
    r = json_put(host, "Tmpfs", json_object());
    map = json_object_get(host, "Tmpfs");
    for (size_t i = 0; r >= 0 && i < spec->n_tmpfs; i++) {
        auto_free char *options =
            spec->tmpfs[i].size_bytes
                ? str_printf("size=%llu", (unsigned long long)spec->tmpfs[i].size_bytes)
                : strdup("");

        r = options ? json_put(map, spec->tmpfs[i].path, json_string(options)) : -ENOMEM;
    }

    return r;
}

static int put_ulimits(json_t *host, const EngineContainerSpec *spec)
{
    json_t *list;
    int r;

    if (spec->n_ulimits == 0)
        return 0;
    r = json_put(host, "Ulimits", json_array());
    list = json_object_get(host, "Ulimits");
    for (size_t i = 0; r >= 0 && i < spec->n_ulimits; i++) {
        const EngineUlimit *limit = &spec->ulimits[i];

        r = json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "Name", limit->name, "Soft",
                                                  (json_int_t)limit->soft, "Hard",
                                                  (json_int_t)limit->hard)) < 0
                ? -ENOMEM
                : 0;
    }

    return r;
}

static int put_limits(json_t *host, const EngineContainerSpec *spec)
{
    int r;

    r = put_integer(host, "Memory", spec->memory_bytes);
    if (r >= 0 && spec->memory_swap_bytes)
        r = json_put(host, "MemorySwap", json_integer(spec->memory_swap_bytes));
    if (r >= 0)
        r = put_integer(host, "NanoCpus", (uint64_t)(spec->cpus * NANO_CPUS + 0.5));
    if (r >= 0)
        r = put_integer(host, "PidsLimit", spec->pids);
    if (r >= 0)
        r = put_integer(host, "ShmSize", spec->shm_bytes);
    if (r >= 0)
        r = put_ulimits(host, spec);

    return r;
}

json_t *engine_restart_json(EngineRestart restart, unsigned max)
{
    static const char *const names[] = {
        [ENGINE_RESTART_NO] = "no",
        [ENGINE_RESTART_ON_FAILURE] = "on-failure",
        [ENGINE_RESTART_UNLESS_STOPPED] = "unless-stopped",
        [ENGINE_RESTART_ALWAYS] = "always",
    };

    return json_pack("{s:s, s:i}", "Name", names[restart], "MaximumRetryCount",
                     restart == ENGINE_RESTART_ON_FAILURE ? (int)max : 0);
}

static int put_log(json_t *host, const EngineContainerSpec *spec)
{
    int r;

    if (str_is_empty(spec->log_driver))
        return 0;
    r = json_put(host, "LogConfig", json_pack("{s:s}", "Type", spec->log_driver));
    if (r >= 0)
        r = put_pairs(json_object_get(host, "LogConfig"), "Config", spec->log_options,
                      spec->n_log_options);

    return r;
}

static int put_host_config(json_t *host, const EngineContainerSpec *spec)
{
    int r;

    r = put_string(host, "NetworkMode", spec->network);
    if (r >= 0)
        r = put_ports(host, spec);
    if (r >= 0)
        r = put_strings(host, "ExtraHosts", spec->extra_hosts);
    if (r >= 0)
        r = put_mounts(host, spec);
    if (r >= 0)
        r = put_tmpfs(host, spec);
    if (r >= 0 && spec->read_only)
        r = json_put(host, "ReadonlyRootfs", json_true());
    if (r >= 0)
        r = put_limits(host, spec);
    if (r >= 0 && spec->init)
        r = json_put(host, "Init", json_true());
    if (r >= 0)
        r = put_strings(host, "CapAdd", spec->cap_add);
    if (r >= 0)
        r = put_strings(host, "CapDrop", spec->cap_drop);
    if (r >= 0)
        r = put_strings(host, "SecurityOpt", spec->security_options);
    if (r >= 0)
        r = put_log(host, spec);
    if (r >= 0)
        r = json_put(host, "RestartPolicy", engine_restart_json(spec->restart, spec->restart_max));

    return r;
}

/* ---- The whole ------------------------------------------------------------------------------ */

static int check(const EngineContainerSpec *spec, Error *err)
{
    if (str_is_empty(spec->image))
        return error_set(err, -EINVAL, ERROR_INVALID, "a container needs an image");
    if (spec->memory_bytes && spec->memory_bytes < MEMORY_MIN)
        return error_set(err, -EINVAL, ERROR_INVALID,
                         "a container's memory limit is at least 6 MiB");

    for (size_t i = 0; i < spec->n_mounts; i++) {
        const EngineMount *mount = &spec->mounts[i];

        if (mount->kind == ENGINE_MOUNT_BIND_CREATE &&
            (strchr(mount->source, ':') || strchr(mount->target, ':')))
            return error_set(err, -EINVAL, ERROR_INVALID,
                             "volume %s: a path that is mounted has no ':'", mount->source);
    }
    for (size_t i = 0; i < spec->n_env; i++)
        if (str_is_empty(spec->env[i].name) || strchr(spec->env[i].name, '='))
            return error_set(err, -EINVAL, ERROR_INVALID,
                             "the name of an environment variable is empty or has a '='");

    return 0;
}

/* Into memory of exactly its size: a buffer that grows would leave secrets where it was. */
static int dump(const json_t *doc, char **ret)
{
    size_t size = json_dumpb(doc, NULL, 0, JSON_COMPACT);
    char *text;

    if (size == 0)
        return -ENOMEM;
    text = malloc(size + 1);
    if (!text)
        return -ENOMEM;
    if (json_dumpb(doc, text, size, JSON_COMPACT) != size) {
        free(text);
        return -ENOMEM;
    }

    text[size] = '\0';
    *ret = text;
    return 0;
}

int engine_spec_json(const EngineContainerSpec *spec, char **ret, Error *err)
{
    json_t *doc;
    int r;

    r = check(spec, err);
    if (r < 0)
        return r;

    doc = json_object();
    r = doc ? put_config(doc, spec) : -ENOMEM;
    if (r >= 0)
        r = json_put(doc, "HostConfig", json_object());
    if (r >= 0)
        r = put_host_config(json_object_get(doc, "HostConfig"), spec);
    if (r >= 0)
        r = dump(doc, ret);
    json_cleanse(doc);

    return r < 0 ? error_errno(err, r, "a container's description") : 0;
}
