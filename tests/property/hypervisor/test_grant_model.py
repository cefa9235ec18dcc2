# SPDX-License-Identifier: Apache-2.0
"""Grants of three domains, both versions: whatever they write, map, copy and destroy, nobody gets more than was granted
and the books are right."""

import os
import struct
from typing import Any

import fakes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from domzero.abi import grant_table as abi
from domzero.abi.grant_table import GntMap, Gtf
from domzero.hypervisor.errors import GrantError, XenError
from domzero.hypervisor.grant import map_backend, unmap_backend

DOMAINS = st.integers(0, 2)
REFS = st.sampled_from([1, 8, 9, 255, 256])
STARTS = st.sampled_from([0, 100, 0xFFFF])
FLAGS = st.sampled_from([0, 1, 1, 1, 2, 3, 5, 0x101])
MAPS = st.sampled_from([1, 2, 3, 2 | 4, 3 | 4])
EXAMPLES = int(os.environ.get("DOMZERO_MODEL_EXAMPLES", "0"))


class GrantMachine(RuleBasedStateMachine):
    """The model: what every entry says now, and what it said when its present use began."""

    handles = Bundle("handles")
    backends = Bundle("backends")
    copies = Bundle("copies")

    def __init__(self) -> None:
        super().__init__()
        self.host = fakes.make_host(1024)
        self.host.lock.acquire()
        self.domains: list[Any] = [None] * 3
        self.mfns: list[list[int]] = [[]] * 3
        for d in range(3):
            self.make(d)

    def make(self, d: int) -> None:
        self.domains[d] = fakes.make_domain(self.host, domid=d + 1)
        self.mfns[d] = self.domains[d].hw.alloc(3)
        self.domains[d].hw.page_tables.add(self.mfns[d][2])

    def teardown(self) -> None:
        for domain in self.domains:
            self.host.destroy_domain(domain)
            assert domain.hw.refs == {}
        self.host.close()
        self.host.lock.release()

    # --- the granter

    @rule(
        d=DOMAINS, ref=REFS, to=DOMAINS, frame=st.integers(0, 8), flags=FLAGS, start=st.sampled_from([0, 100, 0xFFFF])
    )
    def write_entry(self, d: int, ref: int, to: int, frame: int, flags: int, start: int) -> None:
        table = self.domains[d].grants
        if ref >= table.entries:
            return
        mfn = self.mfns[frame // 3][frame % 3]
        entry = struct.pack("<HHI", flags, to + 1, mfn)
        if table.version == 2:
            if flags & Gtf.GTF_transitive == Gtf.GTF_transitive:
                entry = struct.pack("<HHHHIxxxx", flags, to + 1, frame // 3 + 1, 0, 8 + frame % 3)
            else:
                entry = struct.pack("<HHHHQ", flags, to + 1, start, 200, mfn)
        self.host.machine.write(table._entry_maddr(ref), entry)

    @rule(d=DOMAINS, version=st.integers(1, 2))
    def set_version(self, d: int, version: int) -> None:
        table = self.domains[d].grants
        before = table.version
        try:
            table.set_version(version)
        except XenError:
            assert table.version == before
        else:
            assert table.version == version

    @rule(d=DOMAINS, a=REFS, b=REFS)
    def swap(self, d: int, a: int, b: int) -> None:
        try:
            self.domains[d].grants.swap(a, b)
        except GrantError:
            return
        assert a == b or not {a, b} & self.domains[d].grants.active.keys()

    def permitted(self, d: int, ref: int, to: int, *, writable: bool) -> tuple[int, ...]:
        """Frames that may come of a use of this grant, from the entry and from the uses that there are."""
        table = self.domains[d].grants
        if ref >= table.entries:
            return ()
        active = table.active.get(ref)
        if active is not None:
            return (active.mfn,) if active.domid == to + 1 else ()
        entry = table.entry(ref)
        flags, domid = struct.unpack_from("<HH", bytes(entry))
        if domid != to + 1 or flags & 3 == 0 or flags & 3 == 2 or (writable and flags & Gtf.GTF_readonly):
            return ()
        if flags & 3 == Gtf.GTF_transitive:
            return tuple(mfn for mfns in self.mfns for mfn in mfns) if table.version == 2 else ()
        return (entry.frame if table.version == 1 else entry.full_page.frame,)

    # --- the user

    @rule(target=handles, d=DOMAINS, owner=DOMAINS, ref=REFS, flags=MAPS)
    def map(self, d: int, owner: int, ref: int, flags: int) -> Any:
        domain = self.domains[d]
        allowed = self.permitted(owner, ref, d, writable=not flags & GntMap.GNTMAP_readonly)
        arg = abi.gnttab_map_grant_ref(0x5000, flags, ref, owner + 1)
        try:
            domain.maptrack.map(domain.vcpus[0].hw, arg)
        except GrantError:
            return multiple()
        mfn = arg.dev_bus_addr >> 12
        assert mfn in allowed
        assert mfn in self.mfns[owner]
        return domain, arg.handle, arg.dev_bus_addr

    @rule(item=consumes(handles), half=st.booleans())
    def unmap(self, item: Any, half: bool) -> None:
        domain, handle, bus = item
        if domain not in self.domains:
            return
        if half:
            domain.maptrack.unmap(domain.vcpus[0].hw, handle, host_addr=0x5000)
            if handle not in domain.maptrack.mappings:
                return
        domain.maptrack.unmap(domain.vcpus[0].hw, handle, host_addr=0x5000, dev_bus_addr=bus)
        assert handle not in domain.maptrack.mappings

    @rule(target=backends, owner=DOMAINS, ref=REFS, writable=st.booleans(), d=DOMAINS)
    def map_backend(self, owner: int, ref: int, writable: bool, d: int) -> Any:
        try:
            map_backend(self.domains[owner], ref, writable=writable, domid=d + 1)
        except GrantError:
            return multiple()
        return self.domains[owner], ref, writable

    @rule(item=consumes(backends))
    def unmap_backend(self, item: Any) -> None:
        unmap_backend(item[0], item[1], writable=item[2])

    @rule(d=DOMAINS, owner=DOMAINS, ref=REFS, writable=st.booleans())
    def copy(self, d: int, owner: int, ref: int, writable: bool) -> None:
        allowed = self.permitted(owner, ref, d, writable=writable)
        grants = self.domains[owner].grants
        try:
            active = grants.acquire(ref, d + 1, writable=writable, copy=True)
        except GrantError:
            return
        assert active.mfn in allowed
        assert not (writable and active.mfn in (mfns[2] for mfns in self.mfns))
        try:
            grants.acquire(ref, d + 1, writable=not writable, copy=True)
        except GrantError:
            pass
        else:
            grants.release(ref, writable=not writable)
        grants.release(ref, writable=writable)

    @rule(d=DOMAINS)
    def destroy_and_make_another(self, d: int) -> None:
        self.host.destroy_domain(self.domains[d])
        self.make(d)

    @invariant()
    def the_books_are_right(self) -> None:
        assert self.host.audit() == []

    @invariant()
    def what_is_not_used_is_not_shown_as_used(self) -> None:
        for domain in self.domains:
            for ref in (1, 8, 9, 255, 256):
                if ref < domain.grants.entries and ref not in domain.grants.active and domain.grants.version == 2:
                    at = domain.grants._status_maddr(ref)
                    assert self.host.shared.u16(at) & (Gtf.GTF_reading | Gtf.GTF_writing) == 0


TestGrants = GrantMachine.TestCase
TestGrants.settings = settings(max_examples=EXAMPLES or 40, stateful_step_count=40, deadline=None)
