/* SPDX-License-Identifier: Apache-2.0 */

/* XML replies: rows split out of an attribute, rows of elements. */

#include "tests/fuzz/fuzz-extract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const recipes[] = {"naver-day", "ecb-fx", NULL};

    return fuzz_extract(recipes, data, size);
}
