"""Hypercalls of privileged domains, refused to this one with the checks and the errno of Xen."""

from typing import TYPE_CHECKING

from domzero.abi.control import XEN_DOMCTL_INTERFACE_VERSION, XEN_SYSCTL_INTERFACE_VERSION, XENPF_INTERFACE_VERSION
from domzero.abi.errno import Errno
from domzero.abi.hvm_params import HVM_NR_PARAMS, HvmOp, xen_hvm_param
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.event_channel import check_self
from domzero.hypervisor.hypercalls.table import TABLE, State, hypercall, operation, refused

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

PRIVILEGED = "privileged domains only"

XEN_DOMCTL_SIZE = 144
XEN_SYSCTL_SIZE = 136
XEN_PLATFORM_OP_SIZE = 136


def _control(vcpu: "Vcpu", va: int, size: int, version_at: int, version: int) -> int:
    """Copy, interface version, then permission: Xen's order."""
    data = guest_memory.read(vcpu, va, size)
    if int.from_bytes(data[version_at : version_at + 4], "little") != version:
        return -Errno.EACCES
    return -Errno.EPERM


@hypercall(Hypercall.HYPERVISOR_domctl, "p", note=PRIVILEGED)
def domctl(vcpu: "Vcpu", op: int) -> int:
    """Control of domains; the domain must exist before permission is looked at."""
    rc = _control(vcpu, op, XEN_DOMCTL_SIZE, 4, XEN_DOMCTL_INTERFACE_VERSION)
    domid = int.from_bytes(guest_memory.read(vcpu, op + 8, 2), "little")
    if rc == -Errno.EPERM and domid != 0:
        check_self(vcpu, domid)
    return rc


@hypercall(Hypercall.HYPERVISOR_sysctl, "p", note=PRIVILEGED)
def sysctl(vcpu: "Vcpu", op: int) -> int:
    """Control of the host."""
    return _control(vcpu, op, XEN_SYSCTL_SIZE, 4, XEN_SYSCTL_INTERFACE_VERSION)


@hypercall(Hypercall.HYPERVISOR_platform_op, "p", note=PRIVILEGED)
def platform_op(vcpu: "Vcpu", op: int) -> int:
    """Control of the hardware."""
    return _control(vcpu, op, XEN_PLATFORM_OP_SIZE, 4, XENPF_INTERFACE_VERSION)


hvm_op = operation(Hypercall.HYPERVISOR_hvm_op, "lp", HvmOp, note="HVM domains only")


@hvm_op.sub(HvmOp.HVMOP_set_param, xen_hvm_param, note="EINVAL: not an HVM domain")
@hvm_op.sub(HvmOp.HVMOP_get_param, xen_hvm_param, note="EINVAL: not an HVM domain")
def hvm_param(vcpu: "Vcpu", arg: xen_hvm_param) -> int:
    """Parameters of HVM domains."""
    if arg.index < HVM_NR_PARAMS:
        check_self(vcpu, arg.domid)
    return -Errno.EINVAL


for _nr in (Hypercall.HYPERVISOR_domctl, Hypercall.HYPERVISOR_sysctl, Hypercall.HYPERVISOR_platform_op):
    TABLE[_nr].state = State.REFUSED
    TABLE[_nr].errno = Errno.EPERM

refused(Hypercall.HYPERVISOR_xsm_op, Errno.ENOSYS, note="no security module, as Xen without XSM")
refused(Hypercall.HYPERVISOR_xenoprof_op, Errno.ENOSYS, note="not in Xen since 4.16 unless configured")
refused(Hypercall.HYPERVISOR_kexec_op, Errno.EPERM, note=PRIVILEGED)
refused(Hypercall.HYPERVISOR_tmem_op, Errno.ENOSYS, note="removed from Xen in 4.13")
refused(Hypercall.HYPERVISOR_argo_op, Errno.EOPNOTSUPP, note="off, as in Xen by default")
refused(Hypercall.HYPERVISOR_xenpmu_op, Errno.EOPNOTSUPP, note="no virtual PMU, as in Xen by default")
refused(Hypercall.HYPERVISOR_dm_op, Errno.EPERM, note="device models only")
refused(Hypercall.HYPERVISOR_hypfs_op, Errno.EPERM, note=PRIVILEGED)
refused(Hypercall.HYPERVISOR_arch_0, Errno.EPERM, note=f"machine checks: {PRIVILEGED}")
