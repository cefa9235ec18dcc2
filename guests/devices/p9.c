/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared directories used through a front end of our own: share 0 is read, share 1 is changed. The first has dir/file of
 * LENGTH bytes, byte n is n * 7 + n / 256; the second is left with "made", the same bytes, and without "old".
 */
#include "front.h"

#define LENGTH 20000u
#define PART (P9_SIZE - 64) /* bytes that go at once */

static struct p9front p9;
static u8_t data[PART];

static u8_t byte_at(uint n) { return (u8_t)(n * 7 + n / 256); }

static void read_it(uint fid)
{
    uint wrong = 0, at = 0;
    while (at < LENGTH) {
        EQ(p9_ask(&p9, TREAD, "wdw", fid, (u64)at, PART), 0, "a read");
        uint got = (uint)p9_take(&p9, 4);
        CHECK(got > 0 && got <= PART && got == p9.length - p9.at, "%u bytes at %u", got, at);
        if (!got)
            return;
        for (uint i = 0; i < got; i++)
            wrong += (u8_t)p9_take(&p9, 1) != byte_at(at + i);
        at += got;
    }
    EQ(wrong, 0, "bytes that are not the file's");
    EQ(at, LENGTH, "the file's bytes");
    EQ(p9_ask(&p9, TREAD, "wdw", fid, (u64)LENGTH, PART), 0, "a read at the end");
    EQ(p9_take(&p9, 4), 0, "bytes behind the end");
}

static int has_entry(uint fid, const char *name)
{
    int found = 0;
    u64 position = 0;
    for (;;) {
        EQ(p9_ask(&p9, TREADDIR, "wdw", fid, position, 256), 0, "entries");
        if (!p9_take(&p9, 4))
            return found;
        while (p9.at < p9.length) {
            p9_take(&p9, 1), p9_take(&p9, 4), p9_take(&p9, 8); /* the qid */
            position = p9_take(&p9, 8);
            p9_take(&p9, 1);
            uint length = (uint)p9_take(&p9, 2);
            found += length == length_of(name) && memcmp(p9.reply + p9.at, name, length) == 0;
            p9.at += length;
        }
    }
}

static void attach(uint devid)
{
    p9_connect(&p9, devid);
    EQ(p9_ask(&p9, TATTACH, "wwssw", 1, NOFID, "root", "/", 0), 0, "the root");
    EQ(p9_take(&p9, 1), 0x80, "its kind");
}

static void read_only_share(void)
{
    attach(0);
    EQ(p9_ask(&p9, TWALK, "wwhss", 1, 2, 2, "dir", "file"), 0, "a walk");
    EQ(p9_take(&p9, 2), 2, "its steps");
    EQ(p9_ask(&p9, TREAD, "wdw", 2, 0ull, 10), EBADF, "a read of what is not open");
    EQ(p9_ask(&p9, TLOPEN, "ww", 2, 0), 0, "an open");
    read_it(2);
    EQ(p9_ask(&p9, TCLUNK, "w", 2), 0, "a clunk");
    EQ(p9_ask(&p9, TCLUNK, "w", 2), EBADF, "another one");
    EQ(p9_ask(&p9, TWALK, "wwhs", 1, 2, 1, "no"), ENOENT, "a walk to nothing");
    EQ(p9_ask(&p9, TUNLINKAT, "wsw", 1, "dir", 0x200), EROFS, "a removal");
    EQ(p9_ask(&p9, TWALK, "wwh", 1, 2, 0), 0, "a walk to where it is");
    EQ(p9_ask(&p9, TLCREATE, "wswww", 2, "made", 1, 0644, 0), EROFS, "a new file");
    EQ(p9_ask(&p9, TLOPEN, "ww", 2, 0), 0, "an open directory");
    EQ((uint)has_entry(2, "dir"), 1, "entries of a name");
    p9_disconnect(&p9);
}

static void writable_share(void)
{
    attach(1);
    EQ(p9_ask(&p9, TWALK, "wwh", 1, 2, 0), 0, "a walk to where it is");
    EQ(p9_ask(&p9, TLCREATE, "wswww", 2, "made", 2, 0640, 0), 0, "a new file");
    for (uint at = 0; at < LENGTH;) {
        uint count = LENGTH - at < PART ? LENGTH - at : PART;
        for (uint i = 0; i < count; i++)
            data[i] = byte_at(at + i);
        EQ(p9_ask(&p9, TWRITE, "wdwD", 2, (u64)at, count, data, count), 0, "a write");
        EQ(p9_take(&p9, 4), count, "bytes written");
        at += count;
    }
    EQ(p9_ask(&p9, TFSYNC, "ww", 2, 0), 0, "a sync");
    read_it(2);
    EQ(p9_ask(&p9, TCLUNK, "w", 2), 0, "a clunk");
    EQ(p9_ask(&p9, TWALK, "wwh", 1, 3, 0), 0, "a walk to where it is");
    EQ(p9_ask(&p9, TLOPEN, "ww", 3, 0), 0, "an open directory");
    EQ((uint)has_entry(3, "made"), 1, "entries of the new file");
    EQ((uint)has_entry(3, "old"), 1, "entries of the old file");
    EQ(p9_ask(&p9, TUNLINKAT, "wsw", 1, "old", 0), 0, "a removal");
    EQ((uint)has_entry(3, "old"), 0, "entries of the old file");
    p9_disconnect(&p9);
}

void guest(void)
{
    disable_events();
    read_only_share();
    writable_share();
    read_only_share(); /* connected once more, in the same pages */
}
