/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmu_update: tables of every level, ordinary pages, the machine-to-phys table, preserving A and D, counts of what was
 * done, domains and commands that are not there. Documented: xen/xen.h (MMU_*), Xen's errno values.
 */
#include "guest.h"

static long update(struct mmu_update *list, ulong count, uint *done, uint domid)
{
    return HC_4(__HYPERVISOR_mmu_update, list, count, done, domid);
}

void guest(void)
{
    struct mmu_update list[4];
    uint done = 77;
    u64 *page = page_alloc();
    pte_t *l1 = new_l1(SCRATCH_VA);
    ulong mfn = pfn_to_mfn(pfn_alloc());
    u64 entry_at = (u64)mfn_of(l1) * PAGE;

    RC(update(list, 0, &done, DOMID_SELF), 0, "no request");
    RC(mmu_update(entry_at, pte_for(mfn, RWP)), 0, "an L1 entry");
    *(volatile u32 *)SCRATCH_VA = 5;
    EQ(l1[0] & (A | D), A | D, "accessed and dirty");
    RC(mmu_update(entry_at | MMU_PT_UPDATE_PRESERVE_AD, pte_for(mfn, P | RW | US)), 0, "preserving A and D");
    EQ(l1[0] & (A | D), A | D, "both are preserved");
    RC(mmu_update(entry_at, pte_for(mfn, P | RW | US)), 0, "not preserving");
    EQ(l1[0] & (A | D), 0, "both are clear");
    RC(mmu_update(entry_at | MMU_PT_UPDATE_NO_TRANSLATE, pte_for(mfn, P | RW | US)), 0, "MMU_PT_UPDATE_NO_TRANSLATE");

    /* A page that is no table is simply written. */
    RC(mmu_update((u64)mfn_of(page) * PAGE + 16, 0x1122334455667788ull), 0, "an ordinary page");
    EQ(page[2], 0x1122334455667788ull, "is written");

    /* Several, and the count. */
    list[0] = (struct mmu_update){entry_at + 8, pte_for(mfn, RWP)};
    list[1] = (struct mmu_update){entry_at + 16, pte_for(mfn, ROP)};
    list[2] = (struct mmu_update){entry_at + 24, pte_for(mfn_of(l1), RWP)}; /* refused */
    list[3] = (struct mmu_update){entry_at + 32, pte_for(mfn, RWP)};
    REFUSED(update(list, 4, &done, DOMID_SELF), "a batch with a bad one");
    EQ(done, 2, "requests done before it");
    EQ(l1[2] & P, P, "the second was made");
    EQ(l1[4], 0, "the fourth was not");
    RC(update(list, 2, NULL, DOMID_SELF), 0, "without a count");

    /* Machine-to-phys. */
    ulong pfn = mfn_to_pfn(mfn);
    RC(mmu_update((u64)mfn * PAGE | MMU_MACHPHYS_UPDATE, 0x4321), 0, "m2p");
    EQ(mfn_to_pfn(mfn), 0x4321, "the new m2p entry");
    RC(mmu_update((u64)mfn * PAGE | MMU_MACHPHYS_UPDATE, pfn), 0, "m2p back");
    REFUSED(mmu_update(0xfffffffull * PAGE | MMU_MACHPHYS_UPDATE, 1), "m2p of a frame that is not there");

    /* Refused. */
    for (uint cmd = 4; cmd < 8; cmd++)
        REFUSED(mmu_update(entry_at | cmd, 0), "an unknown command");
    REFUSED(mmu_update(0xfffffffull * PAGE, 0), "a table that is not there");
    REFUSED(mmu_update((u64)mfn_of(page) << 40, 0), "an absurd address");
    RC(update(list, 1, NULL, 99), -ESRCH, "a domain that is not there");
    RC(update(list, 1, NULL, 99 << 16 | DOMID_SELF), -ESRCH, "page tables of a domain that is not there");
    RC(update((void *)8, 1, NULL, DOMID_SELF), -EFAULT, "no list");
    REFUSED(mmu_update(entry_at, pte_for(0xfffffff, RWP)), "a frame that is not there");
    REFUSED(mmu_update(entry_at, pte_for(base_mfn(), RWP)), "a writable mapping of the top table");
    REFUSED(mmu_update(entry_at, pte_for(mfn, RWP | PSE)), "PAT");
    REFUSED(mmu_update(entry_at, pte_for(mfn, RWP | PCD)), "uncached");
    REFUSED(mmu_update(entry_at, pte_for(mfn, RWP | PWT)), "write-through");
    REFUSED(mmu_update(pte_maddr(SCRATCH_VA, 2), pte_for(mfn, P | RW | US | A)), "an ordinary frame, never used as an L1, that is mapped writable");
    EQ(*pte_of(SCRATCH_VA, 2) & PTE_ADDR, (u64)mfn_of(l1) * PAGE, "the L2 entry stays");
    RC(mmu_update(pte_maddr(SCRATCH_VA, 2) + 8, 0), 0, "an L2 entry");
    RC(mmu_update(pte_maddr(SCRATCH_VA, 2) + 8, 0x1000), 0, "an L2 entry that is not present");
    RC(mmu_update(pte_maddr(SCRATCH_VA, 2) + 8, 0), 0, "nothing again");
}
