/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XENMEM_exchange: old frames for new ones; what does not fit is refused and nothing is lost (XSA-29, 159, 212).
 * Documented: xen/memory.h.
 */
#include "guest.h"

static struct xen_memory_exchange e;
static xen_pfn_t in[4], out[4];

static long exchange(ulong nin, uint oin, ulong nout, uint oout)
{
    memset(&e, 0, sizeof(e));
    e.in.nr_extents = nin;
    e.in.extent_order = oin;
    e.in.domid = DOMID_SELF;
    e.out.nr_extents = nout;
    e.out.extent_order = oout;
    e.out.domid = DOMID_SELF;
    set_xen_guest_handle(e.in.extent_start, in);
    set_xen_guest_handle(e.out.extent_start, out);
    return memory_op(XENMEM_exchange, &e);
}

void guest(void)
{
    domid_t self = DOMID_SELF;
    ulong pfn = pfn_alloc(), old = pfn_to_mfn(pfn);
    long pages = memory_op(XENMEM_current_reservation, &self), rc;
    in[0] = old;
    out[0] = pfn;
    rc = exchange(1, 0, 1, 0);
    RC(rc, 0, "one for one");
    EQ(e.nr_exchanged, 1, "nr_exchanged");
    EQ(mfn_to_pfn(out[0]), pfn, "the new frame's m2p entry");
    RC(memory_op(XENMEM_current_reservation, &self), pages, "as many frames as before");
    new_l1(SCRATCH_VA);
    RC(update_va(SCRATCH_VA, pte_for(out[0], RWP), UVMF_INVLPG), 0, "mapping the new one");
    if (out[0] != old)
        REFUSED(update_va(SCRATCH_VA + PAGE, pte_for(old, RWP), 0), "mapping the old one");

    /* A mapped frame cannot be stolen. */
    in[0] = out[0];
    ulong kept = out[0];
    out[0] = pfn;
    REFUSED(exchange(1, 0, 1, 0), "a mapped frame");
    EQ(e.nr_exchanged, 0, "none exchanged");
    *(volatile u32 *)SCRATCH_VA = 3;
    EQ(mfn_to_pfn(kept), pfn, "it is still ours");
    REFUSED(exchange(1, 0, 2, 0), "more out than in");
    REFUSED(exchange(1, 0, 1, 1), "a larger order");
    in[0] = 0xfffffff;
    REFUSED(exchange(1, 0, 1, 0), "a frame that is not there");
    in[0] = info->shared_info / PAGE;
    REFUSED(exchange(1, 0, 1, 0), "shared_info");
    in[0] = base_mfn();
    REFUSED(exchange(1, 0, 1, 0), "the page table");
    REFUSED(exchange(~0ul, 0, ~0ul, 0), "absurdly many");
    REFUSED(exchange(1ul << (BITS - 9), 9, ~0ul & ~511ul, 0), "a number that overflows");
    /* XSA-29, 212: pointers into Xen. */
    e.in.nr_extents = e.out.nr_extents = 1;
    set_xen_guest_handle(e.out.extent_start, (xen_pfn_t *)HYPERVISOR_VIRT_START);
    in[0] = pfn_to_mfn(pfn_alloc());
    REFUSED(memory_op(XENMEM_exchange, &e), "an output in Xen's window");
    set_xen_guest_handle(e.in.extent_start, (xen_pfn_t *)HYPERVISOR_VIRT_START);
    e.nr_exchanged = 0;
    REFUSED(memory_op(XENMEM_exchange, &e), "an input in Xen's window");
    set_xen_guest_handle(e.in.extent_start, in);
    set_xen_guest_handle(e.out.extent_start, out);
    e.nr_exchanged = 5;
    REFUSED(memory_op(XENMEM_exchange, &e), "more done than asked");
    RC(memory_op(XENMEM_current_reservation, &self), pages, "nothing was lost");
}
