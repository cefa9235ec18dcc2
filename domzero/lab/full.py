# SPDX-License-Identifier: Apache-2.0
"""`domzero lab full`: the sensitive instructions and the page-table update of the PV lessons in a guest with a whole
machine: what traps now, what does not, and what both cost here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from domzero.abi.xen import PAGE_SIZE
from domzero.dom0.qemu.program import find_qemu
from domzero.dom0.qemu.trial import Accelerator, choose, virtualization_flags
from domzero.hypervisor.timekeeping import LAST_DEADLINE_NS
from domzero.hypervisor.vcpu_thread import handle_exit
from domzero.lab import instructions
from domzero.lab.document import Document
from domzero.lab.full_guest import Answer, full_guest
from domzero.lab.guest import PvGuest
from domzero.lab.listing import listing
from domzero.lab.page_table import RW_ENTRY

TABLE = (
    "nothing", "cli", "sti", "popfq", "pushfq", "sgdt", "sidt", "str", "lgdt", "lidt", "smsw", "read_cr0", "write_cr0",
    "read_cr3", "write_cr3", "read_cr4", "read_cs", "lar", "iretq", "syscall", "int3", "invlpg", "wbinvd", "in_port",
    "out_port", "rdmsr", "wrmsr", "rdtsc", "cpuid", "update", "update_table",
)  # fmt: skip
"""The probes of guests/lab/full.S, in the order of its table."""
LESSONS = TABLE[1:-2]
_PV_NAMES = {"in_port": "in", "out_port": "out"}
_STEPS = 20_000
"""Instructions that a PV kernel runs to measure what it does."""
_SHOWS: dict[str, Callable[[int], str]] = {
    "popfq": lambda it: "IF is clear, as asked" if not it & 0x200 else "IF is still set",
    "cli": lambda it: "IF is clear" if not it & 0x200 else "IF is still set",
    "sti": lambda it: "IF is set" if it & 0x200 else "IF is still clear",
    "sgdt": lambda it: f"its own GDT, at {it:x}",
    "sidt": lambda it: f"its own IDT, at {it:x}",
    "str": lambda it: f"its own TSS, {it:x}",
    "smsw": lambda it: f"its own CR0, {it:x}",
    "read_cr0": lambda it: f"its own CR0, {it:x}",
    "read_cr3": lambda it: f"its own table, at {it:x}",
    "read_cr4": lambda it: f"its own CR4, {it:x}",
    "read_cs": lambda it: f"ring {it & 3}",
    "lar": lambda it: "a segment of ring 0 is there" if it else "no such thing",
}


@dataclass(slots=True, frozen=True)
class PvCost:
    """What a PV kernel does in an instruction's place, in nanoseconds."""

    update_call_ns: float
    update_store_ns: float
    mask_ns: float
    read_cr0_ns: float
    smallest_call_ns: float


def document(engine: str = "auto") -> Document:
    """The lesson. ConfigError: there is no QEMU."""
    accelerator = choose(engine)
    with full_guest(engine) as guest:
        answers = {name: guest.probe(number) for number, name in enumerate(TABLE)}
        hertz = guest.hertz
    pv = {result.probe.label: result for result in instructions.run()}
    costs = pv_costs()
    doc = Document()
    doc.heading("Full virtualization", 1)
    doc.paragraph(
        f"""The same instructions and the same page-table update as in the PV lessons, in ring 0 of a guest that has
        a whole machine: a small PVH kernel (guests/lab/full.S) in {find_qemu()}, with {accelerator.name}:
        {accelerator.why}. Each was run once to see what comes of it, and 1000 times to see what it costs.
        Nothing was ported."""
    )
    _instructions(doc, answers, {name: _outcome(pv, name) for name in LESSONS}, has_exits=accelerator.name == "kvm")
    _update(doc, answers, costs)
    _why(doc, accelerator)
    doc.data = {
        "qemu": str(find_qemu()),
        "engine": accelerator.name,
        "why": accelerator.why,
        "flags": virtualization_flags(),
        "hertz": round(hertz),
        "full": {name: asdict(answer) for name, answer in answers.items()},
        "pv": {name: _outcome(pv, name) for name in LESSONS},
        "pv_ns": asdict(costs),
    }
    return doc


def _outcome(pv: dict[str, instructions.Result], name: str) -> str:
    """What a 64-bit PV kernel gets, as in `domzero lab instructions`."""
    result = pv.get(_PV_NAMES.get(name, name))
    return result.verdicts.get("pv64", "") if result is not None else ""


def _instructions(doc: Document, answers: dict[str, Answer], pv: dict[str, str], *, has_exits: bool) -> None:
    doc.heading("What traps, and what does not")
    doc.paragraph(
        """A PV kernel runs in ring 3, so that what is privileged faults, and what is sensitive but not privileged
        lies to it (SILENT, LEAKS). With a machine of its own it runs in ring 0: everything runs, and what an
        instruction shows is the guest's own."""
    )
    rest = answers["nothing"].ns
    header = ("instruction", "as a PV kernel", "here", "ns", *(("exits",) if has_exits else ()), "it shows")
    rows = []
    for name in LESSONS:
        answer = answers[name]
        outcome = "runs" if answer.vector is None else instructions.exception(answer.vector, None)
        shown = _SHOWS[name](answer.shows) if name in _SHOWS else ""
        exits = (f"{answer.exits:.2f}" if answer.exits is not None else "?",) if has_exits else ()
        rows.append((name, pv[name], outcome, f"{max(0.0, answer.ns - rest):.0f}", *exits, shown))
    doc.table(header, rows)
    doc.paragraph(
        "exits: how often KVM was entered for one time. Most instructions need none: the processor keeps a second "
        "set of what they change, for the guest."
        if has_exits
        else "TCG translates the guest's code, so nothing traps at all: each sensitive instruction has become a piece "
        "of QEMU's. With hardware assistance the processor itself keeps a second set of what they change, for the "
        "guest, and leaves it only for ports, some MSRs, CPUID and the like."
    )


def _update(doc: Document, answers: dict[str, Answer], costs: PvCost) -> None:
    doc.heading("The page-table update")
    doc.paragraph(
        """In a machine of its own a page-table entry is a word in memory: the guest stores it and throws the old
        translation away, and nobody asks what it points to. It may even let a page show the table itself,
        writable, and change the table through it, which Xen refuses a PV guest (`domzero lab page-table`): the
        frames that the table names are the guest's own numbers, and a second table, which the guest never sees,
        says which of the host's frames they are."""
    )
    rest = answers["nothing"].ns
    rows = [
        ("a store, and invlpg", "here", f"{answers['update'].ns - rest:.0f}"),
        ("the table, written through a page that shows it", "here", f"{answers['update_table'].ns - rest:.0f}"),
        ("mmu_update, which Xen checks", "PV", f"{costs.update_call_ns:.0f}"),
        ("a store, which Xen emulates and checks", "PV", f"{costs.update_store_ns:.0f}"),
        ("a store, which Xen refuses", "PV", "(the table itself, writable)"),
    ]
    doc.table(("one entry is changed by", "in", "ns"), rows)
    doc.paragraph(
        f"""Beside it, in the same PV guest on Domzero's engine: cli's place is taken by a byte of memory
        ({costs.mask_ns:.0f} ns), a privileged instruction that Xen emulates takes {costs.read_cr0_ns:.0f} ns
        (mov %cr0), the smallest hypercall {costs.smallest_call_ns:.0f} ns (xen_version)."""
    )


def _why(doc: Document, accelerator: Accelerator) -> None:
    doc.heading("Why the need to port ended, and what that needs")
    doc.paragraph(
        """x86 could not be virtualized by trapping alone, because popf and its like do not trap. Xen's first
        answer was to port the kernel: no such instruction is left in it, and every page table is checked. The
        processors' answer (VT-x 2005, SVM 2006) was a mode beside the rings: the guest has all four of them,
        its own control registers and descriptor tables, and the host says which events lead out of it. Nested
        paging (EPT, NPT) then gave it page tables that need no check. What still costs are the exits, above all
        for devices: so PV drivers outlived PV kernels."""
    )
    flags = virtualization_flags()
    if flags:
        has = f"This machine's processor shows {', '.join(flags)}"
        doc.paragraph(f"{has}; {'KVM was used' if accelerator.name == 'kvm' else f'KVM was not: {accelerator.why}'}.")
    else:
        doc.paragraph(
            f"""It needs the hardware. This machine's processor shows neither vmx nor svm, as one from before 2005
            would, or one that a cloud lends out: {accelerator.why}. On such a machine an unported system runs only
            in software (TCG, above), and a PV kernel needs nothing."""
        )


def pv_costs() -> PvCost:
    """What a PV kernel does in the place of sensitive instructions, measured on this engine."""
    guest = PvGuest(listing("pvcost"))
    try:
        guest.hw.set_fast_hypercalls(True)
        program = guest.program
        page, stack = program.address("data_page"), program.address("kernel_stack")
        entry, difference = guest.entry_address(page), (guest.frame_of(page) ^ guest.frame_of(stack)) * PAGE_SIZE
        value = guest.frame_of(page) * PAGE_SIZE | RW_ENTRY
        arguments = program.address("arguments")
        guest.hw.write_va(arguments, entry.to_bytes(8, "little") + value.to_bytes(8, "little"))
        table = guest.va_of(entry // PAGE_SIZE) + entry % PAGE_SIZE
        return PvCost(
            update_call_ns=_many(guest, "many_updates", r12=difference),
            update_store_ns=_many(guest, "many_stores", r12=difference, rax=value, rdi=table),
            mask_ns=_many(guest, "many_masks", rdi=stack),
            read_cr0_ns=_many(guest, "many_cr0"),
            smallest_call_ns=_many(guest, "many_calls"),
        )
    finally:
        guest.close()


def _many(guest: PvGuest, label: str, **registers: int) -> float:
    """Nanoseconds of one round of a loop, with all that the hypervisor does for it."""
    hw, vcpu = guest.hw, guest.vcpu
    best = float("inf")
    for _ in range(3):  # the first time its code is translated
        hw.set_reg("rip", guest.program.address(label))
        hw.set_reg("rbx", 1 << 40)
        for name, value in registers.items():
            hw.set_reg(name, value)  # type: ignore[arg-type]
        end = hw.instructions + _STEPS
        begun = time.perf_counter()
        with guest.host.lock:
            while (left := end - hw.instructions) > 0:
                handle_exit(vcpu, hw.run(left, LAST_DEADLINE_NS))
                if vcpu.domain.shutdown_code is not None:
                    raise ValueError(f"{label} crashed: {guest.log[-1:]}")
        rounds = (1 << 40) - hw.get_reg("rbx")
        best = min(best, (time.perf_counter() - begun) / max(1, rounds) * 1e9)
    return best


__all__ = ["document", "pv_costs"]
