/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl cleanup */

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "agent/agentctl/ask.h"
#include "agent/agentctl/document.h"
#include "agent/agentctl/verb.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"

#define PAGE_MAX        (16U << 20)
#define RUN_TIMEOUT     (30 * MINUTE) /* many layers on a slow disk */
#define DRY_RUN_TIMEOUT MINUTE

static const char *arg_dry_run, *arg_json;

const VerbOption cleanup_options[] = {
    {"dry-run", NULL, &arg_dry_run, "show what would be removed and why, and do nothing", 'n'},
    {"json", NULL, &arg_json, "print the outcome as JSON", 0},
    {0},
};

/* The name that a person knows: a tag, else the repository and the first digits of the digest, else
 * those of the id. free(). */
static char *name_of(const json_t *image)
{
    const char *name = json_string_value(json_array_get(json_object_get(image, "names"), 0));
    const char *at = name ? strchr(name, '@') : NULL;
    char digits[DIGEST_DIGITS + 1];

    if (!name)
        return strdup(short_digest(text_of(image, "id", "?"), digits));
    if (!at)
        return strdup(name);

    return str_printf("%.*s@%s", (int)(at - name), name, short_digest(at + 1, digits));
}

static bool is_dry(const json_t *report)
{
    return json_is_true(json_object_get(report, "dry_run"));
}

static bool is_shown(const json_t *report, const json_t *image)
{
    return is_dry(report) || json_object_get(image, "message");
}

/* The number of rows. */
static int add_images(const json_t *report, const View *view, Table *table)
{
    const json_t *image;
    size_t i;
    int n = 0, r;

    json_array_foreach (json_object_get(report, "images"), i, image) {
        char size[PARSE_TEXT_MAX], ago[TIME_SPAN_MAX];
        const char *why = text_of(image, "message", text_of(image, "why", "?"));
        bool goes = streq(text_of(image, "action", ""), "remove");
        auto_free char *name = name_of(image);
        const char *cells[] = {name, format_size_human(size, count_of(image, "size_bytes")),
                               ago_of(image, "last_used_at", view, ago), goes ? "remove" : "keep",
                               goes && streq(why, "remove") ? NULL : why};

        /* A run that did its work is told by its sums; what stayed although it was to go is not. */
        if (!is_shown(report, image))
            continue;
        r = table_add(table, cells);
        if (r < 0)
            return r;
        n++;
    }

    return n;
}

static int add_sums(const json_t *report, const View *view, Buf *page)
{
    auto_buf Buf text = BUF_INIT(PAGE_MAX);
    bool dry = is_dry(report);
    size_t n_containers = json_array_size(json_object_get(report, "containers"));
    uint64_t n_images = count_of(report, "removed");
    char size[PARSE_TEXT_MAX];
    const json_t *image;
    size_t i;
    int r;

    if (dry)
        json_array_foreach (json_object_get(report, "images"), i, image)
            n_images += streq(text_of(image, "action", ""), "remove");
    r = buf_printf(&text, "%" PRIu64 " image%s %s", n_images, n_images == 1 ? "" : "s",
                   dry ? "would be removed" : "removed");
    if (r >= 0 && n_containers > 0)
        r = buf_printf(&text, ", with %zu stopped container%s", n_containers,
                       n_containers == 1 ? "" : "s");
    if (r >= 0 && !dry)
        r = buf_printf(&text, ", %s freed",
                       format_size_human(size, count_of(report, "freed_bytes")));
    if (r >= 0)
        r = buf_printf(&text, "; the disk under %s is %" PRIu64 " %% full",
                       text_of(report, "disk", "?"), count_of(report, "disk_used_percent"));

    return r < 0 ? r : render_wrapped(page, view, 0, COLOUR_NONE, buf_str(&text));
}

static int report_view(const json_t *report, const View *view, Buf *page)
{
    static const Column columns[] = {{"IMAGE", COLUMN_SHRINK | COLUMN_KEEP_END},
                                     {"SIZE", COLUMN_RIGHT},
                                     {"LAST USED", 0},
                                     {"ACTION", 0},
                                     {"WHY", COLUMN_SHRINK}};
    auto_(table_freep) Table *table = NULL;
    int r;

    r = table_new(columns, ELEMENTS(columns), &table);
    if (r >= 0)
        r = add_images(report, view, table);
    if (r > 0)
        r = table_render(table, view, 0, page);

    return r < 0 ? r : add_sums(report, view, page);
}

int verb_cleanup(char *const *operands)
{
    const View view = render_view_of(STDOUT_FILENO);
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    json_auto_t *report = NULL;
    auto_error Error err = {0};
    int r;

    r = arg_dry_run ? ask_for(&peer_agent, "CleanupDryRun", NULL, DRY_RUN_TIMEOUT, &report, &err)
                    : ask_for(&peer_agent, "Cleanup", NULL, RUN_TIMEOUT, &report, &err);
    if (r < 0)
        return verb_fail(&err, verb_status_of(&err));
    if (arg_json)
        return verb_print_json(json_incref(report));
    if (report_view(report, &view, &page) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);

    return verb_print(buf_str(&page));
}
