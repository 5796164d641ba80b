/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/engine-parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/json.h"

#define OUTPUT_SHOWN_MAX 400
#define SIGNAL_EXIT_BASE 128

/* ---- Memory --------------------------------------------------------------------------------- */

void engine_doc_done(EngineDoc *doc)
{
    for (size_t i = 0; i < doc->n_arrays; i++)
        free(doc->arrays[i]);
    free(doc->arrays);
    free(doc->containers);
    free(doc->images);
    (void)strv_free(doc->escaped);
    json_decref(doc->doc);
    *doc = (EngineDoc){0};
}

/* Zeroed; freed with the document. */
static void *doc_array(EngineDoc *doc, size_t n, size_t size)
{
    void **arrays = reallocarray(doc->arrays, doc->n_arrays + 1, sizeof(*arrays));
    void *array;

    if (!arrays)
        return NULL;
    doc->arrays = arrays;
    array = calloc(n ? n : 1, size);
    if (!array)
        return NULL;

    return doc->arrays[doc->n_arrays++] = array;
}

/* Printable, cut; "" for NULL; NULL when memory is out. */
static const char *doc_escape(EngineDoc *doc, const char *text)
{
    auto_free char *escaped = NULL;

    if (str_is_empty(text))
        return "";
    escaped = str_escape(text, strlen(text), OUTPUT_SHOWN_MAX);
    if (!escaped || strv_push(&doc->escaped, escaped) < 0)
        return NULL;

    return doc->escaped[strv_length(doc->escaped) - 1];
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_str(object, key);

    return text ? text : "";
}

static uint64_t u64_of(const json_t *object, const char *key)
{
    uint64_t value = 0;

    return json_u64(object, key, &value) < 0 ? 0 : value;
}

/* RFC 3339; "0001-01-01T00:00:00Z", which Go writes for never, is 0. */
static uint64_t time_of(const json_t *object, const char *key)
{
    const char *text = json_str(object, key);
    int64_t usec = 0;

    return text && time_parse_rfc3339(text, &usec) >= 0 && usec > 0 ? (uint64_t)usec : 0;
}

static uint64_t seconds_of(const json_t *object, const char *key)
{
    uint64_t seconds = u64_of(object, key);

    return seconds < UINT64_MAX / SECOND ? seconds * SECOND : 0;
}

int engine_parse_pairs(EngineDoc *doc, const json_t *object, const EnginePair **ret, size_t *ret_n)
{
    EnginePair *pairs = doc_array(doc, json_object_size(object), sizeof(*pairs));
    const char *key;
    json_t *value;
    size_t n = 0;

    if (!pairs)
        return -ENOMEM;
    /* Iteration does not change it; jansson has no const way. */
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        if (json_is_string(value))
            pairs[n++] = (EnginePair){.name = key, .value = json_string_value(value)};
    }

    *ret = pairs;
    *ret_n = n;
    return 0;
}

/* The strings of an array, NULL-terminated; `skip` is left out. */
static int parse_strings(EngineDoc *doc, const json_t *array, const char *skip,
                         const char *const **ret)
{
    const char **strings = doc_array(doc, json_array_size(array) + 1, sizeof(*strings));
    const json_t *value;
    size_t i, n = 0;

    if (!strings)
        return -ENOMEM;
    json_array_foreach (array, i, value) {
        const char *text = json_string_value(value);

        if (text && !(skip && strstr(text, skip)))
            strings[n++] = text;
    }

    *ret = strings;
    return 0;
}

static int wrong_shape(Error *err, const char *what)
{
    return error_set(err, -EBADMSG, ERROR_CORRUPT, "the engine's %s is not what it should be",
                     what);
}

/* ---- Info ----------------------------------------------------------------------------------- */

int engine_parse_info(json_t *value, EngineDoc *ret, Error *err)
{
    auto_(engine_doc_done) EngineDoc doc = {.doc = value};
    const json_t *status, *row;
    size_t i;

    if (!json_str(value, "DockerRootDir"))
        return wrong_shape(err, "info");

    doc.info = (EngineInfo){
        .server_version = text_of(value, "ServerVersion"),
        .root_dir = text_of(value, "DockerRootDir"),
        .storage_driver = text_of(value, "Driver"),
        .logging_driver = text_of(value, "LoggingDriver"),
        .os = text_of(value, "OSType"),
        .machine = text_of(value, "Architecture"),
        .memory_bytes = u64_of(value, "MemTotal"),
        .n_cpus = u64_of(value, "NCPU"),
        .limits_memory = json_flag(value, "MemoryLimit"),
    };
    status = json_object_get(value, "DriverStatus");
    json_array_foreach (status, i, row) {
        const char *text = json_string_value(json_array_get(row, 1));

        if (text && strstr(text, "io.containerd.snapshotter"))
            doc.info.uses_containerd_store = true;
    }

    *ret = doc;
    doc = (EngineDoc){0};
    return 0;
}

/* ---- Containers ----------------------------------------------------------------------------- */

static const char *const state_names[] = {
    [ENGINE_STATE_CREATED] = "created",   [ENGINE_STATE_RUNNING] = "running",
    [ENGINE_STATE_PAUSED] = "paused",     [ENGINE_STATE_RESTARTING] = "restarting",
    [ENGINE_STATE_REMOVING] = "removing", [ENGINE_STATE_EXITED] = "exited",
    [ENGINE_STATE_DEAD] = "dead",         [ENGINE_STATE_UNKNOWN] = "unknown",
};

const char *engine_state_name(EngineState state)
{
    return state_names[state];
}

static EngineState state_from_name(const char *name)
{
    for (size_t i = 0; i < ENGINE_STATE_UNKNOWN; i++)
        if (streq(name, state_names[i]))
            return (EngineState)i;

    return ENGINE_STATE_UNKNOWN;
}

static EngineHealth health_from_name(const char *name)
{
    static const char *const names[] = {
        [ENGINE_HEALTH_NONE] = "none",
        [ENGINE_HEALTH_STARTING] = "starting",
        [ENGINE_HEALTH_HEALTHY] = "healthy",
        [ENGINE_HEALTH_UNHEALTHY] = "unhealthy",
    };

    for (size_t i = 0; i < ELEMENTS(names); i++)
        if (streq(name, names[i]))
            return (EngineHealth)i;

    return ENGINE_HEALTH_NONE;
}

const char *engine_container_label(const EngineContainer *container, const char *name)
{
    for (size_t i = 0; i < container->n_labels; i++)
        if (streq(container->labels[i].name, name))
            return container->labels[i].value;

    return NULL;
}

bool engine_container_is_running(const EngineContainer *container)
{
    return container->state == ENGINE_STATE_RUNNING || container->state == ENGINE_STATE_PAUSED;
}

static int parse_listed_ports(EngineDoc *doc, const json_t *list, EngineContainer *container)
{
    EnginePortBinding *ports = doc_array(doc, json_array_size(list), sizeof(*ports));
    const json_t *value;
    size_t i, n = 0;

    if (!ports)
        return -ENOMEM;
    json_array_foreach (list, i, value) {
        ports[n++] = (EnginePortBinding){
            .host_address = text_of(value, "IP"),
            .host_port = (uint16_t)u64_of(value, "PublicPort"),
            .container_port = (uint16_t)u64_of(value, "PrivatePort"),
            .protocol = text_of(value, "Type"),
        };
    }

    container->ports = ports;
    container->n_ports = n;
    return 0;
}

static int parse_listed_container(EngineDoc *doc, const json_t *value, EngineContainer *container,
                                  Error *err)
{
    const char *name = json_string_value(json_array_get(json_object_get(value, "Names"), 0));

    if (!json_str(value, "Id"))
        return wrong_shape(err, "list of containers");

    *container = (EngineContainer){
        .id = text_of(value, "Id"),
        .name = name ? name + (name[0] == '/') : "",
        .image = text_of(value, "Image"),
        .image_id = text_of(value, "ImageID"),
        .state = state_from_name(text_of(value, "State")),
        .created_usec = seconds_of(value, "Created"),
        .address = "",
        .network = "",
        .health_output = "",
        .error = "",
    };
    if (engine_parse_pairs(doc, json_object_get(value, "Labels"), &container->labels,
                           &container->n_labels) < 0 ||
        parse_listed_ports(doc, json_object_get(value, "Ports"), container) < 0)
        return error_oom(err);

    return 0;
}

int engine_parse_container_list(json_t *value, EngineDoc *ret, Error *err)
{
    auto_(engine_doc_done) EngineDoc doc = {.doc = value};
    size_t n = json_array_size(value);
    int r;

    if (!json_is_array(value) && !json_is_null(value))
        return wrong_shape(err, "list of containers");

    doc.containers = calloc(n ? n : 1, sizeof(*doc.containers));
    if (!doc.containers)
        return error_oom(err);
    for (size_t i = 0; i < n; i++) {
        r = parse_listed_container(&doc, json_array_get(value, i), &doc.containers[i], err);
        if (r < 0)
            return r;
        doc.n_containers++;
    }

    *ret = doc;
    doc = (EngineDoc){0};
    return 0;
}

/* "8080/tcp": [{"HostIp": "", "HostPort": "8080"}]: one row a binding. */
static int parse_declared_ports(EngineDoc *doc, const json_t *bindings, EngineContainer *container)
{
    EnginePortBinding *ports;
    const char *key;
    json_t *list;
    const json_t *value;
    size_t i, n = 0, room = 0;

    json_object_foreach ((json_t *)(uintptr_t)bindings, key, list)
        room += json_array_size(list);
    ports = doc_array(doc, room, sizeof(*ports));
    if (!ports)
        return -ENOMEM;

    json_object_foreach ((json_t *)(uintptr_t)bindings, key, list) {
        const char *slash = strchr(key, '/');
        uint64_t inner = 0, outer = 0;

        if (!slash || parse_u64_n(key, (size_t)(slash - key), &inner) < 0)
            continue;
        json_array_foreach (list, i, value) {
            /* "" asks for any free port. */
            if (parse_u64(text_of(value, "HostPort"), &outer) < 0)
                outer = 0;
            ports[n++] = (EnginePortBinding){
                .host_address = text_of(value, "HostIp"),
                .host_port = (uint16_t)outer,
                .container_port = (uint16_t)inner,
                .protocol = slash + 1,
            };
        }
    }

    container->ports = ports;
    container->n_ports = n;
    return 0;
}

static const char *find_address(const json_t *settings)
{
    const json_t *networks = json_object_get(settings, "Networks");
    const char *address = text_of(settings, "IPAddress");
    const char *key;
    json_t *network;

    if (*address)
        return address;
    json_object_foreach ((json_t *)(uintptr_t)networks, key, network) {
        address = text_of(network, "IPAddress");
        if (*address)
            return address;
    }

    return "";
}

static const char *last_health_output(const json_t *health)
{
    const json_t *log = json_object_get(health, "Log");
    size_t n = json_array_size(log);

    return n ? text_of(json_array_get(log, n - 1), "Output") : "";
}

static bool declares_health_check(const json_t *config)
{
    const json_t *test = json_at(config, "Healthcheck", "Test", NULL);
    const char *first = json_string_value(json_array_get(test, 0));

    return first && !streq(first, "NONE");
}

static int64_t i64_of(const json_t *object, const char *key)
{
    int64_t value = 0;

    return json_i64(object, key, &value) < 0 ? 0 : value;
}

int engine_parse_container(json_t *value, EngineDoc *ret, Error *err)
{
    auto_(engine_doc_done) EngineDoc doc = {.doc = value};
    const json_t *state = json_object_get(value, "State");
    const json_t *config = json_object_get(value, "Config");
    const json_t *host = json_object_get(value, "HostConfig");
    const json_t *health = json_object_get(state, "Health");
    EngineContainer *container;

    if (!json_str(value, "Id") || !json_is_object(state))
        return wrong_shape(err, "container");

    doc.containers = container = calloc(1, sizeof(*container));
    if (!container)
        return error_oom(err);
    doc.n_containers = 1;
    *container = (EngineContainer){
        .id = text_of(value, "Id"),
        .name = text_of(value, "Name") + (text_of(value, "Name")[0] == '/'),
        .image = text_of(config, "Image"),
        .image_id = text_of(value, "Image"),
        .state = state_from_name(text_of(state, "Status")),
        .created_usec = time_of(value, "Created"),
        .address = find_address(json_object_get(value, "NetworkSettings")),
        .network = text_of(host, "NetworkMode"),
        .health = health_from_name(text_of(health, "Status")),
        .has_health_check = json_is_object(health) || declares_health_check(config),
        .oom_killed = json_flag(state, "OOMKilled"),
        .exit_code = (int)i64_of(state, "ExitCode"),
        .started_usec = time_of(state, "StartedAt"),
        .finished_usec = time_of(state, "FinishedAt"),
        .restart_count = u64_of(value, "RestartCount"),
        .memory_bytes = u64_of(host, "Memory"),
    };
    /* Restarting is also Running; the wait between two crashes is what it says. */
    if (json_flag(state, "Restarting"))
        container->state = ENGINE_STATE_RESTARTING;
    container->health_output = doc_escape(&doc, last_health_output(health));
    container->error = doc_escape(&doc, text_of(state, "Error"));
    if (!container->health_output || !container->error ||
        engine_parse_pairs(&doc, json_object_get(config, "Labels"), &container->labels,
                           &container->n_labels) < 0 ||
        parse_declared_ports(&doc, json_object_get(host, "PortBindings"), container) < 0)
        return error_oom(err);

    *ret = doc;
    doc = (EngineDoc){0};
    return 0;
}

char *engine_container_explain_exit(const EngineContainer *container)
{
    static const struct {
        int code;
        const char *text;
    } known[] = {
        {126, "its command cannot be executed"},
        {127, "its command was not found"},
        {SIGNAL_EXIT_BASE + 4, "it met an instruction that this processor does not have (SIGILL)"},
        {SIGNAL_EXIT_BASE + 6, "it aborted (SIGABRT)"},
        {SIGNAL_EXIT_BASE + 9, "it was killed (SIGKILL)"},
        {SIGNAL_EXIT_BASE + 11, "it crashed (SIGSEGV)"},
        {SIGNAL_EXIT_BASE + 15, "it was told to end (SIGTERM)"},
    };
    char size[PARSE_TEXT_MAX];

    if (container->oom_killed && container->memory_bytes)
        return str_printf("it was killed for using more than its memory limit of %s (exit status "
                          "%d)",
                          format_size_human(size, container->memory_bytes), container->exit_code);
    if (container->oom_killed)
        return str_printf("it was killed because the machine ran out of memory (exit status %d)",
                          container->exit_code);
    if (container->error[0])
        return str_printf("it could not be started: %s", container->error);
    for (size_t i = 0; i < ELEMENTS(known); i++)
        if (container->exit_code == known[i].code)
            return str_printf("%s (exit status %d)", known[i].text, container->exit_code);

    return str_printf("it exited with status %d", container->exit_code);
}

/* ---- Images --------------------------------------------------------------------------------- */

static int parse_image_names(EngineDoc *doc, const json_t *value, EngineImage *image)
{
    int r;

    /* Old engines write "<none>:<none>" where newer ones write nothing. */
    r = parse_strings(doc, json_object_get(value, "RepoTags"), "<none>", &image->repo_tags);
    if (r < 0)
        return r;

    return parse_strings(doc, json_object_get(value, "RepoDigests"), "<none>",
                         &image->repo_digests);
}

int engine_parse_image_list(json_t *value, EngineDoc *ret, Error *err)
{
    auto_(engine_doc_done) EngineDoc doc = {.doc = value};
    size_t n = json_array_size(value);

    if (!json_is_array(value) && !json_is_null(value))
        return wrong_shape(err, "list of images");

    doc.images = calloc(n ? n : 1, sizeof(*doc.images));
    if (!doc.images)
        return error_oom(err);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(value, i);
        EngineImage *image = &doc.images[doc.n_images++];

        if (!json_str(item, "Id"))
            return wrong_shape(err, "list of images");
        image->id = text_of(item, "Id");
        image->created_usec = seconds_of(item, "Created");
        image->size_bytes = u64_of(item, "Size");
        image->parent_id = text_of(item, "ParentId");
        image->last_tagged = "";
        if (parse_image_names(&doc, item, image) < 0 ||
            parse_strings(&doc, NULL, NULL, &image->env) < 0 ||
            engine_parse_pairs(&doc, json_object_get(item, "Labels"), &image->labels,
                               &image->n_labels) < 0)
            return error_oom(err);
    }

    *ret = doc;
    doc = (EngineDoc){0};
    return 0;
}

static void set_platform(const json_t *value, Platform *platform)
{
    (void)snprintf(platform->os, sizeof(platform->os), "%s", text_of(value, "Os"));
    (void)snprintf(platform->architecture, sizeof(platform->architecture), "%s",
                   text_of(value, "Architecture"));
    (void)snprintf(platform->variant, sizeof(platform->variant), "%s", text_of(value, "Variant"));
}

int engine_parse_image(json_t *value, EngineDoc *ret, Error *err)
{
    auto_(engine_doc_done) EngineDoc doc = {.doc = value};
    const json_t *config = json_object_get(value, "Config");
    EngineImage *image;

    if (!json_str(value, "Id"))
        return wrong_shape(err, "image");

    doc.images = image = calloc(1, sizeof(*image));
    if (!image)
        return error_oom(err);
    doc.n_images = 1;
    image->id = text_of(value, "Id");
    image->created_usec = time_of(value, "Created");
    image->size_bytes = u64_of(value, "Size");
    image->parent_id = text_of(value, "Parent");
    image->has_health_check = declares_health_check(config);
    image->last_tagged = text_of(json_object_get(value, "Metadata"), "LastTagTime");
    set_platform(value, &image->platform);
    if (parse_image_names(&doc, value, image) < 0 ||
        parse_strings(&doc, json_object_get(config, "Env"), NULL, &image->env) < 0 ||
        engine_parse_pairs(&doc, json_object_get(config, "Labels"), &image->labels,
                           &image->n_labels) < 0)
        return error_oom(err);

    *ret = doc;
    doc = (EngineDoc){0};
    return 0;
}

/* ---- Words ---------------------------------------------------------------------------------- */

int engine_explain_text(const char *text, int fallback, Error *err)
{
    /* The first that fits; the more particular first. */
    static const struct {
        const char *part, *also;
        int code;
        ErrorKind kind;
        const char *remedy;
    } rows[] = {
        {"no space left on device", "", -ENOSPC, ERROR_TEMPORARY,
         "sudo agentctl cleanup, or give the machine a larger disk"},
        {"cannot allocate memory", "", -ENOMEM, ERROR_TEMPORARY,
         "more memory, or swap: system.swap of the plan"},
        {"resource temporarily unavailable", "", -EAGAIN, ERROR_TEMPORARY, NULL},
        {"too many open files", "", -EMFILE, ERROR_TEMPORARY, NULL},
        {"fork/exec ", "", -EIO, ERROR_TEMPORARY,
         "sudo systemctl restart docker, or install it anew"}, /* its own programs */
        {"unable to find user", "", -EINVAL, ERROR_INVALID,
         "correct the user: the image has none of that name"},
        {"no matching entries in", "", -EINVAL, ERROR_INVALID,
         "correct the user: the image has none of that name"},
        {"chdir to cwd", "", -EINVAL, ERROR_INVALID,
         "correct the workdir: the image has no such directory"},
        {"mount a directory onto a file", "", -EINVAL, ERROR_INVALID,
         "correct the volume: one side is a file and the other a directory"},
        {"port is already allocated", "", -EADDRINUSE, ERROR_INVALID, NULL},
        {"address already in use", "", -EADDRINUSE, ERROR_INVALID, NULL},
        {"exec format error", "", -ENOEXEC, ERROR_INVALID,
         "build the image for this machine's processor: docker buildx build --platform …"},
        {"executable file not found", "", -ENOEXEC, ERROR_INVALID,
         "correct the command or entrypoint: the image has no such program"},
        {"no such file or directory", "exec", -ENOEXEC, ERROR_INVALID,
         "correct the command or entrypoint: the image has no such program, or not its "
         "interpreter"},
        {"permission denied", "exec", -ENOEXEC, ERROR_INVALID,
         "make the program executable in the image, or correct its user"},
        {"bind source path does not exist", "", -ENOENT, ERROR_INVALID,
         "create the path on the host, or correct the volume"},
        {"no matching manifest", "", -ENOEXEC, ERROR_INVALID,
         "build the image for this machine's platform: docker buildx build --platform …"},
        {"toomanyrequests", "", -EBUSY, ERROR_THROTTLED, NULL},
        {"manifest unknown", "", -ENOENT, ERROR_INVALID, NULL},
        {"pull access denied", "", -EACCES, ERROR_DENIED, NULL},
        {"unauthorized", "", -EACCES, ERROR_DENIED, NULL},
        {"authentication", "required", -EACCES, ERROR_DENIED, NULL},
        {"Authentication is required", "", -EACCES, ERROR_DENIED, NULL},
        {"no basic auth credentials", "", -EACCES, ERROR_DENIED, NULL},
        {"denied", "", -EACCES, ERROR_DENIED, NULL},
        {"server gave HTTP response to HTTPS client", "", -EPROTO, ERROR_INVALID,
         "name the registry in insecure-registries of /etc/docker/daemon.json, or give it TLS"},
        {"x509:", "", -EPROTO, ERROR_INVALID,
         "make the engine trust the registry's certificate: /etc/docker/certs.d/HOST/ca.crt"},
        {"not found", "", -ENOENT, ERROR_INVALID, NULL},
        {"does not exist", "", -ENOENT, ERROR_INVALID, NULL},
    };

    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        if (!strstr(text, rows[i].part) || !strstr(text, rows[i].also))
            continue;
        (void)error_set(err, rows[i].code, rows[i].kind, "%s", text);
        return rows[i].remedy ? error_remedy(err, rows[i].code, "%s", rows[i].remedy)
                              : rows[i].code;
    }

    return error_set(err, fallback, ERROR_TEMPORARY, "%s", text);
}
