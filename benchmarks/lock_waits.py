# SPDX-License-Identifier: Apache-2.0
"""How long others wait for the hypervisor's big lock while guests hog it: `python benchmarks/lock_waits.py [--json]`.

guests/suite/hog.c makes the longest multicalls that there are, guests/fuzz random hypercalls, each on several vCPUs.
Meanwhile a thread asks for the lock, and for a pause, again and again. The second table has the longest single turn of
each hypercall.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
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
GUESTS = {"hog": "forever", "fuzz_hypercalls": "seed=1 rounds=100000000"}


class Turns:
    """Times each answer to a hypercall: the longest by name."""

    def __init__(self) -> None:
        self.longest_ms: dict[str, float] = defaultdict(float)
        self._dispatch = hypercalls.dispatch

    def __enter__(self) -> Turns:
        hypercalls.dispatch = self._timed
        return self

    def __exit__(self, *_: object) -> None:
        hypercalls.dispatch = self._dispatch

    def _timed(self, vcpu: Any, nr: int, args: tuple[int, ...]) -> None:
        begin = time.perf_counter()
        try:
            self._dispatch(vcpu, nr, args)
        finally:
            spent_ms = (time.perf_counter() - begin) * 1e3
            name = Hypercall(nr).name.removeprefix("HYPERVISOR_") if nr in set(Hypercall) else "unknown"
            self.longest_ms[name] = max(self.longest_ms[name], spent_ms)


def waits(kernel: Path, cmdline: str) -> dict[str, float]:
    """Milliseconds: the median and the longest wait for the lock, and for a pause."""
    host = Host(64)
    domain = build_domain(host, load_kernel(str(kernel)), pages=32 << 8, vcpus=VCPUS, cmdline=cmdline).domain
    domain.unpause()
    lock: list[float] = []
    pause: list[float] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and domain.shutdown_code is None:
        begin = time.perf_counter()
        with host.lock:
            lock.append((time.perf_counter() - begin) * 1e3)
        begin = time.perf_counter()
        domain.pause()
        pause.append((time.perf_counter() - begin) * 1e3)
        domain.unpause()
        time.sleep(0.002)
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
        "destroy": destroyed,
    }


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory, Turns() as turns:
        out = Path(directory)
        targets = [str(out / width / name) for width in ("64", "32") for name in GUESTS]
        try:
            subprocess.run(["make", "-s", "-C", str(ROOT / "guests"), f"OUT={out}", *targets], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"lock_waits: the guests cannot be built (gcc, make, libxen-dev): {error}", file=sys.stderr)
            return 1
        for width in ("64", "32"):
            for name, cmdline in GUESTS.items():
                found[f"{name}-{width}"] = waits(out / width / name, cmdline)
    if args.json:
        print(json.dumps({"waits_ms": found, "longest_turns_ms": turns.longest_ms}, indent=2))
        return 0
    print(f"big lock, ms ({VCPUS} vCPUs)   lock: median   longest   pause: median   longest   destroy")
    for guest, ms in found.items():
        row = (ms[key] for key in ("lock_median", "lock_longest", "pause_median", "pause_longest", "destroy"))
        print(f"  {guest:<26}" + "{:>14.2f}{:>10.2f}{:>16.2f}{:>10.2f}{:>10.2f}".format(*row))
    print("longest turns, ms")
    for name, longest in sorted(turns.longest_ms.items(), key=lambda item: -item[1])[:12]:
        print(f"  {name:<30}{longest:>10.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
