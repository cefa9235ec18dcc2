/* SPDX-License-Identifier: Apache-2.0 */
/*
 * multicall: results in the entries, no nesting, events between two calls, long calls continued inside, iret as the
 * last one. Documented: xen/xen.h (multicall_entry). Not in the headers, so as Xen does it: iret ends the multicall.
 */
#include "guest.h"

static struct multicall_entry calls[64];
static volatile uint upcalls;

static void call(uint n, ulong op, ulong a, ulong b, ulong c, ulong d)
{
    calls[n] = (struct multicall_entry){.op = op, .result = 0xdead, .args = {a, b, c, d}};
}

static long go(uint count)
{
    return HC_2(__HYPERVISOR_multicall, calls, count);
}

static void seen(uint port)
{
    (void)port;
    upcalls++;
}

#define LONG 4096
static struct mmu_update updates[LONG] ALIGNED(4096);

static void long_batches(void)
{
    ulong mfn = mfn_of(pool[0]);
    u64 at = pte_maddr((ulong)pool[0], 1);
    for (uint i = 0; i < LONG; i++)
        updates[i] = (struct mmu_update){.ptr = at, .val = pte_for(mfn, RWP | (i & 1 ? AVAIL0 : 0))};
    uint done = 0;
    call(0, __HYPERVISOR_mmu_update, (ulong)updates, LONG, (ulong)&done, DOMID_SELF);
    call(1, __HYPERVISOR_xen_version, XENVER_version, 0, 0, 0);
    RC(go(2), 0, "a multicall with a long batch");
    EQ(calls[0].result, 0, "the batch");
    EQ(done, LONG, "updates done");
    EQ(calls[1].result >> 16, 4, "the call behind it");
    CHECK(*pte_of((ulong)pool[0], 1) & AVAIL0, "the last update counts");
    updates[3000].ptr = ~7ull; /* nobody's frame */
    done = 0;
    call(0, __HYPERVISOR_mmu_update, (ulong)updates, LONG, (ulong)&done, DOMID_SELF);
    RC(go(2), 0, "a multicall with a batch that fails");
    RC(calls[0].result, -EINVAL, "the batch");
    EQ(done, 3000, "updates done before it failed");
    EQ(calls[1].result >> 16, 4, "the call behind it is made all the same");
}

/* A multicall whose last call is iret, with the frame where the stack pointer is. */
static ulong iret_last(void)
{
    ulong value;
#ifdef __x86_64__
    asm volatile("mov %%rsp, %%rbx\n push %[ss]\n push %%rbx\n pushf\n push %[cs]\n"
                 "lea 1f(%%rip), %%rax\n push %%rax\n push $0\n push $0\n push $0\n push $42\n"
                 "mov %[list], %%rdi\n mov $3, %%esi\n mov %[nr], %%eax\n syscall\n ud2\n1:"
                 : "=a"(value)
                 : [ss] "i"(KERNEL_SS), [cs] "i"(FRAME_KERNEL_CS), [list] "i"(calls), [nr] "i"(__HYPERVISOR_multicall)
                 : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory");
#else
    asm volatile("pushf\n push %[cs]\n push $1f\n push $42\n"
                 "mov %[list], %%ebx\n mov $3, %%ecx\n mov %[nr], %%eax\n int $0x82\n ud2\n1:"
                 : "=a"(value)
                 : [cs] "i"(FRAME_KERNEL_CS), [list] "i"(calls), [nr] "i"(__HYPERVISOR_multicall)
                 : "ebx", "ecx", "edx", "esi", "edi", "memory");
#endif
    return value;
}

void guest(void)
{
    for (uint i = 0; i < 64; i++)
        call(i, __HYPERVISOR_xen_version, XENVER_version, 0, 0, 0);
    calls[7].op = 63;
    RC(go(64), 0, "64 calls");
    for (uint i = 0; i < 64; i++)
        if (i != 7)
            EQ(calls[i].result >> 16, 4, "major version");
    RC(calls[7].result, -ENOSYS, "a hypercall that is not there");

    call(0, __HYPERVISOR_multicall, (ulong)&calls[1], 1, 0, 0);
    RC(go(1), 0, "a multicall in a multicall");
    RC(calls[0].result, -EINVAL, "the inner one");
    RC(HC_2(__HYPERVISOR_multicall, 0x1000, 1), -EFAULT, "calls that are not mapped");
    RC(HC_2(__HYPERVISOR_multicall, 0x1000, 0), 0, "no calls at all");

    struct evtchn_bind_ipi ipi = {.vcpu = 0};
    RC(evtchn_op(EVTCHNOP_bind_ipi, &ipi), 0, "bind_ipi");
    on_event = seen;
    unmask_port(ipi.port);
    enable_events();
    struct evtchn_send send = {.port = ipi.port};
    for (uint i = 0; i < 8; i++)
        call(i, __HYPERVISOR_event_channel_op, EVTCHNOP_send, (ulong)&send, 0, 0);
    RC(go(8), 0, "eight events");
    EQ(upcalls, 8, "upcalls, one after each call");
    disable_events();
    long_batches();

    call(0, __HYPERVISOR_xen_version, XENVER_version, 0, 0, 0);
    call(1, __HYPERVISOR_iret, 0, 0, 0, 0);
    call(2, __HYPERVISOR_xen_version, XENVER_version, 0, 0, 0);
    EQ(iret_last(), 42, "iret in a multicall");
    EQ(calls[0].result >> 16, 4, "the call before it");
    EQ(calls[2].result, 0xdead, "the call behind it");
    disable_events();
}
