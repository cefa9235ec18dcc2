# SPDX-License-Identifier: Apache-2.0
"""What a device does for a domain beside what the host does itself: how that is measured, and how it is told."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from domzero.dom0.config import DomainConfig
from domzero.dom0.lifecycle import DomainSession

MIB = 1 << 20
LIMIT_S = 600.0


@dataclass(slots=True)
class Figure:
    """One measurement.

    :param by: the host, our kernel, or Linux.
    :param ratio: to the host's own speed at the same.
    :param cpu_ratio: the same of what a second of processor time does, which other load of the machine changes less.
    """

    by: str
    what: str
    mib_per_second: float
    requests_per_second: float
    cpu_ms_per_mib: float
    ratio: float | None = None
    cpu_ratio: float | None = None


def figure(by: str, what: str, bytes: int, requests: int, seconds: float, cpu_seconds: float) -> Figure:
    """Of so many bytes and requests in this time."""
    mib = bytes / MIB
    return Figure(by, what, mib / seconds, requests / seconds, cpu_seconds * 1000 / mib)


class Marks:
    """Takes the time when the guest prints a mark."""

    def __init__(self) -> None:
        self._rest = b""
        self._changed = threading.Condition()
        self.seen: dict[str, tuple[float, float, str]] = {}

    def __call__(self, data: bytes) -> None:
        now = (time.perf_counter(), time.process_time())
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._changed:
            for line in lines:
                text = line.decode(errors="replace").strip()
                for word in ("begin", "end", "PASS", "FAIL", "ready"):
                    if text.startswith(f"{word} ") or text == word:
                        self.seen[text.rstrip("0123456789 ")] = (*now, text)
            self._changed.notify_all()

    def wait(self, text: str) -> tuple[float, float, str]:
        """Wall time, processor time, and the whole line."""
        with self._changed:
            if not self._changed.wait_for(lambda: text in self.seen, LIMIT_S):
                raise SystemExit(f"the guest has not said {text!r}: {list(self.seen)}")
            return self.seen[text]

    def measure(self, what: str) -> tuple[float, float, str]:
        """From the mark of something's begin to that of its end: seconds, of the processor, and the last line."""
        start, cpu, _ = self.wait(f"begin {what}")
        end, cpu_end, line = self.wait(f"end {what}")
        return end - start, cpu_end - cpu, line


@contextmanager
def running(config: DomainConfig) -> Iterator[tuple[DomainSession, Marks]]:
    """A domain, and what it marks on its console."""
    session, marks = DomainSession(config), Marks()
    session.console.add_sink(marks)
    session.start()
    try:
        yield session, marks
    finally:
        session.destroy()


def shell_figures(
    config: DomainConfig, commands: dict[str, tuple[str, int, int]], prepare: str = "true"
) -> Iterator[Figure]:
    """What Debian's kernel takes for commands of its shell, each with its bytes and requests."""
    with running(config) as (session, marks):
        session.console.send(f"{prepare}; echo re''ady\n".encode())
        marks.wait("ready")
        for what, (command, size, count) in commands.items():
            command = (
                f"echo 3 >/proc/sys/vm/drop_caches; echo be''gin {what}; {command} 2>/dev/null; echo e''nd {what} $?\n"
            )
            session.console.send(command.encode())
            seconds, cpu_seconds, line = marks.measure(what)
            if not line.endswith(" 0"):
                raise SystemExit(f"Linux: {what}: it failed")
            yield figure("Linux", what, size, count, seconds, cpu_seconds)


def compare(host: Iterable[Figure], guests: Iterable[Figure]) -> list[Figure]:
    """All of them, the guests' with their ratios to what the host does at the same."""
    figures = list(host)
    bases = {each.what: each for each in figures}
    for each in guests:
        base = bases.get(each.what.replace("buffered", "1 MiB"))
        if base is not None:
            each.ratio = each.mib_per_second / base.mib_per_second
            each.cpu_ratio = base.cpu_ms_per_mib / each.cpu_ms_per_mib
        figures.append(each)
    return figures


def show(figures: list[Figure]) -> None:
    """As a table."""
    print(f"{'by':<11}{'what':<39}{'MiB/s':>9}{'requests/s':>12}{'CPU ms/MiB':>12}{'x host':>8}{'by CPU':>8}")
    for each in figures:
        ratios = "".join("" if one is None else f"{one:>8.2f}" for one in (each.ratio, each.cpu_ratio))
        print(
            f"{each.by:<11}{each.what:<39}{each.mib_per_second:>9.0f}{each.requests_per_second:>12.0f}"
            f"{each.cpu_ms_per_mib:>12.2f}{ratios}"
        )


def main(description: str | None, measure: Callable[[], list[Figure]]) -> int:
    """Runs a benchmark that has no other options."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    figures = measure()
    if args.json:
        print(json.dumps([asdict(each) for each in figures], indent=2))
    else:
        show(figures)
    return 0
