/* SPDX-License-Identifier: Apache-2.0 */
/* A disk is taken away while the guest runs: it lets go of it when it is asked to. Then it waits to be told to power off. */
#include "front.h"

#define DISK 51712 /* xvda */

static struct blkfront disk;

void guest(void)
{
    disable_events();
    blk_connect(&disk, DISK, -1);
    print("in use");
    CHECK(wait_back(&disk.front, XenbusStateClosing), "not asked to let go but %d", back_state(&disk.front));
    node_state(&disk.front, XenbusStateClosed);
    CHECK(device_goes("vbd/51712"), "the nodes are still there");
    CHECK(revoke(disk.refs[0]), "the page of the ring is still mapped");
    print("let go of");
    wait_poweroff();
}
