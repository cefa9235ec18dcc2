/* SPDX-License-Identifier: Apache-2.0 */
/*
 * update_descriptor and set_gdt: what a guest may put into its descriptor tables. Levels below the kernel's are raised to
 * it; system descriptors are refused; call gates must lead to guest code; pages of the table cannot be written.
 * Documented: xen/xen.h (update_descriptor, set_gdt), xen/arch-x86/xen.h (reserved GDT pages); XSA-298.
 */
#include "guest.h"

#define SEG(base, limit, access, flags)                                                                                \
    ((u64)((limit)&0xffff) | (u64)((base)&0xffffff) << 16 | (u64)(access) << 40 | (u64)((limit) >> 16 & 15) << 48 |    \
     (u64)(flags) << 52 | (u64)((base) >> 24 & 255) << 56)
#define DATA3 SEG(0, 0xfffffull, 0xf3, 0xc)
#define CODE3 SEG(0, 0xfffffull, 0xfb, BITS == 64 ? 0xa : 0xc)
ASM_FN(load_ds, "mov %ds, %edx; ld_at: mov %" ARG ", %ds; mov %edx, %ds");
ASM_FN(load_es, "mov %es, %edx; mov %" ARG ", %es; mov %edx, %es");
ASM_FN(load_fs, "mov %" ARG ", %fs; xor %edx, %edx; mov %edx, %fs");
ASM_FN(write_to, "movl $0, (%" ARG ")");
ASM_FN(rights, "xor %edx, %edx; lar %" ARG ", %" DX "; jz 1f; xor %edx, %edx; 1: mov %" DX ", %" AX);
static u64 *gdt;
static ulong frames[16];

static long put(uint index, u64 descriptor)
{
    return update_descriptor((u64)mfn_of(gdt) * PAGE + index * 8, descriptor);
}

void guest(void)
{
    gdt = page_alloc();
    frames[0] = mfn_of(gdt);
    gdt[2] = DATA3;
    RC(HC_2(__HYPERVISOR_set_gdt, frames, 512), -EINVAL, "a GDT that is mapped writable");
    RC(protect(gdt, ROP), 0, "read-only");
    RC(HC_2(__HYPERVISOR_set_gdt, frames, 14 * 512 + 1), -EINVAL, "more entries than there are");
    RC(HC_2(__HYPERVISOR_set_gdt, 8, 512), -EFAULT, "no list of frames");
    RC(HC_2(__HYPERVISOR_set_gdt, frames, 513), -EINVAL, "a second frame that is not there");
    RC(HC_2(__HYPERVISOR_set_gdt, frames, 512), 0, "set_gdt");
    REFUSED(protect(gdt, RWP), "a writable mapping of the GDT");
    expect(try_kernel(write_to, (ulong)gdt), PF, P | RW, "a write to the GDT");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(gdt), 0), "the GDT as a page table");
    expect(try_kernel(load_ds, 0x10 | 3), NO_TRAP, 0, "a data segment");
    expect(try_user(load_es, 0x10 | 3), NO_TRAP, 0, "a data segment in user mode");

    RC(put(3, CODE3), 0, "a code segment");
    RC(put(4, SEG(0, 0xfffffull, 0x93, 0xc)), 0, "a data segment of level 0");
    EQ(gdt[4] >> 45 & 3, BITS == 64 ? 3 : 1, "its level is the guest kernel's");
    RC(put(5, SEG(0, 0xfffffull, 0x9b, BITS == 64 ? 0xa : 0xc)), 0, "a code segment of level 0");
    EQ(gdt[5] >> 45 & 3, BITS == 64 ? 3 : 1, "its level");
    RC(put(6, SEG(0, 0xfffffull, 0x73, 0xc)), 0, "one that is not present");
    RC(put(6, 0x123456780000ffffull & ~(1ull << 47)), 0, "anything that is not present");
    RC(put(6, 0), 0, "nothing");
    static const struct {
        u8_t access;
        const char *what;
    } bad[] = {
        {0x81, "a 16-bit TSS"}, {0x82, "an LDT"},   {0x85, "a task gate"},      {0x86, "a 16-bit interrupt gate"},
        {0x87, "a 16-bit trap gate"}, {0x89, "a TSS"}, {0x8b, "a busy TSS"}, {0x8e, "an interrupt gate"},
        {0x8f, "a trap gate"}, {0xe9, "a TSS of level 3"}, {0xe2, "an LDT of level 3"}, {0xef, "a trap gate of level 3"},
    };
    for (uint i = 0; i < ARRAY_SIZE(bad); i++) {
        RC(put(7, SEG(0x1000, 0x67, bad[i].access, 0)), -EINVAL, bad[i].what);
        EQ(gdt[7], 0, "is not written");
    }
    /* Call gates to Xen's code, and nowhere. */
    RC(put(7, 0x0000ec00e0081000ull), -EINVAL, "a call gate to Xen's code segment");
    RC(update_descriptor((u64)mfn_of(gdt) * PAGE + 4, DATA3), -EINVAL, "an address that is not aligned");
    RC(update_descriptor(0xfffffffull * PAGE, DATA3), -EINVAL, "a frame that is not there");
    RC(update_descriptor((u64)base_mfn() * PAGE, DATA3), -EINVAL, "a page table");
    EQ(*(volatile pte_t *)info->pt_base & PTE_ADDR, *pte_of(0, PTE_LEVELS) & PTE_ADDR, "is not written");
    u64 *plain = page_alloc();
    RC(update_descriptor((u64)mfn_of(plain) * PAGE, DATA3), 0, "an ordinary page");
    EQ(plain[0] & ~(1ull << 40), DATA3 & ~(1ull << 40), "is written");
    if (BITS == 32)
        RC(put(8, SEG(0, 0xfffffull, 0xfb, 0xa)), -EINVAL, "64-bit code in a 32-bit guest");

    /* Selectors. */
    RC(put(8, SEG(0, 0xfffffull, 0x73, 0xc)), 0, "not present");
    expect(try_kernel(load_ds, 8 * 8 | 3), NP, 8 * 8, "a segment that is not present");
    expect(try_user(load_es, 8 * 8 | 3), NP, 8 * 8, "in user mode, too");
    RC(put(9, SEG(0, 0xfffffull, 0xf9, 0xc)), 0, "execute-only code");
    expect(try_kernel(load_ds, 9 * 8 | 3), GP, 9 * 8, "execute-only code in ds");
    expect(try_kernel(load_fs, 512 * 8 | 3), GP, 512 * 8, "a selector behind the table");
    /* Xen's own entries: those of level 0 are out of reach; lar sees nothing there. */
    for (ulong selector = 0xe000; selector < 0xe200; selector += 8) {
        struct trap t = try_user(load_fs, selector | 3);
        CHECK(t.vector == NO_TRAP || (t.vector == GP && t.error == selector) || t.vector == NP, "Xen's selector %lx: vector %d, error %lx", selector,
              t.vector, t.error);
        t = try_user(rights, selector | 3);
        CHECK(t.vector == NO_TRAP, "lar of Xen's selector %lx", selector);
        if (t.value)
            CHECK((t.value >> 13 & 3) == 3 || (t.value & 0x1f00) >= 0x1800, "lar of selector %lx in user mode: %lx", selector, t.value);
    }
    expect(try_user(load_fs, 0xe000 - 8 + 3), GP, 0xdff8, "the last entry before Xen's");

    /* A second set_gdt with bad contents leaves the first. */
    u64 *worse = page_alloc();
    worse[20] = SEG(0, 0x67, 0x89, 0);
    protect(worse, ROP);
    frames[0] = mfn_of(worse);
    RC(HC_2(__HYPERVISOR_set_gdt, frames, 512), -EINVAL, "a GDT with a TSS in it");
    expect(try_kernel(load_ds, 0x10 | 3), NO_TRAP, 0, "the old GDT is still there");
    RC(protect(worse, RWP), 0, "the page of the bad one is free");
    RC(HC_2(__HYPERVISOR_set_gdt, NULL, 0), 0, "no GDT");
    expect_at(try_kernel(load_ds, 0x10 | 3), GP, 0x10, (void *)((ulong)load_ds + (BITS == 64 ? 2 : 2)), "the old GDT is gone");
    RC(protect(gdt, RWP), 0, "and its page is free");
}
