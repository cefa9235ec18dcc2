# SPDX-License-Identifier: Apache-2.0
"""A parallel load for a Debian guest: shells that fork, pipe, sort, pack, copy and calculate on all vCPUs at once, each
checking its own answers against what the host says.

`python tests/guest/parallel_load.py --kernel vmlinuz --vcpus 4 --seconds 120` runs it by hand.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

from building import busybox_of

from domzero.dom0.images import Image, ImageCache
from domzero.dom0.images.cpio import char_device, directory, file, write_cpio

NUMBERS = 3000
ZEROS_KIB = 4096


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def answers() -> dict[str, str]:
    """Name of each job and what it must say, worked out on the host."""
    lines = "".join(f"{n}\n" for n in range(1, NUMBERS + 1))
    harmonic = sum(1.0 / n for n in range(1, NUMBERS + 1))
    evens = [n for n in range(1, NUMBERS + 1) if n % 2 == 0]
    backwards = "".join(f"{n}\n" for n in range(NUMBERS, 0, -1))
    return {
        "zeros": hashlib.md5(bytes(ZEROS_KIB << 10), usedforsecurity=False).hexdigest(),
        "sort": _md5(lines),
        "pack": _md5(lines),
        "archive": _md5(lines),
        "forks": str(sum(range(1, 41))),
        "pipes": f"{len(evens)} {sum(evens)}",
        "float": f"{harmonic:.9f}",
        "backwards": _md5(backwards),
        "files": "60 60",
        "children": "0 1 2 3 4 5 6 7 ",
        "sha": hashlib.sha256(lines.encode()).hexdigest(),
        "signal": "143",
    }


_JOBS = r"""
job_zeros() { dd if=/dev/zero bs=256k count=$((ZEROS / 256)) 2>/dev/null | md5sum | cut -d' ' -f1; }
job_sort() { seq $N | shuf | sort -n | md5sum | cut -d' ' -f1; }
job_pack() { seq $N | gzip -c | gunzip -c | md5sum | cut -d' ' -f1; }
job_archive() { seq $N > a; tar -cf - a | tar -xOf - a | md5sum | cut -d' ' -f1; }
job_forks() { i=1; while [ $i -le 40 ]; do (echo $i); i=$((i + 1)); done | awk '{ s += $1 } END { print s }'; }
job_pipes() { seq $N | grep '[02468]$' | sed 's/$/ x/' | cut -d' ' -f1 | awk '{ n++; s += $1 } END { print n, s }'; }
job_float() { awk -v n=$N 'BEGIN { for (i = 1; i <= n; i++) s += 1 / i; printf "%.9f\n", s }'; }
job_backwards() { seq $N > b; sort -rn b > c; cat c | tr a-z A-Z | md5sum | cut -d' ' -f1; rm -f b c; }
job_files() {
	mkdir d; i=0
	while [ $i -lt 60 ]; do echo $i > d/$i; i=$((i + 1)); done
	cp -r d e; n=$(ls e | wc -l); same=0
	for f in d/*; do cmp -s $f e/${f#d/} && same=$((same + 1)); done
	rm -r d e; echo $n $same
}
job_children() {
	for k in 0 1 2 3 4 5 6 7; do (usleep $((k * 3000)); exit $k) & eval p$k=$!; done
	for k in 0 1 2 3 4 5 6 7; do eval wait \$p$k; printf '%s ' $?; done; echo
}
job_sha() { seq $N | tee x | sha256sum | cut -d' ' -f1; rm x; }
job_signal() { sleep 100 & p=$!; usleep 2000; kill $p; wait $p 2>/dev/null; echo $?; }
"""

_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev 2>/dev/null; mount -t tmpfs none /tmp
cpus=$(grep -c ^processor /proc/cpuinfo)
echo "LOAD-CPUS $cpus"
SECONDS_TO_RUN=$(sed -n 's/.*load_seconds=\\([0-9]*\\).*/\\1/p' /proc/cmdline)
WORKERS=$((cpus + 2))
end=$(($(date +%s) + SECONDS_TO_RUN))
w=0
while [ $w -lt $WORKERS ]; do
	mkdir /tmp/$w
	(cd /tmp/$w && sh /worker $w $end) &
	w=$((w + 1))
done
wait
echo "LOAD-ROUNDS $(cat /tmp/*/rounds | tr '\\n' ' ')"
grep -H . /tmp/*/wrong 2>/dev/null
dmesg | grep -A3 -E 'BUG:|Oops|WARNING:|rcu.*stall|lockup|Call Trace|Bad page|segfault' && echo LOAD-KERNEL-COMPLAINS
echo LOAD-DONE
sync
poweroff -f
"""


def _worker() -> str:
    checks = "\n".join(
        f"\tgot=$(job_{name}); [ \"$got\" = '{answer}' ] || "
        f'{{ echo "{name}: $got" >> wrong; echo "LOAD-WRONG {name}: $got, not {answer}"; }}'
        for name, answer in answers().items()
    )
    return (
        f"N={NUMBERS}\nZEROS={ZEROS_KIB}\n{_JOBS}\nrounds=0\n"
        f"while [ $(date +%s) -lt $2 ]; do\n"
        f"\ttaskset -p $((1 << (($1 + rounds) % $(nproc)))) $$ >/dev/null 2>&1\n"
        f"{checks}\n\trounds=$((rounds + 1))\ndone\necho $rounds > rounds\n"
    )


def build(path: Path, image: Image) -> None:
    """Writes the initramfs; its busybox is the image's."""
    names = ("bin", "dev", "proc", "sys", "tmp")
    entries = [
        *(directory(name) for name in names),
        char_device("dev/console", 5, 1),
        file("bin/busybox", busybox_of(image), 0o755),
        file("init", _INIT, 0o755),
        file("worker", _worker(), 0o644),
    ]
    path.write_bytes(gzip.compress(write_cpio(entries)))


def run(kernel: str, ramdisk: Path, *, vcpus: int, seconds: int, limit: float) -> subprocess.CompletedProcess[str]:
    """One run of the load."""
    command = [sys.executable, "-m", "domzero", "run", "--kernel", kernel, "--ramdisk", str(ramdisk), "--memory", "384"]
    command += [
        "--vcpus",
        str(vcpus),
        "--cmdline",
        f"console=hvc0 panic=-1 load_seconds={seconds}",
        "--on-reboot",
        "exit",
    ]
    return subprocess.run([*command, "--timeout", str(limit)], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def main() -> int:
    """By hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", help="another kernel than the image's")
    parser.add_argument("--vcpus", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--ramdisk", type=Path, default=Path("/tmp/parallel-load.cpio.gz"))
    args = parser.parse_args()
    image = ImageCache().find("debian")
    build(args.ramdisk, image)
    result = run(
        args.kernel or image.kernel, args.ramdisk, vcpus=args.vcpus, seconds=args.seconds, limit=args.seconds * 3 + 120
    )
    lines = result.stdout.splitlines()
    first = next((n for n, line in enumerate(lines) if "LOAD-" in line), 0)
    sys.stdout.write("\n".join(lines[first:]) + "\n")
    sys.stderr.write(result.stderr)
    return result.returncode


if __name__ == "__main__":
    raise SystemExit(main())
