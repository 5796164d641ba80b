/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/rollout-world.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/parse.h"
#include "agent/io/json.h"
#include "agent/resource/container.h"

#define REPOSITORY "reg.test/app"
#define TRIES_MAX  8
#define RUN_USEC   (20 * SECOND)

/* ---- What agentd is to a resource ----------------------------------------------------------- */

Container *world_container(World *w)
{
    return container_of_resource(w->resource);
}

static void on_finished(Resource *resource, Error *err, void *userdata)
{
    World *w = userdata;

    error_done(&w->error);
    if (err && err->code < 0)
        (void)error_move(&w->error, err);
    /* Tried again at once, a few times: time does not pass here. */
    if (w->error.code < 0 && w->error.kind == ERROR_TEMPORARY && w->error.retry_after_usec == 0 &&
        w->tries < TRIES_MAX) {
        w->tries++;
        w->dirty = true;
    }
}

static void on_attention(Resource *resource, void *userdata)
{
    World *w = userdata;

    w->dirty = true;
}

static void on_changed(Resource *resource, void *userdata)
{
}

static void on_event(LogLevel level, const char *event, const char *const *fields, const char *text,
                     void *userdata)
{
    World *w = userdata;

    assert_true(buf_printf(&w->events, "%s ", event) >= 0);
}

static int on_add(Resource *resource, void *userdata)
{
    World *w = userdata;
    Resource *former = w->resource;

    w->resource = resource;
    if (former && resource->ops->inherit)
        resource->ops->inherit(resource, former);
    (void)resource_free(former);
    w->dirty = true;
    return 0;
}

static void on_poweroff(const char *reason, void *userdata)
{
    World *w = userdata;

    w->n_poweroffs++;
}

static const ResourceHost host = {
    .finished = on_finished,
    .attention = on_attention,
    .changed = on_changed,
    .event = on_event,
    .add = on_add,
    .poweroff = on_poweroff,
};

const ResourceOps *const resource_kinds[] = {&resource_container, NULL};

/* ---- Running -------------------------------------------------------------------------------- */

static void work(World *w)
{
    auto_free char *difference = NULL;
    auto_error Error err = {0};
    int r;

    w->dirty = false;
    r = resource_container.check(w->resource, &difference, &err);
    if (r > 0)
        resource_container.apply(w->resource);
    else
        on_finished(w->resource, r < 0 ? &err : NULL, w);
}

static bool is_busy(World *w)
{
    Container *c = world_container(w);

    return w->dirty || c->working || c->inspect || (c->answer && !c->answers_badly) ||
           (timer_is_set(c->settle_timer) && timer_left_usec(c->settle_timer) == 0);
}

bool world_run(World *w)
{
    uint64_t end = now_boottime_usec() + RUN_USEC;

    while (!w->killed && is_busy(w)) {
        if (now_boottime_usec() > end)
            fail_msg("it does not come to rest; so far:\n%s", buf_str(&w->trace));
        if (w->dirty && !world_container(w)->working)
            work(w);
        else
            assert_true(sd_event_run(w->f.event, 100 * MSEC) >= 0);
    }
    return !w->killed;
}

static void declare(World *w)
{
    auto_error Error err = {0};

    assert_ok(resource_container.declare(&w->context, w->plan, &err), &err);
}

/* The plan of this world as a new generation. */
static void set_plan(World *w)
{
    auto_field_errors FieldErrors errors = {0};
    auto_(generation_done) Generation generation = {0};
    Plan *former = w->plan;
    auto_error Error err = {0};
    PlanContainer *container;

    generation.document =
        str_printf("{\"version\": 1, \"secrets\": [{\"name\": \"key\", \"secret\": \"KEY\"}],"
                   "\"containers\": [{\"name\": \"web\", \"image\": \"" REPOSITORY ":stable\", %s"
                   "\"env\": {\"KEY\": {\"secret\": \"key\"}, \"GREETING\": \"%s\"}}]}",
                   w->more, w->greeting);
    generation.sha256 = strdup(w->greeting);
    generation.source = strdup("test");
    if (plan_parse(generation.document, strlen(generation.document), &w->plan, &errors) < 0)
        fail_msg("the plan is refused: %s", generation.document);
    assert_ok(state_generation_add(&w->state, &generation, &err), &err);
    container = &((PlanContainer *)w->plan->containers.items)[0];
    /* Verdicts at the first look. */
    container->health.start_period_usec = 0;
    container->health.retries = 1;
    container->health.interval_usec = MSEC;
    container->update.settle_usec = w->settle_usec;
    if (container->health.http) {
        free(container->health.http);
        container->health.http = strdup(http_server_url(w->f.other, "/health"));
    }
    w->context.plan = w->plan;
    w->context.generation = generation.number;
    declare(w);
    plan_free(former);
}

void world_restart(World *w, bool rebooted)
{
    auto_error Error err = {0};

    (void)resource_free(take_ptr(w->resource));
    for (size_t i = 0; rebooted && i < w->n_boxes; i++)
        if (w->boxes[i].state == BOX_RUNNING || w->boxes[i].state == BOX_RESTARTING) {
            w->boxes[i].state = BOX_EXITED;
            w->boxes[i].exit_code = 143;
        }
    if (rebooted)
        (void)!secret_store_retire(w->secrets, "web", NULL, NULL); /* the ramfs is empty */
    if (rebooted)
        assert_ok(db_exec(w->state.db, "UPDATE slot SET boot_id = 'another'", &err), &err);
    w->killed = false;
    w->tries = 0;
    declare(w);
}

void world_lose_state(World *w)
{
    auto_error Error err = {0};

    assert_ok(db_exec(w->state.db, "DELETE FROM slot; DELETE FROM release", &err), &err);
    world_restart(w, /* rebooted= */ false);
}

char *world_state(World *w)
{
    char *state = NULL;

    (void)!db_query_text(w->state.db, "SELECT state FROM slot WHERE container = 'web'", &state,
                         NULL, "");
    return state ? state : strdup("none");
}

/* ---- Words ---------------------------------------------------------------------------------- */

static Box *box_of(World *w, char image)
{
    for (size_t i = 0; i < w->n_boxes; i++)
        if (w->boxes[i].image == image && w->boxes[i].state != BOX_CREATED)
            return &w->boxes[i];
    fail_msg("no container of %c was started", image);
    abort(); /* fail_msg() does not return, which the compiler is not told */
}

static void tell(World *w, const Box *box, EngineEventKind kind)
{
    const EnginePair attributes[] = {{LABEL_CONTAINER, "web"}, {LABEL_RELEASE, box->release}};
    const EngineEvent event = {.kind = kind,
                               .action = "",
                               .container_id = box->id,
                               .name = box->name,
                               .attributes = attributes,
                               .n_attributes = 2,
                               .exit_code = box->exit_code};

    container_on_engine_event(w->resource, &event);
}

static void set_key(World *w, const char *version)
{
    auto_free char *text = str_printf("k%s", version);
    auto_(secret_bytes_freep) SecretBytes *value = NULL;
    auto_error Error err = {0};

    assert_int_equal(secret_bytes_new(text, strlen(text), &value), 0);
    assert_ok(secret_store_put(w->secrets, "key", "KEY", "latest", version, value, &err), &err);
}

static void add_fault(World *w, char *const *words)
{
    auto_free char *text = str_join((const char *const *)words + 3, " ");
    const char *message = strstr(text, " = ");
    uint64_t times, status;

    assert_true(message && parse_u64(words[1], &times) >= 0 && parse_u64(words[2], &status) >= 0);
    for (size_t i = 0; i < FAULTS_MAX; i++) {
        Fault *fault = &w->faults[i];

        if (fault->times > 0)
            continue;
        *fault = (Fault){.times = (unsigned)times, .status = (int)status};
        (void)snprintf(fault->call, sizeof(fault->call), "%.*s", (int)(message - text), text);
        (void)snprintf(fault->message, sizeof(fault->message), "%s", message + 3);
        return;
    }
    fail_msg("too many faults");
}

/* It starts whatever it heals and ended with a failure, and takes one that was stopped for that. */
static void engine_restarts(World *w)
{
    for (size_t i = 0; i < w->n_boxes; i++)
        if (w->boxes[i].state == BOX_EXITED && w->boxes[i].is_healed)
            w->boxes[i].state = BOX_RUNNING;
    container_look(w->resource);
}

static void do_verb(World *w, const char *verb)
{
    auto_error Error err = {0};

    if (streq(verb, "retry"))
        assert_ok(container_retry(w->resource, &err), &err);
    else if (streq(verb, "rollback"))
        assert_ok(container_rollback(w->resource, &err), &err);
    else if (streq(verb, "restart"))
        assert_ok(container_restart(w->resource, &err), &err);
    else if (streq(verb, "apply"))
        container_approve(w->resource);
    else if (streq(verb, "agentd"))
        world_restart(w, /* rebooted= */ false);
    else if (streq(verb, "reboot"))
        world_restart(w, /* rebooted= */ true);
    else if (streq(verb, "engine"))
        engine_restarts(w);
    else if (streq(verb, "settle"))
        (void)timer_set(world_container(w)->settle_timer, 0, 0);
    else if (streq(verb, "look"))
        container_look(w->resource);
    else
        fail_msg("unknown word \"%s\"", verb);
}

static void die(World *w, Box *box, const char *times)
{
    uint64_t n;

    assert_true(parse_u64(times, &n) >= 0);
    for (uint64_t i = 0; i < n; i++) {
        box->restarts++;
        box->exit_code = 3;
        tell(w, box, ENGINE_EVENT_DIE);
    }
}

static void end_job(World *w, const char *status)
{
    uint64_t exit_code;

    assert_true(parse_u64(status, &exit_code) >= 0);
    for (size_t i = 0; i < w->n_boxes; i++)
        if (w->boxes[i].state == BOX_RUNNING) {
            w->boxes[i].state = BOX_EXITED;
            w->boxes[i].exit_code = (int)exit_code;
            tell(w, &w->boxes[i], ENGINE_EVENT_DIE);
        }
}

static void remove_by_somebody(World *w, const char *name)
{
    Box *box = (Box *)(uintptr_t)world_named(w, name), gone;

    assert_non_null(box);
    gone = *box;
    *box = w->boxes[--w->n_boxes];
    tell(w, &gone, ENGINE_EVENT_DESTROY);
}

static void do_word(World *w, char *const *words)
{
    const char *verb = words[0], *what = words[1];

    if (!what) {
        do_verb(w, verb);
    } else if (streq(verb, "push")) {
        w->tag = what[0];
        w->pushed[what[0] - 'A'] = true;
        container_look(w->resource);
    } else if (streq(verb, "tag")) {
        w->tag = 0;
        container_look(w->resource);
    } else if (streq(verb, "registry")) {
        w->registry_down = streq(what, "down");
    } else if (streq(verb, "health")) {
        w->silent = streq(what, "down");
    } else if (streq(verb, "key")) {
        set_key(w, what);
        container_look(w->resource);
    } else if (streq(verb, "plan")) {
        (void)snprintf(w->greeting, sizeof(w->greeting), "%s", what);
        set_plan(w);
    } else if (streq(verb, "die")) {
        die(w, box_of(w, what[0]), words[2]);
    } else if (streq(verb, "end")) {
        end_job(w, what);
    } else if (streq(verb, "stop")) {
        box_of(w, what[0])->state = BOX_EXITED;
    } else if (streq(verb, "oom")) {
        tell(w, box_of(w, what[0]), ENGINE_EVENT_OOM);
    } else if (streq(verb, "unhealthy")) {
        box_of(w, what[0])->unhealthy = true;
        tell(w, box_of(w, what[0]), ENGINE_EVENT_UNHEALTHY);
    } else if (streq(verb, "remove")) {
        remove_by_somebody(w, what);
    } else if (streq(verb, "forget")) {
        w->images[what[0] - 'A'] = false;
    } else if (streq(verb, "unpush")) {
        w->pushed[what[0] - 'A'] = false;
    } else if (streq(verb, "fail")) {
        add_fault(w, words);
    } else {
        fail_msg("unknown word \"%s\"", verb);
    }
}

void world_do(World *w, const char *words)
{
    auto_(strv_freep) char **list = str_split(words, ";");

    STRV_FOREACH (one, list) {
        auto_(strv_freep) char **parts = str_split(str_strip(*one), " ");

        w->tries = 0;
        do_word(w, parts);
        if (!world_run(w))
            return;
    }
}

/* ---- What is there -------------------------------------------------------------------------- */

char *world_boxes(const World *w)
{
    static const char *const names[] = {"web", "web.next", "web.previous", "web.earlier"};
    auto_buf Buf text = BUF_INIT(4096);

    for (size_t i = 0; i < ELEMENTS(names); i++) {
        const Box *box = world_named(w, names[i]);
        bool runs = box && box->state == BOX_RUNNING;

        if (box)
            assert_true(buf_printf(&text, "%s%s=%c%s%s", text.size ? " " : "", box->name,
                                   box->image, runs ? "" : "-",
                                   runs && !w->is_job && !box->is_healed ? "!" : "") >= 0);
    }
    return strdup(buf_str(&text));
}

char *world_quarantine(World *w)
{
    auto_buf Buf text = BUF_INIT(4096);
    json_auto_t *list = NULL;
    const json_t *row;
    size_t i;

    assert_int_equal(release_list_quarantined(w->state.db, "web", &list, NULL), 0);
    json_array_foreach (list, i, row)
        assert_true(buf_printf(&text, "%s%c%s", text.size ? " " : "",
                               world_letter(w, json_str(row, "digest")),
                               json_flag(row, "digest_is_bad") ? "" : "/release") >= 0);
    return strdup(buf_str(&text));
}

char world_current(World *w)
{
    auto_free char *digest = NULL;

    (void)!db_query_text(w->state.db,
                         "SELECT digest FROM release JOIN slot ON slot.current = release.id",
                         &digest, NULL, "");
    return digest ? world_letter(w, digest) : '-';
}

/* ---- Beginning and end ---------------------------------------------------------------------- */

World *world_new(const char *more, bool is_job)
{
    World *w = calloc(1, sizeof(*w));
    auto_error Error err = {0};
    auto_free char *socket = NULL;

    assert_non_null(w);
    /* Hundreds of them are made, and each of their states is synchronised. */
    if (access("/dev/shm", W_OK) >= 0)
        assert_int_equal(setenv("TMPDIR", "/dev/shm", /* overwrite= */ 1), 0);
    w->dir = test_dir_new();
    w->more = more;
    w->is_job = is_job;
    w->settle_usec = HOUR;
    w->trace = w->events = w->ready = BUF_INIT(1U << 20);
    (void)snprintf(w->greeting, sizeof(w->greeting), "hello");
    world_make_images(w);
    socket = str_printf("%s/engine.sock", w->dir);
    assert_ok(loop_new(&w->f.event, &err), &err);
    assert_ok(http_client_new(w->f.event, "mervis-test/1", &w->f.client, &err), &err);
    w->f.server = http_server_new(w->f.event, socket);
    w->f.other = http_server_new(w->f.event, NULL);
    http_server_handle(w->f.server, world_answer_engine, w);
    http_server_handle(w->f.other, world_answer_registry, w);
    const HttpEndpoint endpoints[] = {{"reg.test", http_server_url(w->f.other, "")}};
    assert_ok(http_client_set_endpoints(w->f.client, endpoints, 1, &err), &err);
    assert_ok(engine_new(w->f.client, w->f.event, socket, &w->engine, &err), &err);
    const CloudConfig config = {w->f.event, w->f.client, w->dir};
    assert_ok(cloud_new(&config, &w->cloud, &err), &err);
    assert_ok(state_open(w->dir, w->dir, &w->state, &err), &err);
    assert_ok(secret_store_new(w->dir, /* ramfs= */ false, w->state.db, &w->secrets, &err), &err);
    w->context = (ResourceContext){.event = w->f.event,
                                   .http = w->f.client,
                                   .cloud = w->cloud,
                                   .engine = w->engine,
                                   .db = w->state.db,
                                   .secrets = w->secrets,
                                   .root = w->dir,
                                   .state_dir = w->dir,
                                   .runtime_dir = w->dir,
                                   .instance_id = "1",
                                   .host = &host,
                                   .host_userdata = w};
    set_key(w, "1");
    set_plan(w);
    return w;
}

World *world_free(World *w)
{
    if (!w)
        return NULL;

    (void)resource_free(w->resource);
    (void)plan_free(w->plan);
    (void)secret_store_free(w->secrets);
    state_done(&w->state);
    (void)cloud_free(w->cloud);
    (void)engine_free(w->engine);
    (void)http_client_free(w->f.client);
    (void)http_server_free(w->f.server);
    (void)http_server_free(w->f.other);
    (void)sd_event_unref(w->f.event);
    for (size_t i = 0; i < 26; i++) {
        free(w->manifests[i]);
        free(w->configs[i]);
        free(w->digests[i]);
    }
    test_dir_done(&w->dir);
    error_done(&w->error);
    buf_done(&w->trace);
    buf_done(&w->events);
    buf_done(&w->ready);
    free(w);
    return NULL;
}
