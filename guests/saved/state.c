/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets all that a vCPU and its memory can be, suspends itself, and looks whether it is still so: three times. It writes
 * "suspends N" before, and "goes on N" (it was not suspended after all) or "resumed N" afterwards. Two vCPUs.
 */
#include "guest.h"

#define SEG(base, limit, access, flags)                                                                                \
    ((u64)((limit)&0xffff) | (u64)((base)&0xffffff) << 16 | (u64)(access) << 40 | (u64)((limit) >> 16 & 15) << 48 |    \
     (u64)(flags) << 52 | (u64)((base) >> 24 & 255) << 56)
#define PAGES 40
#define FIRST_SELECTOR (0 << 3 | 3)

ASM_FN(undefined, "ud2");
ASM_FN(load_gs_selector, "mov %" ARG ", %gs; xor %eax, %eax; mov %gs, %ax; xor %edx, %edx; mov %edx, %gs");

static volatile ulong turns;
static char *pages[PAGES];
static u64 *ldt;
static struct xmm {
    u64 half[2];
} ALIGNED(16) vectors[2] = {{{0x0123456789abcdefull, 0xfedcba9876543210ull}}, {{0, 0}}};
static u32 control[2] = {0x1fa0, 0};
static u64 number[2] = {0x400921fb54442d18ull, 0};

static void count(void)
{
    for (;;)
        turns++;
}

static u8_t byte_of(uint page, uint at, uint round) { return (u8_t)(page * 31 + at * 7 + at / 256 + round); }

static void fill(uint round)
{
    for (uint page = 0; page < PAGES; page++)
        for (uint at = 0; at < PAGE; at++)
            pages[page][at] = (char)byte_of(page, at, round);
}

static uint wrong(uint round)
{
    uint found = 0;
    for (uint page = 0; page < PAGES; page++)
        for (uint at = 0; at < PAGE; at++)
            found += (u8_t)pages[page][at] != byte_of(page, at, round);
    return found;
}

/* Everything of the FPU goes through the hypercall: nothing between these lines uses it. */
static long suspend(void)
{
    struct sched_shutdown shutdown = {.reason = SHUTDOWN_suspend};
    asm volatile("fninit; fldl %0" ::"m"(number[0]));
    asm volatile("movaps %0, %%xmm5" ::"m"(vectors[0]));
    asm volatile("ldmxcsr %0" ::"m"(control[0]));
    long rc = HC_3(__HYPERVISOR_sched_op, SCHEDOP_shutdown, &shutdown, mfn_of(info));
    asm volatile("stmxcsr %0" : "=m"(control[1]));
    asm volatile("movaps %%xmm5, %0" : "=m"(vectors[1]));
    asm volatile("fstpl %0" : "=m"(number[1]));
    return rc;
}

static void look(uint round, u64 time, u64 tsc)
{
    ulong before = turns;
    EQ(wrong(round), 0, "bytes of memory that differ");
    EQ(control[1], control[0], "MXCSR");
    EQ(vectors[1].half[0], vectors[0].half[0], "xmm5");
    EQ(vectors[1].half[1], vectors[0].half[1], "xmm5, the upper half");
    EQ(number[1], number[0], "the top of the x87 stack");
    EQ(get_debugreg(0), 0x1234 + round, "DR0");
    EQ(get_debugreg(3), 0x5678, "DR3");
    CHECK(now() > time, "system time goes back");
    CHECK(rdtsc() > tsc, "the TSC goes back");
    expect(try_kernel(undefined, 0), UD, 0, "an exception");
    expect(try_user(undefined, 0), UD, 0, "an exception in user mode");
    EQ(try_kernel(load_gs_selector, FIRST_SELECTOR | 4).value, FIRST_SELECTOR | 4, "a segment of the LDT");
    REFUSED(protect(ldt, RWP), "a writable mapping of the LDT");
    REFUSED(protect((void *)info->pt_base, RWP), "a writable mapping of a page table");
    REFUSED(protect((void *)((ulong)pte_of(SCRATCH_VA, 1) & ~(PAGE - 1)), RWP), "and of one of our own");
    while (turns == before)
        relax();
}

void guest(void)
{
    ldt = page_alloc();
    ldt[0] = SEG(0, 0xfffff, 0xf3, 0xc);
    RC(protect(ldt, ROP), 0, "read-only");
    RC(mmuext(MMUEXT_SET_LDT, (ulong)ldt, 16), 0, "SET_LDT");
    new_l1(SCRATCH_VA);
    for (uint page = 0; page < PAGES; page++) {
        pages[page] = (char *)SCRATCH_VA + page * PAGE;
        RC(update_va((ulong)pages[page], pte_for(pfn_to_mfn(pfn_alloc()), RWP), UVMF_INVLPG), 0, "a page");
    }
    ulong l1 = mfn_of((void *)((ulong)pte_of(SCRATCH_VA, 1) & ~(PAGE - 1)));
    RC(mmuext(MMUEXT_PIN_L1_TABLE, l1, 0), 0, "pinning a table");
    RC(set_debugreg(3, 0x5678), 0, "DR3");
    EQ(start_cpu(1, count), 0, "a second vCPU");
    while (!turns)
        relax();
    for (uint round = 0; round < 3; round++) {
        ulong window = (ulong)shared;
        u64 time = now(), tsc = rdtsc();
        RC(set_debugreg(0, 0x1234 + round), 0, "DR0");
        fill(round);
        print("suspends %u", round);
        RC(update_va(window, 0, UVMF_INVLPG), 0, "shared_info is not mapped");
        long cancelled = suspend();
        RC(update_va(window, info->shared_info | RWP, UVMF_INVLPG), 0, "shared_info is mapped again");
        print(cancelled ? "goes on %u" : "resumed %u", round);
        look(round, time, tsc);
    }
}
