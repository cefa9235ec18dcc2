/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A front end that breaks the block protocol in each of its fields. A bad request is answered with an error, and good ones
 * around it as if it was not there; a ring or a node that cannot be disconnects the device, which can be connected again.
 * Good writes go to the first 64 * 8 sectors of a disk of 8192, in sector order word n is n xor SALT; the others stay zero.
 */
#include "front.h"

#define DISK 51712 /* xvda */
#define SECTORS 8192ull
#define SALT 0x3c3c3c3cu
#define BAD_PLACE 4096ull /* where bad writes would write */

static struct blkfront disk;
static char *data, *other;
static struct blkif_request_segment *table;
static u32 data_ref, other_ref, read_only_ref, foreign_ref, table_ref;
static uint rounds;
/* Grants 0 and 1 are those of the console and of xenstore. */
static const u32 bad_refs[] = {2, 7, 1000, 1024, 4096, 65535, 65536, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};

static blkif_request_t *request(uint op, u64 sector, u32 ref)
{
    blkif_request_t *made = blk_next(&disk);
    blk_fill(made, op, 0xbad0000000000000ull + ++rounds, sector, &ref, 1);
    return made;
}

/* What is written is read again, whatever came before. */
static void good(const char *after)
{
    uint place = rounds++ % 64;
    u32 *word = (u32 *)data;
    u64 id = 0;
    for (uint i = 0; i < PAGE / 4; i++)
        word[i] = (place * (PAGE / 4) + i) ^ SALT;
    blk_fill(blk_next(&disk), BLKIF_OP_WRITE, 1, place * 8, &data_ref, 1);
    EQ(blk_one(&disk, &id), 0, after);
    EQ(id, 1, after);
    memset(other, 0xee, PAGE);
    blk_fill(blk_next(&disk), BLKIF_OP_READ, 2, place * 8, &other_ref, 1);
    EQ(blk_one(&disk, &id), 0, after);
    EQ(id, 2, after);
    for (uint i = 0; i < PAGE / 4; i++)
        if (((u32 *)other)[i] != word[i]) {
            CHECK(0, "after %s: word %u is %x", after, i, ((u32 *)other)[i]);
            break;
        }
}

/* The last request is pushed between good ones, and is answered with an error. */
static void refused(const char *what)
{
    u64 id = 0, mine = 0xbad0000000000000ull + rounds;
    int status = blk_one(&disk, &id);
    CHECK(status == BLKIF_RSP_ERROR || status == BLKIF_RSP_EOPNOTSUPP, "%s: status %d", what, status);
    CHECK(id == mine, "%s: the answer is to another request", what);
    good(what);
}

static void bad_operations(void)
{
    for (uint op = 0; op < 256; op++) {
        if (op <= BLKIF_OP_FLUSH_DISKCACHE || op == BLKIF_OP_DISCARD || op == BLKIF_OP_INDIRECT)
            continue;
        request(op, BAD_PLACE, data_ref);
        refused("an operation that is none");
    }
    for (uint op = BLKIF_OP_READ; op <= BLKIF_OP_FLUSH_DISKCACHE; op++)
        for (uint count = 0; count < 256; count += count < 16 ? 1 : 17) {
            if (count && count <= BLKIF_MAX_SEGMENTS_PER_REQUEST)
                continue; /* some may be none */
            if (!count && op > BLKIF_OP_WRITE)
                continue;
            request(op, BAD_PLACE, data_ref)->nr_segments = (u8_t)count;
            refused("a number of segments");
        }
}

static void bad_segments(void)
{
    for (uint op = BLKIF_OP_READ; op <= BLKIF_OP_WRITE; op++) {
        for (uint first = 0; first < 256; first += first < 10 ? 1 : 41)
            for (uint last = 0; last < 256; last += last < 10 ? 1 : 41) {
                if (first <= last && last < 8)
                    continue;
                blkif_request_t *made = request(op, BAD_PLACE, data_ref);
                made->seg[0].first_sect = (u8_t)first, made->seg[0].last_sect = (u8_t)last;
                refused("sectors of a segment");
            }
        for (uint i = 0; i < ARRAY_SIZE(bad_refs); i++) {
            request(op, BAD_PLACE, bad_refs[i]);
            refused("a grant reference");
            /* a good segment before it is not written */
            blkif_request_t *made = request(op, BAD_PLACE, data_ref);
            made->nr_segments = 2;
            made->seg[1] = (struct blkif_request_segment){.gref = bad_refs[i], .last_sect = 7};
            refused("a second grant reference");
        }
        request(op, BAD_PLACE, foreign_ref);
        refused("a grant to another domain");
    }
    request(BLKIF_OP_READ, 0, read_only_ref);
    refused("a read into a page that is granted for reading");
}

static void bad_places(void)
{
    static const u64 places[] = {SECTORS - 7, SECTORS - 1, SECTORS, SECTORS + 1, 1ull << 31, 1ull << 32, 1ull << 54, 1ull << 55,
                                 (1ull << 55) - 1, 1ull << 63, ~0ull - 7, ~0ull - 6, ~0ull};
    for (uint i = 0; i < ARRAY_SIZE(places); i++) {
        for (uint op = BLKIF_OP_READ; op <= BLKIF_OP_FLUSH_DISKCACHE; op++) {
            request(op, places[i], data_ref);
            refused("a place beyond the end");
        }
        for (uint secure = 0; secure < 2; secure++) {
            blkif_request_discard_t *discard = (void *)request(BLKIF_OP_DISCARD, places[i], 0);
            discard->flag = (u8_t)secure, discard->nr_sectors = 8;
            refused("a discard beyond the end");
            discard = (void *)request(BLKIF_OP_DISCARD, 8, 0);
            discard->flag = (u8_t)secure, discard->nr_sectors = places[i];
            if (places[i] > SECTORS - 8)
                refused("a discard of too much");
        }
    }
}

static void indirect(uint op, u64 sector, u32 table_of_segments, uint count)
{
    blkif_request_t *made = request(op, sector, 0);
    u64 id = made->id;
    memset(made, 0, sizeof(*made));
    blk_fill_indirect(made, op, id, sector, table_of_segments, count);
}

static void bad_indirect(void)
{
    static const u16 counts[] = {0, 257, 512, 513, 4096, 32768, 65535};
    for (uint i = 0; i < PAGE / sizeof(*table); i++)
        table[i] = (struct blkif_request_segment){.gref = data_ref, .first_sect = 0, .last_sect = 7};
    for (uint op = 0; op < 256; op++) {
        if (op <= BLKIF_OP_WRITE)
            continue;
        indirect(op, BAD_PLACE, table_ref, 1);
        refused("an operation that cannot be indirect");
    }
    for (uint op = BLKIF_OP_READ; op <= BLKIF_OP_WRITE; op++) {
        for (uint i = 0; i < ARRAY_SIZE(counts); i++) {
            indirect(op, BAD_PLACE, table_ref, counts[i]);
            refused("a number of indirect segments");
        }
        for (uint i = 0; i < ARRAY_SIZE(bad_refs); i++) {
            indirect(op, BAD_PLACE, bad_refs[i], 8);
            refused("a table of segments that is not granted");
            table[200].gref = bad_refs[i];
            indirect(op, BAD_PLACE, table_ref, 256);
            refused("a grant in a table of segments");
            table[200].gref = data_ref;
        }
        for (uint last = 8; last < 256; last += 31) {
            table[255].last_sect = (u8_t)last;
            indirect(op, BAD_PLACE, table_ref, 256);
            refused("sectors in a table of segments");
            table[255].last_sect = 7;
        }
        indirect(op, SECTORS - 255 * 8, table_ref, 256);
        refused("an indirect request beyond the end");
    }
    /* the table is read once: that the request overwrites it with what it reads is its own affair */
    table[0].gref = table_ref;
    indirect(BLKIF_OP_READ, BAD_PLACE, table_ref, 1);
    CHECK(blk_one(&disk, NULL) <= 0, "no answer");
    good("a table that is read into");
}

static int has_failed(const char *what)
{
    char path[160], error[80] = "";
    CHECK(wait_back(&disk.front, XenbusStateClosing), "%s: the back end is in state %d", what, back_state(&disk.front));
    text(path, sizeof(path), "%s/error", disk.front.back);
    return xs_read(path, error, sizeof(error)) > 0;
}

static void connect(int order)
{
    blk_connect(&disk, DISK, order);
    EQ(disk.sectors, SECTORS, "sectors");
}

static void bad_indices(void)
{
    static const u32 wrong[] = {33, 64, 1000, 0x7fffffff, 0x80000000, 0xffffffff};
    for (uint i = 0; i < ARRAY_SIZE(wrong); i++) {
        connect(-1);
        good("a connection");
        disk.ring.sring->req_prod = disk.ring.req_prod_pvt + wrong[i];
        send_port(disk.front.port);
        CHECK(has_failed("an index of requests"), "an index of requests: no error is said");
        blk_disconnect(&disk);
    }
    connect(-1);
    for (uint i = 0; i < ARRAY_SIZE(wrong); i++) { /* the front end's own, and those that the back end only writes */
        disk.ring.sring->rsp_event = wrong[i];
        disk.ring.sring->req_event = wrong[i];
        send_port(disk.front.port);
        good("an index of events");
    }
    for (uint i = 0; i < 2000; i++)
        send_port(disk.front.port);
    good("events for nothing");
    blk_disconnect(&disk);
    /* What was there when the front end went is not answered, and not in the way of the next one. */
    connect(1);
    for (uint i = 0; i < 40; i++)
        request(BLKIF_OP_READ, 0, data_ref);
    blk_push(&disk);
    blk_disconnect(&disk);
}

struct wrong_node {
    const char *name, *value;
};

static void bad_nodes(void)
{
    static const struct wrong_node wrong[] = {
        {"ring-ref", ""}, {"ring-ref", "x"}, {"ring-ref", "-1"}, {"ring-ref", "2"}, {"ring-ref", "1000"},
        {"ring-ref", "4294967295"}, {"ring-ref", "4294967296"}, {"ring-ref", "99999999999999999999999999999999"},
        {"ring-ref", " 8"}, {"ring-ref", "8 "}, {"ring-ref", "0x8"}, {"event-channel", ""}, {"event-channel", "0"},
        {"event-channel", "1"}, {"event-channel", "2"}, {"event-channel", "1023"}, {"event-channel", "1024"},
        {"event-channel", "131072"}, {"event-channel", "4294967295"}, {"event-channel", "4294967296"},
        {"event-channel", "x"}, {"protocol", "arm-abi"}, {"protocol", ""}, {"protocol", "x86_64-abi "},
        {"ring-page-order", "5"}, {"ring-page-order", "x"}, {"ring-page-order", "4294967295"}, {"ring-page-order", "1"},
        {"multi-queue-num-queues", "0"}, {"multi-queue-num-queues", "5"}, {"multi-queue-num-queues", "4294967295"},
        {"multi-queue-num-queues", "2"}, {"multi-queue-num-queues", ""}, {"feature-persistent", "x"},
        {"feature-persistent", "99999999999"},
    };
    static const struct wrong_node harmless[] = {
        {"feature-persistent", "1"}, {"feature-persistent", "4294967295"}, {"feature-large-sector-size", "x"},
        {"multi-queue-num-queues", "1"}, {"sectors", "x"}, {"backend-id", "77"}, {"virtual-device", "x"},
    };
    char path[160], was[32];
    for (uint i = 0; i < ARRAY_SIZE(wrong); i++) {
        blk_ring(&disk, DISK, -1);
        blk_nodes(&disk);
        node(&disk.front, wrong[i].name, wrong[i].value);
        node_state(&disk.front, XenbusStateInitialised);
        CHECK(has_failed(wrong[i].name), "%s=%s: no error is said", wrong[i].name, wrong[i].value);
        blk_disconnect(&disk);
        text(path, sizeof(path), "%s/%s", disk.front.path, wrong[i].name);
        xs_remove(path);
    }
    for (uint i = 0; i < ARRAY_SIZE(harmless); i++) {
        text(path, sizeof(path), "%s/%s", disk.front.path, harmless[i].name);
        int had = xs_read(path, was, sizeof(was)) >= 0;
        xs_write(path, harmless[i].value);
        connect(-1);
        good(harmless[i].name);
        blk_disconnect(&disk);
        if (had)
            xs_write(path, was);
        else
            xs_remove(path);
    }
    /* a ring that its own front end does not let be written to */
    blk_ring(&disk, DISK, -1);
    u32 mine = disk.refs[0], read_only = grant(disk.pages, READ_ONLY);
    disk.refs[0] = read_only;
    blk_nodes(&disk);
    node_state(&disk.front, XenbusStateInitialised);
    CHECK(has_failed("a read-only ring"), "a read-only ring: no error is said");
    blk_disconnect(&disk);
    CHECK(revoke(mine), "the ring is still mapped");
}

static void bad_states(void)
{
    static const char *const states[] = {"0", "7", "8", "9", "99", "4294967295", "x", "", "-1", "99999999999999999999"};
    front_open(&disk.front, "vbd", DISK); /* Connected, without a ring */
    node_state(&disk.front, XenbusStateConnected);
    CHECK(has_failed("no nodes"), "no nodes: no error is said");
    front_close(&disk.front);
    connect(2);
    for (uint i = 0; i < ARRAY_SIZE(states); i++) {
        node(&disk.front, "state", states[i]);
        good("a state that is none");
    }
    node_state(&disk.front, XenbusStateInitialising);
    good("Initialising again");
    node_state(&disk.front, XenbusStateInitialised);
    good("Initialised again");
    node_state(&disk.front, XenbusStateConnected);
    blk_disconnect(&disk);
    /* Closed without Closing, and the event channel gone before */
    connect(-1);
    struct evtchn_close close = {.port = disk.front.port};
    evtchn_op(EVTCHNOP_close, &close);
    disk.front.port = 0;
    node_state(&disk.front, XenbusStateClosed);
    CHECK(wait_back(&disk.front, XenbusStateClosed), "Closed at once: %d", back_state(&disk.front));
    CHECK(revoke(disk.refs[0]), "the ring is still mapped");
}

void guest(void)
{
    disable_events();
    data = page_alloc(), other = page_alloc();
    table = page_alloc();
    data_ref = grant(data, WRITABLE), other_ref = grant(other, WRITABLE);
    read_only_ref = grant(other, READ_ONLY);
    foreign_ref = grant_mfn(mfn_of(data), WRITABLE, 5);
    table_ref = grant(table, WRITABLE);
    connect(-1);
    bad_operations();
    bad_segments();
    bad_places();
    bad_indirect();
    for (uint i = 0; i < 64; i++)
        good("all of it");
    blk_disconnect(&disk);
    bad_indices();
    bad_nodes();
    bad_states();
    CHECK(revoke(data_ref) && revoke(other_ref) && revoke(table_ref), "pages of data are still mapped");
}
