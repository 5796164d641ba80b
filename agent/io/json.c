/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/json.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/crypto.h"
#include "agent/io/json-scan.h"

#define PARSE_FLAGS (JSON_REJECT_DUPLICATES | JSON_DECODE_ANY)

/* The tokenizer's verdict comes first: it limits depth far below jansson's 2,048 and has the better
 * messages. */
static int check_document(const char *data, size_t size, JsonScan *ret)
{
    JsonToken token;

    json_scan_init(ret, data, size);
    do
        token = json_scan_next(ret);
    while (token != JSON_TOKEN_END && token != JSON_TOKEN_ERROR);
    return token == JSON_TOKEN_END ? 0 : -EBADMSG;
}

/* What jansson alone finds. Its own text quotes the document, which may hold a token. */
static const char *jansson_message(const json_error_t *error)
{
    switch (json_error_code(error)) {
    case json_error_duplicate_key:
        return "a key is repeated";
    case json_error_numeric_overflow:
        return "a number is too big";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "a string with an encoded NUL";
    default:
        return "not valid JSON";
    }
}

int json_parse(const char *data, size_t size, const char *what, json_t **ret, Error *err)
{
    unsigned line, column;
    json_error_t error;
    JsonScan scan;
    json_t *value;

    assert(what && ret);

    if (check_document(data, size, &scan) < 0) {
        json_scan_position(data, scan.offset, &line, &column);
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "%s: line %u, column %u: %s", what, line,
                         column, scan.message);
    }
    value = json_loadb(data, size, PARSE_FLAGS, &error);
    if (!value && json_error_code(&error) == json_error_out_of_memory)
        return error_oom(err);
    if (!value)
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "%s: line %d, column %d: %s", what,
                         error.line, error.column, jansson_message(&error));
    *ret = value;
    return 0;
}

int json_parse_quiet(const char *data, size_t size, json_t **ret)
{
    JsonScan scan;
    json_t *value;

    assert(ret);

    if (check_document(data, size, &scan) < 0)
        return 0;
    value = json_loadb(data, size, PARSE_FLAGS, NULL);
    if (!value)
        return 0;
    *ret = value;
    return 1;
}

json_t *json_at(const json_t *value, const char *key, ...)
{
    va_list args;

    va_start(args, key);
    for (; value && key; key = va_arg(args, const char *))
        value = json_object_get(value, key);
    va_end(args);
    return (json_t *)value;
}

const char *json_str(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

int json_i64(const json_t *object, const char *key, int64_t *ret)
{
    const json_t *value = json_object_get(object, key);

    assert(ret);

    if (!value || json_is_null(value))
        return -ENOENT;
    if (json_is_integer(value)) {
        *ret = json_integer_value(value);
        return 0;
    }
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
        return -EINVAL;
    return parse_i64(json_string_value(value), ret) < 0 ? -EINVAL : 0;
}

int json_u64(const json_t *object, const char *key, uint64_t *ret)
{
    const json_t *value = json_object_get(object, key);

    assert(ret);

    if (!value || json_is_null(value))
        return -ENOENT;
    if (json_is_integer(value)) {
        if (json_integer_value(value) < 0)
            return -EINVAL;
        *ret = (uint64_t)json_integer_value(value);
        return 0;
    }
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
        return -EINVAL;
    return parse_u64(json_string_value(value), ret) < 0 ? -EINVAL : 0;
}

json_t *json_find(const json_t *list, const char *key, const char *text)
{
    json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        const char *other = json_str(item, key);

        if (other && strcasecmp(other, text) == 0)
            return item;
    }
    return NULL;
}

bool json_flag(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

char *json_canonical(const json_t *value)
{
    return json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
}

char *json_text(const json_t *value, bool pretty)
{
    return json_dumps(value, JSON_ENCODE_ANY | (pretty ? JSON_INDENT(2) : JSON_COMPACT));
}

int json_put(json_t *object, const char *key, json_t *value)
{
    assert(object && key);

    return json_object_set_new(object, key, value) < 0 ? -ENOMEM : 0;
}

static void cleanse_strings(json_t *value)
{
    const char *key;
    json_t *member;
    size_t i;

    switch (json_typeof(value)) {
    case JSON_STRING:
        /* jansson hands out its own copy, which nobody else reads any more. */
        cleanse((void *)(uintptr_t)json_string_value(value), json_string_length(value));
        break;
    case JSON_OBJECT:
        json_object_foreach (value, key, member)
            cleanse_strings(member);
        break;
    case JSON_ARRAY:
        json_array_foreach (value, i, member)
            cleanse_strings(member);
        break;
    case JSON_INTEGER:
    case JSON_REAL:
    case JSON_TRUE:
    case JSON_FALSE:
    case JSON_NULL:
        break;
    }
}

void json_cleanse(json_t *value)
{
    if (!value)
        return;

    cleanse_strings(value);
    json_decref(value);
}
