/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_op: vCPUs come up, go down and come up again; what is told of them, and what is refused.
 * domain: vcpus=4
 * Documented: xen/vcpu.h.
 */
#include "guest.h"

static volatile uint here[MAX_CPUS], rounds[MAX_CPUS], leave[MAX_CPUS];

static void work(void)
{
    uint me = this_cpu();
    for (;;) {
        here[me]++;
        while (!leave[me])
            rounds[me]++;
        leave[me] = 0;
        vcpu_op(VCPUOP_down, me, NULL);
        /* VCPUOP_up goes on here, with everything as it was. */
    }
}

static void wait_for(volatile uint *what, uint value)
{
    while (*what != value)
        relax();
}

static void wait_down(uint cpu)
{
    while (vcpu_op(VCPUOP_is_up, cpu, NULL))
        relax();
}

void guest(void)
{
    uint count = cpu_count();
    if (count < 2)
        skip("needs several vCPUs");
    RC(vcpu_op(VCPUOP_is_up, 0, NULL), 1, "vCPU 0");
    RC(vcpu_op(VCPUOP_is_up, count, NULL), -ENOENT, "one more than there are");
    RC(vcpu_op(99, count, NULL), -ENOENT, "an unknown command for it");
    RC(vcpu_op(99, 0, NULL), -ENOSYS, "an unknown command");
    RC(vcpu_op(VCPUOP_up, 1, NULL), -EINVAL, "up before initialise");
    static struct vcpu_guest_context bad;
    RC(vcpu_op(VCPUOP_initialise, 1, (void *)0x1000), -EFAULT, "a context that is not mapped");
    bad.flags = VGCF_IN_KERNEL;
    bad.ldt_base = 8;
    RC(vcpu_op(VCPUOP_initialise, 1, &bad), -EINVAL, "an LDT between two pages");
    bad.ldt_base = 0;
    bad.gdt_ents = 8000;
    RC(vcpu_op(VCPUOP_initialise, 1, &bad), -EINVAL, "a GDT that is too long");
#ifdef __x86_64__
    bad.gdt_ents = 0;
    bad.flags = 0;
    RC(vcpu_op(VCPUOP_initialise, 1, &bad), -EINVAL, "an application without page tables");
#endif

    for (uint cpu = 1; cpu < count; cpu++) {
        RC(start_cpu(cpu, work), 0, "start");
        RC(vcpu_op(VCPUOP_initialise, cpu, &bad), -EEXIST, "initialise again");
    }
    for (uint round = 1; round <= 20; round++) {
        for (uint cpu = 1; cpu < count; cpu++)
            wait_for(&here[cpu], round);
        for (uint cpu = 1; cpu < count; cpu++)
            leave[cpu] = 1;
        for (uint cpu = 1; cpu < count; cpu++) {
            wait_down(cpu);
            uint before = rounds[cpu];
            struct vcpu_runstate_info state;
            RC(vcpu_op(VCPUOP_get_runstate_info, cpu, &state), 0, "runstate");
            CHECK(state.state == RUNSTATE_offline || state.state == RUNSTATE_running || state.state == RUNSTATE_runnable,
                  "state %d", state.state);
            EQ(rounds[cpu], before, "a vCPU that is down does nothing");
            RC(vcpu_op(VCPUOP_up, cpu, NULL), 0, "up again");
            RC(vcpu_op(VCPUOP_up, cpu, NULL), 0, "up twice");
        }
    }
    /* From outside, too. */
    for (uint cpu = 1; cpu < count; cpu++)
        RC(vcpu_op(VCPUOP_down, cpu, NULL), 0, "down from outside");
    RC(vcpu_op(VCPUOP_send_nmi, 0, &bad), -EINVAL, "an NMI with an argument");
    RC(vcpu_op(VCPUOP_get_physid, 0, &bad), -EINVAL, "physid");

    struct vcpu_runstate_info mine;
    RC(vcpu_op(VCPUOP_get_runstate_info, 0, &mine), 0, "runstate");
    EQ(mine.state, RUNSTATE_running, "my state");
    static struct vcpu_runstate_info area;
    struct vcpu_register_runstate_memory_area reg = {.addr.p = (ulong)&area};
    RC(vcpu_op(VCPUOP_register_runstate_memory_area, 0, &reg), 0, "runstate area");
    EQ(area.state, RUNSTATE_running, "state in the area");
    sched_op(SCHEDOP_yield, NULL);
    CHECK(area.time[RUNSTATE_running] + area.time[RUNSTATE_runnable] > 0 || area.state_entry_time > 0, "times");
}
