/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/bus-fixture.h"

#include <errno.h>

#include "agent/base/time.h"

/* The policy files as they are installed, on a bus with the defaults of Debian's system.conf: what
 * is not allowed is refused. Needs root, to own the names and to be somebody else. */

#define NOBODY 65534

static TestBus bus;
static pid_t service;

static const char config[] = {
    "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n"
    " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
    "<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>\n"
    "<policy context=\"default\"><allow user=\"*\"/><deny own=\"*\"/>\n"
    "<deny send_type=\"method_call\"/><allow send_type=\"signal\"/>\n"
    "<allow send_requested_reply=\"true\" send_type=\"method_return\"/>\n"
    "<allow send_requested_reply=\"true\" send_type=\"error\"/>\n"
    "<allow receive_type=\"method_call\"/><allow receive_type=\"method_return\"/>\n"
    "<allow receive_type=\"error\"/><allow receive_type=\"signal\"/>\n"
    "<allow send_destination=\"org.freedesktop.DBus\"\n"
    " send_interface=\"org.freedesktop.DBus\"/></policy>\n"
    "<include>%s/units/io.mervis.Agent1.conf</include></busconfig>\n"};

static int on_any(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return sd_bus_reply_method_return(m, "s", sd_bus_message_get_member(m));
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Describe", "", "s", on_any, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Apply", "", "s", on_any, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END,
};

static int call(const char *interface, const char *method, Error *err)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *connection = NULL;
    auto_free char *text = NULL;
    int r;

    r = bus_open(NULL, &connection, err);
    if (r < 0)
        return r;
    return bus_call_text(connection, BUS_AGENT_NAME, BUS_AGENT_PATH, interface, method, NULL,
                         SECOND, &text, err);
}

static bool service_answers(void *userdata)
{
    return call(BUS_AGENT_INTERFACE, "Describe", NULL) >= 0;
}

static int up(void **state)
{
    const char *srcdir = getenv("srcdir");
    auto_free char *text = NULL, *address = NULL;

    bus = (TestBus){.dir = test_dir_new()};
    text = str_printf(config, bus.dir, srcdir ? srcdir : ".");
    address = str_printf("unix:path=%s/bus", bus.dir);
    if (chmod(bus.dir, 0755) < 0 || setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1) < 0 ||
        test_bus_start_with(&bus, text) < 0)
        return -1;

    service = fork();
    if (service == 0) {
        sd_event *event = NULL;
        sd_bus *connection = NULL;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (sd_event_new(&event) < 0 || bus_open(event, &connection, NULL) < 0 ||
            bus_serve(connection, BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE, vtable, NULL,
                      NULL) < 0)
            _exit(99);
        _exit(sd_event_loop(event));
    }
    return wait_for(service_answers, NULL) ? 0 : -1;
}

static int down(void **state)
{
    end_process(&service);
    test_bus_down(&bus);
    return 0;
}

/* The child's exit status. */
static int as_nobody(int (*fn)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        if (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
            _exit(99);
        _exit(fn());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

static int reads(void)
{
    if (call(BUS_AGENT_INTERFACE, "Describe", NULL) < 0)
        return 1;
    return call("org.freedesktop.DBus.Introspectable", "Introspect", NULL) < 0 ? 2 : 0;
}

static int changes(void)
{
    auto_error Error err = {0};

    if (call(BUS_AGENT_INTERFACE, "Apply", &err) != -EPERM)
        return 1;
    return err.kind == ERROR_DENIED && err.remedy ? 0 : 2;
}

static int owns(void)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *connection = NULL;

    if (bus_open(NULL, &connection, NULL) < 0)
        return 1;
    return sd_bus_request_name(connection, "io.mervis.Agent1", SD_BUS_NAME_REPLACE_EXISTING) ==
                   -EACCES
               ? 0
               : 2;
}

static void root_may_do_all(void **state)
{
    auto_error Error err = {0};

    assert_ok(call(BUS_AGENT_INTERFACE, "Apply", &err), &err);
}

static void anybody_may_look(void **state)
{
    assert_int_equal(as_nobody(reads), 0);
}

static void nobody_else_may_change_anything(void **state)
{
    assert_int_equal(as_nobody(changes), 0);
}

static void nobody_else_may_pretend_to_be_agentd(void **state)
{
    assert_int_equal(as_nobody(owns), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(root_may_do_all),
        cmocka_unit_test(anybody_may_look),
        cmocka_unit_test(nobody_else_may_change_anything),
        cmocka_unit_test(nobody_else_may_pretend_to_be_agentd),
    };

    if (!have_dbus_daemon()) {
        printf(BUS_SKIP_PLAN);
        return 77;
    }
    if (getuid() != 0) {
        printf("1..0 # SKIP the names belong to root\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, up, down);
}
