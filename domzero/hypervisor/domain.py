# SPDX-License-Identifier: Apache-2.0
"""A domain: its state, and the verbs every part of the hypervisor needs."""

import re
import threading
import traceback
import uuid as uuid_module
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from domzero import _machine
from domzero.abi.sched import ShutdownReason
from domzero.abi.xen import PAGE_SIZE, XEN_LEGACY_MAX_VCPUS
from domzero.errors import ConfigError, DomzeroError, ResourceError
from domzero.hypervisor import engine, timekeeping
from domzero.hypervisor.back_ends import BackEnds
from domzero.hypervisor.cap import Cap
from domzero.hypervisor.domids import Domids
from domzero.hypervisor.emulate.cpu_policy import CpuPolicy, policy
from domzero.hypervisor.engine import Choice, Engine
from domzero.hypervisor.grant import GrantTable
from domzero.hypervisor.limits import Limits
from domzero.hypervisor.platform import Platform
from domzero.hypervisor.timers import Timed
from domzero.hypervisor.vcpu import Vcpu
from domzero.hypervisor.watchdog import Watchdogs

__all__ = ["Domain", "DomainSpec", "Limits", "ShutdownReason"]


VcpuLoop = Callable[[Vcpu], None]
"""What a vCPU's thread does until the vCPU is stopped (see `vcpu_thread`)."""


def _shutdown_name(code: int) -> str:
    try:
        return ShutdownReason(code).name.removeprefix("SHUTDOWN_")
    except ValueError:
        return f"unknown reason {code}"


@dataclass(slots=True, kw_only=True)
class DomainSpec:
    """What the hypervisor has to know to make a domain (the rest is the builder's and the toolstack's).

    :param max_pages: how many frames the domain may own.
    :param e820: pseudo-physical memory map as (address, size, type), for XENMEM_memory_map; Xen has none by default.
    """

    name: str = ""
    max_pages: int
    vcpus: int = 1
    uuid: uuid_module.UUID = field(default_factory=uuid_module.uuid4)
    is_32bit: bool = False
    domid: int | None = None
    e820: list[tuple[int, int, int]] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    engine: Engine = Engine.AUTO
    cpu: CpuPolicy = field(default_factory=policy)


@dataclass(slots=True, eq=False, kw_only=True)
class Domain:
    """State of one domain. Changed with `host.lock` held."""

    host: Platform
    domid: int
    name: str
    uuid: uuid_module.UUID
    is_32bit: bool
    hw: _machine.Domain
    max_pages: int
    e820: list[tuple[int, int, int]]
    shared_info_mfn: int
    cpu: CpuPolicy = field(default_factory=policy)
    """What CPUID shows; it never changes."""
    limits: Limits = field(default_factory=Limits)
    vcpus: list[Vcpu] = field(default_factory=list)
    domids: "Domids[Domain]" = field(init=False)
    evtchn: _machine.EventChannels = field(init=False)
    back_ends: BackEnds = field(init=False)
    grants: GrantTable = field(init=False)
    watchdogs: Watchdogs = field(init=False)
    cap: Cap = field(init=False)
    engine: Choice = field(init=False)
    """What executes its code."""
    timed: list[Timed] = field(default_factory=list)
    """What vCPU 0's thread looks after besides its own timers."""
    run_vcpu: VcpuLoop
    """What a vCPU's thread does (see `vcpu_thread`)."""
    pause_count: int = 1
    is_torn_down: bool = False
    """Everything is given back but its frames."""
    shutdown_code: int | None = None
    """Why the domain has stopped, once it has: a ShutdownReason, or a number of 8 bits that is none."""
    latched_code: int | None = None
    """SCHEDOP_shutdown_code: what a later shutdown will report."""
    crash_report: list[str] = field(default_factory=list)
    bug: BaseException | None = None
    """An error of ours that ended this domain: tests raise it again."""
    on_shutdown: list[Callable[["Domain", int], None]] = field(default_factory=list)
    """Called once when the domain stops, with `host.lock` held; must not wait."""
    console_sink: Callable[[bytes], None] | None = None
    """Receives what the guest writes with console_io (its emergency console)."""
    trace: Callable[[Vcpu, str, tuple[int, ...], int], None] | None = None
    """Called after each hypercall that came up here with name, arguments and result."""
    intercept: Callable[[Vcpu, Any, list[int]], int] | None = None
    """Answers in place of the hypercalls that come up here, given as `hypercalls.table.Operation`;
    `hypercalls.table.answer` is how they are answered."""
    on_trap: Callable[[Vcpu, _machine.ExitTrap], None] | None = None
    """Called after an exception that the machine watches was delivered (`_machine.Vcpu.watch_traps`)."""
    hypercall_counts: Counter[str] = field(default_factory=Counter)
    exit_counts: Counter[type] = field(default_factory=Counter)
    """How often guest code left the machine for anything but hypercalls, by `_machine.Exit`."""
    logged_once: set[str] = field(default_factory=set)
    pirqs_taken: set[int] = field(default_factory=set)
    """Interrupt numbers that PHYSDEVOP_get_free_pirq gave out; no interrupt belongs to one."""
    pirq_eoi_mfn: int | None = None
    """The frame of PHYSDEVOP_pirq_eoi_gmfn, once there is one."""
    host_refs: Counter[tuple[int, bool]] = field(default_factory=Counter)
    """References of `host_frames`: (frame, writable)."""
    stopped: threading.Condition = field(init=False)

    @classmethod
    def create(
        cls, host: Platform, domains: Mapping[int, "Domain"], domid: int, spec: DomainSpec, run_vcpu: VcpuLoop
    ) -> "Domain":
        """Used by `Host.create_domain`.

        :param domains: all of the host, this one as soon as it is there.
        """
        if not 1 <= spec.vcpus <= XEN_LEGACY_MAX_VCPUS:
            raise ConfigError(f"{spec.vcpus} is not possible: 1 to {XEN_LEGACY_MAX_VCPUS}", key="vcpus")
        try:
            hw = host.machine.create_domain(domid, is_32bit=spec.is_32bit)
        except _machine.MachineError as error:
            raise ResourceError(str(error)) from error
        try:
            return cls._create(host, domains, domid, spec, hw, run_vcpu)
        except _machine.MachineError as error:
            hw.destroy()
            raise ResourceError("no machine memory is left for another domain", key="memory") from error
        except DomzeroError:
            hw.destroy()
            raise

    @classmethod
    def _create(
        cls,
        host: Platform,
        domains: Mapping[int, "Domain"],
        domid: int,
        spec: DomainSpec,
        hw: _machine.Domain,
        run_vcpu: VcpuLoop,
    ) -> "Domain":
        (shared_info_mfn,) = hw.share_hypervisor_frames(1)
        domain = cls(
            host=host,
            domid=domid,
            name=spec.name or f"domain{domid}",
            uuid=spec.uuid,
            is_32bit=spec.is_32bit,
            hw=hw,
            max_pages=spec.max_pages,
            e820=list(spec.e820),
            shared_info_mfn=shared_info_mfn,
            cpu=spec.cpu,
            run_vcpu=run_vcpu,
            limits=spec.limits,
        )
        hw.host_mapped(shared_info_mfn)
        for index in range(XEN_LEGACY_MAX_VCPUS):  # Xen's builder masks the events of all, present or not
            domain.shared_info[index * timekeeping.VCPU_INFO_SIZE + 1] = 1
        domain.stopped = host.lock.condition()
        domain.domids = Domids(domain, domid, domains)
        domain.back_ends = BackEnds(
            f"d{domid}-back-ends",
            virtual_now=None if host.clock.virtual_start_ns is None else host.now_ns,
            schedule=lambda: domain.vcpus[0].timers.changed(),
            failed=domain.our_bug,
        )
        domain.evtchn = hw.create_events(
            domain.shared_info_maddr,
            spec.limits.event_channels,
            host_ends_above=host.clock.virtual_start_ns is not None,
        )
        domain.grants = GrantTable(domain)
        domain.cap = Cap(host.now_ns)
        domain.watchdogs = Watchdogs(
            host.now_ns, changed=lambda: domain.vcpus[0].timers.changed(), expired=domain._watchdog_expired
        )
        domain.timed += [domain.watchdogs, domain.back_ends]
        for vcpu_id in range(spec.vcpus):
            domain.vcpus.append(Vcpu(domain, vcpu_id))
        virtual_time = host.clock.virtual_start_ns is not None
        domain.engine = engine.apply(spec.engine, [vcpu.hw for vcpu in domain.vcpus], virtual_time=virtual_time)
        domain.log(f"engine: {domain.engine}")
        timekeeping.update_wallclock(host, domain.shared_info_maddr, is_32bit=spec.is_32bit)
        return domain

    @property
    def shared_info_maddr(self) -> int:
        """Machine address of shared_info, for start_info."""
        return self.shared_info_mfn * PAGE_SIZE

    @property
    def shared_info(self) -> memoryview:
        """The shared_info page."""
        return self.host.memory[self.shared_info_maddr : self.shared_info_maddr + PAGE_SIZE]

    def log(self, text: str) -> None:
        """A `(XEN) d1 text` line."""
        self.host.log(f"d{self.domid} {text}")

    def log_once(self, key: str, text: str) -> None:
        """As `log`, but only the first time for this key; the number of keys is bounded."""
        if key not in self.logged_once and len(self.logged_once) < 256:
            self.logged_once.add(key)
            self.log(text)

    def vcpu(self, vcpu_id: int) -> Vcpu | None:
        """The vCPU with this number."""
        return self.vcpus[vcpu_id] if 0 <= vcpu_id < len(self.vcpus) else None

    # --- running

    def unpause(self) -> None:
        """Undoes one `pause` (a domain is created paused)."""
        with self.host.lock:
            if self.pause_count == 0:
                return
            self.pause_count -= 1
            if self.pause_count == 0:
                for vcpu in self.vcpus:
                    vcpu.start_thread()
                    vcpu.poke()

    def pause(self, *, wait: bool = True) -> None:
        """Stops all vCPUs, also one that `step` lets go. Nests.

        :param wait: return when none of them, but the caller's own, runs guest code or answers its hypercall.
        """
        with self.host.lock:
            self.pause_count += 1
            for vcpu in self.vcpus:
                vcpu.step_end = None
            self._kick_all()
            if wait:
                self._wait_until_quiet()

    def step(self, vcpu: Vcpu, count: int, timeout: float | None = None) -> int:
        """Lets one vCPU of the paused domain go on for `count` instructions, whatever comes of them; not from a vCPU's
        thread.

        :returns: how many were executed: fewer when the domain stopped, or `timeout` seconds have passed.
        """
        with self.host.lock:
            self._wait_until_quiet()
            begin = vcpu.hw.instructions
            vcpu.step_end = begin + count
            vcpu.start_thread()
            vcpu.poke()
            self.host.quiet.wait_for(lambda: vcpu.step_end is None or self.shutdown_code is not None, timeout)
            if vcpu.step_end is not None:
                vcpu.step_end = None
                vcpu.hw.kick()
            self._wait_until_quiet()
            return vcpu.hw.instructions - begin

    def _kick_all(self) -> None:
        for vcpu in self.vcpus:
            vcpu.hw.kick()
            vcpu.poke()

    def _wait_until_quiet(self) -> None:
        me = threading.current_thread()
        while any(v.in_guest and v.thread is not me for v in self.vcpus):
            self.host.quiet.wait(0.1)

    def set_time_offset(self, seconds: int) -> None:
        """Lets the domain's wall clock differ from the host's (XEN_DOMCTL_settimeoffset)."""
        with self.host.lock:
            timekeeping.update_wallclock(self.host, self.shared_info_maddr, is_32bit=self.is_32bit, offset_s=seconds)

    def set_cap(self, percent: int) -> None:
        """Bounds the processor time of the vCPUs together, in percent of one processor; 0 for no bound."""
        with self.host.lock:
            self.cap.set(percent)
            for vcpu in self.vcpus:
                vcpu.interrupt()

    def set_trace(self, trace: Callable[[Vcpu, str, tuple[int, ...], int], None] | None) -> None:
        """Calls `trace` after every hypercall, those the machine would answer itself included; None ends it."""
        self.pause()
        with self.host.lock:
            self.trace = trace
            for vcpu in self.vcpus:
                vcpu.hw.set_fast_hypercalls(trace is None)
        self.unpause()

    # --- the end

    def _watchdog_expired(self, number: int) -> None:
        self.log(f"watchdog timer {number} expired")
        self.shutdown(ShutdownReason.SHUTDOWN_watchdog)

    def shutdown(self, reason: int) -> None:
        """The domain stops for `reason`: its vCPUs run no more, whoever waits is told. Does nothing the second time."""
        with self.host.lock:
            if self.shutdown_code is not None:
                return
            if self.latched_code is not None:
                reason = self.latched_code
            self.shutdown_code = reason
            self.log(f"shut down: {_shutdown_name(reason)}")
            self._kick_all()
            self.stopped.notify_all()
            for callback in list(self.on_shutdown):
                callback(self, reason)

    def crash(self, why: str) -> None:
        """The domain ends because of what it did, or because of us."""
        with self.host.lock:
            if self.shutdown_code is None:
                self.crash_report.append(why)
                self.log(f"crashed: {why}")
            self.latched_code = None
            self.shutdown(ShutdownReason.SHUTDOWN_crash)

    def our_bug(self, error: BaseException) -> None:
        """An exception that is no guest's doing: it is logged, and this domain ends, not the host."""
        with self.host.lock:
            self.bug = error
            for line in traceback.format_exception(error):
                for part in line.splitlines():
                    self.log(part)
            self.crash(f"hypervisor bug: {type(error).__name__}: {error}")

    def resume(self) -> None:
        """Takes a shutdown back (suspend was cancelled, or a checkpoint was taken)."""
        with self.host.lock:
            self.shutdown_code = None
            self.latched_code = None
            for vcpu in self.vcpus:
                vcpu.poke()

    @property
    def vm_assist(self) -> int:
        """The behaviours that the guest has asked for, a bit for each `VmAssistType`: the machine keeps them."""
        return self.hw.vm_assist

    @vm_assist.setter
    def vm_assist(self, bits: int) -> None:
        self.hw.vm_assist = bits

    def exits(self) -> dict[str, int]:
        """How often guest code left the machine, by reason. Hypercalls that the machine answers itself do not count."""
        with self.host.lock:
            found = {_exit_name(kind): count for kind, count in self.exit_counts.items()}
            return {"hypercall": self.hypercall_counts.total()} | found

    @property
    def is_dying(self) -> bool:
        """Whether its end has begun (`stop_threads`): the machine keeps it."""
        return self.hw.is_dying

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the domain has stopped. None when `timeout` seconds have passed first, or it was destroyed."""
        with self.host.lock:
            self.stopped.wait_for(lambda: self.shutdown_code is not None or self.is_dying, timeout)
            return self.shutdown_code

    def stop_threads(self) -> None:
        """Ends the vCPUs' threads. Not with `host.lock` held."""
        with self.host.lock:
            self.hw.begin_end()
            self._kick_all()
            self.stopped.notify_all()
        for vcpu in self.vcpus:
            if vcpu.thread is threading.current_thread():
                raise RuntimeError("a vCPU's thread cannot destroy its own domain")
            if vcpu.thread is not None:
                vcpu.thread.join()
                vcpu.thread = None
        self.back_ends.stop()

    def teardown(self) -> None:
        """Gives everything back but the frames, which `hw.destroy` does; used by `Host.destroy_domain`."""
        self.is_torn_down = True
        self.evtchn.close()
        self.grants.close()
        for vcpu in self.vcpus:
            vcpu.release()
        if self.pirq_eoi_mfn is not None:
            self.hw.put_ref(self.pirq_eoi_mfn, writable=True)
            self.pirq_eoi_mfn = None


def _exit_name(kind: type) -> str:
    """`mov_to_cr` for ExitMovToCr."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.removeprefix("Exit")).lower()
