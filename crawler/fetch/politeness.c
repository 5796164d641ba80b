/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/fetch/politeness.h"

#include <errno.h>
#include <limits.h>

#include "agent/base/backoff.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"

/* First pause of the breaker by what happened; each further failure doubles it. */
static const uint64_t first_pause_usec[FETCH_FAILURE_MAX] = {
    [FETCH_NETWORK] = SECOND,     [FETCH_SERVER] = SECOND,       [FETCH_THROTTLED] = 30 * SECOND,
    [FETCH_BANNED] = 10 * MINUTE, [FETCH_CHANGED] = 30 * SECOND,
};

static const struct {
    long status;
    FetchFailure failure;
} statuses[] = {
    {401, FETCH_BANNED}, {403, FETCH_BANNED},    {418, FETCH_BANNED},
    {451, FETCH_BANNED}, {429, FETCH_THROTTLED}, {503, FETCH_THROTTLED},
};

FetchFailure fetch_failure_of_status(long status)
{
    for (size_t i = 0; i < ELEMENTS(statuses); i++)
        if (statuses[i].status == status)
            return statuses[i].failure;
    return status >= 500 ? FETCH_SERVER : FETCH_WELL;
}

int fetch_host_new(const char *name, FetchHost **ret)
{
    auto_(fetch_host_freep) FetchHost *host = calloc(1, sizeof(*host));

    if (!host)
        return -ENOMEM;
    host->name = strdup(name);
    if (!host->name)
        return -ENOMEM;
    *ret = take_ptr(host);
    return 0;
}

FetchHost *fetch_host_free(FetchHost *host)
{
    if (!host)
        return NULL;
    free(host->name);
    free(host->message);
    free(host);
    return NULL;
}

bool fetch_host_is_open(const FetchHost *host, uint64_t now_usec)
{
    return host->until_usec > now_usec;
}

/* How long until then, which can be `at_most` ahead. */
static uint64_t left(uint64_t *until_usec, uint64_t now_usec, uint64_t at_most)
{
    *until_usec = MIN_OF(*until_usec, now_usec + at_most);
    return *until_usec > now_usec ? *until_usec - now_usec : 0;
}

/* What was kept by a process with another clock can lie anywhere. */
static uint64_t longest_pause(const FetchHost *host)
{
    const uint64_t longest = FETCH_RETRY_AFTER_MAX_USEC / 4 * 5;

    return host->open_usec > 0 ? MIN_OF(host->open_usec, longest) : longest;
}

static bool is_recent(const FetchConnected *connected, uint64_t now)
{
    return connected->n > 0 && connected->second <= now &&
           now - connected->second < FETCH_NAT_SECONDS;
}

unsigned fetch_host_recent_connections(const FetchHost *host, uint64_t now_usec)
{
    uint64_t n = 0;

    for (size_t i = 0; i < FETCH_NAT_SECONDS; i++)
        if (is_recent(&host->connected[i], now_usec / SECOND))
            n += host->connected[i].n;
    return (unsigned)MIN_OF(n, (uint64_t)UINT_MAX);
}

/* Until the oldest of the recent connections is out of the window; each request under way may open
 * one more. */
static uint64_t nat_wait(const FetchHost *host, unsigned ports, uint64_t now_usec)
{
    uint64_t oldest = UINT64_MAX;

    if (ports == 0 || fetch_host_recent_connections(host, now_usec) + host->in_flight < ports)
        return 0;
    if (fetch_host_recent_connections(host, now_usec) < ports)
        return UINT64_MAX;
    for (size_t i = 0; i < FETCH_NAT_SECONDS; i++)
        if (is_recent(&host->connected[i], now_usec / SECOND))
            oldest = MIN_OF(oldest, host->connected[i].second);
    return (oldest + FETCH_NAT_SECONDS) * SECOND - now_usec;
}

uint64_t fetch_host_wait(FetchHost *host, const FetchLimits *limits, uint64_t now_usec,
                         const char **ret_why)
{
    uint64_t wait;

    *ret_why = "the breaker is open";
    wait = left(&host->until_usec, now_usec, longest_pause(host));
    if (wait > 0)
        return wait;
    *ret_why = "a request is under way";
    if (host->probing || host->in_flight >= MAX_OF(limits->connections, 1U))
        return UINT64_MAX;
    /* Half open: one request finds out, whatever else is allowed. */
    if (host->failures > 0 && host->in_flight > 0)
        return UINT64_MAX;
    *ret_why = "the daily number of requests is used up";
    if (limits->requests_per_day > 0 && host->day == now_usec / DAY &&
        host->day_requests >= limits->requests_per_day)
        return DAY - now_usec % DAY;
    *ret_why = "new connections are kept under nat_ports";
    wait = nat_wait(host, limits->nat_ports, now_usec);
    if (wait > 0)
        return wait;
    *ret_why = "time between requests";
    return left(&host->next_usec, now_usec, 2 * limits->delay_usec);
}

void fetch_host_begin(FetchHost *host, const FetchLimits *limits, uint64_t now_usec)
{
    if (host->day != now_usec / DAY) {
        host->day = now_usec / DAY;
        host->day_requests = 0;
    }
    host->day_requests++;
    host->requests++;
    host->in_flight++;
    host->probing = host->failures > 0;
    /* The delay is a minimum, so the jitter only lengthens it. */
    host->next_usec =
        limits->delay_usec ? now_usec + limits->delay_usec + random_u64(limits->delay_usec / 2) : 0;
}

static void add_connected(FetchHost *host, uint64_t second, uint64_t n)
{
    FetchConnected *connected = &host->connected[second % FETCH_NAT_SECONDS];

    if (connected->second != second)
        *connected = (FetchConnected){.second = second};
    connected->n += n;
}

void fetch_host_connected(FetchHost *host, unsigned n, uint64_t now_usec)
{
    host->connections += n;
    if (n > 0)
        add_connected(host, now_usec / SECOND, n);
}

static void shift(uint64_t *instant_usec, int64_t step_usec)
{
    int64_t moved = (int64_t)*instant_usec + step_usec;

    if (*instant_usec > 0)
        *instant_usec = moved > 0 ? (uint64_t)moved : 0;
}

void fetch_host_clock_set(FetchHost *host, int64_t step_usec)
{
    const int64_t second = (int64_t)SECOND;
    FetchConnected old[FETCH_NAT_SECONDS];
    /* Rounded to the later one, as a port must not be free too early. */
    int64_t seconds = (step_usec > 0 ? step_usec + second - 1 : step_usec) / second;

    shift(&host->next_usec, step_usec);
    shift(&host->until_usec, step_usec);
    memcpy(old, host->connected, sizeof(old));
    memset(host->connected, 0, sizeof(host->connected));
    for (size_t i = 0; i < FETCH_NAT_SECONDS; i++)
        if (old[i].n > 0 && (int64_t)old[i].second + seconds > 0)
            add_connected(host, (uint64_t)((int64_t)old[i].second + seconds), old[i].n);
}

void fetch_host_end(FetchHost *host, FetchFailure failure, uint64_t retry_after_usec,
                    const char *message, uint64_t now_usec)
{
    uint64_t pause;

    if (host->in_flight > 0)
        host->in_flight--;
    host->probing = false;
    if (failure == FETCH_WELL) {
        host->failures = 0;
        host->until_usec = host->open_usec = host->pause_usec = 0;
        free(host->message);
        host->message = NULL;
        return;
    }

    host->refusals++;
    host->failures++;
    pause = MAX_OF(2 * host->pause_usec, first_pause_usec[failure]);
    host->pause_usec = pause = MIN_OF(pause, FETCH_PAUSE_MAX_USEC);
    if (retry_after_usec > 0)
        pause = MIN_OF(MAX_OF(retry_after_usec, SECOND), FETCH_RETRY_AFTER_MAX_USEC);
    host->open_usec = pause + random_u64(pause / 4);
    host->until_usec = now_usec + host->open_usec;
    if (str_set(&host->message, message) < 0)
        host->message = NULL;
}

/* --- Memory --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
#define NUMBER(member)                                                                             \
    {                                                                                              \
#member, offsetof(FetchHost, member)                                                       \
    }
    NUMBER(next_usec), NUMBER(until_usec),   NUMBER(open_usec),   NUMBER(pause_usec),
    NUMBER(day),       NUMBER(day_requests), NUMBER(requests),    NUMBER(refusals),
    NUMBER(bytes_in),  NUMBER(bytes_out),    NUMBER(connections),
#undef NUMBER
};

char *fetch_host_format(const FetchHost *host)
{
    json_auto_t *value = json_object();
    json_t *connected = json_array();

    for (size_t i = 0; i < ELEMENTS(numbers); i++) {
        const uint64_t *number =
            (const uint64_t *)(const void *)((const char *)host + numbers[i].offset);

        if (json_put(value, numbers[i].name, json_integer((json_int_t)*number)) < 0)
            return NULL;
    }
    for (size_t i = 0; i < FETCH_NAT_SECONDS; i++) {
        const FetchConnected *one = &host->connected[i];

        if (one->n > 0 &&
            json_array_append_new(
                connected, json_pack("[I, I]", (json_int_t)one->second, (json_int_t)one->n)) < 0)
            return NULL;
    }
    if (json_put(value, "connected", connected) < 0 ||
        json_put(value, "failures", json_integer((json_int_t)host->failures)) < 0 ||
        (host->message && json_put(value, "message", json_string(host->message)) < 0))
        return NULL;
    return json_text(value, false);
}

void fetch_host_parse(FetchHost *host, const char *text)
{
    json_auto_t *value = NULL;
    const json_t *at;
    uint64_t failures = 0;
    size_t i;

    if (json_parse_quiet(text, strlen(text), &value) <= 0)
        return;
    for (i = 0; i < ELEMENTS(numbers); i++) {
        uint64_t *number = (uint64_t *)(void *)((char *)host + numbers[i].offset);

        if (json_u64(value, numbers[i].name, number) < 0)
            *number = 0;
    }
    if (json_u64(value, "failures", &failures) >= 0)
        host->failures = (unsigned)MIN_OF(failures, UINT64_C(1000));
    json_array_foreach (json_object_get(value, "connected"), i, at)
        add_connected(host, (uint64_t)json_integer_value(json_array_get(at, 0)),
                      (uint64_t)json_integer_value(json_array_get(at, 1)));
    if (str_set(&host->message, json_str(value, "message")) < 0)
        host->message = NULL;
}
