# SPDX-License-Identifier: Apache-2.0
"""What executes the code of an HVM or PVH domain here: KVM or TCG, and why.

A device file that can be opened says little: where the processor has no virtualization for it, KVM may start and hang
at a guest's first page table. So a small guest is run (probe.S) before KVM is believed; the answer holds until the host
is started again, or has another QEMU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domzero.dom0.paths import private_directory
from domzero.dom0.qemu.program import XEN_SINCE, Program, find_qemu
from domzero.errors import ConfigError

SECONDS = 3.0
"""The trial may take; a KVM that works needs a twentieth of a second."""
XEN = "xen-version=0x40011,kernel-irqchip=split"
"""Options of KVM with which its guests see Xen."""
_ROM_BYTES = 64 << 10
_PROGRAM = bytes.fromhex(
    "fa31c08ec0fcbf0010b90018f3ab2666c7060010072000002666c7060020073000002666c70600308700000066b8001000000f22d866b820"
    "0000000f22e066b9800000c00f32660d000100000f302e660f011610012e660f011e16010f20c0660d010000800f22c066ea70000f000800"
    "b8100000008ed88ec08ed048c7c400800000bf0050000031c0b900010000f3abbf3050000066c707f10066c74702080066c74704008e66c7"
    "47060f0031dbccc704250830000087000000b8000020000f0138c704250090200078563412813c250090000078563412751283fb01750db9"
    "a08601005159e2fcb02ae6f4b001e6f4f4ffc348cf8d7400000000000000000000000000009a200000000000009200001700f8000f00ff0f"
    "0050"
)
"""probe.S up to its last instruction."""
_known: dict[str, tuple[str, bool]] = {}
"""What `_tried` has found, by what it depends on."""
_RESET = (0xFFF0, bytes.fromhex("ea000000f0"))
_WENT_WELL = 0x2A << 1 | 1
_WENT_WRONG = 0x01 << 1 | 1


@dataclass(slots=True, frozen=True)
class Accelerator:
    """What executes code.

    :param name: kvm or tcg.
    :param why: it is that one.
    :param xen: guests see Xen, and load PV drivers.
    """

    name: str
    why: str
    xen: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def choose(wanted: str) -> Accelerator:
    """What `engine=auto`, `kvm` or `tcg` means on this host. ConfigError: it cannot run here. May take some seconds."""
    program = find_qemu()
    if wanted == "tcg":
        return Accelerator("tcg", "asked for")
    fault, xen = _tried(program)
    if not fault:
        seen = "guests see Xen" if xen else f"guests do not see Xen: {_why_no_xen(program)}"
        return Accelerator("kvm", f"{'asked for' if wanted == 'kvm' else 'auto'}; {seen}", xen)
    if wanted == "kvm":
        raise ConfigError(f"KVM cannot be used here: {fault}", key="engine", hint="use 'tcg' or 'auto'")
    return Accelerator("tcg", f"no KVM: {fault}")


def described() -> str:
    """What `domzero info` says of it."""
    try:
        return f"{find_qemu()}: {choose('auto')}"
    except ConfigError as error:
        return f"none: {error.message} ({error.hint})"


def _why_no_xen(program: Program) -> str:
    if program.version < XEN_SINCE:
        return f"{program} is older than {XEN_SINCE[0]}.{XEN_SINCE[1]}"
    return "this kernel's KVM does not emulate it"


def _tried(program: Program) -> tuple[str, bool]:
    """What keeps KVM from being used, or "", and whether it emulates Xen; as it was found before, if nothing is new."""
    status = os.stat(program.path)
    key = f"{_boot()} {program.path} {status.st_mtime_ns} {status.st_size} {os.access('/dev/kvm', os.R_OK | os.W_OK)}"
    if key not in _known:
        _known[key] = _kept_or_new(program, key)
    return _known[key]


def _kept_or_new(program: Program, key: str) -> tuple[str, bool]:
    path = private_directory("qemu") / "trial.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            return str(kept["fault"]), kept["xen"] is True
    fault = try_kvm(program)
    xen = not fault and program.version >= XEN_SINCE and not try_kvm(program, XEN)
    with suppress(OSError):
        draft = path.with_name(f"trial.{os.getpid()}")
        draft.write_text(json.dumps({"key": key, "fault": fault, "xen": xen}))
        draft.replace(path)
    return fault, xen


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def try_kvm(program: Program, options: str = "") -> str:
    """Runs the small guest with KVM; what was wrong, or "".

    :param options: of `-accel kvm`.
    """
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    return run_probe(program, ",".join(["kvm", *([options] if options else [])]), ["-cpu", "host"])


def run_probe(program: Program, accelerator: str, more: Sequence[str] = ()) -> str:
    """Runs the small guest; what was wrong, or ""."""
    rom = os.memfd_create("probe", os.MFD_CLOEXEC)
    try:
        os.truncate(rom, _ROM_BYTES)
        os.pwrite(rom, _PROGRAM, 0)
        os.pwrite(rom, _RESET[1], _RESET[0])
        done = subprocess.run(
            [
                *(program.path, "-accel", accelerator, *more, "-machine", "pc", "-m", "16", "-display", "none"),
                *("-nodefaults", "-no-user-config", "-no-reboot", "-bios", f"/proc/self/fd/{rom}"),
                *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
            ],
            pass_fds=[rom],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"/dev/kvm opens, and a guest makes no progress with it in {SECONDS:g} s" + _no_hardware()
    except OSError as error:
        return f"QEMU does not start: {error.strerror or error}"
    finally:
        os.close(rom)
    if done.returncode == _WENT_WELL:
        return ""
    if done.returncode == _WENT_WRONG:
        return "a guest runs wrongly with it" + _no_hardware()
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    word = re.sub(r"^[\w-]+: (\S+\.c:\d+: )?", "", lines[-1])[:120] if lines else f"status {done.returncode}"
    return f"a guest does not run with it: {word}" + _no_hardware()


def _no_hardware() -> str:
    has = virtualization_flags()
    return "" if has else " (/proc/cpuinfo has neither vmx nor svm)"


def virtualization_flags() -> list[str]:
    """Which of Intel's and AMD's hardware assistance the host's processor shows: vmx, svm, ept, npt."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                words = line.partition(":")[2].split()
                return [word for word in ("vmx", "svm", "ept", "npt") if word in words]
    return []


__all__ = ["Accelerator", "choose", "described", "run_probe", "try_kvm", "virtualization_flags"]
