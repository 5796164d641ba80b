/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_ENGINE_INTERNAL_H
#define AGENT_ENGINE_ENGINE_INTERNAL_H

/* One call to the engine, from version negotiation to the caller's handler: engine.c carries it,
 * the files beside it say what to ask and how to read the answer. */

#include "agent/base/list.h"
#include "agent/engine/engine-parse.h"
#include "agent/engine/engine.h"
#include "agent/io/loop.h"

#define ENGINE_CHANGE_TIMEOUT_USEC (2 * MINUTE)  /* create, start: a small VM's disk is slow */
#define ENGINE_REMOVE_TIMEOUT_USEC (10 * MINUTE) /* deleting layers is slower */
#define ENGINE_LIST_BODY_MAX       (32U << 20)

struct Engine {
    HttpClient *http;
    sd_event *event;
    char *socket;
    unsigned api; /* minor version; 0: to be asked */
    unsigned n_pulls;
    uint64_t call_usec, change_usec, pull_first_usec, pull_stall_usec;
    EngineOp *ops; /* pending */
};

/* Reads a 2xx or 304 answer, and ends the operation by engine_op_succeed() or engine_op_fail(). */
typedef void (*EngineAnswered)(EngineOp *op, const HttpResponse *response);

struct EngineOp {
    Engine *engine;
    LIST_FIELDS(EngineOp, ops);
    EngineHandler handler;
    void *userdata;

    char *what; /* "start container web": before every message */
    const char *method;
    char *path;            /* below /v1.NN */
    char *body;            /* cleansed */
    char *auth;            /* X-Registry-Auth, cleansed */
    uint64_t timeout_usec; /* USEC_INFINITY: none */
    size_t max_body;
    HttpBodyHandler on_body;
    EngineAnswered answered;
    /* What 409 means here; 0: -EBUSY. */
    int conflict_code;
    /* May turn a refusal into success, or ask on; true when it ended the operation or will. */
    bool (*refused)(EngineOp *op, const HttpResponse *response, Error *err);
    /* The answer broke off; true when it ended the operation with a better reason. */
    bool (*broken)(EngineOp *op, const Error *http_err);

    /* Before the handler is called, whatever came. */
    void (*ended)(EngineOp *op);

    HttpOp *request;
    bool renegotiated;

    void *state; /* of the kind of operation */
    void (*state_free)(void *state);
};

/* An operation without its details; `what` is copied, `path_format` gives the path. */
int engine_op_new(Engine *engine, const char *method, EngineHandler handler, void *userdata,
                  EngineOp **ret, Error *err) must_check;
int engine_op_describe(EngineOp *op, Error *err, const char *format, ...) printf_like(3, 4)
    must_check;
int engine_op_path(EngineOp *op, Error *err, const char *format, ...) printf_like(3, 4) must_check;
/* Begins, and hands the operation over; the handler is not called before this returns. */
int engine_op_start(EngineOp **op, EngineOp **ret, Error *err) must_check;

/* What an operation on one object of the engine asks: "METHOD /COLLECTION/NAME<rest>". */
typedef struct EngineObject {
    const char *method;
    const char *collection; /* "containers", "images" */
    const char *verb;       /* "start container": for messages */
    const char *name;       /* any name or id; what may not stand in a path is refused (-EINVAL) */
    const char *rest;       /* "/start?t=5" */
} EngineObject;

int engine_op_on(Engine *engine, const EngineObject *object, EngineAnswered answered,
                 EngineHandler handler, void *userdata, EngineOp **ret, Error *err) must_check;
/* Sends the request of `op` again, or another that was put in its place. Ends it on failure. */
void engine_op_send(EngineOp *op);

/* The handler is called: nothing of `op` may be touched afterwards. */
void engine_op_succeed(EngineOp *op, const EngineReply *reply);
/* `err` is emptied; "what: " is put before it. */
void engine_op_fail(EngineOp *op, Error *err);
/* The reply's JSON; on failure the operation has ended and NULL is returned. */
json_t *engine_op_json(EngineOp *op, const HttpResponse *response);

/* An answer that is no success, as the engine explains it. */
int engine_response_error(const HttpResponse *response, int conflict_code, Error *err);
/* No answer: is the socket there, may we use it, does somebody listen? */
int engine_no_answer(Engine *engine, const Error *http_err, Error *err);
/* Reads an image's inspect answer and ends the operation with it. */
void engine_image_answered(EngineOp *op, const HttpResponse *response);
/* Any name that may stand in a path; "" is refused. free() it. */
char *engine_escape_name(const char *name);

/* {"Name":"on-failure","MaximumRetryCount":0}; `max` of ON_FAILURE: 0 no limit. NULL: out of
 * memory.
 */
json_t *engine_restart_json(EngineRestart restart, unsigned max);

/* {"label":["…"],"event":[…]} with `events` NULL-terminated; either may be NULL. free() it. */
char *engine_filters(const char *label, const char *const *events);

/* Which process listens on that TCP port: "nginx (pid 812)". 1 found, 0 not. engine-port.c */
int port_owner(uint16_t port, char **ret);
/* The port that an engine's message about a taken one names; 0: none. */
uint16_t port_in_message(const char *message);

#endif
