/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_JSON_SCAN_H
#define AGENT_IO_JSON_SCAN_H

/* A JSON tokenizer (RFC 8259) that keeps what jansson drops: byte offsets, and the text of numbers
 * as it was sent, so that amounts stay exact and errors name line and column. Strict: no comments,
 * no trailing commas, UTF-8 checked, depth limited. It allocates nothing, and reads each byte once:
 * it is also the fast path of the crawler.
 *
 * What is checked of an escape is its form: "\ud800", half of a surrogate pair, is in the grammar,
 * passes json_scan_next() and json_scan_skip(), and is refused when its text is asked for. To pair
 * them while scanning would cost a document of prices 6 % and one of Korean escapes 25 %, and a
 * broken name that nobody reads would cost its prices, too. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"

#define JSON_SCAN_DEPTH_MAX 64

typedef enum JsonToken {
    JSON_TOKEN_END, /* after the one value of the document */
    JSON_TOKEN_OBJECT_BEGIN,
    JSON_TOKEN_OBJECT_END,
    JSON_TOKEN_ARRAY_BEGIN,
    JSON_TOKEN_ARRAY_END,
    JSON_TOKEN_KEY,
    JSON_TOKEN_STRING,
    JSON_TOKEN_NUMBER,
    JSON_TOKEN_TRUE,
    JSON_TOKEN_FALSE,
    JSON_TOKEN_NULL,
    JSON_TOKEN_ERROR, /* see `message`; stays */
} JsonToken;

typedef struct JsonScan {
    const char *data;
    size_t size;
    size_t at; /* next byte to read */
    /* Of the token last returned: its text, borrowed from `data`. Strings and keys without their
     * quotes, escapes as sent; numbers as sent. */
    const char *text;
    size_t text_size;
    size_t offset;       /* where the token begins */
    bool has_escapes;    /* the string has a backslash: use json_scan_string() */
    const char *message; /* of an error: "expected ':' after a key" */
    unsigned depth;
    uint64_t in_object; /* one bit a level */
    uint8_t state;      /* private */
} JsonScan;

void json_scan_init(JsonScan *scan, const char *data, size_t size);
JsonToken json_scan_next(JsonScan *scan);
/* Skips the value that the last token began (OBJECT_BEGIN, ARRAY_BEGIN) or does nothing for a
 * scalar; after a KEY skips its value. -EBADMSG. */
int json_scan_skip(JsonScan *scan) must_check;
/* Appends the decoded text of a STRING or KEY. -EBADMSG for a lone surrogate or an encoded NUL. */
int json_scan_string(const JsonScan *scan, Buf *ret) must_check;
/* Whether the STRING or KEY equals `s`, escapes decoded. */
bool json_scan_is(const JsonScan *scan, const char *s);
/* 1-based, columns in characters. */
void json_scan_position(const char *data, size_t offset, unsigned *ret_line, unsigned *ret_column);
const char *json_token_name(JsonToken token);

#endif
