# SPDX-License-Identifier: Apache-2.0
"""Core dumps: what is in them is what the guest was."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from building import build_guests

import domzero
from domzero.abi.arch_x86 import vcpu_guest_context, xen_pfn_to_cr3
from domzero.abi.layout import layout_for, sizeof
from domzero.abi.start_info import start_info
from domzero.dom0.coredump import XC_CORE_MAGIC, write_core

pytestmark = pytest.mark.guest
PAGE = 4096


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guests")
    return build_guests(out, f"{out}/64/ptwr", f"{out}/32/ptwr")


@pytest.fixture(params=["64", "32"])
def guest(request: pytest.FixtureRequest, kernels: Path) -> Iterator[domzero.Guest]:
    with domzero.boot(str(kernels / request.param / "ptwr"), memory_mib=16, vcpus=2, cmdline="seen") as guest:
        guest.step(20_000)
        guest._domain.back_ends.settle()  # the console's takes what was printed, in a page of the guest's
        yield guest


def dump(guest: domzero.Guest, path: Path) -> dict[str, bytes]:
    """The sections of the guest's core dump, where binutils finds them; in place of one that is there."""
    with path.open("w+b") as core:
        assert write_core(guest._domain, core.fileno()) == os.fstat(core.fileno()).st_size
    done = subprocess.run(["readelf", "-hSW", path], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "CORE (Core file)" in done.stdout
    found = re.findall(r"\] (\.\S+) +\S+ +0+ (\w+) (\w+) ", done.stdout)
    data = path.read_bytes()
    return {name: data[int(at, 16) : int(at, 16) + int(size, 16)] for name, at, size in found}


def test_every_page_is_there_with_its_numbers(guest: domzero.Guest, tmp_path: Path) -> None:
    sections = dump(guest, tmp_path / "core")
    p2m = list(struct.iter_unpack("<QQ", sections[".xen_p2m"]))
    assert [pfn for pfn, _ in p2m] == list(range(16 << 8))
    for index, (pfn, mfn) in enumerate(p2m):
        page = sections[".xen_pages"][index * PAGE : (index + 1) * PAGE]
        assert page == guest.machine.read(mfn * PAGE, PAGE)
        assert page == guest.physical.read(pfn * PAGE, PAGE)
    assert any(b"seen\0" in sections[".xen_pages"][at : at + PAGE] for at in range(0, 16 << 20, PAGE))
    holes = (tmp_path / "core").stat()
    assert holes.st_blocks * 512 < holes.st_size / 2  # most of this guest's memory is zero


def test_the_registers_are_those_of_each_vcpu(guest: domzero.Guest, tmp_path: Path) -> None:
    sections = dump(guest, tmp_path / "core")
    domain = guest._domain
    states = sections[".xen_prstatus"]
    assert len(states) == 2 * sizeof(vcpu_guest_context)
    layout = layout_for(vcpu_guest_context, domain.is_32bit)
    context = layout.from_buffer_copy(states)
    regs, now = context.user_regs, guest.vcpus[0].regs.as_dict()
    for name in ("rip", "rsp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"):
        assert getattr(regs, name.replace("r", "e", 1) if domain.is_32bit else name) == now[name]
    assert (regs.cs, regs.ss) == (now["cs"], now["ss"])
    root = domain.vcpus[0].hw.page_walk(now["rip"])[0][1]
    assert context.ctrlreg[3] == xen_pfn_to_cr3(root, is_32bit=domain.is_32bit)
    assert context.flags & 0b100101 == 0b100101  # online, in its kernel, with an FPU
    other = layout.from_buffer_copy(states, sizeof(vcpu_guest_context))
    assert not other.flags & 0b100000 and other.user_regs.cs == 0


def test_the_notes_and_the_shared_page_say_what_it_was(guest: domzero.Guest, tmp_path: Path) -> None:
    shared, sections = b"", dict[str, bytes]()
    while shared != bytes(guest._domain.shared_info):  # a timer may make an event pending while it is dumped
        shared = bytes(guest._domain.shared_info)
        sections = dump(guest, tmp_path / "core")
    notes, at = {}, 0
    data = sections[".note.Xen"]
    while at < len(data):
        name_size, size, kind, name = struct.unpack_from("<III4s", data, at)
        assert (name_size, name) == (4, b"Xen\0")
        notes[kind - 0x2000000] = data[at + 16 : at + 16 + size]
        at += 16 + size
    assert notes[0] == b""
    assert struct.unpack("<QQQQ", notes[1]) == (XC_CORE_MAGIC, 2, 16 << 8, PAGE)
    assert struct.unpack_from("<QQ", notes[2]) == (4, 17)
    assert notes[3] == struct.pack("<Q", 1)
    assert sections[".xen_shared_info"] == shared
    info = start_info  # the guest's own page of it is among its pages
    assert guest._domain.shared_info_maddr in {
        layout_for(info, guest._domain.is_32bit).from_buffer_copy(sections[".xen_pages"], at).shared_info
        for at in range(0, 16 << 20, PAGE)
        if sections[".xen_pages"][at : at + 7] == b"xen-3.0"
    }
