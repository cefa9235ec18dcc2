# SPDX-License-Identifier: Apache-2.0
"""A guest as an object: run it until something happens, look at it, change it, see how it ended."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, overload

from domzero.dom0.life import End, EndReason
from domzero.errors import GuestEnded, GuestError, GuestRunning, WaitTimeout
from domzero.guest.console import GuestConsole, Pattern, compiled, shown
from domzero.guest.hooks import After, Before, Call, Hooks, OnTrap, Which
from domzero.guest.memory import MachineMemory, PageWalk, PhysicalMemory, VirtualMemory, page_walk
from domzero.guest.names import find_vector
from domzero.guest.registers import GuestVcpu
from domzero.guest.start import Start
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.vcpu import Vcpu


@dataclass(slots=True, frozen=True)
class GuestEnd:
    """How a guest ended.

    :param reason: "poweroff", "reboot" (asked for; it is not started again), "suspend", "crash", "watchdog",
        "soft_reset", or "destroyed": the program closed it.
    :param instructions: executed by all its vCPUs.
    :param detail: of a crash, what Xen would print: the fault, registers, stack.
    """

    reason: str
    instructions: int
    detail: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail[0]}" if self.detail else self.reason


class Guest:
    """A guest with its console, its registers and its memory; made by `domzero.boot`, paused before its first
    instruction.

    It is a context manager: at the end of the block it is destroyed, and nothing is left of it. Methods may be called
    from any thread but, other than where it says so, not from hooks.
    """

    def __init__(self, start: Start, log: Sequence[str]) -> None:
        self._start: Start | None = start
        self._domain = start.domain
        self._lock = start.host.lock
        self._log = log
        self._changed = threading.Condition()
        """Something may have happened that somebody waits for. Nothing else is locked by who holds it."""
        self._paused = True
        self._ended = False
        self._end: GuestEnd | None = None
        self._failure: BaseException | None = None
        self._stopped_at: Call | None = None
        self._hooks = Hooks(self)
        self.vcpus = tuple(GuestVcpu(vcpu, self._check_stopped) for vcpu in start.domain.vcpus)
        """Its virtual CPUs; `guest.vcpus[0].regs.rip`."""
        self.console = GuestConsole(start.console, self, self._changed)
        """What it prints and is told."""
        self.virtual = VirtualMemory(lambda: self._stopped_vcpu(None))
        """Memory by virtual address, as the kernel maps it now on the hook's vCPU, or on vCPU 0."""
        self.machine = MachineMemory(self._stopped_domain)
        """Memory by machine address."""
        self.physical = PhysicalMemory(self._stopped_domain, self.machine)
        """Memory by pseudo-physical address: as the guest counts it."""
        start.domain.on_shutdown.append(self._on_shutdown)

    # --- its life

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
        if error is None:
            self._raise_failure()

    def close(self) -> None:
        """Destroys it, if it has not ended, and gives everything back. Its console's text and `end` stay."""
        start = self._start
        if start is None:
            return
        end = self.end or GuestEnd("destroyed", self._instructions())
        start.close()
        self._start = None
        self._end = end

    @property
    def end(self) -> GuestEnd | None:
        """How it ended; None while it has not, and in its hooks."""
        if self._end is None and self._ended and self._own_vcpu() is None:
            self._finish()
        return self._end

    @property
    def paused(self) -> bool:
        """Whether its vCPUs stand still: registers and memory may be looked at."""
        return self._paused

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines of the hypervisor's log about it."""
        return tuple(self._log)

    @property
    def domain(self) -> Domain:
        """The hypervisor's own object (`domzero.hypervisor.domain.Domain`), for what has no name here."""
        return self._domain

    # --- running it

    def unpause(self) -> None:
        """Lets it run, in threads of its own, until `pause`, its end or an error in a hook."""
        self._check_open()
        self._raise_failure()
        with self._lock:
            if self._paused:
                self._paused = False
                self._domain.unpause()

    def pause(self) -> None:
        """Stops it. May be called from a hook: it then stops when the hypercall is done."""
        self._check_open()
        if self._own_vcpu() is not None:
            self._hold()
            return
        self._settle()
        self._raise_failure()

    @overload
    def run_until(
        self, *, console: Pattern, hypercall: None = None, timeout: float | None = 60.0
    ) -> re.Match[str] | None: ...
    @overload
    def run_until(
        self, *, console: None = None, hypercall: str | tuple[str, str] | None = None, timeout: float | None = 60.0
    ) -> Call | None: ...
    @overload
    def run_until(
        self, *, console: Pattern | None, hypercall: str | tuple[str, str] | None, timeout: float | None = 60.0
    ) -> re.Match[str] | Call | None: ...
    def run_until(
        self,
        *,
        console: Pattern | None = None,
        hypercall: str | tuple[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> re.Match[str] | Call | None:
        """Lets it run until one of the things given happens, and pauses it.

        :param console: text or compiled regular expression that it prints, looked for in what came since the last
            match.
        :param hypercall: Xen's name, or names of hypercall and command: it stops before the hypercall is done, which
            is when it goes on.
        :param timeout: seconds of the host's time; None waits for ever. The guest is paused then, too.
        :returns: the match or the hypercall; None when a hook has paused it.
        :raises WaitTimeout: none of it happened in time.
        :raises GuestEnded: it ended before.
        """
        names = (hypercall, None) if isinstance(hypercall, str) else hypercall
        which = Which.of(*names) if names is not None else None
        wanted = [f"{shown(console)} on the console"] if console is not None else []
        wanted += [f"hypercall {' '.join(filter(None, names))}"] if names is not None else []
        self._check_open()
        self._stopped_at = None
        match = None
        try:
            if console is not None:
                self.console.watch(compiled(console), self._try_hold)
            with self._stopping_before(which):
                if not self.console.matched:
                    self._run(" or ".join(wanted) or "a pause", self._happened, timeout)
        finally:
            match = self.console.unwatch()
            self._settle()
        self._raise_failure()
        return match or self._stopped_at

    def step(self, count: int = 1, *, vcpu: int = 0, timeout: float | None = 60.0) -> int:
        """Lets one vCPU of the paused guest execute exactly `count` instructions, and the hypervisor do all that they
        ask for. The others stand still.

        :returns: how many were executed: fewer when the guest ended or a hook paused it.
        :raises WaitTimeout: the vCPU sleeps, and nothing woke it in time.
        """
        self._check_open()
        self._raise_failure()
        who = self._stopped_vcpu(vcpu)
        if self._own_vcpu() is not None:
            raise GuestError("a hook cannot step its own guest")
        if who.is_down:
            raise GuestError(f"vCPU {vcpu} is offline")
        if count < 0:
            raise ValueError("a number of instructions is not negative")
        deadline = None if timeout is None else time.monotonic() + timeout
        self._stopped_at = None
        done = self._domain.step(who, count, timeout)
        self._raise_failure()
        if done < count and not self._ended and deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeout(f"{done} of {count} instructions in {timeout:g} s: {who!r} is {self.vcpus[vcpu].state}")
        return done

    def wait(self, timeout: float | None = None) -> GuestEnd:
        """Lets it run to its end.

        :raises WaitTimeout: it did not end in time; it goes on running.
        """
        if self.end is None:
            self._run("the end", lambda: self._ended, timeout)
        assert self.end is not None
        return self.end

    # --- looking at it

    def read(self, va: int, length: int, *, vcpu: int | None = None) -> bytes:
        """Memory at a virtual address, as the kernel maps it now on that vCPU (the hook's own, or vCPU 0).

        :raises NotMapped: not all of it is mapped.
        """
        return VirtualMemory(lambda: self._stopped_vcpu(vcpu)).read(va, length)

    def write(self, va: int, data: bytes | bytearray, *, vcpu: int | None = None) -> None:
        """Overwrites memory at a virtual address, with the kernel's rights: what it maps read-only is refused.

        :raises NotMapped: not all of it is mapped writable.
        """
        VirtualMemory(lambda: self._stopped_vcpu(vcpu)).write(va, data)

    def page_walk(self, va: int, *, vcpu: int | None = None) -> PageWalk:
        """How a virtual address is mapped, level by level; to be printed."""
        return page_walk(self._stopped_vcpu(vcpu), self.machine, va)

    # --- hooks

    def on_hypercall(self, name: str | None = None, command: str | None = None) -> Callable[[Before], Before]:
        """Decorator: the function is called before hypercalls, and may change or answer them (`Call`).

        :param name: Xen's name, such as "event_channel_op"; all hypercalls when not given. Of iret there is no hook.
        :param command: of it, such as "EVTCHNOP_send".

        A long operation is done in parts, as on Xen: each part is a hypercall. Those of a multicall are seen one by
        one, after the multicall itself.

        :raises ConfigError: there is no such hypercall or command.
        """
        which = Which.of(name, command)

        def add(function: Before) -> Before:
            self._change_hooks(lambda: self._hooks.add_before(which, function))
            return function

        return add

    def after_hypercall(self, name: str | None = None, command: str | None = None) -> Callable[[After], After]:
        """Decorator: the function is called after hypercalls, with `call.result`. Parameters as of `on_hypercall`."""
        which = Which.of(name, command)

        def add(function: After) -> After:
            self._change_hooks(lambda: self._hooks.add_after(which, function))
            return function

        return add

    def on_trap(self, vector: int | str | None = None) -> Callable[[OnTrap], OnTrap]:
        """Decorator: the function is called with each exception (`Trap`) that is delivered to the guest kernel.

        Visible are faults and traps of the processor (#PF, #GP, #BP, ...), software interrupts (int n), what the
        hypervisor injects, and NMIs, each after it was delivered. Not visible: events (upcalls), system calls, faults
        that the hypervisor deals with itself (emulated instructions and page-table writes, the LDT), and the one that
        ends the guest because it cannot be delivered (that is `end`).

        :param vector: its number or name ("#PF"); all when not given.
        """
        wanted = None if vector is None else find_vector(vector)

        def add(function: OnTrap) -> OnTrap:
            self._change_hooks(lambda: self._hooks.traps.append((wanted, function)))
            return function

        return add

    def remove_hook(self, function: Callable[..., Any]) -> None:
        """Takes a function out of all hooks."""
        self._change_hooks(lambda: self._hooks.remove(function))

    # --- for hooks and console (other threads)

    def handle(self, vcpu: Vcpu) -> GuestVcpu:
        """The program's view of a vCPU."""
        return self.vcpus[vcpu.vcpu_id]

    def fail(self, error: BaseException) -> None:
        """A hook has raised."""
        if self._failure is None:
            self._failure = error
        self._hold()

    def stop(self, at: Call) -> None:
        """That for which `run_until` waits is there."""
        if self._stopped_at is None:
            self._stopped_at = at
        self._hold()

    def wait_for(self, what: str, done: Callable[[], bool], timeout: float | None) -> None:
        """Waits without starting or stopping it; raises when it ends first, is paused, or the deadline passes."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not (done() or self._failure or self._ended or self._paused or self._start is None):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeout(f"{what} did not come within {timeout:g} s; {self._last_words()}")
                self._changed.wait(left)
        self._raise_failure()
        if done():
            return
        if self.end is not None:
            if not done():  # it may have been its last word
                raise GuestEnded(f"{what} did not come: the guest ended ({self.end}); {self._last_words()}")
            return
        raise GuestError(f"{what} cannot come: the guest is paused; {self._last_words()}")

    # --- inside

    def _happened(self) -> bool:
        return self.console.matched or self._stopped_at is not None or (self._paused and not self._ended)

    def _run(self, what: str, done: Callable[[], bool], timeout: float | None) -> None:
        self._check_open()
        if self.end is None:
            self.unpause()
        self.wait_for(what, done, timeout)

    def _last_words(self) -> str:
        tail = self.console.tail
        return f"it last printed:\n{tail}" if tail else "it has printed nothing"

    def _hold(self) -> None:
        """Pauses without waiting; with the big lock held or free."""
        with self._lock:
            self._domain.pause(wait=False)
            if self._paused:
                self._domain.unpause()  # it was; what was stepping is not any more
            self._paused = True
        with self._changed:
            self._changed.notify_all()

    def _try_hold(self) -> None:
        """As `_hold`, but only when the big lock is this thread's or free: called by who must not wait for it. Whoever
        waits for the text pauses the guest otherwise."""
        if self._lock.acquire(blocking=False):
            try:
                self._hold()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        """Paused, and no vCPU is in the guest any more."""
        with self._lock:
            if self._start is not None:
                self._domain.pause()
                if self._paused:
                    self._domain.unpause()
                self._paused = True

    def _on_shutdown(self, _domain: Domain, _reason: int) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _instructions(self) -> int:
        self._settle()
        return sum(vcpu.hw.instructions for vcpu in self._domain.vcpus)

    def _finish(self) -> None:
        """It has ended: everything stands still, its last words are read."""
        instructions = self._instructions()
        if self._start is not None:
            self._domain.back_ends.settle()
            self._start.drain()
        code = self._domain.shutdown_code
        end = End(EndReason.DESTROYED) if code is None else End.of_shutdown(code, tuple(self._domain.crash_report))
        self._end = GuestEnd(end.reason.value, instructions, end.detail)

    def _check_open(self) -> None:
        if self._start is None:
            raise GuestError("the guest is closed")

    def _own_vcpu(self) -> Vcpu | None:
        """The vCPU in whose hook this is called."""
        me = threading.current_thread()
        return next((vcpu for vcpu in self._domain.vcpus if vcpu.thread is me), None)

    def _check_stopped(self, vcpu: Vcpu | None) -> None:
        """:raises GuestRunning: the guest runs, and this is no hook (of that vCPU)."""
        self._check_open()
        own = self._own_vcpu()
        if not self._paused and (own is None or vcpu not in (None, own)) and self.end is None:
            raise GuestRunning("the guest is running", hint="pause() it first, or look from a hook")

    def _stopped_domain(self) -> Domain:
        self._check_stopped(None)
        return self._domain

    def _stopped_vcpu(self, index: int | None) -> Vcpu:
        vcpu = self._domain.vcpus[index] if index is not None else self._own_vcpu() or self._domain.vcpus[0]
        self._check_stopped(vcpu)
        return vcpu

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @contextmanager
    def _stopping_before(self, which: Which | None) -> Iterator[None]:
        if which is None:
            yield
            return

        def until(value: Which | None) -> None:
            self._hooks.until = value

        self._change_hooks(lambda: until(which))
        try:
            yield
        finally:
            self._settle()
            self._change_hooks(lambda: until(None))

    def _change_hooks(self, change: Callable[[], None]) -> None:
        """Changes hooks while no vCPU runs, and tells the machine what has to come up."""
        self._check_open()
        with self._lock:
            self._domain.pause()
            try:
                change()
                hooks = self._hooks
                self._domain.intercept = hooks.intercept if hooks.sees_hypercalls else None
                self._domain.on_trap = hooks.on_trap if hooks.traps else None
                for vcpu in self._domain.vcpus:
                    vcpu.hw.set_fast_hypercalls(not hooks.needs_all)
                    vcpu.hw.watch_traps([vector for vector in range(256) if hooks.wants(vector)])
            finally:
                self._domain.unpause()


__all__ = ["Guest", "GuestEnd"]
