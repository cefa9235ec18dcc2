/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames given back while they are page tables, pinned, descriptors or granted: they stay what they are until their last use
 * ends; nothing can be mapped anew afterwards. XSA-206, 287, 385.
 */
#include "guest.h"

static long decrease(ulong mfn)
{
    xen_pfn_t list[1] = {mfn};
    struct xen_memory_reservation r = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(r.extent_start, list);
    return memory_op(XENMEM_decrease_reservation, &r);
}

void guest(void)
{
    domid_t self = DOMID_SELF;
    pte_t *l1 = page_alloc();
    ulong m1 = mfn_of(l1), data = pfn_to_mfn(pfn_alloc());
    long before = memory_op(XENMEM_current_reservation, &self);
    new_l1(SCRATCH_VA);
    l1[0] = pte_for(data, RWP);
    protect(l1, ROP);
    RC(mmuext(MMUEXT_PIN_L1_TABLE, m1, 0), 0, "pin");
    RC(mmu_update(pte_maddr(SCRATCH_VA, 2) + 8, pte_for(m1, P | RW | US | A)), 0, "in use");
    *(volatile u32 *)(SCRATCH_VA + 0x200000) = 1;
    long rc = decrease(m1);
    CHECK(rc == 0 || rc == 1, "giving back a pinned table in use: %ld", rc);
    EQ(*(volatile u32 *)(SCRATCH_VA + 0x200000), 1, "its mapping works still");
    EQ(l1[0] & PTE_ADDR, (u64)data * PAGE, "and its contents");
    REFUSED(protect(l1, RWP), "it is no page to write");
    RC(mmu_update(pte_maddr(SCRATCH_VA, 2) + 8, 0), 0, "no longer in use");
    mmuext(MMUEXT_UNPIN_TABLE, m1, 0);
    RC(update_va((ulong)l1, 0, UVMF_INVLPG), 0, "our view of it goes");
    if (rc == 1)
        REFUSED(update_va((ulong)l1, pte_for(m1, RWP), UVMF_INVLPG), "it is gone");
    /* The top table, while it is loaded. */
    ulong top = base_mfn();
    rc = decrease(top);
    CHECK(rc == 0 || rc == 1, "giving back the top table: %ld", rc);
    EQ(*(volatile u32 *)info->magic, *(u32 *)"xen-", "the address space works still");
    REFUSED(mmu_update((u64)top * PAGE, pte_for(top, P | RW | US)), "its entries are checked still");
    CHECK(memory_op(XENMEM_current_reservation, &self) <= before, "no more frames than before");
    /* A frame mapped at two places. */
    ulong two = pfn_to_mfn(pfn_alloc());
    update_va(SCRATCH_VA, pte_for(two, RWP), UVMF_INVLPG);
    update_va(SCRATCH_VA + PAGE, pte_for(two, ROP), UVMF_INVLPG);
    RC(decrease(two), 1, "giving back a frame that is mapped twice");
    RC(update_va(SCRATCH_VA, 0, UVMF_INVLPG), 0, "one mapping goes");
    (void)*(volatile u32 *)(SCRATCH_VA + PAGE);
    RC(update_va(SCRATCH_VA + PAGE, 0, UVMF_INVLPG), 0, "the other goes");
    REFUSED(update_va(SCRATCH_VA, pte_for(two, ROP), UVMF_INVLPG), "now it is gone");
}
