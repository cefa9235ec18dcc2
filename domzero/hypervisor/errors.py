# SPDX-License-Identifier: Apache-2.0
"""Failures of a hypercall or an instruction, never mixed: a Xen error goes to the guest, a crash ends its domain."""

from domzero.abi.errno import Errno
from domzero.abi.grant_table import GntStatus


class XenError(Exception):
    """The guest sees `-errno`. The machine raises `XenRefused` instead, which ends a hypercall in the same way."""

    def __init__(self, errno: Errno, why: str = "") -> None:
        super().__init__(f"{errno.name}{': ' + why if why else ''}")
        self.errno = errno


class GrantError(Exception):
    """A grant cannot be used; the status goes into the operation's `status` field."""

    def __init__(self, status: GntStatus) -> None:
        super().__init__(status.name)
        self.status = status


class DomainCrash(Exception):
    """The guest did what ends it."""
