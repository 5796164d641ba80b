/* SPDX-License-Identifier: Apache-2.0 */

/* The table-driven decoder with a table that has every type: a document is either decoded, and then
 * its encoding decodes into the same; or it has faults, each with a place and a message. */

#include <errno.h>
#include <string.h>

#include "agent/base/time.h"
#include "agent/io/fields.h"
#include "agent/io/json.h"
#include "tests/fuzz/fuzz.h"

typedef struct Pair {
    char *key;
    uint64_t value;
} Pair;

typedef struct Thing {
    char *name;
    bool on;
    uint64_t count, wait_usec, room_bytes;
    double share;
    uint32_t mode;
    int order;
    char **words;
    FieldArray pairs;
    FieldArray things;
    json_t *raw, *custom;
} Thing;

static const char *const order_names[] = {"first", "second", NULL};

static int custom_decode(FieldContext *context, const json_t *value, void *member)
{
    if (!json_is_string(value))
        field_error(context, "of.it[0]", "expected a string");
    else
        *(json_t **)member = json_string(json_string_value(value));
    return 0;
}

static json_t *custom_schema(void)
{
    return json_pack("{s:s}", "type", "string");
}

static int custom_encode(const void *member, json_t **ret)
{
    *ret = json_incref(*(json_t *const *)member);
    return *ret ? 1 : 0;
}

static void custom_done(void *member)
{
    json_decref(*(json_t **)member);
    *(json_t **)member = NULL;
}

static const FieldCustom custom = {.form = "text",
                                   .decode = custom_decode,
                                   .schema = custom_schema,
                                   .encode = custom_encode,
                                   .done = custom_done};

static const Field pair_value = FIELD_UINT("*", Pair, value, NULL, 1, 9, "how many");

/* clang-format off */
#define ROWS                                                                                        \
    FIELD_STRING("name",   Thing, name,       NULL, 1, 8, FIELD_REQUIRED | FIELD_KEY, NULL, "name"),   \
    FIELD_BOOL("on",       Thing, on,         "true", "whether it runs"),                           \
    FIELD_UINT("count",    Thing, count,      "3", 1, 10, "how many"),                              \
    FIELD_DOUBLE("share",  Thing, share,      "0.5", 0.0, 4.0, "how much"),                         \
    FIELD_DURATION("wait", Thing, wait_usec,  "1s", SECOND, 0, "how long"),                         \
    FIELD_SIZE("room",     Thing, room_bytes, "1MiB", 1024, UINT64_C(1) << 30, "how big"),          \
    FIELD_MODE("mode",     Thing, mode,       "0644", "who may"),                                   \
    FIELD_ENUM("order",    Thing, order,      NULL, order_names, "which first"),                    \
    FIELD_STRV("words",    Thing, words,      3, NULL, "which"),                                    \
    FIELD_MAP("pairs",     Thing, pairs,      Pair, &pair_value, 4, NULL, "by name"),               \
    FIELD_RAW("raw",       Thing, raw,        0, "handed on"),                                      \
    FIELD_CUSTOM("custom", Thing, custom,     0, &custom, "of its own form")

static const Field inner_fields[] = {ROWS, {0}};
static const Field thing_fields[] = {
    ROWS,
    FIELD_ARRAY("things",  Thing, things,     Thing, inner_fields, 9, NULL, "several"),
    {0},
};
/* clang-format on */

static void thing_check(FieldContext *context, void *object)
{
    const Thing *thing = object;

    if (thing->count == 7 && field_is_given(context, "count"))
        field_error(context, "things[1].pairs[\"a\"]", "not with seven");
}

static void check_faults(const FieldErrors *errors)
{
    Buf text = BUF_INIT(SIZE_MAX / 4);

    FUZZ_CHECK(errors->n > 0 && errors->n <= FIELD_ERRORS_MAX);
    for (size_t i = 0; i < errors->n; i++) {
        const FieldError *e = errors->items + i;

        FUZZ_CHECK(e->line >= 1 && e->column >= 1 && *e->message);
        FUZZ_CHECK(i == 0 || e[-1].line <= e->line);
    }
    FUZZ_CHECK(field_errors_format(errors, true, &text) == 0);
    buf_done(&text);
}

static void check_round_trip(const Thing *thing)
{
    json_auto_t *first = NULL, *second = NULL;
    FieldErrors errors = {0};
    auto_free char *text = NULL;
    Thing again = {0};

    FUZZ_CHECK(fields_encode(thing_fields, thing, 0, &first) == 0);
    text = json_text(first, false);
    FUZZ_CHECK(fields_decode(text, strlen(text), thing_fields, NULL, &again, &errors) == 0);
    FUZZ_CHECK(fields_encode(thing_fields, &again, 0, &second) == 0);
    FUZZ_CHECK(json_equal(first, second));
    fields_done(thing_fields, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FieldErrors errors = {0};
    Thing thing = {0};
    int r;

    r = fields_decode((const char *)data, size, thing_fields, thing_check, &thing, &errors);
    if (r == 0) {
        FUZZ_CHECK(errors.n == 0);
        check_round_trip(&thing);
    } else {
        FUZZ_CHECK(r == -EINVAL);
        check_faults(&errors);
    }
    field_errors_done(&errors);
    fields_done(thing_fields, &thing);
    return 0;
}
