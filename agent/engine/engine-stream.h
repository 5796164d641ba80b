/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_ENGINE_STREAM_H
#define AGENT_ENGINE_ENGINE_STREAM_H

/* What the engine streams: JSON objects one after the other, with CR LF, LF or nothing between,
 * split and merged at will on their way. And what a pull's objects mean. Pure: bytes in, state out.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"
#include "agent/engine/engine.h"

#define ENGINE_STREAM_OBJECT_MAX (1U << 20)

typedef struct EngineStream {
    Buf object; /* what is there of the current one */
    unsigned depth;
    bool in_string;
    bool escaped;
} EngineStream;

void engine_stream_init(EngineStream *stream);
void engine_stream_done(EngineStream *stream);
/* `handler` is called for each whole object; its negative return ends the feeding and is returned.
 * -EBADMSG, kind CORRUPT: something that is no object. */
typedef int (*EngineObjectHandler)(const json_t *object, void *userdata, Error *err);
int engine_stream_feed(EngineStream *stream, const void *data, size_t size,
                       EngineObjectHandler handler, void *userdata, Error *err) must_check;
/* Whether it ended between two objects. */
bool engine_stream_is_whole(const EngineStream *stream);

/* ---- Pulls ---------------------------------------------------------------------------------- */

#define ENGINE_PULL_LAYERS_MAX 1000

typedef enum EngineLayerPhase {
    ENGINE_LAYER_WAITING,
    ENGINE_LAYER_DOWNLOADING,
    ENGINE_LAYER_DOWNLOADED,
    ENGINE_LAYER_EXTRACTING,
    ENGINE_LAYER_DONE,
} EngineLayerPhase;

typedef struct EngineLayer {
    char id[16];
    EngineLayerPhase phase;
    uint64_t current, total; /* of the download */
} EngineLayer;

typedef struct EnginePullState {
    EngineLayer *layers;
    size_t n_layers;
    char *error; /* in-band: a pull that failed after its first byte still is an HTTP 200 */
} EnginePullState;

int engine_pull_state_feed(EnginePullState *state, const json_t *object, Error *err) must_check;
void engine_pull_state_progress(const EnginePullState *state, EnginePullProgress *ret);
void engine_pull_state_done(EnginePullState *state);

/* ---- Logs ----------------------------------------------------------------------------------- */

/* The text of a log reply, frame headers taken out where it has them (a container without a
 * terminal), valid UTF-8, control characters escaped; the last `max` bytes. free() it; NULL when
 * memory is out. */
char *engine_log_text(const void *data, size_t size, size_t max);

#endif
