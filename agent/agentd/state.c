/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentd/state.h"

#include <errno.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/resource/images.h"
#include "agent/resource/release.h"

#define STATE_BROKEN_KEPT 3
#define STATE_COPY_MAX    (64U << 20)
#define EVENT_TEXT_MAX    2000

static const char *const migrations[] = {
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE generation (number INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL, "
    "  document TEXT NOT NULL, source TEXT NOT NULL, accepted_at INTEGER NOT NULL, "
    "  applied_at INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, "
    "  level INTEGER NOT NULL, event TEXT NOT NULL, text TEXT NOT NULL);",
    release_schema,
    "ALTER TABLE generation ADD COLUMN retired INTEGER NOT NULL DEFAULT 0",
    images_schema,
};

static int open_at(const char *path, State *state, Error *err)
{
    auto_error Error failure = {0};
    int r;

    r = db_open(path, migrations, ELEMENTS(migrations), DB_FULL_SYNC, &state->db, &failure);
    if (r >= 0 || failure.kind != ERROR_CORRUPT)
        return r < 0 ? error_move(err, &failure) : r;
    r = db_move_aside(path, STATE_BROKEN_KEPT, NULL, err);
    if (r < 0)
        return r;
    state->rebuilt = true;
    if (str_set(&state->rebuilt_why, error_text(&failure)) < 0)
        return error_oom(err);
    return db_open(path, migrations, ELEMENTS(migrations), DB_FULL_SYNC, &state->db, err);
}

/* Whole, with what its WAL holds: the copy begins where the file ended. A file that cannot be read
 * leaves none. */
static void copy_file(const char *from, const char *to)
{
    auto_buf Buf content = BUF_INIT(0);

    (void)unlink(to);
    if (file_read(from, STATE_COPY_MAX, &content, NULL) >= 0)
        (void)!file_replace(to, content.data, content.size, 0600, NULL);
}

/* The disk is read-only or full, or the file is a newer version's: it is left as it is, and a copy
 * serves until the next start. What a newer version wrote is not understood: nothing is copied. */
static int open_in_memory(const char *state_dir, const char *runtime_dir, State *state, Error *err)
{
    bool copy = state->trouble.code != -EPROTO;
    static const char *const suffixes[] = {"-wal", ""};
    auto_free char *path = path_join(runtime_dir, STATE_FILE_NAME);
    auto_free char *index = path ? str_printf("%s-shm", path) : NULL;

    if (!index)
        return error_oom(err);
    (void)unlink(index);
    for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
        auto_free char *from = str_printf("%s/" STATE_FILE_NAME "%s", state_dir, suffixes[i]);
        auto_free char *to = str_printf("%s%s", path, suffixes[i]);

        if (!from || !to)
            return error_oom(err);
        if (copy)
            copy_file(from, to);
        else
            (void)unlink(to);
    }
    if (copy && open_at(path, state, NULL) >= 0)
        return 0;
    /* What cannot be opened there either is begun anew, rather than not at all. */
    for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
        auto_free char *to = str_printf("%s%s", path, suffixes[i]);

        if (to)
            (void)unlink(to);
    }
    (void)unlink(index);
    return open_at(path, state, err);
}

int state_open(const char *state_dir, const char *runtime_dir, State *ret, Error *err)
{
    auto_free char *path = path_join(state_dir, STATE_FILE_NAME);
    auto_(state_done) State state = {0};
    int r;

    if (!path)
        return error_oom(err);
    r = dir_create(state_dir, 0755, &state.trouble);
    if (r >= 0)
        r = open_at(path, &state, &state.trouble);
    if (r < 0) {
        r = dir_create(runtime_dir, 0755, err);
        if (r < 0)
            return r;
        r = open_in_memory(state_dir, runtime_dir, &state, err);
        if (r < 0)
            return r;
    }
    *ret = state;
    state = (State){0};
    return 0;
}

void state_done(State *state)
{
    state->db = db_close(state->db);
    free(state->rebuilt_why);
    error_done(&state->trouble);
    *state = (State){0};
}

char *state_instance_id(State *state)
{
    char *owner = NULL;

    return db_query_text(state->db, "SELECT value FROM meta WHERE key = 'instance_id'", &owner,
                         NULL, "") > 0
               ? owner
               : NULL;
}

static int forget_all(Db *db, Error *err)
{
    return db_exec(db,
                   "DELETE FROM generation; DELETE FROM event; DELETE FROM secret; "
                   "DELETE FROM release; DELETE FROM slot; DELETE FROM image; "
                   "DELETE FROM repository; DELETE FROM cleanup; DELETE FROM meta",
                   err);
}

int state_claim(State *state, const char *instance_id, Error *err)
{
    auto_free char *owner = state_instance_id(state);
    auto_(db_rollbackp) Db *transaction = NULL;
    int r;

    if (streq_ptr(owner, instance_id))
        return 0;
    r = db_begin(state->db, err);
    if (r < 0)
        return r;
    transaction = state->db;
    r = owner ? forget_all(state->db, err) : 0;
    if (r < 0)
        return r;
    r = db_run(state->db, "INSERT OR REPLACE INTO meta (key, value) VALUES ('instance_id', ?)", err,
               "s", instance_id);
    if (r < 0)
        return r;
    r = db_commit(state->db, err);
    return r < 0 ? r : owner != NULL;
}

bool state_boot_is(State *state, const char *boot_id)
{
    auto_free char *known = NULL;

    return db_query_text(state->db, "SELECT value FROM meta WHERE key = 'boot_id'", &known, NULL,
                         "") > 0 &&
           streq_ptr(known, boot_id);
}

int state_set_boot(State *state, const char *boot_id, Error *err)
{
    if (state_boot_is(state, boot_id))
        return 0;
    return db_run(state->db, "INSERT OR REPLACE INTO meta (key, value) VALUES ('boot_id', ?)", err,
                  "s", boot_id);
}

/* --- Generations ---------------------------------------------------------------------------- */

void generation_done(Generation *generation)
{
    free(generation->sha256);
    free(generation->document);
    free(generation->source);
    *generation = (Generation){0};
}

static int read_generation(DbStmt *stmt, Generation *ret, Error *err)
{
    auto_(generation_done) Generation generation = {0};
    int r;

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

int state_generation_last(State *state, Generation *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(
        state->db,
        "SELECT number, sha256, document, source, accepted_at, applied_at FROM generation "
        "ORDER BY number DESC LIMIT 1",
        &stmt, err);
    return r < 0 ? r : read_generation(stmt, ret, err);
}

int state_generation_unretired(State *state, uint64_t number, Generation *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(
        state->db,
        "SELECT number, sha256, document, source, accepted_at, applied_at FROM generation "
        "WHERE number < ? AND NOT retired ORDER BY number DESC LIMIT 1",
        &stmt, err);
    if (r >= 0)
        r = db_bind(stmt, "u", err, number);
    return r < 0 ? r : read_generation(stmt, ret, err);
}

int state_generations_retire(State *state, uint64_t number, Error *err)
{
    return db_run(state->db, "UPDATE generation SET retired = 1 WHERE number < ? AND NOT retired",
                  err, "u", number);
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
    /* Plans that a release still needs stay, however old, and those of which something is left. */
    return db_run(state->db,
                  "DELETE FROM generation WHERE number <= ? AND retired AND number NOT IN "
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
    size_t size = strlen(text);
    auto_free char *bounded = NULL;
    int r;

    if (size > EVENT_TEXT_MAX)
        for (size = EVENT_TEXT_MAX; size > 0 && (text[size] & 0xc0) == 0x80;)
            size--; /* not in the middle of a character */
    bounded = strndup(text, size);
    if (!bounded)
        return error_oom(err);
    r = db_run(state->db, "INSERT INTO event (at, level, event, text) VALUES (?, ?, ?, ?)", err,
               "uiss", now_realtime_usec(), (int64_t)level, event, bounded);
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
