# SPDX-License-Identifier: Apache-2.0
"""XenAPI's errors: a code and its parameters."""

from __future__ import annotations

from domzero.dom0.actors import PermissionDenied
from domzero.dom0.manager import BadState, NoAnswer
from domzero.dom0.names import shown
from domzero.dom0.roster import NameInUse, NotFound
from domzero.dom0.users import NotAuthenticated
from domzero.errors import ConfigError, DomzeroError, ImageError, ResourceError

PARAMETER_MAX = 1000
"""Characters of an error's parameter."""


class Failure(DomzeroError):
    """What a message is answered with when it cannot be done.

    :param code: XAPI's name of the error.
    :param parameters: what XAPI says with it, in XAPI's order.
    """

    def __init__(self, code: str, *parameters: str) -> None:
        super().__init__(code)
        self.description = [code, *(_bounded(text) for text in parameters)]

    @property
    def code(self) -> str:
        """XAPI's name of the error."""
        return self.description[0]


def _bounded(text: str) -> str:
    return shown(text if len(text) <= PARAMETER_MAX else text[: PARAMETER_MAX - 1] + "…")


_CODES: list[tuple[type[DomzeroError], str]] = [
    (NotFound, "HANDLE_INVALID"),
    (NameInUse, "DUPLICATE_VM"),
    (BadState, "OPERATION_NOT_ALLOWED"),
    (NoAnswer, "VM_HALTED_UNEXPECTEDLY"),
    (ResourceError, "HOST_NOT_ENOUGH_FREE_MEMORY"),
    (ImageError, "VDI_IO_ERROR"),
    (ConfigError, "INVALID_VALUE"),
]


def failure_of(error: DomzeroError) -> Failure:
    """An error of Domain 0's as XenAPI's."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, NotAuthenticated):
        return Failure("SESSION_AUTHENTICATION_FAILED", str(error))
    if isinstance(error, PermissionDenied):
        return Failure("RBAC_PERMISSION_DENIED", error.role.value, str(error))
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "INTERNAL_ERROR")
    text = str(error).replace("\n", "; ")
    return Failure(code, error.key, text) if code == "INVALID_VALUE" and error.key else Failure(code, text)


def explain(error: BaseException) -> list[str]:
    """An error that has ended a task."""
    if isinstance(error, DomzeroError):
        return failure_of(error).description
    return ["INTERNAL_ERROR", type(error).__name__]


def handle_invalid(kind: str, reference: str) -> Failure:
    """A reference that names nothing."""
    return Failure("HANDLE_INVALID", kind, reference)


def not_allowed(why: str) -> Failure:
    """What the object does not allow as it is."""
    return Failure("OPERATION_NOT_ALLOWED", why)
