/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large trees of page tables, which the hypervisor takes into use and takes down in rounds: what a guest sees is as if it
 * did so at once. VCPUOP_initialise with a bad one is refused and leaves nothing; a pinned table that is given back
 * takes its tree with it; the frames are ordinary ones, or descriptor pages, right afterwards. Documented: xen/memory.h,
 * xen/vcpu.h (preemption is not to be noticed). domain: vcpus=2 memory=32
 */
#include "forest.h"

#define L1S 4000

static struct forest f;
static struct vcpu_guest_context c;
static domid_t self = DOMID_SELF;

/* Whether the first L1 (validated last or first) and an L2 can be written: then they are no tables any more. */
static void expect_no_tables(const char *what)
{
    CHECK(f.l1_count >= (BITS == 64 ? 4000 : 1000), "%u L1s", f.l1_count);
    volatile pte_t *table = open_frame(f.first_l1);
    EQ(table[0], 0, what);
    table = open_frame(f.l2s[0]);
    CHECK(table[0] & P, "%s: the L2", what);
    open_frame(f.top);
    close_frame();
}

static void expect_tables(const char *what)
{
    ulong va = SCRATCH_VA + this_cpu() * PAGE;
    REFUSED(update_va(va, pte_for(pfn_to_mfn(f.first_l1), RWP), 0), what);
    REFUSED(update_va(va, pte_for(pfn_to_mfn(f.l2s[0]), RWP), 0), what);
    REFUSED(update_va(va, pte_for(pfn_to_mfn(f.top), RWP), 0), what);
}

void guest(void)
{
    new_l1(SCRATCH_VA);
    grow(&f, L1S);
    for (uint round = 0; round < 2; round++) {
        spoil(&f, 1);
        RC(initialise_with(&f, 1, &c), -EINVAL, "page tables with a bad entry at the end");
        RC(vcpu_op(VCPUOP_up, 1, NULL), -EINVAL, "it is not initialised");
        expect_no_tables("after a bad tree");
        REFUSED(pin_top(&f), "pinning it");
        expect_no_tables("after a pin");
        spoil(&f, 0);
        RC(pin_top(&f), 0, "the tree without that entry");
        expect_tables("a table that is pinned");

        long pages = memory_op(XENMEM_current_reservation, &self);
        RC(give_back(f.top), 1, "giving back the pinned table");
        RC(memory_op(XENMEM_current_reservation, &self), pages - 1, "it is gone");
        REFUSED(mmuext(MMUEXT_UNPIN_TABLE, pfn_to_mfn(f.top), 0), "unpinning it");
        RC(take_back(f.top), 1, "another frame for it");
        if (f.l3 != f.top) {
            volatile pte_t *table = open_frame(f.l3);
            CHECK(table[0] & P, "the L3 is an ordinary page");
        }
        fill_top(&f);
        expect_no_tables("after giving it back");

        /* A page of a tree that goes is a descriptor page at once. */
        RC(pin_top(&f), 0, "again");
        RC(give_back(f.top), 1, "and back");
        ulong gdt = pfn_to_mfn(f.first_l1);
        RC(HC_2(__HYPERVISOR_set_gdt, &gdt, 8), 0, "an L1 of it as GDT");
        RC(HC_2(__HYPERVISOR_set_gdt, NULL, 0), 0, "no GDT");
        RC(take_back(f.top), 1, "a frame");
        fill_top(&f);
        expect_no_tables("after all");
    }
    RC(initialise_with(&f, 1, &c), 0, "a good tree");
    expect_tables("a table that is loaded");
    RC(initialise_with(&f, 1, &c), -EEXIST, "a second one");
}
