"""The command's exit statuses."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """How a command, or the guest that `domzero run` ran, ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """Bad usage, bad configuration or bad image."""
    CRASH = 3
    REBOOT = 4
    SUSPEND = 5
    WATCHDOG = 6
    TIMEOUT = 124
    SIGINT = 130
    SIGTERM = 143
