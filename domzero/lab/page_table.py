# SPDX-License-Identifier: Apache-2.0
"""`domzero lab page-table`: the same update of a page table by a native kernel and by a PV kernel, step by step."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from domzero._machine import FrameType, Outcome
from domzero.abi.errno import Errno
from domzero.abi.x86 import PTE_ACCESSED, PTE_DIRTY, PTE_FRAME_MASK, PTE_PRESENT, PTE_RW, PTE_USER
from domzero.abi.xen import PAGE_SIZE, Hypercall, MmuExt, UvmFlags
from domzero.lab.document import Document
from domzero.lab.guest import Event, PvGuest
from domzero.lab.instructions import exception
from domzero.lab.listing import listing
from domzero.lab.native import PRESENT, WRITABLE, NativeMachine

RW_ENTRY = PTE_PRESENT | PTE_RW | PTE_USER | PTE_ACCESSED | PTE_DIRTY
"""Present, writable, user, accessed, dirty: what the initial mapping has."""
RO_ENTRY = RW_ENTRY & ~PTE_RW
_NATIVE_PAGE = 0xFFFF_FFFF_E000_0000


@dataclass(slots=True)
class Step:
    """One row."""

    what: str
    how: str
    outcome: str
    state: dict[str, str]
    """Natively the entry and what a read sees; for a guest the counts of its frames."""


def document() -> Document:
    """The lesson."""
    doc = Document()
    doc.heading("One page-table update, natively and as a PV guest", 1)
    native = _native()
    doc.heading("Natively: the kernel owns its page tables (ring 0)")
    doc.paragraph(
        "One page of the kernel, and three frames: A, which it shows at first, B, with other contents, and the page "
        "table T itself. The entry is a word in memory: the kernel writes what it likes."
    )
    _table(doc, native, ("entry", "a read sees"))
    pv = _pv()
    doc.heading("As a PV guest: the kernel sees its page tables, and asks for changes (64-bit: ring 3)")
    doc.paragraph(
        "The guest's page tables are the ones that the processor uses, with machine frame numbers in them. So that the "
        "guest cannot give itself other domains' memory, Xen counts for each frame what it is used as: a frame is "
        "writable somewhere, or it is a page table, never both. In the columns: what each frame is (w: writable, l1: "
        "page "
        "table, -: neither), how often it is used as that / referred to at all; * is pinned. P is a page that "
        "becomes a "
        "page table. T itself is mapped read-only."
    )
    _table(doc, pv, ("A", "B", "T", "P"))
    doc.paragraph(
        "What was refused changed nothing. Xen's checks are the same in all three ways (a store that is emulated, "
        "mmu_update, update_va_mapping); they differ in what they cost: a trap per entry, or a hypercall for many."
    )
    doc.data = {"native": [_json(step) for step in native], "pv": [_json(step) for step in pv]}
    return doc


def _table(doc: Document, steps: list[Step], columns: tuple[str, ...]) -> None:
    rows = []
    for number, step in enumerate(steps, 1):
        state = (step.state.get(column, "") for column in columns)
        rows.append((str(number), step.what, step.how, step.outcome, *state))
    doc.table(("", "what the kernel does", "how", "outcome", *columns), rows)


def _json(step: Step) -> dict[str, object]:
    return {"what": step.what, "how": step.how, "outcome": step.outcome, "state": step.state}


# --- natively


def _native() -> list[Step]:
    program = listing("bare")
    machine = NativeMachine(program)
    cpu = machine.cpu
    (a,) = machine.map_bytes(_NATIVE_PAGE, b"A" * 8, WRITABLE)
    (b,) = machine.map_bytes(_NATIVE_PAGE + PAGE_SIZE, b"B" * 8, WRITABLE)
    entry = machine.entry_va(_NATIVE_PAGE)
    table = machine.entry_address(_NATIVE_PAGE) // PAGE_SIZE
    letters = {a: "A", b: "B", table: "T"}

    def state() -> dict[str, str]:
        (value,) = struct.unpack("<Q", cpu.read_va(entry, 8))
        shown = cpu.read_va(_NATIVE_PAGE, 1).decode("latin-1")
        shown = shown if shown in "AB" else "T's entries"
        name = letters[(value & PTE_FRAME_MASK) // PAGE_SIZE]
        return {"entry": f"{name} {'writable' if value & WRITABLE else 'read-only'}", "a read sees": shown}

    def store(what: str, frame: int, bits: int) -> None:
        cpu.set_reg("rdi", entry)
        cpu.set_reg("rsi", _NATIVE_PAGE)
        cpu.set_reg("rax", frame * PAGE_SIZE | bits)
        cpu.set_reg("rip", program.address("store"))
        for text in (what, "throw the old translation away"):
            line = program.line(cpu.get_reg("rip"))
            step = cpu.step()
            outcome = "ok" if step.outcome == Outcome.EXECUTED else step.reason or str(step.outcome)
            steps.append(Step(text, line.text if line else "", outcome, state()))

    steps = [Step("at first", "", "", state())]
    store("let the page show B", b, PRESENT | WRITABLE)
    store("let it show T itself, writable", table, PRESENT | WRITABLE)
    return steps


# --- as a PV guest


class _Lesson:
    """The guest with its frames and the steps so far."""

    def __init__(self, guest: PvGuest) -> None:
        self.guest = guest
        self.steps: list[Step] = []
        self.page = guest.program.address("data_page")
        self.entry = guest.entry_address(self.page)
        names = {"A": self.page, "B": guest.program.address("kernel_stack"), "P": guest.program.address("table_page")}
        self.frames = {letter: guest.frame_of(va) for letter, va in names.items()}
        self.frames["T"] = self.entry // PAGE_SIZE
        self.p_va = names["P"]

    def frame(self, letter: str) -> int:
        return self.frames[letter]

    def value(self, letter: str, bits: int = RW_ENTRY) -> int:
        return self.frames[letter] * PAGE_SIZE | bits

    def count(self, letter: str) -> str:
        info = self.guest.host.machine.frame_info(self.frames[letter])
        return f"{_TYPES[info.type]} {info.type_count}/{info.refs}{'*' if info.pinned else ''}"

    def record(self, what: str, how: str, outcome: str, letters: str) -> None:
        self.steps.append(Step(what, how, outcome, {letter: self.count(letter) for letter in letters}))

    def store(self, what: str, value: int) -> None:
        """A plain `mov` into the table, through the kernel's read-only mapping of it."""
        guest = self.guest
        hw = guest.hw
        hw.set_reg("rdi", guest.va_of(self.entry // PAGE_SIZE) + self.entry % PAGE_SIZE)
        hw.set_reg("rax", value)
        hw.set_reg("rip", guest.program.address("store"))
        event = guest.step()
        self.record(what, "mov %rax,(%rdi)", _outcome(event), "ABT")

    def call(self, what: str, how: str, result: int, letters: str) -> None:
        self.record(what, how, "ok" if result == 0 else f"-{Errno(-result).name}", letters)


_TYPES = {
    FrameType.NONE: "-",
    FrameType.WRITABLE: "w",
    FrameType.L1: "l1",
    FrameType.L2: "l2",
    FrameType.L3: "l3",
    FrameType.L4: "l4",
    FrameType.SEGDESC: "segdesc",
}


def _outcome(event: Event) -> str:
    if event.kind == "executed":
        return "emulated"
    if event.vector is not None:
        return exception(event.vector, event.error_code)
    return event.kind


def _pv() -> list[Step]:
    guest = PvGuest(listing("pv64"))
    try:
        return _run_pv(guest)
    finally:
        guest.close()


def _run_pv(guest: PvGuest) -> list[Step]:
    lesson = _Lesson(guest)
    lesson.record("at first: T maps A and B", "", "", "ABT")
    lesson.store("let the page show B", lesson.value("B"))
    lesson.store("let it show T, writable", lesson.value("T"))
    lesson.store("let it show T, read-only", lesson.value("T", RO_ENTRY))
    lesson.call("let it show A again", "mmu_update", guest.mmu_update(lesson.entry, lesson.value("A")), "ABT")
    lesson.call("let it show T, writable", "mmu_update", guest.mmu_update(lesson.entry, lesson.value("T")), "ABT")
    first_m2p, _ = guest.host.machine.m2p
    foreign = guest.mmu_update(lesson.entry, first_m2p * PAGE_SIZE | RW_ENTRY)
    lesson.call("let it show a frame of Xen's", "mmu_update", foreign, "ABT")

    pin, unpin = MmuExt.MMUEXT_PIN_L1_TABLE, MmuExt.MMUEXT_UNPIN_TABLE
    lesson.record("now a new table: P, an empty page", "", "", "P")
    lesson.call("pin P as an L1 table", "PIN_L1_TABLE", guest.mmuext(pin, lesson.frame("P")), "P")
    lesson.call("map P read-only", "update_va_mapping", _remap(guest, lesson, RO_ENTRY), "P")
    lesson.call("pin P as an L1 table", "PIN_L1_TABLE", guest.mmuext(pin, lesson.frame("P")), "P")
    lesson.call("map P writable", "update_va_mapping", _remap(guest, lesson, RW_ENTRY), "P")
    lesson.call("unpin P", "UNPIN_TABLE", guest.mmuext(unpin, lesson.frame("P")), "P")
    lesson.call("map P writable", "update_va_mapping", _remap(guest, lesson, RW_ENTRY), "P")
    return lesson.steps


def _remap(guest: PvGuest, lesson: _Lesson, bits: int) -> int:
    value = lesson.value("P", bits)
    return guest.hypercall(Hypercall.HYPERVISOR_update_va_mapping, lesson.p_va, value, UvmFlags.UVMF_INVLPG)
