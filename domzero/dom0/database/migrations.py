# SPDX-License-Identifier: Apache-2.0
"""The schema, as the steps from each version to the next: a database of any older version gets those that it lacks.

A step is never changed once a release has it; what it made is changed by a new step at the end.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE domains (
        uuid TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        config TEXT NOT NULL CHECK (json_valid(config)),
        description TEXT NOT NULL DEFAULT '',
        labels TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
        autostart INTEGER NOT NULL DEFAULT 0,
        template INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        generation INTEGER NOT NULL DEFAULT 1,
        domid INTEGER, -- while it runs: left there by a Domain 0 that was killed
        exit TEXT CHECK (exit IS NULL OR json_valid(exit))
    );
    CREATE TABLE users (
        name TEXT PRIMARY KEY,
        role TEXT, -- NULL: only what its grants give
        password TEXT, -- argon2's encoded hash; NULL: none, so nobody logs in by password
        failures INTEGER NOT NULL DEFAULT 0,
        locked_until REAL NOT NULL DEFAULT 0,
        created_at REAL NOT NULL
    );
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL REFERENCES users(name) ON DELETE CASCADE ON UPDATE CASCADE,
        hash BLOB NOT NULL UNIQUE, -- SHA-256 of a token of 256 random bits
        description TEXT NOT NULL DEFAULT '',
        role TEXT, -- its scope: the user's role at most
        created_at REAL NOT NULL,
        expires_at REAL
    );
    CREATE TABLE grants (
        user TEXT NOT NULL REFERENCES users(name) ON DELETE CASCADE ON UPDATE CASCADE,
        domain TEXT NOT NULL,
        role TEXT NOT NULL,
        PRIMARY KEY (user, domain)
    );
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        actor TEXT NOT NULL,
        via TEXT NOT NULL,
        action TEXT NOT NULL,
        domain TEXT,
        detail TEXT NOT NULL,
        outcome TEXT NOT NULL
    );
    CREATE TABLE tasks (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        actor TEXT NOT NULL,
        domain TEXT,
        state TEXT NOT NULL,
        created_at REAL NOT NULL,
        ended_at REAL,
        code TEXT,
        message TEXT,
        result TEXT
    );
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        class TEXT NOT NULL,
        ref TEXT NOT NULL,
        operation TEXT NOT NULL CHECK (operation IN ('add', 'mod', 'del')),
        UNIQUE (class, ref)
    );
    CREATE TABLE storage (
        uuid TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        path TEXT NOT NULL UNIQUE,
        description TEXT NOT NULL DEFAULT '',
        labels TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
        created_at REAL NOT NULL
    );
    CREATE TABLE disks (
        uuid TEXT PRIMARY KEY,
        storage TEXT NOT NULL REFERENCES storage(uuid),
        name TEXT NOT NULL,
        file TEXT NOT NULL, -- in the storage's directory
        format TEXT NOT NULL,
        description TEXT NOT NULL DEFAULT '',
        labels TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
        created_at REAL NOT NULL,
        UNIQUE (storage, file)
    );
    CREATE TABLE networks (
        uuid TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE, -- of the switch: a vif's `bridge`
        label TEXT NOT NULL DEFAULT '',
        description TEXT NOT NULL DEFAULT '',
        labels TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
        created_at REAL NOT NULL
    );
    CREATE TABLE settings (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE metrics (
        domain TEXT NOT NULL,
        step INTEGER NOT NULL, -- seconds of the period: 60 or 3600
        at INTEGER NOT NULL, -- its begin
        covered REAL NOT NULL, -- seconds of it that were measured
        memory_mib REAL NOT NULL, -- mean
        cpu_ns INTEGER NOT NULL, -- used in it, as all that follow
        disk_reads INTEGER NOT NULL,
        disk_writes INTEGER NOT NULL,
        disk_read_bytes INTEGER NOT NULL,
        disk_written_bytes INTEGER NOT NULL,
        network_sent_frames INTEGER NOT NULL,
        network_received_frames INTEGER NOT NULL,
        network_sent_bytes INTEGER NOT NULL,
        network_received_bytes INTEGER NOT NULL,
        exits INTEGER NOT NULL,
        PRIMARY KEY (domain, step, at)
    ) WITHOUT ROWID;
    CREATE INDEX metrics_by_age ON metrics (step, at);
    """,
    """
    CREATE TABLE xenapi_fields ( -- what clients of XenAPI keep with objects
        object TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL CHECK (json_valid(value)),
        PRIMARY KEY (object, name)
    );
    """,
    """
    ALTER TABLE tasks ADD COLUMN progress REAL NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN failure TEXT NOT NULL DEFAULT '[]'; -- in XenAPI's words
    ALTER TABLE tasks ADD COLUMN name TEXT NOT NULL DEFAULT ''; -- what its client calls it
    ALTER TABLE tasks ADD COLUMN description TEXT NOT NULL DEFAULT '';
    ALTER TABLE tasks ADD COLUMN notes TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE tasks ADD COLUMN clients INTEGER NOT NULL DEFAULT 0; -- a client does the work
    UPDATE tasks SET progress = 1 WHERE state = 'done';
    """,
    """
    ALTER TABLE events ADD COLUMN born INTEGER; -- the event with which the object came; NULL: this one, if it is `add`
    ALTER TABLE events ADD COLUMN digest TEXT; -- of XenAPI's objects: what their changes are seen by
    ALTER TABLE events ADD COLUMN audience TEXT CHECK (audience IS NULL OR json_valid(audience));
    """,
    """
    ALTER TABLE domains ADD COLUMN saved TEXT; -- the file that a suspended domain goes on from
    """,
)
VERSION = len(MIGRATIONS)
"""Of the schema that this Domain 0 writes."""
