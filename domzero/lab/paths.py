# SPDX-License-Identifier: Apache-2.0
"""`domzero lab syscall` and `page-fault`: the way from an application into its kernel and back, instruction by
instruction, on a bare machine and in a PV guest."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from domzero._machine import Base, Outcome
from domzero.abi.arch_x86 import trap_info
from domzero.abi.x86 import PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, PTE_RW, PTE_USER, TABLE_ENTRIES, Vector, table_index
from domzero.abi.xen import PAGE_SIZE, Hypercall, MmuExt, UvmFlags
from domzero.lab import paths32
from domzero.lab.document import Document
from domzero.lab.guest import KERNEL_CS, KERNEL_SS, PvGuest
from domzero.lab.hops import FAULT_VA, IF, STACK_TOP, STACK_VA, Hop, State, text_at, trace
from domzero.lab.listing import VIRT_BASE, listing
from domzero.lab.native import APP_VA, USER, WRITABLE, NativeMachine

if TYPE_CHECKING:
    from domzero._machine import Register

_GS_VA = 0xFFFF_FFFF_C000_8000
_TABLE_PFN = 0x300
"""Pages of the PV kernel that become its application's page tables, and what they map."""
_ENTRY_RO = PTE_PRESENT | PTE_USER | PTE_ACCESSED | PTE_DIRTY
_ENTRY_RW = _ENTRY_RO | PTE_RW
_LIMIT = 100


def syscall() -> Document:
    """The lesson on system calls."""
    return _lesson(
        "A system call: from the application to its kernel and back",
        "The application asks for its process number (32-bit: by int $0x80). All three kernels answer 4711.",
        "app_syscall",
        "app_after_syscall",
    )


def page_fault() -> Document:
    """The lesson on page faults."""
    return _lesson(
        "A page fault: from the application to its kernel and back",
        f"The application stores 42 at {FAULT_VA:#x}, where nothing is mapped. Its kernel has a page for it: it fills "
        "in the entry, and the instruction is made again.",
        "app_fault",
        "app_after_fault",
    )


def _lesson(title: str, about: str, first: str, last: str) -> Document:
    doc = Document()
    doc.heading(title, 1)
    doc.paragraph(about)
    native, answer = _native(first, last)
    doc.heading("Natively: ring 3 to ring 0, one set of page tables")
    _show(doc, native)
    pv, pv_answer = _pv(first, last)
    doc.heading("As a 64-bit PV guest: ring 3 to Xen to ring 3 (the kernel), another set of page tables, and back")
    _show(doc, pv)
    pv32, pv32_answer = paths32.run(first, last)
    doc.heading("As a 32-bit PV guest: ring 3 to ring 1 (the kernel), one set of page tables, as rings were meant")
    _show(doc, pv32)
    doc.heading("Side by side")
    rows = []
    for name, hops in (("natively", native), ("64-bit PV guest", pv), ("32-bit PV guest", pv32)):
        kernel = [hop for hop in hops if hop.who == "kernel"]
        switches = sum(note.startswith("page tables") for hop in hops for note in hop.notes)
        count = sum(len(hop.instructions) for hop in kernel)
        entries = sum(hop.who in ("processor", "Xen") for hop in hops)
        rows.append((name, str(count), str(entries), str(switches)))
    doc.table(("", "kernel's instructions", "entries and exits", "page-table switches"), rows)
    if not answer == pv_answer == pv32_answer:
        raise ValueError(f"the kernels answer differently: {answer:#x}, {pv_answer:#x} and {pv32_answer:#x}")
    doc.paragraph(
        "Two page-table roots are what protects a 64-bit PV kernel from its applications, as both run in ring 3. A "
        "32-bit "
        "PV kernel has ring 1 for itself, and needs one."
    )
    ways = {"native": native, "pv": pv, "pv32": pv32}
    doc.data = {"answer": answer, **{name: [_json(hop) for hop in hops] for name, hops in ways.items()}}
    return doc


def _json(hop: Hop) -> dict[str, object]:
    return {
        "who": hop.who,
        "ring": hop.ring or None,
        "cs_ss": hop.selectors or None,
        "page_tables": hop.base or None,
        "instructions": hop.instructions,
        "notes": hop.notes,
    }


def _show(doc: Document, hops: list[Hop]) -> None:
    rows = []
    for hop in hops:
        for number, text in enumerate(hop.instructions):
            first = number == 0
            rows.append(
                (hop.who if first else "", hop.ring, hop.selectors if first else "", hop.base if first else "", text)
            )
        for number, note in enumerate(hop.notes):
            rows.append((f"{hop.who}:" if number == 0 else "", "", "", "", note))
    doc.table(("who", "ring", "cs:ss", "page tables", "instruction, or what happens"), rows)


# --- natively


def _native(first: str, last: str) -> tuple[list[Hop], int]:
    kernel, app = listing("bare"), listing("app")
    machine = NativeMachine(kernel)
    cpu = machine.cpu
    machine.map_bytes(APP_VA, app.image(), USER)
    machine.map_bytes(STACK_VA, b"", WRITABLE | USER)
    (spare,) = machine.map_bytes(_GS_VA + PAGE_SIZE, b"", WRITABLE)
    machine.map_bytes(_GS_VA, struct.pack("<Q", kernel_stack_top()), WRITABLE)
    machine.map_frame(FAULT_VA, 0, 0)
    entry = machine.entry_va(FAULT_VA)
    machine.set_gate(Vector.PF, kernel.address("page_fault"))
    cpu.set_reg("lstar", kernel.address("syscall_entry"))
    cpu.set_reg("fmask", IF)
    cpu.set_reg("kernel_gs_base", _GS_VA)
    cpu.set_reg("r12", entry)
    cpu.set_reg("r13", spare * PAGE_SIZE | 7)
    machine.enter_ring(3)
    cpu.set_reg("rflags", 2 | IF)
    cpu.set_reg("rsp", STACK_TOP)
    cpu.set_reg("rip", app.address(first))

    def look() -> State:
        r = cpu.registers()
        who = "kernel" if r["cpl"] == 0 else "application"
        return State(who, r["rip"], r["rsp"], r["cs"], r["ss"], r["cr3"], text_at((kernel, app), r["rip"]))

    def steps() -> Iterator[list[str]]:
        for _ in range(_LIMIT):
            text, ring = look().text, cpu.get_reg("cpl")
            step = cpu.step()
            notes = []
            if step.outcome == Outcome.ENTERED:
                words = struct.unpack("<6Q", cpu.read_va(cpu.get_reg("rsp"), 48))
                notes = [
                    f"#PF: error code {step.error_code}, CR2 = {step.cr2:x}; "
                    "IDT entry 14 says where, the TSS which stack",
                    f"pushes error code {words[0]:x}, rip {words[1]:x}, cs {words[2]:x}, rflags {words[3]:x}, rsp "
                    f"{words[4]:x}, ss {words[5]:x}",
                ]
            elif text == "syscall":
                notes = [
                    f"rip to rcx ({cpu.get_reg('rcx'):x}), rflags to r11 ({cpu.get_reg('r11'):x}), LSTAR to rip; "
                    "nothing is pushed"
                ]
            elif step.outcome == Outcome.EXECUTED and cpu.get_reg("cpl") != ring:
                notes = ["back, with everything from rcx and r11" if text == "sysretq" else "back, by the frame"]
            elif step.outcome != Outcome.EXECUTED:
                raise ValueError(f"{text}: {step.reason or step.outcome}")
            yield notes

    hops = trace(look, steps(), app.address(last), "processor")
    return hops, _answer(cpu.get_reg("rax"), cpu.read_va(FAULT_VA, 8) if last == "app_after_fault" else b"")


def kernel_stack_top() -> int:
    """Where the native kernel's stack for system calls begins."""
    return _GS_VA + 2 * PAGE_SIZE


def _answer(rax: int, memory: bytes) -> int:
    return int.from_bytes(memory, "little") if memory else rax


# --- as a PV guest


def _pv(first: str, last: str) -> tuple[list[Hop], int]:
    guest = PvGuest(listing("pv64"))
    try:
        return _run_pv(guest, first, last)
    finally:
        guest.close()


class _Application:
    """Page tables for the application, made and pinned by hypercalls as a kernel makes them."""

    def __init__(self, guest: PvGuest) -> None:
        self.guest = guest
        self._next = VIRT_BASE + _TABLE_PFN * PAGE_SIZE
        code, stack, self.spare = self._page(listing("app").image()), self._page(b""), self._page(b"")
        l1 = self._table(
            {table_index(APP_VA, 1): code | PTE_PRESENT | PTE_USER, table_index(STACK_VA, 1): stack | _ENTRY_RW}
        )
        self.l1 = l1
        l2 = self._table({table_index(APP_VA, 2): l1 | _ENTRY_RW})
        l3 = self._table({0: l2 | _ENTRY_RW})
        self.root = self._table({0: l3 | _ENTRY_RW}) // PAGE_SIZE
        for command in (MmuExt.MMUEXT_PIN_L4_TABLE, MmuExt.MMUEXT_NEW_USER_BASEPTR):
            _check(guest.mmuext(command, self.root), command.name)

    def _page(self, data: bytes) -> int:
        """Machine address of the next page, with `data` in it."""
        va = self._next
        self._next += PAGE_SIZE
        self.guest.hw.write_va(va, data)
        return self.guest.frame_of(va) * PAGE_SIZE

    def _table(self, entries: dict[int, int]) -> int:
        words = [entries.get(index, 0) for index in range(TABLE_ENTRIES)]
        va = self._next
        maddr = self._page(struct.pack(f"<{TABLE_ENTRIES}Q", *words))
        rc = self.guest.hypercall(Hypercall.HYPERVISOR_update_va_mapping, va, maddr | _ENTRY_RO, UvmFlags.UVMF_INVLPG)
        _check(rc, "update_va_mapping")
        return maddr


def _check(rc: int, what: str) -> None:
    if rc:
        raise ValueError(f"{what}: {rc}")


def _set_up(guest: PvGuest) -> _Application:
    """What a PV kernel does at its start: handlers, stack, shared_info, its application's page tables."""
    kernel, hw = guest.program, guest.hw
    rw = guest.domain.shared_info_maddr | _ENTRY_RW
    shared = kernel.address("shared_info")
    _check(
        guest.hypercall(Hypercall.HYPERVISOR_update_va_mapping, shared, rw, UvmFlags.UVMF_INVLPG), "update_va_mapping"
    )
    traps = bytes(trap_info(Vector.PF, 0, KERNEL_CS, kernel.address("page_fault")))
    hw.write_va(kernel.address("arguments"), traps + bytes(16))
    _check(guest.hypercall(Hypercall.HYPERVISOR_set_trap_table, kernel.address("arguments")), "set_trap_table")
    entry = kernel.address("syscall_entry")
    _check(guest.hypercall(Hypercall.HYPERVISOR_set_callbacks, 0, 0, entry), "set_callbacks")
    top = kernel.address("kernel_stack_top")
    _check(guest.hypercall(Hypercall.HYPERVISOR_stack_switch, KERNEL_SS, top), "stack_switch")
    return _Application(guest)


def _run_pv(guest: PvGuest, first: str, last: str) -> tuple[list[Hop], int]:
    kernel, app, hw = guest.program, listing("app"), guest.hw
    application = _set_up(guest)
    guest.vcpu.info.upcall_mask = False
    hw.guest_kernel = False
    entry = application.l1 + table_index(FAULT_VA, 1) * 8
    start: dict[Register, int] = {
        "rip": app.address(first),
        "rsp": STACK_TOP,
        "cs": KERNEL_CS,
        "ss": KERNEL_SS,
        "rflags": 2 | IF,
    }
    start |= {"r12": entry, "r13": application.spare | _ENTRY_RW}
    for name, value in start.items():
        hw.set_reg(name, value)

    def look() -> State:
        r = hw.registers()
        in_kernel = hw.guest_kernel
        base = hw.get_base(Base.KERNEL if in_kernel else Base.USER) * PAGE_SIZE
        text = text_at((kernel, app), r["rip"])
        return State("kernel" if in_kernel else "application", r["rip"], r["rsp"], r["cs"], r["ss"], base, text)

    def steps() -> Iterator[list[str]]:
        for _ in range(_LIMIT):
            before = look()
            number = hw.get_reg("rax")
            event = guest.step()
            entered = hw.guest_kernel and before.who == "application"
            if entered:
                yield _bounce(guest, before)
            elif before.text == "syscall" and not hw.guest_kernel:
                yield [f"HYPERVISOR_iret ({number}): takes struct iret_context off the kernel's stack, and goes there"]
            elif event.kind == "hypercall":
                yield [f"{event.what} ({number}): the new entry is checked, counted and written; result {event.result}"]
            elif event.kind == "executed":
                yield []
            else:
                raise ValueError(f"{before.text}: {event}")

    hops = trace(look, steps(), app.address(last), "Xen")
    memory = guest.host.machine.read(application.spare, 8) if last == "app_after_fault" else b""
    return hops, _answer(hw.get_reg("rax"), memory)


def _bounce(guest: PvGuest, before: State) -> list[str]:
    hw = guest.hw
    names = ["rcx", "r11", "rip", "cs", "rflags", "rsp", "ss"]
    first = "syscall enters Xen in ring 0, which finds an application running: the kernel's callback is due"
    if before.text != "syscall":
        names.insert(2, "error code")
        first = f"#PF enters Xen in ring 0: not a page table of Xen's; CR2 = {hw.get_reg('cr2'):x} into vcpu_info"
    words = struct.unpack(f"<{len(names)}Q", hw.read_va(hw.get_reg("rsp"), 8 * len(names)))
    frame = ", ".join(f"{name} {word:x}" for name, word in zip(names, words, strict=True))
    return [first, f"pushes onto the kernel's stack: {frame}"]
