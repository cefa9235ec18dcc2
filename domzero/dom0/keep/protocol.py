# SPDX-License-Identifier: Apache-2.0
"""What a Domain 0 and the keeper of its workers say to each other: packets on a Unix socket, with open files.

What the fork server and Domain 0 say to each other passes through as it is. `Hello` and `Welcome` come first and stay
as they are in all versions, so that any two can say that they do not know each other, and the workers can be ended.
"""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, replace
from typing import TypeAlias

from domzero.dom0.forking import Forking
from domzero.dom0.json_values import from_json, to_json
from domzero.dom0.message_set import MessageSet
from domzero.dom0.outside import Outside

PACKET_MAX = 64 << 10
FILES_MAX = 64
"""That go with one packet."""
WORDS_MAX = 8192
"""Bytes of what a worker wrote to stderr."""


@dataclass(slots=True, frozen=True)
class Hello:
    """Domain 0 has come. Answer: Welcome.

    :param keeps: the workers go on when it goes, else they end with it.
    """

    keeps: bool


@dataclass(slots=True, frozen=True)
class Welcome:
    """The keeper knows what follows, and then `Ready`.

    :param version: Domzero's, of the workers.
    :param wire: what they speak (`version.wire`).
    """

    pid: int
    version: str
    wire: str


@dataclass(slots=True, frozen=True)
class Hold:
    """Keep the files that come with this, in the place of others of this name; from the keeper: here they are."""

    name: str


@dataclass(slots=True, frozen=True)
class LetGo:
    """Close the files of this name."""

    name: str


@dataclass(slots=True, frozen=True)
class Kept:
    """A worker, and how it has ended, if it has.

    :param words: the last that it wrote to stderr, while no Domain 0 read it.
    """

    pid: int
    status: int | None
    words: str


@dataclass(slots=True, frozen=True)
class Forget:
    """Domain 0 knows how this worker has ended."""

    pid: int


@dataclass(slots=True, frozen=True)
class Ready:
    """That is all there is."""


Keeping: TypeAlias = Hello | Welcome | Hold | LetGo | Kept | Forget | Ready
Packet: TypeAlias = Keeping | Forking

_PACKETS: MessageSet[Packet] = MessageSet(kind for union in (Keeping, Forking) for kind in typing.get_args(union))
encode = _PACKETS.encode
decode = _PACKETS.decode


def worker_name(pid: int, domid: int) -> str:
    """What the files of a worker are kept as."""
    return f"worker {pid} {domid}"


def outside_name(pid: int, number: int, outside: Outside) -> str:
    """What an outer end of a worker's domain is kept as."""
    return f"outside {pid} {number} {json.dumps(to_json(replace(outside, fds=[])))}"


def part_name(pid: int, part: str) -> str:
    """What a further file of a worker is kept as."""
    return f"part {pid} {part}"


def part_of(name: str) -> tuple[int, str] | None:
    """Process id and part in a name of `part_name`; None: it is another's."""
    kind, *words = name.split()
    return (int(words[0]), words[1]) if kind == "part" else None


def is_outside(name: str) -> bool:
    """Whether it is a name of `outside_name`."""
    return name.startswith("outside ")


def outside_of(name: str) -> Outside:
    """From a name of `outside_name`, without the descriptors. MessageError, ValueError."""
    return from_json(Outside, json.loads(name.split(" ", 3)[3]), "outside")


def worker_of(name: str) -> tuple[int, int] | None:
    """Process id and domid in a name of `worker_name`; None: it is another's."""
    kind, *words = name.split()
    return (int(words[0]), int(words[1])) if kind == "worker" else None


def owner_of(name: str) -> int | None:
    """The process id in a name of `worker_name`, `part_name` or `outside_name`; None: it is another's."""
    kind, *words = name.split()
    return int(words[0]) if kind in ("worker", "part", "outside") else None


__all__ = [
    "FILES_MAX",
    "PACKET_MAX",
    "WORDS_MAX",
    "Forget",
    "Hello",
    "Hold",
    "Kept",
    "LetGo",
    "Packet",
    "Ready",
    "Welcome",
    "decode",
    "encode",
    "is_outside",
    "outside_name",
    "outside_of",
    "owner_of",
    "part_name",
    "part_of",
    "worker_name",
    "worker_of",
]
