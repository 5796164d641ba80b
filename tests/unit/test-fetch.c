/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fetch-fixture.h"

#include <time.h>

#define ROWS "[[1791331200,1]]"

static char *const three[] = {(char *)(uintptr_t) "A", (char *)(uintptr_t) "B",
                              (char *)(uintptr_t) "C", NULL};

static void use_three_symbols(Fixture *f)
{
    f->job.symbols = three;
    f->job.n_symbols = 3;
}

/* --- Answers -------------------------------------------------------------------------------- */

static void an_answer_is_handed_over_and_the_round_ends(void **state)
{
    Fixture *f = *state;
    FetchJobStatus status;

    make_recipe(f, API);
    f->job.secret = "s3cret";
    http_server_reply(f->server, &(Reply){.body = ROWS});
    crawl(f);
    assert_int_equal(f->documents, 1);
    assert_int_equal(f->status, 200);
    assert_string_equal(f->body, ROWS);
    assert_false(f->not_modified);
    assert_string_equal(target(f->server, 0), "/bars?symbol=A");
    assert_string_equal(request_header(http_server_request(f->server, 0), "X-Key"), "s3cret");
    assert_contains(request_header(http_server_request(f->server, 0), "User-Agent"),
                    "mervis-agent/");
    assert_contains(request_header(http_server_request(f->server, 0), "User-Agent"),
                    "ops@example.com");
    status = job_status(f);
    assert_string_equal(status.state, "ok");
    assert_int_equal(status.requests, 1);
    assert_int_equal(status.failures, 0);
    assert_null(status.message);
    assert_true(status.bytes_in > strlen(ROWS));
    assert_true(fetcher_bytes_today(f->fetcher) > status.bytes_in); /* what was sent counts, too */
    assert_int_equal(fetcher_failures(f->fetcher), 0);
}

static void what_did_not_change_is_asked_for_with_its_validator(void **state)
{
    static const struct {
        const char *reply, *asks, *value;
    } kinds[] = {
        {"ETag: \"one\"\r\n", "If-None-Match", "\"one\""},
        {"Last-Modified: Wed, 07 Oct 2026 00:00:00 GMT\r\n", "If-Modified-Since",
         "Wed, 07 Oct 2026 00:00:00 GMT"},
    };
    Fixture *f = *state;

    make_recipe(f, API CONDITIONAL);
    for (size_t i = 0; i < ELEMENTS(kinds); i++) {
        const Request *asked;

        http_server_reply(f->server, &(Reply){.body = ROWS, .headers = kinds[i].reply});
        crawl(f);
        assert_false(f->not_modified);
        http_server_reply(f->server, &(Reply){.status = 304, .headers = kinds[i].reply});
        make_fetcher(f); /* nor does a restart forget it */
        crawl(f);
        assert_true(f->not_modified);
        asked = http_server_request(f->server, 2 * i + 1);
        assert_string_equal(request_header(asked, kinds[i].asks), kinds[i].value);
        assert_string_equal(job_status(f).state, "ok");
    }
    /* One that is not worth it is asked without. */
    make_recipe(f, API);
    http_server_reply(f->server, &(Reply){.body = ROWS});
    crawl(f);
    assert_null(request_header(http_server_request(f->server, 4), "If-Modified-Since"));
}

static void a_symbol_that_the_source_does_not_know_is_given_up_and_the_next_one_asked(void **state)
{
    Fixture *f = *state;

    make_recipe(f, API);
    use_three_symbols(f);
    http_server_reply(f->server, &(Reply){.body = ROWS});
    http_server_reply(f->server, &(Reply){.status = 404});
    http_server_reply(f->server, &(Reply){.body = ROWS});
    crawl(f);
    assert_int_equal(f->documents, 3);
    assert_int_equal(f->troubles, 1);
    assert_string_equal(f->trouble, "HTTP 404");
    assert_contains(f->remedy, "check the symbol");
    assert_int_equal(fetcher_failures(f->fetcher), 1);
    assert_int_equal(job_status(f).failures, 1);
    assert_string_equal(job_status(f).state, "failed");
    assert_int_equal(pause_left(f), 0); /* the host is well */
}

/* --- Refusals ------------------------------------------------------------------------------- */

/* Asks, is refused, and says how long the host is left alone. */
static uint64_t pause_of(Fixture *f, const Reply *reply)
{
    size_t before = http_server_count(f->server);

    http_server_reply(f->server, reply);
    begin(f);
    RUN_UNTIL(f, pause_left(f) > 0);
    assert_int_equal(http_server_count(f->server), before + 1);
    loop_run_for(f->event, 200 * MSEC);
    assert_int_equal(http_server_count(f->server), before + 1);
    assert_string_equal(job_status(f).state, "paused");
    assert_non_null(job_status(f).message);
    return pause_left(f);
}

static void a_refusal_leaves_the_host_alone_over_a_restart(void **state)
{
    Fixture *f = *state;

    make_recipe(f, API);
    assert_in_range(pause_of(f, &(Reply){.status = 503}), 20 * SECOND, 38 * SECOND);
    make_fetcher(f);
    begin(f);
    loop_run_for(f->event, 300 * MSEC);
    assert_int_equal(http_server_count(f->server), 1);
    assert_in_range(pause_left(f), 10 * SECOND, 38 * SECOND);
    assert_string_equal(job_status(f).state, "paused");
    assert_string_equal(job_status(f).message, "HTTP 503");
}

static void retry_after_in_seconds_is_obeyed(void **state)
{
    Fixture *f = *state;

    make_recipe(f, API);
    assert_in_range(pause_of(f, &(Reply){.status = 429, .headers = "Retry-After: 90\r\n"}),
                    80 * SECOND, 113 * SECOND);
}

static void retry_after_as_a_date_is_obeyed(void **state)
{
    Fixture *f = *state;
    time_t then = (time_t)(now_realtime_usec() / SECOND) + 600;
    char date[64], header[128];
    struct tm tm;

    assert_non_null(gmtime_r(&then, &tm));
    assert_true(strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm) > 0);
    (void)snprintf(header, sizeof(header), "Retry-After: %s\r\n", date);
    make_recipe(f, API);
    assert_in_range(pause_of(f, &(Reply){.status = 429, .headers = header}), 560 * SECOND,
                    751 * SECOND);
}

static void a_host_that_is_well_again_is_asked_again_in_the_same_round(void **state)
{
    Fixture *f = *state;
    uint64_t began;

    make_recipe(f, API);
    http_server_reply(f->server, &(Reply){.status = 429, .headers = "Retry-After: 1\r\n"});
    http_server_reply(f->server, &(Reply){.body = ROWS});
    began = now_boottime_usec();
    crawl(f);
    assert_true(now_boottime_usec() - began >= SECOND);
    assert_int_equal(f->documents, 2);
    assert_int_equal(f->troubles, 0);
    assert_string_equal(job_status(f).state, "ok");
    assert_null(job_status(f).message);
}

/* --- Where requests go ---------------------------------------------------------------------- */

static void a_redirect_is_followed_to_the_recipes_hosts_without_the_secret(void **state)
{
    Fixture *f = *state;

    make_recipe(f, API);
    f->job.secret = "s3cret";
    http_server_reply(f->server, &(Reply){.status = 302, .headers = "Location: /again\r\n"});
    http_server_reply(f->server,
                      &(Reply){.status = 307, .headers = "Location: https://h2.example/x\r\n"});
    http_server_reply(f->other, &(Reply){.body = ROWS});
    crawl(f);
    assert_int_equal(f->documents, 1);
    assert_string_equal(f->body, ROWS);
    assert_string_equal(target(f->server, 1), "/again");
    assert_non_null(request_header(http_server_request(f->server, 1), "X-Key"));
    assert_string_equal(target(f->other, 0), "/x");
    assert_null(request_header(http_server_request(f->other, 0), "X-Key"));
}

static void a_redirect_to_another_host_is_refused(void **state)
{
    Fixture *f = *state;

    make_recipe(f, API);
    http_server_reply(f->server,
                      &(Reply){.status = 302, .headers = "Location: https://far.example/x\r\n"});
    begin(f);
    RUN_UNTIL(f, failures(f) == 1);
    assert_int_equal(f->documents, 0);
    assert_int_equal(http_server_count(f->other), 0);
    assert_contains(job_status(f).message, "far.example");
}

/* --- Answers that are none ------------------------------------------------------------------ */

static void an_answer_over_the_limit_is_refused(void **state)
{
    static const ReplyMode modes[] = {REPLY_NORMAL, REPLY_CHUNKED, REPLY_GZIP};
    Fixture *f = *state;

    make_recipe(f, API);
    for (size_t i = 0; i < ELEMENTS(modes); i++) {
        assert_true(pause_of(f, &(Reply){.body = "[1,2,3,4]", .repeat = 10000, .mode = modes[i]}) >
                    0);
        assert_int_equal(f->documents, 0);
        assert_contains(job_status(f).message, "over 4096 bytes");
        make_fetcher(f); /* the old one writes its last word */
        forget_texts(f);
        make_fetcher(f);
    }
}

static void an_answer_that_is_cut_is_asked_for_again(void **state)
{
    static const ReplyMode modes[] = {REPLY_SHORT, REPLY_RESET, REPLY_EARLY};
    Fixture *f = *state;

    make_recipe(f, API);
    for (size_t i = 0; i < ELEMENTS(modes); i++) {
        f->documents = 0;
        http_server_reply(f->server, &(Reply){.body = "[[1791331200,", .mode = modes[i]});
        /* One that is used again is tried on another one at once. */
        http_server_reply(f->server, &(Reply){.body = ROWS, .close = true});
        crawl(f);
        assert_int_equal(f->documents, 1); /* never the half of one */
        assert_string_equal(f->body, ROWS);
        assert_int_equal(http_server_count(f->server), 2 * (i + 1));
    }
    assert_int_equal(fetcher_host(f->fetcher, 0)->refusals, ELEMENTS(modes));
}

static void a_host_that_does_not_listen_is_left_alone_longer_each_time(void **state)
{
    Fixture *f = *state;
    HttpServer *gone = http_server_new(f->event, NULL);
    const HttpEndpoint endpoint = {"h.example", http_server_url(gone, "")};

    assert_ok(http_client_set_endpoints(f->http, &endpoint, 1, &f->err), &f->err);
    http_server_free(gone);
    make_recipe(f, API);
    begin(f);
    RUN_UNTIL(f, failures(f) == 2);
    assert_in_range(fetcher_host(f->fetcher, 0)->pause_usec, 2 * SECOND, 2 * SECOND);
    assert_int_equal(f->documents, 0);
    assert_string_equal(job_status(f).state, "paused");
    assert_contains(job_status(f).message, "onnect");
}

/* --- How much is asked ---------------------------------------------------------------------- */

typedef struct Watch {
    const Fixture *f;
    uint64_t began_usec, at_usec[ASKED_MAX];
    unsigned n, at_once;
} Watch;

/* Answers after a while, and remembers how many wait. */
static void watch_request(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    Watch *watch = userdata;

    assert_true(watch->n < ASKED_MAX);
    watch->at_usec[watch->n++] = now_boottime_usec() - watch->began_usec;
    watch->at_once = MAX_OF(watch->at_once, watch->n - watch->f->documents);
    reply->body = ROWS;
    reply->delay_usec = 100 * MSEC;
}

static Watch watch_crawl(Fixture *f)
{
    Watch watch = {.f = f};

    f->documents = 0;
    use_three_symbols(f);
    http_server_handle(f->server, watch_request, &watch);
    watch.began_usec = now_boottime_usec();
    crawl(f);
    http_server_handle(f->server, NULL, NULL);
    assert_int_equal(watch.n, 3);
    assert_int_equal(f->documents, 3);
    return watch;
}

static void connections_to_a_host_are_as_many_as_both_allow(void **state)
{
    static const struct {
        const char *recipe;
        unsigned plan, expected;
    } cases[] = {{API TWICE, 1, 1}, {API, 8, 1}, {API TWICE, 8, 2}, {API TWICE, 2, 2}};
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        make_recipe(f, cases[i].recipe);
        f->config.connections = cases[i].plan;
        assert_int_equal(watch_crawl(f).at_once, cases[i].expected);
    }
    /* One after the other on the same connection. */
    assert_true(http_server_connections(f->server) <= 2);
}

static void requests_keep_the_plans_distance_but_for_apis(void **state)
{
    Fixture *f = *state;
    Watch watch;

    f->config.min_delay_usec = 400 * MSEC;
    f->job.acknowledged = true; /* robots.txt would be another request */
    make_recipe(f, OBEY);
    watch = watch_crawl(f);
    assert_true(watch.at_usec[1] >= 400 * MSEC);
    assert_true(watch.at_usec[2] >= 800 * MSEC);

    /* The recipe's own is longer. */
    make_recipe(f, "\"robots\":\"obey\",\"delay\":\"600ms\"");
    assert_true(watch_crawl(f).at_usec[2] >= 1200 * MSEC);

    /* A documented one says itself how fast it may be asked. */
    f->config.min_delay_usec = MINUTE;
    make_recipe(f, API);
    assert_true(watch_crawl(f).at_usec[2] < MINUTE);
}

/* What counts by the UTC day begins anew with it. */
static void needs_a_minute_of_this_day(void)
{
    if (now_realtime_usec() % DAY > DAY - MINUTE)
        skip();
}

static void a_byte_budget_that_is_spent_stops_it_for_the_day(void **state)
{
    Fixture *f = *state;

    needs_a_minute_of_this_day();
    make_recipe(f, API);
    use_three_symbols(f);
    f->config.daily_bytes = 10;
    http_server_reply(f->server, &(Reply){.body = ROWS});
    begin(f);
    for (int restart = 0; restart < 2; restart++) {
        RUN_UNTIL(f, f->documents == 1);
        loop_run_for(f->event, 200 * MSEC);
        assert_int_equal(http_server_count(f->server), 1);
        assert_string_equal(job_status(f).state, "paused");
        assert_contains(job_status(f).message, "daily byte budget");
        assert_contains(job_status(f).remedy, "daily_bytes");
        make_fetcher(f);
        begin(f);
    }
    /* With more, it goes on. */
    f->config.daily_bytes = 1U << 20;
    for (int i = 0; i < 3; i++)
        http_server_reply(f->server, &(Reply){.body = ROWS});
    crawl(f);
    assert_int_equal(f->documents, 4);
}

static void requests_a_day_are_as_many_as_the_recipe_allows(void **state)
{
    Fixture *f = *state;

    needs_a_minute_of_this_day();
    make_recipe(f, API ",\"requests_per_day\":2");
    use_three_symbols(f);
    for (int i = 0; i < 2; i++)
        http_server_reply(f->server, &(Reply){.body = ROWS});
    begin(f);
    RUN_UNTIL(f, f->documents == 2);
    loop_run_for(f->event, 200 * MSEC);
    assert_int_equal(http_server_count(f->server), 2);
    assert_false(f->idle);
    assert_contains(fetcher_host(f->fetcher, 0)->waits, "daily number of requests");
}

static void what_is_held_asks_nothing_until_it_may(void **state)
{
    Fixture *f = *state;

    make_recipe(f, API);
    fetcher_hold(f->fetcher, "the spool is full");
    begin(f);
    loop_run_for(f->event, 200 * MSEC);
    assert_int_equal(http_server_count(f->server), 0);
    assert_string_equal(job_status(f).state, "paused");
    http_server_reply(f->server, &(Reply){.body = ROWS});
    fetcher_hold(f->fetcher, NULL);
    RUN_UNTIL(f, f->idle);
    assert_int_equal(f->documents, 1);
}

/* --- Rounds --------------------------------------------------------------------------------- */

static void what_was_lost_is_asked_again_and_what_is_durable_is_not(void **state)
{
    Fixture *f = *state;

    make_recipe(f, API);
    use_three_symbols(f);
    for (int i = 0; i < 7; i++)
        http_server_reply(f->server, &(Reply){.body = ROWS});
    crawl(f);
    f->idle = false;
    fetcher_forget(f->fetcher);
    RUN_UNTIL(f, f->idle);
    assert_int_equal(f->documents, 6);
    fetcher_committed(f->fetcher);
    fetcher_forget(f->fetcher);
    loop_run_for(f->event, 200 * MSEC);
    assert_int_equal(f->documents, 6);
}

static void a_round_is_begun_by_hand_and_a_backfill_once(void **state)
{
    Fixture *f = *state;
    FetchBackfillStatus status;

    make_recipe(f, API);
    for (int i = 0; i < 3; i++)
        http_server_reply(f->server, &(Reply){.body = ROWS});
    crawl(f);
    assert_int_equal(fetcher_run_now(f->fetcher, "nobody"), -ENOENT);
    assert_int_equal(fetcher_run_now(f->fetcher, "j"), 0);
    RUN_UNTIL(f, f->documents == 2 && fetcher_is_idle(f->fetcher));

    assert_int_equal(fetcher_backfill(f->fetcher, "nobody", 0, 1, &f->err), -ENOENT);
    assert_contains(error_text(&f->err), "there is no crawl job \"nobody\"");
    error_done(&f->err);
    assert_int_equal(fetcher_backfill(f->fetcher, "j", 2, 1, &f->err), -EINVAL);
    error_done(&f->err);
    assert_int_equal(fetcher_backfill(f->fetcher, "j", 0, (int64_t)DAY, &f->err), 1);
    assert_int_equal(fetcher_backfill(f->fetcher, "j", 0, (int64_t)DAY, &f->err), 0);
    assert_int_equal(fetcher_backfill(f->fetcher, "j", 1, (int64_t)DAY, &f->err), -EBUSY);
    assert_int_equal(fetcher_backfills(f->fetcher, &status, 1), 1);
    assert_int_equal(status.to_usec, DAY);
    RUN_UNTIL(f, fetcher_is_idle(f->fetcher));
    assert_int_equal(f->documents, 3);
    assert_int_equal(fetcher_backfills(f->fetcher, &status, 1), 0);
    assert_int_equal(http_server_unscripted(f->server), 0);
}

TEST_MAIN(TEST(an_answer_is_handed_over_and_the_round_ends),
          TEST(what_did_not_change_is_asked_for_with_its_validator),
          TEST(a_symbol_that_the_source_does_not_know_is_given_up_and_the_next_one_asked),
          TEST(a_refusal_leaves_the_host_alone_over_a_restart),
          TEST(retry_after_in_seconds_is_obeyed), TEST(retry_after_as_a_date_is_obeyed),
          TEST(a_host_that_is_well_again_is_asked_again_in_the_same_round),
          TEST(a_redirect_is_followed_to_the_recipes_hosts_without_the_secret),
          TEST(a_redirect_to_another_host_is_refused), TEST(an_answer_over_the_limit_is_refused),
          TEST(an_answer_that_is_cut_is_asked_for_again),
          TEST(a_host_that_does_not_listen_is_left_alone_longer_each_time),
          TEST(connections_to_a_host_are_as_many_as_both_allow),
          TEST(requests_keep_the_plans_distance_but_for_apis),
          TEST(a_byte_budget_that_is_spent_stops_it_for_the_day),
          TEST(requests_a_day_are_as_many_as_the_recipe_allows),
          TEST(what_is_held_asks_nothing_until_it_may),
          TEST(what_was_lost_is_asked_again_and_what_is_durable_is_not),
          TEST(a_round_is_begun_by_hand_and_a_backfill_once))
