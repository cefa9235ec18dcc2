# SPDX-License-Identifier: Apache-2.0
"""The loopback interface: the only network that tests use."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
