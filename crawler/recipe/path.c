/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/recipe/path.h"

#include <string.h>

#define PATH_STEPS_MAX 32
#define PATH_INDEX_MAX 100000

RecipePath *path_free(RecipePath *path)
{
    if (!path)
        return NULL;
    for (size_t i = 0; i < path->n; i++)
        free(path->steps[i].key);
    free(path->steps);
    free(path);
    return NULL;
}

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

/* "]" or "12]" after the bracket. */
static const char *read_bracket(const char **p, PathStep *step)
{
    uint32_t index = 0;

    if (**p == ']') {
        (*p)++;
        step->kind = PATH_EACH_ELEMENT;
        return NULL;
    }
    if (**p < '0' || **p > '9')
        return "expected a number or ']' after '['";
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        index = index * 10 + (uint32_t)(**p - '0');
        if (index > PATH_INDEX_MAX)
            return "the index is too large";
    }
    if (*(*p)++ != ']')
        return "expected ']' after the index";
    step->kind = PATH_INDEX;
    step->index = index;
    return NULL;
}

static const char *read_key(const char **p, PathStep *step)
{
    const char *start = *p;
    size_t size;

    if (*start == '*') {
        (*p)++;
        step->kind = PATH_EACH_MEMBER;
        return NULL;
    }
    if (*start == '\'') {
        const char *end = strchr(++start, '\'');

        if (!end)
            return "a quoted key has no end";
        size = (size_t)(end - start);
        *p = end + 1;
    } else {
        while (is_key_char(**p))
            (*p)++;
        size = (size_t)(*p - start);
    }
    if (size == 0)
        return "expected a key";
    step->kind = PATH_KEY;
    step->key = strndup(start, size);
    return step->key ? NULL : "memory is out";
}

const char *path_parse(const char *text, RecipePath **ret)
{
    auto_(path_freep) RecipePath *path = NULL;
    const char *fault = NULL, *p = text;

    path = calloc(1, sizeof(*path));
    if (path)
        path->steps = calloc(PATH_STEPS_MAX, sizeof(*path->steps));
    if (!path || !path->steps)
        return "memory is out";

    while (*p && !fault) {
        if (path->n == PATH_STEPS_MAX)
            return "too many steps";
        if (*p == '[') {
            p++;
            fault = read_bracket(&p, &path->steps[path->n]);
        } else {
            if (path->n > 0 && *p++ != '.')
                return "expected '.' or '[' between steps";
            fault = read_key(&p, &path->steps[path->n]);
        }
        if (!fault)
            path->n++;
    }
    if (fault)
        return fault;
    *ret = take_ptr(path);
    return NULL;
}

bool path_is_many(const RecipePath *path)
{
    for (size_t i = 0; i < path->n; i++)
        if (path->steps[i].kind == PATH_EACH_ELEMENT || path->steps[i].kind == PATH_EACH_MEMBER)
            return true;
    return false;
}
