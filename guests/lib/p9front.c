/* A front end for shared directories (xen/io/9pfs.h), one request of 9P2000.L at a time. SPDX-License-Identifier: Apache-2.0 */
#include "front.h"
#include <stdarg.h>

void p9_ring(struct p9front *p9, uint devid)
{
    front_open(&p9->front, "9pfs", devid);
    if (!p9->pages) { /* pages that follow each other; kept for the next connection */
        p9->intf = page_alloc();
        p9->pages = page_alloc();
        for (uint i = 1; i < 1 << P9_ORDER; i++)
            CHECK(page_alloc() == (void *)(p9->pages + i * PAGE), "the pool's pages do not follow each other");
    }
    memset(p9->intf, 0, PAGE);
    p9->intf->ring_order = P9_ORDER;
    for (uint i = 0; i < 1 << P9_ORDER; i++)
        p9->intf->ref[i] = p9->refs[i] = grant(p9->pages + i * PAGE, WRITABLE);
    p9->intf_ref = grant(p9->intf, WRITABLE);
    p9->front.port = new_port();
}

void p9_nodes(struct p9front *p9)
{
    node_number(&p9->front, "version", 1);
    node_number(&p9->front, "num-rings", 1);
    node_number(&p9->front, "ring-ref0", p9->intf_ref);
    node_number(&p9->front, "event-channel-0", p9->front.port);
}

void p9_join(struct p9front *p9, uint devid)
{
    p9_ring(p9, devid);
    p9_nodes(p9);
    node_state(&p9->front, XenbusStateInitialised);
    CHECK(wait_back(&p9->front, XenbusStateConnected), "9pfs %u: not connected but %d", devid, back_state(&p9->front));
    node_state(&p9->front, XenbusStateConnected);
    p9->tag = 0;
}

void p9_connect(struct p9front *p9, uint devid)
{
    p9_join(p9, devid);
    p9->tag = NOTAG;
    EQ(p9_ask(p9, TVERSION, "ws", P9_SIZE, "9P2000.L"), 0, "the version");
    EQ(p9_take(p9, 4), P9_SIZE, "bytes of a message");
    EQ(p9_take(p9, 2), 8, "letters of the version");
    CHECK(memcmp(p9->reply + p9->at, "9P2000.L", 8) == 0, "another version");
    p9->tag = 0;
}

void p9_disconnect(struct p9front *p9)
{
    front_close(&p9->front);
    for (uint i = 0; i < 1 << P9_ORDER; i++)
        CHECK(revoke(p9->refs[i]), "page %u of the ring is still mapped", i);
    CHECK(revoke(p9->intf_ref), "the page of the indices is still mapped");
}

void p9_send(struct p9front *p9, const void *bytes, uint length)
{
    struct xen_9pfs_data_intf *intf = p9->intf;
    unsigned char *out = (unsigned char *)p9->pages + P9_SIZE;
    RING_IDX at = xen_9pfs_mask(intf->out_prod, P9_SIZE), cons = __atomic_load_n(&intf->out_cons, __ATOMIC_ACQUIRE);
    CHECK(xen_9pfs_queued(intf->out_prod, cons, P9_SIZE) + length <= P9_SIZE, "no room for %u bytes", length);
    xen_9pfs_write_packet(out, bytes, length, &at, xen_9pfs_mask(cons, P9_SIZE), P9_SIZE);
    __atomic_store_n(&intf->out_prod, intf->out_prod + length, __ATOMIC_RELEASE);
    send_port(p9->front.port);
}

int p9_answer(struct p9front *p9)
{
    struct xen_9pfs_data_intf *intf = p9->intf;
    for (u64 end = now() + PATIENCE; now() < end;) {
        RING_IDX prod = __atomic_load_n(&intf->in_prod, __ATOMIC_ACQUIRE), waiting = prod - intf->in_cons;
        if (waiting >= P9_HEADER && waiting <= P9_SIZE) {
            RING_IDX masked = xen_9pfs_mask(prod, P9_SIZE), at = xen_9pfs_mask(intf->in_cons, P9_SIZE), seen = at;
            const unsigned char *in = (unsigned char *)p9->pages;
            xen_9pfs_read_packet(p9->reply, in, 4, masked, &at, P9_SIZE);
            p9->at = 0, p9->length = P9_SIZE;
            p9->length = (uint)p9_take(p9, 4);
            CHECK(p9->length >= P9_HEADER && p9->length <= waiting, "an answer of %u bytes of %u", p9->length, waiting);
            if (p9->length < P9_HEADER || p9->length > waiting)
                return -1;
            xen_9pfs_read_packet(p9->reply, in, p9->length, masked, &seen, P9_SIZE);
            __atomic_store_n(&intf->in_cons, intf->in_cons + p9->length, __ATOMIC_RELEASE);
            p9->at = P9_HEADER;
            return p9->reply[4];
        }
        poll_port(p9->front.port, SECONDS / 20);
    }
    return -1;
}

u64 p9_take(struct p9front *p9, uint bytes)
{
    u64 value = 0;
    CHECK(p9->at + bytes <= p9->length, "the answer ends after %u bytes", p9->length);
    if (p9->at + bytes <= p9->length)
        memcpy(&value, p9->reply + p9->at, bytes);
    p9->at += bytes;
    return value;
}

static u8_t message[P9_SIZE];

static uint add(uint at, const void *bytes, uint length)
{
    CHECK(at + length <= P9_SIZE, "a request of %u bytes", at + length);
    if (at + length <= P9_SIZE)
        memcpy(message + at, bytes, length);
    return at + length <= P9_SIZE ? at + length : at;
}

int p9_ask(struct p9front *p9, uint type, const char *format, ...)
{
    uint at = P9_HEADER;
    va_list rest;
    va_start(rest, format);
    for (; *format; format++) {
        u64 number = 0;
        const char *bytes = (const char *)&number;
        uint length = 0;
        switch (*format) {
        case 'b': number = va_arg(rest, uint), length = 1; break;
        case 'h': number = va_arg(rest, uint), length = 2; break;
        case 'w': number = va_arg(rest, uint), length = 4; break;
        case 'd': number = va_arg(rest, u64), length = 8; break;
        case 'D': bytes = va_arg(rest, const char *), length = va_arg(rest, uint); break;
        default:
            bytes = va_arg(rest, const char *), length = (uint)length_of(bytes);
            at = add(at, &length, 2);
        }
        at = add(at, bytes, length);
    }
    va_end(rest);
    u16 tag = (u16)p9->tag;
    memcpy(message, &at, 4), memcpy(message + 4, &type, 1), memcpy(message + 5, &tag, 2);
    p9_send(p9, message, at);
    int answer = p9_answer(p9);
    if (answer < 0) {
        CHECK(0, "request %u is not answered", type);
        return -1;
    }
    EQ(p9->reply[5] | p9->reply[6] << 8, tag, "the tag of an answer");
    if (p9->tag != NOTAG)
        p9->tag = (p9->tag + 1) % 1000;
    if (answer == RLERROR)
        return (int)p9_take(p9, 4);
    EQ((uint)answer, type + 1, "the type of an answer");
    return 0;
}
