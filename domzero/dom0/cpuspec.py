# SPDX-License-Identifier: Apache-2.0
"""Lists of processors and of vCPUs, as xl has them: `0-3,^1`, `all`, `node:0`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from domzero.errors import ConfigError

TEXT_MAX = 1000
_PART = re.compile(r"(\^?)(nodes?:)?(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


def parse_cpus(text: str, there: Iterable[int] | None = None) -> frozenset[int]:
    """The processors that a list names; those behind `^` are taken out, in the order in which they are written.

    :param there: those that can be named, and that `all` means; the host's that this process may use if None.
    :raises ConfigError: it is no list, names what is not there, or names nothing.
    """
    known = frozenset(os.sched_getaffinity(0) if there is None else there)
    found: set[int] = set()
    for part in text.split(","):
        word = part.strip()
        if word in ("all", "^all"):
            found = set(known) if word == "all" else set()
            continue
        match = _PART.fullmatch(word) if len(text) <= TEXT_MAX else None
        if match is None:
            raise ConfigError(f"not a list of processors: {text[:60]!r}", key="cpus", hint="such as 0-3,^1 or all")
        first = int(match[3])
        named = set(range(first, int(match[4] or first) + 1))
        if match[2]:  # the host is one node
            if missing := named - {0}:
                raise ConfigError(
                    f"there is no node {min(missing)}", key="cpus", hint="there is node 0, all of the host"
                )
            named = set(known)
        if match[1]:
            found -= named
        elif missing := named - known:
            most = ", ".join(map(str, sorted(known)))
            raise ConfigError(f"there is no {min(missing)}", key="cpus", hint=f"there are: {most}")
        else:
            found |= named
    if not found:
        raise ConfigError(f"nothing is left of {text[:60]!r}", key="cpus")
    return frozenset(found)


def format_cpus(cpus: Iterable[int]) -> str:
    """The list, as short as it can be written; `all` for all that this process may use."""
    numbers = sorted(cpus)
    if set(numbers) == os.sched_getaffinity(0):
        return "all"
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
