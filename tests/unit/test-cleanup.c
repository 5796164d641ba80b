/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "agent/base/time.h"
#include "agent/resource/cleanup.h"
#include "agent/resource/release.h"

#define REPO  "asia-northeast3-docker.pkg.dev/p/r/app"
#define NOW   (1000 * HOUR)
#define OLD   (NOW - 10 * HOUR)
#define MAX   16
#define NAMES 4

/* A machine's images, containers and releases, written down briefly. */
typedef struct World {
    EngineImage images[MAX];
    const char *names[MAX][2][NAMES];
    EngineContainer containers[MAX];
    EnginePair labels[MAX][2];
    CleanupRelease releases[MAX];
    CleanupSeen seen[MAX];
    CleanupFacts facts;
    CleanupPlan plan;
} World;

static World *world_new(void)
{
    static const char *const repositories[] = {REPO, NULL};
    World *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    w->facts = (CleanupFacts){.images = w->images,
                              .containers = w->containers,
                              .releases = w->releases,
                              .seen = w->seen,
                              .repositories = repositories,
                              .keep_previous = 1,
                              .min_age_usec = HOUR,
                              .now = NOW};
    return w;
}

static void world_done(World **w)
{
    cleanup_plan_done(&(*w)->plan);
    free(*w);
}

#define auto_world auto_(world_done)

/* `tag` and `digest` NULL: it has none. It came long ago. */
static void add_image(World *w, const char *id, const char *tag, const char *digest)
{
    size_t i = w->facts.n_images++;

    assert_true(i < MAX);
    w->names[i][0][0] = tag;
    w->names[i][1][0] = digest;
    w->images[i] = (EngineImage){
        .id = id, .repo_tags = w->names[i][0], .repo_digests = w->names[i][1], .parent_id = ""};
    w->seen[w->facts.n_seen++] = (CleanupSeen){.id = id, .first_seen_at = OLD + i};
}

static void add_container(World *w, const char *name, const char *image_id, EngineState state,
                          const char *release)
{
    size_t i = w->facts.n_containers++;

    assert_true(i < MAX);
    w->labels[i][0] = (EnginePair){LABEL_CONTAINER, "web"};
    w->labels[i][1] = (EnginePair){LABEL_RELEASE, release};
    w->containers[i] = (EngineContainer){.id = name,
                                         .name = name,
                                         .image = "whatever",
                                         .image_id = image_id,
                                         .state = state,
                                         .created_usec = OLD,
                                         .labels = w->labels[i],
                                         .n_labels = release ? 2 : 0};
}

static CleanupRelease *add_release(World *w, const char *id, const char *digest, uint64_t proved_at)
{
    size_t i = w->facts.n_releases++;

    assert_true(i < MAX);
    w->releases[i] =
        (CleanupRelease){.container = "web", .id = id, .digest = digest, .proved_at = proved_at};
    return &w->releases[i];
}

static void choose(World *w)
{
    auto_error Error err = {0};

    cleanup_plan_done(&w->plan);
    assert_ok(cleanup_select(&w->facts, &w->plan, &err), &err);
}

static void assert_verdict(const World *w, const char *id, CleanupVerdict expected)
{
    for (size_t i = 0; i < w->facts.n_images; i++)
        if (streq(w->images[i].id, id)) {
            if (w->plan.verdicts[i] != expected)
                fail_msg("%s: %s, not %s", id, cleanup_verdict_name(w->plan.verdicts[i]),
                         cleanup_verdict_name(expected));
            return;
        }
    fail_msg("no image %s", id);
}

/* The ids to remove, in order, as one text. */
static void assert_removed(const World *w, const char *expected)
{
    auto_(strv_freep) char **ids = NULL;
    auto_free char *text = NULL;

    for (size_t i = 0; i < w->plan.n_images; i++)
        assert_int_equal(strv_push(&ids, w->images[w->plan.images[i]].id), 0);
    text = str_join((const char *const *)ids, " ");
    assert_string_equal(text ? text : "", expected);
}

static void old_digests_of_our_repositories_go_and_what_is_needed_stays(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "v1", NULL, REPO "@sha256:1");
    add_image(w, "v2", NULL, REPO "@sha256:2");
    add_image(w, "v3", NULL, REPO "@sha256:3");
    add_image(w, "v4", NULL, REPO "@sha256:4");
    add_image(w, "v5", NULL, REPO "@sha256:5");
    add_image(w, "dangling", NULL, NULL);
    add_image(w, "foreign", "nginx:1", "nginx@sha256:9");
    (void)add_release(w, "r1", "sha256:1", OLD);
    (void)add_release(w, "r2", "sha256:2", OLD + 1);
    (void)add_release(w, "r3", "sha256:3", OLD + 2);
    add_release(w, "r4", "sha256:4", OLD + 3)->is_current = true;
    add_release(w, "r5", "sha256:5", 0)->is_next = true;
    choose(w);

    assert_removed(w, "v1 v2 dangling");
    assert_verdict(w, "v3", CLEANUP_PREVIOUS);
    assert_verdict(w, "v4", CLEANUP_CURRENT);
    assert_verdict(w, "v5", CLEANUP_CURRENT);
    assert_verdict(w, "foreign", CLEANUP_FOREIGN);
}

static void keep_previous_counts_proved_digests_of_each_container(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "v1", NULL, REPO "@sha256:1");
    add_image(w, "v2", NULL, REPO "@sha256:2");
    add_image(w, "bad", NULL, REPO "@sha256:bad");
    add_image(w, "never", NULL, REPO "@sha256:never");
    add_image(w, "now", NULL, REPO "@sha256:now");
    add_image(w, "theirs", NULL, REPO "@sha256:theirs");
    (void)add_release(w, "r1", "sha256:1", OLD);
    (void)add_release(w, "r2", "sha256:2", OLD + 1);
    (void)add_release(w, "r2b", "sha256:2", OLD + 5);  /* the same digest, another secret */
    (void)add_release(w, "r3", "sha256:now", OLD + 6); /* what serves, with an older secret */
    add_release(w, "r4", "sha256:bad", OLD + 7)->is_quarantined = true;
    (void)add_release(w, "r5", "sha256:never", 0);
    add_release(w, "r6", "sha256:now", OLD + 8)->is_current = true;
    add_release(w, "x1", "sha256:theirs", OLD)->container = "other";

    choose(w);
    assert_removed(w, "v1 bad never");
    assert_verdict(w, "v2", CLEANUP_PREVIOUS);
    assert_verdict(w, "theirs", CLEANUP_PREVIOUS);

    w->facts.keep_previous = 2;
    choose(w);
    assert_removed(w, "bad never");
    w->facts.keep_previous = 0;
    choose(w);
    assert_removed(w, "v1 v2 bad never theirs");
}

static void an_image_that_any_container_uses_stays(void **state)
{
    static const EngineState states[] = {
        ENGINE_STATE_RUNNING, ENGINE_STATE_EXITED,     ENGINE_STATE_CREATED,  ENGINE_STATE_PAUSED,
        ENGINE_STATE_DEAD,    ENGINE_STATE_RESTARTING, ENGINE_STATE_REMOVING, ENGINE_STATE_UNKNOWN};

    for (size_t i = 0; i < ELEMENTS(states); i++) {
        auto_world World *w = world_new();

        add_image(w, "a", NULL, REPO "@sha256:1");
        add_image(w, "b", NULL, NULL);
        add_container(w, "somebody", "a", states[i], NULL);
        add_container(w, "else", "b", states[i], NULL);
        w->facts.all_unused = i % 2;
        choose(w);
        assert_removed(w, "");
        assert_verdict(w, "a", CLEANUP_IN_USE);
        assert_int_equal(w->plan.n_containers, 0);
    }
}

static void an_engine_that_shows_names_for_ids_is_understood(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "a", REPO ":v1", NULL);
    add_image(w, "b", NULL, REPO "@sha256:2");
    add_image(w, "c", REPO ":v3", NULL);
    add_container(w, "x", REPO ":v1", ENGINE_STATE_RUNNING, NULL);
    add_container(w, "y", "", ENGINE_STATE_RUNNING, NULL);
    w->containers[1].image = REPO "@sha256:2";
    choose(w);
    assert_removed(w, "c");
}

static void young_is_what_came_lately_whatever_its_build_date(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "came-now", NULL, REPO "@sha256:1");
    add_image(w, "unknown", NULL, REPO "@sha256:2");
    add_image(w, "just-old", NULL, REPO "@sha256:3");
    add_image(w, "future", NULL, NULL);
    w->seen[0].first_seen_at = NOW - HOUR + 1;
    w->seen[1].id = "another";
    w->seen[2].first_seen_at = NOW - HOUR;
    w->seen[3].first_seen_at = NOW + HOUR; /* the clock was set back */
    choose(w);
    assert_removed(w, "just-old");
    assert_verdict(w, "came-now", CLEANUP_YOUNG);
    assert_verdict(w, "unknown", CLEANUP_YOUNG);
    assert_verdict(w, "future", CLEANUP_YOUNG);

    w->facts.min_age_usec = 0;
    w->facts.all_unused = true;
    choose(w);
    assert_removed(w, "just-old came-now unknown");
}

static void what_others_named_too_is_not_ours_to_remove(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "shared", REPO ":v1", NULL);
    w->names[0][0][1] = "theirs:v1";
    add_image(w, "by-digest", REPO ":v1", "theirs@sha256:1");
    add_image(w, "near", REPO "2:v1", NULL);
    choose(w);
    assert_removed(w, "");
    assert_verdict(w, "shared", CLEANUP_SHARED);
    assert_verdict(w, "by-digest", CLEANUP_SHARED);
    assert_verdict(w, "near", CLEANUP_FOREIGN);
    w->facts.all_unused = true;
    choose(w);
    assert_removed(w, "shared by-digest near");
}

static void least_recently_used_goes_first(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "a", NULL, REPO "@sha256:1");
    add_image(w, "b", NULL, REPO "@sha256:2");
    add_image(w, "c", NULL, REPO "@sha256:3");
    w->seen[0].last_used_at = NOW - HOUR;
    w->seen[1].last_used_at = NOW - 3 * HOUR;
    w->seen[2].last_used_at = NOW - 2 * HOUR;
    choose(w);
    assert_removed(w, "b c a");
}

static void children_go_before_parents_and_hold_them(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "base", REPO ":base", NULL);
    add_image(w, "middle", REPO ":middle", NULL);
    add_image(w, "leaf", REPO ":leaf", NULL);
    add_image(w, "other", REPO ":other", NULL);
    w->images[1].parent_id = "base";
    w->images[2].parent_id = "middle";
    w->seen[2].last_used_at = NOW - 2 * HOUR;
    choose(w);
    assert_removed(w, "other leaf middle base");

    add_container(w, "x", "leaf", ENGINE_STATE_EXITED, NULL);
    choose(w);
    assert_removed(w, "other");
    assert_verdict(w, "base", CLEANUP_PARENT);
    assert_verdict(w, "middle", CLEANUP_PARENT);
}

/* No engine says so, and no loop may come of it. */
static void a_ring_of_parents_ends(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "a", REPO ":a", NULL);
    add_image(w, "b", REPO ":b", NULL);
    w->images[0].parent_id = "b";
    w->images[1].parent_id = "a";
    choose(w);
    assert_int_equal(w->plan.n_images, 2);
}

static void stopped_containers_of_no_release_go_with_their_images(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "v1", NULL, REPO "@sha256:1");
    add_image(w, "v2", NULL, REPO "@sha256:2");
    add_container(w, "web", "v2", ENGINE_STATE_RUNNING, "r2");
    add_container(w, "web.zombie", "v1", ENGINE_STATE_EXITED, "r0");
    add_container(w, "web.born-dead", "v1", ENGINE_STATE_CREATED, "r0");
    add_container(w, "web.runs", "v2", ENGINE_STATE_RUNNING, "r0");
    add_container(w, "web.previous", "v2", ENGINE_STATE_EXITED, "r1");
    add_container(w, "theirs", "v2", ENGINE_STATE_EXITED, NULL);
    add_container(w, "young", "v2", ENGINE_STATE_EXITED, "r0");
    w->containers[6].created_usec = NOW - 1;
    add_release(w, "r1", "sha256:1", OLD)->is_previous = true;
    add_release(w, "r2", "sha256:2", OLD)->is_current = true;
    w->facts.keep_previous = 0;
    choose(w);
    assert_int_equal(w->plan.n_containers, 2);
    assert_int_equal(w->plan.containers[0], 1);
    assert_int_equal(w->plan.containers[1], 2);
    assert_removed(w, "v1");
}

static void a_stopped_container_that_serves_as_job_is_no_zombie(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "v1", NULL, REPO "@sha256:1");
    add_container(w, "web", "v1", ENGINE_STATE_EXITED, "r1");
    add_release(w, "r1", "sha256:1", 0)->is_current = true;
    choose(w);
    assert_int_equal(w->plan.n_containers, 0);
    w->releases[0].container = "another"; /* the same id under another name is another release */
    choose(w);
    assert_int_equal(w->plan.n_containers, 1);
}

static void the_containerd_store_is_understood(void **state)
{
    auto_world World *w = world_new();

    add_image(w, "sha256:1", NULL, REPO "@sha256:1");
    add_image(w, "sha256:2", NULL, NULL);
    add_release(w, "r1", "sha256:1", OLD)->is_current = true;
    add_release(w, "r2", "sha256:2", 0)->is_next = true;
    choose(w);
    assert_removed(w, "");
}

static void names_are_given_so_that_no_force_is_needed(void **state)
{
    static const struct {
        const char *tags[3], *digests[3], *expected;
    } cases[] = {
        {{NULL}, {NULL}, "ID"},
        {{"a:1", NULL}, {NULL}, "ID"},
        {{"a:1", NULL}, {"a@sha256:1", NULL}, "ID"},
        {{"a:1", NULL}, {"docker.io/library/a@sha256:1", NULL}, "ID"},
        {{"a:1", "a:2", NULL}, {NULL}, "a:1 a:2"},
        {{"a:1", NULL}, {"b@sha256:1", NULL}, "a:1 b@sha256:1"},
        {{NULL}, {"a@sha256:1", "b@sha256:1", NULL}, "a@sha256:1 b@sha256:1"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        const EngineImage image = {
            .id = "ID", .repo_tags = cases[i].tags, .repo_digests = cases[i].digests};
        auto_(strv_freep) char **names = cleanup_names(&image);
        auto_free char *text = str_join((const char *const *)names, " ");

        assert_string_equal(text, cases[i].expected);
    }
}

static void an_empty_machine_has_nothing_to_remove(void **state)
{
    auto_world World *w = world_new();

    choose(w);
    assert_int_equal(w->plan.n_images, 0);
    assert_int_equal(w->plan.n_containers, 0);
}

TEST_MAIN(cmocka_unit_test(old_digests_of_our_repositories_go_and_what_is_needed_stays),
          cmocka_unit_test(keep_previous_counts_proved_digests_of_each_container),
          cmocka_unit_test(an_image_that_any_container_uses_stays),
          cmocka_unit_test(an_engine_that_shows_names_for_ids_is_understood),
          cmocka_unit_test(young_is_what_came_lately_whatever_its_build_date),
          cmocka_unit_test(what_others_named_too_is_not_ours_to_remove),
          cmocka_unit_test(least_recently_used_goes_first),
          cmocka_unit_test(children_go_before_parents_and_hold_them),
          cmocka_unit_test(a_ring_of_parents_ends),
          cmocka_unit_test(stopped_containers_of_no_release_go_with_their_images),
          cmocka_unit_test(a_stopped_container_that_serves_as_job_is_no_zombie),
          cmocka_unit_test(the_containerd_store_is_understood),
          cmocka_unit_test(names_are_given_so_that_no_force_is_needed),
          cmocka_unit_test(an_empty_machine_has_nothing_to_remove))
