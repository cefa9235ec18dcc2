/* SPDX-License-Identifier: Apache-2.0 */
/* What front ends need: xenstore, grants, and the two kinds of front end (guests/devices). One vCPU, events masked. */
#ifndef FRONT_H
#define FRONT_H
#include "guest.h"
#define xen_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define xen_rmb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define xen_wmb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#include <xen/io/9pfs.h>
#include <xen/io/blkif.h>
#include <xen/io/netif.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

#define SECONDS 1000000000ull
#define PATIENCE (60 * SECONDS) /* of the loaded machines that tests run on */

/* --- xenstore (xenbus.c): paths may be relative to the domain's own directory. */
int xs_read(const char *path, char *value, size_t room);        /* length, or -1 */
int xs_write(const char *path, const char *value);              /* 0, or -1 */
int xs_write_bytes(u32 tx, const char *path, const char *value, size_t length);
int xs_remove(const char *path);
u32 xs_begin(void);                                             /* a transaction */
int xs_end(u32 tx, int commit);                                 /* 0; -1: do it again */
int xs_watch(const char *path, const char *token);
uint xs_events(void);                                           /* of watches, so far */
extern const char *xs_error;                                    /* of the last call */
long xs_number(const char *path);                               /* a decimal number, or -1 */

/* --- waiting */
void poll_port(uint port, u64 ns); /* until it is pending, or so long; clears it */
uint new_port(void);               /* for domain 0 to bind */
void send_port(uint port);

/* --- grants to domain 0 (grant.c) */
enum { WRITABLE = 0, READ_ONLY = 1 };
u32 grant(const void *page, int read_only);
u32 grant_mfn(ulong mfn, int read_only, uint domid);
int revoke(u32 ref); /* 0: in use, and still granted */
void revoke_in_use(u32 ref); /* what no kernel does */
int in_use(u32 ref);

/* --- what both kinds have */
struct front {
    char path[64], back[128];
    uint port;
};
void front_open(struct front *front, const char *kind, uint devid); /* to Initialising, and waits for InitWait */
int node(const struct front *front, const char *name, const char *value);
void node_number(const struct front *front, const char *name, ulong value);
void node_state(const struct front *front, int state);
int back_state(const struct front *front);
int wait_back(const struct front *front, int state); /* 1: it is there */
void front_close(struct front *front);               /* by the book: Closing, Closed */
int device_comes(const char *device);                /* `vif/0`: 1 when it is there */
int device_goes(const char *device);                 /* 1 when it is not any more */
void wait_poweroff(void);                            /* for the toolstack to ask for it */

/* --- disks (blkfront.c) */
#define BLK_PAGES 4
struct blkfront {
    struct front front;
    blkif_front_ring_t ring;
    char *pages;
    u32 refs[BLK_PAGES];
    int order; /* -1: the nodes of one page */
    u64 sectors;
};
void blk_ring(struct blkfront *disk, uint devid, int order); /* up to what may be written into nodes */
void blk_nodes(struct blkfront *disk);
void blk_connect(struct blkfront *disk, uint devid, int order);
void blk_disconnect(struct blkfront *disk);
blkif_request_t *blk_next(struct blkfront *disk); /* zeroed; not pushed yet */
void blk_push(struct blkfront *disk);
int blk_reap(struct blkfront *disk, blkif_response_t *response); /* 0: none came */
int blk_one(struct blkfront *disk, u64 *id); /* pushes, and waits for one answer: its status, or 1: none */
void blk_fill(blkif_request_t *request, uint op, u64 id, u64 sector, const u32 *refs, uint pages);
void blk_fill_indirect(blkif_request_t *request, uint op, u64 id, u64 sector, u32 table_ref, uint pages);

/* --- networks (netfront.c) */
#define NET_BUFFERS 16
struct netfront {
    struct front front;
    netif_tx_front_ring_t tx;
    netif_rx_front_ring_t rx;
    char *tx_page, *rx_page, *buffers[NET_BUFFERS], *out;
    u32 tx_ref, rx_ref, refs[NET_BUFFERS], out_ref;
    u8_t mac[6];
};
void net_ring(struct netfront *net, uint devid);
void net_nodes(struct netfront *net);
void net_connect(struct netfront *net, uint devid);
void net_disconnect(struct netfront *net);
netif_tx_request_t *net_next(struct netfront *net);
void net_push(struct netfront *net);
int net_answer(struct netfront *net, netif_tx_response_t *response); /* 0: none came */
int net_send(struct netfront *net, const void *frame, uint length);  /* status */
int net_receive(struct netfront *net, void *frame, u64 ns);          /* length; 0: none came */
void net_offer(struct netfront *net, uint buffer);

/* --- shared directories (p9front.c) */
#define P9_ORDER 2                                  /* of the pages of a ring */
#define P9_SIZE ((PAGE << P9_ORDER) / 2)            /* bytes of each direction */
enum {                                              /* 9P2000.L's requests; the answer is one more */
    RLERROR = 7, TLOPEN = 12, TLCREATE = 14, TSYMLINK = 16, TMKNOD = 18, TGETATTR = 24, TSETATTR = 26, TREADDIR = 40, TFSYNC = 50, TLINK = 70, TMKDIR = 72, TRENAMEAT = 74, TUNLINKAT = 76, TVERSION = 100,
    TATTACH = 104, TFLUSH = 108, TWALK = 110, TREAD = 116, TWRITE = 118, TCLUNK = 120
};
#define NOFID 0xffffffffu
#define NOTAG 0xffffu
#define P9_HEADER 7
struct p9front {
    struct front front;
    struct xen_9pfs_data_intf *intf;
    char *pages;
    u32 intf_ref, refs[1 << P9_ORDER];
    uint tag;               /* of the next request */
    u8_t reply[P9_SIZE];    /* the last answer, with its header */
    uint length, at;        /* its bytes, and what was read of it */
};
void p9_ring(struct p9front *p9, uint devid); /* up to what may be written into nodes */
void p9_nodes(struct p9front *p9);
void p9_join(struct p9front *p9, uint devid);    /* up to Connected */
void p9_connect(struct p9front *p9, uint devid); /* up to the agreement on the version */
void p9_disconnect(struct p9front *p9);
void p9_send(struct p9front *p9, const void *bytes, uint length); /* as they are */
int p9_answer(struct p9front *p9);                                /* its type, or -1: none came */
/* One request of numbers (b, h, w, d: 1, 2, 4 and 8 bytes), texts (s) and data (D: address and length). 0, or Rlerror's errno. */
int p9_ask(struct p9front *p9, uint type, const char *format, ...);
u64 p9_take(struct p9front *p9, uint bytes); /* the next number of the answer */
#endif
