/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/http-fixture.h"

#include <errno.h>
#include <stdlib.h>

/* Operations that end early, many at once, streamed both ways, begun anew. */

#define QUICK                                                                                      \
    {                                                                                              \
        .tries = 3, .base_usec = MSEC, .cap_usec = 5 * MSEC                                        \
    }
#define MANY 100

/* --- Freed ---------------------------------------------------------------------------------- */

typedef struct Lives {
    Fixture *f;
    HttpOp *ops[MANY];
    unsigned calls, pieces;
    bool done, free_client, restart_on_piece;
    Outcome later;
} Lives;

static void free_all_in_handler(HttpOp *op, const HttpResponse *response, const Error *err,
                                void *userdata)
{
    Lives *lives = userdata;

    lives->calls++;
    lives->done = true;
    if (lives->free_client)
        lives->f->client = http_client_free(lives->f->client);
    for (size_t i = 0; i < MANY; i++)
        lives->ops[i] = http_op_free(lives->ops[i]);
}

static void start_many(Lives *lives, const HttpRequest *request, HttpHandler handler, size_t n)
{
    auto_error Error error = {0};

    for (size_t i = 0; i < n; i++)
        assert_ok(http_start(lives->f->client, request, handler, lives, &lives->ops[i], &error),
                  &error);
}

static void one_freed_before_it_began_is_never_heard_of(void **state)
{
    Fixture *f = *state;
    Lives lives = {.f = f};

    start_many(&lives, &(HttpRequest){.url = http_server_url(f->server, "/")}, free_all_in_handler,
               5);
    for (size_t i = 0; i < 5; i++)
        lives.ops[i] = http_op_free(lives.ops[i]);
    loop_run_for(f->event, 50 * MSEC);
    assert_int_equal(lives.calls, 0);
    assert_int_equal(http_server_count(f->server), 0);
}

static void a_handler_may_free_its_own_and_all_others(void **state)
{
    Fixture *f = *state;
    Lives lives = {.f = f};

    for (int i = 0; i < 10; i++)
        http_server_reply(f->server, &(Reply){.body = "x"});
    start_many(&lives, &(HttpRequest){.url = http_server_url(f->server, "/")}, free_all_in_handler,
               10);
    loop_run_until(f->event, &lives.done, 5 * SECOND);
    loop_run_for(f->event, 50 * MSEC);
    assert_int_equal(lives.calls, 1);
}

static void a_handler_may_free_the_client(void **state)
{
    Fixture *f = *state;
    Lives lives = {.f = f, .free_client = true};

    for (int i = 0; i < 10; i++)
        http_server_reply(f->server, &(Reply){.body = "x"});
    start_many(&lives, &(HttpRequest){.url = http_server_url(f->server, "/")}, free_all_in_handler,
               10);
    loop_run_until(f->event, &lives.done, 5 * SECOND);
    loop_run_for(f->event, 50 * MSEC);
    assert_int_equal(lives.calls, 1);
}

static void operations_outlive_their_client_in_silence(void **state)
{
    Fixture *f = *state;
    Lives lives = {.f = f};
    auto_error Error error = {0};

    http_server_reply(f->server, &(Reply){.status = 503});
    http_server_reply(f->server, &(Reply){.mode = REPLY_HANG});
    http_server_reply(f->server, &(Reply){.mode = REPLY_HANG});
    start_many(
        &lives,
        &(HttpRequest){.url = http_server_url(f->server, "/"),
                       .retry = {.tries = 9, .base_usec = 60 * SECOND, .cap_usec = 60 * SECOND}},
        free_all_in_handler, 3);
    loop_run_for(f->event, 50 * MSEC);
    f->client = http_client_free(f->client);
    loop_run_for(f->event, 50 * MSEC);
    assert_int_equal(lives.calls, 0);
    assert_int_equal(http_op_restart(lives.ops[0], NULL, &error), -ESHUTDOWN);
    for (size_t i = 0; i < 3; i++)
        http_op_free(lives.ops[i]);
}

static int free_all_in_piece(HttpOp *op, const void *data, size_t size, void *userdata)
{
    Lives *lives = userdata;
    auto_error Error error = {0};

    lives->pieces++;
    lives->done = true;
    if (lives->free_client)
        lives->f->client = http_client_free(lives->f->client);
    for (size_t i = 0; i < MANY; i++)
        lives->ops[i] = http_op_free(lives->ops[i]);
    /* Inside libcurl an operation can be begun as well; it starts when libcurl is at rest. */
    if (lives->restart_on_piece)
        assert_ok(http_start(lives->f->client,
                             &(HttpRequest){.url = http_server_url(lives->f->server, "/later")},
                             on_outcome, &lives->later, &lives->later.op, &error),
                  &error);
    return 0;
}

static void a_body_handler_may_free_all_and_begin_another(void **state)
{
    Fixture *f = *state;
    Lives lives = {.f = f, .restart_on_piece = true};

    http_server_handle(f->server, NULL, NULL);
    for (int i = 0; i < 11; i++)
        http_server_reply(f->server, &(Reply){.mode = REPLY_CHUNKED, .body = "x", .repeat = 5000});
    start_many(&lives,
               &(HttpRequest){.url = http_server_url(f->server, "/"), .on_body = free_all_in_piece},
               free_all_in_handler, 10);
    loop_run_until(f->event, &lives.done, 5 * SECOND);
    loop_run_until(f->event, &lives.later.done, 5 * SECOND);
    assert_int_equal(lives.calls, 0);
    assert_int_equal(lives.pieces, 1);
    assert_int_equal(lives.later.status, 200);
    outcome_done(&lives.later);
}

static void a_body_handler_may_free_the_client(void **state)
{
    Fixture *f = *state;
    Lives lives = {.f = f, .free_client = true};

    for (int i = 0; i < 3; i++)
        http_server_reply(f->server, &(Reply){.mode = REPLY_CHUNKED, .body = "x", .repeat = 5000});
    start_many(&lives,
               &(HttpRequest){.url = http_server_url(f->server, "/"), .on_body = free_all_in_piece},
               free_all_in_handler, 3);
    loop_run_until(f->event, &lives.done, 5 * SECOND);
    loop_run_for(f->event, 50 * MSEC);
    assert_int_equal(lives.calls, 0);
    assert_int_equal(lives.pieces, 1);
}

/* --- Many ----------------------------------------------------------------------------------- */

static void count_answer(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    Lives *lives = userdata;

    if (!err && response->status == 200 && streq(buf_str(&response->body), "ok"))
        lives->calls++;
    lives->pieces++;
    lives->done = lives->pieces == MANY;
}

static void a_hundred_at_once_all_come_back(void **state)
{
    Fixture *f = *state;
    Lives lives = {.f = f};
    HttpStats stats;

    for (size_t i = 0; i < MANY; i++)
        http_server_reply(f->server, &(Reply){.body = "ok", .delay_usec = (i % 7) * MSEC});
    start_many(&lives, &(HttpRequest){.url = http_server_url(f->server, "/")}, count_answer, MANY);
    loop_run_until(f->event, &lives.done, 10 * SECOND);
    assert_int_equal(lives.calls, MANY);
    http_client_stats(f->client, &stats);
    assert_int_equal(stats.requests, MANY);
    assert_int_equal(stats.connections, http_server_connections(f->server));
    for (size_t i = 0; i < MANY; i++)
        http_op_free(lives.ops[i]);
}

static void connections_to_one_host_stay_under_their_limit(void **state)
{
    Fixture *f = *state;
    Lives lives = {.f = f};

    http_client_set_max_host_connections(f->client, 2);
    for (size_t i = 0; i < MANY; i++)
        http_server_reply(f->server, &(Reply){.body = "ok"});
    start_many(&lives, &(HttpRequest){.url = http_server_url(f->server, "/")}, count_answer, MANY);
    loop_run_until(f->event, &lives.done, 10 * SECOND);
    assert_int_equal(lives.calls, MANY);
    assert_in_range(http_server_connections(f->server), 1, 2);
    for (size_t i = 0; i < MANY; i++)
        http_op_free(lives.ops[i]);
}

/* --- Streams -------------------------------------------------------------------------------- */

typedef struct Stream {
    Outcome outcome; /* first: the same pointer serves both */
    size_t sent, size, rewinds, received, fail_at;
    bool wrong;
} Stream;

static ptrdiff_t read_pattern(void *data, size_t size, void *userdata)
{
    Stream *s = userdata;
    size_t n = MIN_OF(size, s->size - s->sent);

    if (s->fail_at && s->sent >= s->fail_at)
        return -EIO;
    for (size_t i = 0; i < n; i++)
        ((char *)data)[i] = (char)('a' + (s->sent + i) % 26);
    s->sent += n;
    return (ptrdiff_t)n;
}

static int rewind_pattern(void *userdata)
{
    Stream *s = userdata;

    s->rewinds++;
    s->sent = 0;
    return 0;
}

static int take_pattern(HttpOp *op, const void *data, size_t size, void *userdata)
{
    Stream *s = userdata;

    for (size_t i = 0; i < size; i++)
        if (((const char *)data)[i] != (char)('a' + (s->received + i) % 26))
            s->wrong = true;
    s->received += size;
    return s->fail_at && s->received >= s->fail_at ? -ECANCELED : 0;
}

static void assert_pattern(const Request *request, size_t size)
{
    assert_int_equal(request->body_size, size);
    for (size_t i = 0; i < size; i++)
        if (request->body[i] != (char)('a' + i % 26))
            fail_msg("byte %zu is wrong", i);
}

static void an_upload_is_streamed_and_rewound_for_the_next_try(void **state)
{
    Fixture *f = *state;
    Stream s = {.size = 300000};

    http_server_reply(f->server, &(Reply){.status = 503});
    http_server_reply(f->server, &(Reply){0});
    outcome_of(f,
               &(HttpRequest){.method = "PUT",
                              .url = http_server_url(f->server, "/"),
                              .read = read_pattern,
                              .rewind = rewind_pattern,
                              .body_size = s.size,
                              .retry = QUICK},
               &s.outcome);
    assert_int_equal(s.outcome.status, 200);
    assert_int_equal(s.outcome.tries, 2);
    assert_int_equal(s.rewinds, 1);
    assert_pattern(http_server_request(f->server, 0), s.size);
    assert_pattern(http_server_request(f->server, 1), s.size);
    assert_true(s.outcome.bytes_out >= 2 * s.size);
    outcome_done(&s.outcome);
}

static void an_upload_that_cannot_be_rewound_is_tried_once(void **state)
{
    Fixture *f = *state;
    Stream s = {.size = 1000};

    http_server_reply(f->server, &(Reply){.status = 503});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .read = read_pattern,
                              .body_size = s.size,
                              .retry = QUICK},
               &s.outcome);
    assert_int_equal(s.outcome.status, 503);
    assert_int_equal(s.outcome.tries, 1);
    outcome_done(&s.outcome);
}

static void an_upload_of_unknown_size_goes_in_chunks(void **state)
{
    Fixture *f = *state;
    Stream s = {.size = 70001};

    http_server_reply(f->server, &(Reply){0});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .read = read_pattern,
                              .body_size = HTTP_SIZE_UNKNOWN},
               &s.outcome);
    assert_int_equal(s.outcome.status, 200);
    assert_pattern(http_server_request(f->server, 0), s.size);
    assert_string_equal(request_header(http_server_request(f->server, 0), "Transfer-Encoding"),
                        "chunked");
    outcome_done(&s.outcome);
}

static void a_reader_that_fails_ends_the_operation_with_its_code(void **state)
{
    Fixture *f = *state;
    Stream s = {.size = 1 << 20, .fail_at = 100000};

    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .read = read_pattern,
                              .rewind = rewind_pattern,
                              .body_size = s.size,
                              .retry = QUICK},
               &s.outcome);
    assert_int_equal(s.outcome.code, -EIO);
    outcome_done(&s.outcome);
}

static void a_body_is_streamed_piece_by_piece(void **state)
{
    Fixture *f = *state;
    Stream s = {0};

    http_server_reply(f->server, &(Reply){.status = 503, .body = "not this"});
    http_server_reply(
        f->server,
        &(Reply){.mode = REPLY_GZIP, .body = "abcdefghijklmnopqrstuvwxyz", .repeat = 20000});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .on_body = take_pattern,
                              .compressed = true,
                              .max_body = 10,
                              .retry = QUICK},
               &s.outcome);
    assert_int_equal(s.outcome.status, 200);
    assert_int_equal(s.received, 520000);
    assert_false(s.wrong);
    assert_int_equal(s.outcome.body_size, 0);
    outcome_done(&s.outcome);
}

static void a_stream_that_broke_is_not_begun_again(void **state)
{
    Fixture *f = *state;
    Stream s = {0};

    http_server_reply(f->server, &(Reply){.mode = REPLY_SHORT, .body = "abc"});
    outcome_of(f,
               &(HttpRequest){
                   .url = http_server_url(f->server, "/"), .on_body = take_pattern, .retry = QUICK},
               &s.outcome);
    assert_int_equal(s.outcome.code, -ECONNRESET);
    assert_int_equal(s.outcome.tries, 1);
    assert_int_equal(s.received, 3);
    outcome_done(&s.outcome);
}

static void a_stream_has_its_own_ceiling_and_its_handler_the_last_word(void **state)
{
    Fixture *f = *state;
    Stream big = {0}, refused = {.fail_at = 1};

    http_server_reply(f->server, &(Reply){.body = "abcdefghijklmnopqrstuvwxyz", .repeat = 1000});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .on_body = take_pattern,
                              .max_stream = 25999},
               &big.outcome);
    assert_int_equal(big.outcome.code, -EFBIG);
    assert_int_equal(big.outcome.kind, ERROR_CORRUPT);
    assert_true(big.received <= 25999);
    outcome_done(&big.outcome);

    http_server_reply(f->server, &(Reply){.body = "abc"});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/"), .on_body = take_pattern},
               &refused.outcome);
    assert_int_equal(refused.outcome.code, -ECANCELED);
    outcome_done(&refused.outcome);
}

/* --- Held and begun anew -------------------------------------------------------------------- */

static void renew_on_401(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    Outcome *o = userdata;
    auto_error Error error = {0};

    if (!err && response->status == 401 && o->calls == 0) {
        o->calls++;
        assert_ok(http_op_restart(op, "new", &error), &error);
        return;
    }
    on_outcome(op, response, err, userdata);
}

static void a_held_operation_waits_and_may_be_begun_anew_with_other_credentials(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    auto_error Error error = {0};
    const HttpRequest request = {.url = http_server_url(f->server, "/"),
                                 .held = true,
                                 .body = "same",
                                 .body_size = 4,
                                 .copy_body = true,
                                 .retry = QUICK};

    assert_ok(http_start(f->client, &request, renew_on_401, &o, &o.op, &error), &error);
    loop_run_for(f->event, 20 * MSEC);
    assert_int_equal(http_server_count(f->server), 0);

    http_server_reply(f->server, &(Reply){.status = 401, .body = "old body"});
    http_server_reply(f->server, &(Reply){.status = 503});
    http_server_reply(f->server, &(Reply){.body = "well"});
    assert_ok(http_op_restart(o.op, "old", &error), &error);
    loop_run_until(f->event, &o.done, 5 * SECOND);
    assert_string_equal(o.body, "well");
    assert_int_equal(o.tries, 2);
    assert_string_equal(request_header(http_server_request(f->server, 0), "Authorization"),
                        "Bearer old");
    for (size_t i = 1; i < 3; i++) {
        assert_string_equal(request_header(http_server_request(f->server, i), "Authorization"),
                            "Bearer new");
        assert_string_equal(http_server_request(f->server, i)->body, "same");
    }
}

TEST_MAIN(TEST(one_freed_before_it_began_is_never_heard_of),
          TEST(a_handler_may_free_its_own_and_all_others), TEST(a_handler_may_free_the_client),
          TEST(operations_outlive_their_client_in_silence),
          TEST(a_body_handler_may_free_all_and_begin_another),
          TEST(a_body_handler_may_free_the_client), TEST(a_hundred_at_once_all_come_back),
          TEST(connections_to_one_host_stay_under_their_limit),
          TEST(an_upload_is_streamed_and_rewound_for_the_next_try),
          TEST(an_upload_that_cannot_be_rewound_is_tried_once),
          TEST(an_upload_of_unknown_size_goes_in_chunks),
          TEST(a_reader_that_fails_ends_the_operation_with_its_code),
          TEST(a_body_is_streamed_piece_by_piece), TEST(a_stream_that_broke_is_not_begun_again),
          TEST(a_stream_has_its_own_ceiling_and_its_handler_the_last_word),
          TEST(a_held_operation_waits_and_may_be_begun_anew_with_other_credentials))
