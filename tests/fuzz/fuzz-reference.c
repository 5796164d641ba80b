/* SPDX-License-Identifier: Apache-2.0 */

/* What is taken as an image reference has a canonical text, and that text reads as the same
 * reference again. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/reference.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_free char *text = strndup((const char *)data, size);
    auto_free char *canonical = NULL, *again = NULL;
    auto_(reference_freep) Reference *reference = NULL;
    auto_(reference_freep) Reference *second = NULL;
    auto_error Error err = {0};

    if (!text)
        return 0;
    if (reference_parse(text, &reference, &err) < 0) {
        FUZZ_CHECK(!reference && err.kind == ERROR_INVALID && err.message);
        return 0;
    }

    canonical = reference_text(reference);
    FUZZ_CHECK(canonical && str_is_utf8(canonical, strlen(canonical)));
    FUZZ_CHECK(reference->tag || reference->digest);
    FUZZ_CHECK(!reference->tag || strlen(reference->tag) <= REFERENCE_TAG_MAX);
    FUZZ_CHECK(!reference->digest || digest_is_valid(reference->digest));
    FUZZ_CHECK(reference->host[0] && reference->path[0]);
    FUZZ_CHECK(reference_parse(canonical, &second, NULL) == 0);
    again = reference_text(second);
    FUZZ_CHECK(again && streq(canonical, again));
    FUZZ_CHECK(reference_same_repository(reference, second));
    FUZZ_CHECK(reference_host_is_loopback(reference) == reference_host_is_loopback(second));

    return 0;
}
