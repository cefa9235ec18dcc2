/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk used through a front end of our own, connected three times: by the nodes of one page, of two and of four. Direct
 * requests, as many at once as the ring takes, and indirect ones; flushed, read back, and compared. Sector n of the first
 * 3 * 1024 holds the words n * 128 + i, xor 0x5a5a5a5a; the test reads them in the image.
 */
#include "front.h"

#define DISK 51712 /* xvda */
#define SPAN 1024  /* sectors that each connection writes */
#define BUFFERS 32
#define SALT 0x5a5a5a5au

static struct blkfront disk;
static char *data[BUFFERS];
static u32 refs[BUFFERS], table_ref;
static struct blkif_request_segment *table;

static void fill(uint buffer, u64 sector)
{
    u32 *word = (u32 *)data[buffer];
    for (uint i = 0; i < PAGE / 4; i++)
        word[i] = ((u32)sector * 128 + i) ^ SALT;
}

static uint wrong(uint buffer, u64 sector)
{
    uint found = 0;
    const volatile u32 *word = (u32 *)data[buffer];
    for (uint i = 0; i < PAGE / 4; i++)
        found += word[i] != (((u32)sector * 128 + i) ^ SALT);
    return found;
}

/* One page per request, `count` requests at once; ids say which. */
static void direct(uint op, u64 sector, uint count)
{
    blkif_response_t response;
    u32 answered = 0;
    for (uint i = 0; i < count; i++)
        blk_fill(blk_next(&disk), op, 0x123400000000ull + i, sector + 8 * i, &refs[i], 1);
    blk_push(&disk);
    for (uint i = 0; i < count; i++) {
        CHECK(blk_reap(&disk, &response), "only %u of %u requests are answered", i, count);
        EQ(response.status, 0, "status");
        EQ(response.operation, op, "operation");
        EQ(response.id >> 32, 0x1234, "id");
        answered |= 1u << (response.id & 31);
    }
    EQ(answered, count == 32 ? 0xffffffff : (1u << count) - 1, "each is answered once");
}

static void indirect(uint op, u64 sector)
{
    u64 id = 0;
    for (uint i = 0; i < BUFFERS; i++)
        table[i] = (struct blkif_request_segment){.gref = refs[i], .first_sect = 0, .last_sect = 7};
    blk_fill_indirect(blk_next(&disk), op, 99, sector, table_ref, BUFFERS);
    EQ(blk_one(&disk, &id), 0, "an indirect request");
    EQ(id, 99, "its id");
}

static void use(int order, u64 at)
{
    blk_connect(&disk, DISK, order);
    EQ(disk.sectors, 8192, "sectors");
    /* the first half by direct requests, the second by indirect ones */
    for (u64 sector = at; sector < at + SPAN; sector += 8 * BUFFERS) {
        for (uint i = 0; i < BUFFERS; i++)
            fill(i, sector + 8 * i);
        if (sector < at + SPAN / 2)
            direct(BLKIF_OP_WRITE, sector, BUFFERS);
        else
            indirect(BLKIF_OP_WRITE, sector);
    }
    blk_fill(blk_next(&disk), BLKIF_OP_FLUSH_DISKCACHE, 1, 0, NULL, 0);
    EQ(blk_one(&disk, NULL), 0, "a flush");
    for (u64 sector = at; sector < at + SPAN; sector += 8 * BUFFERS) {
        for (uint i = 0; i < BUFFERS; i++)
            memset(data[i], 0xee, PAGE);
        if (sector < at + SPAN / 2) /* the other way round than written */
            indirect(BLKIF_OP_READ, sector);
        else
            direct(BLKIF_OP_READ, sector, BUFFERS);
        for (uint i = 0; i < BUFFERS; i++)
            EQ(wrong(i, sector + 8 * i), 0, "words that are not what was written");
    }
    /* a part of a page, and nothing else of it */
    memset(data[0], 0xee, PAGE);
    blkif_request_t *request = blk_next(&disk);
    blk_fill(request, BLKIF_OP_READ, 5, at + 3, refs, 1);
    request->seg[0].first_sect = 2, request->seg[0].last_sect = 4;
    EQ(blk_one(&disk, NULL), 0, "three sectors");
    EQ(((u32 *)data[0])[2 * 128 - 1], 0xeeeeeeee, "before them");
    EQ(((u32 *)data[0])[2 * 128], ((u32)(at + 3) * 128) ^ SALT, "the first");
    EQ(((u32 *)data[0])[5 * 128 - 1], ((u32)(at + 6) * 128 - 1) ^ SALT, "the last");
    EQ(((u32 *)data[0])[5 * 128], 0xeeeeeeee, "behind them");
    blk_disconnect(&disk);
    for (uint i = 0; i < BUFFERS; i++)
        CHECK(!in_use(refs[i]), "buffer %u is still mapped", i);
}

static void store(void)
{
    char value[32];
    u32 tx = xs_begin();
    uint before;
    CHECK(tx != 0, "no transaction");
    CHECK(xs_watch("data", "token") == 0, "watch: %s", xs_error);
    before = xs_events();
    RC(xs_write_bytes(tx, "data/one", "1", 1), 0, "a write in a transaction");
    CHECK(xs_read("data/one", value, sizeof(value)) < 0 && same_text(xs_error, "ENOENT"), "it is seen outside: %s", xs_error);
    RC(xs_end(tx, 1), 0, "its end");
    EQ(xs_read("data/one", value, sizeof(value)), 1, "what it wrote");
    for (u64 end = now() + PATIENCE; xs_events() == before && now() < end;)
        xs_number("data/one");
    CHECK(xs_events() > before, "no event of the watch");
}

void guest(void)
{
    disable_events();
    store();
    for (uint i = 0; i < BUFFERS; i++) {
        data[i] = page_alloc();
        refs[i] = grant(data[i], WRITABLE);
    }
    table = page_alloc();
    table_ref = grant(table, READ_ONLY);
    use(-1, 0);
    use(1, SPAN);
    use(2, 2 * SPAN);
}
