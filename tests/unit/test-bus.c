/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/bus-fixture.h"

#include <errno.h>

#include "agent/base/buf.h"
#include "agent/base/log.h"
#include "agent/base/time.h"

#define NAME      "io.mervis.Test1"
#define PATH      "/io/mervis/Test1"
#define INTERFACE "io.mervis.Test1"
#define NOBODY    65534

/* ---- A bus of the test's own, and a service on it ---- */

typedef struct Fixture {
    TestBus bus;
    pid_t service;
} Fixture;

static int on_describe(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return sd_bus_reply_method_return(m, "s", "{\"state\":\"well\"}");
}

static int on_join(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const char *a, *b;
    auto_free char *both = NULL;

    if (sd_bus_message_read(m, "ss", &a, &b) < 0)
        return -EINVAL;
    both = str_printf("%s+%s", a, b);
    return sd_bus_reply_method_return(m, "s", both);
}

static int on_change(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    int r = bus_require_root(m, "retry NAME", error);

    return r < 0 ? r : sd_bus_reply_method_return(m, "s", "changed");
}

static int on_fail(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    auto_error Error err = {0};

    (void)error_set(&err, -EACCES, ERROR_DENIED, "registry: 403");
    (void)error_remedy(&err, err.code, "grant roles/artifactregistry.reader");
    return bus_error_from(error, &err);
}

static int on_silent(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    (void)sd_bus_message_ref(m);
    return 1;
}

static int on_number(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return sd_bus_reply_method_return(m, "u", 7);
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Describe", "", "s", on_describe, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Join", "ss", "s", on_join, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Change", "", "s", on_change, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Fail", "", "s", on_fail, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Silent", "", "s", on_silent, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Number", "", "u", on_number, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END,
};

/* Serves until killed, or until the loop exits by itself: then its exit status. */
static pid_t start_service(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        sd_event *event = NULL;
        sd_bus *bus = NULL;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        log_set_level(0); /* its last words are not the test's */
        if (sd_event_new(&event) < 0 || bus_open(event, &bus, NULL) < 0 ||
            bus_serve(bus, NAME, PATH, INTERFACE, vtable, NULL, NULL) < 0)
            _exit(99);
        _exit(sd_event_loop(event));
    }
    return pid;
}

static bool service_answers(void *userdata)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    auto_free char *text = NULL;

    return bus_open(NULL, &bus, NULL) >= 0 &&
           bus_call_text(bus, NAME, PATH, INTERFACE, "Describe", NULL, SECOND, &text, NULL) >= 0;
}

static int bus_up(void **state)
{
    static Fixture fixture;

    *state = &fixture;
    if (test_bus_up(&fixture.bus) < 0)
        return -1;
    fixture.service = start_service();
    return wait_for(service_answers, NULL) ? 0 : -1;
}

static int bus_down(void **state)
{
    Fixture *f = *state;

    end_process(&f->service);
    test_bus_down(&f->bus);
    return 0;
}

static int call_text(const char *method, const char *const *args, uint64_t timeout, char **ret,
                     Error *err)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    int r;

    r = bus_open(NULL, &bus, err);
    if (r < 0)
        return r;
    return bus_call_text(bus, NAME, PATH, INTERFACE, method, args, timeout, ret, err);
}

/* ---- Blocking calls ---- */

static void a_call_brings_back_the_text(void **state)
{
    auto_free char *text = NULL, *joined = NULL;
    auto_error Error err = {0};

    assert_ok(call_text("Describe", NULL, SECOND, &text, &err), &err);
    assert_string_equal(text, "{\"state\":\"well\"}");
    assert_ok(
        call_text("Join", (const char *const[]){"메르비스", "b", NULL}, SECOND, &joined, &err),
        &err);
    assert_string_equal(joined, "메르비스+b");
}

static void a_name_that_nobody_owns_is_said_to_be_not_running(void **state)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    auto_free char *text = NULL;
    auto_error Error err = {0};

    assert_ok(bus_open(NULL, &bus, &err), &err);
    assert_int_equal(bus_call_text(bus, BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE,
                                   "Describe", NULL, SECOND, &text, &err),
                     -ESRCH);
    assert_string_equal(error_text(&err), "agentd is not running");
    assert_int_equal(err.kind, ERROR_TEMPORARY);
    assert_null(text);
}

static void a_service_that_never_answers_costs_the_limit_and_no_more(void **state)
{
    uint64_t before = now_boottime_usec(), took;
    auto_free char *text = NULL;
    auto_error Error err = {0};

    assert_int_equal(call_text("Silent", NULL, 200 * MSEC, &text, &err), -ETIMEDOUT);
    took = now_boottime_usec() - before;
    assert_in_range(took, 190 * MSEC, 3 * SECOND);
}

static void a_failure_keeps_its_kind_message_and_remedy_over_the_bus(void **state)
{
    auto_free char *text = NULL;
    auto_error Error err = {0};

    assert_int_equal(call_text("Fail", NULL, SECOND, &text, &err), -EPERM);
    assert_int_equal(err.kind, ERROR_DENIED);
    assert_string_equal(error_text(&err), NAME ": registry: 403");
    assert_string_equal(err.remedy, "grant roles/artifactregistry.reader");
}

static void a_reply_of_another_type_is_refused(void **state)
{
    auto_free char *text = NULL;
    auto_error Error err = {0};

    assert_int_equal(call_text("Number", NULL, SECOND, &text, &err), -EBADMSG);
    assert_int_equal(err.kind, ERROR_CORRUPT);
    error_done(&err);
    assert_int_equal(call_text("Unheard", NULL, SECOND, &text, &err), -ENOSYS);
}

static void no_bus_at_all_names_the_unit_to_start(void **state)
{
    auto_free char *saved = strdup(getenv("DBUS_SYSTEM_BUS_ADDRESS"));
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    auto_error Error err = {0};

    (void)setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus", 1);
    assert_int_equal(bus_open(NULL, &bus, &err), -ENOENT);
    (void)setenv("DBUS_SYSTEM_BUS_ADDRESS", saved, 1);
    assert_int_equal(err.kind, ERROR_TEMPORARY);
    assert_contains(err.remedy, "dbus");
}

/* ---- Who may change something ---- */

static void root_may_change_and_others_are_told_the_command(void **state)
{
    auto_free char *text = NULL;
    auto_error Error err = {0};
    int status;
    pid_t pid;

    /* The service runs as the test's user, who is taken for root in tests. */
    assert_ok(call_text("Change", NULL, SECOND, &text, &err), &err);
    assert_string_equal(text, "changed");
    if (getuid() != 0)
        return;

    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
            _exit(1);
        if (call_text("Describe", NULL, SECOND, &text, &err) < 0)
            _exit(2);
        if (call_text("Change", NULL, SECOND, &text, &err) != -EPERM)
            _exit(3);
        if (err.kind != ERROR_DENIED || !streq_ptr(err.remedy, "sudo agentctl retry NAME"))
            _exit(4);
        error_done(&err);
        if (call_text("Forbidden", NULL, SECOND, &text, &err) != -EPERM ||
            !streq_ptr(err.remedy, "run the same command with sudo"))
            _exit(5);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- Calls that do not block ---- */

typedef struct Waiter {
    sd_event *event;
    BusCall *call;
    char *text;
    int code, calls;
} Waiter;

static void on_text(const char *text, const Error *err, void *userdata)
{
    Waiter *w = userdata;

    w->calls++;
    w->code = err ? err->code : 0;
    assert_int_equal(str_set(&w->text, text), 0);
    w->call = bus_call_free(w->call); /* a handler may free its own call */
    (void)sd_event_exit(w->event, 0);
}

static int stop_loop(sd_event_source *source, uint64_t usec, void *userdata)
{
    return sd_event_exit(sd_event_source_get_event(source), 1);
}

static int ask(Waiter *w, sd_bus *bus, const char *method)
{
    return bus_call_text_async(bus, NAME, PATH, INTERFACE, method, NULL, 200 * MSEC, on_text, w,
                               &w->call, NULL);
}

static void an_asynchronous_call_reports_once(void **state)
{
    static const struct {
        const char *method;
        int code;
        const char *text;
    } cases[] = {
        {"Describe", 0, "{\"state\":\"well\"}"},
        {"Fail", -EPERM, NULL},
        {"Silent", -ETIMEDOUT, NULL},
        {"Number", -EBADMSG, NULL},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_(sd_event_unrefp) sd_event *event = NULL;
        auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        Waiter w = {0};

        assert_int_equal(sd_event_new(&event), 0);
        assert_int_equal(bus_open(event, &bus, NULL), 0);
        w.event = event;
        assert_int_equal(ask(&w, bus, cases[i].method), 0);
        assert_int_equal(w.calls, 0);
        assert_int_equal(sd_event_loop(event), 0);
        assert_int_equal(w.calls, 1);
        assert_int_equal(w.code, cases[i].code);
        assert_true(streq_ptr(w.text, cases[i].text));
        free(w.text);
    }
}

static void freeing_a_call_cancels_it(void **state)
{
    auto_(sd_event_unrefp) sd_event *event = NULL;
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    Waiter w = {0};

    assert_int_equal(sd_event_new(&event), 0);
    assert_int_equal(bus_open(event, &bus, NULL), 0);
    w.event = event;
    assert_int_equal(ask(&w, bus, "Describe"), 0);
    w.call = bus_call_free(w.call);
    assert_int_equal(
        sd_event_add_time_relative(event, NULL, CLOCK_MONOTONIC, 300 * MSEC, MSEC, stop_loop, NULL),
        0);
    assert_int_equal(sd_event_loop(event), 1);
    assert_int_equal(w.calls, 0);
}

/* ---- Serving ---- */

static void a_second_server_of_the_same_name_ends_and_the_first_stays(void **state)
{
    auto_free char *text = NULL;
    pid_t second = start_service();
    int status;

    assert_int_equal(waitpid(second, &status, 0), second);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
    assert_int_equal(call_text("Describe", NULL, SECOND, &text, NULL), 0);
}

static void a_server_ends_when_its_bus_goes_away(void **state)
{
    Fixture *f = *state;
    int status;

    end_process(&f->bus.pid);
    assert_int_equal(waitpid(f->service, &status, 0), f->service);
    f->service = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_brings_back_the_text),
        cmocka_unit_test(a_name_that_nobody_owns_is_said_to_be_not_running),
        cmocka_unit_test(a_service_that_never_answers_costs_the_limit_and_no_more),
        cmocka_unit_test(a_failure_keeps_its_kind_message_and_remedy_over_the_bus),
        cmocka_unit_test(a_reply_of_another_type_is_refused),
        cmocka_unit_test(no_bus_at_all_names_the_unit_to_start),
        cmocka_unit_test(root_may_change_and_others_are_told_the_command),
        cmocka_unit_test(an_asynchronous_call_reports_once),
        cmocka_unit_test(freeing_a_call_cancels_it),
        cmocka_unit_test(a_second_server_of_the_same_name_ends_and_the_first_stays),
        cmocka_unit_test(a_server_ends_when_its_bus_goes_away), /* last: it takes the bus away */
    };

    if (!have_dbus_daemon()) {
        printf(BUS_SKIP_PLAN);
        return 77;
    }
    return cmocka_run_group_tests(tests, bus_up, bus_down);
}
