/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/io/fields-internal.h"

/* What one string of a document may take: the document itself is bounded by its caller. */
#define TEXT_MAX (SIZE_MAX / 4)

JsonToken field_next(FieldContext *c)
{
    JsonToken token = json_scan_next(&c->scan);

    if (token == JSON_TOKEN_ERROR)
        field_error_at(c, c->scan.offset, NULL, "%s", c->scan.message);
    return token;
}

int field_skip(FieldContext *c)
{
    if (json_scan_skip(&c->scan) < 0) {
        field_error_at(c, c->scan.offset, NULL, "%s", c->scan.message);
        return -EBADMSG;
    }
    return c->fatal < 0 ? c->fatal : 0;
}

void field_push_key(FieldContext *c, const char *key)
{
    assert(c->n_steps < ELEMENTS(c->steps));
    c->steps[c->n_steps++] = (FieldStep){.key = key};
}

void field_push_index(FieldContext *c, size_t index)
{
    assert(c->n_steps < ELEMENTS(c->steps));
    c->steps[c->n_steps++] = (FieldStep){.index = index};
}

void field_pop(FieldContext *c)
{
    assert(c->n_steps > 0);
    c->n_steps--;
}

/* The text of the STRING or KEY in hand; 0 when it is none that C can hold. */
int field_token_text(FieldContext *c, char **ret)
{
    auto_buf Buf text = BUF_INIT(TEXT_MAX);
    int r;

    r = json_scan_string(&c->scan, &text);
    if (r == -EBADMSG) {
        field_error_at(c, c->scan.offset, NULL,
                       "a string with \\u0000 or half a surrogate pair cannot be used");
        return c->fatal;
    }
    if (r < 0)
        return r;
    *ret = buf_take(&text);
    return *ret ? 1 : -ENOMEM;
}

/* What was found, for a message: scalars as they stand, cut. */
static char *found_text(const JsonScan *scan, JsonToken token)
{
    auto_free char *shown = NULL;

    if (token == JSON_TOKEN_NULL)
        return strdup("null: leave the key out instead");
    if (token != JSON_TOKEN_STRING && token != JSON_TOKEN_NUMBER)
        return strdup(json_token_name(token));
    shown = str_escape(scan->text, scan->text_size, FIELD_FOUND_MAX);
    if (!shown)
        return NULL;
    return str_printf(token == JSON_TOKEN_STRING ? "\"%s\"" : "%s", shown);
}

/* Reports the value in hand and reads over it. */
int field_wrong_value(FieldContext *c, JsonToken token, const char *expected)
{
    auto_free char *found = found_text(&c->scan, token);

    if (!found)
        return -ENOMEM;
    field_error_at(c, c->scan.offset, NULL, "expected %s, found %s", expected, found);
    return field_skip(c);
}

static int build_array(FieldContext *c, json_t **ret)
{
    json_auto_t *array = json_array();
    JsonToken token;
    int r, good = 1;

    if (!array)
        return -ENOMEM;
    while ((token = field_next(c)) != JSON_TOKEN_ARRAY_END) {
        json_t *item = NULL;

        if (token == JSON_TOKEN_ERROR)
            return -EBADMSG;
        field_push_index(c, json_array_size(array));
        r = field_build(c, token, &item);
        field_pop(c);
        if (r > 0 && json_array_append_new(array, item) < 0)
            return -ENOMEM;
        if (r < 0)
            return r;
        good = good && r;
    }
    if (good)
        *ret = take_ptr(array);
    return good;
}

static int build_pair(FieldContext *c, json_t *object)
{
    size_t key_at = c->scan.offset;
    auto_free char *key = NULL;
    json_t *value = NULL;
    JsonToken token;
    bool again;
    int r;

    r = field_token_text(c, &key);
    if (r <= 0)
        return r < 0 ? r : field_skip(c);
    field_push_key(c, key);
    again = json_object_get(object, key);
    if (again)
        field_error_at(c, key_at, NULL, "this key is there twice");
    token = field_next(c);
    if (token == JSON_TOKEN_ERROR)
        return -EBADMSG;
    r = field_build(c, token, &value);
    field_pop(c);
    if (r > 0 && json_object_set_new(object, key, value) < 0)
        return -ENOMEM;
    return r > 0 ? !again : r;
}

static int build_object(FieldContext *c, json_t **ret)
{
    json_auto_t *object = json_object();
    JsonToken token;
    int r, good = 1;

    if (!object)
        return -ENOMEM;
    while ((token = field_next(c)) != JSON_TOKEN_OBJECT_END) {
        if (token == JSON_TOKEN_ERROR)
            return -EBADMSG;
        r = build_pair(c, object);
        if (r < 0)
            return r;
        good = good && r;
    }
    if (good)
        *ret = take_ptr(object);
    return good;
}

static int build_scalar(FieldContext *c, JsonToken token, json_t **ret)
{
    auto_free char *text = NULL;
    int r;

    if (token == JSON_TOKEN_STRING) {
        r = field_token_text(c, &text);
        if (r <= 0)
            return r;
        *ret = json_string(text);
    } else {
        *ret = json_loadb(c->scan.text, c->scan.text_size, JSON_DECODE_ANY, NULL);
        if (!*ret)
            return field_wrong_value(c, token, "a number that fits 64 bits");
    }
    return *ret ? 1 : -ENOMEM;
}

/* The value that the token in hand begins, as jansson holds it. */
int field_build(FieldContext *c, JsonToken token, json_t **ret)
{
    if (token == JSON_TOKEN_OBJECT_BEGIN)
        return build_object(c, ret);
    return token == JSON_TOKEN_ARRAY_BEGIN ? build_array(c, ret) : build_scalar(c, token, ret);
}
