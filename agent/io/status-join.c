/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/json.h"
#include "agent/io/status-keys.h"

/* jansson counts references in const values, too. */
static json_t *shared(const json_t *value)
{
    return value ? json_incref((json_t *)(uintptr_t)value) : json_null();
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

json_t *status_join(const json_t *agent, const json_t *crawler, const Error *err)
{
    json_auto_t *status = NULL;
    bool reachable = !err || err->code == 0;

    status = json_is_object(agent) ? json_copy((json_t *)(uintptr_t)agent) : json_object();
    if (!status || json_put(status, "reachable", json_boolean(reachable)) < 0 ||
        json_put(status, "crawler", shared(crawler)) < 0)
        return NULL;
    if (!reachable && (json_put(status, "message", json_string(error_text(err))) < 0 ||
                       json_put(status, "remedy", text_or_null(err->remedy)) < 0))
        return NULL;
    return json_incref(status);
}
