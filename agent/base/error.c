/* SPDX-License-Identifier: Apache-2.0 */
#define ERROR_IMPLEMENTATION
#include "agent/base/error.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/str.h"

#define WORDS_MAX 4096

static const char *const kind_names[ERROR_KIND_MAX] = {
    [ERROR_INTERNAL] = "internal",   [ERROR_INVALID] = "invalid", [ERROR_TEMPORARY] = "temporary",
    [ERROR_THROTTLED] = "throttled", [ERROR_DENIED] = "denied",   [ERROR_CORRUPT] = "corrupt",
};

/* Whatever a peer put into them, words reach the journal, JSON and D-Bus, which take UTF-8 alone.
 * NULL when memory is out. */
static char *printf_like(1, 0) words_of(const char *format, va_list args)
{
    char *text, *escaped;
    int n = vasprintf(&text, format, args);

    if (n < 0)
        return NULL;
    if (str_is_utf8(text, (size_t)n))
        return text;
    escaped = str_escape(text, (size_t)n, WORDS_MAX);
    free(text);
    return escaped;
}

int error_setv(Error *err, int code, ErrorKind kind, const char *format, va_list args)
{
    assert(code < 0);

    if (!err)
        return code;
    assert(err->code == 0);

    err->code = code;
    err->kind = kind;
    err->message = words_of(format, args); /* NULL: error_text() falls back to the code */
    return code;
}

int error_set(Error *err, int code, ErrorKind kind, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)error_setv(err, code, kind, format, args);
    va_end(args);
    return code;
}

static ErrorKind kind_of_errno(int error_number)
{
    switch (error_number) {
    case ENOMEM:
    case EBADF:
    case EFAULT:
    case ENOSYS:
        return ERROR_INTERNAL;
    case EACCES:
    case EPERM:
        return ERROR_DENIED;
    case EAGAIN:
    case EINTR:
    case EBUSY:
    case EIO:
    case ENOSPC:
    case EDQUOT:
    case EROFS:
    case EMFILE:
    case ENFILE:
    case ETIMEDOUT:
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ENETUNREACH:
    case ENETDOWN:
    case EHOSTUNREACH:
    case ENOTCONN:
    case EPIPE:
        return ERROR_TEMPORARY;
    default:
        return ERROR_INVALID;
    }
}

int error_errno(Error *err, int error_number, const char *format, ...)
{
    int code = error_number > 0 ? -error_number : error_number;
    auto_free char *context = NULL;
    va_list args;

    if (!err)
        return code;

    va_start(args, format);
    context = words_of(format, args);
    va_end(args);
    return error_set(err, code, kind_of_errno(-code), "%s%s%s", context ? context : "",
                     context ? ": " : "", strerror(-code));
}

int error_prefix(Error *err, int code, const char *format, ...)
{
    auto_free char *context = NULL;
    char *message;
    va_list args;

    assert(code < 0);
    if (!err)
        return code;
    if (err->code == 0) /* the callee had nothing to explain */
        err->code = code;

    va_start(args, format);
    context = words_of(format, args);
    va_end(args);
    if (!context)
        return code;
    if (asprintf(&message, "%s: %s", context, error_text(err)) < 0)
        return code;
    free(err->message);
    err->message = message;
    return code;
}

int error_remedy(Error *err, int code, const char *format, ...)
{
    char *remedy;
    va_list args;

    if (!err)
        return code;

    va_start(args, format);
    remedy = words_of(format, args);
    va_end(args);
    if (!remedy)
        return code;
    free(err->remedy);
    err->remedy = remedy;
    return code;
}

int error_oom(Error *err)
{
    if (err) {
        assert(err->code == 0);
        err->code = -ENOMEM;
        err->kind = ERROR_INTERNAL;
    }
    return -ENOMEM;
}

int error_move(Error *to, Error *from)
{
    int code = from->code;

    if (to) {
        assert(to->code == 0);
        *to = *from;
        *from = (Error){0};
    } else
        error_done(from);
    return code;
}

int error_copy(Error *to, const Error *from)
{
    if (!to)
        return from->code;

    assert(to->code == 0);
    *to = *from;
    to->message = from->message ? strdup(from->message) : NULL;
    to->remedy = from->remedy ? strdup(from->remedy) : NULL;
    return from->code;
}

void error_done(Error *err)
{
    if (!err)
        return;

    free(err->message);
    free(err->remedy);
    *err = (Error){0};
}

const char *error_text(const Error *err)
{
    if (!err)
        return "no error";
    if (err->message)
        return err->message;
    return err->code ? strerror(-err->code) : "no error";
}

const char *error_kind_name(ErrorKind kind)
{
    assert(kind < ERROR_KIND_MAX);
    return kind_names[kind];
}

int error_kind_from_name(const char *name)
{
    for (int i = 0; i < ERROR_KIND_MAX; i++)
        if (strcmp(kind_names[i], name) == 0)
            return i;
    return -EINVAL;
}

int error_is_transient(const Error *err)
{
    return err->kind == ERROR_TEMPORARY || err->kind == ERROR_THROTTLED;
}
