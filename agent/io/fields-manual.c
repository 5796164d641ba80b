/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/io/fields-internal.h"

#define PATH_BYTES_MAX 1024

/* Text for man(7): '-' stays a hyphen-minus that can be copied, and no line begins a request. */
static int add_text(Buf *ret, const char *text)
{
    int r = 0;

    if (*text == '.' || *text == '\'')
        r = buf_add_str(ret, "\\&");
    for (; r >= 0 && *text; text++) {
        if (*text == '-')
            r = buf_add_str(ret, "\\-");
        else if (*text == '\\')
            r = buf_add_str(ret, "\\e");
        else
            r = buf_add_char(ret, *text);
    }
    return r;
}

static const char *form(const Field *field)
{
    static const char *const names[] = {
        [FIELD_TYPE_STRING] = "string",
        [FIELD_TYPE_BOOL] = "true or false",
        [FIELD_TYPE_UINT] = "whole number",
        [FIELD_TYPE_DOUBLE] = "number",
        [FIELD_TYPE_DURATION] = "duration",
        [FIELD_TYPE_SIZE] = "size",
        [FIELD_TYPE_MODE] = "file mode",
        [FIELD_TYPE_ENUM] = "one of",
        [FIELD_TYPE_STRV] = "array of strings",
        [FIELD_TYPE_OBJECT] = "object",
        [FIELD_TYPE_OBJECT_PTR] = "object",
        [FIELD_TYPE_ARRAY] = "array of objects",
        [FIELD_TYPE_MAP] = "object",
        [FIELD_TYPE_RAW] = "object",
        [FIELD_TYPE_CUSTOM] = "value",
    };

    if (field->type == FIELD_TYPE_CUSTOM)
        return field->custom->form;
    if (field->type == FIELD_TYPE_STRV && field->names)
        return "array of";
    if (field->type == FIELD_TYPE_RAW && !(field->flags & FIELD_IS_OBJECT))
        return "any value";
    return names[field->type];
}

/* "duration, 10s to 1d, default 1m." */
static int add_facts(const Field *field, Buf *ret)
{
    char bounds[FIELD_TEXT_MAX];
    int r;

    r = buf_printf(ret, "(%s", form(field));
    for (size_t i = 0; r >= 0 && field->names && field->names[i]; i++) {
        r = buf_add_str(ret, i > 0 ? ", " : " ");
        if (r >= 0)
            r = add_text(ret, field->names[i]);
    }
    if (r >= 0 && field->type != FIELD_TYPE_MODE && field_bounds(field, bounds)) {
        r = buf_add_str(ret, ", ");
        if (r >= 0)
            r = add_text(ret, bounds);
    }
    if (r >= 0 && (field->flags & FIELD_REQUIRED))
        r = buf_add_str(ret, ", required");
    if (r >= 0 && field->fallback) {
        r = buf_add_str(ret, ", default ");
        if (r >= 0)
            r = add_text(ret, field->fallback);
    }
    return r < 0 ? r : buf_add_str(ret, ")\n");
}

static int add_nested(const Field *field, const char *path, Buf *ret)
{
    auto_buf Buf nested = BUF_INIT(PATH_BYTES_MAX);
    int r;

    switch (field->type) {
    case FIELD_TYPE_OBJECT:
    case FIELD_TYPE_OBJECT_PTR:
    case FIELD_TYPE_ARRAY:
        r = buf_printf(&nested, "%s%s", path, field->type == FIELD_TYPE_ARRAY ? "[]." : ".");
        return r < 0 ? r : fields_manual(field->fields, buf_str(&nested), ret);
    case FIELD_TYPE_STRING:
    case FIELD_TYPE_BOOL:
    case FIELD_TYPE_UINT:
    case FIELD_TYPE_DOUBLE:
    case FIELD_TYPE_DURATION:
    case FIELD_TYPE_SIZE:
    case FIELD_TYPE_MODE:
    case FIELD_TYPE_ENUM:
    case FIELD_TYPE_STRV:
    case FIELD_TYPE_MAP:
    case FIELD_TYPE_RAW:
    case FIELD_TYPE_CUSTOM:
        break;
    }
    return 0;
}

int fields_manual(const Field *fields, const char *path, Buf *ret)
{
    int r;

    assert(fields && path && ret);

    FIELDS_FOREACH (f, fields) {
        auto_buf Buf own = BUF_INIT(PATH_BYTES_MAX);

        r = buf_printf(&own, "%s%s", path, f->name);
        if (r >= 0)
            r = buf_add_str(ret, ".TP\n.B ");
        if (r >= 0)
            r = add_text(ret, buf_str(&own));
        if (r >= 0)
            r = buf_add_char(ret, '\n');
        if (r >= 0)
            r = add_text(ret, f->help);
        if (r >= 0)
            r = buf_add_char(ret, '\n');
        if (r >= 0)
            r = add_facts(f, ret);
        if (r >= 0)
            r = add_nested(f, buf_str(&own), ret);
        if (r < 0)
            return r;
    }
    return 0;
}
