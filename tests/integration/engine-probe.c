/* SPDX-License-Identifier: Apache-2.0 */

/* agent/engine against real servers, by hand and from tests: one call a command line, its outcome
 * as one line of JSON.
 *
 *   engine-probe [OPTION=VALUE]... VERB [OPERAND]...
 *
 *   resolve REFERENCE, pull REFERENCE, info, images, image NAME, remove-image NAME,
 *   tag-image NAME REPOSITORY TAG, create NAME IMAGE [COMMAND]..., start|inspect|remove|wait|logs
 *   NAME, stop NAME, rename NAME NEW, containers [LABEL], events [LABEL], health NAME */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/engine/engine.h"
#include "agent/engine/health.h"
#include "agent/engine/registry.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"

typedef struct Probe {
    sd_event *event;
    HttpClient *http;
    Engine *engine;
    EngineOp *op;
    RegistryOp *registry;
    EngineEvents *events;
    HealthProbe *health;
    int asked;      /* for credentials */
    char **options; /* "NAME=VALUE" */
} Probe;

static const char *option(const Probe *probe, const char *name)
{
    STRV_FOREACH (text, probe->options) {
        const char *rest = startswith(*text, name);

        if (rest && *rest == '=')
            return rest + 1;
    }

    return NULL;
}

static uint64_t duration(const Probe *probe, const char *name)
{
    const char *text = option(probe, name);
    uint64_t usec = 0;

    return text && parse_duration(text, &usec) >= 0 ? usec : 0;
}

static void print(json_t *line)
{
    auto_free char *text = json_dumps(line, JSON_COMPACT);

    puts(text ? text : "{}");
    (void)fflush(stdout);
    json_decref(line);
}

static void fail(Probe *probe, const Error *err)
{
    print(json_pack("{s:b, s:i, s:s, s:s, s:s}", "ok", 0, "code", err->code, "kind",
                    error_kind_name(err->kind), "message", error_text(err), "remedy",
                    err->remedy ? err->remedy : ""));
    (void)sd_event_exit(probe->event, 1);
}

static void succeed(Probe *probe, json_t *line)
{
    (void)json_object_set_new(line, "ok", json_true());
    print(line);
    (void)sd_event_exit(probe->event, 0);
}

static json_t *strings(const char *const *list)
{
    json_t *array = json_array();

    for (; list && *list; list++)
        (void)json_array_append_new(array, json_string(*list));

    return array;
}

/* ---- Replies -------------------------------------------------------------------------------- */

static json_t *container_json(const EngineContainer *c)
{
    json_t *ports = json_array(), *labels = json_object(), *object;
    auto_free char *exit = engine_container_explain_exit(c);

    for (size_t i = 0; i < c->n_ports; i++)
        (void)json_array_append_new(ports, json_pack("{s:i, s:i}", "host", c->ports[i].host_port,
                                                     "inner", c->ports[i].container_port));
    for (size_t i = 0; i < c->n_labels; i++)
        (void)json_object_set_new(labels, c->labels[i].name, json_string(c->labels[i].value));

    object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:b, s:i, s:s, s:s}", "id", c->id,
                       "name", c->name, "image", c->image, "image_id", c->image_id, "state",
                       engine_state_name(c->state), "address", c->address, "health", (int)c->health,
                       "health_output", c->health_output, "oom_killed", c->oom_killed, "exit_code",
                       c->exit_code, "error", c->error, "exit", exit);
    (void)json_object_set_new(object, "restarts", json_integer((json_int_t)c->restart_count));
    (void)json_object_set_new(object, "memory", json_integer((json_int_t)c->memory_bytes));
    (void)json_object_set_new(object, "ports", ports);
    (void)json_object_set_new(object, "labels", labels);
    return object;
}

static json_t *image_json(const EngineImage *image)
{
    char platform[PLATFORM_TEXT_MAX];

    return json_pack("{s:s, s:o, s:o, s:I, s:I, s:s, s:o, s:b}", "id", image->id, "tags",
                     strings(image->repo_tags), "digests", strings(image->repo_digests), "size",
                     (json_int_t)image->size_bytes, "created",
                     (json_int_t)(image->created_usec / SECOND), "platform",
                     platform_text(platform, &image->platform), "env", strings(image->env),
                     "has_health_check", image->has_health_check);
}

static json_t *info_json(const EngineInfo *info)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:b}", "version", info->server_version, "root",
                     info->root_dir, "driver", info->storage_driver, "machine", info->machine,
                     "memory", (json_int_t)info->memory_bytes, "containerd_store",
                     info->uses_containerd_store);
}

static void on_reply(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    json_t *line;

    if (err) {
        fail(probe, err);
        return;
    }
    line = json_pack("{s:b, s:s, s:i, s:s, s:i, s:b}", "changed", reply->changed, "id",
                     reply->id ? reply->id : "", "exit_code", reply->exit_code, "text",
                     reply->text ? reply->text : "", "api", (int)engine_api_version(probe->engine),
                     "pulling", engine_is_pulling(probe->engine));
    (void)json_object_set_new(line, "warnings", strings(reply->warnings));
    (void)json_object_set_new(line, "untagged", strings(reply->untagged));
    (void)json_object_set_new(line, "deleted", strings(reply->deleted));
    (void)json_object_set_new(line, "containers", json_array());
    (void)json_object_set_new(line, "images", json_array());
    for (size_t i = 0; i < reply->n_containers; i++)
        (void)json_array_append_new(json_object_get(line, "containers"),
                                    container_json(&reply->containers[i]));
    for (size_t i = 0; i < reply->n_images; i++)
        (void)json_array_append_new(json_object_get(line, "images"), image_json(&reply->images[i]));
    if (reply->info)
        (void)json_object_set_new(line, "info", info_json(reply->info));
    succeed(probe, line);
}

/* ---- The registry --------------------------------------------------------------------------- */

static void on_want(RegistryOp *op, const char *host, bool again, void *userdata)
{
    Probe *probe = userdata;

    probe->asked++;
    registry_give_credentials(op, option(probe, "user"), option(probe, "password"), NULL);
}

static void on_resolved(RegistryOp *op, const RegistryImage *image, const Error *err,
                        void *userdata)
{
    Probe *probe = userdata;
    char platform[PLATFORM_TEXT_MAX];

    if (err) {
        fail(probe, err);
        return;
    }
    succeed(probe, json_pack("{s:s, s:s, s:s, s:I, s:i, s:s, s:b, s:i}", "digest", image->digest,
                             "manifest", image->manifest_digest ? image->manifest_digest : "",
                             "config", image->config_digest ? image->config_digest : "", "bytes",
                             (json_int_t)image->compressed_bytes, "layers", (int)image->n_layers,
                             "platform", platform_text(platform, &image->platform), "unchanged",
                             image->unchanged, "asked", probe->asked));
}

static int run_resolve(Probe *probe, char **operands, Error *err)
{
    static const RegistryAuth auth = {.want_credentials = on_want};
    auto_(reference_freep) Reference *reference = NULL;
    Platform platform = {.os = "linux"};
    const char *arch = option(probe, "arch");
    RegistryQuery query = {
        .known_digest = option(probe, "known"),
        .auth = &auth,
        .auth_userdata = probe,
        .tries = 1,
    };
    int r;

    r = reference_parse(operands[0], &reference, err);
    if (r < 0)
        return r;
    if (arch) {
        (void)snprintf(platform.architecture, sizeof(platform.architecture), "%s", arch);
        query.platform = &platform;
    }
    query.reference = reference;

    return registry_resolve(probe->http, probe->event, &query, on_resolved, probe, &probe->registry,
                            err);
}

/* ---- Images --------------------------------------------------------------------------------- */

static void on_progress(EngineOp *op, const EnginePullProgress *progress, void *userdata)
{
    print(json_pack("{s:i, s:i, s:I, s:I, s:b}", "layers", progress->layers, "done",
                    progress->layers_done, "current", (json_int_t)progress->current_bytes, "total",
                    (json_int_t)progress->total_bytes, "extracting", progress->extracting));
}

static int run_pull(Probe *probe, char **operands, Error *err)
{
    auto_(reference_freep) Reference *reference = NULL;
    EnginePull pull = {
        .username = option(probe, "user"),
        .password = option(probe, "password"),
        .on_progress = on_progress,
    };
    int r;

    r = reference_parse(operands[0], &reference, err);
    if (r < 0)
        return r;
    pull.reference = reference;

    return engine_pull(probe->engine, &pull, on_reply, probe, &probe->op, err);
}

static int run_info(Probe *probe, char **operands, Error *err)
{
    return engine_info(probe->engine, on_reply, probe, &probe->op, err);
}

static int run_images(Probe *probe, char **operands, Error *err)
{
    return engine_list_images(probe->engine, on_reply, probe, &probe->op, err);
}

static int run_image(Probe *probe, char **operands, Error *err)
{
    return engine_inspect_image(probe->engine, operands[0], on_reply, probe, &probe->op, err);
}

static int run_remove_image(Probe *probe, char **operands, Error *err)
{
    return engine_remove_image(probe->engine, operands[0], on_reply, probe, &probe->op, err);
}

static int run_tag_image(Probe *probe, char **operands, Error *err)
{
    return engine_tag_image(probe->engine, operands[0], operands[1], operands[2], on_reply, probe,
                            &probe->op, err);
}

/* ---- Containers ----------------------------------------------------------------------------- */

static int run_create(Probe *probe, char **operands, Error *err)
{
    const char *env = option(probe, "env"), *memory = option(probe, "memory");
    const char *port = option(probe, "port"), *secret = option(probe, "secret");
    const char *cpus = option(probe, "cpus");
    const char *caps[] = {"ALL", NULL}, *hosts[] = {"db:10.0.0.5", NULL};
    const char *entrypoint[] = {option(probe, "entrypoint"), NULL};
    const EnginePair pairs[] = {{"GREETING", env ? env : ""}};
    const EnginePair labels[] = {{"io.mervis.container", operands[0]}};
    EnginePortBinding ports[] = {{.container_port = 8080}};
    const EngineTmpfs tmpfs[] = {{"/scratch", 1 << 20}};
    const EngineUlimit ulimits[] = {{"nofile", 1000, 2000}};
    EngineMount mounts[] = {
        {ENGINE_MOUNT_BIND, secret, "/run/secrets/app-key", true},
        {ENGINE_MOUNT_BIND_CREATE, option(probe, "bind"), "/data", false},
        {ENGINE_MOUNT_VOLUME, "cache", "/cache", false},
    };
    EngineContainerSpec spec = {
        .image = operands[1],
        .entrypoint = entrypoint,
        .command = (const char *const *)operands + 2,
        .user = option(probe, "run-as"),
        .env = pairs,
        .n_env = env ? 1 : 0,
        .labels = labels,
        .n_labels = 1,
        .extra_hosts = hosts,
        .network = option(probe, "network"),
        .mounts = secret ? mounts : mounts + 1,
        .n_mounts = option(probe, "bind") ? (secret ? 3 : 2)
                    : secret              ? 1
                                          : 0,
        .tmpfs = tmpfs,
        .n_tmpfs = 1,
        .read_only = option(probe, "read-only"),
        .pids = 100,
        .shm_bytes = 1 << 20,
        .ulimits = ulimits,
        .n_ulimits = 1,
        .init = option(probe, "init"),
        .cap_drop = option(probe, "drop") ? caps : NULL,
        .stop_signal = "SIGTERM",
        .stop_timeout_usec = duration(probe, "stop-timeout"),
        .log_driver = "json-file",
        .restart = option(probe, "restart") ? ENGINE_RESTART_ON_FAILURE : ENGINE_RESTART_NO,
    };
    uint64_t number = 0;

    if (port && parse_u64(port, &number) >= 0) {
        ports[0].host_port = (uint16_t)number;
        spec.ports = ports;
        spec.n_ports = 1;
    }
    if (memory && parse_size(memory, &spec.memory_bytes) < 0)
        return -EINVAL;
    if (cpus && parse_fraction(cpus, &spec.cpus) < 0)
        return -EINVAL;

    return engine_create_container(probe->engine, operands[0], &spec, on_reply, probe, &probe->op,
                                   err);
}

static int run_start(Probe *probe, char **operands, Error *err)
{
    return engine_start_container(probe->engine, operands[0], on_reply, probe, &probe->op, err);
}

static int run_stop(Probe *probe, char **operands, Error *err)
{
    uint64_t usec = option(probe, "timeout") ? duration(probe, "timeout") : USEC_INFINITY;

    return engine_stop_container(probe->engine, operands[0], usec, on_reply, probe, &probe->op,
                                 err);
}

static int run_rename(Probe *probe, char **operands, Error *err)
{
    return engine_rename_container(probe->engine, operands[0], operands[1], on_reply, probe,
                                   &probe->op, err);
}

static int run_remove(Probe *probe, char **operands, Error *err)
{
    return engine_remove_container(probe->engine, operands[0], option(probe, "force"), on_reply,
                                   probe, &probe->op, err);
}

static int run_inspect(Probe *probe, char **operands, Error *err)
{
    return engine_inspect_container(probe->engine, operands[0], on_reply, probe, &probe->op, err);
}

static int run_wait(Probe *probe, char **operands, Error *err)
{
    return engine_wait_container(probe->engine, operands[0], on_reply, probe, &probe->op, err);
}

static int run_logs(Probe *probe, char **operands, Error *err)
{
    return engine_container_logs(probe->engine, operands[0], 20, on_reply, probe, &probe->op, err);
}

static int run_containers(Probe *probe, char **operands, Error *err)
{
    return engine_list_containers(probe->engine, operands[0], on_reply, probe, &probe->op, err);
}

/* ---- Events and health ---------------------------------------------------------------------- */

static void on_event(const EngineEvent *event, void *userdata)
{
    print(json_pack("{s:i, s:s, s:s, s:i}", "kind", (int)event->kind, "action", event->action,
                    "name", event->name, "exit_code", event->exit_code));
}

static void on_up(void *userdata)
{
    print(json_pack("{s:b}", "up", 1));
}

static void on_down(const Error *err, void *userdata)
{
    print(json_pack("{s:b, s:i, s:s}", "up", 0, "code", err->code, "message", error_text(err)));
}

static int run_events(Probe *probe, char **operands, Error *err)
{
    static const EngineEventsHandlers handlers = {on_event, on_up, on_down};

    return engine_events_new(probe->engine, operands[0], &handlers, probe, &probe->events, err);
}

static void on_verdict(HealthProbe *health, const HealthVerdict *verdict, void *userdata)
{
    succeed(userdata, json_pack("{s:b, s:s, s:i, s:b, s:I}", "healthy", verdict->healthy, "reason",
                                verdict->reason, "exit_code", verdict->exit_code, "oom_killed",
                                verdict->oom_killed, "elapsed_ms",
                                (json_int_t)(verdict->elapsed_usec / MSEC)));
}

static int run_health(Probe *probe, char **operands, Error *err)
{
    HealthSpec spec = {
        .kind = option(probe, "http")        ? HEALTH_HTTP
                : option(probe, "by-engine") ? HEALTH_ENGINE
                                             : HEALTH_STABILITY,
        .container = operands[0],
        .url = option(probe, "http"),
        .interval_usec = duration(probe, "interval"),
        .timeout_usec = duration(probe, "timeout"),
        .start_period_usec = duration(probe, "start-period"),
        .stable_usec = duration(probe, "stable"),
        .limit_usec = duration(probe, "limit"),
    };

    return health_probe_start(probe->engine, probe->http, probe->event, &spec, on_verdict, probe,
                              &probe->health, err);
}

/* ---- The command line ----------------------------------------------------------------------- */

static const struct {
    const char *name;
    int operands;
    int (*run)(Probe *probe, char **operands, Error *err);
} verbs[] = {
    {"resolve", 1, run_resolve},     {"pull", 1, run_pull},
    {"info", 0, run_info},           {"images", 0, run_images},
    {"image", 1, run_image},         {"remove-image", 1, run_remove_image},
    {"tag-image", 3, run_tag_image}, {"create", 2, run_create},
    {"start", 1, run_start},         {"stop", 1, run_stop},
    {"rename", 2, run_rename},       {"remove", 1, run_remove},
    {"inspect", 1, run_inspect},     {"wait", 1, run_wait},
    {"logs", 1, run_logs},           {"containers", 0, run_containers},
    {"events", 0, run_events},       {"health", 1, run_health},
};

static int set_up(Probe *probe, Error *err)
{
    const char *socket = option(probe, "engine"), *host = option(probe, "endpoint");
    const HttpEndpoint endpoint = {host, option(probe, "base")};
    int r;

    r = loop_new(&probe->event, err);
    if (r < 0)
        return r;
    r = http_client_new(probe->event, "engine-probe/1", &probe->http, err);
    if (r < 0)
        return r;
    if (host) {
        r = http_client_set_endpoints(probe->http, &endpoint, 1, err);
        if (r < 0)
            return r;
    }
    r = engine_new(probe->http, probe->event, socket ? socket : "/var/run/docker.sock",
                   &probe->engine, err);
    if (r < 0)
        return r;

    engine_set_timeouts(probe->engine, duration(probe, "call-timeout"),
                        duration(probe, "first-timeout"), duration(probe, "stall-timeout"));
    return 0;
}

static void tear_down(Probe *probe)
{
    (void)health_probe_free(probe->health);
    (void)engine_events_free(probe->events);
    (void)engine_op_free(probe->op);
    (void)registry_op_free(probe->registry);
    (void)engine_free(probe->engine);
    (void)http_client_free(probe->http);
    (void)sd_event_unref(probe->event);
    free(probe->options);
}

static int run(Probe *probe, const char *verb, char **operands, int n_operands, Error *err)
{
    int r, status = 0;

    for (size_t i = 0; i < ELEMENTS(verbs); i++) {
        if (!streq(verb, verbs[i].name) || n_operands < verbs[i].operands)
            continue;
        r = set_up(probe, err);
        if (r >= 0)
            r = verbs[i].run(probe, operands, err);
        if (r < 0)
            return r;
        r = sd_event_loop(probe->event);
        (void)sd_event_get_exit_code(probe->event, &status);
        return r < 0 ? r : status;
    }

    return error_set(err, -EINVAL, ERROR_INVALID, "usage: engine-probe [OPTION=VALUE]... VERB …");
}

int main(int argc, char **argv)
{
    auto_(tear_down) Probe probe = {0};
    auto_error Error err = {0};
    int first = 1, r;

    probe.options = calloc((size_t)argc + 1, sizeof(*probe.options));
    if (!probe.options)
        return EXIT_FAILURE;
    for (size_t n = 0; first < argc && strchr(argv[first], '='); first++)
        probe.options[n++] = argv[first];
    if (first == argc)
        return EXIT_FAILURE;

    r = run(&probe, argv[first], argv + first + 1, argc - first - 1, &err);
    if (r >= 0)
        return r;
    if (probe.event)
        fail(&probe, &err);
    else
        (void)fprintf(stderr, "%s\n", error_text(&err));
    return EXIT_FAILURE;
}
