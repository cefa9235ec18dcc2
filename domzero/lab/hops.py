# SPDX-License-Identifier: Apache-2.0
"""A way through several programs, cut into hops: who runs, in which ring, with which page tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from domzero.abi.x86 import X86_EFLAGS_IF
from domzero.abi.xen import PAGE_SIZE
from domzero.lab.listing import Listing

FAULT_VA = 0x50_0000
STACK_VA = 0x50_1000
STACK_TOP = STACK_VA + PAGE_SIZE
IF = X86_EFLAGS_IF


@dataclass(slots=True)
class Hop:
    """A stretch of one program in one ring with one set of page tables, or what processor or Xen did between two."""

    who: str
    ring: str = ""
    selectors: str = ""
    base: str = ""
    instructions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """What is looked at before each instruction."""

    who: str
    rip: int
    rsp: int
    cs: int
    ss: int
    base: int
    text: str

    @property
    def ring(self) -> int:
        """CPL."""
        return self.cs & 3


def trace(look: Callable[[], State], steps: Iterator[list[str]], end: int, entered_by: str) -> list[Hop]:
    """Runs to `end` and cuts the way into hops; `steps` gives what happened beside each instruction."""
    hops: list[Hop] = []
    before = look()
    for notes in steps:
        after = look()
        if not hops or hops[-1].who != before.who:
            selectors = f"{before.cs:x}:{before.ss:x}"
            hops.append(Hop(before.who, str(before.ring), selectors, f"{before.base:x}"))
        hops[-1].instructions.append(before.text)
        if notes or after.who != before.who:
            hop = Hop(entered_by, notes=notes)
            if (before.cs, before.ss) != (after.cs, after.ss):
                hop.notes.append(f"cs:ss {before.cs:x}:{before.ss:x} -> {after.cs:x}:{after.ss:x}")
            if before.base != after.base:
                hop.notes.append(f"page tables {before.base:x} -> {after.base:x}")
            if before.rsp != after.rsp:
                hop.notes.append(f"rsp {before.rsp:x} -> {after.rsp:x}")
            hops.append(hop)
        before = after
        if after.rip == end:
            return hops
    raise ValueError("the lab's program has lost its way")


def text_at(programs: tuple[Listing, ...], rip: int) -> str:
    """The instruction at an address of one of the programs."""
    for program in programs:
        line = program.line(rip)
        if line is not None:
            return line.text
    return "?"
