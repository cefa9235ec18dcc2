# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the compiled machine: memory, frames with owners and reference counts, registers. No CPU.

Guest virtual addresses are machine addresses of mapped frames plus `VA_BASE`, so a test places a structure with
`FakeVcpu.place` and gives its address to a hypercall.

What they offer is checked against the contract, `domzero/_machine.pyi`: tests/unit/test_fakes.py.
"""

import mmap
import os
import threading
from dataclasses import dataclass, field
from typing import Any

from fake_engine import FakeEngine
from fake_frames import FakeFrameInfo

from domzero import _machine
from domzero._machine import Base, Callback, GuestFault, Preempted, XenRefused
from domzero.abi.errno import Errno

PAGE = 4096
VA_BASE = 0x100000000
VA_BASE_32 = 0x10000000


def refusal(errno: Errno = Errno.EINVAL) -> XenRefused:
    """What the machine raises when it refuses."""
    error = XenRefused(int(errno), errno.name)
    error.errno = int(errno)
    return error


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
        self.is_dying = False
        self.vm_assist = 0
        self.searches = 0
        """How often the search for an extent does not end."""
        self.debts = 0
        """Rounds that `settle` takes."""
        self.debts_of: dict[int, int] = {}
        """Those that the release of a frame leaves."""

    @property
    def frames_owned(self) -> int:
        return sum(owner == self.domid for owner in self.machine.owners.values())

    def _take(self, count: int) -> list[int]:
        if count > len(self.machine.free):
            raise _machine.MachineError("no free machine frames")
        return [self.machine.free.pop() for _ in range(count)]

    def alloc(self, count: int) -> list[int]:
        mfns = self._take(count)
        self.machine.owners.update(dict.fromkeys(mfns, self.domid))
        return mfns

    def alloc_extent(self, order: int, *, below: int = 1 << 64) -> int | None:
        if self.searches:
            self.searches -= 1
            raise Preempted
        free = set(self.machine.free)
        for base in range(0, min(below, self.machine.frames) - (1 << order) + 1, 1 << order):
            frames = range(base, base + (1 << order))
            if free.issuperset(frames):
                self.machine.free = [mfn for mfn in self.machine.free if mfn not in frames]
                self.machine.owners.update(dict.fromkeys(frames, self.domid))
                return base
        return None

    @property
    def owes(self) -> bool:
        return self.debts > 0

    def settle(self) -> None:
        if self.debts:
            self.debts -= 1
            raise Preempted

    def release(self, mfn: int) -> None:
        if self.machine.owners.get(mfn) != self.domid:
            raise refusal()
        del self.machine.owners[mfn]
        self.machine.free.append(mfn)
        self.debts += self.debts_of.pop(mfn, 0)

    def share_hypervisor_frames(self, count: int) -> list[int]:
        mfns = self._take(count)
        self.machine.shared.update(dict.fromkeys(mfns, self.domid))
        return mfns

    def m2p_set(self, mfn: int, pfn: int) -> None:
        if self.machine.owners.get(mfn) != self.domid:
            raise refusal()
        self.m2p[mfn] = pfn

    def get_ref(self, mfn: int, *, writable: bool) -> None:
        if self.machine.owners.get(mfn) != self.domid or (writable and mfn in self.page_tables):
            raise refusal()
        self.refs[mfn, writable] = self.refs.get((mfn, writable), 0) + 1

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

    def hold(self, mfn: int) -> None:
        if mfn in self.page_tables:
            raise refusal()

    def create_grants(self, frames: int, maptrack_frames: int) -> "FakeGrantTable":
        self.share_hypervisor_frames(1)
        return FakeGrantTable(self)

    def create_events(self, shared_info: int, max_port: int, *, host_ends_above: bool) -> "FakeEventChannels":
        self.events = FakeEventChannels(self, shared_info)
        return self.events

    def create_vcpu(self, vcpu_id: int) -> "FakeVcpu":
        vcpu = FakeVcpu(self, vcpu_id)
        self.events.vcpus.append(vcpu)
        return vcpu

    def begin_end(self) -> None:
        self.is_dying = True

    def destroy(self) -> int:
        self.destroyed = True
        left = sum(self.refs.values())
        for mfn in [m for m, owner in self.machine.owners.items() if owner == self.domid]:
            self.release(mfn)
        for mfn in [m for m, owner in self.machine.shared.items() if owner == self.domid]:
            del self.machine.shared[mfn]
            self.machine.free.append(mfn)
        return left


class FakeGrantTable:
    """A table without grants: they are tested on the real machine (`real_host`)."""

    def __init__(self, domain: FakeDomain) -> None:
        self.domain = domain

    def other_refs(self) -> list[tuple[int, int, int]]:
        return self.domain.outside_refs()

    def close(self) -> None:
        pass


class FakeEventChannels:
    """Ports that are bound and get pending, for what sleeps and wakes: all else is tested on the real machine."""

    def __init__(self, domain: FakeDomain, shared_info: int) -> None:
        self.domain = domain
        self.shared_info = shared_info
        self.vcpus: list[FakeVcpu] = []
        self.targets: list[int] = [0]
        """Whom each port notifies; there is no port 0."""
        self.bound: dict[tuple[int, int], int] = {}

    def _bind(self, vcpu_id: int) -> int:
        self.targets.append(vcpu_id)
        return len(self.targets) - 1

    def _check(self, port: int) -> None:
        if not 0 < port < len(self.targets):
            raise refusal()

    def alloc_unbound(self, remote_domid: int) -> int:
        return self._bind(0)

    def bind_virq(self, virq: int, vcpu_id: int) -> int:
        self.bound[vcpu_id, virq] = self._bind(vcpu_id)
        return self.bound[vcpu_id, virq]

    def bind_ipi(self, vcpu_id: int) -> int:
        return self._bind(vcpu_id)

    def send_virq(self, vcpu_id: int, virq: int) -> None:
        if (port := self.bound.get((vcpu_id, virq))) is not None:
            self.set_pending(port)

    def set_pending(self, port: int) -> None:
        words = 128 if self.domain.is_32bit else 512
        machine, vcpu = self.domain.machine, self.vcpus[self.targets[port]]
        if machine.test_and_set_bit(self.shared_info + 2048, port):
            return
        if not machine.ram[self.shared_info + 2048 + words + port // 8] >> port % 8 & 1:
            machine.ram[vcpu.info + (4 if self.domain.is_32bit else 8)] |= 1
            self._mark(vcpu)
        for each in self.vcpus:
            if port in each.polls:
                each.unblock()

    def _mark(self, vcpu: "FakeVcpu") -> None:
        self.domain.machine.ram[vcpu.info] = 1
        vcpu.notify()
        vcpu.unblock()

    def is_pending(self, port: int) -> bool:
        self._check(port)
        return bool(self.domain.machine.ram[self.shared_info + 2048 + port // 8] >> port % 8 & 1)

    def block(self, vcpu_id: int) -> None:
        vcpu = self.vcpus[vcpu_id]
        self.domain.machine.ram[vcpu.info + 1] = 0
        vcpu.blocked = not self.domain.machine.ram[vcpu.info]

    def poll(self, vcpu_id: int, ports: list[int]) -> None:
        vcpu = self.vcpus[vcpu_id]
        if not any([self.is_pending(port) for port in ports]):
            vcpu.blocked, vcpu.polls = True, set(ports)

    def move_info(self, vcpu_id: int, maddr: int) -> None:
        vcpu = self.vcpus[vcpu_id]
        old = self.shared_info + vcpu_id * 64
        self.domain.machine.write(maddr, self.domain.machine.read(old, 64))
        at = 4 if self.domain.is_32bit else 8
        self.domain.machine.write(maddr + at, bytes([255]) * at)
        self._mark(vcpu)

    @property
    def frames(self) -> list[int]:
        return []

    def audit(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


@dataclass
class FakeVcpu(FakeEngine):
    """Registers are a dict; what the hypervisor sets is kept in attributes of the same name."""

    domain: FakeDomain
    vcpu_id: int
    regs: dict[str, int] = field(default_factory=dict)
    traps: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    callbacks: dict[Callback, tuple[int, int, bool]] = field(default_factory=dict)
    bases: dict[Base, int] = field(default_factory=lambda: {Base.KERNEL: 0, Base.USER: 0})
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
    cached_bytes: int = 0
    guest_kernel: bool = True
    ts: bool = False
    cr4: int = 0x660
    nmis: int = 0
    base_refusal: XenRefused | None = None
    """What set_base raises."""
    rounds: int = 0
    """How often what may take several rounds raises Preempted first."""
    timers: _machine.VcpuTimers = field(default_factory=_machine.VcpuTimers)
    is_up: bool = False
    blocked: bool = False
    polls: set[int] = field(default_factory=set)
    poked: threading.Event = field(default_factory=threading.Event)
    info: int = 0
    """Where its vcpu_info is."""

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
        return self.exits.pop(0) if self.exits else _machine.ExitInterrupted()

    def forget_cached(self) -> None:
        self.cached_bytes = 0

    def kick(self) -> None:
        self.kicked += 1

    def notify(self) -> None:
        self.notified += 1

    @property
    def is_blocked(self) -> bool:
        return self.blocked

    def unblock(self) -> None:
        if self.blocked:
            self.blocked, self.polls = False, set()
            self.poke()

    def poke(self) -> None:
        self.poked.set()

    def sleep(self, lock: _machine.BigLock, timeout_s: float | None = None) -> None:
        depth = lock._release_save()  # type: ignore[attr-defined]  # what threading.Condition calls
        self.poked.wait(timeout_s)
        lock._acquire_restore(depth)  # type: ignore[attr-defined]
        self.poked.clear()

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

    def set_callback(self, kind: Callback, cs: int, address: int, mask_events: bool) -> None:
        self.callbacks[kind] = (cs, address, mask_events)

    def get_base(self, kind: Base) -> int:
        return self.bases[kind]

    def _take_a_round(self) -> None:
        if self.rounds:
            self.rounds -= 1
            raise Preempted

    def set_base(self, kind: Base, mfn: int) -> None:
        self._take_a_round()
        if self.base_refusal is not None:
            raise self.base_refusal
        self.bases[kind] = mfn

    def set_cr0_ts(self, ts: bool) -> None:
        self.ts = ts

    def get_cr0_ts(self) -> bool:
        return self.ts

    def get_debug_reg(self, index: int) -> int | None:
        return 0x100 + index if index < 8 else None

    def set_debug_reg(self, index: int, value: int) -> None:
        self.calls.append(("set_debug_reg", index, value))
        if index > 7:
            raise refusal(Errno.ENODEV)
        if index < 4 and value >> 47:
            raise refusal(Errno.EPERM)

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
                raise GuestFault(va)
        return va - self.va_base

    def read_va(self, va: int, length: int) -> bytes:
        return self.domain.machine.read(self._maddr(va, length), length)

    def write_va(self, va: int, data: bytes) -> None:
        maddr = self._maddr(va, len(data))
        if maddr // PAGE in self.read_only:
            raise GuestFault(va)
        self.domain.machine.write(maddr, data)

    # --- recorded, and done

    def set_kernel_stack(self, ss: int, sp: int) -> None:
        self.calls.append(("set_kernel_stack", ss, sp))

    def set_vcpu_info(self, maddr: int) -> None:
        self.info = maddr
        self.calls.append(("set_vcpu_info", maddr))

    def set_segment_base(self, which: int, base: int) -> None:
        self.calls.append(("set_segment_base", which, base))

    def set_gdt(self, mfns: list[int], entries: int) -> None:
        self._take_a_round()
        self.calls.append(("set_gdt", mfns, entries))

    def set_ldt(self, va: int, entries: int) -> None:
        self.calls.append(("set_ldt", va, entries))

    def set_cpuid_faulting(self, on: bool) -> None:
        self.calls.append(("set_cpuid_faulting", on))

    def set_io_bitmap(self, va: int, ports: int) -> None:
        self.calls.append(("set_io_bitmap", va, ports))

    def set_cpuid(self, leaves: list[tuple[int, int | None, int, int, int, int]]) -> None:
        self.calls.append(("set_cpuid", leaves))

    def set_iopl(self, iopl: int) -> None:
        self.calls.append(("set_iopl", iopl))

    def load_fpu(self, image: bytes) -> None:
        self.calls.append(("load_fpu", image))

    def iret(self) -> str | None:
        self.calls.append(("iret",))
        return None

    def mmu_update_part(self, req_va: int, count: int, done_va: int, foreigndom: int) -> tuple[int, int] | None:
        self.calls.append(("mmu_update", req_va, count, done_va, foreigndom))
        return None

    def mmuext_op_part(self, op_va: int, count: int, done_va: int, foreigndom: int) -> tuple[int, int] | None:
        self.calls.append(("mmuext_op", op_va, count, done_va, foreigndom))
        return None

    def grant_table_op(self, command: int, va: int, count: int) -> tuple[int, int] | None:
        self.calls.append(("grant_table_op", command, va, count))
        return None

    def event_channel_op(self, command: int, va: int) -> int | None:
        self.calls.append(("event_channel_op", command, va))
        return None

    def vcpu_op(self, command: int, vcpu_id: int, va: int) -> int:
        self.calls.append(("vcpu_op", command, vcpu_id, va))
        return 0

    def set_timer_op(self, when_ns: int) -> None:
        self.calls.append(("set_timer_op", when_ns))

    def update_va_mapping(self, va: int, value: int, flags: int) -> None:
        self.calls.append(("update_va_mapping", va, value, flags))

    def update_va_mapping_otherdomain(self, va: int, value: int, flags: int, domid: int) -> None:
        self.calls.append(("update_va_mapping_otherdomain", va, value, flags, domid))

    def update_descriptor(self, maddr: int, descriptor: int) -> None:
        self.calls.append(("update_descriptor", maddr, descriptor))

    def set_fast_hypercalls(self, enabled: bool) -> None:
        self.calls.append(("set_fast_hypercalls", enabled))


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
