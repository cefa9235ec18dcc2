# SPDX-License-Identifier: Apache-2.0
"""Grant tables, versions 1 and 2: frames a domain lets others use.

The entries are in memory that the guest changes at any time. So what an entry says is copied into an `Active` when its
first user comes, and is not looked at again until the last one has gone (Xen's rule; only `GTF_readonly` still counts
for a first writer).
"""

import struct
from collections import Counter
from dataclasses import dataclass, replace
from typing import Protocol

from domzero import _machine
from domzero._machine import XenRefused
from domzero.abi.errno import Errno
from domzero.abi.grant_table import (
    GNTTAB_NR_RESERVED_ENTRIES,
    GntStatus,
    Gtf,
    GTF_type_mask,
    grant_entry_v1,
    grant_entry_v2,
)
from domzero.abi.layout import sizeof
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.domids import Domids
from domzero.hypervisor.errors import GrantError, XenError
from domzero.hypervisor.limits import Limits
from domzero.hypervisor.platform import Platform

ENTRY_SIZES = {1: sizeof(grant_entry_v1), 2: sizeof(grant_entry_v2)}
STATUS_PER_FRAME = PAGE_SIZE // 2
MAX_RETRIES = 5
MAX_USES = (1 << 15) - 1
"""Uses of one grant at a time."""
_IN_USE = Gtf.GTF_reading | Gtf.GTF_writing
READING_BIT, WRITING_BIT = 3, 4


@dataclass(slots=True)
class Active:
    """A grant that is in use, as its entry was when the first user came."""

    domid: int
    mfn: int
    start: int = 0
    length: int = PAGE_SIZE
    copy_only: bool = False
    """A part of a page, or transitive: it cannot be mapped."""
    via: "tuple[GrantTable, int] | None" = None
    """The grant of the third domain that a transitive one stands for: it holds the frame."""
    readers: int = 0
    writers: int = 0


class GrantDomain(Protocol):
    """A domain with grants: what these need of it."""

    host: Platform
    domid: int
    hw: _machine.Domain
    limits: Limits

    @property
    def domids(self) -> Domids["GrantDomain"]:
        """Domain numbers as this one means them."""

    @property
    def grants(self) -> "GrantTable":
        """What it has granted."""


class GrantTable:
    """One domain's grants. Every method needs `host.lock`."""

    def __init__(self, domain: GrantDomain) -> None:
        self.domain = domain
        self.version = 1
        self.max_frames = domain.limits.grant_frames
        self.frames: list[int] = []
        self.status_frames: list[int] = []
        """With version 2: where GTF_reading and GTF_writing are shown."""
        self._spare_status: list[int] = []
        """Status frames of an earlier version 2: still the domain's, and used again."""
        self.active: dict[int, Active] = {}
        self.backends: Counter[tuple[int, bool]] = Counter()
        """Uses by host code: (reference, writable)."""
        self.grow(1)

    @property
    def entries(self) -> int:
        """How many entries the table has now."""
        return len(self.frames) * (PAGE_SIZE // ENTRY_SIZES[self.version])

    def grow(self, frames: int) -> None:
        """Makes the table at least `frames` frames large.

        :raises GrantError: general_error, when that is more than allowed or there is no memory.
        """
        if frames > self.max_frames:
            raise GrantError(GntStatus.GNTST_general_error)
        self._share(self.frames, frames)
        if self.version == 2:
            self._grow_status()

    def _grow_status(self) -> None:
        wanted = -(-len(self.frames) * (PAGE_SIZE // ENTRY_SIZES[2]) // STATUS_PER_FRAME)
        while self._spare_status and len(self.status_frames) < wanted:
            self.status_frames.append(self._spare_status.pop())
            self._clear(self.status_frames[-1:])
        self._share(self.status_frames, wanted)

    def _share(self, to: list[int], count: int) -> None:
        if count > len(to):
            try:
                new = self.domain.hw.share_hypervisor_frames(count - len(to))
            except _machine.MachineError:
                raise GrantError(GntStatus.GNTST_general_error) from None
            for mfn in new:
                self.domain.hw.host_mapped(mfn)
            to.extend(new)

    def _clear(self, frames: list[int]) -> None:
        for mfn in frames:
            self.domain.host.shared.write(mfn * PAGE_SIZE, bytes(PAGE_SIZE))

    def _entry_maddr(self, ref: int) -> int:
        if not 0 <= ref < self.entries:
            raise GrantError(GntStatus.GNTST_bad_gntref)
        size = ENTRY_SIZES[self.version]
        per_frame = PAGE_SIZE // size
        return self.frames[ref // per_frame] * PAGE_SIZE + ref % per_frame * size

    def _status_maddr(self, ref: int) -> int:
        """Where the entry's GTF_reading and GTF_writing are."""
        if self.version == 1:
            return self._entry_maddr(ref)
        return self.status_frames[ref // STATUS_PER_FRAME] * PAGE_SIZE + ref % STATUS_PER_FRAME * 2

    def entry(self, ref: int) -> grant_entry_v1 | grant_entry_v2:
        """A copy of entry `ref`."""
        at = self._entry_maddr(ref)
        data = self.domain.host.memory[at : at + ENTRY_SIZES[self.version]]
        return grant_entry_v1.from_buffer_copy(data) if self.version == 1 else grant_entry_v2.from_buffer_copy(data)

    def seed(self, ref: int, mfn: int, domid: int = 0) -> None:
        """Fills in a reserved entry before the guest starts: the toolstack grants the store and console rings.

        :param ref: GNTTAB_RESERVED_CONSOLE or GNTTAB_RESERVED_XENSTORE.
        """
        if not 0 <= ref < GNTTAB_NR_RESERVED_ENTRIES:
            raise ValueError(f"not a reserved grant reference: {ref}")
        entry = struct.pack("<HHI", Gtf.GTF_permit_access, domid, mfn)
        self.domain.host.shared.write(self._entry_maddr(ref), entry)

    # --- using grants

    def acquire(self, ref: int, domid: int, *, writable: bool, copy: bool = False, transitive: bool = True) -> Active:
        """Domain `domid` begins to use grant `ref`: the entry is checked and marked as in use.

        :param copy: for a copy: parts of pages and (with `transitive`) transitive grants will do.
        :raises GrantError: what goes into `status`.
        """
        at = self._entry_maddr(ref)
        active = self.active.get(ref)
        if active is not None and (
            active.domid != domid
            or active.readers + active.writers >= MAX_USES
            or (active.copy_only and not copy)
            or (active.via is not None and not transitive)
        ):
            raise GrantError(GntStatus.GNTST_general_error)
        try:
            if active is None or (writable and not active.writers):
                self._set_status(ref, at, domid, writable=writable, copy=copy, pinned=active is not None)
            if active is None:
                active = self._read(at, domid, writable=writable, transitive=transitive)
                self._take(active, writable=writable)
                self.active[ref] = active
            else:
                self._take(active, writable=writable)
        except GrantError:
            self._clear_status(ref)
            raise
        active.readers += not writable
        active.writers += writable
        return active

    def _set_status(self, ref: int, at: int, domid: int, *, writable: bool, copy: bool, pinned: bool) -> None:
        """Checks type and domain of an entry, unless it is in use already, and shows the guest that it is now."""
        shared = self.domain.host.shared
        for _ in range(MAX_RETRIES):
            word = shared.u32(at)
            self._check(word, domid, writable=writable, copy=copy, pinned=pinned)
            if self.version == 2:
                status = self._status_maddr(ref)
                shared.test_and_set_bit(status, READING_BIT)
                if writable:
                    shared.test_and_set_bit(status, WRITING_BIT)
                # A guest that revokes the grant changes the entry first and looks at the status then.
                self._check(shared.u32(at), domid, writable=writable, copy=copy, pinned=pinned)
                return
            new = word | Gtf.GTF_reading | (Gtf.GTF_writing if writable else Gtf.GTF_invalid)
            if shared.compare_exchange_u32(at, word, new) == word:
                return
        raise GrantError(GntStatus.GNTST_general_error)

    def _check(self, word: int, domid: int, *, writable: bool, copy: bool, pinned: bool) -> None:
        flags = word & 0xFFFF
        kind = flags & (GTF_type_mask | (Gtf.GTF_invalid if copy else Gtf.GTF_sub_page))
        allowed = kind == Gtf.GTF_permit_access or (kind == Gtf.GTF_transitive and copy and self.version == 2)
        if not pinned and not (allowed and word >> 16 == domid):
            raise GrantError(GntStatus.GNTST_general_error)
        if writable and flags & Gtf.GTF_readonly:
            raise GrantError(GntStatus.GNTST_general_error)

    def _read(self, at: int, domid: int, *, writable: bool, transitive: bool) -> Active:
        """What the entry gives. The caller has checked it, and the guest may have changed it since: what is used is
        what is read here, once."""
        shared = self.domain.host.shared
        if self.version == 1:
            return Active(domid, shared.u32(at + 4))
        entry = grant_entry_v2.from_buffer_copy(self.domain.host.memory[at : at + ENTRY_SIZES[2]])
        flags = entry.hdr.flags
        if flags & GTF_type_mask == Gtf.GTF_transitive:
            return self._follow(entry, domid, writable=writable, transitive=transitive)
        if flags & Gtf.GTF_sub_page:
            part = entry.sub_page
            return Active(domid, part.frame, part.page_off, part.length, copy_only=True)
        return Active(domid, entry.full_page.frame)

    def _follow(self, entry: grant_entry_v2, domid: int, *, writable: bool, transitive: bool) -> Active:
        """The grant that a transitive one stands for; one step only."""
        if not transitive:
            raise GrantError(GntStatus.GNTST_general_error)
        other = self.domain.domids.third(entry.transitive.trans_domid)
        ref = entry.transitive.gref
        theirs = other.grants.acquire(ref, self.domain.domid, writable=writable, copy=True, transitive=False)
        # `_take` uses it once more: this use was to learn what it is.
        found = replace(theirs, domid=domid, copy_only=True, via=(other.grants, ref), readers=0, writers=0)
        other.grants.release(ref, writable=writable)
        return found

    def _take(self, active: Active, *, writable: bool) -> None:
        """One more reference on the frame of a grant."""
        if active.via is not None:
            table, ref = active.via
            theirs = table.acquire(ref, self.domain.domid, writable=writable, copy=True, transitive=False)
            if (theirs.mfn, theirs.start, theirs.length) != (active.mfn, active.start, active.length):
                table.release(ref, writable=writable)
                raise GrantError(GntStatus.GNTST_general_error)
            return
        take_frame(self.domain, active.mfn, writable=writable)

    def release(self, ref: int, *, writable: bool) -> None:
        """Ends one use of a grant."""
        active = self.active[ref]
        active.readers -= not writable
        active.writers -= writable
        if active.via is not None:
            table, theirs = active.via
            table.release(theirs, writable=writable)
        else:
            self.domain.hw.put_ref(active.mfn, writable=writable)
        if active.readers + active.writers == 0:
            del self.active[ref]
        self._clear_status(ref)

    def _clear_status(self, ref: int) -> None:
        """Takes back GTF_reading and GTF_writing where nobody reads or writes any more."""
        active = self.active.get(ref)
        at = self._status_maddr(ref)
        if active is None or active.writers == 0:
            self.domain.host.shared.test_and_clear_bit(at, WRITING_BIT)
        if active is None:
            self.domain.host.shared.test_and_clear_bit(at, READING_BIT)

    def release_all(self) -> None:
        """The domain is being destroyed: nobody uses its grants any more."""
        for active in self.active.values():
            if active.via is None:
                for _ in range(active.readers):
                    self.domain.hw.put_ref(active.mfn, writable=False)
                for _ in range(active.writers):
                    self.domain.hw.put_ref(active.mfn, writable=True)
        self.active.clear()
        self.backends.clear()

    # --- the table itself

    def swap(self, ref_a: int, ref_b: int) -> None:
        """GNTTABOP_swap_grant_ref.

        :raises GrantError: bad_gntref, eagain for a grant in use.
        """
        places = [(self._entry_maddr(ref_a), self._entry_maddr(ref_b), ENTRY_SIZES[self.version])]
        if ref_a == ref_b:
            return
        if ref_a in self.active or ref_b in self.active:
            raise GrantError(GntStatus.GNTST_eagain)
        if self.version == 2:
            places.append((self._status_maddr(ref_a), self._status_maddr(ref_b), 2))
        memory = self.domain.host.memory
        for at_a, at_b, size in places:
            a, b = bytes(memory[at_a : at_a + size]), bytes(memory[at_b : at_b + size])
            memory[at_a : at_a + size] = b
            memory[at_b : at_b + size] = a

    def set_version(self, version: int) -> None:
        """GNTTABOP_set_version: all entries but the reserved ones are cleared.

        :raises XenError: EBUSY when another than a reserved entry is in use, or the guest still maps the status frames;
            ERANGE when a reserved entry cannot be said in version 1; ENOMEM.
        """
        if version == self.version:
            return
        if any(ref >= GNTTAB_NR_RESERVED_ENTRIES for ref in self.active):
            raise XenError(Errno.EBUSY)
        if version == 2:
            self._to_version_2()
        else:
            self._to_version_1()

    def _reserved(self) -> bytes:
        """The reserved entries, as version 1 has them."""
        at = self._entry_maddr(0)
        size = ENTRY_SIZES[self.version] * GNTTAB_NR_RESERVED_ENTRIES
        data = bytes(self.domain.host.memory[at : at + size])
        if self.version == 1:
            return data
        out = b""
        for ref in range(GNTTAB_NR_RESERVED_ENTRIES):
            entry = grant_entry_v2.from_buffer_copy(data, ref * ENTRY_SIZES[2])
            kind = entry.hdr.flags & GTF_type_mask
            if kind == Gtf.GTF_transitive or (kind == Gtf.GTF_permit_access and entry.full_page.frame >> 32):
                raise XenError(Errno.ERANGE)
            if kind != Gtf.GTF_permit_access:
                out += bytes(ENTRY_SIZES[1])
                continue
            status = self.domain.host.shared.u16(self._status_maddr(ref))
            out += struct.pack("<HHI", entry.hdr.flags | status, entry.hdr.domid, entry.full_page.frame)
        return out

    def _to_version_1(self) -> None:
        reserved = self._reserved()
        if any(self.domain.host.machine.frame_info(mfn).refs > 1 for mfn in self.status_frames):
            raise XenError(Errno.EBUSY)
        self._spare_status += self.status_frames
        self.status_frames = []
        self.version = 1
        self._clear(self.frames)
        self.domain.host.shared.write(self._entry_maddr(0), reserved)

    def _to_version_2(self) -> None:
        reserved = self._reserved()
        try:
            self._grow_status()
        except GrantError:
            raise XenError(Errno.ENOMEM) from None
        self.version = 2
        self._clear(self.frames)
        shared = self.domain.host.shared
        for ref, (flags, domid, frame) in enumerate(struct.iter_unpack("<HHI", reserved)):
            entry = struct.pack("<HHIQ", flags & ~_IN_USE, domid, 0, frame)
            shared.write(self._entry_maddr(ref), entry)
            shared.write(self._status_maddr(ref), struct.pack("<H", flags & _IN_USE))


def take_frame(domain: GrantDomain, mfn: int, *, writable: bool) -> None:
    """A reference on a frame of `domain`.

    :raises GrantError: bad_page when it is not the domain's, general_error when it cannot be had writable.
    """
    try:
        domain.hw.get_ref(mfn, writable=writable)
    except XenRefused:
        raise GrantError(_why_not(domain, mfn, writable=writable)) from None


def _why_not(domain: GrantDomain, mfn: int, *, writable: bool) -> GntStatus:
    """general_error for a frame that can be had only to be read."""
    try:
        domain.hw.get_ref(mfn, writable=False)
    except XenRefused:
        return GntStatus.GNTST_bad_page
    domain.hw.put_ref(mfn, writable=False)
    return GntStatus.GNTST_general_error if writable else GntStatus.GNTST_bad_page


def map_backend(domain: GrantDomain, ref: int, *, writable: bool, domid: int = 0) -> memoryview:
    """Maps a frame that `domain` has granted to `domid`, for host code that acts for that domain.

    :raises GrantError: when there is no such grant.
    """
    with domain.host.lock:
        active = domain.grants.acquire(ref, domid, writable=writable)
        domain.grants.backends[ref, writable] += 1
        domain.hw.host_mapped(active.mfn)
        view = domain.host.memory[active.mfn * PAGE_SIZE : (active.mfn + 1) * PAGE_SIZE]
        return view if writable else view.toreadonly()


def unmap_backend(domain: GrantDomain, ref: int, *, writable: bool) -> None:
    """Ends what `map_backend` began. Does nothing when the domain is gone."""
    with domain.host.lock:
        if domain.grants.backends[ref, writable]:
            domain.grants.backends[ref, writable] -= 1
            domain.grants.release(ref, writable=writable)
