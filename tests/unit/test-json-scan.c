/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/str.h"
#include "agent/io/json-scan.h"

/* The tokens of a document as letters; 'E' and the message at the end of a bad one. */
static void scan_letters(const char *data, size_t size, Buf *ret)
{
    static const char letters[] = ".{}[]ksntfze";
    JsonToken token;
    JsonScan scan;

    json_scan_init(&scan, data, size);
    do {
        token = json_scan_next(&scan);
        assert_int_equal(buf_add_char(ret, letters[token]), 0);
    } while (token != JSON_TOKEN_END && token != JSON_TOKEN_ERROR);
    if (token == JSON_TOKEN_ERROR) {
        assert_int_equal(buf_printf(ret, " %zu %s", scan.offset, scan.message), 0);
        assert_int_equal(json_scan_next(&scan), JSON_TOKEN_ERROR);
    }
}

static void assert_scan(const char *text, const char *expected)
{
    auto_buf Buf letters = BUF_INIT(4096);
    auto_free char *exact = NULL;
    size_t size = strlen(text);

    /* On the heap without a NUL, so that a read past the end is seen by the sanitizers. */
    exact = malloc(size > 0 ? size : 1);
    assert_non_null(exact);
    memcpy(exact, text, size);
    scan_letters(exact, size, &letters);
    assert_string_equal(buf_str(&letters), expected);
}

static void documents_become_tokens(void **state)
{
    assert_scan("{\"a\": [1, -2.5e+3, \"x\", true, false, null], \"b\": {}}", "{k[nnstfz]k{}}.");
    assert_scan(" \t\r\n[]\n", "[].");
    assert_scan("0", "n.");
    assert_scan("\"\"", "s.");
    assert_scan("[[[]],{\"\":{}}]", "[[[]]{k{}}].");
}

static void each_fault_has_its_place_and_name(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"", "e 0 the document is empty"},
        {"  ", "e 2 the document is empty"},
        {"[1,]", "[ne 3 expected a value; is there a ',' too many?"},
        {"{\"a\":1,}", "{kne 7 expected a key; is there a ',' too many?"},
        {"{a:1}", "{e 1 expected a key in double quotes"},
        {"{\"a\" 1}", "{ke 5 expected ':' after a key"},
        {"{\"a\"", "{ke 4 the document ends after a key"},
        {"{\"a\":", "{ke 5 the document ends where a value should be"},
        {"[1 2]", "[ne 3 expected ',' or ']'"},
        {"[1}", "[ne 2 expected ',' or ']'"},
        {"{\"a\":1]", "{kne 6 expected ',' or '}'"},
        {"[1", "[ne 2 the document ends inside an array"},
        {"{", "{e 1 the document ends inside an object"},
        {"\"ab", "e 3 the document ends inside a string"},
        {"\"a\nb\"", "e 2 a control character in a string must be escaped"},
        {"\"\\x\"", "e 1 not an escape of JSON"},
        {"\"\\u12g4\"", "e 1 not an escape of JSON"},
        {"\"\\u12", "e 1 not an escape of JSON"},
        {"1 2", "ne 2 something follows the end of the document"},
        {"// c\n1", "e 0 expected a value"},
        {"nul", "e 0 expected a value"},
        {"NaN", "e 0 expected a value"},
        {"]", "e 0 expected a value"},
        {"01", "e 0 a number must not begin with a zero"},
        {"-", "e 0 a number needs a digit after '-'"},
        {"-x", "e 0 a number needs a digit after '-'"},
        {"1.", "e 0 a number needs a digit after '.'"},
        {".5", "e 0 expected a value"},
        {"1e", "e 0 a number needs a digit in its exponent"},
        {"1e+", "e 0 a number needs a digit in its exponent"},
        {"+1", "e 0 expected a value"},
        {"\xEF\xBB\xBF{}",
         "e 0 a byte order mark stands before the document: save the file as UTF-8 without one"},
        {"\xFF\xFE{", "e 0 the document is UTF-16: save the file as UTF-8"},
        {"\xFE\xFF{", "e 0 the document is UTF-16: save the file as UTF-8"},
        {"\xFF{", "e 0 expected a value"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++)
        assert_scan(cases[i].text, cases[i].expected);
}

static void utf8_is_checked_as_the_standard_says(void **state)
{
    static const char *const good[] = {"\xC2\x80",         "\xDF\xBF",         "\xE0\xA0\x80",
                                       "\xED\x9F\xBF",     "\xEE\x80\x80",     "\xEF\xBF\xBF",
                                       "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "삼성전자"};
    static const char *const bad[] = {
        "\x80",         "\xC0\x80",         "\xC1\xBF",         "\xC2",     "\xE0\x9F\xBF",
        "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80", "\xFF",
        "\xE1\x80",     "\xF1\x80\x80",     "\xE1\x80\xC0",     "\xB0\xA1" /* CP949 */};
    char text[64];

    /* At each place of an eight byte word. */
    for (size_t pad = 0; pad < 9; pad++) {
        for (size_t i = 0; i < ELEMENTS(good); i++) {
            (void)snprintf(text, sizeof(text), "\"%.*s%s\"", (int)pad, "xxxxxxxxx", good[i]);
            assert_scan(text, "s.");
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
            char expected[64];

            (void)snprintf(text, sizeof(text), "\"%.*s%s\"", (int)pad, "xxxxxxxxx", bad[i]);
            (void)snprintf(expected, sizeof(expected), "e %zu not UTF-8", pad + 1);
            assert_scan(text, expected);
        }
    }
}

static void every_byte_of_a_string_is_looked_at(void **state)
{
    for (unsigned c = 0; c < 256; c++) {
        for (size_t place = 0; place < 20; place++) {
            auto_buf Buf letters = BUF_INIT(4096);
            char text[] = "\"aaaaaaaaaaaaaaaaaaaaaaaa\"";
            bool plain = c >= 0x20 && c < 0x80 && c != '"' && c != '\\';

            text[1 + place] = (char)c;
            scan_letters(text, sizeof(text) - 1, &letters);
            if (plain)
                assert_string_equal(buf_str(&letters), "s.");
            else
                assert_string_not_equal(buf_str(&letters), "s.");
        }
    }
}

static void numbers_keep_their_text(void **state)
{
    static const char *const numbers[] = {
        "0",    "-0",   "-0.0", "3.10", "1e5", "1E-05", "0.1e+7", "123456789012345678901234567890",
        "-1.5", "1e400"};

    for (size_t i = 0; i < ELEMENTS(numbers); i++) {
        char text[64];
        JsonScan scan;

        (void)snprintf(text, sizeof(text), "[%s]", numbers[i]);
        json_scan_init(&scan, text, strlen(text));
        assert_int_equal(json_scan_next(&scan), JSON_TOKEN_ARRAY_BEGIN);
        assert_int_equal(json_scan_next(&scan), JSON_TOKEN_NUMBER);
        assert_int_equal(scan.text_size, strlen(numbers[i]));
        assert_memory_equal(scan.text, numbers[i], scan.text_size);
        assert_int_equal(scan.offset, 1);
    }
}

static void assert_string(const char *json, int expected_code, const char *expected)
{
    auto_buf Buf text = BUF_INIT(256);
    JsonScan scan;

    json_scan_init(&scan, json, strlen(json));
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_STRING);
    assert_int_equal(buf_add_str(&text, ">"), 0);
    assert_int_equal(json_scan_string(&scan, &text), expected_code);
    assert_string_equal(buf_str(&text) + 1, expected_code == 0 ? expected : "");
    if (expected_code == 0) {
        assert_true(json_scan_is(&scan, expected));
        assert_false(json_scan_is(&scan, "no such text"));
    }
}

static void strings_are_decoded(void **state)
{
    assert_string("\"plain\"", 0, "plain");
    assert_string("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", 0, "\"\\/\b\f\n\r\t");
    assert_string("\"a\\u0041\\u00e9\\uAC00z\"", 0, "aAé가z");
    assert_string("\"\\ud83d\\ude00!\"", 0, "😀!");
    assert_string("\"x\\ud83d\"", -EBADMSG, NULL);
    assert_string("\"x\\ud83dx\"", -EBADMSG, NULL);
    assert_string("\"x\\ud83d\\u0041\"", -EBADMSG, NULL);
    assert_string("\"x\\ude00\"", -EBADMSG, NULL);
    assert_string("\"x\\u0000\"", -EBADMSG, NULL);
}

static void half_of_a_surrogate_pair_costs_its_own_text_only(void **state)
{
    const char *json = "{\"name\": \"\\ud83d\", \"price\": 1}";
    auto_buf Buf text = BUF_INIT(256);
    JsonScan scan;

    assert_scan(json, "{kskn}.");
    json_scan_init(&scan, json, strlen(json));
    (void)json_scan_next(&scan);
    (void)json_scan_next(&scan);
    assert_int_equal(json_scan_skip(&scan), 0);
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_KEY);
    assert_true(json_scan_is(&scan, "price"));
    assert_int_equal(json_scan_string(&scan, &text), 0);
}

static void keys_are_compared_with_their_escapes_decoded(void **state)
{
    const char *json = "{\"n\\u0061me\": 1}";
    JsonScan scan;

    json_scan_init(&scan, json, strlen(json));
    (void)json_scan_next(&scan);
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_KEY);
    assert_true(json_scan_is(&scan, "name"));
    assert_false(json_scan_is(&scan, "nam"));
    assert_false(json_scan_is(&scan, "names"));
    assert_false(json_scan_is(&scan, ""));
}

static void a_value_is_skipped_whole(void **state)
{
    const char *json = "{\"a\": {\"b\": [1, {\"c\": []}]}, \"d\": 2, \"e\": [3]}";
    JsonScan scan;

    json_scan_init(&scan, json, strlen(json));
    (void)json_scan_next(&scan);
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_KEY);
    assert_int_equal(json_scan_skip(&scan), 0);
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_KEY);
    assert_true(json_scan_is(&scan, "d"));
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_NUMBER);
    assert_int_equal(json_scan_skip(&scan), 0);
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_KEY);
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_ARRAY_BEGIN);
    assert_int_equal(json_scan_skip(&scan), 0);
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_OBJECT_END);
    assert_int_equal(json_scan_next(&scan), JSON_TOKEN_END);

    json_scan_init(&scan, "[[1, 2", 6);
    (void)json_scan_next(&scan);
    assert_int_equal(json_scan_skip(&scan), -EBADMSG);
}

static void depth_is_limited(void **state)
{
    char text[2 * (JSON_SCAN_DEPTH_MAX + 1)];
    auto_buf Buf letters = BUF_INIT(4096);
    size_t n = JSON_SCAN_DEPTH_MAX;

    memset(text, '[', n);
    memset(text + n, ']', n);
    scan_letters(text, 2 * n, &letters);
    assert_int_equal(letters.size, 2 * n + 1);
    assert_int_equal(letters.data[2 * n], '.');

    buf_clear(&letters);
    n++;
    memset(text, '[', n);
    memset(text + n, ']', n);
    scan_letters(text, 2 * n, &letters);
    assert_non_null(strstr(buf_str(&letters), "e 64 nested deeper than 64 levels"));
}

static void positions_count_characters(void **state)
{
    const char *text = "{\n  \"삼성\": x";
    unsigned line, column;

    json_scan_position(text, strlen(text) - 1, &line, &column);
    assert_int_equal(line, 2);
    assert_int_equal(column, 9);
    json_scan_position(text, 0, &line, &column);
    assert_int_equal(line, 1);
    assert_int_equal(column, 1);
}

TEST_MAIN(cmocka_unit_test(documents_become_tokens),
          cmocka_unit_test(each_fault_has_its_place_and_name),
          cmocka_unit_test(utf8_is_checked_as_the_standard_says),
          cmocka_unit_test(every_byte_of_a_string_is_looked_at),
          cmocka_unit_test(numbers_keep_their_text), cmocka_unit_test(strings_are_decoded),
          cmocka_unit_test(half_of_a_surrogate_pair_costs_its_own_text_only),
          cmocka_unit_test(keys_are_compared_with_their_escapes_decoded),
          cmocka_unit_test(a_value_is_skipped_whole), cmocka_unit_test(depth_is_limited),
          cmocka_unit_test(positions_count_characters))
