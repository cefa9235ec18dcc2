# SPDX-License-Identifier: Apache-2.0
"""A domain in this process, over its restarts: `domzero run`, scripts and tests. The policy is `life.after_end`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

from domzero.dom0.backends.disks import DomainDisks
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.console import Console
from domzero.dom0.corefile import CoreFile
from domzero.dom0.instance import Instance
from domzero.dom0.life import DomainState, End, EndReason, Next, after_end
from domzero.dom0.open_files import DomainFiles
from domzero.dom0.xenstore import Store
from domzero.dom0.xenstore_nodes import forget_nodes, home
from domzero.errors import DomzeroError
from domzero.hypervisor.clock import Clock
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.host import DOMID_MAX, Host


class DomainSession:
    """One domain as its user sees it; each start of it is an `Instance` of its own, with a new domid.

    :param store: the store it is to be found in; one of its own when not given.
    :param log: receives the hypervisor's `(XEN)` lines; must not wait.
    :param open_files: opens what it is made of, for the start with this domid; `Instance` does when not given.
    :param on_change: called (in any thread) when the state may have changed.
    :param on_build: given each start's domain before it runs.
    :param on_restart: told the end that was followed by another start.
    """

    def __init__(
        self,
        config: DomainConfig,
        *,
        store: Store | None = None,
        console: Console | None = None,
        log: Callable[[str], None] | None = None,
        clock: Clock | None = None,
        open_files: Callable[[int], DomainFiles] | None = None,
        on_change: Callable[[DomainSession], None] | None = None,
        on_build: Callable[[Domain], None] | None = None,
        on_restart: Callable[[End], None] | None = None,
    ) -> None:
        config.check()
        self.config = config
        self.store = store if store is not None else Store()
        self.console = console or Console()
        self._log = log
        self._clock = clock
        self._open_files = open_files
        self._on_change = on_change
        self._on_build = on_build
        self._on_restart = on_restart
        self._instance: Instance | None = None
        self._boots = self._domid = 0
        self._instructions = 0
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ending: End | None = None
        self._destroy_asked = threading.Event()
        self._destroy_reason = EndReason.DESTROYED
        self._supervisor: threading.Thread | None = None

    # --- what it is

    @property
    def domid(self) -> int:
        """Of the present start; of the last one after the end."""
        return self._domid

    @property
    def domain(self) -> Domain | None:
        """The hypervisor's domain, while there is one."""
        instance = self._instance
        return instance.domain if instance else None

    @property
    def host(self) -> Host | None:
        """The host it runs on, while there is one."""
        instance = self._instance
        return instance.host if instance else None

    @property
    def ending(self) -> End | None:
        """How it ended, once it has."""
        return self._ending

    @property
    def boots(self) -> int:
        """How often it was started."""
        return self._boots

    @property
    def instructions(self) -> int:
        """Executed by the last start that has ended."""
        instance = self._instance
        return instance.instructions if instance else self._instructions

    @property
    def state(self) -> DomainState:
        """What it is doing now."""
        instance, ending = self._instance, self._ending
        if instance is not None:
            return instance.state
        return DomainState.BUILDING if ending is None else DomainState.DESTROYED

    # --- what can be asked of it

    def start(self) -> None:
        """Builds the domain and lets it run (unless `config.paused`).

        :raises DomzeroError: bad image, not enough memory; nothing is left then.
        """
        self._boot()
        self._supervisor = threading.Thread(target=self._supervise, name="lifecycle", daemon=True)
        try:
            self._supervisor.start()
        except RuntimeError as error:
            self._supervisor = None
            self._tear_down()
            raise DomzeroError(f"the domain could not be started: {error}") from error

    def pause(self) -> None:
        """Stops the vCPUs until `unpause`; nothing happens if they are stopped."""
        with self._lock:
            if self._instance is not None:
                self._instance.pause()
        self._changed()

    def unpause(self) -> None:
        """Undoes `pause`."""
        with self._lock:
            if self._instance is not None:
                self._instance.unpause()
        self._changed()

    def request(self, what: str) -> None:
        """Asks the guest to act: "poweroff", "reboot", "halt", "suspend" through its control/shutdown node."""
        self.store.write(f"{home(self.domid)}/control/shutdown", what)

    def destroy(self, reason: EndReason = EndReason.DESTROYED) -> None:
        """Ends the domain at once and gives everything back. Returns when that is done.

        :param reason: what the end will be called, if it has not ended yet.
        """
        with self._lock:
            if not self._destroy_asked.is_set():
                self._destroy_reason = reason
                self._destroy_asked.set()
            instance = self._instance
        if instance is not None:
            instance.destroy(reason)
        supervisor = self._supervisor
        if supervisor is not None and supervisor is not threading.current_thread():
            supervisor.join()
        with self._lock:
            if self._ending is None:
                self._ending = End(reason)
            self._tear_down()
        self._changed()

    def audit(self) -> list[str]:
        """Where the hypervisor's books are wrong (`Host.audit`); nothing when there is no domain."""
        instance = self._instance
        return instance.audit() if instance is not None else []

    @property
    def disks(self) -> DomainDisks:
        """The disks of its present start. DomzeroError: there is none."""
        if (instance := self._instance) is None:
            raise DomzeroError("there is no domain")
        return instance.disks

    def wait(self, timeout: float | None = None) -> End | None:
        """Waits for the end that is no restart; None when `timeout` seconds have passed."""
        return self._ending if self._ended.wait(timeout) else None

    # --- inside

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self)

    def _boot(self) -> None:
        domid = self._domid % DOMID_MAX + 1
        try:
            files = self._open_files(domid) if self._open_files is not None else None
            instance = Instance.build(
                self.config, self.store, self.console, domid=domid, log=self._log, clock=self._clock, files=files
            )
        except BaseException:
            self._forget(domid)
            raise
        if self._on_build is not None:
            self._on_build(instance.domain)
        self.store.introduce(domid)
        with self._lock:
            self._boots, self._domid = self._boots + 1, domid
            self._instance = instance
            if self._destroy_asked.is_set():  # while there was no domain to stop
                instance.destroy(self._destroy_reason)
            elif not (self.config.paused and self._boots == 1):
                instance.unpause()
        self._changed()

    def _supervise(self) -> None:
        quick_crashes = 0
        while True:
            instance = self._instance
            if instance is None:
                break
            end = instance.wait()
            self.store.domain_stopped(instance.domid)
            following = after_end(self.config, end, instance.lived_s, quick_crashes)
            quick_crashes = following.quick_crashes
            if following.core:
                self._dump_core(instance)
            restart = following.action is Action.RESTART and not self._destroy_asked.is_set()
            if restart and self._restart(end, following):
                continue
            with self._lock:
                if self._ending is None:
                    self._ending = end.noted(following.note)
                if following.note:
                    self._say(following.note)
                if following.action is not Action.PRESERVE:
                    self._tear_down()
            break
        self._ended.set()
        self._changed()

    def _restart(self, end: End, following: Next) -> bool:
        """Builds the domain again after the delay; False if it could not be, or is to end meanwhile."""
        self._tear_down()
        if self._destroy_asked.wait(following.delay_s):
            self._ending = End(self._destroy_reason)
            return False
        try:
            self._boot()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is how this domain ended
            self._ending = End(EndReason.FAILED, (f"it could not be started again: {error}",))
            self._say(self._ending.detail[0])
            return False
        self._say(f"started again as domain {self.domid} after its end: {end.message}")
        if self._on_restart is not None:
            self._on_restart(end)
        return True

    def _dump_core(self, instance: Instance) -> None:
        try:
            with closing(CoreFile.automatic(self.config.name)) as file:
                instance.dump_core(file.fd)
                file.keep()
            self._say(f"core dump in {file.path}")
        except DomzeroError as error:
            self._say(f"no core dump: {error}")

    def _say(self, text: str) -> None:
        if self._log is not None:
            self._log(f"(DOM0) domain {self.config.name}: {text}")

    def _tear_down(self) -> None:
        """Gives back what the present start has."""
        with self._lock:
            instance, self._instance = self._instance, None
        if instance is not None:
            self._instructions = instance.instructions
            instance.close()
            self._forget(instance.domid)

    def _forget(self, domid: int) -> None:
        self.store.release(domid)
        forget_nodes(self.store, self.config.uuid, domid)


__all__ = ["DomainSession", "DomainState", "End", "EndReason"]
