/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pinning: only what validates and is not writable; once; by its own level; a pinned table stays one until unpinned.
 * Documented: xen/xen.h (MMUEXT_PIN_L1_TABLE and following).
 */
#include "guest.h"

void guest(void)
{
    pte_t *l1 = page_alloc(), *l2 = page_alloc();
    ulong m1 = mfn_of(l1), m2 = mfn_of(l2);
    l1[3] = pte_for(mfn_of(pool[POOL - 1]), RWP);
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, m1, 0), "pinning a page that is mapped writable");
    RC(protect(l1, ROP), 0, "read-only");
    RC(mmuext(MMUEXT_PIN_L1_TABLE, m1, 0), 0, "pin");
    RC(mmuext(MMUEXT_PIN_L1_TABLE, m1, 0), -EINVAL, "a second pin");
    REFUSED(protect(l1, RWP), "a writable mapping of a pinned table");
    REFUSED(mmuext(MMUEXT_PIN_L2_TABLE, m1, 0), "an L1 as L2");
    REFUSED(mmuext(MMUEXT_UNPIN_TABLE, m2, 0), "unpinning what is not pinned");
    RC(mmu_update((u64)m1 * PAGE, pte_for(mfn_of(pool[POOL - 1]), ROP)), 0, "an update of a table nobody uses");
    EQ(l1[0] & P, P, "is made");
    REFUSED(mmu_update((u64)m1 * PAGE, pte_for(m1, RWP)), "a writable mapping of itself");

    RC(protect(l2, ROP), 0, "read-only");
    RC(mmuext(MMUEXT_PIN_L2_TABLE, m2, 0), 0, "pin an L2");
    RC(mmu_update((u64)m2 * PAGE + 8, pte_for(m1, P | RW | US | A)), 0, "the L1 in it");
    RC(mmuext(MMUEXT_UNPIN_TABLE, m1, 0), 0, "unpin the L1");
    RC(mmuext(MMUEXT_UNPIN_TABLE, m1, 0), -EINVAL, "a second unpin");
    REFUSED(protect(l1, RWP), "a table that another holds");
    RC(mmuext(MMUEXT_UNPIN_TABLE, m2, 0), 0, "unpin the L2");
    RC(protect(l1, RWP), 0, "the L1 is free again");
    RC(protect(l2, RWP), 0, "the L2 is free again");

    /* What does not validate. */
    static const struct {
        pte_t entry;
        const char *what;
    } bad[] = {
        {0xfffffff000 | 7, "a frame that is not there"},
        {0x80, "no present entry"}, /* validates */
        {0x0010000000000007, "a bit above the address"},
        {0x7 | PCD, "uncached"},
        {0x7 | PSE, "PAT"},
    };
    for (uint i = 0; i < ARRAY_SIZE(bad); i++) {
        memset(l1, 0, PAGE);
        l1[511] = bad[i].entry;
        if (bad[i].entry == (7 | PCD) || bad[i].entry == (7 | PSE))
            l1[511] |= (u64)mfn_of(pool[POOL - 1]) * PAGE;
        protect(l1, ROP);
        if (bad[i].entry & P)
            REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, m1, 0), bad[i].what);
        else {
            RC(mmuext(MMUEXT_PIN_L1_TABLE, m1, 0), 0, bad[i].what);
            RC(mmuext(MMUEXT_UNPIN_TABLE, m1, 0), 0, "unpin");
        }
        RC(protect(l1, RWP), 0, "writable again after a failure");
    }
    memset(l1, 0, PAGE);
    l1[0] = pte_for(m1, ROP); /* an L1 that shows itself, read-only */
    protect(l1, ROP);
    RC(mmuext(MMUEXT_PIN_L1_TABLE, m1, 0), 0, "an L1 that maps itself read-only");
    RC(mmuext(MMUEXT_UNPIN_TABLE, m1, 0), 0, "unpin");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, 0xfffffff, 0), "a frame that is not there");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, info->shared_info / PAGE, 0), "shared_info");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of((void *)info->pt_base), 0), "the top table as L1");
    if (BITS == 32)
        RC(mmuext(MMUEXT_PIN_L4_TABLE, m2, 0), 0, "an L4 in a 32-bit guest is passed over");
    REFUSED(mmuext(MMUEXT_UNPIN_TABLE, 0xfffffff, 0), "unpin of a frame that is not there");
    REFUSED(mmuext(99, 0, 0), "an unknown operation");
}
