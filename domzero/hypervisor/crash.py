# SPDX-License-Identifier: Apache-2.0
"""What is printed when a domain crashes: registers, stack, page walk, in Xen's form."""

import struct
from typing import TYPE_CHECKING

from domzero import _machine
from domzero._machine import Base
from domzero.abi.arch_x86 import xen_pfn_to_cr3
from domzero.abi.x86 import Vector
from domzero.hypervisor.emulate.cpuid import XEN_MAJOR, XEN_MINOR

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

STACK_WORDS = 32
BYTES_PER_LINE = 32
CODE_BEFORE, CODE_AFTER = 16, 16

_NAMES = {
    0: "divide error",
    1: "debug",
    2: "nmi",
    3: "int3",
    4: "overflow",
    5: "bounds",
    6: "invalid opcode",
    7: "device not available",
    8: "double fault",
    10: "invalid tss",
    11: "segment not found",
    12: "stack error",
    13: "general protection fault",
    14: "page fault",
    16: "fpu error",
    17: "alignment check",
    18: "machine check",
    19: "simd error",
}


def describe_fault(fault: _machine.ExitFault) -> str:
    """One line about an exception that the guest could not take."""
    name = _NAMES.get(fault.vector, "exception")
    code = "" if fault.error_code is None else f", ec={fault.error_code:04x}"
    where = f", cr2={fault.cr2:016x}" if fault.vector == Vector.PF else ""
    return f"{name} [#{fault.vector}{code}{where}]: {fault.reason}"


def report_fault(vcpu: "Vcpu", fault: _machine.ExitFault) -> None:
    """Prints a crash because of an exception."""
    report(vcpu, f"Unhandled {describe_fault(fault)}", walk=fault.cr2 if fault.vector == Vector.PF else None)


def report(vcpu: "Vcpu", why: str, *, walk: int | None = None) -> None:
    """Prints registers and stack of a vCPU whose domain is about to crash; only from the vCPU's own thread.

    :param walk: a virtual address whose page walk is printed too.
    """
    domain = vcpu.domain
    lines = [f"{vcpu!r} {why}"]
    if walk is not None:
        lines += _page_walk(vcpu, walk)
    lines.append(f"Domain {domain.domid} (vcpu#{vcpu.vcpu_id}) crashed on cpu#0:")
    lines.append(f"----[ Xen-{XEN_MAJOR}.{XEN_MINOR}-domzero  x86_64  debug=n  Not tainted ]----")
    lines += _registers(vcpu)
    lines += _code(vcpu)
    lines += _stack(vcpu)
    for line in lines:
        domain.host.log(line)
    domain.crash_report.extend(lines)


def _page_walk(vcpu: "Vcpu", va: int) -> list[str]:
    lines = [f"Pagetable walk from {va:016x}:"]
    for level, _table, index, entry in vcpu.hw.page_walk(va):
        lines.append(f" L{level}[0x{index:03x}] = {entry:016x}")
    return lines


def _registers(vcpu: "Vcpu") -> list[str]:
    r = vcpu.hw.registers()

    def row(*names: str) -> str:
        return "   ".join(f"{name + ':':<4} {r.get(name, 0):016x}" for name in names)

    kind = "kernel" if "guest_kernel" not in r and vcpu.hw.guest_kernel else "user"
    cr3 = xen_pfn_to_cr3(vcpu.hw.get_base(Base.KERNEL), is_32bit=vcpu.domain.is_32bit)
    return [
        f"CPU:    {vcpu.vcpu_id}",
        f"RIP:    {r.get('cs', 0):04x}:[<{r.get('rip', 0):016x}>]",
        f"RFLAGS: {r.get('rflags', 0):016x}   EM: {int(vcpu.info.upcall_mask)}   CONTEXT: pv guest {kind} ({vcpu!r})",
        row("rax", "rbx", "rcx"),
        row("rdx", "rsi", "rdi"),
        row("rbp", "rsp", "r8"),
        row("r9", "r10", "r11"),
        row("r12", "r13", "r14"),
        f"{row('r15')}   cr3: {cr3:016x}   {row('cr2')}",
        f"fsb: {r.get('fs_base', 0):016x}   gsb: {r.get('gs_base_kernel', 0):016x}   "
        f"gss: {r.get('gs_base_user', 0):016x}",
        "   ".join(f"{name}: {r.get(name, 0):04x}" for name in ("ds", "es", "fs", "gs", "ss", "cs")),
    ]


def _mask(vcpu: "Vcpu") -> int:
    """All bits of an address of this guest."""
    return 0xFFFFFFFF if vcpu.domain.is_32bit else 2**64 - 1


def _code(vcpu: "Vcpu") -> list[str]:
    """The bytes around the instruction pointer; the one it points to in angle brackets."""
    rip = vcpu.hw.get_reg("rip")
    found: list[str] = []
    for at in range(rip - CODE_BEFORE, rip + CODE_AFTER):
        try:
            byte = f"{vcpu.hw.read_va(at & _mask(vcpu), 1)[0]:02x}"
        except _machine.GuestFault:
            byte = "??"
        found.append(f"<{byte}>" if at == rip else byte)
    return [f"Guest code around {rip:016x}:", "   " + " ".join(found)]


def _stack(vcpu: "Vcpu") -> list[str]:
    size, code = (4, "<I") if vcpu.domain.is_32bit else (8, "<Q")
    rsp = vcpu.hw.get_reg("rsp") & -size & _mask(vcpu)
    lines = [f"Guest stack trace from rsp={rsp:0{2 * size}x}:"]
    words: list[str] = []
    for index in range(STACK_WORDS):
        try:
            data = vcpu.hw.read_va((rsp + size * index) & _mask(vcpu), size)
        except _machine.GuestFault:
            break
        words.append(f"{struct.unpack(code, data)[0]:0{2 * size}x}")
    per_line = BYTES_PER_LINE // size
    for at in range(0, len(words), per_line):
        lines.append("   " + " ".join(words[at : at + per_line]))
    if not words:
        lines.append("   Fault while accessing guest memory.")
    return lines
