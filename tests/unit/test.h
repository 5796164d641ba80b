/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_TEST_H
#define TESTS_UNIT_TEST_H

/* What every unit test includes: cmocka behind the headers that it wants first, and a few helpers.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/error.h"
#include "agent/base/str.h"

/* The call went well; prints the message otherwise. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        int ok_r_ = (call);                                                                        \
        if (ok_r_ < 0)                                                                             \
            fail_msg("%s: %d: %s", #call, ok_r_, error_text(err));                                 \
    } while (0)

#define assert_contains(text, part)                                                                \
    do {                                                                                           \
        const char *contains_text_ = (text);                                                       \
        if (!contains_text_ || !strstr(contains_text_, (part)))                                    \
            fail_msg("\"%s\" does not contain \"%s\"", contains_text_ ? contains_text_ : "(null)", \
                     (part));                                                                      \
    } while (0)

static inline unused_ int test_unlink_entry(const char *path, const struct stat *st, int type,
                                            struct FTW *ftw)
{
    return remove(path);
}

/* A directory of the test's own; freed and removed by test_dir_done(). */
static inline unused_ char *test_dir_new(void)
{
    const char *base = getenv("TMPDIR");
    char *path = str_printf("%s/mervis-test.XXXXXX", base ? base : "/tmp");

    assert_non_null(path);
    assert_non_null(mkdtemp(path));
    return path;
}

static inline unused_ void test_dir_done(char **path)
{
    if (!*path)
        return;
    (void)nftw(*path, test_unlink_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(*path);
    *path = NULL;
}

#define auto_test_dir auto_(test_dir_done)

/* The program's whole main. */
#define TEST_MAIN(...)                                                                             \
    int main(void)                                                                                 \
    {                                                                                              \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                           \
        return cmocka_run_group_tests(tests, NULL, NULL);                                          \
    }

#endif
