/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/db-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/str.h"

const char *const db_file_suffixes[DB_FILES_MAX] = {"", "-wal", "-shm"};

/* ---- Errors ---- */

typedef struct DbFailure {
    int sqlite_code;
    int code;
    ErrorKind kind;
    const char *remedy;
} DbFailure;

/* clang-format off */
static const DbFailure failures[] = {
    /* Extended codes first: the first match wins. */
    {SQLITE_CONSTRAINT_UNIQUE,     -EEXIST,    ERROR_INVALID,   NULL},
    {SQLITE_CONSTRAINT_PRIMARYKEY, -EEXIST,    ERROR_INVALID,   NULL},
    {SQLITE_CONSTRAINT_ROWID,      -EEXIST,    ERROR_INVALID,   NULL},
    {SQLITE_IOERR_SHORT_READ,      -EBADMSG,   ERROR_CORRUPT,   NULL},
    {SQLITE_IOERR_CORRUPTFS,       -EBADMSG,   ERROR_CORRUPT,   NULL},
    {SQLITE_IOERR_NOMEM,           -ENOMEM,    ERROR_INTERNAL,  NULL},
    {SQLITE_CONSTRAINT,            -EINVAL,    ERROR_INVALID,   NULL},
    {SQLITE_CORRUPT,               -EBADMSG,   ERROR_CORRUPT,   NULL},
    {SQLITE_NOTADB,                -EBADMSG,   ERROR_CORRUPT,   NULL},
    {SQLITE_NOMEM,                 -ENOMEM,    ERROR_INTERNAL,  NULL},
    {SQLITE_BUSY,                  -EBUSY,     ERROR_TEMPORARY, NULL},
    {SQLITE_LOCKED,                -EBUSY,     ERROR_TEMPORARY, NULL},
    {SQLITE_FULL,                  -ENOSPC,    ERROR_TEMPORARY, "free space on its file system"},
    {SQLITE_READONLY,              -EROFS,     ERROR_TEMPORARY, "make its directory writable for us"},
    {SQLITE_IOERR,                 -EIO,       ERROR_TEMPORARY, NULL},
    {SQLITE_INTERRUPT,             -ECANCELED, ERROR_TEMPORARY, NULL},
    {SQLITE_TOOBIG,                -E2BIG,     ERROR_INVALID,   NULL},
};
/* clang-format on */

/* The file system's own reason, where SQLite says only that it could not read, write or open. */
int db_fail_of_system(int system_errno, const char *path, const char *what, Error *err)
{
    int r;

    r = error_errno(err, system_errno, "%s: %s", path, what);
    if (system_errno == ENOSPC || system_errno == EDQUOT)
        return error_remedy(err, r, "free space on its file system");
    if (system_errno == EACCES || system_errno == EROFS)
        return error_remedy(err, r, "make its directory writable for us");
    return r;
}

int db_fail_at(sqlite3 *handle, const char *path, int sqlite_code, const char *what, Error *err)
{
    int primary = sqlite_code & 0xff, system_errno = handle ? sqlite3_system_errno(handle) : 0;
    const char *text = handle ? sqlite3_errmsg(handle) : sqlite3_errstr(sqlite_code);

    for (size_t i = 0; i < ELEMENTS(failures); i++) {
        const DbFailure *f = &failures[i];
        int r;

        if (f->sqlite_code != sqlite_code && f->sqlite_code != primary)
            continue;
        if (f->sqlite_code == SQLITE_IOERR && system_errno > 0)
            break;
        r = error_set(err, f->code, f->kind, "%s: %s: %s", path, what, text);
        return f->remedy ? error_remedy(err, r, "%s", f->remedy) : r;
    }

    if ((primary == SQLITE_CANTOPEN || primary == SQLITE_IOERR) && system_errno > 0)
        return db_fail_of_system(system_errno, path, what, err);
    if (primary == SQLITE_CANTOPEN)
        return error_set(err, -EIO, ERROR_TEMPORARY, "%s: %s: %s", path, what, text);
    return error_set(err, -EINVAL, ERROR_INTERNAL, "%s: %s: %s", path, what, text);
}

int db_fail(Db *db, int sqlite_code, const char *what, Error *err)
{
    return db_fail_at(db->handle, db->path, sqlite_code, what, err);
}

int db_exec_as(Db *db, const char *what, const char *sql, Error *err)
{
    int code;

    code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : db_fail(db, code, what, err);
}

/* ---- Transactions ---- */

int db_exec(Db *db, const char *sql, Error *err)
{
    assert(db && sql);

    return db_exec_as(db, "execute", sql, err);
}

int db_begin(Db *db, Error *err)
{
    assert(db && sqlite3_get_autocommit(db->handle)); /* they do not nest */

    return db_exec_as(db, "begin", "BEGIN IMMEDIATE", err);
}

int db_commit(Db *db, Error *err)
{
    assert(db);

    return db_exec_as(db, "commit", "COMMIT", err);
}

void db_rollback(Db *db)
{
    if (!db || sqlite3_get_autocommit(db->handle))
        return;
    (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

void db_rollbackp(Db **db)
{
    db_rollback(*db);
}

int64_t db_last_id(const Db *db)
{
    return sqlite3_last_insert_rowid(db->handle);
}

int64_t db_changes(const Db *db)
{
    return sqlite3_changes64(db->handle);
}

int db_checkpoint(Db *db, Error *err)
{
    int code;

    assert(db);

    code = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    (void)sqlite3_db_release_memory(db->handle);
    return code == SQLITE_OK ? 0 : db_fail(db, code, "checkpoint", err);
}

int db_size(const Db *db, uint64_t *ret)
{
    uint64_t total = 0;

    assert(db && ret);

    for (size_t i = 0; i < 2; i++) {
        auto_free char *path = str_printf("%s%s", db->path, db_file_suffixes[i]);
        struct stat st;

        if (!path)
            return -ENOMEM;
        if (stat(path, &st) == 0)
            total += (uint64_t)st.st_size;
        else if (errno != ENOENT)
            return -errno;
    }
    *ret = total;
    return 0;
}

/* ---- Statements ---- */

int db_prepare(Db *db, const char *sql, DbStmt **ret, Error *err)
{
    DbStmt *stmt;
    int code;

    assert(db && sql && ret);

    /* A statement that is in use (a loop inside a loop over the same SQL) is not handed out again.
     */
    for (stmt = db->statements; stmt; stmt = stmt->next)
        if (stmt->sql == sql && !stmt->used)
            break;

    if (!stmt) {
        sqlite3_stmt *handle = NULL;

        code = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &handle, NULL);
        if (code != SQLITE_OK)
            return db_fail(db, code, sql, err);
        stmt = calloc(1, sizeof(*stmt));
        if (!stmt) {
            (void)sqlite3_finalize(handle);
            return error_oom(err);
        }
        *stmt = (DbStmt){.next = db->statements, .db = db, .sql = sql, .handle = handle};
        db->statements = stmt;
    }
    stmt->used = true;
    *ret = stmt;
    return 0;
}

/* Binds the next value of `args` as parameter `index`; an SQLite code. */
static int bind_one(DbStmt *stmt, int index, char type, va_list *args)
{
    switch (type) {
    case 'i':
        return sqlite3_bind_int64(stmt->handle, index, va_arg(*args, int64_t));
    case 'u': {
        uint64_t value = va_arg(*args, uint64_t);

        assert(value <= INT64_MAX);
        return sqlite3_bind_int64(stmt->handle, index, (int64_t)value);
    }
    case 's':
        return sqlite3_bind_text(stmt->handle, index, va_arg(*args, const char *), -1,
                                 SQLITE_STATIC);
    case 'b': {
        const void *data = va_arg(*args, const void *);
        size_t size = va_arg(*args, size_t);

        /* A NULL pointer would be SQL NULL; an empty blob is a value. */
        return sqlite3_bind_blob64(stmt->handle, index, data ? data : "", size, SQLITE_STATIC);
    }
    case 'n':
        return sqlite3_bind_null(stmt->handle, index);
    default:
        assert(!"a known type letter");
        return SQLITE_MISUSE;
    }
}

static int bind_all(DbStmt *stmt, const char *types, va_list *args, Error *err)
{
    assert(stmt && (int)strlen(types) == sqlite3_bind_parameter_count(stmt->handle));

    for (int i = 0; types[i]; i++) {
        int code = bind_one(stmt, i + 1, types[i], args);

        if (code != SQLITE_OK)
            return db_fail(stmt->db, code, stmt->sql, err);
    }
    return 0;
}

int db_bind(DbStmt *stmt, const char *types, Error *err, ...)
{
    va_list args;
    int r;

    assert(stmt && types);

    va_start(args, err);
    r = bind_all(stmt, types, &args, err);
    va_end(args);
    return r;
}

int db_step(DbStmt *stmt, Error *err)
{
    int code;

    assert(stmt);

    code = sqlite3_step(stmt->handle);
    if (code == SQLITE_ROW)
        return 1;
    if (code == SQLITE_DONE) {
        /* Bound again and stepped again without another db_prepare(); the values stay. */
        (void)sqlite3_reset(stmt->handle);
        return 0;
    }
    return db_fail(stmt->db, code, stmt->sql, err);
}

int64_t db_i64(DbStmt *stmt, int column)
{
    return sqlite3_column_int64(stmt->handle, column);
}

uint64_t db_u64(DbStmt *stmt, int column)
{
    int64_t value = sqlite3_column_int64(stmt->handle, column);

    return value > 0 ? (uint64_t)value : 0;
}

const char *db_text(DbStmt *stmt, int column)
{
    return (const char *)sqlite3_column_text(stmt->handle, column);
}

const void *db_blob(DbStmt *stmt, int column, size_t *ret_size)
{
    const void *data = sqlite3_column_blob(stmt->handle, column);

    if (ret_size)
        *ret_size = (size_t)sqlite3_column_bytes(stmt->handle, column);
    return data;
}

bool db_is_null(DbStmt *stmt, int column)
{
    return sqlite3_column_type(stmt->handle, column) == SQLITE_NULL;
}

DbStmt *db_done(DbStmt *stmt)
{
    if (!stmt)
        return NULL;
    (void)sqlite3_reset(stmt->handle);
    (void)sqlite3_clear_bindings(stmt->handle);
    stmt->used = false;
    return NULL;
}

/* ---- In one call ---- */

static int prepare_and_bind(Db *db, const char *sql, const char *types, va_list *args, DbStmt **ret,
                            Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    r = bind_all(stmt, types, args, err);
    if (r < 0)
        return r;
    *ret = take_ptr(stmt);
    return 0;
}

int db_run(Db *db, const char *sql, Error *err, const char *types, ...)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    va_list args;
    int r;

    va_start(args, types);
    r = prepare_and_bind(db, sql, types, &args, &stmt, err);
    va_end(args);
    while (r >= 0) {
        r = db_step(stmt, err);
        if (r == 0)
            return 0;
    }
    return r;
}

int db_query_i64(Db *db, const char *sql, int64_t *ret, Error *err, const char *types, ...)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    va_list args;
    int r;

    va_start(args, types);
    r = prepare_and_bind(db, sql, types, &args, &stmt, err);
    va_end(args);
    if (r < 0)
        return r;
    r = db_step(stmt, err);
    if (r <= 0)
        return r;
    *ret = db_i64(stmt, 0);
    return 1;
}

int db_query_text(Db *db, const char *sql, char **ret, Error *err, const char *types, ...)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    char *copy = NULL;
    const char *text;
    va_list args;
    int r;

    va_start(args, types);
    r = prepare_and_bind(db, sql, types, &args, &stmt, err);
    va_end(args);
    if (r < 0)
        return r;
    r = db_step(stmt, err);
    if (r <= 0)
        return r;
    text = db_text(stmt, 0);
    r = str_set(&copy, text);
    if (r < 0)
        return error_oom(err);
    *ret = copy;
    return 1;
}
