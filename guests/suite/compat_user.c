/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit applications of a 64-bit guest: code below 4 GiB under Xen's 32-bit selectors; int $0x80, syscall and sysenter reach
 * the kernel with the application's frame; addresses and pushes have 32 bits. syscall is for AMD's processors there,
 * sysenter for Intel's: the other is #UD. Documented: xen/callback.h (syscall32, sysenter), FLAT_USER_CS32.
 * domain: widths=64
 */
#include "guest.h"
#include <xen/callback.h>

#define LOW 0x10000000ul
#define STACK (LOW + 0x2000 - 16)

asm(".pushsection .rodata\n.code32\n"
    "compat_begin:\n"
    "c_int80: mov $0x11, %eax; mov $0x22, %ebx; int $0x80; c_int80_next: ud2\n"
    "c_syscall: mov $0x33, %eax; syscall; c_syscall_next: ud2\n"
    "c_sysenter: mov $0x44, %eax; mov %esp, %ebp; sysenter; c_sysenter_next: ud2\n"
    "c_push: push $0x55; pop %eax; sub $4, %esp; movl $0x66, (%esp); pop %ebx; ud2\n"
    "c_wrap: mov $0xe02b, %ecx; mov %ecx, %ds; mov $0xfffffff0, %ebx; mov 0x10001010(%ebx), %eax; ud2\n"
    "c_inc: xor %eax, %eax; inc %eax; inc %eax; dec %eax; aam $10; ud2\n"
    "c_high: mov $0xe02b, %ecx; mov %ecx, %ds; mov 0xfffff000, %eax; ud2\n"
    "c_ud: ud2\n"
    "c_far: ljmp $0xe033, $0x10000000 + c_far64 - compat_begin\n"
    ".code64\n"
    "c_far64: mov $0x123456789abc, %rax; ud2\n"
    "compat_end:\n.popsection\n");
extern char compat_begin[], compat_end[], c_int80[], c_int80_next[], c_syscall[], c_syscall_next[], c_sysenter[], c_push[], c_wrap[],
    c_inc[], c_high[], c_ud[], c_far[];

static struct regs seen;
static int hook(struct regs *regs)
{
    if (regs->vector != 0x80 && regs->vector != SYSCALL32 && regs->vector != SYSENTER && regs->vector != UD)
        return 0;
    if (regs->vector == UD && seen.vector)
        return 0;
    seen = *regs;
    return regs->vector == 0x80 || regs->vector == SYSCALL32; /* where sysenter came from, nobody knows */
}

static ulong low(char *label)
{
    return LOW + (ulong)(label - compat_begin);
}

static struct trap run(char *label)
{
    memset(&seen, 0, sizeof(seen));
    return try_user_at(low(label), 0, FLAT_USER_CS32, 0x202, STACK, FLAT_USER_SS32);
}

void guest(void)
{
    pte_t *l3 = page_alloc(), *l2 = page_alloc(), *l1 = page_alloc();
    char *code = page_alloc();
    u32 *data = page_alloc();
    struct trap t;
    memcpy(code, compat_begin, (size_t)(compat_end - compat_begin));
    data[0] = 0xfeedbeef;
    l1[0] = pte_for(mfn_of(code), ROP);
    l1[1] = pte_for(mfn_of(data), RWP);
    protect(l1, ROP);
    l2[(LOW >> 21) & 511] = pte_for(mfn_of(l1), RWP);
    protect(l2, ROP);
    l3[0] = pte_for(mfn_of(l2), RWP);
    protect(l3, ROP);
    RC(mmu_update((u64)base_mfn() * PAGE, pte_for(mfn_of(l3), RWP)), 0, "low addresses");
    trap_hook = hook;
    set_callback(CALLBACKTYPE_syscall32, syscall32_entry, CALLBACKF_mask_events);
    set_callback(CALLBACKTYPE_sysenter, sysenter_entry, CALLBACKF_mask_events);

    run(c_int80);
    EQ(seen.vector, 0x80, "int $0x80");
    EQ(seen.ax, 0x11, "eax");
    EQ(seen.bx, 0x22, "ebx");
    EQ(seen.ip, low(c_int80_next), "eip");
    EQ((u16)seen.cs, FLAT_USER_CS32, "cs");
    EQ(seen.sp, STACK, "esp");
    EQ((u16)seen.ss, FLAT_USER_SS32, "ss");
    t = run(c_syscall);
    if (seen.vector == SYSCALL32) {
        EQ(seen.ax, 0x33, "eax");
        EQ(seen.ip, low(c_syscall_next), "eip");
        EQ((u16)seen.cs, FLAT_USER_CS32, "cs");
    } else
        EQ(t.ip, low(c_syscall) + 5, "#UD at syscall");
    t = run(c_sysenter);
    CHECK(t.vector == UD || t.vector == SYSENTER || t.vector == GP, "sysenter: vector %d, entry %lu", t.vector, seen.vector);
    seen.vector = 1;
    t = try_user_at(low(c_push), 0, FLAT_USER_CS32, 0x202, STACK, FLAT_USER_SS32);
    EQ(t.vector, UD, "pushes");
    EQ(t.value, 0x55, "a popped value");
    EQ(t.sp, STACK, "esp after it");
    t = try_user_at(low(c_wrap), 0, FLAT_USER_CS32, 0x202, STACK, FLAT_USER_SS32);
    EQ(t.vector, UD, "an address that wraps");
    EQ((u32)t.value, 0xfeedbeef, "what is there");
    t = try_user_at(low(c_inc), 0, FLAT_USER_CS32, 0x202, STACK, FLAT_USER_SS32);
    EQ(t.vector, UD, "one-byte inc and aam");
    EQ(t.value, 1, "their value");
    t = try_user_at(low(c_high), 0, FLAT_USER_CS32, 0x202, STACK, FLAT_USER_SS32);
    expect(t, PF, US, "a load of high addresses");
    EQ(t.cr2, 0xfffff000, "is not sign-extended");
    expect(try_user_at(low(c_ud), 0, FLAT_USER_CS32, 0x202, STACK, FLAT_USER_SS32), UD, 0, "ud2");
    t = try_user_at(low(c_far), 0, FLAT_USER_CS32, 0x202, STACK, FLAT_USER_SS32);
    EQ(t.vector, UD, "a far jump to 64-bit code");
    EQ(t.value, 0x123456789abc, "which runs");
    EQ((u16)t.cs, FLAT_USER_CS64, "its cs");
    t = try_user_at(low(c_push), 0, FLAT_USER_CS32, 0x202, STACK | 0xabc00000000, FLAT_USER_SS32);
    EQ(t.vector, UD, "a stack pointer with an upper half");
}
