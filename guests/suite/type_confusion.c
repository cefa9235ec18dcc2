/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One frame, one type: a table of one level is not taken for another, loops do not validate, a descriptor page is no page
 * table, shared_info and grant frames are neither. XSA-240, 273, 148.
 */
#include "guest.h"

void guest(void)
{
    pte_t *a = page_alloc(), *b = page_alloc(), *c = page_alloc();
    ulong ma = mfn_of(a), mb = mfn_of(b), mc = mfn_of(c);
    const u64 table = P | RW | US | A;
    new_l1(SCRATCH_VA);
    u64 l2 = pte_maddr(SCRATCH_VA, 2);
    /* A loop: a in b, b in a. */
    a[0] = pte_for(mb, table);
    b[0] = pte_for(ma, table);
    protect(a, ROP);
    protect(b, ROP);
    REFUSED(mmuext(MMUEXT_PIN_L2_TABLE, ma, 0), "an L2 whose L1 maps it writable");
    if (BITS == 64) {
        REFUSED(mmuext(MMUEXT_PIN_L3_TABLE, ma, 0), "a loop of tables as L3");
        REFUSED(mmuext(MMUEXT_PIN_L4_TABLE, ma, 0), "a loop of tables as L4");
    }
    /* With itself. */
    RC(mmu_update((u64)ma * PAGE, 0) <= 0, 1, "whatever");
    RC(protect(a, RWP), 0, "writable");
    a[0] = pte_for(ma, table);
    protect(a, ROP);
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, ma, 0), "an L1 that maps itself writable");
    REFUSED(mmuext(MMUEXT_PIN_L2_TABLE, ma, 0), "an L2 that holds itself writable");
    RC(protect(a, RWP), 0, "writable");
    RC(protect(b, RWP), 0, "writable");
    memset(a, 0, PAGE);
    memset(b, 0, PAGE);

    /* In use as L1: no L2, no descriptors, no ordinary page. */
    protect(a, ROP);
    RC(mmu_update(l2 + 8, pte_for(ma, table)), 0, "as an L1");
    ulong frames[1] = {ma};
    REFUSED(HC_2(__HYPERVISOR_set_gdt, frames, 512), "an L1 as GDT");
    REFUSED(mmuext(MMUEXT_PIN_L2_TABLE, ma, 0), "an L1 as L2");
    protect(b, ROP);
    RC(mmuext(MMUEXT_PIN_L2_TABLE, mb, 0), 0, "an L2");
    REFUSED(mmu_update(l2 + 16, pte_for(mb, table)), "an L2 as L1");
    if (BITS == 64)
        REFUSED(mmu_update(pte_maddr(SCRATCH_VA, 3) + 8, pte_for(ma, table)), "an L1 as L2 in an L3");
    REFUSED(mmu_update((u64)mb * PAGE, pte_for(mb, table)), "an L2 in itself, writable");
    RC(mmu_update((u64)mb * PAGE, pte_for(ma, table)), 0, "the L1 in two L2s");
    RC(mmu_update(l2 + 8, 0), 0, "once less");
    REFUSED(protect(a, RWP), "still held by the other");
    RC(mmuext(MMUEXT_UNPIN_TABLE, mb, 0), 0, "unpin");
    RC(protect(a, RWP), 0, "free");

    /* Descriptors. */
    protect(c, ROP);
    frames[0] = mc;
    RC(HC_2(__HYPERVISOR_set_gdt, frames, 512), 0, "a GDT");
    REFUSED(mmu_update(l2 + 8, pte_for(mc, table)), "the GDT as L1");
    REFUSED(mmuext(MMUEXT_PIN_L2_TABLE, mc, 0), "the GDT as L2");
    REFUSED(protect(c, RWP), "the GDT writable");
    REFUSED(mmuext(MMUEXT_CLEAR_PAGE, mc, 0), "clearing the GDT");
    REFUSED(mmuext(MMUEXT_COPY_PAGE, mc, ma), "copying over the GDT");
    REFUSED(mmu_update((u64)mc * PAGE, 0), "the GDT by mmu_update");
    RC(HC_2(__HYPERVISOR_set_gdt, NULL, 0), 0, "none");

    /* Xen's frames. */
    REFUSED(mmu_update(l2 + 8, pte_for(info->shared_info / PAGE, table)), "shared_info as L1");
    frames[0] = info->shared_info / PAGE;
    REFUSED(HC_2(__HYPERVISOR_set_gdt, frames, 512), "shared_info as GDT");
#ifdef __x86_64__
    xen_pfn_t grant_frame = 0;
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};
    set_xen_guest_handle(setup.frame_list, &grant_frame);
    RC(grant_op(GNTTABOP_setup_table, &setup, 1), 0, "setup_table");
    for (ulong mfn = 0; mfn < 0x100; mfn++) { /* the first frames of the machine are nobody's that we know */
        if (mfn_to_pfn(mfn) < info->nr_pages && pfn_to_mfn(mfn_to_pfn(mfn)) == mfn)
            continue;
        if (mfn == info->shared_info / PAGE || mfn == grant_frame) /* without a pfn, but its own to map */
            continue;
        REFUSED(update_va(SCRATCH_VA, pte_for(mfn, RWP), 0), "a frame of somebody else's");
        REFUSED(update_va(SCRATCH_VA, pte_for(mfn, ROP), 0), "a frame of somebody else's, read-only");
        REFUSED(mmu_update(l2 + 8, pte_for(mfn, table)), "a frame of somebody else's as L1");
        REFUSED(mmu_update((u64)mfn * PAGE, 0), "an entry in a frame of somebody else's");
    }
#endif
}
