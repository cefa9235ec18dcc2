/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console and xenstore rings with indices and messages that make no sense: the backends give up on them, or skip, and the
 * domain lives on. XSA-155; documented: xen/io/console.h, xen/io/xs_wire.h.
 */
#include "guest.h"
#include <xen/io/xs_wire.h>

static struct xenstore_domain_interface *store;

static void kick(uint port)
{
    struct evtchn_send send = {.port = port};
    evtchn_op(EVTCHNOP_send, &send);
    for (int i = 0; i < 20; i++)
        sched_op(SCHEDOP_yield, NULL);
}

static void message(u32 type, u32 length)
{
    struct xsd_sockmsg head = {.type = type, .len = length};
    store->req_prod = store->req_cons;
    for (uint i = 0; i < sizeof(head); i++)
        store->req[MASK_XENSTORE_IDX(store->req_prod++)] = ((char *)&head)[i];
    kick(info->store_evtchn);
}

void guest(void)
{
    static const u32 odd[] = {1025, 0x7fffffff, 0x80000000, 0xffffffff, 2048, 4097};
    store = (void *)(VIRT_BASE + mfn_to_pfn(info->store_mfn) * PAGE);
    for (uint i = 0; i < ARRAY_SIZE(odd); i++) {
        store->req_prod = store->req_cons + odd[i];
        kick(info->store_evtchn);
        store->rsp_cons = store->rsp_prod + odd[i];
        kick(info->store_evtchn);
        store->req_cons = odd[i];
        kick(info->store_evtchn);
    }
    for (u32 type = 0; type < 30; type++) {
        message(type, 0);
        message(type, 0xffffffff);
        message(type, 4097);
        message(type, 1);
    }
    message(0xffffffff, 4096);
    memset(store, 0xff, sizeof(*store));
    kick(info->store_evtchn);
    memset(store, 0, sizeof(*store));
    kick(info->store_evtchn);
    struct xencons_interface *cons = (void *)(VIRT_BASE + mfn_to_pfn(info->console.domU.mfn) * PAGE);
    u32 cons_before = cons->out_cons, prod_before = cons->out_prod;
    for (uint i = 0; i < ARRAY_SIZE(odd); i++) {
        cons->in_cons = cons->in_prod + odd[i];
        kick(info->console.domU.evtchn);
    }
    cons->in_cons = cons->in_prod;
    (void)cons_before, (void)prod_before;
}
