/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grant table versions: the way to version 2 and back, status frames that go, entries that are kept or cleared, frames that
 * are not freed while mapped. XSA-255, 379, 384; documented: xen/grant_table.h.
 */
#include "guest.h"

static long set_version(uint version)
{
    struct gnttab_set_version op = {.version = version};
    long rc = grant_op(GNTTABOP_set_version, &op, 1);
    return rc;
}

void guest(void)
{
    xen_pfn_t frames[1] = {0};
    u64 status_frames[1] = {0};
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};
    struct gnttab_get_status_frames get = {.dom = DOMID_SELF, .nr_frames = 1};
    struct gnttab_get_version version = {.dom = DOMID_SELF};
    set_xen_guest_handle(setup.frame_list, frames);
    set_xen_guest_handle(get.frame_list, status_frames);
    RC(grant_op(GNTTABOP_setup_table, &setup, 1), 0, "setup_table");
    grant_op(GNTTABOP_get_status_frames, &get, 1);
    REFUSED((long)get.status, "status frames of version 1");
    new_l1(SCRATCH_VA);
    RC(set_version(0), -EINVAL, "version 0");
    RC(set_version(3), -EINVAL, "version 3");
    long rc = set_version(2);
    if (rc == -ENOSYS)
        skip("version 2 is not offered");
    RC(rc, 0, "version 2");
    grant_op(GNTTABOP_get_version, &version, 1);
    EQ(version.version, 2, "get_version");
    RC(grant_op(GNTTABOP_setup_table, &setup, 1), 0, "setup_table");
    EQ(setup.status, 0, "its status");
    RC(grant_op(GNTTABOP_get_status_frames, &get, 1), 0, "get_status_frames");
    EQ(get.status, 0, "its status");
    RC(update_va(SCRATCH_VA, pte_for((ulong)status_frames[0], RWP), UVMF_INVLPG), 0, "mapping the status frame");
    u16 *status = (void *)SCRATCH_VA;
    (void)*(volatile u16 *)status;
    RC(set_version(1), -EBUSY, "back to version 1 with a status frame mapped");
    RC(update_va(SCRATCH_VA, 0, UVMF_INVLPG), 0, "unmapped");
    RC(set_version(1), 0, "back to version 1");
    /* Where status frames are freed, this is refused; where they stay the domain's, it shows nothing that matters. */
    update_va(SCRATCH_VA, pte_for((ulong)status_frames[0], RWP), UVMF_INVLPG);
    RC(update_va(SCRATCH_VA, 0, UVMF_INVLPG), 0, "no mapping of it");
    for (int i = 0; i < 50; i++) {
        RC(set_version(2), 0, "version 2 again");
        RC(set_version(1), 0, "version 1 again");
    }
    setup.nr_frames = 100000;
    grant_op(GNTTABOP_setup_table, &setup, 1);
    CHECK(setup.status != 0, "absurdly many frames");
    get.nr_frames = 0xffffffff;
    rc = grant_op(GNTTABOP_get_status_frames, &get, 1);
    CHECK(get.status != 0 || rc < 0, "absurdly many status frames");
}
