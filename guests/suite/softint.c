/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int n: the gate's privilege level decides. The kernel counts as level 1, user mode as 3; a refused one is #GP with the
 * gate's index (n * 8 + 2) at the instruction. Documented: xen/arch-x86/xen.h, struct trap_info ("0-3: privilege level").
 */
#include "guest.h"

ASM_FN(int_90, "int $0x90; int_90_next: nop");
ASM_FN(int_20, "int $0x20");
ASM_FN(int_82, "mov $17, %eax; xor %ebx, %ebx; int $0x82; int_82_next: nop");
ASM_FN(int_80, "int $0x80; int_80_next: nop");
ASM_FN(int_e, "int $14");
ASM_FN(int_3, "int $3; int_3_next: nop");
extern char int_90_next[], int_80_next[], int_3_next[], int_82_next[];

static void gate(uint vector, uint flags)
{
    set_gate(vector, trap_stubs + vector * 16, flags);
}

void guest(void)
{
    expect_at(try_kernel(int_20, 0), GP, 0x102, int_20, "level 0, kernel");
    expect_at(try_user(int_20, 0), GP, 0x102, int_20, "level 0, user");
    expect_at(try_user(int_e, 0), GP, 14 * 8 + 2, int_e, "int $14 in user mode");
    expect_at(try_kernel(int_90, 0), 0x90, 0, int_90_next, "level 3, kernel");
    expect_at(try_user(int_90, 0), 0x90, 0, int_90_next, "level 3, user");
    expect_at(try_user(int_80, 0), 0x80, 0, int_80_next, "int $0x80 from user mode");
    expect_at(try_kernel(int_80, 0), 0x80, 0, int_80_next, "int $0x80 from the kernel");
    for (uint level = 1; level < 3; level++) {
        gate(0x90, level);
        expect_at(try_kernel(int_90, 0), 0x90, 0, int_90_next, "level 1 or 2, kernel");
        expect_at(try_user(int_90, 0), GP, 0x482, int_90, "level 1 or 2, user");
    }
    gate(0x90, 0);
    expect_at(try_kernel(int_90, 0), GP, 0x482, int_90, "level 0 again");
    gate(0x80, 0);
    expect_at(try_user(int_80, 0), GP, 0x402, int_80, "int $0x80 of level 0");
    gate(BP_, 0); /* Xen's own gate is of level 3 and the guest's not asked */
    expect_at(try_user(int_3, 0), BP_, 0, int_3_next, "int $3");
    /* The hypercall vector is of level 1: for user mode it is a vector like others. In 64-bit guests for the kernel, too. */
    expect_at(try_user(int_82, 0), 0x82, 0, int_82_next, "int $0x82 from user mode");
    if (BITS == 64)
        expect_at(try_kernel(int_82, 0), 0x82, 0, int_82_next, "int $0x82 from a 64-bit kernel");
}
