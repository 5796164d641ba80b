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
    FIELD_TYPE_ENUM,       /* int, index into `names` */
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
    FIELD_KEY = 1 << 1,      /* names the item: must be unique among its siblings of an array */
    FIELD_NO_EMPTY = 1 << 2, /* "" is refused */
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
    const char *const *names; /* of an enum, NULL-terminated */
    const Field *fields; /* of objects and arrays of objects; ends with a row whose name is NULL */
    const Field *value;  /* of a map: one row for the value */
    size_t item_size;
    FieldStringCheck check; /* strings, elements of STRV, keys of maps */
    FieldObjectCheck check_object;
    const char *pattern; /* the same rule for the JSON Schema, or NULL */
    const struct FieldCustom *custom;
    const char *help; /* one line, for the manual and the schema's description */
};

/* A value that rows cannot say (a string, or an object that names a secret). `schema` returns its
 * JSON Schema. */
typedef struct FieldCustom {
    int (*decode)(FieldContext *context, const json_t *value, void *member);
    json_t *(*schema)(void);
    void (*done)(void *member);
} FieldCustom;

/* Rows are written with these; see agent/plan for examples. */
#define FIELD_AT(type_, member_) .offset = offsetof(type_, member_)
#define FIELD_STRING(n, t, m, d, lo, hi, fl, chk, h)                                               \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_STRING, FIELD_AT(t, m), .fallback = (d), .min = (lo),      \
        .max = (hi), .flags = (fl), .check = (chk), .help = (h)                                    \
    }
#define FIELD_BOOL(n, t, m, d, h)                                                                  \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_BOOL, FIELD_AT(t, m), .fallback = (d), .help = (h)         \
    }
#define FIELD_UINT(n, t, m, d, lo, hi, h)                                                          \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_UINT, FIELD_AT(t, m), .fallback = (d), .min = (lo),        \
        .max = (hi), .help = (h)                                                                   \
    }
#define FIELD_DOUBLE(n, t, m, d, lo, hi, h)                                                        \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_DOUBLE, FIELD_AT(t, m), .fallback = (d),                   \
        .min_double = (lo), .max_double = (hi), .help = (h)                                        \
    }
#define FIELD_DURATION(n, t, m, d, lo, hi, h)                                                      \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_DURATION, FIELD_AT(t, m), .fallback = (d), .min = (lo),    \
        .max = (hi), .help = (h)                                                                   \
    }
#define FIELD_SIZE(n, t, m, d, lo, hi, h)                                                          \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_SIZE, FIELD_AT(t, m), .fallback = (d), .min = (lo),        \
        .max = (hi), .help = (h)                                                                   \
    }
#define FIELD_MODE(n, t, m, d, h)                                                                  \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_MODE, FIELD_AT(t, m), .fallback = (d), .max = 07777,       \
        .help = (h)                                                                                \
    }
#define FIELD_ENUM(n, t, m, d, nm, h)                                                              \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_ENUM, FIELD_AT(t, m), .fallback = (d), .names = (nm),      \
        .help = (h)                                                                                \
    }
#define FIELD_STRV(n, t, m, hi, chk, h)                                                            \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_STRV, FIELD_AT(t, m), .max = (hi), .check = (chk),         \
        .help = (h)                                                                                \
    }
#define FIELD_OBJECT(n, t, m, f, chk, h)                                                           \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_OBJECT, FIELD_AT(t, m), .fields = (f),                     \
        .check_object = (chk), .help = (h)                                                         \
    }
#define FIELD_OBJECT_PTR(n, t, m, it, f, chk, h)                                                   \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_OBJECT_PTR, FIELD_AT(t, m), .item_size = sizeof(it),       \
        .fields = (f), .check_object = (chk), .help = (h)                                          \
    }
#define FIELD_ARRAY(n, t, m, it, f, hi, chk, h)                                                    \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_ARRAY, FIELD_AT(t, m), .item_size = sizeof(it),            \
        .fields = (f), .max = (hi), .check_object = (chk), .help = (h)                             \
    }
#define FIELD_MAP(n, t, m, it, v, hi, chk, h)                                                      \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_MAP, FIELD_AT(t, m), .item_size = sizeof(it),              \
        .value = (v), .max = (hi), .check = (chk), .help = (h)                                     \
    }
#define FIELD_RAW(n, t, m, fl, h)                                                                  \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_RAW, FIELD_AT(t, m), .flags = (fl), .help = (h)            \
    }
#define FIELD_CUSTOM(n, t, m, fl, c, h)                                                            \
    {                                                                                              \
        .name = (n), .type = FIELD_TYPE_CUSTOM, FIELD_AT(t, m), .flags = (fl), .custom = (c),      \
        .help = (h)                                                                                \
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

#define FIELD_ERRORS_MAX 200

/* Decodes a document into `object` (zeroed by the caller; `size` bytes). Returns 0, or -EINVAL with
 * every fault in `ret_errors` (then `object` holds what could be decoded: free it all the same).
 * -ENOMEM. */
int fields_decode(const char *text, size_t size, const Field *fields, FieldObjectCheck check,
                  void *object, FieldErrors *ret_errors) must_check;
/* The same for a value that is already parsed; positions unknown, paths begin with `path`. */
int fields_decode_json(const json_t *value, const char *path, const Field *fields,
                       FieldObjectCheck check, void *object, FieldErrors *ret_errors) must_check;
/* Frees all members that the rows own. */
void fields_done(const Field *fields, void *object);

/* For checks and custom decoders: a fault at the object in hand (+ ".member" when not NULL, or
 * "[i]"). */
void field_error(FieldContext *context, const char *member, const char *format, ...)
    printf_like(3, 4);
/* The whole object being decoded at the outermost level. */
void *field_root(FieldContext *context);

void field_errors_done(FieldErrors *errors);
#define auto_field_errors auto_(field_errors_done)
/* "path: message" lines, with "line:column: " first when known and `positions`. */
int field_errors_format(const FieldErrors *errors, bool positions, Buf *ret) must_check;
/* The first fault as an Error (INVALID), with the count of the others. */
int field_errors_to_error(const FieldErrors *errors, const char *what, Error *err);

/* JSON Schema (2020-12) of an object with these rows. New reference; NULL when memory is out. */
json_t *fields_schema(const Field *fields);
/* The reference part of a manual: one paragraph a field in mdoc/man markup. */
int fields_manual(const Field *fields, const char *path, Buf *ret) must_check;

#endif
