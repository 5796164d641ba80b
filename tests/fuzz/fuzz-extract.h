/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_FUZZ_EXTRACT_H
#define TESTS_FUZZ_FUZZ_EXTRACT_H

/* Any bytes as the reply of a source: one program a format, each with the built-in recipes of that
 * format. */

#include "agent/base/str.h"
#include "crawler/extract/extract.h"
#include "crawler/recipe/recipe.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/extract-check.h"

#define FUZZ_RECIPES_MAX 4

static inline int fuzz_extract(const char *const *names, const uint8_t *data, size_t size)
{
    static Recipe *recipes[FUZZ_RECIPES_MAX];
    static RowSet rows;
    static Buf line;
    static const long statuses[] = {200, 404};

    if (!recipes[0]) {
        const char *srcdir = getenv("srcdir");
        char *dir = str_printf("%s/crawler/recipe", srcdir ? srcdir : ".");

        FUZZ_CHECK(dir && setenv("MERVIS_RECIPES_DIR", dir, 1) == 0);
        free(dir);
        extract_init();
        line = BUF_INIT(1 << 20);
        for (size_t i = 0; names[i]; i++)
            FUZZ_CHECK(recipe_load(names[i], &recipes[i], NULL) == 0);
    }
    for (size_t i = 0; names[i]; i++)
        for (size_t s = 0; s < ELEMENTS(statuses); s++) {
            ExtractRequest request = {
                .symbol = s ? "AAPL" : NULL,
                .interval = s ? "1d" : NULL,
                .from_usec = CURSOR_NEVER,
                .to_usec = INT64_MAX,
                .now_usec = INT64_C(1795000000000000),
            };
            ExtractOutcome outcome = {0};
            const char *fault;

            row_set_clear(&rows);
            FUZZ_CHECK(extract_run(recipes[i], &request, data, size, statuses[s], NULL, &rows,
                                   &outcome, NULL) == 0);
            fault = extract_fault(&rows, &outcome, &line);
            if (fault)
                (void)fprintf(stderr, "%s: %s\n", names[i], fault);
            FUZZ_CHECK(!fault);
            extract_outcome_done(&outcome);
        }
    return 0;
}

#endif
