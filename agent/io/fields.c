/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/fields.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/io/fields-internal.h"

/* Keys longer than that are nobody's misspelling. */
#define NEAREST_MAX 64

static int decode_object(FieldContext *c, const Field *fields, FieldObjectCheck check,
                         void *object);
static int decode_member(FieldContext *c, const Field *field, JsonToken token, void *member);

/* "stop-frist" is none of …; did you mean …? */
static int wrong_name(FieldContext *c, const Field *field, const char *text)
{
    auto_free char *shown = str_escape(text, strlen(text), FIELD_FOUND_MAX), *all = NULL;
    const char *nearest = NULL;
    size_t n = 0;

    while (field->names[n])
        n++;
    all = str_join(field->names, "\", \"");
    if (!shown || !all)
        return -ENOMEM;
    if (strlen(text) <= NEAREST_MAX)
        nearest = str_nearest(text, field->names, n);
    if (nearest)
        field_error_at(c, c->scan.offset, NULL,
                       "expected one of \"%s\", found \"%s\"; did you mean \"%s\"?", all, shown,
                       nearest);
    else
        field_error_at(c, c->scan.offset, NULL, "expected one of \"%s\", found \"%s\"", all, shown);
    return c->fatal;
}

static int wrong_value(FieldContext *c, const Field *field, JsonToken token, const char *expected)
{
    bool is_scalar = token == JSON_TOKEN_STRING || token == JSON_TOKEN_NUMBER;

    if (!(field->flags & FIELD_NO_ECHO) || !is_scalar)
        return field_wrong_value(c, token, expected);
    field_error_at(c, c->scan.offset, NULL,
                   "expected %s, found %zu bytes that are not shown: they may be the secret itself",
                   expected, c->scan.text_size);
    return field_skip(c);
}

static int decode_scalar(FieldContext *c, const Field *field, JsonToken token, void *member)
{
    auto_free char *text = NULL;
    char buf[FIELD_TEXT_MAX];
    const char *expected;
    int r;

    if (field_type_is_text(field->type) != (token == JSON_TOKEN_STRING))
        return wrong_value(c, field, token, field_expects(field));
    if (token == JSON_TOKEN_STRING) {
        r = field_token_text(c, &text);
        if (r <= 0)
            return r;
    } else {
        text = strndup(c->scan.text, c->scan.text_size);
        if (!text)
            return -ENOMEM;
    }
    r = field_parse(field, text, member);
    if (r == -ENOMEM)
        return r;
    if (r < 0 && field->type == FIELD_TYPE_ENUM)
        return wrong_name(c, field, text);
    if (r == -ERANGE && field_bounds(field, buf))
        return wrong_value(c, field, token, buf);
    if (r < 0)
        return wrong_value(c, field, token, field_expects(field));
    expected = field_judge(field, member, buf);
    return expected ? wrong_value(c, field, token, expected) : 1;
}

static bool is_name(const Field *field, const char *text)
{
    for (size_t i = 0; field->names[i]; i++) {
        if (streq(field->names[i], text))
            return true;
    }
    return false;
}

/* One element; its token is in hand. */
static int decode_string(FieldContext *c, const Field *field, JsonToken token, char ***strv)
{
    auto_free char *text = NULL;
    char buf[FIELD_TEXT_MAX];
    const char *expected;
    int r;

    if (token != JSON_TOKEN_STRING)
        return wrong_value(c, field, token, "a string");
    r = field_token_text(c, &text);
    if (r <= 0)
        return r;
    if (field->names && !is_name(field, text))
        return wrong_name(c, field, text);
    expected = field_judge_text(field, text, strlen(text), buf);
    if (expected)
        return wrong_value(c, field, token, expected);
    r = strv_push(strv, text);
    return r < 0 ? r : 1;
}

static int decode_strv(FieldContext *c, const Field *field, JsonToken token, void *member)
{
    size_t start = c->scan.offset, n = 0;
    char buf[FIELD_TEXT_MAX];
    const char *expected;
    int r, good = 1;

    if (token != JSON_TOKEN_ARRAY_BEGIN)
        return field_wrong_value(c, token, field_expects(field));
    while ((token = field_next(c)) != JSON_TOKEN_ARRAY_END) {
        if (token == JSON_TOKEN_ERROR)
            return -EBADMSG;
        field_push_index(c, n++);
        r = decode_string(c, field, token, member);
        if (r < 0)
            return r;
        good = good && r;
        field_pop(c);
    }
    expected = good ? field_judge(field, member, buf) : NULL;
    if (!expected)
        return good;
    field_error_at(c, start, NULL, "expected %s, found %zu", expected, n);
    return c->fatal;
}

/* One more item, zeroed; room doubles, so a power of two is full. */
static void *array_grow(FieldArray *array, size_t item_size)
{
    char *item;

    if ((array->n & (array->n - 1)) == 0) {
        void *items = reallocarray(array->items, array->n > 0 ? array->n * 2 : 1, item_size);

        if (!items)
            return NULL;
        array->items = items;
    }
    item = (char *)array->items + array->n * item_size;
    memset(item, 0, item_size);
    array->n++;
    return item;
}

/* The names of siblings must differ. */
static void check_siblings(FieldContext *c, const Field *field, const FieldArray *array)
{
    const Field *key = NULL;

    FIELDS_FOREACH (f, field->fields) {
        if (f->flags & FIELD_KEY)
            key = f;
    }
    for (size_t i = 0; key && i < array->n; i++) {
        const char *items = array->items;
        const char *name =
            *(char *const *)(const void *)(items + i * field->item_size + key->offset);

        for (size_t j = 0; name && j < i; j++) {
            const char *other =
                *(char *const *)(const void *)(items + j * field->item_size + key->offset);

            if (other && streq(name, other)) {
                auto_free char *member = str_printf("[%zu].%s", i, key->name);

                if (key->flags & FIELD_NO_ECHO)
                    field_error(c, member, "is the %s of [%zu] already", key->name, j);
                else
                    field_error(c, member, "\"%s\" is the %s of [%zu] already", name, key->name, j);
                break;
            }
        }
    }
}

static int decode_array(FieldContext *c, const Field *field, JsonToken token, void *member)
{
    size_t start = c->scan.offset, n = 0;
    FieldArray *array = member;
    char buf[FIELD_TEXT_MAX];
    int r, good = 1;

    if (token != JSON_TOKEN_ARRAY_BEGIN)
        return field_wrong_value(c, token, field_expects(field));
    while ((token = field_next(c)) != JSON_TOKEN_ARRAY_END) {
        if (token == JSON_TOKEN_ERROR)
            return -EBADMSG;
        field_push_index(c, n++);
        if (token != JSON_TOKEN_OBJECT_BEGIN) {
            r = field_wrong_value(c, token, "an object");
        } else if (field->max > 0 && n > field->max) {
            r = field_skip(c);
        } else {
            void *item = array_grow(array, field->item_size);

            r = item ? fields_set_defaults(c, field->fields, item) : -ENOMEM;
            if (r >= 0)
                r = decode_object(c, field->fields, field->check_object, item);
        }
        if (r < 0)
            return r;
        good = good && r;
        field_pop(c);
    }
    c->base = start;
    check_siblings(c, field, array);
    if (n < field->min || (field->max > 0 && n > field->max))
        field_error_at(c, start, NULL, "expected %s, found %zu", field_bounds(field, buf), n);
    return c->fatal < 0 ? c->fatal : good;
}

static bool map_has(const Field *field, const FieldArray *array, const char *key)
{
    const char *items = array->items;

    for (size_t i = 0; i < array->n; i++) {
        if (streq(*(char *const *)(const void *)(items + i * field->item_size), key))
            return true;
    }
    return false;
}

/* One key and its value; the key is in hand. */
static int decode_pair(FieldContext *c, const Field *field, FieldArray *array)
{
    size_t key_at = c->scan.offset;
    auto_free char *key = NULL;
    char buf[FIELD_TEXT_MAX];
    const char *expected;
    bool again, full;
    char *item;
    JsonToken token;
    int r;

    r = field_token_text(c, &key);
    if (r <= 0)
        return r < 0 ? r : field_skip(c);
    again = map_has(field, array, key);
    full = field->max > 0 && array->n >= field->max;
    field_push_key(c, key);
    expected = field_judge_text(field, key, strlen(key), buf);
    if (again)
        field_error_at(c, key_at, NULL, "this key is there twice");
    else if (expected)
        field_error_at(c, key_at, NULL, "this key must be %s", expected);
    if (again || full) {
        r = field_skip(c);
        field_pop(c);
        return r;
    }
    token = field_next(c);
    if (token == JSON_TOKEN_ERROR)
        return -EBADMSG;
    item = array_grow(array, field->item_size);
    if (!item)
        return -ENOMEM;
    r = field_set_default(c, field->value, item + field->value->offset);
    if (r >= 0)
        r = decode_member(c, field->value, token, item + field->value->offset);
    field_pop(c);
    *(char **)(void *)item = take_ptr(key);
    return r < 0 ? r : r && !expected;
}

static int decode_map(FieldContext *c, const Field *field, JsonToken token, void *member)
{
    size_t start = c->scan.offset, n = 0;
    char buf[FIELD_TEXT_MAX];
    int r, good = 1;

    if (token != JSON_TOKEN_OBJECT_BEGIN)
        return field_wrong_value(c, token, field_expects(field));
    while ((token = field_next(c)) != JSON_TOKEN_OBJECT_END) {
        if (token == JSON_TOKEN_ERROR)
            return -EBADMSG;
        n++;
        r = decode_pair(c, field, member);
        if (r < 0)
            return r;
        good = good && r;
    }
    if (n < field->min || (field->max > 0 && n > field->max))
        field_error_at(c, start, NULL, "expected %s, found %zu", field_bounds(field, buf), n);
    return c->fatal < 0 ? c->fatal : good;
}

static int decode_raw(FieldContext *c, const Field *field, JsonToken token, json_t **member)
{
    if ((field->flags & FIELD_IS_OBJECT) && token != JSON_TOKEN_OBJECT_BEGIN)
        return field_wrong_value(c, token, field_expects(field));
    return field_build(c, token, member);
}

static int decode_custom(FieldContext *c, const Field *field, JsonToken token, void *member)
{
    size_t start = c->scan.offset, n_errors;
    json_auto_t *value = NULL;
    int r;

    r = field_build(c, token, &value);
    if (r <= 0)
        return r;
    c->base = start;
    n_errors = c->errors->n;
    /* The default is in the member; a decoder starts from nothing. */
    if (field->fallback && field->custom->done)
        field->custom->done(member);
    r = field->custom->decode(c, value, member);
    if (r < 0 || c->fatal < 0)
        return r < 0 ? r : c->fatal;
    return c->errors->n == n_errors && !c->errors->truncated;
}

static int decode_pointer(FieldContext *c, const Field *field, JsonToken token, void **member)
{
    int r;

    if (token != JSON_TOKEN_OBJECT_BEGIN)
        return field_wrong_value(c, token, field_expects(field));
    *member = calloc(1, field->item_size);
    if (!*member)
        return -ENOMEM;
    r = fields_set_defaults(c, field->fields, *member);
    return r < 0 ? r : decode_object(c, field->fields, field->check_object, *member);
}

static int decode_member(FieldContext *c, const Field *field, JsonToken token, void *member)
{
    switch (field->type) {
    case FIELD_TYPE_STRING:
    case FIELD_TYPE_BOOL:
    case FIELD_TYPE_UINT:
    case FIELD_TYPE_DOUBLE:
    case FIELD_TYPE_DURATION:
    case FIELD_TYPE_SIZE:
    case FIELD_TYPE_MODE:
    case FIELD_TYPE_ENUM:
        return decode_scalar(c, field, token, member);
    case FIELD_TYPE_STRV:
        return decode_strv(c, field, token, member);
    case FIELD_TYPE_OBJECT:
        if (token != JSON_TOKEN_OBJECT_BEGIN)
            return field_wrong_value(c, token, field_expects(field));
        return decode_object(c, field->fields, field->check_object, member);
    case FIELD_TYPE_OBJECT_PTR:
        return decode_pointer(c, field, token, member);
    case FIELD_TYPE_ARRAY:
        return decode_array(c, field, token, member);
    case FIELD_TYPE_MAP:
        return decode_map(c, field, token, member);
    case FIELD_TYPE_RAW:
        return decode_raw(c, field, token, member);
    case FIELD_TYPE_CUSTOM:
        return decode_custom(c, field, token, member);
    }
    return -EINVAL;
}

/* An unknown key with what was probably meant, or else with what there is. */
static int unknown_key(FieldContext *c, const Field *fields)
{
    auto_free char *key = NULL, *shown = NULL, *all = NULL;
    const char *names[FIELD_ROWS_MAX + 1] = {0}, *nearest = NULL;
    size_t key_at = c->scan.offset, n = 0;
    int r;

    r = field_token_text(c, &key);
    if (r <= 0)
        return r < 0 ? r : field_skip(c);
    FIELDS_FOREACH (f, fields)
        names[n++] = f->name;
    if (strlen(key) <= NEAREST_MAX)
        nearest = str_nearest(key, names, n);
    shown = str_escape(key, strlen(key), FIELD_FOUND_MAX);
    all = str_join(names, ", ");
    if (!shown || !all)
        return -ENOMEM;
    field_push_key(c, key);
    if (nearest)
        field_error_at(c, key_at, NULL, "unknown key \"%s\"; did you mean \"%s\"?", shown, nearest);
    else
        field_error_at(c, key_at, NULL, "unknown key \"%s\"; known here: %s", shown, all);
    field_pop(c);
    return field_skip(c);
}

static const Field *find_row(const JsonScan *scan, const Field *fields)
{
    FIELDS_FOREACH (f, fields) {
        if (json_scan_is(scan, f->name))
            return f;
    }
    return NULL;
}

/* One key and its value; the key is in hand. */
static int decode_row(FieldContext *c, FieldScope *scope, void *object)
{
    const Field *field = find_row(&c->scan, scope->fields);
    JsonToken token;
    uint64_t bit;
    int r;

    if (!field)
        return unknown_key(c, scope->fields);
    bit = UINT64_C(1) << (field - scope->fields);
    field_push_key(c, field->name);
    if (scope->given & bit) {
        field_error_at(c, c->scan.offset, NULL, "this key is there twice");
        r = field_skip(c);
        field_pop(c);
        return r;
    }
    scope->given |= bit;
    token = field_next(c);
    if (token == JSON_TOKEN_ERROR)
        return -EBADMSG;
    r = decode_member(c, field, token, field_member(field, object));
    field_pop(c);
    return r;
}

/* From behind OBJECT_BEGIN to behind OBJECT_END. */
static int decode_object(FieldContext *c, const Field *fields, FieldObjectCheck check, void *object)
{
    FieldScope scope = {.fields = fields};
    const FieldScope *outer = c->scope;
    size_t start = c->scan.offset, n_errors = c->errors->n;
    JsonToken token;
    int r, good = 1;

    while ((token = field_next(c)) != JSON_TOKEN_OBJECT_END) {
        if (token == JSON_TOKEN_ERROR)
            return -EBADMSG;
        r = decode_row(c, &scope, object);
        if (r < 0)
            return r;
        good = good && r;
    }
    FIELDS_FOREACH (f, fields) {
        if ((f->flags & FIELD_REQUIRED) && !(scope.given & UINT64_C(1) << (f - fields)))
            field_error_at(c, start, f->name, "is missing: %s", f->help);
    }
    if (check) {
        c->base = start;
        c->scope = &scope;
        check(c, object);
        c->scope = outer;
    }
    if (c->fatal < 0)
        return c->fatal;
    return good && c->errors->n == n_errors;
}

bool field_is_given(const FieldContext *context, const char *name)
{
    const FieldScope *scope = context->scope;

    assert(scope);

    FIELDS_FOREACH (f, scope->fields) {
        if (streq(f->name, name))
            return scope->given >> (f - scope->fields) & 1;
    }
    assert(!"a row of that name");
    return false;
}

void *field_root(FieldContext *context)
{
    return context->root;
}

static int decode(FieldContext *c, const Field *fields, FieldObjectCheck check, void *object)
{
    JsonToken token;
    int r;

    r = fields_set_defaults(c, fields, object);
    if (r < 0)
        return r;
    token = field_next(c);
    if (token == JSON_TOKEN_ERROR)
        return -EBADMSG;
    if (token != JSON_TOKEN_OBJECT_BEGIN)
        return field_wrong_value(c, token, "an object");
    r = decode_object(c, fields, check, object);
    if (r < 0)
        return r;
    /* What follows the document may be a fault as well. */
    return field_next(c) == JSON_TOKEN_ERROR ? -EBADMSG : 0;
}

static int decode_text(const char *text, size_t size, const char *prefix, bool has_positions,
                       const Field *fields, FieldObjectCheck check, void *object,
                       FieldErrors *ret_errors)
{
    auto_free FieldContext *c = calloc(1, sizeof(*c));
    auto_field_errors FieldErrors errors = {0};
    int r;

    if (!c)
        return -ENOMEM;
    *c = (FieldContext){.text = text,
                        .size = size,
                        .has_positions = has_positions,
                        .prefix = prefix,
                        .root = object,
                        .errors = &errors};
    json_scan_init(&c->scan, text, size);
    r = decode(c, fields, check, object);
    if (r < 0 && r != -EBADMSG)
        return r;
    if (c->fatal < 0)
        return c->fatal;
    if (errors.n == 0)
        return 0;
    field_errors_sort(&errors);
    *ret_errors = errors;
    errors = (FieldErrors){0};
    return -EINVAL;
}

int fields_decode(const char *text, size_t size, const Field *fields, FieldObjectCheck check,
                  void *object, FieldErrors *ret_errors)
{
    assert((text || size == 0) && fields && object && ret_errors);

    return decode_text(text, size, "", true, fields, check, object, ret_errors);
}

int fields_decode_json(const json_t *value, const char *path, const Field *fields,
                       FieldObjectCheck check, void *object, FieldErrors *ret_errors)
{
    auto_free char *text = NULL;

    assert(value && fields && object && ret_errors);

    text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text)
        return -ENOMEM;
    return decode_text(text, strlen(text), path ? path : "", false, fields, check, object,
                       ret_errors);
}
