# SPDX-License-Identifier: Apache-2.0
"""The same ways in a 32-bit PV guest: its kernel in ring 1, its applications in ring 3, one set of page tables."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from domzero._machine import Base
from domzero.abi.arch_x86 import FLAT_COMPAT_RING3_CS, FLAT_COMPAT_RING3_DS, trap_info
from domzero.abi.x86 import PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, PTE_RW, PTE_USER, TABLE_ENTRIES, Vector, table_index
from domzero.abi.xen import PAGE_SIZE, Hypercall, UvmFlags
from domzero.lab.guest import KERNEL_CS_32, KERNEL_SS_32, PvGuest
from domzero.lab.hops import FAULT_VA, IF, STACK_TOP, STACK_VA, Hop, State, text_at, trace
from domzero.lab.listing import VIRT_BASE_32, listing
from domzero.lab.native import APP_VA

USER_CS, USER_SS = FLAT_COMPAT_RING3_CS, FLAT_COMPAT_RING3_DS
_TABLE_PFN = 0x300
_KERNEL_RO = PTE_PRESENT | PTE_ACCESSED
_PAGE_RO = _KERNEL_RO | PTE_USER
_PAGE_RW = _TABLE = _PAGE_RO | PTE_RW | PTE_DIRTY
_VECTOR_LINUX = 0x80
_LIMIT = 100


def run(first: str, last: str) -> tuple[list[Hop], int]:
    """The way from label `first` to label `last` of the application, and its answer."""
    guest = PvGuest(listing("pv32"))
    try:
        return _run(guest, first, last)
    finally:
        guest.close()


def _check(rc: int, what: str) -> None:
    if rc:
        raise ValueError(f"{what}: {rc}")


class _Application:
    """What the kernel makes for its application: an L2 and an L1 below a free slot of its own L3."""

    def __init__(self, guest: PvGuest) -> None:
        self.guest = guest
        self._next = VIRT_BASE_32 + _TABLE_PFN * PAGE_SIZE
        code, stack, self.spare = self._page(listing("app32").image()), self._page(b""), self._page(b"")
        entries = {table_index(APP_VA, 1): code | _PAGE_RO, table_index(STACK_VA, 1): stack | _PAGE_RW}
        self.l1 = self._table(entries)
        l2 = self._table({table_index(APP_VA, 2): self.l1 | _TABLE})
        slot = guest.hw.get_base(Base.KERNEL) * PAGE_SIZE + (APP_VA >> 30) * 8
        _check(guest.mmu_update(slot, l2 | PTE_PRESENT), "mmu_update of the L3")

    def _page(self, data: bytes) -> int:
        va = self._next
        self._next += PAGE_SIZE
        self.guest.hw.write_va(va, data)
        return self.guest.frame_of(va) * PAGE_SIZE

    def _table(self, entries: dict[int, int]) -> int:
        words = [entries.get(index, 0) for index in range(TABLE_ENTRIES)]
        va = self._next
        maddr = self._page(struct.pack(f"<{TABLE_ENTRIES}Q", *words))
        value = maddr | _KERNEL_RO
        nr = Hypercall.HYPERVISOR_update_va_mapping
        _check(self.guest.hypercall(nr, va, value & 0xFFFFFFFF, value >> 32, UvmFlags.UVMF_INVLPG), "update_va_mapping")
        return maddr


def _set_up(guest: PvGuest) -> _Application:
    kernel, hw = guest.program, guest.hw
    shared = guest.domain.shared_info_maddr | 0x63
    nr = Hypercall.HYPERVISOR_update_va_mapping
    rc = guest.hypercall(nr, kernel.address("shared_info"), shared & 0xFFFFFFFF, shared >> 32, UvmFlags.UVMF_INVLPG)
    _check(rc, "update_va_mapping of shared_info")
    traps = bytes(trap_info.compat(_VECTOR_LINUX, 3, KERNEL_CS_32, kernel.address("syscall_entry")))
    traps += bytes(trap_info.compat(Vector.PF, 0, KERNEL_CS_32, kernel.address("page_fault")))
    hw.write_va(kernel.address("arguments"), traps + bytes(8))
    _check(guest.hypercall(Hypercall.HYPERVISOR_set_trap_table, kernel.address("arguments")), "set_trap_table")
    top = kernel.address("kernel_stack_top")
    _check(guest.hypercall(Hypercall.HYPERVISOR_stack_switch, KERNEL_SS_32, top), "stack_switch")
    return _Application(guest)


def _enter_application(guest: PvGuest, rip: int) -> None:
    """`iret` to ring 3, from the kernel's own stack: ring 1 may do that itself."""
    kernel, hw = guest.program, guest.hw
    sp = kernel.address("kernel_stack_top") - 20
    hw.write_va(sp, struct.pack("<5I", rip, USER_CS, 2 | IF, STACK_TOP, USER_SS))
    hw.set_reg("rsp", sp)
    for name in ("ds", "es"):  # iret would clear segments of the kernel's
        hw.set_reg(name, USER_SS)
    irets = [line.address for line in kernel.lines.values() if line.text == "iret"]
    hw.set_reg("rip", irets[0])
    guest.step()
    if hw.get_reg("cs") != USER_CS:
        raise ValueError("the way into the application")


def _run(guest: PvGuest, first: str, last: str) -> tuple[list[Hop], int]:
    kernel, app, hw = guest.program, listing("app32"), guest.hw
    application = _set_up(guest)
    guest.vcpu.info.upcall_mask = False
    _enter_application(guest, app.address(first))
    hw.set_reg("rdi", application.l1 + table_index(FAULT_VA, 1) * 8)
    hw.set_reg("rbx", application.spare | _PAGE_RW)

    def look() -> State:
        r = hw.registers()
        who = "application" if r["cs"] & 3 == 3 else "kernel"
        base = hw.get_base(Base.KERNEL) * PAGE_SIZE
        return State(who, r["rip"], r["rsp"], r["cs"], r["ss"], base, text_at((kernel, app), r["rip"]))

    def steps() -> Iterator[list[str]]:
        for _ in range(_LIMIT):
            before = look()
            number = hw.get_reg("rax")
            event = guest.step()
            entered = before.who == "application" and look().who == "kernel"
            if entered:
                yield _bounce(guest, before)
            elif event.kind == "hypercall":
                yield [f"{event.what} ({number}): the new entry is checked, counted and written; result {event.result}"]
            elif before.text == "iret":
                yield ["back, by the frame: an iret from ring 1 to ring 3 needs no hypervisor"]
            elif event.kind == "executed":
                yield []
            else:
                raise ValueError(f"{before.text}: {event}")

    hops = trace(look, steps(), app.address(last), "Xen")
    for hop in hops:
        if any(note.startswith("back, by the frame") for note in hop.notes):
            hop.who = "processor"
    memory = guest.host.machine.read(application.spare, 8) if last == "app_after_fault" else b""
    return hops, int.from_bytes(memory, "little") if memory else hw.get_reg("rax")


def _bounce(guest: PvGuest, before: State) -> list[str]:
    hw = guest.hw
    names = ["eip", "cs", "eflags", "esp", "ss"]
    first = "int $0x80: the trap table says where, stack_switch which stack (on real Xen the gate leads straight there)"
    if not before.text.startswith("int"):
        names.insert(0, "error code")
        first = f"#PF enters Xen in ring 0: not a page table of Xen's; CR2 = {hw.get_reg('cr2'):x} into vcpu_info"
    words = struct.unpack(f"<{len(names)}I", hw.read_va(hw.get_reg("rsp"), 4 * len(names)))
    frame = ", ".join(f"{name} {word:x}" for name, word in zip(names, words, strict=True))
    return [first, f"pushes onto the kernel's stack, as a 32-bit processor would: {frame}"]
