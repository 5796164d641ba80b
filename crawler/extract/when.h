/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_EXTRACT_WHEN_H
#define CRAWLER_EXTRACT_WHEN_H

/* The text of a time, in the form that a recipe says. Private to crawler/extract. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crawler/model/zone.h"
#include "crawler/recipe/recipe.h"

typedef struct When {
    int64_t ts_usec;
    bool has_date; /* the source named the trade date itself */
    int32_t date;
} When;

/* The whole text or -EINVAL. `zone` is that of local times. */
int when_parse(const RecipeColumn *column, const Zone *zone, const char *text, size_t size,
               When *ret) must_check;

#endif
