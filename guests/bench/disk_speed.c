/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A front end that keeps a disk as busy as its back end can be: benchmarks/disks.py measures how fast that is. Requests of one
 * kind are kept in flight, to the same pages, whose content nobody looks at; so what bounds them is the back end, the ring and
 * its events. Each part waits for a line of "go" on the console, and says when it begins and ends.
 */
#include "front.h"

#define DISK 51712 /* xvda */
#define PAGES 256  /* of an indirect request */

static struct blkfront disk;
static char buffers[PAGES][PAGE] ALIGNED(PAGE);
static u32 refs[PAGES], table_ref;
static struct blkif_request_segment *table;

struct part {
    const char *name;
    uint op, pages, depth, random;
    u64 bytes; /* at most: no more than `sectors` of a sequence */
};

static u64 dice(void)
{
    static u64 state = 0x9e3779b97f4a7c15ull;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

static void fill(const struct part *part, u64 number, u64 places)
{
    u64 place = part->random ? dice() % places : number % places;
    blkif_request_t *request = blk_next(&disk);
    if (part->pages > BLKIF_MAX_SEGMENTS_PER_REQUEST)
        blk_fill_indirect(request, part->op, number, place * part->pages * 8, table_ref, part->pages);
    else
        blk_fill(request, part->op, number, place * part->pages * 8, refs + number % 32 * part->pages % PAGES, part->pages);
}

/* Waits for a character on the console. */
static void wait_go(void)
{
    struct xencons_interface *console = (void *)(VIRT_BASE + mfn_to_pfn(info->console.domU.mfn) * PAGE);
    while (__atomic_load_n(&console->in_prod, __ATOMIC_ACQUIRE) == console->in_cons)
        poll_port(info->console.domU.evtchn, SECONDS / 10);
    console->in_cons++;
}

static void run(const struct part *part)
{
    u64 total = part->bytes / (part->pages * PAGE), issued = 0, done = 0, failed = 0;
    u64 places = disk.sectors / (part->pages * 8);
    wait_go();
    print("begin %s", part->name);
    while (done < total) {
        int more;
        for (; issued < total && issued - done < part->depth; issued++)
            fill(part, issued, places);
        blk_push(&disk);
        while (disk.ring.rsp_cons != __atomic_load_n(&disk.ring.sring->rsp_prod, __ATOMIC_ACQUIRE)) {
            failed += RING_GET_RESPONSE(&disk.ring, disk.ring.rsp_cons)->status != 0;
            disk.ring.rsp_cons++, done++;
        }
        if (issued - done < part->depth && issued < total)
            continue;
        RING_FINAL_CHECK_FOR_RESPONSES(&disk.ring, more);
        if (!more && done < total)
            poll_port(disk.front.port, SECONDS);
    }
    print("end %s %lu %lu", part->name, (ulong)total, (ulong)failed);
}

void guest(void)
{
    static const struct part parts[] = {
        {"sequential write, 1 MiB", BLKIF_OP_WRITE, 256, 4, 0, 1024ull << 20},
        {"sequential read, 1 MiB", BLKIF_OP_READ, 256, 4, 0, 1024ull << 20},
        {"sequential read, 32 KiB", BLKIF_OP_READ, 8, 32, 0, 1024ull << 20},
        {"random read, 4 KiB", BLKIF_OP_READ, 1, 32, 1, 200ull << 20},
        {"random write, 4 KiB", BLKIF_OP_WRITE, 1, 32, 1, 200ull << 20},
    };
    disable_events();
    table = page_alloc();
    for (uint i = 0; i < PAGES; i++) {
        refs[i] = grant(buffers[i], WRITABLE);
        table[i] = (struct blkif_request_segment){.gref = refs[i], .first_sect = 0, .last_sect = 7};
    }
    table_ref = grant(table, WRITABLE); /* a grant that persists is mapped for both */
    blk_ring(&disk, DISK, -1);
    blk_nodes(&disk);
    node(&disk.front, "feature-persistent", "1");
    node_state(&disk.front, XenbusStateInitialised);
    CHECK(wait_back(&disk.front, XenbusStateConnected), "not connected but %d", back_state(&disk.front));
    node_state(&disk.front, XenbusStateConnected);
    char path[160];
    text(path, sizeof(path), "%s/sectors", disk.front.back);
    disk.sectors = (u64)xs_number(path);
    for (uint i = 0; i < ARRAY_SIZE(parts); i++)
        run(&parts[i]);
    blk_disconnect(&disk);
}
