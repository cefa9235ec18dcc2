# SPDX-License-Identifier: Apache-2.0
"""One client of the store, sans-IO: bytes of the wire protocol in, bytes out."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from domzero.dom0.xenstore import toolstack
from domzero.dom0.xenstore.events import EventQueue
from domzero.dom0.xenstore.store import Store
from domzero.dom0.xenstore.toolstack import Work
from domzero.dom0.xenstore.transaction import Transaction
from domzero.dom0.xenstore.tree import Access, Caller, Node, Perm, canonical, split
from domzero.dom0.xenstore.watches import Watch
from domzero.dom0.xenstore.wire import (
    PAYLOAD_MAX,
    REL_PATH_MAX,
    Decoder,
    Message,
    Op,
    ProtocolError,
    RingError,
    XenstoreError,
)

# A client that does not read its replies gets no further requests answered.
OUTPUT_HIGH_WATER = 16 * 1024
OK = b"OK\0"

Handler = Callable[["Connection", bytes, Transaction | None], "bytes | Work"]
_TX_ID_MAX = 0x7FFFFFFF
MESSAGE_STEPS = 8
"""What any message costs beside what it does (see `Meter`)."""
NAMES_PER_STEP = 4
"""Names of a directory that are listed in a step."""


class Connection:
    """A client's requests, transactions and watches.

    :param domid: the domain at the other end; 0 is privileged.
    :param on_output: called (without locks) when `take_output` has something to give; it may call back in.
    :param scope: a privileged client that may only touch these subtrees (a domain's worker).
    :param tool: a program of Domain 0's owner, on the Unix socket.
    """

    def __init__(
        self,
        store: Store,
        domid: int,
        *,
        on_output: Callable[[], None] | None = None,
        scope: tuple[str, ...] | None = None,
        tool: bool = False,
    ) -> None:
        self.store = store
        self.domid = domid
        self.caller = Caller(domid, scope, tool, store.targets)
        self.quotas = store.quotas_of(self.caller)
        self.on_output = on_output
        self.error = RingError.NONE
        self._input = Decoder()
        self._output = bytearray()
        self._events = EventQueue(self.quotas.queued_events)
        self._wide: tuple[Node, int, bytes] | None = None
        self._watches: dict[tuple[str, str], Watch] = {}
        self._transactions: dict[int, Transaction] = {}
        self._tx_ids = itertools.count(1)
        self._work: tuple[Message, Work] | None = None
        self._closed = False

    @property
    def wants_input(self) -> bool:
        """False while earlier requests wait for a turn, or the client has to read its replies first, and after an
        error."""
        return not self._closed and self.error == RingError.NONE and not self._behind and not self.has_work

    @property
    def has_work(self) -> bool:
        """Whether `turn` would do something without further input."""
        return self._work is not None or (self._input.has_message and not self._behind)

    @property
    def _behind(self) -> bool:
        """Whether the client has to read first."""
        return len(self._output) >= OUTPUT_HIGH_WATER or self._events.behind(len(self._watches))

    @property
    def has_output(self) -> bool:
        """Whether `take_output` would give anything."""
        return bool(self._output or self._events)

    def receive(self, data: bytes) -> None:
        """Takes bytes from the client and answers what is whole, as far as one turn goes (see `has_work`).

        A message that breaks the protocol sets `error` and ends the connection (until `reset`).
        """
        with self.store.section():
            if self._closed or self.error != RingError.NONE:
                return
            self._input.feed(data)
            self._process()

    def turn(self) -> None:
        """Goes on with requests that were received, as far as one turn goes."""
        with self.store.section():
            if not self._closed and self.error == RingError.NONE:
                self._process()

    def take_output(self, limit: int | None = None) -> bytes:
        """Bytes for the client, at most `limit` of them: replies first, then watch events.

        There may be work for a `turn` afterwards, if the client was behind.
        """
        with self.store.section():
            wanted = len(self._output) if limit is None else limit
            while self._events and (limit is None or len(self._output) < wanted):
                self._output += _event(*self._events.take())
            count = len(self._output) if limit is None else min(limit, len(self._output))
            data = bytes(self._output[:count])
            del self._output[:count]
            return data

    def reset(self) -> None:
        """Drops all of this client: partial messages, replies, watches, transactions; it may go on afterwards."""
        with self.store.section():
            self._input.clear()
            self._output.clear()
            self._events.clear()
            self._wide = None
            self._drop()
            self.error = RingError.NONE

    def close(self) -> None:
        """Ends the connection."""
        with self.store.section():
            self.reset()
            self._closed = True

    def hold_watch(self, payload: bytes, *, is_new: bool) -> None:
        """The client has had this watch with the store before this one. XenstoreError, as for the request WATCH.

        :param is_new: it may not have had the event that it begins with.
        """
        with self.store.section():
            self._watch(payload, None, is_new=is_new)

    def hold_transaction(self, tx_id: int) -> None:
        """The client has begun this transaction with the store before this one: what it does there counts for nothing,
        and its end is EAGAIN. XenstoreError: it has too many, or this is none."""
        with self.store.section():
            self._check_transactions()
            if not 0 < tx_id <= _TX_ID_MAX:
                raise XenstoreError("EINVAL")
            self._transactions[tx_id] = self.store.begin(is_lost=True)
            self._tx_ids = itertools.count(max(tx_id, *self._transactions) + 1)

    def catch_up(self, number: int) -> None:
        """Tells the client's watches what has changed since the change with this number."""
        with self.store.section():
            self.store.repeat_changes(list(self._watches.values()), number)
            self._announce()

    def _drop(self) -> None:
        """Ends watches and transactions, and the request that is under way."""
        if self._work is not None:
            self._work[1].close()
            self._work = None
        for watch in self._watches.values():
            self.store.remove_watch(watch)
        self._watches.clear()
        self._transactions.clear()

    def _process(self) -> None:
        meter = self.store.meter
        meter.start()
        try:
            while not meter.spent:
                if self._work is not None:
                    self._go_on(*self._work)
                elif self._behind:
                    break
                elif (message := self._input.next()) is not None:
                    meter.steps += MESSAGE_STEPS
                    self._answer(message)
                else:
                    break
        except ProtocolError:
            self.reset()
            self.error = RingError.PROTO
        if self.has_output or self.error != RingError.NONE:
            self._announce()

    def _announce(self) -> None:
        if self.on_output is not None:
            self.store.later(self.on_output)

    def _answer(self, message: Message) -> None:
        kind = message.type
        try:
            handler = _HANDLERS.get(kind)
            if kind in toolstack.REQUESTS:
                payload = self._as_toolstack(kind, message.payload)
            elif handler is None:
                raise XenstoreError("ENOSYS")
            else:
                payload = handler(self, message.payload, self._transaction(message))
            if not isinstance(payload, bytes):
                self._work = (message, payload)
                return
            if len(payload) > PAYLOAD_MAX:
                raise XenstoreError("E2BIG")
        except XenstoreError as error:
            kind, payload = Op.ERROR, error.name.encode() + b"\0"
        self._reply(message, kind, payload)

    def _go_on(self, message: Message, work: Work) -> None:
        try:
            next(work)
        except StopIteration as end:
            self._work = None
            self._reply(message, message.type, end.value)
        except XenstoreError as error:
            self._work = None
            self._reply(message, Op.ERROR, error.name.encode() + b"\0")

    def _reply(self, message: Message, kind: int, payload: bytes) -> None:
        self._output += Message(kind, message.req_id, message.tx_id, payload).encode()

    def _transaction(self, message: Message) -> Transaction | None:
        if message.tx_id == 0 or message.type in (Op.WATCH, Op.UNWATCH, Op.RESET_WATCHES):
            return None
        if (tx := self._transactions.get(message.tx_id)) is None:
            raise XenstoreError("ENOENT")
        return tx

    def _as_toolstack(self, kind: int, payload: bytes) -> bytes | Work:
        if not self.caller.is_toolstack:
            raise XenstoreError("EACCES")
        return toolstack.REQUESTS[kind](self.store, _text(payload.removesuffix(b"\0")).split("\0"))

    # --- one method per request; payload in, payload of the reply out

    def _node(self, path: str, tx: Transaction | None, access: Access = Access.READ) -> Node:
        return self.store.node(self.caller, canonical(path, self.domid), tx, access)

    def _read(self, payload: bytes, tx: Transaction | None) -> bytes:
        return self._node(_one(payload), tx).value

    def _directory(self, payload: bytes, tx: Transaction | None) -> bytes:
        return self._listing(self._node(_one(payload), tx), PAYLOAD_MAX)

    def _listing(self, node: Node, most: int | None = None) -> bytes:
        """The names of a node's children; E2BIG if that is more than `most` bytes, and two for each name are."""
        if most is not None and 2 * len(node.children) > most:
            raise XenstoreError("E2BIG")
        self.store.meter.steps += len(node.children) // NAMES_PER_STEP
        return b"".join(name.encode("latin-1") + b"\0" for name in node.children)

    def _wide_listing(self, node: Node) -> bytes:
        """A listing that is read part by part, and made once for it."""
        if self._wide is None or self._wide[0] is not node or self._wide[1] != node.generation:
            self._wide = (node, node.generation, self._listing(node))
        return self._wide[2]

    def _directory_part(self, payload: bytes, tx: Transaction | None) -> bytes:
        path, offset_text = _strings(payload, 2)
        node = self._node(path, tx)
        listing = self._wide_listing(node)
        offset = _number(offset_text)
        head = f"{node.generation}\0".encode()
        if offset >= len(listing):
            self._wide = None
            return head + b"\0"
        part = listing[offset : offset + PAYLOAD_MAX - len(head) - 1]
        if offset + len(part) < len(listing):
            # Only whole names; a name is shorter than a path, so at least one fits.
            return head + part[: part.rfind(b"\0") + 1]
        self._wide = None
        return head + part + b"\0"

    def _write(self, payload: bytes, tx: Transaction | None) -> bytes:
        path, nul, value = payload.partition(b"\0")
        if not nul:
            raise XenstoreError("EINVAL")
        self.store.set_value(self.caller, canonical(_text(path), self.domid), value, tx)
        return OK

    def _mkdir(self, payload: bytes, tx: Transaction | None) -> bytes:
        self.store.set_value(self.caller, canonical(_one(payload), self.domid), None, tx)
        return OK

    def _rm(self, payload: bytes, tx: Transaction | None) -> bytes:
        self.store.remove(self.caller, canonical(_one(payload), self.domid), tx)
        return OK

    def _get_perms(self, payload: bytes, tx: Transaction | None) -> bytes:
        path = _one(payload)
        perms = self.store.special_perms(path)
        if perms is None:
            perms = self._node(path, tx).perms
        elif not self.caller.access(perms) & Access.READ:
            raise XenstoreError("EACCES")
        return b"".join(f"{perm}\0".encode() for perm in perms)

    def _set_perms(self, payload: bytes, tx: Transaction | None) -> bytes:
        path, *texts = _strings(payload, 2, more=True)
        if self.store.special_perms(path) is None:
            path = canonical(path, self.domid)
        self.store.change_perms(self.caller, path, tuple(Perm.parse(text) for text in texts), tx)
        return OK

    def _watch(self, payload: bytes, _tx: Transaction | None, *, is_new: bool = True) -> bytes:
        path, token, *rest = _strings(payload, 2, more=True)
        if len(token) > REL_PATH_MAX:
            raise XenstoreError("EINVAL")
        depth = _number(rest[0]) if rest and rest[0] else None
        watch = Watch.create(self.caller, path, token, depth, self._queue_event)
        max_depth = self.quotas.depth
        if max_depth and len(split(watch.path)) > max_depth:
            raise XenstoreError("ENOSPC")  # there can be no such node
        if (watch.path, token) in self._watches:
            raise XenstoreError("EEXIST")
        quota = self.quotas.watches
        if quota and len(self._watches) >= quota:
            raise XenstoreError("ENOSPC")
        self.store.add_watch(watch, is_new=is_new)
        self._watches[watch.path, token] = watch
        return OK

    def _unwatch(self, payload: bytes, _tx: Transaction | None) -> bytes:
        path, token = _strings(payload, 2, more=True)[:2]
        absolute = path if path.startswith(("@", "/")) else f"/local/domain/{self.domid}/{path}"
        if (watch := self._watches.pop((absolute, token), None)) is None:
            raise XenstoreError("ENOENT")
        self.store.remove_watch(watch)
        return OK

    def _reset_watches(self, _payload: bytes, _tx: Transaction | None) -> bytes:
        self._drop()
        return OK

    def _transaction_start(self, _payload: bytes, tx: Transaction | None) -> bytes:
        if tx is not None:
            raise XenstoreError("EBUSY")
        self._check_transactions()
        tx_id = next(n for n in (next(self._tx_ids) & _TX_ID_MAX for _ in itertools.count()) if n)
        self._transactions[tx_id] = self.store.begin()
        return f"{tx_id}\0".encode()

    def _check_transactions(self) -> None:
        quota = self.quotas.transactions
        if quota and len(self._transactions) >= quota:
            raise XenstoreError("ENOSPC")

    def _transaction_end(self, payload: bytes, tx: Transaction | None) -> bytes | Work:
        answer = _one(payload)
        if answer not in ("T", "F"):
            raise XenstoreError("EINVAL")
        if tx is None:
            raise XenstoreError("ENOENT")
        self._transactions = {tx_id: other for tx_id, other in self._transactions.items() if other is not tx}
        return self._commit(tx) if answer == "T" else OK

    def _commit(self, tx: Transaction) -> Work:
        yield from self.store.commit_in_turns(tx)
        return OK

    def _get_domain_path(self, payload: bytes, _tx: Transaction | None) -> bytes:
        return f"/local/domain/{_number(_one(payload))}\0".encode()

    def _is_domain_introduced(self, payload: bytes, _tx: Transaction | None) -> bytes:
        return b"T\0" if self.store.is_introduced(_number(_one(payload))) else b"F\0"

    def _queue_event(self, watch: Watch, path: str) -> None:
        self._events.add(watch, path)
        self._announce()


def _event(path: str, token: str) -> bytes:
    payload = path.encode("latin-1") + b"\0" + token.encode("latin-1") + b"\0"
    return Message(Op.WATCH_EVENT, 0, 0, payload).encode()


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _one(payload: bytes) -> str:
    """The only string of a payload."""
    return _strings(payload, 1)[0]


def _strings(payload: bytes, count: int, *, more: bool = False) -> list[str]:
    """The nul-terminated strings of a payload: exactly `count`, or at least; EINVAL."""
    if not payload.endswith(b"\0"):
        raise XenstoreError("EINVAL")
    strings = _text(payload[:-1]).split("\0")
    if len(strings) < count or (len(strings) > count and not more):
        raise XenstoreError("EINVAL")
    return strings


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        raise XenstoreError("EINVAL")
    return int(text)


_HANDLERS: dict[int, Handler] = {
    Op.DIRECTORY: Connection._directory,
    Op.READ: Connection._read,
    Op.GET_PERMS: Connection._get_perms,
    Op.WATCH: Connection._watch,
    Op.UNWATCH: Connection._unwatch,
    Op.TRANSACTION_START: Connection._transaction_start,
    Op.TRANSACTION_END: Connection._transaction_end,
    Op.GET_DOMAIN_PATH: Connection._get_domain_path,
    Op.WRITE: Connection._write,
    Op.MKDIR: Connection._mkdir,
    Op.RM: Connection._rm,
    Op.SET_PERMS: Connection._set_perms,
    Op.IS_DOMAIN_INTRODUCED: Connection._is_domain_introduced,
    Op.RESET_WATCHES: Connection._reset_watches,
    Op.DIRECTORY_PART: Connection._directory_part,
}
