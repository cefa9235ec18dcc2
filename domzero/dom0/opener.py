# SPDX-License-Identifier: Apache-2.0
"""A process beside a domain that confined itself (`domzero run`): it opens again what the domain is made of.

A domain that reboots needs its images and networks anew, which its own process opens no more. This one does nothing
else, and is told nothing but the domain's new number: what it opens was said before the first instruction of the guest.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import struct
import threading
from contextlib import closing
from dataclasses import dataclass

from domzero.dom0.config import DomainConfig
from domzero.dom0.diskspec import DiskFile
from domzero.dom0.file_passing import pair, receive_files, send_files
from domzero.dom0.message_set import MessageSet, Refused
from domzero.dom0.open_files import DomainFiles, open_domain, received_domain
from domzero.errors import DomzeroError, ResourceError

_ANSWER_MAX = 1 << 18
_GRACE_S = 2.0
_DOMID = struct.Struct("<H")


@dataclass(slots=True, frozen=True)
class Opened:
    """What a domain is made of is open, and comes with this.

    :param disks: what the files of each disk are.
    :param ttys: names of the ptys of its consoles, empty for sockets.
    :param addresses: where its screens can be looked at.
    :param notes: what the log is to say of it.
    """

    disks: tuple[tuple[DiskFile, ...], ...]
    ttys: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_ANSWERS: MessageSet[Opened | Refused] = MessageSet((Opened, Refused))


class Opener:
    """Forks the process: while the caller has one thread. It ends with the caller.

    :raises ResourceError: there is no room for it.
    """

    def __init__(self, config: DomainConfig) -> None:
        self._config = config
        self._talk, their_talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        their_files, self._files = pair()
        try:
            pid = os.fork()
        except OSError as error:
            raise ResourceError(f"no process could be started: {error.strerror}") from error
        if pid == 0:
            try:
                self._talk.close()
                self._files.close()
                _serve(config, their_talk, their_files)
            finally:
                os._exit(0)
        their_talk.close()
        their_files.close()

    def open(self, domid: int) -> DomainFiles:
        """All that the domain with this number is made of. Raises what `open_domain` does."""
        try:
            self._talk.send(_DOMID.pack(domid))
            data = self._talk.recv(_ANSWER_MAX)
        except ConnectionError:
            data = b""
        if not data:
            raise ResourceError("the process that opens the domain's files has ended")
        answer, request_id, count = _ANSWERS.decode_request(data)
        if isinstance(answer, Refused):
            raise answer.error()
        fds = receive_files(self._files, request_id, count)
        opened = received_domain(self._config, answer.disks, answer.ttys, answer.addresses, fds)
        opened.notes += answer.notes
        return opened


def _serve(config: DomainConfig, talk: socket.socket, files: socket.socket) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the other one takes them, and ends both
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    for request_id in itertools.count(1):
        asked = talk.recv(_DOMID.size)
        if len(asked) != _DOMID.size:
            for thread in threading.enumerate():  # of consoles: their sockets go, too
                if thread is not threading.current_thread():
                    thread.join(_GRACE_S)
            return
        answer: Opened | Refused
        count = 0
        try:
            with closing(open_domain(config, *_DOMID.unpack(asked))) as opened:
                send_files(files, request_id, opened.numbers())
                count = len(opened.numbers())
                answer = Opened(opened.disk_files(), opened.ttys(), opened.addresses(), tuple(opened.notes))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other process is told
            known = error if isinstance(error, DomzeroError) else DomzeroError(f"{type(error).__name__}: {error}")
            answer = Refused.of(known)
        talk.send(_ANSWERS.encode(answer, request_id, count))


__all__ = ["Opener"]
