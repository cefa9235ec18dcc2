# SPDX-License-Identifier: Apache-2.0
"""What an unprivileged domain is not allowed: the errno shows which of Xen's checks came first."""

import struct
from typing import Any

import pytest
from fakes import hypercall, make_domain

from domzero.abi import control
from domzero.abi.errno import Errno
from domzero.abi.hvm_params import HvmOp
from domzero.abi.xen import DOMID_SELF, Hypercall

NOWHERE = 0x1000


def control_arg(vcpu: Any, cmd: int, version: int, domid: int = 0) -> int:
    return int(vcpu.hw.place(struct.pack("<IIH", cmd, version, domid)))


@pytest.mark.parametrize(
    ("nr", "version"),
    [
        (Hypercall.HYPERVISOR_domctl, control.XEN_DOMCTL_INTERFACE_VERSION),
        (Hypercall.HYPERVISOR_sysctl, control.XEN_SYSCTL_INTERFACE_VERSION),
        (Hypercall.HYPERVISOR_platform_op, control.XENPF_INTERFACE_VERSION),
    ],
)
def test_a_control_interface_looks_at_address_version_and_then_permission(vcpu: Any, nr: int, version: int) -> None:
    assert hypercall(vcpu, nr, NOWHERE) == -Errno.EFAULT
    assert hypercall(vcpu, nr, control_arg(vcpu, 1, version + 1)) == -Errno.EACCES
    assert hypercall(vcpu, nr, control_arg(vcpu, 1, version)) == -Errno.EPERM


@pytest.mark.parametrize(
    ("cmd", "domid", "errno"),
    [
        (2, 0, Errno.EPERM),
        (2, 1, Errno.EPERM),
        (2, 999, Errno.ESRCH),
        (2, DOMID_SELF, Errno.ESRCH),
        (control.XEN_DOMCTL_createdomain, 999, Errno.EPERM),
        (control.XEN_DOMCTL_getdomaininfo, 999, Errno.EPERM),
    ],
)
def test_domctl_looks_for_the_domain_before_it_looks_at_permission(
    vcpu: Any, cmd: int, domid: int, errno: Errno
) -> None:
    arg = control_arg(vcpu, cmd, control.XEN_DOMCTL_INTERFACE_VERSION, domid)
    assert hypercall(vcpu, Hypercall.HYPERVISOR_domctl, arg) == -errno


def test_the_continuation_of_a_domctl_is_for_one_command(vcpu: Any) -> None:
    def call(cmd: int, version: int, domid: int) -> int:
        return hypercall(vcpu, Hypercall.HYPERVISOR_arch_1, control_arg(vcpu, cmd, version, domid))

    version = control.XEN_DOMCTL_INTERFACE_VERSION
    assert hypercall(vcpu, Hypercall.HYPERVISOR_arch_1, NOWHERE) == -Errno.EFAULT
    assert call(control.XEN_DOMCTL_shadow_op, version + 1, 0) == -Errno.EOPNOTSUPP
    assert call(2, version, 0) == -Errno.EOPNOTSUPP
    assert call(control.XEN_DOMCTL_shadow_op, version, 999) == -Errno.ESRCH
    assert call(control.XEN_DOMCTL_shadow_op, version, 1) == -Errno.EPERM


def test_device_models_are_others(host: Any, vcpu: Any) -> None:
    other = make_domain(host)
    bufs = vcpu.hw.place(b"")
    assert hypercall(vcpu, Hypercall.HYPERVISOR_dm_op, other.domid, 3, bufs) == -Errno.E2BIG
    assert hypercall(vcpu, Hypercall.HYPERVISOR_dm_op, other.domid, 1, NOWHERE) == -Errno.EFAULT
    assert hypercall(vcpu, Hypercall.HYPERVISOR_dm_op, 999, 1, bufs) == -Errno.ESRCH
    assert hypercall(vcpu, Hypercall.HYPERVISOR_dm_op, DOMID_SELF, 1, bufs) == -Errno.ESRCH
    assert hypercall(vcpu, Hypercall.HYPERVISOR_dm_op, 1, 1, bufs) == -Errno.EPERM
    for domid in (0, other.domid, other.domid | 1 << 16):
        assert hypercall(vcpu, Hypercall.HYPERVISOR_dm_op, domid, 1, bufs) == -Errno.EINVAL


def test_profiling_has_commands_for_all_that_find_no_hardware(vcpu: Any) -> None:
    arg = vcpu.hw.place(b"")
    answers = [hypercall(vcpu, Hypercall.HYPERVISOR_xenoprof_op, op, arg) for op in range(19)]
    open_to_all = {0, 14}
    for op, rc in enumerate(answers):
        assert rc == -(Errno.EINVAL if op > 17 else Errno.ENODEV if op in open_to_all else Errno.EPERM)
    assert hypercall(vcpu, Hypercall.HYPERVISOR_xenoprof_op, 0xFFFFFFFF, arg) == -Errno.EINVAL
    assert hypercall(vcpu, Hypercall.HYPERVISOR_xenoprof_op, 0, NOWHERE) == -Errno.EFAULT


@pytest.mark.parametrize(
    ("nr", "errno"),
    [
        (Hypercall.HYPERVISOR_xsm_op, Errno.ENOSYS),
        (Hypercall.HYPERVISOR_kexec_op, Errno.EPERM),
        (Hypercall.HYPERVISOR_tmem_op, Errno.ENOSYS),
        (Hypercall.HYPERVISOR_argo_op, Errno.ENOSYS),
        (Hypercall.HYPERVISOR_xenpmu_op, Errno.EOPNOTSUPP),
        (Hypercall.HYPERVISOR_hypfs_op, Errno.EPERM),
        (Hypercall.HYPERVISOR_arch_0, Errno.EPERM),
        (Hypercall.HYPERVISOR_arch_2, Errno.ENOSYS),
        (Hypercall.HYPERVISOR_arch_7, Errno.ENOSYS),
        (11, Errno.ENOSYS),
        (43, Errno.ENOSYS),
        (56, Errno.ENOSYS),
        (1 << 32, Errno.ENOSYS),
        ((1 << 64) - 1, Errno.ENOSYS),
    ],
)
def test_other_hypercalls_have_one_answer(vcpu: Any, nr: int, errno: Errno) -> None:
    for arg in (0, NOWHERE, 1 << 63):
        assert hypercall(vcpu, nr, arg, arg, arg) == -errno


def test_parameters_of_hvm_domains_are_not_for_pv_domains(host: Any, vcpu: Any) -> None:
    other = make_domain(host)

    def call(command: HvmOp, domid: int, index: int) -> int:
        arg = vcpu.hw.place(struct.pack("<HHIQ", domid, 0, index, 0))
        return hypercall(vcpu, Hypercall.HYPERVISOR_hvm_op, command, arg)

    for command in (HvmOp.HVMOP_set_param, HvmOp.HVMOP_get_param):
        assert hypercall(vcpu, Hypercall.HYPERVISOR_hvm_op, command, NOWHERE) == -Errno.EFAULT
        assert call(command, 999, 999) == -Errno.EINVAL
        assert call(command, 999, 1) == -Errno.ESRCH
        for domid in (DOMID_SELF, 0, 1, other.domid):
            assert call(command, domid, 1) == -Errno.EINVAL


def test_other_commands_for_hvm_domains_answer_each_in_its_own_way(host: Any, vcpu: Any) -> None:
    other = make_domain(host)

    def call(command: int, arg: int) -> int:
        return hypercall(vcpu, Hypercall.HYPERVISOR_hvm_op, command, arg)

    def about(domid: int) -> int:
        return int(vcpu.hw.place(struct.pack("<H", domid)))

    assert call(HvmOp.HVMOP_get_mem_type, about(999)) == -Errno.ESRCH
    assert call(HvmOp.HVMOP_get_mem_type, about(other.domid)) == -Errno.EPERM
    assert call(HvmOp.HVMOP_get_mem_type, about(DOMID_SELF)) == -Errno.EINVAL
    assert call(HvmOp.HVMOP_pagetable_dying, about(999)) == -Errno.ESRCH
    assert call(HvmOp.HVMOP_pagetable_dying, about(other.domid)) == -Errno.EOPNOTSUPP
    assert call(HvmOp.HVMOP_pagetable_dying, about(DOMID_SELF)) == -Errno.EINVAL
    assert call(HvmOp.HVMOP_flush_tlbs, 0) == call(HvmOp.HVMOP_flush_tlbs, NOWHERE) == -Errno.EINVAL
    assert call(HvmOp.HVMOP_set_evtchn_upcall_vector, NOWHERE) == -Errno.EINVAL
    assert call(HvmOp.HVMOP_xentrace, vcpu.hw.place(struct.pack("<HH", 0xFFF, 28))) == 0
    assert call(HvmOp.HVMOP_xentrace, vcpu.hw.place(struct.pack("<HH", 0x1000, 0))) == -Errno.EINVAL
    assert call(HvmOp.HVMOP_xentrace, vcpu.hw.place(struct.pack("<HH", 0, 29))) == -Errno.EINVAL
    assert call(HvmOp.HVMOP_guest_request_vm_event, 0) == 0
    assert call(HvmOp.HVMOP_guest_request_vm_event, NOWHERE) == -Errno.EINVAL
    assert call(HvmOp.HVMOP_altp2m, 0) == -Errno.EOPNOTSUPP
    for command in (2, 3, 4, 6, 99, 1 << 40):
        assert call(command, 0) == -Errno.ENOSYS


def test_system_time_is_told_to_every_domain(host: Any, vcpu: Any) -> None:
    va = vcpu.hw.place(b"")
    assert hypercall(vcpu, Hypercall.HYPERVISOR_hvm_op, HvmOp.HVMOP_get_time, va) == 0
    assert int.from_bytes(vcpu.hw.peek(va, 8), "little") == host.now_ns()
    assert hypercall(vcpu, Hypercall.HYPERVISOR_hvm_op, HvmOp.HVMOP_get_time, NOWHERE) == -Errno.EFAULT
