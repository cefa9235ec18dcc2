# SPDX-License-Identifier: Apache-2.0
"""What each hypercall costs, in time and in the hypervisor's memory: `python benchmarks/hypercalls.py [--json]`.

A guest (guests/bench/hypercalls.c) calls each operation in a loop and measures with its own clock: the best of seven
batches. "x loop" compares with an empty loop of the same guest in the same run. Then it calls each one many times more,
while this program looks at its own memory: Python objects that stay (there should be none), growth of the resident set.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from domzero.dom0.config import DomainConfig
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession

ROOT = Path(__file__).parents[1]
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
LIMIT_S = 900.0


@dataclass(slots=True)
class Cost:
    """One operation of one kind of guest.

    :param entries: what one call does so often; `ns` is for the whole call.
    :param blocks: Python's allocated blocks that were left after `calls` calls, None if not measured.
    :param rss_kib: growth of the resident set over the same calls.
    """

    bits: int
    group: str
    name: str
    ns: float
    entries: int
    result: int
    ratio: float = 0.0
    calls: int = 0
    blocks: int | None = None
    rss_kib: int | None = None


def rss_kib() -> int:
    """This process's resident set."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


class Reader:
    """Understands what the guest prints; looks at memory when it says so, while the guest waits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.costs: dict[str, Cost] = {}
        self.last = ""
        self._rest = b""
        self._before = (0, 0)

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.line(line.decode(errors="replace").strip())

    def line(self, text: str) -> None:
        """One line of the guest's console."""
        self.last = text or self.last
        match text.split():
            case ["bench", group, name, hundredths, _count, entries, result]:
                self.costs[name] = Cost(self.bits, group, name, int(hundredths) / 100, int(entries), int(result))
            case ["memory", "begin", name, calls]:
                self.costs[name].calls = int(calls)
                gc.collect()
                self._before = (sys.getallocatedblocks(), rss_kib())
            case ["memory", "end", name]:
                gc.collect()
                blocks, kib = self._before
                self.costs[name].blocks = sys.getallocatedblocks() - blocks
                self.costs[name].rss_kib = rss_kib() - kib
            case _:
                pass


def build(out: Path) -> None:
    """Compiles the guest in both widths."""
    subprocess.run(["make", "-s", "-C", str(ROOT / "guests"), f"OUT={out}", "bench"], check=True)


def measure(kernel: Path, bits: int, calls: int) -> list[Cost]:
    """Runs the guest once."""
    cmdline = f"memory={calls}" if calls else ""
    session = DomainSession(DomainConfig(kernel=str(kernel), memory_mib=32, cmdline=cmdline))
    reader = Reader(bits)
    session.console.add_sink(reader)
    session.start()
    ending = session.wait(LIMIT_S)
    session.destroy()
    if ending is None or ending.reason is not EndReason.POWEROFF:
        raise SystemExit(f"the {bits}-bit guest did not finish: {ending}; it last said {reader.last!r}")
    costs = list(reader.costs.values())
    empty = reader.costs["empty"].ns
    for cost in costs:
        cost.ratio = cost.ns / empty if empty else 0.0
    return costs


def table(costs: list[Cost]) -> str:
    """For people."""
    lines = []
    for bits in sorted({cost.bits for cost in costs}, reverse=True):
        lines.append(f"{bits}-bit guest{'ns each':>36}{'x loop':>10}{'calls':>10}{'objects':>9}{'KiB':>7}")
        group = ""
        for cost in costs:
            if cost.bits != bits:
                continue
            if cost.group != group:
                group = cost.group
                lines.append(f"  {group}")
            objects = "" if cost.blocks is None else str(cost.blocks)
            growth = "" if cost.rss_kib is None else str(cost.rss_kib)
            calls = str(cost.calls) if cost.calls else ""
            row = f"    {cost.name:<33}{cost.ns / cost.entries:>11.1f}{cost.ratio / cost.entries:>10.1f}"
            lines.append(f"{row}{calls:>10}{objects:>9}{growth:>7}")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=10_000, help="calls per operation for memory; 0: time only")
    parser.add_argument("--bits", type=int, choices=(32, 64), action="append", help="only this width")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        try:
            build(out)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"hypercalls: the guest cannot be built (gcc, make, libxen-dev): {error}", file=sys.stderr)
            return 1
        for bits in args.bits or (64, 32):
            costs += measure(out / str(bits) / "bench-hypercalls", bits, args.calls)
    if args.json:
        print(json.dumps([asdict(cost) for cost in costs], indent=2))
    else:
        print(table(costs))
    failed = [f"{cost.name} ({cost.bits}-bit): {cost.result}" for cost in costs if cost.result and cost.name != REFUSED]
    if failed:
        print(f"hypercalls: these failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


REFUSED = "domctl.refused"

if __name__ == "__main__":
    raise SystemExit(main())
