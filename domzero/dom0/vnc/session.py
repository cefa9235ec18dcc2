# SPDX-License-Identifier: Apache-2.0
"""One viewer, by RFB (RFC 6143): two threads, of which one reads what it says, and one sends what it is to see.

Whoever it is may send anything. What is no RFB ends the connection, as does a viewer that takes nothing for a while.
"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from domzero import _machine
from domzero.dom0.vnc import keys
from domzero.dom0.vnc.display import Damage, Display, Rect
from domzero.dom0.vnc.encodings import Encoding, Raw, Zrle, header
from domzero.dom0.vnc.pixels import FORMAT_SIZE, NATIVE, FormatError, PixelFormat

GREETING_S = 30.0
"""Seconds that a viewer may take to be let in."""
STALL_S = 30.0
"""Seconds in which it has to take what is sent to it."""
WRONG_PASSWORD_S = 1.0
CUT_TEXT_MAX = 1 << 20
NEWS_MAX = 64
"""What is kept to be said with the next update, which a viewer may never ask for."""
BAND_BYTES = 1 << 20
"""Of pixels in one rectangle at most: what an update needs of memory."""
POLL_S = 0.1
"""How often a screen is looked at whose guest does not say what it changes."""
_NONE, _PASSWORD = 1, 2
_MINORS = {b"RFB 003.003\n": 3, b"RFB 003.007\n": 7, b"RFB 003.008\n": 8}
_BUTTONS = ((0, keys.BTN_LEFT), (1, keys.BTN_MIDDLE), (2, keys.BTN_RIGHT))
_WHEEL = ((3, -1), (4, 1))
_PROHIBITED = 1
"""Of a viewer's wish for another size: Xen's protocol has no words for it."""


class ViewerError(Exception):
    """The viewer has to go; with the reason."""


@dataclass(slots=True)
class _Wish:
    """What the two threads share, with a lock.

    :param asked: an update is wanted.
    :param size: that the viewer knows.
    :param news: what is said once with the next update: size rectangles and the like.
    """

    asked: bool = False
    size: tuple[int, int] = (0, 0)
    resized: bool = False
    damage: Damage = field(default_factory=Damage)
    news: list[bytes] = field(default_factory=list)
    format: PixelFormat = NATIVE
    encodings: frozenset[int] = frozenset()
    closed: bool = False


class Session:
    """A viewer's connection: a `display.Watcher`.

    :param password: that it has to know; empty: none.
    :param exclusive: called when it wants to be alone.
    :param ended: called once, when it is gone.
    """

    def __init__(
        self,
        sock: socket.socket,
        display: Display,
        name: str,
        *,
        password: str,
        exclusive: Callable[[Session], None],
        ended: Callable[[Session], None],
    ) -> None:
        self._sock = sock
        self._display = display
        self._name = name
        self._password = password
        self._exclusive = exclusive
        self._ended = ended
        self._changed = threading.Condition()
        self._wish = _Wish()
        self._zrle: Zrle | None = None
        self._pressed: set[int] = set()
        self._buttons = 0
        self._at: tuple[int, int] | None = None
        self._let_in_by: float | None = time.monotonic() + GREETING_S
        sock.setblocking(False)

    def start(self) -> None:
        """Starts its threads."""
        threading.Thread(target=self._run, name="vnc-reader", daemon=True).start()

    def close(self) -> None:
        """Ends it; from any thread."""
        with self._changed:
            self._wish.closed = True
            self._changed.notify_all()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    # --- what the screen tells

    def damaged(self, rect: Rect) -> None:
        """Pixels have changed."""
        with self._changed:
            self._wish.damage.add(rect)
            self._changed.notify_all()

    def resized(self, width: int, height: int) -> None:
        """The screen has another size."""
        with self._changed:
            self._wish.resized = True
            self._wish.damage = Damage()
            self._wish.damage.add(Rect(0, 0, width, height))
            self._changed.notify_all()

    # --- reading

    def _run(self) -> None:
        writer: threading.Thread | None = None
        try:
            self._greet()
            self._display.watch(self)
            writer = threading.Thread(target=self._write, name="vnc-writer", daemon=True)
            writer.start()
            self._let_in_by = None
            while True:
                self._message(self._read(1)[0])
        except (ViewerError, FormatError, OSError, RuntimeError):
            pass  # it has gone, or goes now
        finally:
            self._display.unwatch(self)
            self.close()
            for code in self._pressed:
                self._display.key(code, pressed=False)
            if writer is not None and writer.ident is not None:
                writer.join()
            self._sock.close()
            self._ended(self)

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            until = self._let_in_by
            _wait(self._sock, select.POLLIN, None if until is None else until - time.monotonic())
            try:
                part = self._sock.recv(min(count - len(data), 65536))
            except BlockingIOError:
                continue
            if not part:
                raise ViewerError("it has gone")
            data += part
        return bytes(data)

    def _greet(self) -> None:
        self._send(b"RFB 003.008\n")
        minor = _MINORS.get(self._read(12))
        if minor is None:
            raise ViewerError("another version of RFB")
        kind = _PASSWORD if self._password else _NONE
        if minor == 3:
            self._send(struct.pack(">I", kind))
        else:
            self._send(bytes((1, kind)))
            if self._read(1)[0] != kind:
                raise ViewerError("another kind of security")
        if kind == _PASSWORD:
            self._ask_password(minor)
        elif minor == 8:
            self._send(bytes(4))
        if not self._read(1)[0]:
            self._exclusive(self)
        width, height = self._wish.size = self._display.size
        name = self._name.encode()
        self._send(struct.pack(">HH", width, height) + NATIVE.pack() + struct.pack(">I", len(name)) + name)

    def _ask_password(self, minor: int) -> None:
        challenge = secrets.token_bytes(16)
        self._send(challenge)
        right = _machine.vnc_response(self._password.encode(), challenge)
        if secrets.compare_digest(self._read(16), right):
            self._send(bytes(4))
            return
        time.sleep(WRONG_PASSWORD_S)
        reason = b"the password is wrong"
        self._send(b"\0\0\0\1" + (struct.pack(">I", len(reason)) + reason if minor == 8 else b""))
        raise ViewerError("a wrong password")

    def _message(self, kind: int) -> None:
        if kind == 0:
            format = PixelFormat.unpack(self._read(3 + FORMAT_SIZE)[3:])
            with self._changed:
                self._wish.format = format
        elif kind == 2:
            (count,) = struct.unpack(">xH", self._read(3))
            self._encodings(frozenset(struct.unpack(f">{count}i", self._read(4 * count))))
        elif kind == 3:
            incremental, *numbers = struct.unpack(">BHHHH", self._read(9))
            with self._changed:
                self._wish.asked = True
                if not incremental:
                    self._wish.damage.add(Rect(*numbers).clipped(*self._display.size))
                self._changed.notify_all()
        elif kind == 4:
            pressed, symbol = struct.unpack(">BxxI", self._read(7))
            self._key(keys.of_symbol(symbol), bool(pressed))
        elif kind == 5:
            self._point(*struct.unpack(">BHH", self._read(5)))
        elif kind == 6:
            (length,) = struct.unpack(">xxxI", self._read(7))
            if length > CUT_TEXT_MAX:
                raise ViewerError("more text than anybody could want")
            while length:  # a guest has no clipboard
                length -= len(self._read(min(length, 1 << 16)))
        elif kind == 251:
            (screens,) = struct.unpack(">xxxxxBx", self._read(7))
            self._read(16 * screens)
            with self._changed:
                self._tell(self._size_rect(by_viewer=True))
                self._changed.notify_all()
        elif kind == 255:
            sub, pressed, symbol, code = struct.unpack(">BHII", self._read(11))
            if sub:
                raise ViewerError("an unknown message")
            self._key(keys.of_position(code) or keys.of_symbol(symbol), bool(pressed))
        else:
            raise ViewerError("an unknown message")

    def _encodings(self, numbers: frozenset[int]) -> None:
        with self._changed:
            new = numbers - self._wish.encodings
            self._wish.encodings = numbers
            if Encoding.QEMU_EXTENDED_KEY in new:
                self._tell(header(Rect(0, 0, 0, 0), Encoding.QEMU_EXTENDED_KEY))
            if Encoding.EXTENDED_DESKTOP_SIZE in new:
                self._wish.resized = True
            self._changed.notify_all()

    def _tell(self, rect: bytes) -> None:
        """Says something with the next update, once however often it was asked for; with the lock held."""
        if rect not in self._wish.news:
            if len(self._wish.news) >= NEWS_MAX:
                raise ViewerError("more wishes than updates")
            self._wish.news.append(rect)

    def _key(self, code: int | None, pressed: bool) -> None:
        if code is None or (not pressed and code not in self._pressed):
            return
        (self._pressed.add if pressed else self._pressed.discard)(code)
        self._display.key(code, pressed=pressed)

    def _point(self, mask: int, x: int, y: int) -> None:
        before, self._buttons = self._buttons, mask
        wheel = sum(step for bit, step in _WHEEL if mask & ~before & 1 << bit)
        if wheel or (x, y) != self._at:
            self._display.move(x, y, wheel)
        self._at = x, y
        for bit, code in _BUTTONS:
            if (mask ^ before) & 1 << bit:
                self._key(code, bool(mask & 1 << bit))

    # --- writing

    def _write(self) -> None:
        try:
            while (update := self._next()) is not None:
                news, rects, encoder = update
                bands = [band for rect in rects for band in _bands(rect)]
                self._send(struct.pack(">BxH", 0, len(news) + len(bands)) + b"".join(news))
                for band in bands:
                    rect, pixels = self._display.read(band)
                    if rect.is_empty:  # the screen has become smaller, which is told with the next one
                        self._send(header(Rect(0, 0, 0, 0), Encoding.RAW))
                    else:
                        self._send(header(rect, encoder.number) + encoder.encode(rect, pixels))
        except (ViewerError, OSError, RuntimeError):
            pass
        self.close()

    def _send(self, data: bytes) -> None:
        """In pieces, each of which the viewer has to take in a while."""
        view = memoryview(data)
        while view:
            _wait(self._sock, select.POLLOUT, STALL_S)
            with suppress(BlockingIOError):
                view = view[self._sock.send(view) :]

    def _next(self) -> tuple[list[bytes], list[Rect], Raw | Zrle] | None:
        """Waits for something to send, for who has asked for it: None when it is over."""
        wish = self._wish
        with self._changed:
            while not wish.closed:
                can_resize = self._can_resize()
                if wish.asked and not self._display.tells_changes and not wish.damage:
                    self._changed.wait(POLL_S)
                    wish.damage.add(Rect(0, 0, *self._display.size))
                if wish.asked and (wish.damage or wish.news or (wish.resized and can_resize)):
                    news, wish.news = wish.news, []
                    if wish.resized and can_resize:
                        size, wish.size = wish.size, self._display.size
                        if size != wish.size or Encoding.EXTENDED_DESKTOP_SIZE in wish.encodings:
                            news.append(self._size_rect(by_viewer=False))
                        wish.resized = False
                    wish.asked = False
                    rects = [rect.clipped(*wish.size) for rect in wish.damage.take()]
                    return news, rects, self._encoder()
                self._changed.wait()
        return None

    def _can_resize(self) -> bool:
        return bool(self._wish.encodings & {Encoding.DESKTOP_SIZE, Encoding.EXTENDED_DESKTOP_SIZE})

    def _encoder(self) -> Raw | Zrle:
        wish = self._wish
        if Encoding.ZRLE not in wish.encodings:
            return Raw(wish.format)
        if self._zrle is None:
            self._zrle = Zrle(wish.format)
        self._zrle.use(wish.format)
        return self._zrle

    def _size_rect(self, *, by_viewer: bool) -> bytes:
        width, height = self._display.size
        if Encoding.EXTENDED_DESKTOP_SIZE not in self._wish.encodings:
            return header(Rect(0, 0, width, height), Encoding.DESKTOP_SIZE)
        reason = Rect(int(by_viewer), _PROHIBITED if by_viewer else 0, width, height)
        screen = struct.pack(">BxxxIHHHHI", 1, 0, 0, 0, width, height, 0)
        return header(reason, Encoding.EXTENDED_DESKTOP_SIZE) + screen


def _wait(sock: socket.socket, events: int, seconds: float | None) -> None:
    """Until a socket can be read or written. ViewerError: that took too long."""
    poll = select.poll()
    poll.register(sock, events)
    if not poll.poll(None if seconds is None else max(seconds, 0) * 1000):
        raise ViewerError("it is too slow")


def _bands(rect: Rect) -> list[Rect]:
    """A rectangle in parts that are not too large."""
    if rect.is_empty:
        return []
    rows = max(1, BAND_BYTES // (4 * rect.width))
    return [
        Rect(rect.x, y, rect.width, min(rows, rect.y + rect.height - y))
        for y in range(rect.y, rect.y + rect.height, rows)
    ]
