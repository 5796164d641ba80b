/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/daemon.h"

/* ---- Options ---- */

typedef struct Parsed {
    DaemonOptions options;
    const char *plan, *once;
    int first, result;
    char *output; /* standard output and error together */
} Parsed;

static void parsed_done(Parsed *parsed)
{
    free(parsed->output);
}
#define auto_parsed auto_(parsed_done)

/* Parses argv[1] and on; `operands` as daemon_parse_options() takes it. */
static Parsed parse(const char *operands, const char *const *words)
{
    Parsed parsed = {.options = {.state_dir = "/state", .root = "/"}, .first = -1};
    FILE *saved_out = stdout, *saved_err = stderr, *memory;
    const DaemonOption extra[] = {
        {"plan", "FILE", &parsed.plan, "the plan to use"},
        {"once", NULL, &parsed.once, "run once and exit"},
        {0},
    };
    char *argv[16] = {(char *)(uintptr_t) "demo"};
    size_t size;
    int argc = 1;

    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];

    memory = open_memstream(&parsed.output, &size);
    assert_non_null(memory);
    stdout = stderr = memory;
    parsed.result = daemon_parse_options(argc, argv, "demo", "Shows how options work.", operands,
                                         extra, &parsed.options, &parsed.first);
    stdout = saved_out;
    stderr = saved_err;
    (void)fclose(memory);
    return parsed;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void options_are_read_in_both_forms_up_to_the_first_operand(void **state)
{
    auto_parsed Parsed p = parse(
        "[FILE…]", WORDS("--plan=a=b", "--state-dir", "/x", "--once", "go", "--engine", "/sock"));

    assert_int_equal(p.result, 1);
    assert_string_equal(p.plan, "a=b");
    assert_string_equal(p.options.state_dir, "/x");
    assert_non_null(p.once);
    assert_string_equal(p.options.root, "/");
    assert_null(p.options.engine);
    assert_int_equal(p.first, 5);
    assert_string_equal(p.output, "");
}

static void a_double_dash_ends_the_options(void **state)
{
    auto_parsed Parsed p = parse("WORD", WORDS("--once", "--", "--plan"));

    assert_int_equal(p.result, 1);
    assert_int_equal(p.first, 3);
    assert_null(p.plan);
}

static void a_daemon_without_operands_need_not_ask_where_they_begin(void **state)
{
    char *argv[] = {(char *)(uintptr_t) "demo", (char *)(uintptr_t) "--root=/x", NULL};
    DaemonOptions options = {0};

    assert_int_equal(daemon_parse_options(2, argv, "demo", "Shows.", NULL, NULL, &options, NULL),
                     1);
    assert_string_equal(options.root, "/x");
}

static void debug_raises_the_log_level(void **state)
{
    auto_parsed Parsed p = parse(NULL, WORDS("--debug"));

    assert_int_equal(p.result, 1);
    assert_true(p.options.debug);
    assert_int_equal(log_level(), LOG_LEVEL_DEBUG);
    log_set_level(LOG_LEVEL_INFO);
}

static void help_lists_every_option_and_ends(void **state)
{
    auto_parsed Parsed p = parse("[FILE…]", WORDS("--help"));

    assert_int_equal(p.result, 0);
    assert_non_null(strstr(p.output, "Usage: demo [OPTION…] [FILE…]\n"));
    assert_non_null(strstr(p.output, "  --plan FILE             the plan to use\n"));
    assert_non_null(strstr(p.output, "--state-dir DIR"));
    assert_non_null(strstr(p.output, "--version"));
}

static void wrong_usage_is_refused_with_what_was_meant(void **state)
{
    const struct {
        const char *const *words;
        const char *says;
    } cases[] = {
        {WORDS("--stat-dir", "/x"), "there is no option --stat-dir; did you mean --state-dir?"},
        {WORDS("--zzzzzzzz"), "there is no option --zzzzzzzz\n"},
        {WORDS("--plan"), "--plan wants a value: --plan FILE"},
        {WORDS("--once=1"), "--once takes no value"},
        {WORDS("-x"), "there is no option -x"},
        {WORDS("extra"), "\"extra\" is one argument too many"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_parsed Parsed p = parse(NULL, cases[i].words);

        assert_int_equal(p.result, -EINVAL);
        if (!strstr(p.output, cases[i].says))
            fail_msg("expected \"%s\" in \"%s\"", cases[i].says, p.output);
        assert_int_equal(p.first, -1);
    }
}

/* ---- The service manager's side ---- */

typedef struct Manager {
    int fd;
    char path[64];
} Manager;

static int manager_up(void **state)
{
    static Manager manager;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = 5};

    (void)snprintf(manager.path, sizeof(manager.path), "/tmp/test-daemon-%d.sock", (int)getpid());
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", manager.path);
    manager.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (manager.fd < 0 || bind(manager.fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(manager.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
        return -1;
    (void)setenv("NOTIFY_SOCKET", manager.path, 1);
    *state = &manager;
    return 0;
}

static int manager_down(void **state)
{
    Manager *manager = *state;

    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unlink(manager->path);
    manager->fd = close_fd(manager->fd);
    return 0;
}

/* The next message; "" when none comes in time. */
static const char *manager_hears(Manager *manager)
{
    static char text[512];
    ssize_t n = recv(manager->fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static int exit_well(sd_event_source *source, uint64_t usec, void *userdata)
{
    return sd_event_exit(userdata, 7);
}

static void readiness_status_and_watchdog_reach_the_service_manager(void **state)
{
    auto_(sd_event_unrefp) sd_event *event = NULL;
    Manager *manager = *state;
    bool fed = false;

    (void)setenv("WATCHDOG_USEC", "200000", 1);
    assert_int_equal(sd_event_new(&event), 0);
    assert_int_equal(daemon_ready(event, "all is well", NULL), 0);
    assert_int_equal(sd_event_add_time_relative(event, NULL, CLOCK_MONOTONIC, 300 * MSEC, MSEC,
                                                exit_well, event),
                     0);
    assert_int_equal(daemon_run(event), 7);

    for (int i = 0; i < 3; i++) {
        const char *text = manager_hears(manager);

        if (streq(text, "WATCHDOG=1"))
            fed = true;
        else
            assert_string_equal(text, "READY=1\nSTATUS=all is well");
    }
    assert_true(fed);
}

static void a_status_is_always_one_line(void **state)
{
    Manager *manager = *state;

    daemon_status("pulling %s\nREADY=0", "mervis");
    assert_string_equal(manager_hears(manager), "STATUS=pulling mervis READY=0");
    daemon_stopping("draining");
    assert_string_equal(manager_hears(manager), "STOPPING=1\nSTATUS=draining");
}

static void readiness_without_a_service_manager_is_no_failure(void **state)
{
    auto_(sd_event_unrefp) sd_event *event = NULL;

    assert_int_equal(sd_event_new(&event), 0);
    assert_int_equal(daemon_ready(event, "alone", NULL), 0);
}

static void a_hardened_process_leaves_no_core_and_survives_a_closed_pipe(void **state)
{
    int status, pipe_fds[2];
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit core;

        daemon_harden();
        if (getrlimit(RLIMIT_CORE, &core) < 0 || core.rlim_max != 0)
            _exit(1);
#if !defined(__SANITIZE_ADDRESS__)
        if (prctl(PR_GET_DUMPABLE) != 0)
            _exit(2);
#endif
        if (pipe(pipe_fds) < 0)
            _exit(3);
        (void)close(pipe_fds[0]);
        _exit(write(pipe_fds[1], "x", 1) < 0 && errno == EPIPE ? 0 : 4);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read_in_both_forms_up_to_the_first_operand),
        cmocka_unit_test(a_double_dash_ends_the_options),
        cmocka_unit_test(a_daemon_without_operands_need_not_ask_where_they_begin),
        cmocka_unit_test(debug_raises_the_log_level),
        cmocka_unit_test(help_lists_every_option_and_ends),
        cmocka_unit_test(wrong_usage_is_refused_with_what_was_meant),
        cmocka_unit_test_setup_teardown(readiness_status_and_watchdog_reach_the_service_manager,
                                        manager_up, manager_down),
        cmocka_unit_test_setup_teardown(a_status_is_always_one_line, manager_up, manager_down),
        cmocka_unit_test(readiness_without_a_service_manager_is_no_failure),
        cmocka_unit_test(a_hardened_process_leaves_no_core_and_survives_a_closed_pipe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
