# SPDX-License-Identifier: Apache-2.0
"""What programs and the kernel of a Linux guest take beside the host itself: `python benchmarks/guest_rows.py`.

22 rows (benchmarks/guest/guestbench.c): kernel entry, processes and page tables; user code; and 32-bit user code
(guestbench32.c; left out where the host's kernel has no 32-bit programs). They run on the host, in a domain on each
engine that there is here, and in QEMU with TCG, if that is installed, on the same kernel. Targets take turns, and
ratios are of one round, then their median: other load of the machine changes them less. A row that fails, or that is
not there, is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from guest_program import build_program

from domzero import _machine
from domzero.dom0.images import Image, fetch_debian
from domzero.dom0.images.cpio import directory, file, read_cpio, write_cpio

NARROW = "32-bit user code"
GROUPS = {
    "kernel": (
        *("null_syscall", "clock_gettime", "ctx_switch_pipe", "fork_exit_wait", "fork_exec", "page_fault", "mprotect"),
        *("file_tmpfs", "shell_script"),
    ),
    "user code": (
        *("int_collatz", "int_sieve", "call_fib", "indirect_vm", "copy_sse2", "copy_rep_movsb", "chase_16m"),
        *("matmul_sse2", "sha256"),
    ),
    NARROW: ("fib_32", "sieve_32", "copy_32", "x87_32"),
}
NATIVE = "native"
QEMU = "qemu-system-x86_64"
LESS_IS_MORE = "ns/access"
LIMIT_S = 1800
FREESTANDING = ["-O2", "-static", "-nostdlib", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none"]
FLAGS_32 = [
    *("-m32", "-march=i686", "-mtune=generic", "-mfpmath=387", "-ffreestanding", "-fno-pic", "-no-pie"),
    *("-fno-stack-protector", "-fno-tree-loop-distribute-patterns", "-fcf-protection=none"),
]


@dataclass(slots=True)
class Run:
    """What one run of all rows has said.

    :param values: of each row, in its unit.
    :param start_s: seconds from the start of the process to /init.
    """

    target: str
    values: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    start_s: float | None = None


def build(out: Path, image: Image) -> Path:
    """The programs, and an initramfs with them whose /init runs them and powers off."""
    programs = {name: build_program(name, out) for name in ("guestbench", "benchinit")}
    for name, flags in (("tiny", []), ("guestbench32", FLAGS_32)):
        source = Path(__file__).parent / "guest" / f"{name}.c"
        subprocess.run(["gcc", *FREESTANDING, *flags, "-o", str(out / name), str(source)], check=True)
    busybox = next(entry.data for entry in read_cpio(Path(image.ramdisk).read_bytes()) if entry.name == "bin/busybox")
    entries = [
        *(directory(name) for name in ("bin", "dev", "proc", "sys", "tmp")),
        file("init", programs["benchinit"].read_bytes(), 0o755),
        file("bin/guestbench", programs["guestbench"].read_bytes(), 0o755),
        *(file(f"bin/{name}", (out / name).read_bytes(), 0o755) for name in ("tiny", "guestbench32")),
        file("bin/busybox", busybox, 0o755),
    ]
    (out / "busybox").write_bytes(busybox)
    (out / "busybox").chmod(0o755)
    ramdisk = out / "bench.cpio"
    ramdisk.write_bytes(write_cpio(entries))
    return ramdisk


def command(target: str, kernel: str, ramdisk: Path, words: str) -> list[str]:
    """What runs a target."""
    if target == NATIVE:
        programs = [str(ramdisk.with_name(name)) for name in ("guestbench", "guestbench32")]
        return ["sh", "-c", "; ".join(programs)]
    if target == QEMU:
        machine = [QEMU, "-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic", "-no-reboot", "-net", "none"]
        return [*machine, "-kernel", kernel, "-initrd", str(ramdisk), "-append", f"console=ttyS0 {words}"]
    run = [sys.executable, "-m", "domzero", "run", "--engine", target, "--kernel", kernel, "--ramdisk", str(ramdisk)]
    return [*run, "--memory", "512", "--cmdline", f"console=hvc0 {words}"]


def run(target: str, kernel: str, ramdisk: Path, seconds: float, only: str) -> Run:
    """Runs all rows once."""
    result = Run(target)
    words = {"BENCH_SECS": str(seconds), **({"BENCH_ONLY": only} if only else {})}
    environment = dict(os.environ)
    if target == NATIVE:
        environment |= {**words, "BENCH_TMP": "/dev/shm", "BENCH_BUSYBOX": str(ramdisk.with_name("busybox"))}
    line = command(target, kernel, ramdisk, " ".join(f"{name}={value}" for name, value in words.items()))
    start = time.monotonic()
    process = subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert process.stdout is not None
    for raw in process.stdout:
        text = raw.decode(errors="replace")
        if time.monotonic() - start > LIMIT_S:
            process.kill()
        if found := re.search(r"BENCH (\w+) ([0-9.]+) (\S+)", text):
            if found[1] == "boot_to_init":
                result.start_s = time.monotonic() - start
            else:
                result.values[found[1]], result.units[found[1]] = float(found[2]), found[3]
        elif found := re.search(r"FAIL (\w+) (.*)", text):
            result.failed[found[1]] = found[2].strip()
    process.wait()
    return result


def rows_here(narrow: Path) -> list[str]:
    """The rows that this host can be compared in.

    :param narrow: the program of 32-bit rows.
    """
    try:
        subprocess.run([narrow], env={"BENCH_ONLY": "none"}, check=True)
    except OSError as error:
        print(f"guest_rows: {NARROW} is left out, the host cannot run it: {error}", file=sys.stderr)
        return [row for group, names in GROUPS.items() if group != NARROW for row in names]
    return [row for names in GROUPS.values() for row in names]


def ratios(runs: list[Run], native: list[Run], row: str) -> float | None:
    """How many times slower than the host a row is: the median over the rounds that have both."""
    pairs = [
        (a.values[row], b.values[row]) for a, b in zip(runs, native, strict=True) if row in a.values and row in b.values
    ]
    if not pairs:
        return None
    less = LESS_IS_MORE in (runs[0].units.get(row), native[0].units.get(row))
    return statistics.median(a / b if less else b / a for a, b in pairs)


def show(runs: dict[str, list[Run]], rows: list[str]) -> None:
    """As a table: what the host does, and how many times slower each target is."""
    others = [target for target in runs if target != NATIVE]
    print(
        f"{'':<28}{NATIVE:>14}"
        + "".join(f"{'x ' + target.replace('qemu-system-x86_64', 'QEMU TCG'):>14}" for target in others)
    )
    for group, names in GROUPS.items():
        if not set(names) & set(rows):
            continue
        slower: dict[str, list[float]] = {target: [] for target in others}
        for row in (name for name in names if name in rows):
            values = [one.values[row] for one in runs[NATIVE] if row in one.values]
            unit = next((one.units[row] for of in runs.values() for one in of if row in one.units), "")
            line = f"{row + ', ' + unit:<28}" + (f"{statistics.median(values):>14,.0f}" if values else f"{'-':>14}")
            for target in others:
                ratio = ratios(runs[target], runs[NATIVE], row)
                line += f"{'-':>14}" if ratio is None else f"{ratio:>14.2f}"
                slower[target] += [] if ratio is None else [ratio]
            print(line)
        means = [f"{statistics.geometric_mean(of):>14.2f}" if of else f"{'-':>14}" for of in slower.values()]
        print(f"{'geometric mean, ' + group:<42}" + "".join(means))
    starts = {target: [one.start_s for one in runs[target] if one.start_s is not None] for target in others}
    print(f"{'start to /init, s':<42}" + "".join(f"{min(of):>14.2f}" if of else f"{'-':>14}" for of in starts.values()))


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="runs of each target (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each row, at least (default: %(default)s)")
    parser.add_argument("--only", default="", help="rows, separated by commas (default: all)")
    parser.add_argument("--target", action="append", help="only this one beside the host (default: all that there are)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    engines = [*([] if _machine.translator_unavailable() else ["translator"]), "interpreter"]
    targets = args.target or [*engines, *([QEMU] if shutil.which(QEMU) else [])]
    image, _ = fetch_debian(lambda text: print(f"guest_rows: {text}", file=sys.stderr))
    runs: dict[str, list[Run]] = {target: [] for target in (NATIVE, *targets)}
    with tempfile.TemporaryDirectory() as directory_name:
        ramdisk = build(Path(directory_name), image)
        wanted = args.only.split(",") if args.only else rows_here(ramdisk.with_name("guestbench32"))
        for _ in range(args.rounds):
            for target, of in runs.items():
                of.append(run(target, image.kernel, ramdisk, args.seconds, args.only))
    if args.json:
        print(json.dumps({target: [asdict(one) for one in of] for target, of in runs.items()}, indent=2))
    else:
        show(runs, wanted)
    missing = [
        f"{target}: {row}: {one.failed.get(row, 'no answer')}"
        for target, of in runs.items()
        for one in of
        for row in wanted
        if row not in one.values
    ]
    for text in missing:
        print(f"guest_rows: {text}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
