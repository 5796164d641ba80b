/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

static void context_is_outermost_first(void **state)
{
    auto_error Error err = {0};

    assert_int_equal(error_set(&err, -EAGAIN, ERROR_TEMPORARY, "HTTP %d", 503), -EAGAIN);
    assert_int_equal(error_prefix(&err, -EAGAIN, "registry"), -EAGAIN);
    assert_int_equal(error_prefix(&err, -EAGAIN, "pull %s", "web"), -EAGAIN);
    assert_string_equal(err.message, "pull web: registry: HTTP 503");
    assert_int_equal(err.kind, ERROR_TEMPORARY);
    assert_true(error_is_transient(&err));
}

static void nobody_listening_is_fine(void **state)
{
    assert_int_equal(error_set(NULL, -EINVAL, ERROR_INVALID, "x"), -EINVAL);
    assert_int_equal(error_prefix(NULL, -EINVAL, "x"), -EINVAL);
    assert_int_equal(error_errno(NULL, EIO, "x"), -EIO);
    assert_int_equal(error_remedy(NULL, -EINVAL, "x"), -EINVAL);
    assert_int_equal(error_oom(NULL), -ENOMEM);
}

static void errno_chooses_the_kind(void **state)
{
    const struct {
        int number;
        ErrorKind kind;
    } cases[] = {{ENOSPC, ERROR_TEMPORARY},
                 {EACCES, ERROR_DENIED},
                 {ENOMEM, ERROR_INTERNAL},
                 {ENOENT, ERROR_INVALID}};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_error Error err = {0};

        assert_int_equal(error_errno(&err, cases[i].number, "open %s", "f"), -cases[i].number);
        assert_int_equal(err.kind, cases[i].kind);
        assert_contains(err.message, "open f: ");
    }
}

static void a_later_remedy_replaces_the_former(void **state)
{
    auto_error Error err = {0};

    (void)error_set(&err, -EACCES, ERROR_DENIED, "denied");
    (void)error_remedy(&err, err.code, "first");
    (void)error_remedy(&err, err.code, "run %s", "this");
    assert_string_equal(err.remedy, "run this");
}

static void moving_empties_the_source(void **state)
{
    auto_error Error from = {0}, to = {0};

    (void)error_set(&from, -EIO, ERROR_TEMPORARY, "disk");
    assert_int_equal(error_move(&to, &from), -EIO);
    assert_string_equal(error_text(&to), "disk");
    assert_int_equal(from.code, 0);
    assert_null(from.message);
}

static void names_and_kinds_agree(void **state)
{
    for (int k = 0; k < ERROR_KIND_MAX; k++)
        assert_int_equal(error_kind_from_name(error_kind_name((ErrorKind)k)), k);
    assert_int_equal(error_kind_from_name("nonsense"), -EINVAL);
}

static void what_a_peer_said_comes_out_as_utf8(void **state)
{
    auto_error Error err = {0};

    assert_int_equal(error_set(&err, -EIO, ERROR_TEMPORARY, "%s: gone", "a\xff" "b"), -EIO);
    assert_int_equal(error_prefix(&err, -EIO, "host %s", "\xc3"), -EIO);
    assert_int_equal(error_remedy(&err, -EIO, "ask %s", "\xe2\x82"), -EIO);
    assert_string_equal(err.message, "host \\xc3: a\\xffb: gone");
    assert_string_equal(err.remedy, "ask \\xe2\\x82");
}

static void memory_has_a_text_without_memory(void **state)
{
    Error err = {0};

    assert_int_equal(error_oom(&err), -ENOMEM);
    assert_null(err.message);
    assert_contains(error_text(&err), "memory");
}

TEST_MAIN(cmocka_unit_test(context_is_outermost_first), cmocka_unit_test(nobody_listening_is_fine),
          cmocka_unit_test(errno_chooses_the_kind),
          cmocka_unit_test(a_later_remedy_replaces_the_former),
          cmocka_unit_test(moving_empties_the_source), cmocka_unit_test(names_and_kinds_agree),
          cmocka_unit_test(what_a_peer_said_comes_out_as_utf8),
          cmocka_unit_test(memory_has_a_text_without_memory))
