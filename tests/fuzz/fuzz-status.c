/* SPDX-License-Identifier: Apache-2.0 */

/* What agentctl and statusd are told of the daemons, as JSON that need not be what they expect:
 * every view makes a page of it that a terminal may be given, every page of metrics is one that
 * Prometheus reads. The first byte chooses the width. */

#include <string.h>

#include "agent/agentctl/doctor.h"
#include "agent/agentctl/history-view.h"
#include "agent/agentctl/plan-view.h"
#include "agent/agentctl/status-view.h"
#include "agent/agentctl/validate.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/statusd/metrics.h"
#include "tests/fuzz/fuzz.h"

#define PAGE_MAX (1U << 20)

static int secrets(const json_t *document, const View *view, Buf *page)
{
    bool well;

    return status_view_secrets(document, view, &well, page);
}

static int crawler(const json_t *document, const View *view, Buf *page)
{
    bool well;

    return status_view_crawler(document, view, &well, page);
}

static int plan(const json_t *document, const View *view, Buf *page)
{
    return plan_view(document, page);
}

static int (*const views[])(const json_t *document, const View *view, Buf *page) = {
    status_view, secrets, crawler, history_view, dead_letters_view, doctor_view, plan};

static void check_text(const Buf *page)
{
    FUZZ_CHECK(str_is_utf8(buf_str(page), page->size));
    for (size_t i = 0; i < page->size; i++)
        FUZZ_CHECK((uint8_t)page->data[i] >= ' ' || page->data[i] == '\n');
}

/* "name{label="value"} number", or a comment. */
static void check_metrics(const json_t *document)
{
    auto_buf Buf page = BUF_INIT(PAGE_MAX);

    if (metrics_format(document, document, &page) < 0)
        return;
    check_text(&page);
    for (char *line = (char *)buf_str(&page), *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        FUZZ_CHECK(end && end > line && (*line == '#' || (*line >= 'a' && *line <= 'z')));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_auto_t *document = NULL;
    View view = {.now_usec = UINT64_C(1791354600) * SECOND};
    size_t at, n;

    if (size == 0)
        return 0;
    if (json_slice((const char *)data + 1, size - 1, "crawl", &at, &n) > 0)
        FUZZ_CHECK(at + n <= size - 1 && n > 0);
    if (json_parse_quiet((const char *)data + 1, size - 1, &document) <= 0)
        return 0;
    view.width = data[0] % 2 ? 80 : 20 + data[0];
    view.colour = false;
    for (size_t i = 0; i < ELEMENTS(views); i++) {
        auto_buf Buf page = BUF_INIT(PAGE_MAX);

        if (views[i](document, &view, &page) >= 0)
            check_text(&page);
    }
    (void)status_is_well(document);
    check_metrics(document);
    return 0;
}
