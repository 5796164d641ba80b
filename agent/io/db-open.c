/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/db-internal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"

/* Another process holds the write lock for one transaction at most (agentctl's offline verbs). */
#define BUSY_TIMEOUT_MSEC 1000
/* quick_check reads the whole file. State databases take milliseconds; a spool of hundreds of MiB
 * is not worth a slow start, and damage beyond what was checked is still found when it is read. */
#define CHECK_LIMIT_USEC  (500 * MSEC)
#define CHECK_STEPS       10000
/* KiB. The default is 2,000; what one transaction touches is far less. Of DB_BULK: what a document
 * writes is still there when it is read again; db_checkpoint() lets it go. */
#define CACHE_KIB         256
#define CACHE_BULK_KIB    2048
/* A chunk of keys is more than a page of 4 KiB and most of one of these, and each page costs calls
 * of its own. */
#define PAGE_BULK         8192
/* Kept on disk after a checkpoint; a larger WAL is cut to it. Of DB_BULK it stays as it has grown
 * until db_checkpoint(): to cut it and to have it grow again costs the file system's journal and
 * fresh pages each time. */
#define WAL_KEEP_BYTES    (1 << 20)
#define WAL_KEEP_BULK     (16 << 20)

/* ---- Opening ---- */

/* Before SQLite's first use in the process: one thread, no counters, little memory set aside. */
static void configure_once(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    (void)sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    (void)sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 128, 100);
}

/* SQLite would create it for everybody to read (umask). Its WAL and index inherit the mode. */
static int create_private(const char *path, Error *err)
{
    auto_close int fd = -EBADF;

    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return db_fail_of_system(errno, path, "open", err);
    return 0;
}

static int open_handle(Db *db, unsigned flags, Error *err)
{
    bool read_only = flags & DB_READ_ONLY;
    int code, r;

    if (!read_only) {
        r = create_private(db->path, err);
        if (r < 0)
            return r;
    } else if (access(db->path, R_OK) < 0) {
        return db_fail_of_system(errno, db->path, "open", err);
    }

    code = sqlite3_open_v2(db->path, &db->handle,
                           (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
                               SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                           NULL);
    if (code != SQLITE_OK)
        return db_fail(db, code, "open", err);
    (void)sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MSEC);
    /* Statements of ours alone reach it, and a damaged schema must not run any. */
    (void)sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);

    /* Opening a file that cannot be written falls back to reading without a word. */
    if (!read_only && sqlite3_db_readonly(db->handle, "main") == 1)
        return db_fail_of_system(EROFS, db->path, "open", err);
    return 0;
}

static int set_pragmas(Db *db, unsigned flags, Error *err)
{
    char sql[256];
    int r;

    /* Debian's library would overwrite what is deleted with zeros, which go through the log as
     * well. No secret is ever in a database of ours. */
    (void)snprintf(sql, sizeof(sql),
                   "PRAGMA cache_size = -%d; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;"
                   "PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = %d;"
                   "PRAGMA secure_delete = OFF;",
                   flags & DB_BULK ? CACHE_BULK_KIB : CACHE_KIB,
                   flags & DB_BULK ? WAL_KEEP_BULK : WAL_KEEP_BYTES);
    r = db_exec_as(db, "configure", sql, err);
    if (r < 0 || (flags & DB_READ_ONLY))
        return r;

    /* Takes effect only while the file is empty, so before WAL writes its first page. */
    if (flags & DB_BULK) {
        (void)snprintf(sql, sizeof(sql), "PRAGMA page_size = %d; PRAGMA auto_vacuum = INCREMENTAL;",
                       PAGE_BULK);
        r = db_exec_as(db, "configure", sql, err);
        if (r < 0)
            return r;
    }
    r = db_exec_as(db, "switch to write-ahead logging", "PRAGMA journal_mode = WAL;", err);
    if (r < 0)
        return r;
    return db_exec_as(
        db, "configure",
        flags & DB_FULL_SYNC ? "PRAGMA synchronous = FULL;" : "PRAGMA synchronous = NORMAL;", err);
}

static int check_is_late(void *userdata)
{
    return now_boottime_usec() > *(const uint64_t *)userdata;
}

static int quick_check(Db *db, Error *err)
{
    uint64_t deadline = now_boottime_usec() + CHECK_LIMIT_USEC;
    sqlite3_stmt *stmt = NULL;
    int code, r = 0;

    sqlite3_progress_handler(db->handle, CHECK_STEPS, check_is_late, &deadline);
    code = sqlite3_prepare_v2(db->handle, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        const char *verdict = (const char *)sqlite3_column_text(stmt, 0);

        if (!verdict || !streq(verdict, "ok"))
            r = error_set(err, -EBADMSG, ERROR_CORRUPT, "%s: damaged: %s", db->path,
                          verdict ? verdict : "no verdict");
    } else if ((code & 0xff) != SQLITE_INTERRUPT) {
        r = db_fail(db, code, "check", err);
    }
    (void)sqlite3_finalize(stmt);
    sqlite3_progress_handler(db->handle, 0, NULL, NULL);
    return r;
}

/* ---- Migrations ---- */

static int user_version(Db *db, int64_t *ret, Error *err)
{
    sqlite3_stmt *stmt = NULL;
    int code, r = 0;

    code = sqlite3_prepare_v2(db->handle, "PRAGMA user_version", -1, &stmt, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        *ret = sqlite3_column_int64(stmt, 0);
    else
        r = db_fail(db, code, "read its version", err);
    (void)sqlite3_finalize(stmt);
    return r;
}

static int migrate_one(Db *db, const char *sql, size_t to, Error *err)
{
    auto_(db_rollbackp) Db *transaction = NULL;
    char version[64];
    int64_t now = 0;
    int r;

    r = db_begin(db, err);
    if (r < 0)
        return r;
    transaction = db;

    /* Another process may have been faster between our look and our lock. */
    r = user_version(db, &now, err);
    if (r < 0)
        return r;
    if (now >= (int64_t)to)
        return 0;

    r = db_exec_as(db, "migrate", sql, err);
    if (r < 0)
        return r;
    (void)snprintf(version, sizeof(version), "PRAGMA user_version = %zu", to);
    r = db_exec_as(db, "migrate", version, err);
    if (r < 0)
        return r;
    return db_commit(db, err);
}

static int migrate(Db *db, const char *const *migrations, size_t n, unsigned flags, Error *err)
{
    int64_t version = 0;
    int r;

    r = user_version(db, &version, err);
    if (r < 0)
        return r;
    if (version > (int64_t)n) {
        r = error_set(err, -EPROTO, ERROR_INVALID,
                      "%s: written by a newer version of this program (schema %lld, known is %zu)",
                      db->path, (long long)version, n);
        return error_remedy(err, r, "install that version again, or move the file away");
    }
    if (version < 0 || (version > 0 && !migrations[version - 1]))
        return error_set(err, -EBADMSG, ERROR_CORRUPT,
                         "%s: schema version %lld, which this program does not read", db->path,
                         (long long)version);
    if (flags & DB_READ_ONLY) {
        if (version == (int64_t)n)
            return 0;
        return error_set(err, -EPROTO, ERROR_INVALID,
                         "%s: written by an older version (schema %lld, wanted is %zu); its daemon "
                         "brings it forward when it starts",
                         db->path, (long long)version, n);
    }

    for (size_t i = (size_t)version; i < n; i++) {
        if (!migrations[i])
            continue;
        r = migrate_one(db, migrations[i], i + 1, err);
        if (r < 0)
            return error_prefix(err, r, "schema %zu", i + 1);
    }
    return 0;
}

int db_open(const char *path, const char *const *migrations, size_t n_migrations, unsigned flags,
            Db **ret, Error *err)
{
    auto_(db_closep) Db *db = NULL;
    int r;

    assert(path && (migrations || n_migrations == 0) && ret);

    configure_once();
    db = calloc(1, sizeof(*db));
    if (!db)
        return error_oom(err);
    db->path = strdup(path);
    if (!db->path)
        return error_oom(err);

    r = open_handle(db, flags, err);
    if (r < 0)
        return r;
    r = set_pragmas(db, flags, err);
    if (r < 0)
        return r;
    r = quick_check(db, err);
    if (r < 0)
        return r;
    r = migrate(db, migrations, n_migrations, flags, err);
    if (r < 0)
        return r;

    *ret = take_ptr(db);
    return 0;
}

Db *db_close(Db *db)
{
    if (!db)
        return NULL;
    while (db->statements) {
        DbStmt *stmt = db->statements;

        assert(!stmt->used); /* its holder would go on with freed memory */
        db->statements = stmt->next;
        (void)sqlite3_finalize(stmt->handle);
        free(stmt);
    }
    (void)sqlite3_close(db->handle);
    free(db->path);
    free(db);
    return NULL;
}

/* ---- Moving aside ---- */

/* PATH.broken-20261007T063000.123456Z: sorts by time. */
static char *broken_name(const char *path)
{
    char stamp[TIME_RFC3339_MAX], compact[TIME_RFC3339_MAX];
    uint64_t now = now_realtime_usec();
    size_t n = 0;

    (void)time_format_rfc3339(stamp, (int64_t)(now - now % SECOND));
    for (const char *p = stamp; *p && *p != 'Z'; p++)
        if (*p != '-' && *p != ':')
            compact[n++] = *p;
    compact[n] = '\0';
    return str_printf("%s.broken-%s.%06uZ", path, compact, (unsigned)(now % SECOND));
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Whether `name` is the database itself of a set that was moved aside, not its WAL or index. */
static bool is_broken_set(const char *name, const char *prefix)
{
    return startswith(name, prefix) && !endswith(name, "-wal") && !endswith(name, "-shm");
}

static void remove_set(const char *dir, const char *name)
{
    for (size_t i = 0; i < ELEMENTS(db_file_suffixes); i++) {
        auto_free char *path = str_printf("%s/%s%s", dir, name, db_file_suffixes[i]);

        if (path)
            (void)unlink(path); /* one set more on disk is no reason to fail */
    }
}

static void prune_broken(const char *path, unsigned keep)
{
    auto_free char *dir = NULL, *prefix = NULL;
    auto_(strv_freep) char **names = NULL;
    const char *slash = strrchr(path, '/');
    struct dirent *entry;
    size_t n;
    DIR *d;

    dir = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    prefix = str_printf("%s.broken-", slash ? slash + 1 : path);
    if (!dir || !prefix)
        return;
    d = opendir(*dir ? dir : "/");
    if (!d)
        return;
    while ((entry = readdir(d)))
        if (is_broken_set(entry->d_name, prefix) && strv_push(&names, entry->d_name) < 0)
            break;
    (void)closedir(d);

    n = strv_length(names);
    if (n <= keep)
        return;
    qsort(names, n, sizeof(*names), by_name);
    for (size_t i = 0; i < n - keep; i++)
        remove_set(dir, names[i]);
}

int db_move_aside(const char *path, unsigned keep, char **ret_name, Error *err)
{
    auto_free char *name = NULL, *dir = NULL;
    const char *slash;
    int r;

    assert(path);

    name = broken_name(path);
    slash = strrchr(path, '/');
    dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!name || !dir)
        return error_oom(err);

    /* The database last: after a crash in between it is still there to be found and moved, and a
     * new one never meets an old WAL. */
    for (size_t i = ELEMENTS(db_file_suffixes); i-- > 0;) {
        auto_free char *from = str_printf("%s%s", path, db_file_suffixes[i]);
        auto_free char *to = str_printf("%s%s", name, db_file_suffixes[i]);

        if (!from || !to)
            return error_oom(err);
        if (rename(from, to) < 0 && errno != ENOENT)
            return error_errno(err, errno, "move %s aside", from);
    }
    r = dir_sync(dir);
    if (r < 0)
        return error_errno(err, r, "sync %s", dir);
    prune_broken(path, keep);

    if (ret_name)
        *ret_name = take_ptr(name);
    return 0;
}
