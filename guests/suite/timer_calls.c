/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers: single-shot, periodic, set_timer_op, the end of a poll. Documented: xen/vcpu.h, xen/sched.h.
 */
#include "guest.h"

#define MS 1000000ull

static volatile uint ticks;
static evtchn_port_t port;

static void tick(uint p)
{
    if (p == port)
        ticks++;
}

static void wait_ticks(uint count, u64 limit)
{
    u64 end = now() + limit;
    while (ticks < count && now() < end)
        ;
    CHECK(ticks >= count, "%u ticks, not %u", ticks, count);
}

void guest(void)
{
    struct evtchn_bind_virq virq = {.virq = VIRQ_TIMER, .vcpu = 0};
    RC(evtchn_op(EVTCHNOP_bind_virq, &virq), 0, "VIRQ_TIMER");
    port = virq.port;
    on_event = tick;
    unmask_port(port);
    enable_events();
    vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    ticks = 0;

    struct vcpu_set_singleshot_timer once = {.timeout_abs_ns = now() + 5 * MS};
    u64 due = once.timeout_abs_ns;
    RC(vcpu_op(VCPUOP_set_singleshot_timer, 0, &once), 0, "single-shot");
    wait_ticks(1, 2000 * MS);
    CHECK(now() >= due, "too early");
    once = (struct vcpu_set_singleshot_timer){.timeout_abs_ns = now() - MS, .flags = VCPU_SSHOTTMR_future};
    ticks = 0;
    long rc = vcpu_op(VCPUOP_set_singleshot_timer, 0, &once);
    CHECK(rc == 0 || rc == -ETIME, "in the past, and that matters: %ld", rc); /* ETIME: before Xen 4.17.1 */
    if (!rc)
        wait_ticks(1, 2000 * MS);
    ticks = 0;
    once.flags = 0;
    RC(vcpu_op(VCPUOP_set_singleshot_timer, 0, &once), 0, "in the past");
    wait_ticks(1, 2000 * MS);
    once.timeout_abs_ns = now() + 100000 * MS;
    RC(vcpu_op(VCPUOP_set_singleshot_timer, 0, &once), 0, "far away");
    RC(vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL), 0, "stop");

    struct vcpu_set_periodic_timer periodic = {.period_ns = MS - 1};
    RC(vcpu_op(VCPUOP_set_periodic_timer, 0, &periodic), -EINVAL, "a period that is too short");
    periodic.period_ns = ~0ull;
    RC(vcpu_op(VCPUOP_set_periodic_timer, 0, &periodic), -EINVAL, "a period that is too long");
    periodic.period_ns = 2 * MS;
    ticks = 0;
    RC(vcpu_op(VCPUOP_set_periodic_timer, 0, &periodic), 0, "periodic");
    wait_ticks(5, 5000 * MS);
    RC(vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0, "stop");

    ticks = 0;
    due = now() + 3 * MS;
#ifdef __x86_64__
    RC(HC_1(__HYPERVISOR_set_timer_op, due), 0, "set_timer_op");
#else
    RC(HC_2(__HYPERVISOR_set_timer_op, (u32)due, (u32)(due >> 32)), 0, "set_timer_op");
#endif
    while (!ticks)
        RC(sched_op(SCHEDOP_block, NULL), 0, "block");
    CHECK(now() >= due, "too early");

    disable_events();
    evtchn_port_t ports[1] = {port};
    struct sched_poll poll = {.nr_ports = 1, .timeout = now() + 4 * MS};
    due = poll.timeout;
    set_xen_guest_handle(poll.ports, ports);
    clear_port(port);
    RC(sched_op(SCHEDOP_poll, &poll), 0, "poll with a timeout");
    CHECK(now() >= due, "poll ended too early");
    poll.nr_ports = 129;
    RC(sched_op(SCHEDOP_poll, &poll), -EINVAL, "too many ports");
    poll.nr_ports = 1;
    ports[0] = 4095;
    RC(sched_op(SCHEDOP_poll, &poll), -EINVAL, "a port that is not there");
    set_xen_guest_handle(poll.ports, (evtchn_port_t *)0x1000);
    RC(sched_op(SCHEDOP_poll, &poll), -EFAULT, "ports that are not mapped");
    poll.nr_ports = 0;
    poll.timeout = now() + 2 * MS;
    due = poll.timeout;
    RC(sched_op(SCHEDOP_poll, &poll), 0, "poll of nothing is a sleep");
    CHECK(now() >= due, "slept too short");

    struct sched_watchdog dog = {.id = 0, .timeout = 100};
    RC(sched_op(SCHEDOP_watchdog, &dog), 1, "a watchdog");
    RC(sched_op(SCHEDOP_watchdog, &dog), 2, "another one");
    RC((int)sched_op(SCHEDOP_watchdog, &dog), -ENOSPC, "a third one"); /* Xen's answer has 32 bits */
    dog.id = 3;
    RC(sched_op(SCHEDOP_watchdog, &dog), -EINVAL, "one that is not there");
    for (dog.id = 1; dog.id <= 2; dog.id++) {
        dog.timeout = 0;
        RC(sched_op(SCHEDOP_watchdog, &dog), 0, "removing one");
    }
}
