/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BUF_FIRST_BYTES 256

int buf_reserve(Buf *buf, size_t size)
{
    size_t wanted, allocated;
    char *data;

    if (size > buf->max || buf->size > buf->max - size)
        return -EFBIG;

    wanted = buf->size + size + 1;
    if (wanted <= buf->allocated)
        return 0;

    /* Doubling, but never beyond what the ceiling can ever need. */
    allocated = buf->allocated ? buf->allocated : BUF_FIRST_BYTES;
    while (allocated < wanted)
        allocated = allocated > SIZE_MAX / 2 ? wanted : allocated * 2;
    if (buf->max < SIZE_MAX && allocated > buf->max + 1)
        allocated = buf->max + 1;

    data = realloc(buf->data, allocated);
    if (!data)
        return -ENOMEM;
    buf->data = data;
    buf->allocated = allocated;
    return 0;
}

int buf_add(Buf *buf, const void *data, size_t size)
{
    int r;

    r = buf_reserve(buf, size);
    if (r < 0)
        return r;
    if (size > 0)
        memcpy(buf->data + buf->size, data, size);
    buf->size += size;
    buf->data[buf->size] = '\0';
    return 0;
}

int buf_add_str(Buf *buf, const char *s)
{
    return buf_add(buf, s, strlen(s));
}

int buf_add_char(Buf *buf, char c)
{
    return buf_add(buf, &c, 1);
}

int buf_printf(Buf *buf, const char *format, ...)
{
    va_list args;
    int n, r;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        return -EINVAL;

    r = buf_reserve(buf, (size_t)n);
    if (r < 0)
        return r;
    va_start(args, format);
    (void)vsnprintf(buf->data + buf->size, (size_t)n + 1, format, args);
    va_end(args);
    buf->size += (size_t)n;
    return 0;
}

void buf_consume(Buf *buf, size_t size)
{
    if (size >= buf->size) {
        buf_clear(buf);
        return;
    }
    memmove(buf->data, buf->data + size, buf->size - size + 1);
    buf->size -= size;
}

void buf_clear(Buf *buf)
{
    buf->size = 0;
    if (buf->data)
        buf->data[0] = '\0';
}

const char *buf_str(const Buf *buf)
{
    return buf->data ? buf->data : "";
}

char *buf_take(Buf *buf)
{
    char *data = buf->data ? buf->data : strdup("");

    buf->data = NULL;
    buf->size = buf->allocated = 0;
    return data;
}

void buf_done(Buf *buf)
{
    free(buf->data);
    buf->data = NULL;
    buf->size = buf->allocated = 0;
}
