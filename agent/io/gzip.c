/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/gzip.h"

#include <errno.h>
#include <limits.h>
#include <zlib.h>

#define GZIP_WINDOW (MAX_WBITS + 16) /* 16: a gzip header, as zlib wants to be told */
#define GZIP_PIECE  (64U << 10)

static void deflate_done(z_stream *z)
{
    (void)deflateEnd(z);
}

static void inflate_done(z_stream *z)
{
    (void)inflateEnd(z);
}

int gzip_add(Buf *buf, const void *data, size_t size, int level)
{
    auto_(deflate_done) z_stream z = {0};
    size_t bound;
    int r;

    if (size > UINT_MAX)
        return -EFBIG;
    if (deflateInit2(&z, level, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    bound = deflateBound(&z, size);
    r = buf_reserve(buf, bound);
    if (r < 0)
        return r;

    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)size;
    z.next_out = (Bytef *)buf->data + buf->size;
    z.avail_out = (uInt)bound;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END)
        return -EIO;
    buf->size += bound - z.avail_out;
    buf->data[buf->size] = '\0';
    return 0;
}

int gunzip_add(Buf *buf, const void *data, size_t size)
{
    auto_(inflate_done) z_stream z = {0};
    int r = Z_OK;

    if (size > UINT_MAX)
        return -EFBIG;
    if (inflateInit2(&z, GZIP_WINDOW) != Z_OK)
        return -ENOMEM;
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)size;
    while (z.avail_in > 0) {
        int reserved = buf_reserve(buf, GZIP_PIECE);

        if (reserved < 0)
            return reserved;
        z.next_out = (Bytef *)buf->data + buf->size;
        z.avail_out = GZIP_PIECE;
        r = inflate(&z, Z_NO_FLUSH);
        buf->size += GZIP_PIECE - z.avail_out;
        buf->data[buf->size] = '\0';
        if (r == Z_STREAM_END && z.avail_in > 0)
            r = inflateReset(&z);
        if (r != Z_OK && r != Z_STREAM_END)
            return -EBADMSG;
    }
    return r == Z_STREAM_END ? 0 : -EBADMSG;
}
