"""Xenstore's tree: immutable nodes, so that a snapshot for a transaction costs nothing.

Every change makes new nodes along the path to the root. Nothing here recurses: a hostile path is 1,500 levels deep.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntFlag

from domzero.dom0.xenstore.wire import ABS_PATH_MAX, REL_PATH_MAX, XenstoreError

_PATH = re.compile(r"/(?:[A-Za-z0-9\-_@]+(?:/[A-Za-z0-9\-_@]+)*)?\Z")
_PERM = re.compile(r"([nrwb])(\d{1,5})\Z")
FIRST_RESERVED_DOMID = 0x7FF0


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
        if match is None or int(match[2]) >= FIRST_RESERVED_DOMID:
            raise XenstoreError("EINVAL")
        return cls(int(match[2]), _LETTERS[match[1]])


Perms = tuple[Perm, ...]


@dataclass(slots=True, frozen=True, eq=False, repr=False)
class Node:
    """A node; `generation` changes with its value, permissions or list of children (not with theirs)."""

    value: bytes
    perms: Perms
    generation: int
    children: dict[str, Node] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Caller:
    """On whose behalf an operation runs.

    :param domid: the domain; 0 is privileged.
    :param scope: for a privileged caller that may only touch some subtrees (a domain's worker): their paths.
    """

    domid: int
    scope: tuple[str, ...] | None = None

    @property
    def privileged(self) -> bool:
        """Whether permissions do not apply."""
        return self.domid == 0

    @property
    def limited(self) -> bool:
        """Whether quotas of watches and transactions apply: to all but Domain 0's own."""
        return not self.privileged or self.scope is not None

    def check_scope(self, path: str) -> None:
        """EACCES if the path lies outside of the caller's scope."""
        if self.scope is not None and not any(is_child(path, root) for root in self.scope):
            raise XenstoreError("EACCES", path)

    def access(self, perms: Perms) -> Access:
        """What this caller may do with a node of these permissions."""
        if self.privileged or perms[0].domid == self.domid:
            return Access.READ | Access.WRITE
        for perm in perms[1:]:
            if perm.domid == self.domid:
                return perm.access
        return perms[0].access

    def may_own(self, perms: Perms) -> bool:
        """Whether this caller may change the permissions."""
        return self.privileged or perms[0].domid == self.domid


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


def find(node: Node | None, parts: list[str]) -> Node | None:
    """The node below another one."""
    for part in parts:
        if node is None:
            return None
        node = node.children.get(part)
    return node


@dataclass(slots=True)
class Change:
    """What an operation did to one path: what watches are told."""

    path: str
    old: Node | None
    new: Node | None


class Tree:
    """One version of the tree, with the number of nodes that each domain owns."""

    def __init__(self, root: Node, owned: dict[int, int], generation: Callable[[], int]) -> None:
        self.root = root
        self.owned = owned
        self._generation = generation

    def snapshot(self) -> Tree:
        """A copy that later changes of this one do not touch."""
        return Tree(self.root, dict(self.owned), self._generation)

    def lookup(self, path: str) -> Node | None:
        """The node at a legal path."""
        return find(self.root, split(path))

    def get(self, caller: Caller, path: str, access: Access) -> Node:
        """The node, if the caller has this access; ENOENT and EACCES as Xen tells them apart."""
        node: Node | None = self.root
        nearest = self.root
        for part in split(path):
            node = node.children.get(part) if node else None
            if node is not None:
                nearest = node
        if access & ~caller.access(nearest.perms):
            raise XenstoreError("EACCES", path)
        if node is None:
            raise XenstoreError("ENOENT", path)
        return node

    def write(self, caller: Caller, path: str, value: bytes | None, max_nodes: int) -> Change | None:
        """Sets a value, creating what is missing; `None` only creates (MKDIR).

        :param max_nodes: how many nodes the caller may own, 0 for no limit.
        """
        parts = split(path)
        nodes = [self.root]
        for part in parts:
            below = nodes[-1].children.get(part)
            if below is None:
                break
            nodes.append(below)
        missing = parts[len(nodes) - 1 :]
        nearest = nodes[-1]
        if Access.WRITE & ~caller.access(nearest.perms):
            raise XenstoreError("EACCES", path)
        if not missing:
            if value is None:
                return None
            new = replace(nearest, value=value, generation=self._generation())
            self._publish(parts, nodes[:-1], new)
            return Change(path, nearest, new)
        perms = nearest.perms
        if not caller.privileged:
            perms = (Perm(caller.domid, perms[0].access), *perms[1:])
            if max_nodes and self.owned.get(caller.domid, 0) + len(missing) > max_nodes:
                raise XenstoreError("ENOSPC", path)
        owner = perms[0].domid
        self.owned[owner] = self.owned.get(owner, 0) + len(missing)
        created = leaf = Node(value or b"", perms, self._generation())
        for part in reversed(missing[1:]):
            created = Node(b"", perms, self._generation(), {part: created})
        self._publish(parts[: len(nodes)], nodes, created)
        return Change(path, None, leaf)

    def remove(self, caller: Caller, path: str) -> Change | None:
        """Removes a node with all below it; None if only its parent exists."""
        parts = split(path)
        if not parts:
            raise XenstoreError("EINVAL", path)
        try:
            node = self.get(caller, path, Access.WRITE)
        except XenstoreError as error:
            if error.name == "ENOENT" and find(self.root, parts[:-1]) is not None:
                return None
            raise
        self._account(node)
        self._replace(parts, None)
        return Change(path, node, None)

    def set_perms(self, caller: Caller, path: str, perms: Perms) -> Change:
        """Changes permissions; only Domain 0 may give a node to another domain."""
        node = self.get(caller, path, Access.NONE)
        if not caller.may_own(node.perms):
            raise XenstoreError("EACCES", path)
        if not caller.privileged and perms[0].domid != node.perms[0].domid:
            raise XenstoreError("EPERM", path)
        self._count(node.perms[0].domid, -1)
        self._count(perms[0].domid, 1)
        new = replace(node, perms=perms, generation=self._generation())
        self._replace(split(path), new)
        return Change(path, node, new)

    def forget_domain(self, domid: int) -> list[Change]:
        """Removes all nodes that a domain owns, and its name from the permissions of all others."""
        doomed: list[str] = []
        named: list[tuple[str, Perms]] = []
        stack: list[tuple[str, Node]] = [("/", self.root)]
        while stack:
            path, node = stack.pop()
            if path != "/" and node.perms[0].domid == domid:
                doomed.append(path)
                continue
            if any(perm.domid == domid for perm in node.perms[1:]):
                named.append((path, (node.perms[0], *(p for p in node.perms[1:] if p.domid != domid))))
            prefix = "" if path == "/" else path
            stack.extend((f"{prefix}/{name}", child) for name, child in node.children.items())
        dom0 = Caller(0)
        changes = [self.set_perms(dom0, path, perms) for path, perms in named]
        changes += [change for path in doomed if (change := self.remove(dom0, path)) is not None]
        self.owned.pop(domid, None)
        return changes

    def _account(self, removed: Node) -> None:
        for node in subtree(removed):
            self._count(node.perms[0].domid, -1)

    def _count(self, domid: int, delta: int) -> None:
        count = self.owned.get(domid, 0) + delta
        if count > 0:
            self.owned[domid] = count
        else:
            self.owned.pop(domid, None)

    def _replace(self, parts: list[str], new: Node | None) -> None:
        nodes = [self.root]
        for part in parts[:-1]:
            nodes.append(nodes[-1].children[part])
        self._publish(parts, nodes, new)

    def _publish(self, parts: list[str], ancestors: list[Node], new: Node | None) -> None:
        """Puts a node at `parts`, given the nodes from the root to its parent, and makes that the current version."""
        if not parts:
            if new is not None:
                self.root = new
            return
        current = new
        for part, parent in zip(reversed(parts), reversed(ancestors), strict=True):
            children = dict(parent.children)
            listed = part in children
            if current is None:
                children.pop(part, None)
            else:
                children[part] = current
            changed = listed != (current is not None)
            generation = self._generation() if changed else parent.generation
            current = Node(parent.value, parent.perms, generation, children)
        if current is not None:
            self.root = current
