/* 2-level event channels, and the time. SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

int pending(uint port)
{
    return __atomic_load_n(&shared->evtchn_pending[port / BITS], __ATOMIC_SEQ_CST) >> (port % BITS) & 1;
}

void clear_port(uint port)
{
    __atomic_fetch_and(&shared->evtchn_pending[port / BITS], ~(1ul << (port % BITS)), __ATOMIC_SEQ_CST);
}

void mask_port(uint port)
{
    __atomic_fetch_or(&shared->evtchn_mask[port / BITS], 1ul << (port % BITS), __ATOMIC_SEQ_CST);
}

void unmask_port(uint port)
{
    struct evtchn_unmask unmask = {.port = port};
    evtchn_op(EVTCHNOP_unmask, &unmask);
}

void enable_events(void)
{
    struct vcpu_info *v = VCPU_INFO(this_cpu());
    __atomic_store_n(&v->evtchn_upcall_mask, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&v->evtchn_upcall_pending, __ATOMIC_SEQ_CST))
        version_op(XENVER_version, NULL); /* any hypercall delivers what came in between */
}

void disable_events(void)
{
    __atomic_store_n(&VCPU_INFO(this_cpu())->evtchn_upcall_mask, 1, __ATOMIC_SEQ_CST);
}

u64 now(void)
{
    volatile struct vcpu_time_info *t = &VCPU_INFO(this_cpu())->time;
    for (;;) {
        u32 version = t->version;
        asm volatile("" ::: "memory");
        u64 delta = rdtsc() - t->tsc_timestamp;
        if (t->tsc_shift >= 0)
            delta <<= t->tsc_shift;
        else
            delta >>= -t->tsc_shift;
        /* (delta * mul) >> 32 without a 128-bit product */
        u64 scaled = (delta >> 32) * t->tsc_to_system_mul + ((delta & 0xffffffff) * t->tsc_to_system_mul >> 32);
        u64 time = t->system_time + scaled;
        asm volatile("" ::: "memory");
        if (!(version & 1) && version == t->version)
            return time;
    }
}

uint own_domid(void) /* the one that a hypercall takes for ours */
{
    for (uint dom = 0; dom < DOMID_FIRST_RESERVED; dom++) {
        struct evtchn_status status = {.dom = (domid_t)dom, .port = info->store_evtchn};
        if (evtchn_op(EVTCHNOP_status, &status) == 0)
            return dom;
    }
    return DOMID_INVALID;
}
