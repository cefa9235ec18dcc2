/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmuext_op: flushes of every kind, clearing and copying pages, what an unprivileged domain may not, counts.
 * Documented: xen/xen.h (MMUEXT_*).
 */
#include "guest.h"

static long ext(struct mmuext_op *ops, ulong count, uint *done, uint domid)
{
    return HC_4(__HYPERVISOR_mmuext_op, ops, count, done, domid);
}

void guest(void)
{
    static const uint flushes[] = {MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_TLB_FLUSH_ALL};
    struct mmuext_op ops[3] = {{0}};
    ulong mask = 1;
    uint done = 9;
    u64 *one = page_alloc(), *two = page_alloc();
    for (uint i = 0; i < ARRAY_SIZE(flushes); i++)
        RC(mmuext(flushes[i], 0, 0), 0, "a flush");
    RC(mmuext(MMUEXT_INVLPG_LOCAL, (ulong)one, 0), 0, "INVLPG_LOCAL");
    RC(mmuext(MMUEXT_INVLPG_ALL, (ulong)one, 0), 0, "INVLPG_ALL");
    RC(mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, (ulong)&mask), 0, "TLB_FLUSH_MULTI");
    RC(mmuext(MMUEXT_INVLPG_MULTI, (ulong)one, (ulong)&mask), 0, "INVLPG_MULTI");
    mask = ~0ul;
    RC(mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, (ulong)&mask), 0, "a mask with vCPUs that are not there");
    RC(mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, 8), -EINVAL, "no mask");
    RC(mmuext(MMUEXT_INVLPG_LOCAL, HYPERVISOR_VIRT_START, 0), 0, "INVLPG of Xen's address");
    for (uint i = 0; i < 512; i++)
        one[i] = i + 1;
    RC(mmuext(MMUEXT_COPY_PAGE, mfn_of(two), mfn_of(one)), 0, "COPY_PAGE");
    EQ(two[511], 512, "is copied");
    RC(mmuext(MMUEXT_CLEAR_PAGE, mfn_of(one), 0), 0, "CLEAR_PAGE");
    EQ(one[511], 0, "is cleared");
    REFUSED(mmuext(MMUEXT_CLEAR_PAGE, base_mfn(), 0), "clearing the top table");
    REFUSED(mmuext(MMUEXT_COPY_PAGE, base_mfn(), mfn_of(one)), "copying over the top table");
    RC(mmuext(MMUEXT_COPY_PAGE, mfn_of(one), base_mfn()), 0, "copying from the top table");
    REFUSED(mmuext(MMUEXT_CLEAR_PAGE, 0xfffffff, 0), "clearing a frame that is not there");
    REFUSED(mmuext(MMUEXT_COPY_PAGE, mfn_of(one), 0xfffffff), "copying from a frame that is not there");
    REFUSED(mmuext(MMUEXT_COPY_PAGE, 0xfffffff, mfn_of(one)), "copying to a frame that is not there");
    CHECK(mmuext(MMUEXT_FLUSH_CACHE, 0, 0) <= 0, "FLUSH_CACHE");
    for (uint command = 20; command < 64; command++)
        REFUSED(mmuext(command, mfn_of(one), 0), "an unknown command");

    ops[0].cmd = MMUEXT_TLB_FLUSH_LOCAL;
    ops[1].cmd = 77;
    ops[2].cmd = MMUEXT_TLB_FLUSH_LOCAL;
    REFUSED(ext(ops, 3, &done, DOMID_SELF), "a batch with a bad one");
    EQ(done, 1, "done before it");
    RC(ext(ops, 0, &done, DOMID_SELF), 0, "none");
    RC(ext(ops, 1, NULL, DOMID_SELF), 0, "without a count");
    RC(ext(ops, 1, NULL, 99), -ESRCH, "a domain that is not there");
    RC(ext((void *)8, 1, NULL, DOMID_SELF), -EFAULT, "no list");
    RC(ext((void *)HYPERVISOR_VIRT_START, 1, NULL, DOMID_SELF), -EFAULT, "a list in Xen's window");
}
