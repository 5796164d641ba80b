/* SPDX-License-Identifier: Apache-2.0 */

/* crawlerd backfill JOB --from TIME [--to TIME]: asks the crawlerd that runs, as `agentctl crawl
 * backfill` does, on a machine without agentctl or in a script that has it at hand. */

#include <getopt.h>
#include <stdio.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/bus.h"
#include "crawler/crawlerd/crawl-plan.h"

#define ANSWER_TIMEOUT_USEC (10 * SECOND)

static const char usage_text[] =
    "usage: crawlerd backfill JOB --from TIME [--to TIME]\n"
    "\n"
    "The crawlerd that runs fetches the job's symbols from one instant to another (now),\n"
    "dates or RFC 3339, beside its polling; agentctl crawl status shows how far it is.\n";

static int usage(const char *what)
{
    (void)fprintf(stderr, "crawlerd backfill: %s\n%s", what, usage_text);
    return EXIT_USAGE;
}

static int ask(const char *job, const char *from, const char *to)
{
    const char *const args[] = {job, from, to, NULL};
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    auto_free char *answer = NULL;
    auto_error Error err = {0};
    int r;

    r = bus_open(NULL, &bus, &err);
    if (r >= 0)
        r = bus_call_text(bus, BUS_CRAWLER_NAME, BUS_CRAWLER_PATH, BUS_CRAWLER_INTERFACE,
                          "Backfill", args, ANSWER_TIMEOUT_USEC, &answer, &err);
    if (r < 0) {
        (void)fprintf(stderr, "crawlerd backfill: %s\n", error_text(&err));
        if (err.remedy)
            (void)fprintf(stderr, "  %s\n", err.remedy);
        return EXIT_FAILURE;
    }
    (void)printf("job %s fetches from %s to %s\n", job, from, *to ? to : "now");
    return EXIT_SUCCESS;
}

int verb_backfill(int argc, char **argv)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, 'f'},
        {"to", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *from = NULL, *to = "";
    int c;

    optind = 0; /* main has used it */
    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
        switch (c) {
        case 'f':
            from = optarg;
            break;
        case 't':
            to = optarg;
            break;
        case 'h':
            (void)fputs(usage_text, stdout);
            return EXIT_SUCCESS;
        default:
            return usage("unknown option");
        }
    if (optind != argc - 1)
        return usage("one job is needed");
    if (!from)
        return usage("--from is needed");
    return ask(argv[optind], from, to);
}
