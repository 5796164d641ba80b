/* SPDX-License-Identifier: Apache-2.0 */
/* The engine and the registry of a World. */
#include "tests/unit/rollout-world.h"

#include "agent/io/crypto.h"
#include "agent/io/json.h"
#include "agent/resource/container.h"

const char *const strike_names[STRIKE_MAX] = {
    [STRIKE_NONE] = "nothing",
    [STRIKE_KILL] = "killed before",
    [STRIKE_KILL_AFTER] = "killed after",
    [STRIKE_REBOOT] = "power cut before",
    [STRIKE_FAIL] = "HTTP 500 to",
    [STRIKE_FULL] = "a full disk at",
    [STRIKE_LOST] = "no answer to",
    [STRIKE_LOST_AFTER] = "no answer after",
};

static char *keep(HttpServer *server, char *text)
{
    return http_server_keep(server, text);
}

char world_letter(const World *w, const char *digest)
{
    for (size_t i = 0; i < 26; i++)
        if (digest && streq(w->digests[i], digest))
            return (char)('A' + i);
    return '?';
}

/* ---- Images --------------------------------------------------------------------------------- */

static char *digest_of(const char *text)
{
    char hex[SHA256_HEX_MAX];

    sha256_of(text, strlen(text), hex);
    return str_printf("sha256:%s", hex);
}

void world_make_images(World *w)
{
    Platform platform;

    platform_of_this_machine(&platform);
    for (size_t i = 0; i < 26; i++) {
        auto_free char *config_digest = NULL;

        w->configs[i] =
            str_printf("{\"architecture\":\"%s\",\"os\":\"%s\",\"variant\":\"%s\","
                       "\"letter\":\"%c\"}",
                       platform.architecture, platform.os, platform.variant, (char)('A' + i));
        config_digest = digest_of(w->configs[i]);
        w->manifests[i] =
            str_printf("{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_TYPE_OCI_MANIFEST
                       "\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
                       "\"digest\":\"%s\",\"size\":%zu},\"layers\":[]}",
                       config_digest, strlen(w->configs[i]));
        w->digests[i] = digest_of(w->manifests[i]);
    }
}

/* ---- Strikes and faults --------------------------------------------------------------------- */

static void kill_now(World *w, Reply *reply)
{
    w->killed = true;
    reply->mode = REPLY_HANG;
}

/* Whether this request is struck before it has an effect. */
static bool strike_before(World *w, Reply *reply)
{
    w->n_requests++;
    if (w->killed) {
        reply->mode = REPLY_HANG; /* nobody is there any more to ask */
        return true;
    }
    if (w->strike_at != w->n_requests)
        return false;
    w->struck = true;
    switch (w->strike) {
    case STRIKE_KILL:
    case STRIKE_REBOOT:
        kill_now(w, reply);
        return true;
    case STRIKE_FAIL:
    case STRIKE_FULL:
        reply->status = 500;
        reply->body = w->strike == STRIKE_FULL
                          ? "{\"message\":\"write /x: no space left on device\"}"
                          : "{\"message\":\"something else is wrong\"}";
        return true;
    case STRIKE_LOST:
        reply->mode = REPLY_EARLY;
        return true;
    case STRIKE_NONE:
    case STRIKE_KILL_AFTER:
    case STRIKE_LOST_AFTER:
    case STRIKE_MAX:
        break;
    }
    return false;
}

static void strike_after(World *w, Reply *reply)
{
    if (w->strike_at != w->n_requests || !w->struck)
        return;
    if (w->strike == STRIKE_KILL_AFTER)
        kill_now(w, reply);
    else if (w->strike == STRIKE_LOST_AFTER)
        *reply = (Reply){.mode = REPLY_EARLY};
}

static bool is_to_fail(World *w, Reply *reply, const char *call)
{
    for (size_t i = 0; i < FAULTS_MAX; i++) {
        Fault *fault = &w->faults[i];

        if (fault->times == 0 || !startswith(call, fault->call))
            continue;
        fault->times--;
        reply->status = fault->status;
        reply->body = keep(w->f.server, str_printf("{\"message\":\"%s\"}", fault->message));
        return true;
    }
    return false;
}

static void note_readiness(World *w, const char *call)
{
    bool ready = w->resource && container_is_ready(w->resource);

    assert_true(
        buf_printf(&w->ready, "%s%s%c", w->ready.size ? ", " : "", call, ready ? '+' : '-') >= 0);
}

/* Remembers a call that changes something, and says whether it is to fail. */
static bool traced(World *w, Reply *reply, const char *format, ...) printf_like(3, 4);
static bool traced(World *w, Reply *reply, const char *format, ...)
{
    auto_free char *state = NULL;
    char call[128];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(call, sizeof(call), format, args);
    va_end(args);
    note_readiness(w, call);
    if (is_to_fail(w, reply, call))
        return true;
    (void)!db_query_text(w->state.db, "SELECT state FROM slot WHERE container = 'web'", &state,
                         NULL, "");
    assert_true(buf_printf(&w->trace, "%s: %s\n", state ? state : "new", call) >= 0);
    return false;
}

/* ---- The engine ----------------------------------------------------------------------------- */

static Box *find_box(World *w, const char *name, size_t size)
{
    for (size_t i = 0; i < w->n_boxes; i++)
        if ((strlen(w->boxes[i].id) == size && strncmp(w->boxes[i].id, name, size) == 0) ||
            (strlen(w->boxes[i].name) == size && strncmp(w->boxes[i].name, name, size) == 0))
            return &w->boxes[i];
    return NULL;
}

const Box *world_named(const World *w, const char *name)
{
    return find_box((World *)(uintptr_t)w, name, strlen(name));
}

static void refuse(Reply *reply, int status, const char *body)
{
    reply->status = status;
    reply->body = body;
}

static const char *box_state_name(const Box *box)
{
    static const char *const names[] = {
        [BOX_CREATED] = "created",
        [BOX_RUNNING] = "running",
        [BOX_RESTARTING] = "restarting",
        [BOX_EXITED] = "exited",
    };

    return names[box->state];
}

static void list_boxes(World *w, HttpServer *server, Reply *reply)
{
    json_auto_t *list = json_array();

    for (size_t i = 0; i < w->n_boxes; i++) {
        const Box *box = &w->boxes[i];

        assert_int_equal(
            json_array_append_new(
                list, json_pack("{s:s, s:[o], s:s, s:s, s:{s:s, s:s}, s:s, s:i}", "Id", box->id,
                                "Names", json_sprintf("/%s", box->name), "Image", "x", "ImageID",
                                "x", "Labels", LABEL_CONTAINER, "web", LABEL_RELEASE, box->release,
                                "State", box_state_name(box), "Created", 1)),
            0);
    }
    reply->body = keep(server, json_dumps(list, 0));
}

static void inspect_box(World *w, HttpServer *server, const Box *box, Reply *reply)
{
    json_auto_t *doc = json_pack(
        "{s:s, s:o, s:s, s:s, s:i, s:{s:s, s:b, s:i, s:o, s:s, s:{s:s}},"
        " s:{s:s, s:{s:s, s:s}, s:{s:[s]}}, s:{s:s}}",
        "Id", box->id, "Name", json_sprintf("/%s", box->name), "Created", "2024-01-01T00:00:00Z",
        "Image", "x", "RestartCount", (int)box->restarts, "State", "Status", box_state_name(box),
        "Running", box->state == BOX_RUNNING, "ExitCode", box->exit_code, "StartedAt",
        json_sprintf("2024-01-01T00:00:%02uZ", box->starts + box->restarts), "FinishedAt",
        "0001-01-01T00:00:00Z", "Health", "Status", box->unhealthy ? "unhealthy" : "healthy",
        "Config", "Image", "x", "Labels", LABEL_CONTAINER, "web", LABEL_RELEASE, box->release,
        "Healthcheck", "Test", "CMD", "HostConfig", "NetworkMode", "bridge");

    assert_non_null(doc);
    w->context.engine_outages += box->image == 'W';
    reply->body = keep(server, json_dumps(doc, 0));
}

/* {"RestartPolicy": {"Name": "on-failure", …}} */
static const char *policy_of(const json_t *doc)
{
    const char *name = json_str(json_object_get(doc, "RestartPolicy"), "Name");

    assert_non_null(name);
    return name;
}

static bool heals(const json_t *doc)
{
    return streq(policy_of(doc), "on-failure");
}

/* It is in no trace: what comes of it is seen. */
static void update_box(World *w, const Request *request, Box *box, Reply *reply)
{
    json_auto_t *doc = json_loads(request->body, 0, NULL);
    char call[64];

    (void)snprintf(call, sizeof(call), "update %c %s", box->image, policy_of(doc));
    if (is_to_fail(w, reply, call))
        return;
    box->is_healed = heals(doc);
    reply->body = "{\"Warnings\":[]}";
}

static void create_box(World *w, const Request *request, Reply *reply)
{
    const char *name = startswith(strstr(request->target, "?name="), "?name=");
    json_auto_t *doc = json_loads(request->body, 0, NULL);
    const char *image = json_str(doc, "Image");
    const json_t *labels = json_object_get(doc, "Labels");
    const json_t *env = json_object_get(doc, "Env");
    const json_t *value;
    const char *release = json_str(labels, LABEL_RELEASE);
    Box *box = &w->boxes[w->n_boxes];
    char letter;
    size_t i;

    assert_true(w->n_boxes < BOXES_MAX && name && image && release);
    letter = world_letter(w, strchr(image, '@') + 1);
    if (traced(w, reply, "create %c %s", letter, name))
        return;
    if (!w->images[letter - 'A']) {
        refuse(reply, 404, "{\"message\":\"No such image\"}");
        return;
    }
    if (world_named(w, name)) {
        refuse(reply, 409, "{\"message\":\"Conflict. The container name is already in use\"}");
        return;
    }
    *box = (Box){.image = letter,
                 .state = BOX_CREATED,
                 .is_healed = heals(json_object_get(doc, "HostConfig"))};
    (void)snprintf(box->id, sizeof(box->id), "%064u", ++w->n_created);
    (void)snprintf(box->name, sizeof(box->name), "%s", name);
    (void)snprintf(box->release, sizeof(box->release), "%s", release);
    json_array_foreach (env, i, value) {
        const char *key = startswith(json_string_value(value), "KEY=k");

        if (key)
            (void)snprintf(box->key, sizeof(box->key), "%s", key);
    }
    value = json_array_get(json_object_get(json_object_get(doc, "HostConfig"), "Mounts"), 0);
    if (value)
        (void)snprintf(box->mount, sizeof(box->mount), "%s", json_str(value, "Source"));
    w->n_boxes++;
    reply->status = 201;
    reply->body = keep(w->f.server, str_printf("{\"Id\":\"%s\"}", box->id));
}

static void note_running(World *w)
{
    unsigned n = 0;

    for (size_t i = 0; i < w->n_boxes; i++)
        n += w->boxes[i].state == BOX_RUNNING;
    w->n_most_running = MAX_OF(w->n_most_running, n);
}

static void start_box(World *w, Box *box, Reply *reply)
{
    if (traced(w, reply, "start %c", box->image))
        return;
    if (box->state == BOX_RUNNING) {
        reply->status = 304;
        return;
    }
    if (box->image == 'U') {
        reply->mode = REPLY_HANG;
        return;
    }
    if (box->image == 'V') {
        reply->mode = REPLY_EARLY;
        return;
    }
    if (box->image == 'Z') {
        refuse(reply, 400,
               "{\"message\":\"exec: \\\"/z\\\": executable file not found in $PATH\"}");
        return;
    }
    if (box->mount[0] && access(box->mount, F_OK) < 0) {
        refuse(reply, 400, "{\"message\":\"bind source path does not exist\"}");
        return;
    }
    box->state = BOX_RUNNING;
    box->starts++;
    box->restarts = 0;
    box->exit_code = 0;
    box->unhealthy = box->image == 'Y';
    note_running(w);
    if (box->image == 'X' || box->image == 'W' || streq(box->key, "9")) {
        box->state = BOX_EXITED;
        box->exit_code = 3;
    }
    reply->status = 204;
}

static void stop_box(World *w, Box *box, Reply *reply)
{
    if (traced(w, reply, "stop %c", box->image))
        return;
    reply->status = box->state == BOX_EXITED ? 304 : 204;
    if (box->state != BOX_CREATED)
        box->state = BOX_EXITED;
    box->exit_code = 143;
}

static void rename_box(World *w, Box *box, const char *name, Reply *reply)
{
    if (traced(w, reply, "rename %c %s", box->image, name))
        return;
    if (box->state == BOX_RESTARTING) {
        refuse(reply, 409, "{\"message\":\"Cannot rename: it is restarting\"}");
    } else if (world_named(w, name)) {
        refuse(reply, 409, "{\"message\":\"Conflict. The container name is already in use\"}");
    } else {
        (void)snprintf(box->name, sizeof(box->name), "%s", name);
        reply->status = 204;
    }
}

static void remove_box(World *w, Box *box, Reply *reply)
{
    if (traced(w, reply, "remove %c", box->image))
        return;
    if (box->state == BOX_RUNNING || box->state == BOX_RESTARTING) {
        refuse(reply, 409, "{\"message\":\"You cannot remove a running container\"}");
        return;
    }
    *box = w->boxes[--w->n_boxes];
    reply->status = 204;
}

static void answer_box(World *w, HttpServer *server, const Request *request, const char *rest,
                       Reply *reply)
{
    size_t size = strcspn(rest, "/?");
    Box *box = find_box(w, rest, size);
    const char *verb = rest + size, *new_name = startswith(verb, "/rename?name=");

    if (!box)
        refuse(reply, 404, "{\"message\":\"No such container\"}");
    else if (streq(request->method, "DELETE"))
        remove_box(w, box, reply);
    else if (new_name)
        rename_box(w, box, new_name, reply);
    else if (startswith(verb, "/update"))
        update_box(w, request, box, reply);
    else if (startswith(verb, "/start"))
        start_box(w, box, reply);
    else if (startswith(verb, "/stop"))
        stop_box(w, box, reply);
    else if (startswith(verb, "/json"))
        inspect_box(w, server, box, reply);
    else
        reply->body = ""; /* its logs */
}

static void pull_image(World *w, const Request *request, Reply *reply)
{
    const char *hex = startswith(strstr(request->target, "&tag="), "&tag=sha256%3A");
    auto_free char *digest = str_printf("sha256:%s", hex ? hex : "");
    char letter = world_letter(w, digest);

    w->restless_at_pull = w->restless;
    if (traced(w, reply, "pull %c", letter))
        return;
    if (w->registry_down)
        reply->body = "{\"errorDetail\":{\"message\":\"connection refused\"}}\n";
    else if (letter == '?' || !w->pushed[letter - 'A'])
        reply->body = "{\"errorDetail\":{\"message\":\"manifest unknown\"}}\n";
    else {
        w->images[letter - 'A'] = true;
        reply->body = "{\"status\":\"Download complete\"}\n";
    }
}

static void inspect_image(World *w, HttpServer *server, const char *name, Reply *reply)
{
    const char *at = strchr(name, '@'), *end = strstr(name, "/json");
    auto_free char *digest = at && end ? strndup(at + 1, (size_t)(end - at - 1)) : NULL;
    char letter = world_letter(w, digest);

    if (letter == '?' || !w->images[letter - 'A'])
        refuse(reply, 404, "{\"message\":\"No such image\"}");
    else
        reply->body = keep(server, str_printf("{\"Id\":\"sha256:%c\",\"Config\":{}}", letter));
}

void world_answer_engine(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    World *w = userdata;
    const char *path = startswith(request->target, "/v1.41"), *rest;

    if (streq(request->target, "/_ping")) {
        reply->headers = "Api-Version: 1.41\r\n";
        reply->body = "OK";
        return;
    }
    if (strike_before(w, reply))
        return;
    if (!path)
        path = "";
    if (startswith(path, "/containers/json"))
        list_boxes(w, server, reply);
    else if (startswith(path, "/containers/create"))
        create_box(w, request, reply);
    else if ((rest = startswith(path, "/containers/")))
        answer_box(w, server, request, rest, reply);
    else if (startswith(path, "/images/create"))
        pull_image(w, request, reply);
    else if ((rest = startswith(path, "/images/")))
        inspect_image(w, server, rest, reply);
    else
        reply->body = keep(server, str_printf("{\"DockerRootDir\":\"%s\"}", w->dir));
    strike_after(w, reply);
}

/* ---- The registry --------------------------------------------------------------------------- */

void world_answer_registry(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    World *w = userdata;
    const char *name = startswith(request->target, "/v2/app/manifests/");
    const char *blob = startswith(request->target, "/v2/app/blobs/");

    if (startswith(request->target, "/health")) {
        note_readiness(w, "ask");
        reply->status = w->silent ? 503 : 200;
        reply->body = w->silent ? "not yet" : "well";
        return;
    }
    if (w->restless > 0) {
        w->restless--;
        container_look(w->resource);
    }
    if (w->registry_down) {
        refuse(reply, 403, "{\"errors\":[{\"code\":\"DENIED\"}]}");
        return;
    }
    for (size_t i = 0; i < 26; i++) {
        auto_free char *config_digest = digest_of(w->configs[i]);
        bool tagged = name && streq(name, "stable") && w->tag == (char)('A' + i);

        if (!w->pushed[i])
            continue;
        if (tagged || (name && streq(name, w->digests[i]))) {
            reply->headers = keep(server, str_printf("Content-Type: " MEDIA_TYPE_OCI_MANIFEST
                                                     "\r\nDocker-Content-Digest: %s\r\n",
                                                     w->digests[i]));
            reply->body = w->manifests[i];
            return;
        }
        if (blob && streq(blob, config_digest)) {
            reply->body = w->configs[i];
            return;
        }
    }
    refuse(reply, 404, "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}");
}
