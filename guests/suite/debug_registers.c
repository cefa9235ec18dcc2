/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware breakpoints: execution (a fault), writes and accesses (traps), from kernel and user mode; what set_debugreg
 * refuses. Documented: the processor manuals; Xen refuses addresses of its own and DR7.GD with -EPERM.
 */
#include "guest.h"

ASM_FN(target, "nop; target_next: nop");
ASM_FN(store, "movb $1, (%" ARG "); store_next: nop");
ASM_FN(load, "mov (%" ARG "), %al; load_next: nop");
ASM_FN(read_dr7, "mov %dr7, %" AX);
ASM_FN(read_dr0, "mov %dr0, %" AX);
ASM_FN(write_dr0, "mov %" ARG ", %dr0; mov %dr0, %" AX);
ASM_FN(read_dr6, "mov %dr6, %" AX);
extern char store_next[], load_next[], target_next[];
static char data[16] ALIGNED(16);

static void both(struct trap (*try)(ulong (*)(ulong), ulong))
{
    set_debugreg(6, 0xffff0ff0);
    RC(set_debugreg(0, (ulong)target), 0, "DR0");
    RC(set_debugreg(7, 0x1), 0, "execution");
    expect_at(try(target, 0), DB, 0, target, "an execution breakpoint");
    EQ(get_debugreg(6) & 0xf, 1, "DR6");
    RC(set_debugreg(7, 0x2), 0, "the global enable");
    expect_at(try(target, 0), DB, 0, target, "an execution breakpoint, enabled globally");
    RC(set_debugreg(7, 0), 0, "off");
    expect(try(target, 0), NO_TRAP, 0, "disabled");
    set_debugreg(6, 0xffff0ff0);
    RC(set_debugreg(1, (ulong)data), 0, "DR1");
    RC(set_debugreg(7, 1 << 2 | 1 << 20 | 0 << 22), 0, "a byte written");
    expect_at(try(store, (ulong)data), DB, 0, store_next, "a write");
    EQ(get_debugreg(6) & 0xf, 2, "DR6");
    expect(try(store, (ulong)data + 1), NO_TRAP, 0, "a write beside it");
    expect(try(load, (ulong)data), NO_TRAP, 0, "a read of what is watched for writes");
    RC(set_debugreg(7, 1 << 2 | 3 << 20 | 3 << 22), 0, "four bytes accessed");
    expect_at(try(load, (ulong)data + 3), DB, 0, load_next, "a read");
    expect_at(try(store, (ulong)data + 2), DB, 0, store_next, "a write of what is watched for both");
    expect(try(load, (ulong)data + 4), NO_TRAP, 0, "a read beside it");
    RC(set_debugreg(7, 0), 0, "off");
}

void guest(void)
{
    both(try_kernel);
    both(try_user);
    const ulong window = HYPERVISOR_VIRT_START;
    /* A 64-bit Xen does not mind the window of 32-bit guests. */
    const long refused = BITS == 64 ? -EPERM : 0;
    RC(set_debugreg(0, window), refused, "an address of Xen's");
    RC(set_debugreg(3, window + 0x1000), refused, "an address of Xen's in DR3");
    RC(set_debugreg(7, 0x2000), -EPERM, "DR7.GD");
    CHECK(set_debugreg(8, 0) < 0, "register 8 is written");
    CHECK((long)get_debugreg(8) < 0, "register 8 is read");
    if (BITS == 64) {
        RC(set_debugreg(6, 1ul << (BITS - 1)), -EINVAL, "the upper half of DR6");
        RC(set_debugreg(7, 1ul << (BITS - 1)), -EINVAL, "the upper half of DR7");
    }
    RC(set_debugreg(2, 0x12345000), 0, "DR2");
    EQ(get_debugreg(2), 0x12345000, "DR2 read back");
    EQ(get_debugreg(7) & 0x400, 0x400, "DR7's fixed bit");
    struct trap t = try_kernel(write_dr0, 0x4000);
    expect(t, NO_TRAP, 0, "mov to dr0 in the kernel");
    EQ(t.value, 0x4000, "its value");
    EQ(get_debugreg(0), 0x4000, "seen by the hypercall");
    expect(try_kernel(read_dr7, 0), NO_TRAP, 0, "mov from dr7 in the kernel");
    expect(try_kernel(read_dr6, 0), NO_TRAP, 0, "mov from dr6 in the kernel");
    expect_at(try_user(read_dr0, 0), GP, 0, read_dr0, "mov from dr0 in user mode");
}
