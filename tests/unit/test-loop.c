/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"

typedef struct Fixture {
    sd_event *event;
    Timer *timer, *other;
    unsigned fired;
    uint64_t fired_at;
    Child *child;
    bool ended, timed_out;
    int status;
    char *output;
    int signal_number;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    auto_error Error error = {0};

    assert_non_null(f);
    assert_ok(loop_new(&f->event, &error), &error);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    timer_free(f->timer);
    timer_free(f->other);
    child_free(f->child);
    sd_event_unref(f->event);
    free(f->output);
    free(f);
    return 0;
}

static void run_for(Fixture *f, uint64_t usec)
{
    uint64_t end = now_boottime_usec() + usec;

    while (now_boottime_usec() < end)
        assert_true(sd_event_run(f->event, 5 * MSEC) >= 0);
}

static void run_until(Fixture *f, const bool *done)
{
    uint64_t end = now_boottime_usec() + 20 * SECOND;

    while (!*done) {
        if (now_boottime_usec() > end)
            fail_msg("nothing happened");
        assert_true(sd_event_run(f->event, 50 * MSEC) >= 0);
    }
}

/* --- Timers --------------------------------------------------------------------------------- */

static void on_fired(void *userdata)
{
    Fixture *f = userdata;

    f->fired++;
    f->fired_at = now_boottime_usec();
}

static void a_timer_fires_once_and_not_early(void **state)
{
    Fixture *f = *state;
    uint64_t begin = now_boottime_usec();

    assert_int_equal(timer_new(f->event, on_fired, f, &f->timer), 0);
    assert_false(timer_is_set(f->timer));
    assert_true(timer_left_usec(f->timer) == USEC_INFINITY);
    assert_true(timer_set(f->timer, 50 * MSEC, 0) >= 0);
    assert_true(timer_is_set(f->timer));
    assert_in_range(timer_left_usec(f->timer), 1, 50 * MSEC);
    run_for(f, 150 * MSEC);
    assert_int_equal(f->fired, 1);
    assert_true(f->fired_at - begin >= 50 * MSEC);
    assert_false(timer_is_set(f->timer));
}

static void a_timer_set_again_forgets_the_former_time(void **state)
{
    Fixture *f = *state;

    assert_int_equal(timer_new(f->event, on_fired, f, &f->timer), 0);
    assert_true(timer_set(f->timer, 0, 0) >= 0);
    assert_true(timer_set(f->timer, 10 * SECOND, 0) >= 0);
    run_for(f, 30 * MSEC);
    assert_int_equal(f->fired, 0);
    assert_true(timer_set(f->timer, 0, 0) >= 0);
    run_for(f, 30 * MSEC);
    assert_int_equal(f->fired, 1);
    assert_true(timer_set(f->timer, 0, 0) >= 0);
    timer_cancel(f->timer);
    run_for(f, 30 * MSEC);
    assert_true(timer_set(f->timer, USEC_INFINITY, 0) >= 0);
    assert_false(timer_is_set(f->timer));
    assert_int_equal(f->fired, 1);
}

static void a_timer_that_is_put_off_fires_at_the_later_time_only(void **state)
{
    Fixture *f = *state;
    uint64_t begin;

    assert_int_equal(timer_new(f->event, on_fired, f, &f->timer), 0);
    assert_true(timer_set(f->timer, 300 * MSEC, 0) >= 0);
    run_for(f, MSEC);
    begin = now_boottime_usec();
    assert_true(timer_set(f->timer, 500 * MSEC, 0) >= 0);
    assert_in_range(timer_left_usec(f->timer), 1, 500 * MSEC);
    run_for(f, 600 * MSEC);
    assert_int_equal(f->fired, 1);
    assert_true(f->fired_at - begin >= 500 * MSEC);
    assert_false(timer_is_set(f->timer));

    /* At once, although it is armed for later; and what it was armed for comes to nothing. */
    assert_true(timer_set(f->timer, 300 * MSEC, 0) >= 0);
    run_for(f, MSEC);
    assert_true(timer_set(f->timer, 0, 0) >= 0);
    assert_true(timer_is_set(f->timer));
    assert_int_equal(timer_left_usec(f->timer), 0);
    run_for(f, 400 * MSEC);
    assert_int_equal(f->fired, 2);
    assert_false(timer_is_set(f->timer));
}

static void a_timer_is_brought_forward(void **state)
{
    Fixture *f = *state;

    assert_int_equal(timer_new(f->event, on_fired, f, &f->timer), 0);
    assert_true(timer_set(f->timer, 10 * SECOND, 5 * SECOND) >= 0);
    run_for(f, MSEC);
    assert_true(timer_set(f->timer, 10 * MSEC, 0) >= 0);
    run_for(f, 100 * MSEC);
    assert_int_equal(f->fired, 1);

    /* A little later, but without the slack of before. */
    assert_true(timer_set(f->timer, 10 * MSEC, 10 * SECOND) >= 0);
    assert_true(timer_set(f->timer, 20 * MSEC, 0) >= 0);
    run_for(f, 200 * MSEC);
    assert_int_equal(f->fired, 2);
}

static void free_both(void *userdata)
{
    Fixture *f = userdata;

    f->fired++;
    f->timer = timer_free(f->timer);
    f->other = timer_free(f->other);
}

static void a_timer_may_free_itself_and_others(void **state)
{
    Fixture *f = *state;

    assert_int_equal(timer_new(f->event, free_both, f, &f->timer), 0);
    assert_int_equal(timer_new(f->event, free_both, f, &f->other), 0);
    assert_true(timer_set(f->timer, 0, 0) >= 0 && timer_set(f->other, 0, 0) >= 0);
    run_for(f, 30 * MSEC);
    assert_int_equal(f->fired, 1);
}

/* --- Children ------------------------------------------------------------------------------- */

static void on_ended(int status, bool timed_out, const Buf *output, void *userdata)
{
    Fixture *f = userdata;

    f->ended = true;
    f->status = status;
    f->timed_out = timed_out;
    f->output = strdup(buf_str(output));
    f->child = child_free(f->child);
}

/* valgrind before 3.20 does not know the system call. */
static void need_pidfd(void)
{
    auto_close int fd = pidfd_open(getpid(), 0);

    if (fd < 0 && errno == ENOSYS)
        skip();
}

static void spawn(Fixture *f, const ChildSpec *spec)
{
    auto_error Error error = {0};

    need_pidfd();
    assert_ok(child_spawn(f->event, spec, on_ended, f, &f->child, &error), &error);
}

static void a_child_gives_its_output_and_its_status(void **state)
{
    Fixture *f = *state;
    const char *const argv[] = {"sh", "-c",
                                "read x; echo \"got $x in $WHERE\"; echo bad >&2; exit 3", NULL};
    const char *const env[] = {"PATH=/bin:/usr/bin", "WHERE=here", NULL};

    spawn(f, &(ChildSpec){
                 .argv = argv, .env = env, .input = "word\n", .input_size = 5, .max_output = 1000});
    run_until(f, &f->ended);
    assert_true(WIFEXITED(f->status));
    assert_int_equal(WEXITSTATUS(f->status), 3);
    assert_string_equal(f->output, "got word in here\nbad\n");
    assert_false(f->timed_out);
}

static void output_over_the_ceiling_is_dropped_and_stops_nobody(void **state)
{
    Fixture *f = *state;
    const char *const argv[] = {"sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x", NULL};

    spawn(f, &(ChildSpec){.argv = argv, .max_output = 100});
    run_until(f, &f->ended);
    assert_int_equal(f->status, 0);
    assert_int_equal(strlen(f->output), 100);
}

static void a_grandchild_that_keeps_the_pipe_holds_nobody_up(void **state)
{
    Fixture *f = *state;
    const char *const argv[] = {"sh", "-c", "sleep 5 & echo $!", NULL};
    uint64_t begin = now_boottime_usec(), sleeper = 0;

    spawn(f, &(ChildSpec){.argv = argv, .max_output = 100});
    run_until(f, &f->ended);
    assert_true(now_boottime_usec() - begin < 3 * SECOND);
    assert_int_equal(parse_u64_n(f->output, strcspn(f->output, "\n"), &sleeper), 0);
    assert_int_equal(kill((pid_t)sleeper, SIGKILL), 0);
}

static void a_child_over_its_time_is_ended(void **state)
{
    Fixture *f = *state;
    const char *const argv[] = {"sleep", "30", NULL};

    spawn(f, &(ChildSpec){.argv = argv, .timeout_usec = 50 * MSEC, .max_output = 100});
    run_until(f, &f->ended);
    assert_true(f->timed_out);
    assert_true(WIFSIGNALED(f->status));
    assert_int_equal(WTERMSIG(f->status), SIGTERM);
}

static void a_child_that_is_freed_dies_with_its_group_and_leaves_no_zombie(void **state)
{
    Fixture *f = *state;
    const char *const argv[] = {"sh", "-c", "sleep 30 & wait", NULL};
    int status = 0;
    pid_t pid;

    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* the grandchild's end is shown to us */
    spawn(f, &(ChildSpec){.argv = argv, .max_output = 100});
    pid = child_pid(f->child);
    run_for(f, 100 * MSEC);
    f->child = child_free(f->child);
    run_for(f, 300 * MSEC);
    assert_false(f->ended);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_true(waitpid(-pid, &status, WNOHANG) > 0);
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void a_program_that_is_not_there_is_an_error_at_once(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    const char *const argv[] = {"/nowhere/program", NULL};

    assert_int_equal(
        child_spawn(f->event, &(ChildSpec){.argv = argv}, on_ended, f, &f->child, &error), -ENOENT);
    assert_contains(error_text(&error), "/nowhere/program");
    assert_null(f->child);
}

static int add_up(void *arg)
{
    const int *n = arg;

    return *n + 1;
}

static void a_function_runs_in_a_process_of_its_own(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};
    int n = 41;

    need_pidfd();
    assert_ok(child_fork(f->event, add_up, &n, 10 * SECOND, on_ended, f, &f->child, &error),
              &error);
    run_until(f, &f->ended);
    assert_int_equal(WEXITSTATUS(f->status), 42);
}

static void children_begin_with_no_blocked_signals(void **state)
{
    Fixture *f = *state;
    const char *const argv[] = {"sh", "-c", "grep -E 'SigBlk|SigIgn' /proc/self/status", NULL};
    sigset_t set, old;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, &old);
    spawn(f, &(ChildSpec){.argv = argv, .max_output = 1000});
    run_until(f, &f->ended);
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
    assert_contains(f->output, "SigBlk:\t0000000000000000");
}

/* --- Signals -------------------------------------------------------------------------------- */

static void on_signal(int signal_number, void *userdata)
{
    Fixture *f = userdata;

    f->signal_number = signal_number;
    f->ended = true;
}

static void signals_reach_the_loop(void **state)
{
    Fixture *f = *state;
    auto_error Error error = {0};

    assert_ok(loop_watch_signals(f->event, on_signal, f, &error), &error);
    assert_int_equal(raise(SIGTERM), 0);
    run_until(f, &f->ended);
    assert_int_equal(f->signal_number, SIGTERM);
    f->ended = false;
    assert_int_equal(raise(SIGHUP), 0);
    run_until(f, &f->ended);
    assert_int_equal(f->signal_number, SIGHUP);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
TEST_MAIN(TEST(a_timer_fires_once_and_not_early), TEST(a_timer_set_again_forgets_the_former_time),
          TEST(a_timer_that_is_put_off_fires_at_the_later_time_only),
          TEST(a_timer_is_brought_forward), TEST(a_timer_may_free_itself_and_others),
          TEST(a_child_gives_its_output_and_its_status),
          TEST(output_over_the_ceiling_is_dropped_and_stops_nobody),
          TEST(a_grandchild_that_keeps_the_pipe_holds_nobody_up),
          TEST(a_child_over_its_time_is_ended),
          TEST(a_child_that_is_freed_dies_with_its_group_and_leaves_no_zombie),
          TEST(a_program_that_is_not_there_is_an_error_at_once),
          TEST(a_function_runs_in_a_process_of_its_own),
          TEST(children_begin_with_no_blocked_signals), TEST(signals_reach_the_loop))
