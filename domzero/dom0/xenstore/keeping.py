# SPDX-License-Identifier: Apache-2.0
"""What outlives a store: each change, as it is written down, and the last ones, for clients that missed them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from domzero.dom0.xenstore.tree import Access, Change, Node, Perm, Perms, Tree, is_child, split, subtree_paths
from domzero.dom0.xenstore.watches import Watch

RECENT = 1024
"""Changes that can be told again. Whoever has missed more is told that everything may have changed."""
Entry: TypeAlias = "list[Any]"
"""A node: its path, value (Latin-1) and permissions, or the path alone when it has gone."""


@dataclass(slots=True, frozen=True)
class _Recent:
    path: str
    perms: Perms
    """Before it was removed, else empty."""


@dataclass(slots=True)
class History:
    """The changes of a store, numbered.

    :param write: is given the entries of each change, or of all changes of a transaction, before anybody is told.
    """

    write: Callable[[dict[str, Any]], None]
    number: int = 0
    """Of the last change."""
    telling: int = 0
    """Transactions whose changes are being told to watches."""
    recent: deque[_Recent] = field(default_factory=lambda: deque(maxlen=RECENT))

    def note(self, changes: Collection[Change], tree: Tree) -> None:
        """Writes changes down that have been made to a tree."""
        entries: list[Entry] = [[change.path] for change in changes if change.removed]
        written: set[str] = set()
        for change in changes:
            self.number += 1
            removed = change.old.perms if change.old is not None and change.new is None else ()
            self.recent.append(_Recent(change.path, removed))
            parts = split(change.path)
            first = 1 if change.old is None or change.removed else len(parts)  # what a new node is in may be new, too
            for depth in range(first, len(parts) + 1):
                path = "/" + "/".join(parts[:depth])
                if path not in written and (node := tree.lookup(path)) is not None:
                    written.add(path)
                    entries.append(entry_of(path, node))
        self.write({"xs": entries, "n": self.number, "recent": [_words(each) for each in self._last(len(changes))]})

    def _last(self, count: int) -> list[_Recent]:
        return list(self.recent)[max(0, len(self.recent) - count) :]

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"n": self.number, "recent": [_words(each) for each in self.recent]}

    def restore(self, state: dict[str, Any]) -> None:
        """Adds what `state` or `write` has said."""
        self.number = state["n"]
        for path, *perms in state["recent"]:
            self.recent.append(_Recent(path, tuple(map(Perm.parse, perms))))

    def repeat(self, watches: list[Watch], since: int, tree: Tree) -> None:
        """Tells watches again what has changed since the change with this number, and perhaps more."""
        missed = self.number - since
        for watch in watches:
            if watch.special:
                watch.fire(watch.path)
        if not 0 <= missed <= len(self.recent):
            for watch in watches:
                if not watch.special:
                    _fire_all(watch, tree)
            return
        for each in self._last(missed):
            for watch in watches:
                if not watch.special:
                    _repeat(watch, each, tree)


def _words(each: _Recent) -> list[str]:
    return [each.path, *map(str, each.perms)]


def _repeat(watch: Watch, each: _Recent, tree: Tree) -> None:
    if is_child(each.path, watch.path):
        depth = len(split(each.path)) - len(split(watch.path))
        node = tree.lookup(each.path)
        perms = node.perms if node is not None else each.perms
        if (watch.depth is None or depth <= watch.depth) and perms and watch.caller.access(perms) & Access.READ:
            watch.fire(each.path)
    elif each.perms and is_child(watch.path, each.path):
        watch.fire(watch.path)  # it went with one above it


def _fire_all(watch: Watch, tree: Tree) -> None:
    watch.fire(watch.path)
    node = tree.lookup(watch.path)
    if node is None:
        return
    for path, below in subtree_paths(watch.path, node):
        depth = len(split(path)) - len(split(watch.path))
        if (watch.depth is None or depth <= watch.depth) and watch.caller.access(below.perms) & Access.READ:
            watch.fire(path)


def entry_of(path: str, node: Node) -> Entry:
    """A node as it is written down."""
    return [path, node.value.decode("latin-1"), [str(perm) for perm in node.perms]]


def entries_of(tree: Tree) -> Iterator[Entry]:
    """All nodes, parents first."""
    for path, node in subtree_paths("/", tree.root):
        yield entry_of(path, node)


__all__ = ["Entry", "History", "entries_of", "entry_of"]
