/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine-fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>

#include "agent/engine/engine-internal.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

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

static void a_restart_policy_is_set_alone(void **state)
{
    Machine *m = *state;
    auto_call Call no = {0};
    auto_call Call again = {0};
    auto_error Error err = {0};

    script_ping(m, "Api-Version: 1.41\r\n");
    script(m, 200, "{\"Warnings\":[]}");
    assert_ok(engine_set_restart(m->engine, "web", ENGINE_RESTART_NO, on_reply, &no, &no.op, &err),
              &err);
    finish(m, &no);
    assert_ok(no.err.code, &no.err);
    assert_string_equal(target(m, 1), "/v1.41/containers/web/update");
    assert_string_equal(http_server_request(m->f.server, 1)->body,
                        "{\"RestartPolicy\":{\"Name\":\"no\",\"MaximumRetryCount\":0}}");

    script(m, 404, "{\"message\":\"No such container: web\"}");
    assert_ok(engine_set_restart(m->engine, "web", ENGINE_RESTART_ON_FAILURE, on_reply, &again,
                                 &again.op, &err),
              &err);
    finish(m, &again);
    assert_failed(&again, -ENOENT, ERROR_INVALID, "restart policy of container web");
    assert_string_equal(http_server_request(m->f.server, 2)->body,
                        "{\"RestartPolicy\":{\"Name\":\"on-failure\",\"MaximumRetryCount\":0}}");
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

TEST_MAIN(MACHINE_TEST(the_newest_version_that_both_know_is_spoken),
          MACHINE_TEST(an_engine_that_is_too_old_or_none_is_said_so),
          MACHINE_TEST(a_version_that_is_refused_is_negotiated_once_more),
          MACHINE_TEST(missing_silent_and_lost_engines_are_told_apart),
          MACHINE_TEST(refusals_become_codes),
          MACHINE_TEST(freed_operations_and_engines_are_silent),
          MACHINE_TEST(already_so_is_success), MACHINE_TEST(a_restart_policy_is_set_alone),
          MACHINE_TEST(names_cannot_leave_the_path),
          MACHINE_TEST(a_taken_port_is_traced_to_a_container),
          MACHINE_TEST(a_taken_port_is_traced_to_a_process),
          cmocka_unit_test(ports_are_read_from_messages),
          cmocka_unit_test(a_spec_says_all_of_it_in_the_engines_words),
          cmocka_unit_test(what_is_not_said_is_left_to_the_image),
          cmocka_unit_test(a_spec_that_no_engine_takes_is_refused),
          MACHINE_TEST(a_container_is_created_and_a_taken_name_is_told))
