# SPDX-License-Identifier: Apache-2.0
"""The worker's end of the control socket: nothing waits for a Domain 0 that does not read, and nothing is lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from waiting import until

from domzero.dom0.console import Console
from domzero.dom0.control_channel import LOG_LINES_QUEUED, ControlChannel
from domzero.dom0.life import EndReason
from domzero.dom0.messages import (
    DiskGone,
    Disks,
    Done,
    Exited,
    FrameKind,
    LogLine,
    Message,
    VifGone,
    Vifs,
    decode,
)
from domzero.dom0.socket_frames import FrameDecoder


class Ends:
    """The channel with a console, and what Domain 0 reads."""

    def __init__(self) -> None:
        self.theirs, ours = socket.socketpair()
        self.ours = ours
        self.console = Console()
        self.channel = ControlChannel(ours, hold=self.console.hold, release=self.console.release)
        self.console.add_sink(self.channel.console)
        self._decoder = FrameDecoder()
        self.text = b""
        self.messages: list[Message] = []

    def read(self) -> None:
        for kind, payload in self._decoder.feed(self.theirs.recv(1 << 20)):
            if kind == FrameKind.CONSOLE:
                self.text += payload
            else:
                self.messages.append(decode(payload)[0])

    @property
    def lines(self) -> int:
        return sum(isinstance(message, LogLine) for message in self.messages)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.channel.finish()
    ends.ours.close()
    ends.theirs.close()


def test_a_stalled_reader_holds_the_guest_and_gets_everything_in_order_later(ends: Ends) -> None:
    sent = b""
    while not ends.console.held:  # a guest prints while it may, 2 KiB at a time: this returns, whoever reads
        chunk = f"{len(sent):08}".encode() * 256
        ends.console.output(chunk)
        sent += chunk
    assert len(sent) < 4 << 20  # what the kernel's socket takes, and the queue
    ends.channel.send(Exited(EndReason.POWEROFF, (), 1.0, 0))
    while not ends.messages:
        ends.read()
    assert ends.text == sent
    until(lambda: not ends.console.held)


def test_lines_of_the_log_that_nobody_reads_are_dropped_and_counted(ends: Ends) -> None:
    total = 50 * LOG_LINES_QUEUED
    for number in range(total):
        ends.channel.send(LogLine(str(number)))
    ends.channel.send(Exited(EndReason.CRASH, ("why",), 1.0, 0))
    while not any(isinstance(message, Exited) for message in ends.messages):
        ends.read()
    lines = [message.line for message in ends.messages if isinstance(message, LogLine)]
    notes = [line for line in lines if "were dropped" in line]
    assert notes
    assert len(lines) - len(notes) + sum(int(note.split()[0].strip("(")) for note in notes) == total


def test_an_answer_goes_before_the_lines_and_the_output_that_wait(ends: Ends) -> None:
    line = "x" * 1000
    while not ends.console.held:
        ends.console.output(bytes(2048))
    for _ in range(LOG_LINES_QUEUED):
        ends.channel.send(LogLine(line))
    ends.channel.send(Done(), request_id=1)
    while ends.lines < LOG_LINES_QUEUED:  # to the end: the channel is not left with what it cannot send
        ends.read()
    assert ends.messages.index(Done()) < LOG_LINES_QUEUED // 2  # after what was on its way


def test_that_a_device_is_gone_is_said_before_the_answers_that_come_after_it(ends: Ends) -> None:
    while not ends.console.held:
        ends.console.output(bytes(2048))
    ends.channel.send(LogLine("before"))
    said: list[Message] = [DiskGone(51712), Disks(()), VifGone(0), Vifs(())]
    for number, message in enumerate(said):
        ends.channel.send(message, request_id=number if isinstance(message, Disks | Vifs) else 0)
    while LogLine("before") not in ends.messages:
        ends.read()
    assert ends.messages == [*said, LogLine("before")]
