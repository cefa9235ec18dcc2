# SPDX-License-Identifier: Apache-2.0
"""xen.h: struct start_info, the page a PV guest is given at boot, and its flags."""

from enum import IntFlag

from domzero.abi.layout import Annotated, Wire, WireUnion, chars, u32, ulong, wire, xen_pfn_t

MAX_GUEST_CMDLINE = 1024
MAGIC_64, MAGIC_32 = b"xen-3.0-x86_64", b"xen-3.0-x86_32p"
"""`magic`, of a 64-bit and of a 32-bit (PAE) guest; also the capabilities that Xen tells of."""


class StartInfoFlags(IntFlag):
    """SIF_*."""

    SIF_PRIVILEGED = 1 << 0
    SIF_INITDOMAIN = 1 << 1
    SIF_MULTIBOOT_MOD = 1 << 2
    SIF_MOD_START_PFN = 1 << 3
    SIF_VIRT_P2M_4TOOLS = 1 << 4


@wire
class start_info_console_domU(Wire):
    """The console ring of an unprivileged domain."""

    mfn: xen_pfn_t
    evtchn: u32


@wire
class start_info_console_dom0(Wire):
    """Where dom0's console information is."""

    info_off: u32
    info_size: u32


@wire
class start_info_console(WireUnion):
    """Console information."""

    domU: start_info_console_domU
    dom0: start_info_console_dom0


@wire
class start_info(Wire):
    """`struct start_info`; its address is in rsi (esi) when the guest starts."""

    magic: Annotated[bytes, chars(32)]
    nr_pages: ulong
    shared_info: ulong
    """MACHINE address of shared_info."""
    flags: u32
    store_mfn: xen_pfn_t
    store_evtchn: u32
    console: start_info_console
    pt_base: ulong
    nr_pt_frames: ulong
    mfn_list: ulong
    mod_start: ulong
    mod_len: ulong
    cmd_line: Annotated[bytes, chars(MAX_GUEST_CMDLINE)]
    first_p2m_pfn: ulong
    nr_p2m_frames: ulong
