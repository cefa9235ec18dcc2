/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MMUEXT_SET_LDT: segments of a local table, its limits, pages that cannot be written while in use, tables that are not
 * there. Documented: xen/xen.h (MMUEXT_SET_LDT: page aligned, at most 8192 entries).
 */
#include "guest.h"

#define SEG(base, limit, access, flags)                                                                                \
    ((u64)((limit)&0xffff) | (u64)((base)&0xffffff) << 16 | (u64)(access) << 40 | (u64)((limit) >> 16 & 15) << 48 |    \
     (u64)(flags) << 52 | (u64)((base) >> 24 & 255) << 56)
ASM_FN(load_fs, "mov %" ARG ", %fs; xor %edx, %edx; mov %edx, %fs");
ASM_FN(use_fs, "mov %" ARG ", %fs; mov %fs:4, %eax; xor %edx, %edx; mov %edx, %fs");
ASM_FN(sldt_kernel, "xor %eax, %eax; sldt %ax");

void guest(void)
{
    u64 *ldt = page_alloc();
    u32 *low = page_alloc();
    struct trap t;
    low[1] = 0x600df00d;
    /* A page below 4 GiB, for a base of 32 bits. */
    ulong at = BITS == 64 ? 0x10000000 : (ulong)low;
#ifdef __x86_64__
    pte_t *l3 = page_alloc(), *l2 = page_alloc(), *l1 = page_alloc();
    l1[0] = pte_for(mfn_of(low), RWP);
    protect(l1, ROP);
    l2[(at >> 21) & 511] = pte_for(mfn_of(l1), RWP);
    protect(l2, ROP);
    l3[0] = pte_for(mfn_of(l2), RWP);
    protect(l3, ROP);
    RC(mmu_update((u64)base_mfn() * PAGE, pte_for(mfn_of(l3), RWP)), 0, "low addresses");
#endif
    ldt[0] = SEG(at, 0xfff, 0xf3, 0x4);
    ldt[1] = SEG(at, 0xfff, 0x73, 0x4); /* not present */
    ldt[2] = SEG(0, 0xfffffull, 0xf9, 0xc); /* execute-only */
    ldt[511] = SEG(at, 0xfff, 0xf3, 0x4);
    RC(mmuext(MMUEXT_SET_LDT, (ulong)ldt + 8, 16), -EINVAL, "an LDT that is not aligned");
    RC(mmuext(MMUEXT_SET_LDT, (ulong)ldt, 8193), -EINVAL, "too many entries");
    RC(protect(ldt, ROP), 0, "read-only");
    RC(mmuext(MMUEXT_SET_LDT, (ulong)ldt, 16), 0, "SET_LDT");
    t = try_kernel(use_fs, 0 << 3 | 4 | 3);
    expect(t, NO_TRAP, 0, "a segment of the LDT");
    EQ((u32)t.value, 0x600df00d, "read through it");
    t = try_user(use_fs, 0 << 3 | 4 | 3);
    expect(t, NO_TRAP, 0, "a segment of the LDT in user mode");
    EQ((u32)t.value, 0x600df00d, "read through it");
    expect(try_kernel(load_fs, 1 << 3 | 4 | 3), NP, 1 << 3 | 4, "one that is not present");
    expect(try_kernel(load_fs, 2 << 3 | 4 | 3), GP, 2 << 3 | 4, "execute-only code");
    expect(try_kernel(load_fs, 3 << 3 | 4 | 3), GP, 3 << 3 | 4, "an empty one");
    expect(try_kernel(load_fs, 16 << 3 | 4 | 3), GP, 16 << 3 | 4, "one behind the limit");
    REFUSED(protect(ldt, RWP), "a writable mapping of an LDT in use");
    RC(update_descriptor((u64)mfn_of(ldt) * PAGE + 8, SEG(at, 0xfff, 0xf3, 0x4)), 0, "update_descriptor in the LDT");
    expect(try_kernel(load_fs, 1 << 3 | 4 | 3), NO_TRAP, 0, "the changed one");
    RC(update_descriptor((u64)mfn_of(ldt) * PAGE + 8, SEG(at, 0x67, 0x89, 0)), -EINVAL, "a TSS in the LDT");
    RC(mmuext(MMUEXT_SET_LDT, (ulong)ldt, 512), 0, "a longer one");
    expect(try_kernel(load_fs, 511 << 3 | 4 | 3), NO_TRAP, 0, "its last entry");
    RC(mmuext(MMUEXT_SET_LDT, 0, 0), 0, "no LDT");
    expect(try_kernel(load_fs, 0 << 3 | 4 | 3), GP, 4, "it is gone");
    RC(protect(ldt, RWP), 0, "and its page free");
    /* A table whose page is writable cannot be used. */
    RC(mmuext(MMUEXT_SET_LDT, (ulong)ldt, 16), 0, "an LDT that is mapped writable can be named");
    t = try_kernel(load_fs, 0 << 3 | 4 | 3);
    CHECK(t.vector == GP || t.vector == PF, "but not used: vector %d", t.vector);
    RC(mmuext(MMUEXT_SET_LDT, 0, 0), 0, "no LDT");
#ifdef __i386__
    /* Xen asks only whether an address can be a guest's in 64-bit mode, and all 32-bit ones can. */
    const ulong places[] = {HYPERVISOR_VIRT_START, 0xfffff000};
    for (uint i = 0; i < 2; i++) {
        RC(mmuext(MMUEXT_SET_LDT, places[i], 8192), 0, "an LDT in Xen's window can be named");
        t = try_kernel(load_fs, 0 << 3 | 4 | 3);
        CHECK(t.vector == GP || t.vector == PF, "but not used: vector %d", t.vector);
        t = try_kernel(load_fs, 8191 << 3 | 4 | 3);
        CHECK(t.vector == GP || t.vector == PF, "nor its end, behind 4 GiB: vector %d", t.vector);
    }
    RC(mmuext(MMUEXT_SET_LDT, 0, 0), 0, "no LDT");
#else
    RC(mmuext(MMUEXT_SET_LDT, HYPERVISOR_VIRT_START, 16), -EINVAL, "an LDT in Xen's window");
#endif
}
