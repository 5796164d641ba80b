/* SPDX-License-Identifier: Apache-2.0 */

/* Quasi-JSON replies. */

#include "tests/fuzz/fuzz-extract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const recipes[] = {"naver-sise-json", NULL};

    return fuzz_extract(recipes, data, size);
}
