# SPDX-License-Identifier: Apache-2.0
"""Framebuffer and keyboard on the real machine: what a front end may write down, and what is refused of it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import real_host

from domzero.abi.io_fbif import XenfbType, xenfb_page, xenfb_resize, xenfb_update
from domzero.abi.layout import layout_for
from domzero.dom0.backends.framebuffer import BYTES_MAX
from domzero.dom0.backends.vfb import FramebufferDevice
from domzero.dom0.backends.vkbd import QUEUE_MAX, KeyboardDevice
from domzero.dom0.backends.xenbus import Front, FrontendError
from domzero.dom0.vfbspec import VfbSpec
from domzero.dom0.vnc.display import Damage, Display, Rect
from domzero.hypervisor.evtchn import alloc_unbound

PAGE = 4096
WIDTH, HEIGHT = 40, 30
STRIDE = WIDTH * 4
SIZE = STRIDE * HEIGHT


class Nodes:
    """A front end's nodes."""

    def __init__(self, nodes: dict[str, str | int]) -> None:
        self.nodes = nodes

    def get(self, path: str) -> str | None:
        value = self.nodes.get(path.rpartition("/")[2])
        return None if value is None else str(value)


def front(**nodes: str | int) -> Front:
    return Front(cast(Any, Nodes({name.replace("_", "-"): value for name, value in nodes.items()})), "/device")


class Watcher:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def damaged(self, rect: Rect) -> None:
        self.seen.append(rect)

    def resized(self, width: int, height: int) -> None:
        self.seen.append((width, height))


class Guest:
    """A domain whose front ends a test plays."""

    def __init__(self, *, is_32bit: bool = False) -> None:
        self.host = real_host.make_host()
        self.domain = real_host.make_domain(self.host, is_32bit=is_32bit)
        self.is_32bit = is_32bit
        self.layout: Any = layout_for(xenfb_page, is_32bit)
        self.display = Display()
        self.broken: list[str] = []
        self.device = FramebufferDevice(self.domain, VfbSpec(), self.display, {})
        self.device.broken = self.broken.append
        self.page, self.directory, *self.pixels = self.alloc(2 + -(-SIZE // PAGE))
        self.write(self.directory, struct.pack(f"<{len(self.pixels)}{'I' if is_32bit else 'Q'}", *self.pixels))
        self.port = alloc_unbound(self.domain)

    def alloc(self, count: int) -> list[int]:
        return list(self.domain.hw.alloc(count))

    def write(self, mfn: int, data: bytes, at: int = 0) -> None:
        self.host.machine.write(mfn * PAGE + at, data)

    def index(self, mfn: int, at: int) -> int:
        return int.from_bytes(self.host.machine.read(mfn * PAGE + at, 4), "little")

    def describe(self, **fields: Any) -> None:
        values = {
            "width": WIDTH, "height": HEIGHT, "line_length": STRIDE, "mem_length": SIZE, "depth": 32,
        } | fields  # fmt: skip
        shared = self.layout(**{name: value for name, value in values.items() if name != "pd"})
        for index, mfn in enumerate(values.get("pd", [self.directory])):
            shared.pd[index] = mfn
        self.write(self.page, bytes(shared))

    def connect(self, **nodes: str | int) -> None:
        given: dict[str, str | int] = {"page_ref": self.page, "event_channel": self.port, "feature_update": 1}
        self.device.connect(front(**given | nodes))

    def say(self, *events: bytes) -> None:
        """Puts events into the ring, and lets the back end answer."""
        prod = self.index(self.page, 12)
        for event in events:
            self.write(self.page, event.ljust(40, b"\0"), 2048 + prod % 51 * 40)
            prod += 1
        self.write(self.page, prod.to_bytes(4, "little"), 12)
        self.device._answer()


@pytest.fixture
def make() -> Iterator[Callable[..., Guest]]:
    guests: list[Guest] = []

    def make(**how: Any) -> Guest:
        guests.append(Guest(**how))
        return guests[-1]

    yield make
    for guest in guests:
        guest.device.disconnect()
        assert guest.host.audit() == []
        guest.host.close()


@pytest.mark.parametrize("is_32bit", [False, True])
def test_pixels_are_read_where_the_front_end_says(make: Callable[..., Guest], is_32bit: bool) -> None:
    guest = make(is_32bit=is_32bit)
    pattern = bytes(range(251)) * (SIZE // 251 + 1)
    for number, mfn in enumerate(guest.pixels):
        guest.write(mfn, pattern[number * PAGE : min((number + 1) * PAGE, SIZE)])
    guest.describe()
    guest.connect()
    assert guest.display.picture() == (WIDTH, HEIGHT, pattern[:SIZE])
    rect = Rect(3, 24, 5, 4)  # over the border of two frames
    rows = [pattern[y * STRIDE + 12 : y * STRIDE + 32] for y in range(24, 28)]
    assert guest.display.read(rect) == (rect, b"".join(rows))
    assert guest.display.read(Rect(38, 29, 100, 100))[0] == Rect(38, 29, 2, 1)
    assert guest.host.audit() == []  # what is held is known
    guest.device.disconnect()
    assert not any(guest.display.picture()[2])


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"depth": 16}, "16 bits for each pixel"),
        ({"width": 0}, "0 by 30"),
        ({"width": -1}, "-1 by 30"),
        ({"height": 1 << 30}, "by 1073741824 pixels"),
        ({"line_length": STRIDE - 1}, "159 bytes behind the other"),
        ({"line_length": 0xFFFFFFFF}, "are not in"),
        ({"mem_length": SIZE - 1}, "are not in"),
        ({"mem_length": 0}, "0 bytes"),
        ({"mem_length": BYTES_MAX + 1}, "bytes: up to"),
        ({"pd": [0]}, "frame 0x0, that lists others, is none"),
        ({"pd": [(1 << 64) - 1]}, "is none of the domain's"),
        ({"pd": [], "mem_length": SIZE}, "is none of the domain's"),
        ({"mem_length": 4096 * 4096}, "is none of the domain's"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_is_refused_and_nothing_stays_held(
    make: Callable[..., Guest], fields: dict[str, Any], what: str
) -> None:
    guest = make()
    guest.describe(**fields)
    with pytest.raises(FrontendError, match=what):
        guest.connect()
    assert not guest.domain.host_refs and guest.domain.hw.outside_refs() == []
    assert not guest.display.is_shown


def test_frames_of_others_and_of_the_hypervisor_are_not_shown(make: Callable[..., Guest]) -> None:
    guest = make()
    other = real_host.make_domain(guest.host)
    (theirs,) = other.hw.alloc(1)
    for mfn in (theirs, guest.host.machine.m2p[0], guest.host.machine.frames):
        guest.write(guest.directory, struct.pack("<Q", mfn), 8)
        guest.describe()
        with pytest.raises(FrontendError, match=f"frame {mfn:#x}, of pixels, is none"):
            guest.connect()
        with pytest.raises(FrontendError, match="page-ref"):
            guest.connect(page_ref=mfn)
    assert not guest.domain.host_refs


@pytest.mark.parametrize(
    ("nodes", "what"),
    [
        ({"page_ref": "x"}, "page-ref is no number"),
        ({"page_ref": str(1 << 60)}, "page-ref is no number up to"),
        ({"event_channel": 1000}, "event-channel 1000"),
        ({"protocol": "arm-abi"}, "protocol 'arm-abi' is unknown"),
        ({"feature_update": "yes"}, "feature-update is no number"),
    ],
)  # fmt: skip
def test_nodes_that_cannot_be_are_refused(make: Callable[..., Guest], nodes: dict[str, str | int], what: str) -> None:
    guest = make()
    guest.describe()
    with pytest.raises(FrontendError, match=what):
        guest.connect(**nodes)
    assert not guest.domain.host_refs


def test_changes_and_another_size_are_told_who_looks(make: Callable[..., Guest]) -> None:
    guest, watcher = make(), Watcher()
    guest.describe()
    guest.connect()
    guest.display.watch(watcher)
    update = xenfb_update(type=XenfbType.XENFB_TYPE_UPDATE, x=-5, y=2, width=10, height=1 << 30)
    resize = xenfb_resize(type=XenfbType.XENFB_TYPE_RESIZE, width=20, height=10, stride=STRIDE, depth=32, offset=80)
    guest.say(bytes(update), bytes(resize), b"\x77")
    assert watcher.seen == [(WIDTH, HEIGHT), Rect(0, 2, 5, HEIGHT - 2), (20, 10)]
    assert guest.display.picture()[:2] == (20, 10)
    assert guest.index(guest.page, 8) == 3  # all are taken
    assert guest.broken == []


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ({"width": 41, "height": 30}, "are not in"),
        ({"width": 10, "height": 10, "offset": -4}, "from byte -4"),
        ({"width": 10, "height": 10, "offset": SIZE}, "are not in"),
        ({"width": 10, "height": 10, "depth": 8}, "8 bits"),
        ({"width": 10, "height": 10, "stride": -160}, "are not in"),
    ],
)  # fmt: skip
def test_a_size_that_cannot_be_breaks_the_device(make: Callable[..., Guest], event: dict[str, int], what: str) -> None:
    guest = make()
    guest.describe()
    guest.connect()
    fields = {"stride": STRIDE, "depth": 32, "offset": 0} | event
    guest.say(bytes(xenfb_resize(type=XenfbType.XENFB_TYPE_RESIZE, **fields)))
    assert len(guest.broken) == 1 and what in guest.broken[0]


def test_indices_that_make_no_sense_break_the_device(make: Callable[..., Guest]) -> None:
    guest = make()
    guest.describe()
    guest.connect()
    guest.write(guest.page, (52).to_bytes(4, "little"), 12)
    guest.device._answer()
    assert guest.broken == ["the ring of events makes no sense"]


def test_keys_wait_for_room_in_the_ring_and_have_a_bound(make: Callable[..., Guest]) -> None:
    guest = make()
    keyboard = KeyboardDevice(guest.domain, 0, guest.display)
    broken: list[str] = []
    keyboard.broken = broken.append
    guest.display.key(30, pressed=True)  # nobody is there
    keyboard.connect(front(page_ref=guest.page, event_channel=guest.port, request_abs_pointer=1))
    for code in range(1, 61):
        guest.display.key(code, pressed=code % 2 == 1)
    guest.display.key(1 << 20, pressed=True)  # no such key
    codes = []
    while (cons := guest.index(guest.page, 0)) != (prod := guest.index(guest.page, 4)):
        assert prod - cons <= 51
        for number in range(cons, prod):
            event = guest.host.machine.read(guest.page * PAGE + 1024 + number % 51 * 40, 40)
            assert event[0] == 3 and event[1] == int.from_bytes(event[4:8], "little") % 2
            codes.append(int.from_bytes(event[4:8], "little"))
        guest.write(guest.page, prod.to_bytes(4, "little"), 0)
        keyboard._push()
    assert codes == list(range(1, 61))
    guest.display.move(400, 10_000, -1)
    event = guest.host.machine.read(guest.page * PAGE + 1024 + prod % 51 * 40, 16)
    assert struct.unpack("<Bxxxiii", event) == (4, 400, 599, -1)
    for _ in range(QUEUE_MAX + 100):
        guest.display.key(1, pressed=True)
    assert len(keyboard._queue) == QUEUE_MAX
    guest.write(guest.page, (prod + 1000).to_bytes(4, "little"), 0)
    guest.display.key(1, pressed=True)
    assert broken == ["the ring of events makes no sense"]
    keyboard.disconnect()


def test_many_changes_become_one() -> None:
    damage = Damage()
    damage.add(Rect(0, 0, 10, 10))
    damage.add(Rect(2, 2, 3, 3))
    assert damage.take() == [Rect(0, 0, 10, 10)] and not damage
    for x in range(17):
        damage.add(Rect(x * 10, x, 5, 1))
    assert damage.take() == [Rect(0, 0, 165, 17)]
