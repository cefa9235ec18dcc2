/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FIFO ABI of event channels: control block, event array, pending and linked bits, masks, priorities; and control blocks
 * and array pages that are refused. XSA-107, 188, 342, 343; documented: xen/event_channel.h, docs/designs of Xen (fifo).
 */
#include "guest.h"

static volatile u32 *words;
static struct evtchn_fifo_control_block *control;

static long init_control(ulong mfn, uint offset, uint vcpu)
{
    struct evtchn_init_control op = {.control_gfn = mfn, .offset = offset, .vcpu = vcpu};
    return evtchn_op(EVTCHNOP_init_control, &op);
}

static long expand(ulong mfn)
{
    struct evtchn_expand_array op = {.array_gfn = mfn};
    return evtchn_op(EVTCHNOP_expand_array, &op);
}

void guest(void)
{
    char *page = page_alloc();
    struct evtchn_bind_ipi a = {.vcpu = 0}, b = {.vcpu = 0};
    struct evtchn_send send;
    RC(expand(mfn_of(page)), -EOPNOTSUPP, "expand_array before init_control");
    REFUSED(init_control(mfn_of(page), 0, 77), "a vCPU that is not there");
    REFUSED(init_control(mfn_of(page), 4096 - 8, 0), "a block over the page's end");
    REFUSED(init_control(mfn_of(page), 4, 0), "a block that is not aligned");
    REFUSED(init_control(0xfffffff, 0, 0), "a frame that is not there");
    REFUSED(init_control(base_mfn(), 0, 0), "a page table");
    RC(init_control(mfn_of(page), 0, 0), 0, "init_control");
    control = (void *)page;
    REFUSED(init_control(mfn_of(page), 512, 0), "a second one for the same vCPU");
    RC(protect(page, ROP), 0, "read-only");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(page), 0), "the block's page as a page table");
    RC(protect(page, RWP), 0, "writable");
    char *array = page_alloc();
    REFUSED(expand(0xfffffff), "an array page that is not there");
    REFUSED(expand(base_mfn()), "a page table as array page");
    RC(expand(mfn_of(array)), 0, "expand_array");
    words = (void *)array;
    RC(evtchn_op(EVTCHNOP_bind_ipi, &a), 0, "a port");
    RC(evtchn_op(EVTCHNOP_bind_ipi, &b), 0, "another");
    words[a.port] = words[b.port] = 0;
    send.port = a.port;
    RC(evtchn_op(EVTCHNOP_send, &send), 0, "send");
    EQ(words[a.port] >> EVTCHN_FIFO_PENDING & 1, 1, "pending");
    EQ(words[a.port] >> EVTCHN_FIFO_LINKED & 1, 1, "linked");
    EQ(control->ready >> EVTCHN_FIFO_PRIORITY_DEFAULT & 1, 1, "its queue is ready");
    EQ(control->head[EVTCHN_FIFO_PRIORITY_DEFAULT], a.port, "at the head");
    send.port = b.port;
    evtchn_op(EVTCHNOP_send, &send);
    EQ(words[a.port] & EVTCHN_FIFO_LINK_MASK, b.port, "the second is linked behind the first");
    EQ(words[b.port] >> EVTCHN_FIFO_PENDING & 1, 1, "pending, too");
    /* Consume both. */
    words[a.port] = words[b.port] = 0;
    control->head[EVTCHN_FIFO_PRIORITY_DEFAULT] = 0;
    control->ready = 0;
    words[a.port] = 1u << EVTCHN_FIFO_MASKED;
    send.port = a.port;
    evtchn_op(EVTCHNOP_send, &send);
    EQ(words[a.port] >> EVTCHN_FIFO_LINKED & 1, 0, "a masked port is not linked");
    EQ(words[a.port] >> EVTCHN_FIFO_PENDING & 1, 1, "but pending");
    unmask_port(a.port);
    EQ(words[a.port] >> EVTCHN_FIFO_MASKED & 1, 0, "unmasked");
    EQ(words[a.port] >> EVTCHN_FIFO_LINKED & 1, 1, "and linked");
    struct evtchn_set_priority priority = {.port = b.port, .priority = 3};
    RC(evtchn_op(EVTCHNOP_set_priority, &priority), 0, "set_priority");
    send.port = b.port;
    evtchn_op(EVTCHNOP_send, &send);
    EQ(control->ready >> 3 & 1, 1, "the queue of the new priority");
    EQ(control->head[3], b.port, "its head");
    priority.priority = 16;
    RC(evtchn_op(EVTCHNOP_set_priority, &priority), -EINVAL, "priority 16");
    priority.port = 100000;
    priority.priority = 1;
    RC(evtchn_op(EVTCHNOP_set_priority, &priority), -EINVAL, "an absurd port");
    /* Words full of nonsense do no harm. */
    for (uint round = 0; round < 200; round++) {
        for (uint i = 0; i < 1024; i++)
            words[i] = round * 0x9e3779b9u ^ i * 0x85ebca6bu;
        control->ready = 0xffff;
        for (uint i = 0; i < 16; i++)
            control->head[i] = round * 77777u + i;
        send.port = round & 1 ? a.port : b.port;
        RC(evtchn_op(EVTCHNOP_send, &send), 0, "send among nonsense");
        unmask_port(send.port);
    }
}
