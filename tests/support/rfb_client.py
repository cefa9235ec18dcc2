# SPDX-License-Identifier: Apache-2.0
"""A viewer: RFB 3.8 with Raw and ZRLE, as far as our server sends it; it keeps the screen that it was shown."""

from __future__ import annotations

import socket
import ssl
import struct
import zlib
from pathlib import Path

from domzero import _machine

SHIFT, RETURN = 0xFFE1, 0xFF0D
RAW, ZRLE, DESKTOP_SIZE, QEMU_KEYS, EXTENDED_SIZE = 0, 16, -223, -258, -308


class Refused(Exception):
    """The server does not let us in."""


class Viewer:
    """A connection; `pixels` are blue, green, red, 0."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        password: str = "",
        encodings: tuple[int, ...] = (ZRLE, RAW),
        shared: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        sock.settimeout(60)
        self.sock = sock
        self._inflate = zlib.decompressobj()
        self.sizes: list[tuple[int, int, int]] = []
        """Of the size rectangles: reason, width, height."""
        self.seen: list[int] = []
        """Encodings of rectangles."""
        assert self.read(12) == b"RFB 003.008\n"
        sock.sendall(b"RFB 003.008\n")
        kinds = self.read(self.read(1)[0])
        if tls is None:
            assert kinds in (b"\x01", b"\x02")
            assert (kinds == b"\x02") == bool(password)
            sock.sendall(kinds)
        else:
            self._begin_tls(kinds, tls)
        sock = self.sock
        if password:
            sock.sendall(_machine.vnc_response(password.encode(), self.read(16)))
        if self.read(4) != bytes(4):
            (length,) = struct.unpack(">I", self.read(4))
            raise Refused(self.read(length).decode())
        sock.sendall(bytes((shared,)))
        self.width, self.height, self.format, length = struct.unpack(">HH16sI", self.read(24))
        self.name = self.read(length).decode()
        self.pixels = bytearray(4 * self.width * self.height)
        self.ask_for(*encodings)

    def _begin_tls(self, kinds: bytes, tls: ssl.SSLContext) -> None:
        """VeNCrypt, as it is specified (rfbproto)."""
        assert kinds == b"\x13"
        self.sock.sendall(kinds)
        assert self.read(2) == b"\0\2"
        self.sock.sendall(b"\0\2")
        assert self.read(1) == b"\0"
        assert struct.unpack(">I", self.read(4 * self.read(1)[0])) == (261,)  # X509Vnc
        self.sock.sendall(struct.pack(">I", 261))
        assert self.read(1) == b"\1"
        self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")

    @classmethod
    def at(cls, path: str | Path, **how: object) -> Viewer:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        return cls(sock, **how)  # type: ignore[arg-type]

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data

    def ask_for(self, *encodings: int) -> None:
        self.sock.sendall(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))

    def want(self, *, incremental: bool = True) -> None:
        self.sock.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def key(self, symbol: int, *, pressed: bool) -> None:
        self.sock.sendall(struct.pack(">BBxxI", 4, pressed, symbol))

    def position(self, code: int, *, pressed: bool) -> None:
        self.sock.sendall(struct.pack(">BBHII", 255, 0, pressed, 0, code))

    def type(self, text: str) -> None:
        """As on a keyboard of the United States, with Shift where it is needed."""
        for letter in text:
            shift = [SHIFT] if letter.isupper() or letter in '~!@#$%^&*()_+{}|:"<>?' else []
            pressed = [*shift, RETURN if letter == "\n" else ord(letter)]
            for symbol in pressed:
                self.key(symbol, pressed=True)
            for symbol in reversed(pressed):
                self.key(symbol, pressed=False)

    def update(self, *, incremental: bool = True) -> None:
        """Asks for an update, and waits for it."""
        self.want(incremental=incremental)
        kind, count = struct.unpack(">BxH", self.read(4))
        assert kind == 0
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
            self.seen.append(encoding)
            self._rectangle(x, y, width, height, encoding)

    def picture(self) -> tuple[int, int, bytes]:
        """The screen, when all of it was sent anew."""
        self.update(incremental=False)
        return self.width, self.height, bytes(self.pixels)

    def _rectangle(self, x: int, y: int, width: int, height: int, encoding: int) -> None:
        if encoding in (DESKTOP_SIZE, EXTENDED_SIZE):
            if encoding == EXTENDED_SIZE:
                screen = self.read(4 + 16)
                assert screen[0] == 1 and struct.unpack(">HH", screen[12:16]) == (width, height)
            self.sizes.append((x, width, height))
            if (width, height) != (self.width, self.height):
                self.width, self.height = width, height
                self.pixels = bytearray(4 * width * height)
        elif encoding == RAW:
            self._put(x, y, width, self.read(4 * width * height))
        elif encoding == ZRLE:
            (length,) = struct.unpack(">I", self.read(4))
            data = memoryview(self._inflate.decompress(self.read(length)))
            for top in range(0, height, 64):
                for left in range(0, width, 64):
                    w, h = min(64, width - left), min(64, height - top)
                    count = 1 if data[0] == 1 else w * h
                    assert data[0] in (0, 1)
                    compact, data = bytes(data[1 : 1 + 3 * count]), data[1 + 3 * count :]
                    compact *= w * h // count
                    wide = bytearray(4 * w * h)
                    for byte in range(3):
                        wide[byte::4] = compact[byte::3]
                    self._put(x + left, y + top, w, bytes(wide))
            assert not data
        else:
            assert encoding == QEMU_KEYS

    def _put(self, x: int, y: int, width: int, pixels: bytes) -> None:
        for row in range(len(pixels) // (4 * width) if width else 0):
            at = 4 * ((y + row) * self.width + x)
            self.pixels[at : at + 4 * width] = pixels[4 * width * row : 4 * width * (row + 1)]
