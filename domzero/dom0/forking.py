# SPDX-License-Identifier: Apache-2.0
"""What the Domain 0 process and the fork server say to each other. The keeper passes it on, and knows no more."""

from __future__ import annotations

import os
import sys
import typing
from dataclasses import dataclass
from typing import TypeAlias

from domzero.dom0.message_set import MessageSet


@dataclass(slots=True, frozen=True)
class Spawn:
    """Fork a worker with the files that come with this. Answer: Spawned or SpawnFailed.

    :param shares: whether each of the directories behind a worker's own files is written.
    :param makes_code: its domain has the translator.
    :param keeps: it goes on when Domain 0 has gone, and waits for the next one.
    """

    confined: bool
    shares: tuple[bool, ...] = ()
    makes_code: bool = False
    keeps: bool = False


@dataclass(slots=True, frozen=True)
class Launch:
    """Fork a process that becomes a QEMU (`program_passing`, `qemu.launch`). Two files come with this: the socket on
    which that is, and its stderr. Answer: Spawned or SpawnFailed.

    :param files: how many are on the socket.
    """

    files: int


@dataclass(slots=True, frozen=True)
class Kill:
    """End a worker at once. No answer but ChildEnded."""

    pid: int


@dataclass(slots=True, frozen=True)
class Spawned:
    """The worker is there."""

    pid: int


@dataclass(slots=True, frozen=True)
class SpawnFailed:
    """It could not be forked."""

    errno: int


@dataclass(slots=True, frozen=True)
class ChildEnded:
    """A worker has ended; a negative status is the signal that ended it."""

    pid: int
    status: int


Forking: TypeAlias = Spawn | Launch | Kill | Spawned | SpawnFailed | ChildEnded
_MESSAGES: MessageSet[Forking] = MessageSet(typing.get_args(Forking))
encode = _MESSAGES.encode
decode = _MESSAGES.decode


def fork_server(fd: int) -> list[str]:
    """The command line of a fork server with this end of a socket, which ends with this process."""
    return [sys.executable, "-m", "domzero.dom0.forkserver", str(fd), str(os.getpid())]
