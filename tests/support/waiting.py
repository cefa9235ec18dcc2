# SPDX-License-Identifier: Apache-2.0
"""Waiting for what happens in other threads and processes, and showing that nothing happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], bool], seconds: float = 120, what: str = "it") -> None:
    """Returns as soon as the condition holds; fails after `seconds`, which no test depends on."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds:.0f} s"
        time.sleep(0.005)


def unchanged(observe: Callable[[], T], rounds: int = 50) -> T:
    """What `observe` says, the same for so many rounds: each is a full turn of the part under test (a request that it
    answers, a pump of its loop), so that something that was going to happen would have had its turn."""
    first = observe()
    for turn in range(rounds):
        now = observe()
        assert now == first, f"turn {turn}: {now!r}, not {first!r}"
    return first
