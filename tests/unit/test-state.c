/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/agentd/state.h"
#include "agent/base/file.h"

typedef struct Fixture {
    char *dir, *state_dir, *runtime_dir, *file;
    State state;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->dir = test_dir_new();
    f->state_dir = path_join(f->dir, "state");
    f->runtime_dir = path_join(f->dir, "run");
    f->file = path_join(f->state_dir, STATE_FILE_NAME);
    assert_non_null(f->file);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    state_done(&f->state);
    test_dir_done(&f->dir);
    free(f->state_dir);
    free(f->runtime_dir);
    free(f->file);
    free(f);
    return 0;
}

static void open_state(Fixture *f)
{
    auto_error Error err = {0};

    state_done(&f->state);
    assert_ok(state_open(f->state_dir, f->runtime_dir, &f->state, &err), &err);
}

static uint64_t add(Fixture *f, const char *document)
{
    auto_(generation_done) Generation g = {
        .sha256 = strdup(document), .document = strdup(document), .source = strdup("test")};
    auto_error Error err = {0};

    assert_ok(state_generation_add(&f->state, &g, &err), &err);
    return g.number;
}

static void assert_last(Fixture *f, const char *document)
{
    auto_(generation_done) Generation g = {0};
    auto_error Error err = {0};

    assert_int_equal(state_generation_last(&f->state, &g, &err), 1);
    assert_string_equal(g.document, document);
}

static void a_generation_is_found_again_by_the_next_start(void **state)
{
    Fixture *f = *state;
    auto_(generation_done) Generation g = {0};
    auto_error Error err = {0};
    uint64_t number;

    open_state(f);
    assert_int_equal(state_generation_last(&f->state, &g, &err), 0);
    assert_false(state_ever_applied(&f->state));
    assert_int_equal(add(f, "one"), 1);
    number = add(f, "two");
    assert_ok(state_generation_applied(&f->state, number, &err), &err);
    open_state(f);
    assert_last(f, "two");
    assert_true(state_ever_applied(&f->state));
}

static void what_was_not_retired_is_taken_up_newest_first(void **state)
{
    Fixture *f = *state;
    auto_(generation_done) Generation g = {0};
    auto_error Error err = {0};

    open_state(f);
    assert_int_equal(add(f, "one"), 1);
    assert_int_equal(add(f, "two"), 2);
    assert_int_equal(add(f, "three"), 3);
    assert_int_equal(state_generation_unretired(&f->state, 3, &g, &err), 1);
    assert_int_equal(g.number, 2);
    generation_done(&g);
    assert_int_equal(state_generation_unretired(&f->state, 2, &g, &err), 1);
    assert_int_equal(g.number, 1);
    assert_ok(state_generations_retire(&f->state, 3, &err), &err);
    assert_int_equal(state_generation_unretired(&f->state, 3, &g, &err), 0);
}

static void old_generations_go_when_nothing_is_left_of_them(void **state)
{
    Fixture *f = *state;
    auto_error Error err = {0};
    json_auto_t *before = NULL, *after = NULL;

    open_state(f);
    for (unsigned i = 0; i < STATE_GENERATIONS_MAX + 10; i++)
        (void)add(f, "document");
    before = state_history(&f->state, 100);
    assert_int_equal(json_array_size(before), STATE_GENERATIONS_MAX + 10);
    assert_ok(state_generations_retire(&f->state, STATE_GENERATIONS_MAX + 10, &err), &err);
    (void)add(f, "last");
    after = state_history(&f->state, 100);
    assert_int_equal(json_array_size(after), STATE_GENERATIONS_MAX);
}

static void events_are_bounded_in_number_and_size(void **state)
{
    Fixture *f = *state;
    auto_error Error err = {0};
    json_auto_t *events = NULL;
    char *text = malloc(100001);

    assert_non_null(text);
    for (size_t i = 0; i < 100000; i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    text[100000] = '\0';
    open_state(f);
    for (unsigned i = 0; i < STATE_EVENTS_MAX + 20; i++)
        assert_ok(state_event_add(&f->state, LOG_LEVEL_INFO, "well", "said", &err), &err);
    assert_ok(state_event_add(&f->state, LOG_LEVEL_INFO, "well", text, &err), &err);
    free(text);
    events = state_events(&f->state, 2 * STATE_EVENTS_MAX);
    assert_int_equal(json_array_size(events), STATE_EVENTS_MAX);
    {
        const char *kept = json_string_value(json_object_get(json_array_get(events, 0), "text"));

        assert_true(strlen(kept) <= 2000 && str_is_utf8(kept, strlen(kept)));
    }
}

static void another_instance_begins_anew_and_the_same_one_does_not(void **state)
{
    Fixture *f = *state;
    auto_(generation_done) Generation g = {0};
    auto_free char *id = NULL;
    auto_error Error err = {0};

    open_state(f);
    assert_null(state_instance_id(&f->state));
    assert_int_equal(state_claim(&f->state, "1", &err), 0);
    (void)add(f, "one");
    open_state(f);
    id = state_instance_id(&f->state);
    assert_string_equal(id, "1");
    assert_int_equal(state_claim(&f->state, "1", &err), 0);
    assert_last(f, "one");
    assert_false(state_boot_is(&f->state, "a"));
    assert_ok(state_set_boot(&f->state, "a", &err), &err);
    open_state(f);
    assert_true(state_boot_is(&f->state, "a"));
    assert_false(state_boot_is(&f->state, "b"));
    assert_int_equal(state_claim(&f->state, "2", &err), 1);
    assert_int_equal(state_generation_last(&f->state, &g, &err), 0);
    assert_false(state_boot_is(&f->state, "a"));
}

static void a_file_that_is_no_database_is_moved_aside(void **state)
{
    Fixture *f = *state;
    auto_error Error err = {0};

    assert_ok(dir_create(f->state_dir, 0755, &err), &err);
    assert_ok(file_replace(f->file, "not a database, for sure", 24, 0600, &err), &err);
    open_state(f);
    assert_true(f->state.rebuilt);
    assert_contains(f->state.rebuilt_why, "not a database");
    (void)add(f, "one");
    open_state(f);
    assert_false(f->state.rebuilt);
    assert_last(f, "one");
}

static void one_of_a_newer_version_stays_as_it_is_and_work_goes_on_beside_it(void **state)
{
    Fixture *f = *state;
    auto_error Error err = {0};

    open_state(f);
    (void)add(f, "one");
    assert_ok(db_exec(f->state.db, "PRAGMA user_version = 99", &err), &err);
    open_state(f);
    assert_contains(error_text(&f->state.trouble), "newer version");
    assert_non_null(f->state.trouble.remedy);
    assert_int_equal(add(f, "two"), 1); /* nothing of it is understood */
    open_state(f);
    assert_contains(error_text(&f->state.trouble), "newer version");
}

static void where_the_directory_cannot_be_written_a_copy_knows_what_was(void **state)
{
    Fixture *f = *state;

    open_state(f);
    (void)add(f, "one");
    state_done(&f->state);
    /* For root a mode is no obstacle; a directory in the place of the index is. */
    {
        auto_free char *index = str_printf("%s-wal", f->file);

        (void)unlink(index);
        assert_int_equal(mkdir(index, 0755), 0);
        open_state(f);
        assert_true(f->state.trouble.code < 0);
        assert_last(f, "one");
        assert_int_equal(add(f, "two"), 2);
        state_done(&f->state);
        assert_int_equal(rmdir(index), 0);
    }
    open_state(f);
    assert_int_equal(f->state.trouble.code, 0);
    assert_last(f, "one");
}

static void a_database_of_the_first_version_is_brought_forward(void **state)
{
    Fixture *f = *state;
    auto_error Error err = {0};

    open_state(f);
    (void)add(f, "one");
    assert_ok(db_exec(f->state.db,
                      "ALTER TABLE generation DROP COLUMN retired; DROP TABLE image; "
                      "DROP TABLE repository; DROP TABLE cleanup; PRAGMA user_version = 2",
                      &err),
              &err);
    open_state(f);
    assert_int_equal(f->state.trouble.code, 0);
    assert_last(f, "one");
    assert_ok(state_generations_retire(&f->state, 9, &err), &err);
}

static void a_refusal_is_kept_until_it_is_cleared(void **state)
{
    Fixture *f = *state;
    json_auto_t *errors = json_pack("[s, s]", "a: wrong", "b: wrong"), *kept = NULL;
    auto_error Error err = {0};

    open_state(f);
    assert_null(state_refusal(&f->state));
    assert_ok(state_refuse(&f->state, "abc", errors, &err), &err);
    open_state(f);
    kept = state_refusal(&f->state);
    assert_true(json_equal(json_object_get(kept, "errors"), errors));
    assert_ok(state_refusal_clear(&f->state, &err), &err);
    assert_null(state_refusal(&f->state));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(a_generation_is_found_again_by_the_next_start),
          TEST(what_was_not_retired_is_taken_up_newest_first),
          TEST(old_generations_go_when_nothing_is_left_of_them),
          TEST(events_are_bounded_in_number_and_size),
          TEST(another_instance_begins_anew_and_the_same_one_does_not),
          TEST(a_file_that_is_no_database_is_moved_aside),
          TEST(one_of_a_newer_version_stays_as_it_is_and_work_goes_on_beside_it),
          TEST(where_the_directory_cannot_be_written_a_copy_knows_what_was),
          TEST(a_database_of_the_first_version_is_brought_forward),
          TEST(a_refusal_is_kept_until_it_is_cleared))
