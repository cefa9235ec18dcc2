# SPDX-License-Identifier: Apache-2.0
"""grant_table_op, called as a guest calls it: arguments placed in its memory, answers read from there."""

from typing import Any

from fakes import hypercall

from domzero.abi import grant_table as abi
from domzero.abi.grant_table import GrantTableOp
from domzero.abi.xen import DOMID_SELF, Hypercall

SELF = DOMID_SELF


def gnttab(v: Any, command: int, *args: Any) -> tuple[int, list[Any]]:
    data = b"".join(bytes(arg) for arg in args)
    va = v.hw.place(data)
    rc = hypercall(v, Hypercall.HYPERVISOR_grant_table_op, command, va, len(args))
    size = len(data) // max(len(args), 1)
    return rc, [type(a).from_buffer_copy(v.hw.peek(va + i * size, size)) for i, a in enumerate(args)]


def copy_arg(source: tuple[int, int, int], dest: tuple[int, int, int], length: int, flags: int) -> abi.gnttab_copy:
    arg = abi.gnttab_copy()
    arg.source.u.gmfn, arg.source.domid, arg.source.offset = source
    arg.dest.u.gmfn, arg.dest.domid, arg.dest.offset = dest
    arg.len, arg.flags = length, flags
    return arg


def map_ref(v: Any, dom: int, ref: int, flags: int = 2, address: int = 0x5000) -> Any:
    arg = abi.gnttab_map_grant_ref(address, flags, ref, dom)
    rc, [result] = gnttab(v, GrantTableOp.GNTTABOP_map_grant_ref, arg)
    assert rc == 0
    return result


def unmap_ref(v: Any, handle: int, address: int = 0x5000, bus: int = 0) -> int:
    arg = abi.gnttab_unmap_grant_ref(address, bus, handle)
    _, [result] = gnttab(v, GrantTableOp.GNTTABOP_unmap_grant_ref, arg)
    return int(result.status)
