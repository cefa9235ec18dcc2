/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear page tables: an L4 may show itself read-only; never writable, never in a way that makes a table writable
 * (XSA-182, 240). Documented: Xen's command line, pv-linear-pt. domain: widths=64
 */
#include "guest.h"

#define SLOT 300
#define WINDOW (0xffff000000000000ul | (ulong)SLOT << 39)
ASM_FN(store, "movq $0, (%rdi)");

void guest(void)
{
    u64 at = (u64)base_mfn() * PAGE + SLOT * 8;
    pte_t *mine = (pte_t *)info->pt_base;
    REFUSED(mmu_update(at, pte_for(base_mfn(), P | RW | US | A)), "itself, writable");
    RC(mmu_update(at, pte_for(base_mfn(), P | US | A)), 0, "itself, read-only");
    volatile pte_t *shown = (void *)(WINDOW | (ulong)SLOT << 30 | (ulong)SLOT << 21 | (ulong)SLOT << 12);
    EQ(shown[511], mine[511], "the last entry");
    EQ(shown[SLOT] & PTE_ADDR, (u64)base_mfn() * PAGE, "the entry itself");
    for (uint slot = 256; slot < 272; slot++)
        if (shown[slot] & RW && shown[slot] & US)
            CHECK(0, "slot %u shows %llx", slot, (unsigned long long)shown[slot]);
    expect(try_kernel(store, (ulong)&shown[5]), PF, P | RW, "a store through it");
    REFUSED(mmu_update(at, pte_for(base_mfn(), P | RW | US | A)), "making it writable (XSA-182)");
    REFUSED(mmu_update(at | MMU_PT_UPDATE_PRESERVE_AD, pte_for(base_mfn(), P | RW | US | A)), "with A and D preserved");
    EQ(mine[SLOT] & RW, 0, "still read-only");
    /* A table of ours that is pinned and not loaded. */
    pte_t *l4 = page_alloc();
    memcpy(l4, mine, PAGE);
    for (uint slot = 256; slot < 272; slot++)
        l4[slot] = 0;
    l4[SLOT] = pte_for(mfn_of(l4), P | RW | US);
    protect(l4, ROP);
    REFUSED(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(l4), 0), "pinning an L4 with itself writable");
    RC(protect(l4, RWP), 0, "writable");
    l4[SLOT] = pte_for(mfn_of(l4), P | US);
    protect(l4, ROP);
    RC(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(l4), 0), 0, "with itself read-only");
    REFUSED(protect(l4, RWP), "a writable mapping of it");
    RC(mmuext(MMUEXT_UNPIN_TABLE, mfn_of(l4), 0), 0, "unpin");
    RC(protect(l4, RWP), 0, "free again");
    RC(mmu_update(at, 0), 0, "cleared");
}
