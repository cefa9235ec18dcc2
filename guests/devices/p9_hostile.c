/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Share 1, which is writable, is asked for what cannot be: each field of 9P2000.L's messages, of the ring and of the nodes is
 * wrong once. What one message has wrong is answered with an error, what the ring has wrong ends it; the messages behind it
 * and the front end of share 0 go on. The last line says how often the ring was ended. The share is left as it was.
 */
#include "front.h"

#define ROOT 1u
#define OPEN 2u    /* "old", to be read and written */
#define LISTED 3u  /* the root, open */
#define NOBODYS 0x7fffff /* a grant reference that there is not */
#define EPROTO 71
#define EMSGSIZE 90
#define ELOOP 40
#define ENAMETOOLONG 36

static struct p9front p9, good;
static u8_t bytes[P9_SIZE];
static char long_name[300];
static u32 read_only, foreign;
static uint ended;

static void hello(struct p9front *front)
{
    EQ(p9_ask(front, TWALK, "wwh", ROOT, 99, 0), 0, "a good walk");
    EQ(p9_ask(front, TGETATTR, "wd", 99, 0x7ffull), 0, "good attributes");
    EQ(p9_ask(front, TCLUNK, "w", 99), 0, "a good clunk");
}

static void attach(struct p9front *front, uint devid)
{
    p9_connect(front, devid);
    EQ(p9_ask(front, TATTACH, "wwssw", ROOT, NOFID, "root", "", 0), 0, "the root");
    hello(front);
}

static void is_ended(const char *what)
{
    CHECK(wait_back(&p9.front, XenbusStateClosing), "%s: not ended but %d", what, back_state(&p9.front));
    ended++;
    p9_disconnect(&p9);
    hello(&good);
}

/* One request, which is answered with this error, and a good one. */
#define FAILS(error, type, ...)                                                                                        \
    do {                                                                                                               \
        EQ(p9_ask(&p9, type, __VA_ARGS__), error, "what " #type " " #__VA_ARGS__ " is answered with");                 \
        hello(&p9);                                                                                                    \
    } while (0)

/* All types with bodies that are too short, and that are all ones. */
static void types(void)
{
    static const uint lengths[] = {0, 1, 4, 6, 12, 24, 60};
    memset(bytes, 0xff, sizeof(bytes));
    for (uint type = 0; type < 256; type++)
        for (uint i = 0; i < ARRAY_SIZE(lengths); i++)
            if (type != TFLUSH)
                CHECK(p9_ask(&p9, type, "D", bytes, lengths[i]) > 0, "type %u of %u bytes is done", type, lengths[i]);
    hello(&p9);
    EQ(p9_ask(&p9, TFLUSH, "h", 12345), 0, "a flush of nothing");
}

static void fids(void)
{
    static const uint unknown[] = {12345, NOFID};
    for (uint i = 0; i < 2; i++) {
        const uint fid = unknown[i];
        FAILS(EBADF, TWALK, "wwh", fid, 98, 0);
        FAILS(EBADF, TLOPEN, "ww", fid, 0);
        FAILS(EBADF, TREAD, "wdw", fid, 0ull, 10);
        FAILS(EBADF, TWRITE, "wdwD", fid, 0ull, 10, bytes, 10);
        FAILS(EBADF, TREADDIR, "wdw", fid, 0ull, 1000);
        FAILS(EBADF, TFSYNC, "ww", fid, 0);
        FAILS(EBADF, TUNLINKAT, "wsw", fid, "old", 0);
        FAILS(EBADF, TLCREATE, "wswww", fid, "new", 2, 0644, 0);
        FAILS(EBADF, TCLUNK, "w", fid);
    }
    FAILS(EINVAL, TATTACH, "wwssw", NOFID, NOFID, "", "", 0);
    FAILS(EINVAL, TATTACH, "wwssw", ROOT, NOFID, "", "", 0); /* in use */
    FAILS(EINVAL, TATTACH, "wwssw", 97, 5, "", "", 0);
    FAILS(ENOENT, TATTACH, "wwssw", 97, NOFID, "", "/etc", 0);
    FAILS(EINVAL, TWALK, "wwh", ROOT, NOFID, 0);
    FAILS(EINVAL, TWALK, "wwh", ROOT, OPEN, 0);
    FAILS(EINVAL, TLOPEN, "ww", OPEN, 0);
    /* a tag that is in use: each is answered */
    u8_t twice[22] = {11, 0, 0, 0, TCLUNK, 7, 7, 55};
    memcpy(twice + 11, twice, 11);
    p9_send(&p9, twice, 22);
    for (uint i = 0; i < 2; i++) {
        EQ((uint)p9_answer(&p9), RLERROR, "an answer to one of two");
        EQ(p9.reply[5] | p9.reply[6] << 8, 0x0707, "its tag");
    }
    /* a message that comes in two parts */
    p9_send(&p9, twice, 5);
    p9_send(&p9, twice + 5, 6);
    EQ((uint)p9_answer(&p9), RLERROR, "an answer to two parts");
    hello(&p9);
}

static void names(void)
{
    static const char *const bad[] = {"../secret", "/etc/passwd", "a/b", "/", "", "old/"};
    for (uint i = 0; i < ARRAY_SIZE(bad); i++) {
        FAILS(ENOENT, TWALK, "wwhs", ROOT, 98, 1, bad[i]);
        FAILS(ENOENT, TLCREATE, "wswww", ROOT, bad[i], 2, 0644, 0);
        FAILS(ENOENT, TMKDIR, "wsww", ROOT, bad[i], 0755, 0);
        FAILS(ENOENT, TUNLINKAT, "wsw", ROOT, bad[i], 0);
        FAILS(ENOENT, TRENAMEAT, "wsws", ROOT, "old", ROOT, bad[i]);
        FAILS(ENOENT, TRENAMEAT, "wsws", ROOT, bad[i], ROOT, "new");
        FAILS(ENOENT, TLINK, "wws", ROOT, OPEN, bad[i]);
        FAILS(ENOENT, TSYMLINK, "wssw", ROOT, bad[i], "old", 0);
    }
    FAILS(ENOENT, TWALK, "wwhhD", ROOT, 98, 1, 5, "old\0x", 5);
    FAILS(ENOENT, TUNLINKAT, "whDw", ROOT, 4, "old", 4, 0);
    FAILS(EEXIST, TLCREATE, "wswww", ROOT, "..", 2, 0644, 0);
    FAILS(EEXIST, TMKDIR, "wsww", ROOT, "..", 0755, 0);
    FAILS(EINVAL, TUNLINKAT, "wsw", ROOT, "..", 0x200);
    FAILS(EINVAL, TUNLINKAT, "wsw", ROOT, ".", 0x200);
    FAILS(EPERM, TMKNOD, "wswwww", ROOT, "null", 0020666, 1, 3, 0);
    FAILS(ENAMETOOLONG, TWALK, "wwhs", ROOT, 98, 1, long_name);
    FAILS(ENAMETOOLONG, TLCREATE, "wswww", ROOT, long_name, 2, 0644, 0);
    /* what is above the root is the root */
    EQ(p9_ask(&p9, TWALK, "wwhsss", ROOT, 98, 3, "..", "..", "secret"), 0, "a walk up");
    EQ(p9_take(&p9, 2), 2, "its steps");
    FAILS(EBADF, TCLUNK, "w", 98);
    /* a link that leads out is not followed */
    EQ(p9_ask(&p9, TSYMLINK, "wssw", ROOT, "link", "../secret", 0), 0, "a link");
    EQ(p9_ask(&p9, TWALK, "wwhs", ROOT, 98, 1, "link"), 0, "a walk to it");
    FAILS(ELOOP, TLOPEN, "ww", 98, 2);
    EQ(p9_ask(&p9, TCLUNK, "w", 98), 0, "a clunk");
    EQ(p9_ask(&p9, TUNLINKAT, "wsw", ROOT, "link", 0), 0, "its removal");
}

static void lengths(void)
{
    FAILS(EINVAL, TWALK, "wwhsssssssssssssssss", ROOT, 98, 17, ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".",
          ".", ".", ".", ".", ".");
    FAILS(EINVAL, TWALK, "wwh", ROOT, 98, 0xffff);
    FAILS(EINVAL, TWALK, "wwhss", ROOT, 98, 3, ".", ".");
    FAILS(EINVAL, TWALK, "wwhhD", ROOT, 98, 1, 4, "old", 3); /* one byte behind the end */
    FAILS(EINVAL, TWALK, "wwhhD", ROOT, 98, 1, 0xffff, "old", 3);
    FAILS(EINVAL, TATTACH, "wwh", 98, NOFID, 0xffff);
    FAILS(EINVAL, TVERSION, "wh", 8192, 0xffff); /* and the session goes on */
    FAILS(EINVAL, TWRITE, "wdwD", OPEN, 0ull, 11, bytes, 10);
    FAILS(EINVAL, TWRITE, "wdwD", OPEN, 0ull, 0xffffffff, bytes, 10);
    FAILS(EINVAL, TREADDIR, "wdw", LISTED, 0ull, 0);
    FAILS(EINVAL, TREADDIR, "wdw", LISTED, 0ull, 1);
    FAILS(EINVAL, TREADDIR, "wdw", LISTED, ~0ull, 1000); /* right behind what ended early */
    EQ(p9_ask(&p9, TREAD, "wdw", OPEN, 0ull, 0xffffffff), 0, "a read of all there is");
    EQ(p9_take(&p9, 4), 3, "bytes of it");
    EQ(p9_ask(&p9, TREADDIR, "wdw", LISTED, 0ull, 0xffffffff), 0, "all entries");
    FAILS(EINVAL, TREAD, "wdw", OPEN, ~0ull, 10);
    FAILS(EINVAL, TREAD, "wdw", OPEN, 1ull << 63, 10);
    FAILS(EINVAL, TWRITE, "wdwD", OPEN, ~0ull, 10, bytes, 10);
    FAILS(EINVAL, TWRITE, "wdwD", OPEN, ~0ull - 9, 10, bytes, 10);
    CHECK(p9_ask(&p9, TWRITE, "wdwD", OPEN, ~0ull >> 1, 10, bytes, 10) > 0, "a write across 2^63");
    for (uint i = 0; i < 2; i++) {
        FAILS(EINVAL, TREADDIR, "wdw", LISTED, ~0ull, 1000);
        FAILS(EINVAL, TREADDIR, "wdw", LISTED, 1ull << 63, 1000);
    }
    CHECK(p9_ask(&p9, TSETATTR, "wwwwwddddd", OPEN, 8, 0, 0, 0, ~0ull, 0ull, 0ull, 0ull, 0ull) > 0, "a length of 2^64");
    hello(&p9);
}

static void messages(void)
{
    attach(&p9, 1);
    EQ(p9_ask(&p9, TWALK, "wwhs", ROOT, OPEN, 1, "old"), 0, "a walk");
    EQ(p9_ask(&p9, TLOPEN, "ww", OPEN, 2), 0, "an open");
    EQ(p9_ask(&p9, TWALK, "wwh", ROOT, LISTED, 0), 0, "a walk");
    EQ(p9_ask(&p9, TLOPEN, "ww", LISTED, 0), 0, "an open directory");
    types();
    fids();
    names();
    lengths();
    p9_disconnect(&p9);
    p9_join(&p9, 1); /* before there is a version */
    EQ(p9_ask(&p9, TATTACH, "wwssw", ROOT, NOFID, "", "", 0), EPROTO, "no version");
    EQ(p9_ask(&p9, TVERSION, "ws", 4095, "9P2000.L"), EMSGSIZE, "small messages");
    EQ(p9_ask(&p9, TVERSION, "ws", 0, "9P2000.L"), EMSGSIZE, "no messages");
    EQ(p9_ask(&p9, TVERSION, "ws", 8192, "9P2000.u"), 0, "another version");
    EQ(p9_take(&p9, 4), 8192, "bytes of a message");
    EQ(p9_take(&p9, 2), 7, "letters of \"unknown\"");
    EQ(p9_ask(&p9, TATTACH, "wwssw", ROOT, NOFID, "", "", 0), EPROTO, "still no version");
    p9_disconnect(&p9);
}

static void rings_that_are_ended(void)
{
    static const u32 sizes[] = {0, 4, 6, P9_SIZE + 1, 0x7fffffff, 0xffffffff};
    static const u32 odd[] = {P9_SIZE + 1, 0x7fffffff, 0x80000000, 0xffffffff};
    u8_t clunk[11] = {11, 0, 0, 0, TCLUNK, 1, 0, 55};
    for (uint i = 0; i < ARRAY_SIZE(sizes); i++) {
        attach(&p9, 1);
        u8_t header[P9_HEADER] = {0, 0, 0, 0, TCLUNK, 1, 0};
        memcpy(header, &sizes[i], 4);
        p9_send(&p9, header, sizeof(header));
        is_ended("a size");
    }
    for (uint i = 0; i < ARRAY_SIZE(odd); i++) {
        attach(&p9, 1);
        p9.intf->out_prod += odd[i];
        send_port(p9.front.port);
        is_ended("an index of requests");
        attach(&p9, 1);
        p9.intf->in_cons -= odd[i];
        p9_send(&p9, clunk, sizeof(clunk));
        is_ended("an index of answers");
    }
    attach(&p9, 1);
    memset(p9.pages, 0xff, PAGE << P9_ORDER);
    p9.intf->out_prod += P9_SIZE;
    send_port(p9.front.port);
    is_ended("a ring full of ones");
}

static void nodes_that_are_refused(void)
{
    static const char *const values[][2] = {
        {"version", ""}, {"version", "0"}, {"version", "2"}, {"version", "1 "}, {"version", "x"},
        {"num-rings", "0"}, {"num-rings", "5"}, {"num-rings", "4294967295"}, {"num-rings", "18446744073709551617"},
        {"num-rings", "2"}, {"num-rings", "-1"},
        {"ring-ref0", ""}, {"ring-ref0", "x"}, {"ring-ref0", "8388607"}, {"ring-ref0", "4294967296"}, {"ring-ref0", long_name},
        {"event-channel-0", "0"}, {"event-channel-0", "4000"}, {"event-channel-0", "99999999"}, {"event-channel-0", "\xff"},
    };
    for (uint i = 0; i < ARRAY_SIZE(values) + 8; i++) {
        p9_ring(&p9, 1);
        p9_nodes(&p9);
        if (i < ARRAY_SIZE(values))
            node(&p9.front, values[i][0], values[i][1]);
        else
            switch (i - ARRAY_SIZE(values)) { /* pages that are no ring */
            case 0: node_number(&p9.front, "ring-ref0", read_only); break;
            case 1: node_number(&p9.front, "ring-ref0", foreign); break;
            case 2: p9.intf->ring_order = 10; break;
            case 3: p9.intf->ring_order = 0xffffffff; break;
            case 4: p9.intf->ref[3] = NOBODYS; break;
            case 5: p9.intf->ref[0] = read_only; break;
            case 6: p9.intf->out_prod = P9_SIZE + 1; break;
            default: p9.intf->in_cons = 1;
            }
        node_state(&p9.front, XenbusStateInitialised);
        is_ended(i < ARRAY_SIZE(values) ? values[i][0] : "a page that is no ring");
    }
}

static void states_out_of_order(void)
{
    static const char *const states[] = {"4", "2", "7", "8", "0", "99", "-1", "", "four", "5", "4", "1", "6", "3", "6"};
    attach(&p9, 1);
    for (uint i = 0; i < ARRAY_SIZE(states); i++)
        node(&p9.front, "state", states[i]);
    node_state(&p9.front, XenbusStateClosing);
    CHECK(wait_back(&p9.front, XenbusStateClosing), "not Closing but %d", back_state(&p9.front));
    p9_disconnect(&p9);
    attach(&p9, 1); /* and a ring that is pulled away while it is in use */
    revoke_in_use(p9.intf_ref);
    revoke_in_use(p9.refs[0]);
    xs_remove(p9.front.path);
}

void guest(void)
{
    disable_events();
    memset(long_name, '1', sizeof(long_name) - 1);
    read_only = grant(page_alloc(), READ_ONLY);
    foreign = grant_mfn(mfn_of(page_alloc()), WRITABLE, 7);
    attach(&good, 0);
    messages();
    rings_that_are_ended();
    nodes_that_are_refused();
    states_out_of_order();
    hello(&good);
    print("ended %u times", ended);
}
