# SPDX-License-Identifier: Apache-2.0
"""How the two ends of a device come together through xenstore (io/xenbus.h), seen from the back end.

    front end          back end
    Initialising       InitWait      what the back end can do is in its nodes
    Initialised        Connected     the front end has given its rings
    Connected
    Closing            Closing       the rings are let go
    Closed             Closed
    Initialising       InitWait      the next kernel, after a boot loader

A front end's `state` is looked at where back ends answer events, so that a deterministic run stays one
(`hypervisor.back_ends`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from domzero.abi.io_xenbus import XenbusState
from domzero.dom0.xenstore.remote import StoreApi, WatchHandle
from domzero.dom0.xenstore.wire import XenstoreError
from domzero.hypervisor.domain import Domain

VALUE_MAX = 256
"""Characters of a front end's value that are looked at."""

Nodes = Mapping[str, str | int]


class FrontendError(Exception):
    """What the front end has written cannot be used: the device is closed, with this text in its `error` node."""


class Front:
    """The front end's nodes. A guest may write anything into them, at any time."""

    def __init__(self, store: StoreApi, path: str) -> None:
        self._store = store
        self.path = path

    def text(self, name: str) -> str | None:
        """A value, or None if there is no such node."""
        try:
            value = self._store.get(f"{self.path}/{name}")
        except XenstoreError:
            return None
        return None if value is None else value[:VALUE_MAX]

    def number(self, name: str, default: int | None = None, *, most: int = 0xFFFFFFFF) -> int:
        """A decimal number. FrontendError: there is none, and no default, or it is no such number."""
        value = self.text(name)
        if value is None and default is not None:
            return default
        if value is None or not value.isascii() or not value.isdigit() or int(value) > most:
            raise FrontendError(f"{name} is no number up to {most}" if value is not None else f"there is no {name}")
        return int(value)

    @property
    def state(self) -> XenbusState:
        """`state`; Unknown for what is none."""
        try:
            return XenbusState(self.number("state", 0))
        except (FrontendError, ValueError):
            return XenbusState.XenbusStateUnknown


class Device(Protocol):
    """What one kind of device has to say and to do."""

    kind: str
    """Its directory: `vbd`."""
    devid: int
    broken: Callable[[str], None]
    """Its back end's: to be told why its rings cannot be used any more; from any thread."""

    def front_nodes(self) -> Nodes:
        """What the toolstack writes for the front end, beside where the back end is."""

    def back_nodes(self) -> Nodes:
        """What the toolstack and the back end write before the front end looks."""

    def connect(self, front: Front) -> Nodes:
        """Takes the front end's rings into use; what is to be known of the device then. FrontendError."""

    def disconnect(self) -> None:
        """Lets go of them; also called when there are none."""

    def close(self) -> None:
        """Lets go of what is behind the device; called once, when it is disconnected."""


class BackEnd:
    """One device's back end, which the device tells when its rings are broken.

    :param log: receives lines about this device.
    :param on_gone: called once when it was unplugged and is let go of, in whatever thread, just before `is_gone`.
    """

    def __init__(
        self,
        store: StoreApi,
        domain: Domain,
        device: Device,
        log: Callable[[str], None],
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._domain = domain
        self.device = device
        device.broken = self.broken
        self._log = log
        self._on_gone = on_gone
        domid, place = domain.domid, f"{device.kind}/{domain.domid}/{device.devid}"
        self.path = f"/local/domain/0/backend/{place}"
        self.front = Front(store, f"/local/domain/{domid}/device/{device.kind}/{device.devid}")
        self._perms = ("n0", f"r{domid}")
        self._watch: WatchHandle | None = None
        self._lock = threading.RLock()
        self._state = XenbusState.XenbusStateUnknown
        self._is_closed = self._is_leaving = False
        self.is_gone = False
        """Whether it was unplugged, and let go of; another may have its number then."""
        self._fault: str | None = None
        # What `BackEnds` asks of what it calls.
        self.is_open = True
        self.is_due = False

    def start(self) -> None:
        """Writes both ends' nodes, and waits for the front end."""
        store, domid, device = self._store, self._domain.domid, self.device
        theirs, ours = (f"n{domid}", "r0"), self._perms
        store.mkdir(self.front.path, theirs)
        store.mkdir(self.path, ours)
        front: Nodes = {"backend": self.path, "backend-id": 0, **device.front_nodes()}
        back: Nodes = {"frontend": self.front.path, "frontend-id": domid, "online": 1, **device.back_nodes()}
        for path, nodes, perms in ((self.front.path, front, theirs), (self.path, back, ours)):
            for name, value in nodes.items():
                store.write(f"{path}/{name}", value, perms)
        store.write(f"{self.front.path}/state", XenbusState.XenbusStateInitialising, theirs)
        store.write(f"{self.path}/state", XenbusState.XenbusStateInitialising, ours)
        self._switch(XenbusState.XenbusStateInitWait)
        self._watch = store.watch(f"{self.front.path}/state", self._changed)

    @property
    def state(self) -> XenbusState:
        """Of the back end."""
        return self._state

    def change(self, nodes: Mapping[str, str | int | None]) -> None:
        """Changes nodes of the back end's, while the device is there.

        :param nodes: None: there is no such node any more.
        """
        with self._lock:
            if self._is_closed:
                return
            for name, value in nodes.items():
                if value is not None:
                    self._store.write(f"{self.path}/{name}", value, self._perms)
                elif self._store.get(f"{self.path}/{name}") is not None:
                    self._store.rm(f"{self.path}/{name}")

    def unplug(self, *, force: bool) -> None:
        """Asks the front end to let go of the device; it is gone (`is_gone`) when that has happened.

        :param force: it is gone at once.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_leaving = True
            self._store.write(f"{self.path}/online", 0)
            if self._state is XenbusState.XenbusStateConnected and not force:
                self._switch(XenbusState.XenbusStateClosing)
            elif self._state is not XenbusState.XenbusStateClosing or force:
                self._leave()  # nobody uses it, or is asked

    def refresh(self, nodes: Nodes) -> None:
        """Shows what of the device has changed. A front end that is connected looks when the state is written again."""
        with self._lock:
            if self._is_closed:
                return
            for name, value in nodes.items():
                self._store.write(f"{self.path}/{name}", value, self._perms)
            if self._state is XenbusState.XenbusStateConnected:
                self._store.write(f"{self.path}/state", int(self._state))

    def _leave(self) -> None:
        self.close()
        for path in (self.front.path, self.path):
            self._store.rm(path)
        self._on_gone()
        self.is_gone = True

    def close(self) -> None:
        """Lets go of the device, whatever the front end does. Not with `host.lock` held."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self.is_open = False
        if self._watch is not None:
            self._watch.close()
        with self._lock:
            self.device.disconnect()
            self.device.close()

    def broken(self, what: str) -> None:
        """The front end has broken its rings: the device will be closed. In any thread, also a ring's own."""
        self._fault = what
        self._changed("")

    def _changed(self, _path: str) -> None:
        with self._domain.host.lock:
            self._domain.back_ends.ring(self)

    def callback(self) -> None:
        """Looks at the front end's state (called by `BackEnds`)."""
        with self._lock:
            if self._is_closed:
                return
            if (fault := self._fault) is not None:
                self._fault = None
                self._fail(fault)
            self._follow(self.front.state)

    def _fail(self, what: str) -> None:
        self._log(f"{self.device.kind} {self.device.devid}: disconnected: {what}")
        self._store.write(f"{self.path}/error", what, self._perms)
        self.device.disconnect()
        self._switch(XenbusState.XenbusStateClosing)

    def _follow(self, front: XenbusState) -> None:
        back = self._state
        match front:
            case XenbusState.XenbusStateInitialising:
                if back is XenbusState.XenbusStateClosed:
                    self._switch(XenbusState.XenbusStateInitWait)
            case XenbusState.XenbusStateInitialised | XenbusState.XenbusStateConnected:
                if back is XenbusState.XenbusStateInitWait:
                    self._connect()
            case XenbusState.XenbusStateClosing:
                self.device.disconnect()
                self._switch(XenbusState.XenbusStateClosing)
            case XenbusState.XenbusStateClosed:
                self.device.disconnect()
                self._switch(XenbusState.XenbusStateClosed)
                if self._is_leaving:
                    self._leave()

    def _connect(self) -> None:
        self._fault = None  # what the rings before have broken, reported while they were let go of
        try:
            nodes = self.device.connect(self.front)
        except FrontendError as error:
            self._fail(str(error))
            return
        for name, value in nodes.items():
            self._store.write(f"{self.path}/{name}", value)
        self._switch(XenbusState.XenbusStateConnected)

    def _switch(self, state: XenbusState) -> None:
        if state is not self._state:
            self._state = state
            self._store.write(f"{self.path}/state", int(state))
