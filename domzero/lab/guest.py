# SPDX-License-Identifier: Apache-2.0
"""A PV domain that is run one instruction at a time, with what the hypervisor did for each."""

from __future__ import annotations

from dataclasses import dataclass

from domzero import _machine
from domzero.abi.arch_x86 import FLAT_COMPAT_RING1_CS, FLAT_COMPAT_RING1_DS, FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
from domzero.abi.layout import layout_for
from domzero.abi.x86 import Vector
from domzero.abi.xen import DOMID_SELF, PAGE_SIZE, Hypercall, VmAssistType, mmu_update, mmuext_op
from domzero.builder.image import KernelImage, parse_kernel
from domzero.dom0.config import DomainConfig
from domzero.guest.guest import Guest
from domzero.guest.start import Start
from domzero.hypervisor.crash import report_fault
from domzero.hypervisor.timekeeping import LAST_DEADLINE_NS
from domzero.hypervisor.vcpu_thread import handle_exit
from domzero.lab.listing import Listing

PAGES = 2048
KERNEL_CS, KERNEL_SS = FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
KERNEL_CS_32, KERNEL_SS_32 = FLAT_COMPAT_RING1_CS, FLAT_COMPAT_RING1_DS
_TRAPS = 0x40_0000
"""Handlers that only tell their vector by where they are: 16 bytes each. Never run."""
_ARGUMENTS: dict[int, tuple[_machine.Register, ...]] = {
    64: ("rdi", "rsi", "rdx", "r10", "r8", "r9"),
    32: ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
}
_TRAP_SIZE = 16
VECTORS = 256
FREE_VECTORS = (Vector.BP, Vector.OF, 0x80)


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
    """A guest with one vCPU and a lab program as its kernel. Its thread is never started: `step` runs it here, as the
    lessons are about each way out of the processor, which `Guest.step` deals with by itself."""

    def __init__(self, program: Listing, *, traps: bool = True, image: KernelImage | None = None) -> None:
        self.program = program
        self.bits = program.bits
        wide = self.bits == 64
        self.kernel_cs, self.kernel_ss = (KERNEL_CS, KERNEL_SS) if wide else (KERNEL_CS_32, KERNEL_SS_32)
        self._traps_va = program.virt_base + _TRAPS
        self.log: list[str] = []
        pages = PAGES if image is None else 24576
        kernel = image or parse_kernel(program.elf(), program.name)
        config = DomainConfig(kernel=program.name, name=program.name, memory_mib=pages * PAGE_SIZE >> 20, seed=1)
        self.guest = Guest(Start(config, self.log.append, virtual_time=True, image=kernel), self.log)
        self.domain = self.guest.domain
        self.host = self.domain.host
        self.vcpu = self.domain.vcpus[0]
        self.hw = self.vcpu.hw
        self.hw.set_fast_hypercalls(False)
        self.domain.vm_assist = 1 << VmAssistType.VMASST_TYPE_writable_pagetables  # as Linux asks at its start
        self._last_fault: _machine.ExitFault | None = None
        if traps:
            for vector in range(VECTORS):
                dpl = 3 if vector in FREE_VECTORS else 0
                self.hw.set_trap(vector, self.kernel_cs, self._traps_va + _TRAP_SIZE * vector, dpl)

    def close(self) -> None:
        """Gives everything back."""
        self.guest.close()

    # --- running

    def step(self) -> Event:
        """Runs one instruction, with whatever the hypervisor does about it."""
        with self.host.lock:
            exit_ = self.hw.run(1, LAST_DEADLINE_NS)
            match exit_:
                case _machine.ExitBudget() | _machine.ExitDeadline() | _machine.ExitInterrupted():
                    return self._delivered() or Event("executed")
                case _machine.ExitHypercall(nr, _):
                    handle_exit(self.vcpu, exit_)
                    return Event("hypercall", _hypercall_name(nr), result=self._result())
                case _machine.ExitFault(vector, error_code, _, reason):
                    self._last_fault = exit_
                    return Event("crash", reason, vector, error_code)
                case _machine.ExitUnsupported(reason):
                    return Event("crash", reason)
                case _:
                    kind = type(exit_).__name__.removeprefix("Exit").lower()
                    self.vcpu.has_injected = False
                    handle_exit(self.vcpu, exit_)
                    if not self.vcpu.has_injected:
                        return Event("emulated", kind)
                    crash = self.hw.run(0, LAST_DEADLINE_NS)
                    if isinstance(crash, _machine.ExitFault):
                        self._last_fault = crash
                        return Event("crash", crash.reason, crash.vector, crash.error_code)
                    return self._delivered() or Event("trap", kind)

    def crash_report(self) -> list[str]:
        """What Xen would print about the last fault that could not be delivered."""
        if self._last_fault is not None:
            self.log.clear()
            report_fault(self.vcpu, self._last_fault)
        return list(self.log)

    def _delivered(self) -> Event | None:
        """Whether the guest kernel has just been entered for an exception."""
        at = self.hw.get_reg("rip") - self._traps_va
        if not 0 <= at < VECTORS * _TRAP_SIZE:
            return None
        vector = at // _TRAP_SIZE
        has_code = vector in (8, 10, 11, 12, 13, 14, 17)
        above = 16 if self.bits == 64 else 0  # rcx and r11
        frame = self.hw.read_va(self.hw.get_reg("rsp") + above, 4)
        code = int.from_bytes(frame, "little") if has_code else None
        return Event("trap", vector=vector, error_code=code)

    # --- hypercalls that prepare a lesson, made as the guest kernel

    def hypercall(self, nr: Hypercall, *arguments: int) -> int:
        """Makes the hypercall instruction at label `hypercall`; its result. Registers are kept."""
        saved = self.hw.registers()
        names = _ARGUMENTS[self.bits]
        for name, value in zip(names, arguments, strict=False):
            self.hw.set_reg(name, value & (1 << self.bits) - 1)
        self.hw.set_reg("rax", nr)
        self.hw.set_reg("rip", self.program.address("hypercall"))
        self.step()
        result = self._result()
        changed: tuple[_machine.Register, ...] = ("rax", "rcx", "r11", "rip", *names)
        for name in changed:
            self.hw.set_reg(name, saved[name])
        return result

    def mmuext(self, command: int, mfn: int) -> int:
        """MMUEXT_* on one frame."""
        at = self.program.address("arguments")
        self.hw.write_va(at, bytes(layout_for(mmuext_op, self.bits == 32)(command, mfn)))
        return self.hypercall(Hypercall.HYPERVISOR_mmuext_op, at, 1, 0, DOMID_SELF)

    def mmu_update(self, pointer: int, value: int) -> int:
        """One page-table entry."""
        at = self.program.address("arguments")
        self.hw.write_va(at, bytes(mmu_update(pointer, value)))
        return self.hypercall(Hypercall.HYPERVISOR_mmu_update, at, 1, 0, DOMID_SELF)

    def _result(self) -> int:
        value = self.hw.get_reg("rax") & (1 << self.bits) - 1
        return value - (1 << self.bits) if value >> self.bits - 1 else value

    # --- memory

    def frame_of(self, va: int) -> int:
        """Machine frame behind an address of the kernel."""
        return self.guest.virtual.to_machine(va) // PAGE_SIZE

    def entry_address(self, va: int) -> int:
        """Machine address of the L1 entry of `va`."""
        entry = self.guest.page_walk(va).entries[-1]
        if entry.level != 1:
            raise ValueError(f"{va:#x} has no L1 entry")
        return entry.table_mfn * PAGE_SIZE + entry.index * 8

    def va_of(self, mfn: int) -> int:
        """Where the kernel's initial mapping shows a frame."""
        return self.program.virt_base + self.guest.machine.to_physical(mfn * PAGE_SIZE)


def _hypercall_name(nr: int) -> str:
    try:
        return Hypercall(nr).name.removeprefix("HYPERVISOR_")
    except ValueError:
        return f"hypercall {nr}"
