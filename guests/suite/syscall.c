/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall from user mode enters the callback: rcx and r11 are ip and flags, the frame is that of user mode; without a
 * callback it is #UD at the instruction. From the kernel it is a hypercall, unknown numbers are -ENOSYS.
 * Documented: xen/arch-x86/xen-x86_64.h (iret and VGCF_in_syscall). domain: widths=64
 */
#include "guest.h"
#include <xen/callback.h>

ASM_FN(user_syscall, "mov $0x1234567, %eax; mov %rsp, sys_sp; std; syscall; sys_next: cld");
ASM_FN(user_syscall2, "xor %ecx, %ecx; xor %r11d, %r11d; syscall; sys2_next: cmp $sys2_next, %rcx; jne 1f; mov $7, %eax; ret; 1: mov $8, %eax");
ASM_FN(iret_in_syscall, "push $0xe02b; push sys_sp; push $0x246; push $0xe033; push $in_syscall_target; push $0x100; push $0x77;"
                        "push $0x88; push $0x99; mov $23, %eax; syscall");
extern char sys_next[];
static ulong sys_sp asm("sys_sp") USED;
static struct regs seen;
static u8_t masked;

static int hook(struct regs *regs)
{
    if (regs->vector != SYSCALL)
        return 0;
    seen = *regs;
    masked = VCPU_INFO(0)->evtchn_upcall_mask;
    regs->ax = 0x55;
    return 1;
}

asm("in_syscall_target: mov %rax, in_ax; mov %rcx, in_cx; mov %r11, in_r11; ud2");
static volatile ulong in_ax asm("in_ax") USED, in_cx asm("in_cx") USED, in_r11 asm("in_r11") USED;

void guest(void)
{
    struct callback_unregister off = {.type = CALLBACKTYPE_syscall};
    trap_hook = hook;
    struct trap t = try_user(user_syscall, 0);
    expect(t, NO_TRAP, 0, "syscall");
    EQ(t.value, 0x55, "its value");
    EQ(seen.ax, 0x1234567, "the number");
    EQ(seen.ip, (ulong)sys_next, "ip");
    EQ(seen.cx, (ulong)sys_next, "rcx");
    EQ(seen.r11 | 0x200, seen.flags | 0x200, "r11");
    EQ((u16)seen.cs, USER_CS, "cs");
    EQ((u16)seen.ss, USER_SS, "ss");
    EQ(seen.sp, sys_sp, "rsp");
    EQ(seen.flags & 0x400, 0x400, "the direction flag");
    EQ(masked, 1, "events are masked, as the callback asks");
    set_callback(CALLBACKTYPE_syscall, syscall_entry, 0);
    VCPU_INFO(0)->evtchn_upcall_mask = 0;
    t = try_user(user_syscall2, 0);
    EQ(t.value, 7, "rcx holds the return address after iret with the frame's own rcx");
    EQ(masked, 0, "events are not masked by a callback without the flag");

    /* iret with VGCF_in_syscall: rax is loaded, rcx and r11 are not. */
    sys_sp = user_stack_top();
    t = try_kernel(iret_in_syscall, 0);
    EQ(in_ax, 0x99, "rax");
    CHECK(in_cx != 0x77 && in_r11 != 0x88, "rcx %lx and r11 %lx of the frame are ignored", in_cx, in_r11);

    RC(HC_1(55, 0), -ENOSYS, "hypercall 55");
    RC(HC_1(63, 0), -ENOSYS, "hypercall 63");
    RC(HC_1(64, 0), -ENOSYS, "hypercall 64");
    RC(hypercall(0x7fffffff, 0, 0, 0, 0, 0), -ENOSYS, "hypercall 0x7fffffff");
    RC(hypercall(0xffffffff, 0, 0, 0, 0, 0), -ENOSYS, "hypercall 0xffffffff");

    RC(HC_2(__HYPERVISOR_callback_op, CALLBACKOP_unregister, &off), -EINVAL, "the syscall callback cannot be unregistered");
    set_callback(CALLBACKTYPE_syscall, NULL, 0);
    expect_at(try_user(user_syscall2, 0), UD, 0, (char *)user_syscall2 + 5, "syscall without a callback");
}
