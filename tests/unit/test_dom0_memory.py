# SPDX-License-Identifier: Apache-2.0
"""Memory that domains are promised."""

from __future__ import annotations

import asyncio

import pytest
from kernels import elf, notes

from domzero.builder.image import parse_kernel
from domzero.builder.layout import little_room, plan
from domzero.dom0.config import DomainConfig
from domzero.dom0.hostinfo import memory_mib, resident_mib
from domzero.dom0.manager import Manager
from domzero.dom0.records import Record
from domzero.errors import ResourceError


def test_memory_is_what_is_available_less_what_others_were_promised_and_have_not_touched() -> None:
    async def scene() -> None:
        manager = Manager()
        total, available = memory_mib()
        manager._check_memory(available // 2)
        with pytest.raises(ResourceError, match=r"MiB available$"):
            manager._check_memory(total)
        record = Record(DomainConfig(kernel="/k", name="a", memory_mib=available // 10 * 9))
        manager._live[record.uuid] = record
        with pytest.raises(ResourceError, match=f"other domains may still take {available // 10 * 9} of them"):
            manager._check_memory(available // 2)

    asyncio.run(scene())


def test_the_memory_of_a_process_that_is_gone_is_none() -> None:
    assert resident_mib() > 0
    assert resident_mib(2**22 + 1) == 0


def test_a_domain_that_starts_without_room_for_its_kernel_is_told_what_it_may_need() -> None:
    ramdisk = 2 << 20
    image = parse_kernel(elf(bytes(24 << 20), notes()), "k")
    for mib, said in ((31, "of 31 MiB 0 MiB are left beside kernel and ramdisk: it may need 37 MiB"), (256, None)):
        assert little_room(mib << 8, plan(image, mib << 8, ramdisk), ramdisk) == said
    small = parse_kernel(elf(bytes(100), notes()), "k")
    assert little_room(5 << 8, plan(small, 5 << 8, 0), 0) is None
