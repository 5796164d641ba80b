/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a recipe: refused with faults that have a place, or taken; then its requests can be
 * built and any page moves its cursor towards the end. */

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/extract/extract.h"
#include "crawler/recipe/recipe.h"
#include "tests/fuzz/fuzz.h"

#define NOW INT64_C(1795000000000000)

static void ask(const Recipe *recipe, const char *interval)
{
    RecipeQuery query = {.symbol = "BRK-B", .interval = interval, .now_usec = NOW};
    Cursor cursor = CURSOR_INIT;

    FUZZ_CHECK(recipe_begin(recipe, &query, NOW - 1000 * (int64_t)DAY, INT64_MAX, &cursor, NULL) ==
               0);
    for (int i = 0; i < 20; i++) {
        RecipeRequest request = {0};
        RecipePage page = {
            .n_rows = 10,
            .oldest_usec = NOW - (i + 1) * 50 * (int64_t)DAY,
            .newest_usec = NOW - i * 50 * (int64_t)DAY,
            .newest_final_usec = NOW - i * 50 * (int64_t)DAY,
        };
        int r = recipe_next(recipe, &query, &cursor, &request, NULL);

        if (r <= 0) {
            FUZZ_CHECK(r == -EFBIG || cursor.done || cursor.pages >= recipe->paging.max_pages);
            return;
        }
        FUZZ_CHECK(startswith(request.url, "https://") && request.from_usec <= request.to_usec);
        for (const char *p = request.url; *p; p++)
            FUZZ_CHECK((unsigned char)*p > ' ' && *p != 0x7f);
        (void)recipe_advance(recipe, &query, &page, &cursor);
        recipe_request_done(&request);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char reply[] = "[{\"a\":1},[1,\"2\",null],{\"b\":{\"c\":[]}}]";
    FieldErrors errors = {0};
    ExtractOutcome outcome = {0};
    RowSet rows = {0};
    ExtractRequest request = {.from_usec = CURSOR_NEVER, .to_usec = INT64_MAX, .now_usec = NOW};
    Recipe *recipe = NULL;
    int r;

    extract_init();
    r = recipe_compile((const char *)data, size, "fuzz.json", &recipe, &errors, NULL);
    FUZZ_CHECK(r == 0 ? errors.n == 0 : r == -EINVAL && errors.n > 0 && !recipe);
    if (r == 0) {
        for (size_t i = 0; i < recipe->intervals.n; i++)
            ask(recipe, ((const RecipeInterval *)recipe->intervals.items)[i].key);
        FUZZ_CHECK(extract_run(recipe, &request, reply, sizeof(reply) - 1, 200, NULL, &rows,
                               &outcome, NULL) == 0);
    }
    extract_outcome_done(&outcome);
    row_set_done(&rows);
    field_errors_done(&errors);
    recipe_free(recipe);
    return 0;
}
