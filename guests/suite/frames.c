/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a trap's frame holds, from both modes: every register as it was, the stack pointer, selectors, the event mask in the
 * upper half of the cs slot, and IF as its inverse; kernel_sp of stack_switch is where frames from user mode start.
 * Documented: xen/arch-x86/xen-x86_64.h and xen-x86_32.h; Linux relies on all of it.
 */
#include "guest.h"

extern char stacks[MAX_CPUS][32768];
ASM_FN(do_int, "int $0x90");
#ifdef __x86_64__
ASM_FN(all_registers, "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15;"
                      "mov $1,%eax; mov $2,%ebx; mov $3,%ecx; mov $4,%edx; mov $5,%esi; mov $6,%edi; mov $7,%ebp;"
                      "mov $8,%r8; mov $9,%r9; mov $10,%r10; mov $11,%r11; mov $12,%r12; mov $13,%r13; mov $14,%r14;"
                      "mov $15,%r15; mov %rsp, all_sp; stc; std; int $0x90;"
                      "all_back: cld; jc 1f; ud2; 1: cmp $1,%eax; jne 2f; cmp $3,%ecx; jne 2f; cmp $11,%r11; jne 2f; cmp $7,%ebp;"
                      "jne 2f; cmp $15,%r15; jne 2f; cmp %rsp,all_sp; jne 2f; cmp $6,%edi; jne 2f; mov $99,%eax;"
                      "2: pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx");
#else
ASM_FN(all_registers, "push %ebx; push %ebp; push %esi; push %edi;"
                      "mov $1,%eax; mov $2,%ebx; mov $3,%ecx; mov $4,%edx; mov $5,%esi; mov $6,%edi; mov $7,%ebp;"
                      "mov %esp, all_sp; stc; std; int $0x90;"
                      "all_back: cld; jc 1f; ud2; 1: cmp $1,%eax; jne 2f; cmp $3,%ecx; jne 2f; cmp $7,%ebp; jne 2f;"
                      "cmp %esp,all_sp; jne 2f; cmp $6,%edi; jne 2f; mov $99,%eax;"
                      "2: pop %edi; pop %esi; pop %ebp; pop %ebx");
#endif
extern char all_back[];
static volatile ulong all_sp asm("all_sp") USED;
static struct regs seen;
static struct regs *seen_at;
static u8_t mask_then;

static int keep(struct regs *regs)
{
    if (regs->vector != 0x90)
        return 0;
    seen_at = regs;
    mask_then = VCPU_INFO(0)->evtchn_upcall_mask;
    memcpy(&seen, regs, offsetof(struct regs, sp));
    if (BITS == 64 || (regs->cs & 3) == 3) {
        seen.sp = regs->sp;
        seen.ss = regs->ss;
    }
    return 1;
}

static void check_all(const char *mode)
{
    EQ(seen.ax, 1, mode);
    EQ(seen.bx, 2, mode);
    EQ(seen.cx, 3, mode);
    EQ(seen.dx, 4, mode);
    EQ(seen.si, 5, mode);
    EQ(seen.di, 6, mode);
    EQ(seen.bp, 7, mode);
#ifdef __x86_64__
    EQ(seen.r8, 8, mode);
    EQ(seen.r9, 9, mode);
    EQ(seen.r10, 10, mode);
    EQ(seen.r11, 11, mode);
    EQ(seen.r12, 12, mode);
    EQ(seen.r13, 13, mode);
    EQ(seen.r14, 14, mode);
    EQ(seen.r15, 15, mode);
#endif
    EQ(seen.ip, (ulong)all_back, "ip");
    EQ(seen.flags & 0x401, 0x401, "carry and direction");
    EQ(seen.flags & 0x23000, 0, "no IOPL, no VM");
}

static ulong saved_mask(void)
{
    return seen.cs >> (BITS / 2) & 0xff;
}

void guest(void)
{
    trap_hook = keep;
    for (int masked = 0; masked < 2; masked++) {
        VCPU_INFO(0)->evtchn_upcall_mask = (u8_t)masked;
        struct trap t = try_kernel(all_registers, 0);
        EQ(t.value, 99, "registers after the return to the kernel");
        check_all("a register in the kernel's frame");
        EQ((u16)seen.cs, FRAME_KERNEL_CS, "cs of a kernel frame");
        EQ(saved_mask(), masked, "the saved mask");
        EQ(mask_then, masked, "the mask in a trap gate");
        EQ(seen.flags >> 9 & 1, !masked, "IF");
#ifdef __x86_64__
        EQ(seen.sp, all_sp, "rsp");
        EQ((u16)seen.ss, KERNEL_SS, "ss");
        EQ((ulong)(seen_at + 1), all_sp & ~15ul, "frames are aligned to 16 bytes");
#else
        EQ((ulong)&seen_at->sp, all_sp, "a kernel frame begins at the stack pointer");
#endif
        t = try_user(all_registers, 0);
        EQ(t.value, 99, "registers after the return to user mode");
        check_all("a register in the user's frame");
        EQ((u16)seen.cs, USER_CS, "cs of a user frame");
        EQ(seen.sp, all_sp, "sp of a user frame");
        EQ((u16)seen.ss, USER_SS, "ss of a user frame");
        EQ((ulong)(seen_at + 1), (ulong)stacks[0] + 32768, "the frame's place");
        if (masked == 0) {
            EQ(saved_mask(), 0, "the saved mask from user mode");
            EQ(seen.flags >> 9 & 1, 1, "IF from user mode");
        }
    }
    /* A gate that masks events. */
    VCPU_INFO(0)->evtchn_upcall_mask = 0;
    set_gate(0x90, trap_stubs + 0x90 * 16, 3 | 4);
    try_kernel(do_int, 0);
    EQ(mask_then, 1, "an interrupt gate masks");
    EQ(saved_mask(), 0, "and saves that nothing was masked");
    EQ(VCPU_INFO(0)->evtchn_upcall_mask, 0, "iret restores the mask from IF");
    /* stack_switch. */
    HC_2(__HYPERVISOR_stack_switch, KERNEL_SS, stacks[0] + 32768 - 256);
    try_user(do_int, 0);
    EQ((ulong)(seen_at + 1), (ulong)stacks[0] + 32768 - 256, "the new kernel stack");
    HC_2(__HYPERVISOR_stack_switch, KERNEL_SS, stacks[0] + 32768);
}
