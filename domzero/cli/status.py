# SPDX-License-Identifier: Apache-2.0
"""The command's own exit statuses. How a guest ended has one too: `EndReason.exit_status`."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """Bad usage, bad configuration or bad image."""
    SIGINT = 130
