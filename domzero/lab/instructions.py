# SPDX-License-Identifier: Apache-2.0
"""`domzero lab instructions`: every sensitive instruction in ring 0, 1 and 3 of a bare machine, and in a PV kernel."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from domzero._machine import Base, Outcome
from domzero.abi.arch_x86 import xen_pfn_to_cr3
from domzero.abi.x86 import X86_CR4_UMIP, X86_EFLAGS_ZF
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.emulate.cpuid import CR0_VALUE
from domzero.lab.document import Document
from domzero.lab.guest import PvGuest
from domzero.lab.listing import VIRT_BASE, listing
from domzero.lab.native import CODE, GDT_VA, SCRATCH_VA, STACK, USER, WRITABLE, NativeMachine
from domzero.lab.probes import IF, PROBES, Place, Probe, Setup

RINGS = (0, 1, 3)
UMIP, ZF = X86_CR4_UMIP, X86_EFLAGS_ZF
HANDLER_VA = VIRT_BASE + 0x80_0000
RING0_DATA_PV = 0xE010
CR2, FS_BASE, NOW_NS = 0x123000, 0x5000, 1_000_000
"""What there is to see in CR2, in the base of FS, and on the clock."""
_STACK_OFFSET = 0x800
_PV_PROGRAMS = {"pv64": "probes", "pv32": "probes32"}
_PV_SCRATCH = 0x30_0000
_NATIVE_CPUID: list[tuple[int, int | None, int, int, int, int]] = [
    (0, None, 1, 0x756E6547, 0x6C65746E, 0x49656E69),
    (1, None, 0x50654, 0x800, 0x00B82203, 0x078BFBFD),
]
_IGNORED = {"rip", "rflags"}

VECTOR_NAMES = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS", 11: "#NP",
    12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM",
}  # fmt: skip


def exception(vector: int, error_code: int | None) -> str:
    """`#GP(0)`; `int 0x80` for what is no exception."""
    name = VECTOR_NAMES.get(vector, f"int 0x{vector:02x}")
    return name if error_code is None else f"{name}({error_code:x})"


@dataclass(slots=True)
class Seen:
    """What one instruction did in one place.

    :param outcome: `runs`, `halts`, `enters` (a handler, as it is meant to), `traps`, `emulated`, `hypercall`.
    :param exception: which, for `enters` and `traps`.
    :param changes: what changed, as name -> (before, after).
    """

    outcome: str
    exception: str = ""
    changes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def effect(self) -> dict[str, int]:
        """What things are afterwards, of those that changed."""
        return {name: after for name, (_, after) in self.changes.items()}


@dataclass(slots=True)
class Result:
    """One instruction everywhere; verdicts by place: `ring 0`, `ring 1`, `ring 3`, and the kernels of PV guests: `pv64`
    in ring 3, `pv32` in ring 1 (not of instructions that 32-bit code does not have)."""

    probe: Probe
    text: str
    code: str
    seen: dict[str, Seen]
    verdicts: dict[str, str]
    umip: bool = False

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        places = {
            place: {
                "outcome": seen.outcome,
                "verdict": self.verdicts[place],
                "exception": seen.exception or None,
                "changes": {name: [hex(before), hex(after)] for name, (before, after) in seen.changes.items()},
            }
            for place, seen in self.seen.items()
        }
        return {
            "name": self.probe.label,
            "instruction": self.text,
            "bytes": self.code,
            "group": self.probe.group,
            "instead": self.probe.instead,
            "shows": self.probe.shows or None,
            "stopped_by_umip": self.umip,
            "places": places,
        }


def run(names: list[str] | None = None) -> list[Result]:
    """Runs the probes (all, or those named) in every place."""
    probes = [p for p in PROBES if not names or p.label in names]
    results = []
    for probe in probes:
        seen = {f"ring {ring}": _native(probe, ring) for ring in RINGS}
        for place, program in _PV_PROGRAMS.items():
            if probe.label in listing(program).symbols:
                seen[place] = _pv(probe, program)
        line = _line(probe)
        result = Result(probe, line.text, listing("probes").code[_span(probe)].hex(" "), seen, _verdicts(probe, seen))
        result.umip = seen["ring 3"].outcome == "runs" and _native(probe, 3, umip=True).outcome == "traps"
        results.append(result)
    return results


def names() -> list[str]:
    """All probes' names."""
    return [probe.label for probe in PROBES]


def _line(probe: Probe, name: str = "probes") -> Any:
    program = listing(name)
    return program.line(program.address(probe.label))


def _span(probe: Probe) -> slice:
    at = listing("probes").address(probe.label) - listing("probes").base
    return slice(at, at + _line(probe).length)


# --- a bare machine


def _native(probe: Probe, ring: int, *, umip: bool = False) -> Seen:
    program = listing("probes")
    machine = NativeMachine(program, user_kernel=True)
    cpu = machine.cpu
    machine.map_bytes(SCRATCH_VA, b"", WRITABLE | USER)
    for vector in range(256):
        machine.set_gate(vector, HANDLER_VA)
    line = _line(probe)
    place = Place(
        scratch=SCRATCH_VA,
        stack=SCRATCH_VA + _STACK_OFFSET,
        code=CODE[ring],
        stack_selector=STACK[ring],
        ring0_data=STACK[0],
        gdt=GDT_VA,
        cr0=cpu.get_reg("cr0"),
        root=machine.root * PAGE_SIZE,
        after=line.address + line.length,
    )
    setup = probe.setup(place)
    cpu.set_cpuid(_NATIVE_CPUID)
    cpu.set_reg("lstar", HANDLER_VA)
    cpu.set_reg("kernel_gs_base", 0x5000)
    if probe.label == "clts":
        # TS must be set to see it cleared.
        cpu.set_reg("cr0", cpu.get_reg("cr0") | 8)
    if umip:
        cpu.set_reg("cr4", cpu.get_reg("cr4") | UMIP)
    if probe.label == "ltr":
        cpu.set_reg("tr", 0)
    cpu.set_reg("cr2", CR2)
    cpu.set_reg("fs_base", FS_BASE)
    machine.machine.advance_to(NOW_NS)
    cpu.write_va(SCRATCH_VA, setup.scratch)
    cpu.write_va(place.stack, setup.stack)
    _prepare(cpu.set_reg, place, setup, line.address)
    machine.enter_ring(ring)
    before, before_memory = _flat(cpu.registers()), cpu.read_va(SCRATCH_VA, PAGE_SIZE)
    step = cpu.step()
    if step.outcome == Outcome.ENTERED and step.vector is not None:
        asked = step.vector in (3, 0x80)
        return Seen("enters" if asked else "traps", exception(step.vector, step.error_code))
    after, after_memory = _flat(cpu.registers()), cpu.read_va(SCRATCH_VA, PAGE_SIZE)
    changes = _changes(before, after, place.after) | _memory_changes(before_memory, after_memory)
    if step.outcome not in (Outcome.EXECUTED, Outcome.HALTED):
        raise ValueError(f"{probe.label} in ring {ring}: {step.reason or step.outcome}")
    if after["rip"] == HANDLER_VA:
        return Seen("enters", "syscall", changes)
    if step.outcome == Outcome.HALTED:
        return Seen("halts")
    return Seen("runs", changes=changes)


def _prepare(set_reg: Any, place: Place, setup: Setup, rip: int) -> None:
    for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rbp"):
        set_reg(name, 0)
    set_reg("rdi", place.scratch)
    set_reg("rsp", place.stack)
    set_reg("rflags", 2 | IF)
    for name, value in setup.registers.items():
        set_reg(name, value)
    set_reg("rip", rip)


def _flat(registers: dict[str, int]) -> dict[str, int]:
    flags = registers["rflags"]
    return registers | {"IF": int(flags & IF != 0), "ZF": int(flags & ZF != 0)}


def _changes(before: dict[str, int], after: dict[str, int], next_rip: int) -> dict[str, tuple[int, int]]:
    changes = {n: (v, after[n]) for n, v in before.items() if n not in _IGNORED and after[n] != v}
    if after["rip"] != next_rip:
        changes["rip"] = (next_rip, after["rip"])
    return changes


def _memory_changes(before: bytes, after: bytes) -> dict[str, tuple[int, int]]:
    changes = {}
    for at in range(0, PAGE_SIZE, 8):
        old, new = (struct.unpack_from("<Q", data, at)[0] for data in (before, after))
        if old != new:
            changes[f"memory+{at:x}" if at < _STACK_OFFSET - 64 else f"stack{at - _STACK_OFFSET:+d}"] = (old, new)
    return changes


# --- a PV kernel


def _pv(probe: Probe, name: str) -> Seen:
    guest = PvGuest(listing(name))
    try:
        return _run_pv(guest, probe)
    finally:
        guest.close()


def _pv_state(guest: PvGuest) -> dict[str, int]:
    hw = guest.hw
    state: dict[str, int] = _flat(hw.registers())
    state["cr0.ts"] = int(hw.get_cr0_ts())
    state["cr4"] = hw.get_cr4()
    state["dr7"] = hw.get_debug_reg(7) or 0
    state["blocked"] = int(guest.vcpu.is_blocked)
    return state


def _run_pv(guest: PvGuest, probe: Probe) -> Seen:
    line = _line(probe, guest.program.name)
    hw = guest.hw
    scratch = guest.program.virt_base + _PV_SCRATCH
    place = Place(
        scratch=scratch,
        stack=scratch + _STACK_OFFSET,
        code=guest.kernel_cs,
        stack_selector=guest.kernel_ss,
        ring0_data=RING0_DATA_PV,
        gdt=scratch,
        cr0=CR0_VALUE,
        root=xen_pfn_to_cr3(hw.get_base(Base.KERNEL), is_32bit=guest.bits == 32),
        after=line.address + line.length,
        word=guest.bits // 8,
    )
    setup = probe.setup(place)
    hw.set_cr0_ts(probe.label == "clts")
    hw.set_reg("cr2", CR2)
    hw.set_reg("fs_base", FS_BASE)
    guest.host.machine.advance_to(NOW_NS)
    hw.write_va(scratch, setup.scratch)
    hw.write_va(place.stack, setup.stack)
    _prepare(hw.set_reg, place, setup, line.address)
    before, before_memory = _pv_state(guest), hw.read_va(scratch, PAGE_SIZE)
    event = guest.step()
    if event.kind in ("trap", "crash") and event.vector is not None:
        asked = event.vector in (3, 0x80)
        return Seen("enters" if asked else "traps", exception(event.vector, event.error_code))
    after, after_memory = _pv_state(guest), hw.read_va(scratch, PAGE_SIZE)
    changes = _changes(before, after, place.after) | _memory_changes(before_memory, after_memory)
    outcome = {"executed": "runs", "emulated": "emulated", "hypercall": "hypercall"}[event.kind]
    return Seen(outcome, changes=changes)


# --- what it means


def _verdicts(probe: Probe, seen: dict[str, Seen]) -> dict[str, str]:
    """`runs`, `traps`, `SILENT` (no trap, and another effect than in ring 0), `LEAKS` (no trap, and shows the machine's
    state), `enters`, `emulated`, `hypercall`."""
    model = seen["ring 0"]
    verdicts: dict[str, str] = {}
    for place, what in seen.items():
        verdict = what.outcome
        if what.outcome == "runs" and place != "ring 0":
            if probe.shows:
                verdict = "LEAKS"
            elif place == "pv64":
                verdict = verdicts["ring 3"]
            elif place == "pv32":
                verdict = verdicts["ring 1"]
            elif what.effect() != model.effect():
                verdict = "SILENT"
        verdicts[place] = verdict
    return verdicts


# --- what is shown

_PLACES = ("ring 0", "ring 1", "ring 3", "pv64", "pv32")
_HEADER = ("instruction", *_PLACES, "a PV kernel uses")
_INTRODUCTION = """Each instruction was run in ring 0, 1 and 3 of a bare machine, and by the kernels of two PV guests:
pv64 is a 64-bit one (in ring 3), pv32 a 32-bit one (in ring 1). #GP and the like: it traps, so that a hypervisor gets
to see it. emulated: trapped, and Xen does it for the kernel. SILENT: does not trap, and does something else than in
ring 0. LEAKS: does not trap, and shows the machine's state, not the guest's."""


def document(only: list[str] | None = None) -> Document:
    """The lesson: one table, or everything about the instructions named."""
    results = run(only)
    doc = Document(data={"instructions": [result.to_json() for result in results]})
    doc.heading("Sensitive instructions", 1)
    doc.paragraph(_INTRODUCTION)
    if only:
        for result in results:
            _detail(doc, result)
        return doc
    for group in dict.fromkeys(result.probe.group for result in results):
        doc.heading(group[0].upper() + group[1:])
        doc.table(_HEADER, [_row(result) for result in results if result.probe.group == group])
    _worth_a_sentence(doc, results)
    return doc


def _row(result: Result) -> tuple[str, ...]:
    cells = [_cell(result, place) for place in _PLACES]
    return (result.text, *cells, result.probe.instead)


def _cell(result: Result, place: str) -> str:
    if place not in result.seen:
        return ""
    verdict = result.verdicts[place]
    return result.seen[place].exception if verdict == "traps" else verdict


def _worth_a_sentence(doc: Document, results: list[Result]) -> None:
    doc.heading("What does not trap")
    rows = []
    for result in results:
        if "SILENT" in result.verdicts.values() or "LEAKS" in result.verdicts.values():
            native, above = effect(result.seen["ring 0"]), effect(result.seen["ring 3"])
            what = f"shows {result.probe.shows}" if result.probe.shows else "another answer"
            seen = f"in both: {native}" if native == above else f"ring 0: {native}; ring 3: {above}"
            rows.append((result.text, what, seen))
    doc.table(("instruction", "what is wrong", "seen in ring 0 and ring 3"), rows)
    umip = [result.text for result in results if result.umip]
    doc.paragraph(
        f"With CR4.UMIP set, which newer processors have, these trap above ring 0, too: {', '.join(umip)}. popf, lar, "
        "lsl, verr, verw and mov from CS still do not."
    )
    for result in results:
        if result.probe.about:
            doc.paragraph(f"{result.text}: {result.probe.about}")


def _detail(doc: Document, result: Result) -> None:
    doc.heading(f"{result.text}   ({result.code})")
    if result.probe.about:
        doc.paragraph(f"It {result.probe.about}")
    rows = []
    names = {"pv64": "64-bit PV kernel, ring 3", "pv32": "32-bit PV kernel, ring 1"}
    for place, seen in result.seen.items():
        rows.append((names.get(place, place), result.verdicts[place], seen.exception or effect(seen)))
    doc.table(("where", "outcome", "effect"), rows)
    doc.paragraph(f"A PV kernel uses: {result.probe.instead}.")
    if result.umip:
        doc.paragraph("With CR4.UMIP set it traps in ring 1 and 3.")


def effect(seen: Seen) -> str:
    """What an instruction changed, in a few words; moves of the stack pointer go without saying."""
    shown = {name: pair for name, pair in seen.changes.items() if name != "rsp"}
    if "memory+8" in shown:
        image = struct.pack("<QQ", shown.pop("memory+0")[1], shown.pop("memory+8")[1])
        limit, base = struct.unpack_from("<HQ", image)
        return f"base {base:x}, limit {limit:x}"
    return ", ".join(f"{name} {before:x} to {after:x}" for name, (before, after) in shown.items()) or "nothing changes"
