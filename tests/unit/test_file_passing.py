# SPDX-License-Identifier: Apache-2.0
"""Open files that go with a request: all of them come with it and no others; none stays open when they are wrong."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import open_descriptors

from domzero.dom0.file_passing import FILES_MAX, PACKET_FILES, pair, receive_files, send_files
from domzero.dom0.json_values import MessageError
from domzero.dom0.messages import Pause, decode, decode_request, encode
from domzero.errors import ResourceError

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both ends; as many descriptors are open at the end as at the beginning."""
    ours, theirs = pair()
    before = open_descriptors()
    yield ours, theirs
    assert open_descriptors() == before
    ours.close()
    theirs.close()


class Opened:
    """Files whose contents are their numbers."""

    def __init__(self, directory: Path, count: int) -> None:
        self.fds = []
        for number in range(count):
            path = directory / str(number)
            path.write_text(str(number))
            self.fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("count", [0, 1, PACKET_FILES, PACKET_FILES + 1, 3 * PACKET_FILES - 1])
def test_all_files_of_a_request_come_in_their_order_and_are_not_inherited(
    ends: Ends, tmp_path: Path, count: int
) -> None:
    opened = Opened(tmp_path, count)
    send_files(ends[0], 7, opened.fds)
    opened.close()
    came = receive_files(ends[1], 7, count)
    assert [int(os.pread(fd, 10, 0)) for fd in came] == list(range(count))
    assert not any(os.get_inheritable(fd) for fd in came)
    close_all(came)


def test_what_a_request_that_was_given_up_has_left_does_not_get_into_the_next_one(ends: Ends, tmp_path: Path) -> None:
    opened = Opened(tmp_path, 3)
    send_files(ends[0], 1, opened.fds)
    send_files(ends[0], 2, opened.fds[2:])
    opened.close()
    came = receive_files(ends[1], 2, 1)
    assert os.pread(came[0], 10, 0) == b"2"
    close_all(came)


@pytest.mark.parametrize(("sent_for", "sent", "asked"), [(5, 2, 3), (5, 3, 2), (5, 0, 1), (6, 2, 2), (4, 2, 2)])
def test_other_files_than_the_request_says_are_refused_and_closed(
    ends: Ends, tmp_path: Path, sent_for: int, sent: int, asked: int
) -> None:
    opened = Opened(tmp_path, sent)
    send_files(ends[0], sent_for, opened.fds)
    opened.close()
    with pytest.raises(MessageError, match=f"{asked} files"):
        receive_files(ends[1], 5, asked)


def test_there_are_bounds_at_both_ends(ends: Ends) -> None:
    with pytest.raises(ResourceError, match="more than a request may have"):
        send_files(ends[0], 1, range(FILES_MAX + 1))
    with pytest.raises(MessageError, match="more than a request may have"):
        receive_files(ends[1], 1, FILES_MAX + 1)


def test_a_worker_that_takes_no_files_makes_nobody_wait(ends: Ends, tmp_path: Path) -> None:
    opened = Opened(tmp_path, 1)
    with pytest.raises(ResourceError, match="could not be given"):
        for number in range(100_000):
            send_files(ends[0], number, opened.fds)
    opened.close()


def test_nothing_comes_back_and_the_end_is_seen(ends: Ends) -> None:
    with pytest.raises(BrokenPipeError):
        ends[1].send(b"x")
    theirs = ends[1].dup()
    ends[1].detach()
    theirs.close()


def test_a_message_says_how_many_files_belong_to_it() -> None:
    assert decode_request(encode(Pause(), 3, 2)) == (Pause(), 3, 2)
    assert decode_request(encode(Pause(), 3)) == (Pause(), 3, 0)
    for wrong in (encode(Pause(), 3, -1), encode(Pause(), 3, 2).replace(b'"files":2', b'"files":"2"')):
        with pytest.raises(MessageError, match="files"):
            decode_request(wrong)
    with pytest.raises(MessageError, match="no files belong to it"):
        decode(encode(Pause(), 3, 1))
