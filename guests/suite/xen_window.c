/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Xen's part of the address space: its entries cannot be set, its addresses cannot be used, the machine-to-phys table in it
 * can be read and not written. 64-bit: L4 slots 256..271; 32-bit: from 0xF5800000.
 * Documented: xen/arch-x86/xen-x86_64.h and xen-x86_32.h (HYPERVISOR_VIRT_START); XSA-213, 215, 286.
 */
#include "guest.h"

ASM_FN(load, "mov (%" ARG "), %eax");
ASM_FN(store, "mov %eax, (%" ARG ")");
ASM_FN(jump, "jmp *%" ARG);

void guest(void)
{
    struct xen_machphys_mapping mapping;
    ulong window = HYPERVISOR_VIRT_START;
    struct trap t;
    pte_t *table = page_alloc();
    new_l1(SCRATCH_VA);
    RC(memory_op(XENMEM_machphys_mapping, &mapping), 0, "machphys_mapping");
    EQ(mapping.v_start, window, "where the table begins");
    CHECK(mapping.v_end > mapping.v_start && mapping.max_mfn > 0, "v_end %lx max_mfn %lx", mapping.v_end, mapping.max_mfn);
    for (ulong pfn = 0; pfn < info->nr_pages; pfn += 7)
        if (mfn_to_pfn(pfn_to_mfn(pfn)) != pfn)
            CHECK(0, "m2p of pfn %lx: %lx", pfn, mfn_to_pfn(pfn_to_mfn(pfn)));
    t = try_kernel(store, window + sizeof(ulong) * mfn_of(pool));
    EQ(t.vector, PF, "writing the machine-to-phys table");
    t = try_user(store, window + sizeof(ulong) * mfn_of(pool));
    EQ(t.vector, PF, "writing it from user mode");
    RC(update_va(window, pte_for(mfn_of(pool), RWP), UVMF_INVLPG), -EINVAL, "update_va_mapping there");
    RC(HC_1(__HYPERVISOR_set_trap_table, window), -EFAULT, "a table of traps there");
    RC(version_op(XENVER_extraversion, (void *)(window + 0x1000)), -EFAULT, "an answer to there");
#ifdef __x86_64__
    u64 l4 = (u64)base_mfn() * PAGE;
    protect(table, ROP);
    for (uint slot = 256; slot < 272; slot++) {
        REFUSED(mmu_update(l4 + slot * 8, 0), "clearing a slot of Xen's");
        REFUSED(mmu_update(l4 + slot * 8, pte_for(mfn_of(table), P | RW | US)), "setting a slot of Xen's");
        REFUSED(mmu_update(l4 + slot * 8 + MMU_PT_UPDATE_PRESERVE_AD, pte_for(base_mfn(), P | US)), "itself in a slot of Xen's");
    }
    static const ulong addresses[] = {0xffff804000000000, 0xffff820000000000, 0xffff82d080200000, 0xffff830000000000,
                                      0xffff87fffffff000};
    for (uint i = 0; i < ARRAY_SIZE(addresses); i++) {
        EQ(try_kernel(load, addresses[i]).vector, PF, "a load from Xen's addresses");
        EQ(try_kernel(store, addresses[i]).vector, PF, "a store to Xen's addresses");
        EQ(try_kernel(jump, addresses[i]).vector, PF, "a jump to Xen's addresses");
        EQ(try_user(load, addresses[i]).vector, PF, "a load from Xen's addresses in user mode");
        RC(version_op(XENVER_extraversion, (void *)addresses[i]), -EFAULT, "an answer to Xen's addresses");
    }
    REFUSED(version_op(XENVER_extraversion, (void *)0x8000000000000000), "an answer to a non-canonical address");
    REFUSED(version_op(XENVER_extraversion, (void *)0xffff87fffffffff8), "an answer across the window's end");
    RC(mmu_update(l4 + 272 * 8, pte_for(mfn_of(table), P | RW | US)), 0, "the first slot behind Xen's");
    RC(mmu_update(l4 + 272 * 8, 0), 0, "cleared");
    RC(mmu_update(l4 + 255 * 8, pte_for(mfn_of(table), P | RW | US)), 0, "the last slot before Xen's");
    RC(mmu_update(l4 + 255 * 8, 0), 0, "cleared");
#else
    u64 l2 = pte_maddr(0xf5000000, 2) & ~0xfffull;
    for (uint slot = 0x1ac; slot < 512; slot += 3) { /* 0xf5800000 and up */
        REFUSED(mmu_update(l2 + slot * 8, 0), "clearing an entry of Xen's");
        REFUSED(mmu_update(l2 + slot * 8, pte_for(mfn_of(table), P | RW | US)), "setting an entry of Xen's");
    }
    EQ(try_kernel(load, 0xff000000).vector, PF, "a load from Xen's addresses");
    EQ(try_kernel(store, 0xfff00000).vector, PF, "a store to Xen's addresses");
    EQ(try_kernel(jump, 0xff000000).vector, PF, "a jump to Xen's addresses");
    EQ(try_user(load, 0xff000000).vector, PF, "a load from Xen's addresses in user mode");
    RC(version_op(XENVER_extraversion, (void *)0xff000000), -EFAULT, "an answer to Xen's addresses");
    RC(version_op(XENVER_extraversion, (void *)0xf57ffff8), -EFAULT, "an answer across the window's begin");
    /* The L3's fourth entry is for Xen's L2 and cannot be changed to another, or away. */
    u64 l3 = (u64)base_mfn() * PAGE;
    REFUSED(mmu_update(l3 + 24, pte_for(mfn_of(table), P)), "another L2 for Xen's gigabyte");
    REFUSED(mmu_update(l3 + 32, pte_for(mfn_of(table), P)), "a fifth L3 entry");
#endif
}
