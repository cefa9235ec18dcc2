/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handler that sends its own vCPU an event each time it is entered: what it interrupted goes on all the same, and
 * every event arrives. Real Xen delivers each one before anything else is executed, so there this guest never ends.
 */
#include "guest.h"

static struct evtchn_send send;
static volatile uint goes_on, upcalls;

static int again(struct regs *regs)
{
    struct vcpu_info *v = VCPU_INFO(this_cpu());
    if (regs->vector != EVENT)
        return 0;
    upcalls++;
    __atomic_store_n(&v->evtchn_upcall_pending, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&v->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
    clear_port(send.port);
    if (!goes_on)
        evtchn_op(EVTCHNOP_send, &send);
    return 1;
}

void guest(void)
{
    struct evtchn_bind_ipi ipi = {.vcpu = 0};
    evtchn_op(EVTCHNOP_bind_ipi, &ipi);
    send.port = ipi.port;
    enable_events();
    trap_hook = again;
    evtchn_op(EVTCHNOP_send, &send);
    uint before = upcalls;
    goes_on = 1;
    EQ(before > 0, 1, "the first event came with the call that sent it");
    evtchn_op(EVTCHNOP_send, &send); /* one that waited meanwhile has come before it */
    before = upcalls;
    evtchn_op(EVTCHNOP_send, &send);
    EQ(upcalls - before, 1, "events come at once again");
    EQ(pending(send.port), 0, "none is left");
    trap_hook = NULL;
}
