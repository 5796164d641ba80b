/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_FIELDS_INTERNAL_H
#define AGENT_IO_FIELDS_INTERNAL_H

/* What the parts of fields share; nobody else includes it. */

#include "agent/io/fields.h"

#include "agent/io/json-scan.h"

#define FIELD_FOUND_MAX 60 /* bytes of a wrong value that a message shows */
#define FIELD_TEXT_MAX  96 /* a bound as text */
/* Rows of one table: a bit each in FieldScope.given. */
#define FIELD_ROWS_MAX  64

/* One step of the path to what is being decoded. */
typedef struct FieldStep {
    const char *key; /* NULL: an element of an array */
    size_t index;
} FieldStep;

/* The object being decoded: which of its keys were there. */
typedef struct FieldScope {
    const Field *fields;
    uint64_t given;
} FieldScope;

struct FieldContext {
    JsonScan scan;
    const char *text;
    size_t size;
    bool has_positions;
    const char *prefix; /* of every path */
    void *root;
    FieldErrors *errors;
    const FieldScope *scope;
    size_t base; /* offset of the object or value in hand: members are looked for from there */
    FieldStep steps[JSON_SCAN_DEPTH_MAX + 2];
    size_t n_steps;
    int fatal; /* -ENOMEM met where nothing could be returned */
};

/* -- fields-error.c -- */
/* A fault at `member` of what the steps lead to, at that offset of the document. */
void field_error_at(FieldContext *context, size_t offset, const char *member, const char *format,
                    ...) printf_like(4, 5);
/* Where `member` ("update.check", "ports[2]") is in the value at `base`; as far as it is there. */
size_t field_locate(const char *text, size_t size, size_t base, const char *member);

/* -- fields-token.c --
 * Decoding functions return 1 when the value is good, 0 when it had a fault that was reported (it
 * was read over), and a negative code when reading cannot go on: -EBADMSG for a fault of syntax,
 * which was reported, or -ENOMEM. */
JsonToken field_next(FieldContext *c);
int field_skip(FieldContext *c) must_check;
void field_push_key(FieldContext *c, const char *key); /* borrowed until the pop */
void field_push_index(FieldContext *c, size_t index);
void field_pop(FieldContext *c);
/* The text of the STRING or KEY in hand. */
int field_token_text(FieldContext *c, char **ret) must_check;
/* Reports the value in hand, "expected …, found …", and reads over it. */
int field_wrong_value(FieldContext *c, JsonToken token, const char *expected) must_check;
/* The value that the token in hand begins, as jansson holds it; repeated keys are faults. */
int field_build(FieldContext *c, JsonToken token, json_t **ret) must_check;

/* -- fields-value.c -- */
bool field_type_is_text(FieldType type);   /* a JSON string */
bool field_type_is_scalar(FieldType type); /* has one value that text can say: all but containers */
/* "a duration such as \"5m\"": what a message expects of the row. */
const char *field_expects(const Field *field);
/* The member from text, without bounds: -EINVAL not of that form, -ERANGE too big for us, -ENOMEM.
 */
int field_parse(const Field *field, const char *text, void *member);
/* Bounds and checks of a member that is set. NULL when fine, else what it must be: "10s to 1d" (in
 * `buf` or constant). */
const char *field_judge(const Field *field, const void *member, char buf[static FIELD_TEXT_MAX]);
const char *field_judge_text(const Field *field, const char *value, size_t size,
                             char buf[static FIELD_TEXT_MAX]);
/* "10s to 1d", "at least 6MiB", "at most 5"; NULL when the row has no bounds. */
const char *field_bounds(const Field *field, char buf[static FIELD_TEXT_MAX]);
/* A value as a user types it. */
char *field_format_u64(const Field *field, uint64_t value, char buf[static FIELD_TEXT_MAX]);
/* Sets the default of one row, or of all. */
int field_set_default(FieldContext *context, const Field *field, void *member) must_check;
int fields_set_defaults(FieldContext *context, const Field *fields, void *object) must_check;

/* -- fields-encode.c -- */
/* The default as JSON; 0 when there is none. */
int field_default_json(const Field *field, json_t **ret) must_check;

#define FIELDS_FOREACH(f, fields) for (const Field *f = (fields); f->name; f++)

static inline void *field_member(const Field *field, void *object)
{
    return (char *)object + field->offset;
}

static inline const void *field_member_const(const Field *field, const void *object)
{
    return (const char *)object + field->offset;
}

#endif
