/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/bus-fixture.h"

#include <fcntl.h>
#include <signal.h>

#include "agent/agentctl/verb.h"
#include "agent/base/buf.h"
#include "agent/io/json.h"
#include "agent/io/status-keys.h"

typedef struct Fixture {
    TestBus bus;
    pid_t agent, crawler;
    char *state_dir;
} Fixture;

/* ---- Daemons that answer Describe() with a text, and nothing else ---- */

static int on_describe(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return sd_bus_reply_method_return(m, "s", (const char *)userdata);
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Describe", "", "s", on_describe, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END,
};

static bool has_its_name(void *name)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    auto_(sd_bus_creds_unrefp) sd_bus_creds *creds = NULL;

    return bus_open(NULL, &bus, NULL) >= 0 &&
           sd_bus_get_name_creds(bus, name, SD_BUS_CREDS_UNIQUE_NAME, &creds) >= 0;
}

static pid_t start(const char *name, const char *path, const char *text)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        sd_event *event = NULL;
        sd_bus *bus = NULL;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (sd_event_new(&event) < 0 || bus_open(event, &bus, NULL) < 0 ||
            bus_serve(bus, name, path, name, vtable, (void *)(uintptr_t)text, NULL) < 0)
            _exit(99);
        _exit(sd_event_loop(event));
    }
    assert_true(wait_for(has_its_name, (void *)(uintptr_t)name));
    return pid;
}

static pid_t start_agent(const char *text)
{
    return start(BUS_AGENT_NAME, BUS_AGENT_PATH, text);
}

/* ---- agentctl in a process of its own, both outputs kept ---- */

typedef struct Run {
    int status;
    Buf out, err;
} Run;

static void run_done(Run *run)
{
    buf_done(&run->out);
    buf_done(&run->err);
}
#define auto_run auto_(run_done)

static void read_all(int fd, Buf *ret)
{
    char piece[4096];
    ssize_t n;

    *ret = BUF_INIT(1 << 20);
    while ((n = read(fd, piece, sizeof(piece))) > 0)
        assert_int_equal(buf_add(ret, piece, (size_t)n), 0);
    (void)close(fd);
}

static void agentctl_status(const Fixture *f, const char *option, Run *ret)
{
    const char *argv[] = {"agentctl", "status", "--state-dir", f->state_dir, option, NULL};
    int out[2], err[2], status;
    pid_t pid;

    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    (void)fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(out[1], STDOUT_FILENO);
        (void)dup2(err[1], STDERR_FILENO);
        _exit(agentctl_main(option ? 5 : 4, (char **)(uintptr_t)argv));
    }
    (void)close(out[1]);
    (void)close(err[1]);
    read_all(out[0], &ret->out);
    read_all(err[0], &ret->err);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    ret->status = WEXITSTATUS(status);
}

static json_t *json_of(const Run *run)
{
    auto_error Error err = {0};
    json_t *value = NULL;

    assert_ok(json_parse(run->out.data, run->out.size, "output", &value, &err), &err);
    return value;
}

static int up(void **state)
{
    static Fixture fixture;

    fixture = (Fixture){0};
    *state = &fixture;
    fixture.state_dir = test_dir_new();
    return test_bus_up(&fixture.bus);
}

static int down(void **state)
{
    Fixture *f = *state;

    end_process(&f->agent);
    end_process(&f->crawler);
    test_bus_down(&f->bus);
    test_dir_done(&f->state_dir);
    return 0;
}

/* ---- What it says, and how it exits ---- */

static const char well[] = "{\"kind\":\"agent\",\"state\":\"well\",\"vm\":{\"name\":\"vm-1\"}}";
static const char degraded[] =
    "{\"kind\":\"agent\",\"state\":\"degraded\",\"vm\":{\"name\":\"vm-1\","
    "\"message\":\"no metadata\",\"remedy\":\"look at DNS\"}}";
static const char crawler_well[] = "{\"kind\":\"crawler\",\"state\":\"well\"}";
static const char crawler_paused[] = "{\"kind\":\"crawler\",\"state\":\"paused\"}";

static void a_machine_that_is_well_exits_0(void **state)
{
    Fixture *f = *state;
    auto_run Run page = {0}, whole = {0};
    json_auto_t *document = NULL;

    f->agent = start_agent(well);
    f->crawler = start(BUS_CRAWLER_NAME, BUS_CRAWLER_PATH, crawler_well);
    agentctl_status(f, NULL, &page);
    assert_int_equal(page.status, EXIT_WELL);
    assert_contains(buf_str(&page.out), "vm-1 is well\n");
    assert_string_equal(buf_str(&page.err), "");
    assert_null(strchr(buf_str(&page.out), '\033'));

    agentctl_status(f, "--json", &whole);
    assert_int_equal(whole.status, EXIT_WELL);
    document = json_of(&whole);
    assert_true(json_flag(document, "reachable"));
    assert_string_equal(json_str(json_object_get(document, "crawler"), "kind"), "crawler");
}

static void a_degraded_machine_exits_1_and_says_why(void **state)
{
    Fixture *f = *state;
    auto_run Run run = {0};

    f->agent = start_agent(degraded);
    agentctl_status(f, NULL, &run);
    assert_int_equal(run.status, EXIT_DEGRADED);
    assert_contains(buf_str(&run.out), "! vm: no metadata\n    remedy: look at DNS\n");
}

static void a_paused_crawler_is_not_well_either(void **state)
{
    Fixture *f = *state;
    auto_run Run run = {0};

    f->agent = start_agent(well);
    f->crawler = start(BUS_CRAWLER_NAME, BUS_CRAWLER_PATH, crawler_paused);
    agentctl_status(f, NULL, &run);
    assert_int_equal(run.status, EXIT_DEGRADED);
}

static void without_agentd_the_recorded_state_is_shown_and_it_exits_2(void **state)
{
    Fixture *f = *state;
    auto_free char *path = path_join(f->state_dir, STATUS_FILE_NAME);
    auto_run Run nothing = {0}, page = {0}, whole = {0};
    json_auto_t *document = NULL;

    agentctl_status(f, NULL, &nothing);
    assert_int_equal(nothing.status, EXIT_UNREACHABLE);
    assert_contains(buf_str(&nothing.out), "is not running");
    assert_contains(buf_str(&nothing.out), "journalctl -u agentd");
    assert_contains(buf_str(&nothing.err), "agentd has recorded nothing in ");

    assert_int_equal(file_replace(path, well, strlen(well), 0600, NULL), 1);
    agentctl_status(f, NULL, &page);
    assert_int_equal(page.status, EXIT_UNREACHABLE);
    assert_contains(buf_str(&page.out), "vm-1 was well");
    assert_contains(buf_str(&page.out), "is not running");

    agentctl_status(f, "--json", &whole);
    assert_int_equal(whole.status, EXIT_UNREACHABLE);
    document = json_of(&whole);
    assert_true(json_is_false(json_object_get(document, "reachable")));
    assert_string_equal(json_str(document, "state"), "well");
    assert_contains(json_str(document, "message"), "is not running");
}

static void an_answer_that_is_no_document_is_said_and_not_shown(void **state)
{
    Fixture *f = *state;
    auto_run Run run = {0};

    f->agent = start_agent("{\"kind\":");
    agentctl_status(f, NULL, &run);
    assert_int_equal(run.status, EXIT_DEGRADED);
    assert_contains(buf_str(&run.out), "io.mervis.Agent1: line 1");
}

#define WITH_BUS(test) cmocka_unit_test_setup_teardown(test, up, down)

/* ---- What reads the output ---- */

static int schema_into(int out, Buf *ret_err)
{
    const char *argv[] = {"agentctl", "plan", "schema", NULL};
    int err[2], status;
    pid_t pid;

    assert_int_equal(pipe(err), 0);
    (void)fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGPIPE, SIG_IGN); /* as main() does */
        (void)dup2(out, STDOUT_FILENO);
        (void)dup2(err[1], STDERR_FILENO);
        _exit(agentctl_main(3, (char **)(uintptr_t)argv));
    }
    (void)close(out);
    (void)close(err[1]);
    read_all(err[0], ret_err);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_reader_that_has_seen_enough_is_no_fault(void **state)
{
    auto_buf Buf err = {0};
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    (void)close(fds[0]);
    assert_int_equal(schema_into(fds[1], &err), EXIT_WELL);
    assert_string_equal(buf_str(&err), "");
}

static void a_full_disk_is_one(void **state)
{
    auto_buf Buf err = {0};
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    if (full < 0)
        skip();
    assert_int_equal(schema_into(full, &err), EXIT_DEGRADED);
    assert_contains(buf_str(&err), "standard output: No space left on device");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(a_machine_that_is_well_exits_0),
        WITH_BUS(a_degraded_machine_exits_1_and_says_why),
        WITH_BUS(a_paused_crawler_is_not_well_either),
        WITH_BUS(without_agentd_the_recorded_state_is_shown_and_it_exits_2),
        WITH_BUS(an_answer_that_is_no_document_is_said_and_not_shown),
        cmocka_unit_test(a_reader_that_has_seen_enough_is_no_fault),
        cmocka_unit_test(a_full_disk_is_one),
    };

    if (!have_dbus_daemon()) {
        printf(BUS_SKIP_PLAN);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
