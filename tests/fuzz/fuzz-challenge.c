/* SPDX-License-Identifier: Apache-2.0 */

/* WWW-Authenticate: one header a line, as a registry may send several. A line that is refused
 * leaves the list as it was. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/challenge.h"
#include "tests/fuzz/fuzz.h"

static void check_lower(const char *word)
{
    FUZZ_CHECK(word && word[0]);
    for (; *word; word++)
        FUZZ_CHECK(!(*word >= 'A' && *word <= 'Z') && *word > ' ');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_free char *text = strndup((const char *)data, size);
    auto_(challenges_done) Challenges list = {0};

    for (char *line = text, *next; line; line = next) {
        size_t before = list.n_items;

        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (challenges_parse(line, &list, NULL) < 0)
            FUZZ_CHECK(list.n_items == before);
    }

    FUZZ_CHECK(list.n_items <= CHALLENGES_MAX);
    for (size_t i = 0; i < list.n_items; i++) {
        const Challenge *challenge = &list.items[i];

        check_lower(challenge->scheme);
        FUZZ_CHECK(challenges_find(&list, challenge->scheme));
        FUZZ_CHECK(!challenge->token68 || challenge->n_params == 0);
        FUZZ_CHECK(challenge->n_params <= CHALLENGE_PARAMS_MAX);
        for (size_t k = 0; k < challenge->n_params; k++) {
            check_lower(challenge->params[k].name);
            FUZZ_CHECK(challenge->params[k].value);
            FUZZ_CHECK(challenge_param(challenge, challenge->params[k].name));
        }
    }

    return 0;
}
