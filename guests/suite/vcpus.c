/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several vCPUs: initialise once, up, down, is_up, runstate, IPIs to each, registers they start with.
 * Documented: xen/vcpu.h. domain: vcpus=4 memory=32
 */
#include "guest.h"

static volatile uint arrived, ipis[4], stop;
static evtchn_port_t ports[4];

static void note(uint port)
{
    for (uint cpu = 0; cpu < 4; cpu++)
        if (ports[cpu] == port) {
            EQ(this_cpu(), cpu, "an IPI's vCPU");
            __atomic_fetch_add(&ipis[cpu], 1, __ATOMIC_SEQ_CST);
        }
}

static void second(void)
{
    __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
    EQ(VCPU_INFO(this_cpu())->evtchn_upcall_mask, 1, "a new vCPU's mask");
    enable_events();
    while (!stop)
        sched_op(SCHEDOP_block, NULL);
    __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
    vcpu_op(VCPUOP_down, this_cpu(), NULL);
    CHECK(0, "a vCPU goes on after it went down");
}

void guest(void)
{
    static struct vcpu_guest_context context;
    struct vcpu_runstate_info runstate;
    on_event = note;
    EQ(cpu_count(), 4, "vCPUs");
    RC(vcpu_op(VCPUOP_is_up, 0, NULL), 1, "vCPU 0 is up");
    RC(vcpu_op(VCPUOP_is_up, 1, NULL), 0, "vCPU 1 is not");
    RC(vcpu_op(VCPUOP_is_up, 4, NULL), -ENOENT, "there is no vCPU 4");
    RC(vcpu_op(VCPUOP_is_up, 10000, NULL), -ENOENT, "nor 10000");
    RC(vcpu_op(VCPUOP_up, 1, NULL), -EINVAL, "up before initialise");
    RC(vcpu_op(VCPUOP_initialise, 1, (void *)8), -EFAULT, "initialise without a context");
    REFUSED(vcpu_op(VCPUOP_initialise, 1, &context), "initialise without a page table");
    RC(vcpu_op(99, 0, NULL), -ENOSYS, "an unknown operation");
    for (uint cpu = 0; cpu < 4; cpu++) {
        struct evtchn_bind_ipi ipi = {.vcpu = cpu};
        RC(evtchn_op(EVTCHNOP_bind_ipi, &ipi), 0, "bind_ipi");
        ports[cpu] = ipi.port;
    }
    enable_events();
    for (uint cpu = 1; cpu < 4; cpu++) {
        RC(start_cpu(cpu, second), 0, "start");
        while (arrived < cpu)
            relax();
        RC(vcpu_op(VCPUOP_is_up, cpu, NULL), 1, "it is up");
        RC(start_cpu(cpu, second), -EEXIST, "initialise a second time");
    }
    for (uint round = 1; round <= 100; round++)
        for (uint cpu = 0; cpu < 4; cpu++) {
            struct evtchn_send send = {.port = ports[cpu]};
            RC(evtchn_op(EVTCHNOP_send, &send), 0, "an IPI");
            while (ipis[cpu] < round)
                relax();
        }
    RC(vcpu_op(VCPUOP_get_runstate_info, 2, &runstate), 0, "runstate of another");
    CHECK(runstate.state <= RUNSTATE_offline && runstate.state_entry_time, "state %d", (int)runstate.state);
    RC(vcpu_op(VCPUOP_get_runstate_info, 0, &runstate), 0, "runstate of oneself");
    EQ(runstate.state, RUNSTATE_running, "running");
    on_event = NULL; /* from here on a vCPU may find the ports of others in the word it looks at */
    stop = 1;
    for (uint cpu = 1; cpu < 4; cpu++) {
        struct evtchn_send send = {.port = ports[cpu]};
        evtchn_op(EVTCHNOP_send, &send);
    }
    for (uint cpu = 1; cpu < 4; cpu++)
        while (vcpu_op(VCPUOP_is_up, cpu, NULL))
            relax();
    EQ(arrived, 6, "all have gone");
}
