/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

/* What every fuzz-NAME.c includes. It must take any bytes, end soon, leave nothing behind, and
 * check that what it got makes sense: a parser that only does not crash is half tested. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The recipes of the sources, which ship with us, and none of the machine's. For programs that load
 * them by name. */
static inline __attribute__((unused)) void fuzz_use_built_in_recipes(void)
{
    const char *srcdir = getenv("srcdir");
    char path[4096];

    if (getenv("MERVIS_RECIPES_DIR"))
        return;
    (void)snprintf(path, sizeof(path), "%s/crawler/recipe", srcdir ? srcdir : ".");
    (void)setenv("MERVIS_RECIPES_DIR", path, 1);
}

/* What must hold for every input. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
