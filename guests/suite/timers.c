/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time: the time page, set_timer_op, single-shot and periodic timers of vcpu_op, VIRQ_TIMER.
 * Documented: xen/vcpu.h, xen/xen.h (set_timer_op, vcpu_time_info).
 */
#include "guest.h"

static uint port;
static volatile uint ticks;
static void tick(uint p)
{
    if (p == port)
        ticks++;
}

static void wait_until(u64 time)
{
    while (now() < time)
        sched_op(SCHEDOP_yield, NULL);
}

static long set_timer(u64 at)
{
#ifdef __x86_64__
    return HC_1(__HYPERVISOR_set_timer_op, at);
#else
    return HC_2(__HYPERVISOR_set_timer_op, at, at >> 32);
#endif
}

void guest(void)
{
    struct evtchn_bind_virq bind = {.virq = VIRQ_TIMER, .vcpu = 0};
    struct vcpu_set_singleshot_timer single = {.flags = 0};
    struct vcpu_set_periodic_timer periodic = {.period_ns = 2000000};
    u64 start = now(), last = start, t;
    on_event = tick;
    for (int i = 0; i < 10000; i++) {
        t = now();
        if (t < last)
            CHECK(0, "time goes backwards");
        last = t;
    }
    CHECK(last > start, "time passes");
    CHECK(shared->wc_sec > 1000000000, "the wall clock: %u", shared->wc_sec);
    RC(vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0, "stop_periodic_timer");
    RC(evtchn_op(EVTCHNOP_bind_virq, &bind), 0, "bind_virq");
    port = bind.port;
    enable_events();
    RC(set_timer(now() + 1000000), 0, "set_timer_op");
    wait_until(now() + 3000000);
    CHECK(ticks >= 1, "the timer");
    ticks = 0;
    RC(set_timer(now() + 2000000), 0, "set_timer_op");
    RC(set_timer(0), 0, "cancelled");
    wait_until(now() + 4000000);
    EQ(ticks, 0, "a cancelled timer");
    RC(set_timer(1), 0, "a time in the past");
    wait_until(now() + 2000000);
    CHECK(ticks >= 1, "is due at once");

    ticks = 0;
    single.timeout_abs_ns = now() + 1000000;
    RC(vcpu_op(VCPUOP_set_singleshot_timer, 0, &single), 0, "single-shot");
    wait_until(now() + 3000000);
    EQ(ticks, 1, "ticks of a single-shot timer");
    single.timeout_abs_ns = 1;
    single.flags = VCPU_SSHOTTMR_future;
    long past = vcpu_op(VCPUOP_set_singleshot_timer, 0, &single);
    CHECK(past == 0 || past == -ETIME, "in the past, but to be in the future: %ld", past); /* 0: since Xen 4.17.1 */
    single.timeout_abs_ns = now() + 5000000;
    single.flags = 0;
    ticks = 0;
    RC(vcpu_op(VCPUOP_set_singleshot_timer, 0, &single), 0, "single-shot");
    RC(vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL), 0, "stopped");
    wait_until(now() + 8000000);
    EQ(ticks, 0, "ticks of a stopped timer");

    RC(vcpu_op(VCPUOP_set_periodic_timer, 0, &periodic), 0, "periodic");
    wait_until(now() + 12000000);
    CHECK(ticks >= 2, "periodic ticks: %u", ticks);
    RC(vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0, "stopped");
    ticks = 0;
    wait_until(now() + 6000000);
    CHECK(ticks <= 1, "ticks after the stop: %u", ticks);
    periodic.period_ns = 1;
    RC(vcpu_op(VCPUOP_set_periodic_timer, 0, &periodic), -EINVAL, "a period under a millisecond");
    REFUSED(vcpu_op(VCPUOP_set_singleshot_timer, 100, &single), "a timer of no vCPU");
    RC(vcpu_op(VCPUOP_set_singleshot_timer, 0, (void *)8), -EFAULT, "no structure");

    /* A timer wakes what is blocked. */
    ticks = 0;
    disable_events();
    set_timer(now() + 2000000);
    RC(sched_op(SCHEDOP_block, NULL), 0, "block, which enables events");
    CHECK(ticks >= 1, "woken by the timer");
    EQ(VCPU_INFO(0)->evtchn_upcall_mask, 0, "events are enabled");
}
