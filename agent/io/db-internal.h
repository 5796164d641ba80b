/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_DB_INTERNAL_H
#define AGENT_IO_DB_INTERNAL_H

/* What the two halves of the wrapper share: db.c (statements, transactions) and db-open.c (the
 * file: opening, checking, migrating, moving aside). */

#include <sqlite3.h>

#include "agent/io/db.h"

struct DbStmt {
    DbStmt *next;
    Db *db;
    const char *sql;
    sqlite3_stmt *handle;
    bool used;
};

struct Db {
    sqlite3 *handle;
    char *path;
    DbStmt *statements;
};

/* An SQLite code as an Error: "PATH: WHAT: text". */
int db_fail_at(sqlite3 *handle, const char *path, int sqlite_code, const char *what, Error *err);
int db_fail(Db *db, int sqlite_code, const char *what, Error *err);
/* The file system's own reason. */
int db_fail_of_system(int system_errno, const char *path, const char *what, Error *err);
int db_exec_as(Db *db, const char *what, const char *sql, Error *err) must_check;

#define DB_FILES_MAX 3
/* What is added to the path: "", "-wal", "-shm". */
extern const char *const db_file_suffixes[DB_FILES_MAX];

#endif
