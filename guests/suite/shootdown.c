/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mapping that one vCPU takes away or write-protects is gone on all when the hypercall returns; so a frame that becomes a
 * page table cannot be written by another vCPU that still has it in its TLB. XSA-241, 286, 401.
 * Documented: xen/xen.h (UVMF_ALL, MMUEXT_INVLPG_ALL and its kin). domain: vcpus=3 memory=32
 */
#include "guest.h"

static volatile uint stop, running;
static volatile uint tries[3]; /* faults that each writer has had */

/* Each writer has a value of its own: the other page is writable while this one's value is not zero. */
#define STORE_LOOP(name, value) ASM_FN(name, "1: mov " value ", %" DX "; mov %" DX ", (%" ARG "); cmpl $0, shoot_stop; je 1b")
STORE_LOOP(store_first, "shoot_first");
STORE_LOOP(store_second, "shoot_second");
ASM_FN(load_one, "mov (%" ARG "), %" AX);
static volatile ulong first asm("shoot_first") USED, second asm("shoot_second") USED;
static volatile uint ended asm("shoot_stop") USED;

static void writer(void)
{
    __atomic_fetch_add(&running, 1, __ATOMIC_SEQ_CST);
    while (!stop) {
        /* In user mode: the kernel's stores to a page table would be emulated. */
        struct trap t = try_user(this_cpu() == 1 ? store_first : store_second, SCRATCH_VA + PAGE * (this_cpu() - 1));
        if (t.vector != NO_TRAP && (t.vector != PF || (t.error & RW) == 0))
            CHECK(0, "vector %d error %lx at %lx", t.vector, t.error, t.cr2);
        tries[this_cpu()]++;
        relax();
    }
    __atomic_fetch_sub(&running, 1, __ATOMIC_SEQ_CST);
    vcpu_op(VCPUOP_down, this_cpu(), NULL);
}

static void wait_for_fault(uint cpu)
{
    for (uint seen = tries[cpu]; tries[cpu] - seen < 2;)
        relax();
}

void guest(void)
{
    ulong *pages[2] = {page_alloc(), page_alloc()};
    volatile ulong *values[2] = {&first, &second};
    new_l1(SCRATCH_VA);
    for (uint i = 0; i < 2; i++) {
        update_va(SCRATCH_VA + i * PAGE, pte_for(mfn_of(pages[i]), RWP), UVMF_INVLPG);
        RC(protect(pages[i], ROP), 0, "our own view is read-only");
    }
    for (uint cpu = 1; cpu < 3; cpu++)
        start_cpu(cpu, writer);
    while (running < 2)
        relax();
    for (uint round = 0; round < 30; round++) {
        uint i = round & 1;
        ulong va = SCRATCH_VA + i * PAGE;
        for (uint spin = 0; spin < 3; spin++)
            relax(); /* meanwhile the page is written, with zeros */
        RC(update_va(va, pte_for(mfn_of(pages[i]), ROP), round & 2 ? UVMF_INVLPG | UVMF_ALL : UVMF_TLB_FLUSH | UVMF_ALL), 0, "read-only for all");
        *values[i] = 0x1000; /* not present, but to be seen */
        wait_for_fault(i + 1);
        if (pages[i][0] != 0)
            CHECK(0, "a store after the shootdown: %lx", pages[i][0]);
        RC(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(pages[i]), 0), 0, "as a page table");
        wait_for_fault(i + 1);
        if (pages[i][0] != 0)
            CHECK(0, "a store into a page table: %lx", pages[i][0]);
        *values[i] = 0;
        wait_for_fault(i + 1); /* none has the other value in hand any more */
        RC(mmuext(MMUEXT_UNPIN_TABLE, mfn_of(pages[i]), 0), 0, "unpinned");
        RC(update_va(va, pte_for(mfn_of(pages[i]), RWP), UVMF_INVLPG | UVMF_ALL), 0, "writable again");
    }
    stop = ended = 1;
    while (running)
        relax();
}
