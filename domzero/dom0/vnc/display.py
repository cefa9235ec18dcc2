# SPDX-License-Identifier: Apache-2.0
"""A domain's screen, between its guest's front ends and those who look.

A screen outlives what is connected to it: as long as no front end is, it is black, and what is typed is forgotten.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol

PIXEL = 4
"""Bytes: blue, green, red, and one that means nothing."""
WIDTH, HEIGHT = 800, 600
"""Of a screen that nobody has drawn on: what Linux' front end begins with."""
RECTS_MAX = 16
"""Rectangles of changed pixels that a viewer's list has, before they become one."""


class Rect(NamedTuple):
    """A part of the screen, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def clipped(self, width: int, height: int) -> Rect:
        """What of it is on a screen of this size; of no pixels, if nothing is."""
        left, top = min(max(self.x, 0), width), min(max(self.y, 0), height)
        right, bottom = min(max(self.x + self.width, 0), width), min(max(self.y + self.height, 0), height)
        return Rect(left, top, max(right - left, 0), max(bottom - top, 0))

    def joined(self, other: Rect) -> Rect:
        """The smallest one around both."""
        left, top = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.width, other.x + other.width)
        bottom = max(self.y + self.height, other.y + other.height)
        return Rect(left, top, right - left, bottom - top)

    def holds(self, other: Rect) -> bool:
        """Whether all of the other one is in it."""
        return self.joined(other) == self

    @property
    def is_empty(self) -> bool:
        """Whether it has no pixels."""
        return not self.width or not self.height


class Damage:
    """The parts of a screen that changed since somebody looked."""

    def __init__(self) -> None:
        self._rects: list[Rect] = []

    def add(self, rect: Rect) -> None:
        """Some pixels have changed."""
        if rect.is_empty or any(each.holds(rect) for each in self._rects):
            return
        self._rects = [each for each in self._rects if not rect.holds(each)]
        self._rects.append(rect)
        if len(self._rects) > RECTS_MAX:
            whole = self._rects[0]
            for each in self._rects[1:]:
                whole = whole.joined(each)
            self._rects = [whole]

    def take(self) -> list[Rect]:
        """All of them; none are left."""
        rects, self._rects = self._rects, []
        return rects

    def __bool__(self) -> bool:
        return bool(self._rects)


class Source(Protocol):
    """Where pixels come from."""

    width: int
    height: int

    def read(self, rect: Rect) -> bytes:
        """The pixels of a part that is on the screen, row by row."""


class InputSink(Protocol):
    """Where keys and the pointer go."""

    def key(self, code: int, *, pressed: bool) -> None:
        """:param code: a KEY_* or BTN_* of Linux."""

    def move(self, x: int, y: int, wheel: int, width: int, height: int) -> None:
        """The pointer is at a pixel of a screen of this size, and the wheel was turned by so many steps, down being
        positive."""


class Watcher(Protocol):
    """Somebody who looks; called from any thread, with locks held: it only takes note."""

    def damaged(self, rect: Rect) -> None:
        """Pixels have changed."""

    def resized(self, width: int, height: int) -> None:
        """The screen has another size; all of it has changed."""


class Display:
    """One screen. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._source: Source | None = None
        self._sink: InputSink | None = None
        self._watchers: list[Watcher] = []
        self._size = WIDTH, HEIGHT
        self.tells_changes = True
        """Whether the guest says what it changes; else all may have changed whenever somebody looks."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._size

    @property
    def is_shown(self) -> bool:
        """Whether a guest shows something."""
        return self._source is not None

    def show(self, source: Source | None) -> None:
        """Something else is shown from now on, or nothing; when this returns, what was before is not read any more."""
        with self._lock:
            self._source = source
            size = self._size if source is None else (source.width, source.height)
            is_new, self._size = size != self._size, size
            for watcher in self._watchers:
                if is_new:
                    watcher.resized(*size)
                else:
                    watcher.damaged(Rect(0, 0, *size))

    def damage(self, rect: Rect) -> None:
        """Pixels have changed."""
        with self._lock:
            rect = rect.clipped(*self._size)
            for watcher in self._watchers:
                watcher.damaged(rect)

    def read(self, rect: Rect) -> tuple[Rect, bytes]:
        """The pixels of a part, as far as it is on the screen, and which ones they are."""
        with self._lock:
            rect = rect.clipped(*self._size)
            if self._source is None:
                return rect, bytes(PIXEL * rect.width * rect.height)
            return rect, self._source.read(rect)

    def picture(self) -> tuple[int, int, bytes]:
        """Width, height and pixels of all of it."""
        with self._lock:
            rect, pixels = self.read(Rect(0, 0, *self._size))
            return rect.width, rect.height, pixels

    def connect_input(self, sink: InputSink | None) -> None:
        """Keys and pointer go there from now on, or nowhere."""
        with self._lock:
            self._sink = sink

    def key(self, code: int, *, pressed: bool) -> None:
        """A key was pressed, or let go."""
        sink = self._sink
        if sink is not None:
            sink.key(code, pressed=pressed)

    def move(self, x: int, y: int, wheel: int = 0) -> None:
        """The pointer is somewhere else, or its wheel was turned."""
        sink, (width, height) = self._sink, self._size
        if sink is not None:
            sink.move(min(max(x, 0), width - 1), min(max(y, 0), height - 1), wheel, width, height)

    def watch(self, watcher: Watcher) -> None:
        """Tells somebody of changes from now on; of the size and of all pixels first."""
        with self._lock:
            self._watchers.append(watcher)
            watcher.resized(*self._size)

    def unwatch(self, watcher: Watcher) -> None:
        """Tells them no more."""
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)


__all__ = ["HEIGHT", "PIXEL", "WIDTH", "Damage", "Display", "InputSink", "Rect", "Source", "Watcher"]
