/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/time.h"
#include "agent/io/fields.h"
#include "agent/io/json.h"

typedef struct Pair {
    char *key;
    uint64_t value;
} Pair;

typedef struct Inner {
    char *name;
    uint64_t every_usec;
    int order;
} Inner;

typedef struct Thing {
    char *title;
    bool on;
    uint64_t count;
    double share;
    uint64_t wait_usec;
    uint64_t room_bytes;
    uint32_t mode;
    int order, other;
    char **words;
    Inner inner;
    Inner *maybe;
    FieldArray items;
    FieldArray pairs;
    json_t *raw;
    char *either;
} Thing;

static const char *const order_names[] = {"stop-first", "start-first", NULL};

static const char *check_path(const char *value)
{
    return *value == '/' ? NULL : "an absolute path";
}

static int either_decode(FieldContext *context, const json_t *value, void *member)
{
    const char *text = json_is_string(value) ? json_string_value(value) : json_str(value, "of");

    if (!text) {
        field_error(context, json_is_object(value) ? "of" : NULL, "expected a string");
        return 0;
    }
    return str_set(member, text);
}

static json_t *either_schema(void)
{
    return json_pack("{s:[s,s]}", "type", "string", "object");
}

static int either_encode(const void *member, json_t **ret)
{
    const char *text = *(char *const *)member;

    if (!text)
        return 0;
    *ret = json_string(text);
    return *ret ? 1 : -ENOMEM;
}

static void either_done(void *member)
{
    free(*(char **)member);
    *(char **)member = NULL;
}

static const FieldCustom either = {.form = "text, or an object",
                                   .decode = either_decode,
                                   .schema = either_schema,
                                   .encode = either_encode,
                                   .done = either_done};

/* clang-format off */
static const Field inner_fields[] = {
    FIELD_STRING("name",    Inner, name,       NULL, 1, 8, FIELD_REQUIRED | FIELD_KEY, NULL, "how it is called"),
    FIELD_DURATION("every", Inner, every_usec, "1m", 10 * SECOND, DAY, "how often"),
    FIELD_ENUM("order",     Inner, order,      NULL, order_names, "which first"),
    {0},
};

static const Field pair_value = FIELD_UINT("*", Pair, value, NULL, 1, 9, "how many");

static const Field thing_fields[] = {
    FIELD_STRING("title",   Thing, title,      "none", 0, 8, 0, NULL, "what it is"),
    FIELD_BOOL("on",        Thing, on,         "true", "whether it runs"),
    FIELD_UINT("count",     Thing, count,      "3", 1, 10, "how many"),
    FIELD_DOUBLE("share",   Thing, share,      "0.5", 0.0, 4.0, "how much"),
    FIELD_DURATION("wait",  Thing, wait_usec,  NULL, SECOND, 0, "how long"),
    FIELD_SIZE("room",      Thing, room_bytes, "1MiB", 1024, UINT64_C(1) << 30, "how big"),
    FIELD_MODE("mode",      Thing, mode,       "0644", "who may"),
    FIELD_ENUM("order",     Thing, order,      "start-first", order_names, "which first"),
    FIELD_ENUM("other",     Thing, other,      NULL, order_names, "which then"),
    FIELD_STRV("words",     Thing, words,      3, check_path, "which paths", .pattern = "^/"),
    FIELD_OBJECT("inner",   Thing, inner,      inner_fields, NULL, "the one inside"),
    FIELD_OBJECT_PTR("maybe", Thing, maybe,    Inner, inner_fields, NULL, "perhaps one more"),
    FIELD_ARRAY("items",    Thing, items,      Inner, inner_fields, 3, NULL, "several"),
    FIELD_MAP("pairs",      Thing, pairs,      Pair, &pair_value, 4, NULL, "by name"),
    FIELD_RAW("raw",        Thing, raw,        FIELD_IS_OBJECT, "handed on"),
    FIELD_CUSTOM("either",  Thing, either,     0, &either, "this or that"),
    {0},
};
/* clang-format on */

static void thing_check(FieldContext *context, void *object)
{
    const Thing *thing = object;

    assert_ptr_equal(field_root(context), thing);
    if (field_is_given(context, "count") && thing->count == 7)
        field_error(context, "items[1].every", "not with seven");
}

static void thing_done(Thing *thing)
{
    fields_done(thing_fields, thing);
}

#define auto_thing auto_(thing_done)

static int decode(const char *text, Thing *thing, FieldErrors *errors)
{
    return fields_decode(text, strlen(text), thing_fields, thing_check, thing, errors);
}

/* The faults of a document, a line each. */
static void assert_faults(const char *text, const char *expected)
{
    auto_field_errors FieldErrors errors = {0};
    auto_buf Buf shown = BUF_INIT(1 << 20);
    auto_thing Thing thing = {0};

    assert_int_equal(decode(text, &thing, &errors), -EINVAL);
    assert_ok(field_errors_format(&errors, true, &shown), NULL);
    assert_string_equal(buf_str(&shown), expected);
}

static void rows_without_a_value_have_their_default(void **state)
{
    auto_field_errors FieldErrors errors = {0};
    auto_thing Thing thing = {0};

    assert_int_equal(decode("{}", &thing, &errors), 0);
    assert_string_equal(thing.title, "none");
    assert_true(thing.on);
    assert_int_equal(thing.count, 3);
    assert_true(thing.share > 0.49 && thing.share < 0.51);
    assert_int_equal(thing.wait_usec, 0);
    assert_int_equal(thing.room_bytes, 1 << 20);
    assert_int_equal(thing.mode, 0644);
    assert_int_equal(thing.order, 1);
    assert_int_equal(thing.other, -1);
    assert_int_equal(thing.inner.every_usec, MINUTE);
    assert_null(thing.maybe);
    assert_null(thing.raw);
}

static const char full[] =
    "{\"title\": \"가나\", \"on\": false, \"count\": 10.0, \"share\": 1, \"wait\": \"1h30m\",\n"
    " \"room\": \"1.5KiB\", \"mode\": \"0400\", \"order\": \"stop-first\", \"words\": [\"/a\", "
    "\"/b\"],\n"
    " \"inner\": {\"name\": \"x\", \"every\": \"10s\"}, \"maybe\": {\"name\": \"y\"},\n"
    " \"items\": [{\"name\": \"p\"}, {\"name\": \"q\", \"order\": \"start-first\"}],\n"
    " \"pairs\": {\"one\": 1, \"two\": 2}, \"raw\": {\"a\": [1, 2.5, null, \"\\u00e9\"]},\n"
    " \"either\": {\"of\": \"that\"}, \"\\u006fther\": \"stop-first\"}";

static void every_type_is_decoded(void **state)
{
    auto_field_errors FieldErrors errors = {0};
    auto_thing Thing thing = {0};
    auto_free char *raw = NULL;
    const Inner *items;
    const Pair *pairs;

    assert_int_equal(decode(full, &thing, &errors), 0);
    assert_string_equal(thing.title, "가나");
    assert_false(thing.on);
    assert_int_equal(thing.count, 10);
    assert_true(thing.share > 0.99 && thing.share < 1.01);
    assert_int_equal(thing.wait_usec, 90 * MINUTE);
    assert_int_equal(thing.room_bytes, 1536);
    assert_int_equal(thing.mode, 0400);
    assert_int_equal(thing.order, 0);
    assert_int_equal(thing.other, 0);
    assert_string_equal(thing.words[1], "/b");
    assert_null(thing.words[2]);
    assert_string_equal(thing.inner.name, "x");
    assert_int_equal(thing.inner.every_usec, 10 * SECOND);
    assert_string_equal(thing.maybe->name, "y");
    assert_int_equal(thing.maybe->every_usec, MINUTE);
    assert_int_equal(thing.items.n, 2);
    items = thing.items.items;
    assert_string_equal(items[1].name, "q");
    assert_int_equal(items[0].order, -1);
    assert_int_equal(items[1].order, 1);
    assert_int_equal(thing.pairs.n, 2);
    pairs = thing.pairs.items;
    assert_string_equal(pairs[1].key, "two");
    assert_int_equal(pairs[1].value, 2);
    raw = json_text(thing.raw, false);
    assert_string_equal(raw, "{\"a\":[1,2.5,null,\"é\"]}");
    assert_string_equal(thing.either, "that");
}

static void an_object_is_encoded_as_it_was_read(void **state)
{
    auto_field_errors FieldErrors errors = {0};
    auto_thing Thing thing = {0}, again = {0};
    json_auto_t *first = NULL, *second = NULL, *bare = NULL;
    auto_free char *text = NULL, *bare_text = NULL;

    assert_int_equal(decode(full, &thing, &errors), 0);
    assert_ok(fields_encode(thing_fields, &thing, 0, &first), NULL);
    text = json_text(first, false);
    assert_int_equal(decode(text, &again, &errors), 0);
    assert_ok(fields_encode(thing_fields, &again, 0, &second), NULL);
    assert_true(json_equal(first, second));
    assert_contains(text, "\"wait\":\"1h30m\"");
    assert_contains(text, "\"mode\":\"0400\"");

    thing_done(&again);
    again = (Thing){0};
    assert_int_equal(decode("{\"title\": \"none\", \"count\": 4, \"room\": \"1024KiB\", \"maybe\": "
                            "{\"name\": \"y\"}}",
                            &again, &errors),
                     0);
    assert_ok(fields_encode(thing_fields, &again, FIELD_ENCODE_NO_DEFAULTS, &bare), NULL);
    bare_text = json_canonical(bare);
    assert_string_equal(bare_text, "{\"count\":4,\"maybe\":{\"name\":\"y\"}}");
}

static void all_faults_are_listed_with_path_line_and_column(void **state)
{
    assert_faults(
        "{\n"
        "  \"titel\": 1,\n"
        "  \"nothing-like-it\": {\"a\": [1]},\n"
        "  \"title\": \"too long a title\",\n"
        "  \"on\": \"yes\",\n"
        "  \"count\": 11,\n"
        "  \"share\": 4.5,\n"
        "  \"wait\": \"5ms\",\n"
        "  \"room\": \"2GiB\",\n"
        "  \"mode\": \"0899\",\n"
        "  \"order\": \"stop-frist\",\n"
        "  \"words\": [\"/a\", \"b\", 3],\n"
        "  \"inner\": {\"every\": \"5s\"},\n"
        "  \"maybe\": null,\n"
        "  \"items\": [{\"name\": \"a\"}, {\"name\": \"a\"}, 5, {\"name\": \"b\"}],\n"
        "  \"pairs\": {\"x.y\": 0, \"z\": 1, \"z\": 2},\n"
        "  \"raw\": {\"삼성\": {\"b\": 1, \"b\": 2}}, \"raw\": {},\n"
        "  \"either\": {\"of\": 1}\n"
        "}",
        "2:3: titel: unknown key \"titel\"; did you mean \"title\"?\n"
        "3:3: nothing-like-it: unknown key \"nothing-like-it\"; known here: title, on, count, "
        "share, wait, room, mode, order, other, words, inner, maybe, items, pairs, raw, either\n"
        "4:12: title: expected at most 8 bytes, found \"too long a title\"\n"
        "5:9: on: expected true or false, found \"yes\"\n"
        "6:12: count: expected 1 to 10, found 11\n"
        "7:12: share: expected 0 to 4, found 4.5\n"
        "8:11: wait: expected at least 1s, found \"5ms\"\n"
        "9:11: room: expected 1KiB to 1GiB, found \"2GiB\"\n"
        "10:11: mode: expected a file mode such as \"0644\", found \"0899\"\n"
        "11:12: order: expected one of \"stop-first\", \"start-first\", found \"stop-frist\"; did "
        "you mean \"stop-first\"?\n"
        "12:19: words[1]: expected an absolute path, found \"b\"\n"
        "12:24: words[2]: expected a string, found 3\n"
        "13:12: inner.name: is missing: how it is called\n"
        "13:22: inner.every: expected 10s to 1d, found \"5s\"\n"
        "14:12: maybe: expected an object, found null: leave the key out instead\n"
        "15:12: items: expected at most 3 elements, found 4\n"
        "15:37: items[1].name: \"a\" is the name of [0] already\n"
        "15:43: items[2]: expected an object, found 5\n"
        "16:20: pairs[\"x.y\"]: expected 1 to 9, found 0\n"
        "16:31: pairs.z: this key is there twice\n"
        "17:26: raw.삼성.b: this key is there twice\n"
        "17:36: raw: this key is there twice\n"
        "18:20: either.of: expected a string\n");
}

static void numbers_are_judged_by_their_text(void **state)
{
    assert_faults("{\"count\": 2.5}", "1:11: count: expected a whole number, found 2.5\n");
    assert_faults("{\"count\": -2}", "1:11: count: expected a whole number, found -2\n");
    assert_faults("{\"count\": 18446744073709551617}",
                  "1:11: count: expected 1 to 10, found 18446744073709551617\n");
    assert_faults("{\"count\": \"3\"}", "1:11: count: expected a whole number, found \"3\"\n");
    assert_faults("{\"raw\": {\"a\": 123456789012345678901}}",
                  "1:15: raw.a: expected a number that fits 64 bits, found "
                  "123456789012345678901\n");
    assert_faults("{\"share\": 1e999}", "1:11: share: expected a number, found 1e999\n");
}

static void a_fault_of_syntax_ends_the_reading(void **state)
{
    assert_faults("", "1:1: the document is empty\n");
    assert_faults("[]", "1:1: expected an object, found an array\n");
    assert_faults("{\"count\": 0,\n \"inner\": {\"every\": ",
                  "1:11: count: expected 1 to 10, found 0\n"
                  "2:21: inner.every: the document ends where a value should be\n");
    assert_faults("{\"title\": \"\xB0\xA1\"}", "1:12: title: not UTF-8\n");
    assert_faults("{} x", "1:4: something follows the end of the document\n");
    assert_faults("{\"items\": [{\"name\": \"a\",}]}",
                  "1:25: items[0]: expected a key; is there a ',' too many?\n");
    assert_faults("{\"title\": \"\\u0000\"}",
                  "1:11: title: a string with \\u0000 or half a surrogate pair cannot be used\n");
}

static void what_a_message_quotes_is_cut_and_escaped(void **state)
{
    assert_faults("{\"count\": \"\\u001b[31m\"}",
                  "1:11: count: expected a whole number, found \"\\u001b[31m\"\n");
    assert_faults("{\"\\u001b[31m\": 1}",
                  "1:2: [\"\\x1b[31m\"]: unknown key \"\\x1b[31m\"; known here: title, on, count, "
                  "share, wait, room, mode, order, other, words, inner, maybe, items, pairs, raw, "
                  "either\n");
}

static void deep_nesting_is_a_fault(void **state)
{
    auto_buf Buf text = BUF_INIT(4096);
    auto_field_errors FieldErrors errors = {0};
    auto_thing Thing thing = {0};

    assert_ok(buf_add_str(&text, "{\"raw\": {\"a\": "), NULL);
    for (int i = 0; i < 1000; i++)
        assert_ok(buf_add_char(&text, '['), NULL);
    assert_int_equal(fields_decode(text.data, text.size, thing_fields, NULL, &thing, &errors),
                     -EINVAL);
    assert_int_equal(errors.n, 1);
    assert_string_equal(errors.items[0].message, "nested deeper than 64 levels");
}

static void rules_between_fields_know_what_was_given(void **state)
{
    assert_faults(
        "{\"count\": 7, \"items\": [{\"name\": \"a\"}, {\"name\": \"b\", \"every\": \"1h\"}]}",
        "1:62: items[1].every: not with seven\n");
    /* What is not there is shown at the nearest thing that is. */
    assert_faults("{\"count\": 7, \"items\": [{\"name\": \"a\"}]}",
                  "1:23: items[1].every: not with seven\n");
}

static void no_more_than_the_ceiling_is_kept(void **state)
{
    auto_buf Buf text = BUF_INIT(65536), shown = BUF_INIT(1 << 20);
    auto_field_errors FieldErrors errors = {0};
    auto_error Error err = {0};
    auto_thing Thing thing = {0};

    assert_ok(buf_add_str(&text, "{\"x\":1"), NULL);
    for (int i = 0; i < 300; i++)
        assert_ok(buf_printf(&text, ",\"k%d\": %d", i, i), NULL);
    assert_ok(buf_add_str(&text, "}"), NULL);
    assert_int_equal(decode(buf_str(&text), &thing, &errors), -EINVAL);
    assert_int_equal(errors.n, FIELD_ERRORS_MAX);
    assert_true(errors.truncated);
    assert_ok(field_errors_format(&errors, false, &shown), NULL);
    assert_contains(buf_str(&shown), "more faults follow; these are the first 200\n");
    assert_int_equal(field_errors_to_error(&errors, "plan", &err), -EINVAL);
    assert_int_equal(err.kind, ERROR_INVALID);
    assert_contains(error_text(&err), "plan: x: unknown key \"x\"; known here: title, ");
    assert_contains(error_text(&err), " (and at least 199 more)");
}

static void a_parsed_value_is_decoded_without_positions(void **state)
{
    json_auto_t *value = json_pack("{s:i, s:{s:s}}", "count", 0, "inner", "name", "x");
    auto_field_errors FieldErrors errors = {0};
    auto_thing Thing thing = {0};

    assert_int_equal(fields_decode_json(value, "crawl", thing_fields, NULL, &thing, &errors),
                     -EINVAL);
    assert_int_equal(errors.n, 1);
    assert_string_equal(errors.items[0].path, "crawl.count");
    assert_int_equal(errors.items[0].line, 0);
    assert_string_equal(thing.inner.name, "x");
}

static void the_schema_says_what_the_rows_say(void **state)
{
    json_auto_t *schema = fields_schema(thing_fields);
    auto_free char *text = json_canonical(schema);

    assert_non_null(text);
    assert_contains(text, "\"additionalProperties\":false");
    assert_contains(text, "\"count\":{\"default\":3,\"description\":\"how many\",\"maximum\":10,"
                          "\"minimum\":1,\"type\":\"integer\"}");
    assert_contains(text, "\"every\":{\"default\":\"1m\",\"description\":\"how often\","
                          "\"pattern\":\"^([0-9]+(\\\\.[0-9]{1,9})?(d|h|m|s|ms|us))+$\","
                          "\"type\":\"string\",\"x-maximum\":\"1d\",\"x-minimum\":\"10s\"}");
    assert_contains(text, "\"order\":{\"default\":\"start-first\",\"description\":\"which first\","
                          "\"enum\":[\"stop-first\",\"start-first\"]}");
    assert_contains(text, "\"words\":{\"description\":\"which paths\",\"items\":{\"pattern\":"
                          "\"^/\",\"type\":\"string\"},\"maxItems\":3,\"type\":\"array\"}");
    assert_contains(text, "\"required\":[\"name\"]");
    assert_contains(text, "\"pairs\":{\"additionalProperties\":{\"maximum\":9,\"minimum\":1,"
                          "\"type\":\"integer\"},\"description\":\"by name\",\"maxProperties\":4,"
                          "\"type\":\"object\"}");
}

static void the_manual_has_a_paragraph_a_row(void **state)
{
    auto_buf Buf text = BUF_INIT(65536);

    assert_ok(fields_manual(thing_fields, "", &text), NULL);
    assert_contains(buf_str(&text), ".TP\n.B items[].every\nhow often\n(duration, 10s to 1d, "
                                    "default 1m)\n");
    assert_contains(buf_str(&text), ".TP\n.B order\nwhich first\n(one of stop\\-first, "
                                    "start\\-first, default start\\-first)\n");
    assert_contains(buf_str(&text), ".TP\n.B inner.name\nhow it is called\n(string, 1 to 8 bytes, "
                                    "required)\n");
}

static void assert_bad_table(const Field *fields, const char *message)
{
    auto_error Error err = {0};

    assert_int_equal(fields_check_table(fields, &err), -EINVAL);
    assert_string_equal(error_text(&err), message);
}

static void tables_are_judged_themselves(void **state)
{
    auto_error Error err = {0};
    const Field over[] = {FIELD_UINT("n", Thing, count, "11", 1, 10, "how many"), {0}};
    const Field nested[] = {FIELD_OBJECT("o", Thing, inner, over, NULL, "inside"), {0}};
    const Field twice[] = {FIELD_BOOL("a", Thing, on, "true", "whether"),
                           FIELD_BOOL("a", Thing, on, "true", "whether"),
                           {0}};
    const Field nameless[] = {FIELD_ENUM("e", Thing, order, "first", order_names, "which"), {0}};
    const Field silent[] = {FIELD_BOOL("a", Thing, on, "true", ""), {0}};
    const Field endless[] = {FIELD_STRV("v", Thing, words, 0, NULL, "which"), {0}};

    assert_ok(fields_check_table(thing_fields, &err), &err);
    assert_bad_table(over, "n: the default \"11\" is not 1 to 10");
    assert_bad_table(nested, "o: n: the default \"11\" is not 1 to 10");
    assert_bad_table(twice, "a is there twice");
    assert_bad_table(nameless, "e: the default \"first\" is not a string");
    assert_bad_table(silent, "a has no help");
    assert_bad_table(endless, "v may grow without end");
}

TEST_MAIN(cmocka_unit_test(rows_without_a_value_have_their_default),
          cmocka_unit_test(every_type_is_decoded),
          cmocka_unit_test(an_object_is_encoded_as_it_was_read),
          cmocka_unit_test(all_faults_are_listed_with_path_line_and_column),
          cmocka_unit_test(numbers_are_judged_by_their_text),
          cmocka_unit_test(a_fault_of_syntax_ends_the_reading),
          cmocka_unit_test(what_a_message_quotes_is_cut_and_escaped),
          cmocka_unit_test(deep_nesting_is_a_fault),
          cmocka_unit_test(rules_between_fields_know_what_was_given),
          cmocka_unit_test(no_more_than_the_ceiling_is_kept),
          cmocka_unit_test(a_parsed_value_is_decoded_without_positions),
          cmocka_unit_test(the_schema_says_what_the_rows_say),
          cmocka_unit_test(the_manual_has_a_paragraph_a_row),
          cmocka_unit_test(tables_are_judged_themselves))
