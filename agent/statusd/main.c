/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <systemd/sd-daemon.h>

#include "agent/base/str.h"
#include "agent/io/bus.h"
#include "agent/io/daemon.h"
#include "agent/statusd/statusd.h"

/* The socket of that name from the service manager, or one of our own. */
static int door(char *const *names, int n_inherited, const char *name, const char *address,
                const char *option, int *ret, Error *err)
{
    for (int i = 0; i < n_inherited; i++)
        if (streq(names[i], name)) {
            *ret = SD_LISTEN_FDS_START + i;
            return 0;
        }
    return listen_on(address, option, ret, err);
}

static int serve(sd_event *event, const char *listen, const char *listen_local, Statusd **ret,
                 Error *err)
{
    char text[LISTEN_TEXT_MAX], text_local[LISTEN_TEXT_MAX];
    auto_(strv_freep) char **names = NULL;
    auto_close int fd = -EBADF, fd_local = -EBADF;
    int n, r;

    n = sd_listen_fds_with_names(true, &names);
    if (n < 0)
        return error_errno(err, n, "inherited sockets");
    r = door(names, n, STATUSD_SOCKET, listen, "--listen", &fd, err);
    if (r < 0)
        return r;
    r = door(names, n, STATUSD_SOCKET_LOCAL, listen_local, "--status-listen", &fd_local, err);
    if (r < 0)
        return r;

    (void)listen_address(fd, text);
    (void)listen_address(fd_local, text_local);
    r = statusd_new(event, take_fd(&fd), take_fd(&fd_local), &SERVER_LIMITS, ret, err);
    if (r < 0)
        return r;
    log_info("health and metrics at %s, the status at %s", text, text_local);
    return 0;
}

static int start(const char *listen, const char *listen_local, sd_event **ret_event,
                 Statusd **ret_statusd, Error *err)
{
    int r;

    r = sd_event_default(ret_event);
    if (r >= 0)
        r = sd_event_set_signal_exit(*ret_event, true);
    if (r < 0)
        return error_errno(err, r, "event loop");
    r = serve(*ret_event, listen, listen_local, ret_statusd, err);
    if (r < 0)
        return r;
    return daemon_ready(*ret_event, "answering", err);
}

int main(int argc, char **argv)
{
    const char *listen = STATUSD_LISTEN, *listen_local = STATUSD_LISTEN_LOCAL;
    const DaemonOption extra[] = {
        {"listen", "ADDR:PORT", &listen, "where /healthz, /readyz and /metrics are"},
        {"status-listen", "ADDR:PORT", &listen_local, "where /status.json is"},
        {0},
    };
    DaemonOptions options = {.state_dir = "", .runtime_dir = "", .root = "", .engine = ""};
    auto_(sd_event_unrefp) sd_event *event = NULL;
    auto_(statusd_freep) Statusd *statusd = NULL;
    auto_error Error err = {0};
    int first, r;

    daemon_harden();
    r = daemon_parse_options(argc, argv, "statusd", "Answers health checks, and Prometheus.", NULL,
                             extra, &options, &first);
    if (r <= 0)
        return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
    daemon_log_to_journal("statusd", /* always= */ false);

    r = start(listen, listen_local, &event, &statusd, &err);
    if (r < 0) {
        log_failure(LOG_LEVEL_ERROR, NULL, &err, "exiting");
        return EXIT_FAILURE;
    }
    r = daemon_run(event);
    daemon_stopping("stopping");
    return r;
}
