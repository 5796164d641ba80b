/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/io/fields-internal.h"

/* All encoders return 1 with a new reference, 0 when there is nothing to write, or -ENOMEM. */

static int encode_member(const Field *field, const void *member, unsigned flags, json_t **ret);

static int done(json_t *value, json_t **ret)
{
    if (!value)
        return -ENOMEM;
    *ret = value;
    return 1;
}

static int encode_number(const Field *field, uint64_t value, json_t **ret)
{
    char text[FIELD_TEXT_MAX];

    if (value == 0 && !field->fallback)
        return 0;
    if (field->type == FIELD_TYPE_UINT)
        return done(json_integer((json_int_t)value), ret);
    return done(json_string(field_format_u64(field, value, text)), ret);
}

static int encode_strv(char *const *strv, json_t **ret)
{
    json_auto_t *array = NULL;

    if (!strv || !*strv)
        return 0;
    array = json_array();
    STRV_FOREACH (s, strv) {
        if (json_array_append_new(array, json_string(*s)) < 0)
            return -ENOMEM;
    }
    return done(take_ptr(array), ret);
}

static int encode_items(const Field *field, const FieldArray *items, unsigned flags, json_t **ret)
{
    json_auto_t *array = NULL;
    int r;

    if (items->n == 0)
        return 0;
    array = json_array();
    for (size_t i = 0; i < items->n; i++) {
        json_t *item = NULL;

        r = fields_encode(field->fields, (const char *)items->items + i * field->item_size, flags,
                          &item);
        if (r < 0)
            return r;
        if (json_array_append_new(array, item) < 0)
            return -ENOMEM;
    }
    return done(take_ptr(array), ret);
}

static int encode_map(const Field *field, const FieldArray *items, unsigned flags, json_t **ret)
{
    json_auto_t *object = NULL;
    int r;

    if (items->n == 0)
        return 0;
    object = json_object();
    for (size_t i = 0; i < items->n; i++) {
        const char *item = (const char *)items->items + i * field->item_size;
        const char *key = *(char *const *)(const void *)item;
        json_t *value = NULL;

        /* A value stays even where it equals its default: the key says something by itself. */
        r = encode_member(field->value, item + field->value->offset,
                          flags & ~(unsigned)FIELD_ENCODE_NO_DEFAULTS, &value);
        if (r > 0 && json_object_set_new(object, key, value) < 0)
            return -ENOMEM;
        if (r < 0)
            return r;
    }
    return done(take_ptr(object), ret);
}

static int encode_object(const Field *fields, const void *object, unsigned flags, json_t **ret)
{
    json_auto_t *value = NULL;
    int r;

    r = fields_encode(fields, object, flags, &value);
    if (r < 0 || ((flags & FIELD_ENCODE_NO_DEFAULTS) && json_object_size(value) == 0))
        return r;
    return done(take_ptr(value), ret);
}

static int encode_member(const Field *field, const void *member, unsigned flags, json_t **ret)
{
    const void *pointer;

    switch (field->type) {
    case FIELD_TYPE_STRING:
        pointer = *(char *const *)member;
        return pointer ? done(json_string(pointer), ret) : 0;
    case FIELD_TYPE_BOOL:
        if (!*(const bool *)member && !field->fallback)
            return 0;
        return done(json_boolean(*(const bool *)member), ret);
    case FIELD_TYPE_DOUBLE:
        if (!(*(const double *)member > 0) && !(*(const double *)member < 0) && !field->fallback)
            return 0;
        return done(json_real(*(const double *)member), ret);
    case FIELD_TYPE_MODE:
        return encode_number(field, *(const uint32_t *)member, ret);
    case FIELD_TYPE_UINT:
    case FIELD_TYPE_DURATION:
    case FIELD_TYPE_SIZE:
        return encode_number(field, *(const uint64_t *)member, ret);
    case FIELD_TYPE_ENUM:
        if (*(const int *)member < 0)
            return 0;
        return done(json_string(field->names[*(const int *)member]), ret);
    case FIELD_TYPE_STRV:
        return encode_strv(*(char **const *)member, ret);
    case FIELD_TYPE_OBJECT:
        return encode_object(field->fields, member, flags, ret);
    case FIELD_TYPE_OBJECT_PTR:
        pointer = *(void *const *)member;
        if (!pointer)
            return 0;
        /* Being there at all says something: it stays when it is empty. */
        return fields_encode(field->fields, pointer, flags, ret) < 0 ? -ENOMEM : 1;
    case FIELD_TYPE_ARRAY:
        return encode_items(field, member, flags, ret);
    case FIELD_TYPE_MAP:
        return encode_map(field, member, flags, ret);
    case FIELD_TYPE_RAW:
        pointer = *(json_t *const *)member;
        return pointer ? done(json_deep_copy(pointer), ret) : 0;
    case FIELD_TYPE_CUSTOM:
        return field->custom->encode ? field->custom->encode(member, ret) : 0;
    }
    return 0;
}

int field_default_json(const Field *field, json_t **ret)
{
    union {
        uint64_t number;
        double real;
        bool yes;
        int index;
        uint32_t mode;
        char *text;
    } value = {0};
    int r;

    if (!field->fallback)
        return 0;
    if (!field_type_is_scalar(field->type) || field->type == FIELD_TYPE_STRING)
        return done(json_string(field->fallback), ret);
    r = field_parse(field, field->fallback, &value);
    if (r < 0)
        return r;
    return encode_member(field, &value, 0, ret);
}

int fields_encode(const Field *fields, const void *object, unsigned flags, json_t **ret)
{
    json_auto_t *whole = json_object();
    int r;

    assert(fields && object && ret);

    if (!whole)
        return -ENOMEM;
    FIELDS_FOREACH (f, fields) {
        json_auto_t *value = NULL, *fallback = NULL;

        r = encode_member(f, field_member_const(f, object), flags, &value);
        if (r < 0)
            return r;
        if (r == 0)
            continue;
        if (flags & FIELD_ENCODE_NO_DEFAULTS) {
            r = field_default_json(f, &fallback);
            if (r < 0)
                return r;
            if (r > 0 && json_equal(value, fallback))
                continue;
        }
        if (json_object_set_new(whole, f->name, take_ptr(value)) < 0)
            return -ENOMEM;
    }
    *ret = take_ptr(whole);
    return 0;
}
