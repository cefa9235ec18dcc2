# SPDX-License-Identifier: Apache-2.0
"""What a vCPU's thread does: runs guest code, answers its exits, sleeps, fires timers."""

from math import inf

from domzero import _machine
from domzero.abi.vcpu import RunState
from domzero.hypervisor import crash, hypercalls, timekeeping
from domzero.hypervisor.clock import VirtualClock, thread_ns
from domzero.hypervisor.emulate import privileged
from domzero.hypervisor.errors import DomainCrash
from domzero.hypervisor.vcpu import Vcpu

BUDGET = 1 << 40
"""Instructions per `run` when nothing else bounds it."""
LONGEST_SLEEP_S = 3600.0
"""A guest may ask for longer than the host can count."""


def main(vcpu: Vcpu) -> None:
    """The thread, until the vCPU is stopped, gets another one, or a bug of ours has ended the domain."""
    with vcpu.domain.host.lock:
        while not (vcpu.domain.is_dying or vcpu.is_renewed):
            try:
                step(vcpu)
            except DomainCrash as error:
                crash.report(vcpu, str(error))
                vcpu.domain.crash(str(error))
            except Exception as error:  # noqa: BLE001 - a bug of ours ends this domain, not the host
                vcpu.domain.our_bug(error)
                break  # where it would only happen again
        vcpu.spent_ns += thread_ns()


def step(vcpu: Vcpu) -> None:
    """Runs guest code until its next exit, or sleeps once; with `host.lock` held."""
    if vcpu.step_end is not None and vcpu.hw.instructions >= vcpu.step_end:
        vcpu.step_end = None
        vcpu.domain.host.quiet.notify_all()
    if (next_ns := vcpu.timers.next_ns) is not None:
        now_ns = vcpu.domain.host.now_ns()
        if next_ns <= now_ns:
            vcpu.timers.fire(now_ns)
    if not vcpu.may_run:
        _sleep(vcpu)
        return
    if vcpu.timers.has_poll:
        vcpu.timers.set_poll(None)  # an event came first
    cap = vcpu.domain.cap
    slice_ns = cap.slice_ns() if cap.percent else 0
    if cap.percent and not slice_ns:
        _wait_for_cap(vcpu)
        return
    if vcpu.runstates.state is not RunState.RUNSTATE_running:
        now_ns = vcpu.domain.host.now_ns()
        vcpu.enter_runstate(RunState.RUNSTATE_running, now_ns)
        _refresh_time(vcpu, now_ns)
    if vcpu.nmi_pending:
        vcpu.nmi_pending = False
        vcpu.hw.send_nmi()
    vcpu.has_injected = False
    if not slice_ns:
        _run_once(vcpu)
        return
    began_ns = thread_ns()
    try:
        _run_once(vcpu, vcpu.domain.host.now_ns() + slice_ns)
    finally:
        cap.charge(thread_ns() - began_ns)


def _refresh_time(vcpu: Vcpu, now_ns: int) -> None:
    if now_ns - vcpu.time.stamp_ns >= timekeeping.REFRESH_NS:
        vcpu.update_time(now_ns)


def _run_once(vcpu: Vcpu, until_ns: int | None = None) -> None:
    lock = vcpu.domain.host.lock
    # A vCPU that never leaves the guest gets a fresh time record all the same, as Xen writes one each second: what
    # it has overwritten of the last one (an odd version, for which it waits) does not stay.
    deadline_ns = vcpu.time.stamp_ns + timekeeping.REFRESH_NS
    if vcpu.timers.next_of_others_ns is not None:
        deadline_ns = min(deadline_ns, vcpu.timers.next_of_others_ns)
    if until_ns is not None:
        deadline_ns = min(deadline_ns, until_ns)
    budget = BUDGET if vcpu.step_end is None else vcpu.step_end - vcpu.hw.instructions
    vcpu.in_guest = True
    lock.release()
    try:
        exit_ = vcpu.hw.run(budget, deadline_ns)
    finally:
        lock.acquire()
        vcpu.in_guest = False
    if vcpu.domain.pause_count or vcpu.domain.is_dying or vcpu.is_down:
        vcpu.domain.host.quiet.notify_all()
    handle_exit(vcpu, exit_)


def handle_exit(vcpu: Vcpu, exit_: "_machine.Exit") -> None:
    """Does what an exit of the engine asks for; in the vCPU's thread, with `host.lock` held."""
    # The most frequent first; then eight classes by a look-up, not by a chain of comparisons.
    kind = type(exit_)
    if kind is _machine.ExitHypercall:
        hypercalls.dispatch(vcpu, exit_.nr, exit_.args)  # type: ignore[union-attr]  # mypy: not narrowed by `kind`
        return
    vcpu.domain.exit_counts[kind] += 1
    if kind in privileged.EXECUTE:
        privileged.emulate(vcpu, exit_)  # type: ignore[arg-type]  # the keys are the privileged ones
        return
    match exit_:
        case _machine.ExitFault():
            crash.report_fault(vcpu, exit_)
            vcpu.domain.crash(crash.describe_fault(exit_))
        case _machine.ExitUnsupported(reason):
            difference = vcpu.hw.checked()[1]
            why = f"not supported: {reason}" if difference is None else "the engines differ"
            for line in (difference or "").splitlines():
                vcpu.domain.log(line)
            crash.report(vcpu, why)
            vcpu.domain.crash(why)
        case _machine.ExitDeadline():
            _refresh_time(vcpu, vcpu.domain.host.now_ns())
        case _machine.ExitTrap():
            if vcpu.domain.on_trap is not None:
                vcpu.domain.on_trap(vcpu, exit_)
        case _machine.ExitBudget() | _machine.ExitInterrupted():
            pass


def _wait_for_cap(vcpu: Vcpu) -> None:
    """The domain has used what its cap allows: its vCPUs wait, runnable as they are, for the next period."""
    host = vcpu.domain.host
    now_ns = host.now_ns()
    if vcpu.runstates.state is not RunState.RUNSTATE_runnable:
        vcpu.enter_runstate(RunState.RUNSTATE_runnable, now_ns)
    vcpu.sleep(max(vcpu.domain.cap.next_period_ns - now_ns, 0) / 1e9)


def _sleep(vcpu: Vcpu) -> None:
    host = vcpu.domain.host
    now_ns = host.now_ns()
    if vcpu.runstates.state is not vcpu.run_state:
        vcpu.enter_runstate(vcpu.run_state, now_ns)
    if vcpu.domain.pause_count or vcpu.domain.shutdown_code is not None:
        host.quiet.notify_all()
    next_ns = vcpu.timers.next_ns
    if isinstance(host.clock, VirtualClock):
        if vcpu.domain.shutdown_code is not None or next_ns is None:
            vcpu.sleep()
        else:
            _sleep_virtual(vcpu)
    elif vcpu.idle_memory.give_back(now_ns):
        host.lock.release()
        try:
            _machine.give_back_free()
        finally:
            host.lock.acquire()  # and look again: it may be to run by now
    else:
        wanted_ns = inf if vcpu.domain.shutdown_code is not None or next_ns is None else next_ns - now_ns
        sleep_ns = vcpu.idle_memory.sleep_ns(now_ns, wanted_ns)
        vcpu.sleep(None if sleep_ns == inf else min(sleep_ns / 1e9, LONGEST_SLEEP_S))


def _sleep_virtual(vcpu: Vcpu) -> None:
    """With virtual time: when nothing can run, time jumps to the next timer of what is not paused."""
    vcpus = [each for domain in vcpu.domain.domids.all() for each in domain.vcpus if each.is_let_go]
    if vcpu not in vcpus or any(each.may_run for each in vcpus):
        vcpu.sleep()
        return
    times = [
        each.timers.next_ns for each in vcpus if each.timers.next_ns is not None and each.domain.shutdown_code is None
    ]
    if times:
        vcpu.domain.host.machine.advance_to(min(times))
    for each in vcpus:
        if each is not vcpu:
            each.poke()
