/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grants to oneself: map, map read-only, permissions, counts, copy, unmapping what is not mapped, version.
 * Documented: xen/grant_table.h (GNTST_*).
 */
#include "guest.h"

static struct grant_entry_v1 *table;
ASM_FN(store, "movl $5, (%" ARG ")");

static int map(ulong va, uint ref, uint flags, uint dom, struct gnttab_map_grant_ref *out)
{
    struct gnttab_map_grant_ref op = {.host_addr = va, .flags = flags, .ref = ref, .dom = (domid_t)dom};
    long rc = grant_op(GNTTABOP_map_grant_ref, &op, 1);
    if (out)
        *out = op;
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
    struct gnttab_query_size query = {.dom = DOMID_SELF};
    struct gnttab_map_grant_ref mapped, second;
    u32 *page = page_alloc(), *other = page_alloc();
    set_xen_guest_handle(setup.frame_list, frames);
    RC(grant_op(GNTTABOP_setup_table, &setup, 1), 0, "setup_table");
    EQ(setup.status, GNTST_okay, "its status");
    new_l1(SCRATCH_VA);
    RC(update_va(SCRATCH_VA, pte_for(frames[0], RWP), UVMF_INVLPG), 0, "mapping the table");
    table = (void *)SCRATCH_VA;
    ulong at = SCRATCH_VA + PAGE, at2 = SCRATCH_VA + 2 * PAGE;
    RC(grant_op(GNTTABOP_query_size, &query, 1), 0, "query_size");
    CHECK(query.status == 0 && query.nr_frames >= 1 && query.max_nr_frames >= query.nr_frames, "query_size: %u of %u", query.nr_frames, query.max_nr_frames);

    uint self = own_domid();
    table[20].frame = (u32)mfn_of(page);
    table[20].domid = (domid_t)self;
    __atomic_store_n(&table[20].flags, GTF_permit_access, __ATOMIC_SEQ_CST);
    RC(map(at, 20, GNTMAP_host_map, DOMID_SELF, NULL), GNTST_bad_domain, "DOMID_SELF is no domain to map from");
    RC(map(at, 20, GNTMAP_host_map, self, &mapped), GNTST_okay, "map");
    *page = 0x11;
    EQ(*(volatile u32 *)at, 0x11, "the page is seen through the grant");
    *(volatile u32 *)at = 0x22;
    EQ(*page, 0x22, "and written");
    EQ(table[20].flags & (GTF_reading | GTF_writing), GTF_reading | GTF_writing, "the entry is in use");
    REFUSED(map(at2, 21, GNTMAP_host_map, self, NULL), "an entry that grants nothing");
    RC(map(at2, 20, GNTMAP_host_map | GNTMAP_readonly, self, &second), GNTST_okay, "a second, read-only mapping");
    expect(try_kernel(store, at2), PF, P | RW, "is not written");
    RC(unmap(at2, second.handle), GNTST_okay, "unmap");
    EQ(table[20].flags & GTF_writing, GTF_writing, "still in use for writing");
    REFUSED(unmap(at2, mapped.handle), "unmapping at another address");
    REFUSED(unmap(at, 0xfffff), "an absurd handle");
    RC(unmap(at, mapped.handle), GNTST_okay, "unmap the first");
    EQ(table[20].flags & (GTF_reading | GTF_writing), 0, "the entry is not in use");
    EQ(*pte_of(at, 1) & P, 0, "the entry is gone");
    REFUSED(unmap(at, mapped.handle), "unmapping twice");

    table[20].flags = GTF_permit_access | GTF_readonly;
    REFUSED(map(at, 20, GNTMAP_host_map, self, NULL), "a writable mapping of a read-only grant");
    RC(map(at, 20, GNTMAP_host_map | GNTMAP_readonly, self, &mapped), GNTST_okay, "a read-only one");
    /* A page that is granted can be no table while it is mapped writable, but read-only it can. */
    RC(unmap(at, mapped.handle), GNTST_okay, "unmap");
    table[20].flags = GTF_permit_access;
    RC(map(at, 20, GNTMAP_host_map, self, &mapped), GNTST_okay, "map");
    RC(protect(page, ROP), 0, "our own mapping is read-only");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(page), 0), "a page table that a grant maps writable");
    RC(unmap(at, mapped.handle), GNTST_okay, "unmap");
    RC(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(page), 0), 0, "now it can be one");
    REFUSED(map(at, 20, GNTMAP_host_map, self, NULL), "a writable grant of a page table");
    RC(mmuext(MMUEXT_UNPIN_TABLE, mfn_of(page), 0), 0, "unpin");
    protect(page, RWP);
    table[20].frame = (u32)base_mfn();
    REFUSED(map(at, 20, GNTMAP_host_map, self, NULL), "a writable grant of the top table");
    table[20].frame = 0xfffffff;
    REFUSED(map(at, 20, GNTMAP_host_map, self, NULL), "a grant of a frame that is not there");
    table[20].frame = (u32)mfn_of(page);
    REFUSED(map(at, 100000, GNTMAP_host_map, self, NULL), "a reference behind the table");
    REFUSED(map(at, 20, 0, self, NULL), "no kind of mapping");
    REFUSED(map(HYPERVISOR_VIRT_START, 20, GNTMAP_host_map, self, NULL), "into Xen's window");
    REFUSED(map(at + 0x10000000, 20, GNTMAP_host_map, self, NULL), "where there is no table");
    REFUSED(map(at, 20, GNTMAP_host_map, 199, NULL), "a domain that is not there");
    EQ(table[20].flags & (GTF_reading | GTF_writing), 0, "failures leave the entry unused");

    /* Copies. */
    struct gnttab_copy copy = {.len = 100, .flags = GNTCOPY_source_gref};
    page[0] = 0x5a5a;
    copy.source.domid = DOMID_SELF;
    copy.source.u.ref = 20;
    copy.dest.domid = DOMID_SELF;
    copy.dest.u.gmfn = mfn_of(other);
    copy.dest.offset = 8;
    RC(grant_op(GNTTABOP_copy, &copy, 1), 0, "copy");
    EQ(copy.status, GNTST_okay, "its status");
    EQ(other[2], 0x5a5a, "what was copied");
    copy.len = 4090;
    grant_op(GNTTABOP_copy, &copy, 1);
    REFUSED(copy.status, "a copy over the page's end");
    copy.len = 10;
    copy.dest.u.gmfn = base_mfn();
    grant_op(GNTTABOP_copy, &copy, 1);
    REFUSED(copy.status, "a copy into a page table");
    copy.dest.u.gmfn = mfn_of(other);
    copy.source.u.ref = 21;
    grant_op(GNTTABOP_copy, &copy, 1);
    REFUSED(copy.status, "a copy of what is not granted");
    REFUSED(grant_op(99, &copy, 1), "an unknown operation");
    REFUSED(grant_op(GNTTABOP_copy, (void *)8, 1), "no structure");
    RC(grant_op(GNTTABOP_copy, &copy, 0), 0, "no copy");
    struct gnttab_set_version version = {.version = 3};
    RC(grant_op(GNTTABOP_set_version, &version, 1), -EINVAL, "version 3");
    struct gnttab_get_version get = {.dom = DOMID_SELF};
    RC(grant_op(GNTTABOP_get_version, &get, 1), 0, "get_version");
    EQ(get.version, 1, "version");
}
