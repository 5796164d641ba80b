/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/document.h"

#include <stdio.h>

#include "agent/base/str.h"
#include "agent/io/json.h"

const char *text_of(const json_t *object, const char *key, const char *otherwise)
{
    const char *text = json_str(object, key);

    return str_is_empty(text) ? otherwise : text;
}

bool number_of(const json_t *object, const char *key, uint64_t *ret)
{
    return json_u64(object, key, ret) >= 0;
}

uint64_t count_of(const json_t *object, const char *key)
{
    uint64_t count = 0;

    (void)number_of(object, key, &count);
    return count;
}

const char *number_text(const json_t *object, const char *key, char buf[static NUMBER_TEXT_MAX])
{
    return format_number(buf, count_of(object, key));
}

uint64_t time_of(const json_t *object, const char *key)
{
    const char *text = json_str(object, key);
    int64_t usec;

    return text && time_parse_rfc3339(text, &usec) >= 0 && usec > 0 ? (uint64_t)usec : 0;
}

char *ago_of(const json_t *object, const char *key, const View *view,
             char buf[static TIME_SPAN_MAX])
{
    return time_format_ago(buf, time_of(object, key), view->now_usec);
}

const char *since_of(const json_t *object, const View *view, char buf[static TIME_SPAN_MAX])
{
    return time_of(object, "since") > 0 ? ago_of(object, "since", view, buf) : NULL;
}

const char *until_of(const json_t *object, const char *key, const View *view,
                     char buf[static TIME_SPAN_MAX])
{
    uint64_t then = time_of(object, key);
    char span[TIME_SPAN_MAX];

    if (then == 0)
        return NULL;
    if (then <= view->now_usec)
        return "now";
    (void)time_format_span(span, (then - view->now_usec) / SECOND * SECOND);
    (void)snprintf(buf, TIME_SPAN_MAX, "in %.*s", (int)(TIME_SPAN_MAX - 4), span);
    return buf;
}

const char *short_digest(const char *digest, char buf[static DIGEST_DIGITS + 1])
{
    const char *hex = digest ? startswith(digest, "sha256:") : NULL;

    if (!hex)
        return digest;
    (void)snprintf(buf, DIGEST_DIGITS + 1, "%s", hex);
    return buf;
}
