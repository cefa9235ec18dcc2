# SPDX-License-Identifier: Apache-2.0
"""console_io, Xen's emergency console: its lines go to the hypervisor's log, as with Xen.

Small kernels have nothing else to print with, so its text is on the domain's console too until the guest uses its
console ring. Kernels that have both repeat in the ring what they printed early (Linux with `earlyprintk=xen` does, and
Mini-OS): such lines are shown once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from domzero.dom0.console import Console
from domzero.dom0.linelimit import LineLimit

LINE_MAX = 4096
SHOWN_MAX = 256 << 10
"""Bytes of text that are remembered to know a repetition; what comes later is shown twice."""


class EmergencyConsole:
    """One start's console_io. Its methods may be called from any thread, and wait for nobody.

    :param ring_used: whether the guest has ever printed through its ring.
    :param log: receives its lines as `(d1) line`.
    """

    def __init__(
        self, domid: int, console: Console, ring_used: Callable[[], bool], log: Callable[[str], None] | None
    ) -> None:
        self._domid = domid
        self._console = console
        self._ring_used = ring_used
        self._log = LineLimit(log) if log is not None else None
        self._line = bytearray()
        self._lock = threading.Lock()
        self._shown: deque[bytes] = deque([b""])  # lines on the console; the last one is not finished
        self._room = SHOWN_MAX
        self._held = bytearray()  # the beginning of a line of the ring that may be a repetition

    def write(self, data: bytes) -> None:
        """CONSOLEIO_write; called with the hypervisor's lock held."""
        self._log_lines(data)
        if self._ring_used() or self._console.held:  # nobody reads: what cannot wait in a ring is dropped
            return
        with self._lock:
            self._room -= len(data)
            if self._room >= 0:
                first, *others = data.replace(b"\r", b"").split(b"\n")
                self._shown[-1] += first
                self._shown.extend(others)
        self._console.output(data)

    def finish(self) -> None:
        """The domain has ended: an unfinished line is logged."""
        if self._line:
            self._log_lines(b"\n")

    def _log_lines(self, data: bytes) -> None:
        if self._log is None:
            return
        self._line += data
        while (end := self._line.find(b"\n")) >= 0 or len(self._line) > LINE_MAX:
            line = bytes(self._line[: end if end >= 0 else LINE_MAX])
            del self._line[: len(line) + (end >= 0)]
            self._log(f"(d{self._domid}) {line.decode('utf-8', 'replace').rstrip()}")

    # --- what comes through the ring

    def unrepeated(self, data: bytes) -> bytes:
        """Output of the ring without the lines that console_io has shown, in their order; what follows the first other
        line is given back as it is."""
        with self._lock:
            if not self._shown:
                return data
            self._held += data
            while self._shown and (end := self._held.find(b"\n")) >= 0:
                if not self._is_repeated(bytes(self._held[:end]).strip(b"\r")):
                    self._shown.clear()
                    break
                del self._held[: end + 1]
                while self._held.startswith(b"\r"):
                    del self._held[:1]
            begun = bytes(self._held).strip(b"\r")
            if self._shown and any(line.startswith(begun) for line in self._shown if line):
                return b""
            self._shown.clear()
            return self._take_held()

    def unfinished(self) -> bytes:
        """What `unrepeated` still holds back: the domain has ended."""
        with self._lock:
            self._shown.clear()
            return self._take_held()

    def _take_held(self) -> bytes:
        data = bytes(self._held)
        self._held.clear()
        return data

    def _is_repeated(self, line: bytes) -> bool:
        shown = self._shown
        if not line:  # an empty one is a repetition of the next one alone
            if len(shown) < 2 or shown[0]:
                return False
            shown.popleft()
            return True
        if line not in shown:
            return False
        while shown.popleft() != line:
            pass
        return True
