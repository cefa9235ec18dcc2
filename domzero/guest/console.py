# SPDX-License-Identifier: Apache-2.0
"""A guest's console for programs: what it printed, waiting for text, and typing."""

from __future__ import annotations

import codecs
import re
import threading
from collections.abc import Callable
from typing import Protocol

from domzero.dom0.console import Console, LineFilter
from domzero.errors import GuestError

TEXT_MAX = 1 << 20
"""How much of the output is kept, in characters: the last of it."""
TAIL_LINES = 8
Pattern = str | re.Pattern[str]


def compiled(pattern: Pattern) -> re.Pattern[str]:
    """A str is text, to be found as it is; a compiled pattern is one."""
    return re.compile(re.escape(pattern)) if isinstance(pattern, str) else pattern


def shown(pattern: Pattern) -> str:
    """As it is named in messages."""
    return repr(pattern if isinstance(pattern, str) else pattern.pattern)


class Waiting(Protocol):
    """What the console needs of its guest."""

    def wait_for(self, what: str, done: Callable[[], bool], timeout: float | None) -> None:
        """Waits without starting or stopping the guest; raises when it ends or the deadline passes."""


class GuestConsole:
    """What the guest prints, as text with "\\n" line ends, and what it is told.

    It keeps the last MiB. `expect` looks at what was printed since the last match of `expect` or
    `Guest.run_until(console=...)`, so each finds what comes after the one before.
    """

    def __init__(self, console: Console, guest: Waiting, changed: threading.Condition) -> None:
        self._console = console
        self._guest = guest
        self._changed = changed
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines = LineFilter()
        self._text = ""
        self._cursor = 0
        self._until: re.Pattern[str] | None = None
        self._matched: re.Match[str] | None = None
        self._on_match: Callable[[], None] | None = None
        console.add_sink(self._printed)

    # --- what programs use

    @property
    def text(self) -> str:
        """All that was printed."""
        with self._changed:
            return self._text

    @property
    def unread(self) -> str:
        """What was printed since the last match."""
        with self._changed:
            return self._text[self._cursor :]

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self.text.rstrip("\n").splitlines()[-TAIL_LINES:])

    def send(self, text: str | bytes) -> None:
        """Types; a line ends with "\\n".

        :raises GuestError: there is no room, as the guest has not read what was typed before.
        """
        data = text.encode() if isinstance(text, str) else text
        accepted = self._console.send(data)
        if accepted < len(data):
            raise GuestError(f"the console took {accepted} of {len(data)} bytes: the guest does not read them")

    def expect(self, pattern: Pattern, *, timeout: float | None = 60.0) -> re.Match[str]:
        """Waits until the guest has printed something; the guest goes on running.

        :param pattern: text, or a compiled regular expression.
        :param timeout: seconds; None waits for ever.
        :returns: the match.
        :raises WaitTimeout: it was not printed in time.
        :raises GuestEnded: the guest ended without printing it.
        :raises GuestError: the guest is paused and has not printed it.
        """
        self.watch(compiled(pattern), None)
        try:
            self._guest.wait_for(f"{shown(pattern)} on the console", lambda: self._matched is not None, timeout)
        finally:
            match = self.unwatch()
        assert match is not None
        return match

    # --- for the guest

    def watch(self, pattern: re.Pattern[str], on_match: Callable[[], None] | None) -> None:
        """Looks for a pattern, in what is there and in what comes; `on_match` is called in the thread that brings it,
        not for what is there."""
        with self._changed:
            self._until, self._on_match, self._matched = pattern, on_match, None
            self._look()

    def unwatch(self) -> re.Match[str] | None:
        """Ends that; what was found."""
        with self._changed:
            match, self._until, self._on_match, self._matched = self._matched, None, None, None
            return match

    @property
    def matched(self) -> bool:
        """Whether the pattern was found."""
        return self._matched is not None

    def _printed(self, data: bytes) -> None:
        text = self._decoder.decode(self._lines(data))
        with self._changed:
            self._text += text
            if len(self._text) > 2 * TEXT_MAX:
                cut = len(self._text) - TEXT_MAX
                self._text = self._text[cut:]
                self._cursor = max(0, self._cursor - cut)
            found = self._look()
            on_match = self._on_match
            self._changed.notify_all()
        if found and on_match is not None:
            on_match()

    def _look(self) -> bool:
        if self._until is None or self._matched is not None:
            return False
        self._matched = self._until.search(self._text, self._cursor)
        if self._matched is None:
            return False
        self._cursor = self._matched.end()
        return True
