/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/io/json.h"

static json_t *parse(const char *text)
{
    auto_error Error err = {0};
    json_t *value = NULL;

    if (json_parse(text, strlen(text), "test", &value, &err) < 0)
        fail_msg("%s", error_text(&err));
    return value;
}

static void assert_refused(const char *text, const char *message)
{
    auto_error Error err = {0};
    json_t *value = NULL;

    assert_int_equal(json_parse(text, strlen(text), "reply", &value, &err), -EBADMSG);
    assert_int_equal(err.kind, ERROR_CORRUPT);
    assert_null(value);
    assert_string_equal(error_text(&err), message);
    assert_int_equal(json_parse_quiet(text, strlen(text), &value), 0);
    assert_null(value);
}

static void bad_documents_are_refused_with_their_place(void **state)
{
    assert_refused("<html>", "reply: line 1, column 1: expected a value");
    assert_refused("{\n \"a\": 1,\n}",
                   "reply: line 3, column 1: expected a key; is there a ',' too many?");
    assert_refused("{\"a\":1,\"a\":2}", "reply: line 1, column 10: a key is repeated");
    assert_refused("[\"\\u0000\"]", "reply: line 1, column 9: a string with an encoded NUL");
    assert_refused("[123456789012345678901]", "reply: line 1, column 22: a number is too big");
    assert_refused("[\"\\ud800\"]", "reply: line 1, column 9: not valid JSON");
    assert_refused("{} {}", "reply: line 1, column 4: something follows the end of the document");
}

static void members_are_found_along_a_path(void **state)
{
    json_auto_t *doc = parse("{\"error\": {\"code\": 403, \"details\": [{\"reason\": \"x\"}]}}");

    assert_int_equal(json_integer_value(json_at(doc, "error", "code", NULL)), 403);
    assert_null(json_at(doc, "error", "nothing", "more", NULL));
    assert_null(json_at(doc, "error", "code", "more", NULL));
    assert_null(json_at(NULL, "error", NULL));
    assert_string_equal(
        json_str(json_array_get(json_at(doc, "error", "details", NULL), 0), "reason"), "x");
    assert_null(json_str(doc, "error"));
}

static void integers_may_be_decimal_strings(void **state)
{
    json_auto_t *doc = parse("{\"a\": 7, \"b\": \"18446744073709551615\", \"c\": -1, \"d\": \"-9\","
                             " \"e\": \"7x\", \"f\": 1.5, \"g\": null, \"h\": true}");
    uint64_t u = 5;
    int64_t i = 5;

    assert_int_equal(json_u64(doc, "a", &u), 0);
    assert_int_equal(u, 7);
    assert_int_equal(json_u64(doc, "b", &u), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(json_i64(doc, "c", &i), 0);
    assert_int_equal(i, -1);
    assert_int_equal(json_i64(doc, "d", &i), 0);
    assert_int_equal(i, -9);
    assert_int_equal(json_u64(doc, "c", &u), -EINVAL);
    assert_int_equal(json_u64(doc, "e", &u), -EINVAL);
    assert_int_equal(json_u64(doc, "f", &u), -EINVAL);
    assert_int_equal(json_i64(doc, "f", &i), -EINVAL);
    assert_int_equal(json_u64(doc, "g", &u), -ENOENT);
    assert_int_equal(json_i64(doc, "nothing", &i), -ENOENT);
    assert_int_equal(i, -9);
    assert_true(u == UINT64_MAX);
    assert_true(json_flag(doc, "h"));
    assert_false(json_flag(doc, "a"));
}

static void the_canonical_form_does_not_know_order_or_blanks(void **state)
{
    json_auto_t *a = parse("{ \"b\" : [1, 2.5], \"a\" : \"가\" }");
    json_auto_t *b = parse("{\"a\":\"가\",\"b\":[1,2.5]}");
    auto_free char *text_a = json_canonical(a), *text_b = json_canonical(b);

    assert_string_equal(text_a, "{\"a\":\"가\",\"b\":[1,2.5]}");
    assert_string_equal(text_b, text_a);
}

static void a_missing_value_is_out_of_memory(void **state)
{
    json_auto_t *object = json_object();
    auto_free char *text = NULL;

    assert_int_equal(json_put(object, "a", json_integer(1)), 0);
    assert_int_equal(json_put(object, "b", NULL), -ENOMEM);
    text = json_text(object, false);
    assert_string_equal(text, "{\"a\":1}");
}

static void cleansed_strings_are_zero_for_whoever_still_holds_them(void **state)
{
    json_t *doc = parse("{\"a\":[\"hunter2\",{\"b\":\"swordfish\"}],\"n\":1}");
    json_t *deep = json_incref(json_array_get(json_object_get(doc, "a"), 0));
    json_t *deeper =
        json_incref(json_object_get(json_array_get(json_object_get(doc, "a"), 1), "b"));
    static const char zeros[16];

    json_cleanse(doc);
    assert_memory_equal(json_string_value(deep), zeros, 7);
    assert_memory_equal(json_string_value(deeper), zeros, 9);
    json_decref(deep);
    json_decref(deeper);
    json_cleanse(NULL);
}

TEST_MAIN(cmocka_unit_test(bad_documents_are_refused_with_their_place),
          cmocka_unit_test(members_are_found_along_a_path),
          cmocka_unit_test(integers_may_be_decimal_strings),
          cmocka_unit_test(the_canonical_form_does_not_know_order_or_blanks),
          cmocka_unit_test(a_missing_value_is_out_of_memory),
          cmocka_unit_test(cleansed_strings_are_zero_for_whoever_still_holds_them))
