"""A stand-in for the compiled machine: memory, frames with owners and reference counts, registers. No CPU.

Guest virtual addresses are machine addresses of mapped frames plus `VA_BASE`, so a test places a structure with
`FakeVcpu.place` and gives its address to a hypercall. Importing this module makes `domzero._machine` importable where
the machine is not built.
"""

import importlib
import mmap
import os
import sys
import types
from dataclasses import dataclass, field
from typing import Any

PAGE = 4096
VA_BASE = 0x100000000
VA_BASE_32 = 0x10000000
EINVAL = 22


class _GuestFault(Exception):
    pass


class _MachineError(Exception):
    pass


@dataclass
class ExitHypercall:
    nr: int
    args: tuple[int, ...]


@dataclass
class ExitPrivileged:
    kind: str
    a: int = 0
    b: int = 0
    length: int = 1


@dataclass
class ExitFault:
    vector: int
    error_code: int | None = None
    cr2: int = 0
    reason: str = ""


@dataclass
class ExitUnsupported:
    reason: str


class ExitBudget:
    pass


class ExitDeadline:
    pass


class ExitInterrupted:
    pass


def _module() -> Any:
    try:
        return importlib.import_module("domzero._machine")
    except ImportError:
        module = types.ModuleType("domzero._machine")
        module.__dict__.update(
            GuestFault=_GuestFault, MachineError=_MachineError, VcpuRunning=RuntimeError, Machine=FakeMachine,
            Domain=FakeDomain, Vcpu=FakeVcpu, Exit=object, __version__="fake",
        )  # fmt: skip
        for cls in EXITS:
            module.__dict__[cls.__name__] = cls
        sys.modules["domzero._machine"] = module
        return module


EXITS = (ExitHypercall, ExitPrivileged, ExitFault, ExitUnsupported, ExitBudget, ExitDeadline, ExitInterrupted)


class FakeFrameInfo:
    type = "writable"
    type_count = 0

    def __init__(self, owner: int | None, refs: int = 1) -> None:
        self.owner = owner
        self.refs = refs


class FakeMachine:
    def __init__(self, frames: int = 512, *, seed: int = 0, virtual_time_ns: int | None = 0) -> None:
        self.frames = frames
        self.fd = os.memfd_create("fake machine")
        os.ftruncate(self.fd, frames * PAGE)
        self.ram = mmap.mmap(self.fd, frames * PAGE)
        self.owners: dict[int, int] = {}
        self.shared: dict[int, int] = {}
        self.mapped: set[int] = set()
        """Frames that somebody maps."""
        self.free = list(range(frames - 1, 15, -1))
        self.now = 1_000_000
        self.m2p, self.m2p_compat = (1, 8), (9, 4)

    def close(self) -> None:
        os.close(self.fd)

    @property
    def free_frames(self) -> int:
        return len(self.free)

    def fileno(self) -> int:
        return self.fd

    def now_ns(self) -> int:
        return self.now

    def advance_to(self, ns: int) -> None:
        self.now = max(self.now, ns)

    def read(self, maddr: int, length: int) -> bytes:
        return self.ram[maddr : maddr + length]

    def write(self, maddr: int, data: bytes) -> None:
        self.ram[maddr : maddr + len(data)] = bytes(data)

    def test_and_set_bit(self, maddr: int, bit: int) -> bool:
        at, mask = maddr + (bit >> 3), 1 << (bit & 7)
        old = self.ram[at]
        self.ram[at] = old | mask
        return bool(old & mask)

    def test_and_clear_bit(self, maddr: int, bit: int) -> bool:
        at, mask = maddr + (bit >> 3), 1 << (bit & 7)
        old = self.ram[at]
        self.ram[at] = old & ~mask & 0xFF
        return bool(old & mask)

    def compare_exchange_u32(self, maddr: int, old: int, new: int) -> int:
        seen = int.from_bytes(self.read(maddr, 4), "little")
        if seen == old:
            self.write(maddr, new.to_bytes(4, "little"))
        return seen

    def create_domain(self, domid: int, *, is_32bit: bool = False) -> "FakeDomain":
        return FakeDomain(self, domid, is_32bit)

    def frame_info(self, mfn: int) -> FakeFrameInfo:
        return FakeFrameInfo(self.owners.get(mfn), 1 + (mfn in self.mapped))

    def audit(self) -> list[str]:
        return []


class FakeDomain:
    def __init__(self, machine: FakeMachine, domid: int, is_32bit: bool) -> None:
        self.machine, self.domid, self.is_32bit = machine, domid, is_32bit
        self.refs: dict[tuple[int, bool], int] = {}
        self.m2p: dict[int, int] = {}
        self.page_tables: set[int] = set()
        """Frames that cannot be had writable."""
        self.destroyed = False

    @property
    def frames_owned(self) -> int:
        return sum(owner == self.domid for owner in self.machine.owners.values())

    def _take(self, count: int) -> list[int]:
        if count > len(self.machine.free):
            raise _module().MachineError("no free machine frames")
        return [self.machine.free.pop() for _ in range(count)]

    def alloc(self, count: int) -> list[int]:
        mfns = self._take(count)
        self.machine.owners.update(dict.fromkeys(mfns, self.domid))
        return mfns

    def alloc_extent(self, order: int, *, below: int = 1 << 64) -> int | None:
        free = set(self.machine.free)
        for base in range(0, min(below, self.machine.frames) - (1 << order) + 1, 1 << order):
            frames = range(base, base + (1 << order))
            if free.issuperset(frames):
                self.machine.free = [mfn for mfn in self.machine.free if mfn not in frames]
                self.machine.owners.update(dict.fromkeys(frames, self.domid))
                return base
        return None

    def release(self, mfn: int) -> int:
        if self.machine.owners.get(mfn) != self.domid:
            return -EINVAL
        del self.machine.owners[mfn]
        self.machine.free.append(mfn)
        return 0

    def share_hypervisor_frames(self, count: int) -> list[int]:
        mfns = self._take(count)
        self.machine.shared.update(dict.fromkeys(mfns, self.domid))
        return mfns

    def m2p_set(self, mfn: int, pfn: int) -> int:
        if self.machine.owners.get(mfn) != self.domid:
            return -EINVAL
        self.m2p[mfn] = pfn
        return 0

    def get_ref(self, mfn: int, *, writable: bool) -> int:
        if self.machine.owners.get(mfn) != self.domid or (writable and mfn in self.page_tables):
            return -EINVAL
        self.refs[mfn, writable] = self.refs.get((mfn, writable), 0) + 1
        return 0

    def put_ref(self, mfn: int, *, writable: bool) -> None:
        self.refs[mfn, writable] -= 1
        if self.refs[mfn, writable] == 0:
            del self.refs[mfn, writable]

    def outside_refs(self) -> list[tuple[int, int, int]]:
        return [
            (m, self.refs.get((m, False), 0), self.refs.get((m, True), 0)) for m in sorted({m for m, _ in self.refs})
        ]

    def host_mapped(self, mfn: int) -> None:
        pass

    def hold(self, mfn: int) -> int:
        return -EINVAL if mfn in self.page_tables else 0

    def create_vcpu(self, vcpu_id: int) -> "FakeVcpu":
        return FakeVcpu(self, vcpu_id)

    def destroy(self) -> int:
        self.destroyed = True
        left = sum(self.refs.values())
        for mfn in [m for m, owner in self.machine.owners.items() if owner == self.domid]:
            self.release(mfn)
        for mfn in [m for m, owner in self.machine.shared.items() if owner == self.domid]:
            del self.machine.shared[mfn]
            self.machine.free.append(mfn)
        return left


@dataclass
class FakeVcpu:
    """Registers are a dict; what the hypervisor sets is kept in attributes of the same name."""

    domain: FakeDomain
    vcpu_id: int
    regs: dict[str, int] = field(default_factory=dict)
    traps: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    callbacks: dict[str, tuple[int, int, bool]] = field(default_factory=dict)
    bases: dict[str, int] = field(default_factory=lambda: {"kernel": 0, "user": 0})
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    exits: list[Any] = field(default_factory=list)
    """What `run` gives, in turn; then ExitInterrupted."""
    read_only: set[int] = field(default_factory=set)
    injected: list[tuple[int, int | None]] = field(default_factory=list)
    result: int | None = None
    restarted: bool = False
    skipped: int = 0
    notified: int = 0
    kicked: int = 0
    instructions: int = 0
    guest_kernel: bool = True
    ts: bool = False
    cr4: int = 0x660
    nmis: int = 0
    base_rc: int = 0

    # --- tests' side

    @property
    def va_base(self) -> int:
        return VA_BASE_32 if self.domain.is_32bit else VA_BASE

    def place(self, data: bytes, offset: int = 0) -> int:
        """Puts `data` into a fresh frame of the guest and returns its virtual address."""
        (mfn,) = self.domain.alloc(1)
        self.domain.machine.write(mfn * PAGE + offset, data)
        return self.va_base + mfn * PAGE + offset

    def peek(self, va: int, length: int) -> bytes:
        return self.read_va(va, length)

    # --- the machine's side

    def run(self, budget: int, deadline_ns: int = 0) -> Any:
        return self.exits.pop(0) if self.exits else ExitInterrupted()

    def kick(self) -> None:
        self.kicked += 1

    def notify(self) -> None:
        self.notified += 1

    def hypercall_return(self, rc: int) -> None:
        self.result = rc

    def hypercall_restart(self) -> None:
        self.restarted = True

    def skip(self, length: int) -> None:
        self.skipped += length

    def inject(self, vector: int, error_code: int | None = None, cr2: int = 0) -> None:
        self.injected.append((vector, error_code))

    def registers(self) -> dict[str, int]:
        return dict(self.regs)

    def get_reg(self, name: str) -> int:
        return self.regs.get(name, 0)

    def set_reg(self, name: str, value: int) -> None:
        self.regs[name] = value

    def set_trap(self, vector: int, cs: int, address: int, flags: int) -> None:
        self.traps[vector] = (cs, address, flags)

    def get_trap(self, vector: int) -> tuple[int, int, int]:
        return self.traps.get(vector, (0, 0, 0))

    def set_callback(self, kind: str, cs: int, address: int, mask_events: bool) -> None:
        self.callbacks[kind] = (cs, address, mask_events)

    def get_base(self, kind: str) -> int:
        return self.bases[kind]

    def set_base(self, kind: str, mfn: int) -> int:
        if self.base_rc == 0:
            self.bases[kind] = mfn
        return self.base_rc

    def set_cr0_ts(self, ts: bool) -> None:
        self.ts = ts

    def get_cr0_ts(self) -> bool:
        return self.ts

    def get_debug_reg(self, index: int) -> int | None:
        return 0x100 + index if index < 8 else None

    def set_debug_reg(self, index: int, value: int) -> int:
        self.calls.append(("set_debug_reg", index, value))
        return -19 if index > 7 else -1 if index < 4 and value >> 47 else 0

    def set_cr4(self, value: int) -> None:
        self.cr4 = value

    def get_cr4(self) -> int:
        return self.cr4

    def send_nmi(self) -> None:
        self.nmis += 1

    def page_walk(self, va: int) -> list[tuple[int, int, int, int]]:
        return [(4, 7, va >> 39 & 511, 0)]

    def _maddr(self, va: int, length: int) -> int:
        machine = self.domain.machine
        for page in range(va // PAGE, (va + length - 1) // PAGE + 1):
            mfn = page - self.va_base // PAGE
            if machine.owners.get(mfn) != self.domain.domid:
                raise _module().GuestFault(va)
        return va - self.va_base

    def read_va(self, va: int, length: int) -> bytes:
        return self.domain.machine.read(self._maddr(va, length), length)

    def write_va(self, va: int, data: bytes) -> None:
        maddr = self._maddr(va, len(data))
        if maddr // PAGE in self.read_only:
            raise _module().GuestFault(va)
        self.domain.machine.write(maddr, data)

    def __getattr__(self, name: str) -> Any:
        """Everything else is recorded and succeeds: set_gdt, mmu_update, set_vcpu_info, ..."""
        if name.startswith("__"):
            raise AttributeError(name)

        def record(*args: Any, **_kwargs: Any) -> Any:
            self.calls.append((name.removesuffix("_part"), *args))
            return (0, None) if name.endswith("_part") else None if name == "iret" else 0

        return record


_machine = _module()
GuestFault = _machine.GuestFault


def make_host(frames: int = 512) -> Any:
    """A host on a fake machine with virtual time that only tests move."""
    from domzero.hypervisor.clock import VirtualClock
    from domzero.hypervisor.host import Host

    lines: list[str] = []
    host = Host(1, clock=VirtualClock(), machine=FakeMachine(frames), log=lines.append)  # type: ignore[arg-type]
    host.log_lines = lines  # type: ignore[attr-defined]
    return host


def make_domain(host: Any, **spec: Any) -> Any:
    """A domain whose vCPU 0 counts as built; nothing runs until a test lets it."""
    from domzero.hypervisor.domain import DomainSpec

    domain = host.create_domain(DomainSpec(max_pages=spec.pop("max_pages", 64), **spec))
    domain.vcpus[0].is_initialised = True
    domain.vcpus[0].is_down = False
    domain.pause_count = 0
    return domain


def hypercall(vcpu: Any, nr: int, *args: int) -> int:
    """Makes a hypercall and returns what the guest sees; follows continuations."""
    from domzero.hypervisor import hypercalls

    full = tuple(args) + (0,) * (6 - len(args))
    names = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
    if vcpu.domain.is_32bit:
        names = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp")
    for name, value in zip(names, full, strict=True):
        vcpu.hw.set_reg(name, value)
    while True:
        vcpu.hw.restarted, vcpu.hw.result = False, None
        hypercalls.dispatch(vcpu, nr, tuple(vcpu.hw.get_reg(name) for name in names))
        if not vcpu.hw.restarted:
            return int(vcpu.hw.result or 0)
