/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/fetch/fetch-private.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"

/* Hosts: their memory, and their robots.txt. */

#define SAVE_EVERY_USEC   (5 * SECOND)
#define ROBOTS_RETRY_USEC (10 * MINUTE)

/* --- Memory --------------------------------------------------------------------------------- */

/* Trouble is remembered at once; counts and distances every few seconds. */
void source_save(Fetcher *f, Source *source, bool now)
{
    auto_free char *name = NULL, *text = NULL;

    if (!now && now_boottime_usec() - source->saved_usec < SAVE_EVERY_USEC)
        return;
    source->saved_usec = now_boottime_usec();
    name = str_printf("host:%s", source->host->name);
    text = fetch_host_format(source->host);

    /* Lost state costs politeness after a crash at worst; the spool's own trouble is said where
     * rows are kept. */
    if (name && text)
        (void)f->memory.text_save(f->memory.userdata, name, text, now, NULL);
}

static void bytes_save(Fetcher *f)
{
    auto_free char *text = NULL;

    if (now_boottime_usec() - f->bytes_saved_usec < SAVE_EVERY_USEC)
        return;
    f->bytes_saved_usec = now_boottime_usec();
    text = str_printf("%llu %llu", (unsigned long long)f->day, (unsigned long long)f->day_bytes);

    if (text)
        (void)f->memory.text_save(f->memory.userdata, "egress", text, /* now= */ false, NULL);
}

void bytes_load(Fetcher *f)
{
    auto_free char *text = NULL;
    char *space;

    if (f->memory.text_load(f->memory.userdata, "egress", &text, NULL) <= 0)
        return;
    space = strchr(text, ' ');
    if (!space)
        return;
    *space = '\0';
    if (parse_u64(text, &f->day) < 0 || parse_u64(space + 1, &f->day_bytes) < 0)
        f->day = f->day_bytes = 0;
}

void add_bytes(Fetcher *f, uint64_t bytes)
{
    uint64_t today = now_realtime_usec() / DAY;

    if (f->day != today) {
        f->day = today;
        f->day_bytes = 0;
    }
    f->day_bytes += bytes;
    bytes_save(f);
}

uint64_t fetcher_bytes_today(const Fetcher *f)
{
    return f->day == now_realtime_usec() / DAY ? f->day_bytes : 0;
}

int source_get(Fetcher *f, const char *name, Source **ret)
{
    auto_free char *key = NULL, *text = NULL;
    Source *source;
    int r;

    LIST_FOREACH (sources, s, f->sources)
        if (streq(s->host->name, name)) {
            *ret = s;
            return 0;
        }
    source = calloc(1, sizeof(*source));
    if (!source)
        return -ENOMEM;
    r = fetch_host_new(name, &source->host);
    if (r < 0) {
        free(source);
        return r;
    }
    source->fetcher = f;
    key = str_printf("host:%s", name);
    if (key && f->memory.text_load(f->memory.userdata, key, &text, NULL) > 0)
        fetch_host_parse(source->host, text);
    LIST_PREPEND(sources, f->sources, source);
    *ret = source;
    return 0;
}

void source_free(Source *source)
{
    (void)http_op_free(source->robots_op);
    (void)robots_free(source->robots);
    (void)fetch_host_free(source->host);
    free(source);
}

/* --- robots.txt ----------------------------------------------------------------------------- */

static int check_robots_address(const char *address, uint16_t port, const char *host,
                                void *userdata)
{
    const Source *source = userdata;

    if (http_client_is_endpoint(source->fetcher->http, host, port))
        return 0;
    return address_is_private(address) ? -EPERM : 0;
}

static void robots_answered(HttpOp *op, const HttpResponse *response, const Error *err,
                            void *userdata)
{
    Source *source = userdata;
    Fetcher *f = source->fetcher;
    uint64_t now = wall_now(f);
    Robots *robots = NULL;
    bool unreachable = err || response->status >= 500;
    int r;

    source->robots_op = NULL; /* freed last: the reply lives in it */
    add_bytes(f, response ? response->wire_bytes_in + response->wire_bytes_out : 0);
    if (response)
        fetch_host_connected(source->host, response->new_connections, now);
    if (unreachable)
        r = robots_new_all(/* allowed= */ false, &robots);
    else if (response->status >= 200 && response->status < 300)
        r = robots_parse(buf_str(&response->body), response->body.size, ROBOTS_PRODUCT, &robots);
    else
        r = robots_new_all(/* allowed= */ true, &robots);
    fetch_host_end(source->host, unreachable ? FETCH_NETWORK : FETCH_WELL, 0,
                   "robots.txt could not be read", now);
    if (r >= 0) {
        (void)robots_free(source->robots);
        source->robots = robots;
        /* "Disallow all" for want of an answer is asked again soon, rules only after a day. */
        source->robots_at_usec = unreachable ? now - ROBOTS_MAX_AGE_USEC + ROBOTS_RETRY_USEC : now;
    }
    source_save(f, source, /* now= */ unreachable);
    (void)http_op_free(op);
    pump(f);
}

/* 1: read; 0: being read, or the host must not be asked now; negative: failed. */
int robots_ready(Fetcher *f, Source *source, const char *url, const FetchLimits *limits, Error *err)
{
    auto_free char *scheme = NULL, *host = NULL, *robots_url = NULL;
    HttpHeader agent = {"User-Agent", f->user_agent};
    uint64_t now = wall_now(f);
    uint16_t port = 0;
    HttpRequest request = {.headers = &agent,
                           .n_headers = 1,
                           .max_body = ROBOTS_SIZE_MAX,
                           .compressed = true,
                           .follow = true,
                           .total_timeout_usec = 30 * SECOND,
                           .check_address = check_robots_address};
    int r;

    if (source->robots && now - source->robots_at_usec < ROBOTS_MAX_AGE_USEC)
        return 1;
    if (source->robots_op)
        return 0;
    r = url_host_port(url, &scheme, &host, &port, err);
    if (r < 0)
        return r;
    robots_url = str_printf("%s://%s:%u/robots.txt", scheme, host, (unsigned)port);
    if (!robots_url)
        return error_oom(err);
    request.url = robots_url;
    r = http_start(f->http, &request, robots_answered, source, &source->robots_op, err);
    if (r < 0)
        return r;
    fetch_host_begin(source->host, limits, now);
    return 0;
}

const char *url_path(const char *url)
{
    const char *at = strstr(url, "://");

    at = at ? strchr(at + 3, '/') : NULL;
    return at ? at : "/";
}
