"""Watches: who is told of which change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from domzero.dom0.xenstore.tree import Access, Caller, Change, Perms, canonical, find, is_child, split
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

    def fire(self, path: str) -> None:
        """Queues an event for an absolute path."""
        self.deliver(self, path[len(self.base) :] if self.base else path)

    def within_depth(self, path: str) -> bool:
        """Whether a path below the watched one is near enough."""
        return self.depth is None or len(split(path)) - len(split(self.path)) <= self.depth


class WatchIndex:
    """All watches of a store, by path."""

    def __init__(self) -> None:
        self._by_path: dict[str, list[Watch]] = {}

    def add(self, watch: Watch) -> None:
        """Registers a watch."""
        self._by_path.setdefault(watch.path, []).append(watch)

    def remove(self, watch: Watch) -> None:
        """Forgets a watch."""
        watches = self._by_path.get(watch.path, [])
        if watch in watches:
            watches.remove(watch)
        if not watches:
            self._by_path.pop(watch.path, None)

    def __iter__(self) -> Iterator[Watch]:
        for watches in self._by_path.values():
            yield from watches

    def fire(self, change: Change) -> None:
        """Tells every watch that a change concerns and whose caller may read what changed."""
        path = change.path
        permitted: dict[Caller, bool] = {}
        for prefix in _prefixes(path):
            for watch in self._by_path.get(prefix, ()):
                if not watch.within_depth(path):
                    continue
                if watch.caller not in permitted:
                    permitted[watch.caller] = any(
                        node is not None and watch.caller.access(node.perms) & Access.READ
                        for node in (change.old, change.new)
                    )
                if permitted[watch.caller]:
                    watch.fire(path)
        if change.old is not None and change.new is None and change.old.children:
            for watched, watches in self._by_path.items():
                if watched == path or not watched.startswith("/") or not is_child(watched, path):
                    continue
                node = find(change.old, split(watched)[len(split(path)) :])
                for watch in watches:
                    if node is not None and watch.caller.access(node.perms) & Access.READ:
                        watch.fire(watched)

    def fire_special(self, name: str, domid: int, perms: Perms) -> None:
        """Tells the watches on @introduceDomain or @releaseDomain, as far as they are allowed to know."""
        specific = f"{name}/{domid}"
        for watch in [*self._by_path.get(name, ()), *self._by_path.get(specific, ())]:
            if watch.caller.scope is None and watch.caller.access(perms) & Access.READ:
                watch.fire(specific if watch.depth == 1 else watch.path)


def _prefixes(path: str) -> Iterator[str]:
    yield "/"
    at = path.find("/", 1)
    while at != -1:
        yield path[:at]
        at = path.find("/", at + 1)
    if path != "/":
        yield path
