/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interface 0 breaks the protocol (xen/io/netif.h) in each of its fields, and interface 1 sends it frames, which must go on all
 * the time. What one frame has wrong is answered with an error, what the rings have wrong ends them, and the next ones are as
 * good as the first. The last line says how often the rings were ended.
 */
#include "front.h"

#define BAD 0
#define GOOD 1
#define NOBODYS 0x7fffff /* a grant reference that there is not */
#define FULL 256         /* entries of a ring */

static struct netfront net, good;
static u8_t frame[PAGE];
static u32 read_only, foreign;
static uint ended;

static void connect(void)
{
    net_connect(&net, BAD);
    CHECK(net.tx.sring->rsp_prod == 0, "a new ring has answers");
}

static void let_go(void)
{
    front_close(&net.front);
    CHECK(revoke(net.tx_ref) && revoke(net.rx_ref) && revoke(net.out_ref), "pages of the rings are still mapped");
    for (uint i = 0; i < NET_BUFFERS; i++)
        CHECK(revoke(net.refs[i]), "buffer %u is still in use", i);
}

/* The back end has ended the rings, and others work. */
static void is_ended(const char *what)
{
    CHECK(wait_back(&net.front, XenbusStateClosing), "%s: not ended but %d", what, back_state(&net.front));
    ended++;
    let_go();
}

static void hello(void)
{
    memset(frame, 0, 60);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, good.mac, 6);
    frame[12] = 0x88, frame[13] = 0xb6; /* for local experiments */
    EQ(net_send(&good, frame, 60), 0, "what the other interface's frame is answered with");
}

static netif_tx_request_t *tx(u32 gref, uint offset, uint flags, uint size)
{
    netif_tx_request_t *request = net_next(&net);
    request->gref = gref;
    request->offset = (u16)offset;
    request->flags = (u16)flags;
    request->size = (u16)size;
    request->id = (u16)(net.tx.req_prod_pvt * 3);
    return request;
}

static void extra(uint type, uint flags, uint size, uint gso)
{
    netif_extra_info_t *info = (netif_extra_info_t *)net_next(&net);
    memset(info, 0, sizeof(*info));
    info->type = (u8_t)type;
    info->flags = (u8_t)flags;
    info->u.gso.size = (u16)size;
    info->u.gso.type = (u8_t)gso;
}

/* All slots that were put are answered, and the first with an error. */
static void is_refused(uint slots, const char *what)
{
    netif_tx_response_t response = {.status = 1};
    net_push(&net);
    for (uint i = 0; i < slots; i++) {
        CHECK(net_answer(&net, &response), "%s: slot %u is not answered", what, i);
        if (i == 0)
            CHECK(response.status == NETIF_RSP_ERROR, "%s: answered with %d", what, response.status);
    }
}

static void frames_that_are_refused(void)
{
    const uint more = NETTXF_more_data;
    connect();
    tx(net.out_ref, 0, 0, 0), is_refused(1, "no bytes");
    tx(net.out_ref, 0, 0, 13), is_refused(1, "less than a header");
    tx(NOBODYS, 0, 0, 60), is_refused(1, "no grant");
    tx(0xffffffff, 0, 0, 60), is_refused(1, "the last grant");
    tx(foreign, 0, 0, 60), is_refused(1, "another domain's grant");
    tx(net.out_ref, 0, more, 60), tx(net.out_ref, 0, 0, 61), is_refused(2, "pieces that are more than the whole");
    tx(net.out_ref, 0, more, 60), tx(NOBODYS, 0, 0, 20), is_refused(2, "a second piece without a grant");
    for (uint i = 0; i < 19; i++)
        tx(net.out_ref, 0, i < 18 ? more : 0, i ? 10 : 1900);
    is_refused(19, "too many slots");
    tx(net.out_ref, 0, NETTXF_csum_blank, 60), net_push(&net); /* no checksum in it: sent to nobody */
    netif_tx_response_t response;
    CHECK(net_answer(&net, &response), "a frame without a checksum is not answered");
    hello();
    let_go();
}

static void rings_that_are_ended(void)
{
    const uint more = NETTXF_more_data, has_extra = NETTXF_extra_info;
    struct {
        const char *what;
        uint offset, flags, size, type, extra_flags, gso_size, gso_type;
    } cases[] = {
        {"across a page", 4090, 0, 60, 0, 0, 0, 0},
        {"all ones", 65535, 0, 65535, 0, 0, 0, 0},
        {"no end", 0, more, 60, 0, 0, 0, 0},
        {"all flags and no end", 0, 0xffff, 60, 0, 0, 0, 0},
        {"no extra", 0, has_extra, 60, 0, 0, 0, 0},
        {"an extra of type 0", 0, has_extra, 60, 256, 0, 0, 0},
        {"an extra of type 5", 0, has_extra, 60, 5, 0, 0, 0},
        {"an extra of type 255", 0, has_extra, 60, 255, 0, 0, 0},
        {"extras without end", 0, has_extra, 60, XEN_NETIF_EXTRA_TYPE_HASH, XEN_NETIF_EXTRA_FLAG_MORE, 0, 0},
        {"segments of no bytes", 0, has_extra, 60, XEN_NETIF_EXTRA_TYPE_GSO, 0, 0, XEN_NETIF_GSO_TYPE_TCPV4},
        {"segments of UDP", 0, has_extra, 60, XEN_NETIF_EXTRA_TYPE_GSO, 0, 1000, 3},
        {"segments of nothing", 0, has_extra, 60, XEN_NETIF_EXTRA_TYPE_GSO, 0, 1000, 0},
    };
    for (uint i = 0; i < ARRAY_SIZE(cases); i++) {
        connect();
        tx(net.out_ref, cases[i].offset, cases[i].flags, cases[i].size);
        if (cases[i].type)
            extra(cases[i].type, cases[i].extra_flags, cases[i].gso_size, cases[i].gso_type);
        net_push(&net);
        is_ended(cases[i].what);
    }
    connect();
    for (uint i = 0; i < 40; i++)
        tx(net.out_ref, 0, more, 30);
    net_push(&net);
    is_ended("40 slots");
    static const u32 odd[] = {FULL + 1, 1000, 0x7fffffff, 0x80000000, 0xffffffff};
    for (uint i = 0; i < ARRAY_SIZE(odd); i++) {
        connect();
        net.tx.sring->req_prod = odd[i];
        send_port(net.front.port);
        is_ended("an index of what is sent");
        connect();
        net.rx.sring->req_prod = net.rx.sring->rsp_prod + odd[i];
        hello();
        is_ended("an index of what is received");
    }
}

/* Asks to be connected, with offers of these pages only. */
static void offer(const u32 *grefs, uint many)
{
    net_ring(&net, BAD);
    for (uint i = 0; i < many; i++) {
        netif_rx_request_t *request = RING_GET_REQUEST(&net.rx, i);
        request->id = (u16)(0xff00 + i), request->pad = 0xffff, request->gref = grefs[i];
    }
    net.rx.req_prod_pvt = many;
    net.rx.sring->req_prod = many;
    net_nodes(&net);
    node_state(&net.front, XenbusStateConnected);
}

static void pages_that_cannot_be_written(void)
{
    const u32 grefs[] = {NOBODYS, 0xffffffff, 0x80000000, read_only, foreign};
    offer(grefs, ARRAY_SIZE(grefs));
    CHECK(wait_back(&net.front, XenbusStateConnected), "not connected but %d", back_state(&net.front));
    for (uint i = 0; i < ARRAY_SIZE(grefs); i++) {
        hello();
        for (u64 end = now() + PATIENCE; now() < end && !RING_HAS_UNCONSUMED_RESPONSES(&net.rx);)
            poll_port(net.front.port, SECONDS / 50);
        CHECK(RING_HAS_UNCONSUMED_RESPONSES(&net.rx), "page %u: nothing came", i);
        netif_rx_response_t response = *RING_GET_RESPONSE(&net.rx, net.rx.rsp_cons);
        net.rx.rsp_cons++;
        EQ(response.id, 0xff00 + i, "the number of a page");
        EQ((uint)response.status, (uint)NETIF_RSP_ERROR, "what comes of a page that cannot be written");
    }
    let_go();
    /* A frame is written over the indices of the ring of what is sent: all ones. A neighbour's frame does it as well, and may
     * come before this guest sees that it is connected: that state is not waited for. */
    offer(&net.tx_ref, 1);
    hello();
    for (u64 end = now() + PATIENCE; now() < end && net.tx.sring->req_prod != 0xffffffff;)
        poll_port(net.front.port, SECONDS / 50);
    send_port(net.front.port);
    is_ended("a ring as a page for frames");
}

/* Nodes with one of them changed. */
static void nodes_that_are_refused(void)
{
    static char long_value[2000];
    memset(long_value, '1', sizeof(long_value) - 1);
    static const char *const values[][2] = {
        {"tx-ring-ref", "x"}, {"tx-ring-ref", ""}, {"tx-ring-ref", "8388607"}, {"tx-ring-ref", "4294967296"},
        {"rx-ring-ref", "-1"}, {"rx-ring-ref", long_value},
        {"event-channel", "0"}, {"event-channel", "1e3"}, {"event-channel", "99999999"}, {"event-channel", "\xff\xfe"},
        {"event-channel-tx", "3.5"}, {"event-channel-tx", "4000"},
        {"multi-queue-num-queues", "0"}, {"multi-queue-num-queues", "5"}, {"multi-queue-num-queues", "4294967295"},
        {"multi-queue-num-queues", "many"}, {"multi-queue-num-queues", "2"},
        {"request-rx-copy", "0"}, {"request-rx-copy", "yes"},
        {"feature-sg", "on"}, {"feature-gso-tcpv4", "18446744073709551616"}, {"feature-gso-tcpv6", " 1"},
        {"feature-no-csum-offload", "0x1"}, {"feature-rx-notify", "1 "},
    };
    for (uint i = 0; i < ARRAY_SIZE(values); i++) {
        net_ring(&net, BAD);
        net_nodes(&net);
        node(&net.front, values[i][0], values[i][1]);
        node_state(&net.front, XenbusStateConnected);
        is_ended(values[i][0]);
        char path[160];
        text(path, sizeof(path), "%s/%s", net.front.path, values[i][0]);
        xs_remove(path);
    }
    /* Pages that are no ring, or not to be written; one page for both rings is what it is. */
    for (uint i = 0; i < 3; i++) {
        net_ring(&net, BAD);
        net_nodes(&net);
        if (i == 0)
            net.tx.sring->req_prod = 5000;
        else
            node_number(&net.front, i == 1 ? "tx-ring-ref" : "rx-ring-ref", i == 1 ? read_only : foreign);
        node_state(&net.front, XenbusStateConnected);
        is_ended("a page that is no ring");
    }
    net_ring(&net, BAD);
    net_nodes(&net);
    node_number(&net.front, "rx-ring-ref", net.tx_ref);
    node_state(&net.front, XenbusStateConnected);
    CHECK(wait_back(&net.front, XenbusStateConnected), "one page for both: %d", back_state(&net.front));
    let_go();
}

static void states_out_of_order(void)
{
    static const char *const states[] = {"4", "2", "7", "8", "0", "99", "-1", "", "four", "5", "4", "1", "6", "3", "6", "4294967300"};
    connect();
    for (uint round = 0; round < 3; round++)
        for (uint i = 0; i < ARRAY_SIZE(states); i++)
            node(&net.front, "state", states[i]);
    node_state(&net.front, XenbusStateClosing);
    CHECK(wait_back(&net.front, XenbusStateClosing), "not Closing but %d", back_state(&net.front));
    let_go();
    /* Rings that are pulled away while they are in use. */
    connect();
    revoke_in_use(net.tx_ref);
    revoke_in_use(net.rx_ref);
    xs_remove(net.front.path);
    hello();
}

void guest(void)
{
    disable_events();
    net_connect(&good, GOOD);
    read_only = grant(page_alloc(), READ_ONLY);
    foreign = grant_mfn(mfn_of(page_alloc()), WRITABLE, 7);
    frames_that_are_refused();
    rings_that_are_ended();
    pages_that_cannot_be_written();
    nodes_that_are_refused();
    states_out_of_order();
    hello();
    print("ended %u times", ended);
}
