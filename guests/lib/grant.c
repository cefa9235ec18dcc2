/* Grants of version 1, to domain 0. SPDX-License-Identifier: Apache-2.0 */
#include "front.h"

#define FRAMES 2
#define ENTRIES (FRAMES * PAGE / sizeof(struct grant_entry_v1))
static struct grant_entry_v1 *table;

static void set_up(void)
{
    xen_pfn_t frames[FRAMES] = {0};
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = FRAMES};
    set_xen_guest_handle(setup.frame_list, frames);
    RC(grant_op(GNTTABOP_setup_table, &setup, 1), 0, "setup_table");
    new_l1(SCRATCH_VA);
    for (uint i = 0; i < FRAMES; i++)
        RC(update_va(SCRATCH_VA + i * PAGE, pte_for(frames[i], RWP), UVMF_INVLPG), 0, "mapping the grant table");
    table = (void *)SCRATCH_VA;
}

u32 grant_mfn(ulong mfn, int read_only, uint domid)
{
    if (!table)
        set_up();
    for (u32 ref = GNTTAB_NR_RESERVED_ENTRIES; ref < ENTRIES; ref++) {
        if (table[ref].flags || table[ref].frame)
            continue;
        table[ref].frame = (u32)mfn;
        table[ref].domid = (domid_t)domid;
        __atomic_store_n(&table[ref].flags, GTF_permit_access | (read_only ? GTF_readonly : 0), __ATOMIC_SEQ_CST);
        return ref;
    }
    print("FAIL %s: no grant reference is left", guest_name);
    shut_down(SHUTDOWN_crash);
}

u32 grant(const void *page, int read_only) { return grant_mfn(mfn_of(page), read_only, 0); }

int in_use(u32 ref) { return (__atomic_load_n(&table[ref].flags, __ATOMIC_SEQ_CST) & (GTF_reading | GTF_writing)) != 0; }

int revoke(u32 ref)
{
    u16 flags = __atomic_load_n(&table[ref].flags, __ATOMIC_SEQ_CST);
    do
        if (flags & (GTF_reading | GTF_writing))
            return 0;
    while (!__atomic_compare_exchange_n(&table[ref].flags, &flags, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    table[ref].frame = 0;
    return 1;
}

void revoke_in_use(u32 ref) { __atomic_store_n(&table[ref].flags, 0, __ATOMIC_SEQ_CST); }
