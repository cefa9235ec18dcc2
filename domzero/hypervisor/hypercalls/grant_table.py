# SPDX-License-Identifier: Apache-2.0
"""grant_table_op (grant_table.h)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from domzero import _machine
from domzero.abi import grant_table as abi
from domzero.abi.errno import Errno
from domzero.abi.grant_table import GntStatus, GrantTableOp
from domzero.abi.layout import Wire, layout_for, sizeof
from domzero.abi.xen import PAGE_SHIFT, PAGE_SIZE, Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import GrantError, XenError
from domzero.hypervisor.grant import GrantTable
from domzero.hypervisor.hypercalls.table import Continuation, operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

grant_table_op = operation(Hypercall.HYPERVISOR_grant_table_op, "upu", GrantTableOp)

grant_table_op.in_machine = True

ITEMS_AT_ONCE = 16
"""After so many elements the guest gets its events."""


def _before(_vcpu: "Vcpu", args: list[int]) -> int:
    """What Xen checks before it looks which command it is."""
    command, _uop, count = args
    args[0] = command & abi.GNTTABOP_CMD_MASK
    wrong = count >> 31 or (command != args[0] and args[0] != GrantTableOp.GNTTABOP_cache_flush)
    return -Errno.EINVAL if wrong else 0


grant_table_op.before = _before

T = TypeVar("T", bound=Wire)
Item = Callable[["Vcpu", T], None]


def _one(command: GrantTableOp, cls: type[T]) -> Callable[[Item[T]], Item[T]]:
    """Registers a command that takes exactly one element with a status."""

    def register(item: Item[T]) -> Item[T]:
        @grant_table_op.sub(command)
        def handler(vcpu: "Vcpu", uop: int, count: int) -> int:
            if count != 1:
                return -Errno.EINVAL
            arg = guest_memory.copy_in(vcpu, cls, uop)
            try:
                item(vcpu, arg)
                arg.status = GntStatus.GNTST_okay
            except GrantError as error:
                arg.status = error.status
            guest_memory.write(vcpu, uop, bytes(arg))
            return 0

        return item

    return register


def _check_array(vcpu: "Vcpu", va: int, size: int) -> None:
    """What Xen looks at before it begins with an array: for 64-bit guests only where it starts.

    :raises GuestFault: it cannot be the guest's.
    """
    guest_memory.check_range(vcpu, va, size if vcpu.domain.is_32bit else 0)


def _own_table(vcpu: "Vcpu", domid: int) -> GrantTable:
    return vcpu.domain.domids.own_table(domid).grants


def _tell_frames(vcpu: "Vcpu", frames: list[int], va: int, size: int) -> None:
    try:
        for index, mfn in enumerate(frames):
            guest_memory.write(vcpu, va + index * size, mfn.to_bytes(size, "little"))
    except _machine.GuestFault:
        raise GrantError(GntStatus.GNTST_bad_virt_addr) from None


@_one(GrantTableOp.GNTTABOP_setup_table, abi.gnttab_setup_table)
def setup_table(vcpu: "Vcpu", arg: abi.gnttab_setup_table) -> None:
    """Makes the table large enough and says where it is."""
    size = guest_memory.ulong_size(vcpu)
    _check_array(vcpu, arg.frame_list, arg.nr_frames * size)
    table = _own_table(vcpu, arg.dom)
    table.grow(arg.nr_frames)
    _tell_frames(vcpu, table.frames[: arg.nr_frames], arg.frame_list, size)


@_one(GrantTableOp.GNTTABOP_query_size, abi.gnttab_query_size)
def query_size(vcpu: "Vcpu", arg: abi.gnttab_query_size) -> None:
    """How large the table is and may become."""
    table = _own_table(vcpu, arg.dom)
    arg.nr_frames = len(table.frames)
    arg.max_nr_frames = table.max_frames


@_one(GrantTableOp.GNTTABOP_get_status_frames, abi.gnttab_get_status_frames)
def get_status_frames(vcpu: "Vcpu", arg: abi.gnttab_get_status_frames) -> None:
    """Where version 2 shows which grants are in use."""
    if vcpu.domain.is_32bit:
        _check_array(vcpu, arg.frame_list, arg.nr_frames * 8)
    table = _own_table(vcpu, arg.dom)
    if arg.nr_frames > len(table.status_frames):
        raise GrantError(GntStatus.GNTST_general_error)
    _tell_frames(vcpu, table.status_frames[: arg.nr_frames], arg.frame_list, 8)


def _in_machine(command: GrantTableOp) -> None:
    """Registers a command that takes an array, each element with a status of its own: the machine does it."""

    @grant_table_op.sub(command, note="in the machine")
    def handler(vcpu: "Vcpu", uop: int, count: int) -> int:
        later = vcpu.hw.grant_table_op(command, uop, count)
        if later is not None:
            raise Continuation(command, *later)
        return 0


for _command in (
    GrantTableOp.GNTTABOP_map_grant_ref,
    GrantTableOp.GNTTABOP_unmap_grant_ref,
    GrantTableOp.GNTTABOP_unmap_and_replace,
    GrantTableOp.GNTTABOP_swap_grant_ref,
    GrantTableOp.GNTTABOP_copy,
):
    _in_machine(_command)


@grant_table_op.sub(GrantTableOp.GNTTABOP_get_version)
def get_version(vcpu: "Vcpu", uop: int, _count: int) -> int:
    """The version of the domain's table."""
    arg = guest_memory.copy_in(vcpu, abi.gnttab_get_version, uop)
    try:
        arg.version = _own_table(vcpu, arg.dom).version
    except GrantError as error:
        return -Errno.ESRCH if error.status is GntStatus.GNTST_bad_domain else -Errno.EPERM
    guest_memory.write(vcpu, uop, bytes(arg))
    return 0


@grant_table_op.sub(GrantTableOp.GNTTABOP_set_version)
def set_version(vcpu: "Vcpu", uop: int, _count: int) -> int:
    """Chooses a version; the guest is told which one there is then, also when it failed."""
    arg = guest_memory.copy_in(vcpu, abi.gnttab_set_version, uop)
    table = vcpu.domain.grants
    rc = 0 if arg.version in (1, 2) else -Errno.EINVAL
    if rc == 0 and arg.version > vcpu.domain.limits.grant_version:
        rc = -Errno.ENOSYS  # as before there were versions
    try:
        if rc == 0:
            table.set_version(arg.version)
    except XenError as error:
        rc = -error.errno
    arg.version = table.version
    guest_memory.write(vcpu, uop, bytes(arg))
    return rc


def _cache_flush(vcpu: "Vcpu", arg: abi.gnttab_cache_flush) -> int:
    if arg.offset >= PAGE_SIZE or arg.offset + arg.length > PAGE_SIZE:
        return -Errno.EINVAL
    if arg.op & ~(abi.GNTTAB_CACHE_CLEAN | abi.GNTTAB_CACHE_INVAL):
        return -Errno.EINVAL
    if arg.length == 0 or arg.op == 0:
        return 0
    host = vcpu.domain.host
    mfn = arg.a.dev_bus_addr >> PAGE_SHIFT
    if mfn >= host.machine.frames:
        return -Errno.EINVAL
    owner = host.machine.frame_info(mfn).owner
    if owner is None:
        return -Errno.EPERM
    if owner != vcpu.domain.domid and not vcpu.domain.grants.hw.maps(mfn, owner):
        return -Errno.EINVAL
    return -Errno.EOPNOTSUPP


@grant_table_op.sub(GrantTableOp.GNTTABOP_cache_flush, note="EOPNOTSUPP on x86, as in Xen")
def cache_flush(vcpu: "Vcpu", uop: int, count: int) -> int:
    """Cache maintenance is for other architectures: what asks for some is checked, and refused."""
    size = sizeof(layout_for(abi.gnttab_cache_flush, vcpu.domain.is_32bit))
    _check_array(vcpu, uop, size * count)
    for index in range(min(count, ITEMS_AT_ONCE)):
        rc = _cache_flush(vcpu, guest_memory.copy_in(vcpu, abi.gnttab_cache_flush, uop + index * size))
        if rc:
            return rc
    if count > ITEMS_AT_ONCE:
        raise Continuation(GrantTableOp.GNTTABOP_cache_flush, uop + ITEMS_AT_ONCE * size, count - ITEMS_AT_ONCE)
    return 0


@grant_table_op.sub(GrantTableOp.GNTTABOP_transfer, note="EOPNOTSUPP, as with Xen's gnttab=no-transfer")
def transfer(vcpu: "Vcpu", uop: int, count: int) -> int:
    """Frames do not change their owners."""
    _check_array(vcpu, uop, sizeof(layout_for(abi.gnttab_transfer, vcpu.domain.is_32bit)) * count)
    return -Errno.EOPNOTSUPP


grant_table_op.refuse(Errno.ENOSYS, GrantTableOp.GNTTABOP_dump_table, note="not in Xen either")
