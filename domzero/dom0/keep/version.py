# SPDX-License-Identifier: Apache-2.0
"""What a version of Domzero speaks with its workers, so that another one finds out whether it does, too."""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from domzero.dom0.forking import Forking
from domzero.dom0.messages import Answer, Event, Request
from domzero.dom0.xenstore.unanswered import Frame

_SEMANTICS = 2
"""Of what is said between a Domain 0 and workers, and written down for the next one: raise it when a message means
something else, and looks the same."""


def wire() -> str:
    """What this version speaks with its workers: the same text means the same messages."""
    kinds = [kind for union in (Request, Answer, Event, Forking) for kind in typing.get_args(union)]
    lines = [*_described(kinds), *(f"{frame.name} {frame.value}" for frame in Frame), str(_SEMANTICS)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _described(kinds: list[Any]) -> Iterator[str]:
    """A line for each dataclass, and those that it is made of."""
    seen: set[Any] = set()
    todo = list(kinds)
    while todo:
        kind = todo.pop()
        if kind in seen:
            continue
        seen.add(kind)
        if isinstance(kind, type) and is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            yield f"{kind.__name__}: {', '.join(f'{each.name} {each.type}' for each in fields(kind))}"
            todo += [hints[each.name] for each in fields(kind)]
        todo += typing.get_args(kind)


__all__ = ["wire"]
