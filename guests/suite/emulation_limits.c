/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults and effects at the edges: a selector load with the trap flag, a breakpoint behind mov ss, system calls with TF, NT
 * and AC set, non-canonical segment bases, string instructions that fault half-way, invlpg of odd addresses.
 * XSA-195, 200, 204, 265, 339.
 */
#include "guest.h"

static volatile uint debug_traps, calls;
static volatile ulong call_flags, last_ip;
static int hook(struct regs *regs)
{
    if (regs->vector == DB) {
        debug_traps++;
        last_ip = regs->ip;
        if (debug_traps > 50)
            regs->flags &= ~0x100ul;
        return 1;
    }
    if (regs->vector == SYSCALL || regs->vector == 0x90) {
        calls++;
        call_flags = regs->flags;
        return 1;
    }
    return 0;
}

#ifdef __x86_64__
#define CALL "syscall"
#else
#define CALL "int $0x90"
#endif
ASM_FN(call_tf, "pushf; orl $0x100, (%" SP "); popf; nop; " CALL "; nop; pushf; andl $~0x100, (%" SP "); popf; mov $3, %eax");
ASM_FN(call_nt_ac, "pushf; orl $0x44000, (%" SP "); popf; " CALL "; push $2; popf; mov $4, %eax");
ASM_FN(mov_ss, "mov %ss, %ecx; mss_at: mov %ecx, %ss; int3; mss_next: nop");
ASM_FN(mov_ss_int, "mov %ss, %ecx; mov %ecx, %ss; int $0x90; mov $6, %eax");
ASM_FN(rep_over, "mov $4096, %ecx; mov %" ARG ", %" DI "; rep stosb");
ASM_FN(do_invlpg, "invlpg (%" ARG ")");
ASM_FN(cmpxchg8b, "push %" BX "; push %" SI "; mov %" ARG ", %" SI "; xor %eax, %eax; xor %edx, %edx; mov $1, %ebx; xor %ecx, %ecx;"
                  "lock cmpxchg8b (%" SI "); pop %" SI "; pop %" BX);
extern char mss_next[];

void guest(void)
{
    trap_hook = hook;
    struct trap t = try_user(call_tf, 0);
    expect(t, NO_TRAP, 0, "a system call with TF");
    EQ(t.value, 3, "it comes back");
    EQ(calls, 1, "one call");
    CHECK(debug_traps >= 3 && debug_traps <= 8, "single steps around it: %u", debug_traps);
    calls = 0;
    t = try_user(call_nt_ac, 0);
    expect(t, NO_TRAP, 0, "a system call with NT and AC (XSA-339)");
    EQ(t.value, 4, "it comes back");
    EQ(calls, 1, "one call");
    expect(try_kernel(mov_ss, 0), BP_, 0, "int3 behind mov ss");
    EQ(try_user(mov_ss_int, 0).value, 6, "int behind mov ss");

    /* rep over the end of what is mapped: what was written stays. */
    char *one = page_alloc(), *two = page_alloc();
    CHECK(two == one + PAGE, "pages follow each other");
    memset(one, 0x55, PAGE);
    protect(two, 0);
    t = try_kernel(rep_over, (ulong)one + 4000);
    expect(t, PF, RW, "rep over the end");
    EQ(t.cr2, (ulong)two, "cr2");
    EQ((u8_t)one[4095], (u8_t)t.value, "the last byte before it");
    protect(two, RWP);

    static const ulong odd[] = {0, ~0ul, (ulong)1 << (BITS - 1), HYPERVISOR_VIRT_START, HYPERVISOR_VIRT_START + 0x1000};
    for (uint i = 0; i < ARRAY_SIZE(odd); i++) {
        t = try_kernel(do_invlpg, odd[i]);
        CHECK(t.vector == NO_TRAP || t.vector == GP || t.vector == PF, "invlpg of %lx: vector %d", odd[i], t.vector);
        CHECK(mmuext(MMUEXT_INVLPG_LOCAL, odd[i], 0) <= 0, "INVLPG_LOCAL of %lx", odd[i]);
        CHECK(mmuext(MMUEXT_INVLPG_ALL, odd[i], 0) <= 0, "INVLPG_ALL of %lx", odd[i]);
    }
    /* cmpxchg8b on a read-only page of ours, and on one that is a table of a higher level. */
    protect(one, ROP);
    t = try_kernel(cmpxchg8b, (ulong)one);
    expect(t, PF, P | RW, "cmpxchg8b on a read-only page");
    protect(one, RWP);
    t = try_kernel(cmpxchg8b, info->pt_base);
    expect(t, PF, P | RW, "cmpxchg8b on the top table");
    for (uint reg = 0; reg < 4; reg++)
        set_debugreg(reg, 0);
    set_debugreg(7, 0);
}
