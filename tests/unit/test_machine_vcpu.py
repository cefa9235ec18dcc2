# SPDX-License-Identifier: Apache-2.0
"""Hypercalls that the compiled machine answers for a vCPU."""

from typing import TYPE_CHECKING

import pytest

from domzero._machine import Machine, Vcpu, XenRefused
from domzero.abi.arch_x86 import SegBase
from domzero.abi.errno import Errno

if TYPE_CHECKING:
    from domzero._machine import Register


@pytest.fixture
def vcpu() -> Vcpu:
    return Machine(256, seed=1).create_domain(1).create_vcpu(0)


def test_segment_bases_are_set_one_by_one_and_must_be_canonical(vcpu: Vcpu) -> None:
    registers: dict[SegBase, Register] = {
        SegBase.SEGBASE_FS: "fs_base",
        SegBase.SEGBASE_GS_USER: "gs_base_user",
        SegBase.SEGBASE_GS_KERNEL: "gs_base_kernel",
    }
    for which, register in registers.items():
        vcpu.set_segment_base(which, 0x7000_0000_1000 + which)
        with pytest.raises(XenRefused):
            vcpu.set_segment_base(which, 1 << 47)
        assert vcpu.get_reg(register) == 0x7000_0000_1000 + which
        vcpu.set_segment_base(which, 0xFFFF_8000_0000_0000)
    vcpu.set_segment_base(SegBase.SEGBASE_GS_USER_SEL, 0)
    with pytest.raises(XenRefused):
        vcpu.set_segment_base(4, 0)


def test_a_refusal_carries_xens_number_and_name(vcpu: Vcpu) -> None:
    for index, value, errno in ((8, 0, Errno.ENODEV), (0, 1 << 47, Errno.EPERM), (7, 1 << 32, Errno.EINVAL)):
        with pytest.raises(XenRefused) as caught:
            vcpu.set_debug_reg(index, value)
        assert (caught.value.errno, *caught.value.args) == (errno, errno, errno.name)


def test_a_panic_of_the_machine_is_an_exception_that_ends_one_domain() -> None:
    machine = pytest.importorskip("domzero._machine")
    assert issubclass(machine.MachineBug, Exception), "the vCPU's thread catches it, and crashes the domain"
