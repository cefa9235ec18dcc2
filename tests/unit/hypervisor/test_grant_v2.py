# SPDX-License-Identifier: Apache-2.0
"""Grants of version 2: status apart from the entries, parts of pages, transitive grants, and the way there and back."""

import struct
from typing import Any

import pytest
from grant_calls import SELF, copy_arg, gnttab, map_ref, unmap_ref
from real_host import make_domain

from domzero.abi import grant_table as abi
from domzero.abi.errno import Errno
from domzero.abi.grant_table import GntCopy, GntStatus, GrantTableOp, Gtf
from domzero.hypervisor.domain import Limits
from domzero.hypervisor.grant import map_backend, unmap_backend

READ, WRITE = int(Gtf.GTF_reading), int(Gtf.GTF_writing)


def set_version(vcpu: Any, version: int) -> tuple[int, int]:
    rc, [arg] = gnttab(vcpu, GrantTableOp.GNTTABOP_set_version, abi.gnttab_set_version(version))
    return rc, arg.version


def write(domain: Any, ref: int, entry: bytes) -> None:
    domain.host.machine.write(domain.grants.hw.entry_maddr(ref), entry)


def full(domid: int, mfn: int, flags: int = 1) -> bytes:
    return struct.pack("<HHIQ", flags, domid, 0, mfn)


def part(domid: int, mfn: int, start: int, length: int) -> bytes:
    return struct.pack("<HHHHQ", Gtf.GTF_permit_access | Gtf.GTF_sub_page, domid, start, length, mfn)


def transitive(domid: int, other: int, ref: int) -> bytes:
    return struct.pack("<HHHHIxxxx", Gtf.GTF_transitive, domid, other, 0, ref)


def status(domain: Any, ref: int) -> int:
    return int(domain.host.shared.u16(domain.grants.hw.status_maddr(ref)))


@pytest.fixture
def owner(host: Any, domain: Any) -> Any:
    """Another domain, with a version 2 table."""
    other = make_domain(host)
    other.grants.set_version(2)
    return other


def copy_from(vcpu: Any, domid: int, ref: int, offset: int, length: int) -> tuple[int, bytes]:
    va = vcpu.hw.place(b"")
    mfn = (va - vcpu.hw.va_base) // 4096
    arg = copy_arg((ref, domid, offset), (mfn, SELF, 0), length, GntCopy.GNTCOPY_source_gref)
    rc, [result] = gnttab(vcpu, GrantTableOp.GNTTABOP_copy, arg)
    assert rc == 0
    return result.status, vcpu.hw.peek(va, length)


def test_the_version_is_told_whether_or_not_it_could_be_changed(vcpu: Any) -> None:
    assert set_version(vcpu, 2) == (0, 2)
    assert set_version(vcpu, 2) == (0, 2)
    assert set_version(vcpu, 3) == (-Errno.EINVAL, 2)
    rc, [arg] = gnttab(vcpu, GrantTableOp.GNTTABOP_get_version, abi.gnttab_get_version(SELF))
    assert (rc, arg.version) == (0, 2)
    assert set_version(vcpu, 1) == (0, 1)
    assert gnttab(vcpu, GrantTableOp.GNTTABOP_get_version, abi.gnttab_get_version(999))[0] == -Errno.ESRCH


def test_a_domain_that_is_limited_to_version_one_is_as_before_there_were_versions(host: Any) -> None:
    vcpu = make_domain(host, limits=Limits(grant_version=1)).vcpus[0]
    assert set_version(vcpu, 2) == (-Errno.ENOSYS, 1)
    assert set_version(vcpu, 3) == (-Errno.EINVAL, 1)
    assert set_version(vcpu, 1) == (0, 1)


def test_only_version_two_has_status_frames(domain: Any, vcpu: Any) -> None:
    def ask(count: int, va: int) -> int:
        arg = abi.gnttab_get_status_frames(count, SELF, 0, va)
        rc, [result] = gnttab(vcpu, GrantTableOp.GNTTABOP_get_status_frames, arg)
        assert rc == 0
        return int(result.status)

    va = vcpu.hw.place(b"")
    assert ask(0, va) == 0
    assert ask(1, va) == GntStatus.GNTST_general_error
    domain.grants.grow(9)
    set_version(vcpu, 2)
    assert ask(2, va) == 0
    assert list(struct.unpack("<2Q", vcpu.hw.peek(va, 16))) == domain.grants.status_frames
    assert ask(3, va) == GntStatus.GNTST_general_error
    assert ask(1, 0x1000) == GntStatus.GNTST_bad_virt_addr


def test_version_two_has_half_as_many_entries_per_frame(domain: Any, vcpu: Any) -> None:
    set_version(vcpu, 2)
    assert domain.grants.entries == 256
    rc, [arg] = gnttab(vcpu, GrantTableOp.GNTTABOP_setup_table, abi.gnttab_setup_table(SELF, 64, 0, vcpu.hw.place(b"")))
    assert (rc, arg.status, domain.grants.entries, len(domain.grants.status_frames)) == (0, 0, 64 * 256, 8)


def test_a_mapping_is_shown_in_the_status_and_not_in_the_entry(owner: Any, domain: Any, vcpu: Any) -> None:
    (frame,) = owner.hw.alloc(1)
    write(owner, 20, full(domain.domid, frame))
    mapped = map_ref(vcpu, owner.domid, 20)
    assert (mapped.status, mapped.dev_bus_addr) == (0, frame << 12)
    assert owner.grants.entry(20).hdr.flags == Gtf.GTF_permit_access
    assert status(owner, 20) == READ | WRITE
    assert unmap_ref(vcpu, mapped.handle) == 0
    assert status(owner, 20) == 0
    assert owner.hw.outside_refs() == []


@pytest.mark.parametrize("kind", ["part", "transitive", "nothing"])
def test_what_is_no_whole_page_cannot_be_mapped(owner: Any, domain: Any, vcpu: Any, kind: str) -> None:
    (frame,) = owner.hw.alloc(1)
    entries = {
        "part": part(domain.domid, frame, 0, 4096),
        "transitive": transitive(domain.domid, 1, 9),
        "nothing": full(domain.domid, frame, 0),
    }
    write(owner, 20, entries[kind])
    assert map_ref(vcpu, owner.domid, 20).status == GntStatus.GNTST_general_error
    assert (status(owner, 20), owner.hw.outside_refs()) == (0, [])


def test_only_the_granted_part_of_a_page_can_be_copied(owner: Any, domain: Any, vcpu: Any) -> None:
    (frame,) = owner.hw.alloc(1)
    owner.host.machine.write(frame * 4096 + 100, b"part")
    write(owner, 20, part(domain.domid, frame, 100, 4))
    assert copy_from(vcpu, owner.domid, 20, 100, 4) == (0, b"part")
    for offset, length in ((99, 4), (101, 4), (0, 1), (104, 1)):
        assert copy_from(vcpu, owner.domid, 20, offset, length)[0] == GntStatus.GNTST_general_error
    assert copy_from(vcpu, owner.domid, 20, 4090, 7)[0] == GntStatus.GNTST_bad_copy_arg
    assert (status(owner, 20), owner.hw.outside_refs()) == (0, [])


@pytest.fixture
def third(host: Any, owner: Any) -> Any:
    """A domain that grants reference 30 to `owner`, which grants it on as its reference 20 to domain 1."""
    third = make_domain(host)
    (frame,) = third.hw.alloc(1)
    third.host.machine.write(frame * 4096, b"third domain")
    third.host.machine.write(third.grants.hw.entry_maddr(30), struct.pack("<HHI", 1, owner.domid, frame))
    write(owner, 20, transitive(1, third.domid, 30))
    return third


def test_a_transitive_grant_gives_what_the_third_domain_has_granted(third: Any, owner: Any, vcpu: Any) -> None:
    assert copy_from(vcpu, owner.domid, 20, 0, 12) == (0, b"third domain")
    assert (status(owner, 20), owner.grants.active, third.grants.active) == (0, {}, {})
    assert third.grants.entry(30).flags == Gtf.GTF_permit_access
    assert third.hw.outside_refs() == owner.hw.outside_refs() == []


def test_a_transitive_grant_leads_no_further_than_one_step(third: Any, owner: Any, vcpu: Any) -> None:
    third.grants.set_version(2)
    write(third, 30, transitive(owner.domid, 1, 8))
    assert copy_from(vcpu, owner.domid, 20, 0, 4)[0] == GntStatus.GNTST_general_error
    write(owner, 20, transitive(1, owner.domid, 21))
    assert copy_from(vcpu, owner.domid, 20, 0, 4)[0] == GntStatus.GNTST_general_error
    write(owner, 20, transitive(1, 999, 21))
    assert copy_from(vcpu, owner.domid, 20, 0, 4)[0] == GntStatus.GNTST_general_error
    assert (status(owner, 20), status(third, 30)) == (0, 0)


def test_an_end_of_the_third_domain_ends_a_transitive_grant(host: Any, third: Any, owner: Any, vcpu: Any) -> None:
    host.destroy_domain(third)
    assert copy_from(vcpu, owner.domid, 20, 0, 4)[0] == GntStatus.GNTST_general_error


def test_the_version_cannot_change_while_an_ordinary_entry_is_in_use(domain: Any, vcpu: Any) -> None:
    (mfn,) = domain.hw.alloc(1)
    domain.host.machine.write(domain.grants.hw.entry_maddr(8), struct.pack("<HHI", 1, 0, mfn))
    map_backend(domain, 8, writable=False)
    assert set_version(vcpu, 2) == (-Errno.EBUSY, 1)
    unmap_backend(domain, 8, writable=False)
    assert set_version(vcpu, 2) == (0, 2)


def test_reserved_entries_survive_changes_of_version_also_in_use(domain: Any, vcpu: Any) -> None:
    (mfn,) = domain.hw.alloc(1)
    domain.grants.seed(1, mfn)
    map_backend(domain, 1, writable=True)
    assert set_version(vcpu, 2) == (0, 2)
    assert domain.grants.entry(1).full_page.frame == mfn
    assert (domain.grants.entry(1).hdr.flags, status(domain, 1)) == (Gtf.GTF_permit_access, READ | WRITE)
    assert set_version(vcpu, 1) == (0, 1)
    assert domain.grants.entry(1).flags == Gtf.GTF_permit_access | READ | WRITE
    unmap_backend(domain, 1, writable=True)
    assert domain.grants.entry(1).flags == Gtf.GTF_permit_access
    assert domain.hw.outside_refs() == []


def test_other_entries_are_gone_after_a_change_of_version(domain: Any, vcpu: Any) -> None:
    domain.host.machine.write(domain.grants.hw.entry_maddr(8), b"\xff" * 8)
    set_version(vcpu, 2)
    assert bytes(domain.grants.entry(8)) == bytes(16)


@pytest.mark.parametrize("entry", [full(0, 1 << 32), transitive(0, 1, 2)])
def test_a_reserved_entry_that_version_one_cannot_say_keeps_version_two(domain: Any, vcpu: Any, entry: bytes) -> None:
    set_version(vcpu, 2)
    write(domain, 7, entry)
    assert set_version(vcpu, 1) == (-Errno.ERANGE, 2)


def test_status_frames_that_are_mapped_keep_version_two_and_are_used_again(host: Any, domain: Any, vcpu: Any) -> None:
    set_version(vcpu, 2)
    (frame,) = domain.grants.status_frames
    vcpu.hw.map(0x7000, frame)
    assert set_version(vcpu, 1) == (-Errno.EBUSY, 2)
    vcpu.hw.update_va_mapping(0x7000, 0, 0)
    host.machine.write(frame * 4096, b"\xff" * 4096)
    assert set_version(vcpu, 1) == (0, 1)
    assert set_version(vcpu, 2) == (0, 2)
    assert domain.grants.status_frames == [frame]
    assert host.machine.read(frame * 4096, 4096) == bytes(4096)


def test_swap_takes_the_status_along(domain: Any, vcpu: Any) -> None:
    set_version(vcpu, 2)
    write(domain, 9, full(3, 77))
    domain.host.machine.write(domain.grants.hw.status_maddr(9), b"\x18\0")
    _, [arg] = gnttab(vcpu, GrantTableOp.GNTTABOP_swap_grant_ref, abi.gnttab_swap_grant_ref(9, 10))
    assert (arg.status, domain.grants.entry(10).full_page.frame, status(domain, 10), status(domain, 9)) == (
        0,
        77,
        24,
        0,
    )
