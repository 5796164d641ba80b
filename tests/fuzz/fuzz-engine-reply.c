/* SPDX-License-Identifier: Apache-2.0 */

/* The container engine's answers, byte for byte, on its unix socket: the version that it offers,
 * lists, inspects, a pull's stream, logs, events, refusals. The first byte chooses the call. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/engine.h"
#include "tests/fuzz/peer.h"

static void on_reply(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    bool *done = userdata;

    FUZZ_CHECK(!*done && !reply == !!err);
    *done = true;
    if (err) {
        FUZZ_CHECK(err->code < 0 && err->message &&
                   str_is_utf8(err->message, strlen(err->message)));
        return;
    }
    for (size_t i = 0; i < reply->n_containers; i++) {
        auto_free char *text = engine_container_explain_exit(&reply->containers[i]);

        FUZZ_CHECK(text && reply->containers[i].id && reply->containers[i].name);
    }
    for (size_t i = 0; i < reply->n_images; i++)
        FUZZ_CHECK(reply->images[i].id && reply->images[i].repo_tags);
    if (reply->text)
        FUZZ_CHECK(str_is_utf8(reply->text, strlen(reply->text)));
}

static void on_event(const EngineEvent *event, void *userdata)
{
    FUZZ_CHECK(event->container_id && event->action && event->name);
}

static void on_up(void *userdata)
{
}

static void on_down(const Error *err, void *userdata)
{
    FUZZ_CHECK(err->code < 0 && err->message);
    *(bool *)userdata = true;
}

static int pull(Engine *engine, bool *done, EngineOp **ret)
{
    auto_(reference_freep) Reference *reference = NULL;

    FUZZ_CHECK(reference_parse("registry.example/p/app:stable", &reference, NULL) >= 0);
    const EnginePull what = {.reference = reference, .username = "u", .password = "p"};
    return engine_pull(engine, &what, on_reply, done, ret, NULL);
}

static int begin(Engine *engine, unsigned call, bool *done, EngineOp **ret)
{
    switch (call) {
    case 0:
        return engine_info(engine, on_reply, done, ret, NULL);
    case 1:
        return engine_list_containers(engine, "io.mervis.container", on_reply, done, ret, NULL);
    case 2:
        return engine_inspect_container(engine, "web", on_reply, done, ret, NULL);
    case 3:
        return engine_list_images(engine, on_reply, done, ret, NULL);
    case 4:
        return engine_inspect_image(engine, "web", on_reply, done, ret, NULL);
    case 5:
        return pull(engine, done, ret);
    case 6:
        return engine_container_logs(engine, "web", 20, on_reply, done, ret, NULL);
    case 7:
        return engine_remove_image(engine, "web", on_reply, done, ret, NULL);
    case 8:
        return engine_wait_container(engine, "web", on_reply, done, ret, NULL);
    default:
        return engine_start_container(engine, "web", on_reply, done, ret, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const EngineEventsHandlers handlers = {on_event, on_up, on_down};
    EngineEvents *events = NULL;
    Engine *engine = NULL;
    EngineOp *op = NULL;
    bool done = false;
    Peer peer;
    int r;

    if (size == 0)
        return 0;
    peer_init(&peer, data + 1, size - 1);
    FUZZ_CHECK(engine_new(peer.client, peer.event, peer.socket_path, &engine, NULL) >= 0);
    if (data[0] % 11 == 10)
        r = engine_events_new(engine, NULL, &handlers, &done, &events, NULL);
    else
        r = begin(engine, data[0] % 11, &done, &op);
    if (r >= 0)
        peer_run(&peer, &done);
    op = engine_op_free(op);
    events = engine_events_free(events);
    engine = engine_free(engine);
    peer_done(&peer);
    return 0;
}
