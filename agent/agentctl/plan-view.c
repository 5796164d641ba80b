/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/plan-view.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "agent/io/json.h"

static const char *text_or(const json_t *object, const char *key, const char *otherwise)
{
    const char *text = json_str(object, key);

    return text ? text : otherwise;
}

static int add_refusal(Buf *text, const json_t *refused)
{
    const json_t *errors = json_object_get(refused, "errors"), *item;
    size_t i;
    int r;

    r = buf_printf(text, "\nRefused at %s (SHA-256 %.12s):\n", text_or(refused, "at", "?"),
                   text_or(refused, "sha256", "?"));
    json_array_foreach (errors, i, item) {
        if (r >= 0 && json_is_string(item))
            r = buf_printf(text, "  %s\n", json_string_value(item));
    }
    return r;
}

int plan_view(const json_t *answer, Buf *text)
{
    const json_t *refused = json_object_get(answer, "refused");
    const json_t *document = json_object_get(answer, "document");
    auto_free char *shown = NULL;
    uint64_t generation = 0;
    int r;

    assert(answer && text);

    (void)!json_u64(answer, "generation", &generation);
    if (generation == 0)
        r = buf_add_str(text, "No plan is in force.\n");
    else
        r = buf_printf(text,
                       "Generation %" PRIu64 ", from %s\n"
                       "Accepted %s, %s\n"
                       "SHA-256 %s\n",
                       generation, text_or(answer, "source", "?"),
                       text_or(answer, "accepted_at", "?"), text_or(answer, "outcome", "?"),
                       text_or(answer, "sha256", "?"));
    if (r >= 0 && json_str(answer, "message"))
        r = buf_printf(text, "%s\n", json_str(answer, "message"));
    if (r >= 0 && json_is_object(refused))
        r = add_refusal(text, refused);
    if (r < 0 || !json_is_object(document))
        return r;
    shown = json_text(document, true);
    return shown ? buf_printf(text, "\n%s\n", shown) : -ENOMEM;
}
