/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl status */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/agentctl/ask.h"
#include "agent/agentctl/status-view.h"
#include "agent/agentctl/verb.h"
#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/io/json.h"
#include "agent/io/status-keys.h"

#define STATE_DIR       "/var/lib/mervis-agent"
#define DOCUMENT_MAX    (4U << 20)
#define PAGE_MAX        (4U << 20)
#define WATCH_EVERY_SEC 2
#define WATCH_LOST_MAX                                                                             \
    5 /* looks without an answer: an agentd that is being upgraded is back by then */

static const char *arg_json, *arg_watch, *arg_state_dir = STATE_DIR;

const VerbOption status_options[] = {
    {"json", NULL, &arg_json, "print the whole status as JSON", 0},
    {"watch", NULL, &arg_watch, "show it again every two seconds", 0},
    {"state-dir", "DIR", &arg_state_dir, "where agentd records its last state (" STATE_DIR ")", 0},
    {0},
};

/* ---- Asking ---- */

static int describe(sd_bus *bus, const char *name, const char *path, const char *interface,
                    json_t **ret, Error *err)
{
    auto_free char *text = NULL;
    int r;

    r = bus_call_text(bus, name, path, interface, "Describe", NULL, BUS_CALL_TIMEOUT_USEC, &text,
                      err);
    if (r < 0)
        return r;
    return json_parse(text, strlen(text), name, ret, err);
}

/* Both documents; the crawler's may be missing without an error. */
static int ask_both(json_t **ret_agent, json_t **ret_crawler, Error *err)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    int r;

    r = bus_open(NULL, &bus, err);
    if (r < 0)
        return r;
    if (describe(bus, BUS_CRAWLER_NAME, BUS_CRAWLER_PATH, BUS_CRAWLER_INTERFACE, ret_crawler,
                 NULL) < 0)
        *ret_crawler = NULL;
    return describe(bus, BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE, ret_agent, err);
}

/* What agentd wrote while it ran. */
static int read_recorded(json_t **ret, Error *err)
{
    auto_free char *path = path_join(arg_state_dir, STATUS_FILE_NAME);
    auto_buf Buf text = BUF_INIT(DOCUMENT_MAX);
    int r;

    if (!path)
        return error_oom(err);
    r = file_read(path, DOCUMENT_MAX, &text, err);
    if (r < 0)
        return r;
    return json_parse(text.data, text.size, path, ret, err);
}

/* ---- Saying that agentd is down ---- */

/* Said beside the page, which has the reason itself. */
static void explain_missing_record(const Error *err)
{
    if (err->code == -EACCES)
        (void)fprintf(stderr, "What agentd last recorded is for root: sudo agentctl status\n");
    else if (err->code == -ENOENT)
        (void)fprintf(stderr, "agentd has recorded nothing in %s\n", arg_state_dir);
    else if (err->code < 0)
        (void)fprintf(stderr, "What agentd last recorded cannot be read: %s\n", error_text(err));
}

/* ---- One page ---- */

typedef struct Status {
    json_t *document; /* as status_join() makes it */
    Error err;        /* why agentd did not answer */
    Error recorded_err;
} Status;

static void status_done(Status *status)
{
    json_decref(status->document);
    error_done(&status->err);
    error_done(&status->recorded_err);
}

static int status_get(Status *ret)
{
    json_auto_t *agent = NULL, *crawler = NULL;

    if (ask_both(&agent, &crawler, &ret->err) < 0) {
        ask_explain(&peer_agent, &ret->err);
        ret->recorded_err.code = read_recorded(&agent, &ret->recorded_err);
    }
    ret->document = status_join(agent, crawler, &ret->err);
    return ret->document ? 0 : -ENOMEM;
}

static int exit_status(const Status *status)
{
    if (status->err.code < 0)
        return verb_status_of(&status->err);
    return status_is_well(status->document) ? EXIT_WELL : EXIT_DEGRADED;
}

/* Over what was there: each line cleared behind its end, and the screen below the last. */
static int redraw(const char *page)
{
    auto_buf Buf screen = BUF_INIT(PAGE_MAX);
    const char *at = page, *end;
    int r;

    r = buf_add_str(&screen, "\033[H");
    for (; r >= 0 && *at; at = end + 1) {
        end = strchr(at, '\n');
        if (!end)
            break;
        r = buf_printf(&screen, "%.*s\033[K\n", (int)(end - at), at);
    }
    if (r >= 0)
        r = buf_add_str(&screen, "\033[J");
    return r < 0 ? EXIT_DEGRADED : verb_print(buf_str(&screen));
}

static int show_page(const Status *status, bool in_place)
{
    const View view = render_view_of(STDOUT_FILENO);
    auto_buf Buf page = BUF_INIT(PAGE_MAX);

    if (status_view(status->document, &view, &page) < 0)
        return EXIT_DEGRADED;
    return in_place ? redraw(buf_str(&page)) : verb_print(buf_str(&page));
}

/* One document a line when there are many: what reads them sees where each ends. */
static int show_json(const Status *status)
{
    auto_free char *text = arg_watch ? json_text(status->document, /* pretty= */ false) : NULL;
    auto_free char *line = text ? str_printf("%s\n", text) : NULL;

    return line ? verb_print(line) : verb_print_json(json_incref(status->document));
}

/* `ret_lost`: agentd did not answer. Said on stderr unless it was `lost` before. */
static int show_once(bool in_place, bool lost, bool *ret_lost)
{
    auto_(status_done) Status status = {0};
    int r, shown;

    if (status_get(&status) < 0) {
        (void)fprintf(stderr, "agentctl: out of memory\n");
        return EXIT_DEGRADED;
    }
    r = exit_status(&status);
    *ret_lost = status.err.code < 0;
    if (arg_json && *ret_lost && !lost)
        (void)verb_fail(&status.err, r);
    else if (!in_place && !lost)
        explain_missing_record(&status.recorded_err);
    shown = arg_json ? show_json(&status) : show_page(&status, in_place);
    return shown == EXIT_WELL ? r : shown;
}

int verb_status(char *const *operands)
{
    bool in_place = arg_watch && !arg_json && isatty(STDOUT_FILENO), lost = false;
    unsigned n_lost = 0;
    int r;

    if (!arg_watch)
        return show_once(false, false, &lost);
    if (in_place && verb_print("\033[2J") != EXIT_WELL)
        return EXIT_DEGRADED;
    /* Until somebody interrupts it, or what reads it is gone; and where nobody sees that agentd is,
     * until then. */
    for (;;) {
        r = show_once(in_place, lost, &lost);
        n_lost = lost ? n_lost + 1 : 0;
        if (ferror(stdout) || (!in_place && n_lost == WATCH_LOST_MAX))
            return r;
        (void)nanosleep(&(struct timespec){.tv_sec = WATCH_EVERY_SEC}, NULL);
    }
}
