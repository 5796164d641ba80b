/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/agentd/state.h"
#include "agent/io/json.h"
#include "agent/resource/release.h"

#define DIGEST_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DIGEST_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static const char plan_text[] =
    "{\"version\": 1, \"secrets\": [{\"name\": \"key\", \"secret\": \"KEY\"}], \"containers\": ["
    "{\"name\": \"web\", \"image\": \"r.example/web:stable\", \"env\": {\"K\": {\"secret\": "
    "\"key\"}}},"
    "{\"name\": \"other\", \"image\": \"r.example/web:other\", \"env\": {\"K\": {\"secret\": "
    "\"key\"}}, \"update\": {\"check\": \"5m\"}},"
    "{\"name\": \"third\", \"image\": \"r.example/web:stable\", \"env\": {\"K\": {\"secret\": "
    "\"key\"}}, \"user\": \"1000\"}]}";

typedef struct Fixture {
    char *dir;
    State state;
    Plan *plan;
} Fixture;

static int setup(void **state)
{
    auto_field_errors FieldErrors errors = {0};
    Fixture *f = calloc(1, sizeof(*f));
    auto_error Error err = {0};

    assert_non_null(f);
    f->dir = test_dir_new();
    assert_ok(state_open(f->dir, f->dir, &f->state, &err), &err);
    assert_true(plan_parse(plan_text, strlen(plan_text), &f->plan, &errors) >= 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    plan_free(f->plan);
    state_done(&f->state);
    test_dir_done(&f->dir);
    free(f);
    return 0;
}

static Release *make(Fixture *f, const char *container, const char *digest, const char *version)
{
    json_auto_t *versions = json_pack("{s:s}", "key", version);
    auto_error Error err = {0};
    Release *release = NULL;

    assert_ok(release_new(f->plan, plan_container(f->plan, container), 1, digest, versions,
                          &release, &err),
              &err);
    return release;
}

/* Stored, and proved where it should be; returns its id in `ret`. */
static void store(Fixture *f, const char *digest, const char *version, bool proved,
                  char ret[RELEASE_ID_SIZE + 1])
{
    auto_(release_freep) Release *release = make(f, "web", digest, version);
    auto_error Error err = {0};

    assert_ok(release_store(f->state.db, release, &err), &err);
    if (proved)
        assert_ok(release_prove(f->state.db, "web", release->id, &err), &err);
    (void)snprintf(ret, RELEASE_ID_SIZE + 1, "%s", release->id);
}

static bool is_known(Fixture *f, const char *id)
{
    auto_(release_freep) Release *release = NULL;

    return release_load(f->state.db, "web", id, &release, NULL) > 0;
}

static void a_release_is_named_by_digest_spec_and_secret_versions_and_by_nothing_else(void **state)
{
    Fixture *f = *state;
    auto_(release_freep) Release *one = make(f, "web", DIGEST_A, "1");
    auto_(release_freep) Release *same = make(f, "web", DIGEST_A, "1");
    auto_(release_freep) Release *digest = make(f, "web", DIGEST_B, "1");
    auto_(release_freep) Release *secret = make(f, "web", DIGEST_A, "2");
    auto_(release_freep) Release *pace = make(f, "other", DIGEST_A, "1");
    auto_(release_freep) Release *spec = make(f, "third", DIGEST_A, "1");

    assert_int_equal(strlen(one->id), RELEASE_ID_SIZE);
    assert_string_equal(one->id, same->id);
    assert_string_equal(one->id, pace->id); /* tag and update policy shape no container */
    assert_string_not_equal(one->id, digest->id);
    assert_string_not_equal(one->id, secret->id);
    assert_string_not_equal(one->id, spec->id);
}

static void what_was_learnt_of_a_release_outlives_a_second_try(void **state)
{
    Fixture *f = *state;
    char id[RELEASE_ID_SIZE + 1];
    auto_(release_freep) Release *release = NULL;
    auto_error Error err = {0};

    store(f, DIGEST_A, "1", true, id);
    assert_ok(release_quarantine(f->state.db, "web", id, true, "it exited with status 3", &err),
              &err);
    store(f, DIGEST_A, "1", false, id);
    assert_int_equal(release_load(f->state.db, "web", id, &release, &err), 1);
    assert_true(release->proved_at > 0 && release->quarantined_at > 0 && release->digest_is_bad);
    assert_string_equal(release->reason, "it exited with status 3");
    assert_string_equal(json_str(release->secrets, "key"), "1");
    assert_int_equal(release_unquarantine(f->state.db, "web", &err), 1);
    assert_int_equal(release_unquarantine(f->state.db, "web", &err), 0);
}

static void the_way_back_leads_to_the_last_proved_one_that_is_not_quarantined(void **state)
{
    Fixture *f = *state;
    char a[RELEASE_ID_SIZE + 1], b[RELEASE_ID_SIZE + 1], c[RELEASE_ID_SIZE + 1];
    auto_(release_freep) Release *previous = NULL, *before = NULL, *none = NULL;
    auto_error Error err = {0};

    store(f, DIGEST_A, "1", true, a);
    store(f, DIGEST_B, "1", true, b);
    store(f, DIGEST_B, "2", false, c);
    assert_int_equal(release_previous(f->state.db, "web", c, &previous, &err), 1);
    assert_string_equal(previous->id, b); /* c itself was never proved */
    assert_ok(release_quarantine(f->state.db, "web", b, false, "by hand", &err), &err);
    assert_int_equal(release_previous(f->state.db, "web", c, &before, &err), 1);
    assert_string_equal(before->id, a);
    assert_int_equal(release_previous(f->state.db, "web", a, &none, &err), 0);
}

static void trimming_keeps_what_a_rollback_or_a_refusal_needs(void **state)
{
    Fixture *f = *state;
    char first[RELEASE_ID_SIZE + 1], bad[RELEASE_ID_SIZE + 1], untried[RELEASE_ID_SIZE + 1],
        previous[RELEASE_ID_SIZE + 1], current[RELEASE_ID_SIZE + 1];
    auto_error Error err = {0};

    store(f, DIGEST_A, "1", true, first);
    store(f, DIGEST_A, "2", false, bad);
    store(f, DIGEST_A, "3", false, untried);
    store(f, DIGEST_A, "4", true, previous);
    store(f, DIGEST_A, "5", true, current);
    assert_ok(release_quarantine(f->state.db, "web", bad, false, "bad", &err), &err);
    assert_ok(release_trim(f->state.db, "web", current, 2, &err), &err);
    assert_true(is_known(f, current) && is_known(f, previous) && is_known(f, bad));
    assert_false(is_known(f, first) || is_known(f, untried));
}

static void trimming_keeps_the_former_digest_however_often_a_secret_is_rotated(void **state)
{
    Fixture *f = *state;
    char first[RELEASE_ID_SIZE + 1], former[RELEASE_ID_SIZE + 1], current[RELEASE_ID_SIZE + 1];
    auto_error Error err = {0};

    store(f, DIGEST_A, "1", true, first);
    store(f, DIGEST_A, "2", true, former);
    for (int i = 3; i < 8; i++) {
        char version[16];

        (void)snprintf(version, sizeof(version), "%d", i);
        store(f, DIGEST_B, version, true, current);
        assert_ok(release_trim(f->state.db, "web", current, 2, &err), &err);
    }
    assert_true(is_known(f, former) && is_known(f, current));
    assert_false(is_known(f, first));
    assert_ok(release_trim(f->state.db, "web", current, 1, &err), &err);
    assert_false(is_known(f, former));
}

static void quarantines_do_not_pile_up(void **state)
{
    Fixture *f = *state;
    char id[RELEASE_ID_SIZE + 1], version[16];
    json_auto_t *list = NULL;
    auto_error Error err = {0};
    int64_t n = 0;

    for (int i = 0; i < 40; i++) {
        (void)snprintf(version, sizeof(version), "%d", i);
        store(f, DIGEST_A, version, false, id);
        assert_ok(release_quarantine(f->state.db, "web", id, i % 2, "bad", &err), &err);
    }
    assert_ok(release_trim(f->state.db, "web", "none", 2, &err), &err);
    assert_int_equal(db_query_i64(f->state.db, "SELECT count(*) FROM release", &n, &err, ""), 1);
    assert_int_equal(n, 20);
    assert_ok(release_list_quarantined(f->state.db, "web", &list, &err), &err);
    assert_string_equal(json_str(json_array_get(list, 0), "release"), id);
    assert_true(json_is_true(json_object_get(json_array_get(list, 0), "digest_is_bad")));
    assert_true(json_is_false(json_object_get(json_array_get(list, 1), "digest_is_bad")));
}

static void a_slot_is_read_back_as_it_was(void **state)
{
    Fixture *f = *state;
    auto_(slot_done) Slot empty = {0}, back = {0};
    Slot slot = {.state = ROLLOUT_ROLLING_BACK,
                 .current = (char *)"a",
                 .next = (char *)"b",
                 .boot_id = (char *)"boot",
                 .state_at = 1,
                 .committed_at = 2,
                 .stopped_at = 3,
                 .downtime_usec = UINT64_MAX,
                 .deaths = 4,
                 .exit_status = -1,
                 .run_again = true};
    auto_error Error err = {0};

    assert_int_equal(slot_load(f->state.db, "web", &empty, &err), 0);
    assert_int_equal(empty.state, ROLLOUT_NEW);
    assert_true(empty.downtime_usec == UINT64_MAX && empty.exit_status == -1);
    assert_ok(slot_save(f->state.db, "web", &slot, &err), &err);
    assert_int_equal(slot_load(f->state.db, "web", &back, &err), 1);
    assert_int_equal(back.state, ROLLOUT_ROLLING_BACK);
    assert_string_equal(back.current, "a");
    assert_string_equal(back.next, "b");
    assert_null(back.previous);
    assert_string_equal(back.boot_id, "boot");
    assert_true(back.state_at == 1 && back.committed_at == 2 && back.stopped_at == 3);
    assert_true(back.downtime_usec == UINT64_MAX && back.deaths == 4 && back.run_again);
    assert_int_equal(back.exit_status, -1);
}

TEST_MAIN(cmocka_unit_test_setup_teardown(
              a_release_is_named_by_digest_spec_and_secret_versions_and_by_nothing_else, setup,
              teardown),
          cmocka_unit_test_setup_teardown(what_was_learnt_of_a_release_outlives_a_second_try, setup,
                                          teardown),
          cmocka_unit_test_setup_teardown(
              the_way_back_leads_to_the_last_proved_one_that_is_not_quarantined, setup, teardown),
          cmocka_unit_test_setup_teardown(
              trimming_keeps_the_former_digest_however_often_a_secret_is_rotated, setup, teardown),
          cmocka_unit_test_setup_teardown(trimming_keeps_what_a_rollback_or_a_refusal_needs, setup,
                                          teardown),
          cmocka_unit_test_setup_teardown(quarantines_do_not_pile_up, setup, teardown),
          cmocka_unit_test_setup_teardown(a_slot_is_read_back_as_it_was, setup, teardown))
