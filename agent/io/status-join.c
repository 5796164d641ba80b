/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/status-keys.h"

#include "agent/base/str.h"
#include "agent/io/json.h"

/* jansson counts references in const values, too. */
static json_t *shared(const json_t *value)
{
    return value ? json_incref((json_t *)(uintptr_t)value) : json_null();
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

/* The plan has a crawl part: then crawlerd must be there, too. */
static bool wants_crawler(const json_t *status)
{
    json_t *item;
    size_t i;

    json_array_foreach (json_object_get(status, "resources"), i, item) {
        const char *kind = json_str(item, "kind");

        if (kind && streq(kind, "crawler"))
            return true;
    }
    return false;
}

bool status_misses_crawler(const json_t *status)
{
    return !json_is_object(json_object_get(status, "crawler")) && wants_crawler(status);
}

static bool crawler_is_well(const json_t *status)
{
    const char *state = json_str(json_object_get(status, "crawler"), "state");

    if (!state)
        return !status_misses_crawler(status);
    return !streq(state, "degraded") && !streq(state, "paused");
}

/* A machine whose crawler is not well is not well, whatever agentd says of its own part. */
static int put_state(json_t *status)
{
    const char *state = json_str(status, "state");

    if (!state || !streq(state, "well") || crawler_is_well(status))
        return 0;
    return json_put(status, "state", json_string("degraded"));
}

json_t *status_join(const json_t *agent, const json_t *crawler, const Error *err)
{
    json_auto_t *status = NULL;
    bool reachable = !err || err->code == 0;

    status = json_is_object(agent) ? json_copy((json_t *)(uintptr_t)agent) : json_object();
    if (!status || json_put(status, "reachable", json_boolean(reachable)) < 0 ||
        json_put(status, "crawler", shared(crawler)) < 0 || put_state(status) < 0)
        return NULL;
    if (!reachable && (json_put(status, "message", json_string(error_text(err))) < 0 ||
                       json_put(status, "remedy", text_or_null(err->remedy)) < 0))
        return NULL;
    return json_incref(status);
}
