# SPDX-License-Identifier: Apache-2.0
"""What a long command does, on stderr: lines, and on a terminal a bar below them."""

from __future__ import annotations

import shutil
import sys
import time

from domzero.dom0.names import shown

_BAR_WIDTH = 30
_REDRAW_S = 0.1


class ProgressLines:
    """Lines that begin with `domzero: `, and a bar that is drawn over itself."""

    def __init__(self) -> None:
        self._tty = sys.stderr is not None and sys.stderr.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0
        self._bar = False

    def line(self, text: str) -> None:
        """Says something."""
        self.clear()
        print(f"domzero: {shown(text)}", file=sys.stderr, flush=True)

    def meter(self, what: str, part: float) -> None:
        """Shows how much of something is done.

        :param part: 0 to 1.
        """
        now = time.monotonic()
        if not self._tty or (now - self._drawn < _REDRAW_S and part < 1):
            return
        self._drawn = now
        self._bar = True
        full = round(min(max(part, 0.0), 1.0) * _BAR_WIDTH)
        text = f"{what[:16]:<16} [{'#' * full}{'.' * (_BAR_WIDTH - full)}] {part:4.0%}  {now - self._began:.0f} s"
        print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the bar away."""
        if self._bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._bar = False
