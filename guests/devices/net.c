/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two of these on one switch, "1" and "2" by their command line: each asks for the other's address (ARP) and sends echo
 * requests (ICMP) until it has 20 right answers, and answers the other's. Then it says so, and goes on to answer until the
 * other has said so too.
 */
#include "front.h"

#define VIF 0
#define ECHOES 20
#define ETH 14
#define DONE 0x88b5 /* an Ethernet type for local experiments: "I have all answers" */

static struct netfront net;
static u8_t frame[PAGE], out[PAGE], other_mac[6];
static uint me, other, has_mac, answered, other_done;

static void put16(u8_t *at, uint value) { at[0] = (u8_t)(value >> 8), at[1] = (u8_t)value; }
static uint get16(const u8_t *at) { return (uint)at[0] << 8 | at[1]; }

static uint sum(const u8_t *bytes, uint length)
{
    uint total = 0;
    for (uint i = 0; i + 1 < length; i += 2)
        total += get16(bytes + i);
    total = (total >> 16) + (total & 0xffff);
    return ~(total + (total >> 16)) & 0xffff;
}

static void header(const u8_t *to, uint type)
{
    memset(out, 0, sizeof(out));
    memcpy(out, to, 6);
    memcpy(out + 6, net.mac, 6);
    put16(out + 12, type);
}

static void send(uint length) { EQ(net_send(&net, out, length), 0, "what a frame is answered with"); }

static void arp(uint op, const u8_t *to)
{
    static const u8_t kind[] = {0, 1, 8, 0, 6, 4, 0, 0};
    header(to, 0x0806);
    memcpy(out + ETH, kind, 8);
    out[ETH + 7] = (u8_t)op;
    memcpy(out + ETH + 8, net.mac, 6);
    memcpy(out + ETH + 18, op == 2 ? to : (const u8_t[6]){0}, 6);
    memcpy(out + ETH + 14, (u8_t[]){10, 0, 0, (u8_t)me}, 4);
    memcpy(out + ETH + 24, (u8_t[]){10, 0, 0, (u8_t)other}, 4);
    send(60);
}

static void echo(uint type, uint number)
{
    uint data = 8 + 1000; /* ICMP's header, and what is to come back */
    u8_t *ip = out + ETH, *icmp = ip + 20;
    header(other_mac, 0x0800);
    ip[0] = 0x45, ip[8] = 64, ip[9] = 1;
    put16(ip + 2, 20 + data);
    memcpy(ip + 12, (u8_t[]){10, 0, 0, (u8_t)me, 10, 0, 0, (u8_t)other}, 8);
    put16(ip + 10, sum(ip, 20));
    icmp[0] = (u8_t)type;
    put16(icmp + 6, number);
    for (uint i = 8; i < data; i++)
        icmp[i] = (u8_t)(i * 7 + number);
    put16(icmp + 2, sum(icmp, data));
    send(ETH + 20 + data);
}

static void take(uint length)
{
    const u8_t *ip = frame + ETH, *icmp = ip + 20;
    uint type = get16(frame + 12);
    if (type == 0x0806 && length >= ETH + 28 && frame[ETH + 17] == other && frame[ETH + 27] == me) {
        memcpy(other_mac, frame + ETH + 8, 6);
        has_mac = 1;
        if (frame[ETH + 7] == 1)
            arp(2, other_mac);
    } else if (type == 0x0800 && length == ETH + 20 + 1008 && ip[9] == 1 && ip[15] == other && has_mac) {
        uint number = get16(icmp + 6), wrong = 0;
        EQ(sum(ip, 20), 0, "the sum of a header");
        EQ(sum(icmp, 1008), 0, "the sum of a message");
        for (uint i = 8; i < 1008; i++)
            wrong += icmp[i] != (u8_t)(i * 7 + number);
        EQ(wrong, 0, "bytes of a message that are wrong");
        if (icmp[0] == 8)
            echo(0, number);
        else
            answered += number == answered;
    } else if (type == DONE)
        other_done = 1;
}

void guest(void)
{
    static const u8_t all[6] = {255, 255, 255, 255, 255, 255};
    disable_events();
    me = (uint)(((const char *)info->cmd_line)[0] - '0'), other = 3 - me;
    net_connect(&net, VIF);
    for (u64 end = now() + 3 * PATIENCE; now() < end && (answered < ECHOES || !other_done);) {
        if (!has_mac)
            arp(1, all);
        else if (answered < ECHOES)
            echo(8, answered);
        if (answered >= ECHOES)
            header(all, DONE), send(60);
        int length = net_receive(&net, frame, SECONDS / 5);
        while (length) {
            take((uint)length);
            length = net_receive(&net, frame, SECONDS / 1000);
        }
    }
    EQ(answered, ECHOES, "answers");
    CHECK(other_done, "the other is not done");
    header(all, DONE), send(60); /* it may not have heard */
    net_disconnect(&net);
}
