/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Long hypercalls let events through, and end with all done: large batches, a pin of a large tree, long multicalls.
 * Documented: xen/xen.h; XSA-45, 58 on operations that are not preemptible. domain: memory=64
 */
#include "guest.h"

static volatile uint ticks;
static void tick(uint port)
{
    (void)port;
    ticks++;
}

void guest(void)
{
    static struct mmuext_op ops[4000];
    static struct mmu_update updates[4000];
    struct evtchn_bind_virq bind = {.virq = VIRQ_TIMER, .vcpu = 0};
    struct vcpu_set_periodic_timer periodic = {.period_ns = 1000000};
    uint done;
    u64 start = now();
    on_event = tick;
    evtchn_op(EVTCHNOP_bind_virq, &bind);
    vcpu_op(VCPUOP_set_periodic_timer, 0, &periodic);
    enable_events();
    u64 *page = page_alloc();
    for (uint i = 0; i < 4000; i++) {
        ops[i] = (struct mmuext_op){.cmd = MMUEXT_TLB_FLUSH_LOCAL};
        updates[i] = (struct mmu_update){(u64)mfn_of(page) * PAGE + i % 512 * 8, i};
    }
    for (int round = 0; round < 100; round++) {
        done = 0;
        RC(HC_4(__HYPERVISOR_mmuext_op, ops, 4000, &done, DOMID_SELF), 0, "four thousand flushes");
        EQ(done, 4000, "all are done");
        done = 0;
        RC(HC_4(__HYPERVISOR_mmu_update, updates, 4000, &done, DOMID_SELF), 0, "four thousand updates");
        EQ(done, 4000, "all are done");
    }
    for (uint i = 0; i < 512; i++)
        EQ(page[i], 3584 + i < 4000 ? 3584 + i : 3072 + i, "the last value of each");
    /* A tree of 16 L1s with 512 entries each, pinned and unpinned. */
    pte_t *l2 = page_alloc();
    for (uint i = 0; i < 16; i++) {
        pte_t *l1 = page_alloc();
        for (uint j = 0; j < 512; j++)
            l1[j] = pte_for(pfn_to_mfn(info->nr_pages - 1 - (i * 512 + j) % 3000), RWP);
        RC(protect(l1, ROP), 0, "read-only");
        l2[i] = pte_for(mfn_of(l1), P | RW | US | A);
    }
    RC(protect(l2, ROP), 0, "read-only");
    for (int round = 0; round < 100; round++) {
        RC(mmuext(MMUEXT_PIN_L2_TABLE, mfn_of(l2), 0), 0, "pin");
        RC(mmuext(MMUEXT_UNPIN_TABLE, mfn_of(l2), 0), 0, "unpin");
    }
    RC(protect(l2, RWP), 0, "free again");
    RC(protect((void *)((ulong)l2 + PAGE), RWP), 0, "an L1 is free again");
    CHECK(ticks >= 3, "timer events in %llu ns: %u", (unsigned long long)(now() - start), ticks);
    vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
}
