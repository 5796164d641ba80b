/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "agent/base/file.h"
#include "agent/io/db.h"

static const char *const migrations[] = {
    "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB);",
    ("ALTER TABLE item ADD COLUMN age INTEGER NOT NULL DEFAULT 7;"
     "CREATE TABLE pair (a INTEGER, b INTEGER);"),
    "UPDATE item SET age = age + 1;",
};

static Db *open_at(const char *dir, const char *name, size_t n_migrations, unsigned flags)
{
    auto_free char *path = path_join(dir, name);
    auto_error Error err = {0};
    Db *db = NULL;

    assert_ok(db_open(path, migrations, n_migrations, flags, &db, &err), &err);
    return db;
}

static int64_t count(Db *db, const char *sql)
{
    auto_error Error err = {0};
    int64_t n = -1;

    assert_ok(db_query_i64(db, sql, &n, &err, ""), &err);
    return n;
}

/* Damages a closed database beyond its first page, as a dying disk would. */
static void scribble(const char *path)
{
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
    char noise[512];
    off_t end;

    assert_true(fd >= 0);
    memset(noise, 0xa5, sizeof(noise));
    end = lseek(fd, 0, SEEK_END);
    for (off_t at = 4096; at < end; at += 1024)
        assert_int_equal(pwrite(fd, noise, sizeof(noise), at), sizeof(noise));
}

/* ---- Opening and migrating ---- */

static void migrations_bring_an_old_database_forward_and_keep_its_rows(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_(db_closep) Db *db = open_at(dir, "a.db", 1, 0);
    int64_t age = 0;

    assert_int_equal(db_run(db, "INSERT INTO item (name) VALUES (?)", NULL, "s", "old"), 0);
    db = db_close(db);

    db = open_at(dir, "a.db", 3, 0);
    assert_int_equal(count(db, "PRAGMA user_version"), 3);
    assert_int_equal(
        db_query_i64(db, "SELECT age FROM item WHERE name = ?", &age, NULL, "s", "old"), 1);
    assert_int_equal(age, 8);
    db = db_close(db);

    /* Nothing runs a second time. */
    db = open_at(dir, "a.db", 3, 0);
    assert_int_equal(count(db, "SELECT age FROM item"), 8);
}

static void a_migration_that_fails_leaves_the_database_as_it_was(void **state)
{
    static const char *const broken[] = {
        "CREATE TABLE item (id INTEGER PRIMARY KEY);",
        "CREATE TABLE second (id INTEGER); INSERT INTO nowhere VALUES (1);",
    };
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db");
    auto_(db_closep) Db *db = NULL;
    auto_error Error err = {0};

    assert_int_equal(db_open(path, broken, 2, 0, &db, &err), -EINVAL);
    assert_contains(error_text(&err), "schema 2");
    assert_contains(error_text(&err), "nowhere");
    assert_null(db);

    db = open_at(dir, "a.db", 0 + 1, 0);
    assert_int_equal(count(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'second'"), 0);
}

static void a_database_of_a_newer_program_is_refused_untouched(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db");
    auto_(db_closep) Db *db = open_at(dir, "a.db", 3, 0);
    auto_error Error err = {0};

    db = db_close(db);
    assert_int_equal(db_open(path, migrations, 2, 0, &db, &err), -EPROTO);
    assert_int_equal(err.kind, ERROR_INVALID);
    assert_contains(error_text(&err), "newer version");
    assert_non_null(err.remedy);

    db = open_at(dir, "a.db", 3, 0);
    assert_int_equal(count(db, "PRAGMA user_version"), 3);
}

static void a_database_of_a_version_that_was_given_up_is_refused_untouched(void **state)
{
    static const char *const given_up[] = {NULL, "CREATE TABLE item (id INTEGER PRIMARY KEY);"};
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db"), *fresh = path_join(dir, "b.db");
    auto_(db_closep) Db *db = open_at(dir, "a.db", 1, 0);
    auto_error Error err = {0};

    db = db_close(db);
    for (unsigned flags = 0; flags <= DB_READ_ONLY; flags += DB_READ_ONLY) {
        assert_int_equal(db_open(path, given_up, 2, flags, &db, &err), -EBADMSG);
        assert_int_equal(err.kind, ERROR_CORRUPT);
        assert_contains(error_text(&err), "version 1");
        error_done(&err);
    }
    db = db_close(open_at(dir, "a.db", 1, 0));

    /* One that is new begins behind it. */
    assert_ok(db_open(fresh, given_up, 2, 0, &db, &err), &err);
    assert_int_equal(count(db, "PRAGMA user_version"), 2);
    assert_int_equal(count(db, "SELECT count(*) FROM item"), 0);
}

static void reading_only_neither_creates_nor_migrates(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db");
    auto_(db_closep) Db *db = NULL;
    auto_error Error err = {0};

    assert_int_equal(db_open(path, migrations, 3, DB_READ_ONLY, &db, &err), -ENOENT);
    assert_int_equal(access(path, F_OK), -1);
    error_done(&err);

    db = db_close(open_at(dir, "a.db", 1, 0));
    assert_int_equal(db_open(path, migrations, 3, DB_READ_ONLY, &db, &err), -EPROTO);
    error_done(&err);

    db = db_close(open_at(dir, "a.db", 3, 0));
    assert_ok(db_open(path, migrations, 3, DB_READ_ONLY, &db, &err), &err);
    assert_true(db_exec(db, "DELETE FROM item", &err) < 0);
}

static void a_new_database_is_for_its_owner_alone(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db"), *wal = path_join(dir, "a.db-wal");
    auto_(db_closep) Db *db = open_at(dir, "a.db", 1, DB_FULL_SYNC | DB_BULK);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(wal, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(count(db, "PRAGMA synchronous"), 2);
    assert_int_equal(count(db, "PRAGMA auto_vacuum"), 2);
    assert_int_equal(count(db, "PRAGMA page_size"), 8192);
    assert_int_equal(count(db, "PRAGMA secure_delete"), 0);
}

static void a_missing_directory_is_named(void **state)
{
    auto_(db_closep) Db *db = NULL;
    auto_error Error err = {0};

    assert_int_equal(db_open("/nonexistent/a.db", migrations, 1, 0, &db, &err), -ENOENT);
    assert_contains(error_text(&err), "/nonexistent/a.db");
}

/* ---- Damage ---- */

static void damage_is_found_at_open_and_moved_aside(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db"), *name = NULL;
    auto_(db_closep) Db *db = open_at(dir, "a.db", 3, 0);
    auto_error Error err = {0};

    for (int64_t i = 0; i < 2000; i++)
        assert_int_equal(db_run(db, "INSERT INTO pair VALUES (?, ?)", NULL, "ii", i, i), 0);
    db = db_close(db);
    scribble(path);

    assert_int_equal(db_open(path, migrations, 3, 0, &db, &err), -EBADMSG);
    assert_int_equal(err.kind, ERROR_CORRUPT);
    error_done(&err);

    assert_ok(db_move_aside(path, 2, &name, &err), &err);
    assert_contains(name, "/a.db.broken-2");
    assert_int_equal(access(name, F_OK), 0);
    assert_int_equal(access(path, F_OK), -1);
    db = open_at(dir, "a.db", 3, 0);
    assert_int_equal(count(db, "SELECT count(*) FROM pair"), 0);
}

static void what_is_no_database_at_all_is_corrupt_too(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db");
    auto_(db_closep) Db *db = NULL;
    auto_error Error err = {0};
    char noise[8192];

    memset(noise, 'x', sizeof(noise));
    assert_ok(file_replace(path, noise, sizeof(noise), 0600, &err), &err);
    assert_int_equal(db_open(path, migrations, 3, 0, &db, &err), -EBADMSG);
    assert_int_equal(err.kind, ERROR_CORRUPT);
}

static void only_the_newest_broken_sets_are_kept(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db"), *wal = path_join(dir, "a.db-wal");
    auto_free char *newest = NULL;
    auto_error Error err = {0};
    struct dirent *entry;
    int databases = 0, logs = 0;
    DIR *d;

    for (int i = 0; i < 4; i++) {
        free(take_ptr(newest));
        assert_ok(file_replace(path, "x", 1, 0600, &err), &err);
        assert_ok(file_replace(wal, "y", 1, 0600, &err), &err);
        assert_ok(db_move_aside(path, 2, &newest, &err), &err);
    }

    d = opendir(dir);
    while ((entry = readdir(d))) {
        if (entry->d_name[0] == '.')
            continue;
        if (endswith(entry->d_name, "-wal"))
            logs++;
        else
            databases++;
    }
    (void)closedir(d);
    assert_int_equal(databases, 2);
    assert_int_equal(logs, 2);
    assert_int_equal(access(newest, F_OK), 0);
}

/* ---- A disk that refuses ---- */

/* Runs in a child of its own: it gives up root, or mounts. The child's exit status: 0 is right, 77
 * is "cannot be shown here". */
static int in_child(int (*fn)(const char *dir), const char *dir)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fn(dir));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int open_where_nobody_may_write(const char *dir)
{
    auto_free char *path = path_join(dir, "a.db"), *fresh = path_join(dir, "b.db");
    auto_(db_closep) Db *db = NULL;
    auto_error Error err = {0};

    if (getuid() == 0 && setresuid(65534, 65534, 65534) < 0)
        return 77;
    if (db_open(fresh, migrations, 3, 0, &db, &err) != -EACCES || !err.remedy || db)
        return 1;
    error_done(&err);
    /* The file is there and readable, and still must not be opened as if all were well. */
    if (db_open(path, migrations, 3, 0, &db, &err) >= 0 || db)
        return 2;
    return err.kind == ERROR_DENIED || err.kind == ERROR_TEMPORARY ? 0 : 3;
}

static void a_directory_that_may_not_be_written_is_said_with_its_remedy(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *path = path_join(dir, "a.db");
    int r;

    db_close(open_at(dir, "a.db", 3, 0));
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(chmod(dir, 0555), 0);
    r = in_child(open_where_nobody_may_write, dir);
    assert_int_equal(chmod(dir, 0755), 0);
    if (r == 77)
        skip();
    assert_int_equal(r, 0);
}

/* Fills a database on a file system of 1 MiB until it refuses, then makes room. */
static int fill_small_disk(const char *dir)
{
    static char blob[20000];
    auto_(db_closep) Db *db = NULL;
    auto_free char *path = path_join(dir, "a.db"), *ballast = path_join(dir, "ballast");
    auto_error Error err = {0};
    int64_t committed = 0, seen = 0;
    int r;

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=1m") < 0)
        return 77;
    if (file_replace(ballast, blob, sizeof(blob), 0600, NULL) < 0 ||
        file_replace(ballast, blob, sizeof(blob), 0600, NULL) < 0)
        return 1;
    if (db_open(path, migrations, 3, DB_FULL_SYNC, &db, &err) < 0)
        return 2;

    for (;;) {
        r = db_begin(db, &err);
        if (r >= 0)
            r = db_run(db, "INSERT INTO item (data) VALUES (?)", &err, "b", blob, sizeof(blob));
        if (r >= 0)
            r = db_commit(db, &err);
        if (r < 0)
            break;
        committed++;
    }
    db_rollback(db);
    if (r != -ENOSPC || err.kind != ERROR_TEMPORARY || !err.remedy || committed == 0)
        return 3;

    /* What was committed is there, before and after a restart, and room lets it go on. */
    if (db_query_i64(db, "SELECT count(*) FROM item", &seen, NULL, "") != 1 || seen != committed)
        return 4;
    db = db_close(db);
    if (unlink(ballast) < 0 || db_open(path, migrations, 3, DB_FULL_SYNC, &db, NULL) < 0)
        return 5;
    if (db_query_i64(db, "SELECT count(*) FROM item", &seen, NULL, "") != 1 || seen != committed)
        return 6;
    return db_run(db, "INSERT INTO item (name) VALUES ('more')", NULL, "") < 0 ? 7 : 0;
}

static void a_full_disk_loses_nothing_and_heals_when_there_is_room(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    int r = in_child(fill_small_disk, dir);

    if (r == 77) {
        print_message("# needs root and mount namespaces\n");
        skip();
    }
    assert_int_equal(r, 0);
}

/* ---- Power cuts ---- */

/* For ever: both halves of a pair in one transaction, the number told after its commit. */
static void noreturn_ write_pairs_until_killed(const char *dir, int fd)
{
    auto_free char *path = path_join(dir, "a.db");
    Db *db = NULL;

    if (db_open(path, migrations, 3, DB_FULL_SYNC, &db, NULL) < 0)
        _exit(1);
    for (int64_t i = 1;; i++) {
        if (db_begin(db, NULL) < 0 ||
            db_run(db, "INSERT INTO pair VALUES (?, 0)", NULL, "i", i) < 0 ||
            db_run(db, "UPDATE pair SET b = a WHERE a = ?", NULL, "i", i) < 0 ||
            db_commit(db, NULL) < 0)
            _exit(2);
        if (write(fd, &i, sizeof(i)) != (ssize_t)sizeof(i))
            _exit(3);
    }
}

static void a_killed_writer_leaves_whole_transactions_and_every_confirmed_one(void **state)
{
    auto_test_dir char *dir = test_dir_new();

    db_close(open_at(dir, "a.db", 3, DB_FULL_SYNC));
    for (int round = 0; round < 5; round++) {
        auto_(db_closep) Db *db = NULL;
        int64_t last = 0, number;
        int fds[2], status;
        pid_t pid;

        assert_int_equal(pipe(fds), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)close(fds[0]);
            write_pairs_until_killed(dir, fds[1]);
        }
        (void)close(fds[1]);
        while (last < 10 + 7 * round && read(fds[0], &number, sizeof(number)) > 0)
            last = number;
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        while (read(fds[0], &number, sizeof(number)) == (ssize_t)sizeof(number))
            last = number;
        (void)close(fds[0]);

        db = open_at(dir, "a.db", 3, DB_FULL_SYNC);
        assert_int_equal(count(db, "SELECT count(*) FROM pair WHERE a <> b"), 0);
        assert_true(count(db, "SELECT max(a) FROM pair") >= last);
        assert_int_equal(db_exec(db, "DELETE FROM pair", NULL), 0);
    }
}

static void a_writer_killed_inside_a_transaction_leaves_nothing_of_it(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_(db_closep) Db *db = NULL;
    int fds[2], status;
    char byte;
    pid_t pid;

    db_close(open_at(dir, "a.db", 3, DB_FULL_SYNC));
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        db = open_at(dir, "a.db", 3, DB_FULL_SYNC);
        if (db_begin(db, NULL) < 0 || db_exec(db, "INSERT INTO pair VALUES (1, 1)", NULL) < 0 ||
            write(fds[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    assert_int_equal(read(fds[0], &byte, 1), 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)close(fds[0]);
    (void)close(fds[1]);

    db = open_at(dir, "a.db", 3, DB_FULL_SYNC);
    assert_int_equal(count(db, "SELECT count(*) FROM pair"), 0);
    assert_int_equal(db_begin(db, NULL), 0); /* its lock died with it */
    db_rollback(db);
}

/* ---- Statements ---- */

static void every_type_comes_back_as_it_was_bound(void **state)
{
    static const char data[] = {0, 1, 'x', 0};
    auto_test_dir char *dir = test_dir_new();
    auto_(db_closep) Db *db = open_at(dir, "a.db", 3, 0);
    auto_(db_donep) DbStmt *stmt = NULL;
    auto_error Error err = {0};
    size_t size = 0;

    assert_ok(db_run(db, "INSERT INTO item (id, name, data, age) VALUES (?, ?, ?, ?)", &err, "isbu",
                     INT64_MIN, "서울", data, sizeof(data), (uint64_t)INT64_MAX),
              &err);
    assert_int_equal(db_last_id(db), INT64_MIN);
    assert_ok(db_run(db, "INSERT INTO item (id, name, data) VALUES (?, ?, ?)", &err, "isb",
                     (int64_t)1, NULL, NULL, (size_t)0),
              &err);

    assert_ok(db_prepare(db, "SELECT id, name, data, age FROM item ORDER BY id", &stmt, &err),
              &err);
    assert_int_equal(db_step(stmt, &err), 1);
    assert_true(db_i64(stmt, 0) == INT64_MIN);
    assert_int_equal(db_u64(stmt, 0), 0);
    assert_string_equal(db_text(stmt, 1), "서울");
    assert_memory_equal(db_blob(stmt, 2, &size), data, sizeof(data));
    assert_int_equal(size, sizeof(data));
    assert_true(db_u64(stmt, 3) == INT64_MAX);
    assert_int_equal(db_step(stmt, &err), 1);
    assert_true(db_is_null(stmt, 1));
    assert_null(db_text(stmt, 1));
    assert_false(db_is_null(stmt, 2));
    (void)db_blob(stmt, 2, &size);
    assert_int_equal(size, 0);
    assert_int_equal(db_step(stmt, &err), 0);
}

static void a_statement_in_use_is_not_handed_out_twice(void **state)
{
    static const char sql[] = "SELECT id FROM item ORDER BY id";
    auto_test_dir char *dir = test_dir_new();
    auto_(db_closep) Db *db = open_at(dir, "a.db", 3, 0);
    DbStmt *outer = NULL, *inner = NULL, *again = NULL;
    int seen = 0;

    assert_int_equal(db_exec(db, "INSERT INTO item (id) VALUES (1), (2), (3)", NULL), 0);
    assert_int_equal(db_changes(db), 3);

    assert_int_equal(db_prepare(db, sql, &outer, NULL), 0);
    while (db_step(outer, NULL) == 1) {
        assert_int_equal(db_prepare(db, sql, &inner, NULL), 0);
        assert_ptr_not_equal(inner, outer);
        while (db_step(inner, NULL) == 1)
            seen++;
        inner = db_done(inner);
    }
    assert_int_equal(seen, 9);
    db_done(outer);

    /* Back in the cache, and clean. */
    assert_int_equal(db_prepare(db, sql, &again, NULL), 0);
    assert_int_equal(db_step(again, NULL), 1);
    assert_int_equal(db_i64(again, 0), 1);
    db_done(again);
}

static void a_second_row_of_the_same_name_exists_already(void **state)
{
    static const char sql[] = "INSERT INTO item (name) VALUES (?)";
    auto_test_dir char *dir = test_dir_new();
    auto_(db_closep) Db *db = open_at(dir, "a.db", 3, 0);
    auto_error Error err = {0};

    assert_int_equal(db_run(db, sql, &err, "s", "one"), 0);
    assert_int_equal(db_run(db, sql, &err, "s", "one"), -EEXIST);
    assert_contains(error_text(&err), "item.name");
    assert_int_equal(db_run(db, sql, NULL, "s", "two"), 0); /* the statement is fit for use again */
}

static void queries_tell_no_row_from_an_empty_one(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_(db_closep) Db *db = open_at(dir, "a.db", 3, 0);
    auto_free char *name = NULL;
    int64_t id = 5;

    assert_int_equal(db_query_i64(db, "SELECT id FROM item", &id, NULL, ""), 0);
    assert_int_equal(id, 5);
    assert_int_equal(db_query_text(db, "SELECT name FROM item", &name, NULL, ""), 0);
    assert_int_equal(db_exec(db, "INSERT INTO item (name) VALUES (NULL), ('b')", NULL), 0);
    assert_int_equal(
        db_query_text(db, "SELECT name FROM item WHERE id = ?", &name, NULL, "i", (int64_t)1), 1);
    assert_null(name);
    assert_int_equal(
        db_query_text(db, "SELECT name FROM item WHERE id = ?", &name, NULL, "i", (int64_t)2), 1);
    assert_string_equal(name, "b");
}

static int leave_early(Db *db)
{
    auto_(db_rollbackp) Db *transaction = NULL;

    if (db_begin(db, NULL) < 0)
        return -1;
    transaction = db;
    if (db_exec(db, "INSERT INTO pair VALUES (1, 1)", NULL) < 0)
        return -1;
    return count(transaction, "SELECT count(*) FROM pair") == 1 ? 0 : -1;
}

static void a_transaction_left_open_is_rolled_back(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_(db_closep) Db *db = open_at(dir, "a.db", 3, 0);

    assert_int_equal(leave_early(db), 0);
    assert_int_equal(count(db, "SELECT count(*) FROM pair"), 0);
    db_rollback(db);
    db_rollback(NULL);
}

static void a_checkpoint_empties_the_log(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *wal = path_join(dir, "a.db-wal");
    auto_(db_closep) Db *db = open_at(dir, "a.db", 3, 0);
    uint64_t before = 0, after = 0;
    struct stat st;

    assert_int_equal(db_size(db, &before), 0);
    assert_int_equal(db_checkpoint(db, NULL), 0);
    assert_int_equal(stat(wal, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(db_size(db, &after), 0);
    assert_true(after > 0 && before > after);
}

static void a_lock_held_elsewhere_is_busy_and_may_be_tried_again(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_(db_closep) Db *one = open_at(dir, "a.db", 3, 0);
    auto_(db_closep) Db *two = open_at(dir, "a.db", 3, 0);
    auto_error Error err = {0};

    assert_int_equal(db_begin(one, NULL), 0);
    assert_int_equal(db_begin(two, &err), -EBUSY);
    assert_int_equal(err.kind, ERROR_TEMPORARY);
    assert_int_equal(db_commit(one, NULL), 0);
    assert_int_equal(db_begin(two, NULL), 0);
    db_rollback(two);
}

TEST_MAIN(cmocka_unit_test(migrations_bring_an_old_database_forward_and_keep_its_rows),
          cmocka_unit_test(a_migration_that_fails_leaves_the_database_as_it_was),
          cmocka_unit_test(a_database_of_a_newer_program_is_refused_untouched),
          cmocka_unit_test(a_database_of_a_version_that_was_given_up_is_refused_untouched),
          cmocka_unit_test(a_database_of_a_version_that_was_given_up_is_refused_untouched),
          cmocka_unit_test(reading_only_neither_creates_nor_migrates),
          cmocka_unit_test(a_new_database_is_for_its_owner_alone),
          cmocka_unit_test(a_missing_directory_is_named),
          cmocka_unit_test(damage_is_found_at_open_and_moved_aside),
          cmocka_unit_test(what_is_no_database_at_all_is_corrupt_too),
          cmocka_unit_test(only_the_newest_broken_sets_are_kept),
          cmocka_unit_test(a_directory_that_may_not_be_written_is_said_with_its_remedy),
          cmocka_unit_test(a_full_disk_loses_nothing_and_heals_when_there_is_room),
          cmocka_unit_test(a_killed_writer_leaves_whole_transactions_and_every_confirmed_one),
          cmocka_unit_test(a_writer_killed_inside_a_transaction_leaves_nothing_of_it),
          cmocka_unit_test(every_type_comes_back_as_it_was_bound),
          cmocka_unit_test(a_statement_in_use_is_not_handed_out_twice),
          cmocka_unit_test(a_second_row_of_the_same_name_exists_already),
          cmocka_unit_test(queries_tell_no_row_from_an_empty_one),
          cmocka_unit_test(a_transaction_left_open_is_rolled_back),
          cmocka_unit_test(a_checkpoint_empties_the_log),
          cmocka_unit_test(a_lock_held_elsewhere_is_busy_and_may_be_tried_again))
