/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/io/fields-internal.h"

bool field_type_is_text(FieldType type)
{
    return type == FIELD_TYPE_STRING || type == FIELD_TYPE_DURATION || type == FIELD_TYPE_SIZE ||
           type == FIELD_TYPE_MODE || type == FIELD_TYPE_ENUM;
}

bool field_type_is_scalar(FieldType type)
{
    return field_type_is_text(type) || type == FIELD_TYPE_BOOL || type == FIELD_TYPE_UINT ||
           type == FIELD_TYPE_DOUBLE;
}

const char *field_expects(const Field *field)
{
    static const char *const names[] = {
        [FIELD_TYPE_STRING] = "a string",
        [FIELD_TYPE_BOOL] = "true or false",
        [FIELD_TYPE_UINT] = "a whole number",
        [FIELD_TYPE_DOUBLE] = "a number",
        [FIELD_TYPE_DURATION] = "a duration such as \"90s\", \"5m\" or \"1h30m\"",
        [FIELD_TYPE_SIZE] = "a size such as \"64MiB\" or \"1.5GiB\"",
        [FIELD_TYPE_MODE] = "a file mode such as \"0644\"",
        [FIELD_TYPE_ENUM] = "a string",
        [FIELD_TYPE_STRV] = "an array of strings",
        [FIELD_TYPE_OBJECT] = "an object",
        [FIELD_TYPE_OBJECT_PTR] = "an object",
        [FIELD_TYPE_ARRAY] = "an array of objects",
        [FIELD_TYPE_MAP] = "an object",
        [FIELD_TYPE_RAW] = "a value",
        [FIELD_TYPE_CUSTOM] = "a value",
    };

    if (field->type == FIELD_TYPE_RAW && (field->flags & FIELD_IS_OBJECT))
        return "an object";
    return names[field->type];
}

static int parse_name(const Field *field, const char *text, int *ret)
{
    for (int i = 0; field->names[i]; i++) {
        if (streq(field->names[i], text)) {
            *ret = i;
            return 0;
        }
    }
    return -EINVAL;
}

/* Whole numbers as JSON may write them: "10", "10.0", "1e3". */
static int parse_whole(const char *text, uint64_t *ret)
{
    json_auto_t *value = NULL;
    double number;
    int r;

    r = parse_u64(text, ret);
    if (r == 0 || r == -ERANGE)
        return r;
    value = json_loads(text, JSON_DECODE_ANY, NULL);
    if (!value || !json_is_number(value))
        return -EINVAL;
    number = json_number_value(value);
    if (number < 0)
        return -EINVAL;
    if (number > 9007199254740992.0) /* 2^53: beyond it a double has lost digits */
        return -ERANGE;
    if (number - (double)(uint64_t)number > 0)
        return -EINVAL;
    *ret = (uint64_t)number;
    return 0;
}

/* jansson reads doubles whatever the locale is. */
static int parse_double(const char *text, double *ret)
{
    json_auto_t *value = json_loads(text, JSON_DECODE_ANY, NULL);

    if (!value || !json_is_number(value))
        return -EINVAL;
    *ret = json_number_value(value);
    return 0;
}

int field_parse(const Field *field, const char *text, void *member)
{
    switch (field->type) {
    case FIELD_TYPE_STRING:
        return str_set(member, text);
    case FIELD_TYPE_BOOL:
        return parse_bool(text, member);
    case FIELD_TYPE_UINT:
        return parse_whole(text, member);
    case FIELD_TYPE_DOUBLE:
        return parse_double(text, member);
    case FIELD_TYPE_DURATION:
        return parse_duration(text, member);
    case FIELD_TYPE_SIZE:
        return parse_size(text, member);
    case FIELD_TYPE_MODE:
        return parse_mode(text, member);
    case FIELD_TYPE_ENUM:
        return parse_name(field, text, member);
    case FIELD_TYPE_STRV:
    case FIELD_TYPE_OBJECT:
    case FIELD_TYPE_OBJECT_PTR:
    case FIELD_TYPE_ARRAY:
    case FIELD_TYPE_MAP:
    case FIELD_TYPE_RAW:
    case FIELD_TYPE_CUSTOM:
        break;
    }
    return -EINVAL;
}

char *field_format_u64(const Field *field, uint64_t value, char buf[static FIELD_TEXT_MAX])
{
    _Static_assert(FIELD_TEXT_MAX >= PARSE_TEXT_MAX, "a bound must fit");

    if (field->type == FIELD_TYPE_DURATION)
        return format_duration(buf, value);
    if (field->type == FIELD_TYPE_SIZE)
        return format_size(buf, value);
    (void)snprintf(buf, FIELD_TEXT_MAX, field->type == FIELD_TYPE_MODE ? "%04" PRIo64 : "%" PRIu64,
                   value);
    return buf;
}

static const char *double_bounds(const Field *field, char buf[static FIELD_TEXT_MAX])
{
    if (!(field->max_double > field->min_double))
        return NULL;
    (void)snprintf(buf, FIELD_TEXT_MAX, "%g to %g", field->min_double, field->max_double);
    return buf;
}

static const char *bounds_unit(const Field *field)
{
    switch (field->type) {
    case FIELD_TYPE_STRING:
        return " bytes";
    case FIELD_TYPE_STRV:
    case FIELD_TYPE_ARRAY:
        return " elements";
    case FIELD_TYPE_MAP:
        return " keys";
    case FIELD_TYPE_BOOL:
    case FIELD_TYPE_UINT:
    case FIELD_TYPE_DOUBLE:
    case FIELD_TYPE_DURATION:
    case FIELD_TYPE_SIZE:
    case FIELD_TYPE_MODE:
    case FIELD_TYPE_ENUM:
    case FIELD_TYPE_OBJECT:
    case FIELD_TYPE_OBJECT_PTR:
    case FIELD_TYPE_RAW:
    case FIELD_TYPE_CUSTOM:
        break;
    }
    return "";
}

const char *field_bounds(const Field *field, char buf[static FIELD_TEXT_MAX])
{
    char low[FIELD_TEXT_MAX], high[FIELD_TEXT_MAX];
    const char *unit = bounds_unit(field);

    if (field->type == FIELD_TYPE_DOUBLE)
        return double_bounds(field, buf);
    if (field->min == 0 && field->max == 0)
        return NULL;

    (void)field_format_u64(field, field->min, low);
    (void)field_format_u64(field, field->max, high);
    if (field->max == 0)
        (void)snprintf(buf, FIELD_TEXT_MAX, "at least %.30s%s", low, unit);
    else if (field->min == 0)
        (void)snprintf(buf, FIELD_TEXT_MAX, "at most %.30s%s", high, unit);
    else if (field->min == field->max)
        (void)snprintf(buf, FIELD_TEXT_MAX, "%.30s%s", low, unit);
    else
        (void)snprintf(buf, FIELD_TEXT_MAX, "%.30s to %.30s%s", low, high, unit);
    return buf;
}

static bool is_within(const Field *field, uint64_t value)
{
    return value >= field->min && (field->max == 0 || value <= field->max);
}

const char *field_judge_text(const Field *field, const char *value, size_t size,
                             char buf[static FIELD_TEXT_MAX])
{
    const char *expected;

    if (size == 0 && (field->flags & FIELD_NO_EMPTY))
        return "not empty";
    expected = field->check ? field->check(value) : NULL;
    if (expected)
        return expected;
    return field->type == FIELD_TYPE_STRING && !is_within(field, size) ? field_bounds(field, buf)
                                                                       : NULL;
}

const char *field_judge(const Field *field, const void *member, char buf[static FIELD_TEXT_MAX])
{
    uint64_t value = 0;
    double number;

    switch (field->type) {
    case FIELD_TYPE_STRING: {
        const char *text = *(char *const *)member;

        return text ? field_judge_text(field, text, strlen(text), buf) : NULL;
    }
    case FIELD_TYPE_DOUBLE:
        number = *(const double *)member;
        if (!double_bounds(field, buf))
            return NULL;
        return number < field->min_double || number > field->max_double ? double_bounds(field, buf)
                                                                        : NULL;
    case FIELD_TYPE_MODE:
        value = *(const uint32_t *)member;
        break;
    case FIELD_TYPE_UINT:
    case FIELD_TYPE_DURATION:
    case FIELD_TYPE_SIZE:
        value = *(const uint64_t *)member;
        break;
    case FIELD_TYPE_STRV:
        value = strv_length(*(char **const *)member);
        break;
    case FIELD_TYPE_ARRAY:
    case FIELD_TYPE_MAP:
        value = ((const FieldArray *)member)->n;
        break;
    case FIELD_TYPE_BOOL:
    case FIELD_TYPE_ENUM:
    case FIELD_TYPE_OBJECT:
    case FIELD_TYPE_OBJECT_PTR:
    case FIELD_TYPE_RAW:
    case FIELD_TYPE_CUSTOM:
        return NULL;
    }
    return is_within(field, value) ? NULL : field_bounds(field, buf);
}

int field_set_default(FieldContext *context, const Field *field, void *member)
{
    json_auto_t *text = NULL;
    int r;

    if (field->type == FIELD_TYPE_OBJECT)
        return fields_set_defaults(context, field->fields, member);
    if (!field->fallback) {
        if (field->type == FIELD_TYPE_ENUM)
            *(int *)member = -1;
        return 0;
    }
    if (field->type == FIELD_TYPE_CUSTOM) {
        text = json_string(field->fallback);
        return text ? field->custom->decode(context, text, member) : -ENOMEM;
    }
    r = field_parse(field, field->fallback, member);
    assert(r == 0 || r == -ENOMEM); /* fields_check_table() has the rest */
    return r;
}

int fields_set_defaults(FieldContext *context, const Field *fields, void *object)
{
    int r;

    FIELDS_FOREACH (f, fields) {
        r = field_set_default(context, f, field_member(f, object));
        if (r < 0)
            return r;
    }
    return 0;
}

static void member_done(const Field *field, void *member);

static void items_done(const Field *field, FieldArray *array)
{
    for (size_t i = 0; i < array->n; i++) {
        char *item = (char *)array->items + i * field->item_size;

        if (field->type == FIELD_TYPE_ARRAY) {
            fields_done(field->fields, item);
            continue;
        }
        member_done(field->value, item + field->value->offset);
        free(*(char **)(void *)item);
    }
    free(array->items);
    *array = (FieldArray){0};
}

static void member_done(const Field *field, void *member)
{
    void **pointer = member;

    switch (field->type) {
    case FIELD_TYPE_STRING:
        free(*pointer);
        *pointer = NULL;
        break;
    case FIELD_TYPE_STRV:
        *pointer = strv_free(*pointer);
        break;
    case FIELD_TYPE_OBJECT:
        fields_done(field->fields, member);
        break;
    case FIELD_TYPE_OBJECT_PTR:
        if (*pointer)
            fields_done(field->fields, *pointer);
        free(*pointer);
        *pointer = NULL;
        break;
    case FIELD_TYPE_ARRAY:
    case FIELD_TYPE_MAP:
        items_done(field, member);
        break;
    case FIELD_TYPE_RAW:
        json_decref(*pointer);
        *pointer = NULL;
        break;
    case FIELD_TYPE_CUSTOM:
        if (field->custom->done)
            field->custom->done(member);
        break;
    case FIELD_TYPE_BOOL:
    case FIELD_TYPE_UINT:
    case FIELD_TYPE_DOUBLE:
    case FIELD_TYPE_DURATION:
    case FIELD_TYPE_SIZE:
    case FIELD_TYPE_MODE:
    case FIELD_TYPE_ENUM:
        break; /* owns nothing */
    }
}

void fields_done(const Field *fields, void *object)
{
    assert(fields);

    if (!object)
        return;
    FIELDS_FOREACH (f, fields)
        member_done(f, field_member(f, object));
}
