/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_FIELDS_H
#define AGENT_IO_FIELDS_H

/* The table-driven decoder: one const row a field says name, type, default, bounds, flags and help;
 * from the same rows come parsing, the JSON Schema and the manual. All errors of a document are
 * found at once; each has a JSON path, and line and column.
 *
 * A document is tokenized by json-scan (positions, duplicates, number text) and decoded straight
 * into structs. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"
#include "agent/base/str.h"

typedef enum FieldType {
    FIELD_TYPE_STRING,     /* char *; bounds are lengths in bytes */
    FIELD_TYPE_BOOL,       /* bool */
    FIELD_TYPE_UINT,       /* uint64_t, JSON integer */
    FIELD_TYPE_DOUBLE,     /* double; prices of traffic and CPU shares, never amounts */
    FIELD_TYPE_DURATION,   /* uint64_t microseconds, "5m" */
    FIELD_TYPE_SIZE,       /* uint64_t bytes, "512MiB" */
    FIELD_TYPE_MODE,       /* uint32_t, "0644" */
    FIELD_TYPE_ENUM,       /* int, index into `names`; -1 while absent without a default */
    FIELD_TYPE_STRV,       /* char **, array of strings */
    FIELD_TYPE_OBJECT,     /* a struct embedded at the offset, decoded by `fields` */
    FIELD_TYPE_OBJECT_PTR, /* a pointer to a struct of `item_size`, NULL while absent */
    FIELD_TYPE_ARRAY,      /* FieldArray of structs of `item_size`, decoded by `fields` */
    FIELD_TYPE_MAP, /* FieldArray of structs whose first member is `char *key`; the value decoded by
                       `value` */
    FIELD_TYPE_RAW, /* json_t *, any value: handed on whole */
    FIELD_TYPE_CUSTOM, /* `custom` decodes the value (a string or object, say) */
} FieldType;

typedef enum FieldFlags {
    FIELD_REQUIRED = 1 << 0,
    FIELD_KEY = 1 << 1,       /* names the item: must be unique among its siblings of an array */
    FIELD_NO_EMPTY = 1 << 2,  /* "" is refused */
    FIELD_IS_OBJECT = 1 << 3, /* of RAW: any object, nothing else */
    FIELD_NO_ECHO = 1 << 4,   /* names a secret: a wrong value may be the secret itself */
} FieldFlags;

/* What an array or map decodes into: `items` has n of item_size bytes, zeroed and defaulted before
 * decoding. */
typedef struct FieldArray {
    void *items;
    size_t n;
} FieldArray;

typedef struct Field Field;
typedef struct FieldContext FieldContext;

/* Checks one string value beyond its type; NULL when fine, else what is expected: "an absolute
 * path". */
typedef const char *(*FieldStringCheck)(const char *value);
/* Rules between the fields of one object, after its rows; report by field_error(). */
typedef void (*FieldObjectCheck)(FieldContext *context, void *object);

struct Field {
    const char *name;
    FieldType type;
    size_t offset;
    unsigned flags;
    const char *fallback; /* the default as a user would type it in JSON without quotes ("1m", "10",
                             "true"), or NULL: absent */
    uint64_t min, max;    /* of the value, the length or the number of elements; max 0: none */
    double min_double, max_double;
    const char *const *names; /* of an enum, or what elements of STRV may be; NULL-terminated */
    const Field *fields; /* of objects and arrays of objects; ends with a row whose name is NULL */
    const Field *value;  /* of a map: one row for the value */
    size_t item_size;
    FieldStringCheck check; /* strings, elements of STRV, keys of maps */
    FieldObjectCheck check_object;
    const char *pattern; /* the rule of `check` (as far as it goes) for the JSON Schema, or NULL */
    const struct FieldCustom *custom;
    const char *help; /* one line, for the manual and the schema's description */
};

/* A value that rows cannot say (a string, or an object that names a secret). `decode` reports
 * faults by field_error() and returns 0, or -ENOMEM; `schema` returns the value's JSON Schema,
 * `encode` the value itself (0 when it is absent), and `form` is what the manual calls it: "text,
 * or an object that names a secret". A row's fallback is decoded as a JSON string. */
typedef struct FieldCustom {
    const char *form;
    int (*decode)(FieldContext *context, const json_t *value, void *member);
    json_t *(*schema)(void);
    int (*encode)(const void *member, json_t **ret);
    void (*done)(void *member);
} FieldCustom;

/* Rows are written with these; see agent/plan for examples. What a macro has no argument for
 * follows the help text: FIELD_STRING(…, "how it is called", .pattern = "^[a-z]+$"). */
#define FIELD_AT(type_, member_) .offset = offsetof(type_, member_)
#define FIELD_STRING(n, t, m, d, lo, hi, fl, chk, h, ...)                                          \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_STRING, FIELD_AT(t, m), .fallback = (d), .min = (lo),      \
        .max = (hi), .flags = (fl), .check = (chk), .help = (h), __VA_ARGS__                       \
    }
#define FIELD_BOOL(n, t, m, d, h, ...)                                                             \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_BOOL, FIELD_AT(t, m), .fallback = (d), .help = (h),        \
        __VA_ARGS__                                                                                \
    }
#define FIELD_UINT(n, t, m, d, lo, hi, h, ...)                                                     \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_UINT, FIELD_AT(t, m), .fallback = (d), .min = (lo),        \
        .max = (hi), .help = (h), __VA_ARGS__                                                      \
    }
#define FIELD_DOUBLE(n, t, m, d, lo, hi, h, ...)                                                   \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_DOUBLE, FIELD_AT(t, m), .fallback = (d),                   \
        .min_double = (lo), .max_double = (hi), .help = (h), __VA_ARGS__                           \
    }
#define FIELD_DURATION(n, t, m, d, lo, hi, h, ...)                                                 \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_DURATION, FIELD_AT(t, m), .fallback = (d), .min = (lo),    \
        .max = (hi), .help = (h), __VA_ARGS__                                                      \
    }
#define FIELD_SIZE(n, t, m, d, lo, hi, h, ...)                                                     \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_SIZE, FIELD_AT(t, m), .fallback = (d), .min = (lo),        \
        .max = (hi), .help = (h), __VA_ARGS__                                                      \
    }
#define FIELD_MODE(n, t, m, d, h, ...)                                                             \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_MODE, FIELD_AT(t, m), .fallback = (d), .max = 07777,       \
        .help = (h), __VA_ARGS__                                                                   \
    }
#define FIELD_ENUM(n, t, m, d, nm, h, ...)                                                         \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_ENUM, FIELD_AT(t, m), .fallback = (d), .names = (nm),      \
        .help = (h), __VA_ARGS__                                                                   \
    }
#define FIELD_STRV(n, t, m, hi, chk, h, ...)                                                       \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_STRV, FIELD_AT(t, m), .max = (hi), .check = (chk),         \
        .help = (h), __VA_ARGS__                                                                   \
    }
#define FIELD_OBJECT(n, t, m, f, chk, h, ...)                                                      \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_OBJECT, FIELD_AT(t, m), .fields = (f),                     \
        .check_object = (chk), .help = (h), __VA_ARGS__                                            \
    }
#define FIELD_OBJECT_PTR(n, t, m, it, f, chk, h, ...)                                              \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_OBJECT_PTR, FIELD_AT(t, m), .item_size = sizeof(it),       \
        .fields = (f), .check_object = (chk), .help = (h), __VA_ARGS__                             \
    }
#define FIELD_ARRAY(n, t, m, it, f, hi, chk, h, ...)                                               \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_ARRAY, FIELD_AT(t, m), .item_size = sizeof(it),            \
        .fields = (f), .max = (hi), .check_object = (chk), .help = (h), __VA_ARGS__                \
    }
#define FIELD_MAP(n, t, m, it, v, hi, chk, h, ...)                                                 \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_MAP, FIELD_AT(t, m), .item_size = sizeof(it),              \
        .value = (v), .max = (hi), .check = (chk), .help = (h), __VA_ARGS__                        \
    }
#define FIELD_RAW(n, t, m, fl, h, ...)                                                             \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_RAW, FIELD_AT(t, m), .flags = (fl), .help = (h),           \
        __VA_ARGS__                                                                                \
    }
#define FIELD_CUSTOM(n, t, m, fl, c, h, ...)                                                       \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_CUSTOM, FIELD_AT(t, m), .flags = (fl), .custom = (c),      \
        .help = (h), __VA_ARGS__                                                                   \
    }

typedef struct FieldError {
    char *path;            /* "containers[0].update.check"; "" is the document */
    char *message;         /* "unknown key \"intervall\"; did you mean \"interval\"?" */
    unsigned line, column; /* 1-based; 0 when unknown */
} FieldError;

typedef struct FieldErrors {
    FieldError *items;
    size_t n;
    bool truncated; /* more than FIELD_ERRORS_MAX: the rest is not kept */
} FieldErrors;

#define FIELD_ERRORS_MAX  200
#define FIELD_ERRORS_MORE "more faults follow; these are the first 200" /* where they are cut */

/* Decodes a document into `object` (zeroed by the caller). Returns 0, or -EINVAL with every fault
 * in `ret_errors`, in the order of the document (then `object` holds what could be decoded: free it
 * all the same). A fault of syntax ends the reading, so that only what stands before it is judged.
 * -ENOMEM. */
int fields_decode(const char *text, size_t size, const Field *fields, FieldObjectCheck check,
                  void *object, FieldErrors *ret_errors) must_check;
/* The same for a value that is already parsed; positions unknown, paths begin with `path`. */
int fields_decode_json(const json_t *value, const char *path, const Field *fields,
                       FieldObjectCheck check, void *object, FieldErrors *ret_errors) must_check;
/* Frees all members that the rows own; their pointers are NULL then. */
void fields_done(const Field *fields, void *object);

typedef enum FieldEncodeFlags {
    FIELD_ENCODE_NO_DEFAULTS = 1 << 0, /* leave out what equals its default */
} FieldEncodeFlags;
/* The object as a document that decodes into the same. Absent members are left out. */
int fields_encode(const Field *fields, const void *object, unsigned flags, json_t **ret) must_check;

/* Judges the rows themselves, nested ones included: names unique, defaults within bounds, help
 * there, and so on. For a unit test of every table. -EINVAL names the row. */
int fields_check_table(const Field *fields, Error *err) must_check;

/* For checks and custom decoders: a fault at the object (or value) in hand, or at a member of it:
 * "name", "ports[2]", "update.check"; NULL is the object itself. Object checks run when rows had
 * faults, too: members may be NULL that are required. */
void field_error(FieldContext *context, const char *member, const char *format, ...)
    printf_like(3, 4);
/* Whether the document has this key in the object in hand (well-formed or not): tells a default
 * from a value that equals it. For object checks. */
bool field_is_given(const FieldContext *context, const char *name);
/* The whole object being decoded at the outermost level. */
void *field_root(FieldContext *context);

void field_errors_done(FieldErrors *errors);
#define auto_field_errors auto_(field_errors_done)
/* "path: message" lines, with "line:column: " first when known and `positions`; the last line says
 * so when there are more than are kept. */
int field_errors_format(const FieldErrors *errors, bool positions, Buf *ret) must_check;
/* The first fault as an Error (INVALID), with the count of the others: "what: path: message (and 3
 * more)". Returns -EINVAL. */
int field_errors_to_error(const FieldErrors *errors, const char *what, Error *err);

/* One more fault from outside a decode; takes nothing. Counts past FIELD_ERRORS_MAX are cut. */
int field_errors_add(FieldErrors *errors, const char *path, unsigned line, unsigned column,
                     const char *format, ...) printf_like(5, 6);
/* By place in the document; those of one place stay in their order. */
void field_errors_sort(FieldErrors *errors);

/* JSON Schema (2020-12) of an object with these rows, without "$schema". Bounds that JSON Schema
 * cannot say (of "10s" and "64MiB") are there as "x-minimum" and "x-maximum". New reference; NULL
 * when memory is out. */
json_t *fields_schema(const Field *fields);
/* The reference part of a manual: one paragraph a field in man(7) markup. `path` comes before every
 * name; "" for none. */
int fields_manual(const Field *fields, const char *path, Buf *ret) must_check;

#endif
