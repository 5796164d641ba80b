/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/engine-stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/io/json.h"

#define ERROR_SHOWN_MAX 1000
#define LOG_FRAME_SIZE  8

void engine_stream_init(EngineStream *stream)
{
    *stream = (EngineStream){.object = BUF_INIT(ENGINE_STREAM_OBJECT_MAX)};
}

void engine_stream_done(EngineStream *stream)
{
    buf_done(&stream->object);
}

bool engine_stream_is_whole(const EngineStream *stream)
{
    return stream->depth == 0 && stream->object.size == 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Follows one byte of an object; whether it was the last one. */
static bool step(EngineStream *stream, char c)
{
    if (stream->in_string) {
        if (stream->escaped)
            stream->escaped = false;
        else if (c == '\\')
            stream->escaped = true;
        else if (c == '"')
            stream->in_string = false;
        return false;
    }

    if (c == '"') {
        stream->in_string = true;
    } else if (c == '{' || c == '[') {
        stream->depth++;
    } else if (c == '}' || c == ']') {
        stream->depth--;
        return stream->depth == 0;
    }

    return false;
}

static int hand_over(EngineStream *stream, EngineObjectHandler handler, void *userdata, Error *err)
{
    json_auto_t *object = NULL;
    int r;

    r = json_parse(buf_str(&stream->object), stream->object.size, "engine stream", &object, err);
    buf_clear(&stream->object);
    if (r < 0)
        return r;

    return handler(object, userdata, err);
}

int engine_stream_feed(EngineStream *stream, const void *data, size_t size,
                       EngineObjectHandler handler, void *userdata, Error *err)
{
    const char *bytes = data;
    size_t from = 0; /* of the bytes not yet kept */
    int r;

    for (size_t i = 0; i < size; i++) {
        if (stream->depth == 0) {
            if (is_blank(bytes[i])) {
                from = i + 1;
                continue;
            }
            if (bytes[i] != '{')
                return error_set(err, -EBADMSG, ERROR_CORRUPT,
                                 "engine stream: a JSON object is expected, not byte 0x%02x",
                                 (unsigned char)bytes[i]);
            from = i;
        }
        if (!step(stream, bytes[i]))
            continue;

        r = buf_add(&stream->object, bytes + from, i + 1 - from);
        from = i + 1;
        if (r >= 0)
            r = hand_over(stream, handler, userdata, err);
        else
            r = error_set(err, r, ERROR_CORRUPT, "engine stream: an object is too large");
        if (r < 0)
            return r;
    }

    r = buf_add(&stream->object, bytes + from, size - from);
    if (r < 0)
        return error_set(err, r, ERROR_CORRUPT, "engine stream: an object is too large");

    return 0;
}

/* ---- Pulls ---------------------------------------------------------------------------------- */

static const struct {
    const char *status;
    EngineLayerPhase phase;
} phases[] = {
    {"Pulling fs layer", ENGINE_LAYER_WAITING},     {"Waiting", ENGINE_LAYER_WAITING},
    {"Downloading", ENGINE_LAYER_DOWNLOADING},      {"Verifying Checksum", ENGINE_LAYER_DOWNLOADED},
    {"Download complete", ENGINE_LAYER_DOWNLOADED}, {"Extracting", ENGINE_LAYER_EXTRACTING},
    {"Pull complete", ENGINE_LAYER_DONE},           {"Already exists", ENGINE_LAYER_DONE},
};

static EngineLayer *find_layer(EnginePullState *state, const char *id)
{
    EngineLayer *layers;

    for (size_t i = 0; i < state->n_layers; i++)
        if (streq(state->layers[i].id, id))
            return &state->layers[i];

    if (strlen(id) >= sizeof(state->layers->id) || state->n_layers == ENGINE_PULL_LAYERS_MAX)
        return NULL;
    layers = reallocarray(state->layers, state->n_layers + 1, sizeof(*layers));
    if (!layers)
        return NULL;
    state->layers = layers;
    layers = &layers[state->n_layers++];
    *layers = (EngineLayer){0};
    memcpy(layers->id, id, strlen(id) + 1);

    return layers;
}

static void feed_layer(EnginePullState *state, const json_t *object)
{
    const char *status = json_str(object, "status"), *id = json_str(object, "id");
    const json_t *detail = json_object_get(object, "progressDetail");
    EngineLayer *layer;
    uint64_t current = 0, total = 0;
    size_t i = 0;

    if (!status || !id)
        return;
    while (i < ELEMENTS(phases) && !streq(status, phases[i].status))
        i++;
    if (i == ELEMENTS(phases)) /* "Pulling from …", and what later engines invent */
        return;
    layer = find_layer(state, id);
    if (!layer)
        return;

    /* Downloads are tried again by the engine: a phase may go back. */
    layer->phase = phases[i].phase;
    (void)(json_u64(detail, "current", &current) + json_u64(detail, "total", &total));
    if (layer->phase == ENGINE_LAYER_DOWNLOADING) {
        layer->current = current;
        layer->total = MAX_OF(total, current);
    } else if (layer->phase > ENGINE_LAYER_DOWNLOADING) {
        layer->current = layer->total;
    }
}

/* errorDetail first: "error" is deprecated, and one day gone. */
static const char *error_of(const json_t *object)
{
    const char *message = json_str(json_object_get(object, "errorDetail"), "message");

    return message ? message : json_str(object, "error");
}

int engine_pull_state_feed(EnginePullState *state, const json_t *object, Error *err)
{
    const char *message = error_of(object);

    if (message && !state->error) {
        state->error = str_escape(message, strlen(message), ERROR_SHOWN_MAX);
        if (!state->error)
            return error_oom(err);
    }
    feed_layer(state, object);

    return 0;
}

void engine_pull_state_progress(const EnginePullState *state, EnginePullProgress *ret)
{
    EnginePullProgress progress = {0};
    bool all_here = state->n_layers > 0;

    for (size_t i = 0; i < state->n_layers; i++) {
        const EngineLayer *layer = &state->layers[i];

        progress.layers++;
        progress.layers_done += layer->phase == ENGINE_LAYER_DONE;
        (void)__builtin_add_overflow(progress.current_bytes, layer->current,
                                     &progress.current_bytes);
        (void)__builtin_add_overflow(progress.total_bytes, layer->total, &progress.total_bytes);
        all_here = all_here && layer->phase >= ENGINE_LAYER_DOWNLOADED;
    }
    progress.extracting = all_here && progress.layers_done < progress.layers;

    *ret = progress;
}

void engine_pull_state_done(EnginePullState *state)
{
    free(state->layers);
    free(state->error);
    *state = (EnginePullState){0};
}

/* ---- Logs ----------------------------------------------------------------------------------- */

/* A frame: stream (0, 1, 2), three zeros, the size big-endian. Text of a terminal has none. */
static bool frame_size(const unsigned char *data, size_t size, size_t *ret)
{
    if (size < LOG_FRAME_SIZE || data[0] > 2 || data[1] || data[2] || data[3])
        return false;

    *ret = (size_t)data[4] << 24 | (size_t)data[5] << 16 | (size_t)data[6] << 8 | data[7];
    return true;
}

static int unframe(const unsigned char *data, size_t size, Buf *ret)
{
    size_t frame = 0;
    int r;

    if (!frame_size(data, size, &frame))
        return buf_add(ret, data, size);

    for (size_t at = 0; frame_size(data + at, size - at, &frame);) {
        at += LOG_FRAME_SIZE;
        frame = MIN_OF(frame, size - at); /* the reply was cut */
        r = buf_add(ret, data + at, frame);
        if (r < 0)
            return r;
        at += frame;
    }

    return 0;
}

char *engine_log_text(const void *data, size_t size, size_t max)
{
    auto_buf Buf raw = BUF_INIT(size + 1);
    auto_buf Buf text = BUF_INIT(SIZE_MAX / 2);
    const char *line, *end;

    if (unframe(data, size, &raw) < 0)
        return NULL;
    if (raw.size > max)
        buf_consume(&raw, raw.size - max);

    /* Line by line: newlines are kept, the rest of the control characters is not. */
    line = buf_str(&raw);
    end = line + raw.size;
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t length = newline ? (size_t)(newline - line) : (size_t)(end - line);
        size_t shown = length > 0 && line[length - 1] == '\r' ? length - 1 : length;
        auto_free char *escaped = str_escape(line, shown, 4 * shown + 4);

        if (!escaped || buf_add_str(&text, escaped) < 0 ||
            (newline && buf_add_char(&text, '\n') < 0))
            return NULL;
        line += length + (newline ? 1 : 0);
    }

    return buf_take(&text);
}
