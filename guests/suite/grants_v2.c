/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grant tables of version 2: the way there and back, status frames, sub-page grants for copies, transitive grants that lead
 * to oneself. Documented: xen/grant_table.h. Real Xen 4.17 answers the same.
 */
#include "guest.h"

static union grant_entry_v2 *table;
static volatile u16 *status;

static long set_version(uint version, uint *now_)
{
    struct gnttab_set_version op = {.version = version};
    long rc = grant_op(GNTTABOP_set_version, &op, 1);
    *now_ = op.version;
    return rc;
}

static int map(ulong va, uint ref, uint flags, uint *handle)
{
    struct gnttab_map_grant_ref op = {.host_addr = va, .flags = flags, .ref = ref, .dom = (domid_t)own_domid()};
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

static int copy(uint ref, uint from, void *to, uint length)
{
    struct gnttab_copy op = {.flags = GNTCOPY_source_gref, .len = (u16)length};
    op.source.u.ref = ref;
    op.source.domid = (domid_t)own_domid();
    op.source.offset = (u16)from;
    op.dest.u.gmfn = mfn_of(to);
    op.dest.domid = DOMID_SELF;
    long rc = grant_op(GNTTABOP_copy, &op, 1);
    return rc ? (int)rc : op.status;
}

void guest(void)
{
    xen_pfn_t frames[1] = {0};
    uint64_t status_frames[1] = {0};
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};
    struct gnttab_get_status_frames get_status = {.dom = DOMID_SELF, .nr_frames = 1};
    struct gnttab_get_version get = {.dom = DOMID_SELF};
    struct gnttab_swap_grant_ref swap = {.ref_a = 20, .ref_b = 21};
    uint version, handle, self = own_domid();
    char *page = page_alloc(), *target = page_alloc();
    set_xen_guest_handle(setup.frame_list, frames);
    set_xen_guest_handle(get_status.frame_list, status_frames);

    RC(set_version(3, &version), -EINVAL, "version 3");
    EQ(version, 1, "what there is");
    RC(grant_op(GNTTABOP_get_status_frames, &get_status, 1), 0, "status frames of version 1");
    EQ(get_status.status, GNTST_general_error, "there are none");
    if (set_version(2, &version) == -ENOSYS)
        skip("gnttab=max-ver:1");
    EQ(version, 2, "version 2");
    RC(grant_op(GNTTABOP_get_version, &get, 1), 0, "get_version");
    EQ(get.version, 2, "it");
    RC(grant_op(GNTTABOP_setup_table, &setup, 1), 0, "setup_table");
    RC(grant_op(GNTTABOP_get_status_frames, &get_status, 1), 0, "status frames");
    EQ(get_status.status, GNTST_okay, "their status");
    new_l1(SCRATCH_VA);
    RC(update_va(SCRATCH_VA, pte_for(frames[0], RWP), UVMF_INVLPG), 0, "mapping the table");
    RC(update_va(SCRATCH_VA + PAGE, pte_for((ulong)status_frames[0], RWP), UVMF_INVLPG), 0, "mapping the status");
    table = (void *)SCRATCH_VA;
    status = (void *)(SCRATCH_VA + PAGE);
    ulong at = SCRATCH_VA + 2 * PAGE;

    /* A whole page. */
    table[20].full_page.frame = mfn_of(page);
    table[20].full_page.hdr.domid = (domid_t)self;
    __atomic_store_n(&table[20].hdr.flags, GTF_permit_access, __ATOMIC_SEQ_CST);
    RC(map(at, 20, GNTMAP_host_map, &handle), GNTST_okay, "map");
    EQ(table[20].hdr.flags, GTF_permit_access, "the entry stays as it is");
    EQ(status[20], GTF_reading | GTF_writing, "its status shows the use");
    *(volatile char *)at = 'x';
    EQ(page[0], 'x', "the page is written through the grant");
    RC(grant_op(GNTTABOP_swap_grant_ref, &swap, 1), 0, "swapping an entry in use");
    EQ(swap.status, GNTST_eagain, "is refused");
    RC(set_version(1, &version), -EBUSY, "version 1 while an entry is in use");
    RC(unmap(at, handle), GNTST_okay, "unmap");
    EQ(status[20], 0, "the status is clear");
    RC(grant_op(GNTTABOP_swap_grant_ref, &swap, 1), 0, "swap");
    EQ(swap.status, GNTST_okay, "its status");
    EQ(table[21].full_page.frame, mfn_of(page), "the entry has moved");
    EQ(table[20].hdr.flags, 0, "and the other one");

    /* A part of a page. */
    memcpy(page + 100, "part", 4);
    table[22].sub_page.frame = mfn_of(page);
    table[22].sub_page.page_off = 100;
    table[22].sub_page.length = 4;
    table[22].sub_page.hdr.domid = (domid_t)self;
    __atomic_store_n(&table[22].hdr.flags, GTF_permit_access | GTF_sub_page, __ATOMIC_SEQ_CST);
    RC(map(at, 22, GNTMAP_host_map, &handle), GNTST_general_error, "a part of a page cannot be mapped");
    RC(copy(22, 100, target, 4), GNTST_okay, "copying it");
    CHECK(memcmp(target + 0, "part", 4) == 0, "the bytes");
    RC(copy(22, 99, target, 4), GNTST_general_error, "what is before it");
    RC(copy(22, 101, target, 4), GNTST_general_error, "what is behind it");
    RC(copy(22, 4094, target, 4), GNTST_bad_copy_arg, "what is over the end of the page");
    EQ(status[22], 0, "the status is clear");

    /* A transitive grant must not lead back to its granter. */
    table[23].transitive.trans_domid = (domid_t)self;
    table[23].transitive.gref = 21;
    table[23].transitive.hdr.domid = (domid_t)self;
    __atomic_store_n(&table[23].hdr.flags, GTF_transitive, __ATOMIC_SEQ_CST);
    RC(copy(23, 0, target, 4), GNTST_general_error, "a transitive grant to oneself");
    table[23].transitive.trans_domid = 0x7000;
    RC(copy(23, 0, target, 4), GNTST_general_error, "through a domain that is not there");
    RC(map(at, 23, GNTMAP_host_map, &handle), GNTST_general_error, "a transitive grant cannot be mapped");
    EQ(status[23], 0, "the status is clear");

    /* Read-only. */
    table[21].hdr.flags = GTF_permit_access | GTF_readonly;
    RC(map(at, 21, GNTMAP_host_map, &handle), GNTST_general_error, "writing what is granted read-only");
    RC(map(at, 21, GNTMAP_host_map | GNTMAP_readonly, &handle), GNTST_okay, "reading it");
    EQ(status[21], GTF_reading, "its status");
    RC(unmap(at, handle), GNTST_okay, "unmap");

    /* Back. */
    RC(set_version(1, &version), -EBUSY, "version 1 while the status is mapped");
    EQ(version, 2, "it stays");
    RC(update_va(SCRATCH_VA + PAGE, 0, UVMF_INVLPG), 0, "unmapping the status");
    table[7].hdr.flags = GTF_transitive;
    RC(set_version(1, &version), -34 /* ERANGE */, "a reserved entry that version 1 cannot have");
    table[7].hdr.flags = 0;
    RC(set_version(1, &version), 0, "version 1");
    EQ(version, 1, "it");
    struct grant_entry_v1 *old = (void *)table;
    EQ(old[21].flags | old[42].flags, 0, "ordinary entries are gone");
    CHECK(old[GNTTAB_RESERVED_XENSTORE].flags & GTF_permit_access, "the reserved ones are not");
}
