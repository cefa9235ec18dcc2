# SPDX-License-Identifier: Apache-2.0
"""Watches: who is told of which change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from domzero.dom0.xenstore.tree import Access, Caller, Change, Meter, Node, Perms, canonical, split
from domzero.dom0.xenstore.wire import REL_PATH_MAX, XenstoreError

SPECIALS = ("@introduceDomain", "@releaseDomain")


@dataclass(slots=True, eq=False)
class Watch:
    """One registered watch.

    :param path: absolute path or special name that is watched.
    :param given: the path as the client wrote it: events come back in the same form.
    :param depth: how many levels below `path` count; None for all.
    :param deliver: told the event's path, in the client's form; runs with the store locked and must only queue it.
    """

    caller: Caller
    path: str
    given: str
    token: str
    depth: int | None
    deliver: Callable[[Watch, str], None]
    base: str = field(default="")

    @classmethod
    def create(
        cls, caller: Caller, given: str, token: str, depth: int | None, deliver: Callable[[Watch, str], None]
    ) -> Watch:
        """Checks the path; EINVAL."""
        if given.startswith("@"):
            if len(given) > REL_PATH_MAX:
                raise XenstoreError("EINVAL")
            return cls(caller, given, given, token, depth, deliver)
        path = canonical(given, caller.domid)
        base = "" if given.startswith("/") else f"/local/domain/{caller.domid}/"
        return cls(caller, path, given, token, depth, deliver, base)

    @property
    def special(self) -> bool:
        """Whether it watches @introduceDomain, @releaseDomain or one domain's."""
        return self.path.startswith("@")

    def fire(self, path: str) -> None:
        """Queues an event for an absolute path."""
        self.deliver(self, path[len(self.base) :] if self.base else path)


_ByCaller = dict[Caller, dict[Watch, None]]
"""In the order in which they were registered."""


@dataclass(slots=True, eq=False)
class _Branch:
    """The watches on one path, and those below it, by the next component. Whether a caller may know of a change is
    looked at once for all of its watches."""

    watches: _ByCaller = field(default_factory=dict)
    below: dict[str, _Branch] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing is watched here or below."""
        return not self.watches and not self.below


class WatchIndex:
    """All watches of a store, by path.

    :param meter: told what it costs to find those that a change concerns.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._root = _Branch()
        self._special: dict[str, _ByCaller] = {}
        self.counts: Counter[int] = Counter()
        """Watches of each domain."""

    def add(self, watch: Watch) -> None:
        """Registers a watch."""
        if watch.special:
            watches = self._special.setdefault(watch.path, {})
        else:
            branch = self._root
            for part in split(watch.path):
                branch = branch.below.setdefault(part, _Branch())
            watches = branch.watches
        watches.setdefault(watch.caller, {})[watch] = None
        self.counts[watch.caller.domid] += 1

    def remove(self, watch: Watch) -> None:
        """Forgets a watch; nothing happens if it is not there."""
        if watch.special:
            watches = self._special.get(watch.path)
            if watches is not None:
                self._drop(watches, watch)
                if not watches:
                    del self._special[watch.path]
            return
        parts = split(watch.path)
        branches = [self._root]
        for part in parts:
            below = branches[-1].below.get(part)
            if below is None:
                return
            branches.append(below)
        self._drop(branches[-1].watches, watch)
        for part, parent in zip(reversed(parts), reversed(branches[:-1]), strict=True):
            if not parent.below[part].empty:
                break
            del parent.below[part]

    def _drop(self, by_caller: _ByCaller, watch: Watch) -> None:
        watches = by_caller.get(watch.caller, {})
        if watch not in watches:
            return
        del watches[watch]
        if not watches:
            del by_caller[watch.caller]
        domid = watch.caller.domid
        self.counts[domid] -= 1
        if not self.counts[domid]:
            del self.counts[domid]

    def fire(self, change: Change) -> None:
        """Tells every watch that a change concerns and whose caller may read what changed."""
        parts = split(change.path)
        permitted: dict[Caller, bool] = {}
        branch: _Branch | None = self._root
        depth = 0
        while branch is not None:
            for caller, watches in branch.watches.items():
                self._meter.steps += 1
                if caller not in permitted:
                    permitted[caller] = _may_read(caller, change.old) or _may_read(caller, change.new)
                if permitted[caller]:
                    self._meter.steps += len(watches)
                    for watch in watches:
                        if watch.depth is None or len(parts) - depth <= watch.depth:
                            watch.fire(change.path)
            if depth == len(parts):
                break
            branch = branch.below.get(parts[depth])
            depth += 1
        self._meter.steps += 1 + depth // 8
        if branch is not None and change.removed and change.old is not None:
            self._fire_below(branch, change.path, change.old)

    def _fire_below(self, branch: _Branch, path: str, removed: Node) -> None:
        """Tells the watches on nodes that went with one above them."""
        stack = [(branch, path, removed)]
        while stack:
            branch, path, node = stack.pop()
            self._meter.steps += 1
            for name, below in branch.below.items():
                child = node.children.get(name)
                if child is None:
                    continue
                where = f"{path}/{name}"
                stack.append((below, where, child))
                for caller, watches in below.watches.items():
                    self._meter.steps += 1
                    if _may_read(caller, child):
                        self._meter.steps += len(watches)
                        for watch in watches:
                            watch.fire(where)

    def fire_special(self, name: str, domid: int, perms: Perms) -> None:
        """Tells the watches on @introduceDomain or @releaseDomain, as far as they are allowed to know."""
        specific = f"{name}/{domid}"
        for watch in [*self._watches_of(name), *self._watches_of(specific)]:
            if watch.caller.scope is None and watch.caller.access(perms) & Access.READ:
                watch.fire(specific if watch.depth == 1 else watch.path)

    def _watches_of(self, name: str) -> Iterator[Watch]:
        for watches in self._special.get(name, {}).values():
            yield from watches


def _may_read(caller: Caller, node: Node | None) -> bool:
    return node is not None and bool(caller.access(node.perms) & Access.READ)
