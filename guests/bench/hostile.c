/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that keeps Domain 0 as busy as it can, until somebody ends it: its command line says with what. "deep": paths of 64
 * levels made, watched and removed; "wide": one node of a directory of 900 written over and over, and the directory read; "commits": ten transactions of 1,000
 * writes each and others' changes meanwhile; "watches": 128 watches on one node that is written to, whose events it reads;
 * "unread": the same, and it reads nothing for a while; "values": the longest messages; "console" and "console_io": output without end;
 * "grants": the longest maps, unmaps and copies of its own pages; "events": events to itself.
 * benchmarks/hostile.py measures what others wait meanwhile.
 */
#include "front.h"
#include <xen/io/xs_wire.h>

static struct xenstore_domain_interface *store;
static char payload[4096];
static char value[2048];
static u32 next_id;

static void kick(uint port)
{
    struct evtchn_send send = {.port = port};
    evtchn_op(EVTCHNOP_send, &send);
}

static int is(const char *word)
{
    const char *given = (const char *)info->cmd_line;
    size_t n = 0;
    for (; word[n]; n++)
        if (given[n] != word[n])
            return 0;
    return !given[n] || given[n] == ' ';
}

/* Takes what has come; keeps nothing. */
static void drop_replies(void)
{
    u32 prod = __atomic_load_n(&store->rsp_prod, __ATOMIC_ACQUIRE);
    __atomic_store_n(&store->rsp_cons, prod, __ATOMIC_RELEASE);
}

static void put(const void *data, uint length, int drop)
{
    const char *bytes = data;
    for (uint i = 0; i < length;) {
        u32 prod = store->req_prod, cons = __atomic_load_n(&store->req_cons, __ATOMIC_ACQUIRE);
        if (prod - cons >= XENSTORE_RING_SIZE) {
            kick(info->store_evtchn);
            if (drop)
                drop_replies();
            sched_op(SCHEDOP_yield, NULL);
            continue;
        }
        store->req[MASK_XENSTORE_IDX(prod)] = bytes[i++];
        __atomic_store_n(&store->req_prod, prod + 1, __ATOMIC_RELEASE);
    }
}

static void post(u32 type, u32 tx, uint length, int drop)
{
    struct xsd_sockmsg head = {.type = type, .req_id = ++next_id, .tx_id = tx, .len = length};
    put(&head, sizeof(head), drop);
    put(payload, length, drop);
    kick(info->store_evtchn);
}

static void take(void *to, uint length)
{
    char *bytes = to;
    for (uint i = 0; i < length;) {
        u32 cons = store->rsp_cons;
        if (cons == __atomic_load_n(&store->rsp_prod, __ATOMIC_ACQUIRE)) {
            kick(info->store_evtchn);
            sched_op(SCHEDOP_yield, NULL);
            continue;
        }
        char byte = store->rsp[MASK_XENSTORE_IDX(cons)];
        __atomic_store_n(&store->rsp_cons, cons + 1, __ATOMIC_RELEASE);
        if (bytes)
            bytes[i] = byte;
        i++;
    }
}

/* A request and its answer, whose beginning comes to `answer`. */
static void call(u32 type, u32 tx, uint length, char answer[32])
{
    struct xsd_sockmsg head;
    post(type, tx, length, 0);
    u32 id = next_id;
    do {
        take(&head, sizeof(head));
        uint first = head.len < 32 ? head.len : 32;
        take(answer, first);
        take(NULL, head.len - first);
    } while (head.req_id != id || head.type == XS_WATCH_EVENT);
}

/* "NAME\0" of `length` bytes; with levels "NAME/NAME/..." */
static uint path(const char *name, uint levels)
{
    uint at = 0;
    for (uint i = 0; i < levels; i++) {
        if (i)
            payload[at++] = '/';
        for (uint n = 0; name[n]; n++)
            payload[at++] = name[n];
    }
    payload[at++] = 0;
    return at;
}

static uint number(char *to, uint n)
{
    char digits[12];
    uint count = 0, at = 0;
    do
        digits[count++] = (char)('0' + n % 10);
    while (n /= 10);
    while (count)
        to[at++] = digits[--count];
    return at;
}

static uint numbered(const char *directory, uint n)
{
    uint at = path(directory, 1) - 1;
    payload[at++] = '/';
    payload[at++] = 'n';
    at += number(payload + at, n);
    payload[at++] = 0;
    payload[at] = 'v';
    return at + 1;
}

static void watch(const char *name, uint n)
{
    uint at = path(name, 1);
    at += number(payload + at, n);
    payload[at++] = 0;
    post(XS_WATCH, 0, at, 1);
}

static void deep(void)
{
    for (uint n = 0; n < 100; n++)
        watch("data", n);
    for (;;) {
        for (uint i = 0; i < 30; i++) {
            uint at = path("data/x", 30);
            payload[at] = 'v';
            post(XS_WRITE, 0, at + 1, 1);
        }
        post(XS_RM, 0, path("data/x", 1), 1);
    }
}

static void wide(void)
{
    for (uint n = 0; n < 900; n++)
        post(XS_WRITE, 0, numbered("data", n), 1);
    for (uint n = 0;; n++) {
        post(XS_WRITE, 0, numbered("data", n % 900), 1);
        post(XS_DIRECTORY, 0, path("data", 1), 1);
    }
}

static void commits(void)
{
    char answer[32];
    for (uint round = 0;; round++) {
        u32 tx[10];
        for (uint t = 0; t < 10; t++) {
            payload[0] = 0;
            call(XS_TRANSACTION_START, 0, 1, answer);
            tx[t] = 0;
            for (uint i = 0; i < 10 && answer[i] >= '0' && answer[i] <= '9'; i++)
                tx[t] = tx[t] * 10 + (u32)(answer[i] - '0');
            for (uint n = 0; n < 900; n++)
                post(XS_WRITE, tx[t], numbered("data", n), 1);
        }
        call(XS_WRITE, 0, numbered("data", 950), answer);
        for (uint t = 0; t < 10; t++) {
            payload[0] = 'T';
            payload[1] = 0;
            call(XS_TRANSACTION_END, tx[t], 2, answer);
        }
    }
}

static void watches(int unread)
{
    for (uint n = 0; n < 128; n++)
        watch("data", n);
    for (uint n = 0;; n++) {
        uint at = path("data", 1);
        payload[at] = 'v';
        post(XS_WRITE, 0, at + 1, !unread || n % 1000 == 999);
    }
}

static void values(void)
{
    for (uint n = 0;; n++) {
        uint at = numbered("data", n % 100) - 1;
        memcpy(payload + at, value, sizeof(value));
        post(XS_WRITE, 0, at + sizeof(value), 1);
        post(XS_READ, 0, at, 1);
    }
}

static void console(void)
{
    struct xencons_interface *ring = (void *)(VIRT_BASE + mfn_to_pfn(info->console.domU.mfn) * PAGE);
    for (;;) {
        u32 prod = ring->out_prod, cons = __atomic_load_n(&ring->out_cons, __ATOMIC_ACQUIRE);
        u32 room = sizeof(ring->out) - (prod - cons);
        for (u32 i = 0; i < room; i++)
            ring->out[MASK_XENCONS_IDX(prod + i, ring->out)] = i % 80 ? 'x' : '\n';
        __atomic_store_n(&ring->out_prod, prod + room, __ATOMIC_RELEASE);
        kick(info->console.domU.evtchn);
        if (!room)
            sched_op(SCHEDOP_yield, NULL);
    }
}

#define MAPS 480
static struct gnttab_map_grant_ref maps[MAPS];
static struct gnttab_unmap_grant_ref unmaps[MAPS];
static struct gnttab_copy copies[MAPS];

static void grants(void)
{
    char *from = page_alloc(), *to = page_alloc();
    domid_t me = (domid_t)own_domid();
    u32 ref = grant_mfn(mfn_of(from), 0, me);
    for (;;) {
        for (uint i = 0; i < MAPS; i++)
            maps[i] = (struct gnttab_map_grant_ref){
                .host_addr = SCRATCH_VA + (16 + i) * PAGE, .flags = GNTMAP_host_map, .ref = ref, .dom = me};
        RC(grant_op(GNTTABOP_map_grant_ref, maps, MAPS), 0, "maps");
        for (uint i = 0; i < MAPS; i++) {
            RC(maps[i].status, GNTST_okay, "a map");
            unmaps[i] = (struct gnttab_unmap_grant_ref){.host_addr = maps[i].host_addr, .handle = maps[i].handle};
            copies[i] = (struct gnttab_copy){.source.u.ref = ref, .source.domid = me, .dest.u.gmfn = mfn_of(to),
                                             .dest.domid = DOMID_SELF, .len = PAGE, .flags = GNTCOPY_source_gref};
        }
        RC(grant_op(GNTTABOP_unmap_grant_ref, unmaps, MAPS), 0, "unmaps");
        RC(grant_op(GNTTABOP_copy, copies, MAPS), 0, "copies");
        RC(copies[MAPS - 1].status, GNTST_okay, "a copy");
    }
}

static void events(void)
{
    struct evtchn_alloc_unbound listens = {.dom = DOMID_SELF, .remote_dom = DOMID_SELF};
    RC(evtchn_op(EVTCHNOP_alloc_unbound, &listens), 0, "alloc_unbound");
    struct evtchn_bind_interdomain ends = {.remote_dom = DOMID_SELF, .remote_port = listens.port};
    RC(evtchn_op(EVTCHNOP_bind_interdomain, &ends), 0, "bind_interdomain");
    enable_events();
    for (;;)
        kick(ends.local_port);
}

void guest(void)
{
    store = (void *)(VIRT_BASE + mfn_to_pfn(info->store_mfn) * PAGE);
    memset(value, 'v', sizeof(value));
    if (is("deep"))
        deep();
    if (is("wide"))
        wide();
    if (is("commits"))
        commits();
    if (is("watches") || is("unread"))
        watches(is("unread"));
    if (is("values"))
        values();
    if (is("console"))
        console();
    if (is("grants"))
        grants();
    if (is("events"))
        events();
    while (is("console_io"))
        console_write("a line of the log that says nothing at all\n", 43);
}
