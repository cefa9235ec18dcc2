# SPDX-License-Identifier: Apache-2.0
"""Hypercalls of privileged and of HVM domains, refused to this one with the checks and the errno of Xen 4.17.

The order of the checks shows in the answers: a control interface copies its argument and looks at the interface's
version before it looks at permissions, a profiler looks at the command first.
"""

from typing import TYPE_CHECKING

from domzero.abi.control import (
    XEN_DOMCTL_INTERFACE_VERSION,
    XEN_SYSCTL_INTERFACE_VERSION,
    XENPF_INTERFACE_VERSION,
    XEN_DOMCTL_createdomain,
    XEN_DOMCTL_getdomaininfo,
    XEN_DOMCTL_shadow_op,
    XENOPROF_get_buffer,
    XENOPROF_init,
    XENOPROF_last_op,
)
from domzero.abi.errno import Errno
from domzero.abi.hvm_params import (
    HVM_NR_PARAMS,
    HvmOp,
    xen_hvm_get_mem_type,
    xen_hvm_pagetable_dying,
    xen_hvm_param,
    xen_hvm_xentrace,
)
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.table import TABLE, State, hypercall, operation, refused

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

PRIVILEGED = "privileged domains only"

XEN_DOMCTL_SIZE = 144
XEN_SYSCTL_SIZE = 136
XEN_PLATFORM_OP_SIZE = 136
XENOPROF_INIT_SIZE = 72
XENOPROF_GET_BUFFER_SIZE = {False: 24, True: 20}
DM_OP_BUFFERS = 2
TRC_SUBCLS_SHIFT = 12


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


@hypercall(Hypercall.HYPERVISOR_domctl, "p", note=PRIVILEGED)
def domctl(vcpu: "Vcpu", op: int) -> int:
    """Control of domains; the domain must exist before permission is looked at."""
    data = guest_memory.read(vcpu, op, XEN_DOMCTL_SIZE)
    if _u32(data, 4) != XEN_DOMCTL_INTERFACE_VERSION:
        return -Errno.EACCES
    cmd, domid = _u32(data, 0), _u32(data, 8) & 0xFFFF
    if cmd not in (XEN_DOMCTL_createdomain, XEN_DOMCTL_getdomaininfo) and not vcpu.domain.domids.exists(domid):
        return -Errno.ESRCH
    return -Errno.EPERM


@hypercall(Hypercall.HYPERVISOR_arch_1, "p", note=f"paging_domctl_cont, how Xen continues a domctl: {PRIVILEGED}")
def paging_domctl_cont(vcpu: "Vcpu", op: int) -> int:
    """The rest of XEN_DOMCTL_shadow_op."""
    data = guest_memory.read(vcpu, op, XEN_DOMCTL_SIZE)
    if (_u32(data, 0), _u32(data, 4)) != (XEN_DOMCTL_shadow_op, XEN_DOMCTL_INTERFACE_VERSION):
        return -Errno.EOPNOTSUPP
    return -Errno.EPERM if vcpu.domain.domids.exists(_u32(data, 8) & 0xFFFF) else -Errno.ESRCH


@hypercall(Hypercall.HYPERVISOR_sysctl, "p", note=PRIVILEGED)
def sysctl(vcpu: "Vcpu", op: int) -> int:
    """Control of the host."""
    data = guest_memory.read(vcpu, op, XEN_SYSCTL_SIZE)
    return -Errno.EPERM if _u32(data, 4) == XEN_SYSCTL_INTERFACE_VERSION else -Errno.EACCES


@hypercall(Hypercall.HYPERVISOR_platform_op, "p", note=PRIVILEGED)
def platform_op(vcpu: "Vcpu", op: int) -> int:
    """Control of the hardware."""
    data = guest_memory.read(vcpu, op, XEN_PLATFORM_OP_SIZE)
    return -Errno.EPERM if _u32(data, 4) == XENPF_INTERFACE_VERSION else -Errno.EACCES


@hypercall(Hypercall.HYPERVISOR_dm_op, "uup", note="device models only")
def dm_op(vcpu: "Vcpu", domid: int, nr_bufs: int, bufs: int) -> int:
    """What a device model asks of the domain it serves."""
    if nr_bufs > DM_OP_BUFFERS:
        return -Errno.E2BIG
    guest_memory.read(vcpu, bufs, nr_bufs * 2 * guest_memory.ulong_size(vcpu))
    vcpu.domain.domids.check_remote(domid & 0xFFFF)
    return -Errno.EINVAL  # no HVM domain


@hypercall(Hypercall.HYPERVISOR_xenoprof_op, "ip", note="ENODEV for what is open to all: no profiling hardware")
def xenoprof_op(vcpu: "Vcpu", op: int, arg: int) -> int:
    """Profiling."""
    if not 0 <= op <= XENOPROF_last_op:
        return -Errno.EINVAL
    if op == XENOPROF_init:
        guest_memory.read(vcpu, arg, XENOPROF_INIT_SIZE)
        return -Errno.ENODEV
    if op == XENOPROF_get_buffer:
        guest_memory.read(vcpu, arg, XENOPROF_GET_BUFFER_SIZE[vcpu.domain.is_32bit])
        return -Errno.ENODEV
    return -Errno.EPERM


hvm_op = operation(Hypercall.HYPERVISOR_hvm_op, "lp", HvmOp)
NOT_HVM = "EINVAL: not an HVM domain"


@hvm_op.sub(HvmOp.HVMOP_set_param, xen_hvm_param, note=NOT_HVM)
@hvm_op.sub(HvmOp.HVMOP_get_param, xen_hvm_param, note=NOT_HVM)
def hvm_param(vcpu: "Vcpu", arg: xen_hvm_param) -> int:
    """Parameters of HVM domains."""
    if arg.index < HVM_NR_PARAMS:
        vcpu.domain.domids.check_any(arg.domid)
    return -Errno.EINVAL


@hvm_op.sub(HvmOp.HVMOP_get_mem_type, xen_hvm_get_mem_type, note=NOT_HVM)
def hvm_get_mem_type(vcpu: "Vcpu", arg: xen_hvm_get_mem_type) -> int:
    """How a frame of an HVM domain is used; here permission comes before the kind of domain."""
    vcpu.domain.domids.check_own(arg.domid)
    return -Errno.EINVAL


@hvm_op.sub(HvmOp.HVMOP_pagetable_dying, xen_hvm_pagetable_dying, note=NOT_HVM)
def hvm_pagetable_dying(vcpu: "Vcpu", arg: xen_hvm_pagetable_dying) -> int:
    """A hint for shadow paging."""
    try:
        vcpu.domain.domids.check_own(arg.domid)
    except XenError as error:
        return -(Errno.EOPNOTSUPP if error.errno is Errno.EPERM else error.errno)
    return -Errno.EINVAL


@hvm_op.sub(HvmOp.HVMOP_set_evtchn_upcall_vector, note=NOT_HVM)
@hvm_op.sub(HvmOp.HVMOP_flush_tlbs, note=NOT_HVM)
def hvm_only(_vcpu: "Vcpu", _arg: int) -> int:
    """Commands that look at the kind of domain before they look at their argument."""
    return -Errno.EINVAL


@hvm_op.sub(HvmOp.HVMOP_get_time)
def hvm_get_time(vcpu: "Vcpu", arg: int) -> None:
    """System time; Xen tells it to every domain."""
    guest_memory.write(vcpu, arg, vcpu.domain.host.now_ns().to_bytes(8, "little"))


@hvm_op.sub(HvmOp.HVMOP_xentrace, xen_hvm_xentrace, note="there is no trace buffer: checked, and dropped")
def hvm_xentrace(_vcpu: "Vcpu", arg: xen_hvm_xentrace) -> int:
    """A record for Xen's trace."""
    too_large = arg.extra_bytes > len(arg.extra) or arg.event >> TRC_SUBCLS_SHIFT
    return -Errno.EINVAL if too_large else 0


@hvm_op.sub(HvmOp.HVMOP_guest_request_vm_event, note="nobody monitors: 0")
def hvm_guest_request(_vcpu: "Vcpu", arg: int) -> int:
    """Calls a monitor, if there is one."""
    return -Errno.EINVAL if arg else 0


hvm_op.refuse(Errno.EOPNOTSUPP, HvmOp.HVMOP_altp2m, note="not configured")

for _nr in (
    Hypercall.HYPERVISOR_domctl,
    Hypercall.HYPERVISOR_sysctl,
    Hypercall.HYPERVISOR_platform_op,
    Hypercall.HYPERVISOR_arch_1,
    Hypercall.HYPERVISOR_dm_op,
    Hypercall.HYPERVISOR_xenoprof_op,
):
    TABLE[_nr].state = State.REFUSED
    TABLE[_nr].errno = Errno.EPERM

refused(Hypercall.HYPERVISOR_xsm_op, Errno.ENOSYS, note="no security module, as Xen without XSM")
refused(Hypercall.HYPERVISOR_kexec_op, Errno.EPERM, note=PRIVILEGED)
refused(Hypercall.HYPERVISOR_tmem_op, Errno.ENOSYS, note="removed from Xen in 4.13")
refused(Hypercall.HYPERVISOR_argo_op, Errno.ENOSYS, note="not built, as in Xen by default")
refused(Hypercall.HYPERVISOR_xenpmu_op, Errno.EOPNOTSUPP, note="no virtual PMU, as in Xen by default")
refused(Hypercall.HYPERVISOR_hypfs_op, Errno.EPERM, note=PRIVILEGED)
refused(Hypercall.HYPERVISOR_arch_0, Errno.EPERM, note=f"machine checks: {PRIVILEGED}")
