/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The iret hypercall: to the kernel and to user mode, flags that may and may not be set, the event mask from IF, the
 * instruction iret in the guest kernel. Documented: xen/arch-x86/xen-x86_64.h, xen-x86_32.h ("HYPERVISOR_iret").
 */
#include "guest.h"

ASM_FN(read_flags, "pushf; pop %" AX);
static struct regs *current;
static ulong set_bits;

static int change_flags(struct regs *regs)
{
    if (regs->vector != 0x90)
        return 0;
    current = regs;
    regs->flags |= set_bits;
    return 1;
}

ASM_FN(int_then_flags, "int $0x90; pushf; pop %" AX "; push $2; popf");
#ifdef __x86_64__
ASM_FN(iret_instruction, "mov %rsp, %rdx; push $0xe02b; push %rdx; push $0x202; push $0xe033; push $1f; iretq; 1: mov $5, %eax");
ASM_FN(iret_sp, "mov %rsp, %rdx; push $0xe02b; push $0x1230; push $0x202; push $0xe030; push $iret_sp_1; push $0; push $0x1111;"
                "push $0x2222; push $0x3333; mov $23, %eax; syscall;"
                "iret_sp_1: mov %rsp, iret_seen; mov %rdx, %rsp; mov %rax, iret_seen+8; mov %rcx, iret_seen+16; mov %r11, iret_seen+24");
#else
ASM_FN(iret_instruction, "pushf; push $0xe019; push $1f; iret; 1: mov $5, %eax");
#endif
static volatile ulong iret_seen[4] asm("iret_seen") USED;

void guest(void)
{
    trap_hook = change_flags;
    /* ID, AC, NT-less arithmetic flags arrive; IOPL, VM, VIF and VIP do not. */
    const ulong may = 0x200000 | 0x40000 | 0x8d5;
    for (int mode = 0; mode < 2; mode++) {
        struct trap (*try)(ulong (*)(ulong), ulong) = mode ? try_user : try_kernel;
        set_bits = may;
        EQ(try(int_then_flags, 0).value & may, may, "flags after iret");
        set_bits = 0x3000;
        EQ(try(int_then_flags, 0).value & 0x3000, 0, "IOPL after iret");
        set_bits = 0x20000;
        EQ(try(int_then_flags, 0).value & 0x20000, 0, "VM after iret");
    }
    set_bits = 0;
    EQ(try_kernel(read_flags, 0).value & 0x200, 0x200, "the real IF is always set");
    VCPU_INFO(0)->evtchn_upcall_mask = 1;
    EQ(try_kernel(read_flags, 0).value & 0x200, 0x200, "also when events are masked");
    set_bits = 0x200;
    try_kernel(int_then_flags, 0);
    EQ(VCPU_INFO(0)->evtchn_upcall_mask, 1, "the attempt's own mask");
    EQ(try_kernel(iret_instruction, 0).value, 5, "the instruction iret to the same level");
#ifdef __x86_64__
    try_kernel(iret_sp, 0);
    EQ(iret_seen[0], 0x1230, "rsp");
    EQ(iret_seen[1], 0x3333, "rax");
    EQ(iret_seen[2], 0x1111, "rcx");
    EQ(iret_seen[3], 0x2222, "r11");
#endif
    /* User code that returns to user code by itself: no way into the kernel. */
    struct trap t = try_user(iret_instruction, 0);
    if (BITS == 64)
        expect(t, NO_TRAP, 0, "iretq to the same level in user mode");
    else
        expect(t, GP, 0xe018, "iret to the kernel's level from user mode");
}
