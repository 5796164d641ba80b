/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/status-view.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "agent/agentctl/document.h"
#include "agent/agentctl/page.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/io/status-keys.h"

#define ALL_OK_MAX 8 /* system items shown one by one while nothing is wrong with them */
#define EVENTS_MAX 5
#define BAR_WIDTH  20

/* ---- What is wrong ---- */

typedef struct Trouble {
    Buf *ret;
    const View *view;
    size_t count;
} Trouble;

static int add_trouble(Trouble *t, const char *what, const json_t *item)
{
    const char *message = json_str(item, "message"), *remedy = json_str(item, "remedy");
    auto_free char *text = NULL;
    int r;

    if (!message)
        return 0;
    t->count++;
    /* Some messages begin with the name already. */
    text = startswith(message, what) ? strdup(message) : str_printf("%s: %s", what, message);
    if (!text)
        return -ENOMEM;
    r = buf_add_str(t->ret, t->count == 1 ? "\n  ! " : "  ! ");
    if (r >= 0)
        r = render_wrapped(t->ret, t->view, 4, COLOUR_BAD, text);
    if (r < 0 || !remedy)
        return r;
    r = buf_add_str(t->ret, "    remedy: ");
    return r < 0 ? r : render_wrapped(t->ret, t->view, 12, COLOUR_NONE, remedy);
}

/* Every item of a list, called "kind name". */
static int add_list_trouble(Trouble *t, const char *kind, const char *name_key, const json_t *list)
{
    const json_t *item;
    size_t i;
    int r;

    json_array_foreach (list, i, item) {
        auto_free char *what =
            str_printf("%s %s", text_of(item, "kind", kind), text_of(item, name_key, "?"));

        r = what ? add_trouble(t, what, item) : -ENOMEM;
        if (r < 0)
            return r;
    }
    return 0;
}

/* The faults of a plan that was refused: a person has to read them all. */
static int add_refusal(Trouble *t, const json_t *refused)
{
    const json_t *errors = json_object_get(refused, "errors"), *one;
    char when[TIME_SPAN_MAX];
    size_t i;
    int r;

    if (!json_is_object(refused))
        return 0;
    t->count++;
    r = buf_printf(t->ret, "%s  ! plan: refused %s; the one before stays in force\n",
                   t->count == 1 ? "\n" : "", ago_of(refused, "at", t->view, when));
    if (r < 0)
        return r;
    json_array_foreach (errors, i, one) {
        r = buf_add_str(t->ret, "    ");
        if (r >= 0)
            r = render_wrapped(t->ret, t->view, 6, COLOUR_BAD,
                               json_is_string(one) ? json_string_value(one) : "?");
        if (r < 0)
            return r;
    }
    return 0;
}

/* agentd starts it; what it says of that is an item's message. */
static int add_missing_crawler(Trouble *t)
{
    json_auto_t *item = json_pack("{s:s, s:s}", "message", "does not answer", "remedy",
                                  "systemctl status crawlerd; agentctl logs crawlerd");

    return item ? add_trouble(t, "crawlerd", item) : -ENOMEM;
}

static int add_troubles(Buf *ret, const View *view, const json_t *status)
{
    const json_t *crawler = json_object_get(status, "crawler");
    const json_t *plan = json_object_get(status, "plan");
    Trouble t = {.ret = ret, .view = view};
    const struct {
        const char *what;
        const json_t *item;
    } ones[] = {
        {"agentd", status}, /* while it does not answer */
        {"vm", json_object_get(status, "vm")},
        {"plan", json_is_object(json_object_get(plan, "refused")) ? NULL : plan},
        {"images", json_object_get(status, "images")},
        {"crawler", crawler},
        {"delivery", json_object_get(crawler, "delivery")},
    };
    const struct {
        const char *kind, *name_key;
        const json_t *list;
    } lists[] = {
        {"container", "name", json_object_get(status, "containers")},
        {"secret", "name", json_object_get(status, "secrets")},
        {"item", "name", json_object_get(status, "resources")},
        {"job", "name", json_object_get(crawler, "jobs")},
        {"host", "host", json_object_get(crawler, "hosts")},
    };
    int r;

    r = add_refusal(&t, json_object_get(plan, "refused"));
    if (r >= 0 && status_misses_crawler(status) &&
        !json_is_false(json_object_get(status, "reachable")))
        r = add_missing_crawler(&t);
    for (size_t i = 0; r >= 0 && i < ELEMENTS(ones); i++)
        r = add_trouble(&t, ones[i].what, ones[i].item);
    for (size_t i = 0; r >= 0 && i < ELEMENTS(lists); i++)
        r = add_list_trouble(&t, lists[i].kind, lists[i].name_key, lists[i].list);
    return r;
}

/* ---- The parts ---- */

static int add_title(Buf *ret, const View *view, const json_t *status)
{
    const json_t *vm = json_object_get(status, "vm");
    const char *state = text_of(status, "state", "unknown");
    bool reachable = !json_is_false(json_object_get(status, "reachable"));
    auto_free char *name = text_fit(text_of(vm, "name", "this machine"), 40, false);
    char when[TIME_SPAN_MAX];
    int r;

    if (!name)
        return -ENOMEM;
    r = render_coloured(ret, view, COLOUR_BOLD, name);
    if (r >= 0)
        r = buf_add_str(ret, reachable ? " is " : " was ");
    if (r >= 0)
        r = render_coloured(ret, view, colour_of_state(state), state);
    if (r >= 0 && !reachable)
        r = buf_printf(ret, " %s", ago_of(status, "at", view, when));
    if (r >= 0)
        r = buf_add_char(ret, '\n');
    if (r < 0 || !json_is_false(json_object_get(status, "ready")) ||
        !json_str(status, "ready_reason"))
        return r;

    r = buf_add_str(ret, "not ready: ");
    return r < 0 ? r : render_wrapped(ret, view, 11, COLOUR_BUSY, json_str(status, "ready_reason"));
}

/* Pieces that are there, with commas between. */
static int join_pieces(const char *const *pieces, size_t n, char **ret)
{
    auto_(strv_freep) char **present = NULL;

    for (size_t i = 0; i < n; i++)
        if (pieces[i] && strv_push(&present, pieces[i]) < 0)
            return -ENOMEM;
    *ret = str_join((const char *const *)present, ", ");
    return *ret ? 0 : -ENOMEM;
}

static int add_vm(Buf *ret, const View *view, const json_t *status)
{
    const json_t *vm = json_object_get(status, "vm");
    const char *const pieces[] = {
        json_str(vm, "cloud"),
        json_str(vm, "zone"),
        json_str(vm, "machine_type"),
        json_is_true(json_object_get(vm, "spot")) ? "Spot" : NULL,
        json_str(vm, "project"),
        json_is_true(json_object_get(vm, "preempted")) ? "PREEMPTED" : NULL,
    };
    auto_free char *text = NULL;
    char up[TIME_SPAN_MAX];
    int r;

    r = join_pieces(pieces, ELEMENTS(pieces), &text);
    if (r < 0)
        return r;
    r = add_line(ret, view, "VM", COLOUR_NONE, "%s", *text ? text : "unknown");
    if (r < 0)
        return r;
    return add_line(ret, view, "Agent", COLOUR_NONE, "%s, started %s",
                    text_of(status, "version", "?"), ago_of(status, "started_at", view, up));
}

static int add_plan(Buf *ret, const View *view, const json_t *status)
{
    const json_t *plan = json_object_get(status, "plan");
    char when[TIME_SPAN_MAX];
    int r;

    if (count_of(plan, "generation") == 0)
        return add_line(ret, view, "Plan", COLOUR_BUSY, "none yet");
    r = add_line(ret, view, "Plan", COLOUR_NONE, "generation %" PRIu64 ", %s, accepted %s",
                 count_of(plan, "generation"), text_of(plan, "outcome", "?"),
                 ago_of(plan, "accepted_at", view, when));
    if (r < 0 || !json_str(plan, "source"))
        return r;
    return add_line(ret, view, "", COLOUR_NONE, "from %s", json_str(plan, "source"));
}

static int add_images(Buf *ret, const View *view, const json_t *status)
{
    const json_t *images = json_object_get(status, "images");
    char freed[PARSE_TEXT_MAX], when[TIME_SPAN_MAX];
    uint64_t used;

    if (!number_of(images, "disk_used_percent", &used))
        return 0;
    return add_line(ret, view, "Images", COLOUR_NONE,
                    "disk %" PRIu64 " %% used, %" PRIu64 " removed (%s), last cleanup %s", used,
                    count_of(images, "removed"),
                    format_size_human(freed, count_of(images, "freed_bytes")),
                    ago_of(images, "last_run_at", view, when));
}

static int add_resources(Buf *ret, const View *view, const json_t *status)
{
    static const Column columns[] = {
        {"ITEM", COLUMN_SHRINK | COLUMN_KEEP_END}, {"STATE", COLUMN_STATE}, {"SINCE", 0}};
    const json_t *list = json_object_get(status, "resources"), *item;
    auto_(table_freep) Table *table = NULL;
    size_t i, rows = 0, hidden = 0;
    int r;

    r = table_new(columns, ELEMENTS(columns), &table);
    if (r < 0)
        return r;
    json_array_foreach (list, i, item) {
        const char *state = text_of(item, "state", "?");
        auto_free char *name = NULL;
        char when[TIME_SPAN_MAX];

        if (streq(state, "ok") && rows >= ALL_OK_MAX) {
            hidden++;
            continue;
        }
        name = str_printf("%s %s", text_of(item, "kind", "?"), text_of(item, "name", ""));
        r = name ? table_add(table, (const char *const[]){name, state, since_of(item, view, when)})
                 : -ENOMEM;
        if (r < 0)
            return r;
        rows++;
    }
    r = add_table(ret, view, table, rows);
    return r < 0 || hidden == 0 ? r : buf_printf(ret, "and %zu more, all ok\n", hidden);
}

static int add_secrets(Buf *ret, const View *view, const json_t *status)
{
    static const Column columns[] = {
        {"SECRET", COLUMN_SHRINK}, {"VERSION", 0}, {"STATE", COLUMN_STATE}, {"FETCHED", 0}};
    const json_t *list = json_object_get(status, "secrets"), *item;
    auto_(table_freep) Table *table = NULL;
    char when[TIME_SPAN_MAX];
    size_t i;
    int r;

    r = table_new(columns, ELEMENTS(columns), &table);
    if (r < 0)
        return r;
    json_array_foreach (list, i, item) {
        r = table_add(table, (const char *const[]){
                                 json_str(item, "name"), json_str(item, "version"),
                                 json_str(item, "state"), ago_of(item, "fetched_at", view, when)});
        if (r < 0)
            return r;
    }
    return add_table(ret, view, table, json_array_size(list));
}

/* "healthy", or "stopped" where something ought to run. */
static const char *health_text(const json_t *container)
{
    const char *state = text_of(container, "state", "");

    if (json_is_true(json_object_get(container, "running")))
        return text_of(container, "health", "none");
    return streq(state, "settled") || streq(state, "committed") ? "stopped" : "-";
}

/* "[#####---------------]": how far `done` of `total` is. */
static const char *bar_text(uint64_t done, uint64_t total, char buf[static BAR_WIDTH + 3])
{
    size_t filled = total == 0 ? 0 : (size_t)(MIN_OF(done, total) * BAR_WIDTH / total);

    buf[0] = '[';
    memset(buf + 1, '#', filled);
    memset(buf + 1 + filled, '-', BAR_WIDTH - filled);
    buf[BAR_WIDTH + 1] = ']';
    buf[BAR_WIDTH + 2] = '\0';
    return buf;
}

static int add_progress(Buf *ret, const View *view, const char *name, const json_t *progress)
{
    char done_text[PARSE_TEXT_MAX], total_text[PARSE_TEXT_MAX], bar[BAR_WIDTH + 3];
    uint64_t done = count_of(progress, "done_bytes"), total;

    if (!json_is_object(progress))
        return 0;
    (void)format_size_human(done_text, done);
    if (!number_of(progress, "total_bytes", &total) || total == 0)
        return add_line(ret, view, "", COLOUR_BUSY, "%s: %s, %s so far", name,
                        text_of(progress, "phase", "at work"), done_text);
    return add_line(ret, view, "", COLOUR_BUSY, "%s: %s %s %u %%, %s of %s", name,
                    text_of(progress, "phase", "at work"), bar_text(done, total, bar),
                    (unsigned)(MIN_OF(done, total) * 100 / total), done_text,
                    format_size_human(total_text, total));
}

/* What the table has no column for, where there is something to say. */
static int add_container_notes(Buf *ret, const View *view, const json_t *container)
{
    const json_t *quarantined = json_object_get(container, "quarantined"), *one;
    const char *name = text_of(container, "name", "?");
    uint64_t number;
    size_t i;
    int r;

    r = add_progress(ret, view, name, json_object_get(container, "progress"));
    if (r >= 0 && count_of(container, "restarts") > 0)
        r = add_line(ret, view, "", COLOUR_BUSY, "%s: %" PRIu64 " restarts", name,
                     count_of(container, "restarts"));
    if (r >= 0 && number_of(container, "exit_status", &number))
        r = add_line(ret, view, "", COLOUR_NONE, "%s: ended with status %" PRIu64, name, number);
    json_array_foreach (quarantined, i, one) {
        char digest[DIGEST_DIGITS + 1];

        if (r < 0)
            break;
        /* A bad key says nothing against the image. */
        r = add_line(ret, view, "", COLOUR_BUSY, "%s: %s%s is quarantined: %s", name,
                     json_is_false(json_object_get(one, "digest_is_bad")) ? "a release of " : "",
                     short_digest(text_of(one, "digest", "?"), digest),
                     text_of(one, "reason", "?"));
    }
    return r;
}

static int add_containers(Buf *ret, const View *view, const json_t *status)
{
    static const Column columns[] = {{"CONTAINER", COLUMN_SHRINK},
                                     {"IMAGE", COLUMN_SHRINK | COLUMN_KEEP_END},
                                     {"DIGEST", 0},
                                     {"STATE", COLUMN_STATE},
                                     {"HEALTH", COLUMN_STATE},
                                     {"SINCE", 0}};
    const json_t *list = json_object_get(status, "containers"), *item;
    auto_(table_freep) Table *table = NULL;
    char when[TIME_SPAN_MAX], digest[DIGEST_DIGITS + 1];
    size_t i;
    int r;

    r = table_new(columns, ELEMENTS(columns), &table);
    if (r < 0)
        return r;
    json_array_foreach (list, i, item) {
        r = table_add(table, (const char *const[]){json_str(item, "name"), json_str(item, "image"),
                                                   short_digest(json_str(item, "digest"), digest),
                                                   json_str(item, "state"), health_text(item),
                                                   since_of(item, view, when)});
        if (r < 0)
            return r;
    }
    r = add_table(ret, view, table, json_array_size(list));
    json_array_foreach (list, i, item) {
        if (r < 0)
            break;
        r = add_container_notes(ret, view, item);
    }
    return r;
}

static int add_jobs(Buf *ret, const View *view, const json_t *crawler)
{
    static const Column columns[] = {{"JOB", COLUMN_SHRINK},
                                     {"RECIPE", COLUMN_SHRINK},
                                     {"STATE", COLUMN_STATE},
                                     {"ROWS", COLUMN_RIGHT},
                                     {"LAST", 0},
                                     {"NEXT", 0}};
    const json_t *list = json_object_get(crawler, "jobs"), *item;
    char rows[NUMBER_TEXT_MAX], last[TIME_SPAN_MAX], next[TIME_SPAN_MAX];
    auto_(table_freep) Table *table = NULL;
    size_t i;
    int r;

    r = table_new(columns, ELEMENTS(columns), &table);
    if (r < 0)
        return r;
    json_array_foreach (list, i, item) {
        r = table_add(table, (const char *const[]){json_str(item, "name"), json_str(item, "recipe"),
                                                   json_str(item, "state"),
                                                   number_text(item, "rows", rows),
                                                   ago_of(item, "last_fetch_at", view, last),
                                                   until_of(item, "next_fetch_at", view, next)});
        if (r < 0)
            return r;
    }
    return add_table(ret, view, table, json_array_size(list));
}

static int add_backfills(Buf *ret, const View *view, const json_t *crawler)
{
    const json_t *list = json_object_get(crawler, "backfills"), *item;
    char bar[BAR_WIDTH + 3];
    size_t i;
    int r = 0;

    json_array_foreach (list, i, item) {
        uint64_t done = count_of(item, "symbols_done"), all = count_of(item, "symbols");

        if (r < 0)
            break;
        r = add_line(ret, view, "", COLOUR_BUSY,
                     "backfill %s from %.10s: %s %" PRIu64 " of %" PRIu64 " symbols",
                     text_of(item, "job", "?"), text_of(item, "from", "?"),
                     bar_text(done, all, bar), done, all);
    }
    return r;
}

/* What of the day's limits is used: BigQuery's, and the plan's own for the way out. */
static int add_budgets(Buf *ret, const View *view, const json_t *crawler)
{
    const json_t *delivery = json_object_get(crawler, "delivery");
    const json_t *egress = json_object_get(crawler, "egress");
    char used[PARSE_TEXT_MAX], all[PARSE_TEXT_MAX];
    uint64_t forecast = count_of(delivery, "loads_forecast"), cents;
    int r = 0;

    if (forecast > 0)
        r = add_line(
            ret, view, "", COLOUR_NONE,
            "loads today: %" PRIu64 ", forecast %" PRIu64 " a table, partition changes: %" PRIu64,
            count_of(delivery, "loads_today"), forecast, count_of(delivery, "partitions_today"));
    if (r < 0 || !json_is_object(egress))
        return r;
    (void)format_size_human(used, count_of(egress, "bytes_today"));
    (void)format_size_human(all, count_of(egress, "daily_bytes"));
    cents = (uint64_t)(json_number_value(json_object_get(egress, "cost_today")) * 100 + 0.5);
    return add_line(ret, view, "", COLOUR_NONE,
                    "today %s%s%s through Cloud NAT, about $%" PRIu64 ".%02" PRIu64, used,
                    count_of(egress, "daily_bytes") > 0 ? " of " : "",
                    count_of(egress, "daily_bytes") > 0 ? all : "", cents / 100, cents % 100);
}

static int add_hosts(Buf *ret, const View *view, const json_t *crawler)
{
    static const Column columns[] = {{"HOST", COLUMN_SHRINK},    {"REQUESTS", COLUMN_RIGHT},
                                     {"REFUSALS", COLUMN_RIGHT}, {"CONN", COLUMN_RIGHT},
                                     {"/120 S", COLUMN_RIGHT}, {"RECEIVED", COLUMN_RIGHT},
                                     {"SENT", COLUMN_RIGHT}};
    const json_t *list = json_object_get(crawler, "hosts"), *item;
    char requests[NUMBER_TEXT_MAX], refusals[NUMBER_TEXT_MAX], connections[NUMBER_TEXT_MAX];
    char recent[NUMBER_TEXT_MAX], in[PARSE_TEXT_MAX], out[PARSE_TEXT_MAX];
    auto_(table_freep) Table *table = NULL;
    size_t i;
    int r;

    r = table_new(columns, ELEMENTS(columns), &table);
    if (r < 0)
        return r;
    json_array_foreach (list, i, item) {
        (void)format_size_human(in, count_of(item, "bytes_in"));
        (void)format_size_human(out, count_of(item, "bytes_out"));
        r = table_add(table, (const char *const[]){
                                 json_str(item, "host"), number_text(item, "requests", requests),
                                 number_text(item, "refusals", refusals),
                                 number_text(item, "connections", connections),
                                 number_text(item, "connections_120s", recent), in, out});
        if (r < 0)
            return r;
    }
    r = add_table(ret, view, table, json_array_size(list));
    json_array_foreach (list, i, item)
        if (r >= 0 && json_str(item, "waits"))
            r = add_line(ret, view, "", COLOUR_BUSY, "%s: %s", text_of(item, "host", "?"),
                         json_str(item, "waits"));
    return r;
}

/* `whole`: with what only `crawl status` has room for. */
static int add_crawler_as(Buf *ret, const View *view, const json_t *status, bool whole)
{
    const json_t *crawler = json_object_get(status, "crawler");
    const json_t *spool = json_object_get(crawler, "spool");
    const json_t *delivery = json_object_get(crawler, "delivery");
    char number[NUMBER_TEXT_MAX], dead[NUMBER_TEXT_MAX], when[TIME_SPAN_MAX];
    char bytes[PARSE_TEXT_MAX], max_bytes[PARSE_TEXT_MAX];
    int r;

    r = buf_add_char(ret, '\n');
    if (r < 0)
        return r;
    if (!json_is_object(crawler))
        return add_line(ret, view, "Crawler", COLOUR_DIM, "does not run");

    r = add_line(ret, view, "Crawler", COLOUR_NONE, "%s, %s rows delivered to %s, last %s",
                 text_of(crawler, "state", "?"), number_text(delivery, "rows_delivered", number),
                 text_of(delivery, "sink", "nowhere"),
                 ago_of(delivery, "last_delivery_at", view, when));
    if (r < 0)
        return r;
    (void)format_size_human(bytes, count_of(spool, "bytes"));
    (void)format_size_human(max_bytes, count_of(spool, "max_bytes"));
    if (time_of(spool, "oldest_at") > 0)
        r = add_line(ret, view, "", COLOUR_NONE, "backlog %s rows, %s of %s, oldest %s",
                     number_text(spool, "rows", number), bytes, max_bytes,
                     ago_of(spool, "oldest_at", view, when));
    else
        r = add_line(ret, view, "", COLOUR_NONE, "backlog %s rows, %s of %s",
                     number_text(spool, "rows", number), bytes, max_bytes);
    if (r >= 0)
        r = add_line(ret, view, "", COLOUR_NONE, "batches open: %" PRIu64 ", dead letters: %s",
                     count_of(delivery, "batches_open"),
                     number_text(delivery, "dead_letters", dead));
    if (r >= 0 && whole)
        r = add_budgets(ret, view, crawler);
    if (r >= 0)
        r = add_backfills(ret, view, crawler);
    if (r >= 0)
        r = add_jobs(ret, view, crawler);
    return r < 0 || !whole ? r : add_hosts(ret, view, crawler);
}

static int add_crawler(Buf *ret, const View *view, const json_t *status)
{
    return add_crawler_as(ret, view, status, /* whole= */ false);
}

static int add_events(Buf *ret, const View *view, const json_t *status)
{
    const json_t *list = json_object_get(status, "events"), *item;
    size_t i;
    int r;

    if (json_array_size(list) == 0)
        return 0;
    r = buf_add_char(ret, '\n');
    json_array_foreach (list, i, item) {
        char when[TIME_SPAN_MAX];

        if (r < 0 || i >= EVENTS_MAX)
            break;
        r = add_line(ret, view, ago_of(item, "at", view, when), COLOUR_NONE, "%s",
                     text_of(item, "text", text_of(item, "event", "?")));
    }
    return r;
}

/* ---- The page ---- */

bool status_is_well(const json_t *status)
{
    return streq(text_of(status, "state", ""), "well");
}

int status_view(const json_t *status, const View *view, Buf *ret)
{
    static int (*const parts[])(Buf * ret, const View *view, const json_t *status) = {
        add_title,      add_troubles,  NULL,        add_vm,      add_plan,   add_images,
        add_containers, add_resources, add_secrets, add_crawler, add_events,
    };

    int r;

    assert(status && view && ret);

    if (!json_str(status, "kind")) {
        r = add_troubles(ret, view, status);
        return r < 0 ? r : add_crawler(ret, view, status);
    }
    for (size_t i = 0; i < ELEMENTS(parts); i++) {
        r = parts[i] ? parts[i](ret, view, status) : buf_add_char(ret, '\n');
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- Parts of it, for verbs of their own ---- */

/* A part keeps away from what stands above it; at the top of a page nothing does. */
static void drop_first_line_end(Buf *page)
{
    if (page->size > 0 && page->data[0] == '\n')
        buf_consume(page, 1);
}

int status_view_secrets(const json_t *status, const View *view, bool *ret_well, Buf *ret)
{
    const json_t *secrets = json_object_get(status, "secrets");
    Trouble t = {.ret = ret, .view = view};
    int r;

    if (json_array_size(secrets) == 0)
        r = buf_add_str(ret, "The plan names no secrets.\n");
    else
        r = add_secrets(ret, view, status);
    if (r >= 0)
        r = add_list_trouble(&t, "secret", "name", secrets);
    *ret_well = t.count == 0;
    drop_first_line_end(ret);
    return r;
}

int status_view_crawler(const json_t *crawler, const View *view, bool *ret_well, Buf *ret)
{
    const char *state = text_of(crawler, "state", "");
    Trouble t = {.ret = ret, .view = view};
    json_auto_t *status = json_pack("{s:O}", "crawler", crawler);
    int r;

    if (!status)
        return -ENOMEM;
    r = add_trouble(&t, "crawler", crawler);
    if (r >= 0)
        r = add_trouble(&t, "delivery", json_object_get(crawler, "delivery"));
    if (r >= 0)
        r = add_list_trouble(&t, "job", "name", json_object_get(crawler, "jobs"));
    if (r >= 0)
        r = add_list_trouble(&t, "host", "host", json_object_get(crawler, "hosts"));
    *ret_well = !streq(state, "degraded") && !streq(state, "paused");
    if (r >= 0)
        r = add_crawler_as(ret, view, status, /* whole= */ true);
    drop_first_line_end(ret);
    return r;
}
