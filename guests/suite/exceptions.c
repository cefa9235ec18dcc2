/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every exception that an instruction can raise, from the guest kernel and from user mode: vector, error code, and whether
 * ip is that of the instruction or of the next. Documented: the processor manuals; Xen hands them on unchanged, but for
 * #PF's user bit, which says guest user mode (xen/arch-x86/xen.h).
 */
#include "guest.h"

ASM_FN(ex_div, "xor %edx, %edx; xor %ecx, %ecx; mov $1, %eax; ex_div_at: div %ecx");
ASM_FN(ex_int3, "int3; ex_int3_next: nop");
ASM_FN(ex_int_3, ".byte 0xcd, 3; ex_int_3_next: nop");
ASM_FN(ex_icebp, ".byte 0xf1; ex_icebp_next: nop");
ASM_FN(ex_ud2, "ud2");
ASM_FN(ex_ud1, ".byte 0x0f, 0xb9, 0xc0");
ASM_FN(ex_lock, ".byte 0xf0, 0x90");
ASM_FN(ex_lock_mov, ".byte 0xf0, 0x89, 0x00");
ASM_FN(ex_long, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
ASM_FN(ex_15, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
ASM_FN(ex_ds, "mov %ds, %edx; ex_ds_at: mov %" ARG ", %ds; mov %edx, %ds");
ASM_FN(ex_write, "movl $1, (%" ARG ")");
ASM_FN(ex_read, "mov (%" ARG "), %eax");
ASM_FN(ex_call, "jmp *%" ARG);
ASM_FN(ex_hlt, "hlt");
ASM_FN(ex_ltr, "xor %eax, %eax; ex_ltr_at: ltr %ax");
ASM_FN(ex_lgdt, "lgdt (%" ARG ")");
ASM_FN(ex_ac, "mov %" SP ", %" CX "; sub $16, %" SP "; push %" AX "; pushf; orl $0x40000, (%" SP "); popf;"
              "ex_ac_at: mov 1(%" SP "), %eax; mov %" CX ", %" SP "; push $2; popf");
extern char ex_div_at[], ex_int3_next[], ex_int_3_next[], ex_icebp_next[], ex_ds_at[], ex_ltr_at[], ex_ac_at[];
#ifdef __x86_64__
ASM_FN(ex_stack, "mov %rsp, %rcx; mov %rdi, %rsp; ex_stack_at: pop %rax; mov %rcx, %rsp");
ASM_FN(ex_rbp, "mov %rbp, %rcx; mov %rdi, %rbp; ex_rbp_at: mov (%rbp), %eax");
extern char ex_stack_at[], ex_rbp_at[];
#else
ASM_FN(ex_into, "mov $0x7fffffff, %eax; inc %eax; into; ex_into_next: nop");
ASM_FN(ex_bound, "bound %eax, ex_bounds");
ASM_FN(ex_aam, ".byte 0xd4, 0");
extern char ex_into_next[];
static u32 ex_bounds[2] asm("ex_bounds") USED = {1, 2};
#endif

static void both(struct trap (*try)(ulong (*)(ulong), ulong), ulong user)
{
    void *page = page_alloc();
    expect_at(try(ex_div, 0), DE, 0, ex_div_at, "div by 0");
    expect_at(try(ex_int3, 0), BP_, 0, ex_int3_next, "int3");
    expect_at(try(ex_int_3, 0), BP_, 0, ex_int_3_next, "int $3");
    expect_at(try(ex_icebp, 0), DB, 0, ex_icebp_next, "icebp");
    expect_at(try(ex_ud2, 0), UD, 0, ex_ud2, "ud2");
    expect_at(try(ex_ud1, 0), UD, 0, ex_ud1, "ud1");
    expect_at(try(ex_lock, 0), UD, 0, ex_lock, "lock nop");
    expect_at(try(ex_lock_mov, 0), UD, 0, ex_lock_mov, "lock mov");
    expect_at(try(ex_long, 0), GP, 0, ex_long, "an instruction of 16 bytes");
    expect(try(ex_15, 0), NO_TRAP, 0, "one of 15");
    expect_at(try(ex_ds, 0x1f8 | 3), GP, 0x1f8, ex_ds_at, "a data selector of an empty entry");
    expect_at(try(ex_ds, 0xfff8 | 3), GP, 0xfff8, ex_ds_at, "a data selector behind the GDT");
    expect(try(ex_ds, 0), NO_TRAP, 0, "a null selector");
    expect_at(try(ex_ds, 0x1fc | 3), GP, 0x1fc, ex_ds_at, "a selector of an LDT that is not there");
    expect_at(try(ex_ltr, 0), GP, 0, ex_ltr_at, "ltr");
    expect_at(try(ex_lgdt, (ulong)page), GP, 0, ex_lgdt, "lgdt");
    expect_at(try(ex_write, 8), PF, RW | user, ex_write, "a write to nowhere");
    expect_at(try(ex_read, 8), PF, user, ex_read, "a read from nowhere");
    expect_at(try(ex_call, 8), PF, user | 16, (void *)8, "a jump to nowhere");
    RC(protect(page, ROP), 0, "read-only");
    expect_at(try(ex_write, (ulong)page), PF, P | RW | user, ex_write, "a write to a read-only page");
    expect(try(ex_read, (ulong)page), NO_TRAP, 0, "a read of it");
    RC(protect(page, RWP | NX), 0, "no execution");
    expect_at(try(ex_call, (ulong)page), PF, P | user | 16, page, "a jump to a page without execution");
    if (user || BITS == 64) /* ring 1 is not checked */
        expect_at(try(ex_ac, 0), AC, 0, ex_ac_at, "a misaligned access with AC");
    else
        expect(try(ex_ac, 0), NO_TRAP, 0, "a misaligned access with AC");
#ifdef __x86_64__
    expect_at(try(ex_read, 0x8000000000000000), GP, 0, ex_read, "a non-canonical load");
    expect_at(try(ex_rbp, 0x8000000000000000), SS_, 0, ex_rbp_at, "a non-canonical load by rbp");
    expect_at(try(ex_call, 0x8000000000000000), GP, 0, ex_call, "a non-canonical jump");
#else
    expect_at(try(ex_into, 0), OF, 0, ex_into_next, "into");
    expect_at(try(ex_bound, 0), BR, 0, ex_bound, "bound");
    expect_at(try(ex_aam, 0), DE, 0, ex_aam, "aam 0");
#endif
}

void guest(void)
{
    both(try_kernel, 0);
    both(try_user, US);
    expect_at(try_user(ex_hlt, 0), GP, 0, ex_hlt, "hlt in user mode");
#ifdef __x86_64__
    struct trap t = try_user(ex_stack, 0x8000000000000000);
    expect_at(t, SS_, 0, ex_stack_at, "a non-canonical pop");
#endif
}
