/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid by the forced emulation prefix: Xen's leaves, registers it leaves alone, both modes; the prefix is for cpuid only.
 * Documented: xen/arch-x86/cpuid.h, xen/arch-x86/xen.h (XEN_EMULATE_PREFIX).
 */
#include "guest.h"
#include <xen/arch-x86/cpuid.h>

static u32 leaf[6] asm("cpuid_leaf") USED;
#ifdef __x86_64__
#define SAVE "push %rbx; "
#define RESTORE "pop %rbx; "
#else
#define SAVE "push %ebx; "
#define RESTORE "pop %ebx; "
#endif
#define CPUID_BODY(insn)                                                                                               \
    SAVE "mov cpuid_leaf, %eax; mov cpuid_leaf+4, %ecx; " insn "; mov %eax, cpuid_leaf+8; mov %ebx, cpuid_leaf+12;"     \
         "mov %ecx, cpuid_leaf+16; mov %edx, cpuid_leaf+20; " RESTORE
ASM_FN(fep_cpuid, CPUID_BODY(".byte 0x0f,0x0b,0x78,0x65,0x6e; cpuid"));
ASM_FN(plain_cpuid, CPUID_BODY("cpuid"));
ASM_FN(fep_nop, ".byte 0x0f,0x0b,0x78,0x65,0x6e; nop");
ASM_FN(fep_rdtsc, ".byte 0x0f,0x0b,0x78,0x65,0x6e; rdtsc");
ASM_FN(fep_twice, ".byte 0x0f,0x0b,0x78,0x65,0x6e; .byte 0x0f,0x0b,0x78,0x65,0x6e; cpuid");
ASM_FN(fep_other, ".byte 0x0f,0x0b,0x78,0x65,0x6f; cpuid");
ASM_FN(fep_flags, SAVE "stc; mov $1, %eax; .byte 0x0f,0x0b,0x78,0x65,0x6e; cpuid; setc %al; movzbl %al, %eax; " RESTORE);

static void ask(struct trap (*try)(ulong (*)(ulong), ulong), u32 number, u32 sub)
{
    leaf[0] = number;
    leaf[1] = sub;
    expect(try(fep_cpuid, 0), NO_TRAP, 0, "cpuid");
}

void guest(void)
{
    struct trap (*modes[2])(ulong (*)(ulong), ulong) = {try_kernel, try_user};
    for (int mode = 0; mode < 2; mode++) {
        ask(modes[mode], XEN_CPUID_FIRST_LEAF, 0);
        CHECK(leaf[2] >= XEN_CPUID_FIRST_LEAF + 2, "the last leaf of Xen's: %x", leaf[2]);
        EQ(leaf[3], XEN_CPUID_SIGNATURE_EBX, "signature");
        EQ(leaf[4], XEN_CPUID_SIGNATURE_ECX, "signature");
        EQ(leaf[5], XEN_CPUID_SIGNATURE_EDX, "signature");
        ask(modes[mode], XEN_CPUID_FIRST_LEAF + 1, 0);
        EQ(leaf[2], version_op(XENVER_version, NULL), "Xen's version");
        ask(modes[mode], 0x40ffff00, 0);
        ask(modes[mode], 0, 0);
        CHECK(leaf[2] >= 1 && leaf[3], "leaf 0: %x %x", leaf[2], leaf[3]);
        ask(modes[mode], 1, 0);
        CHECK(leaf[5] & 1 << 6, "PAE: %x", leaf[5]);
        CHECK(leaf[4] & 1u << 31, "a hypervisor: %x", leaf[4]);
        EQ(leaf[5] & (1 << 3 | 1 << 12 | 1 << 1), 0, "no PSE, MTRR or VME for PV guests");
        EQ(leaf[4] & (1 << 5 | 1 << 3), 0, "no VMX, no MONITOR");
        ask(modes[mode], 0x80000001, 0);
        EQ(leaf[4] & 1 << 2, 0, "no SVM");
        expect_at(modes[mode](fep_nop, 0), UD, 0, fep_nop, "the prefix before nop");
        expect_at(modes[mode](fep_rdtsc, 0), UD, 0, fep_rdtsc, "the prefix before rdtsc");
        expect_at(modes[mode](fep_twice, 0), UD, 0, fep_twice, "the prefix twice");
        expect_at(modes[mode](fep_other, 0), UD, 0, fep_other, "another prefix");
        EQ(modes[mode](fep_flags, 0).value, 1, "flags are kept");
        leaf[0] = 0;
        expect(modes[mode](plain_cpuid, 0), NO_TRAP, 0, "cpuid without the prefix");
    }
    /* An instruction that the page's end cuts off. */
    u8_t *page = page_alloc(), *second = page_alloc();
    CHECK(second == page + PAGE, "pages follow each other");
    static const u8_t code[] = {0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2};
    memcpy(second - 5, code, sizeof(code));
    RC(protect(second, 0), 0, "unmapped");
    struct trap t = try_kernel((ulong(*)(ulong))(second - 5), 0);
    CHECK(t.vector == PF || t.vector == UD, "the prefix at a page's end: vector %d", t.vector);
    if (t.vector == PF)
        EQ(t.cr2, (ulong)second, "cr2");
}
