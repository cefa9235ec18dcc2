/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System time does not go backwards from one vCPU to another. Documented: xen/xen.h (struct vcpu_time_info).
 * domain: vcpus=3 memory=32
 */
#include "guest.h"

static volatile uint stop, up, steps;
static u64 latest;
static u8_t lock;

static void look(void)
{
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        relax();
    u64 t = now();
    if (t < latest)
        CHECK(0, "%llu ns backwards on vCPU %u", (unsigned long long)(latest - t), this_cpu());
    latest = t;
    steps++;
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

static void other(void)
{
    __atomic_fetch_add(&up, 1, __ATOMIC_SEQ_CST);
    while (!stop)
        look();
    vcpu_op(VCPUOP_down, this_cpu(), NULL);
}

void guest(void)
{
    start_cpu(1, other);
    start_cpu(2, other);
    while (up < 2)
        relax();
    while (steps < 3000)
        look();
    stop = 1;
    for (uint cpu = 1; cpu < 3; cpu++)
        while (vcpu_op(VCPUOP_is_up, cpu, NULL))
            relax();
    u64 a = rdtsc(), b = rdtsc();
    CHECK(b >= a, "the time stamp counter goes backwards");
}
