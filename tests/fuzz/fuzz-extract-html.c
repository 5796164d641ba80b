/* SPDX-License-Identifier: Apache-2.0 */

/* HTML replies: a table with spacer rows, in CP949. */

#include "tests/fuzz/fuzz-extract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const recipes[] = {"naver-sise-day", NULL};

    return fuzz_extract(recipes, data, size);
}
