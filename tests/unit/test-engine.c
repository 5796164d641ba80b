/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/http-fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/engine/engine-internal.h"
#include "agent/engine/engine.h"
#include "agent/engine/health.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

#define JSON_HEADER "Content-Type: application/json\r\n"
#define DIGEST      "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

/* ---- A scripted engine ---------------------------------------------------------------------- */

typedef struct Machine {
    Fixture f;
    char *dir, *socket;
    Engine *engine;
} Machine;

static int machine_setup(void **state)
{
    Machine *m = calloc(1, sizeof(*m));
    auto_error Error err = {0};

    assert_non_null(m);
    m->dir = test_dir_new();
    m->socket = str_printf("%s/engine.sock", m->dir);
    assert_ok(loop_new(&m->f.event, &err), &err);
    assert_ok(http_client_new(m->f.event, "mervis-test/1", &m->f.client, &err), &err);
    m->f.server = http_server_new(m->f.event, m->socket);
    m->f.other = http_server_new(m->f.event, NULL);
    assert_ok(engine_new(m->f.client, m->f.event, m->socket, &m->engine, &err), &err);
    *state = m;
    return 0;
}

static int machine_teardown(void **state)
{
    Machine *m = *state;

    (void)engine_free(m->engine);
    (void)http_client_free(m->f.client);
    (void)http_server_free(m->f.server);
    (void)http_server_free(m->f.other);
    (void)sd_event_unref(m->f.event);
    test_dir_done(&m->dir);
    free(m->socket);
    free(m);
    return 0;
}

#define MACHINE_TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

static void script(Machine *m, int status, const char *body)
{
    http_server_reply(m->f.server, &(Reply){.status = status, .body = body});
}

static void script_ping(Machine *m, const char *headers)
{
    http_server_reply(m->f.server, &(Reply){.headers = headers, .body = "OK"});
}

/* ---- One call ------------------------------------------------------------------------------- */

typedef struct Call {
    bool done;
    EngineOp *op;
    Error err;
    bool changed;
    int exit_code;
    char *id, *text, *name;
    size_t n_containers, n_images;
    unsigned n_progress;
    uint64_t total;
} Call;

static void call_done(Call *call)
{
    (void)engine_op_free(call->op);
    error_done(&call->err);
    free(call->id);
    free(call->text);
    free(call->name);
    *call = (Call){0};
}

#define auto_call auto_(call_done)

static void on_reply(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Call *call = userdata;

    assert_false(call->done);
    call->done = true;
    if (err) {
        (void)error_copy(&call->err, err);
        return;
    }
    call->changed = reply->changed;
    call->exit_code = reply->exit_code;
    call->id = reply->id ? strdup(reply->id) : NULL;
    call->text = reply->text ? strdup(reply->text) : NULL;
    call->n_containers = reply->n_containers;
    call->n_images = reply->n_images;
    if (reply->n_containers)
        call->name = strdup(reply->containers[0].name);
}

static void on_progress(EngineOp *op, const EnginePullProgress *progress, void *userdata)
{
    Call *call = userdata;

    call->n_progress++;
    call->total = progress->total_bytes;
}

static void finish(Machine *m, Call *call)
{
    assert_false(call->done);
    loop_run_until(m->f.event, &call->done, 20 * SECOND);
}

static void inspect(Machine *m, Call *call)
{
    auto_error Error err = {0};

    assert_ok(engine_inspect_container(m->engine, "web", on_reply, call, &call->op, &err), &err);
    finish(m, call);
}

static const char *target(Machine *m, size_t i)
{
    return http_server_request(m->f.server, i)->target;
}

static void assert_failed(const Call *call, int code, ErrorKind kind, const char *message)
{
    if (call->err.code != code)
        fail_msg("%d, not %d: %s", call->err.code, code, error_text(&call->err));
    assert_int_equal(call->err.kind, kind);
    assert_contains(call->err.message, message);
}

#define CONTAINER                                                                                  \
    "{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"running\",\"Running\":true,"         \
    "\"StartedAt\":\"2024-01-01T00:00:00Z\"},\"NetworkSettings\":{\"IPAddress\":\"127.0.0.1\"}}"

/* ---- Versions ------------------------------------------------------------------------------- */

static void the_newest_version_that_both_know_is_spoken(void **state)
{
    static const struct {
        const char *header, *path;
        unsigned api;
    } cases[] = {
        {"Api-Version: 1.41\r\n", "/v1.41/containers/web/json", 41},
        {"API-version: 1.45\r\n", "/v1.45/containers/web/json", 45},
        {"Api-Version: 1.99\r\n", "/v1.52/containers/web/json", 52},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        Machine *m;
        void *mine = NULL;
        auto_call Call first = {0};
        auto_call Call second = {0};

        machine_setup(&mine);
        m = mine;
        script_ping(m, cases[i].header);
        script(m, 200, CONTAINER);
        script(m, 200, CONTAINER);
        inspect(m, &first);
        inspect(m, &second);
        assert_ok(first.err.code, &first.err);
        assert_string_equal(first.name, "web");
        assert_string_equal(target(m, 0), "/_ping");
        assert_string_equal(target(m, 1), cases[i].path);
        assert_string_equal(target(m, 2), cases[i].path); /* asked once */
        assert_int_equal(engine_api_version(m->engine), cases[i].api);
        call_done(&first);
        call_done(&second);
        machine_teardown(&mine);
    }
}

static void an_engine_that_is_too_old_or_none_is_said_so(void **state)
{
    Machine *m = *state;
    auto_call Call old = {0};
    auto_call Call other = {0};

    script_ping(m, "Api-Version: 1.40\r\n");
    inspect(m, &old);
    assert_failed(&old, -EPROTO, ERROR_INVALID, "speaks API 1.40, and we need 1.41");
    assert_contains(old.err.remedy, "20.10");

    script_ping(m, "Server: nginx\r\n");
    inspect(m, &other);
    assert_failed(&other, -EPROTO, ERROR_INVALID, "is no container engine");
}

static void a_version_that_is_refused_is_negotiated_once_more(void **state)
{
    static const char refusal[] =
        "{\"message\":\"client version 1.52 is too new. Maximum supported "
        "API version is 1.43\"}";
    Machine *m = *state;
    auto_call Call call = {0};
    auto_call Call hopeless = {0};

    script_ping(m, "Api-Version: 1.52\r\n");
    script(m, 400, refusal);
    script_ping(m, "Api-Version: 1.43\r\n");
    script(m, 200, CONTAINER);
    inspect(m, &call);
    assert_ok(call.err.code, &call.err);
    assert_string_equal(target(m, 3), "/v1.43/containers/web/json");

    script(m, 400, refusal);
    script_ping(m, "Api-Version: 1.43\r\n");
    script(m, 400, refusal);
    inspect(m, &hopeless);
    assert_failed(&hopeless, -EINVAL, ERROR_INVALID, "too new");
    assert_contains(hopeless.err.remedy, "mervis-agent");
}

/* ---- An engine in trouble ------------------------------------------------------------------- */

static void missing_silent_and_lost_engines_are_told_apart(void **state)
{
    Machine *m = *state;
    auto_call Call silent = {0};
    auto_call Call lost = {0};
    auto_call Call missing = {0};

    engine_set_timeouts(m->engine, SECOND, 0, 0);
    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_HANG});
    inspect(m, &silent);
    assert_failed(&silent, -ETIMEDOUT, ERROR_TEMPORARY, "it hangs");
    assert_int_equal(engine_api_version(m->engine), 0);

    script_ping(m, "Api-Version: 1.41\r\n");
    /* Twice: what was lost on an old connection is sent again on a new one. */
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_EARLY});
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_EARLY});
    inspect(m, &lost);
    assert_failed(&lost, -ENOTCONN, ERROR_TEMPORARY, "does not answer");
    assert_contains(lost.err.remedy, "systemctl start docker");

    m->f.server = http_server_free(m->f.server);
    (void)unlink(m->socket);
    inspect(m, &missing);
    assert_failed(&missing, -ENOTCONN, ERROR_TEMPORARY, "does not exist");
    assert_contains(missing.err.remedy, "docker.io");
}

static void refusals_become_codes(void **state)
{
    static const struct {
        int status;
        const char *body;
        int code;
        ErrorKind kind;
    } cases[] = {
        {404, "{\"message\":\"No such container: web\"}", -ENOENT, ERROR_INVALID},
        {409, "{\"message\":\"conflict\"}", -EBUSY, ERROR_INVALID},
        {400, "{\"message\":\"bad parameter\"}", -EINVAL, ERROR_INVALID},
        {500, "{\"message\":\"mkdir /x: no space left on device\"}", -ENOSPC, ERROR_TEMPORARY},
        {500, "plain words", -EIO, ERROR_TEMPORARY},
        {503, "", -EAGAIN, ERROR_TEMPORARY},
        {200, "<html>", -EBADMSG, ERROR_CORRUPT},
        {404, "{\"cause\":\"no such container\",\"message\":\"no container\",\"response\":404}",
         -ENOENT, ERROR_INVALID},
    };
    Machine *m = *state;

    script_ping(m, "Api-Version: 1.41\r\n");
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_call Call call = {0};

        script(m, cases[i].status, cases[i].body);
        inspect(m, &call);
        assert_failed(&call, cases[i].code, cases[i].kind, "container web: ");
    }
}

static void freed_operations_and_engines_are_silent(void **state)
{
    Machine *m = *state;
    auto_call Call freed = {0};
    auto_call Call orphan = {0};
    auto_error Error err = {0};

    assert_ok(engine_info(m->engine, on_reply, &freed, &freed.op, &err), &err);
    freed.op = engine_op_free(freed.op);
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_HANG});
    assert_ok(engine_info(m->engine, on_reply, &orphan, &orphan.op, &err), &err);
    loop_run_for(m->f.event, 50 * MSEC);
    m->engine = engine_free(m->engine);
    loop_run_for(m->f.event, 50 * MSEC);
    assert_false(freed.done);
    assert_false(orphan.done);
}

/* ---- Containers ----------------------------------------------------------------------------- */

static void already_so_is_success(void **state)
{
    Machine *m = *state;
    auto_call Call started = {0};
    auto_call Call stopped = {0};
    auto_call Call removed = {0};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 304, NULL);
    assert_ok(engine_start_container(m->engine, "web", on_reply, &started, &started.op, &err),
              &err);
    finish(m, &started);
    assert_ok(started.err.code, &started.err);
    assert_false(started.changed);

    script(m, 204, NULL);
    assert_ok(
        engine_stop_container(m->engine, "web", 1500 * MSEC, on_reply, &stopped, &stopped.op, &err),
        &err);
    finish(m, &stopped);
    assert_true(stopped.changed);
    assert_string_equal(target(m, 2), "/v1.41/containers/web/stop?t=2");

    script(m, 404, "{\"message\":\"No such container\"}");
    assert_ok(
        engine_remove_container(m->engine, "web", false, on_reply, &removed, &removed.op, &err),
        &err);
    finish(m, &removed);
    assert_ok(removed.err.code, &removed.err);
    assert_false(removed.changed);
    assert_string_equal(target(m, 3), "/v1.41/containers/web?v=1");
}

static void names_cannot_leave_the_path(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};
    auto_error Error err = {0};

    assert_int_equal(engine_inspect_container(m->engine, "..", on_reply, &call, &call.op, &err),
                     -EINVAL);
    assert_null(call.op);
    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 404, "{}");
    error_done(&err);
    assert_ok(engine_inspect_container(m->engine, "a?force=1#x", on_reply, &call, &call.op, &err),
              &err);
    finish(m, &call);
    assert_string_equal(target(m, 1), "/v1.41/containers/a%3Fforce%3D1%23x/json");
}

static void a_taken_port_is_traced_to_a_container(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 500,
           "{\"message\":\"driver failed programming external connectivity on endpoint web: "
           "Bind for 0.0.0.0:8080 failed: port is already allocated\"}");
    script(m, 200,
           "[{\"Id\":\"x\",\"Names\":[\"/other\"],\"Image\":\"nginx:1\",\"State\":"
           "\"running\",\"Ports\":[{\"PrivatePort\":80,\"PublicPort\":8080,\"Type\":\"tcp\""
           "}]}]");
    assert_ok(engine_start_container(m->engine, "web", on_reply, &call, &call.op, &err), &err);
    finish(m, &call);
    assert_failed(&call, -EADDRINUSE, ERROR_INVALID,
                  "start container web: port 8080 is taken by container other (image nginx:1)");
    assert_contains(call.err.remedy, "docker stop other");
}

static void a_taken_port_is_traced_to_a_process(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};
    auto_error Error err = {0};
    auto_free char *body =
        str_printf("{\"message\":\"listen tcp4 0.0.0.0:%u: bind: address already in use\"}",
                   http_server_port(m->f.other));
    auto_free char *expected = str_printf("(pid %d)", (int)getpid());

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 500, body);
    script(m, 500, "{\"message\":\"no list either\"}");
    assert_ok(engine_start_container(m->engine, "web", on_reply, &call, &call.op, &err), &err);
    finish(m, &call);
    assert_failed(&call, -EADDRINUSE, ERROR_INVALID, expected);
}

static void ports_are_read_from_messages(void **state)
{
    assert_int_equal(port_in_message("Bind for 0.0.0.0:8080 failed: port is already allocated"),
                     8080);
    assert_int_equal(port_in_message("listen tcp4 0.0.0.0:80: bind: address already in use"), 80);
    assert_int_equal(port_in_message("Bind for :::443 failed: port is already allocated"), 443);
    assert_int_equal(port_in_message("port is already allocated"), 0);
    assert_int_equal(port_in_message(" failed: port is already allocated"), 0);
    assert_int_equal(port_in_message("x:99999 failed: port is already allocated"), 0);
}

/* ---- Creation ------------------------------------------------------------------------------- */

static json_t *spec_json(const EngineContainerSpec *spec)
{
    auto_error Error err = {0};
    auto_secret_str char *text = NULL;
    json_t *doc = NULL;

    assert_ok(engine_spec_json(spec, &text, &err), &err);
    assert_ok(json_parse(text, strlen(text), "spec", &doc, &err), &err);
    return doc;
}

static void a_spec_says_all_of_it_in_the_engines_words(void **state)
{
    static const char expected[] =
        "{\"Cmd\":[\"serve\"],\"Entrypoint\":[\"/app\"],\"Env\":[\"KEY=s3cret\",\"EMPTY=\"],"
        "\"ExposedPorts\":{\"53/udp\":{},\"8080/tcp\":{},\"9000/tcp\":{}},"
        "\"Healthcheck\":{\"Interval\":5000000000,\"Retries\":3,\"Test\":[\"CMD\",\"true\"]},"
        "\"HostConfig\":{\"Binds\":[\"/srv:/data:ro\"],\"CapAdd\":[\"NET_ADMIN\"],"
        "\"CapDrop\":[\"ALL\"],\"ExtraHosts\":[\"db:10.0.0.5\"],\"Init\":true,"
        "\"LogConfig\":{\"Config\":{\"tag\":\"web\"},\"Type\":\"journald\"},\"Memory\":629145600,"
        "\"MemorySwap\":-1,\"Mounts\":[{\"ReadOnly\":true,\"Source\":\"/run/s\",\"Target\":\"/s\","
        "\"Type\":\"bind\"},{\"Source\":\"cache\",\"Target\":\"/cache\",\"Type\":\"volume\"}],"
        "\"NanoCpus\":1500000000,\"NetworkMode\":\"bridge\",\"PidsLimit\":256,"
        "\"PortBindings\":{\"53/udp\":[{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"53\"}],"
        "\"8080/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"80\"},{\"HostIp\":\"\",\"HostPort\":\"81\"}]"
        "},\"ReadonlyRootfs\":true,\"RestartPolicy\":{\"MaximumRetryCount\":5,\"Name\":"
        "\"on-failure\"},\"SecurityOpt\":[\"no-new-privileges\"],\"ShmSize\":67108864,"
        "\"Tmpfs\":{\"/run\":\"\",\"/tmp\":\"size=67108864\"},"
        "\"Ulimits\":[{\"Hard\":65536,\"Name\":\"nofile\",\"Soft\":1024}]},\"Hostname\":\"h\","
        "\"Image\":\"app@" DIGEST "\",\"Labels\":{\"team\":\"quant\"},\"StopSignal\":\"SIGINT\","
        "\"StopTimeout\":2,\"User\":\"1000:1000\",\"WorkingDir\":\"/app\"}";
    const EngineContainerSpec spec = {
        .image = "app@" DIGEST,
        .entrypoint = (const char *const[]){"/app", NULL},
        .command = (const char *const[]){"serve", NULL},
        .user = "1000:1000",
        .workdir = "/app",
        .hostname = "h",
        .env = (const EnginePair[]){{"KEY", "s3cret"}, {"EMPTY", ""}},
        .n_env = 2,
        .labels = (const EnginePair[]){{"team", "quant"}},
        .n_labels = 1,
        .ports = (const EnginePortBinding[]){{.host_port = 80, .container_port = 8080},
                                             {.host_port = 81, .container_port = 8080},
                                             {"127.0.0.1", 53, 53, "udp"},
                                             {.container_port = 9000}},
        .n_ports = 4,
        .network = "bridge",
        .extra_hosts = (const char *const[]){"db:10.0.0.5", NULL},
        .mounts = (const EngineMount[]){{ENGINE_MOUNT_BIND, "/run/s", "/s", true},
                                        {ENGINE_MOUNT_BIND_CREATE, "/srv", "/data", true},
                                        {ENGINE_MOUNT_VOLUME, "cache", "/cache", false}},
        .n_mounts = 3,
        .tmpfs = (const EngineTmpfs[]){{"/tmp", 64 << 20}, {"/run", 0}},
        .n_tmpfs = 2,
        .read_only = true,
        .memory_bytes = 600 << 20,
        .memory_swap_bytes = -1,
        .cpus = 1.5,
        .pids = 256,
        .shm_bytes = 64 << 20,
        .ulimits = (const EngineUlimit[]){{"nofile", 1024, 65536}},
        .n_ulimits = 1,
        .init = true,
        .cap_add = (const char *const[]){"NET_ADMIN", NULL},
        .cap_drop = (const char *const[]){"ALL", NULL},
        .security_options = (const char *const[]){"no-new-privileges", NULL},
        .log_driver = "journald",
        .log_options = (const EnginePair[]){{"tag", "web"}},
        .n_log_options = 1,
        .stop_signal = "SIGINT",
        .stop_timeout_usec = 1500 * MSEC,
        .health_check = {.test = (const char *const[]){"CMD", "true", NULL},
                         .interval_usec = 5 * SECOND,
                         .retries = 3},
        .restart = ENGINE_RESTART_ON_FAILURE,
        .restart_max = 5,
    };
    json_auto_t *doc = spec_json(&spec);
    auto_free char *text = json_canonical(doc);

    assert_string_equal(text, expected);
}

static void what_is_not_said_is_left_to_the_image(void **state)
{
    const EngineContainerSpec spec = {.image = "app", .entrypoint = (const char *const[]){NULL}};
    json_auto_t *doc = spec_json(&spec);
    auto_free char *text = json_canonical(doc);

    assert_string_equal(text, "{\"Env\":[],\"HostConfig\":{\"Binds\":[],\"Mounts\":[],"
                              "\"PortBindings\":{},\"RestartPolicy\":{\"MaximumRetryCount\":0,"
                              "\"Name\":\"no\"}},\"Image\":\"app\",\"Labels\":{}}");
}

static void a_spec_that_no_engine_takes_is_refused(void **state)
{
    const struct {
        EngineContainerSpec spec;
        const char *message;
    } cases[] = {
        {{.image = ""}, "needs an image"},
        {{.image = "a", .memory_bytes = 1 << 20}, "at least 6 MiB"},
        {{.image = "a",
          .mounts = (const EngineMount[]){{ENGINE_MOUNT_BIND_CREATE, "/a:/etc", "/b", true}},
          .n_mounts = 1},
         "has no ':'"},
        {{.image = "a", .env = (const EnginePair[]){{"A=B", "secret"}}, .n_env = 1}, "variable"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_error Error err = {0};
        char *text = NULL;

        assert_int_equal(engine_spec_json(&cases[i].spec, &text, &err), -EINVAL);
        assert_contains(err.message, cases[i].message);
        assert_null(strstr(err.message, "secret"));
        assert_null(text);
    }
}

static void a_container_is_created_and_a_taken_name_is_told(void **state)
{
    Machine *m = *state;
    const EngineContainerSpec spec = {.image = "app@" DIGEST};
    auto_call Call made = {0};
    auto_call Call taken = {0};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 201, "{\"Id\":\"c1\",\"Warnings\":[\"swap limit\"]}");
    assert_ok(
        engine_create_container(m->engine, "web.next", &spec, on_reply, &made, &made.op, &err),
        &err);
    finish(m, &made);
    assert_string_equal(made.id, "c1");
    assert_string_equal(target(m, 1), "/v1.41/containers/create?name=web.next");
    assert_string_equal(request_header(http_server_request(m->f.server, 1), "Content-Type"),
                        "application/json");

    script(m, 409, "{\"message\":\"Conflict. The container name \\\"/web\\\" is already in use\"}");
    assert_ok(engine_create_container(m->engine, "web", &spec, on_reply, &taken, &taken.op, &err),
              &err);
    finish(m, &taken);
    assert_failed(&taken, -EEXIST, ERROR_INVALID, "already in use");
}

/* ---- Pulls ---------------------------------------------------------------------------------- */

static void start_pull(Machine *m, const char *username, const char *password, Call *call)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_error Error err = {0};
    const Platform platform = {.os = "linux", .architecture = "amd64"};
    EnginePull pull = {.digest = DIGEST,
                       .platform = &platform,
                       .username = username,
                       .password = password,
                       .on_progress = on_progress};

    assert_ok(reference_parse("europe-west1-docker.pkg.dev/p/r/app:stable", &reference, &err),
              &err);
    pull.reference = reference;
    assert_ok(engine_pull(m->engine, &pull, on_reply, call, &call->op, &err), &err);
    assert_true(engine_is_pulling(m->engine));
}

/* A password whose plain base64 has '+' and '/': the engine ignores a header of that alphabet. */
static void a_pull_brings_its_credentials_as_the_engine_reads_them(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};
    auto_buf Buf decoded = BUF_INIT(4096);
    const char *header;

    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server,
                      &(Reply){.mode = REPLY_CHUNKED,
                               .body = "{\"status\":\"Pulling from p/r/app\"}\r\n{\"status\":"
                                       "\"Downloading\",\"progressDetail\":{\"current\":5,\"total\""
                                       ":50},\"id\":\"aaaaaaaaaaaa\"}\r\n{\"status\":\"Status: "
                                       "Downloaded newer image\"}\r\n"});
    script(m, 200, "{\"Id\":\"sha256:1\",\"RepoDigests\":[],\"Os\":\"linux\"}");
    start_pull(m, "oauth2accesstoken", "?>~?>~?>~", &call);
    finish(m, &call);

    assert_ok(call.err.code, &call.err);
    assert_string_equal(call.id, "sha256:1");
    assert_int_equal(call.n_images, 1);
    assert_int_equal(call.total, 50);
    assert_false(engine_is_pulling(m->engine));
    assert_string_equal(http_server_request(m->f.server, 1)->method, "POST");
    assert_string_equal(
        target(m, 1),
        "/v1.41/images/create?fromImage=europe-west1-docker.pkg.dev%2Fp%2Fr%2Fapp"
        "&tag=sha256%3Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "&platform=linux%2Famd64");
    assert_string_equal(target(m, 2),
                        "/v1.41/images/europe-west1-docker.pkg.dev/p/r/app@" DIGEST "/json");

    header = request_header(http_server_request(m->f.server, 1), "X-Registry-Auth");
    assert_null(strpbrk(header, "+/"));
    assert_non_null(strpbrk(header, "-_"));
    assert_int_equal(strlen(header) % 4, 0);
    assert_int_equal(base64_decode(header, strlen(header), &decoded), 0);
    assert_string_equal(buf_str(&decoded),
                        "{\"username\":\"oauth2accesstoken\",\"password\":\"?>~?>~?>~\","
                        "\"serveraddress\":\"europe-west1-docker.pkg.dev\"}");
    assert_null(request_header(http_server_request(m->f.server, 2), "X-Registry-Auth"));
}

static void a_pull_that_fails_within_its_200_fails(void **state)
{
    static const struct {
        const char *body;
        int status, code;
        ErrorKind kind;
        ReplyMode mode;
    } cases[] = {
        {"{\"status\":\"x\"}\r\n{\"errorDetail\":{\"message\":\"no space left on device\"}}\r\n",
         200, -ENOSPC, ERROR_TEMPORARY, REPLY_CHUNKED},
        {"{\"error\":\"unauthorized: expired\"}", 200, -EACCES, ERROR_DENIED, REPLY_NORMAL},
        {"{\"status\":\"x\"}{\"stat", 200, -ENOTCONN, ERROR_TEMPORARY, REPLY_NORMAL},
        {"{\"status\":\"x\"}\nfatal", 200, -EBADMSG, ERROR_CORRUPT, REPLY_NORMAL},
        {"{\"status\":\"x\"}", 200, -ENOTCONN, ERROR_TEMPORARY, REPLY_SHORT},
        {"{\"message\":\"manifest for x not found: manifest unknown\"}", 404, -ENOENT,
         ERROR_INVALID, REPLY_NORMAL},
        {"{\"message\":\"pull access denied for x, repository does not exist\"}", 404, -ENOENT,
         ERROR_INVALID, REPLY_NORMAL},
    };
    Machine *m = *state;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_call Call call = {0};

        if (engine_api_version(m->engine) == 0)
            script_ping(m, "Api-Version: 1.41\r\n");
        http_server_reply(
            m->f.server,
            &(Reply){.status = cases[i].status, .body = cases[i].body, .mode = cases[i].mode});
        start_pull(m, NULL, NULL, &call);
        finish(m, &call);
        assert_failed(&call, cases[i].code, cases[i].kind,
                      "pull europe-west1-docker.pkg.dev/p/r/app@sha256:aaa");
        assert_false(engine_is_pulling(m->engine));
    }
}

static void a_pull_that_was_called_done_must_be_there(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 200, "{\"status\":\"Status: Downloaded newer image\"}");
    script(m, 404, "{\"message\":\"No such image\"}");
    start_pull(m, NULL, NULL, &call);
    finish(m, &call);
    assert_failed(&call, -ENOENT, ERROR_INVALID, "No such image");
}

static void a_pull_that_stands_still_is_cut(void **state)
{
    Machine *m = *state;
    auto_call Call silent = {0};
    auto_call Call stalled = {0};

    engine_set_timeouts(m->engine, 0, 300 * MSEC, 300 * MSEC);
    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_HANG});
    start_pull(m, NULL, NULL, &silent);
    finish(m, &silent);
    assert_failed(&silent, -ESTALE, ERROR_TEMPORARY, "did not begin");
    assert_false(engine_is_pulling(m->engine));

    http_server_reply(m->f.server, &(Reply){.mode = REPLY_STALL, .body = "{\"status\":\"x\"} "});
    start_pull(m, NULL, NULL, &stalled);
    finish(m, &stalled);
    assert_failed(&stalled, -ESTALE, ERROR_TEMPORARY, "stood still");
}

static void a_slow_pull_that_moves_is_not_cut(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};

    engine_set_timeouts(m->engine, 0, 15 * SECOND, 400 * MSEC);
    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_DRIP,
                                            .drip_usec = 30 * MSEC,
                                            .body = "{\"status\":\"Waiting\"}\r\n"});
    script(m, 200, "{\"Id\":\"sha256:1\"}");
    start_pull(m, NULL, NULL, &call);
    finish(m, &call);
    assert_ok(call.err.code, &call.err);
}

static void freeing_a_pull_ends_it(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_STALL, .body = "{\"status\":\"x\"} "});
    start_pull(m, NULL, NULL, &call);
    loop_run_for(m->f.event, 100 * MSEC);
    call.op = engine_op_free(call.op);
    assert_false(engine_is_pulling(m->engine));
    loop_run_for(m->f.event, 50 * MSEC);
    assert_false(call.done);
}

/* ---- Images --------------------------------------------------------------------------------- */

static void images_in_use_are_busy_and_never_forced(void **state)
{
    Machine *m = *state;
    auto_call Call call = {0};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 409,
           "{\"message\":\"conflict: unable to delete 8c897ece9aad (must be forced) - image "
           "is being used by stopped container eca55c72e3d7\"}");
    assert_ok(engine_remove_image(m->engine, "sha256:8c89", on_reply, &call, &call.op, &err), &err);
    finish(m, &call);
    assert_failed(&call, -EBUSY, ERROR_INVALID, "stopped container");
    assert_string_equal(target(m, 1), "/v1.41/images/sha256:8c89");
}

/* ---- Events --------------------------------------------------------------------------------- */

typedef struct Watch {
    EngineEvents *events;
    unsigned n_up, n_down, n_events;
    int code;
    char *last_name;
    bool seen, back; /* for the loop */
    bool frees;
} Watch;

static void on_event(const EngineEvent *event, void *userdata)
{
    Watch *w = userdata;

    w->n_events++;
    free(w->last_name);
    w->last_name = strdup(event->name);
    w->seen = true;
    if (w->frees)
        w->events = engine_events_free(w->events);
}

static void on_up(void *userdata)
{
    Watch *w = userdata;

    w->back = ++w->n_up == 2;
}

static void on_down(const Error *err, void *userdata)
{
    Watch *w = userdata;

    w->n_down++;
    w->code = err->code;
}

static const EngineEventsHandlers handlers = {on_event, on_up, on_down};

#define INFO "{\"DockerRootDir\":\"/var/lib/docker\"}"
#define EVENT(name, nano)                                                                          \
    "{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"x\",\"Attributes\":{\"name\":" \
    "\"" name "\"}},\"timeNano\":" nano "}\n"

static void events_go_on_after_an_outage_from_where_they_were(void **state)
{
    Machine *m = *state;
    Watch w = {0};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 200, INFO);
    /* The stream ends: the engine was restarted, and for a while it does not answer. */
    http_server_reply(m->f.server,
                      &(Reply){.mode = REPLY_CHUNKED, .body = EVENT("web", "1700000000000000041")});
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_EARLY});
    script_ping(m, "Api-Version: 1.43\r\n");
    script(m, 200, INFO);
    http_server_reply(m->f.server, &(Reply){.mode = REPLY_STALL, .body = EVENT("db", "1") " "});
    assert_ok(engine_events_new(m->engine, "io.mervis.container", &handlers, &w, &w.events, &err),
              &err);
    loop_run_until(m->f.event, &w.back, 20 * SECOND);
    w.seen = false;
    loop_run_until(m->f.event, &w.seen, 5 * SECOND);

    assert_int_equal(w.n_up, 2);
    assert_int_equal(w.n_down, 1); /* one outage, said once */
    assert_int_equal(w.code, -ENOTCONN);
    assert_string_equal(w.last_name, "db");
    assert_true(engine_events_is_up(w.events));
    assert_contains(target(m, 2), "/v1.41/events?filters=%7B%22event%22");
    assert_contains(target(m, 2), "io.mervis.container");
    assert_contains(target(m, 6), "/v1.43/events?");
    w.events = engine_events_free(w.events);
    free(w.last_name);
}

static void events_may_be_freed_from_inside(void **state)
{
    Machine *m = *state;
    Watch w = {.frees = true};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 200, INFO);
    http_server_reply(m->f.server,
                      &(Reply){.mode = REPLY_STALL, .body = EVENT("a", "1") EVENT("b", "2") " "});
    assert_ok(engine_events_new(m->engine, NULL, &handlers, &w, &w.events, &err), &err);
    loop_run_until(m->f.event, &w.seen, 5 * SECOND);
    loop_run_for(m->f.event, 50 * MSEC);
    assert_int_equal(w.n_events, 1);
    free(w.last_name);
}

/* ---- Health --------------------------------------------------------------------------------- */

/* A container whose life the test tells. */
typedef struct Life {
    const char *inspect; /* what the engine says of it */
    int http_status;
    const char *logs;
    unsigned n_inspects, n_asked;
    unsigned well_after; /* looks by http until it answers */
} Life;

static void engine_of_life(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    Life *life = userdata;

    if (streq(request->target, "/_ping")) {
        reply->headers = "Api-Version: 1.41\r\n";
        reply->body = "OK";
    } else if (strstr(request->target, "/logs")) {
        reply->body = life->logs;
    } else {
        life->n_inspects++;
        reply->body = life->inspect;
        reply->status = life->inspect ? 200 : 404;
    }
}

static void app_of_life(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    Life *life = userdata;

    reply->status = ++life->n_asked > life->well_after ? life->http_status : 503;
    reply->body = "hello";
}

typedef struct Verdict {
    bool done, healthy;
    char *reason;
    int exit_code;
    HealthProbe *probe;
} Verdict;

static void verdict_done(Verdict *verdict)
{
    (void)health_probe_free(verdict->probe);
    free(verdict->reason);
}

#define auto_verdict auto_(verdict_done)

static void on_verdict(HealthProbe *probe, const HealthVerdict *verdict, void *userdata)
{
    Verdict *mine = userdata;

    assert_false(mine->done);
    mine->done = true;
    mine->healthy = verdict->healthy;
    mine->reason = strdup(verdict->reason);
    mine->exit_code = verdict->exit_code;
    mine->probe = health_probe_free(mine->probe);
}

static void start_probe(Machine *m, Life *life, const HealthSpec *spec, Verdict *verdict)
{
    auto_error Error err = {0};

    http_server_handle(m->f.server, engine_of_life, life);
    http_server_handle(m->f.other, app_of_life, life);
    assert_ok(health_probe_start(m->engine, m->f.client, m->f.event, spec, on_verdict, verdict,
                                 &verdict->probe, &err),
              &err);
    assert_false(verdict->done);
}

static void judge(Machine *m, Life *life, const HealthSpec *spec, Verdict *verdict)
{
    start_probe(m, life, spec, verdict);
    loop_run_until(m->f.event, &verdict->done, 20 * SECOND);
}

static char *container_url(Machine *m)
{
    return str_printf("http://{container}:%u/ready", http_server_port(m->f.other));
}

static void health_by_http_waits_for_a_yes(void **state)
{
    static const int statuses[] = {200, 204, 302};
    Machine *m = *state;
    auto_free char *url = container_url(m);

    for (size_t i = 0; i < ELEMENTS(statuses); i++) {
        Life life = {.inspect = CONTAINER, .http_status = statuses[i], .well_after = 3};
        auto_verdict Verdict verdict = {0};
        const HealthSpec spec = {
            .kind = HEALTH_HTTP, .container = "web", .url = url, .interval_usec = 10 * SECOND};

        judge(m, &life, &spec, &verdict);
        assert_true(verdict.healthy);
        assert_contains(verdict.reason, "http://127.0.0.1:");
        assert_int_equal(life.n_asked,
                         4); /* sooner than the interval, without counting against it */
    }
}

static void health_by_http_gives_up_after_its_retries(void **state)
{
    Machine *m = *state;
    auto_free char *url = container_url(m);
    Life life = {.inspect = CONTAINER, .http_status = 500};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.kind = HEALTH_HTTP,
                             .container = "web",
                             .url = url,
                             .interval_usec = 100 * MSEC,
                             .retries = 2};

    judge(m, &life, &spec, &verdict);
    assert_false(verdict.healthy);
    assert_contains(verdict.reason, "/ready answered HTTP 500 (2 times)");
    assert_int_equal(verdict.exit_code, -1);
}

static void failures_in_the_start_period_do_not_count(void **state)
{
    Machine *m = *state;
    auto_free char *url = container_url(m);
    Life life = {.inspect = CONTAINER, .http_status = 200, .well_after = 6};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.kind = HEALTH_HTTP,
                             .container = "web",
                             .url = url,
                             .interval_usec = 20 * MSEC,
                             .start_period_usec = 10 * SECOND,
                             .retries = 1};

    judge(m, &life, &spec, &verdict);
    assert_true(verdict.healthy);
}

static void a_limit_ends_what_never_becomes_well(void **state)
{
    Machine *m = *state;
    auto_free char *url = container_url(m);
    Life life = {.inspect = CONTAINER, .http_status = 404};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.kind = HEALTH_HTTP,
                             .container = "web",
                             .url = url,
                             .interval_usec = 20 * MSEC,
                             .start_period_usec = HOUR,
                             .limit_usec = 300 * MSEC};

    judge(m, &life, &spec, &verdict);
    assert_false(verdict.healthy);
    assert_contains(verdict.reason, "not well within");
    assert_contains(verdict.reason, "HTTP 404");
}

#define HEALTH_IS(status)                                                                          \
    "{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"running\",\"Health\":{\"Status\":"   \
    "\"" status "\",\"Log\":[{\"Output\":\"first\"},{\"Output\":\"refused\\n\"}]}}}"

static void health_by_the_engine_follows_its_verdict(void **state)
{
    Machine *m = *state;
    Life life = {.inspect = HEALTH_IS("starting")};
    auto_verdict Verdict well = {0};
    auto_verdict Verdict ill = {0};
    const HealthSpec spec = {.kind = HEALTH_ENGINE, .container = "web", .interval_usec = HOUR};

    start_probe(m, &life, &spec, &well);
    loop_run_for(m->f.event, 300 * MSEC);
    assert_false(well.done);
    assert_contains(health_probe_progress(well.probe), "has not passed yet: refused");
    life.inspect = HEALTH_IS("healthy");
    health_probe_look(well.probe); /* an event came */
    loop_run_until(m->f.event, &well.done, 2 * SECOND);
    assert_true(well.healthy);

    life.inspect = HEALTH_IS("unhealthy");
    judge(m, &life, &spec, &ill);
    assert_false(ill.healthy);
    assert_contains(ill.reason, "its HEALTHCHECK fails: refused");
}

static void stability_takes_its_time(void **state)
{
    Machine *m = *state;
    Life life = {.inspect = CONTAINER};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.container = "web", .stable_usec = 400 * MSEC};
    uint64_t begun = now_boottime_usec();

    judge(m, &life, &spec, &verdict);
    assert_true(verdict.healthy);
    assert_true(now_boottime_usec() - begun >= 400 * MSEC);
}

static void whoever_dies_while_being_proved_is_not_well(void **state)
{
    static const struct {
        const char *inspect, *logs, *reason;
        int exit_code;
    } cases[] = {
        {"{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"exited\",\"ExitCode\":3}}",
         "boot\nno database\n\n", "it exited with status 3; its last words: no database", 3},
        {"{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"exited\",\"ExitCode\":137,"
         "\"OOMKilled\":true},\"HostConfig\":{\"Memory\":67108864}}",
         "", "memory limit of 64", 137},
        {"{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"exited\",\"ExitCode\":1}}",
         "exec /app: exec format error\n", "built for another processor", 1},
        {"{\"Id\":\"c1\",\"Name\":\"/web\",\"RestartCount\":2,\"State\":{\"Status\":\"restarting\","
         "\"Restarting\":true,\"ExitCode\":4}}",
         "", "it exited with status 4", 4},
        {NULL, "", "the container is gone", -1},
    };
    Machine *m = *state;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        Life life = {.inspect = cases[i].inspect, .logs = cases[i].logs};
        auto_verdict Verdict verdict = {0};
        const HealthSpec spec = {.container = "web"};

        judge(m, &life, &spec, &verdict);
        assert_false(verdict.healthy);
        assert_contains(verdict.reason, cases[i].reason);
        assert_int_equal(verdict.exit_code, cases[i].exit_code);
    }
}

/* One look sees it run, before and after: the count tells. */
static void a_restart_between_two_looks_is_seen(void **state)
{
    Machine *m = *state;
    Life life = {.inspect = CONTAINER, .logs = "died\n"};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.container = "web", .stable_usec = HOUR, .interval_usec = HOUR};

    start_probe(m, &life, &spec, &verdict);
    loop_run_for(m->f.event, 100 * MSEC);
    assert_int_equal(life.n_inspects, 1);
    life.inspect = "{\"Id\":\"c1\",\"Name\":\"/web\",\"RestartCount\":1,\"State\":{\"Status\":"
                   "\"running\",\"StartedAt\":\"2024-01-01T00:00:09Z\"}}";
    health_probe_look(verdict.probe);
    loop_run_until(m->f.event, &verdict.done, 2 * SECOND);
    assert_false(verdict.healthy);
    assert_contains(verdict.reason, "started it again (1 times by now); its last words: died");
}

TEST_MAIN(
    MACHINE_TEST(the_newest_version_that_both_know_is_spoken),
    MACHINE_TEST(an_engine_that_is_too_old_or_none_is_said_so),
    MACHINE_TEST(a_version_that_is_refused_is_negotiated_once_more),
    MACHINE_TEST(missing_silent_and_lost_engines_are_told_apart),
    MACHINE_TEST(refusals_become_codes), MACHINE_TEST(freed_operations_and_engines_are_silent),
    MACHINE_TEST(already_so_is_success), MACHINE_TEST(names_cannot_leave_the_path),
    MACHINE_TEST(a_taken_port_is_traced_to_a_container),
    MACHINE_TEST(a_taken_port_is_traced_to_a_process),
    cmocka_unit_test(ports_are_read_from_messages),
    cmocka_unit_test(a_spec_says_all_of_it_in_the_engines_words),
    cmocka_unit_test(what_is_not_said_is_left_to_the_image),
    cmocka_unit_test(a_spec_that_no_engine_takes_is_refused),
    MACHINE_TEST(a_container_is_created_and_a_taken_name_is_told),
    MACHINE_TEST(a_pull_brings_its_credentials_as_the_engine_reads_them),
    MACHINE_TEST(a_pull_that_fails_within_its_200_fails),
    MACHINE_TEST(a_pull_that_was_called_done_must_be_there),
    MACHINE_TEST(a_pull_that_stands_still_is_cut), MACHINE_TEST(a_slow_pull_that_moves_is_not_cut),
    MACHINE_TEST(freeing_a_pull_ends_it), MACHINE_TEST(images_in_use_are_busy_and_never_forced),
    MACHINE_TEST(events_go_on_after_an_outage_from_where_they_were),
    MACHINE_TEST(events_may_be_freed_from_inside), MACHINE_TEST(health_by_http_waits_for_a_yes),
    MACHINE_TEST(health_by_http_gives_up_after_its_retries),
    MACHINE_TEST(failures_in_the_start_period_do_not_count),
    MACHINE_TEST(a_limit_ends_what_never_becomes_well),
    MACHINE_TEST(health_by_the_engine_follows_its_verdict), MACHINE_TEST(stability_takes_its_time),
    MACHINE_TEST(whoever_dies_while_being_proved_is_not_well),
    MACHINE_TEST(a_restart_between_two_looks_is_seen))
