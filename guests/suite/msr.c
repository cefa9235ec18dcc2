/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rdmsr and wrmsr in the guest kernel: segment bases, EFER as it is shown, what is refused; never from user mode.
 * Documented: docs/misc of Xen on msr policy; XSA-333 and the like: nothing here may reach the host's registers.
 */
#include "guest.h"

#ifdef __x86_64__
#define JOIN "shl $32, %rdx; mov %eax, %eax; or %rdx, %rax"
ASM_FN(rd, "mov %edi, %ecx; rd_at: rdmsr; " JOIN);
ASM_FN(wr, "mov %edi, %ecx; mov msr_value, %eax; mov msr_value+4, %edx; wr_at: wrmsr");
#else
ASM_FN(rd, "mov %eax, %ecx; rd_at: rdmsr");
ASM_FN(wr, "mov %eax, %ecx; mov msr_value, %eax; mov msr_value+4, %edx; wr_at: wrmsr");
#endif
extern char rd_at[], wr_at[];
static volatile u64 value asm("msr_value") USED;

void guest(void)
{
    static const u32 none[] = {0xdeadbeef, 0xffffffff, 0x4b564d00, 0xc0010117, 0x3a, 0x480, 0x48f};
    for (uint i = 0; i < ARRAY_SIZE(none); i++) {
        expect_at(try_kernel(rd, none[i]), GP, 0, rd_at, "reading a register that is not there");
        value = 1;
        expect_at(try_kernel(wr, none[i]), GP, 0, wr_at, "writing a register that is not there");
    }
    expect_at(try_user(rd, 0xc0000080), GP, 0, rd_at, "reading EFER in user mode");
    expect_at(try_user(rd, 0x10), GP, 0, rd_at, "reading the TSC's register in user mode");
    value = 0;
    expect_at(try_user(wr, 0xc0000100), GP, 0, wr_at, "writing FS_BASE in user mode");
    struct trap t = try_kernel(rd, 0xc0000080);
    expect(t, NO_TRAP, 0, "EFER");
    if (BITS == 64)
        EQ(t.value & 0xd00, 0xd00, "LME, LMA and NXE");
    expect_at(try_kernel(wr, 0x277), GP, 0, wr_at, "writing PAT");
#ifdef __x86_64__
    static const u32 bases[] = {0xc0000100, 0xc0000101, 0xc0000102};
    for (uint i = 0; i < ARRAY_SIZE(bases); i++) {
        ulong before = try_kernel(rd, bases[i]).value;
        value = 0x123456789000 + i;
        expect(try_kernel(wr, bases[i]), NO_TRAP, 0, "writing a segment base");
        EQ(try_kernel(rd, bases[i]).value, 0x123456789000 + i, "reading it");
        value = 0x8000000000000000;
        expect_at(try_kernel(wr, bases[i]), GP, 0, wr_at, "a non-canonical base");
        EQ(try_kernel(rd, bases[i]).value, 0x123456789000 + i, "is not written");
        value = before;
        try_kernel(wr, bases[i]);
    }
    /* The registers of system calls belong to Xen: not read, not written. */
    static const u32 xens[] = {0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0x174, 0x175, 0x176};
    for (uint i = 0; i < ARRAY_SIZE(xens); i++) {
        t = try_kernel(rd, xens[i]);
        CHECK(t.vector == GP || t.value == 0, "register %x shows %lx", xens[i], t.value);
    }
#endif
}
