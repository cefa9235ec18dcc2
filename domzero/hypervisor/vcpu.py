# SPDX-License-Identifier: Apache-2.0
"""A virtual CPU: its state, and what makes it run, sleep and wake. Its thread's loop is in `vcpu_thread`."""

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from domzero.abi.vcpu import RunState
from domzero.abi.xen import Virq, VmAssistType
from domzero.hypervisor import timekeeping
from domzero.hypervisor.idle import IdleMemory
from domzero.hypervisor.timers import Timers
from domzero.hypervisor.vcpu_info import VcpuInfo

if TYPE_CHECKING:
    from domzero.hypervisor.domain import Domain


class Vcpu:
    """State of one vCPU. Changed with `host.lock` held."""

    def __init__(self, domain: "Domain", vcpu_id: int) -> None:
        host = domain.host
        self.domain = domain
        self.vcpu_id = vcpu_id
        self.hw = domain.hw.create_vcpu(vcpu_id)
        self.idle_memory = IdleMemory(self.hw, host.now_ns())
        self.thread: threading.Thread | None = None
        self.in_guest = False
        self.is_renewed = False
        """Its thread ends, and another one takes over."""
        self.spent_ns = 0
        """Processor time of threads that it had."""
        self.step_end: int | None = None
        """While the domain is paused, this vCPU alone goes on until it has executed so many instructions."""
        self.is_initialised = False
        self.nmi_pending = False
        self.affinity: frozenset[int] | None = None
        """Processors of the host that its thread may run on, once somebody has said so."""
        self.has_injected = False
        """An exception waits for delivery; there is room for one."""
        self.timers = Timers(
            self.hw.timers,
            expired=lambda: domain.evtchn.send_virq(vcpu_id, Virq.VIRQ_TIMER),
            poll_over=self.unblock,
            changed=self.interrupt,
            also=domain.timed if vcpu_id == 0 else (),
        )
        # what the guest shares
        info_maddr = domain.shared_info_maddr + vcpu_id * timekeeping.VCPU_INFO_SIZE
        self.info = VcpuInfo(self.hw, domain.evtchn, vcpu_id, host, info_maddr)
        self.time = timekeeping.TimeRecord(self.hw, host.shared)
        self.runstates = timekeeping.RunStates(since_ns=host.now_ns())
        # what privileged instructions see
        self.cpuid_faulting = False
        """MSR_MISC_FEATURES_ENABLES: cpuid of applications raises #GP."""
        self.efer_bits = 0
        self.in_multicall = False
        self.update_time(host.now_ns())
        self.hw.set_fast_hypercalls(True)

    def __repr__(self) -> str:
        return f"d{self.domain.domid}v{self.vcpu_id}"

    def log(self, text: str) -> None:
        """A `(XEN) d1v0 text` line."""
        self.domain.host.log(f"{self!r} {text}")

    # --- what the guest sees of it

    def move_info(self, mfn: int, offset: int) -> None:
        """VCPUOP_register_vcpu_info, checked already."""
        self.info.move(mfn, offset)

    def update_time(self, now_ns: int) -> None:
        """Writes the time record; only from the vCPU's own thread when there is a copy of it."""
        self.time.update(self.info.maddr, now_ns)

    def write_runstate(self, now_ns: int) -> None:
        """Writes the registered run state; only from the vCPU's own thread."""
        flagged = bool(self.domain.vm_assist >> VmAssistType.VMASST_TYPE_runstate_update_flag & 1)
        self.runstates.write(self.hw, now_ns, is_32bit=self.domain.is_32bit, flagged=flagged)

    def enter_runstate(self, state: RunState, now_ns: int) -> None:
        """Changes the run state, and tells the guest."""
        self.runstates.enter(state, now_ns)
        self.write_runstate(now_ns)

    # --- sleeping and waking

    @property
    def is_down(self) -> bool:
        """Not started, or stopped (VCPUOP_down): the machine keeps it."""
        return not self.hw.is_up

    @is_down.setter
    def is_down(self, down: bool) -> None:
        self.hw.is_up = not down

    @property
    def is_blocked(self) -> bool:
        """In SCHEDOP_block or SCHEDOP_poll. Events end it at any time, also without `host.lock`."""
        return self.hw.is_blocked

    def unblock(self) -> None:
        """Ends SCHEDOP_block and SCHEDOP_poll."""
        self.hw.unblock()

    def block(self) -> None:
        """SCHEDOP_block: upcalls are enabled; sleeps unless one is due."""
        self.domain.evtchn.block(self.vcpu_id)

    def poll(self, ports: Sequence[int], deadline_ns: int | None) -> None:
        """SCHEDOP_poll: sleeps until one of `ports` is pending, an upcall is due, or the deadline; not if it is so.

        :raises XenRefused: EINVAL for a port that is not in use.
        """
        self.domain.evtchn.poll(self.vcpu_id, list(ports))
        if self.is_blocked:
            self.timers.set_poll(deadline_ns)

    def sleep(self, timeout_s: float | None = None) -> None:
        """The vCPU's thread waits, without `host.lock`, until it is poked or an event wakes it.

        :param timeout_s: at most; below zero when what it waits for came due in the meantime.
        """
        self.hw.sleep(self.domain.host.lock, None if timeout_s is None else max(timeout_s, 0.0))

    def poke(self) -> None:
        """Makes the vCPU's thread look again at what it should do."""
        self.hw.poke()

    def bring_up(self) -> None:
        """The vCPU has its registers and may run (VCPUOP_up; the builder, for vCPU 0)."""
        self.is_initialised = True
        self.is_down = False
        self.start_thread()
        self.poke()

    def interrupt(self) -> None:
        """Makes the vCPU's thread come out of guest code, or wake, to look again at what it should do."""
        if self.thread is not threading.current_thread():
            if self.in_guest:
                self.hw.kick()
            self.poke()

    def send_nmi(self) -> None:
        """VCPUOP_send_nmi."""
        self.nmi_pending = True
        self.unblock()
        self.interrupt()

    def take_down(self) -> None:
        """VCPUOP_down."""
        self.is_down = True
        self.interrupt()

    def start_thread(self) -> None:
        """Gives the vCPU its thread, once it may run."""
        if self.thread is None and self.is_initialised and self.is_let_go and not self.domain.is_dying:
            self.thread = threading.Thread(target=self.domain.run_vcpu, args=(self,), name=repr(self), daemon=True)
            self.thread.start()
            self._apply_affinity()

    def renew_thread(self) -> None:
        """Another thread, with the caller's priority, takes over: an ordinary user's thread can only lower its own.

        Not with `host.lock` held.
        """
        lock = self.domain.host.lock
        with lock:
            thread = self.thread
            if thread is None or self.domain.is_dying or self.domain.bug is not None:
                return
            self.is_renewed = True
            self.interrupt()
        thread.join()
        with lock:
            self.is_renewed = False
            if self.thread is thread:
                self.thread = None
                self.start_thread()

    def pin(self, processors: frozenset[int]) -> None:
        """Lets its thread run on these processors of the host only. OSError: on none of them can it."""
        before, self.affinity = self.affinity, processors
        try:
            self._apply_affinity()
        except OSError:
            self.affinity = before
            raise

    def _apply_affinity(self) -> None:
        if self.affinity is not None and self.thread is not None and self.thread.native_id is not None:
            os.sched_setaffinity(self.thread.native_id, self.affinity)

    @property
    def is_let_go(self) -> bool:
        """Whether nobody outside has stopped it."""
        return self.domain.pause_count == 0 or self.step_end is not None

    @property
    def may_run(self) -> bool:
        """Whether guest code may run now."""
        return (
            not self.is_blocked
            and not self.is_down
            and self.is_initialised
            and (self.domain.pause_count == 0 or self.step_end is not None)
            and self.domain.shutdown_code is None
        )

    @property
    def run_state(self) -> RunState:
        """The state a vCPU that does not run is in."""
        if self.is_blocked:
            return RunState.RUNSTATE_blocked
        if self.is_down:
            return RunState.RUNSTATE_offline
        return RunState.RUNSTATE_runnable

    def release(self) -> None:
        """Gives the guest's frames back; the domain is being destroyed."""
        if self.info.mfn is not None:
            self.domain.hw.put_ref(self.info.mfn, writable=True)
            self.info.mfn = None
