/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of a container, struck at each request that it makes: by a kill before and
 * after, a power cut, an engine that fails. Whatever strikes, the wanted one serves alone in the
 * end. */
#include "tests/unit/rollout-world.h"

#include <stdlib.h>

#include "agent/resource/container.h"

/* What must come out of it whatever strikes once, at whichever request. */
typedef struct Story {
    const char *name, *plan, *before, *words;
    const char *after; /* then: a person looks, the time passes */
    const char *boxes, *state, *quarantine;
    bool lose_state; /* and whoever is killed finds no record when it comes back */
    bool no_gap;     /* something runs at every moment, but for a power cut */
} Story;

static bool anything_runs(const World *w)
{
    for (size_t i = 0; i < w->n_boxes; i++)
        if (w->boxes[i].state == BOX_RUNNING)
            return true;
    return false;
}

static void describe(char *text, size_t size, const Story *story, Strike strike, unsigned at)
{
    (void)snprintf(text, size, "%s, %s request %u", story->name, strike_names[strike], at);
}

/* False when there were fewer requests than that. */
static bool check_struck(const Story *story, Strike strike, unsigned at)
{
    auto_(world_freep) World *w = world_new(story->plan, strstr(story->plan, JOB) != NULL);
    auto_free char *boxes = NULL, *state = NULL, *quarantine = NULL;
    char name[256];

    describe(name, sizeof(name), story, strike, at);
    world_do(w, story->before);
    w->trace.size = w->n_requests = 0;
    w->strike = strike;
    w->strike_at = at;
    world_do(w, story->words);
    if (!w->struck)
        return false;
    if (story->no_gap && !anything_runs(w))
        fail_msg("%s: nothing runs; the engine was told\n%s", name, buf_str(&w->trace));
    if (w->killed) {
        if (story->lose_state)
            world_lose_state(w);
        else
            world_restart(w, strike == STRIKE_REBOOT);
        (void)world_run(w);
    }
    if (story->quarantine[0] == '\0') {
        auto_free char *condemned = world_quarantine(w);

        if (condemned[0])
            fail_msg("%s: %s was condemned for it: %s", name, condemned, error_text(&w->error));
    }
    world_do(w, story->after);
    boxes = world_boxes(w);
    state = world_state(w);
    quarantine = world_quarantine(w);
    if (!streq(boxes, story->boxes) || !streq(state, story->state) ||
        !streq(quarantine, story->quarantine))
        fail_msg("%s: in the end there is \"%s\", %s, quarantined \"%s\": %s\nthe engine was "
                 "told\n%s",
                 name, boxes, state, quarantine, error_text(&w->error), buf_str(&w->trace));
    return true;
}

/* Each takes an age there, and what valgrind looks for is in every one of them. */
static bool is_under_valgrind(void)
{
    const char *preloaded = getenv("LD_PRELOAD");

    return preloaded && strstr(preloaded, "vgpreload");
}

static void check_stories(const Story *stories, size_t n)
{
    unsigned stride = is_under_valgrind() ? 9 : 1;

    for (size_t i = 0; i < n; i++)
        for (Strike strike = STRIKE_NONE + 1; strike < STRIKE_MAX; strike++) {
            unsigned at = 1;

            while (check_struck(&stories[i], strike, at))
                at += stride;
            assert_true(at > 2); /* it was struck, and not only once */
        }
}

static void whoever_finds_no_record_goes_on_from_what_is_there(void **state)
{
    static const Story stories[] = {
        {.name = "stop first",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "push B",
         .after = "look; apply; settle; look",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "",
         .lose_state = true},
        {.name = "start first",
         .plan = "",
         .before = "push A; settle",
         .words = "push B",
         .after = "look; apply; settle; look",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "",
         .lose_state = true,
         .no_gap = true},
        {.name = "settling",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "settle",
         .after = "look; apply; settle; look",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "",
         .lose_state = true,
         .no_gap = true},
    };

    check_stories(stories, ELEMENTS(stories));
}

static void what_moves_all_the_time_does_not_keep_a_release_out(void **state)
{
    auto_(world_freep) World *w = world_new(PORTS, false);
    auto_free char *boxes = NULL;

    world_do(w, "push A; settle");
    w->restless = 30;
    world_do(w, "push B");
    boxes = world_boxes(w);
    assert_string_equal(boxes, "web=B web.previous=A-");
    assert_true(w->restless_at_pull > 20); /* after two looks, not when all was quiet again */
}

/* Killed where both run, side by side; NULL: they do not at that request. */
static World *killed_with_both(unsigned at)
{
    World *w = world_new("", false);
    const Box *next;

    world_do(w, "push A; settle");
    w->n_requests = 0;
    w->strike = STRIKE_KILL;
    w->strike_at = at;
    world_do(w, "push B");
    assert_true(w->struck);
    next = world_named(w, "web.next");
    return next && next->state == BOX_RUNNING ? w : world_free(w);
}

static void a_drain_in_the_middle_of_a_rollout_stops_both(void **state)
{
    auto_(world_freep) World *w = NULL;
    uint64_t end = now_boottime_usec() + 20 * SECOND;

    for (unsigned at = 1; !w; at++)
        w = killed_with_both(at);
    world_restart(w, /* rebooted= */ false);
    assert_int_equal(world_named(w, "web")->state, BOX_RUNNING);
    container_drain(w->resource, 5 * SECOND);
    while (!container_is_drained(w->resource)) {
        assert_true(now_boottime_usec() < end);
        assert_true(sd_event_run(w->f.event, 100 * MSEC) >= 0);
    }
    assert_int_equal(world_named(w, "web")->state, BOX_EXITED);
    assert_int_equal(world_named(w, "web.next")->state, BOX_EXITED);
}

static void whatever_strikes_once_the_wanted_one_serves_alone_in_the_end(void **state)
{
    static const Story stories[] = {
        {.name = "the first one",
         .plan = PORTS,
         .before = "look",
         .words = "push A",
         .after = "look; retry; settle; look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "stop first",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "push B",
         .after = "look; retry; settle; look",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
        {.name = "start first",
         .plan = "",
         .before = "push A; settle",
         .words = "push B",
         .after = "look; retry; settle; look",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "",
         .no_gap = true},
        {.name = "with a secret file",
         .plan = PORTS FILES,
         .before = "push A; settle",
         .words = "key 2",
         .after = "look; apply; settle; look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "a bad secret file",
         .plan = PORTS FILES,
         .before = "push A; settle",
         .words = "key 9",
         .after = "look; apply; settle; look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "A/release"},
        {.name = "a bad one",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "push X",
         .after = "apply; look; settle; look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X"},
        {.name = "a bad one before the former has settled",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "push X",
         .after = "apply",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = "X"},
        {.name = "a crash loop",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "die B 3",
         .after = "look; look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B"},
        {.name = "by hand",
         .plan = PORTS,
         .before = "push A; settle; push B; settle",
         .words = "rollback",
         .after = "look; apply; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B"},
        {.name = "a crash loop whose copy is gone",
         .plan = PORTS,
         .before = "push A; settle; push B; remove web.previous; forget A",
         .words = "die B 3",
         .after = "look; apply; settle; look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B"},
        {.name = "settling",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "settle",
         .after = "settle; look",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
    };

    check_stories(stories, ELEMENTS(stories));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_moves_all_the_time_does_not_keep_a_release_out),
        cmocka_unit_test(a_drain_in_the_middle_of_a_rollout_stops_both),
        cmocka_unit_test(whoever_finds_no_record_goes_on_from_what_is_there),
        cmocka_unit_test(whatever_strikes_once_the_wanted_one_serves_alone_in_the_end),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
