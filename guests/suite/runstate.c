/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runstate and time areas registered by address, vcpu_info moved. Documented: xen/vcpu.h; XSA-327 on alignment.
 */
#include "guest.h"

void guest(void)
{
    static struct vcpu_runstate_info area ALIGNED(64);
    static struct vcpu_time_info time ALIGNED(64);
    struct vcpu_register_runstate_memory_area reg = {.addr.v = &area};
    struct vcpu_register_time_memory_area reg_time;
    u64 total = 0;
    RC(vcpu_op(VCPUOP_register_runstate_memory_area, 0, &reg), 0, "a runstate area");
    EQ(area.state, RUNSTATE_running, "running");
    CHECK(area.state_entry_time, "since when");
    for (int i = 0; i < 4; i++)
        total += area.time[i];
    CHECK(total, "times");
    reg_time.addr.v = &time;
    RC(vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &reg_time), 0, "a time area");
    CHECK(time.tsc_to_system_mul && time.system_time, "is filled");
    EQ(time.version & 1, 0, "and stable");
    reg.addr.v = (void *)HYPERVISOR_VIRT_START;
    RC(vcpu_op(VCPUOP_register_runstate_memory_area, 0, &reg), -EFAULT, "an area in Xen's window");

    struct vcpu_register_vcpu_info move = {.mfn = mfn_of(pool[0]), .offset = 0};
    move.offset = 4096 - 32;
    REFUSED(vcpu_op(VCPUOP_register_vcpu_info, 0, &move), "vcpu_info over a page's end");
    move.offset = BITS == 64 ? 4 : 2;
    REFUSED(vcpu_op(VCPUOP_register_vcpu_info, 0, &move), "vcpu_info that is not aligned (XSA-327)");
    move.offset = 64;
    move.mfn = base_mfn();
    REFUSED(vcpu_op(VCPUOP_register_vcpu_info, 0, &move), "vcpu_info in a page table");
    move.mfn = 0xfffffff;
    REFUSED(vcpu_op(VCPUOP_register_vcpu_info, 0, &move), "vcpu_info nowhere");
    struct vcpu_info *mine = (void *)(pool[0] + 64);
    move.mfn = mfn_of(pool[0]);
    RC(vcpu_op(VCPUOP_register_vcpu_info, 0, &move), 0, "vcpu_info in a page of ours");
    CHECK(mine->time.tsc_to_system_mul, "has the time");
    EQ(mine->evtchn_upcall_pending, 1, "and all pending");
    EQ(mine->evtchn_upcall_mask, 1, "and the mask as it was");
    RC(vcpu_op(VCPUOP_register_vcpu_info, 0, &move), -EINVAL, "a second time");
    RC(protect(pool[0], ROP), 0, "read-only");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(pool[0]), 0), "its page as a page table");
    RC(protect(pool[0], RWP), 0, "writable");
}
