/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/file.h"
#include "agent/engine/engine-parse.h"
#include "agent/engine/engine-stream.h"
#include "agent/io/json.h"

#define auto_stream auto_(engine_stream_done)
#define auto_pull   auto_(engine_pull_state_done)
#define auto_doc    auto_(engine_doc_done)

static void read_fixture(const char *name, Buf *ret)
{
    auto_error Error err = {0};
    const char *top = getenv("srcdir");
    auto_free char *path = str_printf("%s/tests/fixtures/docker/%s", top ? top : ".", name);

    assert_ok(file_read(path, 16 << 20, ret, &err), &err);
}

static json_t *json_fixture(const char *name)
{
    auto_buf Buf text = BUF_INIT(16 << 20);
    auto_error Error err = {0};
    json_t *value = NULL;

    read_fixture(name, &text);
    assert_ok(json_parse(text.data, text.size, name, &value, &err), &err);
    return value;
}

/* ---- Streams -------------------------------------------------------------------------------- */

static int count_objects(const json_t *object, void *userdata, Error *err)
{
    assert_true(json_is_object(object));
    ++*(unsigned *)userdata;
    return 0;
}

static int feed_pull(const json_t *object, void *userdata, Error *err)
{
    return engine_pull_state_feed(userdata, object, err);
}

static void objects_are_found_wherever_the_stream_is_cut(void **state)
{
    static const char text[] = "{\"a\":\"}{\\\"\"}\r\n{\"b\":{\"c\":[1,{}]}}{\"d\":\"\\\\\"}\n";

    for (size_t cut = 0; cut < sizeof(text); cut++) {
        auto_stream EngineStream stream;
        auto_error Error err = {0};
        unsigned n = 0;

        engine_stream_init(&stream);
        assert_ok(engine_stream_feed(&stream, text, cut, count_objects, &n, &err), &err);
        assert_ok(engine_stream_feed(&stream, text + cut, sizeof(text) - 1 - cut, count_objects, &n,
                                     &err),
                  &err);
        assert_int_equal(n, 3);
        assert_true(engine_stream_is_whole(&stream));
    }
}

static void a_stream_that_ends_within_an_object_is_not_whole(void **state)
{
    auto_stream EngineStream stream;
    unsigned n = 0;

    engine_stream_init(&stream);
    assert_int_equal(engine_stream_feed(&stream, "{\"a\":1}{\"b\"", 11, count_objects, &n, NULL),
                     0);
    assert_int_equal(n, 1);
    assert_false(engine_stream_is_whole(&stream));
}

static void what_is_no_object_ends_the_stream(void **state)
{
    static const char *const cases[] = {"<html>", "[1]", "{]", "nonsense", "{\"a\":01}"};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_stream EngineStream stream;
        auto_error Error err = {0};
        unsigned n = 0;

        engine_stream_init(&stream);
        assert_int_equal(
            engine_stream_feed(&stream, cases[i], strlen(cases[i]), count_objects, &n, &err),
            -EBADMSG);
        assert_int_equal(err.kind, ERROR_CORRUPT);
        assert_int_equal(n, 0);
    }
}

static void an_object_has_a_largest_size(void **state)
{
    auto_stream EngineStream stream;
    auto_free char *text = malloc(ENGINE_STREAM_OBJECT_MAX + 10);
    unsigned n = 0;

    assert_non_null(text);
    memset(text, 'x', ENGINE_STREAM_OBJECT_MAX + 10);
    memcpy(text, "{\"a\":\"", 6);
    engine_stream_init(&stream);
    assert_int_equal(
        engine_stream_feed(&stream, text, ENGINE_STREAM_OBJECT_MAX + 10, count_objects, &n, NULL),
        -EFBIG);
}

/* ---- Pulls ---------------------------------------------------------------------------------- */

/* In pieces of `piece` bytes, as they may arrive. */
static void pull_of(const char *name, size_t piece, EnginePullState *ret)
{
    auto_buf Buf text = BUF_INIT(16 << 20);
    auto_stream EngineStream stream;
    auto_error Error err = {0};

    read_fixture(name, &text);
    engine_stream_init(&stream);
    for (size_t at = 0; at < text.size; at += piece)
        assert_ok(engine_stream_feed(&stream, text.data + at, MIN_OF(piece, text.size - at),
                                     feed_pull, ret, &err),
                  &err);
    assert_true(engine_stream_is_whole(&stream));
}

static void recorded_pulls_end_as_they_did(void **state)
{
    static const struct {
        const char *name;
        unsigned layers;
        const char *error;
    } cases[] = {
        {"images-create-tianon-true.stream", 2, NULL},
        {"images-create-up-to-date.stream", 0, NULL},
        {"images-create-error-auth.stream", 0, "Authentication is required."},
        {"build-error.stream", 0, NULL},
        {"push-error-401.stream", 0, NULL},
    };
    static const size_t pieces[] = {1, 7, 64, 1 << 20};

    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < ELEMENTS(pieces); k++) {
            auto_pull EnginePullState pull = {0};
            EnginePullProgress progress;

            pull_of(cases[i].name, pieces[k], &pull);
            engine_pull_state_progress(&pull, &progress);
            assert_int_equal(progress.layers, cases[i].layers);
            assert_int_equal(progress.layers_done, cases[i].layers);
            assert_true(streq_ptr(pull.error, cases[i].error));
        }
    for (size_t i = 3; i < ELEMENTS(cases); i++) {
        auto_pull EnginePullState pull = {0};

        pull_of(cases[i].name, 64, &pull);
        assert_non_null(pull.error);
    }
}

static void feed_text(EnginePullState *pull, const char *text)
{
    auto_stream EngineStream stream;
    auto_error Error err = {0};

    engine_stream_init(&stream);
    assert_ok(engine_stream_feed(&stream, text, strlen(text), feed_pull, pull, &err), &err);
}

static void the_detail_of_an_error_comes_before_its_deprecated_form(void **state)
{
    auto_pull EnginePullState both = {0};
    auto_pull EnginePullState old = {0};
    auto_pull EnginePullState neither = {0};

    feed_text(&both, "{\"errorDetail\":{\"message\":\"why\"},\"error\":\"old words\"}"
                     "{\"error\":\"a later one\"}");
    assert_string_equal(both.error, "why");
    feed_text(&old, "{\"error\":\"old \\u001b[31mwords\"}");
    assert_string_equal(old.error, "old \\x1b[31mwords");
    feed_text(&neither, "{\"status\":\"error\"}");
    assert_null(neither.error);
}

static void progress_adds_up_over_layers(void **state)
{
    auto_pull EnginePullState pull = {0};
    EnginePullProgress progress;

    feed_text(&pull,
              "{\"status\":\"Pulling from a/b\",\"id\":\"stable\"}"
              "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"aaaaaaaaaaaa\"}"
              "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"bbbbbbbbbbbb\"}"
              "{\"status\":\"Already exists\",\"progressDetail\":{},\"id\":\"cccccccccccc\"}"
              "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":10,\"total\":100},"
              "\"id\":\"aaaaaaaaaaaa\"}"
              "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":50,\"total\":50},"
              "\"id\":\"bbbbbbbbbbbb\"}");
    engine_pull_state_progress(&pull, &progress);
    assert_int_equal(progress.layers, 3);
    assert_int_equal(progress.layers_done, 1);
    assert_int_equal(progress.current_bytes, 60);
    assert_int_equal(progress.total_bytes, 150);
    assert_false(progress.extracting);

    feed_text(&pull, "{\"status\":\"Download complete\",\"id\":\"aaaaaaaaaaaa\"}"
                     "{\"status\":\"Extracting\",\"progressDetail\":{\"current\":1,\"total\":100},"
                     "\"id\":\"bbbbbbbbbbbb\"}");
    engine_pull_state_progress(&pull, &progress);
    assert_int_equal(progress.current_bytes, 150);
    assert_true(progress.extracting);
}

/* ---- Logs ----------------------------------------------------------------------------------- */

static void logs_lose_their_frames_and_keep_their_lines(void **state)
{
    auto_buf Buf text = BUF_INIT(1 << 20);
    auto_free char *log = NULL, *plain = NULL, *cut = NULL, *binary = NULL;
    static const char framed[] =
        "\1\0\0\0\0\0\0\4one\n\2\0\0\0\0\0\0\6two\r\n\n\1\0\0\0\0\0\1\0cut";

    read_fixture("container-logs.bin", &text);
    log = engine_log_text(text.data, text.size, 65536);
    assert_non_null(log);
    assert_true(str_is_utf8(log, strlen(log)));
    assert_null(strstr(log, "\\x00"));

    plain = engine_log_text("a terminal\r\nwrites so", 21, 65536);
    assert_string_equal(plain, "a terminal\nwrites so");
    cut = engine_log_text(framed, sizeof(framed) - 1, 65536);
    assert_string_equal(cut, "one\ntwo\n\ncut");
    binary = engine_log_text("\xff\x1b[2Jx", 6, 65536);
    assert_string_equal(binary, "\\xff\\x1b[2Jx");
}

static void of_long_logs_the_end_is_kept(void **state)
{
    auto_free char *text = engine_log_text("0123456789\nlast", 15, 6);

    assert_string_equal(text, "9\nlast");
}

/* ---- Replies -------------------------------------------------------------------------------- */

static void recorded_containers_are_read(void **state)
{
    auto_error Error err = {0};
    auto_doc EngineDoc running = {0}, stopped = {0}, old = {0};
    const EngineContainer *c;
    auto_free char *exit = NULL;

    assert_ok(
        engine_parse_container(json_fixture("watchtower-container_running.json"), &running, &err),
        &err);
    c = running.containers;
    assert_int_equal(c->state, ENGINE_STATE_RUNNING);
    assert_true(engine_container_is_running(c));
    assert_int_equal(strlen(c->id), 64);
    assert_int_not_equal(c->name[0], '/');
    assert_true(c->started_usec > 0 && c->created_usec > 0);
    assert_int_equal(c->n_labels, 0);
    assert_null(engine_container_label(c, "io.mervis.container"));
    assert_string_equal(c->error, "");

    assert_ok(
        engine_parse_container(json_fixture("watchtower-container_stopped.json"), &stopped, &err),
        &err);
    c = stopped.containers;
    assert_int_equal(c->state, ENGINE_STATE_EXITED);
    assert_false(engine_container_is_running(c));
    assert_string_equal(c->address, "");
    exit = engine_container_explain_exit(c);
    assert_non_null(exit);

    assert_ok(engine_parse_container(json_fixture("modern-inspect-1.24.json"), &old, &err), &err);
    assert_non_null(old.containers[0].network);
}

static void recorded_lists_are_read(void **state)
{
    auto_error Error err = {0};
    auto_doc EngineDoc containers = {0}, images = {0}, none = {0};

    assert_ok(
        engine_parse_container_list(json_fixture("watchtower-containers.json"), &containers, &err),
        &err);
    assert_true(containers.n_containers > 1);
    for (size_t i = 0; i < containers.n_containers; i++) {
        assert_int_equal(strlen(containers.containers[i].id), 64);
        assert_int_not_equal(containers.containers[i].name[0], '/');
        assert_int_not_equal(containers.containers[i].state, ENGINE_STATE_UNKNOWN);
    }
    assert_ok(engine_parse_image_list(json_fixture("images-json.json"), &images, &err), &err);
    assert_true(images.n_images > 5);
    for (size_t i = 0; i < images.n_images; i++)
        STRV_FOREACH (tag, (char **)(uintptr_t)images.images[i].repo_tags)
            assert_null(strstr(*tag, "<none>"));
    assert_ok(engine_parse_image_list(json_null(), &none, &err), &err);
    assert_int_equal(none.n_images, 0);
}

static void recorded_images_and_info_are_read(void **state)
{
    auto_error Error err = {0};
    auto_doc EngineDoc image = {0}, info = {0};

    assert_ok(engine_parse_image(json_fixture("watchtower-image_default.json"), &image, &err),
              &err);
    assert_string_equal(image.images[0].platform.os, "linux");
    assert_string_equal(image.images[0].platform.architecture, "amd64");
    assert_true(startswith(image.images[0].id, "sha256:") != NULL);
    assert_non_null(image.images[0].env[0]);

    assert_ok(engine_parse_info(json_fixture("telegraf-info.json"), &info, &err), &err);
    assert_string_equal(info.info.root_dir, "/var/lib/docker");
    assert_false(info.info.uses_containerd_store);
    assert_true(info.info.memory_bytes > 0);
}

static void another_shape_is_corrupt(void **state)
{
    auto_doc EngineDoc doc = {0};

    assert_int_equal(engine_parse_info(json_object(), &doc, NULL), -EBADMSG);
    assert_int_equal(engine_parse_container(json_array(), &doc, NULL), -EBADMSG);
    assert_int_equal(engine_parse_container(json_pack("{s:s}", "Id", "x"), &doc, NULL), -EBADMSG);
    assert_int_equal(engine_parse_container_list(json_object(), &doc, NULL), -EBADMSG);
    assert_int_equal(engine_parse_container_list(json_pack("[{}]"), &doc, NULL), -EBADMSG);
    assert_int_equal(engine_parse_image_list(json_pack("[n]"), &doc, NULL), -EBADMSG);
    assert_int_equal(engine_parse_image(json_string("x"), &doc, NULL), -EBADMSG);
}

static void a_crash_loop_is_restarting_and_not_running(void **state)
{
    auto_doc EngineDoc doc = {0};
    json_t *value = json_pack("{s:s, s:s, s:i, s:{s:s, s:b, s:b, s:i}}", "Id", "abc", "Name",
                              "/web", "RestartCount", 3, "State", "Status", "running", "Running", 1,
                              "Restarting", 1, "ExitCode", 1);

    assert_int_equal(engine_parse_container(value, &doc, NULL), 0);
    assert_int_equal(doc.containers[0].state, ENGINE_STATE_RESTARTING);
    assert_false(engine_container_is_running(doc.containers));
    assert_int_equal(doc.containers[0].restart_count, 3);
}

static void every_way_to_die_has_a_sentence(void **state)
{
    static const struct {
        EngineContainer container;
        const char *text;
    } cases[] = {
        {{.oom_killed = true, .memory_bytes = 600 << 20, .exit_code = 137, .error = ""},
         "memory limit of 600"},
        {{.oom_killed = true, .exit_code = 137, .error = ""}, "the machine ran out of memory"},
        {{.exit_code = 137, .error = ""}, "SIGKILL"},
        {{.exit_code = 139, .error = ""}, "SIGSEGV"},
        {{.exit_code = 127, .error = "exec: no such file"}, "could not be started: exec"},
        {{.exit_code = 127, .error = ""}, "its command was not found (exit status 127)"},
        {{.exit_code = 3, .error = ""}, "it exited with status 3"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_free char *text = engine_container_explain_exit(&cases[i].container);

        assert_contains(text, cases[i].text);
    }
}

/* ---- Events and words ----------------------------------------------------------------------- */

static EngineEvent event_of(const char *text, EngineDoc *doc)
{
    EngineEvent event = {0};
    auto_error Error err = {0};

    assert_ok(json_parse(text, strlen(text), "event", &doc->doc, &err), &err);
    assert_int_equal(engine_event_parse(doc->doc, doc, &event), 1);
    return event;
}

static void events_of_both_engines_are_read(void **state)
{
    auto_doc EngineDoc die = {0}, healthy = {0}, podman = {0}, later = {0}, image = {0};
    EngineEvent event;

    event = event_of("{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"abc\","
                     "\"Attributes\":{\"name\":\"web\",\"exitCode\":\"137\"}},\"time\":1,"
                     "\"timeNano\":1700000000123456789}",
                     &die);
    assert_int_equal(event.kind, ENGINE_EVENT_DIE);
    assert_int_equal(event.exit_code, 137);
    assert_string_equal(event.name, "web");
    assert_true(event.time_nsec == UINT64_C(1700000000123456789));

    event = event_of("{\"Type\":\"container\",\"Action\":\"health_status: unhealthy\",\"Actor\":"
                     "{\"ID\":\"abc\",\"Attributes\":null},\"time\":7}",
                     &healthy);
    assert_int_equal(event.kind, ENGINE_EVENT_UNHEALTHY);
    assert_int_equal(event.exit_code, -1);
    assert_true(event.time_nsec == UINT64_C(7000000000));

    event = event_of("{\"Type\":\"container\",\"Action\":\"health_status\",\"HealthStatus\":"
                     "\"healthy\",\"Actor\":{\"ID\":\"abc\"}}",
                     &podman);
    assert_int_equal(event.kind, ENGINE_EVENT_HEALTHY);
    event = event_of("{\"Type\":\"container\",\"Action\":\"hologram\",\"Actor\":{\"ID\":\"abc\"}}",
                     &later);
    assert_int_equal(event.kind, ENGINE_EVENT_OTHER);

    image.doc =
        json_pack("{s:s, s:s, s:{s:s}}", "Type", "image", "Action", "pull", "Actor", "ID", "nginx");
    assert_int_equal(engine_event_parse(image.doc, &image, &event), 0);
}

static void words_become_codes(void **state)
{
    static const struct {
        const char *text;
        int code;
        ErrorKind kind;
    } cases[] = {
        {"write /x: no space left on device", -ENOSPC, ERROR_TEMPORARY},
        {"Bind for 0.0.0.0:8080 failed: port is already allocated", -EADDRINUSE, ERROR_INVALID},
        {"standard_init_linux.go:228: exec user process caused: exec format error", -ENOEXEC,
         ERROR_INVALID},
        {"exec: \"x\": executable file not found in $PATH: unknown", -ENOEXEC, ERROR_INVALID},
        {"no matching manifest for linux/amd64 in the manifest list entries", -ENOEXEC,
         ERROR_INVALID},
        {"manifest unknown: manifest unknown", -ENOENT, ERROR_INVALID},
        {"pull access denied for x, repository does not exist or may require 'docker login'",
         -EACCES, ERROR_DENIED},
        {"toomanyrequests: slow down", -EBUSY, ERROR_THROTTLED},
        {"Get \"https://x/v2/\": x509: certificate signed by unknown authority", -EPROTO,
         ERROR_INVALID},
        {"something else altogether", -EIO, ERROR_TEMPORARY},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_error Error err = {0};

        assert_int_equal(engine_explain_text(cases[i].text, -EIO, &err), cases[i].code);
        assert_int_equal(err.kind, cases[i].kind);
        assert_string_equal(err.message, cases[i].text);
    }
}

TEST_MAIN(cmocka_unit_test(objects_are_found_wherever_the_stream_is_cut),
          cmocka_unit_test(a_stream_that_ends_within_an_object_is_not_whole),
          cmocka_unit_test(what_is_no_object_ends_the_stream),
          cmocka_unit_test(an_object_has_a_largest_size),
          cmocka_unit_test(recorded_pulls_end_as_they_did),
          cmocka_unit_test(the_detail_of_an_error_comes_before_its_deprecated_form),
          cmocka_unit_test(progress_adds_up_over_layers),
          cmocka_unit_test(logs_lose_their_frames_and_keep_their_lines),
          cmocka_unit_test(of_long_logs_the_end_is_kept),
          cmocka_unit_test(recorded_containers_are_read), cmocka_unit_test(recorded_lists_are_read),
          cmocka_unit_test(recorded_images_and_info_are_read),
          cmocka_unit_test(another_shape_is_corrupt),
          cmocka_unit_test(a_crash_loop_is_restarting_and_not_running),
          cmocka_unit_test(every_way_to_die_has_a_sentence),
          cmocka_unit_test(events_of_both_engines_are_read), cmocka_unit_test(words_become_codes))
