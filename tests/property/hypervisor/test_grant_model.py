# SPDX-License-Identifier: Apache-2.0
"""Grants of three domains, both versions: whatever they write, map, copy and destroy, nobody gets more than was granted
and the books are right."""

import itertools
import os
import struct
from typing import Any

import real_host
from grant_calls import SELF, copy_arg, gnttab, map_ref, unmap_ref
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from domzero.abi.grant_table import GntCopy, GntMap, GrantTableOp, Gtf
from domzero.hypervisor.errors import GrantError, XenError
from domzero.hypervisor.grant import map_backend, unmap_backend

DOMAINS = st.integers(0, 2)
REFS = st.sampled_from([1, 8, 9, 255, 256])
STARTS = st.sampled_from([0, 100, 0xFFFF])
FLAGS = st.sampled_from([0, 1, 1, 1, 2, 3, 5, 0x101])
MAPS = st.sampled_from([1, 2, 3, 2 | 4, 3 | 4])
PAGE = real_host.PAGE
OWN = b"the own page" * 20
EXAMPLES = int(os.environ.get("DOMZERO_MODEL_EXAMPLES", "0"))


class GrantMachine(RuleBasedStateMachine):
    """The model: what every entry says now, and what it said when its present use began."""

    handles = Bundle("handles")
    backends = Bundle("backends")
    copies = Bundle("copies")

    def __init__(self) -> None:
        super().__init__()
        self.host = real_host.make_host(1)
        self.host.lock.acquire()
        self.addresses = itertools.count()
        self.domains: list[Any] = [None] * 3
        self.mfns: list[list[int]] = [[]] * 3
        for d in range(3):
            self.make(d)

    def make(self, d: int) -> None:
        self.domains[d] = real_host.make_domain(self.host, domid=d + 1)
        self.mfns[d] = self.domains[d].hw.alloc(3)
        for mfn in self.mfns[d][:2]:
            self.host.machine.write(mfn * PAGE, mfn.to_bytes(8, "little") * (PAGE // 8))
        self.domains[d].vcpus[0].hw.pin_l1(self.mfns[d][2])

    def teardown(self) -> None:
        for domain in self.domains:
            self.host.destroy_domain(domain)
            assert domain.hw.outside_refs() == []
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
        self.host.machine.write(table.hw.entry_maddr(ref), entry)

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
        address = (1 + next(self.addresses) % 500) * PAGE
        vcpu = domain.vcpus[0]
        if vcpu.hw.entry(address):
            return multiple()
        arg = map_ref(vcpu, owner + 1, ref, flags, address)
        if arg.status:
            return multiple()
        mfn = arg.dev_bus_addr >> 12
        assert mfn in allowed
        assert mfn in self.mfns[owner]
        if flags & GntMap.GNTMAP_host_map:
            assert vcpu.hw.entry(address) >> 12 == mfn
        return domain, arg.handle, address, arg.dev_bus_addr

    @rule(item=consumes(handles), half=st.booleans())
    def unmap(self, item: Any, half: bool) -> None:
        domain, handle, address, bus = item
        if domain not in self.domains:
            return
        vcpu = domain.vcpus[0]
        if half:
            assert unmap_ref(vcpu, handle, address) == 0
            if handle not in domain.grants.mappings:
                return
        assert unmap_ref(vcpu, handle, address, bus) == 0
        assert handle not in domain.grants.mappings
        assert vcpu.hw.entry(address) == 0

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
        """One page of the domain is the other end: what is read says which frame it comes from."""
        allowed = self.permitted(owner, ref, d, writable=writable)
        vcpu = self.domains[d].vcpus[0]
        own = vcpu.hw.place(OWN)
        end = ((own - vcpu.hw.va_base) // PAGE, SELF, 104)
        granted, flag = (ref, owner + 1, 104), GntCopy.GNTCOPY_source_gref
        arg = copy_arg(granted, end, 8, flag)
        if writable:
            arg = copy_arg(end, granted, 8, GntCopy.GNTCOPY_dest_gref)
        before = {mfn: self.host.machine.read(mfn * PAGE + 104, 8) for mfn in allowed}
        _, [result] = gnttab(vcpu, GrantTableOp.GNTTABOP_copy, arg)
        tables = {mfns[2] for mfns in self.mfns}
        if result.status or writable:
            assert vcpu.hw.peek(own + 104, 8) == OWN[104:112]
        else:
            assert vcpu.hw.peek(own + 104, 8) in before.values()
        changed = {mfn for mfn in allowed if self.host.machine.read(mfn * PAGE + 104, 8) != before[mfn]}
        assert len(changed) <= (writable and not result.status)
        assert not changed & tables
        for mfn in changed:
            self.host.machine.write(mfn * PAGE + 104, before[mfn])
        vcpu.hw.unplace(own)

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
                    at = domain.grants.hw.status_maddr(ref)
                    assert self.host.shared.u16(at) & (Gtf.GTF_reading | Gtf.GTF_writing) == 0


TestGrants = GrantMachine.TestCase
TestGrants.settings = settings(max_examples=EXAMPLES or 40, stateful_step_count=40, deadline=None)
