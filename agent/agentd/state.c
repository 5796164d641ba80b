/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentd/state.h"

#include <errno.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/resource/release.h"

#define STATE_BROKEN_KEPT 3

static const char *const migrations[] = {
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE generation (number INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL, "
    "  document TEXT NOT NULL, source TEXT NOT NULL, accepted_at INTEGER NOT NULL, "
    "  applied_at INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, "
    "  level INTEGER NOT NULL, event TEXT NOT NULL, text TEXT NOT NULL);",
    release_schema,
};

int state_open(const char *state_dir, State *ret, Error *err)
{
    auto_free char *path = path_join(state_dir, STATE_FILE_NAME);
    auto_error Error failure = {0};
    State state = {0};
    int r;

    if (!path)
        return error_oom(err);
    r = dir_create(state_dir, 0755, err);
    if (r < 0)
        return r;
    r = db_open(path, migrations, ELEMENTS(migrations), DB_FULL_SYNC, &state.db, &failure);
    if (r < 0 && failure.kind == ERROR_CORRUPT) {
        /* A newer version's file is moved aside by nobody: its error says to install that version
         * again. */
        r = db_move_aside(path, STATE_BROKEN_KEPT, NULL, err);
        if (r < 0)
            return r;
        state.rebuilt = true;
        state.rebuilt_why = strdup(error_text(&failure));
        r = db_open(path, migrations, ELEMENTS(migrations), DB_FULL_SYNC, &state.db, err);
        if (r < 0) {
            free(state.rebuilt_why);
            return r;
        }
    } else if (r < 0)
        return error_move(err, &failure);
    *ret = state;
    return 0;
}

void state_done(State *state)
{
    state->db = db_close(state->db);
    free(state->rebuilt_why);
    *state = (State){0};
}

int state_claim(State *state, const char *instance_id, Error *err)
{
    auto_free char *owner = NULL;
    int r;

    r = db_query_text(state->db, "SELECT value FROM meta WHERE key = 'instance_id'", &owner, err,
                      "");
    if (r < 0)
        return r;
    if (r > 0 && streq(owner, instance_id))
        return 0;
    if (owner) {
        r = db_exec(state->db,
                    "DELETE FROM generation; DELETE FROM event; DELETE FROM secret; "
                    "DELETE FROM release; DELETE FROM slot; DELETE FROM meta",
                    err);
        if (r < 0)
            return r;
    }
    r = db_run(state->db, "INSERT OR REPLACE INTO meta (key, value) VALUES ('instance_id', ?)", err,
               "s", instance_id);
    return r < 0 ? r : owner != NULL;
}

/* --- Generations ---------------------------------------------------------------------------- */

void generation_done(Generation *generation)
{
    free(generation->sha256);
    free(generation->document);
    free(generation->source);
    *generation = (Generation){0};
}

int state_generation_last(State *state, Generation *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    auto_(generation_done) Generation generation = {0};
    int r;

    r = db_prepare(
        state->db,
        "SELECT number, sha256, document, source, accepted_at, applied_at FROM generation "
        "ORDER BY number DESC LIMIT 1",
        &stmt, err);
    if (r < 0)
        return r;
    r = db_step(stmt, err);
    if (r <= 0)
        return r;
    generation.number = db_u64(stmt, 0);
    generation.accepted_at = db_u64(stmt, 4);
    generation.applied_at = db_u64(stmt, 5);
    if (str_set(&generation.sha256, db_text(stmt, 1)) < 0 ||
        str_set(&generation.document, db_text(stmt, 2)) < 0 ||
        str_set(&generation.source, db_text(stmt, 3)) < 0)
        return error_oom(err);
    *ret = generation;
    generation = (Generation){0};
    return 1;
}

int state_generation_add(State *state, Generation *generation, Error *err)
{
    int r;

    generation->accepted_at = now_realtime_usec();
    r = db_run(state->db,
               "INSERT INTO generation (sha256, document, source, accepted_at) VALUES (?, ?, ?, ?)",
               err, "sssu", generation->sha256, generation->document, generation->source,
               generation->accepted_at);
    if (r < 0)
        return r;
    generation->number = (uint64_t)db_last_id(state->db);
    /* Plans that a release still needs stay, however old. */
    return db_run(state->db,
                  "DELETE FROM generation WHERE number <= ? AND number NOT IN "
                  "(SELECT generation FROM release)",
                  err, "i", (int64_t)generation->number - STATE_GENERATIONS_MAX);
}

int state_generation_applied(State *state, uint64_t number, Error *err)
{
    return db_run(state->db,
                  "UPDATE generation SET applied_at = ? WHERE number = ? AND applied_at = 0", err,
                  "uu", now_realtime_usec(), number);
}

bool state_ever_applied(State *state)
{
    int64_t n = 0;

    return db_query_i64(state->db, "SELECT count(*) FROM generation WHERE applied_at > 0", &n, NULL,
                        "") > 0 &&
           n > 0;
}

/* --- Refusals -------------------------------------------------------------------------------- */

int state_refuse(State *state, const char *sha256, json_t *errors, Error *err)
{
    char at[TIME_RFC3339_MAX];
    auto_free char *text = NULL;
    json_auto_t *refusal =
        json_pack("{s:s, s:s, s:O}", "at", time_format_rfc3339(at, (int64_t)now_realtime_usec()),
                  "sha256", sha256, "errors", errors);

    text = refusal ? json_canonical(refusal) : NULL;
    if (!text)
        return error_oom(err);
    return db_run(state->db, "INSERT OR REPLACE INTO meta (key, value) VALUES ('refused', ?)", err,
                  "s", text);
}

int state_refusal_clear(State *state, Error *err)
{
    return db_run(state->db, "DELETE FROM meta WHERE key = 'refused'", err, "");
}

json_t *state_refusal(State *state)
{
    auto_free char *text = NULL;
    json_t *refusal = NULL;

    if (db_query_text(state->db, "SELECT value FROM meta WHERE key = 'refused'", &text, NULL, "") <=
            0 ||
        json_parse(text, strlen(text), "state.db", &refusal, NULL) < 0)
        return NULL;
    return refusal;
}

/* --- Events ---------------------------------------------------------------------------------- */

int state_event_add(State *state, LogLevel level, const char *event, const char *text, Error *err)
{
    int r;

    r = db_run(state->db, "INSERT INTO event (at, level, event, text) VALUES (?, ?, ?, ?)", err,
               "uiss", now_realtime_usec(), (int64_t)level, event, text);
    if (r < 0)
        return r;
    return db_run(state->db, "DELETE FROM event WHERE id <= ?", err, "i",
                  db_last_id(state->db) - STATE_EVENTS_MAX);
}

json_t *state_events(State *state, unsigned max)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    json_auto_t *list = json_array();

    if (!list ||
        db_prepare(state->db, "SELECT at, event, level, text FROM event ORDER BY id DESC LIMIT ?",
                   &stmt, NULL) < 0 ||
        db_bind(stmt, "u", NULL, (uint64_t)max) < 0)
        return NULL;
    while (db_step(stmt, NULL) > 0) {
        char at[TIME_RFC3339_MAX];

        if (json_array_append_new(list,
                                  json_pack("{s:s, s:s?, s:I, s:s?}", "at",
                                            time_format_rfc3339(at, db_i64(stmt, 0)), "event",
                                            db_text(stmt, 1), "level", (json_int_t)db_i64(stmt, 2),
                                            "text", db_text(stmt, 3))) < 0)
            return NULL;
    }
    return take_ptr(list);
}

json_t *state_history(State *state, unsigned max)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    json_auto_t *list = json_array();

    if (!list ||
        db_prepare(state->db,
                   "SELECT number, sha256, source, accepted_at, applied_at FROM generation "
                   "ORDER BY number DESC LIMIT ?",
                   &stmt, NULL) < 0 ||
        db_bind(stmt, "u", NULL, (uint64_t)max) < 0)
        return NULL;
    while (db_step(stmt, NULL) > 0) {
        char accepted[TIME_RFC3339_MAX], applied[TIME_RFC3339_MAX];
        bool was_applied = db_i64(stmt, 4) > 0;

        if (json_array_append_new(
                list,
                json_pack("{s:I, s:s, s:s, s:s, s:s?}", "generation", (json_int_t)db_i64(stmt, 0),
                          "sha256", db_text(stmt, 1), "source", db_text(stmt, 2), "accepted_at",
                          time_format_rfc3339(accepted, db_i64(stmt, 3)), "applied_at",
                          was_applied ? time_format_rfc3339(applied, db_i64(stmt, 4)) : NULL)) < 0)
            return NULL;
    }
    return take_ptr(list);
}
