/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "agent/io/fields-internal.h"

#define PATH_MAX_BYTES 4096

/* Keys that are no plain words are quoted, so that a path can be read back. */
static bool key_is_plain(const char *key)
{
    return *key && !key[strcspn(key, ".[]\" \t\n\\")];
}

static int add_member(Buf *path, const char *member)
{
    int r;

    if (!member || !*member)
        return 0;
    if (*member != '[' && path->size > 0) {
        r = buf_add_char(path, '.');
        if (r < 0)
            return r;
    }
    return buf_add_str(path, member);
}

static int add_key(Buf *path, const char *key)
{
    auto_free char *shown = NULL;

    if (key_is_plain(key))
        return add_member(path, key);
    shown = str_escape(key, strlen(key), FIELD_FOUND_MAX);
    return shown ? buf_printf(path, "[\"%s\"]", shown) : -ENOMEM;
}

static int add_path(const FieldContext *context, const char *member, Buf *path)
{
    int r;

    r = add_member(path, context->prefix);
    for (size_t i = 0; r >= 0 && i < context->n_steps; i++) {
        const FieldStep *step = context->steps + i;

        r = step->key ? add_key(path, step->key) : buf_printf(path, "[%zu]", step->index);
    }
    if (r < 0)
        return r;
    return add_member(path, member);
}

/* Asked before a place is looked for, which means reading the document up to it: a plan of nothing
 * but wrong keys would keep its reader busy for seconds. */
static bool errors_are_full(FieldErrors *errors)
{
    if (errors->n < FIELD_ERRORS_MAX)
        return false;
    errors->truncated = true;
    return true;
}

/* Takes the texts. */
static int errors_push(FieldErrors *errors, char **path, char **message, unsigned line,
                       unsigned column)
{
    FieldError *items;

    if (errors_are_full(errors))
        return 0;
    items = reallocarray(errors->items, errors->n + 1, sizeof(*items));
    if (!items)
        return -ENOMEM;
    errors->items = items;
    items[errors->n++] = (FieldError){
        .path = take_ptr(*path), .message = take_ptr(*message), .line = line, .column = column};
    return 0;
}

static int printf_like(1, 0) format_message(const char *format, va_list args, char **ret)
{
    auto_free char *text = NULL;

    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
        return -ENOMEM;
    }
    *ret = take_ptr(text);
    return 0;
}

int field_errors_add(FieldErrors *errors, const char *path, unsigned line, unsigned column,
                     const char *format, ...)
{
    auto_free char *copy = NULL, *message = NULL;
    va_list args;
    int r;

    assert(errors && path && format);

    copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    va_start(args, format);
    r = format_message(format, args, &message);
    va_end(args);
    if (r < 0)
        return r;
    return errors_push(errors, &copy, &message, line, column);
}

static int printf_like(4, 0) errors_add(FieldContext *context, size_t offset, const char *member,
                                        const char *format, va_list args)
{
    auto_free char *path_text = NULL, *message = NULL;
    auto_buf Buf path = BUF_INIT(PATH_MAX_BYTES);
    unsigned line = 0, column = 0;
    int r;

    r = add_path(context, member, &path);
    if (r < 0 && r != -EFBIG)
        return r;
    r = format_message(format, args, &message);
    if (r < 0)
        return r;
    path_text = buf_take(&path);
    if (!path_text)
        return -ENOMEM;
    if (context->has_positions)
        json_scan_position(context->text, MIN_OF(offset, context->size), &line, &column);
    return errors_push(context->errors, &path_text, &message, line, column);
}

void field_error_at(FieldContext *context, size_t offset, const char *member, const char *format,
                    ...)
{
    va_list args;
    int r;

    if (errors_are_full(context->errors))
        return;
    va_start(args, format);
    r = errors_add(context, offset, member, format, args);
    va_end(args);
    if (r < 0)
        context->fatal = r;
}

void field_error(FieldContext *context, const char *member, const char *format, ...)
{
    size_t offset;
    va_list args;
    int r;

    assert(context && format);

    if (errors_are_full(context->errors))
        return;
    offset = member && context->has_positions
                 ? field_locate(context->text, context->size, context->base, member)
                 : context->base;
    va_start(args, format);
    r = errors_add(context, offset, member, format, args);
    va_end(args);
    if (r < 0)
        context->fatal = r;
}

/* The next step of "a.b[2].c", moving *p behind it: a key (*ret_key, *ret_size) or an index. */
static bool next_step(const char **p, const char **ret_key, size_t *ret_size, size_t *ret_index)
{
    const char *s = *p;
    size_t n;

    if (*s == '.')
        s++;
    if (!*s)
        return false;
    *ret_key = NULL;
    if (s[0] == '[' && s[1] == '"') {
        const char *end = strstr(s + 2, "\"]");

        if (!end)
            return false;
        *ret_key = s + 2;
        *ret_size = (size_t)(end - s) - 2;
        *p = end + 2;
        return true;
    }
    if (s[0] == '[') {
        *ret_index = 0;
        for (s++; *s >= '0' && *s <= '9'; s++)
            *ret_index = *ret_index * 10 + (size_t)(*s - '0');
        *p = *s == ']' ? s + 1 : s;
        return true;
    }
    n = strcspn(s, ".[");
    *ret_key = s;
    *ret_size = n;
    *p = s + n;
    return true;
}

/* From behind OBJECT_BEGIN to the value of the key; false when it is not there. */
static bool enter_key(JsonScan *scan, const char *key, size_t size)
{
    char name[256];

    if (size >= sizeof(name))
        return false;
    memcpy(name, key, size);
    name[size] = '\0';
    while (json_scan_next(scan) == JSON_TOKEN_KEY) {
        if (json_scan_is(scan, name))
            return true;
        if (json_scan_skip(scan) < 0)
            return false;
    }
    return false;
}

/* From behind ARRAY_BEGIN to the element, whose first token is *ret. */
static bool enter_index(JsonScan *scan, size_t index, JsonToken *ret)
{
    for (size_t i = 0;; i++) {
        JsonToken token = json_scan_next(scan);

        if (token == JSON_TOKEN_ARRAY_END || token == JSON_TOKEN_ERROR)
            return false;
        if (i == index) {
            *ret = token;
            return true;
        }
        if (json_scan_skip(scan) < 0)
            return false;
    }
}

size_t field_locate(const char *text, size_t size, size_t base, const char *member)
{
    size_t found = base, key_size = 0, index = 0;
    const char *key;
    JsonToken token;
    JsonScan scan;

    /* The value ends before the document does, so what follows it is never looked at. */
    json_scan_init(&scan, text + base, size - base);
    token = json_scan_next(&scan);
    while (next_step(&member, &key, &key_size, &index)) {
        if (key) {
            if (token != JSON_TOKEN_OBJECT_BEGIN || !enter_key(&scan, key, key_size))
                break;
            token = json_scan_next(&scan);
        } else if (token != JSON_TOKEN_ARRAY_BEGIN || !enter_index(&scan, index, &token)) {
            break;
        }
        found = base + scan.offset;
    }
    return found;
}

static bool error_is_after(const FieldError *a, const FieldError *b)
{
    return a->line != b->line ? a->line > b->line : a->column > b->column;
}

/* There are never many. */
void field_errors_sort(FieldErrors *errors)
{
    for (size_t i = 1; i < errors->n; i++) {
        FieldError moving = errors->items[i];
        size_t at = i;

        for (; at > 0 && error_is_after(errors->items + at - 1, &moving); at--)
            errors->items[at] = errors->items[at - 1];
        errors->items[at] = moving;
    }
}

void field_errors_done(FieldErrors *errors)
{
    if (!errors)
        return;
    for (size_t i = 0; i < errors->n; i++) {
        free(errors->items[i].path);
        free(errors->items[i].message);
    }
    free(errors->items);
    *errors = (FieldErrors){0};
}

int field_errors_format(const FieldErrors *errors, bool positions, Buf *ret)
{
    int r;

    assert(errors && ret);

    for (size_t i = 0; i < errors->n; i++) {
        const FieldError *e = errors->items + i;

        if (positions && e->line > 0) {
            r = buf_printf(ret, "%u:%u: ", e->line, e->column);
            if (r < 0)
                return r;
        }
        r = buf_printf(ret, "%s%s%s\n", e->path, *e->path ? ": " : "", e->message);
        if (r < 0)
            return r;
    }
    if (!errors->truncated)
        return 0;
    return buf_add_str(ret, FIELD_ERRORS_MORE "\n");
}

int field_errors_to_error(const FieldErrors *errors, const char *what, Error *err)
{
    const FieldError *first = errors->items;

    assert(errors->n > 0 && what);

    if (errors->n == 1)
        return error_set(err, -EINVAL, ERROR_INVALID, "%s: %s%s%s", what, first->path,
                         *first->path ? ": " : "", first->message);
    return error_set(err, -EINVAL, ERROR_INVALID, "%s: %s%s%s (and %s%zu more)", what, first->path,
                     *first->path ? ": " : "", first->message, errors->truncated ? "at least " : "",
                     errors->n - 1);
}
