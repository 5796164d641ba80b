/* SPDX-License-Identifier: Apache-2.0 */

/* The tokenizer against jansson: the same documents accepted, the same values found. They differ
 * where we mean it:
 *   - depth: ours ends at 64, jansson's at 2,048;
 *   - a number that fits neither an int64_t nor a double has a text with us, and is refused there;
 *   - "\u0000" and lone surrogates are good tokens (RFC 8259 allows them), refused by
 *     json_scan_string() as by jansson;
 *   - a NUL byte behind a number is refused by us, and lost by jansson's look-ahead. */

#include <float.h>
#include <jansson.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/json-scan.h"
#include "agent/io/json.h"
#include "tests/fuzz/fuzz.h"

typedef struct Build {
    JsonScan scan;
    bool has_big_number;
    bool has_bad_text;
} Build;

static json_t *build(Build *b, JsonToken token);

static char *text_of(Build *b)
{
    Buf text = BUF_INIT(SIZE_MAX / 4);

    if (json_scan_string(&b->scan, &text) < 0) {
        b->has_bad_text = true;
        buf_done(&text);
        return strdup("?");
    }
    FUZZ_CHECK(text.size <= b->scan.text_size);
    FUZZ_CHECK(strlen(buf_str(&text)) == text.size);
    FUZZ_CHECK(json_scan_is(&b->scan, buf_str(&text)));
    FUZZ_CHECK(str_is_utf8(buf_str(&text), text.size));
    return buf_take(&text);
}

static json_t *build_number(Build *b)
{
    auto_free char *text = strndup(b->scan.text, b->scan.text_size);
    char *end;
    double real;

    if (!strpbrk(text, ".eE")) {
        int64_t integer;

        if (parse_i64(text, &integer) < 0) {
            b->has_big_number = true;
            return json_null();
        }
        return json_integer(integer);
    }
    real = strtod(text, &end);
    FUZZ_CHECK(*end == '\0');
    if (real > DBL_MAX || real < -DBL_MAX) {
        b->has_big_number = true;
        return json_null();
    }
    return json_real(real);
}

static json_t *build_object(Build *b)
{
    json_t *object = json_object();
    JsonToken token;

    while ((token = json_scan_next(&b->scan)) == JSON_TOKEN_KEY) {
        auto_free char *key = text_of(b);
        json_t *value = build(b, json_scan_next(&b->scan));

        if (value)
            (void)json_object_set_new(object, key, value);
    }
    if (token != JSON_TOKEN_OBJECT_END) {
        FUZZ_CHECK(token == JSON_TOKEN_ERROR);
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *build_array(Build *b)
{
    json_t *array = json_array();
    JsonToken token;

    while ((token = json_scan_next(&b->scan)) != JSON_TOKEN_ARRAY_END) {
        json_t *item = build(b, token);

        if (!item) {
            json_decref(array);
            return NULL;
        }
        (void)json_array_append_new(array, item);
    }
    return array;
}

static json_t *build(Build *b, JsonToken token)
{
    auto_free char *text = NULL;

    switch (token) {
    case JSON_TOKEN_OBJECT_BEGIN:
        return build_object(b);
    case JSON_TOKEN_ARRAY_BEGIN:
        return build_array(b);
    case JSON_TOKEN_STRING:
        text = text_of(b);
        return json_string(text);
    case JSON_TOKEN_NUMBER:
        return build_number(b);
    case JSON_TOKEN_TRUE:
        return json_true();
    case JSON_TOKEN_FALSE:
        return json_false();
    case JSON_TOKEN_NULL:
        return json_null();
    case JSON_TOKEN_ERROR:
        return NULL;
    case JSON_TOKEN_END:
    case JSON_TOKEN_OBJECT_END:
    case JSON_TOKEN_ARRAY_END:
    case JSON_TOKEN_KEY:
        break;
    }
    FUZZ_CHECK(!"a value begins with such a token");
    return NULL;
}

/* Skipping the whole comes to the same verdict as reading it. */
static void check_skip(const char *text, size_t size, bool accepted)
{
    JsonScan scan;
    bool skipped;

    json_scan_init(&scan, text, size);
    skipped = json_scan_next(&scan) != JSON_TOKEN_ERROR && json_scan_skip(&scan) == 0 &&
              json_scan_next(&scan) == JSON_TOKEN_END;
    FUZZ_CHECK(skipped == accepted);
}

static void check_fault(const char *text, size_t size, JsonScan *scan)
{
    unsigned line = 0, column = 0;

    FUZZ_CHECK(scan->message && *scan->message);
    FUZZ_CHECK(scan->offset <= size);
    FUZZ_CHECK(json_scan_next(scan) == JSON_TOKEN_ERROR);
    json_scan_position(text, scan->offset, &line, &column);
    FUZZ_CHECK(line >= 1 && column >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    json_auto_t *ours = NULL, *theirs = NULL, *parsed = NULL;
    Build b = {0};
    bool accepted;

    json_scan_init(&b.scan, text, size);
    ours = build(&b, json_scan_next(&b.scan));
    accepted = ours && json_scan_next(&b.scan) == JSON_TOKEN_END;
    if (!accepted)
        check_fault(text, size, &b.scan);
    check_skip(text, size, accepted);

    theirs = json_loadb(text, size, JSON_DECODE_ANY, NULL);
    if (accepted && !b.has_big_number && !b.has_bad_text)
        FUZZ_CHECK(theirs && json_equal(ours, theirs));
    else if (accepted)
        FUZZ_CHECK(!theirs);
    else
        FUZZ_CHECK(!theirs || memchr(text, '\0', size) ||
                   streq(b.scan.message, "nested deeper than 64 levels"));

    /* What json_parse() takes is what both take, and has no key twice. */
    if (json_parse_quiet(text, size, &parsed) > 0)
        FUZZ_CHECK(accepted && theirs && json_equal(parsed, theirs));
    return 0;
}
