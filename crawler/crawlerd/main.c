/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/bus.h"
#include "agent/io/daemon.h"
#include "agent/io/loop.h"
#include "crawler/crawlerd/crawl-plan.h"
#include "crawler/crawlerd/manager.h"
#include "crawler/crawlerd/verb-recipe.h"
#include "crawler/extract/extract.h"

static void on_signal(int signal_number, void *userdata)
{
    auto_error Error err = {0};

    if (signal_number != SIGHUP)
        manager_stop(userdata);
    else if (manager_reload(userdata, &err) < 0)
        log_failure(LOG_LEVEL_ERROR, NULL, &err, "the last accepted document stays in force");
}

static int run(const ManagerOptions *options, Error *err)
{
    auto_(sd_event_unrefp) sd_event *event = NULL;
    auto_(manager_freep) Manager *manager = NULL;
    int r;

    r = loop_new(&event, err);
    if (r >= 0)
        r = manager_new(event, options, &manager, err);
    if (r >= 0)
        r = loop_watch_signals(event, on_signal, manager, err);
    if (r >= 0 && !options->once)
        r = daemon_ready(event, "crawling", err);
    return r < 0 ? r : daemon_run(event);
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} verbs[] = {
    {"backfill", verb_backfill},
    {"recipe", verb_recipe},
    {"validate", verb_validate},
};

int main(int argc, char **argv)
{
    const char *once = NULL, *plan = NULL, *timeout = NULL;
    const DaemonOption extra[] = {
        {"once", NULL, &once, "run every job once, deliver, and exit 0 only if all was delivered"},
        {"plan", "FILE", &plan, "with --once: a plan, or its crawl part"},
        {"timeout", "TIME", &timeout, "with --once: give up after that long (15m)"},
        {0},
    };
    DaemonOptions options = {
        .state_dir = "/var/lib/mervis-crawler", .runtime_dir = "/run/mervis-crawler", .root = "/"};
    ManagerOptions manager = {.timeout_usec = 15 * MINUTE};
    auto_error Error err = {0};
    int first = 0, r;

    daemon_harden();
    extract_init(); /* before any recipe is compiled */
    r = daemon_parse_options(argc, argv, "crawlerd",
                             "Fetches market data and delivers every row once.",
                             "[backfill … | recipe … | validate]", extra, &options, &first);
    if (r <= 0)
        return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
    for (size_t i = 0; i < ELEMENTS(verbs) && first < argc; i++)
        if (streq(argv[first], verbs[i].name))
            return verbs[i].run(argc - first, argv + first);
    if (first < argc || (plan && !once) ||
        (timeout && parse_duration(timeout, &manager.timeout_usec) < 0)) {
        (void)fprintf(stderr, "crawlerd: usage: see crawlerd --help\n");
        return EXIT_USAGE;
    }

    daemon_log_to_journal("crawlerd", false);
    manager.state_dir = options.state_dir;
    manager.runtime_dir = options.runtime_dir;
    manager.root = options.root;
    manager.once = once != NULL;
    manager.plan_file = plan;
    manager.bus = !once;
    r = run(&manager, &err);
    if (r < 0) {
        log_failure(LOG_LEVEL_ERROR, NULL, &err, "giving up");
        return EXIT_FAILURE;
    }
    return r;
}
