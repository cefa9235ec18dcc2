# SPDX-License-Identifier: Apache-2.0
"""The sensitive instructions, what each is given to work on, and what a PV kernel does instead."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from domzero.abi.x86 import MSR_EFER, X86_CR0_TS, X86_CR4_TSD, X86_EFLAGS_IF


@dataclass(frozen=True, slots=True)
class Place:
    """Where a probe runs: addresses and selectors of that machine.

    :param ring0_data: selector of a data segment with DPL 0.
    :param root: CR3 as the kernel would write it.
    :param word: bytes of a stack's word.
    """

    scratch: int
    stack: int
    code: int
    stack_selector: int
    ring0_data: int
    gdt: int
    cr0: int
    root: int
    after: int
    word: int = 8

    def words(self, *values: int) -> bytes:
        """A stack's words."""
        return b"".join(value.to_bytes(self.word, "little") for value in values)


@dataclass(frozen=True, slots=True)
class Setup:
    """Registers, and what is in the scratch page and on the stack."""

    registers: dict[str, int] = field(default_factory=dict)
    scratch: bytes = b""
    stack: bytes = b""


@dataclass(frozen=True, slots=True)
class Probe:
    """One instruction.

    :param label: in guests/lab/probes.S.
    :param shows: what it tells about the machine, if that is all it does.
    :param instead: what a PV kernel uses.
    :param about: the thing about it that is worth a sentence.
    """

    label: str
    group: str
    instead: str
    shows: str = ""
    about: str = ""
    setup: Callable[[Place], Setup] = lambda _: Setup()


def _registers(**values: int) -> Callable[[Place], Setup]:
    return lambda _: Setup(values)


IF, TS = X86_EFLAGS_IF, X86_CR0_TS
ONES = (1 << 64) - 1
GDT_LIMIT = 0x4F
CMD_VERSION = 0

FLAGS, TABLES, CONTROL, SEGMENTS = "the interrupt flag", "descriptor tables", "control registers", "segments and rings"
ENTRY, MEMORY, DEVICES, TIME = "kernel entry and exit", "memory", "devices", "processor and time"

PROBES: tuple[Probe, ...] = (
    Probe(
        "cli",
        FLAGS,
        "vcpu_info.evtchn_upcall_mask = 1",
        about="faults above ring 0 (unless IOPL allows it), so a hypervisor could emulate it; a PV kernel writes a "
        "byte of memory instead, which costs no trap at all.",
    ),
    Probe("sti", FLAGS, "upcall_mask = 0, then look at upcall_pending", setup=_registers(rflags=2)),
    Probe(
        "popfq",
        FLAGS,
        "upcall_mask",
        about="is asked to clear IF. Above ring 0 it keeps IF and says nothing: a kernel believes that it is safe "
        "from interrupts, and is not. This instruction is why x86 could not be virtualized by trapping alone.",
        setup=lambda p: Setup(stack=p.words(2)),
    ),
    Probe(
        "pushfq",
        FLAGS,
        "upcall_mask",
        shows="the processor's IF",
        about="stores the processor's IF, which above ring 0 is not the flag that the kernel has set.",
    ),
    Probe("sgdt", TABLES, "nothing: set_gdt says what it is", shows="where the GDT is"),
    Probe("sidt", TABLES, "nothing: set_trap_table", shows="where the IDT is"),
    Probe("sldt", TABLES, "nothing: MMUEXT_SET_LDT", shows="the LDT's selector", setup=_registers(rax=ONES)),
    Probe("str", TABLES, "nothing: there is no TSS", shows="the TSS's selector", setup=_registers(rax=ONES)),
    Probe(
        "lgdt",
        TABLES,
        "set_gdt",
        setup=lambda p: Setup(scratch=struct.pack("<HQ", GDT_LIMIT, p.gdt)),
    ),
    Probe("lidt", TABLES, "set_trap_table", setup=lambda p: Setup(scratch=struct.pack("<HQ", 0xFFF, p.scratch))),
    Probe("lldt", TABLES, "mmuext_op MMUEXT_SET_LDT", setup=_registers(rax=0)),
    Probe("ltr", TABLES, "stack_switch, for what a TSS is needed for", setup=_registers(rax=0x48)),
    Probe("smsw", CONTROL, "nothing", shows="CR0", setup=_registers(rax=ONES)),
    Probe("lmsw", CONTROL, "fpu_taskswitch", setup=lambda p: Setup({"rax": p.cr0 & 0xFFFF | TS})),
    Probe("clts", CONTROL, "fpu_taskswitch"),
    Probe("read_cr0", CONTROL, "nothing: it is Xen's"),
    Probe("write_cr0", CONTROL, "fpu_taskswitch", setup=lambda p: Setup({"rax": p.cr0 | TS})),
    Probe("read_cr2", CONTROL, "vcpu_info.arch.cr2"),
    Probe("write_cr2", CONTROL, "vcpu_info.arch.cr2", setup=_registers(rax=0x1234000)),
    Probe("read_cr3", CONTROL, "the kernel's own copy"),
    Probe(
        "write_cr3",
        CONTROL,
        "mmuext_op MMUEXT_NEW_BASEPTR",
        setup=lambda p: Setup({"rax": p.root}),
    ),
    Probe("read_cr4", CONTROL, "nothing: it is Xen's"),
    Probe("write_cr4", CONTROL, "vm_assist, for what can be chosen", setup=_registers(rax=0x10620 | X86_CR4_TSD)),
    Probe("read_cr8", CONTROL, "nothing: there is no APIC"),
    Probe("read_dr7", CONTROL, "get_debugreg"),
    Probe("write_dr7", CONTROL, "set_debugreg", setup=_registers(rax=0x400)),
    Probe("read_cs", SEGMENTS, "nothing", shows="the ring, in the two lowest bits"),
    Probe(
        "lar",
        SEGMENTS,
        "nothing",
        about="asks about a segment of ring 0: visible to ring 0 only, for the others the answer is 'no such thing'.",
        setup=lambda p: Setup({"rax": p.ring0_data, "rcx": 0}),
    ),
    Probe("lsl", SEGMENTS, "nothing", setup=lambda p: Setup({"rax": p.ring0_data, "rcx": 0})),
    Probe("verr", SEGMENTS, "nothing", setup=lambda p: Setup({"rax": p.ring0_data})),
    Probe("verw", SEGMENTS, "nothing", setup=lambda p: Setup({"rax": p.ring0_data})),
    Probe("load_ds", SEGMENTS, "selectors of its own ring", setup=lambda p: Setup({"rax": p.ring0_data})),
    Probe("load_ss", SEGMENTS, "selectors of its own ring", setup=lambda p: Setup({"rax": p.ring0_data})),
    Probe("lret", SEGMENTS, "lret, within its ring", setup=lambda p: Setup(stack=p.words(p.after, p.code))),
    Probe(
        "iretq",
        ENTRY,
        "HYPERVISOR_iret",
        about="returns with IF clear in the frame. Within one ring it works everywhere, but IF follows in ring 0 only.",
        setup=lambda p: Setup(stack=p.words(p.after, p.code, 2, p.stack + 5 * p.word, p.stack_selector)),
    ),
    Probe(
        "syscall",
        ENTRY,
        "the hypercall instruction of 64-bit guests",
        about="enters the kernel named by an MSR. Under a hypervisor that is the hypervisor: from the guest kernel it "
        "is a hypercall (xen_version here), from an application it is bounced to the guest kernel.",
        setup=_registers(rax=17, rdi=CMD_VERSION),
    ),
    Probe("sysretq", ENTRY, "HYPERVISOR_iret", setup=lambda p: Setup({"rcx": p.after, "r11": 2 | IF})),
    Probe("int3", ENTRY, "int3: set_trap_table says where it goes"),
    Probe("int80", ENTRY, "int $0x80, for its applications: set_trap_table"),
    Probe("swapgs", ENTRY, "nothing: the hypervisor changes GS at entry"),
    Probe(
        "rdfsbase",
        ENTRY,
        "rdfsbase",
        about="needs CR4.FSGSBASE. The bare machine has it set; a PV kernel finds it clear, and may set it, as Xen "
        "has it emulated.",
    ),
    Probe("wrfsbase", ENTRY, "wrfsbase, or set_segment_base", setup=_registers(rax=0x1234000)),
    Probe("invlpg", MEMORY, "update_va_mapping UVMF_INVLPG, MMUEXT_INVLPG_LOCAL"),
    Probe("wbinvd", MEMORY, "MMUEXT_FLUSH_CACHE"),
    Probe("invd", MEMORY, "MMUEXT_FLUSH_CACHE"),
    Probe("clflush", MEMORY, "clflush"),
    Probe("in", DEVICES, "event channels, shared rings"),
    Probe("out", DEVICES, "event channels, shared rings", setup=_registers(rax=0x8F)),
    Probe("hlt", DEVICES, "sched_op SCHEDOP_block"),
    Probe("rdmsr", TIME, "CPUID, start_info, hypercalls", setup=_registers(rcx=MSR_EFER)),
    Probe("wrmsr", TIME, "set_segment_base, callback_op", setup=_registers(rcx=MSR_EFER, rax=0xD01, rdx=0)),
    Probe("rdtsc", TIME, "rdtsc, scaled by vcpu_time_info", shows="the machine's clock"),
    Probe("rdpmc", TIME, "xenpmu_op", setup=_registers(rcx=0)),
    Probe(
        "cpuid",
        TIME,
        'ud2; .ascii "xen"; cpuid: the forced emulation prefix',
        shows="the machine's processor",
        about="never traps on most processors: it shows the machine's features, not those that the guest may use. "
        "Kernels prefix it so that it faults and is emulated. (This engine always gives the guest's.)",
        setup=_registers(rax=1, rcx=0),
    ),
)
