/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of a container, by tables: what happens → what the engine is told in which
 * recorded state, and what is there in the end. */
#include "tests/unit/rollout-course.h"

static void forward_one_after_the_other_and_side_by_side(void **state)
{
    static const Course courses[] = {
        {.name = "the first one",
         .plan = PORTS,
         .words = "push A",
         .trace = "pulling: pull A\n"
                  "staged: create A web.next\n"
                  "switching: rename A web\n"
                  "switching: start A\n",
         .boxes = "web=A",
         .state = "committed",
         .quarantine = ""},
        {.name = "stop first",
         .plan = PORTS,
         .before = "push A; settle",
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
        {.name = "start first",
         .plan = "",
         .before = "push A; settle",
         .words = "push B",
         .trace = "pulling: pull B\n"
                  "staged: create B web.next\n"
                  "switching: start B\n"
                  "proving: rename A web.previous\n"
                  "proving: rename B web\n"
                  "proving: stop A\n",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "settled",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "settle",
         .trace = "committed: remove A\n",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
        {.name = "another secret with the same image",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "key 2; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
        {.name = "what is unchanged is left alone",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "look; agentd; look",
         .trace = "",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = ""},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void back_to_what_ran(void **state)
{
    static const Course courses[] = {
        {.name = "it crashes",
         .plan = PORTS,
         .before = "push A; settle",
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
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "X",
         .message = "it exited with status 3; this digest is quarantined"},
        {.name = "it is never healthy, beside what runs",
         .plan = "",
         .before = "push A; settle",
         .words = "push Y",
         .trace = "pulling: pull Y\n"
                  "staged: create Y web.next\n"
                  "switching: start Y\n"
                  "rolling-back: stop Y\n"
                  "rolling-back: remove Y\n",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "Y",
         .message = "its HEALTHCHECK fails"},
        {.name = "it has no such program",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "push Z",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "Z",
         .message = "executable file not found"},
        {.name = "a crash loop within the settle time",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "die B 3",
         .trace = "rolling-back: stop B\n"
                  "rolling-back: rename B web.next\n"
                  "rolling-back: rename A web\n"
                  "rolling-back: start A\n"
                  "rolling-back: remove B\n",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B",
         .message = "crash loop: it ended 3 times"},
        {.name = "a crash loop for want of memory",
         .plan = PORTS,
         .before = "push A; settle; push B; oom B",
         .words = "die B 3",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B",
         .message = "and was killed because the machine ran out of memory"},
        {.name = "a crash loop at its limit",
         .plan = PORTS "\"memory\": \"64MiB\",",
         .before = "push A; settle; push B; oom B",
         .words = "die B 3",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B",
         .message = "memory limit of 64.0 MiB"},
        {.name = "an image that is cleaned up while it is looked at",
         .plan = PORTS,
         .before = "push A; settle; fail 1 404 create = No such image",
         .words = "push B; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
        {.name = "a bad secret does not condemn the image",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "key 9",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "A/release",
         .message = "not the digest, but what the plan and the secrets make"},
        {.name = "and a mended one comes in by itself",
         .plan = PORTS,
         .before = "push A; settle; key 9",
         .words = "key 3; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "A/release"},
        {.name = "the tag moves on",
         .plan = PORTS,
         .before = "push A; settle; push X",
         .words = "push B; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "X"},
        {.name = "what went back settles, whatever the tag stands for",
         .plan = PORTS,
         .before = "push A; settle; push X",
         .words = "look",
         .trace = "",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "also where the registry is away",
         .plan = PORTS,
         .before = "push A; settle; push X; registry down",
         .words = "look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X",
         .message = "403"},
        {.name = "also where the secret is what is bad",
         .plan = PORTS,
         .before = "push A; settle; key 9",
         .words = "look",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "A/release",
         .message = "not the digest, but what the plan and the secrets make"},
        {.name = "the first one crashes: there is no way back",
         .plan = PORTS,
         .words = "push X; push B",
         .boxes = "web=B web.previous=X-",
         .state = "committed",
         .quarantine = ""},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void health_by_http_is_all_that_counts_where_the_plan_gives_it(void **state)
{
    static const Course courses[] = {
        {.name = "a HEALTHCHECK that fails after the rollout",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "unhealthy B",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B",
         .message = "its HEALTHCHECK turned unhealthy after the rollout"},
        {.name = "or when it has settled",
         .plan = PORTS,
         .before = "push A; settle",
         .words = "unhealthy A",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "",
         .not_ready = true},
        {.name = "is not obeyed in the rollout",
         .plan = PORTS HTTP,
         .before = "push A; settle",
         .words = "push Y",
         .boxes = "web=Y web.previous=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "nor after it",
         .plan = PORTS HTTP,
         .before = "push A; settle; push B",
         .words = "unhealthy B; look; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = ""},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void what_has_not_settled_keeps_what_it_would_go_back_to(void **state)
{
    static const Course courses[] = {
        {.name = "while the next one is proved",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "push C",
         .trace = "pulling: pull C\n"
                  "staged: create C web.next\n"
                  "switching: rename A web.earlier\n"
                  "switching: rename B web.previous\n"
                  "switching: rename C web\n"
                  "switching: stop B\n"
                  "switching: start C\n",
         .boxes = "web=C web.previous=B- web.earlier=A-",
         .state = "committed",
         .quarantine = ""},
        {.name = "and when the next one proved bad it is watched on",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "push X",
         .trace = "pulling: pull X\n"
                  "staged: create X web.next\n"
                  "switching: rename A web.earlier\n"
                  "switching: rename B web.previous\n"
                  "switching: rename X web\n"
                  "switching: stop B\n"
                  "switching: start X\n"
                  "rolling-back: rename X web.next\n"
                  "rolling-back: rename B web\n"
                  "rolling-back: start B\n"
                  "rolling-back: remove X\n"
                  "rolling-back: rename A web.previous\n",
         .boxes = "web=B web.previous=A-",
         .state = "committed",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "so that it goes back further",
         .plan = PORTS,
         .before = "push A; settle; push B; push X",
         .words = "die B 3",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B X",
         .message = "crash loop"},
        {.name = "or settles",
         .plan = PORTS,
         .before = "push A; settle; push B; push X; look",
         .words = "settle; look",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "one after the other",
         .plan = PORTS,
         .before = "push A; settle; push B; push C; die C 3",
         .words = "die B 3",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B C",
         .message = "crash loop"},
        {.name = "while the next one cannot be pulled it is watched, too",
         .plan = PORTS,
         .before = "push A; settle; push B; fail 99 500 pull = no; push C",
         .words = "die B 3",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "B",
         .message = "crash loop"},
        {.name = "and settles",
         .plan = PORTS,
         .before = "push A; settle; push B; fail 99 500 pull = no; push C",
         .words = "settle",
         .boxes = "web=B",
         .state = "pulling",
         .quarantine = "",
         .message = "pull"},
        {.name = "all of it goes when the last one has settled",
         .plan = PORTS,
         .before = "push A; settle; push B; push C",
         .words = "settle",
         .trace = "committed: remove A\n"
                  "committed: remove B\n",
         .boxes = "web=C",
         .state = "settled",
         .quarantine = ""},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void back_by_hand(void **state)
{
    static const Course courses[] = {
        {.name = "to the copy that is still there",
         .plan = PORTS,
         .before = "push A; settle; push B",
         .words = "rollback; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "rolled back by hand"},
        {.name = "to what was cleaned up meanwhile",
         .plan = PORTS,
         .before = "push A; settle; push B; settle; forget A",
         .words = "rollback",
         .trace = "pulling: pull A\n"
                  "staged: create A web.next\n"
                  "switching: rename B web.previous\n"
                  "switching: rename A web\n"
                  "switching: stop B\n"
                  "switching: start A\n",
         .boxes = "web=A web.previous=B-",
         .state = "committed",
         .quarantine = "B"},
        {.name = "with the secret of before",
         .plan = PORTS,
         .before = "push A; settle; key 2; settle",
         .words = "rollback; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "A/release",
         .message = "rolled back by hand"},
        {.name = "when it cannot be pulled now it is tried again, and what serves serves",
         .plan = PORTS,
         .before = "push A; settle; push B; settle; forget A; registry down; rollback; agentd",
         .words = "registry up; look; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "rolled back by hand"},
        {.name = "when nobody has it any more, what serves serves on",
         .plan = PORTS,
         .before = "push A; settle; push B; settle; forget A; unpush A; rollback",
         .words = "look; settle",
         .trace = "",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "B"},
        {.name = "and another secret does not bring it in again",
         .plan = PORTS,
         .before = "push A; settle; push B; settle; rollback; settle",
         .words = "key 2; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "rolled back by hand"},
        {.name = "from what came with another secret",
         .plan = PORTS,
         .before = "push A; settle; registry down; key 2; push B; registry up; look; settle",
         .words = "rollback; settle; look",
         .trace = "staged: create A web.next\n"
                  "switching: rename B web.previous\n"
                  "switching: rename A web\n"
                  "switching: stop B\n"
                  "switching: start A\n"
                  "committed: remove B\n",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "rolled back by hand"},
        {.name = "and goes on with the next one",
         .plan = PORTS,
         .before = "push A; settle; registry down; key 2; push B; registry up; look; settle; "
                   "rollback; settle",
         .words = "key 3; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "rolled back by hand"},
        {.name = "from what was kept although it is bad",
         .plan = PORTS KEEP,
         .before = "push A; settle; push Y",
         .words = "rollback; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "Y",
         .message = "rolled back by hand"},
        {.name = "from what crashes",
         .plan = PORTS,
         .before = "push A; settle; push B; die B 2",
         .words = "rollback; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "B",
         .message = "rolled back by hand"},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void a_bad_digest_comes_in_again_when_a_person_says_so(void **state)
{
    static const Course courses[] = {
        {.name = "not for another secret, which is followed with what serves",
         .plan = PORTS,
         .before = "push A; settle; push X",
         .words = "key 2",
         .trace = "staged: create A web.next\n"
                  "switching: rename A web.previous\n"
                  "switching: rename A web\n"
                  "switching: stop A\n"
                  "switching: start A\n",
         .boxes = "web=A web.previous=A-",
         .state = "committed",
         .quarantine = "X"},
        {.name = "and says so afterwards",
         .plan = PORTS,
         .before = "push A; settle; push X; key 2; settle",
         .words = "look",
         .trace = "",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "not for another plan",
         .plan = PORTS,
         .before = "push A; settle; push X",
         .words = "plan another; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "nor after a restart",
         .plan = PORTS,
         .before = "push A; settle; push X",
         .words = "agentd; key 2; reboot; settle",
         .boxes = "web=A",
         .state = "settled",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "but by a person",
         .plan = PORTS,
         .before = "push A; settle; push X",
         .words = "retry",
         .trace = "staged: create X web.next\n"
                  "switching: rename A web.previous\n"
                  "switching: rename X web\n"
                  "switching: stop A\n"
                  "switching: start X\n"
                  "rolling-back: rename X web.next\n"
                  "rolling-back: rename A web\n"
                  "rolling-back: start A\n"
                  "rolling-back: remove X\n",
         .boxes = "web=A",
         .state = "rolled-back",
         .quarantine = "X",
         .message = "this digest is quarantined"},
        {.name = "a digest that came with a bad secret is not condemned for it",
         .plan = PORTS,
         .before = "push A; settle; registry down; key 9; push B; registry up; look",
         .words = "key 3; settle",
         .boxes = "web=B",
         .state = "settled",
         .quarantine = "B/release"},
    };

    check_courses(courses, ELEMENTS(courses));
}

static void a_job_runs_once_a_release(void **state)
{
    static const Course courses[] = {
        {.name = "to its end",
         .plan = JOB,
         .before = "push A",
         .words = "end 0; look; agentd; reboot; look",
         .trace = "",
         .boxes = "web=A-",
         .state = "done",
         .quarantine = ""},
        {.name = "and not again because its successor cannot be started",
         .plan = JOB,
         .before = "push A; end 0",
         .words = "push Z; look",
         .trace = "pulling: pull Z\n"
                  "staged: create Z web.next\n"
                  "switching: rename A web.previous\n"
                  "switching: rename Z web\n"
                  "switching: start Z\n"
                  "rolling-back: rename Z web.next\n"
                  "rolling-back: rename A web\n"
                  "rolling-back: remove Z\n",
         .boxes = "web=A-",
         .state = "done",
         .quarantine = "Z",
         .message = "executable file not found"},
        {.name = "nor because somebody removed it",
         .plan = JOB,
         .before = "push A; end 0",
         .words = "remove web; look",
         .trace = "",
         .boxes = "",
         .state = "done",
         .quarantine = ""},
        {.name = "nor both",
         .plan = JOB,
         .before = "push A; end 0; remove web",
         .words = "push Z; look",
         .trace = "pulling: pull Z\n"
                  "staged: create Z web.next\n"
                  "switching: rename Z web\n"
                  "switching: start Z\n"
                  "rolling-back: rename Z web.next\n"
                  "rolling-back: remove Z\n",
         .boxes = "",
         .state = "done",
         .quarantine = "Z",
         .message = "executable file not found"},
        {.name = "nor when its tries are over",
         .plan = JOB,
         .before = "push A; end 7",
         .words = "push Z",
         .boxes = "web=A-",
         .state = "failed",
         .quarantine = "Z",
         .message = "exit status 7"},
        {.name = "but again when that broke its run off",
         .plan = JOB,
         .before = "push A; registry down; push Z; registry up",
         .words = "plan another",
         .boxes = "web=A",
         .state = "committed",
         .quarantine = "Z/release",
         .message = "executable file not found"},
        {.name = "and then to its end",
         .plan = JOB,
         .before = "push A; registry down; push Z; registry up; plan another",
         .words = "end 0",
         .boxes = "web=A-",
         .state = "done",
         .quarantine = "Z/release",
         .message = "executable file not found"},
    };

    check_courses(courses, ELEMENTS(courses));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_one_after_the_other_and_side_by_side),
        cmocka_unit_test(back_to_what_ran),
        cmocka_unit_test(health_by_http_is_all_that_counts_where_the_plan_gives_it),
        cmocka_unit_test(a_job_runs_once_a_release),
        cmocka_unit_test(back_by_hand),
        cmocka_unit_test(what_has_not_settled_keeps_what_it_would_go_back_to),
        cmocka_unit_test(a_bad_digest_comes_in_again_when_a_person_says_so),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
