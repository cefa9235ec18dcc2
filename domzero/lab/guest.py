"""A PV domain that is run one instruction at a time, with what the hypervisor did for each."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from domzero import _machine
from domzero.abi.xen import DOMID_SELF, PAGE_SIZE, Hypercall
from domzero.builder.image import KernelImage, parse_kernel
from domzero.builder.pv import Start, build_pv
from domzero.hypervisor.clock import VirtualClock
from domzero.hypervisor.crash import report_fault
from domzero.hypervisor.domain import Domain, DomainSpec
from domzero.hypervisor.host import Host
from domzero.hypervisor.vcpu import NEVER_NS
from domzero.lab.listing import VIRT_BASE, Listing

PAGES = 2048
KERNEL_CS, KERNEL_SS = 0xE033, 0xE02B
TRAPS_VA = VIRT_BASE + 0x40_0000
"""Handlers that only tell their vector by where they are: 16 bytes each. Never run."""
_TRAP_SIZE = 16
VECTORS = 256
FREE_VECTORS = (3, 4, 0x80)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one instruction.

    :param kind: `executed`, `hypercall`, `emulated`, `trap` (delivered to the guest kernel), `crash`.
    :param what: the hypercall or the kind of privileged instruction, or why it crashed.
    """

    kind: str
    what: str = ""
    vector: int | None = None
    error_code: int | None = None
    result: int | None = None


class PvGuest:
    """A domain with one vCPU and a lab program as its kernel. Its thread is never started: `step` runs it."""

    def __init__(self, program: Listing, *, traps: bool = True, image: KernelImage | None = None) -> None:
        self.program = program
        self.log: list[str] = []
        pages = PAGES if image is None else 24576
        self.host = Host(pages * PAGE_SIZE >> 20, clock=VirtualClock(), seed=1, log=self.log.append)
        self.domain: Domain = self.host.create_domain(DomainSpec(max_pages=pages, vcpus=1))
        self.vcpu = self.domain.vcpus[0]
        self.hw = self.vcpu.hw
        start = Start(nr_pages=pages, shared_info=self.domain.shared_info_maddr, store_port=0, console_port=0)
        kernel = image or parse_kernel(program.elf(), program.name)
        self.built = build_pv(self.host.machine, self.domain.hw, self.hw, kernel, start, self.host.memory)
        self.hw.set_fast_hypercalls(False)
        self._last_fault: _machine.ExitFault | None = None
        if traps:
            for vector in range(VECTORS):
                self.hw.set_trap(vector, KERNEL_CS, TRAPS_VA + _TRAP_SIZE * vector, 3 if vector in FREE_VECTORS else 0)

    def close(self) -> None:
        """Gives everything back."""
        self.host.close()

    # --- running

    def step(self) -> Event:
        """Runs one instruction, with whatever the hypervisor does about it."""
        with self.host.lock:
            exit_ = self.hw.run(1, NEVER_NS)
            match exit_:
                case _machine.ExitBudget() | _machine.ExitDeadline() | _machine.ExitInterrupted():
                    return self._delivered() or Event("executed")
                case _machine.ExitHypercall(nr, _):
                    self.vcpu.handle_exit(exit_)
                    result = _signed(self.hw.get_reg("rax"))
                    return Event("hypercall", _hypercall_name(nr), result=result)
                case _machine.ExitPrivileged(kind):
                    self.vcpu.has_injected = False
                    self.vcpu.handle_exit(exit_)
                    if not self.vcpu.has_injected:
                        return Event("emulated", kind)
                    crash = self.hw.run(0, NEVER_NS)
                    if isinstance(crash, _machine.ExitFault):
                        self._last_fault = crash
                        return Event("crash", crash.reason, crash.vector, crash.error_code)
                    return self._delivered() or Event("trap", kind)
                case _machine.ExitFault(vector, error_code, _, reason):
                    self._last_fault = exit_
                    return Event("crash", reason, vector, error_code)
                case _machine.ExitUnsupported(reason):
                    return Event("crash", reason)
        raise AssertionError(f"an exit of an unknown kind: {exit_}")

    def crash_report(self) -> list[str]:
        """What Xen would print about the last fault that could not be delivered."""
        if self._last_fault is not None:
            self.log.clear()
            report_fault(self.vcpu, self._last_fault)
        return list(self.log)

    def _delivered(self) -> Event | None:
        """Whether the guest kernel has just been entered for an exception."""
        at = self.hw.get_reg("rip") - TRAPS_VA
        if not 0 <= at < VECTORS * _TRAP_SIZE:
            return None
        vector = at // _TRAP_SIZE
        has_code = vector in (8, 10, 11, 12, 13, 14, 17)
        code = struct.unpack("<Q", self.hw.read_va(self.hw.get_reg("rsp") + 16, 8))[0] if has_code else None
        return Event("trap", vector=vector, error_code=code)

    # --- hypercalls that prepare a lesson, made as the guest kernel

    def hypercall(self, nr: Hypercall, *arguments: int) -> int:
        """Makes the guest kernel's own `syscall` at label `hypercall`; its result. Registers are kept."""
        saved = self.hw.registers()
        names = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
        for name, value in zip(names, arguments, strict=False):
            self.hw.set_reg(name, value & (1 << 64) - 1)
        self.hw.set_reg("rax", nr)
        self.hw.set_reg("rip", self.program.address("hypercall"))
        self.step()
        result = _signed(self.hw.get_reg("rax"))
        for name in ("rax", "rcx", "r11", "rip", *names):
            self.hw.set_reg(name, saved[name])
        return result

    def mmuext(self, command: int, mfn: int) -> int:
        """MMUEXT_* on one frame."""
        at = self.program.address("arguments")
        self.hw.write_va(at, struct.pack("<IIQQ", command, 0, mfn, 0))
        return self.hypercall(Hypercall.HYPERVISOR_mmuext_op, at, 1, 0, DOMID_SELF)

    def mmu_update(self, pointer: int, value: int) -> int:
        """One page-table entry."""
        at = self.program.address("arguments")
        self.hw.write_va(at, struct.pack("<QQ", pointer, value))
        return self.hypercall(Hypercall.HYPERVISOR_mmu_update, at, 1, 0, DOMID_SELF)

    # --- memory

    def frame_of(self, va: int) -> int:
        """Machine frame behind an address of the kernel."""
        maddr = self.hw.translate(va)
        if maddr is None:
            raise ValueError(f"{va:#x} is not mapped")
        return maddr // PAGE_SIZE

    def entry_address(self, va: int) -> int:
        """Machine address of the L1 entry of `va`."""
        level, table, index, _ = self.hw.page_walk(va)[-1]
        if level != 1:
            raise ValueError(f"{va:#x} has no L1 entry")
        return table * PAGE_SIZE + index * 8

    def va_of(self, mfn: int) -> int:
        """Where the kernel's initial mapping shows a frame."""
        first, _ = self.host.machine.m2p
        (pfn,) = struct.unpack("<Q", self.host.machine.read(first * PAGE_SIZE + 8 * mfn, 8))
        return VIRT_BASE + int(pfn) * PAGE_SIZE


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _hypercall_name(nr: int) -> str:
    try:
        return Hypercall(nr).name.removeprefix("HYPERVISOR_")
    except ValueError:
        return f"hypercall {nr}"
