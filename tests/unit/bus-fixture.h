/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_BUS_FIXTURE_H
#define TESTS_UNIT_BUS_FIXTURE_H

/* A message bus of the test's own: Debian's dbus-daemon on a socket in a directory of the test,
 * which DBUS_SYSTEM_BUS_ADDRESS names. It ends with the test. */

#include "tests/unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/file.h"
#include "agent/io/bus.h"

#define BUS_SKIP_PLAN "1..0 # SKIP dbus-daemon is not installed (Debian package dbus-daemon)\n"

typedef struct TestBus {
    char *dir;
    pid_t pid;
} TestBus;

static inline unused_ void end_process(pid_t *pid)
{
    if (*pid > 0) {
        (void)kill(*pid, SIGKILL);
        (void)waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

/* Until `ready` says so, or ten seconds. */
static inline unused_ bool wait_for(bool (*ready)(void *), void *userdata)
{
    for (int i = 0; i < 1000; i++) {
        if (ready(userdata))
            return true;
        (void)nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    return false;
}

static inline unused_ bool have_dbus_daemon(void)
{
    auto_(strv_freep) char **dirs = str_split(getenv("PATH") ? getenv("PATH") : "", ":");

    STRV_FOREACH (dir, dirs) {
        auto_free char *path = path_join(*dir, "dbus-daemon");

        if (path && access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static inline unused_ bool test_bus_accepts(void *userdata)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;

    return bus_open(NULL, &bus, NULL) >= 0;
}

static const char test_bus_config[] = {
    "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n"
    " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
    "<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>\n"
    "<policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/><allow send_type=\"*\"/>\n"
    "<allow receive_type=\"*\"/><deny send_interface=\"io.mervis.Test1\" "
    "send_member=\"Forbidden\"/></policy></busconfig>\n"};

/* Starts the bus daemon with that configuration, in the directory that is there. */
static inline unused_ int test_bus_start_with(TestBus *bus, const char *config)
{
    auto_free char *path = path_join(bus->dir, "bus.conf");
    auto_free char *option = str_printf("--config-file=%s", path);

    if (file_replace(path, config, strlen(config), 0644, NULL) < 0)
        return -1;
    bus->pid = fork();
    if (bus->pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(null, STDERR_FILENO);
        (void)execlp("dbus-daemon", "dbus-daemon", "--nofork", "--nopidfile", option, (char *)NULL);
        _exit(127);
    }
    return bus->pid > 0 && wait_for(test_bus_accepts, NULL) ? 0 : -1;
}

/* The usual one; again after it was ended. A call of io.mervis.Test1.Forbidden() is refused by its
 * policy. */
static inline unused_ int test_bus_start(TestBus *bus)
{
    auto_free char *config = str_printf(test_bus_config, bus->dir);

    return test_bus_start_with(bus, config);
}

static inline unused_ int test_bus_up(TestBus *bus)
{
    auto_free char *address = NULL;

    *bus = (TestBus){.dir = test_dir_new()};
    address = str_printf("unix:path=%s/bus", bus->dir);
    if (chmod(bus->dir, 0755) < 0 || setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1) < 0)
        return -1;
    return test_bus_start(bus);
}

static inline unused_ void test_bus_down(TestBus *bus)
{
    end_process(&bus->pid);
    test_dir_done(&bus->dir);
}

#endif
