#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run PV guests on real Xen 4.17, in QEMU: the reference that Domzero's answers are compared with.

    tools/real_xen.py KERNEL [--vcpus N] [--memory MB] [--cmdline TEXT] [--ramdisk FILE]
    tools/real_xen.py --batch KERNEL KERNEL ...
    tools/real_xen.py --suite [NAME ...]

Each guest becomes an unprivileged PV domain; its console is printed, then how it ended. Debian's packages of Xen, its
tools and a dom0 kernel are fetched with `apt-get download` and unpacked under --cache (once); `qemu-system-x86_64` must
be installed. dom0 is those packages and a shell script in an initramfs. With /dev/kvm a boot takes seconds.
"""

import argparse
import gzip
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = [
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "xen-utils-common",
    "xenstore-utils",
    "libxenmisc4.17",
    "libxencall1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenstore4",
    "libxentoollog1",
    "libxentoolcore1",
    "libxendevicemodel1",
    "libxenhypfs1",
    "libyajl2",
    "libc6",
    "libncurses6",
    "libtinfo6",
    "zlib1g",
    "liblzma5",
    "libuuid1",
    "libnl-3-200",
    "libnl-route-3-200",
    "libbz2-1.0",
    "libfdt1",
    "libgcc-s1",
    "liblzo2-2",
    "libzstd1",
    "busybox-static",
]
PROGRAMS = ("xl", "xenstored", "xenconsoled", "xen-init-dom0", "xenstore-control", "xenctx")
MODULES = ("xen-privcmd", "xen-evtchn", "xen-gntdev", "xenfs")
CONSOLE_END = "@@end"
SHUTDOWN_REASONS = {0: "poweroff", 1: "reboot", 2: "suspend", 3: "crash", 4: "watchdog", 5: "soft_reset"}

INIT = """#!/bin/sh
export PATH=/bin:/usr/lib/xen-4.17/bin LD_LIBRARY_PATH=/lib64
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
for m in /modules/*.ko; do insmod $m; done
mount -t xenfs xenfs /proc/xen
mkdir -p /run/xen /var/lib/xen /var/lib/xenstored /var/log/xen /run/xenstored /var/lock /log /tmp
stty -F /dev/ttyS1 raw 115200
exec >/dev/ttyS1 2>&1
xenstored --pid-file /run/xenstored.pid
xen-init-dom0 >/dev/null
xenconsoled --pid-file=/run/xenconsoled.pid --log=guest --log-dir=/log
xl dmesg -c >/dev/null
for d in /guests/*; do
    n=${d##*/}
    . $d/limits
    echo "@@begin $n"
    if xl create -q -e $d/cfg; then
        id=$(xl domid $n)
        i=0; how=timeout
        while [ $i -lt $((timeout * 5)) ]; do
            set -- $(xl list -v $n | tail -n 1)
            case $5 in *s*|*c*|*d*) how=$8; break;; esac
            usleep 200000; i=$((i + 1))
        done
        [ $how = timeout ] && { xl debug-keys d; usleep 300000; }
        usleep 100000
        xl destroy $n 2>/dev/null
        usleep 100000
        cat /log/guest-$n.log
    else
        how=refused
    fi
    echo; echo "@@log"
    xl dmesg -c
    echo "@@end $n $how"
    rm -f /log/*
done
echo "@@done"
sync
poweroff -f
"""


@dataclass
class Guest:
    """One domain to run: what `xl` is told about it."""

    name: str
    kernel: Path
    memory: int = 64
    vcpus: int = 1
    cmdline: str = ""
    ramdisk: Path | None = None
    timeout: int = 60
    extra: str = ""


@dataclass
class Outcome:
    """What a guest printed, how it ended (a shutdown reason, `timeout` or `refused`), and Xen's own log meanwhile."""

    name: str
    end: str
    console: str = ""
    log: list[str] = field(default_factory=list)


def fetch(cache: Path) -> Path:
    """Downloads and unpacks the packages; the directory that holds them."""
    root = cache / "root"
    if (cache / "complete").exists():
        return root
    debs = cache / "debs"
    shutil.rmtree(root, ignore_errors=True)
    debs.mkdir(parents=True, exist_ok=True)
    shown = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True, text=True)
    kernels = re.findall(r"Depends: (linux-image-\S+)", shown.stdout)
    subprocess.run(["apt-get", "download", "-q", *PACKAGES, kernels[0]], cwd=debs, check=True, stdout=sys.stderr)
    for deb in sorted(debs.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(deb), str(root)], check=True)
    (cache / "complete").touch()
    return root


class Cpio:
    """A cpio archive (newc), as Linux unpacks it."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._inode = 0
        self._made: set[str] = set()

    def add(self, path: str, data: bytes = b"", mode: int = 0o100755) -> None:
        """One entry, after the directories above it."""
        parent = os.path.dirname(path)
        if parent and parent not in self._made:
            self._made.add(parent)
            self.add(parent, mode=0o040755)
        if mode == 0o040755:
            self._made.add(path)
        self._inode += 1
        name = path.encode() + b"\0"
        values = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        self._out.write(b"070701" + b"".join(b"%08x" % v for v in values) + name)
        self._pad()
        self._out.write(data)
        self._pad()

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self.add(path, target.encode(), 0o120777)

    def _pad(self) -> None:
        self._out.write(b"\0" * (-self._out.tell() % 4))

    def bytes(self) -> bytes:
        """The archive, with its trailer."""
        self.add("TRAILER!!!", mode=0)
        return self._out.getvalue()


def base_archive(root: Path) -> bytes:
    """dom0's file system: libraries, Xen's tools, busybox, modules and init."""
    cpio = Cpio()
    for directory in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
        for lib in sorted((root / directory).glob("*.so*")):
            if lib.is_symlink():
                cpio.link(f"lib64/{lib.name}", os.path.basename(os.readlink(lib)))
            else:
                cpio.add(f"lib64/{lib.name}", lib.read_bytes())
    for program in PROGRAMS:
        cpio.add(f"usr/lib/xen-4.17/bin/{program}", (root / "usr/lib/xen-4.17/bin" / program).read_bytes())
    busybox = root / "bin/busybox"
    cpio.add("bin/busybox", busybox.read_bytes())
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            cpio.link(f"bin/{applet}", "busybox")
    for number, module in enumerate(MODULES):
        (path,) = root.glob(f"lib/modules/*/kernel/drivers/xen/**/{module}.ko")
        cpio.add(f"modules/{number}{module}.ko", path.read_bytes())
    cpio.link("var/run", "/run")
    cpio.add("etc/xen/xl.conf", b'autoballoon="off"\n')
    cpio.add("init", INIT.encode())
    return cpio.bytes()


def guest_archive(guests: list[Guest]) -> bytes:
    """The guests' kernels and configurations."""
    cpio = Cpio()
    for index, guest in enumerate(guests):
        home = f"guests/g{index:04}"
        config = [
            f'name="g{index:04}"',
            'type="pv"',
            f'kernel="/{home}/kernel"',
            f"memory={guest.memory}",
            f"vcpus={guest.vcpus}",
        ]
        if guest.cmdline:
            config.append(f'cmdline="{guest.cmdline}"')
        if guest.ramdisk:
            config.append(f'ramdisk="/{home}/ramdisk"')
            cpio.add(f"{home}/ramdisk", guest.ramdisk.read_bytes())
        config.append(guest.extra)
        cpio.add(f"{home}/kernel", guest.kernel.read_bytes())
        cpio.add(f"{home}/cfg", ("\n".join(config) + "\n").encode())
        cpio.add(f"{home}/limits", f"timeout={guest.timeout}\n".encode())
    return cpio.bytes()


def qemu_command(work: Path, root: Path, hypervisor: Path | None, xen_args: str, memory: int) -> list[str]:
    """QEMU with Xen as its multiboot kernel; the results come out of the second serial port."""
    (packaged,) = root.glob("boot/xen-4.17-amd64.gz")
    (kernel,) = root.glob("boot/vmlinuz-*")
    xen = work / "xen.elf"
    xen.write_bytes(gzip.decompress((hypervisor or packaged).read_bytes()))
    flags = re.findall(r"\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text())
    kvm = (
        os.access("/dev/kvm", os.R_OK | os.W_OK) and flags
    )  # without the flag it is a software KVM, which Xen fails on
    accel = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg", "-cpu", "max,-smap,-smep,-umip,-pks,-la57"]
    arguments = (
        "com1=115200,8n1 console=com1 dom0_mem=384M,max:384M dom0_max_vcpus=1 loglvl=all guest_loglvl=all "
        f"sched-gran=cpu spec-ctrl=no xpti=no pv-l1tf=no cet=no watchdog=no {xen_args}"
    )
    return [
        *("qemu-system-x86_64", *accel, "-smp", "2", "-m", str(memory), "-no-reboot"),
        *("-display", "none", "-monitor", "none", "-nic", "none"),
        *("-serial", f"file:{work}/xen.log", "-serial", "stdio"),
        *("-kernel", str(xen), "-append", arguments),
        *("-initrd", f"{kernel} console=hvc0 quiet,{work}/initrd"),
    ]


def outcomes(lines: Iterator[str], guests: list[Guest]) -> Iterator[Outcome]:
    """Takes the results stream apart."""
    console: list[str] = []
    log: list[str] = []
    part = console
    for line in lines:
        if line.startswith("@@begin"):
            console, log = [], []
            part = console
        elif line == "@@log":
            part = log
        elif line.startswith(CONSOLE_END):
            _, index, how = line.split(" ", 2)
            end = SHUTDOWN_REASONS.get(int(how), how) if how.isdigit() else how
            yield Outcome(guests[int(index[1:])].name, end, "\n".join(console).rstrip() + "\n", log)
        elif line == "@@done":
            return
        else:
            part.append(line)
    raise SystemExit("the reference machine ended early; see xen.log")


def run(
    guests: list[Guest], cache: Path, hypervisor: Path | None = None, xen_args: str = "", memory: int = 2048
) -> Iterator[Outcome]:
    """Boots Xen once and runs every guest in turn."""
    root = fetch(cache)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        work = Path(name)
        base = cache / "base.cpio"
        if not base.exists() or base.stat().st_mtime < Path(__file__).stat().st_mtime:
            base.write_bytes(base_archive(root))
        (work / "initrd").write_bytes(base.read_bytes() + guest_archive(guests))
        command = qemu_command(work, root, hypervisor, xen_args, memory)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                text = (line.decode("latin1").rstrip("\r\n") for line in process.stdout)
                yield from outcomes(text, guests)
            finally:
                process.kill()
                shutil.copy(work / "xen.log", cache / "xen.log")


def suite(names: list[str], widths: tuple[str, ...]) -> list[Guest]:
    """The guests of guests/suite (all, or these), built, as the `domain:` lines of their comments want them."""
    root = Path(__file__).parents[1] / "guests"
    subprocess.run(["make", "-s", "-C", str(root)], check=True, stdout=sys.stderr)
    guests = []
    for source in sorted((root / "suite").glob("*.c")):
        found = re.search(r"domain: *(.*)", source.read_text())
        words = dict(word.split("=", 1) for word in found[1].split() if "=" in word) if found else {}
        for width in widths:
            if words.get("widths", width) != width or (names and source.stem not in names):
                continue
            kernel = root / "build" / width / source.stem
            memory, vcpus = int(words.get("memory", 16)), int(words.get("vcpus", 1))
            guests.append(Guest(f"{source.stem}-{width}", kernel, memory, vcpus, timeout=30))
    return guests


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", nargs="*", type=Path, help="kernel images of the guests")
    parser.add_argument("--suite", action="store_true", help="guests of guests/suite: those named, or all")
    parser.add_argument("--batch", action="store_true", help="several guests; a summary follows their consoles")
    parser.add_argument("--vcpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=64, help="MB")
    parser.add_argument("--cmdline", default="")
    parser.add_argument("--ramdisk", type=Path)
    parser.add_argument("--timeout", type=int, default=60, help="seconds for one guest")
    parser.add_argument("--xen", type=Path, help="another xen.gz; Debian's has no 32-bit PV (CONFIG_PV32)")
    parser.add_argument("--xen-args", default="", help="more words for Xen's command line")
    parser.add_argument("--log", action="store_true", help="also print Xen's log of each guest")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/domzero-real-xen")
    args = parser.parse_args()
    if len(args.kernel) != 1 and not (args.batch or args.suite):
        parser.error("one guest, or --batch, or --suite")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    args.cache.mkdir(parents=True, exist_ok=True)
    guests = [
        Guest(
            name=path.name,
            kernel=path,
            memory=args.memory,
            vcpus=args.vcpus,
            cmdline=args.cmdline,
            ramdisk=args.ramdisk,
            timeout=args.timeout,
        )
        for path in args.kernel
    ]
    if args.suite:
        guests = suite([str(name) for name in args.kernel], ("64", "32") if args.xen else ("64",))
    ended: list[Outcome] = []
    for outcome in run(guests, args.cache, args.xen, args.xen_args):
        if args.batch or args.suite:
            print(f"==== {outcome.name}")
        print(outcome.console, end="")
        if args.log or outcome.end in ("crash", "refused", "timeout"):
            print("\n".join(f"| {line}" for line in outcome.log))
        print(f"[{outcome.name}: {outcome.end}]", flush=True)
        ended.append(outcome)
    return 0 if all(outcome.end == "poweroff" for outcome in ended) else 1


if __name__ == "__main__":
    sys.exit(main())
