# SPDX-License-Identifier: Apache-2.0
"""Grants: grant_table_op as a guest sees it, and backends that map what was granted."""

import struct
from typing import Any

import pytest
from fakes import hypercall
from grant_calls import SELF, copy_arg, gnttab, map_ref, unmap_ref
from real_host import make_domain

from domzero.abi import grant_table as abi
from domzero.abi.errno import Errno
from domzero.abi.grant_table import GntCopy, GntStatus, GrantTableOp, Gtf
from domzero.abi.xen import Hypercall
from domzero.hypervisor.domain import Limits
from domzero.hypervisor.errors import GrantError
from domzero.hypervisor.grant import map_backend, unmap_backend


def grant(domain: Any, ref: int, domid: int, mfn: int, flags: int = Gtf.GTF_permit_access) -> None:
    at = domain.grants.hw.entry_maddr(ref)
    domain.host.machine.write(at, struct.pack("<HHI", flags, domid, mfn))


def flags_of(domain: Any, ref: int) -> int:
    return int(domain.grants.entry(ref).flags)


@pytest.fixture
def mfn(domain: Any) -> int:
    return int(domain.hw.alloc(1)[0])


def test_setup_table_grows_the_table_and_tells_its_frames(domain: Any, vcpu: Any) -> None:
    frames = vcpu.hw.place(b"")
    rc, [arg] = gnttab(vcpu, GrantTableOp.GNTTABOP_setup_table, abi.gnttab_setup_table(SELF, 3, 9, frames))
    assert (rc, arg.status) == (0, GntStatus.GNTST_okay)
    assert list(struct.unpack("<3Q", vcpu.hw.peek(frames, 24))) == domain.grants.frames
    rc, [size] = gnttab(vcpu, GrantTableOp.GNTTABOP_query_size, abi.gnttab_query_size(SELF))
    assert (rc, size.status, size.nr_frames, size.max_nr_frames) == (0, 0, 3, 64)


@pytest.mark.parametrize(
    ("dom", "frames", "status"),
    [
        (SELF, 65, GntStatus.GNTST_general_error),
        (SELF, 0xFFFFFFFF, GntStatus.GNTST_general_error),
        (0, 1, GntStatus.GNTST_permission_denied),
        (999, 1, GntStatus.GNTST_bad_domain),
    ],
)
def test_setup_table_says_why_it_failed(vcpu: Any, dom: int, frames: int, status: GntStatus) -> None:
    arg = abi.gnttab_setup_table(dom, frames, 0, vcpu.hw.place(b""))
    rc, [result] = gnttab(vcpu, GrantTableOp.GNTTABOP_setup_table, arg)
    assert (rc, result.status) == (0, status)


def test_a_frame_list_that_is_not_mapped_is_a_bad_address(vcpu: Any) -> None:
    rc, [result] = gnttab(vcpu, GrantTableOp.GNTTABOP_setup_table, abi.gnttab_setup_table(SELF, 1, 0, 0x1000))
    assert (rc, result.status) == (0, GntStatus.GNTST_bad_virt_addr)


def test_commands_for_one_element_take_exactly_one(vcpu: Any) -> None:
    two = [abi.gnttab_query_size(SELF)] * 2
    for command in (2, 6, 9):
        assert gnttab(vcpu, command, *two)[0] == -Errno.EINVAL
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, 6, 0x1000, 1) == -Errno.EFAULT


def test_the_count_is_checked_before_the_command(vcpu: Any) -> None:
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, 99, 0, 1) == -Errno.ENOSYS
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, 99, 0, 1 << 31) == -Errno.EINVAL
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, 6 | 1 << 12, 0, 1) == -Errno.EINVAL
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, 12 | 1 << 12, 0, 0) == 0
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, GrantTableOp.GNTTABOP_dump_table, 0, 1) == -Errno.ENOSYS


def test_counts_that_are_negative_or_reach_too_far_are_refused(vcpu: Any) -> None:
    for command in (0, 1, 5, 7, 11):
        assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, command, 0x1000, 1 << 31) == -Errno.EINVAL
        assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, command, 0x1000, (1 << 31) - 1) == -Errno.EFAULT


def test_no_bad_pointer_gets_past_an_array_of_grants(host: Any, vcpu: Any) -> None:
    narrow = make_domain(host, is_32bit=True).vcpus[0]
    for command in (0, 1, 5, 7, 11):
        for va in (1, 0x1000, 0x7FFFFFFFFFFF, 0x800000000000, 0xFFFF800000000000, 2**64 - 1):
            assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, command, va, 3) == -Errno.EFAULT
            rc = hypercall(narrow, Hypercall.HYPERVISOR_grant_table_op, command, va & 0xFFFFFFFF, 3)
            assert rc == -Errno.EFAULT
    assert host.audit() == []


def test_an_array_that_ends_where_memory_does_is_done_up_to_there(vcpu: Any) -> None:
    good = bytes(copy_arg((1 << 40, SELF, 0), (0, SELF, 0), 4, 0))
    end = vcpu.hw.place(good * 2, 4096 - 2 * len(good))
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, 5, end, 3) == -Errno.EFAULT
    statuses = [vcpu.hw.peek(end + n * len(good) + 36, 2) for n in range(2)]
    assert statuses == [int(GntStatus.GNTST_bad_page).to_bytes(2, "little", signed=True)] * 2


def test_a_backend_writes_into_the_granted_frame_and_the_entry_shows_it(domain: Any, mfn: int) -> None:
    grant(domain, 9, 0, mfn)
    view = map_backend(domain, 9, writable=True)
    view[:4] = b"ring"
    assert domain.host.machine.read(mfn * 4096, 4) == b"ring"
    assert flags_of(domain, 9) == Gtf.GTF_permit_access | Gtf.GTF_reading | Gtf.GTF_writing
    unmap_backend(domain, 9, writable=True)
    assert flags_of(domain, 9) == Gtf.GTF_permit_access
    assert domain.hw.outside_refs() == []


def test_a_read_only_grant_gives_a_read_only_view(domain: Any, mfn: int) -> None:
    grant(domain, 9, 0, mfn, Gtf.GTF_permit_access | Gtf.GTF_readonly)
    with pytest.raises(GrantError):
        map_backend(domain, 9, writable=True)
    assert map_backend(domain, 9, writable=False).readonly
    assert flags_of(domain, 9) & (Gtf.GTF_reading | Gtf.GTF_writing) == Gtf.GTF_reading


@pytest.mark.parametrize(
    ("ref", "domid", "flags"),
    [(9, 5, 1), (9, 0, 0), (9, 0, 2), (9, 0, 3), (9, 0, 1 | 1 << 8)],
)
def test_entries_that_do_not_permit_access_cannot_be_mapped(
    domain: Any, mfn: int, ref: int, domid: int, flags: int
) -> None:
    grant(domain, 9, domid, mfn, flags)
    with pytest.raises(GrantError) as error:
        map_backend(domain, ref, writable=True)
    assert error.value.status is GntStatus.GNTST_general_error


@pytest.mark.parametrize("ref", [512, 1 << 31])
def test_a_reference_beyond_the_table_is_a_bad_one(domain: Any, ref: int) -> None:
    with pytest.raises(GrantError) as error:
        map_backend(domain, ref, writable=True)
    assert error.value.status is GntStatus.GNTST_bad_gntref


def test_frames_that_are_not_the_guests_cannot_be_granted(domain: Any) -> None:
    grant(domain, 9, 0, make_domain(domain.host).hw.alloc(1)[0])
    with pytest.raises(GrantError) as error:
        map_backend(domain, 9, writable=True)
    assert error.value.status is GntStatus.GNTST_bad_page
    assert flags_of(domain, 9) == Gtf.GTF_permit_access


def test_changing_an_entry_that_is_mapped_changes_nothing(domain: Any, mfn: int) -> None:
    grant(domain, 9, 0, mfn)
    map_backend(domain, 9, writable=True)
    grant(domain, 9, 0, domain.hw.alloc(1)[0])
    second = map_backend(domain, 9, writable=False)
    domain.host.machine.write(mfn * 4096, b"same")
    assert bytes(second[:4]) == b"same"
    unmap_backend(domain, 9, writable=False)
    unmap_backend(domain, 9, writable=True)
    assert domain.hw.outside_refs() == []


def test_flags_stay_while_somebody_else_still_uses_the_grant(domain: Any, mfn: int) -> None:
    grant(domain, 9, 0, mfn)
    map_backend(domain, 9, writable=True)
    map_backend(domain, 9, writable=False)
    unmap_backend(domain, 9, writable=True)
    assert flags_of(domain, 9) & (Gtf.GTF_reading | Gtf.GTF_writing) == Gtf.GTF_reading


def test_copy_moves_bytes_between_own_and_granted_frames(host: Any, domain: Any, vcpu: Any, mfn: int) -> None:
    other = make_domain(host)
    (theirs,) = other.hw.alloc(1)
    grant(other, 20, domain.domid, theirs)
    host.machine.write(mfn * 4096 + 8, b"payload!")
    arg = copy_arg((mfn, SELF, 8), (20, other.domid, 100), 8, GntCopy.GNTCOPY_dest_gref)
    rc, [result] = gnttab(vcpu, GrantTableOp.GNTTABOP_copy, arg)
    assert (rc, result.status) == (0, 0)
    assert host.machine.read(theirs * 4096 + 100, 8) == b"payload!"
    assert flags_of(other, 20) == Gtf.GTF_permit_access
    assert other.hw.outside_refs() == domain.hw.outside_refs() == []


@pytest.mark.parametrize(
    ("source", "dest", "length", "flags", "status"),
    [
        ((-1, SELF, 4095), (-1, SELF, 0), 2, 0, GntStatus.GNTST_bad_copy_arg),
        ((-1, SELF, 0), (-1, SELF, 4090), 7, 0, GntStatus.GNTST_bad_copy_arg),
        ((-1, 999, 0), (-1, SELF, 0), 2, 0, GntStatus.GNTST_permission_denied),
        ((-1, 1, 0), (-1, SELF, 0), 2, 0, GntStatus.GNTST_permission_denied),
        ((5, 999, 0), (-1, SELF, 0), 2, GntCopy.GNTCOPY_source_gref, GntStatus.GNTST_bad_domain),
        ((5, 0, 0), (-1, SELF, 0), 2, GntCopy.GNTCOPY_source_gref, GntStatus.GNTST_general_error),
        ((-1, 2, 0), (-1, SELF, 0), 2, 0, GntStatus.GNTST_permission_denied),
        ((3, SELF, 0), (-1, SELF, 0), 2, 0, GntStatus.GNTST_bad_page),
        ((-1, SELF, 0), (1 << 50, SELF, 0), 2, 0, GntStatus.GNTST_bad_page),
        ((21, 2, 0), (-1, SELF, 0), 2, GntCopy.GNTCOPY_source_gref, GntStatus.GNTST_general_error),
        ((1 << 20, 2, 0), (-1, SELF, 0), 2, GntCopy.GNTCOPY_source_gref, GntStatus.GNTST_bad_gntref),
    ],
)
def test_copies_that_are_not_allowed_say_why(
    host: Any, domain: Any, vcpu: Any, mfn: int, source: Any, dest: Any, length: int, flags: int, status: GntStatus
) -> None:
    make_domain(host)
    source, dest = ((mfn if end[0] == -1 else end[0], *end[1:]) for end in (source, dest))
    rc, [result] = gnttab(vcpu, GrantTableOp.GNTTABOP_copy, copy_arg(source, dest, length, flags))
    assert (rc, result.status) == (0, status)
    assert domain.hw.outside_refs() == []


def test_every_element_of_a_batch_has_its_own_status(vcpu: Any, mfn: int) -> None:
    good = copy_arg((mfn, SELF, 0), (mfn, SELF, 64), 16, 0)
    bad = copy_arg((mfn, SELF, 4090), (mfn, SELF, 0), 16, 0)
    rc, results = gnttab(vcpu, GrantTableOp.GNTTABOP_copy, *([good, bad] * 10))
    assert rc == 0
    assert [r.status for r in results] == [0, GntStatus.GNTST_bad_copy_arg] * 10


def test_swap_exchanges_entries_that_nobody_uses(domain: Any, vcpu: Any, mfn: int) -> None:
    grant(domain, 9, 0, mfn)
    rc, [arg] = gnttab(vcpu, GrantTableOp.GNTTABOP_swap_grant_ref, abi.gnttab_swap_grant_ref(9, 10))
    assert (rc, arg.status, flags_of(domain, 9), domain.grants.entry(10).frame) == (0, 0, 0, mfn)
    map_backend(domain, 10, writable=True)
    _, [arg] = gnttab(vcpu, GrantTableOp.GNTTABOP_swap_grant_ref, abi.gnttab_swap_grant_ref(9, 10))
    assert arg.status == GntStatus.GNTST_eagain
    _, [arg] = gnttab(vcpu, GrantTableOp.GNTTABOP_swap_grant_ref, abi.gnttab_swap_grant_ref(9, 512))
    assert arg.status == GntStatus.GNTST_bad_gntref


@pytest.fixture
def granter(host: Any, domain: Any) -> Any:
    other = make_domain(host)
    grant(other, 20, domain.domid, other.hw.alloc(1)[0])
    grant(other, 21, domain.domid, other.hw.alloc(1)[0], Gtf.GTF_permit_access | Gtf.GTF_readonly)
    return other


def test_a_guest_maps_and_unmaps_what_another_has_granted(granter: Any, vcpu: Any) -> None:
    frame = granter.grants.entry(20).frame
    result = map_ref(vcpu, granter.domid, 20)
    assert (result.status, result.dev_bus_addr) == (0, frame << 12)
    assert vcpu.hw.entry(0x5000) == frame << 12 | 0x67
    assert flags_of(granter, 20) & (Gtf.GTF_reading | Gtf.GTF_writing) == Gtf.GTF_reading | Gtf.GTF_writing
    assert unmap_ref(vcpu, result.handle) == 0
    assert flags_of(granter, 20) == Gtf.GTF_permit_access
    assert granter.hw.outside_refs() == []
    assert unmap_ref(vcpu, result.handle) == GntStatus.GNTST_bad_handle


def test_the_table_and_the_mappings_of_a_domain_end_at_its_limits(host: Any, granter: Any) -> None:
    vcpu = make_domain(host, limits=Limits(grant_frames=2, maptrack_frames=0)).vcpus[0]
    arg = abi.gnttab_setup_table(SELF, 3, 0, vcpu.hw.place(b""))
    assert gnttab(vcpu, GrantTableOp.GNTTABOP_setup_table, arg)[1][0].status == GntStatus.GNTST_general_error
    assert gnttab(vcpu, GrantTableOp.GNTTABOP_query_size, abi.gnttab_query_size(SELF))[1][0].max_nr_frames == 2
    assert map_ref(vcpu, granter.domid, 20).status == GntStatus.GNTST_no_space


def test_a_read_only_grant_is_mapped_only_read_only(granter: Any, vcpu: Any) -> None:
    assert map_ref(vcpu, granter.domid, 21).status == GntStatus.GNTST_general_error
    assert map_ref(vcpu, granter.domid, 21, 2 | 4).status == 0
    assert vcpu.hw.entry(0x5000) & 0xFFF == 0x65


def test_a_mapping_for_processor_and_device_ends_with_both(granter: Any, vcpu: Any) -> None:
    result = map_ref(vcpu, granter.domid, 20, 3)
    assert unmap_ref(vcpu, result.handle) == 0
    assert flags_of(granter, 20) & Gtf.GTF_writing
    assert unmap_ref(vcpu, result.handle, 0, 0x123000) == GntStatus.GNTST_bad_dev_addr
    assert unmap_ref(vcpu, result.handle, 0, result.dev_bus_addr) == 0
    assert not flags_of(granter, 20) & Gtf.GTF_writing


@pytest.mark.parametrize(
    ("dom", "ref", "flags", "status"),
    [
        (999, 20, 2, GntStatus.GNTST_bad_domain),
        (2, 20, 0, GntStatus.GNTST_bad_gntref),
        (SELF, 20, 2, GntStatus.GNTST_bad_domain),
        (0, 20, 2, GntStatus.GNTST_general_error),
        (0, 1 << 20, 2, GntStatus.GNTST_bad_gntref),
        (2, 22, 2, GntStatus.GNTST_general_error),
        (2, 1 << 20, 2, GntStatus.GNTST_bad_gntref),
    ],
)
def test_mappings_that_are_not_allowed_say_why(
    granter: Any, vcpu: Any, dom: int, ref: int, flags: int, status: GntStatus
) -> None:
    result = map_ref(vcpu, dom, ref, flags)
    assert (result.status, result.handle) == (status, 0xFFFFFFFF)
    assert granter.hw.outside_refs() == []


def test_a_mapping_that_the_machine_refuses_leaves_nothing_behind(granter: Any, vcpu: Any) -> None:
    nowhere = 1 << 40
    assert map_ref(vcpu, granter.domid, 20, address=nowhere).status == GntStatus.GNTST_general_error
    assert flags_of(granter, 20) == Gtf.GTF_permit_access
    assert vcpu.domain.grants.mappings == {}


def test_a_destroyed_domain_ends_its_mappings_of_others(host: Any, granter: Any, domain: Any, vcpu: Any) -> None:
    map_ref(vcpu, granter.domid, 20)
    host.destroy_domain(domain)
    assert flags_of(granter, 20) == Gtf.GTF_permit_access
    assert granter.hw.outside_refs() == []


def test_unmap_and_replace_moves_the_entry_of_the_other_address(granter: Any, vcpu: Any, mfn: int) -> None:
    result = map_ref(vcpu, granter.domid, 20)
    vcpu.hw.map(0x6000, mfn)
    arg = abi.gnttab_unmap_and_replace(0x5000, 0x6000, result.handle)
    _, [replaced] = gnttab(vcpu, GrantTableOp.GNTTABOP_unmap_and_replace, arg)
    assert replaced.status == 0
    assert (vcpu.hw.entry(0x5000) >> 12, vcpu.hw.entry(0x6000)) == (mfn, 0)
    assert vcpu.domain.grants.mappings == {}


def test_transfers_are_refused(vcpu: Any) -> None:
    assert gnttab(vcpu, GrantTableOp.GNTTABOP_transfer, abi.gnttab_transfer())[0] == -Errno.EOPNOTSUPP
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, 4, 1 << 62, 1) == -Errno.EFAULT


def test_cache_maintenance_is_checked_before_it_is_refused(host: Any, domain: Any, vcpu: Any, mfn: int) -> None:
    (foreign,) = make_domain(host).hw.alloc(1)

    def flush(mfn: int, offset: int, length: int, op: int) -> int:
        arg = abi.gnttab_cache_flush(offset=offset, length=length, op=op)
        arg.a.dev_bus_addr = mfn << 12
        return gnttab(vcpu, GrantTableOp.GNTTABOP_cache_flush, arg)[0]

    assert flush(mfn, 4000, 200, 1) == -Errno.EINVAL
    assert flush(mfn, 4096, 0, 1) == -Errno.EINVAL
    assert flush(mfn, 0, 8, 1 << 31) == -Errno.EINVAL
    assert flush(mfn, 0, 8, 0) == flush(mfn, 0, 0, 1) == 0
    assert flush(1 << 40, 0, 8, 1) == -Errno.EINVAL
    assert flush(1, 0, 8, 1) == -Errno.EPERM
    assert flush(foreign, 0, 8, 1) == -Errno.EINVAL
    assert flush(mfn, 0, 8, 3) == -Errno.EOPNOTSUPP


def test_a_second_writer_and_reader_of_a_grant_need_no_new_permission(domain: Any, mfn: int) -> None:
    grant(domain, 9, 0, mfn)
    map_backend(domain, 9, writable=True)
    grant(domain, 9, 7, mfn, 0)
    map_backend(domain, 9, writable=True)
    map_backend(domain, 9, writable=False)
    for writable in (True, True, False):
        unmap_backend(domain, 9, writable=writable)
    assert domain.hw.outside_refs() == []


def test_a_first_writer_beside_readers_still_needs_a_grant_that_is_not_read_only(domain: Any, mfn: int) -> None:
    grant(domain, 9, 0, mfn)
    map_backend(domain, 9, writable=False)
    grant(domain, 9, 0, mfn, Gtf.GTF_permit_access | Gtf.GTF_readonly | Gtf.GTF_reading)
    with pytest.raises(GrantError):
        map_backend(domain, 9, writable=True)
    assert flags_of(domain, 9) == Gtf.GTF_permit_access | Gtf.GTF_readonly | Gtf.GTF_reading
    assert domain.hw.outside_refs() == [(mfn, 1, 0)]


def test_a_page_table_can_be_granted_for_reading_only(domain: Any, mfn: int) -> None:
    domain.vcpus[0].hw.pin_l1(mfn)
    grant(domain, 9, 0, mfn)
    with pytest.raises(GrantError) as error:
        map_backend(domain, 9, writable=True)
    assert error.value.status is GntStatus.GNTST_general_error
    assert domain.hw.outside_refs() == []
    assert map_backend(domain, 9, writable=False).readonly


def test_unmap_and_replace_without_a_new_address_only_unmaps(granter: Any, vcpu: Any) -> None:
    result = map_ref(vcpu, granter.domid, 20)
    arg = abi.gnttab_unmap_and_replace(0x5000, 0, result.handle)
    assert gnttab(vcpu, GrantTableOp.GNTTABOP_unmap_and_replace, arg)[1][0].status == 0
    assert vcpu.hw.entry(0x5000) == 0


@pytest.mark.parametrize(("flags", "bits"), [(2, 0x62), (2 | 8, 0x66), (2 | 4 | 7 << 16, 0xE60), (2 | 8 << 16, 0x62)])
def test_a_32_bit_kernels_mapping_is_a_supervisors_unless_it_is_for_applications(
    host: Any, flags: int, bits: int
) -> None:
    mapper, owner = make_domain(host, is_32bit=True), make_domain(host)
    (frame,) = owner.hw.alloc(1)
    grant(owner, 20, mapper.domid, frame)
    vcpu = mapper.vcpus[0]
    layout = abi.gnttab_map_grant_ref.compat
    va = vcpu.hw.place(bytes(layout(0x5000, flags, 20, owner.domid)))
    assert hypercall(vcpu, Hypercall.HYPERVISOR_grant_table_op, 0, va, 1) == 0
    assert vcpu.hw.entry(0x5000) == frame << 12 | bits | 1


def test_the_guests_own_bits_of_the_entry_come_from_the_flags(granter: Any, vcpu: Any) -> None:
    map_ref(vcpu, granter.domid, 20, 2 | 0x3FFF << 16)
    assert vcpu.hw.entry(0x5000) & ~(0xFFFFFFFFFF << 12) == 0x67 | 0xE00 | 0x7FF << 52


def test_reserved_entries_can_be_filled_before_the_guest_runs(domain: Any, mfn: int) -> None:
    domain.grants.seed(1, mfn)
    assert map_backend(domain, 1, writable=True) is not None
    with pytest.raises(ValueError, match="8"):
        domain.grants.seed(8, mfn)


def test_a_destroyed_domain_leaves_no_references(host: Any, domain: Any, mfn: int) -> None:
    grant(domain, 9, 0, mfn)
    map_backend(domain, 9, writable=True)
    free = host.machine.free_frames
    assert host.destroy_domain(domain) == 0
    assert host.machine.free_frames > free
    unmap_backend(domain, 9, writable=True)
