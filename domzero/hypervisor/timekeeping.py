# SPDX-License-Identifier: Apache-2.0
"""Time as guests see it: the pvclock page, the wall clock, run states."""

import struct
from dataclasses import dataclass, field

from domzero import _machine
from domzero.abi.layout import layout_for, offset_of, sizeof
from domzero.abi.vcpu import XEN_RUNSTATE_UPDATE, RunState, vcpu_runstate_info
from domzero.abi.xen import XEN_PVCLOCK_TSC_STABLE_BIT, shared_info, vcpu_info
from domzero.hypervisor.platform import Platform
from domzero.hypervisor.shared_memory import SharedMemory

TSC_KHZ = 1_000_000
"""The guests' TSC runs at 1 GHz: one tick is one nanosecond."""
TSC_TO_SYSTEM_MUL = 0x80000000
TSC_SHIFT = 1

VCPU_INFO_SIZE = sizeof(vcpu_info)
VCPU_INFO_TIME = offset_of(vcpu_info, "time")
"""The same in both layouts."""

LAST_DEADLINE_NS = _machine.VcpuTimers.LAST_DEADLINE_NS
"""What is asked for this time or later never comes."""

REFRESH_NS = 10**9
"""A running guest's time record is never older than this by much."""

_TIME = struct.Struct("<QQIbBxx")


def update_wallclock(platform: Platform, shared_info_maddr: int, *, is_32bit: bool, offset_s: int = 0) -> None:
    """Writes shared_info's wall clock: Unix time at system time zero.

    :param offset_s: that the domain's differs from the host's by (XEN_DOMCTL_settimeoffset).
    """
    now_ns = platform.now_ns()
    base_ns = max(platform.clock.wallclock_ns(now_ns) - now_ns + offset_s * 10**9, 0)
    seconds, nanoseconds = divmod(base_ns, 10**9)
    layout = layout_for(shared_info, is_32bit)
    shared, base = platform.shared, shared_info_maddr
    at = base + offset_of(layout, "wc_version")
    high = base + (offset_of(layout, "arch", "wc_sec_hi") if is_32bit else offset_of(layout, "wc_sec_hi"))
    version = shared.u32(at)
    shared.write(at, struct.pack("<I", (version + 1) & 0xFFFFFFFF))
    shared.write(at + 4, struct.pack("<II", seconds & 0xFFFFFFFF, nanoseconds))
    shared.write(high, struct.pack("<I", seconds >> 32))
    shared.write(at, struct.pack("<I", (version + 2) & 0xFFFFFFFF))


class TimeRecord:
    """A vCPU's struct vcpu_time_info, in its vcpu_info, and the second copy that the guest may have registered."""

    __slots__ = ("_hw", "_shared", "_version", "area_va", "stamp_ns")

    def __init__(self, hw: _machine.Vcpu, shared: SharedMemory) -> None:
        self._hw = hw
        self._shared = shared
        self._version = 0
        self.stamp_ns = 0
        """When it was written last."""
        self.area_va = 0
        """Virtual address of the copy."""

    def go_on(self, version: int) -> None:
        """The record was that of a domain which was saved, and had this version: the next one is another."""
        self._version = version & 0xFFFFFFFE

    def update(self, info_maddr: int, now_ns: int) -> None:
        """Writes both; only from the vCPU's own thread when there is a copy, which is at a virtual address.

        :param info_maddr: where vcpu_info is.
        """
        self._version = (self._version + 2) & 0xFFFFFFFE
        self.stamp_ns = now_ns
        at = info_maddr + VCPU_INFO_TIME
        before, after = struct.pack("<I", (self._version - 1) & 0xFFFFFFFF), struct.pack("<I", self._version)
        body = _TIME.pack(now_ns, now_ns, TSC_TO_SYSTEM_MUL, TSC_SHIFT, XEN_PVCLOCK_TSC_STABLE_BIT)
        self._shared.write(at, before)
        self._shared.write(at + 8, body)
        self._shared.write(at, after)
        if self.area_va:
            try:
                self._hw.write_va(self.area_va, before)
                self._hw.write_va(self.area_va + 8, body)
                self._hw.write_va(self.area_va, after)
            except _machine.GuestFault:
                pass  # not mapped in the present address space: as on Xen, tried again next time


@dataclass(slots=True)
class RunStates:
    """What a vCPU does, since when, and how long it did each thing."""

    state: RunState = RunState.RUNSTATE_offline
    since_ns: int = 0
    total_ns: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    area_va: int = 0
    """Virtual address where the guest wants to see it."""

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

    def write(self, hw: _machine.Vcpu, now_ns: int, *, is_32bit: bool, flagged: bool) -> None:
        """Writes the registered area; only from the vCPU's own thread.

        :param flagged: VMASST_TYPE_runstate_update_flag: the guest sees that it is being written.
        """
        if not self.area_va:
            return
        data = self.record(now_ns, is_32bit=is_32bit)
        at = offset_of(layout_for(vcpu_runstate_info, is_32bit), "state_entry_time")
        try:
            if flagged:
                flag_va = self.area_va + at
                hw.write_va(flag_va, (self.since_ns | XEN_RUNSTATE_UPDATE).to_bytes(8, "little"))
                hw.write_va(self.area_va, data[:at])
                hw.write_va(flag_va + 8, data[at + 8 :])
                hw.write_va(flag_va, self.since_ns.to_bytes(8, "little"))
            else:
                hw.write_va(self.area_va, data)
        except _machine.GuestFault:
            pass  # as above
