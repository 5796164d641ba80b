/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/base/time.h"
#include "crawler/crawlerd/crawl-plan.h"

#define JOB(rest) "{\"name\":\"j\",\"recipe\":\"upbit-candles\",\"symbols\":[\"KRW-BTC\"]," rest "}"

static int setup_group(void **state)
{
    const char *srcdir = getenv("srcdir");
    auto_free char *dir = str_printf("%s/crawler/recipe", srcdir ? srcdir : ".");

    return setenv("MERVIS_RECIPES_DIR", dir, 1);
}

static CrawlPlan *accept(const char *text)
{
    auto_field_errors FieldErrors errors = {0};
    CrawlPlan *plan = NULL;

    if (crawl_plan_decode(text, strlen(text), &plan, &errors) < 0) {
        auto_buf Buf all = BUF_INIT(1 << 16);

        assert_int_equal(field_errors_format(&errors, true, &all), 0);
        fail_msg("refused: %s", buf_str(&all));
    }
    return plan;
}

static char *refuse(const char *text)
{
    auto_field_errors FieldErrors errors = {0};
    auto_(crawl_plan_freep) CrawlPlan *plan = NULL;
    auto_buf Buf all = BUF_INIT(1 << 16);

    if (crawl_plan_decode(text, strlen(text), &plan, &errors) >= 0)
        fail_msg("accepted: %s", text);
    assert_int_equal(field_errors_format(&errors, true, &all), 0);
    return buf_take(&all);
}

static void assert_refused(const char *text, const char *part)
{
    auto_free char *errors = refuse(text);

    assert_contains(errors, part);
}

static void the_plan_of_the_manual_is_accepted_with_its_defaults(void **state)
{
    auto_(crawl_plan_freep) CrawlPlan *plan =
        accept("{\"contact\":\"ops@example.com\",\"jobs\":["
               "{\"name\":\"us-1m\",\"recipe\":\"yahoo-chart\",\"symbols\":[\"AAPL\",\"BRK-B\"],"
               "\"interval\":\"1m\",\"every\":\"1m\",\"calendar\":\"XNYS\",\"backfill\":\"7d\","
               "\"terms\":\"acknowledged\"},"
               "{\"name\":\"krw\",\"recipe\":\"upbit-candles\",\"symbols\":[\"KRW-BTC\"],"
               "\"interval\":\"1m\","
               "\"every\":\"1m\"}],"
               "\"egress\":{\"nat_ports\":32,\"connections_per_host\":1,\"min_delay\":\"2s\","
               "\"daily_bytes\":\"1GiB\",\"price_per_gib\":0.045,\"price_per_hour\":0.0014},"
               "\"sink\":{\"bigquery\":{\"dataset\":\"market\",\"table\":\"bars\",\"flush\":\"5m\","
               "\"schema\":\"fixed\"}},\"spool_max\":\"512MiB\"}");

    assert_int_equal(plan->jobs.n, 2);
    assert_int_equal(crawl_plan_job(plan, 0)->every_usec, MINUTE);
    assert_string_equal(crawl_plan_job(plan, 1)->compiled->name, "upbit-candles");
    assert_int_equal(plan->sink.bigquery->flush_usec, 5 * MINUTE);
    assert_int_equal(plan->sink.bigquery->schema, SINK_SCHEMA_FIXED);
    assert_int_equal(plan->spool_max_bytes, 512 << 20);
    assert_int_equal(crawl_plan_lookback_usec(plan, SINK_TABLE_INTRADAY), 7 * DAY);
    assert_int_equal(crawl_plan_lookback_usec(plan, SINK_TABLE_DAILY), 0);
}

static void an_absent_every_is_the_interval_within_reason(void **state)
{
    auto_(crawl_plan_freep) CrawlPlan *plan =
        accept("{\"jobs\":[{\"name\":\"a\",\"recipe\":\"upbit-candles\",\"symbols\":[\"KRW-BTC\"],"
               "\"interval\":\"3m\"},{\"name\":\"b\",\"recipe\":\"upbit-candles\",\"symbols\":["
               "\"KRW-BTC\"],"
               "\"interval\":\"1d\"}]}");

    assert_int_equal(crawl_plan_job(plan, 0)->every_usec, 3 * MINUTE);
    assert_int_equal(crawl_plan_job(plan, 1)->every_usec, HOUR);
}

static void all_faults_are_listed_at_once_with_path_line_and_nearest_name(void **state)
{
    auto_free char *errors =
        refuse("{\n"
               "  \"contakt\": \"ops@example.com\",\n"
               "  \"jobs\": [ { \"name\": \"a b\", \"recipe\": \"upbit-candle\",\n"
               "              \"symbols\": [\"KRW BTC\"], \"interval\": \"1m\" } ],\n"
               "  \"spool_max\": \"1KiB\"\n"
               "}\n");

    assert_contains(errors, "2:3: contakt: ");
    assert_contains(errors, "contact");
    assert_contains(errors, "jobs[0].name");
    assert_contains(errors, "jobs[0].recipe");
    assert_contains(errors, "upbit-candles");
    assert_contains(errors, "jobs[0].symbols[0]");
    assert_contains(errors, "spool_max");
}

static void jobs_must_be_able_to_run(void **state)
{
    assert_refused("{\"jobs\":[" JOB("\"interval\":\"7m\"") "]}",
                   "recipe upbit-candles has no interval \"7m\"; it has ");
    assert_refused("{\"jobs\":[" JOB("\"every\":\"1m\"") "]}", "missing key \"interval\"");
    assert_refused("{\"jobs\":[{\"name\":\"j\",\"recipe\":\"upbit-candles\",\"interval\":\"1m\"}]}",
                   "at least one symbol");
    assert_refused("{\"jobs\":[{\"name\":\"j\",\"recipe\":\"upbit-candles\",\"interval\":\"1m\","
                   "\"symbols\":[\"A\",\"B\",\"A\"]}]}",
                   "\"A\" is there twice");
    assert_refused("{\"jobs\":[{\"name\":\"j\",\"recipe\":\"yahoo-chart\",\"interval\":\"1m\","
                   "\"symbols\":[\"A\"]}]}",
                   "needs \"terms\": \"acknowledged\"");
    assert_refused("{\"jobs\":[" JOB("\"interval\":\"1m\"") "," JOB("\"interval\":\"1m\"") "]}",
                   "jobs[1]");
}

static void symbols_that_cannot_fit_are_refused_with_the_arithmetic(void **state)
{
    auto_buf Buf text = BUF_INIT(1 << 16);

    assert_int_equal(buf_add_str(&text, "{\"jobs\":[{\"name\":\"j\",\"recipe\":\"yahoo-chart\","
                                        "\"terms\":\"acknowledged\",\"interval\":\"1m\",\"every\":"
                                        "\"1m\",\"symbols\":[\"S0\""),
                     0);
    for (int i = 1; i < 390; i++)
        assert_int_equal(buf_printf(&text, ",\"S%d\"", i), 0);
    assert_int_equal(buf_add_str(&text, "]}]}"), 0);
    assert_refused(text.data, "390 symbols");
    assert_refused(text.data, "query1.finance.yahoo.com, take 16 min 15 s: more than every 1 min");
}

static void jobs_of_one_host_share_its_time(void **state)
{
    assert_refused(
        "{\"jobs\":["
        "{\"name\":\"a\",\"recipe\":\"yahoo-chart\",\"terms\":\"acknowledged\",\"interval\":\"1m\","
        "\"every\":\"10s\",\"symbols\":[\"A\",\"B\",\"C\"]},"
        "{\"name\":\"b\",\"recipe\":\"yahoo-chart\",\"terms\":\"acknowledged\",\"interval\":\"1d\","
        "\"every\":\"10s\",\"symbols\":[\"A\",\"B\"]}]}",
        "jobs[1].every: the jobs of query1.finance.yahoo.com together would keep it busy for 125 "
        "%");
}

static void one_sink_at_most_with_sane_values(void **state)
{
    assert_refused("{\"sink\":{\"sqlite\":{},\"ndjson\":{}}}", "one sink at most");
    assert_refused("{\"sink\":{\"bigquery\":{}}}", "dataset");
    assert_refused("{\"sink\":{\"bigquery\":{\"dataset\":\"a b\"}}}", "letters, digits and _");
    assert_refused("{\"sink\":{\"bigquery\":{\"dataset\":\"d\",\"flush\":\"10s\"}}}",
                   "sink.bigquery.flush");
    assert_refused("{\"sink\":{\"ndjson\":{\"path\":\"relative\"}}}", "an absolute path, or -");
}

static void the_job_set_depends_on_what_is_loaded_and_nothing_else(void **state)
{
    auto_(crawl_plan_freep) CrawlPlan *a = accept("{\"jobs\":[" JOB("\"interval\":\"1m\"") "]}");
    auto_(crawl_plan_freep) CrawlPlan *b = accept(
        "{\"contact\":\"x@y.z\",\"jobs\":[" JOB("\"interval\":\"1m\",\"every\":\"5m\"") "]}");
    auto_(crawl_plan_freep) CrawlPlan *c = accept("{\"jobs\":[" JOB("\"interval\":\"3m\"") "]}");
    char x[64], y[64], z[64];

    assert_int_equal(crawl_plan_jobset(a, x), 0);
    assert_int_equal(crawl_plan_jobset(b, y), 0);
    assert_int_equal(crawl_plan_jobset(c, z), 0);
    assert_string_equal(x, y);
    assert_string_not_equal(x, z);
}

static void a_document_is_what_agentd_writes_or_a_plan_or_the_part_alone(void **state)
{
    static const char *const texts[] = {
        "{\"crawl\":{\"jobs\":[" JOB("\"interval\":\"1m\"") "]},\"endpoints\":{\"a.example\":"
                                                            "\"https://"
                                                            "b.example\"},\"instance\":\"7\"}",
        "{\"version\":1,\"crawl\":{\"jobs\":[" JOB("\"interval\":\"1m\"") "]}}",
        "{\"jobs\":[" JOB("\"interval\":\"1m\"") "]}",
    };
    auto_error Error err = {0};

    for (size_t i = 0; i < ELEMENTS(texts); i++) {
        auto_crawl_document CrawlDocument document = {0};
        auto_field_errors FieldErrors errors = {0};

        assert_ok(crawl_document_read(texts[i], strlen(texts[i]), &document, &errors, &err), &err);
        assert_int_equal(document.plan->jobs.n, 1);
        assert_int_equal(document.n_endpoints, i == 0);
        if (i == 0)
            assert_string_equal(document.instance, "7");
    }
    {
        auto_crawl_document CrawlDocument document = {0};
        auto_field_errors FieldErrors errors = {0};

        assert_true(crawl_document_read("{\"version\":1}", 13, &document, &errors, &err) < 0);
        assert_contains(error_text(&err), "no `crawl` part");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_of_the_manual_is_accepted_with_its_defaults),
        cmocka_unit_test(an_absent_every_is_the_interval_within_reason),
        cmocka_unit_test(all_faults_are_listed_at_once_with_path_line_and_nearest_name),
        cmocka_unit_test(jobs_must_be_able_to_run),
        cmocka_unit_test(symbols_that_cannot_fit_are_refused_with_the_arithmetic),
        cmocka_unit_test(jobs_of_one_host_share_its_time),
        cmocka_unit_test(one_sink_at_most_with_sane_values),
        cmocka_unit_test(the_job_set_depends_on_what_is_loaded_and_nothing_else),
        cmocka_unit_test(a_document_is_what_agentd_writes_or_a_plan_or_the_part_alone),
    };

    return cmocka_run_group_tests(tests, setup_group, NULL);
}
