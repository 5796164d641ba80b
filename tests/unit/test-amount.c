/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "crawler/model/amount.h"

#define BINARY  AMOUNT_BINARY
#define FLOAT32 (AMOUNT_BINARY | AMOUNT_FLOAT32)

static const char *read_as(const char *text, unsigned flags, unsigned scale)
{
    static char buf[AMOUNT_TEXT_MAX + 1];
    Amount amount = {.mantissa = 77, .scale = 7};
    int r = amount_parse(text, strlen(text), flags, scale, &amount);

    if (r < 0) {
        assert_true(amount.mantissa == 77); /* the output is untouched on failure */
        return r == -EINVAL ? "no number" : r == -ERANGE ? "does not fit" : "?";
    }
    buf[amount_format(&amount, buf)] = '\0';
    return buf;
}

typedef struct Case {
    const char *text, *expected;
} Case;

static void check(const Case *cases, size_t n, unsigned flags, unsigned scale)
{
    for (size_t i = 0; i < n; i++) {
        print_message("# %s\n", cases[i].text);
        assert_string_equal(read_as(cases[i].text, flags, scale), cases[i].expected);
    }
}

static void decimals_are_kept_as_written_and_canonical(void **state)
{
    const Case cases[] = {
        {"0", "0"},
        {"-0", "0"},
        {"-0.000", "0"},
        {"0.0010", "0.001"},
        {"75.10", "75.1"},
        {"100", "100"},
        {"-12.5", "-12.5"},
        {"007.5", "7.5"},
        {"0.123456789", "0.123456789"},
        {"0.1234567890", "0.123456789"},
        {"1.2E7", "12000000"},
        {"1.25e-3", "0.00125"},
        {"12345678901234567890123456789", "12345678901234567890123456789"},
        {"12345678901234567890123456789.123456789", "12345678901234567890123456789.123456789"},
        {"99999999999999999999999999999.999999999", "99999999999999999999999999999.999999999"},
    };

    check(cases, ELEMENTS(cases), 0, AMOUNT_SCALE_NUMERIC);
    check(cases, ELEMENTS(cases), FLOAT32, AMOUNT_SCALE_NUMERIC);
}

static void what_does_not_fit_is_never_rounded(void **state)
{
    const Case cases[] = {
        {"0.1234567891", "does not fit"},
        {"0.12345678901234567", "does not fit"}, /* a decimal text, however long */
        {"123456789012345678901234567890", "does not fit"},
        {"1e30", "does not fit"},
        {"1e-10", "does not fit"},
        {"1e99999999999", "does not fit"},
        {"100000000000000000000000000000", "does not fit"},
    };

    check(cases, ELEMENTS(cases), 0, AMOUNT_SCALE_NUMERIC);
}

static void a_doubles_noise_is_rounded_half_to_even(void **state)
{
    const Case cases[] = {
        {"72.876121520996149", "72.876121521"},
        {"0.1234567885000000", "0.123456788"},  /* not shorter than 16 digits: half to even */
        {"0.1234567895000000", "0.12345679"},   /* … up */
        {"0.12345678850000001", "0.123456789"}, /* just above half */
        {"0.1234567891", "does not fit"},       /* 10 digits: somebody meant them */
        {"0.123456789012345", "does not fit"},  /* 15 digits */
        {"0.1234567890123456", "0.123456789"},
        {"0.0000000001234567890123456", "0"},
    };

    /* Zeros at the end are dropped first: "…8850000000" has ten places that count. */
    check(cases, ELEMENTS(cases), BINARY, AMOUNT_SCALE_NUMERIC);
}

static void a_widened_float32_is_its_shortest_text(void **state)
{
    const Case cases[] = {
        {"73.72000122070312", "73.72"},
        {"75.0875015258789", "75.0875"},
        {"72.8761215209961", "72.87612"},
        {"129.0399932861328", "129.04"},
        {"64.6155014038086", "64.6155"},
        {"0.12834799289703369", "0.128348"},
        {"0.128348", "0.128348"}, /* no float32: kept, not rounded to two places */
        {"243.25666809082031", "243.25667"},
        {"178061.625", "178061.62"}, /* a tie of two shortest texts: the even one */
        {"150122992", "150122990"},  /* eight digits read back to it */
        {"60685.22", "60685.22"},
        {"8388608.5", "8388608.5"},
        {"1.1754943508222875e-38", "0"}, /* far below a price: noise */
    };

    check(cases, ELEMENTS(cases), FLOAT32, AMOUNT_SCALE_NUMERIC);
    /* A count is no price: without the flag nothing is shortened. */
    assert_string_equal(read_as("150122992", BINARY, AMOUNT_SCALE_MAX), "150122992");
    assert_string_equal(read_as("73.72000122070312", BINARY, AMOUNT_SCALE_MAX),
                        "73.72000122070312");
}

static void volume_has_room_for_38_places(void **state)
{
    const Case cases[] = {
        {"211.14375325", "211.14375325"},
        {"0.00000000000000000000000000000000000001", "0.00000000000000000000000000000000000001"},
        {"12345678901234567890123456789012345678", "12345678901234567890123456789012345678"},
        {"123456789012345678901234567890123456789", "does not fit"},
        {"1048045.218", "1048045.218"},
    };

    check(cases, ELEMENTS(cases), 0, AMOUNT_SCALE_MAX);
}

static void thousands_are_read_where_allowed(void **state)
{
    const Case cases[] = {
        {"1,234,567.50", "1234567.5"}, {"249,000", "249000"},   {"999", "999"},
        {"12,34", "no number"},        {",123", "no number"},   {"1234,567", "no number"},
        {"1,2345", "no number"},       {"1,,234", "no number"}, {"1,234,", "no number"},
        {"1.5,000", "no number"},
    };

    check(cases, ELEMENTS(cases), AMOUNT_THOUSANDS, AMOUNT_SCALE_NUMERIC);
    assert_string_equal(read_as("1,234", 0, AMOUNT_SCALE_NUMERIC), "no number");
}

static void what_is_no_number_is_refused(void **state)
{
    const Case cases[] = {
        {"", "no number"},
        {"-", "no number"},
        {".", "no number"},
        {".5", "no number"},
        {"1.", "no number"},
        {"1.e5", "no number"},
        {"1e", "no number"},
        {"1e+", "no number"},
        {"--1", "no number"},
        {"+1", "no number"},
        {"NaN", "no number"},
        {"Infinity", "no number"},
        {" 1", "no number"},
        {"1 ", "no number"},
        {"0x10", "no number"},
        {"1.2.3", "no number"},
        {"\xef\xbc\x91", "no number"},
    };

    check(cases, ELEMENTS(cases), FLOAT32, AMOUNT_SCALE_NUMERIC);
    assert_string_equal(read_as("+1", AMOUNT_SIGN, AMOUNT_SCALE_NUMERIC), "1");
}

static Amount amount(const char *text)
{
    Amount a;

    assert_int_equal(amount_from_text(text, &a), 0);
    return a;
}

static void amounts_compare_by_value(void **state)
{
    const char *const ascending[] = {
        "-12345678901234567890",         "-1.5", "-1.25", "0",   "0.00000001", "1",
        "1.000000000000000000000000001", "9.9",  "10",    "1e37"};

    for (size_t i = 0; i < ELEMENTS(ascending); i++)
        for (size_t j = 0; j < ELEMENTS(ascending); j++) {
            Amount a = amount(ascending[i]), b = amount(ascending[j]);
            int order = amount_compare(&a, &b);

            assert_int_equal(order < 0, i < j);
            assert_int_equal(order > 0, i > j);
            assert_int_equal(amount_equal(&a, &b), i == j);
        }
}

static void units_are_shifted_exactly_or_not_at_all(void **state)
{
    Amount a = amount("12.5"), shifted;
    char buf[AMOUNT_TEXT_MAX + 1];

    assert_int_equal(amount_shift(&a, 3, AMOUNT_SCALE_NUMERIC, &shifted), 0);
    buf[amount_format(&shifted, buf)] = '\0';
    assert_string_equal(buf, "12500");
    assert_int_equal(amount_shift(&a, -8, AMOUNT_SCALE_NUMERIC, &shifted), 0);
    buf[amount_format(&shifted, buf)] = '\0';
    assert_string_equal(buf, "0.000000125");
    assert_int_equal(amount_shift(&a, -9, AMOUNT_SCALE_NUMERIC, &shifted), -ERANGE);
    assert_int_equal(amount_shift(&a, 30, AMOUNT_SCALE_NUMERIC, &shifted), -ERANGE);
    a = AMOUNT_ABSENT;
    assert_int_equal(amount_shift(&a, 3, AMOUNT_SCALE_NUMERIC, &shifted), 0);
    assert_false(shifted.present);
}

static void differences_are_exact(void **state)
{
    const struct {
        const char *a, *b, *difference;
    } cases[] = {
        {"79927", "35454", "44473"}, {"1.25", "1.250000001", "-0.000000001"},
        {"1.5", "0.5", "1"},         {"5", "5", "0"},
        {"-1", "1", "-2"},
    };
    Amount huge = amount("99999999999999999999999999999999999999"), tiny = amount("0.1"),
           difference;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        Amount a = amount(cases[i].a), b = amount(cases[i].b);
        char buf[AMOUNT_TEXT_MAX + 1];

        assert_int_equal(amount_subtract(&a, &b, &difference), 0);
        buf[amount_format(&difference, buf)] = '\0';
        assert_string_equal(buf, cases[i].difference);
    }
    assert_int_equal(amount_subtract(&huge, &tiny, &difference), -ERANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decimals_are_kept_as_written_and_canonical),
        cmocka_unit_test(what_does_not_fit_is_never_rounded),
        cmocka_unit_test(a_doubles_noise_is_rounded_half_to_even),
        cmocka_unit_test(a_widened_float32_is_its_shortest_text),
        cmocka_unit_test(volume_has_room_for_38_places),
        cmocka_unit_test(thousands_are_read_where_allowed),
        cmocka_unit_test(what_is_no_number_is_refused),
        cmocka_unit_test(amounts_compare_by_value),
        cmocka_unit_test(differences_are_exact),
        cmocka_unit_test(units_are_shifted_exactly_or_not_at_all),
    };

    return cmocka_run_group_tests_name("amount", tests, NULL, NULL);
}
