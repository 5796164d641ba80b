/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl crawl status | run | backfill | flush | dead-letters | replay */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/agentctl/ask.h"
#include "agent/agentctl/document.h"
#include "agent/agentctl/history-view.h"
#include "agent/agentctl/status-view.h"
#include "agent/agentctl/verb.h"

#define PAGE_MAX (4U << 20)

static const char *arg_json, *arg_from, *arg_to;

const VerbOption crawl_options[] = {
    {"json", NULL, &arg_json, "print it as JSON", 0},
    {0},
};

const VerbOption backfill_options[] = {
    {"from", "TIME", &arg_from, "begin there: a date, or RFC 3339", 0},
    {"to", "TIME", &arg_to, "and end there; now when it is not given", 0},
    {"json", NULL, &arg_json, "print it as JSON", 0},
    {0},
};

int verb_crawl_status(char *const *operands)
{
    const View view = render_view_of(STDOUT_FILENO);
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    json_auto_t *crawler = NULL;
    auto_error Error err = {0};
    bool well;
    int r;

    if (ask(&peer_crawler, "Describe", NULL, &crawler, &err) < 0)
        return verb_fail(&err, verb_status_of(&err));
    if (status_view_crawler(crawler, &view, &well, &page) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    r = arg_json ? verb_print_json(json_incref(crawler)) : verb_print(buf_str(&page));
    return r != EXIT_WELL || !well ? EXIT_DEGRADED : EXIT_WELL;
}

int verb_crawl_run(char *const *operands)
{
    return ask_to(&peer_crawler, "RunJob", (const char *const[]){operands[0], NULL}, arg_json,
                  "job %s runs now; agentctl crawl status shows how it goes", operands[0]);
}

int verb_crawl_backfill(char *const *operands)
{
    const char *from = operands[1], *to = from ? operands[2] : NULL;
    auto_error Error err = {0};

    if ((from && arg_from) || (to && arg_to) || (!from && !arg_from)) {
        (void)error_set(&err, -EINVAL, ERROR_INVALID,
                        from || arg_from ? "it begins and ends but once" : "it begins nowhere");
        (void)error_remedy(&err, err.code, "agentctl crawl backfill %s --from TIME [--to TIME]",
                           operands[0]);
        return verb_fail(&err, EXIT_USAGE);
    }
    from = from ? from : arg_from;
    to = to ? to : arg_to ? arg_to : "";
    return ask_to(&peer_crawler, "Backfill", (const char *const[]){operands[0], from, to, NULL},
                  arg_json, "job %s fetches from %s to %s; see agentctl crawl status", operands[0],
                  from, *to ? to : "now");
}

int verb_crawl_flush(char *const *operands)
{
    return ask_to(&peer_crawler, "Flush", NULL, arg_json,
                  "what waits is delivered now; agentctl crawl status shows how it goes");
}

int verb_crawl_dead_letters(char *const *operands)
{
    const View view = render_view_of(STDOUT_FILENO);
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    json_auto_t *answer = NULL;
    auto_error Error err = {0};

    if (ask(&peer_crawler, "DeadLetters", NULL, &answer, &err) < 0)
        return verb_fail(&err, verb_status_of(&err));
    if (arg_json)
        return verb_print_json(json_incref(answer));
    if (dead_letters_view(answer, &view, &page) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    return verb_print(buf_str(&page));
}

int verb_crawl_replay(char *const *operands)
{
    char documents[NUMBER_TEXT_MAX], rows[NUMBER_TEXT_MAX];
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    json_auto_t *answer = NULL;
    auto_error Error err = {0};

    if (ask(&peer_crawler, "Replay", NULL, &answer, &err) < 0)
        return verb_fail(&err, verb_status_of(&err));
    if (arg_json)
        return verb_print_json(json_incref(answer));
    if (buf_printf(&page, "documents read now: %s, rows in them: %s\n",
                   number_text(answer, "documents", documents),
                   number_text(answer, "rows", rows)) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    return verb_print(buf_str(&page));
}
