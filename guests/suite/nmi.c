/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NMIs: VCPUOP_send_nmi to oneself enters the callback; a second one waits until the first has returned; without a handler
 * nothing is entered. Documented: xen/vcpu.h (VCPUOP_send_nmi), xen/nmi.h, xen/callback.h.
 */
#include "guest.h"
#include <xen/callback.h>
#include <xen/nmi.h>

static int count, depth, deepest;
static u8_t masked;

static int hook(struct regs *regs)
{
    if (regs->vector != NMI_CALLBACK && regs->vector != NMI)
        return 0;
    depth++;
    deepest = depth > deepest ? depth : deepest;
    masked = VCPU_INFO(0)->evtchn_upcall_mask;
    if (count++ == 0) {
        RC(vcpu_op(VCPUOP_send_nmi, 0, NULL), 0, "an NMI while one is handled");
        version_op(XENVER_version, NULL);
        EQ(count, 1, "it waits");
    }
    depth--;
    return 1;
}

static ulong send_from_user(ulong x)
{
    return x;
}

void guest(void)
{
    struct xennmi_callback callback = {.pad = 0};
    VCPU_INFO(0)->evtchn_upcall_mask = 0;
    trap_hook = hook;
#ifdef __x86_64__
    RC(set_callback(CALLBACKTYPE_nmi, nmi_entry, 0), 0, "CALLBACKTYPE_nmi");
#else
    RC(set_callback(CALLBACKTYPE_nmi, nmi_entry, 0), 0, "CALLBACKTYPE_nmi");
#endif
    RC(vcpu_op(VCPUOP_send_nmi, 0, NULL), 0, "an NMI");
    version_op(XENVER_version, NULL);
    EQ(count, 2, "NMIs taken");
    EQ(deepest, 1, "one at a time");
    EQ(masked, 1, "events are masked in the handler");
    VCPU_INFO(0)->evtchn_upcall_mask = 1;
    vcpu_op(VCPUOP_send_nmi, 0, NULL);
    version_op(XENVER_version, NULL);
    EQ(count, 3, "masked events do not mask NMIs");
    EQ(VCPU_INFO(0)->evtchn_upcall_mask, 1, "the mask is as before");
    try_user(send_from_user, 0);
    RC(vcpu_op(VCPUOP_send_nmi, 5000, NULL), -ENOENT, "an NMI to no vCPU");
    RC(vcpu_op(VCPUOP_send_nmi, 3, NULL), -ENOENT, "an NMI to a vCPU that does not exist");
    callback.handler_address = 0;
    RC(HC_2(__HYPERVISOR_nmi_op, 77, &callback), -ENOSYS, "an unknown nmi_op");
    RC(HC_2(__HYPERVISOR_nmi_op, XENNMI_unregister_callback, NULL), 0, "unregister");
    vcpu_op(VCPUOP_send_nmi, 0, NULL);
    version_op(XENVER_version, NULL);
    EQ(count, 3, "nothing comes without a handler");
}
