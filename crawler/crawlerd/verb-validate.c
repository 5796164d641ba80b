/* SPDX-License-Identifier: Apache-2.0 */

/* crawlerd validate [--json]: the plan's crawl part on standard input. */

#include <errno.h>
#include <unistd.h>

#include "agent/io/bus.h"
#include "agent/io/json.h"
#include "crawler/crawlerd/crawl-plan.h"

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

int verb_validate(int argc, char **argv)
{
    auto_buf Buf text = BUF_INIT(CRAWL_DOCUMENT_MAX);
    auto_(crawl_plan_freep) CrawlPlan *plan = NULL;
    auto_field_errors FieldErrors errors = {0};
    bool json = argc == 2 && streq(argv[1], "--json");
    int r;

    if (argc > 2 || (argc == 2 && !json)) {
        (void)fputs("usage: crawlerd validate [--json] < CRAWL\n", stderr);
        return EXIT_USAGE;
    }
    r = read_all(&text);
    if (r >= 0)
        r = crawl_plan_decode(buf_str(&text), text.size, &plan, &errors);
    if (r < 0 && errors.n == 0) {
        (void)fprintf(stderr, "crawlerd: validate: %s\n", strerror(-r));
        return EXIT_FAILURE;
    }
    if ((json ? print_json(&errors) : print_text(&errors)) < 0)
        return EXIT_FAILURE;
    return errors.n > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
