/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_JSON_H
#define AGENT_IO_JSON_H

/* jansson with our limits: depth, size, duplicate keys; and short ways to read what may be absent
 * or of another type. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/error.h"

/* Bytes from a peer. Duplicate keys, trailing bytes, NUL in keys and invalid UTF-8 are refused:
 * CORRUPT, with line and column. `what` names the source. */
int json_parse(const char *data, size_t size, const char *what, json_t **ret, Error *err)
    must_check;
/* As json_parse(), but tells 0 (not JSON) apart from 1 quietly: for error bodies that may be HTML.
 */
int json_parse_quiet(const char *data, size_t size, json_t **ret);

/* Members along a path of keys ended by NULL: json_at(doc, "error", "details", NULL). NULL when any
 * is absent. Borrowed. */
json_t *json_at(const json_t *value, const char *key, ...) __attribute__((sentinel));
/* The string member, or NULL when absent, null or no string. Borrowed. */
const char *json_str(const json_t *object, const char *key);
/* Integer member given as a number or (proto3 int64) as a decimal string. -ENOENT when absent,
 * -EINVAL otherwise. */
int json_u64(const json_t *object, const char *key, uint64_t *ret) must_check;
int json_i64(const json_t *object, const char *key, int64_t *ret) must_check;
/* The object of `list` whose member `key` is that text, in whatever case, as BigQuery's column
 * names are; NULL. */
json_t *json_find(const json_t *list, const char *key, const char *text);
/* Whether the member is there and true. */
bool json_flag(const json_t *object, const char *key);

/* Compact, keys sorted: the canonical form that hashes are made of. NULL when memory is out. free()
 * it. */
char *json_canonical(const json_t *value);
/* For people and for Describe(): indented by 2 when `pretty`. */
char *json_text(const json_t *value, bool pretty);
/* Sets a member, taking `value`; a NULL value is -ENOMEM (so that constructors may be nested). */
int json_put(json_t *object, const char *key, json_t *value) must_check;

/* Overwrites every string in it, and lets it go: for documents that carry secrets. It must not be
 * shared. NULL is nothing. */
void json_cleanse(json_t *value);

#endif
