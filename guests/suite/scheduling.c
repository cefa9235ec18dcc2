/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sched_op: yield, poll with and without time, its errors, block with an event pending, shutdown reasons that do not exist.
 * Documented: xen/sched.h.
 */
#include "guest.h"

void guest(void)
{
    struct evtchn_bind_ipi ipi = {.vcpu = 0};
    struct evtchn_send send;
    evtchn_port_t ports[130] = {0};
    struct sched_poll poll = {.nr_ports = 1};
    struct sched_shutdown shutdown = {.reason = 99};
    struct sched_watchdog watchdog = {.id = 0, .timeout = 100};
    u64 before;
    set_xen_guest_handle(poll.ports, ports);
    RC(sched_op(SCHEDOP_yield, NULL), 0, "yield");
    evtchn_op(EVTCHNOP_bind_ipi, &ipi);
    ports[0] = send.port = ipi.port;
    mask_port(ipi.port);
    evtchn_op(EVTCHNOP_send, &send);
    poll.timeout = 0;
    RC(sched_op(SCHEDOP_poll, &poll), 0, "poll of a pending port");
    clear_port(ipi.port);
    before = now();
    poll.timeout = before + 3000000;
    RC(sched_op(SCHEDOP_poll, &poll), 0, "poll with a time");
    CHECK(now() >= before + 3000000 || pending(ipi.port), "it comes back at its time");
    poll.nr_ports = 129;
    RC(sched_op(SCHEDOP_poll, &poll), -EINVAL, "too many ports");
    poll.nr_ports = 1;
    ports[0] = 1 << 30;
    RC(sched_op(SCHEDOP_poll, &poll), -EINVAL, "an absurd port");
    set_xen_guest_handle(poll.ports, (evtchn_port_t *)8);
    RC(sched_op(SCHEDOP_poll, &poll), -EFAULT, "no list");
    RC(sched_op(SCHEDOP_poll, (void *)8), -EFAULT, "no structure");

    unmask_port(ipi.port);
    disable_events();
    evtchn_op(EVTCHNOP_send, &send);
    uint seen = events_seen;
    RC(sched_op(SCHEDOP_block, NULL), 0, "block with an event pending");
    CHECK(events_seen > seen, "the event is taken");
    RC(sched_op(SCHEDOP_shutdown, (void *)8), -EFAULT, "shutdown without a structure");
    RC(sched_op(99, NULL), -ENOSYS, "an unknown operation");
    REFUSED(sched_op(SCHEDOP_remote_shutdown, &(struct sched_remote_shutdown){.domain_id = 77}), "another's shutdown");
    REFUSED(sched_op(SCHEDOP_remote_shutdown, &(struct sched_remote_shutdown){.domain_id = 0}), "dom0's shutdown");
    long id = sched_op(SCHEDOP_watchdog, &watchdog);
    CHECK(id >= 1 && id <= 2, "a watchdog: %ld", id);
    watchdog.id = (u32)id;
    RC(sched_op(SCHEDOP_watchdog, &watchdog), 0, "patting it");
    watchdog.timeout = 0;
    RC(sched_op(SCHEDOP_watchdog, &watchdog), 0, "removing it");
    RC(sched_op(SCHEDOP_watchdog, &watchdog), -EINVAL, "removing it twice");
    watchdog.id = 77;
    RC(sched_op(SCHEDOP_watchdog, &watchdog), -EINVAL, "an absurd one");
    (void)shutdown;
}
