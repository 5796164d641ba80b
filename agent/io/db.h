/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_DB_H
#define AGENT_IO_DB_H

/* SQLite: WAL, migrations, prepared statements by scope, bound parameters only. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/error.h"

typedef struct Db Db;
typedef struct DbStmt DbStmt;

typedef enum DbFlags {
    DB_FULL_SYNC = 1 << 0, /* synchronous=FULL: a commit survives a power cut; else NORMAL */
    DB_READ_ONLY = 1 << 1, /* never creates or migrates */
    DB_BULK =
        1 << 2, /* much comes and goes: larger pages and cache, free pages can be given back */
} DbFlags;

/* migrations[i] brings a database of user_version i to i + 1, in one transaction; where it is NULL,
 * version i + 1 was given up, and the next one begins where this one would. A database that is
 * newer than the program is -EPROTO, kind INVALID; one that fails PRAGMA quick_check (half a second
 * of it at most), is no database or of a version that was given up is -EBADMSG, kind CORRUPT (the
 * caller moves it aside with db_move_aside()). Damage that shows later is CORRUPT from the call
 * that meets it. A full disk is -ENOSPC, a directory that cannot be written -EROFS or -EACCES; both
 * can be tried again.
 *
 * The file is made for its owner alone (0600); its directory must be there. One thread. */
int db_open(const char *path, const char *const *migrations, size_t n_migrations, unsigned flags,
            Db **ret, Error *err) must_check;
Db *db_close(Db *db);
DEFINE_AUTO(Db, db_close)
/* Renames database, -wal and -shm to PATH.broken-TIMESTAMP (at most `keep` such sets stay). The new
 * name in *ret_name (may be NULL). */
int db_move_aside(const char *path, unsigned keep, char **ret_name, Error *err) must_check;

/* One or more statements without parameters. */
int db_exec(Db *db, const char *sql, Error *err) must_check;
/* BEGIN IMMEDIATE … COMMIT; a transaction left open is rolled back by db_rollback() (no-op when
 * none is open). */
int db_begin(Db *db, Error *err) must_check;
int db_commit(Db *db, Error *err) must_check;
void db_rollback(Db *db);
void db_rollbackp(Db **db); /* auto_(db_rollbackp) Db *transaction = db; */
int64_t db_last_id(const Db *db);
int64_t db_changes(const Db *db);
/* Writes the log back into the database, and lets the page cache go. */
int db_checkpoint(Db *db, Error *err) must_check;
/* Bytes of the database file and its WAL. */
int db_size(const Db *db, uint64_t *ret);

/* Prepared statements are cached by the address of `sql`, which must be a string literal; db_done()
 * hands one back. */
int db_prepare(Db *db, const char *sql, DbStmt **ret, Error *err) must_check;
/* One letter a parameter in `types`: i int64_t, u uint64_t (up to INT64_MAX), s const char * (NULL
 * is SQL NULL), b const void * + size_t, n (nothing; NULL). Text and blobs are borrowed until
 * db_done(). */
int db_bind(DbStmt *stmt, const char *types, Error *err, ...) must_check;
/* 1 a row, 0 the end, negative failure. */
int db_step(DbStmt *stmt, Error *err) must_check;
/* Columns of the current row; text and blobs live until the next step. NULL reads as 0, NULL. */
int64_t db_i64(DbStmt *stmt, int column);
uint64_t db_u64(DbStmt *stmt, int column);
const char *db_text(DbStmt *stmt, int column);
const void *db_blob(DbStmt *stmt, int column, size_t *ret_size);
bool db_is_null(DbStmt *stmt, int column);
DbStmt *db_done(DbStmt *stmt);
DEFINE_AUTO(DbStmt, db_done)

/* prepare + bind + step to the end: for statements that give no rows. `types` and the values as in
 * db_bind(). */
int db_run(Db *db, const char *sql, Error *err, const char *types, ...) must_check;
/* One integer of one row: 1 found, 0 no row. */
int db_query_i64(Db *db, const char *sql, int64_t *ret, Error *err, const char *types, ...)
    must_check;
/* One text of one row (copied; NULL for SQL NULL): 1 found, 0 no row. */
int db_query_text(Db *db, const char *sql, char **ret, Error *err, const char *types, ...)
    must_check;

#endif
