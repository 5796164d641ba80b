/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/io/fields-internal.h"
#include "agent/io/json.h"

#define DURATION_PATTERN "^([0-9]+(\\.[0-9]{1,9})?(d|h|m|s|ms|us))+$"
#define SIZE_PATTERN     "^[0-9]+(\\.[0-9]{1,9})?(TiB|GiB|MiB|KiB|TB|GB|MB|kB|B)?$"
#define MODE_PATTERN     "^0?[0-7]{3,4}$"

static int value_schema(const Field *field, json_t *schema);

static int put_type(json_t *schema, const char *type)
{
    return json_put(schema, "type", json_string(type));
}

/* Bounds as numbers under the two keys; max 0 is none. */
static int put_bounds(const Field *field, json_t *schema, const char *low, const char *high)
{
    int r = 0;

    if (field->min > 0)
        r = json_put(schema, low, json_integer((json_int_t)field->min));
    if (r >= 0 && field->max > 0)
        r = json_put(schema, high, json_integer((json_int_t)field->max));
    return r;
}

/* Bounds as a user types them: JSON Schema has no words for those. */
static int put_text_bounds(const Field *field, json_t *schema)
{
    char text[FIELD_TEXT_MAX];
    int r = 0;

    if (field->min > 0)
        r = json_put(schema, "x-minimum", json_string(field_format_u64(field, field->min, text)));
    if (r >= 0 && field->max > 0)
        r = json_put(schema, "x-maximum", json_string(field_format_u64(field, field->max, text)));
    return r;
}

static int put_pattern(json_t *schema, const char *pattern)
{
    return pattern ? json_put(schema, "pattern", json_string(pattern)) : 0;
}

/* Lengths are bytes with us and characters there: its ceiling is never the lower one. */
static int string_schema(const Field *field, json_t *schema)
{
    uint64_t least = field->min > 0 || (field->flags & FIELD_NO_EMPTY) ? 1 : 0;
    int r;

    r = put_type(schema, "string");
    if (r >= 0 && least > 0)
        r = json_put(schema, "minLength", json_integer(1));
    if (r >= 0 && field->max > 0)
        r = json_put(schema, "maxLength", json_integer((json_int_t)field->max));
    return r < 0 ? r : put_pattern(schema, field->pattern);
}

static int text_schema(const Field *field, json_t *schema, const char *pattern)
{
    int r;

    r = put_type(schema, "string");
    if (r >= 0)
        r = put_pattern(schema, pattern);
    return r < 0 || field->type == FIELD_TYPE_MODE ? r : put_text_bounds(field, schema);
}

static int double_schema(const Field *field, json_t *schema)
{
    int r;

    r = put_type(schema, "number");
    if (r < 0 || !(field->max_double > field->min_double))
        return r;
    r = json_put(schema, "minimum", json_real(field->min_double));
    return r < 0 ? r : json_put(schema, "maximum", json_real(field->max_double));
}

static int uint_schema(const Field *field, json_t *schema)
{
    int r;

    r = put_type(schema, "integer");
    if (r >= 0)
        r = json_put(schema, "minimum", json_integer((json_int_t)field->min));
    if (r >= 0 && field->max > 0)
        r = json_put(schema, "maximum", json_integer((json_int_t)field->max));
    return r;
}

static int enum_schema(const Field *field, json_t *schema)
{
    json_auto_t *names = json_array();

    for (size_t i = 0; field->names[i]; i++) {
        if (json_array_append_new(names, json_string(field->names[i])) < 0)
            return -ENOMEM;
    }
    return json_put(schema, "enum", take_ptr(names));
}

static int strv_schema(const Field *field, json_t *schema)
{
    json_auto_t *item = json_object();
    int r;

    r = field->names ? enum_schema(field, item) : put_type(item, "string");
    if (r >= 0 && (field->flags & FIELD_NO_EMPTY))
        r = json_put(item, "minLength", json_integer(1));
    if (r >= 0)
        r = put_pattern(item, field->pattern);
    if (r >= 0)
        r = json_put(schema, "items", take_ptr(item));
    if (r >= 0)
        r = put_type(schema, "array");
    return r < 0 ? r : put_bounds(field, schema, "minItems", "maxItems");
}

static int array_schema(const Field *field, json_t *schema)
{
    int r;

    r = json_put(schema, "items", fields_schema(field->fields));
    if (r >= 0)
        r = put_type(schema, "array");
    return r < 0 ? r : put_bounds(field, schema, "minItems", "maxItems");
}

static int map_schema(const Field *field, json_t *schema)
{
    json_auto_t *value = json_object(), *key = json_object();
    int r;

    r = value ? value_schema(field->value, value) : -ENOMEM;
    if (r >= 0)
        r = json_put(schema, "additionalProperties", take_ptr(value));
    if (r >= 0)
        r = put_type(schema, "object");
    if (r >= 0 && (field->flags & FIELD_NO_EMPTY))
        r = json_put(key, "minLength", json_integer(1));
    if (r >= 0)
        r = put_pattern(key, field->pattern);
    if (r >= 0 && json_object_size(key) > 0)
        r = json_put(schema, "propertyNames", take_ptr(key));
    return r < 0 ? r : put_bounds(field, schema, "minProperties", "maxProperties");
}

static int merge_new(json_t *schema, json_t *more)
{
    json_auto_t *owned = more;

    return !owned || json_object_update(schema, owned) < 0 ? -ENOMEM : 0;
}

static int value_schema(const Field *field, json_t *schema)
{
    switch (field->type) {
    case FIELD_TYPE_STRING:
        return string_schema(field, schema);
    case FIELD_TYPE_BOOL:
        return put_type(schema, "boolean");
    case FIELD_TYPE_UINT:
        return uint_schema(field, schema);
    case FIELD_TYPE_DOUBLE:
        return double_schema(field, schema);
    case FIELD_TYPE_DURATION:
        return text_schema(field, schema, DURATION_PATTERN);
    case FIELD_TYPE_SIZE:
        return text_schema(field, schema, SIZE_PATTERN);
    case FIELD_TYPE_MODE:
        return text_schema(field, schema, MODE_PATTERN);
    case FIELD_TYPE_ENUM:
        return enum_schema(field, schema);
    case FIELD_TYPE_STRV:
        return strv_schema(field, schema);
    case FIELD_TYPE_OBJECT:
    case FIELD_TYPE_OBJECT_PTR:
        return merge_new(schema, fields_schema(field->fields));
    case FIELD_TYPE_ARRAY:
        return array_schema(field, schema);
    case FIELD_TYPE_MAP:
        return map_schema(field, schema);
    case FIELD_TYPE_RAW:
        return field->flags & FIELD_IS_OBJECT ? put_type(schema, "object") : 0;
    case FIELD_TYPE_CUSTOM:
        return merge_new(schema, field->custom->schema());
    }
    return -EINVAL;
}

static int row_schema(const Field *field, json_t *properties, json_t *required)
{
    json_auto_t *schema = json_object(), *fallback = NULL;
    int r;

    r = schema ? value_schema(field, schema) : -ENOMEM;
    if (r >= 0)
        r = json_put(schema, "description", json_string(field->help));
    if (r >= 0)
        r = field_default_json(field, &fallback);
    if (r > 0)
        r = json_put(schema, "default", take_ptr(fallback));
    if (r >= 0)
        r = json_put(properties, field->name, take_ptr(schema));
    if (r >= 0 && (field->flags & FIELD_REQUIRED))
        r = json_array_append_new(required, json_string(field->name)) < 0 ? -ENOMEM : 0;
    return r;
}

json_t *fields_schema(const Field *fields)
{
    json_auto_t *schema = json_object(), *properties = json_object(), *required = json_array();

    assert(fields);

    FIELDS_FOREACH (f, fields) {
        if (!properties || !required || row_schema(f, properties, required) < 0)
            return NULL;
    }
    if (!schema || put_type(schema, "object") < 0 ||
        json_put(schema, "properties", take_ptr(properties)) < 0 ||
        json_put(schema, "additionalProperties", json_false()) < 0)
        return NULL;
    if (json_array_size(required) > 0 && json_put(schema, "required", take_ptr(required)) < 0)
        return NULL;
    return take_ptr(schema);
}
