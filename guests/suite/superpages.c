/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Superpages are not for PV guests: bit 7 is refused in every table, by updates and by pinning (XSA-148, 167).
 * Documented: XSA-148's advisory; superpage support was removed in Xen 4.10.
 */
#include "guest.h"

void guest(void)
{
    ulong mfn = pfn_to_mfn(pfn_alloc()) & ~511ul;
    pte_t *table = page_alloc();
    new_l1(SCRATCH_VA);
    for (int level = 2; level <= PTE_LEVELS; level++) {
        u64 at = pte_maddr(SCRATCH_VA, level);
        pte_t before = *pte_of(SCRATCH_VA, level);
        if (level < PTE_LEVELS) {
            REFUSED(mmu_update(at, pte_for(mfn, P | RW | US | A | PSE)), "a superpage");
            REFUSED(mmu_update(at, pte_for(mfn, P | US | PSE)), "a read-only superpage");
            REFUSED(mmu_update(at, pte_for(0, P | RW | US | PSE)), "a superpage of frame 0");
        }
        REFUSED(mmu_update(at, before | PSE), "bit 7 in a live entry: not even for the fast path");
        REFUSED(mmu_update(at | MMU_PT_UPDATE_PRESERVE_AD, before | PSE), "bit 7 with A and D preserved");
        EQ(*pte_of(SCRATCH_VA, level) & PSE, 0, "the entry");
    }
    table[0] = pte_for(mfn, P | RW | US | PSE);
    RC(protect(table, ROP), 0, "read-only");
    REFUSED(mmuext(MMUEXT_PIN_L2_TABLE, mfn_of(table), 0), "an L2 with a superpage");
    if (BITS == 64)
        REFUSED(mmuext(MMUEXT_PIN_L3_TABLE, mfn_of(table), 0), "an L3 with a superpage");
    REFUSED(mmuext(MMUEXT_MARK_SUPER, mfn, 0), "MMUEXT_MARK_SUPER");
    REFUSED(mmuext(MMUEXT_UNMARK_SUPER, mfn, 0), "MMUEXT_UNMARK_SUPER");
    /* A bit 7 in an entry that is not present is the guest's own affair. */
    RC(mmu_update(pte_maddr(SCRATCH_VA, 2) + 8, PSE), 0, "not present, with bit 7");
    RC(mmu_update(pte_maddr(SCRATCH_VA, 2) + 8, 0), 0, "cleared");
}
