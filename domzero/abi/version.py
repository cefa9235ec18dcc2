# SPDX-License-Identifier: Apache-2.0
"""version.h: xen_version."""

from enum import IntEnum

from domzero.abi.layout import Annotated, Wire, chars, u32, ulong, wire

XEN_EXTRAVERSION_LEN = 16
XEN_CAPABILITIES_INFO_LEN = 1024
XEN_CHANGESET_INFO_LEN = 64
XEN_COMMANDLINE_LEN = 1024


class XenVer(IntEnum):
    """`XENVER_*`."""

    XENVER_version = 0
    XENVER_extraversion = 1
    XENVER_compile_info = 2
    XENVER_capabilities = 3
    XENVER_changeset = 4
    XENVER_platform_parameters = 5
    XENVER_get_features = 6
    XENVER_pagesize = 7
    XENVER_guest_handle = 8
    XENVER_commandline = 9
    XENVER_build_id = 10


@wire
class xen_compile_info(Wire):
    """XENVER_compile_info."""

    compiler: Annotated[bytes, chars(64)]
    compile_by: Annotated[bytes, chars(16)]
    compile_domain: Annotated[bytes, chars(32)]
    compile_date: Annotated[bytes, chars(32)]


@wire
class xen_platform_parameters(Wire):
    """XENVER_platform_parameters."""

    virt_start: ulong


@wire
class xen_feature_info(Wire):
    """XENVER_get_features."""

    submap_idx: u32
    submap: u32
