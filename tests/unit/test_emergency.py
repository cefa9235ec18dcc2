# SPDX-License-Identifier: Apache-2.0
"""console_io beside the console ring: every line is logged, and shown once."""

from __future__ import annotations

import pytest

from domzero.dom0.console import Console
from domzero.dom0.emergency import SHOWN_MAX, EmergencyConsole


class Guest:
    """A guest with both ways to print."""

    def __init__(self) -> None:
        self.console = Console()
        self.log: list[str] = []
        self.ring_used = False
        self.emergency = EmergencyConsole(1, self.console, lambda: self.ring_used, self.log.append)

    def console_io(self, data: bytes) -> None:
        self.emergency.write(data)

    def ring(self, data: bytes) -> None:
        self.ring_used = True
        self.console.output(self.emergency.unrepeated(data))

    def shown(self) -> bytes:
        return self.console.history + self.emergency.unfinished()


def test_without_a_ring_its_lines_are_shown_and_logged() -> None:
    guest = Guest()
    guest.console_io(b"one\ntw")
    guest.console_io(b"o\nend")
    guest.emergency.finish()
    assert guest.shown() == b"one\ntwo\nend"
    assert guest.log == ["(d1) one", "(d1) two", "(d1) end"]


@pytest.mark.parametrize("size", [1, 7, 2048])
def test_a_ring_that_repeats_the_early_lines_shows_the_rest_only(size: int) -> None:
    guest = Guest()
    guest.console_io(b"[0.0] first\n\n[0.1] second\n[0.2] third\n")
    repeated = b"[0.0] first\r\n\r\n[0.1] second\r\n[0.2] third\r\n[0.3] fourth\r\nlogin: "
    for start in range(0, len(repeated), size):
        guest.ring(repeated[start : start + size])
    assert guest.shown().replace(b"\r", b"") == b"[0.0] first\n\n[0.1] second\n[0.2] third\n[0.3] fourth\nlogin: "
    assert guest.log == ["(d1) [0.0] first", "(d1) ", "(d1) [0.1] second", "(d1) [0.2] third"]


def test_a_replay_that_begins_later_and_a_guest_that_prints_both_ways_at_once() -> None:
    guest = Guest()
    guest.console_io(b"a\nb\nc\n")
    guest.ring(b"c\n")
    guest.console_io(b"d\n")  # the ring is in use: only for the log
    guest.ring(b"d\na\n")
    assert guest.shown() == b"a\nb\nc\nd\na\n"
    assert guest.log == ["(d1) a", "(d1) b", "(d1) c", "(d1) d"]


@pytest.mark.parametrize("text", [b"other\r\na\r\n", b"\r\na\r\n", b"ab", b"prompt> "])
def test_what_is_no_repetition_is_shown_as_it_is_and_at_once(text: bytes) -> None:
    guest = Guest()
    guest.console_io(b"a\n")
    guest.ring(text)
    assert guest.console.history == b"a\n" + text


def test_what_was_held_back_at_the_end_is_not_lost() -> None:
    guest = Guest()
    guest.console_io(b"halting now\n")
    guest.ring(b"halting")
    assert guest.shown() == b"halting now\nhalting"


def test_what_is_remembered_is_bounded() -> None:
    guest = Guest()
    for _ in range(2 * SHOWN_MAX // 1000):
        guest.console_io(b"x" * 999 + b"\n")
    assert sum(len(line) + 1 for line in guest.emergency._shown) <= SHOWN_MAX + 1


def test_console_io_waits_for_nobody() -> None:
    guest = Guest()
    guest.console.hold()
    guest.console_io(b"nobody reads\n")
    guest.console.release()
    assert (guest.shown(), guest.log) == (b"", ["(d1) nobody reads"])
