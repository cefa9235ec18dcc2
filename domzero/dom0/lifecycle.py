"""A domain with its backends, from its configuration to its end: reboots, requests, and what the end was.

Used by `domzero run` and by a domain's worker. One `DomainSession` is one domain in the user's sense; each start or
reboot of it is a `domzero.hypervisor` domain of its own, with a new domid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from domzero.abi.sched import ShutdownReason
from domzero.abi.xen import PAGE_SHIFT, PAGE_SIZE
from domzero.builder.domain import build_domain
from domzero.builder.files import FILE_MAX, read_file
from domzero.builder.image import KernelImage, load_kernel
from domzero.builder.layout import plan
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.console import Console, ConsoleRing
from domzero.dom0.linelimit import LineLimit
from domzero.dom0.nodes import forget_nodes, home, write_nodes
from domzero.dom0.xenstore import RingBackend, Store, XenstoreError
from domzero.dom0.xenstore.remote import StoreApi
from domzero.errors import ResourceError
from domzero.hypervisor.clock import Clock
from domzero.hypervisor.domain import Domain, Limits
from domzero.hypervisor.evtchn import BackendPort
from domzero.hypervisor.host import Host

_MIN_LIFE_S = 1.0
"""A domain that crashes sooner than this is not restarted: it would crash for ever."""


class EndKind(str, Enum):
    """How a domain ended."""

    POWEROFF = "poweroff"
    REBOOT = "reboot"
    SUSPEND = "suspend"
    CRASH = "crash"
    WATCHDOG = "watchdog"
    DESTROYED = "destroyed"


_KINDS = {
    ShutdownReason.SHUTDOWN_poweroff: EndKind.POWEROFF,
    ShutdownReason.SHUTDOWN_reboot: EndKind.REBOOT,
    ShutdownReason.SHUTDOWN_suspend: EndKind.SUSPEND,
    ShutdownReason.SHUTDOWN_crash: EndKind.CRASH,
    ShutdownReason.SHUTDOWN_watchdog: EndKind.WATCHDOG,
    ShutdownReason.SHUTDOWN_soft_reset: EndKind.REBOOT,
}


@dataclass(slots=True, frozen=True)
class Ending:
    """The end of a domain.

    :param boots: how often it was started.
    :param instructions: executed by its last incarnation.
    :param detail: what the hypervisor says about a crash.
    """

    kind: EndKind
    boots: int
    instructions: int
    seconds: float
    detail: tuple[str, ...] = ()


class State(str, Enum):
    """What a domain is doing, in xl's words."""

    CREATED = "created"
    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    DESTROYED = "destroyed"


@dataclass(slots=True)
class _Incarnation:
    """What one start of the domain has."""

    domain: Domain
    xenstore: RingBackend
    console: ConsoleRing
    ports: list[BackendPort] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


class DomainSession:
    """One domain and its backends.

    :param store: the store it is to be found in; one of its own when not given.
    :param log: receives the hypervisor's `(XEN)` lines.
    :param on_change: called (in any thread) when the state may have changed.
    :param new_domid: chooses the domid of each start; the host does when not given.
    """

    def __init__(
        self,
        config: DomainConfig,
        *,
        store: StoreApi | None = None,
        console: Console | None = None,
        log: Callable[[str], None] | None = None,
        clock: Clock | None = None,
        on_change: Callable[[DomainSession], None] | None = None,
        new_domid: Callable[[], int] | None = None,
    ) -> None:
        config.check()
        self.config = config
        self.store: StoreApi = store if store is not None else Store()
        self.console = console or Console()
        self._log = log
        self._clock = clock
        self._on_change = on_change
        self._new_domid = new_domid
        self._host: Host | None = None
        self._current: _Incarnation | None = None
        self._last_domid = 0
        self._boots = 0
        self._began = time.monotonic()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ending: Ending | None = None
        self._destroying = False
        self._reboot_asked = False
        self._user_paused = False
        self._supervisor: threading.Thread | None = None

    # --- what it is

    @property
    def domid(self) -> int:
        """Of the current incarnation; of the last one after the end."""
        return self._last_domid

    @property
    def domain(self) -> Domain | None:
        """The hypervisor's domain, while there is one."""
        current = self._current
        return current.domain if current else None

    @property
    def host(self) -> Host | None:
        """The host it runs on, while there is one."""
        return self._host

    @property
    def ending(self) -> Ending | None:
        """How it ended, once it has."""
        return self._ending

    @property
    def boots(self) -> int:
        """How often it was started."""
        return self._boots

    @property
    def state(self) -> State:
        """What it is doing now."""
        current, ending = self._current, self._ending
        if ending is not None:
            if current is None:
                return State.DESTROYED
            return State.CRASHED if ending.kind in (EndKind.CRASH, EndKind.WATCHDOG) else State.SHUTDOWN
        if current is None:
            return State.CREATED
        domain = current.domain
        if domain.shutdown_code is not None:
            return State.CRASHED if domain.shutdown_code == ShutdownReason.SHUTDOWN_crash else State.SHUTDOWN
        if domain.pause_count:
            return State.PAUSED
        return State.BLOCKED if all(vcpu.is_blocked or vcpu.is_down for vcpu in domain.vcpus) else State.RUNNING

    # --- what can be asked of it

    def start(self) -> None:
        """Builds the domain and lets it run (unless `config.paused`).

        :raises DomzeroError: bad image, not enough memory; nothing is left then.
        """
        image, ramdisk = self._load()
        try:
            host = Host(self.config.static_max_mib, clock=self._clock, seed=self.config.seed, log=self._log)
        except (MemoryError, OverflowError, OSError) as error:
            raise ResourceError(f"no room for {self.config.static_max_mib} MiB: {error}", key="memory") from error
        self._host = host
        try:
            self._boot(image, ramdisk)
        except BaseException:
            self._host = None
            host.close()
            raise
        self._supervisor = threading.Thread(target=self._supervise, name="lifecycle", daemon=True)
        self._supervisor.start()

    def pause(self) -> None:
        """Stops the vCPUs until `unpause`; nothing happens if they are stopped."""
        with self._lock:
            if self._current is not None and not self._user_paused:
                self._user_paused = True
                self._current.domain.pause()
        self._changed()

    def unpause(self) -> None:
        """Undoes `pause`."""
        with self._lock:
            if self._current is not None and self._user_paused:
                self._user_paused = False
                self._current.domain.unpause()
        self._changed()

    def request(self, what: str) -> None:
        """Asks the guest to act: "poweroff", "reboot", "halt", "suspend" through its control/shutdown node."""
        self.store.write(f"{home(self.domid)}/control/shutdown", what)

    def destroy(self) -> None:
        """Ends the domain at once and gives everything back. Returns when that is done."""
        self._destroying = True
        current = self._current
        if current is not None:
            current.domain.shutdown(ShutdownReason.SHUTDOWN_poweroff)
        supervisor = self._supervisor
        if supervisor is not None and supervisor is not threading.current_thread():
            supervisor.join()
        with self._lock:
            if self._ending is None:
                self._end(EndKind.DESTROYED)
            self._tear_down(release=True)
            if self._host is not None:
                self._host.close()
                self._host = None
        self._changed()

    def audit(self) -> list[str]:
        """Where the hypervisor's books are wrong (`Host.audit`); nothing when there is no domain."""
        with self._lock:  # it is not taken apart meanwhile
            return self._host.audit() if self._host is not None else []

    def wait(self, timeout: float | None = None) -> Ending | None:
        """Waits for the end that is no restart; None when `timeout` seconds have passed."""
        return self._ending if self._ended.wait(timeout) else None

    # --- inside

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self)

    def _load(self) -> tuple[KernelImage, bytes]:
        """Reads the images and checks that they fit, before anything is made."""
        limit = min(FILE_MAX, self.config.memory_mib << 20)
        ramdisk = read_file(self.config.ramdisk, "ramdisk", limit) if self.config.ramdisk else b""
        image = load_kernel(self.config.kernel)
        plan(image, self._pages, len(ramdisk))
        return image, ramdisk

    @property
    def _pages(self) -> int:
        return self.config.memory_mib << (20 - PAGE_SHIFT)

    def _boot(self, image: KernelImage, ramdisk: bytes) -> None:
        host = self._host
        if host is None:
            raise ResourceError("the domain has no host any more")
        self._current = current = self._build(host, image, ramdisk)
        domain = current.domain
        self._last_domid = domain.domid
        self._boots += 1
        self._user_paused = self.config.paused and self._boots == 1
        if not self._user_paused:
            domain.unpause()
        if self._destroying:  # asked for while there was no domain to stop
            domain.shutdown(ShutdownReason.SHUTDOWN_poweroff)
        self._changed()

    def _build(self, host: Host, image: KernelImage, ramdisk: bytes) -> _Incarnation:
        config = self.config
        built = build_domain(
            host,
            image,
            pages=self._pages,
            max_pages=config.static_max_mib << (20 - PAGE_SHIFT),
            vcpus=config.vcpus,
            cmdline=config.cmdline,
            ramdisk=ramdisk,
            name=config.name,
            uuid=config.uuid,
            domid=self._new_domid() if self._new_domid is not None else None,
            limits=Limits(
                event_channels=config.max_event_channels,
                grant_frames=config.max_grant_frames,
                maptrack_frames=config.max_maptrack_frames,
                grant_version=config.max_grant_version,
            ),
        )
        domain, domid = built.domain, built.domain.domid
        try:
            write_nodes(self.store, config, domid, built.store, built.console)
            connection = self.store.connect(domid)
            xenstore, store_port = built.store.connect(lambda page, notify: RingBackend(page, connection, notify))
            console, console_port = built.console.connect(lambda page, notify: ConsoleRing(page, self.console, notify))
            domain.console_sink = self._emergency_output(domid, console)
            self.console.attach(console)
            self.store.introduce(domid)
        except BaseException:
            host.destroy_domain(domain)
            raise
        return _Incarnation(domain, xenstore, console, [store_port, console_port])

    def _emergency_output(self, domid: int, ring: ConsoleRing) -> Callable[[bytes], None]:
        """console_io goes to the hypervisor's log, line by line, as with Xen; but to the console itself as long as the
        guest has not used its ring: small kernels have nothing else to print with."""
        pending = bytearray()
        log = LineLimit(self._log) if self._log is not None else None

        def sink(data: bytes) -> None:
            if not ring.used:
                if not self.console.held:  # nobody reads: what cannot wait in a ring is dropped
                    self.console.output(data)
                return
            pending.extend(data)
            while (end := pending.find(b"\n")) >= 0 or len(pending) > PAGE_SIZE:
                line = bytes(pending[: end if end >= 0 else PAGE_SIZE])
                del pending[: len(line) + (end >= 0)]
                if log is not None:
                    log(f"(d{domid}) {line.decode('utf-8', 'replace').rstrip()}")

        return sink

    def _supervise(self) -> None:
        while True:
            current = self._current
            if current is None:
                return
            reason = current.domain.wait()
            with self._lock:
                current.domain.pause()  # returns when no vCPU is in the guest any more
                current.domain.back_ends.settle()
                current.console.drain()
                self.store.domain_stopped(current.domain.domid)
                kind = EndKind.DESTROYED if self._destroying or reason is None else _KINDS[reason]
                action = self._action(kind, time.monotonic() - current.started)
                if action is not Action.RESTART or not self._restart():
                    if self._ending is None:
                        self._end(kind)
                    if action is Action.DESTROY:
                        self._tear_down(release=True)
                    break
        self._ended.set()
        self._changed()

    def _action(self, kind: EndKind, lived_s: float) -> Action:
        config = self.config
        actions = {
            EndKind.POWEROFF: config.on_poweroff,
            EndKind.REBOOT: config.on_reboot,
            EndKind.CRASH: config.on_crash,
            EndKind.WATCHDOG: config.on_watchdog,
            EndKind.SUSPEND: Action.PRESERVE,
        }
        action = actions.get(kind, Action.DESTROY)
        if action is Action.RESTART and kind is EndKind.CRASH and lived_s < _MIN_LIFE_S:
            self._say("it crashed at once: not restarted")
            return Action.DESTROY
        return action

    def _restart(self) -> bool:
        """Builds the domain again; on failure the session ends as a crash."""
        self._tear_down(release=True)
        try:
            self._boot(*self._load())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is how this domain ended
            self._say(f"it could not be restarted: {error}")
            self._end(EndKind.CRASH, f"restart failed: {error}")
            return False
        return True

    def _say(self, text: str) -> None:
        if self._log is not None:
            self._log(f"(XEN) d{self.domid} {text}")

    def _end(self, kind: EndKind, *detail: str) -> None:
        current = self._current
        instructions = 0
        if current is not None:
            instructions = sum(vcpu.hw.instructions for vcpu in current.domain.vcpus)
            detail = (*detail, *current.domain.crash_report) if kind is EndKind.CRASH else detail
        self._ending = Ending(kind, self._boots, instructions, time.monotonic() - self._began, detail)

    def _tear_down(self, *, release: bool) -> None:
        """Gives back what the incarnation has."""
        current = self._current
        if current is None or self._host is None:
            return
        self._current = None
        self.console.attach(None)
        current.console.close()
        current.xenstore.close()
        for port in current.ports:
            port.close()
        self._host.destroy_domain(current.domain)
        if release:
            self.store.release(current.domain.domid)
            with suppress(XenstoreError):  # a worker may not be allowed to: Domain 0 does it then
                forget_nodes(self.store, self.config)


__all__ = ["DomainSession", "EndKind", "Ending", "State"]
