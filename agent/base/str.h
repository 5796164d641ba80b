/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_STR_H
#define AGENT_BASE_STR_H

/* Strings and NULL-terminated string vectors. What allocates returns NULL when memory is out. */

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "agent/base/cleanup.h"

static inline bool streq(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* NULL equals NULL and nothing else. */
bool streq_ptr(const char *a, const char *b);
static inline bool str_is_empty(const char *s)
{
    return !s || !*s;
}

/* What follows the prefix, or NULL. */
const char *startswith(const char *s, const char *prefix);
const char *startswith_nocase(const char *s, const char *prefix);
/* Where the suffix begins, or NULL. */
const char *endswith(const char *s, const char *suffix);

char *str_printf(const char *format, ...) printf_like(1, 2);
/* Joins with `separator`; an empty vector gives "". */
char *str_join(const char *const *strv, const char *separator);
/* Replaces *p by a copy of `s` (NULL allowed); -ENOMEM leaves *p alone. */
int str_set(char **p, const char *s) must_check;
/* White space at both ends cut; works in place, returns inside `s`. */
char *str_strip(char *s);
/* Copy in lower case (ASCII only; locale does not matter). */
char *str_lower(const char *s);

/* Valid UTF-8 without NUL; overlong forms and surrogates are refused. */
bool str_is_utf8(const char *s, size_t size);
/* Printable for a terminal and the journal: control characters and invalid UTF-8 become "\xNN", cut
 * after `max` bytes. */
char *str_escape(const char *s, size_t size, size_t max);

/* Damerau-Levenshtein distance, for "did you mean". */
size_t str_distance(const char *a, const char *b);
/* The candidate nearest to `word` if near enough to be meant (a third of its length), else NULL. */
const char *str_nearest(const char *word, const char *const *candidates, size_t n_candidates);

/* Vectors. */
char **strv_free(char **strv);
DEFINE_AUTO(char *, strv_free)
size_t strv_length(char *const *strv);
char **strv_copy(char *const *strv);
bool strv_contains(char *const *strv, const char *s);
/* Appends a copy; -ENOMEM leaves the vector whole. */
int strv_push(char ***strv, const char *s) must_check;
/* Splits at any of `separators`, empty pieces left out. */
char **str_split(const char *s, const char *separators);

#define STRV_FOREACH(s, strv) for (char *const *s = (strv); s && *s; s++)

#endif
