/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/io/fields-internal.h"

/* The rows are ours, so all this is found by a test; it is no part of decoding. */

static bool is_container(FieldType type)
{
    return type == FIELD_TYPE_STRV || type == FIELD_TYPE_ARRAY || type == FIELD_TYPE_MAP;
}

/* What is wrong with the row's form; NULL when nothing is. */
static const char *judge_row(const Field *f)
{
    bool has_fields = f->type == FIELD_TYPE_OBJECT || f->type == FIELD_TYPE_OBJECT_PTR ||
                      f->type == FIELD_TYPE_ARRAY;

    if (!f->help || !*f->help)
        return "has no help";
    if (f->help[strlen(f->help) - 1] == '.')
        return "has help that ends in a full stop";
    if (has_fields != (f->fields != NULL))
        return has_fields ? "has no fields" : "has fields that nothing reads";
    if (f->type == FIELD_TYPE_ENUM && !f->names)
        return "has no names";
    if (f->names && f->type != FIELD_TYPE_ENUM && f->type != FIELD_TYPE_STRV)
        return "has names that nothing reads";
    if ((f->type == FIELD_TYPE_MAP) != (f->value != NULL))
        return "and its value row do not agree";
    if ((f->type == FIELD_TYPE_CUSTOM) != (f->custom != NULL))
        return "and its custom decoder do not agree";
    if (f->custom && (!f->custom->decode || !f->custom->schema || !f->custom->form))
        return "has a custom decoder without decode, schema or form";
    if (f->max > 0 && f->min > f->max)
        return "has a lower bound above the upper one";
    if (is_container(f->type) && f->max == 0)
        return "may grow without end";
    if ((f->type == FIELD_TYPE_ARRAY || f->type == FIELD_TYPE_MAP ||
         f->type == FIELD_TYPE_OBJECT_PTR) &&
        f->item_size == 0)
        return "has no item size";
    if ((f->flags & FIELD_REQUIRED) && f->fallback)
        return "is required and has a default";
    if ((f->flags & FIELD_KEY) && (f->type != FIELD_TYPE_STRING || !(f->flags & FIELD_REQUIRED)))
        return "is a key but no required string";
    if (f->fallback && !field_type_is_scalar(f->type) && f->type != FIELD_TYPE_CUSTOM)
        return "has a default that its type cannot have";
    return NULL;
}

/* Whether the default is what a document could say. */
static int check_default(const Field *f, Error *err)
{
    union {
        uint64_t number;
        double real;
        bool yes;
        int index;
        uint32_t mode;
        char *text;
    } value = {0};
    char buf[FIELD_TEXT_MAX];
    const char *expected;
    int r;

    if (!f->fallback || f->type == FIELD_TYPE_CUSTOM)
        return 0;
    r = field_parse(f, f->fallback, &value);
    if (r == -ENOMEM)
        return error_oom(err);
    if (r < 0)
        return error_set(err, -EINVAL, ERROR_INTERNAL, "%s: the default \"%s\" is not %s", f->name,
                         f->fallback, field_expects(f));
    expected = field_judge(f, &value, buf);
    if (expected)
        r = error_set(err, -EINVAL, ERROR_INTERNAL, "%s: the default \"%s\" is not %s", f->name,
                      f->fallback, expected);
    if (f->type == FIELD_TYPE_STRING)
        free(value.text);
    return r;
}

static int check_nested(const Field *f, Error *err)
{
    Field one[2] = {0};

    if (f->fields)
        return fields_check_table(f->fields, err);
    if (!f->value)
        return 0;
    one[0] = *f->value;
    if (!one[0].name)
        return error_set(err, -EINVAL, ERROR_INTERNAL, "a value row has no name");
    return fields_check_table(one, err);
}

int fields_check_table(const Field *fields, Error *err)
{
    size_t n = 0;
    int r;

    assert(fields);

    FIELDS_FOREACH (f, fields) {
        const char *fault = judge_row(f);

        if (++n > FIELD_ROWS_MAX)
            return error_set(err, -EINVAL, ERROR_INTERNAL, "%s: more than %d rows in a table",
                             f->name, FIELD_ROWS_MAX);
        if (fault)
            return error_set(err, -EINVAL, ERROR_INTERNAL, "%s %s", f->name, fault);
        for (const Field *other = fields; other < f; other++) {
            if (streq(other->name, f->name))
                return error_set(err, -EINVAL, ERROR_INTERNAL, "%s is there twice", f->name);
        }
        r = check_default(f, err);
        if (r < 0)
            return r;
        r = check_nested(f, err);
        if (r < 0)
            return error_prefix(err, r, "%s", f->name);
    }
    return 0;
}
