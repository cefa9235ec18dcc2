/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FIFO event channels: control blocks and the event array, order and priorities, masks, closing while linked, moving between
 * queues, and two vCPUs that send to each other without losing one. Documented: xen/event_channel.h ("FIFO ABI") and the
 * design document "FIFO-based event channels". Real Xen 4.17 answers the same.
 * domain: vcpus=2
 */
#include "guest.h"

#define BIT(n) (1u << (n))
#define QUEUES EVTCHN_FIFO_MAX_QUEUES
#define ROUNDS 300

static struct evtchn_fifo_control_block *blocks[2];
static u32 *words;
static u32 heads[2][QUEUES], ready[2];
static uint order[16], taken;

static long init_control(uint vcpu, ulong gfn, uint offset, uint *link_bits)
{
    struct evtchn_init_control op = {.control_gfn = gfn, .offset = offset, .vcpu = vcpu};
    long rc = evtchn_op(EVTCHNOP_init_control, &op);
    if (link_bits)
        *link_bits = op.link_bits;
    return rc;
}

static long expand(ulong gfn)
{
    struct evtchn_expand_array op = {.array_gfn = gfn};
    return evtchn_op(EVTCHNOP_expand_array, &op);
}

static long priority(uint port, uint value)
{
    struct evtchn_set_priority op = {.port = port, .priority = value};
    return evtchn_op(EVTCHNOP_set_priority, &op);
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

static uint ipi(uint vcpu)
{
    struct evtchn_bind_ipi op = {.vcpu = vcpu};
    RC(evtchn_op(EVTCHNOP_bind_ipi, &op), 0, "bind_ipi");
    return op.port;
}

static u32 word(uint port)
{
    return __atomic_load_n(&words[port], __ATOMIC_SEQ_CST);
}

/* One port off the first queue that has one: 0, if there is none that is pending and not masked. */
static uint take_one(uint cpu)
{
    for (;;) {
        ready[cpu] |= __atomic_exchange_n(&blocks[cpu]->ready, 0, __ATOMIC_SEQ_CST);
        if (!ready[cpu])
            return 0;
        uint q = (uint)__builtin_ctz(ready[cpu]);
        u32 port = heads[cpu][q] ? heads[cpu][q] : __atomic_load_n(&blocks[cpu]->head[q], __ATOMIC_SEQ_CST);
        u32 seen = word(port);
        while (!__atomic_compare_exchange_n(&words[port], &seen,
                                            seen & ~(BIT(EVTCHN_FIFO_LINKED) | EVTCHN_FIFO_LINK_MASK), 0,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
        heads[cpu][q] = seen & EVTCHN_FIFO_LINK_MASK;
        if (!heads[cpu][q])
            ready[cpu] &= ~BIT(q);
        if ((seen & (BIT(EVTCHN_FIFO_PENDING) | BIT(EVTCHN_FIFO_MASKED))) != BIT(EVTCHN_FIFO_PENDING))
            continue;
        __atomic_fetch_and(&words[port], ~BIT(EVTCHN_FIFO_PENDING), __ATOMIC_SEQ_CST);
        return port;
    }
}

static void take_all(uint cpu)
{
    taken = 0;
    for (uint port; (port = take_one(cpu)) && taken < 16;)
        order[taken++] = port;
}

/* vCPU 1 sends `there` and waits for `back`, which vCPU 0 sends when it has taken it; and the other way round. */
static uint there, back, noise;
static volatile uint rounds_done, stop;

static uint wait_for(uint cpu, uint port)
{
    for (u64 end = now() + 20000000000ull; now() < end;) {
        uint got = take_one(cpu);
        if (got == port)
            return 1;
        if (!got && stop)
            return 0;
        if (!got)
            relax();
    }
    return 0;
}

static void second(void)
{
    for (uint i = 0; i < ROUNDS && !stop; i++) {
        if (i % 3 == 0)
            send(noise); /* into another queue of vCPU 0 */
        send(there);
        if (!wait_for(1, back))
            break;
        rounds_done = i + 1;
    }
    stop = 1;
    vcpu_op(VCPUOP_down, 1, NULL);
}

void guest(void)
{
    char *control = page_alloc(), *array = page_alloc(), *table = page_alloc();
    uint bits = 0;
    disable_events();
    blocks[0] = (void *)control;
    blocks[1] = (void *)(control + 1024);
    words = (void *)array;

    RC(expand(mfn_of(array)), -EOPNOTSUPP, "expand_array before init_control");
    uint early = ipi(0);
    RC(priority(early, 3), -ENOSYS, "set_priority before init_control");
    send(early);
    RC(init_control(99, mfn_of(control), 0, NULL), -ENOENT, "a control block for a vCPU that is not there");
    RC(init_control(0, mfn_of(control), 4, NULL), -EINVAL, "a control block that is not aligned");
    RC(init_control(0, mfn_of(control), 4096 - 64, NULL), -EINVAL, "a control block over the end of its page");
    RC(init_control(0, 0xfffffffull, 0, NULL), -EINVAL, "a control block outside memory");
    protect(table, ROP);
    RC(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(table), 0), 0, "pin");
    RC(init_control(0, mfn_of(table), 0, NULL), -EINVAL, "a control block in a page table");
    RC(init_control(0, mfn_of(control), 0, &bits), 0, "init_control");
    EQ(bits, EVTCHN_FIFO_LINK_BITS, "link bits");
    RC(init_control(0, mfn_of(control), 2048, NULL), -EINVAL, "a second one for the same vCPU");
    RC(init_control(1, mfn_of(control), 1024, NULL), 0, "the other vCPU's");
    RC(expand(mfn_of(table)), -EINVAL, "an event array in a page table");
    RC(expand(mfn_of(array)), 0, "expand_array");
    take_all(0);
    EQ(taken, 1, "what was pending before is raised");
    EQ(order[0], early, "it");
    RC(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(array), 0), -EINVAL, "the event array becomes no page table");

    uint a = ipi(0), b = ipi(0), c = ipi(0);
    send(c), send(a), send(b), send(a);
    EQ(VCPU_INFO(0)->evtchn_upcall_pending, 1, "an upcall is pending");
    take_all(0);
    EQ(taken, 3, "three events");
    CHECK(order[0] == c && order[1] == a && order[2] == b, "in the order they were sent");
    RC(priority(b, 0), 0, "set_priority");
    RC(priority(c, 15), 0, "set_priority");
    RC(priority(c, 16), -EINVAL, "a priority that is too low");
    RC(priority(b + 500, 1), -EINVAL, "of a port that is not there");
    RC(priority(c + 1, 1), -EACCES, "of a closed port");
    send(c), send(a), send(b);
    take_all(0);
    CHECK(taken == 3 && order[0] == b && order[1] == a && order[2] == c, "by priority");

    __atomic_fetch_or(&words[a], BIT(EVTCHN_FIFO_MASKED), __ATOMIC_SEQ_CST);
    send(a);
    EQ(word(a), BIT(EVTCHN_FIFO_MASKED) | BIT(EVTCHN_FIFO_PENDING), "masked: pending, not linked");
    take_all(0);
    EQ(taken, 0, "and not delivered");
    unmask_port(a);
    take_all(0);
    EQ(taken, 1, "delivered when unmasked");
    EQ(order[0], a, "it");

    send(a);
    RC(close_port(a), 0, "closing a port that is linked");
    uint other = ipi(0);
    CHECK(other != a, "it is not given out while it is linked");
    take_all(0);
    EQ(taken, 0, "nor delivered");
    EQ(ipi(0), a, "now it is given out again");

    /* Two vCPUs. */
    there = ipi(0), back = ipi(1), noise = ipi(0);
    priority(noise, 2);
    priority(back, 9);
    RC(start_cpu(1, second), 0, "starting the second vCPU");
    uint answered = 0, heard = 0;
    for (u64 end = now() + 60000000000ull; !stop && now() < end;) {
        uint got = take_one(0);
        if (got == there) {
            answered++;
            send(back);
        } else if (got == noise)
            heard++;
        else
            relax();
    }
    EQ(answered, ROUNDS, "events from the other vCPU");
    EQ(rounds_done, ROUNDS, "answers to it");
    CHECK(heard > 0 && heard <= ROUNDS / 3, "events beside them: %u", heard);
    while (vcpu_op(VCPUOP_is_up, 1, NULL) == 1)
        relax();
}
