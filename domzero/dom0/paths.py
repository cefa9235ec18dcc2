# SPDX-License-Identifier: Apache-2.0
"""Where Domain 0's sockets are, and directories of its user's."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domzero.dom0.database import MEMORY
from domzero.errors import ConfigError

DATABASE_NAME = "domzero.db"
DATABASE_SUFFIX = ".db"
"""Of the database beside a socket that was chosen."""
STORAGE_SUFFIX = ".storage"
"""Of the directory for disks beside the database."""
SUSPENDED_SUFFIX = ".suspended"
"""Of the directory for suspended domains beside the database."""
SOCKET_NAME = "domzero.sock"
XENSTORE_SUFFIX = ".xenstore"
"""Of xenstore's socket beside Domain 0's."""
KEEPER_SUFFIX = ".keeper"
"""Of the keeper's socket, beside the database."""
XENSTORED_SOCKET = Path("/var/run/xenstored/socket")
"""Where programs look that were told nothing else."""
_SOCKET_NAME_MAX = 40
SOCKET_PATH_MAX = 107  # sun_path with its terminator is 108 bytes


def candidates() -> list[Path]:
    """Places for the socket, best first. DOMZERO_SOCKET is the only one if it is set."""
    if chosen := os.environ.get("DOMZERO_SOCKET"):
        return [Path(chosen)]
    return [directory / SOCKET_NAME for directory in _directories()]


def _directories() -> list[Path]:
    places = []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(runtime) / "domzero")
    if home := os.environ.get("HOME"):
        places.append(Path(home) / ".local" / "state" / "domzero")
    places.append(Path(f"/tmp/domzero-{os.getuid()}"))
    return places


def private_directory(name: str) -> Path:
    """A directory of this user's for sockets, whatever Domain 0's is; ConfigError."""
    for directory in _directories():
        path = directory / name
        short = len(os.fsencode(path)) <= SOCKET_PATH_MAX - _SOCKET_NAME_MAX
        if short and _private_directory(directory) and _private_directory(path):
            return path
    raise ConfigError(f"no directory for {name} could be made", hint="XDG_RUNTIME_DIR is the first place")


def dump_directory() -> Path:
    """Where core dumps go that a configuration asks for: DOMZERO_DUMP_DIR, or in the state directory. ConfigError."""
    if chosen := os.environ.get("DOMZERO_DUMP_DIR"):
        return Path(chosen).absolute()
    path = _state_directory() / "dump"
    if not _private_directory(path):
        raise ConfigError(f"no core dump can be kept in {path}", hint="DOMZERO_DUMP_DIR chooses another directory")
    return path


def database_for(chosen: str | None, socket: Path, *, own_socket: bool) -> Path:
    """The database of a Domain 0: the one that was chosen (or DOMZERO_DATABASE), beside a socket that was chosen, or in
    the state directory. ConfigError.

    :param socket: Domain 0's.
    :param own_socket: it was chosen.
    """
    if given := chosen or os.environ.get("DOMZERO_DATABASE"):
        path = Path(given)
        if path != MEMORY and not path.absolute().parent.is_dir():
            raise ConfigError(f"no such directory: {path.absolute().parent}", key="database")
        return path if path == MEMORY else path.absolute()
    if own_socket or os.environ.get("DOMZERO_SOCKET"):
        return socket.with_name(socket.name + DATABASE_SUFFIX)
    path = _state_directory()
    if not _private_directory(path):
        raise ConfigError(f"no database can be kept in {path}", key="database", hint="choose one with --database PATH")
    return path / DATABASE_NAME


def storage_for(database: Path) -> Path | None:
    """The directory of the first storage: DOMZERO_STORAGE_DIR, or beside the database; None: nothing is kept."""
    if chosen := os.environ.get("DOMZERO_STORAGE_DIR"):
        return Path(chosen).absolute()
    return None if database == MEMORY else database.with_suffix(STORAGE_SUFFIX)


def suspended_directory(database: Path) -> Path:
    """The directory for suspended domains: beside the database, made if it is not there. ConfigError."""
    if database == MEMORY:
        hint = "give `serve` a --database, or save the domain to a file"
        raise ConfigError("this Domain 0 keeps nothing, and no suspended domain", key="database", hint=hint)
    path = database.with_suffix(SUSPENDED_SUFFIX)
    if not _private_directory(path):
        raise ConfigError(f"no suspended domain can be kept in {path}", key="database")
    return path


def keeper_socket(database: Path, socket: Path) -> Path:
    """The socket of the keeper of a Domain 0's workers: beside its database, or beside its socket if it has none."""
    beside = socket if database == MEMORY else database
    return beside.with_name(beside.name + KEEPER_SUFFIX)


def _state_directory() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.environ.get("HOME", "/nonexistent"), ".local", "state")
    return Path(state) / "domzero"


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Waits until nobody else who asks for it has this directory, and has it until the end of the block."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def existing_socket() -> Path:
    """The first place where there is a socket, or the best place; ConfigError where only another user's is.

    Anybody can make a socket in /tmp, and would be sent what is meant for Domain 0: only a chosen one may be another's.
    """
    if chosen := os.environ.get("DOMZERO_SOCKET"):
        return Path(chosen)
    places = candidates()
    found = next((place for place in places if _is_own_socket(place)), places[0])
    if found.is_socket() and not _is_own_socket(found):
        raise ConfigError(f"{found} is another user's", key="socket", hint="DOMZERO_SOCKET chooses one")
    return found


def _is_own_socket(path: Path) -> bool:
    try:
        info = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(info.st_mode) and info.st_uid == os.getuid()


def socket_for_serving(chosen: str | None) -> Path:
    """The socket's path, its directory made (private to this user unless the path was chosen); ConfigError."""
    if chosen or os.environ.get("DOMZERO_SOCKET"):
        path = Path(chosen or os.environ["DOMZERO_SOCKET"]).absolute()
        _check_socket(path)
        if not path.parent.is_dir():
            raise ConfigError(f"no such directory: {path.parent}", key="socket")
        return path
    for path in candidates():
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX and _private_directory(path.parent):
            return path
    raise ConfigError("no directory for the socket could be made", key="socket", hint="choose one with --socket PATH")


def xenstore_sockets(chosen: str | None, socket: Path) -> list[Path]:
    """Places for xenstore's socket, best first: the one that was chosen, or where libxenstore looks (XENSTORED_PATH,
    XENSTORED_RUNDIR); else, for root's Domain 0 on a host without Xen, xenstored's own place; else beside Domain 0's.

    :param socket: Domain 0's own.
    """
    given = chosen or os.environ.get("XENSTORED_PATH")
    if not given and (directory := os.environ.get("XENSTORED_RUNDIR")):
        given = f"{directory}/socket"
    if given:
        path = Path(given).absolute()
        _check_socket(path, "xenstore-socket")
        if not path.parent.is_dir():
            raise ConfigError(f"no such directory: {path.parent}", key="xenstore-socket")
        return [path]
    beside = socket.with_name(socket.name + XENSTORE_SUFFIX)
    places = [beside] if len(os.fsencode(beside)) <= SOCKET_PATH_MAX else []
    usual = not os.environ.get("DOMZERO_SOCKET") and socket in candidates()
    if usual and os.geteuid() == 0 and not Path("/proc/xen").exists() and _own_directory(XENSTORED_SOCKET.parent):
        places.insert(0, XENSTORED_SOCKET)
    return places


def _own_directory(path: Path) -> bool:
    """Makes a directory unless it is there; whether nobody else can put anything into it."""
    try:
        path.mkdir(exist_ok=True, mode=0o700)
        info = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


def _check_socket(path: Path, option: str = "socket") -> None:
    if not path.name:
        raise ConfigError(f"{path} is a directory", key=option)
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise ConfigError(f"longer than the {SOCKET_PATH_MAX} bytes that a socket's path may have", key=option)


def _private_directory(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            return False
        if info.st_mode & 0o077:
            path.chmod(0o700)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK)
