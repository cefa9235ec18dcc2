# SPDX-License-Identifier: Apache-2.0
"""How long others wait for the hypervisor's big lock while guests hog it: `python benchmarks/lock_waits.py [--json]`.

guests/suite/hog.c makes the longest multicalls that there are, and has the largest trees of page tables validated and
taken down; guests/fuzz makes random hypercalls; each on several vCPUs. Meanwhile a thread asks for the lock, a pause,
and for an entry of the frame table, which is behind the memory lock, again and again. The second table has the longest
single turn of each hypercall, by the clock and in time of the processor: the difference is what others on this machine
took.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domzero.abi.xen import Hypercall
from domzero.builder.domain import build_domain
from domzero.builder.image import load_kernel
from domzero.hypervisor import hypercalls
from domzero.hypervisor.host import Host

ROOT = Path(__file__).parents[1]
VCPUS = 4
SECONDS = 4.0


@dataclass(frozen=True)
class Hog:
    """A guest, and how long it takes to prepare what it hogs with."""

    kernel: str
    cmdline: str
    memory_mib: int = 32
    widths: tuple[str, ...] = ("64", "32")
    prepare_s: float = 0.0


HOGS = {
    "multicalls": Hog("hog", "forever"),
    "random": Hog("fuzz_hypercalls", "seed=1 rounds=100000000"),
    "initialise": Hog("hog", "initialise", 1200, ("64",), 3.0),
    "decrease": Hog("hog", "decrease", 512, ("64",), 2.0),
    "pin": Hog("hog", "pin", 512, ("64",), 2.0),
    "tables": Hog("hog", "mixed", 512, ("64",), 2.0),
    "small tables": Hog("hog", "mixed", 48, ("64", "32"), 1.0),
}


class Turns:
    """Times each answer to a hypercall: the longest by name."""

    def __init__(self) -> None:
        self.longest_ms: dict[str, float] = defaultdict(float)
        self.longest_cpu_ms: dict[str, float] = defaultdict(float)
        self._dispatch = hypercalls.dispatch

    def __enter__(self) -> Turns:
        hypercalls.dispatch = self._timed
        return self

    def __exit__(self, *_: object) -> None:
        hypercalls.dispatch = self._dispatch

    def _timed(self, vcpu: Any, nr: int, args: tuple[int, ...]) -> None:
        begin, begin_cpu = time.perf_counter(), time.thread_time()
        try:
            self._dispatch(vcpu, nr, args)
        finally:
            spent_ms = (time.perf_counter() - begin) * 1e3
            cpu_ms = (time.thread_time() - begin_cpu) * 1e3
            name = Hypercall(nr).name.removeprefix("HYPERVISOR_") if nr in set(Hypercall) else "unknown"
            self.longest_ms[name] = max(self.longest_ms[name], spent_ms)
            self.longest_cpu_ms[name] = max(self.longest_cpu_ms[name], cpu_ms)


def waits(kernel: Path, hog: Hog) -> dict[str, float]:
    """Milliseconds: the median and the longest wait for the lock, for a pause, and for the frame table."""
    host = Host(hog.memory_mib + 32)
    pages = hog.memory_mib << 8
    domain = build_domain(host, load_kernel(str(kernel)), pages=pages, vcpus=VCPUS, cmdline=hog.cmdline).domain
    domain.unpause()
    time.sleep(hog.prepare_s)
    lock: list[float] = []
    pause: list[float] = []
    frames: list[float] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and domain.shutdown_code is None:
        begin = time.perf_counter()
        with host.lock:
            lock.append((time.perf_counter() - begin) * 1e3)
        begin = time.perf_counter()
        host.machine.frame_info(1)
        frames.append((time.perf_counter() - begin) * 1e3)
        begin = time.perf_counter()
        domain.pause()
        pause.append((time.perf_counter() - begin) * 1e3)
        domain.unpause()
        time.sleep(0.002)
    if domain.shutdown_code is not None:
        raise SystemExit(f"lock_waits: {kernel} has ended: {domain.shutdown_code}")
    begin = time.perf_counter()
    host.destroy_domain(domain)
    destroyed = (time.perf_counter() - begin) * 1e3
    host.close()
    middle = [sorted(each)[len(each) // 2] for each in (lock, pause)]
    return {
        "lock_median": middle[0],
        "lock_longest": max(lock),
        "pause_median": middle[1],
        "pause_longest": max(pause),
        "frames_longest": max(frames),
        "destroy": destroyed,
    }


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", default="", help="only guests with this in their name")
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    gc.collect()
    gc.freeze()  # as in a worker: else the longest turns are those in which a collection looks at all modules
    with tempfile.TemporaryDirectory() as directory, Turns() as turns:
        out = Path(directory)
        kernels = sorted({hog.kernel for hog in HOGS.values()})
        targets = [str(out / width / name) for width in ("64", "32") for name in kernels]
        try:
            subprocess.run(["make", "-s", "-C", str(ROOT / "guests"), f"OUT={out}", *targets], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"lock_waits: the guests cannot be built (gcc, make, libxen-dev): {error}", file=sys.stderr)
            return 1
        for name, hog in HOGS.items():
            for width in hog.widths:
                if args.only in name:
                    found[f"{name}-{width}"] = waits(out / width / hog.kernel, hog)
    if args.json:
        longest = {"longest_turns_ms": turns.longest_ms, "longest_turns_cpu_ms": turns.longest_cpu_ms}
        print(json.dumps({"waits_ms": found, **longest}, indent=2))
        return 0
    print(f"big lock, ms ({VCPUS} vCPUs)   lock: median   longest   pause: median   longest    frames   destroy")
    columns = ("lock_median", "lock_longest", "pause_median", "pause_longest", "frames_longest", "destroy")
    for guest, ms in found.items():
        row = (ms[key] for key in columns)
        print(f"  {guest:<26}" + "{:>14.2f}{:>10.2f}{:>16.2f}{:>10.2f}{:>10.2f}{:>10.2f}".format(*row))
    print(f"{'longest turns, ms':<32}{'clock':>10}{'processor':>12}")
    for name, cpu_ms in sorted(turns.longest_cpu_ms.items(), key=lambda item: -item[1])[:12]:
        print(f"  {name:<30}{turns.longest_ms[name]:>10.2f}{cpu_ms:>12.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
