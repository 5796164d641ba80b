/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fetch-fixture.h"

#include "crawler/fetch/fetch-private.h"

/* robots.txt on the wire (RFC 9309): when it is read, when it is read again, and what each answer
 * means. A day passes by making what is known of it older: the fetcher has no other clock than the
 * machine's. */

#define ROWS   "[[1791331200,1]]"
#define FORBID "User-agent: *\nDisallow: /bars\n"
#define ALLOW  "User-agent: *\nDisallow: /private\n"

/* What the host answers to either question. */
typedef struct World {
    Reply robots;
    unsigned asked, data; /* requests */
    uint64_t asked_usec, data_usec;
} World;

/* Each on a connection of its own: a request on one that is used again, and breaks, is sent twice.
 */
static void answer(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    World *w = userdata;

    reply->close = true;
    if (streq(request->target, "/robots.txt")) {
        w->asked++;
        w->asked_usec = now_boottime_usec();
        *reply = w->robots;
        reply->close = true;
        return;
    }
    w->data++;
    w->data_usec = now_boottime_usec();
    reply->body = ROWS;
}

static void use(Fixture *f, World *w)
{
    http_server_handle(f->server, answer, w);
    make_recipe(f, OBEY);
}

static void pass(Fixture *f, uint64_t usec)
{
    assert_non_null(f->fetcher->sources->robots);
    f->fetcher->sources->robots_at_usec -= usec;
}

static void rules_are_read_once_before_anything_is_asked(void **state)
{
    Fixture *f = *state;
    World w = {.robots = {.body = ALLOW}};

    use(f, &w);
    for (unsigned round = 1; round <= 3; round++) {
        crawl(f);
        assert_int_equal(w.asked, 1);
        assert_int_equal(w.data, round);
    }
    assert_string_equal(target(f->server, 0), "/robots.txt");
    assert_contains(request_header(http_server_request(f->server, 0), "User-Agent"),
                    "mervis-agent/");
    assert_int_equal(f->troubles, 0);
}

static void what_they_forbid_is_not_asked_unless_the_job_acknowledges(void **state)
{
    Fixture *f = *state;
    World w = {.robots = {.body = FORBID}};

    use(f, &w);
    crawl(f);
    assert_int_equal(w.data, 0);
    assert_int_equal(f->documents, 0);
    assert_string_equal(f->trouble, "robots.txt of h.example forbids it");
    assert_contains(f->remedy, "`terms` to \"acknowledged\"");
    assert_int_equal(fetcher_failures(f->fetcher), 1);
    assert_string_equal(job_status(f).state, "failed");

    f->job.acknowledged = true;
    crawl(f);
    assert_int_equal(w.asked, 1);
    assert_int_equal(w.data, 1);
    /* Nor is that of a documented API. */
    f->job.acknowledged = false;
    make_recipe(f, API);
    crawl(f);
    assert_int_equal(w.asked, 1);
    assert_int_equal(w.data, 2);
}

static void an_answer_of_4xx_is_that_there_are_none(void **state)
{
    static const int statuses[] = {400, 401, 403, 404, 410, 451};
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(statuses); i++) {
        World w = {.robots = {.status = statuses[i], .body = FORBID}};

        make_fetcher(f);
        use(f, &w);
        crawl(f);
        crawl(f);
        assert_int_equal(w.asked, 1);
        assert_int_equal(w.data, 2);
        assert_int_equal(pause_left(f), 0);
    }
    assert_int_equal(f->troubles, 0);
}

static void while_they_cannot_be_read_nothing_is_asked(void **state)
{
    static const Reply replies[] = {
        {.status = 500},
        {.status = 503, .headers = "Retry-After: 1\r\n"},
        {.status = 429, .headers = "Retry-After: 1\r\n"},
        {.mode = REPLY_RESET},
        {.mode = REPLY_SHORT, .body = "User-agent: *\nAllow: /"},
    };
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(replies); i++) {
        World w = {.robots = replies[i]};
        uint64_t refused_usec;

        make_fetcher(f);
        forget_texts(f);
        use(f, &w);
        begin(f);
        RUN_UNTIL(f, failures(f) == 1);
        refused_usec = w.asked_usec;
        assert_contains(job_status(f).message, "robots.txt of h.example could not be read: ");
        assert_contains(job_status(f).remedy, "tried again");
        /* The host is left alone for a second, and then it is the rules that are asked for. */
        w.robots = (Reply){.body = ALLOW};
        RUN_UNTIL(f, f->idle);
        assert_int_equal(w.asked, 2);
        assert_true(w.asked_usec - refused_usec >= SECOND);
        assert_int_equal(w.data, 1);
        assert_true(w.data_usec >= w.asked_usec);
        assert_string_equal(job_status(f).state, "ok");
    }
    assert_int_equal(f->troubles, 0);
}

static void too_many_of_these_are_trouble_that_says_why(void **state)
{
    Fixture *f = *state;
    World w = {.robots = {.status = 503, .headers = "Retry-After: 1\r\n"}};

    use(f, &w);
    crawl(f);
    assert_int_equal(w.asked, FETCH_TRIES);
    assert_int_equal(w.data, 0);
    assert_int_equal(f->troubles, 1);
    assert_string_equal(f->trouble, "robots.txt of h.example could not be read: HTTP 503");
    assert_contains(f->remedy, "nothing is asked before robots.txt can be read");
}

static void who_waits_for_them_holds_no_other_job_up(void **state)
{
    Fixture *f = *state;
    World w = {.robots = {.status = 500, .headers = "Retry-After: 1\r\n"}};
    FetchJob jobs[3];

    use(f, &w);
    for (size_t i = 0; i < ELEMENTS(jobs); i++) {
        jobs[i] = f->job;
        jobs[i].name = i == 0 ? "a" : i == 1 ? "b" : "c";
        jobs[i].acknowledged = i == 1;
    }
    f->config.jobs = jobs;
    f->config.n_jobs = ELEMENTS(jobs);
    begin(f);
    RUN_UNTIL(f, w.data == 1);
    assert_int_equal(w.asked, 1);
    f->fetcher = fetcher_free(f->fetcher); /* before the jobs */
}

static void after_a_day_they_are_read_again(void **state)
{
    Fixture *f = *state;
    World w = {.robots = {.body = ALLOW}};

    use(f, &w);
    crawl(f);
    w.robots.body = FORBID;
    pass(f, ROBOTS_MAX_AGE_USEC - HOUR);
    crawl(f);
    assert_int_equal(w.asked, 1);
    assert_int_equal(w.data, 2);
    pass(f, HOUR);
    crawl(f);
    assert_int_equal(w.asked, 2);
    assert_int_equal(w.data, 2);
    assert_string_equal(f->trouble, "robots.txt of h.example forbids it");
    /* And gone: nothing is forbidden any more. */
    w.robots = (Reply){.status = 404};
    pass(f, DAY);
    crawl(f);
    assert_int_equal(w.asked, 3);
    assert_int_equal(w.data, 3);
}

static void rules_stand_while_there_are_no_others(void **state)
{
    Fixture *f = *state;
    World w = {.robots = {.body = ALLOW}};

    use(f, &w);
    crawl(f);
    w.robots = (Reply){.status = 500};
    pass(f, DAY);
    crawl(f);
    assert_int_equal(w.asked, 2);
    assert_int_equal(w.data, 2);
    assert_true(w.data_usec - w.asked_usec >= SECOND); /* the host had a pause */
    /* They are asked for again soon, not at each round and not only the day after. */
    crawl(f);
    assert_int_equal(w.asked, 2);
    assert_int_equal(w.data, 3);
    w.robots = (Reply){.body = FORBID};
    pass(f, 10 * MINUTE);
    crawl(f);
    assert_int_equal(w.asked, 3);
    assert_int_equal(w.data, 3);
    /* What forbade goes on to forbid. */
    w.robots = (Reply){.mode = REPLY_RESET};
    pass(f, DAY);
    crawl(f);
    assert_int_equal(w.asked, 4);
    assert_int_equal(w.data, 3);
}

static void rules_stand_after_a_pause_that_is_long(void **state)
{
    Fixture *f = *state;
    World w = {.robots = {.body = ALLOW}};
    uint64_t pause;

    use(f, &w);
    crawl(f);
    w.robots = (Reply){.status = 503, .headers = "Retry-After: 3600\r\n"};
    pass(f, DAY);
    begin(f);
    RUN_UNTIL(f, failures(f) == 1);
    assert_int_equal(w.data, 1);
    pause = pause_left(f);
    assert_true(pause > HOUR - MINUTE);
    /* When it is over it is the turn of the data. */
    pass(f, pause);
    f->fetcher->sources->host->until_usec -= pause;
    crawl(f);
    assert_int_equal(w.asked, 2);
    assert_int_equal(w.data, 2);
}

static void of_a_long_one_the_beginning_counts(void **state)
{
    Fixture *f = *state;
    auto_buf Buf text = BUF_INIT(1U << 21);
    World w = {0};

    assert_true(buf_add_str(&text, ALLOW) >= 0);
    while (text.size < ROBOTS_SIZE_MAX + (100U << 10))
        assert_true(buf_add_str(&text, "# nothing of use, and a lot of it\n") >= 0);
    assert_true(buf_add_str(&text, FORBID) >= 0);
    w.robots = (Reply){.body = text.data, .body_size = text.size};
    use(f, &w);
    crawl(f);
    assert_int_equal(w.data, 1);
    assert_int_equal(f->troubles, 0);
}

static void a_redirect_leads_to_the_rules(void **state)
{
    Fixture *f = *state;
    World w = {
        .robots = {.status = 301, .headers = "Location: https://h2.example/robots-of-all.txt\r\n"}};

    use(f, &w);
    http_server_reply(f->other, &(Reply){.body = FORBID});
    crawl(f);
    assert_string_equal(target(f->other, 0), "/robots-of-all.txt");
    assert_int_equal(w.data, 0);
    assert_string_equal(f->trouble, "robots.txt of h.example forbids it");
}

static void their_crawl_delay_is_a_minimum(void **state)
{
    static char *symbols[] = {(char *)(uintptr_t) "A", (char *)(uintptr_t) "B", NULL};
    Fixture *f = *state;
    World w = {.robots = {.body = "User-agent: *\nCrawl-delay: 0.8\n"}};

    use(f, &w);
    f->job.symbols = symbols;
    f->job.n_symbols = 2;
    crawl(f);
    assert_int_equal(w.data, 2);
    assert_true(w.data_usec - w.asked_usec >= 800 * MSEC);
}

static void count_suspicion(const char *host, void *userdata)
{
    Fixture *f = userdata;

    assert_string_equal(host, "h.example");
    f->suspicions++;
}

/* Where nothing is asked before them, it is they that find the way out shut. */
static void what_they_cost_and_fail_at_counts_as_of_data(void **state)
{
    static const Error timeout = {.code = -ETIMEDOUT, .kind = ERROR_TEMPORARY};
    HttpResponse no_way = {0};
    Fixture *f = *state;
    auto_buf Buf text = BUF_INIT(1U << 14);
    World w = {0};
    Source *source;

    while (text.size < 10000)
        assert_true(buf_add_str(&text, "# a comment\n") >= 0);
    w.robots = (Reply){.body = text.data, .body_size = text.size};
    use(f, &w);
    crawl(f);
    assert_int_equal(fetcher_host(f->fetcher, 0)->requests, 2);
    assert_int_equal(fetcher_host(f->fetcher, 0)->connections, 2);
    assert_true(fetcher_host(f->fetcher, 0)->bytes_in > text.size);
    assert_true(fetcher_bytes_today(f->fetcher) > text.size);

    source = f->fetcher->sources;
    f->fetcher->handlers.egress_suspect = count_suspicion;
    source_answered(source, &no_way, &timeout, now_realtime_usec());
    assert_int_equal(f->suspicions, 0);
    source_answered(source, &no_way, &timeout, now_realtime_usec());
    assert_int_equal(f->suspicions, 1);
    assert_int_equal(fetcher_host(f->fetcher, 0)->connections, 4); /* ports that were taken */
}

TEST_MAIN(TEST(rules_are_read_once_before_anything_is_asked),
          TEST(what_they_forbid_is_not_asked_unless_the_job_acknowledges),
          TEST(an_answer_of_4xx_is_that_there_are_none),
          TEST(while_they_cannot_be_read_nothing_is_asked),
          TEST(too_many_of_these_are_trouble_that_says_why),
          TEST(who_waits_for_them_holds_no_other_job_up), TEST(after_a_day_they_are_read_again),
          TEST(rules_stand_while_there_are_no_others), TEST(rules_stand_after_a_pause_that_is_long),
          TEST(of_a_long_one_the_beginning_counts), TEST(a_redirect_leads_to_the_rules),
          TEST(their_crawl_delay_is_a_minimum), TEST(what_they_cost_and_fail_at_counts_as_of_data))
