# SPDX-License-Identifier: Apache-2.0
"""xen_version (version.h)."""

import struct
from typing import TYPE_CHECKING

from domzero import __version__
from domzero.abi.arch_x86 import HYPERVISOR_VIRT_START, HYPERVISOR_VIRT_START_PAE
from domzero.abi.errno import Errno
from domzero.abi.features import XENFEAT_NR_SUBMAPS, XenFeature
from domzero.abi.version import (
    XEN_CAPABILITIES_INFO_LEN,
    XEN_CHANGESET_INFO_LEN,
    XEN_COMMANDLINE_LEN,
    XEN_EXTRAVERSION_LEN,
    XenVer,
    xen_compile_info,
    xen_feature_info,
)
from domzero.abi.xen import PAGE_SIZE, Hypercall, VmAssistType
from domzero.hypervisor import guest_memory
from domzero.hypervisor.emulate.cpuid import XEN_MAJOR, XEN_MINOR
from domzero.hypervisor.hypercalls.table import operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

EXTRAVERSION = b".0-domzero"
CAPABILITIES = b"xen-3.0-x86_64 xen-3.0-x86_32p "
DENIED = b"<denied>"

PV_FEATURES = (
    XenFeature.mmu_pt_update_preserve_ad,
    XenFeature.highmem_assist,
    XenFeature.gnttab_map_avail_bits,
    XenFeature.memory_op_vnode_supported,
    XenFeature.direct_mapped,  # what Xen says of every domain that is not translated
)

xen_version = operation(Hypercall.HYPERVISOR_xen_version, "ip", XenVer)
xen_version.in_machine = True


def compiled() -> xen_compile_info:
    """Who compiled the hypervisor."""
    info = xen_compile_info()
    info.compiler = f"domzero {__version__}".encode()[:63]
    info.compile_by = b"domzero"
    return info


def _string(vcpu: "Vcpu", va: int, text: bytes, length: int) -> None:
    guest_memory.write(vcpu, va, text[: length - 1].ljust(length, b"\0"))


@xen_version.sub(XenVer.XENVER_version, note="in the machine")
def version(_vcpu: "Vcpu", _arg: int) -> int:
    """Major and minor version. Linux uses it as a barrier: events are delivered when it returns."""
    return XEN_MAJOR << 16 | XEN_MINOR


@xen_version.sub(XenVer.XENVER_extraversion)
def extraversion(vcpu: "Vcpu", arg: int) -> None:
    """What follows the version number."""
    _string(vcpu, arg, EXTRAVERSION, XEN_EXTRAVERSION_LEN)


@xen_version.sub(XenVer.XENVER_compile_info)
def compile_info(vcpu: "Vcpu", arg: int) -> None:
    """Who compiled the hypervisor."""
    guest_memory.write(vcpu, arg, bytes(compiled()))


@xen_version.sub(XenVer.XENVER_capabilities)
def capabilities(vcpu: "Vcpu", arg: int) -> None:
    """Which kinds of guest run here."""
    _string(vcpu, arg, CAPABILITIES, XEN_CAPABILITIES_INFO_LEN)


@xen_version.sub(XenVer.XENVER_changeset)
def changeset(vcpu: "Vcpu", arg: int) -> None:
    """Which source the hypervisor was made from."""
    _string(vcpu, arg, f"domzero {__version__}".encode(), XEN_CHANGESET_INFO_LEN)


@xen_version.sub(XenVer.XENVER_platform_parameters)
def platform_parameters(vcpu: "Vcpu", arg: int) -> None:
    """Where the hypervisor begins in every address space."""
    start = HYPERVISOR_VIRT_START_PAE if vcpu.domain.is_32bit else HYPERVISOR_VIRT_START
    guest_memory.write_ulong(vcpu, arg, start)


@xen_version.sub(XenVer.XENVER_get_features, xen_feature_info, copy_out=True)
def get_features(vcpu: "Vcpu", arg: xen_feature_info) -> int:
    """Feature bits."""
    if arg.submap_idx >= XENFEAT_NR_SUBMAPS:
        return -Errno.EINVAL
    arg.submap = sum(1 << feature for feature in PV_FEATURES)
    if vcpu.domain.is_32bit or vcpu.domain.vm_assist >> VmAssistType.VMASST_TYPE_pae_extended_cr3 & 1:
        arg.submap |= 1 << XenFeature.pae_pgdir_above_4gb
    return 0


@xen_version.sub(XenVer.XENVER_pagesize)
def pagesize(_vcpu: "Vcpu", arg: int) -> int:
    """Size of a page."""
    return -Errno.EINVAL if arg else PAGE_SIZE


@xen_version.sub(XenVer.XENVER_guest_handle)
def guest_handle(vcpu: "Vcpu", arg: int) -> None:
    """The domain's UUID."""
    guest_memory.write(vcpu, arg, vcpu.domain.uuid.bytes)


@xen_version.sub(XenVer.XENVER_commandline, note="as for every unprivileged domain: `<denied>`")
def commandline(vcpu: "Vcpu", arg: int) -> None:
    """The hypervisor's own command line is not for guests."""
    guest_memory.write(vcpu, arg, struct.pack(f"{XEN_COMMANDLINE_LEN}s", DENIED)[: len(DENIED) + 1])


xen_version.refuse(Errno.EPERM, XenVer.XENVER_build_id, note="privileged domains only")
