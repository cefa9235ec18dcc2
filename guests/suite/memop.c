/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_op: balloon, extents of several frames, exchange, what is told and what is refused. Documented: xen/memory.h.
 * Not in the headers, so as Xen does it: the reservation commands give what was done, never an errno; a command that
 * cannot be continued refuses a continuation's first argument with EINVAL.
 */
#include "guest.h"

#define COUNT 40

static xen_pfn_t list[COUNT], out[COUNT];

static long reserve(uint cmd, xen_pfn_t *extents, ulong count, uint order)
{
    struct xen_memory_reservation r = {.nr_extents = count, .extent_order = order, .domid = DOMID_SELF};
    set_xen_guest_handle(r.extent_start, extents);
    return memory_op(cmd, &r);
}

static long current(void)
{
    domid_t self = DOMID_SELF;
    return memory_op(XENMEM_current_reservation, &self);
}

static long exchange(ulong in, uint in_order, ulong n_out, uint out_order, ulong *done)
{
    struct xen_memory_exchange e = {
        .in = {.nr_extents = in, .extent_order = in_order, .domid = DOMID_SELF},
        .out = {.nr_extents = n_out, .extent_order = out_order, .domid = DOMID_SELF},
    };
    set_xen_guest_handle(e.in.extent_start, list);
    set_xen_guest_handle(e.out.extent_start, out);
    long rc = memory_op(XENMEM_exchange, &e);
    *done = e.nr_exchanged;
    return rc;
}

static void balloon(void)
{
    long before = current();
    CHECK(before > 0, "current reservation %ld", before);
    for (uint i = 0; i < COUNT; i++)
        list[i] = pfn_to_mfn(pfn_alloc());
    ulong first = mfn_to_pfn(list[0]);
    RC(reserve(XENMEM_decrease_reservation, list, COUNT, 0), COUNT, "decrease");
    RC(current(), before - COUNT, "the reservation after it");
    RC(reserve(XENMEM_decrease_reservation, list, COUNT, 0), 0, "the same frames again");
    for (uint i = 0; i < COUNT; i++)
        list[i] = first + i;
    RC(reserve(XENMEM_populate_physmap, list, COUNT, 0), COUNT, "populate");
    RC(current(), before, "the reservation as it was");
    for (uint i = 0; i < COUNT; i++)
        EQ(mfn_to_pfn(list[i]), first + i, "m2p of a populated frame");
}

static void refusals(void)
{
    domid_t nobody = 0x1234, dom0 = 0;
    RC(reserve(XENMEM_increase_reservation, NULL, 1, 10), 0, "an extent that is too large");
    RC(reserve(XENMEM_decrease_reservation, (xen_pfn_t *)0x1000, 1, 0), 0, "a list that is not mapped");
    RC(memory_op(XENMEM_populate_physmap, (void *)0x1000), 0, "an argument that is not mapped");
    RC(memory_op(XENMEM_populate_physmap | 7 << 6, (void *)0x1000), 7, "the same, later");
    RC(memory_op(XENMEM_current_reservation, &nobody), -ESRCH, "the reservation of nobody");
    RC(memory_op(XENMEM_maximum_reservation, &dom0), -EPERM, "the reservation of domain 0");
    RC(memory_op(XENMEM_maximum_gpfn, (void *)0x1000), -EFAULT, "an argument that is not mapped");
    RC(memory_op(XENMEM_maximum_ram_page | 1 << 6, NULL), -EINVAL, "a continuation of nothing");
    struct xen_memory_map machine_map = {0};
    RC(memory_op(XENMEM_machine_memory_map, &machine_map), -EPERM, "the machine's memory map");
#ifdef __i386__
    /* Xen's layer for 32-bit guests widens the argument before it asks who the caller is. */
    RC(memory_op(XENMEM_machine_memory_map, NULL), -EFAULT, "the machine's memory map to nowhere");
#else
    RC(memory_op(XENMEM_machine_memory_map, NULL), -EPERM, "the machine's memory map to nowhere");
#endif
    RC(memory_op(63, NULL), -ENOSYS, "a command that is not there");
    struct xen_add_to_physmap add = {.domid = DOMID_SELF, .space = XENMAPSPACE_shared_info};
    RC(memory_op(XENMEM_add_to_physmap, &add), -EACCES, "a physmap of a PV domain");
    add.domid = nobody;
    RC(memory_op(XENMEM_add_to_physmap, &add), -ESRCH, "a physmap of nobody");
}

static void extents(void)
{
    ulong done;
    for (uint i = 0; i < 4; i++)
        list[i] = pfn_to_mfn(pfn_alloc());
    ulong first = mfn_to_pfn(list[0]);
    out[0] = first;
    long rc = exchange(4, 0, 1, 2, &done);
    if (rc == -ENOMEM)
        return; /* no four frames in a row are free */
    RC(rc, 0, "four frames for one extent");
    EQ(done, 4, "extents done");
    EQ(out[0] & 3, 0, "alignment");
    for (uint i = 0; i < 4; i++)
        EQ(mfn_to_pfn(out[0] + i), first + i, "m2p of the extent");
    list[0] = out[0];
    for (uint i = 0; i < 4; i++)
        out[i] = first + i;
    RC(exchange(1, 2, 4, 0, &done), 0, "and back");
    EQ(done, 1, "extents done");
    for (uint i = 0; i < 4; i++)
        EQ(mfn_to_pfn(out[i]), first + i, "m2p of single frames");
    list[0] = mfn_of(pool);
    out[0] = pfn_of(pool);
    RC(exchange(1, 0, 1, 0, &done), -EINVAL, "a frame that is mapped");
    EQ(done, 0, "extents done");
    RC(exchange(2, 0, 1, 0, &done), -EINVAL, "lists of different sizes");
    RC(exchange(1, 20, 1, 20, &done), -EPERM, "extents that are too large");
}

static void tables(void)
{
    struct xen_machphys_mapping map;
    RC(memory_op(XENMEM_machphys_mapping, &map), 0, "machphys_mapping");
#ifdef __x86_64__
    EQ(map.v_start, 0xffff800000000000, "start of the table");
#else
    EQ(map.v_start, 0xf5800000, "start of the table");
#endif
    CHECK(map.v_end > map.v_start && map.max_mfn >= mfn_of(pool), "end of the table");
    static xen_pfn_t frames[4];
    struct xen_machphys_mfn_list l = {.max_extents = 4};
    set_xen_guest_handle(l.extent_start, frames);
    RC(memory_op(XENMEM_machphys_mfn_list, &l), 0, "machphys_mfn_list");
    CHECK(l.nr_extents >= 1 && frames[0] != 0, "%u extents from %lx", l.nr_extents, (ulong)frames[0]);
    l.nr_extents = 0;
    long rc = memory_op(XENMEM_machphys_compat_mfn_list, &l);
    if (rc != -EOPNOTSUPP) { /* a Xen without 32-bit PV guests */
        RC(rc, 0, "machphys_compat_mfn_list");
        CHECK(l.nr_extents >= 1, "extents of the narrow table");
    }
}

void guest(void)
{
    balloon();
    refusals();
    extents();
    tables();
}
