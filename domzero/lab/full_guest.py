# SPDX-License-Identifier: Apache-2.0
"""The lab's guest of full virtualization in a QEMU, asked over its serial port; and how often it left for KVM."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event

from domzero.dom0.config import DomainConfig
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.qemu.session import QemuSession
from domzero.errors import DomzeroError
from domzero.lab.listing import listing

COUNT = 1000
"""Times that the guest does a thing to measure it: COUNT of guests/lab/full.S."""
ANSWER_SECONDS = 30.0
_NO_EXCEPTION = 0xFF


@dataclass(slots=True, frozen=True)
class Answer:
    """What came of a probe.

    :param vector: of an exception; None: there was none.
    :param shows: what it left in rax.
    :param ns: for one time, with what it takes to come back from an exception.
    :param exits: to KVM for one time; None: there is no KVM.
    """

    vector: int | None
    shows: int
    ns: float
    exits: float | None


class FullGuest:
    """The guest, while it runs. DomzeroError: it does not answer."""

    def __init__(self, session: QemuSession) -> None:
        self._session = session
        self._said = Condition()
        self._lines: list[str] = []
        self._part = b""
        session.console.add_sink(self._take, replay=True)
        self._line()  # its greeting
        self.hertz = self._measure_clock()

    @property
    def engine(self) -> str:
        """kvm or tcg."""
        handle = self._session.handle
        return (handle.engine if handle is not None else None) or ""

    def probe(self, number: int) -> Answer:
        """Runs a probe of guests/lab/full.S, by its place in the table there."""
        before = self._exits()
        match = re.fullmatch(r"[0-9a-f]{2} ([0-9a-f]{2}) ([0-9a-f]{16}) ([0-9a-f]{16})", self._ask(f"p{number:02x}"))
        if match is None:
            raise DomzeroError("the lab's guest answers nonsense")
        after = self._exits()
        vector, shows, cycles = (int(each, 16) for each in match.groups())
        exits = None if before is None or after is None else max(0, after - before) / COUNT
        return Answer(None if vector == _NO_EXCEPTION else vector, shows, cycles / COUNT / self.hertz * 1e9, exits)

    def _measure_clock(self) -> float:
        """What its time stamp counter counts in a second."""
        first, begun = int(self._ask("t"), 16), time.monotonic()
        Event().wait(0.2)
        return (int(self._ask("t"), 16) - first) / (time.monotonic() - begun)

    def _exits(self) -> int | None:
        handle, loop = self._session.handle, self._session.loop
        if self.engine != "kvm" or handle is None or loop is None:
            return None
        job = asyncio.run_coroutine_threadsafe(handle.kvm_exits(), loop)
        with suppress(DomzeroError, TimeoutError):
            return job.result(ANSWER_SECONDS)
        return None

    def _ask(self, text: str) -> str:
        self._session.console.send(text.encode())
        return self._line()

    def _line(self) -> str:
        with self._said:
            if not self._said.wait_for(lambda: self._lines, ANSWER_SECONDS):
                raise DomzeroError(f"the lab's guest does not answer in {ANSWER_SECONDS:g} s")
            return self._lines.pop(0)

    def _take(self, data: bytes) -> None:
        with self._said:
            *lines, self._part = (self._part + data).split(b"\n")
            self._lines += [line.decode("ascii", "replace").strip() for line in lines]
            self._said.notify_all()


@contextmanager
def full_guest(engine: str = "auto") -> Iterator[FullGuest]:
    """Starts it. ConfigError: there is no QEMU; DomzeroError: it does not run."""
    with tempfile.TemporaryDirectory(prefix="domzero-lab-") as directory:
        kernel = Path(directory) / "full.elf"
        kernel.write_bytes(listing("full").pvh_elf())
        config = DomainConfig(kernel=str(kernel), name="full", type=DomainType.PVH, memory_mib=16, engine=engine)
        session = QemuSession(config, log=lambda _: None)
        session.start()
        try:
            yield FullGuest(session)
        finally:
            session.destroy()


__all__ = ["Answer", "FullGuest", "full_guest"]
