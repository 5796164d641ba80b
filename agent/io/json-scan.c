/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/json-scan.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

/* What may come next. The order matters to nobody; json_scan_skip() reads it to know which token
 * was last. */
enum {
    STATE_VALUE,        /* a value must follow: at the start, and after ',' in an array */
    STATE_ARRAY_FIRST,  /* after '[': a value or ']' */
    STATE_OBJECT_FIRST, /* after '{': a key or '}' */
    STATE_COLON,        /* after a key */
    STATE_AFTER,        /* after a value inside an array or object */
    STATE_DONE,         /* after the one value of the document */
    STATE_ERROR,
};

/* Classes of bytes inside a string; 0 is an ordinary one. */
#define CONTROL  1
#define QUOTE    2
#define ESCAPE   3
#define NOT_7BIT 4

static inline unsigned string_class(uint8_t c)
{
    if (c >= 0x80)
        return NOT_7BIT;
    if (c < 0x20)
        return CONTROL;
    if (c == '"')
        return QUOTE;
    return c == '\\' ? ESCAPE : 0;
}

static inline bool is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void json_scan_init(JsonScan *scan, const char *data, size_t size)
{
    assert(scan && (data || size == 0));

    *scan = (JsonScan){.data = data, .size = size, .text = data, .state = STATE_VALUE};
}

static JsonToken scan_error(JsonScan *s, size_t offset, const char *message)
{
    s->offset = offset;
    s->text = s->data + offset;
    s->text_size = 0;
    s->message = message;
    s->state = STATE_ERROR;
    return JSON_TOKEN_ERROR;
}

static inline void skip_blanks(JsonScan *s)
{
    size_t at = s->at;

    while (at < s->size) {
        char c = s->data[at];

        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            break;
        at++;
    }
    s->at = at;
}

/* Length of the UTF-8 sequence at `p` (Unicode table 3-7: no overlong forms, no surrogates, nothing
 * past U+10FFFF), or 0. */
static size_t utf8_length(const char *data, size_t left)
{
    const uint8_t *p = (const uint8_t *)data;
    uint8_t low = 0x80, high = 0xBF;
    size_t n;

    if (p[0] >= 0xC2 && p[0] <= 0xDF) {
        n = 2;
    } else if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        n = 3;
        if (p[0] == 0xE0)
            low = 0xA0;
        if (p[0] == 0xED)
            high = 0x9F;
    } else if (p[0] >= 0xF0 && p[0] <= 0xF4) {
        n = 4;
        if (p[0] == 0xF0)
            low = 0x90;
        if (p[0] == 0xF4)
            high = 0x8F;
    } else {
        return 0;
    }
    if (left < n || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if (p[i] < 0x80 || p[i] > 0xBF)
            return 0;
    }
    return n;
}

/* Length of the escape at data[at] == '\\', or 0. */
static size_t escape_length(const char *data, size_t at, size_t size)
{
    if (size - at < 2)
        return 0;
    switch (data[at + 1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return 2;
    case 'u':
        if (size - at < 6)
            return 0;
        for (size_t i = 2; i < 6; i++) {
            if (hex_value(data[at + i]) < 0)
                return 0;
        }
        return 6;
    default:
        return 0;
    }
}

#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

/* Non-zero when one of the eight bytes needs a look: a quote, a backslash, below 0x20 or above
 * 0x7F. A borrow can only light a byte above one that is lit already, so a zero is never wrong. */
static inline uint64_t word_needs_look(uint64_t word)
{
    uint64_t quote = word ^ (ONES * '"');
    uint64_t escape = word ^ (ONES * '\\');

    return (word | (word - ONES * 0x20) | (quote - ONES) | (escape - ONES)) & HIGHS;
}

static JsonToken scan_string(JsonScan *s, JsonToken token)
{
    const char *data = s->data;
    size_t size = s->size, at = s->at + 1, n;

    s->offset = s->at;
    s->has_escapes = false;
    for (;;) {
        uint64_t word;

        while (size - at >= sizeof(word)) {
            memcpy(&word, data + at, sizeof(word));
            if (word_needs_look(word))
                break;
            at += sizeof(word);
        }
        while (at < size && string_class((uint8_t)data[at]) == 0)
            at++;
        if (at >= size)
            return scan_error(s, size, "the document ends inside a string");

        switch (string_class((uint8_t)data[at])) {
        case QUOTE:
            s->text = data + s->offset + 1;
            s->text_size = at - s->offset - 1;
            s->at = at + 1;
            return token;
        case ESCAPE:
            n = escape_length(data, at, size);
            if (n == 0)
                return scan_error(s, at, "not an escape of JSON");
            s->has_escapes = true;
            at += n;
            break;
        case NOT_7BIT:
            n = utf8_length(data + at, size - at);
            if (n == 0)
                return scan_error(s, at, "not UTF-8");
            at += n;
            break;
        default:
            return scan_error(s, at, "a control character in a string must be escaped");
        }
    }
}

static inline size_t skip_digits(const char *data, size_t at, size_t size)
{
    uint64_t word, others, high_halves = ONES * 0xf0;

    /* Eight at a time: a price that was a double has seventeen. A digit's byte is 3 in its high
     * half, and still is when 6 is added; the lowest byte that is not ends the run. */
    for (; size - at >= sizeof(word); at += sizeof(word)) {
        memcpy(&word, data + at, sizeof(word));
        word = le64toh(word);
        others = ((word & high_halves) | ((word + ONES * 0x06) & high_halves) >> 4) ^ (ONES * 0x33);
        if (others != 0)
            return at + (size_t)__builtin_ctzll(others) / 8;
    }
    while (at < size && is_digit(data[at]))
        at++;
    return at;
}

static JsonToken scan_number(JsonScan *s)
{
    const char *data = s->data;
    size_t size = s->size, at = s->at, from;

    s->offset = at;
    if (data[at] == '-')
        at++;
    if (at < size && data[at] == '0') {
        at++;
        if (at < size && is_digit(data[at]))
            return scan_error(s, s->offset, "a number must not begin with a zero");
    } else {
        from = at;
        at = skip_digits(data, at, size);
        if (at == from)
            return scan_error(s, s->offset, "a number needs a digit after '-'");
    }
    if (at < size && data[at] == '.') {
        from = ++at;
        at = skip_digits(data, at, size);
        if (at == from)
            return scan_error(s, s->offset, "a number needs a digit after '.'");
    }
    if (at < size && (data[at] == 'e' || data[at] == 'E')) {
        at++;
        if (at < size && (data[at] == '+' || data[at] == '-'))
            at++;
        from = at;
        at = skip_digits(data, at, size);
        if (at == from)
            return scan_error(s, s->offset, "a number needs a digit in its exponent");
    }
    s->text = data + s->offset;
    s->text_size = at - s->offset;
    s->at = at;
    return JSON_TOKEN_NUMBER;
}

static JsonToken scan_word(JsonScan *s, const char *word, size_t n, JsonToken token)
{
    if (s->size - s->at < n || memcmp(s->data + s->at, word, n) != 0)
        return scan_error(s, s->at, "expected a value");
    s->offset = s->at;
    s->text = s->data + s->at;
    s->text_size = n;
    s->at += n;
    return token;
}

static JsonToken scan_begin(JsonScan *s, bool object)
{
    if (s->depth == JSON_SCAN_DEPTH_MAX)
        return scan_error(s, s->at, "nested deeper than 64 levels");
    if (object)
        s->in_object |= UINT64_C(1) << s->depth;
    else
        s->in_object &= ~(UINT64_C(1) << s->depth);
    s->depth++;
    s->offset = s->at;
    s->text = s->data + s->at;
    s->text_size = 1;
    s->at++;
    s->state = object ? STATE_OBJECT_FIRST : STATE_ARRAY_FIRST;
    return object ? JSON_TOKEN_OBJECT_BEGIN : JSON_TOKEN_ARRAY_BEGIN;
}

static inline bool inside_object(const JsonScan *s)
{
    return s->depth > 0 && (s->in_object >> (s->depth - 1) & 1);
}

static inline uint8_t state_after_value(const JsonScan *s)
{
    return s->depth > 0 ? STATE_AFTER : STATE_DONE;
}

static JsonToken scan_close(JsonScan *s, bool object)
{
    s->depth--;
    s->offset = s->at;
    s->text = s->data + s->at;
    s->text_size = 1;
    s->at++;
    s->state = state_after_value(s);
    return object ? JSON_TOKEN_OBJECT_END : JSON_TOKEN_ARRAY_END;
}

static JsonToken scan_value(JsonScan *s)
{
    JsonToken token;

    if (s->at >= s->size)
        return scan_error(s, s->size, "the document ends where a value should be");

    switch (s->data[s->at]) {
    case '"':
        token = scan_string(s, JSON_TOKEN_STRING);
        break;
    case '{':
        return scan_begin(s, true);
    case '[':
        return scan_begin(s, false);
    case 't':
        token = scan_word(s, "true", 4, JSON_TOKEN_TRUE);
        break;
    case 'f':
        token = scan_word(s, "false", 5, JSON_TOKEN_FALSE);
        break;
    case 'n':
        token = scan_word(s, "null", 4, JSON_TOKEN_NULL);
        break;
    case ']':
    case '}':
        return scan_error(s, s->at,
                          s->depth > 0 ? "expected a value; is there a ',' too many?"
                                       : "expected a value");
    case '-':
    case '0' ... '9':
        token = scan_number(s);
        break;
    case '\xEF':
        if (s->at == 0 && s->size >= 3 && memcmp(s->data, "\xEF\xBB\xBF", 3) == 0)
            return scan_error(s, 0,
                              "a byte order mark stands before the document: save the file "
                              "as UTF-8 without one");
        return scan_error(s, s->at, "expected a value");
    case '\xFE':
    case '\xFF':
        if (s->at == 0 && s->size >= 2 &&
            (memcmp(s->data, "\xFF\xFE", 2) == 0 || memcmp(s->data, "\xFE\xFF", 2) == 0))
            return scan_error(s, 0, "the document is UTF-16: save the file as UTF-8");
        return scan_error(s, s->at, "expected a value");
    default:
        return scan_error(s, s->at, "expected a value");
    }
    if (token != JSON_TOKEN_ERROR)
        s->state = state_after_value(s);
    return token;
}

static JsonToken scan_key(JsonScan *s)
{
    JsonToken token;

    if (s->at >= s->size)
        return scan_error(s, s->size, "the document ends inside an object");
    if (s->data[s->at] == '}')
        return scan_error(s, s->at, "expected a key; is there a ',' too many?");
    if (s->data[s->at] != '"')
        return scan_error(s, s->at, "expected a key in double quotes");
    token = scan_string(s, JSON_TOKEN_KEY);
    if (token != JSON_TOKEN_ERROR)
        s->state = STATE_COLON;
    return token;
}

static JsonToken scan_after(JsonScan *s)
{
    bool object = inside_object(s);
    char c;

    if (s->at >= s->size)
        return scan_error(s, s->size,
                          object ? "the document ends inside an object"
                                 : "the document ends inside an array");
    c = s->data[s->at];
    if (c == ',') {
        s->at++;
        skip_blanks(s);
        return object ? scan_key(s) : scan_value(s);
    }
    if (c == (object ? '}' : ']'))
        return scan_close(s, object);
    return scan_error(s, s->at, object ? "expected ',' or '}'" : "expected ',' or ']'");
}

/* ",12.5" in an array: what most of a large document is. */
static inline bool is_next_number(const JsonScan *s)
{
    return s->state == STATE_AFTER && s->size - s->at >= 2 && s->data[s->at] == ',' &&
           is_digit(s->data[s->at + 1]) && !inside_object(s);
}

JsonToken json_scan_next(JsonScan *scan)
{
    assert(scan);

    if (is_next_number(scan)) {
        scan->at++;
        return scan_number(scan);
    }
    skip_blanks(scan);
    switch (scan->state) {
    case STATE_AFTER:
        return scan_after(scan);
    case STATE_COLON:
        if (scan->at >= scan->size)
            return scan_error(scan, scan->size, "the document ends after a key");
        if (scan->data[scan->at] != ':')
            return scan_error(scan, scan->at, "expected ':' after a key");
        scan->at++;
        skip_blanks(scan);
        return scan_value(scan);
    case STATE_OBJECT_FIRST:
        if (scan->at < scan->size && scan->data[scan->at] == '}')
            return scan_close(scan, true);
        return scan_key(scan);
    case STATE_ARRAY_FIRST:
        if (scan->at < scan->size && scan->data[scan->at] == ']')
            return scan_close(scan, false);
        return scan_value(scan);
    case STATE_VALUE:
        if (scan->at >= scan->size)
            return scan_error(scan, scan->size, "the document is empty");
        return scan_value(scan);
    case STATE_DONE:
        if (scan->at < scan->size)
            return scan_error(scan, scan->at, "something follows the end of the document");
        scan->offset = scan->size;
        scan->text = scan->data + scan->size;
        scan->text_size = 0;
        return JSON_TOKEN_END;
    default:
        return JSON_TOKEN_ERROR;
    }
}

int json_scan_skip(JsonScan *scan)
{
    unsigned depth;

    assert(scan);

    if (scan->state == STATE_COLON && json_scan_next(scan) == JSON_TOKEN_ERROR)
        return -EBADMSG;
    if (scan->state == STATE_ERROR)
        return -EBADMSG;
    if (scan->state != STATE_OBJECT_FIRST && scan->state != STATE_ARRAY_FIRST)
        return 0;
    depth = scan->depth - 1;
    while (scan->depth > depth) {
        if (json_scan_next(scan) == JSON_TOKEN_ERROR)
            return -EBADMSG;
    }
    return 0;
}

static unsigned unicode_escape(const char *p)
{
    unsigned value = 0;

    for (size_t i = 2; i < 6; i++)
        value = value << 4 | (unsigned)hex_value(p[i]);
    return value;
}

static size_t utf8_encode(unsigned c, char out[static 4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

/* Decodes the escape at `p`, whose form the scanner has checked. Returns the bytes in `out` and
 * what was read in `ret_read`; 0 for a lone surrogate or NUL. */
static size_t decode_escape(const char *p, size_t left, char out[static 4], size_t *ret_read)
{
    static const char plain[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    unsigned c, low;

    *ret_read = 2;
    for (size_t i = 0; i < sizeof(plain) - 1; i += 2) {
        if (plain[i] == p[1]) {
            out[0] = plain[i + 1];
            return 1;
        }
    }
    *ret_read = 6;
    c = unicode_escape(p);
    if (c == 0 || (c >= 0xDC00 && c <= 0xDFFF))
        return 0;
    if (c >= 0xD800 && c <= 0xDBFF) {
        if (left < 12 || p[6] != '\\' || p[7] != 'u')
            return 0;
        low = unicode_escape(p + 6);
        if (low < 0xDC00 || low > 0xDFFF)
            return 0;
        *ret_read = 12;
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    return utf8_encode(c, out);
}

int json_scan_string(const JsonScan *scan, Buf *ret)
{
    const char *p, *end;
    int r;

    assert(scan && ret);

    if (!scan->has_escapes)
        return buf_add(ret, scan->text, scan->text_size);

    /* Never longer than it was sent, so one reservation keeps a failure from leaving half of it. */
    r = buf_reserve(ret, scan->text_size);
    if (r < 0)
        return r;
    p = scan->text;
    end = p + scan->text_size;
    for (size_t before = ret->size; p < end;) {
        const char *plain = memchr(p, '\\', (size_t)(end - p));
        size_t n = plain ? (size_t)(plain - p) : (size_t)(end - p), size, read;
        char out[4];

        r = buf_add(ret, p, n);
        if (r < 0)
            return r;
        p += n;
        if (p == end)
            break;
        size = decode_escape(p, (size_t)(end - p), out, &read);
        r = size > 0 ? buf_add(ret, out, size) : -EBADMSG;
        if (r < 0) {
            ret->size = before;
            ret->data[before] = '\0';
            return r;
        }
        p += read;
    }
    return 0;
}

bool json_scan_is(const JsonScan *scan, const char *s)
{
    const char *p, *end;
    size_t left;

    assert(scan && s);

    left = strlen(s);
    if (!scan->has_escapes)
        return left == scan->text_size && memcmp(scan->text, s, left) == 0;

    p = scan->text;
    end = p + scan->text_size;
    while (p < end) {
        char out[4];
        size_t n, read;

        if (*p == '\\') {
            n = decode_escape(p, (size_t)(end - p), out, &read);
            if (n == 0 || n > left || memcmp(out, s, n) != 0)
                return false;
        } else {
            n = read = 1;
            if (left == 0 || *p != *s)
                return false;
        }
        p += read;
        s += n;
        left -= n;
    }
    return left == 0;
}

void json_scan_position(const char *data, size_t offset, unsigned *ret_line, unsigned *ret_column)
{
    unsigned line = 1, column = 1;

    assert(data || offset == 0);

    for (size_t i = 0; i < offset; i++) {
        if (data[i] == '\n') {
            line++;
            column = 1;
        } else if (((uint8_t)data[i] & 0xC0) != 0x80) {
            column++;
        }
    }
    if (ret_line)
        *ret_line = line;
    if (ret_column)
        *ret_column = column;
}

const char *json_token_name(JsonToken token)
{
    static const char *const names[] = {
        [JSON_TOKEN_END] = "the end",
        [JSON_TOKEN_OBJECT_BEGIN] = "an object",
        [JSON_TOKEN_OBJECT_END] = "the end of an object",
        [JSON_TOKEN_ARRAY_BEGIN] = "an array",
        [JSON_TOKEN_ARRAY_END] = "the end of an array",
        [JSON_TOKEN_KEY] = "a key",
        [JSON_TOKEN_STRING] = "a string",
        [JSON_TOKEN_NUMBER] = "a number",
        [JSON_TOKEN_TRUE] = "true",
        [JSON_TOKEN_FALSE] = "false",
        [JSON_TOKEN_NULL] = "null",
        [JSON_TOKEN_ERROR] = "no JSON",
    };

    assert((size_t)token < ELEMENTS(names));
    return names[token];
}
