# SPDX-License-Identifier: Apache-2.0
"""The store: one tree, its transactions and watches, and what Domain 0's own code calls.

Operations may come from any thread. What they make others see (watch events, output on a connection) is queued under
the store's lock and delivered by the same thread once the lock is free, so that a receiver may take locks of its own.

What a domain can make long (a commit, its release) is done in turns of a bounded number of steps (`Meter`), between
which the lock is free and others are served.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from domzero.dom0.xenstore.keeping import History, entries_of
from domzero.dom0.xenstore.quotas import NO_LIMIT, TOOL, Quotas
from domzero.dom0.xenstore.transaction import Transaction, as_seen, generation_of
from domzero.dom0.xenstore.tree import (
    Access,
    Caller,
    Change,
    Meter,
    Node,
    Perm,
    Perms,
    Tree,
    check_path,
    merge,
    paths_naming,
    subtree,
)
from domzero.dom0.xenstore.watches import SPECIALS, Watch, WatchIndex
from domzero.dom0.xenstore.wire import XenstoreError

if TYPE_CHECKING:
    from domzero.dom0.xenstore.connection import Connection

logger = logging.getLogger(__name__)

DOM0 = Caller(0)
TURN_STEPS = 400
"""Steps of one turn, about half a millisecond: what one client may take of the others' time."""
COMMIT_TRIES = 4
"""How often a commit that takes several turns begins again because others changed the store meanwhile."""


class Store:
    """Xenstore's database. Methods without a `caller` act for Domain 0.

    :param schedule: calls back soon, in a turn of its own: an event loop's `call_soon_threadsafe`. Without it long work
        of Domain 0's own is done at once.
    """

    def __init__(
        self, quotas: Quotas | None = None, *, schedule: Callable[[Callable[[], None]], object] | None = None
    ) -> None:
        self.quotas = quotas or Quotas()
        self.meter = Meter(TURN_STEPS)
        self._worker_quotas = self.quotas.of_worker()
        self._schedule = schedule
        self._counter = itertools.count(1)
        self._tree = Tree(None, {}, {}, self._next, self.meter)
        self._watches = WatchIndex(self.meter)
        self._special_perms: dict[str, Perms] = {name: (Perm(0, Access.NONE),) for name in SPECIALS}
        self._introduced: set[int] = set()
        self.targets: dict[int, int] = {}
        """Which domain has the rights of which other one, beside its own (SET_TARGET)."""
        self._lock = threading.RLock()
        self._depth = 0
        self._settling = False
        self._history: History | None = None
        self._outbox: dict[Callable[[], None], None] = {}
        for path in ("/tool", "/local", "/local/domain", "/vm"):
            self.mkdir(path)

    def _next(self) -> int:
        return next(self._counter)

    @contextmanager
    def section(self) -> Iterator[None]:
        """Holds the store's lock; on the way out of the outermost section, delivers what was queued."""
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                outbox: dict[Callable[[], None], None] = {}
                if self._depth == 0:
                    outbox, self._outbox = self._outbox, outbox
        for callback in outbox:
            try:
                callback()
            except Exception:
                logger.exception("a xenstore watch or connection callback failed")

    def later(self, callback: Callable[[], None]) -> None:
        """Calls back once the lock is free (only from inside a `section`)."""
        self._outbox[callback] = None

    # --- operations on behalf of a caller, inside a transaction or not

    def node(self, caller: Caller, path: str, tx: Transaction | None = None, access: Access = Access.READ) -> Node:
        """The node at an absolute path, for READ, DIRECTORY and GET_PERMS."""
        caller.check_scope(path)
        with self.section():
            if tx is None:
                return self._tree.get(caller, path, access)
            tx.touch(path, self.quotas_of(caller).transaction_operations)
            return tx.tree.get(caller, path, access)

    def set_value(self, caller: Caller, path: str, value: bytes | None, tx: Transaction | None = None) -> None:
        """WRITE, or MKDIR with `None`."""
        caller.check_scope(path)
        quotas = self.quotas_of(caller)
        if value is not None and quotas.node_size and len(value) > quotas.node_size:
            raise XenstoreError("ENOSPC", path)
        self._change(caller, path, tx, lambda tree: tree.write(caller, path, value, quotas.nodes, quotas.depth))

    def remove(self, caller: Caller, path: str, tx: Transaction | None = None) -> None:
        """RM."""
        caller.check_scope(path)
        self._change(caller, path, tx, lambda tree: tree.remove(caller, path))

    def change_perms(self, caller: Caller, path: str, perms: Perms, tx: Transaction | None = None) -> None:
        """SET_PERMS, also of the special names."""
        limit = self.quotas_of(caller).perms
        if not perms:
            raise XenstoreError("EINVAL", path)
        if limit and len(perms) > limit:
            raise XenstoreError("ENOSPC", path)
        if path in SPECIALS:
            if not caller.may_own(self._special_perms[path]) or caller.scope is not None:
                raise XenstoreError("EACCES", path)
            self._special_perms[path] = perms
            self._note_special()
            return
        caller.check_scope(path)
        self._change(caller, path, tx, lambda tree: tree.set_perms(caller, path, perms))

    def _change(
        self, caller: Caller, path: str, tx: Transaction | None, operation: Callable[[Tree], Change | None]
    ) -> None:
        with self.section():
            if tx is not None:
                tx.touch(path, self.quotas_of(caller).transaction_operations)
                merge(tx.changes, operation(tx.tree))
                tx.log.append(operation)
                return
            change = operation(self._tree)
            if change is not None:
                self._fire(change)
            self._settle()

    def _fire(self, change: Change) -> None:
        """Writes a change of the tree down, and tells watches."""
        if self._history is not None:
            self._history.note([change], self._tree)
        self._watches.fire(change)

    def _note_special(self) -> None:
        if self._history is not None:
            self._history.write(self._special())

    def _special(self) -> dict[str, Any]:
        perms = {name: [str(perm) for perm in perms] for name, perms in self._special_perms.items()}
        targets = list(self.targets.items())
        return {"special": {"perms": perms, "introduced": sorted(self._introduced), "targets": targets}}

    # --- a store that follows another one (see `keeping`)

    def keep(self, write: Callable[[dict[str, Any]], None]) -> None:
        """Writes every change down from now on."""
        self._history = History(write)

    @property
    def told(self) -> int | None:
        """The number of the last change, once all watches have been told of it; None: nothing is written down."""
        history = self._history
        return None if history is None or history.telling else history.number

    def written(self) -> Generator[dict[str, Any]]:
        """All that a store needs to be as this one, as it would be written down."""
        with self.section():
            state = {} if self._history is None else self._history.state()
            yield {"xs": list(entries_of(self._tree)), **state}
            yield self._special()

    def restore(self, entry: dict[str, Any]) -> None:
        """Does what was written down, and tells nobody."""
        with self.section():
            for path, *rest in entry.get("xs", ()):
                if not rest:
                    with suppress(XenstoreError):  # it was in one that has gone already
                        self._tree.remove(DOM0, path)
                    continue
                value, perms = rest
                if path != "/":
                    self._tree.write(DOM0, path, value.encode("latin-1"))
                self._tree.set_perms(DOM0, path, tuple(map(Perm.parse, perms)))
            while self._tree.debts:
                self._tree.settle()
            if self._history is not None and "n" in entry:
                self._history.restore(entry)
            if (special := entry.get("special")) is not None:
                for name, perms in special["perms"].items():
                    self._special_perms[name] = tuple(map(Perm.parse, perms))
                self._introduced = set(special["introduced"])
                self.targets.clear()
                self.targets.update((domid, target) for domid, target in special["targets"])

    def repeat_changes(self, watches: list[Watch], since: int) -> None:
        """Tells these watches of all changes after the one with this number; perhaps of others as well."""
        with self.section():
            if self._history is not None:
                self._history.repeat(watches, since, self._tree)

    def _settle(self) -> None:
        """Has the debts of the tree settled, whichever is the tree by then."""
        if self._tree.debts and not self._settling:
            self._settling = True
            self._in_turns(self._settled())

    def _settled(self) -> Generator[None]:
        while self._tree.debts:
            self._tree.settle()
            if self.meter.spent:
                yield
        self._settling = False

    def begin(self, *, is_lost: bool = False) -> Transaction:
        """Starts a transaction on the tree as it is now.

        :param is_lost: it began with another store, and cannot be committed.
        """
        with self.section():
            return Transaction(self._tree.snapshot(), self._tree.snapshot(), is_lost)

    def commit(self, tx: Transaction) -> None:
        """Makes a transaction's changes visible, all or none; EAGAIN if others changed what it depends on."""
        with self.section():
            for _ in self.commit_in_turns(tx):
                pass

    def commit_in_turns(self, tx: Transaction) -> Generator[None]:
        """`commit`, in a `section` of each turn's own; gives up its turn whenever that is spent."""
        if tx.is_lost:
            raise XenstoreError("EAGAIN")
        for _ in range(COMMIT_TRIES):
            if tx.base.state == self._tree.state:
                tree, changes = tx.tree, tx.changes
                break
            now = self._tree.state
            for path in tx.seen:
                if generation_of(tx.base, path) != generation_of(self._tree, path):
                    raise XenstoreError("EAGAIN")
                if self.meter.spent:
                    yield
            tree, changes = self._tree.snapshot(), {}
            if self._tree.state != now:
                continue
            for operation in tx.log:
                try:
                    merge(changes, operation(tree))
                except XenstoreError as error:
                    raise XenstoreError("ENOSPC" if error.name == "ENOSPC" else "EAGAIN") from error
                if self.meter.spent:
                    yield
            if self._tree.state == now:
                break
        else:
            raise XenstoreError("EAGAIN")
        before, self._tree = self._tree, tree
        self._settle()
        untold: Iterator[Change] = (
            seen for change in changes.values() if (seen := as_seen(change, before, tree)) is not None
        )
        if self._history is not None:
            told = list(untold)
            untold = iter(told)
            self._history.note(told, tree)
            self._history.telling += 1
        try:
            yield from self._tell(untold)
        except GeneratorExit:  # the client is gone; whoever watches hears of the rest all the same
            self._in_turns(self._tell(untold))
            raise

    def _tell(self, changes: Iterator[Change]) -> Generator[None]:
        for change in changes:
            self._watches.fire(change)
            if self.meter.spent:
                yield
        if self._history is not None:
            self._history.telling -= 1

    def add_watch(self, watch: Watch, *, is_new: bool = True) -> None:
        """Registers a watch and triggers it once, if it is new to its client."""
        if not watch.path.startswith("@"):
            watch.caller.check_scope(watch.path)
        with self.section():
            self._watches.add(watch)
            if is_new:
                watch.fire(watch.path)

    def remove_watch(self, watch: Watch) -> None:
        """Forgets a watch."""
        with self.section():
            self._watches.remove(watch)

    def is_introduced(self, domid: int) -> bool:
        """IS_DOMAIN_INTRODUCED."""
        return domid == 0 or domid in self._introduced

    def special_perms(self, name: str) -> Perms | None:
        """The permissions of @introduceDomain or @releaseDomain; None for other names."""
        return self._special_perms.get(name)

    def quotas_of(self, caller: Caller) -> Quotas:
        """What a caller may have."""
        if not caller.privileged:
            return self.quotas
        if caller.scope is not None:
            return self._worker_quotas
        return TOOL if caller.tool else NO_LIMIT

    # --- for Domain 0's own code

    def connect(self, domid: int) -> Connection:
        """A new connection for a domain's ring."""
        from domzero.dom0.xenstore.connection import Connection

        return Connection(self, domid)

    def read_bytes(self, path: str) -> bytes:
        """The value of a node; XenstoreError ENOENT."""
        return self.node(DOM0, check_path(path)).value

    def read(self, path: str) -> str:
        """The value of a node as text; XenstoreError ENOENT."""
        return self.read_bytes(path).decode("utf-8", "replace")

    def get(self, path: str, default: str | None = None) -> str | None:
        """The value of a node as text, or the default if there is no such node."""
        node = self._tree.lookup(check_path(path))
        return default if node is None else node.value.decode("utf-8", "replace")

    def exists(self, path: str) -> bool:
        """Whether there is such a node."""
        return self._tree.lookup(check_path(path)) is not None

    def ls(self, path: str) -> list[str]:
        """Names of the children; XenstoreError ENOENT."""
        with self.section():
            return list(self.node(DOM0, check_path(path)).children)

    def write(self, path: str, value: str | bytes | int, perms: tuple[str, ...] | None = None) -> None:
        """Sets a value, creating the node and its parents.

        :param perms: permission entries such as ("n0", "r3"), set as well.
        """
        data = value if isinstance(value, bytes) else str(value).encode()
        with self.section():
            self.set_value(DOM0, check_path(path), data)
            if perms is not None:
                self.set_perms(path, *perms)

    def mkdir(self, path: str, perms: tuple[str, ...] | None = None) -> None:
        """Creates a node (and its parents) unless it is there."""
        with self.section():
            self.set_value(DOM0, check_path(path), None)
            if perms is not None:
                self.set_perms(path, *perms)

    def rm(self, path: str) -> None:
        """Removes a node with all below it; nothing happens if it is not there."""
        try:
            self.remove(DOM0, check_path(path))
        except XenstoreError as error:
            if error.name != "ENOENT":
                raise

    def get_perms(self, path: str) -> list[str]:
        """Permission entries; XenstoreError ENOENT."""
        return [str(perm) for perm in self.node(DOM0, check_path(path)).perms]

    def set_perms(self, path: str, *perms: str) -> None:
        """Sets permission entries: the owner's first."""
        self.change_perms(DOM0, path, tuple(Perm.parse(perm) for perm in perms))

    def watch(self, path: str, callback: Callable[[str], None]) -> LocalWatch:
        """Calls back with the path of each change at or below `path`, and once at the start.

        The callback runs in the thread that made the change, with no xenstore lock held.
        """
        local = LocalWatch(self, path, callback)
        self.add_watch(local.watch)
        return local

    @contextmanager
    def transaction(self) -> Iterator[View]:
        """All changes made through the view become visible together; XenstoreError EAGAIN on a conflict."""
        tx = self.begin()
        yield View(self, tx)
        self.commit(tx)

    def introduce(self, domid: int) -> None:
        """Says that a domain is there (its connection works): watches on @introduceDomain fire."""
        with self.section():
            self._introduced.add(domid)
            self._note_special()
            self._watches.fire_special("@introduceDomain", domid, self._special_perms["@introduceDomain"])

    def domain_stopped(self, domid: int) -> None:
        """A domain shut down or crashed: watches on @releaseDomain fire; its nodes stay."""
        with self.section():
            self._watches.fire_special("@releaseDomain", domid, self._special_perms["@releaseDomain"])

    def release(self, domid: int) -> None:
        """A domain is gone: its home and all that it owns go too, and watches on @releaseDomain fire.

        Its connection must be closed by whoever made it.
        """
        with self.section():
            if (change := self._tree.remove(DOM0, f"/local/domain/{domid}")) is not None:
                self._fire(change)
            for name, perms in self._special_perms.items():
                kept = tuple(perm for perm in perms[1:] if perm.domid != domid)
                owner = perms[0] if perms[0].domid != domid else Perm(0, Access.NONE)
                self._special_perms[name] = (owner, *kept)
            self._introduced.discard(domid)
            for other in [other for other, target in self.targets.items() if domid in (other, target)]:
                del self.targets[other]
            self._note_special()
            self._watches.fire_special("@releaseDomain", domid, self._special_perms["@releaseDomain"])
            self._settle()
            if domid in self._tree.named:
                self._in_turns(self._forget(domid))

    def _forget(self, domid: int) -> Generator[None]:
        """Removes what a domain owns outside of its home, and its name from permissions. It looks at every node of the
        store, so it takes turns; the domain is gone and adds nothing meanwhile."""
        for path in paths_naming(self._tree.snapshot().root, domid):
            self.meter.steps += 1
            if path is not None and (change := self._tree.forget(domid, path)) is not None:
                self._fire(change)
            if self.meter.spent:
                yield
            if domid not in self._tree.named:
                break
        self._settle()

    def _in_turns(self, work: Generator[None]) -> None:
        if self._schedule is None:
            for _ in work:
                pass
            return
        schedule = self._schedule

        def turn() -> None:
            with self.section():
                self.meter.start()
                if next(work, work) is None:
                    schedule(turn)

        schedule(turn)

    def owned_nodes(self, domid: int) -> int:
        """How many nodes a domain owns."""
        return self._tree.owned.get(domid, 0)

    def watches_of(self, domid: int) -> int:
        """How many watches a domain has on all of its connections."""
        return self._watches.counts.get(domid, 0)

    def check(self) -> list[str]:
        """Recounts what is accounted; says where it differs."""
        with self.section():
            work = self.check_in_turns()
            try:
                while True:
                    next(work)
            except StopIteration as end:
                wrong: list[str] = end.value
                return wrong

    def check_in_turns(self) -> Generator[None, None, list[str]]:
        """`check` of the tree as it is now, in a `section` of each turn's own."""
        tree = self._tree.snapshot()
        while tree.debts:
            tree.settle()
            if self.meter.spent:
                yield
        owned: Counter[int] = Counter()
        named: Counter[int] = Counter()
        for node in subtree(tree.root):
            owned[node.perms[0].domid] += 1
            named.update(perm.domid for perm in node.perms)
            self.meter.steps += 2
            if self.meter.spent:
                yield
        return [
            f"domain {domid} {what} {counted[domid]} nodes, accounted are {kept.get(domid, 0)}"
            for what, counted, kept in (("owns", owned, tree.owned), ("is named by", named, tree.named))
            for domid in sorted(counted.keys() | kept.keys())
            if counted[domid] != kept.get(domid, 0)
        ]


class LocalWatch:
    """A watch of Domain 0's own code; `close` ends it."""

    def __init__(self, store: Store, path: str, callback: Callable[[str], None]) -> None:
        self._store = store
        self._callback = callback
        self._paths: dict[str, None] = {}
        self._open = True
        self.watch = Watch.create(DOM0, path, "", None, self._queue)

    def _queue(self, _watch: Watch, path: str) -> None:
        self._paths[path] = None
        self._store.later(self._deliver)

    def _deliver(self) -> None:
        while self._open:
            with self._store.section():
                if not self._paths:
                    return
                path = next(iter(self._paths))
                del self._paths[path]
            self._callback(path)

    def close(self) -> None:
        """No callbacks start after this."""
        self._open = False
        self._store.remove_watch(self.watch)


class View:
    """The store inside a transaction, for Domain 0's own code."""

    def __init__(self, store: Store, tx: Transaction) -> None:
        self._store = store
        self._tx = tx

    def read(self, path: str) -> str:
        """The value of a node as text; XenstoreError ENOENT."""
        return self._store.node(DOM0, check_path(path), self._tx).value.decode("utf-8", "replace")

    def write(self, path: str, value: str | bytes | int, perms: tuple[str, ...] | None = None) -> None:
        """Sets a value (and permissions), creating the node and its parents."""
        data = value if isinstance(value, bytes) else str(value).encode()
        self._store.set_value(DOM0, check_path(path), data, self._tx)
        if perms is not None:
            self.set_perms(path, *perms)

    def mkdir(self, path: str, perms: tuple[str, ...] | None = None) -> None:
        """Creates a node (and its parents) unless it is there."""
        self._store.set_value(DOM0, check_path(path), None, self._tx)
        if perms is not None:
            self.set_perms(path, *perms)

    def rm(self, path: str) -> None:
        """Removes a node with all below it; XenstoreError ENOENT if its parent is not there either."""
        self._store.remove(DOM0, check_path(path), self._tx)

    def set_perms(self, path: str, *perms: str) -> None:
        """Sets permission entries: the owner's first."""
        self._store.change_perms(DOM0, check_path(path), tuple(Perm.parse(perm) for perm in perms), self._tx)
