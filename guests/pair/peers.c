/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two domains that share memory and events: one grants, the other maps. Both are this kernel; the command line says which:
 * "granter PEER" or "mapper PEER". Not part of the suite: tests/guest/test_two_domains.py makes both in one host.
 */
#include "guest.h"

#define REF 20
#define REF_RO 21
#define FIRST_PORT 3 /* of a new domain: the store and the console have 1 and 2 */

static struct grant_entry_v1 *table;

static long send(uint port)
{
    struct evtchn_send op = {.port = port};
    return evtchn_op(EVTCHNOP_send, &op);
}

static void wait_for(uint port)
{
    for (u64 end = now() + 60000000000ull; !pending(port) && now() < end;)
        relax();
    CHECK(pending(port), "the peer does not answer");
    clear_port(port);
}

static int map(ulong at, uint ref, uint flags, uint peer, uint *handle)
{
    struct gnttab_map_grant_ref op = {.host_addr = at, .flags = flags, .ref = ref, .dom = (domid_t)peer};
    long rc = grant_op(GNTTABOP_map_grant_ref, &op, 1);
    *handle = op.handle;
    return rc ? (int)rc : op.status;
}

static int unmap(ulong at, uint handle)
{
    struct gnttab_unmap_grant_ref op = {.host_addr = at, .handle = handle};
    long rc = grant_op(GNTTABOP_unmap_grant_ref, &op, 1);
    return rc ? (int)rc : op.status;
}

ASM_FN(store, "movl $5, (%" ARG ")");

static void granter(uint peer)
{
    xen_pfn_t frames[1] = {0};
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};
    struct evtchn_alloc_unbound alloc = {.dom = DOMID_SELF, .remote_dom = (domid_t)peer};
    char *page = page_alloc();
    set_xen_guest_handle(setup.frame_list, frames);
    RC(grant_op(GNTTABOP_setup_table, &setup, 1), 0, "setup_table");
    new_l1(SCRATCH_VA);
    RC(update_va(SCRATCH_VA, pte_for(frames[0], RWP), UVMF_INVLPG), 0, "mapping the table");
    table = (void *)SCRATCH_VA;
    memcpy(page, "from the granter", 17);
    for (uint ref = REF; ref <= REF_RO; ref++) {
        table[ref].frame = (u32)mfn_of(page);
        table[ref].domid = (domid_t)peer;
        __atomic_store_n(&table[ref].flags, GTF_permit_access | (ref == REF_RO ? GTF_readonly : 0), __ATOMIC_SEQ_CST);
    }
    RC(evtchn_op(EVTCHNOP_alloc_unbound, &alloc), 0, "alloc_unbound");
    EQ(alloc.port, FIRST_PORT, "the port that the peer looks for");

    wait_for(alloc.port); /* it has mapped and written */
    CHECK(memcmp(page, "from the mapper", 16) == 0, "what the peer wrote: %s", page);
    EQ(table[REF].flags & (GTF_reading | GTF_writing), GTF_reading | GTF_writing, "the entry is in use");
    RC(protect(page, ROP), 0, "our own mapping is read-only");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(page), 0), "a page table that another domain maps writable");
    RC(protect(page, RWP), 0, "and writable again");
    table[REF].flags = 0; /* revoked while mapped: what is mapped stays so */
    memcpy(page, "revoked", 8);
    RC(send(alloc.port), 0, "send");
    wait_for(alloc.port); /* it has unmapped */
    EQ(table[REF_RO].flags, GTF_permit_access | GTF_readonly, "the entry is not in use");
    memset(page, 0, PAGE);
    RC(protect(page, ROP), 0, "our own mapping is read-only");
    RC(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(page), 0), 0, "now it can be a page table");
    RC(send(alloc.port), 0, "send");
}

static void mapper(uint peer)
{
    struct evtchn_bind_interdomain bind = {.remote_dom = (domid_t)peer, .remote_port = FIRST_PORT};
    char *copied = page_alloc();
    uint handle, read_only, by_entry;
    for (u64 end = now() + 60000000000ull; evtchn_op(EVTCHNOP_bind_interdomain, &bind) && now() < end;)
        relax();
    CHECK(pending(bind.local_port), "binding makes the port pending");
    clear_port(bind.local_port);
    new_l1(SCRATCH_VA);
    char *page = (char *)SCRATCH_VA;
    ulong second = SCRATCH_VA + PAGE, third = SCRATCH_VA + 2 * PAGE;

    RC(map(SCRATCH_VA, REF + 5, GNTMAP_host_map, peer, &handle), GNTST_general_error, "what was not granted");
    RC(map(SCRATCH_VA, 1000000, GNTMAP_host_map, peer, &handle), GNTST_bad_gntref, "what is behind the table");
    RC(map(SCRATCH_VA, REF, GNTMAP_host_map, peer, &handle), GNTST_okay, "map");
    CHECK(memcmp(page, "from the granter", 17) == 0, "what the peer wrote");
    RC(map(second, REF_RO, GNTMAP_host_map, peer, &read_only), GNTST_general_error, "a writable mapping of a read-only grant");
    RC(map(second, REF_RO, GNTMAP_host_map | GNTMAP_readonly, peer, &read_only), GNTST_okay, "a read-only one");
    expect(try_kernel(store, second), PF, P | RW, "is not written");
    RC(map(pte_maddr(third, 1), REF, GNTMAP_host_map | GNTMAP_contains_pte, peer, &by_entry), GNTST_okay, "by its entry");
    *(volatile char *)(third + 100) = 'x';
    EQ(((volatile char *)page)[100], 'x', "the same frame");
    /* The frame is not ours for anything but that. */
    ulong mfn = *pte_of(SCRATCH_VA, 1) >> 12 & 0xffffffff;
    REFUSED(update_va(SCRATCH_VA + 3 * PAGE, pte_for(mfn, RWP), UVMF_INVLPG), "mapping the peer's frame without a grant");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, mfn, 0), "the peer's frame as our page table");

    struct gnttab_copy copy = {.flags = GNTCOPY_source_gref, .len = 8};
    copy.source.u.ref = REF_RO;
    copy.source.domid = (domid_t)peer;
    copy.source.offset = 5;
    copy.dest.u.gmfn = mfn_of(copied);
    copy.dest.domid = DOMID_SELF;
    RC(grant_op(GNTTABOP_copy, &copy, 1), 0, "copy");
    RC(copy.status, GNTST_okay, "its status");
    CHECK(memcmp(copied, "the gran", 8) == 0, "what was copied");

    memcpy(page, "from the mapper", 16);
    RC(send(bind.local_port), 0, "send");
    wait_for(bind.local_port);
    CHECK(memcmp((char *)second, "revoked", 8) == 0, "the mappings stay");
    REFUSED(unmap(second, handle), "unmapping at another address");
    RC(unmap(third, by_entry), GNTST_general_error, "a mapping by its entry is not one by address");
    RC(unmap(pte_maddr(third, 1), by_entry), GNTST_okay, "unmap by entry");
    RC(unmap(SCRATCH_VA, handle), GNTST_okay, "unmap");
    RC(unmap(second, read_only), GNTST_okay, "unmap");
    expect(try_kernel(store, SCRATCH_VA), PF, RW, "nothing is mapped any more");
    RC(map(SCRATCH_VA, REF, GNTMAP_host_map, peer, &handle), GNTST_general_error, "the revoked grant");
    RC(send(bind.local_port), 0, "send");
    wait_for(bind.local_port);
}

void guest(void)
{
    const char *words = (const char *)info->cmd_line;
    uint peer = 0, is_granter = words[0] == 'g';
    disable_events();
    while (*words && *words != ' ')
        words++;
    while (*words == ' ')
        words++;
    for (; *words >= '0' && *words <= '9'; words++)
        peer = peer * 10 + (uint)(*words - '0');
    if (is_granter)
        granter(peer);
    else
        mapper(peer);
}
