/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit guests: ring 1 is a supervisor, ring 3 a user: a page without the user bit is the kernel's alone. User code cannot
 * reach ring 1's segments, nor make its hypercalls. Documented: xen/arch-x86/xen-x86_32.h. domain: widths=32
 */
#include "guest.h"

ASM_FN(load, "mov (%eax), %eax");
ASM_FN(store, "movl $7, (%eax)");
ASM_FN(load_ds, "mov %ds, %ecx; mov %eax, %ds; mov %ecx, %ds");
ASM_FN(load_ss, "mov %ss, %ecx; mov %eax, %ss; mov %ecx, %ss");
ASM_FN(far_kernel, "push %ebx; lcall $0xe019, $1f; 1: pop %ebx");
ASM_FN(read_cs, "mov %cs, %eax");
ASM_FN(do_hypercall, "push %ebx; mov $17, %eax; xor %ebx, %ebx; xor %ecx, %ecx; int $0x82; user_call_next: pop %ebx");
ASM_FN(read_esp, "mov %esp, %eax");
extern char user_call_next[];

void guest(void)
{
    u32 *page = page_alloc();
    struct trap t;
    *page = 5;
    EQ(try_kernel(read_cs, 0).value & 3, 1, "the kernel's ring");
    EQ(try_user(read_cs, 0).value & 3, 3, "the user's ring");
    RC(protect(page, P | RW | A | D), 0, "a kernel page");
    EQ(try_kernel(load, (ulong)page).value, 5, "the kernel reads it");
    expect(try_user(load, (ulong)page), PF, P | US, "user code does not");
    expect(try_user(store, (ulong)page), PF, P | US | RW, "nor writes it");
    RC(protect(page, ROP), 0, "a read-only user page");
    EQ(try_user(load, (ulong)page).value, 5, "user code reads it");
    expect(try_user(store, (ulong)page), PF, P | US | RW, "and does not write it");
    expect(try_kernel(store, (ulong)page), PF, P | RW, "nor does the kernel: WP is set");
    RC(protect(page, RWP), 0, "a user page");
    expect(try_user(store, (ulong)page), NO_TRAP, 0, "user code writes it");
    expect(try_user(load_ds, FLAT_KERNEL_DS), GP, FLAT_KERNEL_DS & ~3, "the kernel's data segment");
    expect(try_user(load_ds, 0xe008), GP, 0xe008, "Xen's code segment as data");
    expect(try_user(load_ds, 0xe010), GP, 0xe010, "Xen's data segment");
    expect(try_kernel(load_ds, 0xe010), GP, 0xe010, "Xen's data segment, from the kernel");
    expect(try_kernel(load_ds, 0xe011), GP, 0xe010, "with RPL 1");
    expect(try_kernel(load_ss, FLAT_USER_SS), GP, FLAT_USER_SS & ~3, "the user's stack segment for the kernel");
    expect(try_kernel(load_ss, 0), GP, 0, "a null stack segment");
    expect(try_user(far_kernel, 0), GP, 0xe018, "a far call into the kernel");
    t = try_user(do_hypercall, 0);
    expect_at(t, 0x82, 0, user_call_next, "int $0x82 from user mode is the guest's vector");
    /* Ring 3 below a stack of its own: the frame comes on ring 1's. */
    ulong esp = try_user(read_esp, 0).value;
    CHECK(esp, "esp");
    EQ(try_user(load, 0xf5800000).vector == NO_TRAP || try_user(load, 0xf5800000).vector == PF, 1, "the m2p from user mode");
}
