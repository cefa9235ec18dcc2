# SPDX-License-Identifier: Apache-2.0
"""The VNC server: a screen that tests draw on, and viewers over sockets."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import struct
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from rfb_client import DESKTOP_SIZE, EXTENDED_SIZE, QEMU_KEYS, RAW, ZRLE, Refused, Viewer
from waiting import until

from domzero import _machine
from domzero.dom0.vfbspec import parse_vfb
from domzero.dom0.vnc import keys
from domzero.dom0.vnc.display import Display, Rect
from domzero.dom0.vnc.encodings import Encoding
from domzero.dom0.vnc.encrypted import VIEWERS_MAX as PLACES
from domzero.dom0.vnc.listener import open_screen
from domzero.dom0.vnc.pixels import NATIVE, Converter, FormatError, PixelFormat
from domzero.dom0.vnc.server import VIEWERS_MAX, VncServer
from domzero.errors import ConfigError


class Canvas:
    """What a guest would show."""

    def __init__(self, width: int, height: int, seed: int = 0) -> None:
        self.width, self.height = width, height
        noise = random.Random(seed).randbytes(width * height)
        self.pixels = bytearray(4 * width * height)
        for byte in range(3):
            self.pixels[byte::4] = noise

    def read(self, rect: Rect) -> bytes:
        rows = range(rect.y, rect.y + rect.height)
        row = 4 * self.width
        return b"".join(bytes(self.pixels[y * row + 4 * rect.x : y * row + 4 * (rect.x + rect.width)]) for y in rows)


class Sink:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def key(self, code: int, *, pressed: bool) -> None:
        self.events.append((code, pressed))

    def move(self, x: int, y: int, wheel: int, width: int, height: int) -> None:
        self.events.append((x, y, wheel))


Connect = Callable[..., Viewer]


@pytest.fixture
def display() -> Display:
    return Display()


@pytest.fixture
def server(display: Display) -> Iterator[VncServer]:
    server = VncServer(display, "guest", "", None)
    yield server
    server.close()
    until(lambda: not server.viewers, 30, "all to go")


@pytest.fixture
def connect(server: VncServer) -> Iterator[Connect]:
    ours: list[socket.socket] = []

    def connect(**how: Any) -> Viewer:
        mine, theirs = socket.socketpair()
        ours.append(mine)
        server.add(theirs, is_known=True)
        return Viewer(mine, **how)

    yield connect
    for sock in ours:
        sock.close()


@pytest.mark.parametrize("encoding", [RAW, ZRLE])
def test_a_viewer_sees_what_is_shown_and_then_what_changes(display: Display, connect: Connect, encoding: int) -> None:
    canvas = Canvas(150, 130)
    canvas.pixels[:: 4 * 7] = bytes(len(canvas.pixels[:: 4 * 7]))
    canvas.pixels[: 4 * 150 * 70] = bytes(4 * 150 * 70)  # tiles of one colour
    display.show(canvas)
    viewer = connect(encodings=(encoding,))
    assert (viewer.name, viewer.width, viewer.height) == ("guest", 150, 130)
    assert viewer.picture() == (150, 130, bytes(canvas.pixels))
    assert set(viewer.seen) == {encoding}
    for at in range(4 * (100 * 150 + 20), 4 * (100 * 150 + 30)):
        canvas.pixels[at] = 0 if at % 4 == 3 else 77
    display.damage(Rect(20, 100, 10, 1))
    viewer.update()
    assert bytes(viewer.pixels) == bytes(canvas.pixels)


def test_several_viewers_see_the_same_and_one_can_be_alone(display: Display, connect: Connect) -> None:
    display.show(Canvas(64, 64))
    viewers = [connect() for _ in range(3)]
    assert len({viewer.picture() for viewer in viewers}) == 1
    alone = connect(shared=False)
    for viewer in viewers:
        with pytest.raises(ConnectionResetError):
            viewer.read(1)
    alone.update(incremental=False)


def test_there_is_a_bound_to_viewers(server: VncServer, connect: Connect) -> None:
    viewers = [connect() for _ in range(VIEWERS_MAX)]
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        connect()
    viewers[0].sock.close()
    until(lambda: server.viewers < VIEWERS_MAX, 30, "one to go")
    connect().update(incremental=False)


def test_another_size_is_told_who_can_hear_it(display: Display, connect: Connect) -> None:
    display.show(Canvas(64, 64))
    new, old = connect(encodings=(RAW, DESKTOP_SIZE, EXTENDED_SIZE)), connect(encodings=(RAW, DESKTOP_SIZE))
    deaf = connect(encodings=(RAW,))
    for viewer in (new, old, deaf):
        viewer.update(incremental=False)
    assert new.sizes == [(0, 64, 64)] and old.sizes == []
    display.show(canvas := Canvas(100, 80))
    for viewer in (new, old):
        viewer.update()
        assert viewer.sizes[-1] == (0, 100, 80)
        assert viewer.picture() == (100, 80, bytes(canvas.pixels))
    deaf.update()
    assert bytes(deaf.pixels) == canvas.read(Rect(0, 0, 64, 64))
    new.sock.sendall(struct.pack(">BxHHBx16x", 251, 640, 480, 1))  # it is the guest that says how large its screen is
    new.update()
    assert new.sizes[-1] == (1, 100, 80)


def test_keys_and_pointer_reach_the_guest_and_are_let_go(display: Display, connect: Connect) -> None:
    display.connect_input(sink := Sink())
    viewer = connect(encodings=(RAW, QEMU_KEYS))
    viewer.update(incremental=False)
    assert QEMU_KEYS in viewer.seen
    viewer.type("a\n")
    viewer.position(0xC8, pressed=True)  # the arrow up
    viewer.key(0x1234567, pressed=True)  # nobody knows it
    viewer.sock.sendall(struct.pack(">BBHH", 5, 1, 30, 40) + struct.pack(">BBHH", 5, 17, 9999, 40))
    viewer.sock.sendall(struct.pack(">BxxxI", 6, 70_000) + bytes(70_000))  # text that it would paste
    viewer.update(incremental=False)
    viewer.sock.close()
    until(lambda: (keys.BTN_LEFT, False) in sink.events and (103, False) in sink.events, 30, "keys to be let go")
    assert sink.events[:8] == [
        (30, True), (30, False), (28, True), (28, False), (103, True), (30, 40, 0), (keys.BTN_LEFT, True), (799, 40, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        b"\x09",
        b"\x00\0\0\0" + bytes((32, 24, 0, 0)) + bytes(12),  # a colour map
        b"\x00\0\0\0" + bytes((24, 24, 0, 1)) + bytes(12),
        b"\x00\0\0\0" + struct.pack(">BBBBHHHBBBxxx", 8, 8, 0, 1, 255, 255, 255, 16, 8, 0),
        struct.pack(">BxxxI", 6, 0xFFFFFFFF),
        b"\xff\x07" + bytes(10),
    ],
)
def test_what_is_no_rfb_ends_only_this_connection(
    display: Display, server: VncServer, connect: Connect, message: bytes
) -> None:
    other, viewer = connect(), connect()
    viewer.sock.sendall(message)
    with pytest.raises(ConnectionResetError):
        viewer.read(1)
    other.update(incremental=False)
    until(lambda: server.viewers == 1, 30, "it to be forgotten")


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1", b"RFB 003.889\n", b"RFB 003.008\n\x05"])
def test_what_does_not_greet_is_not_let_in(server: VncServer, greeting: bytes) -> None:
    mine, theirs = socket.socketpair()
    with mine:
        server.add(theirs, is_known=True)
        mine.settimeout(30)
        mine.sendall(greeting)
        while mine.recv(100):
            pass
    until(lambda: not server.viewers, 30, "it to be forgotten")


def test_a_password_is_asked_for_on_a_port_and_the_socket_is_private(display: Display, tmp_path: Path) -> None:
    spec = parse_vfb("vnclisten=127.0.0.1,vncdisplay=40,vncpasswd=secret")
    first, second = open_screen(spec, uuid.uuid4()), open_screen(spec, uuid.uuid4())
    assert first.address != second.address  # a port is taken
    with pytest.raises(ConfigError, match="in use"):
        display_number = first.nodes["vncdisplay"]
        open_screen(parse_vfb(f"vncdisplay={display_number},vncunused=0,vncpasswd=x"), uuid.uuid4())
    second.close()
    server = VncServer(display, "guest", spec.password, first.sock)
    address = ("127.0.0.1", int(str(first.nodes["vnc-port"])))
    Viewer(socket.create_connection(address), password="secret").update(incremental=False)
    with pytest.raises(Refused, match="the password is wrong"):
        Viewer(socket.create_connection(address), password="Secret")
    server.close()

    path = tmp_path / "guest.vnc"
    screen = open_screen(parse_vfb(f"vnclisten=unix:{path}"), uuid.uuid4())
    assert os.stat(path).st_mode & 0o777 == 0o600
    server = VncServer(display, "guest", "", screen.sock)
    Viewer.at(path).update(incremental=False)
    server.close()
    until(lambda: not path.exists(), 30, "the socket to go")


@pytest.fixture
def encrypted(display: Display, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """An address where viewers have to speak TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    screen = open_screen(parse_vfb("vncdisplay=60,vncpasswd=secret,vnctls=1"), uuid.uuid4())
    server = VncServer(display, "guest", "secret", screen.sock)
    yield "127.0.0.1", int(str(screen.nodes["vnc-port"]))
    server.close()


def test_a_viewer_speaks_tls_and_shows_the_password_in_it(
    display: Display, encrypted: tuple[str, int], tmp_path: Path
) -> None:
    (certificate,) = tmp_path.rglob("*.cert.pem")
    trusting = ssl.create_default_context(cafile=str(certificate))  # which compares the name, too
    canvas = Canvas(640, 480)
    display.show(canvas)
    viewer = Viewer(socket.create_connection(encrypted), password="secret", tls=trusting)
    until(lambda: shows(viewer, canvas), 60, "the picture")
    assert isinstance(viewer.sock, ssl.SSLSocket) and viewer.sock.version() in ("TLSv1.2", "TLSv1.3")
    with pytest.raises(Refused, match="the password is wrong"):
        Viewer(socket.create_connection(encrypted), password="Secret", tls=trusting)
    with pytest.raises(ssl.SSLError):
        Viewer(socket.create_connection(encrypted), password="secret", tls=ssl.create_default_context())
    again = Viewer(socket.create_connection(encrypted), password="secret", tls=trusting)
    again.update(incremental=False)


def shows(viewer: Viewer, canvas: Canvas) -> bool:
    viewer.update(incremental=False)
    return viewer.pixels == canvas.pixels


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1",
        b"RFB 003.003\n",
        b"RFB 003.008\n\2",
        b"RFB 003.008\n\x13\0\1",
        b"RFB 003.008\n\x13\0\2\0\0\1\4",
        b"RFB 003.008\n\x13\0\2\0\0\1\5no TLS at all",
        b"",
    ],
)
def test_who_does_not_speak_tls_is_shown_nothing(encrypted: tuple[str, int], said: bytes) -> None:
    with socket.create_connection(encrypted) as sock:
        sock.settimeout(60)
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        heard = b""
        with suppress(ConnectionResetError):
            while part := sock.recv(4096):
                heard += part
    assert len(heard) < 64 and b"guest" not in heard


def test_places_of_encrypted_viewers_end_and_come_again(encrypted: tuple[str, int], tmp_path: Path) -> None:
    with ExitStack() as stack:
        for _ in range(PLACES):
            sock = stack.enter_context(socket.create_connection(encrypted))
            sock.settimeout(60)
            assert sock.recv(12)
        over = stack.enter_context(socket.create_connection(encrypted))
        over.settimeout(60)
        assert over.recv(12) == b""
    (certificate,) = tmp_path.rglob("*.cert.pem")
    trusting = ssl.create_default_context(cafile=str(certificate))

    def comes_in() -> bool:
        with suppress(ConnectionResetError, AssertionError):
            Viewer(socket.create_connection(encrypted), password="secret", tls=trusting).update(incremental=False)
            return True
        return False

    until(comes_in, 60, "a place")


def test_without_a_password_there_is_a_socket_in_place_of_a_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    screen = open_screen(parse_vfb("vnc=1"), uuid.UUID(int=7))
    assert screen.address.startswith("unix:") and screen.address.endswith(f"{uuid.UUID(int=7)}.vnc")
    screen.close()


def test_the_answer_to_a_challenge_is_des_with_its_bits_turned() -> None:
    # NIST SP 500-20's first variable key, 80 01 01 01 01 01 01 01: turned, it is 01 80 80 80 80 80 80 80.
    answer = _machine.vnc_response(b"\x01" + b"\x80" * 7, bytes(16))
    assert answer == 2 * bytes.fromhex("95a8d72813daa94d")


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (NATIVE, "030201ff"),
        (PixelFormat(32, 24, False, (255, 255, 255), (0, 8, 16)), "01020300"),
        (PixelFormat(32, 24, True, (255, 255, 255), (16, 8, 0)), "00010203"),
        (PixelFormat(32, 24, True, (255, 255, 255), (24, 16, 8)), "01020300"),
    ],
)
def test_pixels_are_turned_into_a_viewers(format: PixelFormat, expected: str) -> None:
    assert Converter(format)(bytes((3, 2, 1, 255))).hex() == expected
    assert Converter(format, compact=True)(bytes((3, 2, 1, 255))) in (b"\1\2\3", b"\3\2\1")


def test_pixels_of_16_and_8_bits_keep_their_colours() -> None:
    narrow = PixelFormat(16, 16, False, (31, 63, 31), (11, 5, 0))
    pixels = bytes((255, 128, 0, 0, 0, 255, 255, 0))
    first, second = struct.unpack("<HH", Converter(narrow)(pixels))
    assert (first >> 11, first >> 5 & 63, first & 31) == (0, 32, 31)
    assert (second >> 11, second >> 5 & 63, second & 31) == (31, 63, 0)
    tiny = PixelFormat(8, 8, False, (7, 7, 3), (0, 3, 6))
    assert Converter(tiny)(pixels) == bytes((3 << 6 | 4 << 3, 7 | 7 << 3))
    with pytest.raises(FormatError):
        PixelFormat.unpack(struct.pack(">BBBBHHHBBBxxx", 16, 16, 0, 1, 31, 63, 31, 12, 5, 0))


def test_each_letter_has_the_key_that_has_it() -> None:
    assert [keys.of_symbol(ord(letter)) for letter in "aA1!z/ ~"] == [30, 30, 2, 2, 44, 53, 57, 41]
    assert [keys.of_symbol(symbol) for symbol in (0xFFBE, 0xFFC9, 0xFFB0, 0xFFB9)] == [59, 88, 82, 73]
    assert [keys.of_position(code) for code in (0x1E, 0x9D, 0x57, 0, 0x100, 0x80)] == [30, 97, 87, None, None, None]
    assert Encoding.QEMU_EXTENDED_KEY == QEMU_KEYS


def messages(chance: random.Random) -> bytes:
    """What no viewer says: right heads with what is too large, too small or strange behind them, and noise."""
    most = chance.choice((0, 1, 255, 256, 32767, 65535))

    def number() -> int:
        return chance.choice((0, 1, most, chance.getrandbits(16)))

    size = chance.choice((0, 5, 1 << 20, (1 << 20) + 1, 1 << 31, (1 << 32) - 1))
    return chance.choice(
        (
            struct.pack(">B3x16s", 0, chance.randbytes(16)),
            struct.pack(">B3xBBBBHHHBBB3x", 0, *(chance.choice((8, 16, 32)), 24, 0, 1), number(), 255, 255, 16, 8, 0),
            struct.pack(">BxH", 2, number()) + chance.randbytes(4 * min(most, 300)),
            struct.pack(">BxH4i", 2, 4, ZRLE, RAW, QEMU_KEYS, EXTENDED_SIZE),
            struct.pack(">BBHHHH", 3, number() & 1, number(), number(), number(), number()),
            struct.pack(">BBxxI", 4, number() & 1, chance.getrandbits(32)),
            struct.pack(">BBHH", 5, number() & 255, number(), number()),
            struct.pack(">BxxxI", 6, size) + bytes(chance.choice((0, 5, 1 << 16))),
            struct.pack(">BxHHBx", 251, number(), number(), number() & 255) + bytes(chance.choice((0, 16))),
            struct.pack(">BBHII", 255, number() & 1, 1, chance.getrandbits(32), chance.getrandbits(32)),
            chance.randbytes(chance.choice((1, 7, 60))),
        )
    )


def hostile(server: VncServer, data: bytes, *, greeted: bool = True) -> None:
    """A viewer that says this and goes; what it is sent it takes or not."""
    mine, theirs = socket.socketpair()
    server.add(theirs, is_known=True)
    mine.settimeout(30)
    with mine, suppress(OSError):
        if greeted:
            mine.sendall(b"RFB 003.008\n" + b"\1\1")
        mine.sendall(data)
        mine.shutdown(socket.SHUT_WR)
        while mine.recv(1 << 16):
            pass


def test_hostile_viewers_end_their_own_connection_and_nothing_else(
    server: VncServer, display: Display, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[object] = []
    monkeypatch.setattr("threading.excepthook", lambda fault: faults.append(fault.exc_value))
    display.show(Canvas(100, 80))
    viewer = connect()
    seed = int(os.environ.get("DOMZERO_FUZZ_SEED", "1"))
    for number in range(int(os.environ.get("DOMZERO_FUZZ_CASES", "120"))):
        chance = random.Random(f"{seed}/{number}")
        data = b"".join(messages(chance) for _ in range(chance.randrange(1, 12)))
        hostile(server, data[: chance.randrange(len(data) + 1)], greeted=chance.random() < 0.9)
        until(lambda: server.viewers == 1, 60, f"the end of number {number} of seed {seed}")
    assert faults == []
    assert viewer.picture()[:2] == (100, 80)


def test_a_viewer_that_says_much_and_asks_for_nothing_takes_no_memory(display: Display, connect: Connect) -> None:
    display.show(Canvas(100, 80))
    viewer = connect(encodings=(RAW, EXTENDED_SIZE))
    viewer.update()
    before = len(viewer.sizes)
    for _ in range(500):
        viewer.sock.sendall(struct.pack(">BxHHBx", 251, 50, 50, 0))
        viewer.ask_for(RAW, EXTENDED_SIZE, QEMU_KEYS)
        viewer.ask_for(RAW, EXTENDED_SIZE)
    viewer.update()
    assert viewer.sizes[before:].count((1, 100, 80)) == 1 and viewer.seen.count(QEMU_KEYS) == 1
    tracemalloc.start()
    try:
        for _ in range(4):
            viewer.sock.sendall(struct.pack(">BxxxI", 6, 1 << 20) + bytes(1 << 20))
        viewer.update(incremental=False)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20  # what is sent is one of them, and a copy
    finally:
        tracemalloc.stop()
