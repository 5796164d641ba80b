/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/gzip.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#define GZIP_WINDOW (MAX_WBITS + 16) /* 16: a gzip header, as zlib wants to be told */
#define GZIP_PIECE  (16U << 10)

struct Gunzip {
    z_stream z;
    bool begun;  /* zlib has allocated */
    bool within; /* a member that is not at its end */
    GunzipHandler handler;
    void *userdata;
    unsigned char piece[GZIP_PIECE];
};

static void deflate_done(z_stream *z)
{
    (void)deflateEnd(z);
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

int gunzip_new(GunzipHandler handler, void *userdata, Gunzip **ret)
{
    auto_(gunzip_freep) Gunzip *g = calloc(1, sizeof(*g));

    if (!g)
        return -ENOMEM;
    if (inflateInit2(&g->z, GZIP_WINDOW) != Z_OK)
        return -ENOMEM;
    g->begun = true;
    g->handler = handler;
    g->userdata = userdata;
    *ret = take_ptr(g);
    return 0;
}

Gunzip *gunzip_free(Gunzip *g)
{
    if (g && g->begun)
        (void)inflateEnd(&g->z);
    free(g);
    return NULL;
}

/* One turn of zlib: some input taken, some text handed over. */
static int gunzip_turn(Gunzip *g)
{
    size_t size;
    int z, r = 0;

    if (!g->within && inflateReset(&g->z) != Z_OK)
        return -EBADMSG;
    g->within = true;
    g->z.next_out = g->piece;
    g->z.avail_out = GZIP_PIECE;
    z = inflate(&g->z, Z_NO_FLUSH);
    /* Z_BUF_ERROR: the last turn filled its piece to the brim with the last of the input. */
    if (z != Z_OK && z != Z_STREAM_END && z != Z_BUF_ERROR)
        return z == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
    size = GZIP_PIECE - g->z.avail_out;
    if (size > 0)
        r = g->handler(g->piece, size, g->userdata);
    if (z == Z_STREAM_END)
        g->within = false;
    return MIN_OF(r, 0);
}

int gunzip_feed(Gunzip *g, const void *data, size_t size)
{
    int r;

    if (size > UINT_MAX)
        return -EFBIG;
    if (size == 0)
        return 0;
    g->z.next_in = (Bytef *)(uintptr_t)data;
    g->z.avail_in = (uInt)size;
    do {
        r = gunzip_turn(g);
        if (r < 0)
            return r;
    } while (g->z.avail_in > 0 || (g->within && g->z.avail_out == 0));
    return 0;
}

bool gunzip_is_whole(const Gunzip *g)
{
    return !g->within;
}

static int add_piece(const void *data, size_t size, void *userdata)
{
    return buf_add(userdata, data, size);
}

int gunzip_add(Buf *buf, const void *data, size_t size)
{
    auto_(gunzip_freep) Gunzip *g = NULL;
    int r = gunzip_new(add_piece, buf, &g);

    if (r >= 0)
        r = gunzip_feed(g, data, size);
    if (r < 0)
        return r;
    return size > 0 && gunzip_is_whole(g) ? 0 : -EBADMSG;
}
