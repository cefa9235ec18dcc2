# SPDX-License-Identifier: Apache-2.0
"""The memory that a 64-bit PV domain starts with, read back through its own page tables."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from builder_machine import BuilderDomain, BuilderMachine, BuilderVcpu
from kernels import PADDR, VIRT_BASE, elf, notes

from domzero.abi.start_info import StartInfoFlags, start_info
from domzero.builder.image import KernelImage, parse_kernel
from domzero.builder.layout import plan
from domzero.builder.pv import Built, Start, build_pv
from domzero.errors import ImageError
from domzero.hypervisor.hypercall_page import hypercall_page

PAGES = 32 * 256
TEXT = os.urandom(50_001)


class Domain:
    """A built domain and what it can see."""

    def __init__(
        self,
        machine: BuilderMachine,
        image: KernelImage,
        ramdisk: bytes,
        pages: int = PAGES,
        extent_seed: int | None = None,
    ) -> None:
        self.vcpu = BuilderVcpu(machine)
        self.domain = BuilderDomain(machine)
        start = Start(
            nr_pages=pages,
            shared_info=0x5000,
            store_port=1,
            console_port=2,
            cmdline="a=b c",
            ramdisk=ramdisk,
            extent_seed=extent_seed,
        )
        self.built: Built = build_pv(machine, self.domain, self.vcpu, image, start)  # type: ignore[arg-type]
        self.info = start_info.from_buffer_copy(self.vcpu.read_va(self.vcpu.regs["rsi"], 1168))

    def read(self, va: int, length: int) -> bytes:
        return self.vcpu.read_va(va, length)

    def mfn(self, va: int) -> int:
        return (self.vcpu.leaf(va) & 0xF_FFFF_FFFF_F000) >> 12


@pytest.fixture
def machine() -> Iterator[BuilderMachine]:
    machine = BuilderMachine(PAGES + 768)
    yield machine
    machine.close()


def image(**changes: int | str | None) -> KernelImage:
    return parse_kernel(elf(TEXT, notes(**changes), memsz=len(TEXT) + 100_000), "k")


def test_the_kernel_lies_where_its_notes_say_with_zeros_behind_it(machine: BuilderMachine) -> None:
    domain = Domain(machine, image(), b"")
    assert domain.read(VIRT_BASE + PADDR, len(TEXT)) == TEXT
    assert domain.read(VIRT_BASE + PADDR + len(TEXT), 100_000) == bytes(100_000)


def test_vcpu_0_starts_at_the_entry_on_an_empty_stack_in_guest_kernel_mode(machine: BuilderMachine) -> None:
    domain = Domain(machine, image(), b"")
    regs = domain.vcpu.regs
    assert (regs["rip"], regs["cs"], regs["ss"]) == (VIRT_BASE + PADDR, 0xE033, 0xE02B)
    assert domain.read(regs["rsp"] - 4096, 4096) == bytes(4096)
    assert domain.vcpu.kernel_stack == (0xE02B, regs["rsp"])
    assert domain.vcpu.guest_kernel


def test_start_info_tells_what_was_built(machine: BuilderMachine) -> None:
    domain = Domain(machine, image(), b"r" * 5000)
    info = domain.info
    assert info.magic == b"xen-3.0-x86_64"
    assert (info.nr_pages, info.shared_info, info.cmd_line) == (PAGES, 0x5000, b"a=b c")
    assert (info.store_evtchn, info.console.domU.evtchn) == (1, 2)
    assert (info.store_mfn, info.console.domU.mfn) == (domain.built.store_mfn, domain.built.console_mfn)
    after = domain.vcpu.regs["rsi"] & ~4095
    assert (domain.mfn(after + 0x1000), domain.mfn(after + 0x2000)) == (info.store_mfn, info.console.domU.mfn)


@pytest.mark.parametrize("init_p2m", [0x8000000000, None])
def test_the_p2m_list_is_where_the_kernel_wants_it_and_m2p_is_its_inverse(
    machine: BuilderMachine, init_p2m: int | None
) -> None:
    domain = Domain(machine, image(INIT_P2M=init_p2m), b"")
    listed = memoryview(domain.read(domain.info.mfn_list, PAGES * 8)).cast("Q")
    assert list(listed) == domain.domain.mfns
    if init_p2m is not None:
        assert domain.info.mfn_list == init_p2m
    first = machine.m2p[0] * 4096
    m2p = memoryview(machine.ram[first : first + machine.frames * 8]).cast("Q")
    assert all(m2p[mfn] == pfn for pfn, mfn in enumerate(domain.domain.mfns))


def test_machine_frames_are_not_in_the_order_of_pseudo_physical_ones(machine: BuilderMachine) -> None:
    mfns = Domain(machine, image(), b"").domain.mfns
    assert sum(b == a + 1 for a, b in itertools.pairwise(mfns)) < len(mfns) // 10


def test_with_extents_large_pieces_of_its_memory_are_neighbours_in_the_machine(machine: BuilderMachine) -> None:
    machine.free = [mfn for mfn in machine.free if mfn not in (1 * 512 + 5, 2 * 512, 3 * 512 + 511, 4 * 512 + 9)]
    pages = 14 * 512 + 324  # 12 extents are whole
    domain = Domain(machine, image(), b"", pages, extent_seed=1)
    listed = list(memoryview(domain.read(domain.info.mfn_list, pages * 8)).cast("Q"))
    assert len(set(listed)) == pages
    extents = [listed[at : at + 512] for at in range(2 * 512, 14 * 512, 512)]
    assert all(extent == list(range(extent[0], extent[0] + 512)) for extent in extents)
    firsts = [extent[0] for extent in extents]
    assert all(first % 512 == 0 for first in firsts) and firsts != sorted(firsts)
    rest = listed[: 2 * 512] + listed[14 * 512 :]
    assert sum(b == a + 1 for a, b in itertools.pairwise(rest)) < len(rest) // 10


def test_a_ramdisk_stays_unmapped_for_a_kernel_that_takes_a_frame_number(machine: BuilderMachine) -> None:
    data = os.urandom(10_000)
    domain = Domain(machine, image(), data)
    assert domain.info.flags == StartInfoFlags.SIF_MOD_START_PFN
    assert domain.info.mod_len == len(data)
    pfn = domain.info.mod_start
    assert domain.vcpu.leaf(VIRT_BASE + (pfn << 12)) == 0
    frames = domain.domain.mfns[pfn : pfn + 3]
    assert b"".join(machine.ram[mfn * 4096 : (mfn + 1) * 4096] for mfn in frames)[: len(data)] == data


def test_a_ramdisk_is_mapped_for_a_kernel_that_takes_an_address(machine: BuilderMachine) -> None:
    data = os.urandom(10_000)
    domain = Domain(machine, image(MOD_START_PFN=None), data)
    assert domain.info.flags == 0
    assert domain.read(domain.info.mod_start, len(data)) == data


def test_page_tables_are_mapped_read_only_and_everything_else_is_writable(machine: BuilderMachine) -> None:
    domain = Domain(machine, image(), b"")
    layout = domain.built.layout
    for pfn in range(layout.end_pfn):
        is_table = layout.pt_pfn <= pfn < layout.pt_pfn + layout.nr_pt_frames
        assert bool(domain.vcpu.leaf(layout.va(pfn)) & 2) != is_table
    assert domain.info.pt_base == layout.va(layout.pt_pfn)
    assert domain.mfn(domain.info.pt_base) == domain.vcpu.base


def test_the_top_page_table_is_pinned_because_linux_unpins_it(machine: BuilderMachine) -> None:
    domain = Domain(machine, image(), b"")
    assert domain.vcpu.pinned == [domain.vcpu.base]


def test_the_initial_mapping_ends_on_4_mib_with_512_kib_to_spare(machine: BuilderMachine) -> None:
    layout = Domain(machine, image(), b"").built.layout
    assert layout.end_va % (4 << 20) == 0
    assert layout.end_va - layout.va(layout.stack_pfn + 1) >= 512 << 10


def test_the_hypercall_page_is_filled_where_a_kernel_asks_for_one(machine: BuilderMachine) -> None:
    va = VIRT_BASE + PADDR + 0x3000
    domain = Domain(machine, image(HYPERCALL_PAGE=va), b"")
    assert domain.read(va, 4096) == hypercall_page(False)


@pytest.mark.parametrize(
    "changes",
    [
        {"VIRT_BASE": 0x0000900000000000},
        {"VIRT_BASE": 0xFFFF800000000000},
        {"VIRT_BASE": VIRT_BASE + 5},
        {"INIT_P2M": 0xFFFF840000000000},
        {"INIT_P2M": 0xFFFFFFFF80100000},
        {"INIT_P2M": 0x8000000001},
        {"PADDR_OFFSET": 0x200000},
        {"ENTRY": 0x1000},
        {"HYPERCALL_PAGE": VIRT_BASE - 0x1000},
    ],
)
def test_impossible_addresses_in_notes_are_refused_before_anything_is_allocated(
    machine: BuilderMachine, changes: dict[str, int]
) -> None:
    free = len(machine.free)
    with pytest.raises(ImageError):
        Domain(machine, image(**changes), b"")
    assert len(machine.free) == free


def test_a_kernel_larger_than_memory_is_refused_with_what_it_needs() -> None:
    with pytest.raises(ImageError, match=r"memory: the kernel does not fit into 3 MiB \(at least \d+ MiB"):
        plan(image(), 3 * 256, 0)


def test_a_ramdisk_larger_than_memory_is_refused() -> None:
    with pytest.raises(ImageError, match="kernel and ramdisk do not fit"):
        plan(image(), PAGES, 40 << 20)


def test_the_memory_that_is_said_to_be_needed_is_enough() -> None:
    with pytest.raises(ImageError) as caught:
        plan(image(), 256, 3 << 20)
    needed = int(str(caught.value).split("at least ")[1].split()[0])
    plan(image(), needed * 256, 3 << 20)
