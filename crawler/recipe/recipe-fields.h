/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_RECIPE_RECIPE_FIELDS_H
#define CRAWLER_RECIPE_RECIPE_FIELDS_H

/* The rows that a recipe is decoded by: its reference. Private to crawler/recipe. */

#include "agent/io/fields.h"

extern const Field recipe_fields[];

/* Placeholders of a URL or header template, for its check and its filling. */
const char *recipe_template_fault(const char *text);

#endif
