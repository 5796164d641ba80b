/* SPDX-License-Identifier: Apache-2.0 */

/* Answers of an HTTP server, byte for byte: status line, head, Retry-After, Location and the answer
 * behind it, encodings, bodies. The first byte chooses how it is asked. What is told of an answer
 * is whole and within its limits, whatever came. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "tests/fuzz/peer.h"

#define BODY_MAX (64U << 10)

typedef struct Seen {
    bool done;
    uint64_t streamed;
} Seen;

static void check_head(const HttpResponse *response)
{
    FUZZ_CHECK(response->content_type);
    for (size_t i = 0; i < response->n_headers; i++) {
        const HttpHeader *header = &response->headers[i];

        FUZZ_CHECK(header->name[0] && !strpbrk(header->name, ":\r\n"));
        FUZZ_CHECK(!strchr(header->value, '\n'));
        FUZZ_CHECK(http_response_header(response, header->name));
    }
    FUZZ_CHECK(response->retry_after_usec % SECOND == 0 && response->retry_after_usec <= 366 * DAY);
}

static void on_answer(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    Seen *seen = userdata;
    auto_error Error refusal = {0};

    FUZZ_CHECK(!seen->done && response);
    seen->done = true;
    FUZZ_CHECK(response->tries >= 1 && response->status >= 0);
    check_head(response);
    if (err) {
        FUZZ_CHECK(err->code < 0 && err->message &&
                   str_is_utf8(err->message, strlen(err->message)));
        return;
    }
    FUZZ_CHECK(response->body.size <= BODY_MAX && seen->streamed <= BODY_MAX);
    if (http_response_error(response, "the peer", &refusal) < 0)
        FUZZ_CHECK(startswith(error_text(&refusal), "the peer") &&
                   str_is_utf8(error_text(&refusal), strlen(error_text(&refusal))));
}

static int on_piece(HttpOp *op, const void *data, size_t size, void *userdata)
{
    Seen *seen = userdata;

    FUZZ_CHECK(data && size > 0);
    seen->streamed += size;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_(http_op_freep) HttpOp *op = NULL;
    auto_free char *url = NULL;
    Seen seen = {0};
    Peer peer;

    if (size == 0)
        return 0;
    peer_init(&peer, data + 1, size - 1);
    url = str_printf("%s/a/b?c=d", peer.base);
    HttpRequest request = {.url = url,
                           .unix_socket = data[0] & 1 ? peer.socket_path : NULL,
                           .follow = data[0] & 2,
                           .compressed = data[0] & 4,
                           .on_body = data[0] & 8 ? on_piece : NULL,
                           .sensitive = (data[0] & 20) == 16,
                           .bearer = data[0] & 32 ? "a-token" : NULL,
                           .max_body = BODY_MAX,
                           .max_stream = BODY_MAX};
    if (http_start(peer.client, &request, on_answer, &seen, &op, NULL) >= 0)
        peer_run(&peer, &seen.done);
    op = http_op_free(op);
    peer_done(&peer);
    return 0;
}
