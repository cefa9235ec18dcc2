"""Failures of a hypercall or an instruction, never mixed: a Xen error goes to the guest, a crash ends its domain."""

from domzero.abi.errno import Errno


class XenError(Exception):
    """The guest sees `-errno`."""

    def __init__(self, errno: Errno, why: str = "") -> None:
        super().__init__(f"{errno.name}{': ' + why if why else ''}")
        self.errno = errno


class DomainCrash(Exception):
    """The guest did what ends it."""
