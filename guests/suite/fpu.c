/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lazy FPU: fpu_taskswitch sets TS; the next FPU instruction is #NM, and TS is clear then. Exceptions of x87 and SSE.
 * Documented: xen/xen.h (fpu_taskswitch: "TS is cleared when #NM is delivered").
 */
#include "guest.h"

ASM_FN(use_x87, "fld1; fstp %st(0)");
ASM_FN(use_sse, "xorps %xmm0, %xmm0");
ASM_FN(read_cr0, "mov %cr0, %" AX);
ASM_FN(do_clts, "clts");
ASM_FN(do_smsw, "smsw %eax");
ASM_FN(set_ts, "mov %cr0, %" AX "; or $8, %" AX "; mov %" AX ", %cr0");
ASM_FN(do_fwait, "fwait");
ASM_FN(mf, "fninit; push $0x37b; fldcw (%" SP "); pop %" AX "; fld1; fldz; fdivrp %st, %st(1); mf_at: fwait; fninit");
ASM_FN(xm, "sub $16, %" SP "; movl $0x1d80, (%" SP "); ldmxcsr (%" SP "); xorps %xmm1, %xmm1; movl $0x3f800000, (%" SP
           "); movss (%" SP "), %xmm0; xm_at: divss %xmm1, %xmm0; add $16, %" SP);
ASM_FN(fix_mxcsr, "push $0x1f80; ldmxcsr (%" SP "); pop %" AX "; fninit");
ASM_FN(bad_mxcsr, "push $-1; bad_mxcsr_at: ldmxcsr (%" SP "); pop %" AX);
extern char mf_at[], xm_at[], bad_mxcsr_at[];
static u8_t area[512] ALIGNED(16);
ASM_FN(do_fxrstor, "fxrstor (%" ARG ")");
ASM_FN(do_fxsave, "fxsave (%" ARG ")");

static long taskswitch(int set)
{
    return HC_1(__HYPERVISOR_fpu_taskswitch, set);
}

static void both(struct trap (*try)(ulong (*)(ulong), ulong))
{
    RC(taskswitch(1), 0, "fpu_taskswitch");
    expect_at(try(use_x87, 0), NM, 0, use_x87, "x87 with TS");
    expect(try(use_x87, 0), NO_TRAP, 0, "#NM has cleared TS");
    taskswitch(1);
    expect_at(try(use_sse, 0), NM, 0, use_sse, "SSE with TS");
    taskswitch(1);
    RC(taskswitch(0), 0, "TS cleared by hypercall");
    expect(try(use_sse, 0), NO_TRAP, 0, "SSE without TS");
    expect_at(try(mf, 0), MF, 0, mf_at, "#MF at the next x87 instruction");
    try_kernel(fix_mxcsr, 0);
    expect_at(try(xm, 0), XM, 0, xm_at, "#XM");
    try_kernel(fix_mxcsr, 0);
    expect_at(try(bad_mxcsr, 0), GP, 0, bad_mxcsr_at, "reserved bits of MXCSR");
    try(do_fxsave, (ulong)area);
    area[27] = 0xff;
    expect_at(try(do_fxrstor, (ulong)area), GP, 0, do_fxrstor, "reserved bits of MXCSR by fxrstor");
    area[27] = 0;
    expect(try(do_fxrstor, (ulong)area), NO_TRAP, 0, "fxrstor");
}

void guest(void)
{
    both(try_kernel);
    both(try_user);
    taskswitch(1);
    EQ(try_kernel(read_cr0, 0).value & 8, 8, "TS in cr0");
    expect(try_kernel(do_clts, 0), NO_TRAP, 0, "clts in the kernel");
    EQ(try_kernel(read_cr0, 0).value & 8, 0, "TS in cr0 after clts");
    expect(try_kernel(use_x87, 0), NO_TRAP, 0, "x87 after clts");
    expect(try_kernel(set_ts, 0), NO_TRAP, 0, "mov to cr0");
    expect(try_kernel(use_x87, 0), NM, 0, "x87 with TS set by mov");
    expect_at(try_user(do_clts, 0), GP, 0, do_clts, "clts in user mode");
    expect_at(try_user(read_cr0, 0), GP, 0, read_cr0, "cr0 in user mode");
}
