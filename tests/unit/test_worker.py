# SPDX-License-Identifier: Apache-2.0
"""A worker's answers, when what it is asked for goes wrong in it."""

from __future__ import annotations

import os
import socket

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from domzero.dom0 import file_passing
from domzero.dom0.message_set import Refused
from domzero.dom0.messages import DumpCore, FrameKind, Message, decode, encode
from domzero.dom0.socket_frames import FrameDecoder, encode_frame
from domzero.dom0.worker import Worker


class Broken:
    """A domain of which a bug is in the way."""

    def dump_core(self, _fd: int) -> int:
        raise ValueError("no number")


def test_a_request_that_meets_a_bug_is_answered_and_its_files_are_closed(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    ours, theirs = file_passing.pair()
    control, guest, toolstack = (pair[1] for pair in pairs)
    worker = Worker(control, guest, toolstack, theirs)
    worker._instance = Broken()  # type: ignore[assignment]
    read, write = os.pipe()
    file_passing.send_files(ours, 7, [write])
    os.close(write)
    pairs[0][0].sendall(encode_frame(FrameKind.MESSAGE, encode(DumpCore(), 7, files=1)))
    pairs[0][0].shutdown(socket.SHUT_WR)
    worker.run()
    answer, request_id = answer_of(pairs[0][0])
    assert request_id == 7 and isinstance(answer, Refused)
    assert answer.message == "a fault of the worker: ValueError: no number"
    assert os.read(read, 1) == b""  # nobody has the other end any more
    os.close(read)
    for sock in (ours, theirs, *(sock for pair in pairs for sock in pair)):
        sock.close()


def answer_of(sock: socket.socket) -> tuple[Message, int]:
    """The first message that comes."""
    decoder = FrameDecoder()
    sock.settimeout(60)
    while True:
        for _, payload in decoder.feed(sock.recv(1 << 16)):
            return decode(payload)
