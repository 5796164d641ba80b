/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/base/buf.h"

static void it_grows_up_to_its_ceiling_and_not_a_byte_more(void **state)
{
    auto_buf Buf buf = BUF_INIT(1000);

    for (int i = 0; i < 100; i++)
        assert_int_equal(buf_add(&buf, "0123456789", 10), 0);
    assert_int_equal(buf_add_char(&buf, 'x'), -EFBIG);
    assert_int_equal(buf.size, 1000);
    assert_int_equal(strlen(buf_str(&buf)), 1000);
    assert_true(buf.allocated <= 1001);
}

static void an_empty_one_is_empty_text(void **state)
{
    auto_buf Buf buf = BUF_INIT(0);
    auto_free char *text = NULL;

    assert_string_equal(buf_str(&buf), "");
    assert_int_equal(buf_add(&buf, "x", 1), -EFBIG);
    text = buf_take(&buf);
    assert_string_equal(text, "");
}

static void consuming_drops_the_first_bytes(void **state)
{
    auto_buf Buf buf = BUF_INIT(64);

    assert_int_equal(buf_printf(&buf, "%s %d", "line", 1), 0);
    buf_consume(&buf, 5);
    assert_string_equal(buf_str(&buf), "1");
    buf_consume(&buf, 50);
    assert_string_equal(buf_str(&buf), "");
}

static void nul_bytes_are_data(void **state)
{
    auto_buf Buf buf = BUF_INIT(64);

    assert_int_equal(buf_add(&buf, "a\0b", 3), 0);
    assert_int_equal(buf.size, 3);
    assert_memory_equal(buf.data, "a\0b\0", 4);
}

static void a_huge_size_does_not_wrap(void **state)
{
    auto_buf Buf buf = BUF_INIT(100);

    assert_int_equal(buf_add_str(&buf, "x"), 0);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX), -EFBIG);
}

TEST_MAIN(cmocka_unit_test(it_grows_up_to_its_ceiling_and_not_a_byte_more),
          cmocka_unit_test(an_empty_one_is_empty_text),
          cmocka_unit_test(consuming_drops_the_first_bytes), cmocka_unit_test(nul_bytes_are_data),
          cmocka_unit_test(a_huge_size_does_not_wrap))
