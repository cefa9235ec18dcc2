/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TF: one #DB behind each instruction, DR6.BS; in the kernel by popf, in user mode by iret, over a trap gate and a rep.
 * Documented: the processor manuals; Xen hands #DB on.
 */
#include "guest.h"

static uint steps;
static ulong ips[64];

static int count(struct regs *regs)
{
    if (regs->vector == 0x90)
        return 1;
    if (regs->vector != DB)
        return 0;
    if (steps < 64)
        ips[steps] = regs->ip;
    steps++;
    return 1;
}

ASM_FN(kernel_steps, "pushf; orl $0x100, (%" SP "); popf; nop; ks_1: nop; ks_2: pushf; andl $~0x100, (%" SP "); popf; ks_3: nop");
ASM_FN(user_steps, "nop; us_1: nop; us_2: jmp us_3; ud2; us_3: nop; us_4: nop");
ASM_FN(rep_steps, "mov $4, %ecx; mov $step_room, %" DI "; rs_1: rep stosb; rs_2: nop");
ASM_FN(int_steps, "int $0x90; is_1: nop");
extern char ks_1[], ks_2[], ks_3[], us_1[], us_2[], us_3[], us_4[], rs_1[], rs_2[], is_1[];
static char step_room[16] asm("step_room") USED;

static void step_user(ulong (*fn)(ulong))
{
    steps = 0;
    memset(ips, 0, sizeof(ips));
    set_debugreg(6, 0xffff0ff0);
    try_user_at((ulong)fn, 0, USER_CS, 0x302, user_stack_top(), USER_SS);
}

void guest(void)
{
    trap_hook = count;
    set_debugreg(6, 0xffff0ff0);
    try_kernel(kernel_steps, 0);
    EQ(ips[0], (ulong)ks_1, "the first step is behind the instruction after popf");
    EQ(ips[1], (ulong)ks_2, "the second");
    EQ(steps, 5, "steps in the kernel");
    EQ(get_debugreg(6) & 0x4000, 0x4000, "DR6.BS");
    step_user(user_steps);
    EQ(ips[0], (ulong)us_1, "the first step in user mode");
    EQ(ips[1], (ulong)us_2, "the second");
    EQ(ips[2], (ulong)us_3, "behind the jump");
    EQ(ips[3], (ulong)us_4, "the fourth");
    step_user(rep_steps);
    EQ(ips[2], (ulong)rs_1, "one iteration");
    EQ(ips[3], (ulong)rs_1, "two");
    EQ(ips[4], (ulong)rs_1, "three");
    EQ(ips[5], (ulong)rs_2, "the last iteration ends it");
    step_user(int_steps);
    EQ(ips[0], (ulong)is_1 + 1, "int n clears TF for the handler and the return steps the next instruction");
}
