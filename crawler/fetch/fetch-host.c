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
#define SUSPECT_AFTER     2 /* connects in a row that timed out */

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

static void add_bytes(Fetcher *f, uint64_t bytes)
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

/* --- What a request comes to ---------------------------------------------------------------- */

static void look_for_blocked_egress(Source *source, const HttpResponse *response, const Error *err)
{
    const FetchHandlers *handlers = &source->fetcher->handlers;

    if (!err || err->code != -ETIMEDOUT || response->connected) {
        source->connect_timeouts = 0;
        return;
    }
    if (++source->connect_timeouts >= SUSPECT_AFTER && handlers->egress_suspect)
        handlers->egress_suspect(source->host->name, handlers->userdata);
}

void source_answered(Source *source, const HttpResponse *response, const Error *err, uint64_t now)
{
    FetchHost *host = source->host;

    host->bytes_in += response->wire_bytes_in;
    host->bytes_out += response->wire_bytes_out;
    /* A connection that never came about took a port, too. */
    fetch_host_connected(host, MAX_OF(response->new_connections, response->connected ? 0U : 1U),
                         now);
    add_bytes(source->fetcher, response->wire_bytes_in + response->wire_bytes_out);
    look_for_blocked_egress(source, response, err);
}

/* --- robots.txt ----------------------------------------------------------------------------- */

bool wants_robots(const FetchJob *job)
{
    return job->recipe->politeness.robots == RECIPE_ROBOTS_OBEY && !job->acknowledged;
}

static int check_robots_address(const char *address, uint16_t port, const char *host,
                                void *userdata)
{
    const Source *source = userdata;

    if (http_client_is_endpoint(source->fetcher->http, host, port))
        return 0;
    return address_is_private(address) ? -EPERM : 0;
}

/* RFC 9309: 2xx is rules, 4xx that there are none. No answer, or one of 5xx, says nothing, and then
 * nothing may be asked; so does "too many requests", which is of requests and not of rules. */
static FetchFailure robots_failure(const HttpResponse *response, const Error *err)
{
    if (err)
        return FETCH_NETWORK;
    if (response->status >= 500 || response->status == 429)
        return fetch_failure_of_status(response->status);
    return FETCH_WELL;
}

static void robots_learn(Source *source, const HttpResponse *response, uint64_t now)
{
    bool rules = response->status >= 200 && response->status < 300;
    Robots *robots = NULL;

    if (robots_parse(rules ? buf_str(&response->body) : "", rules ? response->body.size : 0,
                     ROBOTS_PRODUCT, &robots) < 0)
        return; /* for want of memory: it is asked again */
    (void)robots_free(source->robots);
    source->robots = robots;
    source->robots_at_usec = now;
}

/* Rules of before stand while there are no others, for a while after the pause that the host gets:
 * were they as old as before when it is over, nothing else would ever be asked. Without any, who
 * waits for them has tried. */
static void robots_not_learned(Fetcher *f, Source *source, const char *message, uint64_t now)
{
    if (source->robots) {
        source->robots_at_usec =
            MAX_OF(now, source->host->until_usec) - ROBOTS_MAX_AGE_USEC + ROBOTS_RETRY_USEC;
        return;
    }
    LIST_FOREACH_SAFE (tasks, task, f->tasks)
        if (task->source == source && !task->op && wants_robots(task->run->job)) {
            symbol_again(f, task, message,
                         "nothing is asked before robots.txt can be read, and that is tried again "
                         "by itself; where the source's terms allow it all the same, set the job's "
                         "`terms` to \"acknowledged\"");
            task_free(f, task);
        }
}

static void robots_answered(HttpOp *op, const HttpResponse *response, const Error *err,
                            void *userdata)
{
    Source *source = userdata;
    Fetcher *f = source->fetcher;
    uint64_t now = wall_now(f);
    FetchFailure failure = robots_failure(response, err);
    auto_free char *message = err ? str_printf("robots.txt of %s could not be read: %s",
                                               source->host->name, error_text(err))
                                  : str_printf("robots.txt of %s could not be read: HTTP %ld",
                                               source->host->name, response->status);

    source->robots_op = NULL; /* freed last: the reply lives in it */
    source_answered(source, response, err, now);
    fetch_host_end(source->host, failure, response->retry_after_usec, message, now);
    if (failure == FETCH_WELL)
        robots_learn(source, response, now);
    else
        robots_not_learned(f, source, message ? message : "robots.txt could not be read", now);
    source_save(f, source, /* now= */ failure != FETCH_WELL);
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
                           .max_body = HTTP_BODY_MAX, /* of which the parser takes a part */
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
