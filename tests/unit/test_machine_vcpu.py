"""Hypercalls that the compiled machine answers for a vCPU."""

import importlib
from typing import Any

import pytest

EINVAL = -22
FS, GS_USER, GS_KERNEL, GS_USER_SEL = range(4)


@pytest.fixture
def vcpu() -> Any:
    try:
        machine = importlib.import_module("domzero._machine").Machine(256, seed=1)
    except (ImportError, TypeError):
        pytest.skip("the machine is not compiled here")
    return machine.create_domain(1).create_vcpu(0)


def test_segment_bases_are_set_one_by_one_and_must_be_canonical(vcpu: Any) -> None:
    for which, register in ((FS, "fs_base"), (GS_USER, "gs_base_user"), (GS_KERNEL, "gs_base_kernel")):
        assert vcpu.set_segment_base(which, 0x7000_0000_1000 + which) == 0
        assert vcpu.set_segment_base(which, 1 << 47) == EINVAL
        assert vcpu.get_reg(register) == 0x7000_0000_1000 + which
        assert vcpu.set_segment_base(which, 0xFFFF_8000_0000_0000) == 0
    assert vcpu.set_segment_base(GS_USER_SEL, 0) == 0
    assert vcpu.set_segment_base(4, 0) == EINVAL


def test_a_panic_of_the_machine_is_an_exception_that_ends_one_domain() -> None:
    machine = pytest.importorskip("domzero._machine")
    assert issubclass(machine.MachineBug, Exception), "the vCPU's thread catches it, and crashes the domain"
