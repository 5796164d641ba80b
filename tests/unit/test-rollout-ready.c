/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a container is ready, at every step of its way: what /readyz tells a load balancer. */
#include "tests/unit/rollout-course.h"

#include "agent/io/json.h"
#include "agent/resource/container.h"

static void it_is_ready_while_something_serves_and_at_no_other_time(void **state)
{
    static const Course courses[] = {
        {.name = "the first one, from its proof on",
         .plan = PORTS,
         .words = "push A",
         .ready = "pull A-, create A web.next-, rename A web-, start A-",
         .boxes = "web=A",
         .state = "committed",
         .quarantine = ""},
        {.name = "stop first",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "push B",
         .ready = "pull B+, create B web.next+, rename A web.previous+, rename B web+, stop A-, "
                  "start B-",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "stop first, while the new one is proved",
         .plan = PORTS HTTP,
         .before = "push A; settle",
         .words = "push B",
         .ready = "pull B+, create B web.next+, rename A web.previous+, rename B web+, stop A-, "
                  "start B-, ask-",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "start first: all the time",
         .plan = "",
         .before = "push A; settle",
         .words = "push B; settle",
         .ready = "pull B+, create B web.next+, start B+, rename A web.previous+, rename B web+, "
                  "stop A+, remove A+",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
        {.name = "and back, stop first",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "push X",
         .ready = "pull X+, create X web.next+, rename A web.previous+, rename X web+, stop A-, "
                  "start X-, rename X web.next-, rename A web-, start A-, remove X-",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "X",
         .message = "it exited with status 3"},
        {.name = "and back, start first: all the time",
         .plan = "",
         .before = "push A; settle",
         .words = "push X",
         .ready = "pull X+, create X web.next+, start X+, remove X+",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "X",
         .message = "it exited with status 3"},
        {.name = "from what turned out bad",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "die B 3",
         .ready = "stop B-, rename B web.next-, rename A web-, start A-, remove B-",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B",
         .message = "crash loop"},
        {.name = "by hand",
         .plan = PORTS,
         .before = "push A; settle; push B; settle",
         .words = "rollback",
         .ready = "create A web.next+, rename B web.previous+, rename A web+, stop B-, start A-",
         .boxes = "web=A web.previous=B-",
         .state = "committed",
         .quarantine = "B"},
        {.name = "not while it is restarted",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "restart",
         .ready = "stop A-, start A-",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "what could not be stopped goes on",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 stop A = tried to kill it, and it did not die",
         .words = "push B",
         .ready = "pull B+, create B web.next+, rename A web.previous+, rename B web+, stop A-, "
                  "stop A-, start B-",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "nor what the engine does not rename, and is stopped for that",
         .plan = PORTS,
         .before = "push A; settle; fail 1 500 rename A = something else",
         .words = "push B",
         .ready = "pull B+, create B web.next+, rename A web.previous+, stop A-, "
                  "rename A web.previous-, rename B web-, start B-",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "nor what is gone and made anew",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "remove web",
         .ready = "create A web.next-, rename A web-, start A-",
         .boxes = "web=A",
         .state = "committed",
         .quarantine = ""},
    };

    check_courses(courses, ELEMENTS(courses));
}

/* As long as it takes, within limits. */
static void wait_until_ready(World *w)
{
    uint64_t end = now_boottime_usec() + 20 * SECOND;

    while (!container_is_ready(w->resource) && now_boottime_usec() < end)
        assert_true(sd_event_run(w->f.event, 100 * MSEC) >= 0);
    assert_true(container_is_ready(w->resource));
    assert_true(world_run(w));
}

static void what_is_asked_by_http_is_ready_when_it_has_answered_after_a_start(void **state)
{
    static const Course courses[] = {
        {.name = "after a boot",
         .plan = PORTS HTTP,
         .before = "push A; settle",
         .words = "reboot",
         .ready = "start A-, ask-",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "which it does not",
         .plan = PORTS HTTP,
         .before = "push A; settle; health down",
         .words = "reboot",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "",
         .message = "it runs, and is not well since it was started: ",
         .not_ready = true},
        {.name = "nor is a release condemned that was proved",
         .plan = PORTS HTTP,
         .before = "push A; settle; push B; health down",
         .words = "reboot; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "",
         .message = "answered HTTP 503",
         .not_ready = true},
        {.name = "when it was restarted",
         .plan = PORTS HTTP,
         .before = "push A; settle",
         .words = "restart",
         .ready = "stop A-, start A-, ask-",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "when it crashed, and the engine started it again",
         .plan = PORTS HTTP,
         .before = "push A; settle",
         .words = "die A 1",
         .ready = "ask-",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "when it was gone back to",
         .plan = PORTS HTTP,
         .before = "push A; settle",
         .words = "push X",
         .ready = "pull X+, create X web.next+, rename A web.previous+, rename X web+, stop A-, "
                  "start X-, rename X web.next-, rename A web-, start A-, remove X-, ask-",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "X",
         .message = "it exited with status 3"},
        {.name = "when agentd is new, and knows no answer",
         .plan = PORTS HTTP,
         .before = "push A; settle",
         .words = "agentd",
         .ready = "ask-",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "but not after its rollout: that was its answer",
         .plan = PORTS HTTP,
         .before = "push A; settle; push B",
         .words = "look; settle; plan another; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
        {.name = "nor where its image has a HEALTHCHECK",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "reboot",
         .ready = "start A-",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void it_is_ready_as_soon_as_it_answers_however_late(void **state)
{
    auto_(world_freep) World *w = world_new(PORTS HTTP, /* is_job= */ false);
    json_auto_t *silent = NULL, *well = NULL;

    world_do(w, "push A; settle; health down; reboot");
    assert_false(container_is_ready(w->resource));
    silent = container_describe(w->resource);
    assert_string_equal(json_str(silent, "health"), "unhealthy");
    assert_contains(w->error.remedy, "agentctl logs web");
    w->silent = false;
    wait_until_ready(w);
    assert_int_equal(w->error.code, 0);
    well = container_describe(w->resource);
    assert_string_equal(json_str(well, "health"), "healthy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_ready_while_something_serves_and_at_no_other_time),
        cmocka_unit_test(what_is_asked_by_http_is_ready_when_it_has_answered_after_a_start),
        cmocka_unit_test(it_is_ready_as_soon_as_it_answers_however_late),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
