# SPDX-License-Identifier: Apache-2.0
"""Grant tables, versions 1 and 2: frames a domain lets others use.

The tables, the mappings of others' grants and every check are the machine's (`crates/machine/src/grants`), for
hypercalls and back ends alike. Here is what the layers above need of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from domzero import _machine
from domzero._machine import GrantRefused, XenRefused
from domzero.abi.errno import Errno
from domzero.abi.grant_table import GntMap, GntStatus, grant_entry_v1, grant_entry_v2
from domzero.abi.layout import sizeof
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.errors import GrantError, XenError
from domzero.hypervisor.limits import Limits
from domzero.hypervisor.platform import Platform

ENTRY_SIZES = {1: sizeof(grant_entry_v1), 2: sizeof(grant_entry_v2)}


@dataclass(slots=True, frozen=True)
class Mapping:
    """One use of another domain's grant."""

    owner: int
    """Its number."""
    ref: int
    mfn: int
    flags: GntMap
    """host_map and device_map go away as they are unmapped."""


@dataclass(slots=True, frozen=True)
class Active:
    """A grant that is in use, as its entry was when the first user came."""

    domid: int
    """Who uses it."""
    mfn: int
    readers: int
    writers: int


class GrantDomain(Protocol):
    """A domain with grants: what these need of it."""

    host: Platform
    hw: _machine.Domain
    limits: Limits

    @property
    def grants(self) -> "GrantTable":
        """What it has granted."""


@contextmanager
def _told() -> Iterator[None]:
    """What the machine refuses, as the hypercalls know it."""
    try:
        yield
    except GrantRefused as refused:
        raise GrantError(GntStatus(refused.status)) from None
    except XenRefused as refused:
        raise XenError(Errno(refused.errno)) from None


class GrantTable:
    """One domain's grants, and its mappings of others'. No lock of ours is needed."""

    def __init__(self, domain: GrantDomain) -> None:
        limits = domain.limits
        self._memory = domain.host.memory
        self.hw = domain.hw.create_grants(limits.grant_frames, limits.maptrack_frames)
        self.max_frames = limits.grant_frames

    @property
    def version(self) -> int:
        """1 or 2."""
        return self.hw.version

    @property
    def entries(self) -> int:
        """How many entries the table has now."""
        return self.hw.entries

    @property
    def frames(self) -> list[int]:
        """The table's frames."""
        return self.hw.frames

    @property
    def status_frames(self) -> list[int]:
        """With version 2: where GTF_reading and GTF_writing are shown."""
        return self.hw.status_frames

    @property
    def active(self) -> dict[int, Active]:
        """The grants that are in use now, by reference."""
        return {ref: Active(*rest) for ref, *rest in self.hw.active()}

    @property
    def mappings(self) -> dict[int, Mapping]:
        """The mappings of others' grants, by handle."""
        return {h: Mapping(owner, ref, mfn, GntMap(flags)) for h, owner, ref, mfn, flags in self.hw.mappings()}

    def grow(self, frames: int) -> None:
        """Makes the table at least `frames` frames large.

        :raises GrantError: general_error, when that is more than allowed or there is no memory.
        """
        with _told():
            self.hw.grow(frames)

    def entry(self, ref: int) -> grant_entry_v1 | grant_entry_v2:
        """A copy of entry `ref`.

        :raises GrantError: bad_gntref.
        """
        with _told():
            at = self.hw.entry_maddr(ref)
        version = self.version
        data = self._memory[at : at + ENTRY_SIZES[version]]
        return grant_entry_v1.from_buffer_copy(data) if version == 1 else grant_entry_v2.from_buffer_copy(data)

    def seed(self, ref: int, mfn: int, domid: int = 0) -> None:
        """Fills in a reserved entry before the guest starts: the toolstack grants the store and console rings.

        :param ref: GNTTAB_RESERVED_CONSOLE or GNTTAB_RESERVED_XENSTORE.
        """
        self.hw.seed(ref, mfn, domid)

    def swap(self, ref_a: int, ref_b: int) -> None:
        """GNTTABOP_swap_grant_ref.

        :raises GrantError: bad_gntref, eagain for a grant in use.
        """
        with _told():
            self.hw.swap(ref_a, ref_b)

    def set_version(self, version: int) -> None:
        """GNTTABOP_set_version: all entries but the reserved ones are cleared.

        :raises XenError: EBUSY when another than a reserved entry is in use, or the guest still maps the status frames;
            ERANGE when a reserved entry cannot be said in version 1; ENOMEM.
        """
        with _told():
            self.hw.set_version(version)

    def close(self) -> None:
        """The domain is being destroyed: it uses nobody's grants any more, and nobody uses its own."""
        self.hw.close()


def map_backend(domain: GrantDomain, ref: int, *, writable: bool, domid: int = 0) -> memoryview:
    """Maps a frame that `domain` has granted to `domid`, for host code that acts for that domain.

    :raises GrantError: when there is no such grant.
    """
    with _told():
        mfn = domain.grants.hw.begin_use(ref, domid, writable=writable)
    view = domain.host.memory[mfn * PAGE_SIZE : (mfn + 1) * PAGE_SIZE]
    return view if writable else view.toreadonly()


def unmap_backend(domain: GrantDomain, ref: int, *, writable: bool) -> None:
    """Ends what `map_backend` began. Does nothing when the domain is gone."""
    domain.grants.hw.end_use(ref, writable=writable)
