/* SPDX-License-Identifier: Apache-2.0 */

/* crawlerd validate [--json]: the plan's crawl part on standard input. agentctl plan validate, and
 * agentd before it takes a plan, ask it, too. */

#include <errno.h>
#include <unistd.h>

#include "agent/base/str.h"
#include "agent/io/bus.h"
#include "agent/io/json.h"
#include "crawler/crawlerd/crawl-plan.h"

static const char usage_text[] =
    "usage: crawlerd validate [--json] < CRAWL\n"
    "\n"
    "Checks the crawl part of a plan on standard input, and the recipes that it names. Well:\n"
    "nothing is printed, and the exit status is 0. Else all faults, with line and column,\n"
    "and 1.\n";

static int read_all(Buf *ret)
{
    char piece[8192];
    ssize_t n;

    while ((n = read(STDIN_FILENO, piece, sizeof(piece))) != 0) {
        int r = n < 0 ? -errno : buf_add(ret, piece, (size_t)n);

        if (r < 0 && r != -EINTR)
            return r;
    }
    return 0;
}

static int print_json(const FieldErrors *errors)
{
    json_auto_t *list = json_array();
    json_auto_t *document = NULL;
    auto_free char *text = NULL;

    for (size_t i = 0; i < errors->n; i++) {
        const FieldError *item = &errors->items[i];

        if (json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i}", "path", item->path,
                                                  "message", item->message, "line", (int)item->line,
                                                  "column", (int)item->column)) < 0)
            return -ENOMEM;
    }
    document = json_pack("{s:O, s:b}", "errors", list, "truncated", errors->truncated);
    text = document ? json_text(document, false) : NULL;
    if (!text)
        return -ENOMEM;
    (void)puts(text);
    return 0;
}

static int print_text(const FieldErrors *errors)
{
    auto_buf Buf text = BUF_INIT(1U << 20);
    int r = field_errors_format(errors, /* positions= */ true, &text);

    if (r >= 0)
        (void)fputs(buf_str(&text), stdout);
    return r;
}

static int unreadable(int r)
{
    if (r == -EFBIG)
        (void)fprintf(stderr,
                      "crawlerd validate: the document is larger than %u MiB\n"
                      "  a plan fits that many times over: is it the right file?\n",
                      CRAWL_DOCUMENT_MAX >> 20);
    else
        (void)fprintf(stderr,
                      "crawlerd validate: standard input: %s\n"
                      "  crawlerd validate < FILE reads a file\n",
                      strerror(-r));
    return EXIT_FAILURE;
}

/* The likeliest slip: the plan around it. */
static void look_for_plan(const FieldErrors *errors)
{
    for (size_t i = 0; i < errors->n; i++)
        if (streq(errors->items[i].path, "crawl"))
            (void)fputs(
                "crawlerd validate: a whole plan is checked by agentctl plan validate FILE\n",
                stderr);
}

static int unprintable(void)
{
    (void)fputs("crawlerd validate: the faults could not be written to standard output\n", stderr);
    return EXIT_FAILURE;
}

int verb_validate(int argc, char **argv)
{
    auto_buf Buf text = BUF_INIT(CRAWL_DOCUMENT_MAX);
    auto_(crawl_plan_freep) CrawlPlan *plan = NULL;
    auto_field_errors FieldErrors errors = {0};
    bool json = argc == 2 && streq(argv[1], "--json");
    int r;

    if (argc == 2 && streq(argv[1], "--help")) {
        (void)fputs(usage_text, stdout);
        return EXIT_SUCCESS;
    }
    if (argc > 2 || (argc == 2 && !json)) {
        (void)fputs(usage_text, stderr);
        return EXIT_USAGE;
    }
    r = read_all(&text);
    if (r >= 0)
        r = crawl_plan_decode(buf_str(&text), text.size, &plan, &errors);
    if (r < 0 && errors.n == 0)
        return unreadable(r);
    if ((json ? print_json(&errors) : print_text(&errors)) < 0 || fflush(stdout) != 0)
        return unprintable();
    look_for_plan(&errors);
    return errors.n > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
