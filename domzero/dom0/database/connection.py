# SPDX-License-Identifier: Apache-2.0
"""The connection to Domain 0's database: one, used in its event loop, for statements that take microseconds.

Write-ahead logging without a sync at each commit: a killed process leaves what was committed, and a host that loses
power loses at most the last seconds, never the whole.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from domzero.dom0.database.migrations import MIGRATIONS, VERSION
from domzero.errors import ConfigError

MEMORY = Path(":memory:")
"""A database that ends with its process."""
LOCK_SUFFIX = ".lock"


class Database:
    """SQLite, its schema brought to the present version.

    :param path: made if it is not there, for this user alone.
    :raises ConfigError: it cannot be opened, is no database, is in use, or was written by a newer Domzero.
    """

    def __init__(self, path: Path = MEMORY) -> None:
        self.path = path
        self.is_closed = False
        self._lock: int | None = None
        try:
            if path != MEMORY:
                _keep_private(path)
                self._lock = _lock(path)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            self._unlock()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(f"{path}: {reason}", key="database") from error
        except ConfigError:
            self._unlock()
            raise
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            raise ConfigError(
                f"{path}: {error}", key="database", hint="move the file away, or choose another with --database"
            ) from error
        except ConfigError:
            self.close()
            raise

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            what = f"it was written by a newer Domzero (schema {version}; this one knows {VERSION})"
            raise ConfigError(f"{self.path}: {what}", key="database")
        for number in range(version, VERSION):
            self._migrate(number)

    def _migrate(self, number: int) -> None:
        """One step, whole or not at all."""
        try:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT"
            )
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def rows(self, sql: str, arguments: Sequence[Any] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """What a SELECT finds."""
        return self._connection.execute(sql, arguments).fetchall()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Cursor]:
        """A transaction: what the block does through the cursor is there as a whole, or not at all if it raises."""
        cursor = self._connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield cursor
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")

    def close(self) -> None:
        """Closes it; what was written stays."""
        self.is_closed = True
        self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _keep_private(path: Path) -> None:
    """Makes the file, which others may not read: there are passwords of screens in it, and hashes of others."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _lock(path: Path) -> int:
    """The right to have a database: SQLite's own locks last a transaction, and this lasts as long as the process."""
    fd = os.open(path.with_name(path.name + LOCK_SUFFIX), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        hint = "--database chooses another one"
        raise ConfigError(f"{path}: another Domain 0 has it", key="database", hint=hint) from None
    except BaseException:
        os.close(fd)
        raise
    return fd
