/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/base/log.h"

static char seen[4096];
static LogLevel seen_level;

static void sink(LogLevel level, const char *const *fields, size_t n_fields)
{
    size_t at = 0;

    seen_level = level;
    for (size_t i = 0; i < n_fields; i++)
        at += (size_t)snprintf(seen + at, sizeof(seen) - at, "%s|", fields[i]);
}

static int setup(void **state)
{
    log_set_sink(sink);
    log_set_level(LOG_LEVEL_INFO);
    seen[0] = '\0';
    return 0;
}

static void fields_reach_the_sink(void **state)
{
    log_fields(LOG_LEVEL_NOTICE, FIELDS("MERVIS_CONTAINER=web"), "rolled back to %s", "abc");
    assert_contains(seen, "MESSAGE=rolled back to abc|PRIORITY=5|");
    assert_contains(seen, "|MERVIS_CONTAINER=web|");
    assert_contains(seen, "|CODE_FUNC=fields_reach_the_sink|");
}

static void a_failure_carries_kind_and_verdict(void **state)
{
    auto_error Error err = {0};

    (void)error_set(&err, -EAGAIN, ERROR_TEMPORARY, "registry: HTTP 503");
    (void)error_remedy(&err, err.code, "wait");
    log_failure(LOG_LEVEL_WARNING, NULL, &err, "retrying in 40 s");
    assert_int_equal(seen_level, LOG_LEVEL_WARNING);
    assert_contains(seen, "MESSAGE=registry: HTTP 503 (remedy: wait); retrying in 40 s|");
    assert_contains(seen, "|ERROR_KIND=temporary|");
}

static void what_is_below_the_level_costs_nothing(void **state)
{
    log_debug("not seen");
    assert_string_equal(seen, "");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("seen");
    assert_contains(seen, "MESSAGE=seen|PRIORITY=7|");
}

static void errno_is_kept(void **state)
{
    errno = ENOTTY;
    log_info("x");
    assert_int_equal(errno, ENOTTY);
}

TEST_MAIN(cmocka_unit_test_setup(fields_reach_the_sink, setup),
          cmocka_unit_test_setup(a_failure_carries_kind_and_verdict, setup),
          cmocka_unit_test_setup(what_is_below_the_level_costs_nothing, setup),
          cmocka_unit_test_setup(errno_is_kept, setup))
