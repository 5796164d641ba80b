/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/base/buf.h"

#include "crawler/crawlerd/events.h"

#define BEGIN UINT64_C(1000)

static void the_same_again_is_counted_and_told_once_an_hour(void **state)
{
    RepeatLog log = {0};
    unsigned more = 99;

    assert_true(repeat_is_to_be_said(&log, "fetch-failed", "us-1m", BEGIN, &more));
    assert_int_equal(more, 0);
    for (unsigned minute = 1; minute < 60; minute++)
        assert_false(
            repeat_is_to_be_said(&log, "fetch-failed", "us-1m", BEGIN + minute * MINUTE, &more));
    assert_true(repeat_is_to_be_said(&log, "fetch-failed", "us-1m", BEGIN + HOUR, &more));
    assert_int_equal(more, 59);
    assert_false(repeat_is_to_be_said(&log, "fetch-failed", "us-1m", BEGIN + HOUR + 1, &more));
}

static void another_event_and_another_job_are_told_at_once(void **state)
{
    RepeatLog log = {0};
    unsigned more;

    assert_true(repeat_is_to_be_said(&log, "fetch-failed", "us-1m", BEGIN, &more));
    assert_true(repeat_is_to_be_said(&log, "fetch-failed", "krw", BEGIN, &more));
    assert_true(repeat_is_to_be_said(&log, "document-refused", "us-1m", BEGIN, &more));
}

static void more_keys_than_there_is_room_for_forget_the_oldest(void **state)
{
    RepeatLog log = {0};
    char job[16];
    unsigned more;

    for (unsigned i = 0; i < REPEATS_MAX + 1; i++) {
        (void)snprintf(job, sizeof(job), "job-%u", i);
        assert_true(repeat_is_to_be_said(&log, "fetch-failed", job, BEGIN + i, &more));
    }
    assert_false(repeat_is_to_be_said(&log, "fetch-failed", job, BEGIN + MINUTE, &more));
    assert_true(repeat_is_to_be_said(&log, "fetch-failed", "job-0", BEGIN + MINUTE, &more));
}

static char *last_record;

static void keep(LogLevel level, const char *const *fields, size_t n_fields)
{
    auto_buf Buf text = BUF_INIT(4096);

    for (size_t i = 0; i < n_fields; i++)
        assert_int_equal(buf_printf(&text, "%s\n", fields[i]), 0);
    free(last_record);
    last_record = buf_take(&text);
}

static void a_record_says_what_it_is_about(void **state)
{
    const Error err = {.code = -EACCES, .kind = ERROR_DENIED};

    log_set_sink(keep);
    crawl_event(LOG_LEVEL_WARNING, "fetch-failed",
                &(CrawlEventSubject){.job = "us-1m", .recipe = "yahoo-chart", .err = &err},
                "HTTP %d", 403);
    log_set_sink(NULL);
    assert_contains(last_record, "MESSAGE=HTTP 403\n");
    assert_contains(last_record, "MESSAGE_ID=");
    assert_contains(last_record, "MERVIS_EVENT=fetch-failed\n");
    assert_contains(last_record, "MERVIS_JOB=us-1m\n");
    assert_contains(last_record, "MERVIS_RECIPE=yahoo-chart\n");
    assert_contains(last_record, "ERROR_KIND=denied\n");
    assert_null(strstr(last_record, "MERVIS_BATCH="));
    free(last_record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_again_is_counted_and_told_once_an_hour),
        cmocka_unit_test(another_event_and_another_job_are_told_at_once),
        cmocka_unit_test(more_keys_than_there_is_room_for_forget_the_oldest),
        cmocka_unit_test(a_record_says_what_it_is_about),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
