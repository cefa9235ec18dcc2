/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An interface is plugged in and taken away, twice, while the guest runs: it finds it by a watch, uses it, and
 * lets go of it. Then it waits to be told to power off.
 */
#include "front.h"

#define VIF 0
#define TIMES 2

static struct netfront net;

void guest(void)
{
    static u8_t frame[60];
    disable_events();
    CHECK(!xs_watch("device/vif", "plug"), "no watch: %s", xs_error);
    for (uint i = 0; i < TIMES; i++) {
        uint before = xs_events();
        print("ready %u", i);
        if (!device_comes("vif/0")) {
            CHECK(0, "no interface came");
            return;
        }
        CHECK(xs_events() > before, "the watch was silent");
        net_connect(&net, VIF);
        memset(frame, 0xff, 6);
        memcpy(frame + 6, net.mac, 6);
        EQ(net_send(&net, frame, sizeof(frame)), 0, "what a frame is answered with");
        CHECK(wait_back(&net.front, XenbusStateClosing), "not asked to let go but %d", back_state(&net.front));
        /* The back end goes when it is told that nothing is used any more, with its nodes. */
        node_state(&net.front, XenbusStateClosed);
        CHECK(device_goes("vif/0"), "the nodes are still there");
        CHECK(revoke(net.tx_ref) && revoke(net.rx_ref) && revoke(net.out_ref), "pages of the rings are still mapped");
        for (uint each = 0; each < NET_BUFFERS; each++)
            CHECK(revoke(net.refs[each]), "buffer %u is still in use", each);
        struct evtchn_close close = {.port = net.front.port};
        evtchn_op(EVTCHNOP_close, &close);
    }
    wait_poweroff();
}
