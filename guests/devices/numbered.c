/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes numbered pages, flushes each, and says so: "synced N" for page N, whose words are N * 1024 + i xor 0x77777777. Others are
 * written behind them and not flushed on their own. It goes on until somebody ends it, and begins again at the end of the first half.
 */
#include "front.h"

#define DISK 51712 /* xvda */
#define NOISE 15   /* requests that are in flight with each flush */

static struct blkfront disk;

void guest(void)
{
    u32 *data, *noise;
    u32 data_ref, noise_ref;
    u64 seed = now() | 1;
    disable_events();
    data = page_alloc(), noise = page_alloc();
    data_ref = grant(data, WRITABLE), noise_ref = grant(noise, WRITABLE);
    blk_connect(&disk, DISK, -1);
    u32 half = (u32)disk.sectors / 16; /* pages of the first half */
    for (u32 number = 0;; number = (number + 1) % half) {
        blkif_response_t response;
        for (uint i = 0; i < PAGE / 4; i++)
            data[i] = (number * (u32)(PAGE / 4) + i) ^ 0x77777777u;
        blk_fill(blk_next(&disk), BLKIF_OP_WRITE, 0, number * 8, &data_ref, 1);
        for (uint i = 0; i < NOISE; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            noise[i] = (u32)seed;
            blk_fill(blk_next(&disk), BLKIF_OP_WRITE, 1, (half + (u32)(seed >> 8) % half) * 8, &noise_ref, 1);
        }
        blk_push(&disk);
        for (uint i = 0; i <= NOISE; i++) {
            CHECK(blk_reap(&disk, &response), "no answer");
            EQ(response.status, 0, "a write");
        }
        blk_fill(blk_next(&disk), BLKIF_OP_FLUSH_DISKCACHE, 2, 0, NULL, 0);
        EQ(blk_one(&disk, NULL), 0, "a flush");
        print("synced %u", number);
    }
}
