/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/http-fixture.h"

#include <errno.h>
#include <string.h>

#include "agent/io/db.h"
#include "agent/io/json.h"
#include "agent/resource/images-internal.h"
#include "agent/resource/release.h"

#define REPO "host.example/p/app"

/* ---- A scripted engine with images, and state.db ----------------------------------------------
 */

typedef struct Machine {
    Fixture f;
    char *dir;
    Engine *engine;
    Db *db;
    Plan plan;
    PlanContainer container;
    ResourceContext context;

    char *images; /* what /images/json answers */
    int delete_status;
    const char *delete_body;
    bool goes_away; /* instead of an answer to a removal */
    unsigned n_deletes;
    char *deleted; /* the targets, in order */
} Machine;

static void answer(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    Machine *m = userdata;

    if (streq(request->target, "/_ping")) {
        reply->headers = "Api-Version: 1.41\r\n";
        reply->body = "OK";
    } else if (streq(request->method, "DELETE")) {
        char *before = m->deleted;

        m->deleted = str_printf("%s%s%s", before ? before : "", before ? " " : "",
                                startswith(request->target, "/v1.41/images/"));
        free(before);
        m->n_deletes++;
        reply->status = m->delete_status;
        reply->body = m->delete_body;
        if (m->goes_away)
            reply->mode = REPLY_EARLY;
    } else if (strstr(request->target, "/info")) {
        reply->body = http_server_keep(server, str_printf("{\"DockerRootDir\":\"%s\"}", m->dir));
    } else if (strstr(request->target, "/containers/json")) {
        reply->body = "[]";
    } else {
        reply->body = m->images;
    }
}

static int machine_setup(void **state)
{
    Machine *m = calloc(1, sizeof(*m));
    auto_error Error err = {0};
    auto_free char *socket = NULL, *path = NULL;
    const char *const migrations[] = {release_schema, images_schema};

    assert_non_null(m);
    m->dir = test_dir_new();
    socket = str_printf("%s/engine.sock", m->dir);
    path = str_printf("%s/state.db", m->dir);
    m->delete_status = 200;
    m->delete_body = "[]";
    assert_ok(loop_new(&m->f.event, &err), &err);
    assert_ok(http_client_new(m->f.event, "mervis-test/1", &m->f.client, &err), &err);
    m->f.server = http_server_new(m->f.event, socket);
    http_server_handle(m->f.server, answer, m);
    assert_ok(engine_new(m->f.client, m->f.event, socket, &m->engine, &err), &err);
    assert_ok(db_open(path, migrations, ELEMENTS(migrations), 0, &m->db, &err), &err);
    m->container.image = (char *)(uintptr_t)REPO ":stable";
    m->plan.containers = (FieldArray){&m->container, 1};
    m->plan.images = (PlanImages){.keep_previous = 1, .disk_high = 85, .disk_low = 80};
    m->context =
        (ResourceContext){.event = m->f.event, .engine = m->engine, .db = m->db, .plan = &m->plan};
    *state = m;
    return 0;
}

static int machine_teardown(void **state)
{
    Machine *m = *state;

    (void)engine_free(m->engine);
    (void)http_client_free(m->f.client);
    (void)http_server_free(m->f.server);
    (void)db_close(m->db);
    (void)sd_event_unref(m->f.event);
    test_dir_done(&m->dir);
    free(m->images);
    free(m->deleted);
    free(m);
    return 0;
}

#define MACHINE_TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

typedef struct Ended {
    bool done;
    json_t *report;
    int code;
    ImagesRun *run;
} Ended;

static void ended_done(Ended *ended)
{
    (void)images_run_free(ended->run);
    json_decref(ended->report);
}

#define auto_ended auto_(ended_done)

static void on_run(ImagesRun *run, const json_t *report, const Error *err, void *userdata)
{
    Ended *ended = userdata;

    assert_false(ended->done);
    ended->done = true;
    ended->report = json_deep_copy(report);
    ended->code = err ? err->code : 0;
    ended->run = images_run_free(ended->run);
}

static void run_of(Machine *m, ImagesRunSpec spec, Ended *ended)
{
    auto_error Error err = {0};

    assert_ok(images_run_start(&m->context, &spec, on_run, ended, &ended->run, &err), &err);
    assert_false(ended->done);
    loop_run_until(m->f.event, &ended->done, 10 * SECOND);
}

static void set_images(Machine *m, const char *text)
{
    free(m->images);
    m->images = strdup(text);
}

static uint64_t number(const Ended *ended, const char *key)
{
    uint64_t value = UINT64_MAX;

    assert_int_equal(json_u64(ended->report, key, &value), 0);
    return value;
}

static const char *row(const Ended *ended, size_t i, const char *key)
{
    return json_str(json_array_get(json_object_get(ended->report, "images"), i), key);
}

#define IMAGE(id, names)                                                                           \
    "{\"Id\":\"" id "\",\"RepoTags\":[],\"RepoDigests\":[" names "],\"Created\":1,\"Size\":7}"

/* ---- Runs ----------------------------------------------------------------------------------- */

static void a_dry_run_says_what_a_run_does(void **state)
{
    Machine *m = *state;
    auto_ended Ended dry = {0};
    auto_ended Ended wet = {0};

    set_images(m, "[" IMAGE("sha256:b", "\"" REPO "@sha256:2\"") "," IMAGE(
                      "sha256:f", "\"other@sha256:3\"") "," IMAGE("sha256:a", "") "]");
    run_of(m, (ImagesRunSpec){.dry_run = true}, &dry);
    assert_int_equal(dry.code, 0);
    assert_int_equal(m->n_deletes, 0);
    assert_int_equal(number(&dry, "removed"), 0);
    assert_string_equal(row(&dry, 0, "id"), "sha256:a");
    assert_string_equal(row(&dry, 0, "action"), "remove");
    assert_string_equal(row(&dry, 1, "id"), "sha256:b");
    assert_string_equal(row(&dry, 2, "id"), "sha256:f");
    assert_string_equal(row(&dry, 2, "why"), "foreign");
    assert_string_equal(json_str(dry.report, "disk"), m->dir);

    run_of(m, (ImagesRunSpec){0}, &wet);
    assert_int_equal(wet.code, 0);
    assert_string_equal(m->deleted, "sha256:a sha256:b");
    assert_int_equal(number(&wet, "removed"), 2);
    assert_true(number(&wet, "disk_used_percent") <= 100);
}

static void what_is_in_use_after_all_is_passed_over(void **state)
{
    Machine *m = *state;
    auto_ended Ended ended = {0};

    set_images(m, "[" IMAGE("sha256:a", "") "," IMAGE("sha256:b", "") "]");
    m->delete_status = 409;
    m->delete_body = "{\"message\":\"conflict: image is being used by stopped container x\"}";
    run_of(m, (ImagesRunSpec){0}, &ended);
    assert_int_equal(ended.code, 0);
    assert_int_equal(m->n_deletes, 2);
    assert_int_equal(number(&ended, "removed"), 0);
    assert_contains(row(&ended, 0, "message"), "stopped container x");
}

static void what_is_gone_already_is_well(void **state)
{
    Machine *m = *state;
    auto_ended Ended ended = {0};

    set_images(m, "[" IMAGE("sha256:a", "") "]");
    m->delete_status = 404;
    m->delete_body = "{\"message\":\"No such image\"}";
    run_of(m, (ImagesRunSpec){0}, &ended);
    assert_int_equal(ended.code, 0);
    assert_int_equal(number(&ended, "removed"), 1);
}

static void an_image_that_cannot_be_removed_keeps_none_of_the_others(void **state)
{
    Machine *m = *state;
    auto_ended Ended ended = {0};

    set_images(m, "[" IMAGE("sha256:a", "") "," IMAGE("sha256:b", "") "]");
    m->delete_status = 500;
    m->delete_body = "{\"message\":\"layer store broken\"}";
    run_of(m, (ImagesRunSpec){0}, &ended);
    assert_int_equal(ended.code, 0);
    assert_int_equal(m->n_deletes, 2);
    assert_int_equal(number(&ended, "removed"), 0);
    assert_contains(row(&ended, 0, "message"), "layer store broken");
    assert_contains(row(&ended, 1, "message"), "layer store broken");
}

static void an_engine_that_goes_away_ends_the_run(void **state)
{
    Machine *m = *state;
    auto_ended Ended ended = {0};

    set_images(m, "[" IMAGE("sha256:a", "") "," IMAGE("sha256:b", "") "]");
    m->goes_away = true;
    run_of(m, (ImagesRunSpec){0}, &ended);
    assert_int_equal(ended.code, -ENOTCONN);
    assert_null(strstr(m->deleted, "sha256:b"));
    assert_null(row(&ended, 1, "message"));
}

static void a_run_for_the_disk_ends_when_it_is_low_enough(void **state)
{
    Machine *m = *state;
    auto_ended Ended low = {0};
    auto_ended Ended high = {0};

    set_images(m, "[" IMAGE("sha256:a", "") "," IMAGE("sha256:b", "") "]");
    m->plan.images.disk_low = 100; /* every disk is */
    run_of(m, (ImagesRunSpec){.for_disk = true}, &low);
    assert_int_equal(m->n_deletes, 0);
    assert_string_equal(row(&low, 0, "action"), "remove");

    m->plan.images.disk_low = 0; /* none is */
    run_of(m, (ImagesRunSpec){.for_disk = true}, &high);
    assert_int_equal(m->n_deletes, 2);
}

static void a_run_that_is_freed_removes_no_more(void **state)
{
    Machine *m = *state;
    auto_ended Ended ended = {0};
    auto_error Error err = {0};
    const ImagesRunSpec spec = {0};

    set_images(m, "[" IMAGE("sha256:a", "") "]");
    assert_ok(images_run_start(&m->context, &spec, on_run, &ended, &ended.run, &err), &err);
    ended.run = images_run_free(ended.run);
    loop_run_for(m->f.event, 100 * MSEC);
    assert_false(ended.done);
    assert_int_equal(m->n_deletes, 0);
}

/* ---- state.db ------------------------------------------------------------------------------- */

static CleanupFacts facts_of(const EngineImage *images, size_t n, uint64_t now)
{
    return (CleanupFacts){.images = images, .n_images = n, .now = now};
}

static void images_age_from_when_they_came_and_are_forgotten_when_gone(void **state)
{
    Machine *m = *state;
    const EngineImage both[] = {{.id = "a"}, {.id = "b"}};
    const EngineContainer user = {.image_id = "a", .state = ENGINE_STATE_RUNNING};
    auto_(images_state_done) ImagesState known = {0};
    auto_error Error err = {0};
    CleanupFacts facts = facts_of(both, 2, 100);

    assert_ok(images_state_observe(m->db, &facts, &err), &err);
    facts.now = 200;
    facts.containers = &user;
    facts.n_containers = 1;
    assert_ok(images_state_observe(m->db, &facts, &err), &err);
    facts = facts_of(both, 1, 300);
    assert_ok(images_state_observe(m->db, &facts, &err), &err);
    facts = facts_of(both, 2, 400);
    assert_ok(images_state_observe(m->db, &facts, &err), &err);

    assert_ok(images_state_load(m->db, &known, &err), &err);
    assert_int_equal(known.n_seen, 2);
    assert_int_equal(known.seen[0].first_seen_at, 100);
    assert_int_equal(known.seen[0].last_used_at, 200);
    assert_int_equal(known.seen[1].first_seen_at, 400); /* gone, and came again */
    assert_int_equal(known.seen[1].last_used_at, 0);
}

static void repositories_are_remembered_when_the_plan_forgets_them(void **state)
{
    Machine *m = *state;
    auto_(images_state_done) ImagesState known = {0};
    auto_error Error err = {0};

    assert_ok(images_state_name_repositories(m->db, &m->plan, 1, &err), &err);
    m->container.image = (char *)(uintptr_t) "nginx";
    assert_ok(images_state_name_repositories(m->db, &m->plan, 2, &err), &err);
    assert_ok(images_state_load(m->db, &known, &err), &err);
    assert_int_equal(strv_length(known.repositories), 2);
    assert_string_equal(known.repositories[0], "docker.io/library/nginx");
    assert_string_equal(known.repositories[1], REPO);
}

static void store_release(Machine *m, const char *id, const char *digest)
{
    auto_error Error err = {0};
    const Release release = {.container = (char *)(uintptr_t) "web",
                             .id = (char *)(uintptr_t)id,
                             .image = (char *)(uintptr_t)REPO ":stable",
                             .digest = (char *)(uintptr_t)digest,
                             .secrets = json_object(),
                             .generation = 1,
                             .created_at = 1};

    assert_ok(release_store(m->db, &release, &err), &err);
    json_decref(release.secrets);
}

static void releases_and_slots_are_joined(void **state)
{
    Machine *m = *state;
    auto_(images_state_done) ImagesState known = {0};
    auto_error Error err = {0};
    auto_free char *before = images_settled_signature(m->db), *after = NULL;
    const Slot slot = {.state = ROLLOUT_SETTLED,
                       .current = (char *)(uintptr_t) "r1",
                       .next = (char *)(uintptr_t) "r2",
                       .previous = (char *)(uintptr_t) "r9"};

    store_release(m, "r1", "sha256:1");
    store_release(m, "r2", "sha256:2");
    assert_ok(release_prove(m->db, "web", "r1", &err), &err);
    assert_ok(release_quarantine(m->db, "web", "r2", true, "bad", &err), &err);
    assert_ok(slot_save(m->db, "web", &slot, &err), &err);
    assert_ok(images_state_load(m->db, &known, &err), &err);
    assert_int_equal(known.n_releases, 3);
    assert_true(known.releases[0].is_current && known.releases[0].proved_at > 0);
    assert_true(known.releases[1].is_next && known.releases[1].is_quarantined);
    assert_true(known.releases[2].is_previous);
    assert_string_equal(known.releases[2].id, "r9"); /* adopted: no row of its own */
    assert_string_equal(known.releases[2].digest, "");

    after = images_settled_signature(m->db);
    assert_string_equal(before, "");
    assert_string_equal(after, "web=r1");
}

static void sums_last(void **state)
{
    Machine *m = *state;
    ImagesTotals totals = {0};
    auto_error Error err = {0};

    assert_int_equal(images_totals_load(m->db, &totals, &err), 0);
    assert_ok(images_totals_save(m->db, &(ImagesTotals){3, 1 << 20, 77}, &err), &err);
    assert_ok(images_totals_save(m->db, &(ImagesTotals){4, 2 << 20, 78}, &err), &err);
    assert_int_equal(images_totals_load(m->db, &totals, &err), 1);
    assert_int_equal(totals.removed, 4);
    assert_int_equal(totals.freed_bytes, 2 << 20);
    assert_int_equal(totals.last_run_at, 78);
}

TEST_MAIN(MACHINE_TEST(a_dry_run_says_what_a_run_does),
          MACHINE_TEST(what_is_in_use_after_all_is_passed_over),
          MACHINE_TEST(what_is_gone_already_is_well),
          MACHINE_TEST(an_image_that_cannot_be_removed_keeps_none_of_the_others),
          MACHINE_TEST(an_engine_that_goes_away_ends_the_run),
          MACHINE_TEST(a_run_for_the_disk_ends_when_it_is_low_enough),
          MACHINE_TEST(a_run_that_is_freed_removes_no_more),
          MACHINE_TEST(images_age_from_when_they_came_and_are_forgotten_when_gone),
          MACHINE_TEST(repositories_are_remembered_when_the_plan_forgets_them),
          MACHINE_TEST(releases_and_slots_are_joined), MACHINE_TEST(sums_last))
