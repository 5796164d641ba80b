/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/resource/switch.h"

#define SLOT_MAX  8
#define STEPS_MAX 40

/* An engine of a few containers that obeys one step at a time. */
typedef struct World {
    SlotContainer containers[SLOT_MAX];
    size_t n;
    unsigned created;
} World;

static void world_add(World *world, const char *name, const char *release, bool running)
{
    SlotContainer *c = &world->containers[world->n++];

    *c = (SlotContainer){.running = running, .never_started = !running};
    (void)snprintf(c->id, sizeof(c->id), "id-%u", ++world->created);
    (void)snprintf(c->name, sizeof(c->name), "%s", name);
    (void)snprintf(c->release, sizeof(c->release), "%s", release);
}

static const SlotContainer *world_named(const World *world, const char *name)
{
    for (size_t i = 0; i < world->n; i++)
        if (streq(world->containers[i].name, name))
            return world->containers + i;
    return NULL;
}

/* The one that must be there. */
static const SlotContainer *world_get(const World *world, const char *name)
{
    const SlotContainer *c = world_named(world, name);

    if (!c) {
        fail_msg("no container %s", name);
        abort(); /* fail_msg() does not return, which the compiler is not told */
    }
    return c;
}

static void world_obey(World *world, const SwitchStep *step, const char *next)
{
    size_t i = step->target ? (size_t)(step->target - world->containers) : 0;
    SlotContainer *target = world->containers + i;

    switch (step->verb) {
    case SWITCH_CREATE:
        assert_null(world_named(world, step->new_name)); /* the engine would answer 409 */
        world_add(world, step->new_name, next, false);
        break;
    case SWITCH_START:
        assert_false(target->running);
        target->running = true;
        target->never_started = false;
        break;
    case SWITCH_STOP:
        assert_true(target->running);
        target->running = false;
        break;
    case SWITCH_RENAME:
        assert_null(world_named(world, step->new_name));
        (void)snprintf(target->name, sizeof(target->name), "%s", step->new_name);
        break;
    case SWITCH_REMOVE:
        assert_false(target->running); /* never by force */
        world->containers[i] = world->containers[--world->n];
        break;
    case SWITCH_DONE:
    case SWITCH_LOST:
        fail_msg("nothing to obey");
    }
}

/* Goes on until the goal is reached or `limit` steps were taken. Returns the last verb. */
static SwitchVerb world_run(World *world, const SwitchQuery *query, unsigned limit)
{
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        SwitchStep step = switch_next(query, world->containers, world->n);

        if (step.verb == SWITCH_DONE || step.verb == SWITCH_LOST || i == limit)
            return step.verb;
        world_obey(world, &step, query->next);
    }
    fail_msg("goal %d is never reached", query->goal);
    return SWITCH_LOST;
}

static void assert_serves(const World *world, const char *release)
{
    const SlotContainer *c = world_get(world, "web");

    assert_string_equal(c->release, release);
    assert_true(c->running);
}

static const SwitchQuery to_prepare = {
    .goal = SWITCH_PREPARE, .name = "web", .current = "A", .next = "B"};
static const SwitchQuery to_forward = {
    .goal = SWITCH_FORWARD, .name = "web", .current = "A", .next = "B"};
static const SwitchQuery to_beside = {
    .goal = SWITCH_BESIDE, .name = "web", .current = "A", .next = "B"};
static const SwitchQuery to_back = {
    .goal = SWITCH_BACK, .name = "web", .current = "A", .next = "B"};
static const SwitchQuery to_settle = {
    .goal = SWITCH_SETTLE, .name = "web", .current = "A", .next = "B"};

static void the_first_release_comes_up(void **state)
{
    SwitchQuery prepare = {.goal = SWITCH_PREPARE, .name = "web", .next = "A"};
    SwitchQuery forward = {.goal = SWITCH_FORWARD, .name = "web", .next = "A"};
    World world = {.n = 0};

    assert_int_equal(world_run(&world, &prepare, STEPS_MAX), SWITCH_DONE);
    assert_int_equal(world_run(&world, &forward, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "A");
    assert_int_equal(world.n, 1);
}

static void a_switch_keeps_the_old_one_stopped_until_it_settles(void **state)
{
    World world = {.n = 0};
    const SlotContainer *previous;

    world_add(&world, "web", "A", true);
    assert_int_equal(world_run(&world, &to_prepare, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "A");
    assert_int_equal(world_run(&world, &to_forward, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "B");
    previous = world_get(&world, "web.previous");
    assert_string_equal(previous->release, "A");
    assert_false(previous->running);
    assert_int_equal(world_run(&world, &to_settle, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "B");
    assert_int_equal(world.n, 1);
}

static void nothing_but_stop_and_start_lies_between_old_and_new(void **state)
{
    World world = {.n = 0};
    SwitchVerb verbs[STEPS_MAX];
    unsigned n = 0;

    world_add(&world, "web", "A", true);
    world_add(&world, "web.next", "B", false);
    for (;;) {
        SwitchStep step = switch_next(&to_forward, world.containers, world.n);

        if (step.verb == SWITCH_DONE)
            break;
        verbs[n++] = step.verb;
        world_obey(&world, &step, "B");
    }
    assert_true(n >= 2);
    assert_int_equal(verbs[n - 2], SWITCH_STOP);
    assert_int_equal(verbs[n - 1], SWITCH_START);
}

static void going_back_starts_the_old_one_again(void **state)
{
    World world = {.n = 0};

    world_add(&world, "web", "B", true);
    world_add(&world, "web.previous", "A", false);
    world.containers[1].never_started = false;
    assert_int_equal(world_run(&world, &to_back, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "A");
    assert_int_equal(world.n, 1);
}

static void beside_leaves_the_old_one_serving(void **state)
{
    World world = {.n = 0};

    world_add(&world, "web", "A", true);
    world_add(&world, "web.next", "B", false);
    assert_int_equal(world_run(&world, &to_beside, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "A");
    assert_true(world_get(&world, "web.next")->running);
    /* And back from there never stops the old one. */
    assert_int_equal(world_run(&world, &to_back, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "A");
    assert_int_equal(world.n, 1);
}

/* Killed after any number of steps of any phase, then told to go on, or to go back: both end well.
 */
static void a_kill_between_any_two_steps_is_resumed_or_undone(void **state)
{
    const SwitchQuery *const phases[] = {&to_prepare, &to_beside, &to_forward};

    for (unsigned with_beside = 0; with_beside < 2; with_beside++)
        for (unsigned killed_at = 0; killed_at < 12; killed_at++)
            for (unsigned undo = 0; undo < 2; undo++) {
                World world = {.n = 0};
                unsigned left = killed_at;

                world_add(&world, "web", "A", true);
                for (size_t p = 0; p < ELEMENTS(phases); p++) {
                    if (phases[p] == &to_beside && !with_beside)
                        continue;
                    while (left > 0) {
                        SwitchStep step = switch_next(phases[p], world.containers, world.n);

                        if (step.verb == SWITCH_DONE)
                            break;
                        world_obey(&world, &step, "B");
                        left--;
                    }
                    if (left == 0)
                        break;
                }
                if (undo) {
                    assert_int_equal(world_run(&world, &to_back, STEPS_MAX), SWITCH_DONE);
                    assert_serves(&world, "A");
                } else {
                    assert_int_equal(world_run(&world, &to_prepare, STEPS_MAX), SWITCH_DONE);
                    assert_int_equal(world_run(&world, &to_forward, STEPS_MAX), SWITCH_DONE);
                    assert_serves(&world, "B");
                    assert_non_null(world_named(&world, "web.previous"));
                }
            }
}

static void a_rollback_killed_half_way_ends_the_same(void **state)
{
    for (unsigned killed_at = 0; killed_at < 8; killed_at++) {
        World world = {.n = 0};

        world_add(&world, "web", "B", true);
        world_add(&world, "web.previous", "A", false);
        (void)world_run(&world, &to_back, killed_at);
        assert_int_equal(world_run(&world, &to_back, STEPS_MAX), SWITCH_DONE);
        assert_serves(&world, "A");
        assert_int_equal(world.n, 1);
    }
}

static void leftovers_go_before_the_switch_and_the_serving_one_stays(void **state)
{
    World world = {.n = 0};

    world_add(&world, "web", "A", true);
    world_add(&world, "web.previous", "Z", false);
    world_add(&world, "web.next", "Y", true);
    assert_int_equal(world_run(&world, &to_prepare, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "A");
    assert_int_equal(world.n, 2);
    assert_string_equal(world_get(&world, "web.next")->release, "B");
}

static void a_serving_container_without_a_record_is_adopted(void **state)
{
    SwitchQuery forward = {.goal = SWITCH_FORWARD, .name = "web", .next = "B"};
    World world = {.n = 0};

    world_add(&world, "web", "", true);
    world_add(&world, "web.next", "B", false);
    assert_int_equal(world_run(&world, &forward, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "B");
    assert_non_null(world_named(&world, "web.previous"));
}

static void what_is_lost_is_said(void **state)
{
    SwitchQuery run = {.goal = SWITCH_RUN, .name = "web", .current = "A"};
    World world = {.n = 0};

    assert_int_equal(world_run(&world, &run, STEPS_MAX), SWITCH_LOST);
    assert_int_equal(world_run(&world, &to_forward, STEPS_MAX), SWITCH_LOST);
    assert_int_equal(world_run(&world, &to_back, STEPS_MAX), SWITCH_LOST);
}

static void a_job_that_ended_is_started_again_only_after_a_reboot(void **state)
{
    SwitchQuery forward = {.goal = SWITCH_FORWARD, .name = "web", .next = "B"};
    World world = {.n = 0};

    world_add(&world, "web", "B", false);
    world.containers[0].never_started = false;
    assert_int_equal(world_run(&world, &forward, STEPS_MAX), SWITCH_DONE);
    assert_false(world.containers[0].running);
    forward.start_again = true;
    assert_int_equal(world_run(&world, &forward, STEPS_MAX), SWITCH_DONE);
    assert_true(world.containers[0].running);
}

/* The tag moved back within the settle time: the copy that ran before gives way to a new one. */
static void what_was_replaced_comes_back_as_a_new_container(void **state)
{
    SwitchQuery prepare = {.goal = SWITCH_PREPARE, .name = "web", .current = "B", .next = "A"};
    SwitchQuery forward = {.goal = SWITCH_FORWARD, .name = "web", .current = "B", .next = "A"};
    World world = {.n = 0};

    world_add(&world, "web", "B", true);
    world_add(&world, "web.previous", "A", false);
    world.containers[1].never_started = false;
    assert_int_equal(world_run(&world, &prepare, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "B");
    assert_true(world_get(&world, "web.next")->never_started);
    assert_int_equal(world_run(&world, &forward, STEPS_MAX), SWITCH_DONE);
    assert_serves(&world, "A");
    assert_string_equal(world_get(&world, "web.previous")->release, "B");
}

/* The engine does not rename a container that it is about to restart. */
static void one_in_a_crash_loop_is_stopped_before_it_is_renamed(void **state)
{
    World world = {.n = 0};

    world_add(&world, "web", "A", true);
    world.containers[0].restarting = true;
    world_add(&world, "web.next", "B", false);
    assert_int_equal(switch_next(&to_forward, world.containers, world.n).verb, SWITCH_STOP);
    world = (World){.n = 0};
    world_add(&world, "web", "B", true);
    world_add(&world, "web.previous", "A", false);
    assert_int_equal(switch_next(&to_back, world.containers, world.n).verb, SWITCH_STOP);
}

static void one_that_ends_at_once_is_not_started_over_and_over(void **state)
{
    static const SwitchGoal goals[] = {SWITCH_RUN, SWITCH_BESIDE, SWITCH_FORWARD, SWITCH_BACK};

    for (size_t i = 0; i < ELEMENTS(goals); i++) {
        bool back = goals[i] == SWITCH_BACK || goals[i] == SWITCH_RUN;
        SwitchQuery query = {.goal = goals[i],
                             .name = "web",
                             .current = back ? "A" : NULL,
                             .next = back ? NULL : "A",
                             .start_again = true};
        World world = {.n = 0};

        world_add(&world, "web", "A", false);
        world.containers[0].never_started = false;
        assert_int_equal(switch_next(&query, world.containers, world.n).verb, SWITCH_START);
        query.started = true;
        assert_int_equal(switch_next(&query, world.containers, world.n).verb, SWITCH_DONE);
    }
}

static void stopping_leaves_all_in_place(void **state)
{
    SwitchQuery stopped = {.goal = SWITCH_STOPPED, .name = "web"};
    World world = {.n = 0};

    world_add(&world, "web", "A", true);
    world_add(&world, "web.next", "B", true);
    assert_int_equal(world_run(&world, &stopped, STEPS_MAX), SWITCH_DONE);
    assert_int_equal(world.n, 2);
    assert_false(world.containers[0].running || world.containers[1].running);
}

static void leaving_the_plan_stops_and_removes_all(void **state)
{
    SwitchQuery gone = {.goal = SWITCH_GONE, .name = "web"};
    World world = {.n = 0};

    world_add(&world, "web", "A", true);
    world_add(&world, "web.previous", "Z", false);
    assert_int_equal(world_run(&world, &gone, STEPS_MAX), SWITCH_DONE);
    assert_int_equal(world.n, 0);
}

TEST_MAIN(cmocka_unit_test(the_first_release_comes_up),
          cmocka_unit_test(a_switch_keeps_the_old_one_stopped_until_it_settles),
          cmocka_unit_test(nothing_but_stop_and_start_lies_between_old_and_new),
          cmocka_unit_test(going_back_starts_the_old_one_again),
          cmocka_unit_test(beside_leaves_the_old_one_serving),
          cmocka_unit_test(a_kill_between_any_two_steps_is_resumed_or_undone),
          cmocka_unit_test(a_rollback_killed_half_way_ends_the_same),
          cmocka_unit_test(leftovers_go_before_the_switch_and_the_serving_one_stays),
          cmocka_unit_test(a_serving_container_without_a_record_is_adopted),
          cmocka_unit_test(what_is_lost_is_said),
          cmocka_unit_test(a_job_that_ended_is_started_again_only_after_a_reboot),
          cmocka_unit_test(what_was_replaced_comes_back_as_a_new_container),
          cmocka_unit_test(one_in_a_crash_loop_is_stopped_before_it_is_renamed),
          cmocka_unit_test(one_that_ends_at_once_is_not_started_over_and_over),
          cmocka_unit_test(stopping_leaves_all_in_place),
          cmocka_unit_test(leaving_the_plan_stops_and_removes_all))
