# SPDX-License-Identifier: Apache-2.0
"""How long a client may take nothing of what was written for it."""

from __future__ import annotations

import asyncio

STALL_SECONDS = 20.0
"""Without a byte taken of an answer, or of what is left of a websocket that was closed."""


class Stall:
    """Tells when a client takes nothing of what was written for it."""

    def __init__(self) -> None:
        self._unsent = 0
        self._since: float | None = None

    def is_over(self, transport: asyncio.Transport, now: float) -> bool:
        """Whether it has been too long; called about once a second."""
        try:
            unsent, before = transport.get_write_buffer_size(), self._unsent
        except AttributeError:  # asyncio's transport over TLS, once it is closed
            return False
        self._unsent = unsent
        if not unsent or unsent < before:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since > STALL_SECONDS
