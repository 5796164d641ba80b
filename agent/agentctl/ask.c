/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/ask.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/agentctl/verb.h"
#include "agent/base/str.h"
#include "agent/io/json.h"

struct Peer {
    const char *daemon;
    const char *name, *path, *interface;
};

const Peer peer_agent = {"agentd", BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE};
const Peer peer_crawler = {"crawlerd", BUS_CRAWLER_NAME, BUS_CRAWLER_PATH, BUS_CRAWLER_INTERFACE};

/* The unit may have failed, or never started: its journal knows. crawlerd is agentd's to start. */
void ask_explain(const Peer *peer, Error *err)
{
    auto_free char *as_root = err->code == -EPERM ? verb_as_root() : NULL;

    /* The bus refuses before the daemon does, and knows no verbs. */
    if (as_root)
        (void)error_remedy(err, err->code, "%s", as_root);
    if (err->code == -ESRCH && peer == &peer_agent)
        (void)error_remedy(err, err->code,
                           "journalctl -u agentd -n 50; sudo systemctl start agentd");
    else if (err->code == -ESRCH)
        (void)error_remedy(err, err->code, "agentctl status; agentctl logs %s", peer->daemon);
    else if (!err->remedy && verb_status_of(err) == EXIT_UNREACHABLE)
        (void)error_remedy(err, err->code, "journalctl -u %s -n 50", peer->daemon);
}

int ask(const Peer *peer, const char *method, const char *const *args, json_t **ret, Error *err)
{
    return ask_for(peer, method, args, BUS_CALL_TIMEOUT_USEC, ret, err);
}

int ask_for(const Peer *peer, const char *method, const char *const *args, uint64_t timeout_usec,
            json_t **ret, Error *err)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    auto_free char *text = NULL;
    auto_error Error failure = {0};
    int r;

    r = bus_open(NULL, &bus, &failure);
    if (r >= 0)
        r = bus_call_text(bus, peer->name, peer->path, peer->interface, method, args, timeout_usec,
                          &text, &failure);
    if (r < 0) {
        ask_explain(peer, &failure);
        return error_move(err, &failure);
    }
    if (!*text) {
        *ret = json_null();
        return 0;
    }
    return json_parse(text, strlen(text), peer->daemon, ret, err);
}

static int print_verdict(bool ok, const char *message, const char *remedy)
{
    return verb_print_json(
        json_pack("{s:b, s:s, s:s?}", "ok", ok, "message", message, "remedy", remedy));
}

int ask_to(const Peer *peer, const char *method, const char *const *args, bool json,
           const char *done, ...)
{
    auto_free char *text = NULL, *line = NULL;
    json_auto_t *answer = NULL;
    auto_error Error err = {0};
    va_list list;
    int n;

    if (ask(peer, method, args, &answer, &err) < 0) {
        if (json)
            (void)print_verdict(false, error_text(&err), err.remedy);
        else
            (void)verb_fail(&err, 0);
        return verb_status_of(&err);
    }
    va_start(list, done);
    n = vasprintf(&text, done, list);
    va_end(list);
    if (n < 0) {
        text = NULL;
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    }
    if (json)
        return print_verdict(true, text, NULL);
    line = str_printf("%s\n", text);
    return line ? verb_print(line) : EXIT_DEGRADED;
}
