# SPDX-License-Identifier: Apache-2.0
"""Memory that domains are promised."""

from __future__ import annotations

import mmap
import os

import pytest
from kernels import elf, notes

from domzero.builder.image import parse_kernel
from domzero.builder.layout import little_room, plan
from domzero.dom0.config import DomainConfig
from domzero.dom0.memory_account import check_growth, check_room, guest_memory_mib, memory_mib
from domzero.dom0.records import Record
from domzero.errors import ResourceError


def test_memory_is_what_is_available_less_what_others_were_promised_and_have_not_touched() -> None:
    total, available = memory_mib()
    check_room(available // 2, [])
    with pytest.raises(ResourceError, match=r"MiB available$"):
        check_room(total, [])
    record = Record(DomainConfig(kernel="/k", name="a", maxmem_mib=total), memory_limit_mib=available // 10 * 9)
    with pytest.raises(ResourceError, match=f"other domains may still take {available // 10 * 9} of them"):
        check_room(available // 2, [record])
    check_growth(record, available // 20 * 19, [record], key="memory_target_mib")
    with pytest.raises(ResourceError, match=f"other domains may still take {available // 10 * 9} of them") as caught:
        check_growth(record, available // 10 * 12, [record], key="memory_target_mib")
    assert caught.value.key == "memory_target_mib"


def test_memory_of_a_guest_is_what_is_allocated_however_often_it_is_mapped() -> None:
    with os.fdopen(os.memfd_create("domzero-ram"), "r+b") as file:
        before = guest_memory_mib(os.getpid())
        file.truncate(64 << 20)
        with mmap.mmap(file.fileno(), 0) as once, mmap.mmap(file.fileno(), 0) as twice:
            for at in range(0, 8 << 20, 4096):
                once[at] = twice[at] = 1
            assert guest_memory_mib(os.getpid()) == before + 8
    assert guest_memory_mib(2**22 + 1) == 0


def test_a_domain_that_starts_without_room_for_its_kernel_is_told_what_it_may_need() -> None:
    ramdisk = 2 << 20
    image = parse_kernel(elf(bytes(24 << 20), notes()), "k")
    for mib, said in ((31, "of 31 MiB 0 MiB are left beside kernel and ramdisk: it may need 37 MiB"), (256, None)):
        assert little_room(mib << 8, plan(image, mib << 8, ramdisk), ramdisk) == said
    small = parse_kernel(elf(bytes(100), notes()), "k")
    assert little_room(5 << 8, plan(small, 5 << 8, 0), 0) is None
