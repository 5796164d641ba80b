/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <strings.h>

#include "agent/base/str.h"
#include "agent/io/crypto.h"
#include "agent/io/http-private.h"

/* Decompressed here and not by libcurl, which takes a gzip stream that ends early for a complete
 * one whenever Content-Length fits: half a document would count as the whole. */

typedef enum BodyCoding {
    CODING_PLAIN,
    CODING_GZIP,
    CODING_OTHER,
} BodyCoding;

static bool is_success(const HttpOp *op)
{
    long status = easy_status(op);

    return status >= 200 && status < 300;
}

static int stop_with(HttpOp *op, OpStop stop, int code)
{
    op->stop = stop;
    op->stop_code = code;
    return code < 0 ? code : -ECANCELED;
}

/* --- Plain text ----------------------------------------------------------------------------- */

static int stream_piece(HttpOp *op, const void *data, size_t size)
{
    int r;

    op->streamed += size;
    if (op->request.max_stream > 0 && op->streamed > op->request.max_stream)
        return stop_with(op, OP_STOP_TOO_BIG, -EFBIG);

    op->handed_over = true;
    r = op->request.on_body(op, data, size, op->userdata);
    if (op->dead)
        return -ECANCELED;
    return r < 0 ? stop_with(op, OP_STOP_HANDLER, r) : 0;
}

/* Counted here, after decompression: a bomb shows its size only now. */
static int take_plain(const void *data, size_t size, void *userdata)
{
    HttpOp *op = userdata;
    Buf *body = &op->response.body;
    bool success = is_success(op);
    size_t room;

    if (success && op->request.on_body)
        return stream_piece(op, data, size);

    body->max = success ? op->request.max_body : (size_t)HTTP_ERROR_BODY_MAX;
    /* Growing would leave copies of a secret behind. */
    if (op->request.sensitive && !body->data && buf_reserve(body, body->max) < 0)
        return stop_with(op, OP_STOP_NO_MEMORY, -ENOMEM);
    room = body->max - body->size;
    if (size > room && success)
        return stop_with(op, OP_STOP_TOO_BIG, -EFBIG);
    if (buf_add(body, data, MIN_OF(size, room)) < 0)
        return stop_with(op, OP_STOP_NO_MEMORY, -ENOMEM);
    return size > room ? stop_with(op, OP_STOP_CUT, 0) : 0;
}

/* --- What it travels as --------------------------------------------------------------------- */

static BodyCoding coding_of(const char *name)
{
    if (strcasecmp(name, "identity") == 0 || str_is_empty(name))
        return CODING_PLAIN;
    if (strcasecmp(name, "gzip") == 0 || strcasecmp(name, "x-gzip") == 0)
        return CODING_GZIP;
    return CODING_OTHER; /* a list of several, too: nobody who was offered gzip alone sends one */
}

static BodyCoding body_coding(const HttpOp *op)
{
    BodyCoding coding = CODING_PLAIN;
    const char *at = op->header_text.data;

    for (size_t i = 0; i < op->n_header_text; i++) {
        const char *name = at, *value = at + strlen(at) + 1;

        at = value + strlen(value) + 1;
        if (strcasecmp(name, "Content-Encoding") == 0)
            coding = coding == CODING_PLAIN ? coding_of(value) : CODING_OTHER;
    }
    return coding;
}

/* Whatever is wrong with the body of an error, the status stands and is worth more than the body.
 */
static int stop_encoding(HttpOp *op, const char *why)
{
    op->encoding_fault = why;
    if (is_success(op))
        return stop_with(op, OP_STOP_ENCODING, -EBADMSG);
    body_cleanse(op);
    return stop_with(op, OP_STOP_CUT, 0);
}

/* At the first byte: an answer without a body may name any encoding. */
static int body_begin(HttpOp *op)
{
    op->body_begun = true;
    if (!op->request.compressed)
        return 0;
    switch (body_coding(op)) {
    case CODING_PLAIN:
        return 0;
    case CODING_GZIP:
        if (gunzip_new(take_plain, op, &op->gunzip) < 0)
            return stop_with(op, OP_STOP_NO_MEMORY, -ENOMEM);
        return 0;
    case CODING_OTHER:
        break;
    }
    return stop_encoding(op, "the body is encoded in a way that was not asked for");
}

size_t body_receive(char *data, size_t unit, size_t count, void *userdata)
{
    HttpOp *op = userdata;
    size_t size = unit * count;
    int r = 0;

    if (op->dead)
        return 0;
    if (!op->body_begun && size > 0)
        r = body_begin(op);
    if (r < 0)
        return 0; /* a short count ends the transfer */

    r = op->gunzip ? gunzip_feed(op->gunzip, data, size) : take_plain(data, size, op);
    if (!op->dead && op->request.sensitive)
        cleanse(data, size); /* curl's own copy: it reads on behind it */
    if (r < 0 && op->stop == OP_STOP_NONE && !op->dead)
        (void)(r == -ENOMEM ? stop_with(op, OP_STOP_NO_MEMORY, r)
                            : stop_encoding(op, "the body does not decompress"));
    return r < 0 ? 0 : size;
}

CURLcode body_end(HttpOp *op)
{
    if (op->stop != OP_STOP_NONE || !op->gunzip || gunzip_is_whole(op->gunzip))
        return CURLE_OK;
    (void)stop_encoding(op, "the compressed body ends early");
    return op->stop == OP_STOP_CUT ? CURLE_OK : CURLE_WRITE_ERROR;
}

void body_cleanse(HttpOp *op)
{
    Buf *body = &op->response.body;

    if (op->request.sensitive && body->data)
        explicit_bzero(body->data, body->size);
    buf_clear(body);
}

void body_reset(HttpOp *op)
{
    body_cleanse(op);
    op->gunzip = gunzip_free(op->gunzip);
    op->body_begun = false;
    op->encoding_fault = NULL;
    op->streamed = 0;
}
