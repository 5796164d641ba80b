/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resource/release.h"

#include <assert.h>
#include <errno.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

const char release_schema[] =
    "CREATE TABLE secret (name TEXT PRIMARY KEY, secret TEXT NOT NULL, wanted TEXT NOT NULL, "
    "  version TEXT NOT NULL, fetched_at INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE release (container TEXT NOT NULL, id TEXT NOT NULL, image TEXT NOT NULL, "
    "  digest TEXT NOT NULL, secrets TEXT NOT NULL, generation INTEGER NOT NULL, "
    "  created_at INTEGER NOT NULL, proved_at INTEGER NOT NULL DEFAULT 0, "
    "  quarantined_at INTEGER NOT NULL DEFAULT 0, reason TEXT, "
    "  digest_is_bad INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (container, id)) WITHOUT ROWID;"
    "CREATE TABLE slot (container TEXT PRIMARY KEY, state TEXT NOT NULL, current TEXT, next TEXT, "
    "  previous TEXT, held_digest TEXT, boot_id TEXT, state_at INTEGER NOT NULL, "
    "  committed_at INTEGER NOT NULL, stopped_at INTEGER NOT NULL, downtime INTEGER, "
    "  deaths INTEGER NOT NULL, exit_status INTEGER NOT NULL, run_again INTEGER NOT NULL) "
    "WITHOUT ROWID;";

#define QUARANTINES_KEPT 20

static const char *const state_names[ROLLOUT_STATE_MAX] = {
    [ROLLOUT_NEW] = "new",
    [ROLLOUT_RESOLVING] = "resolving",
    [ROLLOUT_PULLING] = "pulling",
    [ROLLOUT_STAGED] = "staged",
    [ROLLOUT_SWITCHING] = "switching",
    [ROLLOUT_PROVING] = "proving",
    [ROLLOUT_COMMITTED] = "committed",
    [ROLLOUT_SETTLED] = "settled",
    [ROLLOUT_ROLLING_BACK] = "rolling-back",
    [ROLLOUT_ROLLED_BACK] = "rolled-back",
    [ROLLOUT_FAILED] = "failed",
    [ROLLOUT_WAITING] = "waiting",
    [ROLLOUT_DONE] = "done",
};

const char *rollout_state_name(RolloutState state)
{
    assert(state < ROLLOUT_STATE_MAX);
    return state_names[state];
}

static RolloutState state_from_name(const char *name)
{
    for (int i = 0; i < ROLLOUT_STATE_MAX; i++)
        if (name && streq(state_names[i], name))
            return (RolloutState)i;
    return ROLLOUT_NEW; /* a word of another version: everything is looked at anew */
}

/* --- Releases ------------------------------------------------------------------------------- */

static int release_name(const char *spec, const char *digest, const json_t *versions, char **ret)
{
    json_auto_t *whole = json_object();
    auto_free char *text = NULL;
    char hex[SHA256_HEX_MAX];

    if (!whole || json_put(whole, "digest", json_string(digest)) < 0 ||
        json_put(whole, "secrets", json_deep_copy(versions)) < 0 ||
        json_put(whole, "spec", json_string(spec)) < 0)
        return -ENOMEM;
    text = json_canonical(whole);
    if (!text)
        return -ENOMEM;
    sha256_of(text, strlen(text), hex);
    *ret = strndup(hex, RELEASE_ID_SIZE);
    return *ret ? 0 : -ENOMEM;
}

int release_new(const Plan *plan, const PlanContainer *container, uint64_t generation,
                const char *digest, const json_t *versions, Release **ret, Error *err)
{
    auto_(release_freep) Release *release = calloc(1, sizeof(*release));
    auto_free char *spec = NULL;

    if (!release || container_spec_canonical(plan, container, &spec) < 0 ||
        release_name(spec, digest, versions, &release->id) < 0)
        return error_oom(err);
    release->container = strdup(container->name);
    release->image = strdup(container->image);
    release->digest = strdup(digest);
    release->secrets = json_deep_copy(versions);
    if (!release->container || !release->image || !release->digest || !release->secrets)
        return error_oom(err);
    release->generation = generation;
    release->created_at = now_realtime_usec();

    *ret = take_ptr(release);
    return 0;
}

Release *release_free(Release *release)
{
    if (!release)
        return NULL;

    free(release->id);
    free(release->container);
    free(release->image);
    free(release->digest);
    free(release->reason);
    json_decref(release->secrets);
    free(release);
    return NULL;
}

int release_store(Db *db, const Release *release, Error *err)
{
    auto_free char *secrets = json_canonical(release->secrets);

    if (!secrets)
        return error_oom(err);
    /* Stored again when it is tried again: what was learnt about it stays, and its spec is found in
     * the newer plan. */
    return db_run(
        db,
        "INSERT INTO release (container, id, image, digest, secrets, generation, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (container, id) DO UPDATE SET "
        "generation = excluded.generation, image = excluded.image",
        err, "sssssuu", release->container, release->id, release->image, release->digest, secrets,
        release->generation, release->created_at);
}

#define RELEASE_COLUMNS                                                                            \
    "container, id, image, digest, secrets, generation, created_at, proved_at, quarantined_at, "   \
    "reason, digest_is_bad"

static int release_from_row(DbStmt *stmt, Release **ret, Error *err)
{
    auto_(release_freep) Release *release = calloc(1, sizeof(*release));
    const char *secrets = db_text(stmt, 4);
    int r;

    if (!release || str_set(&release->container, db_text(stmt, 0)) < 0 ||
        str_set(&release->id, db_text(stmt, 1)) < 0 ||
        str_set(&release->image, db_text(stmt, 2)) < 0 ||
        str_set(&release->digest, db_text(stmt, 3)) < 0 ||
        str_set(&release->reason, db_text(stmt, 9)) < 0)
        return error_oom(err);
    r = json_parse(secrets ? secrets : "{}", secrets ? strlen(secrets) : 2, "secrets of a release",
                   &release->secrets, err);
    if (r < 0)
        return r;
    release->generation = db_u64(stmt, 5);
    release->created_at = db_u64(stmt, 6);
    release->proved_at = db_u64(stmt, 7);
    release->quarantined_at = db_u64(stmt, 8);
    release->digest_is_bad = db_i64(stmt, 10) != 0;
    *ret = take_ptr(release);
    return 1;
}

/* The first row of `sql`, which takes two texts: 1, or 0 when there is none. */
static int load_first(Db *db, const char *sql, const char *container, const char *which,
                      Release **ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    r = db_bind(stmt, "ss", err, container, which);
    if (r < 0)
        return r;
    r = db_step(stmt, err);
    return r <= 0 ? r : release_from_row(stmt, ret, err);
}

int release_load(Db *db, const char *container, const char *id, Release **ret, Error *err)
{
    return load_first(db, "SELECT " RELEASE_COLUMNS " FROM release WHERE container = ? AND id = ?",
                      container, id, ret, err);
}

int release_prove(Db *db, const char *container, const char *id, Error *err)
{
    return db_run(db, "UPDATE release SET proved_at = ? WHERE container = ? AND id = ?", err, "uss",
                  now_realtime_usec(), container, id);
}

int release_quarantine(Db *db, const char *container, const char *id, bool digest_is_bad,
                       const char *reason, Error *err)
{
    return db_run(db,
                  "UPDATE release SET quarantined_at = ?, reason = ?, digest_is_bad = ? "
                  "WHERE container = ? AND id = ?",
                  err, "usiss", now_realtime_usec(), reason, (int64_t)digest_is_bad, container, id);
}

int release_load_bad_digest(Db *db, const char *container, const char *digest, Release **ret,
                            Error *err)
{
    return load_first(db,
                      "SELECT " RELEASE_COLUMNS
                      " FROM release WHERE container = ? AND digest = ? AND "
                      "digest_is_bad AND quarantined_at > 0 ORDER BY quarantined_at DESC LIMIT 1",
                      container, digest, ret, err);
}

int release_unquarantine(Db *db, const char *container, Error *err)
{
    int r;

    r = db_run(db,
               "UPDATE release SET quarantined_at = 0, reason = NULL, digest_is_bad = 0 "
               "WHERE container = ? AND quarantined_at > 0",
               err, "s", container);
    return r < 0 ? r : (int)db_changes(db);
}

int release_list_quarantined(Db *db, const char *container, json_t **ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    json_auto_t *list = json_array();
    int r;

    if (!list)
        return error_oom(err);
    r = db_prepare(db,
                   "SELECT digest, id, reason, quarantined_at, digest_is_bad FROM release "
                   "WHERE container = ? AND "
                   "quarantined_at > 0 ORDER BY quarantined_at DESC LIMIT 10",
                   &stmt, err);
    if (r < 0)
        return r;
    r = db_bind(stmt, "s", err, container);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0) {
        char at[TIME_RFC3339_MAX];

        if (json_array_append_new(list, json_pack("{s:s, s:s, s:s?, s:s, s:b}", "digest",
                                                  db_text(stmt, 0), "release", db_text(stmt, 1),
                                                  "reason", db_text(stmt, 2), "at",
                                                  time_format_rfc3339(at, db_i64(stmt, 3)),
                                                  "digest_is_bad", db_i64(stmt, 4) != 0)) < 0)
            return error_oom(err);
    }
    if (r < 0)
        return r;
    *ret = take_ptr(list);
    return 0;
}

int release_previous(Db *db, const char *container, const char *current, Release **ret, Error *err)
{
    return load_first(db,
                      "SELECT " RELEASE_COLUMNS " FROM release WHERE container = ? AND id <> ? AND "
                      "proved_at > 0 AND quarantined_at = 0 ORDER BY proved_at DESC LIMIT 1",
                      container, current ? current : "", ret, err);
}

/* Many releases may share a digest (a secret was rotated), and the image cleanup keeps digests: so
 * each of the last `keep` digests keeps its last proved release, however often the others changed
 * since. */
int release_trim(Db *db, const char *container, const char *current, unsigned keep, Error *err)
{
    return db_run(
        db,
        "DELETE FROM release WHERE container = ?1 AND id <> ?2 "
        "AND id NOT IN (SELECT id FROM release WHERE container = ?1 AND quarantined_at > 0 "
        "  ORDER BY quarantined_at DESC LIMIT ?4) "
        "AND id NOT IN (SELECT id FROM release WHERE container = ?1 AND quarantined_at = 0 AND "
        "  proved_at > 0 ORDER BY proved_at DESC LIMIT ?3) "
        "AND id NOT IN (SELECT id FROM (SELECT id, max(proved_at) AS at FROM release "
        "  WHERE container = ?1 AND quarantined_at = 0 AND proved_at > 0 GROUP BY digest) "
        "  ORDER BY at DESC LIMIT ?3)",
        err, "ssuu", container, current, (uint64_t)keep, (uint64_t)QUARANTINES_KEPT);
}

int release_plan(Db *db, const Release *release, Plan **ret, Error *err)
{
    auto_field_errors FieldErrors errors = {0};
    auto_free char *text = NULL;
    int r;

    r = db_query_text(db, "SELECT document FROM generation WHERE number = ?", &text, err, "u",
                      release->generation);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, -ENOENT, ERROR_INVALID,
                         "the plan of release %s (generation %ju) is no longer kept", release->id,
                         (uintmax_t)release->generation);
    r = plan_parse(text, strlen(text), ret, &errors);
    return r < 0 ? field_errors_to_error(&errors, "a plan that was accepted before", err) : 0;
}

/* --- Slots ---------------------------------------------------------------------------------- */

void slot_done(Slot *slot)
{
    free(slot->current);
    free(slot->next);
    free(slot->previous);
    free(slot->held_digest);
    free(slot->boot_id);
    *slot = (Slot){0};
}

int slot_load(Db *db, const char *container, Slot *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    auto_(slot_done) Slot slot = {.downtime_usec = UINT64_MAX, .exit_status = -1};
    int r, found;

    r = db_prepare(db,
                   "SELECT state, current, next, previous, held_digest, boot_id, state_at, "
                   "committed_at, stopped_at, downtime, deaths, exit_status, run_again "
                   "FROM slot WHERE container = ?",
                   &stmt, err);
    if (r < 0)
        return r;
    r = db_bind(stmt, "s", err, container);
    if (r < 0)
        return r;
    found = db_step(stmt, err);
    if (found < 0)
        return found;
    if (found) {
        char **const texts[] = {&slot.current, &slot.next, &slot.previous, &slot.held_digest,
                                &slot.boot_id};

        slot.state = state_from_name(db_text(stmt, 0));
        for (size_t i = 0; i < ELEMENTS(texts); i++)
            if (str_set(texts[i], db_text(stmt, (int)i + 1)) < 0)
                return error_oom(err);
        slot.state_at = db_u64(stmt, 6);
        slot.committed_at = db_u64(stmt, 7);
        slot.stopped_at = db_u64(stmt, 8);
        if (!db_is_null(stmt, 9))
            slot.downtime_usec = db_u64(stmt, 9);
        slot.deaths = db_u64(stmt, 10);
        slot.exit_status = (int)db_i64(stmt, 11);
        slot.run_again = db_i64(stmt, 12) != 0;
    }
    *ret = slot;
    slot = (Slot){0};
    return found;
}

int slot_save(Db *db, const char *container, const Slot *slot, Error *err)
{
    bool measured = slot->downtime_usec != UINT64_MAX;

    return db_run(db,
                  "INSERT OR REPLACE INTO slot (container, state, current, next, previous, "
                  "held_digest, boot_id, state_at, committed_at, stopped_at, downtime, deaths, "
                  "exit_status, run_again) VALUES (?,?,?,?,?,?,?,?,?,?, nullif(?, -1), ?,?,?)",
                  err, "sssssssuuuiuii", container, rollout_state_name(slot->state), slot->current,
                  slot->next, slot->previous, slot->held_digest, slot->boot_id, slot->state_at,
                  slot->committed_at, slot->stopped_at,
                  measured ? (int64_t)slot->downtime_usec : (int64_t)-1, slot->deaths,
                  (int64_t)slot->exit_status, (int64_t)slot->run_again);
}

int slot_delete(Db *db, const char *container, Error *err)
{
    int r;

    r = db_run(db, "DELETE FROM slot WHERE container = ?", err, "s", container);
    if (r < 0)
        return r;
    return db_run(db, "DELETE FROM release WHERE container = ?", err, "s", container);
}

int slot_names(Db *db, char ***ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    auto_(strv_freep) char **names = calloc(1, sizeof(char *));
    int r;

    if (!names)
        return error_oom(err);
    r = db_prepare(db, "SELECT container FROM slot ORDER BY container", &stmt, err);
    if (r < 0)
        return r;
    while ((r = db_step(stmt, err)) > 0)
        if (strv_push(&names, db_text(stmt, 0)) < 0)
            return error_oom(err);
    if (r < 0)
        return r;
    *ret = take_ptr(names);
    return 0;
}

int boot_id_read(char ret[static BOOT_ID_SIZE], Error *err)
{
    auto_buf Buf text = BUF_INIT(0);
    int r;

    r = file_read("/proc/sys/kernel/random/boot_id", 64, &text, err);
    if (r < 0)
        return r;
    if (text.size < BOOT_ID_SIZE - 1)
        return error_set(err, -EBADMSG, ERROR_INTERNAL, "the kernel's boot id is too short");
    memcpy(ret, text.data, BOOT_ID_SIZE - 1);
    ret[BOOT_ID_SIZE - 1] = '\0';
    return 0;
}
