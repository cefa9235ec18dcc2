# SPDX-License-Identifier: Apache-2.0
"""How long Debian's kernel takes to reach /init, to hash and to fork there, and to power off, and how much memory that
takes: `python benchmarks/boot.py [--runs N] [--json]`.

As a PV domain on each engine that there is here, and as PVH and HVM in QEMU with KVM and TCG, as far as there are; they
take turns. Every run is a fresh `domzero run`; times are from the start of the
process, so everything counts. The minimum says what the program can do, the median what this machine does today.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domzero import _machine
from domzero.dom0.images import Image, fetch_debian
from domzero.dom0.images.cpio import char_device, directory, file, read_cpio, write_cpio
from domzero.dom0.qemu.trial import choose
from domzero.errors import ConfigError

# Console lines by which a boot is followed.
MILESTONES = {
    "linux": "Linux version",
    "init": "Run /init as init process",
    "shell": "INIT-REACHED",
    "hashed": "BENCH-HASHED",
    "forked": "BENCH-FORKED",
    "end": "Power down",
}
GUEST = {"sha256 of 8 MiB": ("shell", "hashed"), "200 fork and exec": ("hashed", "forked")}
"""What the guest does between two of them, by the host's clock."""
_INIT = """\
#!/bin/busybox sh
echo INIT-REACHED
/bin/busybox dd if=/dev/zero bs=64k count=128 2>/dev/null | /bin/busybox sha256sum >/dev/null
echo BENCH-HASHED
i=0
while [ $i -lt 200 ]; do /bin/busybox true; i=$((i + 1)); done
echo BENCH-FORKED
exec /bin/busybox poweroff -f
"""


@dataclass(slots=True)
class Boot:
    """One run: seconds from its start to each milestone.

    :param memory_mib: of the largest of its processes, its guest's memory as far as that was touched included.
    """

    status: int
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    memory_mib: float = 0.0


def build_ramdisk(path: Path, image: Image) -> None:
    """An initramfs whose /init says that it was reached and powers off; its busybox is the image's."""
    busybox = next(entry.data for entry in read_cpio(Path(image.ramdisk).read_bytes()) if entry.name == "bin/busybox")
    entries = [
        *(directory(name) for name in ("bin", "dev", "proc", "sys")),
        char_device("dev/console", 5, 1),
        file("bin/busybox", busybox, 0o755),
        file("init", _INIT, 0o755),
    ]
    path.write_bytes(write_cpio(entries))


def full_engines() -> list[str]:
    """The same kernel as PVH and as HVM, in QEMU with what there is of KVM and TCG here: "pvh-tcg" and the like."""
    try:
        choose("tcg")
    except ConfigError:
        return []
    accelerators = ["tcg", *(["kvm"] if choose("auto").name == "kvm" else [])]
    return [f"{kind}-{accelerator}" for accelerator in accelerators for kind in ("pvh", "hvm")]


def boot(kernel: str, ramdisk: str, memory_mib: int, timeout_s: float, engine: str) -> Boot:
    """Boots once."""
    kind, _, accelerator = engine.rpartition("-")
    command = [sys.executable, "-m", "domzero", "run", "--kernel", kernel, "--ramdisk", ramdisk]
    command += [
        "--engine",
        accelerator,
        "--type",
        kind or "pv",
        "--cmdline",
        "console=ttyS0" if kind else "console=hvc0",
        "--memory",
        str(memory_mib),
        "--timeout",
        str(timeout_s),
    ]
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seconds: dict[str, float] = {}
    assert process.stdout is not None and process.stderr is not None
    for raw in process.stdout:
        line = raw.decode(errors="replace")
        for name, text in MILESTONES.items():
            if text in line:
                seconds.setdefault(name, time.monotonic() - start)
    errors = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds["exit"] = time.monotonic() - start
    if "shell" not in seconds:
        sys.stderr.write(errors)
    return Boot(process.returncode, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kernel", help="a PV kernel (default: `domzero image fetch debian`)")
    parser.add_argument("--runs", type=int, default=3, help="boots (default: %(default)s)")
    parser.add_argument("--memory", type=int, default=256, help="memory in MiB (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds per boot (default: %(default)s)")
    parser.add_argument("--engine", action="append", help="only this one (default: all that there are here)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    engines = args.engine or ["interpreter", *([] if _machine.translator_unavailable() else ["translator"])]
    engines += [] if args.engine else full_engines()
    image, _ = fetch_debian(lambda text: print(f"boot: {text}", file=sys.stderr))
    kernel = args.kernel or image.kernel
    with tempfile.TemporaryDirectory() as directory:
        ramdisk = Path(directory) / "initramfs"
        build_ramdisk(ramdisk, image)
        boots: dict[str, list[Boot]] = {engine: [] for engine in engines}
        for _ in range(args.runs):
            for engine in engines:
                boots[engine].append(boot(kernel, str(ramdisk), args.memory, args.timeout, engine))
    results = {engine: summary(of) for engine, of in boots.items()}
    if args.json:
        print(json.dumps({"kernel": kernel, "memory_mib": args.memory, "engines": results}, indent=2))
    else:
        for engine in engines:
            show(engine, f"{Path(kernel).name}, {args.memory} MiB", results[engine])
    return 0 if all(of["reached_init"] == of["runs"] for of in results.values()) else 1


def summary(boots: list[Boot]) -> dict[str, Any]:
    """What some boots took."""
    reached = [b for b in boots if "shell" in b.seconds]
    names = [name for name in (*MILESTONES, "exit") if reached and all(name in b.seconds for b in reached)]
    return {
        "runs": len(boots),
        "reached_init": len(reached),
        "statuses": [b.status for b in boots],
        "seconds": {
            name: {
                "min": round(min(b.seconds[name] for b in reached), 3),
                "median": round(statistics.median(b.seconds[name] for b in reached), 3),
            }
            for name in names
        },
        "guest_seconds": {
            what: round(min(b.seconds[end] - b.seconds[start] for b in reached), 3)
            for what, (start, end) in GUEST.items()
            if reached and all(end in b.seconds for b in reached)
        },
        "memory_mib": round(statistics.median(b.memory_mib for b in reached), 1) if reached else None,
        "cpu_seconds": {"min": round(min(b.cpu_seconds for b in reached), 3)} if reached else {},
    }


def show(engine: str, what: str, result: dict[str, Any]) -> None:
    """Prints one engine's figures."""
    print(f"{engine}: {result['reached_init']} of {result['runs']} boots reached /init ({what})")
    for name, value in result["seconds"].items():
        print(f"{name:<8} {value['min']:>7.2f} s  median {value['median']:>7.2f} s")
    for what, seconds in result["guest_seconds"].items():
        print(f"guest    {seconds:>7.2f} s  {what}")
    if result["cpu_seconds"]:
        print(f"cpu      {result['cpu_seconds']['min']:>7.2f} s")
        print(f"memory   {result['memory_mib']:>7.1f} MiB")


if __name__ == "__main__":
    raise SystemExit(main())
