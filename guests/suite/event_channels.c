/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 2-level event channels: allocation, interdomain with oneself, IPIs, VIRQs, sending, masks, closing, status, and errno of
 * what is not allowed. Documented: xen/event_channel.h.
 */
#include "guest.h"

static uint seen_ports[8], seen;
static void note(uint port)
{
    if (seen < 8)
        seen_ports[seen] = port;
    seen++;
}

static long send(uint port)
{
    struct evtchn_send op = {.port = port};
    return evtchn_op(EVTCHNOP_send, &op);
}

static long close_port(uint port)
{
    struct evtchn_close op = {.port = port};
    return evtchn_op(EVTCHNOP_close, &op);
}

static uint status(uint port)
{
    struct evtchn_status op = {.dom = DOMID_SELF, .port = port};
    long rc = evtchn_op(EVTCHNOP_status, &op);
    return rc ? 1000 : op.status;
}

void guest(void)
{
    struct evtchn_alloc_unbound alloc = {.dom = DOMID_SELF, .remote_dom = DOMID_SELF};
    struct evtchn_bind_interdomain bind = {.remote_dom = DOMID_SELF};
    struct evtchn_bind_ipi ipi = {.vcpu = 0};
    struct evtchn_bind_virq virq = {.virq = VIRQ_TIMER, .vcpu = 0};
    struct evtchn_bind_vcpu move = {.vcpu = 0};
    struct evtchn_unmask unmask;
    on_event = note;
    mask_port(info->console.domU.evtchn);
    mask_port(info->store_evtchn);

    RC(evtchn_op(EVTCHNOP_alloc_unbound, &alloc), 0, "alloc_unbound");
    EQ(status(alloc.port), EVTCHNSTAT_unbound, "its status");
    RC(send(alloc.port), 0, "sending into nothing");
    bind.remote_port = alloc.port;
    RC(evtchn_op(EVTCHNOP_bind_interdomain, &bind), 0, "bind_interdomain");
    EQ(status(bind.local_port), EVTCHNSTAT_interdomain, "its status");
    EQ(status(alloc.port), EVTCHNSTAT_interdomain, "the other's status");
    RC(evtchn_op(EVTCHNOP_bind_interdomain, &bind), -EINVAL, "binding it twice");
    disable_events();
    clear_port(alloc.port);
    clear_port(bind.local_port);
    RC(send(bind.local_port), 0, "send");
    EQ(pending(alloc.port), 1, "the other end is pending");
    EQ(pending(bind.local_port), 0, "this end is not");
    EQ(seen, 0, "nothing while masked");
    enable_events();
    EQ(seen, 1, "one event");
    EQ(seen_ports[0], alloc.port, "its port");
    seen = 0;
    mask_port(alloc.port);
    send(bind.local_port);
    EQ(seen, 0, "a masked port");
    EQ(pending(alloc.port), 1, "is pending");
    unmask.port = alloc.port;
    RC(evtchn_op(EVTCHNOP_unmask, &unmask), 0, "unmask");
    EQ(seen, 1, "is delivered by unmask");

    RC(evtchn_op(EVTCHNOP_bind_ipi, &ipi), 0, "bind_ipi");
    EQ(status(ipi.port), EVTCHNSTAT_ipi, "its status");
    seen = 0;
    RC(send(ipi.port), 0, "an IPI to oneself");
    EQ(seen, 1, "arrives");
    EQ(seen_ports[0], ipi.port, "on its port");
    move.port = ipi.port;
    RC(evtchn_op(EVTCHNOP_bind_vcpu, &move), -EINVAL, "an IPI cannot be moved");
    move.port = bind.local_port;
    RC(evtchn_op(EVTCHNOP_bind_vcpu, &move), 0, "an interdomain port can");
    move.vcpu = 100;
    RC(evtchn_op(EVTCHNOP_bind_vcpu, &move), -ENOENT, "to a vCPU that is not there");
    RC(evtchn_op(EVTCHNOP_bind_virq, &virq), 0, "bind_virq");
    EQ(status(virq.port), EVTCHNSTAT_virq, "its status");
    RC(evtchn_op(EVTCHNOP_bind_virq, &virq), -EEXIST, "twice");
    RC(send(virq.port), -EINVAL, "sending to a VIRQ");
    ipi.vcpu = 100;
    RC(evtchn_op(EVTCHNOP_bind_ipi, &ipi), -ENOENT, "an IPI for a vCPU that is not there");
    virq.virq = 1000;
    RC(evtchn_op(EVTCHNOP_bind_virq, &virq), -EINVAL, "an absurd VIRQ");
    virq.virq = VIRQ_TIMER;
    virq.vcpu = 100;
    RC(evtchn_op(EVTCHNOP_bind_virq, &virq), -ENOENT, "a VIRQ of a vCPU that is not there");

    RC(close_port(bind.local_port), 0, "close");
    EQ(status(alloc.port), EVTCHNSTAT_unbound, "the other end is unbound");
    EQ(status(bind.local_port), EVTCHNSTAT_closed, "this one closed");
    RC(close_port(bind.local_port), -EINVAL, "closing twice");
    RC(close_port(0), -EINVAL, "port 0");
    RC(close_port(1 << 30), -EINVAL, "an absurd port");
    RC(send(1 << 30), -EINVAL, "sending to an absurd port");
    RC(send(bind.local_port), -EINVAL, "sending to a closed port");
    RC(close_port(alloc.port), 0, "closing the other");
    unmask.port = 1 << 30;
    RC(evtchn_op(EVTCHNOP_unmask, &unmask), -EINVAL, "unmasking an absurd port");
    alloc.dom = 99;
    REFUSED(evtchn_op(EVTCHNOP_alloc_unbound, &alloc), "for another domain");
    bind.remote_dom = 99;
    RC(evtchn_op(EVTCHNOP_bind_interdomain, &bind), -ESRCH, "with a domain that is not there");
    REFUSED(evtchn_op(EVTCHNOP_bind_pirq, &(struct evtchn_bind_pirq){.pirq = 3}), "a physical interrupt");
    RC(evtchn_op(99, &alloc), -ENOSYS, "an unknown operation");
    RC(evtchn_op(EVTCHNOP_alloc_unbound, (void *)8), -EFAULT, "no structure");
}
