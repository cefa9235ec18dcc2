/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Call gates: a far call through one of an application's enters the guest kernel on the stack of stack_switch, with its
 * parameters; the kernel's own goes on where it is; a level too low, or a jump to an inner ring, is #GP. The table keeps the
 * gate with DPL 0, and its own DPL in the RPL of the target. domain: widths=32
 * Documented: the processor manuals (call gates). Xen keeps the tables of 32-bit guests so that their gates fault, and does
 * what they ask for itself; 64-bit guests get the #GP.
 */
#include "guest.h"

#define GATE(selector, offset, dpl, parameters)                                                                        \
    ((u64)((offset)&0xffff) | (u64)(selector) << 16 | (u64)(parameters) << 32 | (u64)(0x8c | (dpl) << 5) << 40 |       \
     (u64)((offset) >> 16) << 48)
static u64 *gdt;
static volatile uint seen_cs asm("seen_cs") USED, seen_sp asm("seen_sp") USED;

ASM_FN(target, "mov %cs, seen_cs; mov %esp, seen_sp; mov 8(%esp), %eax; shl $16, %eax; or 12(%esp), %eax; lret $8");
ASM_FN(call_it, "push $0x1111; push $0x2222; lcall $0x5b, $0xdead");
ASM_FN(call_kernels, "push $0x1111; push $0x2222; call_kernels_at: lcall $0x61, $0");
ASM_FN(jump_it, "push $0x1111; push $0x2222; push %cs; push $1f; jump_at: ljmp $0x5b, $0; 1:");
extern char call_kernels_at[], jump_at[];

static long put(uint index, u64 descriptor)
{
    return update_descriptor((u64)mfn_of(gdt) * PAGE + index * 8, descriptor);
}

void guest(void)
{
    static ulong frames[16];
    gdt = page_alloc();
    frames[0] = mfn_of(gdt);
    RC(protect(gdt, ROP), 0, "read-only");
    RC(HC_2(__HYPERVISOR_set_gdt, frames, 512), 0, "set_gdt");
    RC(put(11, GATE(KERNEL_CS, (ulong)target, 3, 2)), 0, "a gate that applications may use");
    EQ(gdt[11] >> 45 & 3, 0, "its level in the table");
    EQ(gdt[11] >> 16 & 3, 3, "and where it is kept");
    RC(put(12, GATE(KERNEL_CS, (ulong)target, 1, 2)), 0, "a gate of the kernel's own");

    struct trap t = try_kernel(call_it, 0);
    expect(t, NO_TRAP, 0, "called by the kernel");
    EQ(t.value, 0x22221111, "its parameters");
    EQ(seen_cs, KERNEL_CS, "cs");
    t = try_user(call_it, 0);
    expect(t, NO_TRAP, 0, "called by an application");
    EQ(t.value, 0x22221111, "its parameters, copied");
    EQ(seen_cs, KERNEL_CS, "cs");
    CHECK(seen_sp < user_stack_top() - PAGE || seen_sp > user_stack_top(), "on another stack: %x", seen_sp);

    expect(try_kernel(call_kernels, 0), NO_TRAP, 0, "the kernel's gate");
    expect_at(try_user(call_kernels, 0), GP, 12 * 8, call_kernels_at, "the kernel's gate in user mode");
    expect(try_kernel(jump_it, 0), NO_TRAP, 0, "a jump within the ring");
    expect_at(try_user(jump_it, 0), GP, KERNEL_CS & ~3, jump_at, "a jump to an inner ring");
    RC(put(11, GATE(0xe008, (ulong)target, 3, 2)), -EINVAL, "a gate to Xen's code");
    RC(put(11, GATE(0x5b, (ulong)target, 3, 0)), 0, "a gate to itself");
    expect(try_user(call_it, 0), GP, 0x58, "is no way to code");
    RC(HC_2(__HYPERVISOR_set_gdt, NULL, 0), 0, "no GDT");
}
