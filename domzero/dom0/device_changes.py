# SPDX-License-Identifier: Apache-2.0
"""What taking away, and asking about, a device of a domain that runs has in common for disks and network interfaces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from domzero.dom0.manager import BadState
from domzero.dom0.records import Record

DETACH_SECONDS = 5.0
"""How long a guest may take to let go of a device before who has asked is told."""
POLL_SECONDS = 0.05


class _Device(Protocol):
    @property
    def devid(self) -> int: ...


D = TypeVar("D", bound=_Device)


def still_there(devices: Iterable[D], devid: int, what: str) -> D:
    """The device of this number, which was there a moment ago. BadState: somebody else has taken it away."""
    for device in devices:
        if device.devid == devid:
            return device
    raise BadState(f"{what} has been taken away meanwhile")


async def wait_gone(record: Record, what: str, is_there: Callable[[], Awaitable[bool]], instead: str) -> None:
    """Waits a while for a device that the guest was asked to let go of. BadState: it is still there.

    The domain's configuration loses the device when the guest lets go of it, however late (`messages.DiskGone`).

    :param instead: what a person can do in the guest.
    """
    deadline = time.monotonic() + DETACH_SECONDS
    while await is_there():
        if time.monotonic() > deadline:
            raise BadState(
                f"domain {record.name} has been asked, and still uses {what}",
                hint=f"{instead}, or take it away with --force",
            )
        await asyncio.sleep(POLL_SECONDS)
