/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "agent/agentd/manager.h"
#include "agent/io/bus.h"
#include "agent/io/daemon.h"
#include "agent/io/loop.h"

static void on_signal(int signal_number, void *userdata)
{
    manager_stop(userdata);
}

static int run(const DaemonOptions *options, const char *crawler_dir, Error *err)
{
    auto_(sd_event_unrefp) sd_event *event = NULL;
    auto_(manager_freep) Manager *manager = NULL;
    int r;

    r = loop_new(&event, err);
    if (r < 0)
        return r;
    r = manager_new(event, options, crawler_dir, &manager, err);
    if (r < 0)
        return r;
    r = loop_watch_signals(event, on_signal, manager, err);
    if (r < 0)
        return r;
    r = daemon_ready(event, "watching the plan", err);
    if (r < 0)
        return r;
    return daemon_run(event);
}

int main(int argc, char **argv)
{
    DaemonOptions options = {.state_dir = "/var/lib/mervis-agent",
                             .runtime_dir = "/run/mervis-agent",
                             .root = "/",
                             .engine = DAEMON_ENGINE_SOCKET};
    const char *crawler_dir = "/run/mervis-crawler";
    const DaemonOption extra[] = {
        {"crawler-dir", "DIR", &crawler_dir, "crawlerd's runtime directory"}, {0}};
    auto_error Error err = {0};
    int r;

    daemon_harden();
    r = daemon_parse_options(argc, argv, "agentd",
                             "Keeps this VM in the state that its plan declares.", NULL, extra,
                             &options, NULL);
    if (r <= 0)
        return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
    daemon_log_to_journal("agentd", false);
    r = run(&options, crawler_dir, &err);
    if (r < 0) {
        log_failure(LOG_LEVEL_ERROR, NULL, &err, "giving up");
        return EXIT_FAILURE;
    }
    return r;
}
