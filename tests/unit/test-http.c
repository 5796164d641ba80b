/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/http-fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "agent/base/backoff.h"

#define QUICK                                                                                      \
    {                                                                                              \
        .tries = 3, .base_usec = MSEC, .cap_usec = 5 * MSEC                                        \
    }

static void an_answer_comes_whole(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(
        f->server,
        &(Reply){.headers = "Content-Type: text/plain\r\nX-Probe:  a b \r\n", .body = "hello"});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/x?y=z")}, &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(o.status, 200);
    assert_string_equal(o.body, "hello");
    assert_string_equal(o.content_type, "text/plain");
    assert_string_equal(o.probe, "a b");
    assert_int_equal(o.tries, 1);
    assert_int_equal(o.new_connections, 1);
    assert_true(o.connected && o.bytes_in > 5 && o.bytes_out > 20);
    assert_string_equal(http_server_request(f->server, 0)->method, "GET");
    assert_string_equal(http_server_request(f->server, 0)->target, "/x?y=z");
    assert_string_equal(request_header(http_server_request(f->server, 0), "User-Agent"),
                        "mervis-test/1");
    assert_null(request_header(http_server_request(f->server, 0), "Accept-Encoding"));
}

static void headers_of_the_caller_are_sent_and_none_of_libcurls_own(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    const HttpHeader headers[] = {{"Metadata-Flavor", "Google"}, {"X-Empty", ""}};

    http_server_reply(f->server, &(Reply){0});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .headers = headers,
                              .n_headers = 2,
                              .body = "abc",
                              .body_size = 3},
               &o);
    const Request *request = http_server_request(f->server, 0);
    assert_string_equal(request->method, "POST");
    assert_string_equal(request->body, "abc");
    assert_string_equal(request_header(request, "Metadata-Flavor"), "Google");
    assert_string_equal(request_header(request, "X-Empty"), "");
    assert_null(request_header(request, "Expect"));
    assert_null(request_header(request, "Content-Type"));
}

static void every_method_keeps_its_name_and_body(void **state)
{
    Fixture *f = *state;
    static const char *const methods[] = {"PUT", "DELETE", "PATCH", "HEAD", "POST"};

    for (size_t i = 0; i < ELEMENTS(methods); i++) {
        auto_outcome Outcome o = {0};
        bool has_body = streq(methods[i], "PUT") || streq(methods[i], "PATCH");

        http_server_reply(f->server, &(Reply){.body = "answer"});
        outcome_of(f,
                   &(HttpRequest){.method = methods[i],
                                  .url = http_server_url(f->server, "/"),
                                  .body = has_body ? "in" : NULL,
                                  .body_size = has_body ? 2 : 0},
                   &o);
        assert_int_equal(o.status, 200);
        assert_string_equal(http_server_request(f->server, i)->method, methods[i]);
        assert_string_equal(http_server_request(f->server, i)->body, has_body ? "in" : "");
        assert_string_equal(o.body, streq(methods[i], "HEAD") ? "" : "answer");
    }
}

static void connections_are_used_again_unless_told_otherwise(void **state)
{
    Fixture *f = *state;

    for (int i = 0; i < 3; i++) {
        auto_outcome Outcome o = {0};

        http_server_reply(f->server, &(Reply){.body = "x"});
        outcome_of(
            f, &(HttpRequest){.url = http_server_url(f->server, "/"), .fresh_connection = i == 2},
            &o);
        assert_int_equal(o.new_connections, i != 1);
    }
    assert_int_equal(http_server_connections(f->server), 2);
}

/* --- Retries -------------------------------------------------------------------------------- */

static void transient_statuses_are_tried_again(void **state)
{
    Fixture *f = *state;
    static const int statuses[] = {408, 429, 500, 502, 503, 504};

    for (size_t i = 0; i < ELEMENTS(statuses); i++) {
        auto_outcome Outcome o = {0};

        http_server_reply(f->server, &(Reply){.status = statuses[i], .body = "busy"});
        http_server_reply(f->server, &(Reply){.body = "well"});
        outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/"), .retry = QUICK}, &o);
        assert_int_equal(o.status, 200);
        assert_string_equal(o.body, "well");
        assert_int_equal(o.tries, 2);
    }
}

static void final_statuses_are_not(void **state)
{
    Fixture *f = *state;
    static const int statuses[] = {204, 304, 308, 400, 401, 403, 404, 409, 410, 501};

    for (size_t i = 0; i < ELEMENTS(statuses); i++) {
        auto_outcome Outcome o = {0};

        http_server_reply(f->server, &(Reply){.status = statuses[i]});
        outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/"), .retry = QUICK}, &o);
        assert_int_equal(o.code, 0);
        assert_int_equal(o.status, statuses[i]);
        assert_int_equal(o.tries, 1);
    }
}

static void tries_end_and_the_last_answer_stands(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    for (int i = 0; i < 3; i++)
        http_server_reply(f->server, &(Reply){.status = 503, .body = i == 2 ? "third" : "early"});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/"), .retry = QUICK}, &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(o.status, 503);
    assert_string_equal(o.body, "third");
    assert_int_equal(o.tries, 3);
    assert_int_equal(o.calls, 1);
}

static void broken_connections_are_tried_again(void **state)
{
    Fixture *f = *state;
    static const ReplyMode modes[] = {REPLY_RESET, REPLY_EARLY, REPLY_SHORT};

    for (size_t i = 0; i < ELEMENTS(modes); i++) {
        auto_outcome Outcome o = {0};

        http_server_reply(f->server, &(Reply){.mode = modes[i], .body = "half"});
        http_server_reply(f->server, &(Reply){.body = "well"});
        outcome_of(f,
                   &(HttpRequest){.url = http_server_url(f->server, "/"),
                                  .retry = QUICK,
                                  .fresh_connection = true},
                   &o);
        assert_int_equal(o.code, 0);
        assert_string_equal(o.body, "well");
        assert_int_equal(o.tries, 2);
    }
}

static void half_an_answer_is_an_error_and_not_a_status(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server, &(Reply){.mode = REPLY_SHORT, .body = "half"});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/")}, &o);
    assert_int_equal(o.code, -ECONNRESET);
    assert_int_equal(o.kind, ERROR_TEMPORARY);
    assert_int_equal(o.status, 0);
    assert_string_equal(o.body, "");
    assert_contains(o.message, "before the end of the body");
}

static void what_is_not_http_is_said_to_be_that(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server, &(Reply){.mode = REPLY_RAW, .body = "SSH-2.0-OpenSSH_9.2\r\n"});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/")}, &o);
    assert_int_equal(o.kind, ERROR_TEMPORARY);
    assert_contains(o.message, "not HTTP");
}

static void nobody_there_is_a_temporary_error_with_its_reason(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    auto_free char *url = NULL;

    url = strdup(http_server_url(f->other, "/"));
    f->other = http_server_free(f->other);
    outcome_of(f, &(HttpRequest){.url = url, .retry = QUICK}, &o);
    assert_int_equal(o.code, -ECONNREFUSED);
    assert_int_equal(o.kind, ERROR_TEMPORARY);
    assert_int_equal(o.tries, 3);
    assert_false(o.connected);
    assert_contains(o.message, "127.0.0.1: cannot connect: Connection refused");
}

static void a_retry_after_is_obeyed(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    uint64_t begin = now_boottime_usec();

    http_server_reply(f->server, &(Reply){.status = 429, .headers = "Retry-After: 1\r\n"});
    http_server_reply(f->server, &(Reply){.body = "well"});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/"), .retry = QUICK}, &o);
    assert_int_equal(o.status, 200);
    assert_true(now_boottime_usec() - begin >= 990 * MSEC);
}

static void a_retry_after_may_be_a_date(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    char date[64], *line;
    time_t at = time(NULL) + 120;
    struct tm tm;

    assert_non_null(gmtime_r(&at, &tm));
    assert_true(strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm) > 0);
    line = http_server_keep(f->server, str_printf("Retry-After: %s\r\n", date));
    http_server_reply(f->server, &(Reply){.status = 503, .headers = line});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/"), .retry = QUICK}, &o);
    /* It is longer than we are ready to wait: the answer stands, and says until when. */
    assert_int_equal(o.status, 503);
    assert_int_equal(o.tries, 1);
    assert_in_range(o.retry_after_usec, 118 * SECOND, 120 * SECOND);
}

static bool retry_on_409(const HttpResponse *response, void *userdata)
{
    return response->status == 409;
}

static void the_caller_may_judge_what_is_tried_again(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server, &(Reply){.status = 409});
    http_server_reply(f->server, &(Reply){.status = 503});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .retry = QUICK,
                              .should_retry = retry_on_409},
               &o);
    assert_int_equal(o.status, 503);
    assert_int_equal(o.tries, 2);
}

/* --- Limits --------------------------------------------------------------------------------- */

static void a_body_over_the_ceiling_is_refused(void **state)
{
    Fixture *f = *state;
    static const ReplyMode modes[] = {REPLY_NORMAL, REPLY_CHUNKED, REPLY_GZIP};

    for (size_t i = 0; i < ELEMENTS(modes); i++) {
        auto_outcome Outcome o = {0};

        http_server_reply(f->server,
                          &(Reply){.mode = modes[i], .body = "0123456789", .repeat = 1000});
        outcome_of(f,
                   &(HttpRequest){.url = http_server_url(f->server, "/"),
                                  .max_body = 9999,
                                  .compressed = true,
                                  .retry = QUICK},
                   &o);
        assert_int_equal(o.code, -EFBIG);
        assert_int_equal(o.kind, ERROR_CORRUPT);
        assert_int_equal(o.tries, 1);
        assert_contains(o.message, "9999");
    }
}

static void a_body_of_exactly_the_ceiling_passes(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server,
                      &(Reply){.mode = REPLY_GZIP, .body = "0123456789", .repeat = 1000});
    outcome_of(f,
               &(HttpRequest){
                   .url = http_server_url(f->server, "/"), .max_body = 10000, .compressed = true},
               &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(o.body_size, 10000);
    assert_true(o.bytes_in < 1000); /* the wire is counted as it travelled */
    assert_string_equal(request_header(http_server_request(f->server, 0), "Accept-Encoding"),
                        "gzip");
}

static void a_zip_bomb_costs_no_more_than_the_ceiling(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    auto_free char *zeros = calloc(1, 1 << 20);

    http_server_reply(
        f->server,
        &(Reply){
            .mode = REPLY_GZIP, .body = zeros, .body_size = 1 << 20, .repeat = 200, .close = true});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/"), .compressed = true}, &o);
    assert_int_equal(o.code, -EFBIG);
    assert_int_equal(o.kind, ERROR_CORRUPT);
}

static void a_body_that_does_not_decompress_is_corrupt(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server,
                      &(Reply){.headers = "Content-Encoding: gzip\r\n", .body = "this is no gzip"});
    outcome_of(
        f,
        &(HttpRequest){.url = http_server_url(f->server, "/"), .compressed = true, .retry = QUICK},
        &o);
    assert_int_equal(o.kind, ERROR_CORRUPT);
    assert_int_equal(o.tries, 1);
}

static void a_long_error_body_is_cut_and_the_status_stands(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server,
                      &(Reply){.status = 403, .body = "0123456789abcdef", .repeat = 1 << 16});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/")}, &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(o.status, 403);
    assert_int_equal(o.body_size, HTTP_ERROR_BODY_MAX);
}

static void endless_headers_are_refused(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    auto_buf Buf lines = BUF_INIT(4 << 20);

    for (int i = 0; i < 5000; i++)
        assert_int_equal(buf_printf(&lines, "X-Line-%d: %080d\r\n", i, i), 0);
    http_server_reply(f->server, &(Reply){.headers = buf_str(&lines)});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/")}, &o);
    assert_int_equal(o.code, -EFBIG);
    assert_int_equal(o.kind, ERROR_CORRUPT);
}

static void a_silent_server_is_given_up(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server, &(Reply){.mode = REPLY_HANG});
    http_server_reply(f->server, &(Reply){.body = "well"});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .try_timeout_usec = 100 * MSEC,
                              .retry = QUICK},
               &o);
    assert_int_equal(o.status, 200);
    assert_int_equal(o.tries, 2);
}

static void a_dripping_server_does_not_stretch_the_limit(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(
        f->server,
        &(Reply){.mode = REPLY_DRIP, .body = "0123456789", .repeat = 100, .drip_usec = 10 * MSEC});
    outcome_of(
        f, &(HttpRequest){.url = http_server_url(f->server, "/"), .try_timeout_usec = 200 * MSEC},
        &o);
    assert_int_equal(o.code, -ETIMEDOUT);
    assert_int_equal(o.kind, ERROR_TEMPORARY);
    assert_true(o.connected);
    assert_contains(o.message, "no complete answer within");
}

static void a_stalled_body_is_cut(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server, &(Reply){.mode = REPLY_STALL, .body = "almost"});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .try_timeout_usec = USEC_INFINITY,
                              .stall_timeout_usec = SECOND},
               &o);
    assert_int_equal(o.code, -ETIMEDOUT);
    assert_contains(o.message, "stalled");
}

static void the_total_limit_counts_all_tries(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    uint64_t begin = now_boottime_usec();

    for (int i = 0; i < 50; i++)
        http_server_reply(f->server, &(Reply){.mode = REPLY_HANG});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .try_timeout_usec = 60 * MSEC,
                              .total_timeout_usec = 300 * MSEC,
                              .retry = {.tries = 50, .base_usec = MSEC, .cap_usec = MSEC}},
               &o);
    assert_int_equal(o.code, -ETIMEDOUT);
    assert_in_range(o.tries, 2, 6);
    assert_in_range(now_boottime_usec() - begin, 150 * MSEC, 3 * SECOND);
}

/* --- Redirects ------------------------------------------------------------------------------ */

static void redirects_are_not_followed_unasked(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    http_server_reply(f->server, &(Reply){.status = 302, .headers = "Location: /there\r\n"});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/")}, &o);
    assert_int_equal(o.status, 302);
    assert_string_equal(o.location, "/there");
}

static void credentials_stay_with_their_host(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    const HttpHeader headers[] = {{"X-Api-Key", "k"}, {"Accept", "a/b"}, {"Cookie", "c=d"}};
    const char *location = http_server_keep(
        f->server, str_printf("Location: %s\r\n", http_server_url(f->other, "/elsewhere")));

    http_server_reply(f->server, &(Reply){.status = 307, .headers = "Location: second?a=b\r\n"});
    http_server_reply(f->server, &(Reply){.status = 307, .headers = location});
    http_server_reply(f->other, &(Reply){.body = "blob"});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/dir/first"),
                              .headers = headers,
                              .n_headers = 3,
                              .bearer = "s3cret",
                              .follow = true},
               &o);
    assert_string_equal(o.body, "blob");

    const Request *second = http_server_request(f->server, 1);
    assert_string_equal(second->target, "/dir/second?a=b");
    assert_string_equal(request_header(second, "Authorization"), "Bearer s3cret");
    assert_string_equal(request_header(second, "X-Api-Key"), "k");

    const Request *third = http_server_request(f->other, 0);
    assert_null(request_header(third, "Authorization"));
    assert_null(request_header(third, "X-Api-Key"));
    assert_null(request_header(third, "Cookie"));
    assert_string_equal(request_header(third, "Accept"), "a/b");
}

static void basic_credentials_stay_too_and_do_not_come_back_through_a_stranger(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    const char *there =
        http_server_keep(f->server, str_printf("Location: %s\r\n", http_server_url(f->other, "/")));
    const char *back = http_server_keep(
        f->server, str_printf("Location: %s\r\n", http_server_url(f->server, "/back")));

    http_server_reply(f->server, &(Reply){.status = 302, .headers = there});
    http_server_reply(f->other, &(Reply){.status = 302, .headers = back});
    http_server_reply(f->server, &(Reply){.body = "end"});
    outcome_of(f,
               &(HttpRequest){.url = http_server_url(f->server, "/"),
                              .user_pass = "oauth2accesstoken:t:o",
                              .follow = true},
               &o);
    assert_string_equal(o.body, "end");
    assert_string_equal(request_header(http_server_request(f->server, 0), "Authorization"),
                        "Basic b2F1dGgyYWNjZXNzdG9rZW46dDpv");
    assert_null(request_header(http_server_request(f->other, 0), "Authorization"));
    assert_null(request_header(http_server_request(f->server, 1), "Authorization"));
}

static void a_redirect_keeps_or_drops_method_and_body_as_its_status_says(void **state)
{
    Fixture *f = *state;
    static const int statuses[] = {301, 302, 303, 307, 308};

    for (size_t i = 0; i < ELEMENTS(statuses); i++) {
        auto_outcome Outcome o = {0};
        bool keeps = statuses[i] >= 307;

        http_server_reply(f->server,
                          &(Reply){.status = statuses[i], .headers = "Location: /to\r\n"});
        http_server_reply(f->server, &(Reply){0});
        outcome_of(f,
                   &(HttpRequest){.url = http_server_url(f->server, "/"),
                                  .body = "data",
                                  .body_size = 4,
                                  .follow = true},
                   &o);
        const Request *second = http_server_request(f->server, 2 * i + 1);
        assert_string_equal(second->method, keeps ? "POST" : "GET");
        assert_string_equal(second->body, keeps ? "data" : "");
    }
}

static void a_circle_of_redirects_ends(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    for (int i = 0; i < 10; i++)
        http_server_reply(f->server, &(Reply){.status = 302, .headers = "Location: /\r\n"});
    outcome_of(
        f, &(HttpRequest){.url = http_server_url(f->server, "/"), .follow = true, .retry = QUICK},
        &o);
    assert_int_equal(o.code, -ELOOP);
    assert_int_equal(o.kind, ERROR_INVALID);
    assert_int_equal(http_server_count(f->server), HTTP_REDIRECTS_MAX + 1);
}

static void redirects_to_forbidden_places_are_refused(void **state)
{
    Fixture *f = *state;
    static const char *const places[] = {
        "http://169.254.169.254/computeMetadata/v1/",
        "http://[::ffff:169.254.169.254]/",
        "http://example.com/",
        "file:///etc/shadow",
        "gopher://127.0.0.1/",
    };

    for (size_t i = 0; i < ELEMENTS(places); i++) {
        auto_outcome Outcome o = {0};
        const char *location =
            http_server_keep(f->server, str_printf("Location: %s\r\n", places[i]));

        http_server_reply(f->server, &(Reply){.status = 302, .headers = location});
        outcome_of(f,
                   &(HttpRequest){.url = http_server_url(f->server, "/"),
                                  .follow = true,
                                  .connect_timeout_usec = 2 * SECOND,
                                  .retry = QUICK},
                   &o);
        if (o.kind != ERROR_INVALID || o.code == 0)
            fail_msg("%s: %d %s", places[i], o.code, o.message);
        assert_int_equal(o.tries, 1);
    }
}

static void redirects_go_to_the_named_hosts_only(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0}, allowed = {0};
    const char *const hosts[] = {"localhost", NULL};
    char *location = http_server_keep(
        f->server, str_printf("Location: http://localhost:%u/\r\n", http_server_port(f->other)));

    http_server_reply(f->server, &(Reply){.status = 302, .headers = location});
    http_server_reply(f->other, &(Reply){.body = "well"});
    outcome_of(f,
               &(HttpRequest){
                   .url = http_server_url(f->server, "/"), .follow = true, .follow_hosts = hosts},
               &allowed);
    assert_string_equal(allowed.body, "well");

    http_server_reply(f->server, &(Reply){.status = 302, .headers = "Location: /x\r\n"});
    outcome_of(f,
               &(HttpRequest){
                   .url = http_server_url(f->server, "/"), .follow = true, .follow_hosts = hosts},
               &o);
    assert_int_equal(o.code, -EPERM);
    assert_contains(o.message, "127.0.0.1, which is not allowed");
}

typedef struct AddressLog {
    unsigned calls;
    uint16_t refuse_port;
    char address[64], host[64];
    Outcome outcome; /* last: a handler gets this struct as its userdata */
} AddressLog;

static int log_address(const char *address, uint16_t port, const char *host, void *userdata)
{
    AddressLog *log = container_of(userdata, AddressLog, outcome);

    log->calls++;
    (void)snprintf(log->address, sizeof(log->address), "%s", address);
    (void)snprintf(log->host, sizeof(log->host), "%s", host);
    return port == log->refuse_port ? -EPERM : 0;
}

static void each_address_is_shown_to_the_caller_who_may_refuse_it(void **state)
{
    Fixture *f = *state;
    AddressLog log = {.refuse_port = http_server_port(f->other)};
    auto_free char *url = str_printf("http://localhost:%u/", http_server_port(f->server));
    const char *location =
        http_server_keep(f->server, str_printf("Location: %s\r\n", http_server_url(f->other, "/")));

    http_server_reply(f->server, &(Reply){.status = 302, .headers = location});
    outcome_of(f, &(HttpRequest){.url = url, .follow = true, .check_address = log_address},
               &log.outcome);
    assert_int_equal(log.outcome.code, -EPERM);
    assert_int_equal(log.outcome.kind, ERROR_INVALID);
    assert_true(log.calls >= 2);
    assert_int_equal(http_server_connections(f->other), 0);
    outcome_done(&log.outcome);

    /* A connection that stands already is no way around it. */
    log.refuse_port = http_server_port(f->server);
    outcome_of(f, &(HttpRequest){.url = url, .check_address = log_address}, &log.outcome);
    assert_int_equal(log.outcome.code, -EPERM);
    assert_int_equal(http_server_count(f->server), 1);
    outcome_done(&log.outcome);
}

/* --- Endpoints ------------------------------------------------------------------------------ */

static void endpoints_move_a_host_with_its_path(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    auto_error Error error = {0};
    auto_free char *mapped = NULL, *plain = NULL;
    const HttpEndpoint endpoints[] = {
        {"query1.finance.yahoo.com",
         http_server_url(f->server, "/market/query1.finance.yahoo.com/")},
        {"secretmanager.googleapis.com",
         "https://secretmanager.asia-northeast3.rep.googleapis.com"},
    };

    assert_ok(http_client_set_endpoints(f->client, endpoints, 2, &error), &error);
    http_server_reply(f->server, &(Reply){.status = 302, .headers = "Location: /v8/y\r\n"});
    http_server_reply(f->server, &(Reply){.status = 302,
                                          .headers = "Location: /market/"
                                                     "query1.finance.yahoo.com/v8/z\r\n"});
    http_server_reply(f->server, &(Reply){.body = "chart"});
    outcome_of(f,
               &(HttpRequest){.url = "https://Query1.finance.yahoo.com/v8/x?a=%20b#frag",
                              .bearer = "t",
                              .follow = true},
               &o);
    assert_string_equal(o.body, "chart");
    assert_string_equal(http_server_request(f->server, 0)->target,
                        "/market/query1.finance.yahoo.com/v8/x?a=%20b");
    assert_string_equal(http_server_request(f->server, 1)->target,
                        "/market/query1.finance.yahoo.com/v8/y");
    assert_string_equal(http_server_request(f->server, 2)->target,
                        "/market/query1.finance.yahoo.com/v8/z");
    assert_string_equal(request_header(http_server_request(f->server, 2), "Authorization"),
                        "Bearer t");

    assert_ok(
        http_client_map_url(f->client, "https://secretmanager.googleapis.com?x=1", &mapped, &error),
        &error);
    assert_string_equal(mapped, "https://secretmanager.asia-northeast3.rep.googleapis.com/?x=1");
    assert_ok(http_client_map_url(f->client, "https://other.example/", &plain, &error), &error);
    assert_string_equal(plain, "https://other.example/");
    assert_true(http_client_is_endpoint(f->client, "127.0.0.1", http_server_port(f->server)));
    assert_false(http_client_is_endpoint(f->client, "127.0.0.1", http_server_port(f->other)));
}

static void an_endpoint_in_plain_http_is_refused_beyond_this_machine(void **state)
{
    Fixture *f = *state;
    static const char *const bad[] = {"http://mirror.example", "ftp://127.0.0.1/", "nonsense://",
                                      "https://a.example/?key=1"};

    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        auto_error Error error = {0};
        const HttpEndpoint endpoint = {"a.example", bad[i]};

        assert_int_equal(http_client_set_endpoints(f->client, &endpoint, 1, &error), -EINVAL);
        assert_contains(error_text(&error), "a.example");
    }
}

static void plain_http_is_for_this_machine_and_for_who_asks_for_it(void **state)
{
    Fixture *f = *state;
    static const char *const good[] = {"http://localhost/", "http://127.1.2.3:5/", "http://[::1]/",
                                       "https://example.com/"};
    static const char *const bad[] = {
        "http://example.com/", "http://169.254.169.254/", "http://mds.test/",
        "http://10.0.0.1/",    "file:///etc/passwd",      "http://",
        "not a url",           "http://127.0.0.1:0/",     "http://127.0.0.1:99999/",
        "http:/127.0.0.1/",    "http:///127.0.0.1/",      "http://%31%32%37.0.0.1/"};
    static const char *const asked_for[] = {"http://169.254.169.254/", "http://172.17.0.2:8080/"};
    auto_error Error error = {0};

    for (size_t i = 0; i < ELEMENTS(good); i++) {
        auto_(http_op_freep) HttpOp *op = NULL;
        const HttpRequest request = {.url = good[i], .held = true};

        assert_ok(http_start(f->client, &request, on_outcome, NULL, &op, &error), &error);
    }
    for (size_t i = 0; i < ELEMENTS(asked_for); i++) {
        auto_(http_op_freep) HttpOp *op = NULL;
        const HttpRequest request = {.url = asked_for[i], .held = true, .allow_plain = true};

        assert_ok(http_start(f->client, &request, on_outcome, NULL, &op, &error), &error);
    }
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        auto_error Error refused = {0};
        HttpOp *op = NULL;
        const HttpRequest request = {.url = bad[i]};

        if (http_start(f->client, &request, on_outcome, NULL, &op, &refused) >= 0)
            fail_msg("%s was accepted", bad[i]);
        assert_int_equal(refused.kind, ERROR_INVALID);
        assert_null(op);
    }
}

static void a_header_cannot_smuggle_another(void **state)
{
    Fixture *f = *state;
    const HttpHeader header = {"X", "a\r\nY: b"};
    HttpOp *op = NULL;

    assert_int_equal(
        http_start(f->client,
                   &(HttpRequest){.url = "https://a.example", .headers = &header, .n_headers = 1},
                   on_outcome, NULL, &op, NULL),
        -EINVAL);
    assert_int_equal(http_start(f->client,
                                &(HttpRequest){.url = "https://a.example", .bearer = "a\nb"},
                                on_outcome, NULL, &op, NULL),
                     -EINVAL);
}

static void unix_sockets_work(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = str_printf("%s/engine.sock", dir);
    auto_(http_server_freep) HttpServer *server = http_server_new(f->event, path);

    http_server_reply(server, &(Reply){.body = "OK"});
    outcome_of(f, &(HttpRequest){.url = "http://engine/_ping", .unix_socket = path}, &o);
    assert_string_equal(o.body, "OK");
    assert_string_equal(request_header(http_server_request(server, 0), "Host"), "engine");
}

static void a_missing_unix_socket_says_so(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};

    outcome_of(f, &(HttpRequest){.url = "http://engine/", .unix_socket = "/nowhere/sock"}, &o);
    assert_int_equal(o.kind, ERROR_TEMPORARY);
    assert_int_equal(o.code, -ENOENT);
}

/* --- The URL's pieces and the answer as an error ---------------------------------------------- */

static void private_addresses_are_known_in_every_coat(void **state)
{
    static const char *const private[] = {"127.0.0.1",
                                          "10.1.2.3",
                                          "172.16.0.1",
                                          "172.31.255.255",
                                          "192.168.0.1",
                                          "0.0.0.0",
                                          "100.64.0.1",
                                          "169.254.169.254",
                                          "224.0.0.1",
                                          "255.255.255.255",
                                          "::",
                                          "::1",
                                          "fe80::1%eth0",
                                          "fd20:ce::254",
                                          "ff02::1",
                                          "::127.0.0.1",
                                          "2002:7f00:1::",
                                          "::ffff:10.0.0.1",
                                          "64:ff9b::169.254.169.254"};
    static const char *const public[] = {"8.8.8.8",         "172.32.0.1",     "100.128.0.1",
                                         "2001:4860::8888", "::ffff:8.8.8.8", "192.0.1.1",
                                         "126.255.255.255", "auth.docker.io", ""};

    for (size_t i = 0; i < ELEMENTS(private); i++)
        if (!address_is_private(private[i]))
            fail_msg("%s", private[i]);
    for (size_t i = 0; i < ELEMENTS(public); i++)
        if (address_is_private(public[i]))
            fail_msg("%s", public[i]);
}

static void hosts_match_on_a_label_boundary(void **state)
{
    assert_true(host_is_within("pkg.dev", "pkg.dev"));
    assert_true(host_is_within("x-docker.PKG.dev", "pkg.dev"));
    assert_false(host_is_within("x-docker.pkg.dev.evil.example", "pkg.dev"));
    assert_false(host_is_within("evilpkg.dev", "pkg.dev"));
    assert_false(host_is_within("dev", "pkg.dev"));
}

static void urls_come_apart_and_are_logged_without_secrets(void **state)
{
    auto_free char *scheme = NULL, *host = NULL, *log = NULL, *log2 = NULL, *escaped = NULL;
    auto_error Error error = {0};
    uint16_t port = 0;

    assert_ok(url_host_port("HTTPS://Example.COM/x", &scheme, &host, &port, &error), &error);
    assert_string_equal(scheme, "https");
    assert_string_equal(host, "example.com");
    assert_int_equal(port, 443);
    log = url_for_log("https://user:pw@h.example:8/p/q?token=1#x");
    assert_string_equal(log, "https://h.example:8/p/q");
    log2 = url_for_log("https://h.example/a@b?x@y");
    assert_string_equal(log2, "https://h.example/a@b");
    escaped = url_escape("a b/c:d~\xed\x95\x9c", "/");
    assert_string_equal(escaped, "a%20b/c%3Ad~%ED%95%9C");
}

static void statuses_become_errors_by_kind(void **state)
{
    static const struct {
        long status;
        ErrorKind kind;
        int code;
    } rows[] = {
        {401, ERROR_DENIED, -EACCES},    {403, ERROR_DENIED, -EACCES},
        {404, ERROR_INVALID, -ENOENT},   {408, ERROR_TEMPORARY, -ETIMEDOUT},
        {429, ERROR_THROTTLED, -EBUSY},  {500, ERROR_TEMPORARY, -EAGAIN},
        {503, ERROR_TEMPORARY, -EAGAIN}, {599, ERROR_TEMPORARY, -EAGAIN},
        {302, ERROR_INVALID, -EINVAL},   {499, ERROR_INVALID, -EINVAL},
    };
    HttpResponse response = {.status = 204};
    auto_error Error error = {0};

    assert_int_equal(http_response_error(&response, "x", &error), 0);
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        response = (HttpResponse){.status = rows[i].status};
        assert_int_equal(http_response_error(&response, "registry", &error), rows[i].code);
        assert_int_equal(error.kind, rows[i].kind);
        assert_contains(error_text(&error), "registry: HTTP ");
        error_done(&error);
    }
    response = (HttpResponse){.status = 503, .retry_after_usec = 7 * SECOND};
    assert_int_equal(http_response_error(&response, "x", &error), -EAGAIN);
    assert_int_equal(error.kind, ERROR_THROTTLED);
    assert_int_equal(error.retry_after_usec, 7 * SECOND);
}

TEST_MAIN(TEST(an_answer_comes_whole),
          TEST(headers_of_the_caller_are_sent_and_none_of_libcurls_own),
          TEST(every_method_keeps_its_name_and_body),
          TEST(connections_are_used_again_unless_told_otherwise),
          TEST(transient_statuses_are_tried_again), TEST(final_statuses_are_not),
          TEST(tries_end_and_the_last_answer_stands), TEST(broken_connections_are_tried_again),
          TEST(half_an_answer_is_an_error_and_not_a_status),
          TEST(what_is_not_http_is_said_to_be_that),
          TEST(nobody_there_is_a_temporary_error_with_its_reason), TEST(a_retry_after_is_obeyed),
          TEST(a_retry_after_may_be_a_date), TEST(the_caller_may_judge_what_is_tried_again),
          TEST(a_body_over_the_ceiling_is_refused), TEST(a_body_of_exactly_the_ceiling_passes),
          TEST(a_zip_bomb_costs_no_more_than_the_ceiling),
          TEST(a_body_that_does_not_decompress_is_corrupt),
          TEST(a_long_error_body_is_cut_and_the_status_stands), TEST(endless_headers_are_refused),
          TEST(a_silent_server_is_given_up), TEST(a_dripping_server_does_not_stretch_the_limit),
          TEST(a_stalled_body_is_cut), TEST(the_total_limit_counts_all_tries),
          TEST(redirects_are_not_followed_unasked), TEST(credentials_stay_with_their_host),
          TEST(basic_credentials_stay_too_and_do_not_come_back_through_a_stranger),
          TEST(a_redirect_keeps_or_drops_method_and_body_as_its_status_says),
          TEST(a_circle_of_redirects_ends), TEST(redirects_to_forbidden_places_are_refused),
          TEST(redirects_go_to_the_named_hosts_only),
          TEST(each_address_is_shown_to_the_caller_who_may_refuse_it),
          TEST(endpoints_move_a_host_with_its_path),
          TEST(an_endpoint_in_plain_http_is_refused_beyond_this_machine),
          TEST(plain_http_is_for_this_machine_and_for_who_asks_for_it),
          TEST(a_header_cannot_smuggle_another), TEST(unix_sockets_work),
          TEST(a_missing_unix_socket_says_so),
          cmocka_unit_test(private_addresses_are_known_in_every_coat),
          cmocka_unit_test(hosts_match_on_a_label_boundary),
          cmocka_unit_test(urls_come_apart_and_are_logged_without_secrets),
          cmocka_unit_test(statuses_become_errors_by_kind))
