/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/base/buf.h"
#include "agent/base/time.h"
#include "crawler/fetch/robots.h"

static Robots *parse(const char *text)
{
    Robots *robots = NULL;

    assert_int_equal(robots_parse(text, strlen(text), ROBOTS_PRODUCT, &robots), 0);
    return robots;
}

static bool allows(const char *text, const char *path)
{
    auto_(robots_freep) Robots *robots = parse(text);

    return robots_allows(robots, path);
}

static void our_group_wins_over_any_and_groups_of_one_name_add_up(void **state)
{
    const char *text = "User-agent: *\nDisallow: /\n\n"
                       "User-Agent: Googlebot\nUser-agent: MERVIS-agent/0.1\nAllow: /\n"
                       "Disallow: /private\n\nUser-agent: other\nDisallow: /\n\n"
                       "user-agent: mervis-agent\nDisallow: /more\n";

    assert_true(allows(text, "/x"));
    assert_false(allows(text, "/private/x"));
    assert_false(allows(text, "/more"));
    assert_false(allows("User-agent: *\nDisallow: /\n", "/x"));
    /* Another product that only begins like ours. */
    assert_false(
        allows("User-agent: mervis-agent-evil\nAllow: /\n\nUser-agent: *\nDisallow: /\n", "/x"));
}

static void the_longest_rule_wins_and_allow_where_two_are_as_long(void **state)
{
    const char *text = "User-agent: *\nDisallow: /\nAllow: /sise/\nDisallow: /sise/secret\n"
                       "Allow: /same\nDisallow: /same\n";

    assert_false(allows(text, "/item/x"));
    assert_true(allows(text, "/sise/sise_day?code=1"));
    assert_false(allows(text, "/sise/secret/x"));
    assert_true(allows(text, "/same"));
}

static void stars_ends_and_escapes_are_understood(void **state)
{
    const char *text = "User-agent: *\nDisallow: /*.csv$\nDisallow: /a*b*c\nDisallow: /%7ejoe/\n"
                       "Disallow: /k\xea\xb0\x80\nDisallow: /q?x=*\n";

    assert_false(allows(text, "/d/file.csv"));
    assert_true(allows(text, "/d/file.csv?x=1"));
    assert_false(allows(text, "/axxbyyc/z"));
    assert_true(allows(text, "/axxcyyb"));
    assert_false(allows(text, "/~joe/index"));
    assert_false(allows(text, "/k%EA%B0%80"));
    assert_false(allows(text, "/q?x=5"));
    assert_true(allows(text, "/q?y=5"));
}

static void what_is_no_rule_forbids_nothing(void **state)
{
    assert_true(allows("", "/x"));
    assert_true(allows("Disallow: /\n", "/x")); /* of no group */
    assert_true(allows("User-agent: *\nDisallow:\n", "/x"));
    assert_true(allows("<html><body>404</body></html>", "/x"));
    assert_false(allows("\xef\xbb\xbfUser-agent: *\r\nSitemap: /s\r\nDisallow: / # all\r\n", "/x"));
    assert_true(allows("User-agent: *\nDisallow: /\n", "/robots.txt"));
}

static void crawl_delay_is_read_and_bounded(void **state)
{
    auto_(robots_freep) Robots *ours = parse("User-agent: *\nCrawl-delay: 2.5\n");
    auto_(robots_freep) Robots *huge = parse("User-agent: *\nCrawl-delay: 100000000000\n");
    auto_(robots_freep) Robots *none = parse("User-agent: x\nCrawl-delay: 10\n");

    assert_int_equal(robots_delay_usec(ours), 2500 * MSEC);
    assert_int_equal(robots_delay_usec(huge), DAY);
    assert_int_equal(robots_delay_usec(none), 0);
}

static void a_pattern_of_many_stars_costs_no_time(void **state)
{
    auto_buf Buf text = BUF_INIT(1 << 20), path = BUF_INIT(1 << 20);
    uint64_t before;

    assert_int_equal(buf_add_str(&text, "User-agent: *\nDisallow: /"), 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(buf_add_str(&text, "*a"), 0);
    assert_int_equal(buf_add_str(&text, "*b\n"), 0);
    assert_int_equal(buf_add_str(&path, "/"), 0);
    for (int i = 0; i < 4000; i++)
        assert_int_equal(buf_add_str(&path, "a"), 0);
    before = now_boottime_usec();
    assert_true(allows(text.data, path.data));
    assert_true(now_boottime_usec() - before < SECOND);
}

TEST_MAIN(cmocka_unit_test(our_group_wins_over_any_and_groups_of_one_name_add_up),
          cmocka_unit_test(the_longest_rule_wins_and_allow_where_two_are_as_long),
          cmocka_unit_test(stars_ends_and_escapes_are_understood),
          cmocka_unit_test(what_is_no_rule_forbids_nothing),
          cmocka_unit_test(crawl_delay_is_read_and_bounded),
          cmocka_unit_test(a_pattern_of_many_stars_costs_no_time))
