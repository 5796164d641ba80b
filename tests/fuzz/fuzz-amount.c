/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a number: what is taken has a canonical text that reads back to the same amount. */

#include <errno.h>

#include "crawler/model/amount.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (unsigned flags = 0; flags < 16; flags++)
        for (unsigned wide = 0; wide < 2; wide++) {
            unsigned scale = wide ? AMOUNT_SCALE_MAX : AMOUNT_SCALE_NUMERIC;
            Amount amount, again;
            char text[AMOUNT_TEXT_MAX];
            size_t n;
            int r = amount_parse((const char *)data, size, flags, scale, &amount);

            FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ERANGE);
            if (r < 0)
                continue;
            FUZZ_CHECK(amount_fits(&amount, scale));
            n = amount_format(&amount, text);
            FUZZ_CHECK(n > 0 && n < AMOUNT_TEXT_MAX && text[n - 1] != '.');
            FUZZ_CHECK(amount_parse(text, n, 0, scale, &again) == 0);
            FUZZ_CHECK(amount_equal(&amount, &again) && amount_compare(&amount, &again) == 0);
        }
    return 0;
}
