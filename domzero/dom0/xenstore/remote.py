# SPDX-License-Identifier: Apache-2.0
"""The store as seen from a worker: the methods of `Store` that a domain's lifecycle uses, over the wire protocol."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from domzero.dom0.xenstore.ring import Transport
from domzero.dom0.xenstore.wire import Decoder, Message, Op, XenstoreError
from domzero.errors import DomzeroError

_TIMEOUT_SECONDS = 30.0
_LOOK_SECONDS = 1.0
"""After which who waits looks whether there is anybody who could answer."""


class WatchHandle(Protocol):
    """A watch that can be ended."""

    def close(self) -> None: ...


class StoreApi(Protocol):
    """What a domain's lifecycle may ask of xenstore: `Store` in the same process, `RemoteStore` in a worker."""

    def connect(self, domid: int) -> Transport: ...
    def read(self, path: str) -> str: ...
    def get(self, path: str, default: str | None = None) -> str | None: ...
    def exists(self, path: str) -> bool: ...
    def ls(self, path: str) -> list[str]: ...
    def write(self, path: str, value: str | bytes | int, perms: tuple[str, ...] | None = None) -> None: ...
    def mkdir(self, path: str, perms: tuple[str, ...] | None = None) -> None: ...
    def rm(self, path: str) -> None: ...
    def get_perms(self, path: str) -> list[str]: ...
    def set_perms(self, path: str, *perms: str) -> None: ...
    def watch(self, path: str, callback: Callable[[str], None]) -> WatchHandle: ...


class RemoteStore:
    """A store at the other end of a transport.

    :param transport: the toolstack's own connection.
    :param guest: the connection of this worker's guest, handed out by `connect`.
    :param is_away: whether there is no store at the other end now, and another is waited for.
    :param on_away: called by who waits for an answer then: it may wait for the other store.

    Introducing and releasing domains is the business of the Domain 0 process.
    """

    def __init__(
        self,
        transport: Transport,
        guest: Transport | None = None,
        *,
        is_away: Callable[[], bool] = lambda: False,
        on_away: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._guest = guest
        self._is_away = is_away
        self._on_away = on_away
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Message]] = {}
        self._decoder = Decoder()
        self._decode_lock = threading.Lock()
        self._events: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._callbacks: dict[str, Callable[[str], None]] = {}
        transport.on_output = self._input_ready
        self._thread = threading.Thread(target=self._dispatch, name="xenstore-watches", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the connection and the thread that runs watch callbacks."""
        self._transport.close()
        self._events.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def connect(self, domid: int) -> Transport:
        """The guest's own connection."""
        if self._guest is None:
            raise DomzeroError(f"no xenstore connection for domain {domid} in this process")
        return self._guest

    def read(self, path: str) -> str:
        """The value of a node as text; XenstoreError ENOENT."""
        return self._call(Op.READ, _nul(path)).decode("utf-8", "replace")

    def get(self, path: str, default: str | None = None) -> str | None:
        """The value of a node as text, or the default if there is no such node."""
        try:
            return self.read(path)
        except XenstoreError as error:
            if error.name != "ENOENT":
                raise
            return default

    def exists(self, path: str) -> bool:
        """Whether there is such a node."""
        return self.get(path) is not None

    def ls(self, path: str) -> list[str]:
        """Names of the children; XenstoreError ENOENT."""
        return self._call(Op.DIRECTORY, _nul(path)).decode().split("\0")[:-1]

    def write(self, path: str, value: str | bytes | int, perms: tuple[str, ...] | None = None) -> None:
        """Sets a value (and permissions), creating the node and its parents."""
        self._call(Op.WRITE, _nul(path) + (value if isinstance(value, bytes) else str(value).encode()))
        if perms is not None:
            self.set_perms(path, *perms)

    def mkdir(self, path: str, perms: tuple[str, ...] | None = None) -> None:
        """Creates a node (and its parents) unless it is there."""
        self._call(Op.MKDIR, _nul(path))
        if perms is not None:
            self.set_perms(path, *perms)

    def rm(self, path: str) -> None:
        """Removes a node with all below it; nothing happens if it is not there."""
        try:
            self._call(Op.RM, _nul(path))
        except XenstoreError as error:
            if error.name != "ENOENT":
                raise

    def get_perms(self, path: str) -> list[str]:
        """Permission entries; XenstoreError ENOENT."""
        return self._call(Op.GET_PERMS, _nul(path)).decode().split("\0")[:-1]

    def set_perms(self, path: str, *perms: str) -> None:
        """Sets permission entries: the owner's first."""
        self._call(Op.SET_PERMS, _nul(path) + b"".join(_nul(perm) for perm in perms))

    def watch(self, path: str, callback: Callable[[str], None]) -> RemoteWatch:
        """Calls back with the path of each change at or below `path`, and once at the start, in a thread of its own."""
        token = str(next(self._ids))
        self._callbacks[token] = callback
        self._call(Op.WATCH, _nul(path) + _nul(token))
        return RemoteWatch(self, path, token)

    def unwatch(self, path: str, token: str) -> None:
        """Ends a watch."""
        if self._callbacks.pop(token, None) is not None:
            self._call(Op.UNWATCH, _nul(path) + _nul(token))

    def _call(self, op: Op, payload: bytes) -> bytes:
        answer: queue.SimpleQueue[Message] = queue.SimpleQueue()
        req_id = next(self._ids) & 0xFFFFFFFF
        self._waiting[req_id] = answer
        try:
            with self._lock:
                self._transport.receive(Message(op, req_id, 0, payload).encode())
            message = self._wait(answer)
        finally:
            self._waiting.pop(req_id, None)
        if message.type == Op.ERROR:
            raise XenstoreError(message.payload.rstrip(b"\0").decode("ascii", "replace"))
        return message.payload

    def _wait(self, answer: queue.SimpleQueue[Message]) -> Message:
        waited = 0.0
        while waited < _TIMEOUT_SECONDS:
            try:
                return answer.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._is_away():
                    waited = 0.0
                    self._on_away()
                else:
                    waited += _LOOK_SECONDS
        raise DomzeroError("xenstore does not answer")

    def _input_ready(self) -> None:
        with self._decode_lock:
            self._decoder.feed(self._transport.take_output())
            while (message := self._decoder.next()) is not None:
                if message.type == Op.WATCH_EVENT:
                    path, token = message.payload.decode("latin-1").split("\0")[:2]
                    self._events.put((path, token))
                elif (waiting := self._waiting.get(message.req_id)) is not None:
                    waiting.put(message)

    def _dispatch(self) -> None:
        while (event := self._events.get()) is not None:
            path, token = event
            if (callback := self._callbacks.get(token)) is not None:
                callback(path)


class RemoteWatch:
    """A watch of a `RemoteStore`."""

    def __init__(self, store: RemoteStore, path: str, token: str) -> None:
        self._store = store
        self._path = path
        self._token = token

    def close(self) -> None:
        """No callbacks start after this."""
        self._store.unwatch(self._path, self._token)


def _nul(text: str) -> bytes:
    return text.encode() + b"\0"
