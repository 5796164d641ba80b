/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/history-view.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "agent/agentctl/document.h"
#include "agent/base/str.h"

#define WHEN_COLUMN   14 /* "12 months ago" fits */
#define SHA256_DIGITS 12
#define LEVEL_WARNING 4 /* of syslog: up to it an event is bad news */

static int add_generations(const json_t *list, const View *view, Buf *page)
{
    static const Column columns[] = {{"GENERATION", COLUMN_RIGHT},
                                     {"ACCEPTED", 0},
                                     {"APPLIED", 0},
                                     {"SHA-256", 0},
                                     {"FROM", COLUMN_SHRINK | COLUMN_KEEP_END}};
    auto_(table_freep) Table *table = NULL;
    const json_t *item;
    size_t i;
    int r;

    if (json_array_size(list) == 0)
        return buf_add_str(page, "No plan was ever accepted.\n");
    r = table_new(columns, ELEMENTS(columns), &table);
    json_array_foreach (list, i, item) {
        char accepted[TIME_SPAN_MAX], applied[TIME_SPAN_MAX], number[NUMBER_TEXT_MAX];
        char sha256[SHA256_DIGITS + 1];

        if (r < 0)
            return r;
        (void)snprintf(sha256, sizeof(sha256), "%s", text_of(item, "sha256", "-"));
        r = table_add(table, (const char *const[]){number_text(item, "generation", number),
                                                   ago_of(item, "accepted_at", view, accepted),
                                                   time_of(item, "applied_at") > 0
                                                       ? ago_of(item, "applied_at", view, applied)
                                                       : NULL,
                                                   sha256, text_of(item, "source", NULL)});
    }
    return r < 0 ? r : table_render(table, view, 0, page);
}

static int add_events(const json_t *list, const View *view, Buf *page)
{
    const json_t *item;
    size_t i;
    int r = 0;

    if (json_array_size(list) > 0)
        r = buf_add_char(page, '\n');
    json_array_foreach (list, i, item) {
        Colour colour = count_of(item, "level") <= LEVEL_WARNING ? COLOUR_BAD : COLOUR_NONE;
        char when[TIME_SPAN_MAX];

        if (r < 0)
            return r;
        r = buf_printf(page, "%-*s", WHEN_COLUMN, ago_of(item, "at", view, when));
        if (r >= 0)
            r = render_wrapped(page, view, WHEN_COLUMN, colour,
                               text_of(item, "text", text_of(item, "event", "?")));
    }
    return r;
}

int history_view(const json_t *answer, const View *view, Buf *page)
{
    int r = add_generations(json_object_get(answer, "generations"), view, page);

    return r < 0 ? r : add_events(json_object_get(answer, "events"), view, page);
}

static int add_refused(const json_t *list, const char *what, const View *view, Buf *page)
{
    static const Column columns[] = {{"REFUSED", 0},
                                     {"JOB", COLUMN_SHRINK},
                                     {"SYMBOL", COLUMN_SHRINK},
                                     {"OF", 0},
                                     {"REASON", COLUMN_SHRINK}};
    auto_(table_freep) Table *table = NULL;
    const json_t *item;
    size_t i;
    int r;

    if (json_array_size(list) == 0)
        return buf_printf(page, "No %s was refused.\n", what);
    r = buf_printf(page, "%zu refused %s%s:\n", json_array_size(list), what,
                   json_array_size(list) == 1 ? "" : "s");
    if (r >= 0)
        r = table_new(columns, ELEMENTS(columns), &table);
    json_array_foreach (list, i, item) {
        char when[TIME_SPAN_MAX], of[NUMBER_TEXT_MAX];
        const char *subject = text_of(item, "ts", NULL);

        if (r < 0)
            return r;
        if (!subject && count_of(item, "status") > 0)
            (void)snprintf(of, sizeof(of), "HTTP %" PRIu64, count_of(item, "status"));
        else
            (void)snprintf(of, sizeof(of), "%s", subject ? subject : "-");
        r = table_add(table, (const char *const[]){
                                 ago_of(item, "at", view, when), text_of(item, "job", NULL),
                                 text_of(item, "symbol", NULL), of, text_of(item, "reason", NULL)});
    }
    return r < 0 ? r : table_render(table, view, 0, page);
}

int dead_letters_view(const json_t *answer, const View *view, Buf *page)
{
    int r = add_refused(json_object_get(answer, "rows"), "row", view, page);

    if (r >= 0)
        r = add_refused(json_object_get(answer, "documents"), "document", view, page);
    if (r >= 0 && json_array_size(json_object_get(answer, "documents")) > 0)
        r = buf_add_str(page, "After a fix of the recipe: sudo agentctl crawl replay\n");
    return r;
}
