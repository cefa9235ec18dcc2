# SPDX-License-Identifier: Apache-2.0
"""Those who look at one screen. Connected sockets come from outside: the process that it is in opens none."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

from domzero.dom0.vnc.display import Display
from domzero.dom0.vnc.session import Session

VIEWERS_MAX = 8


class VncServer:
    """The viewers of one screen, until `close`.

    :param name: that they see.
    :param password: of those who come from `source`.
    :param source: a socket over which connected ones come (`listener`); it is taken.
    """

    def __init__(self, display: Display, name: str, password: str, source: socket.socket | None) -> None:
        self._display = display
        self._name = name
        self._password = password
        self._source = source
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._is_closed = False
        if source is not None:
            threading.Thread(target=self._take, args=(source,), name="vnc-server", daemon=True).start()

    @property
    def viewers(self) -> int:
        """How many there are."""
        return len(self._sessions)

    def add(self, sock: socket.socket, *, is_known: bool) -> None:
        """Somebody has come; the socket is taken. There is no room for more than a few.

        :param is_known: they have shown who they are, and need no password.
        """
        session = Session(
            sock,
            self._display,
            self._name,
            password="" if is_known else self._password,
            exclusive=self._only,
            ended=self._ended,
        )
        with self._lock:
            if not self._is_closed and len(self._sessions) < VIEWERS_MAX:
                self._sessions.append(session)
                session.start()
                return
        sock.close()

    def close(self) -> None:
        """All of them have to go."""
        with self._lock:
            self._is_closed = True
            sessions = list(self._sessions)
        for session in sessions:
            session.close()
        if self._source is not None:
            with suppress(OSError):
                self._source.shutdown(socket.SHUT_RDWR)

    def _only(self, one: Session) -> None:
        with self._lock:
            others = [session for session in self._sessions if session is not one]
        for session in others:
            session.close()

    def _ended(self, session: Session) -> None:
        with self._lock:
            self._sessions.remove(session)

    def _take(self, source: socket.socket) -> None:
        poll = select.poll()
        poll.register(source, select.POLLIN)
        with source:
            while True:
                poll.poll()
                try:
                    data, fds, _, _ = socket.recv_fds(source, 1, 1)
                except BlockingIOError:
                    continue
                except OSError:
                    return
                for fd in fds:
                    self.add(socket.socket(fileno=fd), is_known=False)
                if not data:
                    return


__all__ = ["VncServer"]
