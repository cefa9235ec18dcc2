# SPDX-License-Identifier: Apache-2.0
"""Domain 0's side of the keeper: finds the one that there is or starts one, and starts workers through it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from domzero import __version__
from domzero.dom0.confinement import small_environment
from domzero.dom0.json_values import MessageError
from domzero.dom0.keep.protocol import (
    FILES_MAX,
    PACKET_MAX,
    Forget,
    Hello,
    Hold,
    Kept,
    LetGo,
    Packet,
    Ready,
    Welcome,
    decode,
    encode,
    is_outside,
    outside_name,
    outside_of,
    owner_of,
    part_name,
    part_of,
    worker_name,
    worker_of,
)
from domzero.dom0.keep.version import wire
from domzero.dom0.listeners import peer_is_owner
from domzero.dom0.outside import Outside
from domzero.dom0.worker_spawner import Child, WorkerSpawner
from domzero.errors import ConfigError, DomzeroError, ResourceError

_ANSWER_SECONDS = 20.0
_AGAIN_SECONDS = 0.02
_BACKLOG = 4


class _Refused(MessageError):
    """The keeper has closed the connection."""


@dataclass(slots=True)
class Left:
    """What the Domain 0 before this one has left with the keeper.

    :param files: by name; whoever takes some has them.
    :param workers: by process id.
    """

    files: dict[str, list[int]] = field(default_factory=dict)
    workers: dict[int, Kept] = field(default_factory=dict)

    def worker(self, domid: int | None) -> tuple[Kept, list[int]] | None:
        """The worker of a domain, and its files."""
        for name in self.files:
            found = worker_of(name)
            if found is not None and found[1] == domid and found[0] in self.workers:
                return self.workers.pop(found[0]), self.files.pop(name)
        return None

    def parts(self, pid: int) -> dict[str, int]:
        """What `hold` was given of a worker as parts."""
        found = {}
        for name in list(self.files):
            if (part := part_of(name)) is not None and part[0] == pid:
                (found[part[1]],) = self.files.pop(name)
        return found

    def outsides(self, pid: int) -> list[Outside]:
        """The outer ends of a worker's domain."""
        found = []
        for name in [name for name in self.files if owner_of(name) == pid and is_outside(name)]:
            found.append(replace(outside_of(name), fds=self.files.pop(name)))
        return found

    def close(self) -> None:
        """Closes what nobody took."""
        files, self.files = self.files, {}
        for fds in files.values():
            for fd in fds:
                os.close(fd)


class KeptSpawner(WorkerSpawner):
    """Starts processes that may outlive this one.

    :param path: of the keeper's socket.
    :param keeps: they do.
    """

    outlives = True

    def __init__(self, path: Path, *, confined: bool = True, keeps: bool = True) -> None:
        super().__init__(confined=confined, keeps=True)
        self._path = path
        self.stays = keeps
        self.on_started: Callable[[], None] = lambda: None
        """Called when there is another keeper, which holds nothing yet."""

    def take_over(self) -> Left | None:
        """Finds the keeper, and what it has; None: there is none.

        :raises ConfigError: its workers are of a version that this one does not speak with.
        """
        if (met := self._meet()) is None:
            return None
        sock, welcome = met
        left = Left()
        try:
            if welcome.wire != wire():
                raise _other_version(welcome)
            while True:
                message, fds = _receive(sock)
                if isinstance(message, Hold):
                    left.files[message.name] = fds
                elif isinstance(message, Kept):
                    left.workers[message.pid] = message
                elif isinstance(message, Ready):
                    break
        except (OSError, DomzeroError) as error:
            left.close()
            sock.close()
            if isinstance(error, ConfigError):
                raise
            raise self._no_answer(error) from error
        self._use(sock)
        return left

    def _meet(self) -> tuple[socket.socket, Welcome] | None:
        """A connection with the keeper, and its first word; None: there is no keeper. ResourceError.

        One that refuses has not heard yet that the Domain 0 before this one was killed, or is about to end with it.
        """
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (sock := self._connect()) is not None:
            sock.settimeout(_ANSWER_SECONDS)
            try:
                sock.send(encode(Hello(self.stays)))
                welcome, _ = _receive(sock)
                if isinstance(welcome, Welcome):
                    return sock, welcome
                raise MessageError(f"{type(welcome).__name__} in the place of a welcome")
            except (ConnectionError, _Refused) as error:
                sock.close()
                if time.monotonic() > deadline:
                    raise self._no_answer(error) from error
                time.sleep(_AGAIN_SECONDS)
            except (OSError, DomzeroError) as error:
                sock.close()
                raise self._no_answer(error) from error
        return None

    def _no_answer(self, error: Exception) -> ResourceError:
        return ResourceError(f"the keeper at {self._path} does not answer: {error}")

    def adopt(self, kept: Kept) -> Child:
        """A worker that the keeper has."""
        child = Child(self, kept.pid)
        if kept.status is None:
            self._children[kept.pid] = child
        else:
            child.ended.set_result(kept.status)
        return child

    def hold(
        self,
        child: Child,
        domid: int,
        files: Sequence[int],
        outsides: Sequence[Callable[[], Outside]] = (),
        parts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Has the keeper keep what a worker is talked to through and its stderr, and the outer ends of its domain."""
        for number, outside in enumerate(outsides):
            with closing(outside()) as end:
                self.hold_files(outside_name(child.pid, number, end), end.fds)
        for part, fd in parts.items():
            self.hold_files(part_name(child.pid, part), [fd])
        self.hold_files(worker_name(child.pid, domid), list(files))

    def hold_files(self, name: str, fds: list[int]) -> None:
        """Has the keeper keep files, in the place of others of this name. They stay the caller's."""
        if self._sock is not None:
            with suppress(OSError), _waiting(self._sock):
                socket.send_fds(self._sock, [encode(Hold(name))], fds)

    def let_go(self, name: str) -> None:
        """Has the keeper close files."""
        self._say(LetGo(name))

    def forget(self, pid: int) -> None:
        """The keeper need not tell anybody any more how this process has ended."""
        self._say(Forget(pid))

    def close(self) -> None:
        """Leaves the keeper; it ends when it has no workers, or was told so."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _lost(self, why: str) -> None:
        super()._lost(why)
        self._path.unlink(missing_ok=True)  # of a keeper that was killed

    def _say(self, message: Packet) -> None:
        if self._sock is not None:
            with suppress(OSError), _waiting(self._sock):
                self._sock.send(encode(message))

    def _ready(self) -> socket.socket:
        if self._sock is None:
            if (left := self.take_over()) is None:
                self._start()
                left = self.take_over()
            if left is not None:
                left.close()
            self.on_started()
        if self._sock is None:
            raise OSError(0, "the keeper of workers has ended")
        return self._sock

    def _use(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._read)
        self._sock = sock

    def _connect(self) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short(self._path) as path:
                sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise ResourceError(f"{self._path}: {error.strerror}") from error
        if not peer_is_owner(sock):
            sock.close()
            raise ConfigError(f"{self._path} is another user's", key="keep-domains")
        return sock

    def _start(self) -> None:
        self._path.unlink(missing_ok=True)  # of one that was killed
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            old_mask = os.umask(0o177)
            try:
                with _short(self._path) as path:
                    listener.bind(path)
            finally:
                os.umask(old_mask)
            listener.listen(_BACKLOG)
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "domzero.dom0.keep.keeper",
                    self._path,
                    str(listener.fileno()),
                    __version__,
                    wire(),
                ],
                env=small_environment(),
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # nobody waits for the end of this one's
                start_new_session=True,
                cwd="/",
            )


def find_keeper(path: Path, *, confined: bool, keep: bool) -> KeptSpawner | None:
    """What starts workers under a keeper; None: there is none at this path, and none is wanted.

    :param keep: workers are to outlive this process.
    """
    return KeptSpawner(path, confined=confined, keeps=keep) if keep or path.is_socket() else None


def end_workers(path: Path) -> bool:
    """Ends the workers of whatever version that a keeper has, and it. False: there was none."""
    spawner = KeptSpawner(path, keeps=False)
    if (met := spawner._meet()) is None:
        return False
    with met[0] as sock:
        with suppress(OSError, DomzeroError):
            while not isinstance(_receive(sock)[0], Ready):
                pass
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(PACKET_MAX):
                pass
    return True


def _receive(sock: socket.socket) -> tuple[Packet, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, PACKET_MAX, FILES_MAX)
    if not data:
        raise _Refused("it has ended, or another Domain 0 has it")
    return decode(data)[0], fds


def _other_version(welcome: Welcome) -> ConfigError:
    return ConfigError(
        f"the domains that go on here are of Domzero {welcome.version}, which this one ({__version__}) cannot talk to",
        key="keep-domains",
        hint="start that version to shut them down, or end them with `domzero serve --end-kept-domains`",
    )


@contextmanager
def _waiting(sock: socket.socket) -> Iterator[None]:
    """A send that waits: the keeper reads at once."""
    sock.settimeout(_ANSWER_SECONDS)
    try:
        yield
    finally:
        sock.setblocking(False)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A path that fits into a socket's address."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


__all__ = ["KeptSpawner", "Left", "end_workers", "find_keeper"]
