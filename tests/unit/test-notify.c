/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "agent/agentd/notify.h"
#include "agent/base/str.h"

#define SENTENCE_MAX 2000 /* bytes of an event's own sentence, and the rest of its last character  \
                           */

static void what_a_receiver_would_read_as_markup_is_text(void **state)
{
    auto_free char *line = notify_line(PLAN_LOCALE_EN, NULL, "<!channel> a && b");

    assert_string_equal(line, "• &lt;!channel&gt; a &amp;&amp; b\n");
}

/* `n` bytes of ASCII, then that character over and over. */
static char *sentence(size_t n, const char *character)
{
    char *text = calloc(1, 3 * SENTENCE_MAX);
    size_t size = strlen(character);

    assert_non_null(text);
    memset(text, 'x', n);
    for (; n + size < 3 * SENTENCE_MAX; n += size)
        memcpy(text + n, character, size);
    return text;
}

static void a_long_sentence_is_cut_between_characters(void **state)
{
    static const char *const characters[] = {"y", "\xc3\xa9", "\xea\xb0\x80", "\xf0\x9f\x98\x80"};
    static const char around[] = "• \n";

    for (size_t i = 0; i < ELEMENTS(characters); i++)
        for (size_t before = 0; before < 5; before++) {
            auto_free char *text = sentence(before, characters[i]);
            auto_free char *line = notify_line(PLAN_LOCALE_KO, NULL, text);
            size_t size = strlen(line) - strlen(around);

            if (!str_is_utf8(line, strlen(line)))
                fail_msg("cut in the middle of %s after %zu bytes", characters[i], before);
            assert_true(size >= SENTENCE_MAX && size < SENTENCE_MAX + strlen(characters[i]));
            assert_memory_equal(line + strlen("• "), text, size);
        }
}

TEST_MAIN(cmocka_unit_test(what_a_receiver_would_read_as_markup_is_text),
          cmocka_unit_test(a_long_sentence_is_cut_between_characters))
