/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large trees of page tables, for guests that ask how long the hypervisor is busy with one: every frame that is free and
 * zeroed is an L1 without entries.
 */
#ifndef FOREST_H
#define FOREST_H
#include "guest.h"

#define L2S (BITS == 64 ? 512 : 4)
#define L1S_IN_L2 (BITS == 64 ? 511 : 256) /* the last part of a 32-bit guest's last L2 is Xen's */
#define LINK (P | RW | US | A)

struct forest {
    ulong l2s[512]; /* pfns */
    uint l2_count, l1_count;
    ulong l3, top; /* pfns; of a 32-bit guest the same */
    ulong first_l1;
};

/* An unused page as a table that this vCPU can write, until the next one. */
static inline volatile pte_t *open_frame(ulong pfn)
{
    ulong va = SCRATCH_VA + this_cpu() * PAGE;
    RC(update_va(va, pte_for(pfn_to_mfn(pfn), RWP), UVMF_INVLPG | UVMF_LOCAL), 0, "mapping a table to be");
    return (volatile pte_t *)va;
}

static inline void close_frame(void)
{
    RC(update_va(SCRATCH_VA + this_cpu() * PAGE, 0, UVMF_INVLPG | UVMF_LOCAL), 0, "unmapping it");
}

/* The tables above the L2s. */
static inline void fill_top(struct forest *f)
{
    volatile pte_t *table = open_frame(f->l3);
    for (uint i = 0; i < f->l2_count; i++)
        table[i] = pte_for(pfn_to_mfn(f->l2s[i]), BITS == 64 ? LINK : P);
    if (f->l3 != f->top) {
        table = open_frame(f->top);
        table[0] = pte_for(pfn_to_mfn(f->l3), LINK);
    }
    close_frame();
}

/* A tree of up to `l1s` L1s. new_l1(SCRATCH_VA) comes first. */
static inline void grow(struct forest *f, uint l1s)
{
    f->l2_count = f->l1_count = 0;
    f->l3 = pfn_alloc();
    f->top = BITS == 64 ? pfn_alloc() : f->l3;
    while (f->l2_count < L2S && (f->l1_count < l1s || BITS == 32)) { /* 32-bit: the last slot is needed */
        volatile pte_t *table = open_frame(f->l2s[f->l2_count++] = pfn_alloc());
        for (uint i = 0; i < L1S_IN_L2 && f->l1_count < l1s; i++, f->l1_count++)
            table[i] = pte_for(pfn_to_mfn(f->first_l1 = pfn_alloc()), LINK);
    }
    close_frame();
    fill_top(f);
}

/* The last L2 gets an entry that no table may have, or loses it. */
static inline void spoil(struct forest *f, int bad)
{
    open_frame(f->l2s[f->l2_count - 1])[L1S_IN_L2] = bad ? (pte_t)0x123000 | P | PSE : 0;
    close_frame();
}

static inline long give_back(ulong pfn)
{
    xen_pfn_t mfn = pfn_to_mfn(pfn);
    struct xen_memory_reservation r = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(r.extent_start, &mfn);
    return memory_op(XENMEM_decrease_reservation, &r);
}

static inline long take_back(ulong pfn)
{
    xen_pfn_t frame = pfn;
    struct xen_memory_reservation r = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(r.extent_start, &frame);
    long rc = memory_op(XENMEM_populate_physmap, &r);
    ((ulong *)info->mfn_list)[pfn] = frame;
    return rc;
}

static inline long pin_top(struct forest *f)
{
    return mmuext(BITS == 64 ? MMUEXT_PIN_L4_TABLE : MMUEXT_PIN_L3_TABLE, pfn_to_mfn(f->top), 0);
}

/* VCPUOP_initialise of `cpu` with the tree as its page tables. */
static inline long initialise_with(struct forest *f, uint cpu, struct vcpu_guest_context *c)
{
    ulong mfn = pfn_to_mfn(f->top);
    memset(c, 0, sizeof(*c));
    c->flags = VGCF_IN_KERNEL;
    c->user_regs.cs = KERNEL_CS;
    c->user_regs.ss = KERNEL_SS;
#ifdef __x86_64__
    c->user_regs.rip = (ulong)trap_stubs;
    c->ctrlreg[3] = (u64)mfn << 12;
#else
    c->user_regs.eip = (ulong)trap_stubs;
    c->user_regs.ds = c->user_regs.es = FLAT_KERNEL_DS;
    c->event_callback_cs = c->failsafe_callback_cs = KERNEL_CS;
    c->ctrlreg[3] = mfn << 12 | mfn >> 20;
#endif
    return vcpu_op(VCPUOP_initialise, cpu, c);
}
#endif
