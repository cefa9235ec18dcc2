# SPDX-License-Identifier: Apache-2.0
"""The keeper: the process that workers live on under while no Domain 0 is there.

`python -m domzero.dom0.keep.keeper PATH LISTENER VERSION WIRE`, started by `link.KeptSpawner`. It is the fork server's
parent, so the workers end with it; holds the files that a Domain 0 gives it, above all the socket through which a
worker gets its next Domain 0's; and tells that one how workers have ended meanwhile. One Domain 0 has it at a time.

It reads nothing that a guest or a worker says but what goes to stderr, which it keeps a little of. It ends when no
Domain 0 is there and nothing is left that one would want to know.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from domzero.dom0.forking import ChildEnded, Kill, Launch, Spawn, Spawned, SpawnFailed, fork_server
from domzero.dom0.json_values import MessageError
from domzero.dom0.keep.protocol import (
    FILES_MAX,
    PACKET_MAX,
    WORDS_MAX,
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
    owner_of,
    worker_of,
)
from domzero.dom0.listeners import peer_is_owner
from domzero.errors import DomzeroError

_STDERR = 1
"""Which of a worker's files it is."""


@dataclass(slots=True)
class _Worker:
    status: int | None = None
    words: bytearray = field(default_factory=bytearray)


class Keeper:
    """All that the process does.

    :param path: of the socket, which goes with the process.
    :param listener: it.
    :param version: Domzero's.
    :param wire: what the workers speak.
    """

    def __init__(self, path: Path, listener: socket.socket, version: str, wire: str) -> None:
        self._path = path
        self._listener = listener
        self._welcome = Welcome(os.getpid(), version, wire)
        self._domain0: socket.socket | None = None
        self._turn = 0
        """Counts the Domain 0s there have been."""
        self._asked: deque[int] = deque()
        """For each process that the fork server has not answered for, oldest first: the turn that wanted it."""
        self._keeps = False
        self._files: dict[str, list[int]] = {}
        self._workers: dict[int, _Worker] = {}
        self._forks, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._fork_server = subprocess.Popen(
                fork_server(theirs.fileno()), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )

    def run(self) -> None:
        """Until nobody needs it."""
        try:
            while self._step():
                pass
        finally:
            with suppress(OSError):
                self._path.unlink()
            self._fork_server.kill()  # and its workers end with it
            self._fork_server.wait()

    def _step(self) -> bool:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._forks, select.POLLIN)
        stderrs: dict[int, int] = {}
        if self._domain0 is not None:
            poll.register(self._domain0, select.POLLIN)
        else:
            stderrs = self._stderrs()
            for fd in stderrs:
                poll.register(fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll()]
        for fd in ready:
            if fd in stderrs and not self._read_words(fd, stderrs[fd]):
                self._forget_stderr(fd)
        if self._forks.fileno() in ready and not self._from_fork_server():
            return False
        if self._domain0 is not None and self._domain0.fileno() in ready and not self._hear(self._domain0):
            return self._is_needed()
        if self._listener.fileno() in ready:
            return self._greet()
        return True

    # --- what is kept

    def _stderrs(self) -> dict[int, int]:
        """The workers' pipes that are open, and whose they are."""
        found = {}
        for name, fds in self._files.items():
            worker = worker_of(name)
            if worker is not None and len(fds) > _STDERR:
                found[fds[_STDERR]] = worker[0]
        return found

    def _read_words(self, fd: int, pid: int) -> bool:
        """False: there are no more."""
        os.set_blocking(fd, False)
        try:
            data = os.read(fd, WORDS_MAX)
        except BlockingIOError:
            return False
        worker = self._workers.get(pid)
        if worker is not None:
            worker.words += data
            del worker.words[:-WORDS_MAX]
        return bool(data)

    def _forget_stderr(self, fd: int) -> None:
        for fds in self._files.values():
            if fd in fds[_STDERR:]:
                fds.remove(fd)
                os.close(fd)

    def _is_needed(self) -> bool:
        return self._keeps and bool(self._workers)

    def _left(self) -> None:
        """Domain 0 has gone: whatever it was about to start is nobody's."""
        known = {owner_of(name) for name in self._files}
        for pid, worker in self._workers.items():
            if pid not in known and worker.status is None:
                self._forks.send(encode(Kill(pid)))

    def _let_go(self, name: str) -> None:
        for fd in self._files.pop(name, ()):
            os.close(fd)

    # --- Domain 0

    def _greet(self) -> bool:
        """Takes whoever has come, if nobody is there. False: it is not needed any more.

        Of a Domain 0 that was killed the last packets may be here still; they are heard before it is said to be there.
        """
        while self._domain0 is not None and _is_readable(self._domain0):
            if not self._hear(self._domain0) and not self._is_needed():
                return False  # whoever has come finds the socket closed, and starts another keeper
        sock, _ = self._listener.accept()
        if self._domain0 is not None or not peer_is_owner(sock):
            sock.close()  # there is a Domain 0 already, or this is another user's
            return True
        self._domain0 = sock
        self._turn += 1
        return True

    def _hear(self, sock: socket.socket) -> bool:
        """Does what Domain 0 says, or what is to be done when it has gone: False."""
        if self._from_domain0(sock):
            return True
        sock.close()
        self._domain0 = None
        self._left()
        return False

    def _from_domain0(self, sock: socket.socket) -> bool:
        """Does what Domain 0 says. False: it has gone."""
        try:
            data, fds, _, _ = socket.recv_fds(sock, PACKET_MAX, FILES_MAX)
        except ConnectionError:
            return False
        if not data:
            return False
        taken = False
        try:
            message, request_id = decode(data)
            taken = self._carry_out(message, request_id, data, fds)
        except DomzeroError:
            return False
        finally:
            for fd in [] if taken else fds:
                os.close(fd)
        return True

    def _carry_out(self, message: Packet, request_id: int, data: bytes, fds: list[int]) -> bool:
        """Whether the files were taken."""
        if isinstance(message, Hello):
            self._keeps = message.keeps
            self._tell_all()
        elif isinstance(message, Hold):
            self._let_go(message.name)
            self._files[message.name] = fds
            return True
        elif isinstance(message, LetGo):
            self._let_go(message.name)
        elif isinstance(message, Forget):
            self._workers.pop(message.pid, None)
            for name in [name for name in self._files if owner_of(name) == message.pid]:
                self._let_go(name)
        elif isinstance(message, Spawn | Launch | Kill):
            if not isinstance(message, Kill):
                self._asked.append(self._turn)
            socket.send_fds(self._forks, [data], fds)
        else:
            raise MessageError(f"{type(message).__name__} is nothing for the keeper")
        return False

    def _tell_all(self) -> None:
        self._tell(self._welcome)
        for name, fds in self._files.items():
            self._tell(Hold(name), fds)
        for pid, worker in self._workers.items():
            self._tell(Kept(pid, worker.status, worker.words.decode("utf-8", "replace")))
            worker.words.clear()
        self._tell(Ready())

    def _tell(self, message: Packet, fds: list[int] | None = None) -> None:
        if self._domain0 is not None:
            with suppress(ConnectionError):  # it has gone: `_step` sees it next
                socket.send_fds(self._domain0, [encode(message)], fds or [])

    # --- the fork server

    def _from_fork_server(self) -> bool:
        """False: it has ended, and all workers with it."""
        try:
            data = self._forks.recv(PACKET_MAX)
        except ConnectionError:
            return False
        if not data:
            return False
        message, _ = decode(data)
        is_for_domain0 = self._domain0 is not None
        if isinstance(message, Spawned | SpawnFailed):  # in the order in which they were wanted
            is_for_domain0 &= self._asked.popleft() == self._turn
        if isinstance(message, Spawned):
            self._workers[message.pid] = _Worker()
            if not is_for_domain0:
                self._forks.send(encode(Kill(message.pid)))  # who wanted it has gone
        elif isinstance(message, ChildEnded):
            self._ended(message)
        if self._domain0 is not None and is_for_domain0:
            with suppress(ConnectionError):
                self._domain0.send(data)
        return self._domain0 is not None or self._is_needed()

    def _ended(self, message: ChildEnded) -> None:
        worker = self._workers.get(message.pid)
        if worker is None:
            return
        worker.status = message.status
        if self._domain0 is not None:
            return  # it reads the last words, and says `Forget`
        for fd, pid in self._stderrs().items():
            if pid == message.pid:
                while self._read_words(fd, pid):
                    pass
                self._forget_stderr(fd)
        if message.pid not in map(owner_of, self._files):
            del self._workers[message.pid]  # no Domain 0 has ever known it


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def main(arguments: list[str]) -> int:
    """Entry point."""
    path, listener, version, wire = arguments
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    sock = socket.socket(fileno=int(listener))
    sock.set_inheritable(False)
    Keeper(Path(path), sock, version, wire).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
