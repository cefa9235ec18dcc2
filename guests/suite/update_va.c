/* SPDX-License-Identifier: Apache-2.0 */
/*
 * update_va_mapping: every kind of flush, addresses without a table, domains that are not there.
 * Documented: xen/xen.h (UVMF_*).
 */
#include "guest.h"

void guest(void)
{
    volatile u32 *view = (void *)SCRATCH_VA;
    u32 *one = page_alloc(), *two = page_alloc();
    ulong all = ~0ul;
    const ulong flags[] = {UVMF_INVLPG | UVMF_LOCAL,    UVMF_INVLPG | UVMF_ALL,
                           UVMF_TLB_FLUSH | UVMF_LOCAL, UVMF_TLB_FLUSH | UVMF_ALL,
                           UVMF_INVLPG | (ulong)&all,   UVMF_TLB_FLUSH | (ulong)&all};
    *one = 1;
    *two = 2;
    new_l1(SCRATCH_VA);
    for (uint i = 0; i < ARRAY_SIZE(flags); i++) {
        RC(update_va(SCRATCH_VA, pte_for(mfn_of(one), RWP), flags[i]), 0, "one");
        EQ(*view, 1, "the first page");
        RC(update_va(SCRATCH_VA, pte_for(mfn_of(two), RWP), flags[i]), 0, "two");
        EQ(*view, 2, "the second page");
    }
    RC(update_va(SCRATCH_VA, 0, UVMF_NONE), 0, "without a flush");
    EQ(try_kernel((ulong(*)(ulong))SCRATCH_VA, 0).vector, PF, "a page that is gone, flushed or not");
    RC(update_va(SCRATCH_VA + 0x10000000, pte_for(mfn_of(one), RWP), 0), -EINVAL, "an address without an L1");
    REFUSED(update_va(SCRATCH_VA, pte_for(0xfffffff, RWP), 0), "a frame that is not there");
    REFUSED(update_va(SCRATCH_VA, pte_for(base_mfn(), RWP), 0), "a writable table");
    RC(update_va(SCRATCH_VA, pte_for(base_mfn(), ROP), UVMF_INVLPG), 0, "a read-only table");
    EQ(*(volatile pte_t *)(SCRATCH_VA + 8 * (PTE_LEVELS == 4 ? 511 : 3)), *pte_of(VIRT_BASE, PTE_LEVELS), "can be read there");
    RC(update_va(SCRATCH_VA, 0, UVMF_INVLPG), 0, "cleared");
#ifdef __x86_64__
    RC(HC_4(__HYPERVISOR_update_va_mapping_otherdomain, SCRATCH_VA, 0, 0, 99), -ESRCH, "a domain that is not there");
    RC(HC_4(__HYPERVISOR_update_va_mapping_otherdomain, SCRATCH_VA, pte_for(mfn_of(one), RWP), UVMF_INVLPG, DOMID_SELF), 0,
       "ourselves");
#else
    RC(hypercall(__HYPERVISOR_update_va_mapping_otherdomain, SCRATCH_VA, 0, 0, 0, 99), -ESRCH, "a domain that is not there");
    RC(hypercall(__HYPERVISOR_update_va_mapping_otherdomain, SCRATCH_VA, (ulong)pte_for(mfn_of(one), RWP), 0, UVMF_INVLPG,
                 DOMID_SELF),
       0, "ourselves");
#endif
    EQ(*view, 1, "mapped by the other hypercall");
}
