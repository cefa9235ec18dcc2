# SPDX-License-Identifier: Apache-2.0
"""Errors that a person sees: one line that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class DomzeroError(Exception):
    """Something the user can do something about.

    :param message: what is wrong, one line.
    :param key: the configuration key, option or field at fault, if one is.
    :param hint: what to do about it.
    """

    def __init__(self, message: str, *, key: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.key}: {self.message}" if self.key else self.message
        return f"{text} ({self.hint})" if self.hint else text


class ImageError(DomzeroError):
    """A kernel or ramdisk that cannot be used (exit status 2)."""


class ConfigError(DomzeroError):
    """A configuration value that cannot be used (exit status 2)."""


class ConfigErrors(ConfigError):
    """Several of them at once, such as all problems of a file; as one error it is the first of them.

    :param errors: at least one.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        first = errors[0]
        super().__init__(first.message, key=first.key, hint=first.hint)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


class ResourceError(DomzeroError):
    """Out of memory, ports, domains or the like."""


class GuestError(DomzeroError):
    """Something was asked of a guest (`domzero.Guest`) that cannot be done as it is now."""


class GuestRunning(GuestError):
    """Registers, memory and steps need a guest that is paused."""


class GuestEnded(GuestError):
    """The guest ended before that for which a program waited. The message says how, and what it printed last."""


class WaitTimeout(GuestError, TimeoutError):
    """The deadline passed before that for which a program waited. The message says what the guest printed last."""


class NotMapped(GuestError, LookupError):
    """There is nothing at that guest address."""
