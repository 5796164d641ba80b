/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTD_STATE_H
#define AGENT_AGENTD_STATE_H

/* state.db: accepted plans, the last refused one, events, and the tables of the resources. It
 * belongs to one instance: another instance id (an image cloned from a running VM) starts anew. A
 * file that cannot be read is moved aside; what matters is found again in the engine and the
 * system. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/error.h"
#include "agent/base/log.h"
#include "agent/io/db.h"

#define STATE_FILE_NAME       "state.db"
#define STATE_EVENTS_MAX      500
#define STATE_GENERATIONS_MAX 20

typedef struct State {
    Db *db;
    bool rebuilt; /* the former file was unreadable and lies beside it */
    char *rebuilt_why;
    Error trouble; /* why the file cannot be used now (read-only, full, written by a newer version):
                      what is written goes to a copy in `runtime_dir` and ends with this boot */
} State;

/* Fails only where neither directory can be written. */
int state_open(const char *state_dir, const char *runtime_dir, State *ret, Error *err) must_check;
void state_done(State *state);

/* Of the instance that wrote it; NULL when none was ever claimed, or memory is out. */
char *state_instance_id(State *state);

/* 1: this is another instance than the one that wrote it, and everything was forgotten; 0: the
 * same, or the first. */
int state_claim(State *state, const char *instance_id, Error *err) must_check;

/* In which boot it was claimed last. Setting the same again writes nothing. */
bool state_boot_is(State *state, const char *boot_id);
int state_set_boot(State *state, const char *boot_id, Error *err) must_check;

typedef struct Generation {
    uint64_t number; /* 0: none */
    char *sha256;
    char *document;
    char *source;
    uint64_t accepted_at; /* wall clock */
    uint64_t applied_at;  /* all of it was as declared for the first time; 0: not yet */
} Generation;
/* The newest: 1 found, 0 none. */
int state_generation_last(State *state, Generation *ret, Error *err) must_check;
/* Records an accepted plan; its number in generation->number. */
int state_generation_add(State *state, Generation *generation, Error *err) must_check;
int state_generation_applied(State *state, uint64_t number, Error *err) must_check;
void generation_done(Generation *generation);
/* What former plans had and the one in force has not is undone by now; until then a restart takes
 * it up again. Generations before `number`. */
int state_generations_retire(State *state, uint64_t number, Error *err) must_check;
/* The newest generation before `number` that was not retired: 1 found, 0 none. */
int state_generation_unretired(State *state, uint64_t number, Generation *ret, Error *err)
    must_check;
/* Whether any generation was ever applied here. */
bool state_ever_applied(State *state);

/* The plan that was refused last: {"at", "sha256", "errors": [...]} or NULL when the newest plan
 * was accepted. */
int state_refuse(State *state, const char *sha256, json_t *errors, Error *err) must_check;
int state_refusal_clear(State *state, Error *err) must_check;
json_t *state_refusal(State *state);

int state_event_add(State *state, LogLevel level, const char *event, const char *text, Error *err)
    must_check;
/* Newest first: [{"at", "event", "level", "text"}]. */
json_t *state_events(State *state, unsigned max);
/* [{"generation", "sha256", "source", "accepted_at", "applied_at"}], newest first. */
json_t *state_history(State *state, unsigned max);

#endif
