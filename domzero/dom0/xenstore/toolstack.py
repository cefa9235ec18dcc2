# SPDX-License-Identifier: Apache-2.0
"""Requests that only Domain 0 may make: INTRODUCE, RELEASE, RESUME, SET_TARGET and CONTROL.

Domain 0 introduces and releases its domains itself: their connections are in their workers. So these requests check
what they are told, and change nothing but targets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import fields
from typing import Protocol

from domzero.dom0.linelimit import LineLimit
from domzero.dom0.xenstore.quotas import Quotas
from domzero.dom0.xenstore.wire import Op, XenstoreError

logger = logging.getLogger(__name__)
_print_line = LineLimit(logger.info)
Work = Generator[None, None, bytes]
"""A request that takes turns; it returns the payload of its reply."""
PRINT_MAX = 1000
"""Characters of CONTROL print that go into the log."""
QUOTA_TEXT = {
    "nodes": "Nodes per domain",
    "depth": "Components of a new node's path",
    "watches": "Watches per domain",
    "transactions": "Transactions per domain",
    "transaction_operations": "Operations of a transaction",
    "node_size": "Bytes of a node's value",
    "perms": "Permissions per node",
    "queued_events": "Watch events that wait, per domain",
}


class Books(Protocol):
    """What is asked of the store."""

    quotas: Quotas
    targets: dict[int, int]

    def get(self, path: str, default: str | None = None) -> str | None: ...
    def is_introduced(self, domid: int) -> bool: ...
    def owned_nodes(self, domid: int) -> int: ...
    def watches_of(self, domid: int) -> int: ...
    def check_in_turns(self) -> Generator[None, None, list[str]]: ...


def _domids(strings: list[str], count: int) -> list[int]:
    if len(strings) < count or not all(text.isascii() and text.isdecimal() and len(text) < 11 for text in strings):
        raise XenstoreError("EINVAL")
    return [int(text) for text in strings]


def _guest(store: Books, domid: int) -> None:
    """EINVAL for Domain 0 itself, ENOENT for a domain that is not there."""
    if domid == 0:
        raise XenstoreError("EINVAL")
    if not store.is_introduced(domid):
        raise XenstoreError("ENOENT")


def _introduce(store: Books, strings: list[str]) -> bytes:
    domid, gfn, port = _domids(strings, 3)[:3]
    _guest(store, domid)
    home = f"/local/domain/{domid}/store"
    if (store.get(f"{home}/ring-ref"), store.get(f"{home}/port")) != (str(gfn), str(port)):
        raise XenstoreError("EINVAL")
    return b"OK\0"  # as it was introduced when it was built


def _release(store: Books, strings: list[str]) -> bytes:
    _guest(store, _domids(strings, 1)[0])
    raise XenstoreError("EBUSY")  # it is released when it ends


def _resume(store: Books, strings: list[str]) -> bytes:
    _guest(store, _domids(strings, 1)[0])
    return b"OK\0"  # each shutdown is told to watches here, also without this


def _set_target(store: Books, strings: list[str]) -> bytes:
    domid, target = _domids(strings, 2)[:2]
    _guest(store, domid)
    _guest(store, target)
    store.targets[domid] = target
    return b"OK\0"


def _control(store: Books, strings: list[str]) -> bytes | Work:
    if not strings or strings[0] not in (*COMMANDS, "check"):
        raise XenstoreError("EINVAL")
    name, *arguments = strings
    return _check(store) if name == "check" else _text(COMMANDS[name](store, arguments))


def _text(text: str) -> bytes:
    return text.encode("latin-1", "replace") + b"\0"


def _check(store: Books) -> Work:
    wrong = yield from store.check_in_turns()
    return _text("\n".join(wrong[:20]) or "OK")


def _help(_store: Books, _arguments: list[str]) -> str:
    return "\n".join(sorted((*COMMANDS, "check")))


def _print(_store: Books, arguments: list[str]) -> str:
    if not arguments:
        raise XenstoreError("EINVAL")
    _print_line(f"xenstore: {arguments[0][:PRINT_MAX]}")
    return "OK"


def _quota(store: Books, arguments: list[str]) -> str:
    if not arguments:
        lines = [
            (field.name, getattr(store.quotas, field.name), QUOTA_TEXT[field.name]) for field in fields(store.quotas)
        ]
        return "\n".join(f"{name:<23}: {value:8} {text}" for name, value, text in lines)
    (domid,) = _domids(arguments[:1], 1)
    if not store.is_introduced(domid) or len(arguments) > 1:  # also `set` and `max`: quotas are as they are
        raise XenstoreError("EINVAL")
    counts = {"nodes": store.owned_nodes(domid), "watches": store.watches_of(domid)}
    return "\n".join([f"Domain {domid}:", *(f"{name:<23}: {count:8}" for name, count in counts.items())])


COMMANDS: dict[str, Callable[[Books, list[str]], str]] = {"help": _help, "print": _print, "quota": _quota}
REQUESTS: dict[int, Callable[[Books, list[str]], bytes | Work]] = {
    Op.CONTROL: _control,
    Op.INTRODUCE: _introduce,
    Op.RELEASE: _release,
    Op.RESUME: _resume,
    Op.SET_TARGET: _set_target,
}
