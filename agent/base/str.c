/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/str.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <strings.h>

#include "agent/base/buf.h"

#define STR_DISTANCE_MAX 64 /* longer words are compared by their beginning */

bool streq_ptr(const char *a, const char *b)
{
    if (!a || !b)
        return a == b;
    return streq(a, b);
}

const char *startswith(const char *s, const char *prefix)
{
    size_t size = strlen(prefix);

    return strncmp(s, prefix, size) == 0 ? s + size : NULL;
}

const char *startswith_nocase(const char *s, const char *prefix)
{
    size_t size = strlen(prefix);

    return strncasecmp(s, prefix, size) == 0 ? s + size : NULL;
}

const char *endswith(const char *s, const char *suffix)
{
    size_t size = strlen(s), tail = strlen(suffix);

    if (tail > size || !streq(s + size - tail, suffix))
        return NULL;
    return s + size - tail;
}

char *str_printf(const char *format, ...)
{
    char *text;
    va_list args;
    int n;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    return n < 0 ? NULL : text;
}

char *str_join(const char *const *strv, const char *separator)
{
    auto_buf Buf buf = BUF_INIT(SIZE_MAX - 1);

    for (size_t i = 0; strv && strv[i]; i++)
        if ((i > 0 && buf_add_str(&buf, separator) < 0) || buf_add_str(&buf, strv[i]) < 0)
            return NULL;
    return buf_take(&buf);
}

int str_set(char **p, const char *s)
{
    char *copy = NULL;

    if (s) {
        copy = strdup(s);
        if (!copy)
            return -ENOMEM;
    }
    free(*p);
    *p = copy;
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

char *str_strip(char *s)
{
    char *end;

    while (is_blank(*s))
        s++;
    end = s + strlen(s);
    while (end > s && is_blank(end[-1]))
        end--;
    *end = '\0';
    return s;
}

char *str_lower(const char *s)
{
    char *copy = strdup(s);

    for (char *c = copy; c && *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    return copy;
}

/* Length of the well-formed UTF-8 character at `s` (RFC 3629: no overlong forms, no surrogates), 0
 * when there is none. */
static size_t utf8_length(const unsigned char *s, size_t size)
{
    uint32_t code;
    size_t n;

    if (s[0] < 0x80)
        return s[0] != 0;
    if (s[0] >= 0xC2 && s[0] <= 0xDF)
        n = 2;
    else if (s[0] >= 0xE0 && s[0] <= 0xEF)
        n = 3;
    else if (s[0] >= 0xF0 && s[0] <= 0xF4)
        n = 4;
    else
        return 0;
    if (n > size)
        return 0;

    code = s[0] & (0xFFU >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        code = (code << 6) | (s[i] & 0x3FU);
    }
    if ((n == 3 && (code < 0x800 || (code >= 0xD800 && code <= 0xDFFF))) ||
        (n == 4 && (code < 0x10000 || code > 0x10FFFF)))
        return 0;
    return n;
}

bool str_is_utf8(const char *s, size_t size)
{
    for (size_t i = 0; i < size;) {
        size_t n = utf8_length((const unsigned char *)s + i, size - i);

        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

char *str_escape(const char *s, size_t size, size_t max)
{
    auto_buf Buf buf = BUF_INIT(SIZE_MAX - 1);

    for (size_t i = 0; i < size;) {
        const unsigned char *c = (const unsigned char *)s + i;
        size_t n = utf8_length(c, size - i);
        bool control = n == 1 && (*c < 0x20 || *c == 0x7F);
        /* U+0080 to U+009F are control characters too: some terminals obey them. */
        bool c1 = n == 2 && c[0] == 0xC2 && c[1] < 0xA0;

        if (buf.size + MAX_OF(n, (size_t)4) > max) {
            if (buf_add_str(&buf, "…") < 0)
                return NULL;
            break;
        }
        if (n == 0 || control || c1) {
            if (buf_printf(&buf, "\\x%02x", *c) < 0)
                return NULL;
            i++;
        } else {
            if (buf_add(&buf, c, n) < 0)
                return NULL;
            i += n;
        }
    }
    return buf_take(&buf);
}

size_t str_distance(const char *a, const char *b)
{
    size_t rows[3][STR_DISTANCE_MAX + 1];
    size_t na = MIN_OF(strlen(a), (size_t)STR_DISTANCE_MAX);
    size_t nb = MIN_OF(strlen(b), (size_t)STR_DISTANCE_MAX);
    size_t *before = rows[0], *last = rows[1], *row = rows[2];

    for (size_t j = 0; j <= nb; j++) {
        last[j] = j;
        before[j] = j;
    }
    for (size_t i = 1; i <= na; i++) {
        size_t *recycled = before;

        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t cost = a[i - 1] != b[j - 1];
            size_t best = MIN_OF(last[j], row[j - 1]) + 1;

            best = MIN_OF(best, last[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = MIN_OF(best, before[j - 2] + 1);
            row[j] = best;
        }
        before = last;
        last = row;
        row = recycled;
    }
    return last[nb];
}

const char *str_nearest(const char *word, const char *const *candidates, size_t n_candidates)
{
    const char *nearest = NULL;
    size_t best = MAX_OF(strlen(word) / 3, (size_t)1) + 1;

    for (size_t i = 0; i < n_candidates; i++) {
        size_t distance = str_distance(word, candidates[i]);

        if (distance < best) {
            best = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}

char **strv_free(char **strv)
{
    for (size_t i = 0; strv && strv[i]; i++)
        free(strv[i]);
    free(strv);
    return NULL;
}

size_t strv_length(char *const *strv)
{
    size_t n = 0;

    while (strv && strv[n])
        n++;
    return n;
}

char **strv_copy(char *const *strv)
{
    size_t n = strv_length(strv);
    auto_(strv_freep) char **copy = calloc(n + 1, sizeof(char *));

    if (!copy)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        copy[i] = strdup(strv[i]);
        if (!copy[i])
            return NULL;
    }
    return take_ptr(copy);
}

bool strv_contains(char *const *strv, const char *s)
{
    STRV_FOREACH (i, strv)
        if (streq(*i, s))
            return true;
    return false;
}

int strv_push(char ***strv, const char *s)
{
    size_t n = strv_length(*strv);
    auto_free char *copy = strdup(s);
    char **grown;

    if (!copy)
        return -ENOMEM;
    grown = reallocarray(*strv, n + 2, sizeof(char *));
    if (!grown)
        return -ENOMEM;
    grown[n] = take_ptr(copy);
    grown[n + 1] = NULL;
    *strv = grown;
    return 0;
}

char **str_split(const char *s, const char *separators)
{
    auto_(strv_freep) char **strv = calloc(1, sizeof(char *));

    if (!strv)
        return NULL;
    for (s += strspn(s, separators); *s; s += strspn(s, separators)) {
        size_t size = strcspn(s, separators);
        auto_free char *piece = strndup(s, size);

        if (!piece || strv_push(&strv, piece) < 0)
            return NULL;
        s += size;
    }
    return take_ptr(strv);
}
