# SPDX-License-Identifier: Apache-2.0
"""Xenstore's tree, of which a snapshot for a transaction costs nothing.

A tree changes its own nodes in place and copies those that a snapshot also has, once, along the path to the root. So a
write costs the length of its path, not the width of its directories. Nothing here recurses: a path may have 1,500
components. Each operation adds what it cost to the store's `Meter`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntFlag

from domzero.abi.xen import DOMID_FIRST_RESERVED
from domzero.dom0.xenstore.wire import ABS_PATH_MAX, REL_PATH_MAX, XenstoreError

_PATH = re.compile(r"/(?:[A-Za-z0-9\-_@]+(?:/[A-Za-z0-9\-_@]+)*)?\Z")
_PERM = re.compile(r"([nrwb])(\d{1,5})\Z")


class Access(IntFlag):
    """What a permission entry grants."""

    NONE = 0
    READ = 1
    WRITE = 2


_LETTERS = {"n": Access.NONE, "r": Access.READ, "w": Access.WRITE, "b": Access.READ | Access.WRITE}
_LETTER_OF = {access: letter for letter, access in _LETTERS.items()}


@dataclass(slots=True, frozen=True)
class Perm:
    """One permission entry; the first of a node names its owner and what everybody else may do."""

    domid: int
    access: Access

    def __str__(self) -> str:
        return f"{_LETTER_OF[self.access]}{self.domid}"

    @classmethod
    def parse(cls, text: str) -> Perm:
        """`r3`, `b0`, …; EINVAL for anything else."""
        match = _PERM.match(text)
        if match is None or int(match[2]) >= DOMID_FIRST_RESERVED:
            raise XenstoreError("EINVAL")
        return cls(int(match[2]), _LETTERS[match[1]])


Perms = tuple[Perm, ...]


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """A node; `generation` changes with its value, permissions or list of children (not with theirs).

    :param version: the version of a tree that may change `children` and `generation` in place; for all others the
        node is as it is.
    """

    value: bytes
    perms: Perms
    generation: int
    children: dict[str, Node]
    version: Version


class Version:
    """Identity of what one tree has written since its last snapshot."""

    __slots__ = ()


@dataclass(slots=True)
class Meter:
    """What has been done in the turn under way, in steps of roughly a microsecond.

    :param limit: after so many steps it is others' turn.
    """

    limit: int
    steps: int = 0

    def start(self) -> None:
        """A turn begins."""
        self.steps = 0

    @property
    def spent(self) -> bool:
        """Whether the turn is over."""
        return self.steps >= self.limit


@dataclass(slots=True, frozen=True)
class Caller:
    """On whose behalf an operation runs.

    :param domid: the domain; 0 is privileged.
    :param scope: for a privileged caller that may only touch some subtrees (a domain's worker): their paths.
    :param tool: a program of Domain 0's owner, on the Unix socket: as Domain 0, but with quotas of its own.
    :param targets: which domain has the rights of which other one, beside its own (SET_TARGET).
    """

    domid: int
    scope: tuple[str, ...] | None = None
    tool: bool = False
    targets: Mapping[int, int] = field(default_factory=dict, compare=False)

    @property
    def privileged(self) -> bool:
        """Whether permissions do not apply."""
        return self.domid == 0

    @property
    def is_toolstack(self) -> bool:
        """Whether it may do what only the toolstack may."""
        return self.privileged and self.scope is None

    def check_scope(self, path: str) -> None:
        """EACCES if the path lies outside of the caller's scope."""
        if self.scope is not None and not any(is_child(path, root) for root in self.scope):
            raise XenstoreError("EACCES", path)

    def access(self, perms: Perms) -> Access:
        """What this caller may do with a node of these permissions."""
        if self.may_own(perms):
            return Access.READ | Access.WRITE
        target = self.targets.get(self.domid, self.domid)
        for perm in perms[1:]:
            if perm.domid == self.domid or perm.domid == target:
                return perm.access
        return perms[0].access

    def may_own(self, perms: Perms) -> bool:
        """Whether this caller may change the permissions."""
        owner = perms[0].domid
        return self.privileged or owner == self.domid or owner == self.targets.get(self.domid)


def is_child(path: str, parent: str) -> bool:
    """Whether a path is another one or below it (the specification's sense)."""
    return parent == "/" or path == parent or path.startswith(parent + "/")


def check_path(path: str) -> str:
    """Returns a legal absolute path; EINVAL otherwise."""
    if len(path) > ABS_PATH_MAX or _PATH.match(path) is None:
        raise XenstoreError("EINVAL")
    return path


def canonical(path: str, domid: int) -> str:
    """The absolute path that a domain means; relative ones start at its home. EINVAL if it is not legal."""
    if not path.startswith("/"):
        if len(path) > REL_PATH_MAX or path.startswith("@"):
            raise XenstoreError("EINVAL")
        path = f"/local/domain/{domid}/{path}"
    return check_path(path)


def split(path: str) -> list[str]:
    """The components of a legal path; none for the root."""
    return path[1:].split("/") if len(path) > 1 else []


def subtree(node: Node) -> Iterator[Node]:
    """A node and everything below it."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(current.children.values())


def subtree_paths(path: str, node: Node) -> Iterator[tuple[str, Node]]:
    """A node and everything below it with their paths, parents first."""
    stack = [(path, node)]
    while stack:
        path, node = stack.pop()
        yield path, node
        prefix = "" if path == "/" else path
        stack.extend((f"{prefix}/{name}", child) for name, child in node.children.items())


@dataclass(slots=True)
class Change:
    """What an operation, or a whole transaction, did to one path: what watches are told.

    :param removed: the node was removed (and may be there again): watches below it are told.
    """

    path: str
    old: Node | None
    new: Node | None
    removed: bool = False


def merge(changes: dict[str, Change], change: Change | None) -> None:
    """Adds a change to those of a transaction: one for each path."""
    if change is None:
        return
    earlier = changes.get(change.path)
    if earlier is None:
        changes[change.path] = change
    else:
        changes[change.path] = Change(change.path, earlier.old, change.new, earlier.removed or change.removed)


SETTLED_AT_ONCE = 256
"""Removed nodes that are taken out of the books at once; the others of a larger subtree wait (`Tree.debts`)."""
COPIES_PER_STEP = 64
"""Entries of a directory that are copied in a step."""


class Tree:
    """One version of the tree, with the number of nodes that each domain owns, and that name it in their permissions.

    :param meter: told what each operation costs.
    """

    def __init__(
        self, root: Node | None, owned: dict[int, int], named: dict[int, int], counter: Callable[[], int], meter: Meter
    ) -> None:
        self.owned = owned
        self.named = named
        self.meter = meter
        self._counter = counter
        self._version = Version()
        self.debts: list[Node] = []
        """Subtrees that were removed, and are counted in `owned` and `named` until they are settled."""
        self.root = root or self._new((Perm(0, Access.NONE),))
        self.state = counter()
        """Changes with every change: two trees with the same one are equal."""

    def _new(self, perms: Perms, value: bytes = b"", children: dict[str, Node] | None = None) -> Node:
        for perm in perms:
            _count(self.named, perm.domid, 1)
        _count(self.owned, perms[0].domid, 1)
        return Node(value, perms, self._counter(), children if children is not None else {}, self._version)

    def snapshot(self) -> Tree:
        """A copy that later changes of this one do not touch, nor the other way round."""
        self._version = Version()
        other = Tree(self.root, dict(self.owned), dict(self.named), self._counter, self.meter)
        other.state = self.state
        other.debts = self.debts.copy()
        self.meter.steps += 1 + (2 * len(self.owned) + len(self.debts)) // COPIES_PER_STEP
        return other

    def lookup(self, path: str) -> Node | None:
        """The node at a legal path."""
        parts = split(path)
        depth, node = self._descend(parts)
        return node if depth == len(parts) else None

    def _descend(self, parts: list[str]) -> tuple[int, Node]:
        """How many of the components exist, and the node of the last one that does."""
        node = self.root
        depth = 0
        for part in parts:
            below = node.children.get(part)
            if below is None:
                break
            node = below
            depth += 1
        self.meter.steps += 1 + depth // 8
        return depth, node

    def get(self, caller: Caller, path: str, access: Access) -> Node:
        """The node, if the caller has this access; ENOENT and EACCES as Xen tells them apart."""
        parts = split(path)
        depth, nearest = self._descend(parts)
        if access & ~caller.access(nearest.perms):
            raise XenstoreError("EACCES", path)
        if depth < len(parts):
            raise XenstoreError("ENOENT", path)
        return nearest

    def write(
        self, caller: Caller, path: str, value: bytes | None, max_nodes: int = 0, max_depth: int = 0
    ) -> Change | None:
        """Sets a value, creating what is missing; `None` only creates (MKDIR).

        :param max_nodes: how many nodes the caller may own (Domain 0: how many there may be), 0 for no limit.
        :param max_depth: how many components the path of a new node may have, 0 for no limit.
        """
        parts = split(path)
        depth, nearest = self._descend(parts)
        missing = parts[depth:]
        if Access.WRITE & ~caller.access(nearest.perms):
            raise XenstoreError("EACCES", path)
        if not missing:
            if value is None:
                return None
            new = self._put(parts, nearest, value, nearest.perms)
            return Change(path, nearest, new)
        perms = nearest.perms
        if not caller.privileged:
            perms = (Perm(caller.domid, perms[0].access), *perms[1:])
        if max_nodes and self._count_of(caller) + len(missing) > max_nodes:
            while self.debts:
                self.settle()
            if self._count_of(caller) + len(missing) > max_nodes:
                raise XenstoreError("ENOSPC", path)
        if max_depth and len(parts) > max_depth:
            raise XenstoreError("ENOSPC", path)
        created = leaf = self._new(perms, value or b"")
        for part in reversed(missing[1:]):
            created = self._new(perms, children={part: created})
        self.meter.steps += 2 * len(missing)
        self._link(parts[:depth], missing[0], created)
        return Change(path, None, leaf)

    def _count_of(self, caller: Caller) -> int:
        return sum(self.owned.values()) if caller.privileged else self.owned.get(caller.domid, 0)

    def remove(self, caller: Caller, path: str) -> Change | None:
        """Removes a node with all below it; None if only its parent exists. There may be `debts` afterwards."""
        parts = split(path)
        if not parts:
            raise XenstoreError("EINVAL", path)
        try:
            node = self.get(caller, path, Access.WRITE)
        except XenstoreError as error:
            if error.name == "ENOENT" and self._descend(parts)[0] == len(parts) - 1:
                return None
            raise
        self._link(parts[:-1], parts[-1], None)
        self.debts.append(node)
        self.settle()
        return Change(path, node, None, removed=True)

    def settle(self) -> None:
        """Takes some of the removed nodes out of the books."""
        for _ in range(SETTLED_AT_ONCE):
            if not self.debts:
                break
            node = self.debts.pop()
            self._uncount(node.perms)
            self.debts.extend(node.children.values())
            self.meter.steps += 1 + len(node.children) // COPIES_PER_STEP

    def set_perms(self, caller: Caller, path: str, perms: Perms) -> Change:
        """Changes permissions; only Domain 0 may give a node to another domain."""
        node = self.get(caller, path, Access.NONE)
        if not caller.may_own(node.perms):
            raise XenstoreError("EACCES", path)
        if not caller.privileged and perms[0].domid != node.perms[0].domid:
            raise XenstoreError("EPERM", path)
        return Change(path, node, self._put(split(path), node, node.value, perms))

    def forget(self, domid: int, path: str) -> Change | None:
        """Removes the node at a path if the domain owns it; else takes the domain out of its permissions."""
        node = self.lookup(path)
        if node is None:
            return None
        if node.perms[0].domid == domid and path != "/":
            return self.remove(Caller(0), path)
        others = tuple(perm for perm in node.perms[1:] if perm.domid != domid)
        return self.set_perms(Caller(0), path, (node.perms[0], *others))

    def _put(self, parts: list[str], node: Node, value: bytes, perms: Perms) -> Node:
        """Another node in the place of one that is there, with the same children."""
        children = node.children if node.version is self._version else self._copy(node.children)
        new = self._new(perms, value, children)
        self._uncount(node.perms)
        if parts:
            self._own(parts[:-1]).children[parts[-1]] = new
        else:
            self.root = new
        self.state = new.generation
        return new

    def _link(self, parent: list[str], name: str, node: Node | None) -> None:
        """Adds or removes a child."""
        directory = self._own(parent)
        if node is None:
            del directory.children[name]
        else:
            directory.children[name] = node
        directory.generation = self.state = self._counter()

    def _own(self, parts: list[str]) -> Node:
        """The node at a path that exists, which may be changed in place, and so may all above it."""
        if self.root.version is not self._version:
            self.root = self._copy_of(self.root)
        node = self.root
        for part in parts:
            below = node.children[part]
            if below.version is not self._version:
                below = node.children[part] = self._copy_of(below)
            node = below
        self.meter.steps += 1 + len(parts) // 8
        return node

    def _copy_of(self, node: Node) -> Node:
        return Node(node.value, node.perms, node.generation, self._copy(node.children), self._version)

    def _copy(self, children: dict[str, Node]) -> dict[str, Node]:
        self.meter.steps += 1 + len(children) // COPIES_PER_STEP
        return dict(children)

    def _uncount(self, perms: Perms) -> None:
        for perm in perms:
            _count(self.named, perm.domid, -1)
        _count(self.owned, perms[0].domid, -1)


def _count(counts: dict[int, int], domid: int, delta: int) -> None:
    count = counts.get(domid, 0) + delta
    if count > 0:
        counts[domid] = count
    else:
        counts.pop(domid, None)


def paths_naming(root: Node, domid: int) -> Iterator[str | None]:
    """Paths of the nodes whose permissions name a domain, parents first; None for each other one that was looked at."""
    stack: list[tuple[str, Node]] = [("/", root)]
    while stack:
        path, node = stack.pop()
        named = any(perm.domid == domid for perm in node.perms)
        yield path if named else None
        if named and node.perms[0].domid == domid and path != "/":
            continue
        prefix = "" if path == "/" else path
        stack.extend((f"{prefix}/{name}", child) for name, child in node.children.items())
