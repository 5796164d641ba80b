/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of a container where the machine, its engine or a person's hand is at fault,
 * and not the release. */
#include "tests/unit/rollout-course.h"

#include "agent/resource/container.h"

static void a_fault_of_the_machine_condemns_nobody(void **state)
{
    static const Course courses[] = {
        {.name = "the disk is full",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 start B = write /x: no space left on device",
         .words = "push B",
         .trace = "pulling: pull B\n"
                  "staged: create B web.next\n"
                  "switching: rename A web.previous\n"
                  "switching: rename B web\n"
                  "switching: stop A\n"
                  "rolling-back: rename B web.next\n"
                  "rolling-back: rename A web\n"
                  "rolling-back: start A\n"
                  "rolling-back: remove B\n",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "",
         .message = "no space left on device; nothing speaks against the release"},
        {.name = "the engine keeps the name of one that is gone, until it is started anew",
         .plan = PORTS,
         .before = "push A; settle; fail 2 409 rename B web = The container name is already in use",
         .words = "push B",
         .trace = "pulling: pull B\n"
                  "staged: create B web.next\n"
                  "switching: rename A web.previous\n"
                  "switching: rename B web\n"
                  "switching: stop A\n"
                  "switching: start B\n",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "somebody deletes what is about to be stopped",
         .plan = PORTS,
         .before = "push A; settle; fail 1 404 stop A = No such container",
         .words = "push B",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "it is not tried again at once, and says why",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 start B = write /x: no space left on device; push B",
         .words = "look; look",
         .trace = "",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "",
         .message = "no space left on device; nothing speaks against the release"},
        {.name = "but when a person says so",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 start B = write /x: no space left on device; push B",
         .words = "retry; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
        {.name = "or applies",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 start B = write /x: no space left on device; push B",
         .words = "apply; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
        {.name = "and another release at once",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 start B = write /x: no space left on device; push B",
         .words = "push C; settle",
         .boxes = "web=C",
         .state = "settled",
         .quarantine = ""},
        {.name = "a stranger has the port",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 start B = Bind for 0.0.0.0:8080 failed: port is "
                   "already allocated",
         .words = "push B",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "",
         .message = "port"},
        {.name = "the old one cannot be stopped: it serves, and is ready",
         .plan = PORTS,
         .before = "push A; settle; fail 99 500 stop A = tried to kill it, and it did not die",
         .words = "push B; look",
         .boxes = "web=B- web.previous=A",
         .state = "switching",
         .quarantine = "",
         .message = "tried to kill it"},
        {.name = "and goes on when it can be",
         .plan = PORTS,
         .before = "push A; settle; fail 7 500 stop A = tried to kill it, and it did not die",
         .words = "push B; look; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
        {.name = "the engine fails",
         .plan = "",
         .before = "push A; settle; fail 1 500 start B = something else",
         .words = "push B",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "",
         .message = "something else"},
        {.name = "nor is anything left as it is that could not be started",
         .plan = PORTS KEEP,
         .before = "push A; settle; fail 1 500 start B = something else",
         .words = "push B",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "",
         .message = "something else"},
        {.name = "an image without that user is to blame",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 start B = runc: unable to find user web: no "
                   "matching entries in passwd file",
         .words = "push B",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B",
         .message = "unable to find user web"},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void a_container_that_the_engine_would_not_heal_is_started_all_the_same(void **state)
{
    static const Course courses[] = {
        {.name = "what is gone back to",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 update A on-failure = something else",
         .words = "push X",
         .trace = "pulling: pull X\n"
                  "staged: create X web.next\n"
                  "switching: rename A web.previous\n"
                  "switching: rename X web\n"
                  "switching: stop A\n"
                  "switching: start X\n"
                  "rolling-back: rename X web.next\n"
                  "rolling-back: rename A web\n"
                  "rolling-back: start A\n"
                  "rolling-back: remove X\n",
         .boxes = "web=A!",
         .state = "rolled-back",
         .quarantine = "X",
         .message = "it exited with status 3"},
        {.name = "and the engine is asked again at the next look",
         .plan = PORTS,
         .before = "push A; settle; fail 2 500 update A on-failure = something else; push X",
         .words = "look; look",
         .trace = "",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X",
         .message = "it exited with status 3"},
        {.name = "what was stopped by a person",
         .plan = PORTS,
         .before = "push A; settle; fail 99 400 update A on-failure = invalid policy",
         .words = "restart",
         .boxes = "web=A!",
         .state = "settled",
         .quarantine = ""},
        {.name = "and when it ends it is started again, and the engine told to heal it",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 update A on-failure = something else; restart",
         .words = "stop A; agentd",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void what_ends_the_engine_again_and_again_is_to_blame_for_it(void **state)
{
    static const Course courses[] = {
        {.name = "when it is started",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "push V; look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "V",
         .message = "the container engine went away 4 times while it was tried"},
        {.name = "while it is proved",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "push W",
         .trace = "pulling: pull W\n"
                  "staged: create W web.next\n"
                  "switching: rename A web.previous\n"
                  "switching: rename W web\n"
                  "switching: stop A\n"
                  "switching: start W\n"
                  "proving: start W\n"
                  "proving: start W\n"
                  "proving: start W\n"
                  "rolling-back: rename W web.next\n"
                  "rolling-back: rename A web\n"
                  "rolling-back: start A\n"
                  "rolling-back: remove W\n",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "W",
         .message = "the container engine went away 4 times while it was tried"},
        {.name = "each release has its own excuses",
         .plan = PORTS,
         .before = "push A; settle; push W",
         .words = "retry",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "W",
         .message = "the container engine went away 4 times while it was tried"},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void what_the_engine_starts_by_itself_is_stopped_again(void **state)
{
    static const Course courses[] = {
        {.name = "not the copy to go back to, beside what is watched",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "engine",
         .trace = "",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "nor what was beside the old one for a while",
         .plan = "",
         .before = "push A; settle; push B",
         .words = "engine",
         .trace = "",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "but what it healed before, when that is gone back to",
         .plan = PORTS,
         .before = "push A; settle; push X; settle; stop A",
         .words = "engine",
         .trace = "",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "and the copy, where the engine would not be told",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 update A = something else; push B",
         .words = "engine",
         .trace = "committed: stop A\n",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "and what is watched settles",
         .plan = PORTS,
         .before = "push A; settle; push B; engine",
         .words = "settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void an_engine_that_hangs_at_a_start_condemns_nobody(void **state)
{
    auto_(world_freep) World *w = world_new(PORTS, /* is_job= */ false);
    auto_free char *boxes = NULL, *quarantine = NULL;

    engine_set_timeouts(w->engine, 500 * MSEC, 0, 0);
    world_do(w, "push A; settle; push U");
    world_do(w, "retry; retry; retry");
    boxes = world_boxes(w);
    quarantine = world_quarantine(w);
    assert_string_equal(boxes, "web=A");
    assert_string_equal(quarantine, "");
    assert_contains(error_text(&w->error), "it hangs; nothing speaks against the release");
    assert_contains(w->error.remedy, "systemctl restart docker");
    assert_true(container_is_ready(w->resource));
}

/* There is nothing to go back to: it is asked again. */
static void an_engine_that_hangs_at_the_first_start_is_waited_for(void **state)
{
    auto_(world_freep) World *w = world_new(PORTS, /* is_job= */ false);
    auto_free char *recorded = NULL;

    engine_set_timeouts(w->engine, 500 * MSEC, 0, 0);
    world_do(w, "push U");
    recorded = world_state(w);
    assert_string_equal(recorded, "switching");
    assert_contains(error_text(&w->error), "it hangs");
}

static void what_somebody_took_away_is_made_anew(void **state)
{
    static const Course courses[] = {
        {.name = "what serves, while its successor is quarantined for its key",
         .plan = PORTS,
         .before = "push A; settle; key 9",
         .words = "remove web; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "A/release",
         .message = "was rolled back"},
        {.name = "the copy to go back to",
         .plan = PORTS,
         .before = "push A; settle; push B; remove web.previous",
         .words = "die B 3",
         .trace = "staged: create A web.next\n"
                  "switching: rename B web.previous\n"
                  "switching: rename A web\n"
                  "switching: stop B\n"
                  "switching: start A\n",
         .boxes = "web=A web.previous=B-",
         .state = "committed",
         .quarantine = "B"},
        {.name = "and then it settles",
         .plan = PORTS,
         .before = "push A; settle; push B; remove web.previous; die B 3",
         .words = "settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "crash loop"},
        {.name = "its image, too",
         .plan = PORTS,
         .before = "push A; settle; push B; remove web.previous; forget A",
         .words = "die B 3; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "crash loop"},
        {.name = "which cannot be pulled now: what is bad is better than nothing",
         .plan = PORTS,
         .before = "push A; settle; push B; remove web.previous; forget A; registry down",
         .words = "die B 3; look",
         .boxes = "web=B",
         .state = "pulling",
         .quarantine = "B",
         .message = "connection refused"},
        {.name = "also after a reboot",
         .plan = PORTS,
         .before = "push A; settle; push B; remove web.previous; forget A; registry down; die B 3",
         .words = "reboot",
         .boxes = "web=B",
         .state = "pulling",
         .quarantine = "B",
         .message = "connection refused"},
        {.name = "and when it can be pulled again it is",
         .plan = PORTS,
         .before = "push A; settle; push B; remove web.previous; forget A; registry down; die B 3; "
                   "agentd",
         .words = "registry up; look; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "crash loop"},
        {.name = "which nobody has any more",
         .plan = PORTS,
         .before = "push A; settle; push B; remove web.previous; forget A; unpush A",
         .words = "die B 3; look; look",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "B"},
        {.name = "what serves",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "remove web; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "what serves, with the registry away",
         .plan = PORTS,
         .before = "push A; settle; registry down",
         .words = "remove web; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "",
         .message = "403"},
        {.name = "what serves, with a bad image behind the tag",
         .plan = PORTS,
         .before = "push A; settle; push X",
         .words = "remove web; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "what serves, while the next one cannot be pulled",
         .plan = PORTS,
         .before = "push A; settle; fail 99 500 pull = no; push B",
         .words = "remove web; look",
         .boxes = "web=A",
         .state = "pulling",
         .quarantine = "",
         .message = "pull"},
        {.name = "what serves, image and all",
         .plan = PORTS,
         .before = "push A; settle; forget A; registry down; remove web",
         .words = "registry up; look; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "what nobody has any more gives way to what the tag stands for",
         .plan = PORTS,
         .before = "push A; settle; push X; push Y; forget A; unpush A; registry down; remove web",
         .words = "push B; registry up; look; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "Y X"},
        {.name = "though it were condemned: it has its chance",
         .plan = PORTS,
         .before = "push A; settle; push X; forget A; unpush A",
         .words = "remove web",
         .boxes = "web=X-",
         .state = "failed",
         .quarantine = "X",
         .message = "it exited with status 3",
         .not_ready = true},
    };

    check_courses(courses, ELEMENTS(courses));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_of_the_machine_condemns_nobody),
        cmocka_unit_test(a_container_that_the_engine_would_not_heal_is_started_all_the_same),
        cmocka_unit_test(what_ends_the_engine_again_and_again_is_to_blame_for_it),
        cmocka_unit_test(an_engine_that_hangs_at_a_start_condemns_nobody),
        cmocka_unit_test(an_engine_that_hangs_at_the_first_start_is_waited_for),
        cmocka_unit_test(what_the_engine_starts_by_itself_is_stopped_again),
        cmocka_unit_test(what_somebody_took_away_is_made_anew),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
