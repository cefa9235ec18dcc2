# SPDX-License-Identifier: Apache-2.0
"""memory_op: what a guest may know of memory, and its balloon."""

import struct
from typing import Any

import pytest
from fakes import hypercall, make_domain

from domzero.abi import memory as abi
from domzero.abi.errno import Errno
from domzero.abi.layout import layout_for
from domzero.abi.memory import MemoryOp
from domzero.abi.xen import DOMID_SELF, Hypercall
from domzero.hypervisor.hypercalls import dispatch, reservation

EVERY_OP = list(MemoryOp)


def memory_op(v: Any, command: int, data: bytes | int) -> int:
    va = v.hw.place(data) if isinstance(data, bytes) else data
    return hypercall(v, Hypercall.HYPERVISOR_memory_op, command, va)


def reserve(v: Any, extents: int, count: int, order: int = 0, domid: int = DOMID_SELF) -> bytes:
    return bytes(layout_for(abi.xen_memory_reservation, v.domain.is_32bit)(extents, count, order, 0, domid))


def longs(v: Any, *values: int) -> int:
    return int(v.hw.place(struct.pack(f"<{len(values)}Q", *values)))


def read_longs(v: Any, va: int, count: int) -> list[int]:
    return list(struct.unpack(f"<{count}Q", v.hw.peek(va, 8 * count)))


def test_decrease_gives_frames_back(domain: Any, vcpu: Any) -> None:
    mfns = domain.hw.alloc(3)
    list_va = longs(vcpu, *mfns)
    owned = domain.hw.frames_owned
    assert memory_op(vcpu, MemoryOp.XENMEM_decrease_reservation, reserve(vcpu, list_va, 3)) == 3
    assert domain.hw.frames_owned == owned - 3 + 1  # the argument itself took one


def test_what_a_released_table_leaves_is_taken_down_before_decrease_goes_on(domain: Any, vcpu: Any) -> None:
    mfns = domain.hw.alloc(3)
    domain.hw.debts_of = {mfns[0]: 2, mfns[2]: 1}
    list_va = longs(vcpu, *mfns)
    arg = vcpu.hw.place(reserve(vcpu, list_va, 3))
    owned = domain.hw.frames_owned
    rounds = []
    command, nr = int(MemoryOp.XENMEM_decrease_reservation), int(Hypercall.HYPERVISOR_memory_op)
    vcpu.hw.restarted = True
    while vcpu.hw.restarted:
        vcpu.hw.restarted = False
        dispatch(vcpu, nr, (command, arg, 0, 0, 0, 0))
        command = vcpu.hw.regs.get("rdi", command)
        rounds.append((owned - domain.hw.frames_owned, domain.hw.debts))
    assert rounds == [(1, 2), (1, 1), (1, 0), (3, 1), (3, 0), (3, 0)]
    assert vcpu.hw.result == 3


@pytest.mark.parametrize("command", [MemoryOp.XENMEM_populate_physmap, MemoryOp.XENMEM_increase_reservation])
def test_frames_that_are_about_to_be_free_count_as_free(domain: Any, vcpu: Any, command: MemoryOp) -> None:
    domain.hw.debts = 2
    assert memory_op(vcpu, command, reserve(vcpu, longs(vcpu, 0x100), 1)) == 1
    assert domain.hw.debts == 0


@pytest.mark.parametrize("command", [MemoryOp.XENMEM_populate_physmap, MemoryOp.XENMEM_increase_reservation])
def test_a_long_search_for_extents_goes_on_where_it_was(domain: Any, vcpu: Any, command: MemoryOp) -> None:
    list_va = longs(vcpu, 0x100, 0x110, 0x120)
    arg = vcpu.hw.place(reserve(vcpu, list_va, 3, order=2))
    owned = domain.hw.frames_owned
    domain.hw.searches = 2
    before = domain.hypercall_counts["memory_op"]
    assert memory_op(vcpu, command, arg) == 3
    assert (domain.hw.searches, domain.hw.frames_owned - owned) == (0, 12)
    assert domain.hypercall_counts["memory_op"] - before >= 3


def test_decrease_stops_at_a_frame_that_is_not_the_guests(domain: Any, vcpu: Any) -> None:
    list_va = longs(vcpu, domain.hw.alloc(1)[0], 3, domain.hw.alloc(1)[0])
    assert memory_op(vcpu, MemoryOp.XENMEM_decrease_reservation, reserve(vcpu, list_va, 3)) == 1


def test_populate_replaces_pseudo_physical_numbers_by_frames(domain: Any, vcpu: Any) -> None:
    list_va = longs(vcpu, 0x100, 0x101)
    assert memory_op(vcpu, MemoryOp.XENMEM_populate_physmap, reserve(vcpu, list_va, 2)) == 2
    first, second = read_longs(vcpu, list_va, 2)
    assert (domain.hw.m2p[first], domain.hw.m2p[second]) == (0x100, 0x101)


def test_a_domain_gets_no_more_than_its_limit(domain: Any, vcpu: Any) -> None:
    domain.max_pages = domain.hw.frames_owned + 5
    list_va = longs(vcpu, *range(16))
    arg = reserve(vcpu, list_va, 16)
    assert memory_op(vcpu, MemoryOp.XENMEM_populate_physmap, arg) == 3  # two went to the list and the argument


def test_long_reservations_are_continued_until_all_is_done(domain: Any, vcpu: Any) -> None:
    domain.max_pages = 10_000
    domain.host.machine.free[:0] = range(1000, 1400)
    count = reservation.FRAMES_AT_ONCE + 20
    mfns = domain.hw.alloc(count)
    list_va = longs(vcpu, *mfns[:512])
    assert memory_op(vcpu, MemoryOp.XENMEM_decrease_reservation, reserve(vcpu, list_va, count)) == count


def test_increase_stores_frame_numbers_where_it_is_told(domain: Any, vcpu: Any) -> None:
    list_va = longs(vcpu, 0, 0)
    assert memory_op(vcpu, MemoryOp.XENMEM_increase_reservation, reserve(vcpu, list_va, 2)) == 2
    assert all(domain.host.machine.owners[mfn] == domain.domid for mfn in read_longs(vcpu, list_va, 2))
    assert memory_op(vcpu, MemoryOp.XENMEM_increase_reservation, reserve(vcpu, 0, 2)) == 2


@pytest.mark.parametrize("command", [0, 1, 6])
def test_nothing_is_done_for_reservations_that_cannot_be(host: Any, vcpu: Any, command: int) -> None:
    other = make_domain(host)
    assert memory_op(vcpu, command, 0x1000) == 0
    assert memory_op(vcpu, command, reserve(vcpu, 0x1000, 1)) == 0
    assert memory_op(vcpu, command, reserve(vcpu, 0x1000, 1 << 40)) == 0
    assert memory_op(vcpu, command, reserve(vcpu, 0x1000, 1, order=20)) == 0
    assert memory_op(vcpu, command, reserve(vcpu, 0x1000, 1, domid=other.domid)) == 0
    assert memory_op(vcpu, command | 5 << 6, reserve(vcpu, 0x1000, 3)) == 5


def test_a_frame_whose_number_cannot_be_stored_is_not_kept(domain: Any, vcpu: Any) -> None:
    list_va = longs(vcpu, 0x100)
    vcpu.hw.read_only.add((list_va - vcpu.hw.va_base) // 4096)
    arg = reserve(vcpu, list_va, 1)
    va = vcpu.hw.place(arg)
    owned = domain.hw.frames_owned
    assert memory_op(vcpu, MemoryOp.XENMEM_populate_physmap, va) == 0
    assert domain.hw.frames_owned == owned


def exchange(v: Any, old: bytes, new: bytes, done: int = 0) -> tuple[int, int]:
    va = v.hw.place(old + new + struct.pack("<Q", done))
    rc = hypercall(v, Hypercall.HYPERVISOR_memory_op, MemoryOp.XENMEM_exchange, va)
    return rc, read_longs(v, va + 64, 1)[0]


def test_exchange_gives_other_frames_for_old_ones(domain: Any, vcpu: Any) -> None:
    mfns = domain.hw.alloc(2)
    old, new = longs(vcpu, *mfns), longs(vcpu, 7, 8)
    assert exchange(vcpu, reserve(vcpu, old, 2), reserve(vcpu, new, 2)) == (0, 2)
    assert [domain.hw.m2p[mfn] for mfn in read_longs(vcpu, new, 2)] == [7, 8]


def test_exchange_checks_sizes_orders_and_domains(host: Any, vcpu: Any) -> None:
    other = make_domain(host)
    old = longs(vcpu, 1, 2)
    two = reserve(vcpu, old, 2)
    assert exchange(vcpu, two, reserve(vcpu, old, 1))[0] == -Errno.EINVAL
    assert exchange(vcpu, two, two, 3)[0] == -Errno.EINVAL
    assert exchange(vcpu, two, reserve(vcpu, old, 2, domid=5))[0] == -Errno.EINVAL
    assert exchange(vcpu, reserve(vcpu, old, 1 << 20), reserve(vcpu, old, 1, order=20))[0] == -Errno.EPERM
    assert exchange(vcpu, two, reserve(vcpu, old, 1, order=1))[0] == -Errno.EINVAL
    assert exchange(vcpu, two, reserve(vcpu, 0xFFFF800000000000, 2))[0] == -Errno.EFAULT
    foreign = reserve(vcpu, old, 2, domid=other.domid)
    assert exchange(vcpu, foreign, foreign)[0] == -Errno.EPERM
    assert exchange(vcpu, two, two) == (-Errno.EINVAL, 0)
    assert memory_op(vcpu, MemoryOp.XENMEM_exchange, 0x1000) == -Errno.EFAULT


def test_an_exchange_whose_extents_are_looked_for_long_happens_once(domain: Any, vcpu: Any) -> None:
    old = domain.hw.alloc_extent(2)
    domain.hw.searches = 2
    owned = domain.hw.frames_owned
    old_list, new_list = longs(vcpu, *range(old, old + 4)), longs(vcpu, 0x100)
    two = domain.hw.frames_owned - owned
    rc, done = exchange(vcpu, reserve(vcpu, old_list, 4), reserve(vcpu, new_list, 1, order=2))
    assert (rc, done, domain.hw.searches) == (0, 4, 0)
    assert domain.hw.frames_owned - owned == two + 1  # its argument


def test_reservations_are_told_only_to_their_domain(host: Any, domain: Any, vcpu: Any) -> None:
    other = make_domain(host)
    me, stranger, nobody = (struct.pack("<H", d) for d in (DOMID_SELF, other.domid, 999))
    assert memory_op(vcpu, MemoryOp.XENMEM_maximum_reservation, me) == domain.max_pages
    assert memory_op(vcpu, MemoryOp.XENMEM_current_reservation, me) == domain.hw.frames_owned
    for command in (3, 4, 14):
        assert memory_op(vcpu, command, stranger) == -Errno.EPERM
        assert memory_op(vcpu, command, nobody) == -Errno.ESRCH
        assert memory_op(vcpu, command, 0x1000) == -Errno.EFAULT


def test_maximum_gpfn_is_what_the_guest_wrote_into_shared_info(domain: Any, vcpu: Any) -> None:
    me = struct.pack("<H", DOMID_SELF)
    assert memory_op(vcpu, MemoryOp.XENMEM_maximum_gpfn, me) == 0
    domain.shared_info[3088:3096] = struct.pack("<Q", 0x4000)
    assert memory_op(vcpu, MemoryOp.XENMEM_maximum_gpfn, me) == 0x3FFF


def test_the_memory_map_is_enosys_until_one_is_set(vcpu: Any) -> None:
    buffer = vcpu.hw.place(struct.pack("<QQI", 0, 0x1000000, 1) + struct.pack("<QQI", 0x1000000, 4096, 2))
    query = struct.pack("<IIQ", 1, 0, vcpu.hw.place(b""))
    assert memory_op(vcpu, MemoryOp.XENMEM_memory_map, query) == -Errno.ENOSYS
    new = struct.pack("<HxxxxxxIIQ", DOMID_SELF, 2, 0, buffer)
    assert memory_op(vcpu, MemoryOp.XENMEM_set_memory_map, new) == 0
    va = vcpu.hw.place(query)
    assert memory_op(vcpu, MemoryOp.XENMEM_memory_map, va) == 0
    assert struct.unpack("<I", vcpu.hw.peek(va, 4)) == (1,)
    too_many = struct.pack("<HxxxxxxIIQ", DOMID_SELF, 1025, 0, buffer)
    assert memory_op(vcpu, MemoryOp.XENMEM_set_memory_map, too_many) == -Errno.EINVAL


def test_the_machine_to_phys_table_is_where_xen_has_it(vcpu: Any) -> None:
    va = vcpu.hw.place(b"")
    assert memory_op(vcpu, MemoryOp.XENMEM_machphys_mapping, va) == 0
    assert read_longs(vcpu, va, 3) == [0xFFFF800000000000, 0xFFFF804000000000, (1 << 35) - 1]
    extents = vcpu.hw.place(b"")
    va = vcpu.hw.place(struct.pack("<IIQI", 4, 0, extents, 9))
    assert memory_op(vcpu, MemoryOp.XENMEM_machphys_mfn_list, va) == 0
    assert read_longs(vcpu, extents, 1) == [1]
    assert struct.unpack("<I", vcpu.hw.peek(va + 16, 4)) == (1,)
    assert memory_op(vcpu, MemoryOp.XENMEM_maximum_ram_page, 0) == 511


def test_the_compat_list_names_the_narrow_table(host: Any, vcpu: Any) -> None:
    extents = vcpu.hw.place(b"")
    va = vcpu.hw.place(struct.pack("<IIQI", 4, 0, extents, 9))
    assert memory_op(vcpu, MemoryOp.XENMEM_machphys_compat_mfn_list, va) == 0
    assert read_longs(vcpu, extents, 1) == [9]
    narrow = make_domain(host, is_32bit=True).vcpus[0]
    extents = narrow.hw.place(b"")
    va = narrow.hw.place(struct.pack("<III", 4, extents, 9))
    for command in (MemoryOp.XENMEM_machphys_mfn_list, MemoryOp.XENMEM_machphys_compat_mfn_list):
        assert memory_op(narrow, command, va) == 0
        assert struct.unpack("<I", narrow.hw.peek(extents, 4)) == (9,)


def test_a_32_bit_guest_finds_its_table_in_its_own_window(host: Any) -> None:
    narrow = make_domain(host, is_32bit=True).vcpus[0]
    va = narrow.hw.place(b"")
    assert memory_op(narrow, MemoryOp.XENMEM_machphys_mapping, va) == 0
    start, end, last = struct.unpack("<3I", narrow.hw.peek(va, 12))
    assert (start, end, last) == (0xF5800000, 0xFFE00000, (0xFFE00000 - 0xF5800000) // 4 - 1)


def test_pv_domains_have_no_physmap(vcpu: Any) -> None:
    arg = struct.pack("<HHIQQ", DOMID_SELF, 0, 0, 0, 5)
    for command in (7, 15, 23):
        assert memory_op(vcpu, command, arg + bytes(64)) == -Errno.EACCES
        assert memory_op(vcpu, command, struct.pack("<H", 999) + bytes(64)) == -Errno.ESRCH
        assert memory_op(vcpu, command, 0x1000) == -Errno.EFAULT
    assert memory_op(vcpu, 7, struct.pack("<HHI", DOMID_SELF, 0, 4) + bytes(64)) == -Errno.ENOSYS
    assert memory_op(vcpu, 23, struct.pack("<HHI", DOMID_SELF, 3, 0) + bytes(64)) == -Errno.EOPNOTSUPP
    assert memory_op(vcpu, 7 | 1 << 22, arg) == -Errno.EDOM


def test_privileged_commands_are_refused_after_their_argument_is_read(host: Any, vcpu: Any) -> None:
    other = make_domain(host)
    pod = struct.pack("<4QH", 0, 0, 0, 0, DOMID_SELF)
    for command in (16, 17):
        assert memory_op(vcpu, command, pod) == -Errno.EINVAL
        assert memory_op(vcpu, command, 0x1000) == -Errno.EFAULT
        assert memory_op(vcpu, command, struct.pack("<4QH", 0, 0, 0, 0, 999)) == -Errno.ESRCH
    assert memory_op(vcpu, 10, 0x1000) == -Errno.EPERM
    assert memory_op(vcpu, 24, reserve(vcpu, 0, 1, domid=vcpu.domain.domid)) == -Errno.EPERM
    assert memory_op(vcpu, 24, reserve(vcpu, 0x1000, 1, domid=vcpu.domain.domid)) == -Errno.EINVAL
    assert memory_op(vcpu, 24, reserve(vcpu, 0, 1)) == -Errno.EINVAL
    resource = struct.pack("<HHIIIQQ", other.domid, 1, 0, 1, 0, 0, 0)
    assert memory_op(vcpu, 28, resource) == -Errno.EPERM
    assert memory_op(vcpu, 28, struct.pack("<HHIIIQQ", 999, 1, 0, 1, 0, 0, 0)) == -Errno.ESRCH
    assert memory_op(vcpu, 28, struct.pack("<HHIIIQQ", 0, 1, 0, 1, 1, 0, 0)) == -Errno.EINVAL
    assert memory_op(vcpu, 21, struct.pack("<BBHIQQQ", 0, 0, 999, 0, 0, 0, 0)) == -Errno.ESRCH
    assert memory_op(vcpu, 63, 0) == -Errno.ENOSYS


def test_commands_without_continuation_refuse_to_go_on(vcpu: Any) -> None:
    me = struct.pack("<H", DOMID_SELF)
    for command in (2, 3, 4, 11, 14, 15, 24, 26, 27):
        assert memory_op(vcpu, command | 1 << 6, me + bytes(64)) == -Errno.EINVAL
    for command in (5, 9, 12, 13, 18, 19, 25):
        assert memory_op(vcpu, command | 1 << 6, me + bytes(64)) == -Errno.ENOSYS


def test_what_does_not_exist_here_is_told_as_xen_tells_it(vcpu: Any) -> None:
    assert memory_op(vcpu, 26, struct.pack("<HHIII", DOMID_SELF, 0, 1, 1, 1) + bytes(24)) == -Errno.EOPNOTSUPP
    assert memory_op(vcpu, 26, struct.pack("<HHIII", DOMID_SELF, 1, 1, 1, 1) + bytes(24)) == -Errno.EINVAL
    va = vcpu.hw.place(struct.pack("<IIQI", 1, 9, 0, 0))
    assert memory_op(vcpu, 27, va) == 0
    assert struct.unpack("<II", vcpu.hw.peek(va, 8)) == (1, 0)
    assert memory_op(vcpu, 27, struct.pack("<IIQI", 2, 9, 0, 0)) == -Errno.EINVAL
    assert [memory_op(vcpu, command, 0) for command in (18, 19)] == [0, 0]
    assert [memory_op(vcpu, command, 0) for command in (20, 22)] == [-Errno.ENOSYS] * 2


def test_extents_of_several_frames_are_contiguous_and_aligned(domain: Any, vcpu: Any) -> None:
    list_va = longs(vcpu, 0x100, 0x200)
    assert memory_op(vcpu, MemoryOp.XENMEM_populate_physmap, reserve(vcpu, list_va, 2, order=3)) == 2
    for mfn, gpfn in zip(read_longs(vcpu, list_va, 2), (0x100, 0x200), strict=True):
        assert mfn % 8 == 0
        assert [domain.hw.m2p[mfn + n] for n in range(8)] == list(range(gpfn, gpfn + 8))
    assert memory_op(vcpu, MemoryOp.XENMEM_decrease_reservation, reserve(vcpu, list_va, 2, order=3)) == 2


def test_address_bits_bound_where_frames_come_from(domain: Any, vcpu: Any) -> None:
    list_va = longs(vcpu, 0x100)
    arg = bytearray(reserve(vcpu, list_va, 1))
    arg[20:24] = struct.pack("<I", 12 + 6)
    assert memory_op(vcpu, MemoryOp.XENMEM_populate_physmap, bytes(arg)) == 1
    assert read_longs(vcpu, list_va, 1)[0] < 64
    arg[20:24] = struct.pack("<I", 12)
    assert memory_op(vcpu, MemoryOp.XENMEM_populate_physmap, bytes(arg)) == 0


def test_exchange_makes_one_extent_of_single_frames_and_back(domain: Any, vcpu: Any) -> None:
    mfns = domain.hw.alloc(4)
    old, new = longs(vcpu, *mfns), longs(vcpu, 0x40)
    assert exchange(vcpu, reserve(vcpu, old, 4), reserve(vcpu, new, 1, order=2)) == (0, 4)
    (base,) = read_longs(vcpu, new, 1)
    assert base % 4 == 0
    assert [domain.hw.m2p[base + n] for n in range(4)] == [0x40, 0x41, 0x42, 0x43]
    singles = longs(vcpu, 7, 8, 9, 10)
    assert exchange(vcpu, reserve(vcpu, new, 1, order=2), reserve(vcpu, singles, 4)) == (0, 1)
    assert [domain.hw.m2p[mfn] for mfn in read_longs(vcpu, singles, 4)] == [7, 8, 9, 10]


def test_a_frame_that_is_in_use_is_not_exchanged(domain: Any, vcpu: Any) -> None:
    mfns = domain.hw.alloc(2)
    domain.host.machine.mapped.add(mfns[1])
    old, new = longs(vcpu, *mfns), longs(vcpu, 7, 8)
    assert exchange(vcpu, reserve(vcpu, old, 2), reserve(vcpu, new, 2)) == (-Errno.EINVAL, 1)
    same = longs(vcpu, mfns[1], mfns[1])
    domain.host.machine.mapped.clear()
    assert exchange(vcpu, reserve(vcpu, same, 2), reserve(vcpu, new, 1, order=1)) == (-Errno.EINVAL, 0)
