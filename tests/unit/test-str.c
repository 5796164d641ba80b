/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

static void utf8_is_checked_strictly(void **state)
{
    assert_true(str_is_utf8("삼성전자", strlen("삼성전자")));
    assert_true(str_is_utf8("", 0));
    assert_false(str_is_utf8("\xC0\x80", 2));         /* overlong NUL */
    assert_false(str_is_utf8("\xED\xA0\x80", 3));     /* surrogate */
    assert_false(str_is_utf8("\xF4\x90\x80\x80", 4)); /* beyond U+10FFFF */
    assert_false(str_is_utf8("\xEC\x82", 2));         /* cut short */
    assert_false(str_is_utf8("a\0b", 3));
    assert_false(str_is_utf8("\xBB", 1));
}

static void escaping_keeps_text_and_shows_control_bytes(void **state)
{
    auto_free char *plain = str_escape("삼성 ok", strlen("삼성 ok"), 100);
    auto_free char *ugly = str_escape("a\x1b[31m\xff\n", 8, 100);
    auto_free char *cut = str_escape("abcdefghijklmnop", 16, 8);

    assert_string_equal(plain, "삼성 ok");
    assert_string_equal(ugly, "a\\x1b[31m\\xff\\x0a");
    assert_string_equal(cut, "abcde…");
}

static void the_nearest_word_is_offered_only_when_near(void **state)
{
    const char *const keys[] = {"interval", "timeout", "retries", "start_period"};

    assert_string_equal(str_nearest("intervall", keys, 4), "interval");
    assert_string_equal(str_nearest("tiemout", keys, 4), "timeout");
    assert_string_equal(str_nearest("startperiod", keys, 4), "start_period");
    assert_null(str_nearest("colour", keys, 4));
    assert_int_equal(str_distance("", "abc"), 3);
    assert_int_equal(str_distance("ab", "ba"), 1);
    assert_int_equal(str_distance("kitten", "sitting"), 3);
}

static void vectors(void **state)
{
    auto_(strv_freep) char **v = str_split("  a, b ,,c", " ,");
    auto_(strv_freep) char **copy = NULL;
    auto_free char *joined = NULL;

    assert_int_equal(strv_length(v), 3);
    assert_true(strv_contains(v, "b"));
    assert_false(strv_contains(v, ""));
    assert_int_equal(strv_push(&v, "d"), 0);
    copy = strv_copy(v);
    joined = str_join((const char *const *)copy, "-");
    assert_string_equal(joined, "a-b-c-d");
    assert_int_equal(strv_length(NULL), 0);
}

static void ends_and_blanks(void **state)
{
    char text[] = "\t two words \n";

    assert_string_equal(startswith("sha256:ab", "sha256:"), "ab");
    assert_null(startswith("sha", "sha256:"));
    assert_string_equal(startswith_nocase("BEARER x", "bearer "), "x");
    assert_non_null(endswith("x.pkg.dev", ".pkg.dev"));
    assert_null(endswith("dev", ".pkg.dev"));
    assert_string_equal(str_strip(text), "two words");
}

TEST_MAIN(cmocka_unit_test(utf8_is_checked_strictly),
          cmocka_unit_test(escaping_keeps_text_and_shows_control_bytes),
          cmocka_unit_test(the_nearest_word_is_offered_only_when_near), cmocka_unit_test(vectors),
          cmocka_unit_test(ends_and_blanks))
