/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed answers: whole ones pass however they are cut into pieces, anything less is refused.
 */
#include "tests/unit/http-fixture.h"

#include <errno.h>

#include "agent/base/str.h"
#include "agent/io/gzip.h"

#define ENCODED "Content-Encoding: gzip\r\n"
#define PRICES  "{\"symbol\":\"AAPL\",\"rows\":[[1700000000,\"189.25\"],[1700000060,\"189.31\"]]}"

static const HttpRetry QUICK = {.tries = 3, .base_usec = MSEC, .cap_usec = MSEC};

static void pack(Buf *to, const char *text)
{
    assert_int_equal(gzip_add(to, text, strlen(text), 9), 0);
}

typedef struct Asked {
    /* First: the handlers are given this for both. */
    Outcome outcome;
    Buf streamed;
} Asked;

static void asked_done(Asked *a)
{
    outcome_done(&a->outcome);
    buf_done(&a->streamed);
}

#define auto_asked auto_(asked_done)

static int on_piece(HttpOp *op, const void *data, size_t size, void *userdata)
{
    Asked *a = userdata;

    return buf_add(&a->streamed, data, size);
}

/* What comes of `bytes`, collected or streamed. */
static void ask(Fixture *f, Reply reply, const Buf *bytes, bool stream, Asked *ret)
{
    HttpRequest request = {.url = http_server_url(f->server, "/"),
                           .compressed = true,
                           .on_body = stream ? on_piece : NULL,
                           .retry = QUICK};

    ret->streamed = BUF_INIT(1U << 20);
    reply.body = bytes->data;
    reply.body_size = bytes->size;
    http_server_reply(f->server, &reply);
    outcome_of(f, &request, &ret->outcome);
}

static void assert_whole(Fixture *f, const Buf *bytes, const char *text)
{
    static const ReplyMode modes[] = {REPLY_NORMAL, REPLY_CHUNKED, REPLY_DRIP};

    for (size_t i = 0; i < 2 * ELEMENTS(modes); i++) {
        auto_asked Asked a = {0};
        bool stream = i % 2;

        ask(f,
            (Reply){.headers = ENCODED,
                    .mode = modes[i / 2],
                    .drip_usec = modes[i / 2] == REPLY_DRIP ? 1 : 0},
            bytes, stream, &a);
        assert_string_equal(a.outcome.message, "");
        assert_int_equal(a.outcome.status, 200);
        assert_string_equal(stream ? buf_str(&a.streamed) : a.outcome.body, text);
        assert_true(a.outcome.bytes_in > bytes->size); /* as it travelled, head included */
    }
}

static void assert_corrupt(Fixture *f, const Buf *bytes, const char *why)
{
    static const ReplyMode modes[] = {REPLY_NORMAL, REPLY_CHUNKED};

    for (size_t i = 0; i < 2 * ELEMENTS(modes); i++) {
        auto_asked Asked a = {0};

        ask(f, (Reply){.headers = ENCODED, .mode = modes[i / 2]}, bytes, /* stream= */ i % 2, &a);
        assert_int_equal(a.outcome.code, -EBADMSG);
        assert_int_equal(a.outcome.kind, ERROR_CORRUPT);
        assert_int_equal(a.outcome.status, 0);
        assert_int_equal(a.outcome.tries, 1);
        assert_int_equal(a.outcome.body_size, 0);
        assert_contains(a.outcome.message, why);
    }
}

static void a_whole_body_passes_in_whatever_pieces(void **state)
{
    auto_buf Buf bytes = BUF_INIT(1U << 20);

    pack(&bytes, PRICES);
    assert_whole(*state, &bytes, PRICES);
}

static void a_body_cut_anywhere_is_corrupt(void **state)
{
    Fixture *f = *state;
    auto_buf Buf whole = BUF_INIT(1U << 20);

    pack(&whole, PRICES);
    for (size_t size = 1; size < whole.size; size++) {
        auto_asked Asked a = {0};
        Buf cut = {.data = whole.data, .size = size};

        ask(f, (Reply){.headers = ENCODED}, &cut, /* stream= */ size % 2, &a);
        assert_int_equal(a.outcome.code, -EBADMSG);
        assert_int_equal(a.outcome.kind, ERROR_CORRUPT);
        assert_int_equal(a.outcome.status, 0);
        assert_contains(a.outcome.message, "ends early");
    }
}

static void half_a_body_and_one_without_its_trailer_are_corrupt(void **state)
{
    auto_buf Buf bytes = BUF_INIT(1U << 20);

    pack(&bytes, PRICES);
    bytes.size -= 8;
    assert_corrupt(*state, &bytes, "ends early");
    bytes.size /= 2;
    assert_corrupt(*state, &bytes, "ends early");
}

static void a_wrong_checksum_or_length_is_corrupt(void **state)
{
    auto_buf Buf bytes = BUF_INIT(1U << 20);

    pack(&bytes, PRICES);
    bytes.data[bytes.size - 8] ^= 1;
    assert_corrupt(*state, &bytes, "does not decompress");
    bytes.data[bytes.size - 8] ^= 1;
    bytes.data[bytes.size - 4] ^= 1;
    assert_corrupt(*state, &bytes, "does not decompress");
}

static void members_one_after_the_other_are_one_body(void **state)
{
    auto_buf Buf bytes = BUF_INIT(1U << 20);

    pack(&bytes, "one ");
    pack(&bytes, "");
    pack(&bytes, "two ");
    pack(&bytes, "three");
    assert_whole(*state, &bytes, "one two three");
    bytes.size--;
    assert_corrupt(*state, &bytes, "ends early");
}

static void bytes_after_the_end_are_corrupt(void **state)
{
    auto_buf Buf bytes = BUF_INIT(1U << 20);

    pack(&bytes, PRICES);
    assert_int_equal(buf_add_str(&bytes, "more of it"), 0);
    assert_corrupt(*state, &bytes, "does not decompress");
    buf_clear(&bytes);
    pack(&bytes, PRICES);
    assert_int_equal(buf_add(&bytes, "\0\0", 2), 0);
    assert_corrupt(*state, &bytes, "does not decompress");
    /* Half a magic number may be the start of a member, of which the rest is missing. */
    bytes.data[bytes.size - 2] = '\x1f';
    bytes.size--;
    assert_corrupt(*state, &bytes, "ends early");
}

static void a_bomb_is_stopped_at_the_ceiling_collected_or_streamed(void **state)
{
    Fixture *f = *state;
    auto_free char *zeros = calloc(1, 1U << 20);

    for (int stream = 0; stream < 2; stream++) {
        auto_asked Asked a = {.streamed = BUF_INIT(1U << 20)};
        HttpRequest request = {.url = http_server_url(f->server, "/"),
                               .compressed = true,
                               .max_body = 100000,
                               .max_stream = 100000,
                               .on_body = stream ? on_piece : NULL};

        http_server_reply(f->server, &(Reply){.mode = REPLY_GZIP,
                                              .body = zeros,
                                              .body_size = 1U << 20,
                                              .repeat = 10,
                                              .close = true});
        outcome_of(f, &request, &a.outcome);
        assert_int_equal(a.outcome.code, -EFBIG);
        assert_int_equal(a.outcome.kind, ERROR_CORRUPT);
        assert_true(a.streamed.size <= 100000);
        assert_true(a.outcome.bytes_in < 1U << 20);
    }
}

static void an_encoding_that_nobody_asked_for_is_corrupt(void **state)
{
    static const char *const headers[] = {
        "Content-Encoding: deflate\r\n",
        "Content-Encoding: br\r\n",
        "Content-Encoding: gzip, gzip\r\n",
        "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n",
    };
    auto_buf Buf bytes = BUF_INIT(1U << 20);

    pack(&bytes, PRICES);
    for (size_t i = 0; i < ELEMENTS(headers); i++) {
        auto_asked Asked a = {0};

        ask(*state, (Reply){.headers = headers[i]}, &bytes, /* stream= */ false, &a);
        assert_int_equal(a.outcome.kind, ERROR_CORRUPT);
        assert_int_equal(a.outcome.status, 0);
        assert_contains(a.outcome.message, "not asked for");
    }
}

static void old_names_and_no_encoding_at_all_are_understood(void **state)
{
    static const char *const headers[] = {"Content-Encoding: x-gzip\r\n",
                                          "content-encoding: GZIP\r\n"};
    auto_buf Buf bytes = BUF_INIT(1U << 20), plain = BUF_INIT(1U << 20);
    auto_asked Asked identity = {0};

    pack(&bytes, PRICES);
    for (size_t i = 0; i < ELEMENTS(headers); i++) {
        auto_asked Asked a = {0};

        ask(*state, (Reply){.headers = headers[i]}, &bytes, /* stream= */ false, &a);
        assert_string_equal(a.outcome.body, PRICES);
    }
    assert_int_equal(buf_add_str(&plain, PRICES), 0);
    ask(*state, (Reply){.headers = "Content-Encoding: identity\r\n"}, &plain, false, &identity);
    assert_string_equal(identity.outcome.body, PRICES);
}

static void an_answer_without_a_body_may_name_an_encoding(void **state)
{
    Fixture *f = *state;
    static const Reply replies[] = {
        {.status = 304, .headers = ENCODED},
        {.status = 204, .headers = ENCODED},
        {.status = 200, .headers = ENCODED},
        {.status = 200, .headers = ENCODED, .mode = REPLY_CHUNKED},
        {.status = 200, .headers = ENCODED, .body = "asked with HEAD"},
    };

    for (size_t i = 0; i < ELEMENTS(replies); i++) {
        auto_outcome Outcome o = {0};

        http_server_reply(f->server, &replies[i]);
        outcome_of(f,
                   &(HttpRequest){.url = http_server_url(f->server, "/"),
                                  .method = replies[i].body ? "HEAD" : NULL,
                                  .compressed = true},
                   &o);
        assert_string_equal(o.message, "");
        assert_int_equal(o.status, replies[i].status);
        assert_int_equal(o.body_size, 0);
    }
}

static void the_status_of_an_error_outlives_its_body(void **state)
{
    auto_buf Buf bytes = BUF_INIT(1U << 20);
    auto_asked Asked whole = {0}, half = {0}, none = {0};

    pack(&bytes, "no such symbol");
    ask(*state, (Reply){.status = 404, .headers = ENCODED}, &bytes, false, &whole);
    assert_int_equal(whole.outcome.status, 404);
    assert_string_equal(whole.outcome.body, "no such symbol");

    ask(*state, (Reply){.status = 404, .headers = "Content-Encoding: br\r\n"}, &bytes, false,
        &none);
    assert_int_equal(none.outcome.status, 404);
    assert_int_equal(none.outcome.body_size, 0);

    bytes.size /= 2;
    ask(*state, (Reply){.status = 404, .headers = ENCODED}, &bytes, false, &half);
    assert_int_equal(half.outcome.status, 404);
    assert_string_equal(half.outcome.message, "");
    assert_int_equal(half.outcome.body_size, 0);
}

static void a_further_try_begins_with_a_fresh_decoder(void **state)
{
    Fixture *f = *state;
    auto_buf Buf bytes = BUF_INIT(1U << 20);
    auto_asked Asked a = {0};

    pack(&bytes, PRICES);
    http_server_reply(f->server, &(Reply){.status = 503,
                                          .headers = ENCODED,
                                          .body = bytes.data,
                                          .body_size = bytes.size / 2});
    ask(f, (Reply){.headers = ENCODED}, &bytes, /* stream= */ false, &a);
    assert_int_equal(a.outcome.tries, 2);
    assert_string_equal(a.outcome.body, PRICES);
}

static void gzip_is_neither_offered_nor_undone_unasked(void **state)
{
    Fixture *f = *state;
    auto_buf Buf bytes = BUF_INIT(1U << 20);
    auto_outcome Outcome o = {0};

    pack(&bytes, PRICES);
    http_server_reply(f->server,
                      &(Reply){.headers = ENCODED, .body = bytes.data, .body_size = bytes.size});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/")}, &o);
    assert_int_equal(o.body_size, bytes.size);
    assert_null(request_header(http_server_request(f->server, 0), "Accept-Encoding"));
}

TEST_MAIN(TEST(a_whole_body_passes_in_whatever_pieces), TEST(a_body_cut_anywhere_is_corrupt),
          TEST(half_a_body_and_one_without_its_trailer_are_corrupt),
          TEST(a_wrong_checksum_or_length_is_corrupt),
          TEST(members_one_after_the_other_are_one_body), TEST(bytes_after_the_end_are_corrupt),
          TEST(a_bomb_is_stopped_at_the_ceiling_collected_or_streamed),
          TEST(an_encoding_that_nobody_asked_for_is_corrupt),
          TEST(old_names_and_no_encoding_at_all_are_understood),
          TEST(an_answer_without_a_body_may_name_an_encoding),
          TEST(the_status_of_an_error_outlives_its_body),
          TEST(a_further_try_begins_with_a_fresh_decoder),
          TEST(gzip_is_neither_offered_nor_undone_unasked))
