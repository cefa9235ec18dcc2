# SPDX-License-Identifier: Apache-2.0
"""Open files that go with a request from Domain 0 to a worker.

They have a socket of their own, of packets, beside the control socket. Packets are sent before the request that they
belong to, which says how many files that are: when it is read they are there. A packet says which request it is for, so
what a request that was given up has left does not get into the next one. Nothing comes back on this socket.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
from collections.abc import Sequence

from domzero.dom0.json_values import MessageError
from domzero.errors import ResourceError

FILES_MAX = 512
"""That go with one request: an image and its backing files for each disk, a wire for each interface."""
PACKET_FILES = 128
"""The kernel takes up to 253 at once (SCM_MAX_FD)."""
RESUMPTION = (1 << 64) - 1
"""In the place of a request's number: these are the sockets of another Domain 0."""
SOCKETS = 3
"""Of one: control, the guest's xenstore, the toolstack's xenstore."""
_HEADER = struct.Struct("<QII")  # the request, its files, and how many of them are here


def pair() -> tuple[socket.socket, socket.socket]:
    """Domain 0's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    ours.shutdown(socket.SHUT_RD)
    theirs.setblocking(False)
    return ours, theirs


def send_files(sock: socket.socket, request_id: int, fds: Sequence[int]) -> None:
    """Sends what belongs to a request, which follows. The files stay the caller's.

    :raises ResourceError: the worker has not taken those of earlier requests, or they are too many.
    :raises ConnectionError: it has ended.
    """
    if len(fds) > FILES_MAX:
        raise ResourceError(f"{len(fds)} files are more than a request may have ({FILES_MAX})")
    for start in range(0, len(fds), PACKET_FILES):
        part = list(fds[start : start + PACKET_FILES])
        try:
            socket.send_fds(sock, [_HEADER.pack(request_id, len(fds), len(part))], part)
        except ConnectionError:
            raise
        except OSError as error:
            raise ResourceError(f"files could not be given to the worker: {error.strerror}") from error


def receive_files(sock: socket.socket, request_id: int, count: int) -> list[int]:
    """The files of a request that has come; the caller's.

    :raises MessageError: they are not as many as the request says, or not all could be taken. None is open then.
    """
    fds: list[int] = []
    try:
        if count > FILES_MAX:
            raise MessageError(f"{count} files are more than a request may have")
        while len(fds) < count:
            data, new, flags = _receive(sock)
            fds += new
            if len(data) != _HEADER.size:
                raise MessageError("the socket of the files has closed")
            their_id, total, here = _HEADER.unpack(data)
            if their_id < request_id and len(fds) == len(new):  # of a request that was given up
                _close(fds)
                continue
            if flags & socket.MSG_CTRUNC or here != len(new):
                raise MessageError("not all files of a request could be taken: there may be too many open")
            if their_id != request_id or total != count or len(fds) > count:
                raise MessageError(f"a request says {count} files, and others came")
    except BlockingIOError as error:
        _close(fds)
        raise MessageError(f"a request says {count} files, and {len(fds)} came") from error
    except BaseException:
        _close(fds)
        raise
    return fds


def receive_sockets(sock: socket.socket) -> list[socket.socket]:
    """Waits for the sockets of another Domain 0, and passes over what the one before has left; none: nobody is left
    who could send them."""
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    while True:
        waiting.poll()
        try:
            data, fds, _ = _receive(sock)
        except BlockingIOError:
            continue
        except ConnectionError:
            return []
        if not data:
            return []
        if len(data) == _HEADER.size and _HEADER.unpack(data)[0] == RESUMPTION and len(fds) == SOCKETS:
            return [socket.socket(fileno=fd) for fd in fds]
        _close(fds)


def _receive(sock: socket.socket) -> tuple[bytes, list[int], int]:
    """As socket.recv_fds, which does not hand its flags on (Python 3.9 to 3.13 at least)."""
    fds = array.array("i")
    room = socket.CMSG_LEN(PACKET_FILES * fds.itemsize)
    data, ancillary, flags, _ = sock.recvmsg(_HEADER.size, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, fds.tolist(), flags


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
