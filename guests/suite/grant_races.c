/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A grant entry that another vCPU rewrites all the time while it is mapped, copied and unmapped: whatever the answers, no
 * page table is ever mapped writable, and in the end nothing is in use. XSA-218, 224, 234, 236; documented: xen/grant_table.h.
 * domain: vcpus=2
 */
#include "guest.h"

#define REF 20
#define ROUNDS 3000
#define REWRITTEN 200000
#define RACED 100

static struct grant_entry_v1 *table;
static u32 choices[4];
static uint self;
static volatile uint stop, written;

static void rewrite(void)
{
    for (uint i = 0; !stop; i++) {
        table[REF].frame = choices[i % 4];
        table[REF].domid = (domid_t)(i % 7 ? self : self + 1);
        __atomic_store_n(&table[REF].flags, i % 5 == 0 ? 0 : i % 5 == 1 ? GTF_permit_access | GTF_readonly : GTF_permit_access,
                         __ATOMIC_SEQ_CST);
        written = i;
        if (i % 64 == 0)
            relax();
    }
    vcpu_op(VCPUOP_down, 1, NULL);
}

static int map(ulong va, uint flags, uint *handle)
{
    struct gnttab_map_grant_ref op = {.host_addr = va, .flags = flags, .ref = REF, .dom = (domid_t)self};
    long rc = grant_op(GNTTABOP_map_grant_ref, &op, 1);
    *handle = op.handle;
    return rc ? (int)rc : op.status;
}

static int unmap(ulong va, uint handle)
{
    struct gnttab_unmap_grant_ref op = {.host_addr = va, .handle = handle};
    long rc = grant_op(GNTTABOP_unmap_grant_ref, &op, 1);
    return rc ? (int)rc : op.status;
}

void guest(void)
{
    xen_pfn_t frames[1] = {0};
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};
    char *first = page_alloc(), *second = page_alloc(), *tree = page_alloc();
    uint mapped = 0, refused = 0, copied = 0, raced = 0, seen = 0;
    disable_events();
    self = own_domid();
    set_xen_guest_handle(setup.frame_list, frames);
    RC(grant_op(GNTTABOP_setup_table, &setup, 1), 0, "setup_table");
    new_l1(SCRATCH_VA);
    RC(update_va(SCRATCH_VA, pte_for(frames[0], RWP), UVMF_INVLPG), 0, "mapping the table");
    table = (void *)SCRATCH_VA;
    RC(protect(tree, ROP), 0, "a page table");
    RC(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(tree), 0), 0, "pin");
    choices[0] = (u32)mfn_of(first);
    choices[1] = (u32)mfn_of(second);
    choices[2] = (u32)mfn_of(tree);
    choices[3] = 0xfffffff;
    RC(start_cpu(1, rewrite), 0, "starting the second vCPU");
    while (written == 0)
        relax();

    /* The host may run them in turn: as long as it takes until the entry has changed under way, and been of each kind. */
    for (uint round = 0; round < ROUNDS || written < REWRITTEN || raced < RACED || !mapped || !refused || !copied; round++) {
        if (written != seen) {
            seen = written;
            raced++;
        } else if (round % 64 == 0)
            relax();
        ulong at = SCRATCH_VA + (1 + round % 3) * PAGE;
        uint handle, again, flags = GNTMAP_host_map | (round & 1 ? GNTMAP_readonly : 0);
        if (map(at, flags, &handle) == GNTST_okay) {
            u64 entry = *pte_of(at, 1);
            uint mfn = (uint)(entry >> 12 & 0xfffffff);
            CHECK(mfn == choices[0] || mfn == choices[1] || mfn == choices[2], "a frame that was never granted: %x", mfn);
            CHECK(!(entry & RW) || mfn != choices[2], "a page table mapped writable");
            if (map(at + 3 * PAGE, GNTMAP_host_map | GNTMAP_readonly, &again) == GNTST_okay) {
                EQ(*pte_of(at + 3 * PAGE, 1) >> 12 & 0xfffffff, mfn, "a second mapping is of the same frame");
                RC(unmap(at + 3 * PAGE, again), GNTST_okay, "unmap");
            }
            RC(unmap(at, handle), GNTST_okay, "unmap");
            mapped++;
        } else
            refused++;
        struct gnttab_copy copy = {.flags = GNTCOPY_dest_gref, .len = 64};
        copy.source.u.gmfn = mfn_of(first);
        copy.source.domid = DOMID_SELF;
        copy.dest.u.ref = REF;
        copy.dest.domid = (domid_t)self;
        if (grant_op(GNTTABOP_copy, &copy, 1) == 0 && copy.status == GNTST_okay)
            copied++;
    }
    stop = 1;
    while (vcpu_op(VCPUOP_is_up, 1, NULL) == 1)
        relax();
    print("%u mapped, %u refused, %u copied, %u rewritten, changed %u times", mapped, refused, copied, written, raced);
    for (char *page = first;; page = second) { /* nothing holds them any more */
        memset(page, 0, PAGE);
        RC(protect(page, ROP), 0, "read-only");
        RC(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(page), 0), 0, "a page table");
        if (page == second)
            break;
    }
}
