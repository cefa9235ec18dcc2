# SPDX-License-Identifier: Apache-2.0
"""A virtual CPU: its thread, what makes it run, sleep and wake, and its timers."""

import threading
from typing import TYPE_CHECKING

from domzero import _machine
from domzero.abi.layout import layout_for, offset_of
from domzero.abi.vcpu import RunState
from domzero.abi.xen import PAGE_SIZE, Virq, vcpu_info
from domzero.hypervisor import crash, hypercalls, timekeeping
from domzero.hypervisor.clock import VirtualClock
from domzero.hypervisor.emulate import cpuid, privileged
from domzero.hypervisor.errors import DomainCrash

if TYPE_CHECKING:
    from domzero.hypervisor.domain import Domain

BUDGET = 1 << 40
"""Instructions per `run` when nothing else bounds it."""
LONGEST_SLEEP_S = 3600.0
"""A guest may ask for longer than the host can count."""


class Vcpu:
    """State of one vCPU. Changed with `host.lock` held."""

    def __init__(self, domain: "Domain", vcpu_id: int) -> None:
        self.domain = domain
        self.vcpu_id = vcpu_id
        self.hw = domain.hw.create_vcpu(vcpu_id)
        self.wake = threading.Condition(domain.host.lock)
        self.thread: threading.Thread | None = None
        self.in_guest = False
        self.stopping = False
        self.step_end: int | None = None
        """While the domain is paused, this vCPU alone goes on until it has executed so many instructions."""
        self.is_initialised = False
        self.is_down = True
        self.is_blocked = False
        self.poll_ports: frozenset[int] | None = None
        self.nmi_pending = False
        self.has_injected = False
        """An exception waits for delivery; there is room for one."""
        # timers, in system time
        self.singleshot_ns: int | None = None
        self.periodic_ns: int | None = None
        self.period_ns = 0
        self.periodic_last_ns = 0
        self.poll_deadline_ns: int | None = None
        self._next_ns: int | None = None
        # what the guest shares
        self.info_maddr = 0
        self.info_mfn: int | None = None
        """The guest's own frame with vcpu_info, once it has registered one."""
        self.pending_sel_maddr = 0
        self.time_version = 0
        self.time_stamp_ns = 0
        self.time_area_va = 0
        self.runstate_area_va = 0
        self.runstates = timekeeping.RunStates(since_ns=domain.host.now_ns())
        # what privileged instructions see
        self.iopl = 0
        self.cpuid_faulting = False
        """MSR_MISC_FEATURES_ENABLES: cpuid of applications raises #GP."""
        self.efer_bits = 0
        self.in_multicall = False
        self.vm_assist_changed = False
        self._set_info(domain.shared_info_maddr + vcpu_id * timekeeping.VCPU_INFO_SIZE)
        domain.host.memory[self.info_maddr + 1] = 1  # a new vCPU starts with upcalls masked
        timekeeping.update_time(self, domain.host.now_ns())
        self.hw.set_cpuid(cpuid.leaves(domain, vcpu_id))
        self.hw.set_fast_hypercalls(True)

    def __repr__(self) -> str:
        return f"d{self.domain.domid}v{self.vcpu_id}"

    def log(self, text: str) -> None:
        """A `(XEN) d1v0 text` line."""
        self.domain.host.log(f"{self!r} {text}")

    # --- vcpu_info

    def _set_info(self, maddr: int) -> None:
        layout = layout_for(vcpu_info, self.domain.is_32bit)
        self.info_maddr = maddr
        self.pending_sel_maddr = maddr + offset_of(layout, "evtchn_pending_sel")
        self.hw.set_vcpu_info(maddr)

    def move_info(self, mfn: int, offset: int) -> None:
        """VCPUOP_register_vcpu_info, checked already: vcpu_info lives in the guest's frame from now on."""
        memory = self.domain.host.memory
        old, new = self.info_maddr, mfn * PAGE_SIZE + offset
        memory[new : new + timekeeping.VCPU_INFO_SIZE] = bytes(memory[old : old + timekeeping.VCPU_INFO_SIZE])
        self.info_mfn = mfn
        self._set_info(new)
        # Everything is pending now, so that nothing gets lost.
        word = 4 if self.domain.is_32bit else 8
        self.domain.host.shared.write(self.pending_sel_maddr, b"\xff" * word)
        self.mark_events_pending()

    @property
    def upcall_pending(self) -> bool:
        """vcpu_info.evtchn_upcall_pending."""
        return bool(self.domain.host.memory[self.info_maddr])

    @property
    def upcall_mask(self) -> bool:
        """vcpu_info.evtchn_upcall_mask."""
        return bool(self.domain.host.memory[self.info_maddr + 1])

    @upcall_mask.setter
    def upcall_mask(self, masked: bool) -> None:
        self.domain.host.memory[self.info_maddr + 1] = int(masked)

    def mark_events_pending(self) -> None:
        """An event waits for this vCPU: it is told, and wakes."""
        self.domain.host.memory[self.info_maddr] = 1
        self.hw.notify()
        self.unblock()

    # --- sleeping and waking

    def unblock(self) -> None:
        """Ends SCHEDOP_block and SCHEDOP_poll."""
        if self.is_blocked:
            self.is_blocked = False
            self.poll_ports = None
            self.poll_deadline_ns = None
            self.timers_changed()

    def block(self) -> None:
        """SCHEDOP_block: upcalls are enabled; sleeps unless one is due."""
        self.upcall_mask = False
        if not self.upcall_pending:
            self.is_blocked = True

    def poll(self, ports: frozenset[int], deadline_ns: int | None) -> None:
        """SCHEDOP_poll: sleeps until one of `ports` is pending, an upcall is due, or the deadline."""
        if self.upcall_pending and not self.upcall_mask:
            return
        self.is_blocked = True
        self.poll_ports = ports
        self.poll_deadline_ns = None if deadline_ns is None else timekeeping.deadline(deadline_ns)
        self.timers_changed()

    def poke(self) -> None:
        """Makes the vCPU's thread look again at what it should do."""
        self.wake.notify_all()

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
            self.wake.notify_all()

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
        if self.thread is None and self.is_initialised and self.is_let_go and not self.stopping:
            self.thread = threading.Thread(target=self._main, name=repr(self), daemon=True)
            self.thread.start()

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

    # --- timers

    def timers_changed(self) -> None:
        """A timer was set or stopped: the vCPU's thread must see it."""
        times = [t for t in (self.singleshot_ns, self.periodic_ns, self.poll_deadline_ns) if t is not None]
        if self.vcpu_id == 0:
            of_domain = (self.domain.watchdogs.next_ns(), self.domain.back_ends.next_ns())
            times += [t for t in of_domain if t is not None]
        self._next_ns = min(times, default=None)
        self.interrupt()

    def set_periodic(self, period_ns: int) -> None:
        """VCPUOP_set_periodic_timer; 0 stops it. The first event comes at once if the last one is a period ago."""
        self.period_ns = period_ns
        self.periodic_ns = None
        if period_ns:
            self._periodic_work(self.domain.host.now_ns())
        self.timers_changed()

    def _periodic_work(self, now_ns: int) -> None:
        if self.periodic_last_ns + self.period_ns <= now_ns:
            self.periodic_last_ns = now_ns
            self.domain.evtchn.send_virq(self.vcpu_id, Virq.VIRQ_TIMER)
        self.periodic_ns = timekeeping.deadline(self.periodic_last_ns + self.period_ns)

    def set_singleshot(self, when_ns: int | None) -> None:
        """VCPUOP_set_singleshot_timer, set_timer_op; None stops it."""
        self.singleshot_ns = None if when_ns is None else timekeeping.deadline(when_ns)
        self.timers_changed()

    @property
    def next_timer_ns(self) -> int | None:
        """When the next of the vCPU's timers expires."""
        return self._next_ns

    def _fire_timers(self, now_ns: int) -> None:
        if self.singleshot_ns is not None and self.singleshot_ns <= now_ns:
            self.singleshot_ns = None
            self.domain.evtchn.send_virq(self.vcpu_id, Virq.VIRQ_TIMER)
        if self.periodic_ns is not None and self.periodic_ns <= now_ns:
            self._periodic_work(now_ns)
        if self.poll_deadline_ns is not None and self.poll_deadline_ns <= now_ns:
            self.unblock()
        if self.vcpu_id == 0:
            self.domain.watchdogs.fire(now_ns)
            self.domain.back_ends.fire(now_ns)
        self.timers_changed()

    # --- the thread

    def _main(self) -> None:
        with self.domain.host.lock:
            while not self.stopping:
                try:
                    self._step()
                except DomainCrash as error:
                    crash.report(self, str(error))
                    self.domain.crash(str(error))
                except Exception as error:  # noqa: BLE001 - a bug of ours ends this domain, not the host
                    self.domain.our_bug(error)

    def _step(self) -> None:
        """Runs guest code until its next exit, or sleeps once."""
        if self.step_end is not None and self.hw.instructions >= self.step_end:
            self.step_end = None
            self.domain.host.quiet.notify_all()
        if self._next_ns is not None:
            now_ns = self.domain.host.now_ns()
            if self._next_ns <= now_ns:
                self._fire_timers(now_ns)
        if not self.may_run:
            self._sleep()
            return
        if self.runstates.state is not RunState.RUNSTATE_running:
            self._enter_running()
        if self.vm_assist_changed:
            self.vm_assist_changed = False
            self.hw.set_vm_assist(self.domain.vm_assist)
        if self.nmi_pending:
            self.nmi_pending = False
            self.hw.send_nmi()
        self.has_injected = False
        self._run_once()

    def _enter_running(self) -> None:
        now_ns = self.domain.host.now_ns()
        self.runstates.enter(RunState.RUNSTATE_running, now_ns)
        timekeeping.write_runstate(self, now_ns)
        self._refresh_time(now_ns)

    def _refresh_time(self, now_ns: int) -> None:
        if now_ns - self.time_stamp_ns >= timekeeping.REFRESH_NS:
            timekeeping.update_time(self, now_ns)

    def _run_once(self) -> None:
        lock = self.domain.host.lock
        # A vCPU that never leaves the guest gets a fresh time record all the same, as Xen writes one each second: what
        # it has overwritten of the last one (an odd version, for which it waits) does not stay.
        deadline_ns = self.time_stamp_ns + timekeeping.REFRESH_NS
        if self._next_ns is not None:
            deadline_ns = min(deadline_ns, self._next_ns)
        budget = BUDGET if self.step_end is None else self.step_end - self.hw.instructions
        self.in_guest = True
        lock.release()
        try:
            exit_ = self.hw.run(budget, deadline_ns)
        finally:
            lock.acquire()
            self.in_guest = False
        if self.domain.pause_count or self.stopping or self.is_down:
            self.domain.host.quiet.notify_all()
        self.handle_exit(exit_)

    def handle_exit(self, exit_: "_machine.Exit") -> None:
        """Does what an exit of the engine asks for; in the vCPU's thread, with `host.lock` held."""
        match exit_:
            case _machine.ExitHypercall(nr, args):
                hypercalls.dispatch(self, nr, args)
            case _machine.ExitFault():
                crash.report_fault(self, exit_)
                self.domain.crash(crash.describe_fault(exit_))
            case _machine.ExitUnsupported(reason):
                crash.report(self, f"not supported: {reason}")
                self.domain.crash(f"not supported: {reason}")
            case _machine.ExitDeadline():
                self._refresh_time(self.domain.host.now_ns())
            case _machine.ExitTrap():
                if self.domain.on_trap is not None:
                    self.domain.on_trap(self, exit_)
            case _machine.ExitBudget() | _machine.ExitInterrupted():
                pass
            case _:
                privileged.emulate(self, exit_)

    def _sleep(self) -> None:
        host = self.domain.host
        now_ns = host.now_ns()
        if self.runstates.state is not self.run_state:
            self.runstates.enter(self.run_state, now_ns)
            timekeeping.write_runstate(self, now_ns)
        if self.domain.pause_count or self.domain.shutdown_code is not None:
            host.quiet.notify_all()
        if self.domain.shutdown_code is not None or self._next_ns is None:
            self.wake.wait()
        elif isinstance(host.clock, VirtualClock):
            self._sleep_virtual()
        else:
            self.wake.wait(min((self._next_ns - now_ns) / 1e9, LONGEST_SLEEP_S))

    def _sleep_virtual(self) -> None:
        """With virtual time: when nothing can run, time jumps to the next timer of what is not paused."""
        host = self.domain.host
        vcpus = [vcpu for domain in host.domains.values() for vcpu in domain.vcpus if vcpu.is_let_go]
        if self not in vcpus or any(vcpu.may_run for vcpu in vcpus):
            self.wake.wait()
            return
        times = [v.next_timer_ns for v in vcpus if v.next_timer_ns is not None and v.domain.shutdown_code is None]
        if times:
            host.machine.advance_to(min(times))
        for vcpu in vcpus:
            if vcpu is not self:
                vcpu.poke()

    def release(self) -> None:
        """Gives the guest's frames back; the domain is being destroyed."""
        if self.info_mfn is not None:
            self.domain.hw.put_ref(self.info_mfn, writable=True)
            self.info_mfn = None
