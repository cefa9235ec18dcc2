/* Several vCPUs: each has a stack, and one for traps from user mode, in one aligned block, by which it knows itself. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

char stacks[MAX_CPUS][32768] ALIGNED(32768);
char user_stacks[MAX_CPUS][8192] ALIGNED(4096);
extern char cpu_start[];

uint this_cpu(void)
{
    ulong sp;
    asm volatile("mov %%" SP ", %0" : "=r"(sp));
    return (uint)((sp - (ulong)stacks) / sizeof(stacks[0])) % MAX_CPUS;
}

void relax(void)
{
    sched_op(SCHEDOP_yield, NULL);
}

uint cpu_count(void)
{
    uint count = 0;
    while (count < MAX_CPUS && vcpu_op(VCPUOP_is_up, count, NULL) >= 0)
        count++;
    return count;
}

int start_cpu(uint cpu, void (*fn)(void))
{
    static struct vcpu_guest_context contexts[MAX_CPUS];
    struct vcpu_guest_context *c = &contexts[cpu];
    struct trap_info *traps = c->trap_ctxt;
    long rc;
    memset(c, 0, sizeof(*c));
    c->flags = VGCF_IN_KERNEL;
    for (uint vector = 0; vector < 256; vector++)
        traps[vector] = (struct trap_info){.vector = (u8_t)vector,
                                           .flags = vector == BP_ || vector == OF || vector >= 0x80 ? 3 : 0,
                                           .cs = KERNEL_CS,
                                           .address = (ulong)trap_stubs + vector * 16};
    c->kernel_ss = KERNEL_SS;
    c->kernel_sp = (ulong)stacks[cpu] + 32768;
    c->user_regs.cs = KERNEL_CS;
    c->user_regs.ss = KERNEL_SS;
    c->event_callback_eip = (ulong)event_entry;
    c->failsafe_callback_eip = (ulong)failsafe_entry;
#ifdef __x86_64__
    c->user_regs.rip = (ulong)cpu_start;
    c->user_regs.rax = (ulong)fn;
    c->user_regs.rsp = (ulong)stacks[cpu] + 16384 - 64;
    c->user_regs.rflags = 0x200;
    c->syscall_callback_eip = (ulong)syscall_entry;
    c->ctrlreg[1] = (u64)base_mfn() << 12;
    c->ctrlreg[3] = (u64)base_mfn() << 12;
#else
    c->user_regs.eip = (ulong)cpu_start;
    c->user_regs.eax = (ulong)fn;
    c->user_regs.esp = (ulong)stacks[cpu] + 16384 - 64;
    c->user_regs.eflags = 0x200;
    c->user_regs.ds = c->user_regs.es = FLAT_KERNEL_DS;
    c->event_callback_cs = c->failsafe_callback_cs = KERNEL_CS;
    c->ctrlreg[3] = base_mfn() << 12 | base_mfn() >> 20;
#endif
    rc = vcpu_op(VCPUOP_initialise, cpu, c);
    return (int)(rc ? rc : vcpu_op(VCPUOP_up, cpu, NULL));
}
