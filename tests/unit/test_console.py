# SPDX-License-Identifier: Apache-2.0
"""The console ring: a guest that behaves, and one that does not."""

from __future__ import annotations

import random
import threading

import pytest

from domzero.dom0.console import HISTORY_SIZE, IN_SIZE, INPUT_SIZE, OUT_SIZE, Console, ConsoleRing, LineFilter


class Guest:
    """The other end of the ring."""

    def __init__(self, console: Console | None = None) -> None:
        self.page = memoryview(bytearray(4096))
        self.fields = self.page[3072:3088].cast("I")
        self.console = console or Console()
        self.events = 0
        self.ring = ConsoleRing(self.page, self.console, self._event)
        self.console.attach(self.ring)

    def _event(self) -> None:
        self.events += 1

    def put(self, data: bytes) -> None:
        for byte in data:
            self.page[IN_SIZE + self.fields[3] % OUT_SIZE] = byte
            self.fields[3] = (self.fields[3] + 1) & 0xFFFFFFFF

    def print(self, data: bytes) -> None:
        self.put(data)
        self.ring.pump()

    def read(self) -> bytes:
        output = bytearray()
        while self.fields[0] != self.fields[1]:
            output.append(self.page[self.fields[0] % IN_SIZE])
            self.fields[0] = (self.fields[0] + 1) & 0xFFFFFFFF
        self.ring.pump()
        return bytes(output)


@pytest.mark.parametrize("start", [0, OUT_SIZE - 3, 0xFFFFFFFF - 5])
def test_output_reaches_sinks_and_history_wherever_the_ring_wraps(start: int) -> None:
    guest = Guest()
    seen: list[bytes] = []
    guest.console.add_sink(seen.append)
    guest.fields[2] = guest.fields[3] = start
    guest.print(b"hello, world\r\n")
    guest.print(b"x" * OUT_SIZE)
    assert b"".join(seen) == guest.console.history == b"hello, world\r\n" + b"x" * OUT_SIZE
    assert guest.events == 2


def test_input_waits_in_the_queue_until_the_ring_has_room() -> None:
    guest = Guest()
    sent = random.Random(1).randbytes(5000)
    assert guest.console.send(sent) == len(sent)
    received = b""
    while part := guest.read():
        assert len(part) <= IN_SIZE
        received += part
    assert received == sent


def test_the_input_queue_is_bounded_and_says_what_it_took() -> None:
    console = Console()
    assert console.send(bytes(INPUT_SIZE + 100)) == INPUT_SIZE
    assert console.send(b"more") == 0
    assert not console.wait_room(0.01)


def test_input_typed_before_the_domain_starts_is_delivered() -> None:
    console = Console()
    console.send(b"early")
    assert Guest(console).read() == b"early"


def test_the_history_is_bounded_and_keeps_the_newest() -> None:
    guest = Guest()
    for number in range(HISTORY_SIZE // 50):
        guest.print(b"%099d\n" % number)
    assert len(guest.console.history) == HISTORY_SIZE
    assert guest.console.history.endswith(b"%099d\n" % (HISTORY_SIZE // 50 - 1))
    assert guest.console.total == HISTORY_SIZE // 50 * 100


def test_a_sink_that_joins_late_gets_the_history_first() -> None:
    guest = Guest()
    guest.print(b"one ")
    seen: list[bytes] = []
    remove = guest.console.add_sink(seen.append, replay=True)
    guest.print(b"two ")
    remove()
    guest.print(b"three")
    assert b"".join(seen) == b"one two "


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("value", [1, OUT_SIZE + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_senseless_indices_do_no_harm_and_output_goes_on_when_they_are_right_again(field: int, value: int) -> None:
    guest = Guest()
    guest.console.send(b"input")
    right = list(guest.fields)
    guest.fields[field] = (right[field] + value) & 0xFFFFFFFF
    guest.ring.pump()
    assert guest.console.total <= OUT_SIZE
    total = guest.console.total
    for index in range(4):
        guest.fields[index] = 0
    guest.print(b"back")
    assert guest.console.total == total + 4
    assert guest.console.history.endswith(b"back")


def test_random_indices_never_raise_and_never_give_more_than_a_ring_at_a_time() -> None:
    guest = Guest()
    dice = random.Random(2)
    for _ in range(3000):
        guest.fields[dice.randrange(4)] = dice.choice((dice.randrange(1 << 32), dice.randrange(4096)))
        before = guest.console.total
        guest.console.send(b"ab")
        guest.ring.pump()
        assert guest.console.total - before <= 2 * OUT_SIZE


def test_a_held_console_leaves_output_in_the_ring_until_it_is_released() -> None:
    guest = Guest()
    guest.console.hold()
    guest.print(b"later")
    assert guest.console.history == b""
    guest.console.release()
    assert guest.console.history == b"later"


def test_the_last_words_of_a_domain_are_taken_even_when_held() -> None:
    guest = Guest()
    guest.console.hold()
    guest.put(b"Kernel panic")
    guest.ring.drain()
    assert guest.console.history == b"Kernel panic"


def test_a_closed_ring_is_not_touched_any_more() -> None:
    guest = Guest()
    guest.ring.close()
    guest.print(b"ghost")
    guest.console.send(b"input")
    assert guest.console.history == b""
    assert guest.fields[1] == 0


def test_the_history_survives_a_reboot() -> None:
    console = Console()
    Guest(console).print(b"first ")
    Guest(console).print(b"second")
    assert console.history == b"first second"


def test_a_notification_that_pumps_again_does_not_recurse_or_lose_anything() -> None:
    console = Console()
    guest = Guest(console)
    guest._event = guest.ring.pump  # type: ignore[method-assign]
    guest.ring = ConsoleRing(guest.page, console, guest.ring.pump)
    console.attach(guest.ring)
    guest.print(b"abc")
    assert console.history == b"abc"


def test_many_threads_may_send_and_pump_at_once() -> None:
    guest = Guest()
    threads = [threading.Thread(target=lambda: [guest.console.send(b"x") for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guest.read() == b"x" * 800


LINES = b"one\r\ntwo\r\r\n\r\nthree\n\rfour\n\r\n\rprogress\r50%\n"


@pytest.mark.parametrize("cut", range(len(LINES)))
def test_line_ends_become_plain_wherever_the_chunks_are_cut(cut: int) -> None:
    convert = LineFilter()
    converted = convert(LINES[:cut]) + convert(LINES[cut:])
    assert converted == b"one\ntwo\n\nthree\nfour\n\nprogress\r50%\n"


def test_line_ends_become_plain_byte_by_byte() -> None:
    convert = LineFilter()
    assert b"".join(convert(LINES[at : at + 1]) for at in range(len(LINES))).count(b"\r") == 1
