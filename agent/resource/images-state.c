/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "agent/base/str.h"
#include "agent/engine/reference.h"
#include "agent/resource/images-internal.h"

const char images_schema[] =
    "CREATE TABLE image (id TEXT PRIMARY KEY, first_seen_at INTEGER NOT NULL, "
    "  last_used_at INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE repository (name TEXT PRIMARY KEY, named_at INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE cleanup (id INTEGER PRIMARY KEY CHECK (id = 1), removed INTEGER NOT NULL, "
    "  freed_bytes INTEGER NOT NULL, last_run_at INTEGER NOT NULL);";

/* ---- Observing ------------------------------------------------------------------------------ */

static bool is_used_now(const CleanupFacts *facts, const EngineImage *image)
{
    for (size_t i = 0; i < facts->n_containers; i++)
        if (streq(facts->containers[i].image_id, image->id) &&
            engine_container_is_running(&facts->containers[i]))
            return true;

    return false;
}

static int observe_all(Db *db, const CleanupFacts *facts, Error *err)
{
    int r;

    /* What is not here any more was not seen at `now`, and is forgotten: the same image pulled
     * again is young again. */
    r = db_exec(db, "CREATE TEMP TABLE IF NOT EXISTS here (id TEXT PRIMARY KEY); DELETE FROM here",
                err);
    for (size_t i = 0; r >= 0 && i < facts->n_images; i++) {
        const EngineImage *image = &facts->images[i];

        r = db_run(db, "INSERT OR IGNORE INTO here (id) VALUES (?)", err, "s", image->id);
        if (r >= 0)
            r = db_run(db,
                       "INSERT OR IGNORE INTO image (id, first_seen_at, last_used_at) "
                       "VALUES (?, ?, 0)",
                       err, "su", image->id, facts->now);
        if (r >= 0 && is_used_now(facts, image))
            r = db_run(db, "UPDATE image SET last_used_at = ? WHERE id = ?", err, "us", facts->now,
                       image->id);
    }
    if (r >= 0)
        r = db_exec(db, "DELETE FROM image WHERE id NOT IN (SELECT id FROM here)", err);

    return r;
}

int images_state_observe(Db *db, const CleanupFacts *facts, Error *err)
{
    int r;

    r = db_begin(db, err);
    if (r < 0)
        return r;
    r = observe_all(db, facts, err);
    if (r >= 0)
        r = db_commit(db, err);
    if (r < 0)
        db_rollback(db);

    return r;
}

static int name_repository(Db *db, const char *image, uint64_t now, Error *err)
{
    auto_(reference_freep) Reference *reference = NULL;
    auto_free char *name = NULL;

    /* What is no reference was refused with its plan. */
    if (reference_parse(image, &reference, NULL) < 0)
        return 0;
    name = reference_repository(reference);
    if (!name)
        return error_oom(err);

    return db_run(db, "INSERT OR REPLACE INTO repository (name, named_at) VALUES (?, ?)", err, "su",
                  name, now);
}

int images_state_name_repositories(Db *db, const Plan *plan, uint64_t now, Error *err)
{
    int r;

    PLAN_FOREACH (PlanContainer, container, plan->containers) {
        r = name_repository(db, container->image, now, err);
        if (r < 0)
            return r;
    }

    return 0;
}

/* ---- Loading -------------------------------------------------------------------------------- */

/* A copy that the state owns; NULL when memory is out. */
static const char *keep_text(ImagesState *state, const char *text)
{
    if (strv_push(&state->texts, text ? text : "") < 0)
        return NULL;

    return state->texts[strv_length(state->texts) - 1];
}

static CleanupRelease *add_release(ImagesState *state, const char *container, const char *id,
                                   const char *digest)
{
    CleanupRelease *list =
        reallocarray(state->releases, state->n_releases + 1, sizeof(*state->releases));
    CleanupRelease *release;

    if (!list)
        return NULL;
    state->releases = list;
    release = &list[state->n_releases];
    *release = (CleanupRelease){
        .container = keep_text(state, container),
        .id = keep_text(state, id),
        .digest = keep_text(state, digest),
    };
    if (!release->container || !release->id || !release->digest)
        return NULL;
    state->n_releases++;

    return release;
}

static int load_releases(Db *db, ImagesState *state, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(db,
                   "SELECT container, id, digest, proved_at, quarantined_at FROM release "
                   "ORDER BY container, id",
                   &stmt, err);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0) {
        CleanupRelease *release =
            add_release(state, db_text(stmt, 0), db_text(stmt, 1), db_text(stmt, 2));

        if (!release)
            return error_oom(err);
        release->proved_at = db_u64(stmt, 3);
        release->is_quarantined = db_u64(stmt, 4) > 0;
    }

    return r;
}

/* The release of that slot; one of which only the slot knows (adopted) is added. */
static int mark(ImagesState *state, const char *container, const char *id, size_t flag)
{
    CleanupRelease *found = NULL;

    if (!id)
        return 0;
    for (size_t i = 0; i < state->n_releases; i++)
        if (streq(state->releases[i].container, container) && streq(state->releases[i].id, id))
            found = &state->releases[i];
    if (!found)
        found = add_release(state, container, id, "");
    if (!found)
        return -ENOMEM;

    *(bool *)((char *)found + flag) = true;
    return 0;
}

static int load_slots(Db *db, ImagesState *state, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(db, "SELECT container, current, next, previous FROM slot", &stmt, err);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0) {
        const char *container = db_text(stmt, 0);

        if (mark(state, container, db_text(stmt, 1), offsetof(CleanupRelease, is_current)) < 0 ||
            mark(state, container, db_text(stmt, 2), offsetof(CleanupRelease, is_next)) < 0 ||
            mark(state, container, db_text(stmt, 3), offsetof(CleanupRelease, is_previous)) < 0)
            return error_oom(err);
    }

    return r;
}

static int load_seen(Db *db, ImagesState *state, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(db, "SELECT id, first_seen_at, last_used_at FROM image", &stmt, err);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0) {
        CleanupSeen *list = reallocarray(state->seen, state->n_seen + 1, sizeof(*list));
        const char *id = keep_text(state, db_text(stmt, 0));

        if (list)
            state->seen = list;
        if (!list || !id)
            return error_oom(err);
        list[state->n_seen++] = (CleanupSeen){
            .id = id, .first_seen_at = db_u64(stmt, 1), .last_used_at = db_u64(stmt, 2)};
    }

    return r;
}

static int load_repositories(Db *db, ImagesState *state, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(db, "SELECT name FROM repository ORDER BY name", &stmt, err);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0)
        if (strv_push(&state->repositories, db_text(stmt, 0)) < 0)
            return error_oom(err);

    return r;
}

int images_state_load(Db *db, ImagesState *ret, Error *err)
{
    auto_(images_state_done) ImagesState state = {0};
    int r;

    r = load_releases(db, &state, err);
    if (r >= 0)
        r = load_slots(db, &state, err);
    if (r >= 0)
        r = load_seen(db, &state, err);
    if (r >= 0)
        r = load_repositories(db, &state, err);
    if (r < 0)
        return r;

    *ret = state;
    state = (ImagesState){0};
    return 0;
}

void images_state_done(ImagesState *state)
{
    free(state->releases);
    free(state->seen);
    (void)strv_free(state->repositories);
    (void)strv_free(state->texts);
    *state = (ImagesState){0};
}

/* ---- Totals, signature, disk ---------------------------------------------------------------- */

int images_totals_load(Db *db, ImagesTotals *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(db, "SELECT removed, freed_bytes, last_run_at FROM cleanup", &stmt, err);
    if (r < 0)
        return r;
    r = db_step(stmt, err);
    if (r <= 0)
        return r;

    *ret = (ImagesTotals){db_u64(stmt, 0), db_u64(stmt, 1), db_u64(stmt, 2)};
    return 1;
}

int images_totals_save(Db *db, const ImagesTotals *totals, Error *err)
{
    return db_run(db,
                  "INSERT OR REPLACE INTO cleanup (id, removed, freed_bytes, last_run_at) "
                  "VALUES (1, ?, ?, ?)",
                  err, "uuu", totals->removed, totals->freed_bytes, totals->last_run_at);
}

char *images_settled_signature(Db *db)
{
    char *text = NULL;

    if (db_query_text(db,
                      "SELECT group_concat(container || '=' || ifnull(current, '')) FROM "
                      "(SELECT container, current FROM slot WHERE state IN ('settled', 'done') "
                      "ORDER BY container)",
                      &text, NULL, "") < 0)
        return NULL;

    return text ? text : strdup("");
}

int images_disk_usage(const char *path, unsigned *ret_percent, uint64_t *ret_free, Error *err)
{
    struct statvfs st;
    uint64_t used, room;

    if (statvfs(path, &st) < 0)
        return error_errno(err, errno, "statvfs %s", path);

    /* Blocks that only root may fill are no room, as df counts. */
    used = (uint64_t)st.f_blocks - st.f_bfree;
    room = used + st.f_bavail;
    *ret_percent = room ? (unsigned)((used * 100 + room - 1) / room) : 0;
    *ret_free = (uint64_t)st.f_bfree * st.f_frsize;
    return 0;
}
