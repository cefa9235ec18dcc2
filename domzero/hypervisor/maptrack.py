# SPDX-License-Identifier: Apache-2.0
"""Grants that a guest has mapped: handles, and what has to be undone for each."""

from dataclasses import dataclass
from typing import Protocol

from domzero import _machine
from domzero._machine import XenRefused
from domzero.abi.grant_table import GntMap, GNTMAP_guest_avail0_shift, GntStatus, gnttab_map_grant_ref
from domzero.abi.x86 import PTE_ACCESSED, PTE_AVAIL_HIGH, PTE_AVAIL_LOW, PTE_DIRTY, PTE_RW, PTE_USER
from domzero.abi.xen import PAGE_SHIFT
from domzero.hypervisor.domids import Domids
from domzero.hypervisor.errors import GrantError
from domzero.hypervisor.grant import GrantDomain
from domzero.hypervisor.limits import Limits

MAX_MAPPINGS = 8192
"""Mappings a domain may have at a time."""
MAPPINGS_PER_FRAME = 256
"""Xen's struct grant_mapping has 16 bytes."""


@dataclass(slots=True)
class Mapping:
    """One use of another domain's grant."""

    owner: GrantDomain
    ref: int
    mfn: int
    flags: int
    """GNTMAP_*; host_map and device_map go away as they are unmapped."""

    @property
    def writable(self) -> bool:
        """Whether it was mapped for writing."""
        return not self.flags & GntMap.GNTMAP_readonly


class MappingDomain(Protocol):
    """A domain that maps grants: what that needs of it."""

    domid: int
    is_32bit: bool
    limits: Limits

    @property
    def domids(self) -> Domids[GrantDomain]:
        """Domain numbers as this one means them."""


class MapTrack:
    """The mappings of one domain. Every method needs `host.lock`."""

    def __init__(self, domain: MappingDomain) -> None:
        self.domain = domain
        self.mappings: dict[int, Mapping] = {}
        self._next = 0
        self._most = min(MAX_MAPPINGS, domain.limits.maptrack_frames * MAPPINGS_PER_FRAME)

    def _new_handle(self) -> int:
        if len(self.mappings) >= self._most:
            raise GrantError(GntStatus.GNTST_no_space)
        while self._next in self.mappings:
            self._next = (self._next + 1) % MAX_MAPPINGS
        return self._next

    def map(self, hw: _machine.Vcpu, arg: gnttab_map_grant_ref) -> None:
        """GNTTABOP_map_grant_ref; fills in the handle and the bus address.

        :raises GrantError: what goes into `status`.
        """
        flags = arg.flags
        if not flags & (GntMap.GNTMAP_device_map | GntMap.GNTMAP_host_map):
            raise GrantError(GntStatus.GNTST_bad_gntref)
        owner = self.domain.domids.granter(arg.dom, arg.ref)
        handle = self._new_handle()
        writable = not flags & GntMap.GNTMAP_readonly
        active = owner.grants.acquire(arg.ref, self.domain.domid, writable=writable)
        if flags & GntMap.GNTMAP_host_map:
            bits = self._pte_bits(flags)
            is_pte = bool(flags & GntMap.GNTMAP_contains_pte)
            try:
                hw.grant_map(arg.host_addr, active.mfn, owner.domid, bits, contains_pte=is_pte)
            except XenRefused as refused:
                owner.grants.release(arg.ref, writable=writable)
                raise GrantError(GntStatus.GNTST_general_error) from refused
        self.mappings[handle] = Mapping(owner, arg.ref, active.mfn, flags)
        arg.handle = handle
        arg.dev_bus_addr = active.mfn << PAGE_SHIFT

    def _pte_bits(self, flags: int) -> int:
        bits = PTE_ACCESSED | PTE_DIRTY
        if not flags & GntMap.GNTMAP_readonly:
            bits |= PTE_RW
        avail = flags >> GNTMAP_guest_avail0_shift
        bits |= (avail & 7) << PTE_AVAIL_LOW
        if not self.domain.is_32bit:
            # The kernel of a 64-bit guest runs in ring 3 too.
            return bits | PTE_USER | (avail >> 3 & 0x7FF) << PTE_AVAIL_HIGH
        return bits | (PTE_USER if flags & GntMap.GNTMAP_application_map else 0)

    def unmap(
        self, hw: _machine.Vcpu, handle: int, *, host_addr: int = 0, dev_bus_addr: int = 0, replace: int | None = None
    ) -> None:
        """GNTTABOP_unmap_grant_ref, GNTTABOP_unmap_and_replace (with `replace`).

        :raises GrantError: what goes into `status`.
        """
        mapping = self.mappings.get(handle)
        if mapping is None:
            raise GrantError(GntStatus.GNTST_bad_handle)
        is_pte = bool(mapping.flags & GntMap.GNTMAP_contains_pte)
        if replace is not None and is_pte:
            raise GrantError(GntStatus.GNTST_general_error)
        if dev_bus_addr and mapping.flags & GntMap.GNTMAP_device_map:
            if dev_bus_addr != mapping.mfn << PAGE_SHIFT:
                raise GrantError(GntStatus.GNTST_bad_dev_addr)
            mapping.flags &= ~GntMap.GNTMAP_device_map
        if host_addr and mapping.flags & GntMap.GNTMAP_host_map:
            writable = mapping.writable
            try:
                hw.grant_unmap(host_addr, mapping.mfn, writable=writable, contains_pte=is_pte, replace=replace)
            except XenRefused as refused:
                raise GrantError(GntStatus.GNTST_general_error) from refused
            mapping.flags &= ~GntMap.GNTMAP_host_map
        if not mapping.flags & (GntMap.GNTMAP_device_map | GntMap.GNTMAP_host_map):
            self._drop(handle)

    def _drop(self, handle: int) -> None:
        mapping = self.mappings.pop(handle)
        if mapping.ref in mapping.owner.grants.active:
            mapping.owner.grants.release(mapping.ref, writable=mapping.writable)

    def release_all(self) -> None:
        """The domain is being destroyed; its page tables drop the frames themselves."""
        for handle in list(self.mappings):
            self._drop(handle)
