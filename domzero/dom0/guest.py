"""The domain inside a worker: one start of it. Reboots are Domain 0's business: each gets a worker of its own."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.console import Console
from domzero.dom0.control import Json
from domzero.dom0.lifecycle import DomainSession, Ending
from domzero.dom0.xenstore import StoreApi


class Guest:
    """A domain with its backends.

    :param on_exit: told once, in a thread of its own, how the guest ended: a `records.ExitReason`, and a line.
    """

    def __init__(
        self,
        config: DomainConfig,
        domid: int,
        store: StoreApi,
        console: Console,
        *,
        log: Callable[[str], None],
        on_exit: Callable[[str, str], None],
    ) -> None:
        # Whatever the end, the session keeps the domain as it is: what comes next is decided in the Domain 0 process.
        preserved = dataclasses.replace(
            config,
            on_poweroff=Action.PRESERVE,
            on_reboot=Action.PRESERVE,
            on_crash=Action.PRESERVE,
            on_watchdog=Action.PRESERVE,
        )
        self._session = DomainSession(preserved, store=store, console=console, log=log, new_domid=lambda: domid)
        self._on_exit = on_exit
        self._stopping = False

    def start(self) -> None:
        """Builds the domain and lets it run, unless it is to be paused."""
        self._session.start()
        threading.Thread(target=self._wait, name="exit", daemon=True).start()

    def pause(self) -> None:
        """Stops its vCPUs."""
        self._session.pause()

    def unpause(self) -> None:
        """Lets its vCPUs go on."""
        self._session.unpause()

    def stats(self) -> Json:
        """State, and the processor time of the whole worker: the guest's and that of its backends."""
        return {"state": self._session.state.value, "cpu_ns": time.process_time_ns()}

    def audit(self) -> Json:
        """Where the hypervisor's books are wrong."""
        return {"problems": self._session.audit()}

    def stop(self) -> None:
        """Ends it at once."""
        self._stopping = True
        self._session.destroy()

    def _wait(self) -> None:
        ending = self._session.wait()
        if ending is not None and not self._stopping:
            self._on_exit(ending.kind.value, _describe(ending))


def _describe(ending: Ending) -> str:
    if ending.detail:
        return f"{ending.kind.value}: {ending.detail[0]}"
    return ending.kind.value
