/* SPDX-License-Identifier: Apache-2.0 */
/*
 * set_segment_base: FS, the two GS bases, the user GS selector; non-canonical ones are refused. User mode has its own GS
 * base. Documented: xen/arch-x86/xen-x86_64.h (SEGBASE_*). domain: widths=64
 */
#include "guest.h"

static u32 here[4] = {1, 2, 3, 4}, there[4] = {5, 6, 7, 8};
ASM_FN(read_fs, "mov %fs:4, %eax");
ASM_FN(read_gs, "mov %gs:4, %eax");
ASM_FN(do_swapgs, "swapgs");
ASM_FN(do_rdfsbase, "rdfsbase %rax");
ASM_FN(load_gs, "mov %edi, %gs; xor %eax, %eax");

static long set_base(uint which, ulong base)
{
    return HC_2(__HYPERVISOR_set_segment_base, which, base);
}

void guest(void)
{
    RC(set_base(SEGBASE_FS, (ulong)here), 0, "FS");
    EQ(try_kernel(read_fs, 0).value, 2, "through fs");
    EQ(try_user(read_fs, 0).value, 2, "through fs in user mode");
    RC(set_base(SEGBASE_GS_KERNEL, (ulong)here), 0, "the kernel's GS");
    RC(set_base(SEGBASE_GS_USER, (ulong)there), 0, "the user's GS");
    EQ(try_kernel(read_gs, 0).value, 2, "through gs in the kernel");
    EQ(try_user(read_gs, 0).value, 6, "through gs in user mode");
    EQ(try_kernel(read_gs, 0).value, 2, "through gs in the kernel again");
    for (uint which = 0; which < 3; which++) {
        REFUSED(set_base(which, 0x8000000000000000), "a non-canonical base");
        REFUSED(set_base(which, 0x0000800000000000), "the first non-canonical base");
    }
    REFUSED(set_base(4, 0), "an unknown register");
    EQ(try_kernel(read_gs, 0).value, 2, "the base is as before");
    RC(set_base(SEGBASE_GS_USER_SEL, 0), 0, "a null selector for the user's gs");
    CHECK(try_kernel(do_swapgs, 0).vector == GP || try_kernel(do_swapgs, 0).vector == UD, "swapgs in the kernel");
    CHECK(try_user(do_swapgs, 0).vector == GP || try_user(do_swapgs, 0).vector == UD, "swapgs in user mode");
    struct trap t = try_kernel(do_rdfsbase, 0);
    CHECK(t.vector == UD || t.value == (ulong)here, "rdfsbase: vector %d, value %lx", t.vector, t.value);
    RC(set_base(SEGBASE_FS, 0), 0, "FS back");
}
