# SPDX-License-Identifier: Apache-2.0
"""A console as the host's programs see it: a pty, or a Unix socket.

Whoever may open files makes it, and keeps a thread for it; a connected socket leads to the domain's own process, which
opens nothing. The thread ends, and the pty or the socket with it, when that end is closed.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from domzero.dom0.channelspec import PATH_MAX, PTY
from domzero.dom0.outside import Kind, Outside
from domzero.errors import ConfigError

CHUNK = 4096
PATIENCE_S = 2.0
BACKLOG = 64 << 10
"""Bytes of output that wait for a reader; for a pty, the last ones."""
_NOTHING = (BlockingIOError, InterruptedError)


@dataclass(slots=True)
class OpenConsole:
    """The end of it that belongs to the domain's process.

    :param tty: the pty's name; empty for a socket.
    :param outside: gives the other end once more, in the process that has made it, while `sock` is open.
    """

    sock: socket.socket
    tty: str = ""
    outside: Callable[[], Outside] | None = None

    def close(self) -> None:
        """Closes it; the other end notices."""
        self.sock.close()


class _Outside(Protocol):
    """What the host's programs open."""

    @property
    def keeps(self) -> bool:
        """Whether output waits until somebody takes it; else the oldest goes."""

    def stream(self) -> int | None:
        """The descriptor to read and write, if somebody is there."""

    def listener(self) -> int | None:
        """A descriptor that says when somebody comes; then `greet`."""

    def greet(self) -> None:
        """Lets in who has come, if nobody is there."""

    def part(self) -> None:
        """Whoever was there has gone."""

    def close(self) -> None:
        """Takes it away."""


class _Pty:
    def __init__(self, master: int, slave: int) -> None:
        self._master, self._slave = master, slave
        self.name = os.ttyname(slave)

    @classmethod
    def make(cls) -> _Pty:
        """A new one."""
        master, slave = os.openpty()  # with its slave open, it lives on when a reader goes
        tty.setraw(slave)
        os.set_blocking(master, False)
        return cls(master, slave)

    def again(self, inside: socket.socket) -> Outside:
        """What another thread needs."""
        return Outside.of(Kind.PTY, self.name, [inside.fileno(), self._master, self._slave])

    @property
    def keeps(self) -> bool:
        return False  # nobody may ever look

    def stream(self) -> int | None:
        return self._master

    def listener(self) -> int | None:
        return None

    def greet(self) -> None:
        pass

    def part(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


def bind_unix(path: str, backlog: int) -> tuple[socket.socket, tuple[int, int]]:
    """A Unix socket that listens, for this user alone, and which file it is; in the place of one that is nobody's any
    more. OSError. One that a domain's last start still has is waited for: its thread has yet to hear of the end."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    until = time.monotonic() + PATIENCE_S
    try:
        while True:
            try:
                listener.bind(path)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if _is_left(path):
                    os.unlink(path)
                elif time.monotonic() > until:
                    raise
                else:
                    time.sleep(0.02)
        status = os.lstat(path)
        os.chmod(path, 0o600)  # nobody can connect before it listens
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener, (status.st_dev, status.st_ino)


def _is_left(path: str) -> bool:
    """Whether the socket there is nobody's any more."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


class _Socket:
    def __init__(self, path: str, listener: socket.socket, identity: tuple[int, int]) -> None:
        self._path = path
        self._client: socket.socket | None = None
        self._listener, self._identity = listener, identity
        self._listener.setblocking(False)

    def again(self, inside: socket.socket) -> Outside:
        """What another thread needs."""
        fds = [inside.fileno(), self._listener.fileno()]
        return Outside.of(Kind.SOCKET, self._path, fds, self._path, self._identity)

    @property
    def keeps(self) -> bool:
        return self._client is not None

    def stream(self) -> int | None:
        return None if self._client is None else self._client.fileno()

    def listener(self) -> int | None:
        return self._listener.fileno() if self._client is None else None

    def greet(self) -> None:
        if self._client is None:
            with suppress(OSError):  # who came has gone again, or nobody has come
                self._client = self._listener.accept()[0]
                self._client.setblocking(False)

    def part(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def close(self) -> None:
        self.part()
        self._listener.close()
        with suppress(OSError):
            status = os.lstat(self._path)
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self._path)


def open_console(connection: str = PTY, path: str = "") -> OpenConsole:
    """Makes a pty, or a socket that listens. ConfigError: it cannot be."""
    key = "console" if not path else "channel"
    if len(os.fsencode(path)) > PATH_MAX:
        raise ConfigError(f"{path}: the path of a socket has {PATH_MAX} bytes at most", key=key)
    try:
        outside: _Pty | _Socket = _Pty.make() if connection == PTY else _Socket(path, *bind_unix(path, 1))
    except OSError as error:
        raise ConfigError(f"{path or 'a pty'}: {error.strerror or error}", key=key) from error
    inside, theirs = socket.socketpair()
    name = outside.name if isinstance(outside, _Pty) else ""
    _start(inside, outside, name or path)
    return OpenConsole(theirs, name, partial(outside.again, inside))


def serve_again(kept: Outside) -> None:
    """Goes on with a pty or a socket that another process has made; takes its descriptors."""
    first, *others = kept.take()
    inside = socket.socket(fileno=first)
    outside: _Pty | _Socket
    if kept.kind is Kind.PTY:
        outside = _Pty(*others)
    else:
        outside = _Socket(kept.path, socket.socket(fileno=others[0]), (kept.device, kept.inode))
    _start(inside, outside, kept.name)


def _start(inside: socket.socket, outside: _Outside, name: str) -> None:
    threading.Thread(target=_Relay(inside, outside).run, name=f"relay {name}", daemon=True).start()


class _Relay:
    """Moves bytes between the two ends until the inner one is closed."""

    def __init__(self, inside: socket.socket, outside: _Outside) -> None:
        self._inside = inside
        self._outside = outside
        self._output = bytearray()
        self._input = b""
        inside.setblocking(False)

    def run(self) -> None:
        """The thread."""
        try:
            while self._step():
                pass
        finally:
            self._inside.close()
            self._outside.close()

    def _step(self) -> bool:
        """Waits for something to move and moves it. False: the inner end is closed, and nothing of its is left."""
        inside, stream, listener = self._inside.fileno(), self._outside.stream(), self._outside.listener()
        poll = select.poll()
        wanted = {inside: 0}
        if len(self._output) < BACKLOG or not self._outside.keeps:
            wanted[inside] |= select.POLLIN
        if self._input:
            wanted[inside] |= select.POLLOUT
        if stream is not None and (self._output or not self._input):
            wanted[stream] = (0 if self._input else select.POLLIN) | (select.POLLOUT if self._output else 0)
        if listener is not None:
            wanted[listener] = select.POLLIN
        for fd, events in wanted.items():
            poll.register(fd, events)
        for fd, events in poll.poll():
            if fd == listener:
                self._outside.greet()
            elif fd == stream:
                self._serve_outside(fd, events)
            elif not self._serve_inside(events):
                return False
        return True

    def _serve_inside(self, events: int) -> bool:
        with suppress(*_NOTHING):
            if events & select.POLLOUT and self._input:
                self._input = self._input[self._inside.send(self._input) :]
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            try:
                data = self._inside.recv(CHUNK)
            except _NOTHING:
                return True
            except OSError:
                data = b""
            if not data:
                self._flush()
                return False
            self._output += data
            self._outside.greet()  # what is said after a client has connected is for it
            if not self._outside.keeps:
                del self._output[:-BACKLOG]
                if self._outside.stream() is None:
                    self._output.clear()
        return True

    def _serve_outside(self, fd: int, events: int) -> None:
        try:
            if events & select.POLLOUT:
                del self._output[: os.write(fd, self._output[:CHUNK])]
            if events & select.POLLIN:
                data = os.read(fd, CHUNK)
                if not data:
                    raise ConnectionResetError
                self._input = data
            elif events & (select.POLLHUP | select.POLLERR):
                raise ConnectionResetError
        except _NOTHING:
            pass
        except OSError:
            self._outside.part()
            self._output.clear()

    def _flush(self) -> None:
        """The last words, as far as they are taken at once."""
        stream = self._outside.stream()
        with suppress(OSError):
            while stream is not None and self._output:
                del self._output[: os.write(stream, self._output[:CHUNK])]
