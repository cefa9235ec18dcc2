"""Grant tables, version 1: frames a domain lets others use."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from domzero import _machine
from domzero.abi.grant_table import GNTTAB_NR_RESERVED_ENTRIES, GntStatus, Gtf, GTF_type_mask, grant_entry_v1
from domzero.abi.layout import sizeof
from domzero.abi.xen import DOMID_SELF, PAGE_SIZE

if TYPE_CHECKING:
    from domzero.hypervisor.domain import Domain

MAX_GRANT_FRAMES = 64
"""What Xen allows a domain by default."""
ENTRY_SIZE = sizeof(grant_entry_v1)
ENTRIES_PER_FRAME = PAGE_SIZE // ENTRY_SIZE
MAX_RETRIES = 5


class GrantError(Exception):
    """A grant cannot be used; the status goes into the operation's `status` field."""

    def __init__(self, status: GntStatus) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(slots=True)
class Active:
    """A grant that is in use."""

    domid: int
    mfn: int
    readers: int = 0
    writers: int = 0


class GrantTable:
    """One domain's grants. Every method needs `host.lock`."""

    def __init__(self, domain: "Domain") -> None:
        self.domain = domain
        self.version = 1
        self.max_frames = MAX_GRANT_FRAMES
        self.frames: list[int] = []
        self.active: dict[int, Active] = {}
        self.grow(1)

    @property
    def entries(self) -> int:
        """How many entries the table has now."""
        return len(self.frames) * ENTRIES_PER_FRAME

    def grow(self, frames: int) -> None:
        """Makes the table at least `frames` frames large.

        :raises GrantError: general_error, when that is more than allowed or there is no memory.
        """
        if frames > self.max_frames:
            raise GrantError(GntStatus.GNTST_general_error)
        if frames > len(self.frames):
            try:
                new = self.domain.hw.share_hypervisor_frames(frames - len(self.frames))
            except _machine.MachineError:
                raise GrantError(GntStatus.GNTST_general_error) from None
            for mfn in new:
                self.domain.hw.host_mapped(mfn)
            self.frames.extend(new)

    def _entry_maddr(self, ref: int) -> int:
        if not 0 <= ref < self.entries:
            raise GrantError(GntStatus.GNTST_bad_gntref)
        return self.frames[ref // ENTRIES_PER_FRAME] * PAGE_SIZE + ref % ENTRIES_PER_FRAME * ENTRY_SIZE

    def entry(self, ref: int) -> grant_entry_v1:
        """A copy of entry `ref`."""
        at = self._entry_maddr(ref)
        return grant_entry_v1.from_buffer_copy(self.domain.host.memory[at : at + ENTRY_SIZE])

    def seed(self, ref: int, mfn: int, domid: int = 0) -> None:
        """Fills in a reserved entry before the guest starts: the toolstack grants the store and console rings.

        :param ref: GNTTAB_RESERVED_CONSOLE or GNTTAB_RESERVED_XENSTORE.
        """
        if not 0 <= ref < GNTTAB_NR_RESERVED_ENTRIES:
            raise ValueError(f"not a reserved grant reference: {ref}")
        entry = struct.pack("<HHI", Gtf.GTF_permit_access, domid, mfn)
        self.domain.host.shared.write(self._entry_maddr(ref), entry)

    # --- using grants

    def acquire(self, ref: int, domid: int, *, writable: bool) -> Active:
        """Domain `domid` begins to use grant `ref`: the entry is checked and marked as in use.

        The frame number is read once: a guest that alters the entry while it is in use changes nothing.

        :raises GrantError: what goes into `status`.
        """
        at = self._entry_maddr(ref)
        shared = self.domain.host.shared
        wanted = Gtf.GTF_reading | (Gtf.GTF_writing if writable else Gtf.GTF_invalid)
        for _ in range(MAX_RETRIES):
            word = shared.u32(at)
            flags, granted_to = word & 0xFFFF, word >> 16
            if flags & GTF_type_mask != Gtf.GTF_permit_access or granted_to != domid or flags & Gtf.GTF_sub_page:
                raise GrantError(GntStatus.GNTST_bad_gntref)
            if writable and flags & Gtf.GTF_readonly:
                raise GrantError(GntStatus.GNTST_bad_gntref)
            if shared.compare_exchange_u32(at, word, word | wanted) == word:
                break
        else:
            raise GrantError(GntStatus.GNTST_general_error)
        active = self.active.get(ref)
        if active is not None and active.domid != domid:
            raise GrantError(GntStatus.GNTST_general_error)  # the entry was rewritten while another domain uses it
        fresh = active is None
        if active is None:
            active = self.active[ref] = Active(domid, shared.u32(at + 4))
        if self.domain.hw.get_ref(active.mfn, writable=writable):
            if fresh:
                del self.active[ref]
            self._clear_flags(ref, self.active.get(ref))
            raise GrantError(GntStatus.GNTST_bad_page)
        active.readers += not writable
        active.writers += writable
        return active

    def release(self, ref: int, *, writable: bool) -> None:
        """Ends one use of a grant."""
        active = self.active[ref]
        active.readers -= not writable
        active.writers -= writable
        self.domain.hw.put_ref(active.mfn, writable=writable)
        if active.readers + active.writers == 0:
            del self.active[ref]
        self._clear_flags(ref, self.active.get(ref))

    def _clear_flags(self, ref: int, active: Active | None) -> None:
        """Takes back GTF_reading and GTF_writing where nobody reads or writes any more."""
        shared = self.domain.host.shared
        clear = 0
        if active is None:
            clear = Gtf.GTF_reading | Gtf.GTF_writing
        elif active.writers == 0:
            clear = Gtf.GTF_writing
        at = self._entry_maddr(ref)
        while clear:
            word = shared.u32(at)
            if shared.compare_exchange_u32(at, word, word & ~clear & 0xFFFFFFFF) == word:
                return

    def release_all(self) -> None:
        """The domain is being destroyed: nobody uses its grants any more."""
        for active in self.active.values():
            for _ in range(active.readers):
                self.domain.hw.put_ref(active.mfn, writable=False)
            for _ in range(active.writers):
                self.domain.hw.put_ref(active.mfn, writable=True)
        self.active.clear()

    def swap(self, ref_a: int, ref_b: int) -> None:
        """GNTTABOP_swap_grant_ref."""
        at_a, at_b = self._entry_maddr(ref_a), self._entry_maddr(ref_b)
        if ref_a == ref_b:
            return
        if ref_a in self.active or ref_b in self.active:
            raise GrantError(GntStatus.GNTST_eagain)
        memory = self.domain.host.memory
        a, b = bytes(memory[at_a : at_a + ENTRY_SIZE]), bytes(memory[at_b : at_b + ENTRY_SIZE])
        memory[at_a : at_a + ENTRY_SIZE] = b
        memory[at_b : at_b + ENTRY_SIZE] = a


def domain_by_id(domain: "Domain", domid: int) -> "Domain":
    """The domain `domid` means for `domain`.

    :raises GrantError: bad_domain.
    """
    found = domain if domid == DOMID_SELF else domain.host.domains.get(domid)
    if found is None:
        raise GrantError(GntStatus.GNTST_bad_domain)
    return found


def map_backend(domain: "Domain", ref: int, *, writable: bool, domid: int = 0) -> memoryview:
    """Maps a frame that `domain` has granted to `domid`, for host code that acts for that domain.

    :raises GrantError: when there is no such grant.
    """
    with domain.host.lock:
        active = domain.grants.acquire(ref, domid, writable=writable)
        domain.hw.host_mapped(active.mfn)
        view = domain.host.memory[active.mfn * PAGE_SIZE : (active.mfn + 1) * PAGE_SIZE]
        return view if writable else view.toreadonly()


def unmap_backend(domain: "Domain", ref: int, *, writable: bool) -> None:
    """Ends what `map_backend` began. Does nothing when the domain is gone."""
    with domain.host.lock:
        if ref in domain.grants.active:
            domain.grants.release(ref, writable=writable)
