# SPDX-License-Identifier: Apache-2.0
"""`domzero lab unported`: why a kernel that was not ported cannot be a PV guest, by running one."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, replace

from domzero._machine import Outcome
from domzero.abi.elfnote import ElfNote
from domzero.abi.x86 import X86_EFLAGS_IF, X86_EFLAGS_ZF, tss_descriptor
from domzero.builder.image import KernelImage, load_kernel
from domzero.builder.notes import XenNotes
from domzero.lab.document import Document
from domzero.lab.guest import Event, PvGuest
from domzero.lab.instructions import exception
from domzero.lab.listing import Listing, listing
from domzero.lab.native import NativeMachine

_LIMIT = 400
_COMPARED = ("rax", "rcx", "rdx", "rsp", "ds", "IF", "ZF")
IF, ZF = X86_EFLAGS_IF, X86_EFLAGS_ZF
_CRASH_LINES = 6
_KERNEL_STEPS = 100_000
_KERNEL_TRAPS = 24
_MAX_INSTRUCTION = 15


@dataclass(slots=True)
class Difference:
    """An instruction that is not the same under both."""

    address: int
    label: str
    text: str
    verdict: str
    what: str


def document(kernel: str | None = None) -> Document:
    """The lesson; with a file, about that kernel's native entry."""
    doc = Document()
    doc.heading("Why a kernel that was not ported cannot be a PV guest", 1)
    if kernel is not None:
        _foreign(doc, kernel)
        return doc
    program = listing("native")
    serial, instructions = _on_the_machine(program)
    doc.paragraph(
        "guests/lab/native.S does at its start what kernels do on a PC: its own GDT, IDT and TSS, critical sections "
        "with "
        "cli and popf, an MSR for system calls, a page-table entry, a line on the serial port. On the bare machine it "
        f"runs {instructions} instructions and halts; the serial port says {serial!r}."
    )
    doc.heading("As a PV guest")
    crash = _as_guest(program)
    doc.paragraph("Built into a domain and started, it does not survive its first instruction:")
    doc.lines(*crash)
    differences, same = _lock_step(program)
    doc.heading("As a PV guest, with every trap skipped")
    doc.paragraph(
        "Suppose that somebody had patched away all that traps. Both machines run it in step; where they part, the PV "
        "guest is put back on the way. traps: #GP, and nothing done. emulated: Xen does it. WRONG: no trap, but "
        "another "
        "state than on the machine, which nobody notices."
    )
    doc.table(
        ("in", "instruction", "", "what happens to the PV guest"),
        [(d.label, d.text, d.verdict, d.what) for d in differences],
    )
    counts = Counter(d.verdict.split()[0] for d in differences)
    doc.paragraph(
        f"{same} instructions did the same, {counts['traps']} trapped, {counts['emulated']} were emulated, and after "
        f"{counts['WRONG']} the state was wrong without a trap. Nothing came out of the serial port. Traps can be "
        "emulated by "
        "a hypervisor; what is wrong without a trap cannot. So the kernel is changed instead, to ask: that is "
        "paravirtualization."
    )
    doc.data = {
        "machine": {"instructions": instructions, "serial": serial},
        "crash": crash,
        "guest": {
            "same": same,
            "differences": [
                {"address": hex(d.address), "in": d.label, "instruction": d.text, "verdict": d.verdict, "what": d.what}
                for d in differences
            ],
        },
    }
    return doc


def _machine(program: Listing) -> NativeMachine:
    machine = NativeMachine(program)
    machine.cpu.write_va(program.address("tss_descriptor"), tss_descriptor(program.address("tss")))
    entry = machine.entry_va(program.address("last_page"))
    machine.cpu.write_va(program.address("entry_of_last_page"), struct.pack("<Q", entry))
    machine.cpu.set_reg("rflags", 2 | IF)
    return machine


def _guest(program: Listing, *, traps: bool) -> PvGuest:
    guest = PvGuest(program, traps=traps)
    guest.hw.write_va(program.address("tss_descriptor"), tss_descriptor(program.address("tss")))
    maddr = guest.entry_address(program.address("last_page"))
    entry = guest.va_of(maddr >> 12) | maddr & 0xFFF
    guest.hw.write_va(program.address("entry_of_last_page"), struct.pack("<Q", entry))
    return guest


def _on_the_machine(program: Listing) -> tuple[str, int]:
    machine = _machine(program)
    end = machine.cpu.run(_LIMIT)
    if end is None or end.outcome != Outcome.HALTED:
        raise ValueError(f"the native kernel ended with {end.outcome if end else 'its budget'}")
    return machine.cpu.output.decode("latin-1"), machine.cpu.instructions


def _as_guest(program: Listing) -> list[str]:
    guest = _guest(program, traps=False)
    try:
        for _ in range(_LIMIT):
            if guest.step().kind == "crash":
                return guest.crash_report()[:_CRASH_LINES]
    finally:
        guest.close()
    raise ValueError("the native kernel ran as a PV guest")


def _state(registers: dict[str, int]) -> dict[str, int]:
    flags = registers["rflags"]
    return registers | {"IF": int(flags & IF != 0), "ZF": int(flags & ZF != 0)}


def _lock_step(program: Listing) -> tuple[list[Difference], int]:
    machine, guest = _machine(program), _guest(program, traps=True)
    try:
        return _compare(program, machine, guest)
    finally:
        guest.close()


def _compare(program: Listing, machine: NativeMachine, guest: PvGuest) -> tuple[list[Difference], int]:
    cpu, hw = machine.cpu, guest.hw
    found: list[Difference] = []
    known: dict[str, int] = {}
    same = 0
    _follow(machine, guest)
    while True:
        rip = cpu.get_reg("rip")
        if rip == program.address("say"):
            _follow(machine, guest)
        line = program.line(rip)
        text = line.text if line is not None else "?"
        outcome = cpu.step().outcome
        rsp = hw.get_reg("rsp")
        event = guest.step()
        if event.kind in ("trap", "crash"):
            # Patched away: as if it were not there.
            hw.set_reg("rsp", rsp)
            hw.set_reg("rip", rip + (line.length if line is not None else 1))
        if outcome == Outcome.HALTED:
            found.append(Difference(rip, program.where(rip), text, "emulated", "done by Xen: the vCPU sleeps"))
            return found, same
        difference = _difference(program, rip, event, machine, guest, known)
        if difference is not None:
            found.append(replace(difference, address=rip, label=program.where(rip), text=text))
        else:
            same += 1
        if len(found) + same > _LIMIT or outcome != Outcome.EXECUTED:
            raise ValueError(f"the native kernel ended with {outcome}")


def _difference(
    program: Listing, rip: int, event: Event, machine: NativeMachine, guest: PvGuest, known: dict[str, int]
) -> Difference | None:
    native, pv = _state(machine.cpu.registers()), _state(guest.hw.registers())
    if native["rip"] != pv["rip"]:
        where = program.where(pv["rip"])
        _follow(machine, guest)
        return Difference(0, "", "", "WRONG", f"goes to {where}: the kernel has noticed, and gives up")
    # Values from the page tables differ and may: machine frame numbers, and where the tables are mapped.
    compared = _COMPARED if not program.address("paging") <= rip < program.address("say") else ("rsp", "ds", "IF")
    wrong = {name: pv[name] for name in compared if pv[name] != native[name]}
    new = {name: value for name, value in wrong.items() if known.get(name) != value}
    known.clear()
    known.update(wrong)
    shown = ", ".join(f"{name} is {value:x}, not {native[name]:x}" for name, value in new.items())
    if event.kind in ("trap", "crash"):
        fault = exception(event.vector or 0, event.error_code)
        return Difference(0, "", "", f"traps {fault}", shown or "not done")
    if event.kind == "emulated":
        return Difference(0, "", "", "emulated", shown or "done by Xen")
    return Difference(0, "", "", "WRONG", shown) if shown else None


def _follow(machine: NativeMachine, guest: PvGuest) -> None:
    """Puts the guest where the machine is: registers and flags, but IF, which a guest's code cannot change."""
    native = machine.cpu.registers()
    for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rbp", "rsp", "rip", "rflags"):
        guest.hw.set_reg(name, native[name] | IF if name == "rflags" else native[name])


# --- somebody else's kernel


def _native_entry(image: KernelImage) -> int:
    """Virtual address of the ELF header's entry point, which may be a physical one."""
    entry = image.elf.entry
    for segment in image.elf.loads():
        if segment.vaddr <= entry < segment.vaddr + segment.memsz:
            return entry
    for segment in image.elf.loads():
        if segment.paddr <= entry < segment.paddr + segment.memsz:
            return segment.vaddr + entry - segment.paddr
    return entry


def _foreign(doc: Document, path: str) -> None:
    image = load_kernel(path)
    entry = _native_entry(image)
    numbers = {**image.notes.numbers, int(ElfNote.ENTRY): entry}
    notes: XenNotes = replace(image.notes, numbers=numbers)
    pv_entry = image.entry
    doc.paragraph(
        f"{path} can be a PV guest: for that it has an entry of its own, at {pv_entry:#x}. Here it is started at the "
        "one "
        f"that it has for the bare machine, {entry:#x}, with every trap skipped, until it is lost."
    )
    rows, ran, end = _run_foreign(replace(image, notes=notes))
    doc.table(("after", "at", "bytes", "", "what"), rows)
    doc.paragraph(f"{ran} instructions; the end: {end}")
    doc.data = {
        "kernel": path,
        "native_entry": hex(entry),
        "pv_entry": hex(pv_entry),
        "instructions": ran,
        "end": end,
        "events": [dict(zip(("after", "at", "bytes", "verdict", "what"), row, strict=True)) for row in rows],
    }


def _run_foreign(image: KernelImage) -> tuple[list[tuple[str, ...]], int, str]:
    guest = PvGuest(listing("native"), image=image)
    hw = guest.hw
    rows: list[tuple[str, ...]] = []
    try:
        for count in range(_KERNEL_STEPS):
            rip, rsp = hw.get_reg("rip"), hw.get_reg("rsp")
            code = hw.read_va(rip, _MAX_INSTRUCTION) if hw.translate(rip) is not None else b""
            event = guest.step()
            if event.kind == "executed":
                continue
            if event.kind == "emulated":
                rows.append((str(count), hex(rip), code[:6].hex(" "), "emulated", event.what))
                continue
            fault = exception(event.vector or 0, event.error_code)
            rows.append((str(count), hex(rip), code[:6].hex(" "), f"traps {fault}", event.what))
            if event.vector != 13 or not code or len(rows) >= _KERNEL_TRAPS:
                return rows, count, f"{fault} at {rip:#x}, which no patch can skip"
            hw.set_reg("rsp", rsp)
            hw.set_reg("rip", rip + _length(code))
        return rows, _KERNEL_STEPS, f"still on its way, at {hw.get_reg('rip'):#x}, and nothing traps any more"
    finally:
        guest.close()


def _length(code: bytes) -> int:
    """Length of the privileged instructions that kernels begin with; 1 for those of one byte."""
    at = 1 if 0x40 <= code[0] <= 0x4F else 0
    if code[at] == 0x8E:  # mov to a segment register
        return at + 2
    if code[at] != 0x0F:
        return at + 1
    if code[at + 1] in (0x01, 0x00):  # lgdt, lidt, lldt, ltr
        mod, rm = code[at + 2] >> 6, code[at + 2] & 7
        extra = {0: 4 if rm == 5 else 0, 1: 1, 2: 4, 3: 0}[mod]
        return at + 3 + extra + (1 if rm == 4 and mod != 3 else 0)
    return at + (3 if code[at + 1] in range(0x20, 0x24) else 2)
