/* SPDX-License-Identifier: Apache-2.0 */
/*
 * callback_op: registration and what may be unregistered, addresses that are refused, events through a moved callback.
 * Documented: xen/callback.h.
 */
#include "guest.h"
#include <xen/callback.h>

static long unregister(uint type)
{
    struct callback_unregister op = {.type = (u16)type};
    return HC_2(__HYPERVISOR_callback_op, CALLBACKOP_unregister, &op);
}

void guest(void)
{
    struct callback_register op = {.type = 99};
    RC(set_callback(CALLBACKTYPE_event, event_entry, 0), 0, "event");
    RC(set_callback(CALLBACKTYPE_failsafe, failsafe_entry, 0), 0, "failsafe");
    RC(set_callback(CALLBACKTYPE_failsafe, failsafe_entry, CALLBACKF_mask_events), 0, "failsafe that masks");
    RC(set_callback(CALLBACKTYPE_nmi, nmi_entry, 0), 0, "nmi");
    RC(set_callback(CALLBACKTYPE_sysenter, sysenter_entry, 0), 0, "sysenter");
#ifdef __x86_64__
    RC(set_callback(CALLBACKTYPE_syscall, syscall_entry, 0), 0, "syscall");
    RC(set_callback(CALLBACKTYPE_syscall32, syscall32_entry, 0), 0, "syscall32");
#endif
    RC(HC_2(__HYPERVISOR_callback_op, CALLBACKOP_register, &op), -ENOSYS, "an unknown type");
    RC(HC_2(__HYPERVISOR_callback_op, 99, &op), BITS == 64 ? -ENOSYS : -EINVAL, "an unknown operation");
    RC(HC_2(__HYPERVISOR_callback_op, CALLBACKOP_register, 8), -EFAULT, "no structure");
    RC(unregister(CALLBACKTYPE_event), -EINVAL, "event cannot be unregistered");
    RC(unregister(CALLBACKTYPE_failsafe), -EINVAL, "failsafe cannot be unregistered");
    RC(unregister(CALLBACKTYPE_nmi), 0, "nmi can");
    RC(unregister(99), -ENOSYS, "an unknown type");
#ifdef __x86_64__
    op.type = CALLBACKTYPE_event;
    op.address = 0x8000000000000000;
    RC(HC_2(__HYPERVISOR_callback_op, CALLBACKOP_register, &op), -EINVAL, "a non-canonical address");
#endif
    enable_events();
    struct evtchn_bind_ipi ipi = {.vcpu = 0};
    evtchn_op(EVTCHNOP_bind_ipi, &ipi);
    uint before = events_seen;
    struct evtchn_send send = {.port = ipi.port};
    evtchn_op(EVTCHNOP_send, &send);
    EQ(events_seen - before, 1, "an event");
}
