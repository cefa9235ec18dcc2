# SPDX-License-Identifier: Apache-2.0
"""What a hostile guest takes of others' time: `python benchmarks/hostile.py [--json] [--only WORD]`.

One `domzero serve`, one hostile domain at a time. Meanwhile, each 2 ms: one program reads a node in xenstore over its
Unix socket, a request that takes the way and the turns of any domain's; another asks for the list of domains. Then
the domain is paused some times (the longest is told), and destroyed. guests/bench/hostile.c says what each guest
does; `hog` and `random` are those of lock_waits.py. Who may (root) gives Domain 0's main thread and the askers the
processor first: what else runs on this machine is not in the times then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from serving import SOCKET, XENSTORE, serving
from xenstore_load import Client, cpu_seconds

from domzero.dom0.xenstore import Op

ROOT = Path(__file__).parents[1]
SECONDS = 5.0
APART_S = 0.002
PAUSES = 25
PREFERRED = -15
"""The nice value of what is measured."""
GUESTS = {
    "nobody": ("", "", 0),
    "deep paths": ("bench-hostile", "deep", 16),
    "wide directory": ("bench-hostile", "wide", 16),
    "large commits": ("bench-hostile", "commits", 16),
    "watches": ("bench-hostile", "watches", 16),
    "events not read": ("bench-hostile", "unread", 16),
    "long values": ("bench-hostile", "values", 16),
    "console ring": ("bench-hostile", "console", 16),
    "console_io": ("bench-hostile", "console_io", 16),
    "multicalls": ("hog", "forever", 32),
    "page tables": ("hog", "mixed", 512),
    "a pinned table": ("hog", "pin", 512),
    "decreases": ("hog", "decrease", 512),
    "grants": ("bench-hostile", "grants", 16),
    "events": ("bench-hostile", "events", 16),
    "random calls": ("fuzz_hypercalls", "seed=1 rounds=100000000", 32),
}
"""Kernel, command line, memory."""


def prefer(pid: int) -> bool:
    """Runs a process's main thread, or with 0 this thread, before all others (not its children); whether it may.

    By its nice value: a real-time thread that is always busy is stopped by the kernel for 50 ms each second.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, pid, PREFERRED)
        Path(f"/proc/{pid or 'self'}/autogroup").write_text(str(PREFERRED))
    except PermissionError:
        return False
    except OSError:  # processes are not grouped by session here
        pass
    return True


def timed_ms(ask: Callable[[], object]) -> float:
    """How long an answer takes."""
    begin = time.perf_counter()
    ask()
    return (time.perf_counter() - begin) * 1e3


class Asker:
    """Asks the same thing again and again, in a thread, and remembers how long each answer took."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.waits_ms: list[float] = []
        self._ask = ask
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        prefer(0)
        while not self._stop.wait(APART_S):
            self.waits_ms.append(timed_ms(self._ask))

    def end(self, what: str) -> dict[str, float]:
        self._stop.set()
        self._thread.join()
        waits = sorted(self.waits_ms)
        places = {"median": len(waits) // 2, "p99": len(waits) * 99 // 100, "longest": len(waits) - 1}
        return {f"{what}_{name}_ms": round(waits[at], 2) for name, at in places.items()}


def measure(
    api: httpx.Client, xenstore: Path, server: int, kernel: Path | None, cmdline: str, mib: int
) -> dict[str, float]:
    """One hostile domain."""
    if kernel is not None:
        config = {"name": "hostile", "kernel": str(kernel), "cmdline": cmdline, "memory_mib": mib, "vcpus": 2}
        api.post("/domains", json=config).raise_for_status()
        time.sleep(2.0)
    reader = Client(xenstore)
    cpu = cpu_seconds(server)
    askers = (
        Asker(lambda: reader.call(Op.READ, b"name\0")),
        Asker(lambda: api.get("/domains").raise_for_status()),
    )
    time.sleep(SECONDS)
    found = {**askers[0].end("xenstore"), **askers[1].end("list")}
    found["server_cpu"] = round((cpu_seconds(server) - cpu) / SECONDS, 3)
    if kernel is not None:
        if not (domain := api.get("/domains/hostile").json())["exists"]:
            raise SystemExit(f"hostile: {kernel.name} {cmdline} has ended: {domain}")
        pauses = []
        for _ in range(PAUSES):
            time.sleep(0.02)
            pauses.append(timed_ms(lambda: api.post("/domains/hostile/pause").raise_for_status()))
            api.post("/domains/hostile/unpause").raise_for_status()
        found["pause_longest_ms"] = round(max(pauses), 2)
        found["destroy_ms"] = round(timed_ms(lambda: api.delete("/domains/hostile").raise_for_status()), 2)
        api.delete("/domains/hostile")  # its record
    return found


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", default="", help="only guests with this in their name")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        kernels = sorted({kernel for kernel, _, _ in GUESTS.values() if kernel})
        try:
            targets = [str(out / "64" / kernel) for kernel in kernels]
            subprocess.run(["make", "-s", "-C", str(ROOT / "guests"), f"OUT={out}", *targets], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"hostile: the guests cannot be built (gcc, make, libxen-dev): {error}", file=sys.stderr)
            return 1
        found = {}
        sys.setswitchinterval(1e-4)  # the askers share this interpreter
        with serving(out) as server:
            is_preferred = prefer(server)
            transport = httpx.HTTPTransport(uds=str(out / SOCKET))
            with httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=60) as api:
                for who, (kernel, cmdline, mib) in GUESTS.items():
                    if args.only in who:
                        image = out / "64" / kernel if kernel else None
                        found[who] = measure(api, out / XENSTORE, server, image, cmdline, mib)
    load = os.getloadavg()[0]
    if args.json:
        print(json.dumps({"load": load, "waits": found}, indent=2))
        return 0
    names = ("median", "p99", "longest")
    how = "preferred" if is_preferred else f"load {load:.1f}"
    print(f"others wait, ms ({how})".ljust(29) + "".join(f"{what:<27}" for what in ("xenstore", "list of domains")))
    print(" " * 20 + "".join(f"{name:>9}" for name in names * 2) + "   serve's CPU    pause  destroy")
    for who, row in found.items():
        times = [row[f"{what}_{key}_ms"] for what in ("xenstore", "list") for key in names]
        print(f"  {who:<18}" + "".join(f"{each:>9.2f}" for each in times) + f"{row['server_cpu']:>13.1%}", end="")
        print("".join(f"{row[key]:>10.1f}" for key in ("pause_longest_ms", "destroy_ms") if key in row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
