# SPDX-License-Identifier: Apache-2.0
"""Frames of a domain that host code uses by their numbers, not by grants, as Xen's oldest devices do."""

from __future__ import annotations

from domzero._machine import XenRefused
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.domain import Domain


class NotItsFrame(Exception):
    """A number names no ordinary frame of the domain's own."""


class HostFrames:
    """Frames that are held, so that they stay the domain's, and what they are, until `release`."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._held: list[tuple[int, bool]] = []

    def take(self, mfn: int, *, writable: bool = False) -> memoryview:
        """The bytes of a frame; read-only unless `writable`, when the guest makes no page table of it either.

        :raises NotItsFrame: whatever the number is.
        """
        domain = self._domain
        if not 0 <= mfn < domain.host.machine.frames:
            raise NotItsFrame
        with domain.host.lock:
            try:
                domain.hw.get_ref(mfn, writable=writable)
            except XenRefused:
                raise NotItsFrame from None
            self._held.append((mfn, writable))
            domain.host_refs[mfn, writable] += 1
        if writable:
            domain.hw.host_mapped(mfn)
        view = domain.host.memory[mfn * PAGE_SIZE : (mfn + 1) * PAGE_SIZE]
        return view if writable else view.toreadonly()

    def release(self) -> None:
        """Gives all of them back. Nobody reads or writes them any more. Not from a vCPU's thread."""
        held, self._held = self._held, []
        domain = self._domain
        with domain.host.lock:
            for mfn, writable in held:
                domain.host_refs[mfn, writable] -= 1
                if not domain.host_refs[mfn, writable]:
                    del domain.host_refs[mfn, writable]
                domain.hw.put_ref(mfn, writable=writable)
