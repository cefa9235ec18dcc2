# SPDX-License-Identifier: Apache-2.0
"""Time as guests see it: the pvclock page, the wall clock, run states."""

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from domzero import _machine
from domzero.abi.layout import layout_for, offset_of, sizeof
from domzero.abi.vcpu import XEN_RUNSTATE_UPDATE, RunState, vcpu_runstate_info
from domzero.abi.xen import XEN_PVCLOCK_TSC_STABLE_BIT, VmAssistType, shared_info, vcpu_info

if TYPE_CHECKING:
    from domzero.hypervisor.domain import Domain
    from domzero.hypervisor.vcpu import Vcpu

TSC_KHZ = 1_000_000
"""The guests' TSC runs at 1 GHz: one tick is one nanosecond."""
TSC_TO_SYSTEM_MUL = 0x80000000
TSC_SHIFT = 1

VCPU_INFO_SIZE = sizeof(vcpu_info)
VCPU_INFO_TIME = offset_of(vcpu_info, "time")
"""The same in both layouts."""

LAST_DEADLINE_NS = 1 << 62
"""146 years: no host runs so long, and virtual time, which jumps to the next timer, stays countable in 63 bits."""

REFRESH_NS = 10**9
"""A running guest's time record is never older than this by much."""

_TIME = struct.Struct("<QQIbBxx")


def deadline(when_ns: int) -> int | None:
    """When a guest's timer expires, from the system time it has asked for; None for one that never does.

    :param when_ns: uint64_t, which is an s_time_t to Xen's timers: the upper half has passed already.
    """
    if when_ns >> 63 & 1:
        return 0
    return when_ns if when_ns < LAST_DEADLINE_NS else None


def update_wallclock(domain: "Domain") -> None:
    """Writes shared_info's wall clock: Unix time at system time zero."""
    now_ns = domain.host.now_ns()
    base_ns = max(domain.host.clock.wallclock_ns(now_ns) - now_ns, 0)
    seconds, nanoseconds = divmod(base_ns, 10**9)
    layout = layout_for(shared_info, domain.is_32bit)
    shared, base = domain.host.shared, domain.shared_info_maddr
    at = base + offset_of(layout, "wc_version")
    high = base + (offset_of(layout, "arch", "wc_sec_hi") if domain.is_32bit else offset_of(layout, "wc_sec_hi"))
    version = shared.u32(at)
    shared.write(at, struct.pack("<I", (version + 1) & 0xFFFFFFFF))
    shared.write(at + 4, struct.pack("<II", seconds & 0xFFFFFFFF, nanoseconds))
    shared.write(high, struct.pack("<I", seconds >> 32))
    shared.write(at, struct.pack("<I", (version + 2) & 0xFFFFFFFF))


def update_time(vcpu: "Vcpu", now_ns: int) -> None:
    """Writes a vCPU's time record, and its secondary copy if the guest has registered one.

    Only from the vCPU's own thread when there is a secondary copy: it is at a guest virtual address.
    """
    vcpu.time_version = (vcpu.time_version + 2) & 0xFFFFFFFE
    vcpu.time_stamp_ns = now_ns
    at = vcpu.info_maddr + VCPU_INFO_TIME
    shared = vcpu.domain.host.shared
    body = _TIME.pack(now_ns, now_ns, TSC_TO_SYSTEM_MUL, TSC_SHIFT, XEN_PVCLOCK_TSC_STABLE_BIT)
    shared.write(at, struct.pack("<I", (vcpu.time_version - 1) & 0xFFFFFFFF))
    shared.write(at + 8, body)
    shared.write(at, struct.pack("<I", vcpu.time_version))
    if vcpu.time_area_va:
        try:
            vcpu.hw.write_va(vcpu.time_area_va, struct.pack("<I", (vcpu.time_version - 1) & 0xFFFFFFFF))
            vcpu.hw.write_va(vcpu.time_area_va + 8, body)
            vcpu.hw.write_va(vcpu.time_area_va, struct.pack("<I", vcpu.time_version))
        except _machine.GuestFault:
            pass  # not mapped in the present address space: as on Xen, tried again next time


@dataclass(slots=True)
class RunStates:
    """What a vCPU does, since when, and how long it did each thing."""

    state: RunState = RunState.RUNSTATE_offline
    since_ns: int = 0
    total_ns: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def enter(self, state: RunState, now_ns: int) -> None:
        """Changes the state."""
        self.total_ns[self.state] += max(now_ns - self.since_ns, 0)
        self.state = state
        self.since_ns = now_ns

    def record(self, now_ns: int, *, is_32bit: bool) -> bytes:
        """struct vcpu_runstate_info as of now."""
        info = layout_for(vcpu_runstate_info, is_32bit)()
        info.state = self.state
        info.state_entry_time = self.since_ns
        totals = list(self.total_ns)
        totals[self.state] += max(now_ns - self.since_ns, 0)
        info.time[:] = totals
        return bytes(info)


def write_runstate(vcpu: "Vcpu", now_ns: int) -> None:
    """Writes the registered runstate area; only from the vCPU's own thread."""
    if not vcpu.runstate_area_va:
        return
    is_32bit = vcpu.domain.is_32bit
    data = vcpu.runstates.record(now_ns, is_32bit=is_32bit)
    layout = layout_for(vcpu_runstate_info, is_32bit)
    at = offset_of(layout, "state_entry_time")
    try:
        if vcpu.domain.vm_assist >> VmAssistType.VMASST_TYPE_runstate_update_flag & 1:
            flag_va = vcpu.runstate_area_va + at
            entry = vcpu.runstates.since_ns
            vcpu.hw.write_va(flag_va, (entry | XEN_RUNSTATE_UPDATE).to_bytes(8, "little"))
            vcpu.hw.write_va(vcpu.runstate_area_va, data[:at])
            vcpu.hw.write_va(flag_va + 8, data[at + 8 :])
            vcpu.hw.write_va(flag_va, entry.to_bytes(8, "little"))
        else:
            vcpu.hw.write_va(vcpu.runstate_area_va, data)
    except _machine.GuestFault:
        pass  # as above
