/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several vCPUs change the same entries, pins and mappings at once: whatever the order, nothing becomes writable that is a
 * table, and in the end all is as consistent as the frame table's audit can tell. XSA-286, 401, 410.
 * domain: vcpus=4 memory=32
 */
#include "guest.h"

static pte_t *tables[4];
static volatile uint running;
static pte_t *l1;

static u32 next(u32 *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static void work(void)
{
    u32 seed = 12345 + this_cpu();
    __atomic_fetch_add(&running, 1, __ATOMIC_SEQ_CST);
    for (uint i = 0; i < 1500; i++) {
        u32 r = next(&seed);
        pte_t *table = tables[r & 3];
        ulong mfn = mfn_of(table);
        switch (r >> 2 & 7) {
        case 0:
            mmuext(MMUEXT_PIN_L1_TABLE, mfn, 0);
            break;
        case 1:
            mmuext(MMUEXT_UNPIN_TABLE, mfn, 0);
            break;
        case 2:
            update_va(SCRATCH_VA + (r >> 5 & 7) * PAGE, pte_for(mfn, RWP), UVMF_INVLPG | UVMF_ALL);
            break;
        case 3:
            update_va(SCRATCH_VA + (r >> 5 & 7) * PAGE, pte_for(mfn, ROP), UVMF_TLB_FLUSH | UVMF_ALL);
            break;
        case 4:
            update_va(SCRATCH_VA + (r >> 5 & 7) * PAGE, 0, UVMF_INVLPG | UVMF_ALL);
            break;
        case 5:
            mmu_update((u64)mfn * PAGE + (r >> 5 & 3) * 8, pte_for(mfn_of(tables[r >> 8 & 3]), r & 0x1000 ? RWP : ROP));
            break;
        case 6:
            mmu_update(pte_maddr(SCRATCH_VA, 2) + 8 + (r >> 5 & 1) * 8, r & 0x1000 ? 0 : pte_for(mfn, P | RW | US | A));
            break;
        case 7:
            mmuext(MMUEXT_PIN_L2_TABLE, mfn, 0);
            break;
        }
    }
    __atomic_fetch_sub(&running, 1, __ATOMIC_SEQ_CST);
}

static void other(void)
{
    work();
    vcpu_op(VCPUOP_down, this_cpu(), NULL);
}

void guest(void)
{
    l1 = new_l1(SCRATCH_VA);
    for (uint i = 0; i < 4; i++) {
        tables[i] = page_alloc();
        protect(tables[i], ROP);
    }
    for (uint cpu = 1; cpu < 4; cpu++)
        start_cpu(cpu, other);
    work();
    while (running)
        relax();
    for (uint cpu = 1; cpu < 4; cpu++)
        while (vcpu_op(VCPUOP_is_up, cpu, NULL) == 1)
            relax();
    /* All can be taken down again. */
    for (uint slot = 1; slot < 3; slot++)
        RC(mmu_update(pte_maddr(SCRATCH_VA, 2) + slot * 8, 0), 0, "an L2 entry cleared");
    for (uint i = 0; i < 8; i++)
        RC(update_va(SCRATCH_VA + i * PAGE, 0, UVMF_INVLPG | UVMF_ALL), 0, "a mapping cleared");
    for (int round = 0; round < 4; round++)
        for (uint i = 0; i < 4; i++)
            mmuext(MMUEXT_UNPIN_TABLE, mfn_of(tables[i]), 0);
    for (uint i = 0; i < 4; i++) {
        RC(protect(tables[i], RWP), 0, "a page of one's own again");
        memset(tables[i], 0, PAGE);
    }
}
