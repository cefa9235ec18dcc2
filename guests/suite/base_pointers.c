/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MMUEXT_NEW_BASEPTR and NEW_USER_BASEPTR: a copied top table, the old one set free, what is in use cannot be written; user
 * mode with tables of its own. Documented: xen/xen.h.
 */
#include "guest.h"

ASM_FN(load, "mov (%" ARG "), %eax");

void guest(void)
{
    pte_t *top = page_alloc();
    ulong old = base_mfn();
    memcpy(top, (void *)info->pt_base, PAGE);
#ifdef __x86_64__
    for (uint slot = 256; slot < 272; slot++)
        top[slot] = 0;
#else
    /* The L2 of Xen's gigabyte belongs to one L3. */
    RC(protect(top, ROP), 0, "read-only");
    REFUSED(mmuext(MMUEXT_PIN_L3_TABLE, mfn_of(top), 0), "an L3 with the fourth L2 of another");
    REFUSED(mmuext(MMUEXT_NEW_BASEPTR, mfn_of(top), 0), "an L3 with the fourth L2 of another as base");
    RC(protect(top, RWP), 0, "it is no table");
    pte_t *fourth = page_alloc();
    memcpy(fourth, pte_of(VIRT_BASE, 2), PAGE);
    memset(fourth + 0x1ac, 0, (512 - 0x1ac) * 8);
    protect(fourth, ROP);
    top[3] = pte_for(mfn_of(fourth), P);
#endif
    REFUSED(mmuext(MMUEXT_NEW_BASEPTR, mfn_of(top), 0), "a table that is mapped writable");
    RC(protect(top, ROP), 0, "read-only");
    RC(mmuext(MMUEXT_NEW_BASEPTR, mfn_of(top), 0), 0, "a new base");
    EQ(*(volatile u32 *)info->magic, *(u32 *)"xen-", "still running");
    REFUSED(protect(top, RWP), "a writable mapping of the base");
    RC(mmuext(MMUEXT_NEW_BASEPTR, mfn_of(top), 0), 0, "the same again");
    RC(mmuext(MMUEXT_NEW_BASEPTR, old, 0), 0, "the old base");
    REFUSED(mmuext(MMUEXT_NEW_BASEPTR, 0xfffffff, 0), "a frame that is not there");
    REFUSED(mmuext(MMUEXT_NEW_BASEPTR, mfn_of(pool[POOL - 1]), 0), "an ordinary page");
    REFUSED(mmuext(MMUEXT_NEW_BASEPTR, info->shared_info / PAGE, 0), "shared_info");
#ifdef __x86_64__
    REFUSED(mmuext(MMUEXT_NEW_USER_BASEPTR, 0xfffffff, 0), "a user base that is not there");
    REFUSED(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(pool[POOL - 1]), 0), "an ordinary page as user base");
    /* User mode with one table less than the kernel. */
    new_l1(SCRATCH_VA);
    update_va(SCRATCH_VA, pte_for(mfn_of(pool[POOL - 1]), RWP), UVMF_INVLPG);
    RC(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(top), 0), 0, "the copy as user base");
    RC(mmu_update((u64)mfn_of(top) * PAGE, 0), 0, "an update of the user's top table");
    expect(try_user(load, SCRATCH_VA), NO_TRAP, 0, "shared tables");
    pte_t *low = page_alloc(), *l2 = page_alloc(), *l1 = page_alloc();
    l1[0] = pte_for(mfn_of(pool[POOL - 1]), RWP);
    protect(l1, ROP);
    l2[0] = pte_for(mfn_of(l1), RWP);
    protect(l2, ROP);
    low[0] = pte_for(mfn_of(l2), RWP);
    protect(low, ROP);
    RC(mmu_update((u64)old * PAGE, pte_for(mfn_of(low), RWP)), 0, "an address of the kernel's own");
    expect(try_kernel(load, 0), NO_TRAP, 0, "the kernel sees it");
    struct trap t = try_user(load, 0);
    expect(t, PF, US, "user mode does not");
    RC(mmu_update((u64)mfn_of(top) * PAGE, pte_for(mfn_of(low), RWP)), 0, "now in the user's table, too");
    expect(try_user(load, 0), NO_TRAP, 0, "user mode sees it");
    RC(mmuext(MMUEXT_NEW_USER_BASEPTR, 0, 0), 0, "no user base");
    REFUSED(protect(low, RWP), "a table that the kernel's base still has");
    RC(protect(top, RWP), 0, "the user's top table is free");
    RC(mmuext(MMUEXT_NEW_USER_BASEPTR, old, 0), 0, "the kernel's as before");
#endif
}
