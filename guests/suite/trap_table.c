/* SPDX-License-Identifier: Apache-2.0 */
/*
 * set_trap_table: entries one by one, the end at address 0, addresses and selectors that are refused or corrected.
 * Documented: xen/xen.h (set_trap_table).
 */
#include "guest.h"

ASM_FN(int_91, "int $0x91; int_91_next: nop");
extern char int_91_next[];
static uint other_seen;

static int hook(struct regs *regs)
{
    if (regs->vector != 0x92)
        return 0;
    other_seen++;
    return 1;
}

void guest(void)
{
    static struct trap_info table[3];
    trap_hook = hook;
    RC(set_traps((void *)8), -EFAULT, "no table");
    RC(set_traps((void *)HYPERVISOR_VIRT_START), -EFAULT, "a table in Xen's window");
    /* Vector 0x91 goes to the stub of 0x92. */
    table[0] = (struct trap_info){.vector = 0x91, .flags = 3, .cs = KERNEL_CS, .address = (ulong)trap_stubs + 0x92 * 16};
    RC(set_traps(table), 0, "one entry");
    expect(try_kernel(int_91, 0), NO_TRAP, 0, "the other stub");
    EQ(other_seen, 1, "was entered");
    table[0].address = (ulong)trap_stubs + 0x91 * 16;
    table[1] = (struct trap_info){.vector = 0x92, .flags = 3, .cs = KERNEL_CS, .address = 0};
    table[2] = (struct trap_info){.vector = 0x91, .flags = 3, .cs = KERNEL_CS, .address = (ulong)trap_stubs + 0x92 * 16};
    RC(set_traps(table), 0, "a table that ends early");
    expect_at(try_user(int_91, 0), 0x91, 0, int_91_next, "what comes behind the end is not read");
#ifdef __x86_64__
    table[0].address = 0x8000000000000000;
    RC(set_traps(table), -EINVAL, "a non-canonical address");
    expect(try_kernel(int_91, 0), 0x91, 0, "the entry is as before");
#endif
    /* A selector of level 0 is made the kernel's. */
    table[0] = (struct trap_info){.vector = 0x91, .flags = 3, .cs = KERNEL_CS & ~3, .address = (ulong)trap_stubs + 0x91 * 16};
    RC(set_traps(table), 0, "a selector with RPL 0");
    expect(try_user(int_91, 0), 0x91, 0, "is entered as the kernel's");
}
