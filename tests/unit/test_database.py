# SPDX-License-Identifier: Apache-2.0
"""Domain 0's database: its schema from every older version, transactions, and files that are none."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.dom0.database import MIGRATIONS, VERSION, Database
from domzero.dom0.events import REMOVED_KEPT, Journal, Operation, Seen
from domzero.errors import ConfigError


@pytest.fixture
def database() -> Iterator[Database]:
    with closing(Database()) as database:
        yield database


def schema(database: Database) -> list[tuple[str, str]]:
    rows = database.rows("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    return [(row["name"], row["sql"]) for row in rows]


@pytest.mark.parametrize("version", range(VERSION))
def test_a_database_of_each_older_version_gets_the_present_schema(version: int, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as old:
        for number in range(version):
            old.executescript(MIGRATIONS[number])
        if version:
            old.execute(
                "INSERT INTO domains (uuid, name, config, created_at) VALUES ('u', 'web', '{\"kernel\": \"/k\"}', 1.5)"
            )
        old.execute(f"PRAGMA user_version = {version}")
        old.commit()
    with closing(Database(path)) as database, closing(Database()) as new:
        assert schema(database) == schema(new)
        assert database.rows("PRAGMA user_version")[0][0] == VERSION
        assert [tuple(row) for row in database.rows("SELECT uuid, name, created_at FROM domains")] == (
            [("u", "web", 1.5)] if version else []
        )


@pytest.mark.parametrize("version", range(1, VERSION))
def test_every_row_of_an_older_version_is_kept(version: int, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as old:
        for number in range(version):
            old.executescript(MIGRATIONS[number])
        tables = [
            name
            for (name,) in old.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            )
        ]
        before = {}
        for table in tables:
            columns = {row[1]: row[2] for row in old.execute(f"PRAGMA table_info({table})")}
            values = {name: "1" if kind == "TEXT" else 1 for name, kind in columns.items()}
            values |= {name: "add" for name in values if name == "operation"}
            names = ", ".join(f'"{name}"' for name in values)
            old.execute(
                f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", (*values.values(),)
            )
            before[table] = [dict(zip(columns, row, strict=True)) for row in old.execute(f"SELECT * FROM {table}")]
        assert all(before.values())
        old.execute(f"PRAGMA user_version = {version}")
        old.commit()
    with closing(Database(path)) as database:
        for table, rows in before.items():
            after = [dict(row) for row in database.rows(f"SELECT * FROM {table}")]
            assert [{name: row[name] for name in old_row} for row, old_row in zip(after, rows, strict=True)] == rows


def test_it_is_a_file_of_its_user_alone_and_of_one_domain_0(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    with closing(Database(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with closing(Database(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(ConfigError, match=r"d\.db: another Domain 0 has it"):
            Database(path)
    Database(path).close()


def test_what_is_no_database_or_a_newer_one_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"this is a letter" * 1000)
    with pytest.raises(ConfigError, match="file is not a database"):
        Database(other)
    assert other.read_bytes() == b"this is a letter" * 1000
    newer = tmp_path / "newer.db"
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(ConfigError, match=f"schema {VERSION + 1}; this one knows {VERSION}"):
        Database(newer)
    with pytest.raises(ConfigError, match="No such file or directory"):
        Database(tmp_path / "missing" / "d.db")


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as cursor:
        cursor.execute("INSERT INTO settings VALUES ('a', '1')")
        raise ZeroDivisionError
    assert database.rows("SELECT * FROM settings") == []
    with database.write() as cursor:
        cursor.execute("INSERT INTO settings VALUES ('a', '2')")
    assert [tuple(row) for row in database.rows("SELECT * FROM settings")] == [("a", "2")]


KILLED = """
import os, sys
from pathlib import Path
from domzero.dom0.database import Database
database = Database(Path(sys.argv[1]))
with database.write() as cursor:
    cursor.execute("INSERT INTO settings VALUES ('committed', '1')")
cursor = database._connection.cursor()
cursor.execute("BEGIN IMMEDIATE")
cursor.execute("INSERT INTO settings VALUES ('half', '1')")
os.kill(os.getpid(), 9)
"""


def test_a_killed_process_leaves_what_was_committed_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -9
    with closing(Database(path)) as database:
        assert [row["key"] for row in database.rows("SELECT key FROM settings")] == ["committed"]
        assert database.rows("PRAGMA integrity_check")[0][0] == "ok"


def test_a_reader_gets_each_object_once_and_nothing_twice(database: Database) -> None:
    journal = Journal(database)
    start = journal.token
    journal.note("domain", "a", Operation.ADD)
    journal.note("domain", "a")
    journal.note("task", "t", Operation.ADD)
    found = journal.since(start)
    assert [(event.ref, event.operation) for event in found] == [("a", Operation.ADD), ("t", Operation.ADD)]
    assert [event.ref for event in journal.since(start, {"task"})] == ["t"]
    middle = found[-1].token
    assert middle == journal.token and journal.since(middle) == []
    journal.note("domain", "a", Operation.DEL)
    assert [(event.ref, event.operation) for event in journal.since(middle)] == [("a", Operation.DEL)]
    assert not journal.has_lost(start)
    assert journal.has_lost(journal.token + 1), "a token of another journal"


def test_what_a_reader_has_seen_before_is_changed_and_what_they_have_not_is_new(database: Database) -> None:
    journal = Journal(database)
    start = journal.token
    journal.note("domain", "a", Operation.ADD)
    seen = journal.token
    journal.note("domain", "a")
    assert [event.operation for event in journal.since(start)] == [Operation.ADD]
    assert [event.operation for event in journal.since(seen)] == [Operation.MOD]
    journal.note("domain", "a", Operation.DEL)
    gone = journal.token
    journal.note("domain", "a", Operation.ADD)
    assert [event.operation for event in Journal(database).since(gone)] == [Operation.ADD]


def test_xenapis_objects_are_in_the_same_sequence_for_who_asks_for_them(database: Database) -> None:
    journal = Journal(database)
    journal.note("domain", "a", Operation.ADD)
    vm, vbd = Seen("vm", "a", "1", ("a",)), Seen("vbd", "b", "1", ())
    noted = journal.note_objects([(vm, Operation.ADD), (vbd, Operation.ADD)])
    assert [seen.changed for seen in noted] == [2, 3] == [seen.born for seen in noted]
    (changed,) = journal.note_objects([(replace(vm, digest="2"), Operation.MOD)])
    assert (changed.born, changed.changed) == (2, 4) and journal.token == 4
    assert {seen.ref: seen for seen in Journal(database).objects()} == {"a": changed, "b": noted[1]}
    journal.note_objects([(vm, Operation.DEL)])
    (gone,) = journal.removed_objects(4)
    assert (gone.kind, gone.ref, gone.audience, journal.removed_objects(5)) == ("vm", "a", ("a",), [])
    assert [event.kind for event in journal.since(0)] == ["domain"]


def test_only_objects_that_were_removed_are_forgotten_and_who_missed_them_is_told(database: Database) -> None:
    journal = Journal(database)
    journal.note("domain", "stays", Operation.ADD)
    early = journal.token
    for number in range(REMOVED_KEPT + 2000):
        journal.note("task", number, Operation.DEL)
    late = journal.token - 10
    assert journal.has_lost(early) and not journal.has_lost(late)
    assert len(journal.since(late)) == 10
    assert journal.since(0)[0].ref == "stays"
    assert len(journal.since(0)) <= REMOVED_KEPT + 1001


def test_who_waits_is_told_of_a_change(database: Database) -> None:
    async def scene() -> None:
        journal = Journal(database)
        waiting = asyncio.create_task(journal.wait(journal.token, {"domain"}, 60))
        await asyncio.sleep(0)
        journal.note("task", "not for them")
        await asyncio.sleep(0)
        journal.note("domain", "a")
        assert [event.ref for event in await waiting] == ["a"]
        assert await journal.wait(journal.token, None, 0.01) == []

    asyncio.run(scene())
