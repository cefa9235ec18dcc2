/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control registers and other privileged instructions: read in the kernel, #GP in user mode; what cannot be changed is
 * refused. Documented: Xen emulates cr0 (TS), cr2, cr3 (as the guest's frame), cr4; hlt is not for guests.
 */
#include "guest.h"

#define READ(n) ASM_FN(read_cr##n, "mov %cr" #n ", %" AX)
#define WRITE(n) ASM_FN(write_cr##n, "mov %" ARG ", %cr" #n)
READ(0);
READ(2);
READ(3);
READ(4);
WRITE(0);
WRITE(2);
WRITE(3);
WRITE(4);
ASM_FN(do_wbinvd, "wbinvd");
ASM_FN(do_invd, "invd");
ASM_FN(do_invlpg, "invlpg (%" ARG ")");
ASM_FN(do_rdpmc, "xor %ecx, %ecx; dr_at: rdpmc");
ASM_FN(do_rdtsc, "rdtsc");
ASM_FN(do_lidt, "lidt (%" ARG ")");
ASM_FN(do_lldt, "xor %eax, %eax; lldt_at: lldt %ax");
ASM_FN(do_lmsw, "mov $1, %eax; lmsw_at: lmsw %ax");
ASM_FN(do_xsetbv, "xor %ecx, %ecx; mov $3, %eax; xor %edx, %edx; xsetbv");
ASM_FN(do_monitor, "monitor");
ASM_FN(do_vmcall, "vmcall");
ASM_FN(do_rsm, "rsm");
ASM_FN(do_sysret, "sysret_at: sysretl");
#ifdef __x86_64__
ASM_FN(write_cr8, "mov %rdi, %cr8");
#endif

void guest(void)
{
    struct trap t = try_kernel(read_cr0, 0);
    EQ(t.value & 0x80010001, 0x80010001, "cr0: PG, WP, PE");
    t = try_kernel(read_cr3, 0);
    expect(t, NO_TRAP, 0, "cr3");
#ifdef __x86_64__
    EQ(t.value >> 12, base_mfn(), "cr3");
#else
    EQ(t.value >> 12 | t.value << 20, base_mfn(), "cr3");
#endif
    t = try_kernel(read_cr4, 0);
    EQ(t.value & 0x20, 0x20, "cr4: PAE");
    EQ(t.value & 0x2000, 0, "cr4: no VMXE");
    ulong cr4 = t.value;
    expect(try_kernel(write_cr4, cr4), NO_TRAP, 0, "cr4 as it is");
    expect(try_kernel(write_cr0, try_kernel(read_cr0, 0).value), NO_TRAP, 0, "cr0 as it is");
    expect(try_kernel(write_cr0, 0x80000011), GP, 0, "cr0 without WP");
    expect(try_kernel(write_cr2, 0x1234), NO_TRAP, 0, "cr2");
    EQ(VCPU_INFO(0)->arch.cr2, 0x1234, "is in vcpu_info");
    EQ(try_kernel(read_cr2, 0).value, 0x1234, "and read back");
#ifdef __x86_64__
    expect(try_kernel(write_cr3, (ulong)base_mfn() << 12), NO_TRAP, 0, "cr3 as it is");
    expect(try_kernel(write_cr3, mfn_of(pool) << 12), GP, 0, "an ordinary page in cr3");
    expect(try_kernel(write_cr3, 0xffffffffff000), GP, 0, "no frame in cr3");
#else
    expect(try_kernel(write_cr3, base_mfn() << 12 | base_mfn() >> 20), NO_TRAP, 0, "cr3 as it is");
    expect(try_kernel(write_cr3, mfn_of(pool) << 12), GP, 0, "an ordinary page in cr3");
#endif
    expect(try_kernel(do_wbinvd, 0), NO_TRAP, 0, "wbinvd in the kernel");
    expect(try_kernel(do_invlpg, (ulong)pool), GP, 0, "invlpg in the kernel: not emulated");
    static const struct {
        ulong (*fn)(ulong);
        int kernel, user; /* vectors, 0: not checked */
        const char *what;
    } others[] = {
        {do_lidt, GP, GP, "lidt"},           {do_lldt, GP, GP, "lldt"},         {do_lmsw, 0, GP, "lmsw"},
        {do_invd, 0, GP, "invd"},           {do_rsm, UD, UD, "rsm"},           {do_vmcall, UD, UD, "vmcall"},
        {do_wbinvd, 0, GP, "wbinvd"},        {do_invlpg, 0, GP, "invlpg"},      {read_cr2, 0, GP, "read cr2"},
        {read_cr3, 0, GP, "read cr3"},       {read_cr4, 0, GP, "read cr4"},     {write_cr0, 0, GP, "write cr0"},
        {write_cr2, 0, GP, "write cr2"},     {write_cr3, 0, GP, "write cr3"},   {write_cr4, 0, GP, "write cr4"},
        {do_monitor, UD, UD, "monitor"},
    };
    for (uint i = 0; i < ARRAY_SIZE(others); i++) {
        if (others[i].kernel)
            EQ(try_kernel(others[i].fn, (ulong)pool).vector, others[i].kernel, others[i].what);
        if (others[i].user)
            EQ(try_user(others[i].fn, (ulong)pool).vector, others[i].user, others[i].what);
    }
    expect(try_user(do_rdtsc, 0), NO_TRAP, 0, "rdtsc in user mode");
    t = try_kernel(do_sysret, 0);
    CHECK(t.vector == GP || t.vector == UD, "sysret in the kernel: vector %d", t.vector);
    EQ(try_kernel(do_rdpmc, 0).vector == UD, 0, "rdpmc is no invalid opcode");
}
