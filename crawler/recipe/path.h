/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_RECIPE_PATH_H
#define CRAWLER_RECIPE_PATH_H

/* Where something is in a JSON document: "chart.result[0].meta.currency", "[]" (each element),
 * "events.dividends.*" (each member), "[1]", "" (the value itself). A key with other characters
 * than letters, digits, '_' and '-' is quoted: "rates.'US.D'". */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/cleanup.h"

typedef enum PathStepKind {
    PATH_KEY,
    PATH_INDEX,
    PATH_EACH_ELEMENT,
    PATH_EACH_MEMBER,
} PathStepKind;

typedef struct PathStep {
    PathStepKind kind;
    char *key;
    uint32_t index;
} PathStep;

typedef struct RecipePath {
    PathStep *steps;
    size_t n;
} RecipePath;

/* Returns NULL on success, else what is wrong with the text ("memory is out" included). */
const char *path_parse(const char *text, RecipePath **ret);
RecipePath *path_free(RecipePath *path);
DEFINE_AUTO(RecipePath, path_free)
/* Whether it may name several values. */
bool path_is_many(const RecipePath *path);

#endif
