/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_ENGINE_PARSE_H
#define AGENT_ENGINE_ENGINE_PARSE_H

/* The engine's JSON as our structs. Unknown members are ignored; null, [] and absent are one: other
 * versions and Podman differ there. Strings are borrowed from the document, which an EngineDoc
 * holds with all that was made of it. */

#include <jansson.h>

#include "agent/base/error.h"
#include "agent/engine/engine.h"

typedef struct EngineDoc {
    json_t *doc;
    EngineInfo info;
    EngineContainer *containers;
    size_t n_containers;
    EngineImage *images;
    size_t n_images;
    char **escaped; /* strings that had to be made */
    void **arrays;  /* to free */
    size_t n_arrays;
} EngineDoc;

void engine_doc_done(EngineDoc *doc);

/* Each takes `value` whether it succeeds or not. CORRUPT when it is of another shape. */
int engine_parse_info(json_t *value, EngineDoc *ret, Error *err) must_check;
int engine_parse_container_list(json_t *value, EngineDoc *ret, Error *err) must_check;
int engine_parse_container(json_t *value, EngineDoc *ret, Error *err) must_check;
int engine_parse_image_list(json_t *value, EngineDoc *ret, Error *err) must_check;
int engine_parse_image(json_t *value, EngineDoc *ret, Error *err) must_check;

/* An object of strings as pairs; the array belongs to `doc`. Members of other types are left out.
 */
int engine_parse_pairs(EngineDoc *doc, const json_t *object, const EnginePair **ret, size_t *ret_n)
    must_check;

/* One object of the event stream: 1 a container's event, 0 something else. Borrowed from both. */
int engine_event_parse(const json_t *object, EngineDoc *doc, EngineEvent *ret) must_check;

/* What an engine says in words, as a code and a kind, with the remedy where one is known. There is
 * no other way to tell "no space left on device" from a bad image within an HTTP 500 or a stream.
 * Returns the code; `fallback` and TEMPORARY where the words are not known. */
int engine_explain_text(const char *text, int fallback, Error *err);

#endif
