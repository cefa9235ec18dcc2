# SPDX-License-Identifier: Apache-2.0
"""The memory that a 32-bit PV domain starts with, on the real machine."""

from __future__ import annotations

import struct

import pytest
from kernels import PADDR, elf, notes

from domzero import _machine
from domzero._machine import Base, FrameType
from domzero.abi.layout import sizeof
from domzero.abi.start_info import start_info
from domzero.builder.image import KernelImage, parse_kernel
from domzero.builder.pv import Start, build_pv
from domzero.errors import ImageError
from domzero.hypervisor.hypercall_page import hypercall_page

PAGES = 8 * 256
TEXT = bytes(range(256)) * 100
KERNEL_BASE = 0xC0000000


def image(base: int = KERNEL_BASE, **changes: int | str | None) -> KernelImage:
    wanted: dict[str, int | str | None] = {
        "VIRT_BASE": base,
        "ENTRY": base + PADDR,
        "INIT_P2M": None,
        "MOD_START_PFN": None,
        "PAE_MODE": "yes",
    }
    return parse_kernel(elf(TEXT, notes(**wanted | changes), machine=3, wide=False), "k")


class Built:
    """A built domain and what it can see."""

    def __init__(self, kernel: KernelImage, ramdisk: bytes = b"") -> None:
        self.machine = _machine.Machine(PAGES + 512, seed=3)
        self.domain = self.machine.create_domain(1, is_32bit=True)
        self.vcpu = self.domain.create_vcpu(0)
        start = Start(nr_pages=PAGES, shared_info=0x5000, store_port=1, console_port=2, cmdline="a=b", ramdisk=ramdisk)
        self.built = build_pv(self.machine, self.domain, self.vcpu, kernel, start)
        layout = start_info.compat
        self.info = layout.from_buffer_copy(self.vcpu.read_va(self.vcpu.get_reg("rsi"), sizeof(layout)))


def test_vcpu_0_starts_in_ring_1_with_flat_segments() -> None:
    vcpu = Built(image()).vcpu
    assert (vcpu.get_reg("rip"), vcpu.get_reg("cs"), vcpu.get_reg("ss")) == (KERNEL_BASE + PADDR, 0xE019, 0xE021)
    assert {vcpu.get_reg(name) for name in ("ds", "es", "fs", "gs")} == {0xE021}
    assert vcpu.guest_kernel


@pytest.mark.parametrize("base", [KERNEL_BASE, 0, 0x40000000])
def test_the_kernel_and_its_lists_have_32_bit_words_wherever_it_is_linked(base: int) -> None:
    built = Built(image(base))
    assert built.vcpu.read_va(base + PADDR, len(TEXT)) == TEXT
    assert built.info.magic == b"xen-3.0-x86_32p"
    listed = struct.unpack(f"<{PAGES}I", built.vcpu.read_va(built.info.mfn_list, PAGES * 4))
    first, count = built.machine.m2p
    narrow = built.machine.read((first + count) * 4096, built.machine.frames * 4)
    assert all(struct.unpack_from("<I", narrow, mfn * 4)[0] == pfn for pfn, mfn in enumerate(listed))


def test_the_page_tables_are_an_l3_with_its_fourth_l2_and_are_pinned() -> None:
    built = Built(image(0))
    root = built.vcpu.get_base(Base.KERNEL)
    assert (built.machine.frame_info(root).type, built.machine.frame_info(root).pinned) == (FrameType.L3, True)
    levels = [level for level, *_ in built.vcpu.page_walk(PADDR)]
    assert levels == [3, 2, 1]
    _, _, _, fourth = built.vcpu.page_walk(KERNEL_BASE)[0]
    assert built.machine.frame_info(fourth >> 12).type == FrameType.L2
    assert built.machine.audit() == []


def test_pages_of_the_kernel_are_its_own_and_tables_read_only() -> None:
    built = Built(image(HYPERCALL_PAGE=KERNEL_BASE + PADDR + 0x2000))
    assert built.vcpu.read_va(KERNEL_BASE + PADDR + 0x2000, 4096) == hypercall_page(True)
    for va, bits in ((KERNEL_BASE + PADDR, 3), (built.info.pt_base, 1)):
        assert built.vcpu.page_walk(va)[-1][3] & 7 == bits


def test_a_ramdisk_is_mapped() -> None:
    data = b"ramdisk" * 1000
    built = Built(image(), data)
    assert built.vcpu.read_va(built.info.mod_start, len(data)) == data


@pytest.mark.parametrize("base", [0xF5800000, 0xF5700000, 0x1_0000_0000, KERNEL_BASE + 1])
def test_a_kernel_in_the_hypervisors_part_is_refused(base: int) -> None:
    with pytest.raises(ImageError):
        Built(image(base))
