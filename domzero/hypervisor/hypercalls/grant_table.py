"""grant_table_op (grant_table.h), version 1."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from domzero import _machine
from domzero.abi import grant_table as abi
from domzero.abi.errno import Errno
from domzero.abi.grant_table import GntCopy, GntStatus, GrantTableOp
from domzero.abi.layout import Wire, layout_for, sizeof
from domzero.abi.xen import DOMID_SELF, PAGE_SIZE, Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.grant import Active, GrantError, GrantTable, domain_by_id
from domzero.hypervisor.hypercalls.table import Continuation, operation

if TYPE_CHECKING:
    from domzero.hypervisor.domain import Domain
    from domzero.hypervisor.vcpu import Vcpu

grant_table_op = operation(Hypercall.HYPERVISOR_grant_table_op, "upu", GrantTableOp)

ITEMS_AT_ONCE = 128
"""After so many elements the guest gets its events."""
UNMAPPED = (1 << 32) - 1

T = TypeVar("T", bound=Wire)
Item = Callable[["Vcpu", T], None]


def _each(command: GrantTableOp, cls: type[T], *, note: str = "") -> Callable[[Item[T]], Item[T]]:
    """Registers a command that takes an array, each element with a status of its own."""

    def register(item: Item[T]) -> Item[T]:
        @grant_table_op.sub(command, note=note)
        def handler(vcpu: "Vcpu", uop: int, count: int) -> int:
            if count >> 31:
                return -Errno.EINVAL
            size = sizeof(layout_for(cls, vcpu.domain.is_32bit))
            guest_memory.check_range(vcpu, uop, size * count)
            for _ in range(min(count, ITEMS_AT_ONCE)):
                arg = guest_memory.copy_in(vcpu, cls, uop)
                try:
                    item(vcpu, arg)
                    arg.status = GntStatus.GNTST_okay
                except GrantError as error:
                    arg.status = error.status
                guest_memory.write(vcpu, uop, bytes(arg))
                uop += size
            if count > ITEMS_AT_ONCE:
                raise Continuation(command, uop, count - ITEMS_AT_ONCE)
            return 0

        return item

    return register


def _one(command: GrantTableOp, cls: type[T], *, note: str = "") -> Callable[[Item[T]], Item[T]]:
    """Registers a command that takes exactly one element with a status."""

    def register(item: Item[T]) -> Item[T]:
        @grant_table_op.sub(command, note=note)
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


def _own_table(vcpu: "Vcpu", domid: int) -> GrantTable:
    """An unprivileged domain may look only at its own table.

    :raises GrantError: bad_domain, permission_denied.
    """
    if domid == 0 or domain_by_id(vcpu.domain, domid) is not vcpu.domain:
        raise GrantError(GntStatus.GNTST_permission_denied)
    return vcpu.domain.grants


@_one(GrantTableOp.GNTTABOP_setup_table, abi.gnttab_setup_table)
def setup_table(vcpu: "Vcpu", arg: abi.gnttab_setup_table) -> None:
    """Makes the table large enough and says where it is."""
    table = _own_table(vcpu, arg.dom)
    table.grow(arg.nr_frames)
    size = guest_memory.ulong_size(vcpu)
    try:
        for index, mfn in enumerate(table.frames[: arg.nr_frames]):
            guest_memory.write_ulong(vcpu, arg.frame_list + index * size, mfn)
    except _machine.GuestFault:
        raise GrantError(GntStatus.GNTST_bad_virt_addr) from None


@_one(GrantTableOp.GNTTABOP_query_size, abi.gnttab_query_size)
def query_size(vcpu: "Vcpu", arg: abi.gnttab_query_size) -> None:
    """How large the table is and may become."""
    table = _own_table(vcpu, arg.dom)
    arg.nr_frames = len(table.frames)
    arg.max_nr_frames = table.max_frames


@_one(GrantTableOp.GNTTABOP_get_status_frames, abi.gnttab_get_status_frames, note="general_error with version 1")
def get_status_frames(vcpu: "Vcpu", arg: abi.gnttab_get_status_frames) -> None:
    """Version 2 keeps status apart from the entries."""
    _own_table(vcpu, arg.dom)
    raise GrantError(GntStatus.GNTST_general_error)


@_each(GrantTableOp.GNTTABOP_map_grant_ref, abi.gnttab_map_grant_ref)
def map_grant_ref(vcpu: "Vcpu", arg: abi.gnttab_map_grant_ref) -> None:
    """Maps a frame that another domain has granted."""
    arg.handle = UNMAPPED
    vcpu.domain.maptrack.map(vcpu, arg)


@_each(GrantTableOp.GNTTABOP_unmap_grant_ref, abi.gnttab_unmap_grant_ref)
def unmap_grant_ref(vcpu: "Vcpu", arg: abi.gnttab_unmap_grant_ref) -> None:
    """Ends such a mapping."""
    vcpu.domain.maptrack.unmap(vcpu, arg.handle, host_addr=arg.host_addr, dev_bus_addr=arg.dev_bus_addr)


@_each(GrantTableOp.GNTTABOP_unmap_and_replace, abi.gnttab_unmap_and_replace)
def unmap_and_replace(vcpu: "Vcpu", arg: abi.gnttab_unmap_and_replace) -> None:
    """Ends such a mapping and moves another one there."""
    vcpu.domain.maptrack.unmap(vcpu, arg.handle, host_addr=arg.host_addr, replace=arg.new_addr)


@_each(GrantTableOp.GNTTABOP_swap_grant_ref, abi.gnttab_swap_grant_ref)
def swap_grant_ref(vcpu: "Vcpu", arg: abi.gnttab_swap_grant_ref) -> None:
    """Exchanges two entries."""
    vcpu.domain.grants.swap(arg.ref_a, arg.ref_b)


class _End:
    """One end of a copy, held for its duration."""

    def __init__(self, vcpu: "Vcpu", ptr: abi.gnttab_copy_ptr, *, is_gref: bool, writable: bool) -> None:
        self.writable = writable
        self.domain: Domain = domain_by_id(vcpu.domain, ptr.domid)
        self.ref: int | None = None
        if is_gref:
            active: Active = self.domain.grants.acquire(ptr.u.ref, vcpu.domain.domid, writable=writable)
            self.ref, self.mfn = ptr.u.ref, active.mfn
            return
        if ptr.domid not in (DOMID_SELF, vcpu.domain.domid):
            raise GrantError(GntStatus.GNTST_permission_denied)
        self.mfn = ptr.u.gmfn
        if self.domain.hw.get_ref(self.mfn, writable=writable):
            raise GrantError(GntStatus.GNTST_bad_page)

    def release(self) -> None:
        if self.ref is not None:
            self.domain.grants.release(self.ref, writable=self.writable)
        else:
            self.domain.hw.put_ref(self.mfn, writable=self.writable)


@_each(GrantTableOp.GNTTABOP_copy, abi.gnttab_copy)
def copy(vcpu: "Vcpu", arg: abi.gnttab_copy) -> None:
    """Copies within a page between frames, own or granted."""
    if arg.source.offset + arg.len > PAGE_SIZE or arg.dest.offset + arg.len > PAGE_SIZE:
        raise GrantError(GntStatus.GNTST_bad_copy_arg)
    source = _End(vcpu, arg.source, is_gref=bool(arg.flags & GntCopy.GNTCOPY_source_gref), writable=False)
    try:
        dest = _End(vcpu, arg.dest, is_gref=bool(arg.flags & GntCopy.GNTCOPY_dest_gref), writable=True)
        machine = vcpu.domain.host.machine
        try:
            data = machine.read(source.mfn * PAGE_SIZE + arg.source.offset, arg.len)
            machine.write(dest.mfn * PAGE_SIZE + arg.dest.offset, data)
        finally:
            dest.release()
    finally:
        source.release()


@grant_table_op.sub(GrantTableOp.GNTTABOP_get_version)
def get_version(vcpu: "Vcpu", uop: int, count: int) -> int:
    """The version of the domain's table."""
    if count != 1:
        return -Errno.EINVAL
    arg = guest_memory.copy_in(vcpu, abi.gnttab_get_version, uop)
    try:
        arg.version = _own_table(vcpu, arg.dom).version
    except GrantError as error:
        return -Errno.ESRCH if error.status is GntStatus.GNTST_bad_domain else -Errno.EPERM
    guest_memory.write(vcpu, uop, bytes(arg))
    return 0


@grant_table_op.sub(GrantTableOp.GNTTABOP_set_version, note="version 1 only, as with gnttab=max-ver:1")
def set_version(vcpu: "Vcpu", uop: int, count: int) -> int:
    """Chooses a version."""
    if count != 1:
        return -Errno.EINVAL
    arg = guest_memory.copy_in(vcpu, abi.gnttab_set_version, uop)
    if arg.version not in (1, 2):
        return -Errno.EINVAL
    if arg.version == 2:
        return -Errno.ENOSYS
    arg.version = vcpu.domain.grants.version
    guest_memory.write(vcpu, uop, bytes(arg))
    return 0


@grant_table_op.sub(GrantTableOp.GNTTABOP_cache_flush, note="EOPNOTSUPP on x86, as in Xen")
def cache_flush(vcpu: "Vcpu", uop: int, count: int) -> int:
    """Cache maintenance is for other architectures."""
    if count == 0:
        return 0
    arg = guest_memory.copy_in(vcpu, abi.gnttab_cache_flush, uop)
    if arg.offset >= PAGE_SIZE or arg.length > PAGE_SIZE or arg.offset + arg.length > PAGE_SIZE:
        return -Errno.EINVAL
    return 0 if arg.length == 0 or arg.op == 0 else -Errno.EOPNOTSUPP


grant_table_op.refuse(Errno.ENOSYS, GrantTableOp.GNTTABOP_transfer, note="as with Xen's gnttab=no-transfer")
grant_table_op.refuse(Errno.ENOSYS, GrantTableOp.GNTTABOP_dump_table, note="not in Xen either")
