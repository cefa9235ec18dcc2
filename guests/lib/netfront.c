/* A front end for networks (xen/io/netif.h): one queue, one event channel, frames of one page. SPDX-License-Identifier: Apache-2.0 */
#include "front.h"

static uint hex(char c) { return c <= '9' ? (uint)(c - '0') : (uint)((c | 32) - 'a' + 10); }

void net_offer(struct netfront *net, uint buffer)
{
    netif_rx_request_t *request = RING_GET_REQUEST(&net->rx, net->rx.req_prod_pvt);
    net->rx.req_prod_pvt++;
    request->id = (u16)buffer;
    request->pad = 0;
    request->gref = net->refs[buffer];
}

static void push_offers(struct netfront *net)
{
    int notify;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&net->rx, notify);
    if (notify)
        send_port(net->front.port);
}

void net_ring(struct netfront *net, uint devid)
{
    char path[160], mac[32] = "";
    front_open(&net->front, "vif", devid);
    text(path, sizeof(path), "%s/mac", net->front.path);
    CHECK(xs_read(path, mac, sizeof(mac)) == 17, "no MAC: %s", mac);
    for (uint i = 0; i < 6; i++)
        net->mac[i] = (u8_t)(hex(mac[3 * i]) << 4 | hex(mac[3 * i + 1]));
    if (!net->tx_page) {
        net->tx_page = page_alloc();
        net->rx_page = page_alloc();
        net->out = page_alloc();
        for (uint i = 0; i < NET_BUFFERS; i++)
            net->buffers[i] = page_alloc();
    }
    memset(net->tx_page, 0, PAGE);
    memset(net->rx_page, 0, PAGE);
    SHARED_RING_INIT((netif_tx_sring_t *)net->tx_page);
    FRONT_RING_INIT(&net->tx, (netif_tx_sring_t *)net->tx_page, PAGE);
    SHARED_RING_INIT((netif_rx_sring_t *)net->rx_page);
    FRONT_RING_INIT(&net->rx, (netif_rx_sring_t *)net->rx_page, PAGE);
    net->tx_ref = grant(net->tx_page, WRITABLE);
    net->rx_ref = grant(net->rx_page, WRITABLE);
    net->out_ref = grant(net->out, READ_ONLY);
    for (uint i = 0; i < NET_BUFFERS; i++) {
        net->refs[i] = grant(net->buffers[i], WRITABLE);
        net_offer(net, i);
    }
    net->front.port = new_port();
}

void net_nodes(struct netfront *net)
{
    node_number(&net->front, "tx-ring-ref", net->tx_ref);
    node_number(&net->front, "rx-ring-ref", net->rx_ref);
    node_number(&net->front, "event-channel", net->front.port);
    node_number(&net->front, "request-rx-copy", 1);
    node_number(&net->front, "feature-rx-notify", 1);
}

void net_connect(struct netfront *net, uint devid)
{
    net_ring(net, devid);
    net_nodes(net);
    node_state(&net->front, XenbusStateConnected);
    CHECK(wait_back(&net->front, XenbusStateConnected), "vif %u: not connected but %d", devid, back_state(&net->front));
    push_offers(net);
}

void net_disconnect(struct netfront *net)
{
    front_close(&net->front);
    CHECK(revoke(net->tx_ref) && revoke(net->rx_ref) && revoke(net->out_ref), "pages of the rings are still mapped");
    for (uint i = 0; i < NET_BUFFERS; i++)
        CHECK(revoke(net->refs[i]), "buffer %u is still in use", i);
}

netif_tx_request_t *net_next(struct netfront *net)
{
    netif_tx_request_t *request = RING_GET_REQUEST(&net->tx, net->tx.req_prod_pvt);
    net->tx.req_prod_pvt++;
    memset(request, 0, sizeof(*request));
    return request;
}

void net_push(struct netfront *net)
{
    int notify;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&net->tx, notify);
    if (notify)
        send_port(net->front.port);
}

int net_answer(struct netfront *net, netif_tx_response_t *response)
{
    for (u64 end = now() + PATIENCE; now() < end;) {
        int more;
        RING_FINAL_CHECK_FOR_RESPONSES(&net->tx, more);
        if (more) {
            *response = *RING_GET_RESPONSE(&net->tx, net->tx.rsp_cons);
            net->tx.rsp_cons++;
            return 1;
        }
        poll_port(net->front.port, SECONDS / 50);
    }
    return 0;
}

int net_send(struct netfront *net, const void *frame, uint length)
{
    netif_tx_response_t response = {.status = 1};
    memcpy(net->out, frame, length);
    netif_tx_request_t *request = net_next(net);
    request->gref = net->out_ref;
    request->size = (u16)length;
    request->id = 77;
    net_push(net);
    CHECK(net_answer(net, &response) && response.id == 77, "what was sent is not answered");
    return response.status;
}

int net_receive(struct netfront *net, void *frame, u64 ns)
{
    for (u64 end = now() + ns; now() < end;) {
        int more;
        RING_FINAL_CHECK_FOR_RESPONSES(&net->rx, more);
        if (!more) {
            poll_port(net->front.port, SECONDS / 50);
            continue;
        }
        netif_rx_response_t response = *RING_GET_RESPONSE(&net->rx, net->rx.rsp_cons);
        net->rx.rsp_cons++;
        if (response.status > 0)
            memcpy(frame, net->buffers[response.id % NET_BUFFERS] + response.offset, (size_t)response.status);
        net_offer(net, response.id % NET_BUFFERS);
        push_offers(net);
        if (response.status > 0)
            return response.status;
    }
    return 0;
}
