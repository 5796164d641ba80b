/* SPDX-License-Identifier: Apache-2.0 */

/* JSON replies: parallel arrays, rows of objects, rows of arrays. */

#include "tests/fuzz/fuzz-extract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const recipes[] = {"yahoo-chart", "upbit-candles", "binance-klines", NULL};

    return fuzz_extract(recipes, data, size);
}
