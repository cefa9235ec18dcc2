# SPDX-License-Identifier: Apache-2.0
"""How far the saving of a domain is, as its worker or its QEMU's handle tells Domain 0."""

from __future__ import annotations

from collections.abc import Callable

from domzero.dom0.messages import Progress

PROGRESS_STEP = 0.02
"""Smaller ones are not told of."""


def in_steps(tell: Callable[[Progress], object]) -> Callable[[float], None]:
    """What is told how much is done, of 1, and tells of it now and then."""
    told = 0.0

    def done_so_far(done: float) -> None:
        nonlocal told
        if done - told >= PROGRESS_STEP:
            told = done
            tell(Progress(done))

    return done_so_far
