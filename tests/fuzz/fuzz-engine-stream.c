/* SPDX-License-Identifier: Apache-2.0 */

/* The engine's streams and replies. The first byte says in pieces of how many bytes they arrive:
 * however they are cut, the same objects come out. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/engine-parse.h"
#include "agent/engine/engine-stream.h"
#include "tests/fuzz/fuzz.h"

typedef struct Seen {
    size_t n;
    EnginePullState pull;
} Seen;

static void check_reply(json_t *value, int (*parse)(json_t *value, EngineDoc *ret, Error *err))
{
    auto_(engine_doc_done) EngineDoc doc = {0};

    if (parse(json_incref(value), &doc, NULL) < 0)
        return;
    for (size_t i = 0; i < doc.n_containers; i++) {
        auto_free char *text = engine_container_explain_exit(&doc.containers[i]);

        FUZZ_CHECK(text && doc.containers[i].id && doc.containers[i].name);
        FUZZ_CHECK(engine_state_name(doc.containers[i].state));
    }
    for (size_t i = 0; i < doc.n_images; i++)
        FUZZ_CHECK(doc.images[i].id && doc.images[i].repo_tags && doc.images[i].repo_digests);
}

static int on_object(const json_t *object, void *userdata, Error *err)
{
    json_t *value = (json_t *)(uintptr_t)object;
    auto_(engine_doc_done) EngineDoc doc = {0};
    json_t *list = json_pack("[O]", value);
    EngineEvent event = {0};
    Seen *seen = userdata;

    seen->n++;
    FUZZ_CHECK(json_is_object(object));
    if (engine_event_parse(object, &doc, &event) > 0)
        FUZZ_CHECK(event.container_id && event.action && event.name);
    check_reply(value, engine_parse_info);
    check_reply(value, engine_parse_container);
    check_reply(value, engine_parse_image);
    check_reply(list, engine_parse_container_list);
    check_reply(list, engine_parse_image_list);
    json_decref(list);

    return engine_pull_state_feed(&seen->pull, object, err);
}

static int feed(const char *data, size_t size, size_t piece, Seen *seen, bool *ret_whole)
{
    EngineStream stream;
    int r = 0;

    engine_stream_init(&stream);
    for (size_t at = 0; r >= 0 && at < size; at += piece)
        r = engine_stream_feed(&stream, data + at, MIN_OF(piece, size - at), on_object, seen, NULL);
    *ret_whole = engine_stream_is_whole(&stream);
    engine_stream_done(&stream);

    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Seen whole = {0}, pieces = {0};
    bool ends_whole = false, ends_in_pieces = false;
    auto_free char *log = NULL;
    EnginePullProgress progress;
    const char *text;
    int r;

    if (size == 0)
        return 0;
    text = (const char *)data + 1;
    size--;

    r = feed(text, size, size ? size : 1, &whole, &ends_whole);
    FUZZ_CHECK(r == feed(text, size, (size_t)data[0] + 1, &pieces, &ends_in_pieces));
    FUZZ_CHECK(whole.n == pieces.n && ends_whole == ends_in_pieces);
    FUZZ_CHECK(streq_ptr(whole.pull.error, pieces.pull.error));
    engine_pull_state_progress(&whole.pull, &progress);
    FUZZ_CHECK(progress.layers_done <= progress.layers);
    engine_pull_state_done(&whole.pull);
    engine_pull_state_done(&pieces.pull);

    log = engine_log_text(text, size, 4096);
    FUZZ_CHECK(log && str_is_utf8(log, strlen(log)));

    return 0;
}
