# SPDX-License-Identifier: Apache-2.0
"""How many lines a guest or a client may add to a log."""

import logging
import time
from collections.abc import Callable

from domzero.dom0.bucket import Bucket

LINES_PER_SECOND = 200
BURST = 2000
KINDS_MAX = 100


class LineLimit:
    """Lets lines through, no more than `per_second` in the long run and `burst` at once; says how many it held back."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        per_second: float = LINES_PER_SECOND,
        burst: int = BURST,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._now = now
        self._bucket = Bucket(per_second, burst, now())
        self._dropped = 0

    def __call__(self, line: str) -> None:
        """Writes the line, or drops it."""
        self._bucket.fill(self._now())
        if self._bucket.left < 1:
            self._dropped += 1
            return
        self._bucket.left -= 1
        if self._dropped:
            self._write(f"({self._dropped} lines were dropped)")
            self._dropped = 0
        self._write(line)


class Seldom(logging.Filter):
    """Lets a warning pass once in `seconds`, whatever it is about: who sends nonsense over and over fills no log.

    Records with a traceback pass: they are bugs of ours.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._now = now
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """logging: whether to write it."""
        if record.exc_info:
            return True
        now, kind = self._now(), str(record.msg)
        if now < self._next.get(kind, now):
            return False
        if len(self._next) >= KINDS_MAX:
            self._next.clear()
        self._next[kind] = now + self._seconds
        return True
