# SPDX-License-Identifier: Apache-2.0
"""Transactions: what a client does to its own view of the tree, until it is committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from domzero.dom0.xenstore.tree import Change, Tree
from domzero.dom0.xenstore.wire import XenstoreError


@dataclass(slots=True, eq=False)
class Transaction:
    """A view of the tree as it was at the start, with what was done to it since."""

    base: Tree
    tree: Tree
    is_lost: bool = False
    seen: set[str] = field(default_factory=set)
    log: list[Callable[[Tree], Change | None]] = field(default_factory=list)
    changes: dict[str, Change] = field(default_factory=dict)

    def touch(self, path: str, limit: int) -> None:
        """Remembers that the outcome depends on this path; ENOSPC when it depends on too many."""
        if limit and ((len(self.seen) >= limit and path not in self.seen) or len(self.log) >= limit):
            raise XenstoreError("ENOSPC", path)
        self.seen.add(path)


def as_seen(change: Change, before: Tree, after: Tree) -> Change | None:
    """A transaction's change as others see it, who never saw what it both made and removed; None if it is nothing."""
    old = before.lookup(change.path)
    if old is None and after.lookup(change.path) is None:
        return None
    return Change(change.path, old, change.new, change.removed and old is not None)


def generation_of(tree: Tree, path: str) -> int | None:
    node = tree.lookup(path)
    return None if node is None else node.generation


__all__ = ["Transaction", "as_seen", "generation_of"]
