/* A front end for disks (xen/io/blkif.h). SPDX-License-Identifier: Apache-2.0 */
#include "front.h"

void blk_ring(struct blkfront *disk, uint devid, int order)
{
    uint pages = order < 0 ? 1 : 1u << order;
    front_open(&disk->front, "vbd", devid);
    disk->order = order;
    if (!disk->pages) { /* pages that follow each other; kept for the next connection */
        disk->pages = page_alloc();
        for (uint i = 1; i < BLK_PAGES; i++)
            CHECK(page_alloc() == (void *)(disk->pages + i * PAGE), "the pool's pages do not follow each other");
    }
    memset(disk->pages, 0, pages * PAGE);
    blkif_sring_t *shared_ring = (blkif_sring_t *)disk->pages;
    SHARED_RING_INIT(shared_ring);
    FRONT_RING_INIT(&disk->ring, shared_ring, pages * PAGE);
    for (uint i = 0; i < pages; i++)
        disk->refs[i] = grant(disk->pages + i * PAGE, WRITABLE);
    disk->front.port = new_port();
}

void blk_nodes(struct blkfront *disk)
{
    char name[32];
    struct front *front = &disk->front;
    if (disk->order < 0)
        node_number(front, "ring-ref", disk->refs[0]);
    else {
        node_number(front, "ring-page-order", (ulong)disk->order);
        for (uint i = 0; i < 1u << disk->order; i++) {
            text(name, sizeof(name), "ring-ref%u", i);
            node_number(front, name, disk->refs[i]);
        }
    }
    node_number(front, "event-channel", front->port);
    node(front, "protocol", BITS == 64 ? XEN_IO_PROTO_ABI_X86_64 : XEN_IO_PROTO_ABI_X86_32);
}

void blk_connect(struct blkfront *disk, uint devid, int order)
{
    char path[160];
    blk_ring(disk, devid, order);
    blk_nodes(disk);
    node_state(&disk->front, XenbusStateInitialised);
    CHECK(wait_back(&disk->front, XenbusStateConnected), "vbd %u: not connected but %d", devid, back_state(&disk->front));
    node_state(&disk->front, XenbusStateConnected);
    text(path, sizeof(path), "%s/sectors", disk->front.back);
    disk->sectors = (u64)xs_number(path);
}

void blk_disconnect(struct blkfront *disk)
{
    char path[160];
    front_close(&disk->front);
    for (uint i = 0; i < (disk->order < 0 ? 1u : 1u << disk->order); i++)
        CHECK(revoke(disk->refs[i]), "page %u of the ring is still mapped", i);
    text(path, sizeof(path), "%s/ring-page-order", disk->front.path);
    xs_remove(path);
}

blkif_request_t *blk_next(struct blkfront *disk)
{
    blkif_request_t *request = RING_GET_REQUEST(&disk->ring, disk->ring.req_prod_pvt);
    disk->ring.req_prod_pvt++;
    memset(request, 0, sizeof(*request));
    return request;
}

void blk_push(struct blkfront *disk)
{
    int notify;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&disk->ring, notify);
    if (notify)
        send_port(disk->front.port);
}

int blk_reap(struct blkfront *disk, blkif_response_t *response)
{
    for (u64 end = now() + PATIENCE; now() < end;) {
        int more;
        RING_FINAL_CHECK_FOR_RESPONSES(&disk->ring, more);
        if (more) {
            *response = *RING_GET_RESPONSE(&disk->ring, disk->ring.rsp_cons);
            disk->ring.rsp_cons++;
            return 1;
        }
        poll_port(disk->front.port, SECONDS / 20);
    }
    return 0;
}

int blk_one(struct blkfront *disk, u64 *id)
{
    blkif_response_t response;
    blk_push(disk);
    if (!blk_reap(disk, &response))
        return 1;
    if (id)
        *id = response.id;
    return response.status;
}

void blk_fill(blkif_request_t *request, uint op, u64 id, u64 sector, const u32 *refs, uint pages)
{
    request->operation = (u8_t)op;
    request->nr_segments = (u8_t)pages;
    request->id = id;
    request->sector_number = sector;
    for (uint i = 0; i < pages; i++)
        request->seg[i] = (struct blkif_request_segment){.gref = refs[i], .first_sect = 0, .last_sect = 7};
}

void blk_fill_indirect(blkif_request_t *request, uint op, u64 id, u64 sector, u32 table_ref, uint pages)
{
    blkif_request_indirect_t *indirect = (void *)request;
    indirect->operation = BLKIF_OP_INDIRECT;
    indirect->indirect_op = (u8_t)op;
    indirect->nr_segments = (u16)pages;
    indirect->id = id;
    indirect->sector_number = sector;
    indirect->indirect_grefs[0] = table_ref;
}
