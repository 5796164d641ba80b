# SPDX-License-Identifier: Apache-2.0
"""What must survive a kill -9 of the double: one SQLite database in its directory.

One connection and one lock: the double is small and its callers are few. `synchronous` is off
because a killed process loses nothing that the kernel already has.
"""

import decimal
import json
import os
import sqlite3
import threading
from contextlib import contextmanager

SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tokens (token TEXT PRIMARY KEY, audience TEXT NOT NULL, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS metadata (path TEXT PRIMARY KEY, value BLOB);
CREATE TABLE IF NOT EXISTS secrets (project TEXT, secret TEXT, resource TEXT NOT NULL,
    PRIMARY KEY (project, secret));
CREATE TABLE IF NOT EXISTS versions (project TEXT, secret TEXT, version INTEGER, state TEXT NOT NULL,
    data BLOB, created TEXT NOT NULL, PRIMARY KEY (project, secret, version));
CREATE TABLE IF NOT EXISTS datasets (project TEXT, dataset TEXT, resource TEXT NOT NULL,
    PRIMARY KEY (project, dataset));
CREATE TABLE IF NOT EXISTS tables (id INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT, dataset TEXT,
    tbl TEXT, resource TEXT NOT NULL, UNIQUE (project, dataset, tbl));
CREATE TABLE IF NOT EXISTS jobs (seq INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT, job TEXT,
    location TEXT, created INTEGER, state TEXT, resource TEXT NOT NULL, plan TEXT,
    UNIQUE (project, job));
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, project TEXT, created REAL, total INTEGER,
    received INTEGER NOT NULL, metadata TEXT NOT NULL, answer TEXT, gone INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS modifications (tbl TEXT, day TEXT, loads INTEGER NOT NULL,
    partitions INTEGER NOT NULL, PRIMARY KEY (tbl, day));
"""


def _compare_numbers(a, b):
    x, y = decimal.Decimal(a), decimal.Decimal(b)
    return (x > y) - (x < y)


class Store:
    def __init__(self, directory):
        self.directory = directory
        self.uploads = os.path.join(directory, "uploads")
        os.makedirs(self.uploads, exist_ok=True)
        self.lock = threading.RLock()
        self.db = sqlite3.connect(os.path.join(directory, "state.db"), check_same_thread=False,
                                  isolation_level=None, timeout=30)
        self.db.create_collation("bq_number", _compare_numbers)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=OFF")
        self.db.executescript(SCHEMA)

    @contextmanager
    def transaction(self):
        with self.lock:
            if self.db.in_transaction:  # joined to the caller's
                yield self.db
                return
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")

    def query(self, sql, args=()):
        with self.lock:
            return self.db.execute(sql, args).fetchall()

    def one(self, sql, args=()):
        with self.lock:
            return self.db.execute(sql, args).fetchone()

    def get(self, key, default=None):
        row = self.one("SELECT value FROM kv WHERE key = ?", (key,))
        return json.loads(row[0]) if row else default

    def put(self, key, value):
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (key, json.dumps(value)))
