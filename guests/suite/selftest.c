/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The framework itself: traps are seen from kernel and user mode, calls come back, pages can be mapped.
 * Documented: xen/arch-x86/xen.h (trap tables), the vectors' error codes in the processor manuals.
 */
#include "guest.h"

ASM_FN(do_nothing, "mov $42, %eax");
ASM_FN(do_ud2, "ud2");
ASM_FN(do_load, "mov (%" ARG "), %eax");

static ulong plus_one(ulong x)
{
    return x + 1;
}

void guest(void)
{
    struct trap t = try_kernel(plus_one, 5);
    expect(t, NO_TRAP, 0, "a call in the kernel");
    EQ(t.value, 6, "its value");
    t = try_user(do_nothing, 0);
    expect(t, NO_TRAP, 0, "a call in user mode");
    EQ(t.value, 42, "its value");
    expect_at(try_kernel(do_ud2, 0), UD, 0, do_ud2, "ud2 in the kernel");
    expect_at(try_user(do_ud2, 0), UD, 0, do_ud2, "ud2 in user mode");
    t = try_kernel(do_load, 0x1000);
    expect_at(t, PF, 0, do_load, "a load from nowhere in the kernel");
    EQ(t.cr2, 0x1000, "cr2");
    t = try_user(do_load, 0x2000);
    expect_at(t, PF, US, do_load, "a load from nowhere in user mode");
    EQ(t.cr2, 0x2000, "cr2");
    EQ(*pte_of((ulong)pool, 1) & PTE_ADDR, (u64)mfn_of(pool) * PAGE, "the entry of a page of the pool");
    EQ(mfn_to_pfn(mfn_of(pool)), pfn_of(pool), "m2p of p2m");

    pte_t *l1 = new_l1(SCRATCH_VA);
    ulong pfn = pfn_alloc();
    RC(update_va(SCRATCH_VA, pte_for(pfn_to_mfn(pfn), RWP), UVMF_INVLPG), 0, "mapping a page");
    *(volatile ulong *)SCRATCH_VA = 77;
    EQ(*(volatile ulong *)SCRATCH_VA, 77, "what was written");
    EQ(l1[0] & (P | RW | A | D | PTE_ADDR), pte_for(pfn_to_mfn(pfn), P | RW | A | D), "the new entry");
}
