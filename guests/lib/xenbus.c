/* xenstore over its ring, and how a front end comes up. SPDX-License-Identifier: Apache-2.0 */
#include "front.h"

const char *xs_error = "";
static char reply[1025];
static uint events;

void poll_port(uint port, u64 ns)
{
    evtchn_port_t ports[1] = {port};
    struct sched_poll poll = {.nr_ports = 1, .timeout = now() + ns};
    set_xen_guest_handle(poll.ports, ports);
    if (!pending(port))
        sched_op(SCHEDOP_poll, &poll);
    clear_port(port);
}

void send_port(uint port)
{
    struct evtchn_send send = {.port = port};
    evtchn_op(EVTCHNOP_send, &send);
}

uint new_port(void)
{
    struct evtchn_alloc_unbound alloc = {.dom = DOMID_SELF, .remote_dom = 0};
    RC(evtchn_op(EVTCHNOP_alloc_unbound, &alloc), 0, "alloc_unbound");
    return alloc.port;
}

static struct xenstore_domain_interface *store_ring(void)
{
    return (void *)(VIRT_BASE + mfn_to_pfn(info->store_mfn) * PAGE);
}

static void put(const void *bytes, size_t length)
{
    struct xenstore_domain_interface *ring = store_ring();
    for (const char *from = bytes; length; length--) {
        while (ring->req_prod - __atomic_load_n(&ring->req_cons, __ATOMIC_ACQUIRE) == XENSTORE_RING_SIZE) {
            send_port(info->store_evtchn);
            poll_port(info->store_evtchn, SECONDS / 100);
        }
        ring->req[MASK_XENSTORE_IDX(ring->req_prod)] = *from++;
        __atomic_store_n(&ring->req_prod, ring->req_prod + 1, __ATOMIC_RELEASE);
    }
}

static void get(void *bytes, size_t length)
{
    struct xenstore_domain_interface *ring = store_ring();
    for (char *to = bytes; length; length--) {
        while (__atomic_load_n(&ring->rsp_prod, __ATOMIC_ACQUIRE) == ring->rsp_cons) {
            send_port(info->store_evtchn);
            poll_port(info->store_evtchn, SECONDS / 100);
        }
        char c = ring->rsp[MASK_XENSTORE_IDX(ring->rsp_cons)];
        if (to)
            *to++ = c;
        __atomic_store_n(&ring->rsp_cons, ring->rsp_cons + 1, __ATOMIC_RELEASE);
    }
}

/* Sends two parts and receives the answer into `reply`. Its length, or -1. */
static int ask(u32 type, u32 tx, const char *one, size_t one_length, const char *two, size_t two_length)
{
    static u32 id;
    struct xsd_sockmsg head = {.type = type, .req_id = ++id, .tx_id = tx, .len = (u32)(one_length + two_length)};
    put(&head, sizeof(head));
    put(one, one_length);
    put(two, two_length);
    send_port(info->store_evtchn);
    for (;;) {
        get(&head, sizeof(head));
        u32 kept = head.len < 1024 ? head.len : 1024;
        get(reply, kept);
        get(NULL, head.len - kept);
        reply[kept] = 0;
        if (head.type == XS_WATCH_EVENT) {
            events++;
            continue;
        }
        CHECK(head.req_id == id, "an answer to another request: %x", head.req_id);
        xs_error = head.type == XS_ERROR ? reply : "";
        return head.type == XS_ERROR ? -1 : (int)kept;
    }
}

int xs_read(const char *path, char *value, size_t room)
{
    int length = ask(XS_READ, 0, path, length_of(path) + 1, NULL, 0);
    if (length < 0)
        return length;
    if ((size_t)length >= room)
        length = (int)room - 1;
    memcpy(value, reply, (size_t)length);
    value[length] = 0;
    return length;
}

int xs_write_bytes(u32 tx, const char *path, const char *value, size_t length)
{
    return ask(XS_WRITE, tx, path, length_of(path) + 1, value, length) < 0 ? -1 : 0;
}

int xs_write(const char *path, const char *value)
{
    return xs_write_bytes(0, path, value, length_of(value));
}

int xs_remove(const char *path) { return ask(XS_RM, 0, path, length_of(path) + 1, NULL, 0) < 0 ? -1 : 0; }

static long number(const char *value)
{
    long n = 0;
    if (!*value)
        return -1;
    for (; *value >= '0' && *value <= '9'; value++)
        n = n * 10 + (*value - '0');
    return *value ? -1 : n;
}

u32 xs_begin(void) { return ask(XS_TRANSACTION_START, 0, "", 1, NULL, 0) < 0 ? 0 : (u32)number(reply); }
int xs_end(u32 tx, int commit)
{
    return ask(XS_TRANSACTION_END, tx, commit ? "T" : "F", 2, NULL, 0) < 0 ? -1 : 0;
}
int xs_watch(const char *path, const char *token)
{
    return ask(XS_WATCH, 0, path, length_of(path) + 1, token, length_of(token) + 1) < 0 ? -1 : 0;
}
uint xs_events(void) { return events; }

long xs_number(const char *path)
{
    char value[32];
    return xs_read(path, value, sizeof(value)) < 0 ? -1 : number(value);
}

int node(const struct front *front, const char *name, const char *value)
{
    char path[160];
    text(path, sizeof(path), "%s/%s", front->path, name);
    return xs_write(path, value);
}

void node_number(const struct front *front, const char *name, ulong value)
{
    char digits[24];
    text(digits, sizeof(digits), "%lu", value);
    node(front, name, digits);
}

void node_state(const struct front *front, int state) { node_number(front, "state", (ulong)state); }

int back_state(const struct front *front)
{
    char path[160];
    text(path, sizeof(path), "%s/state", front->back);
    return (int)xs_number(path);
}

int wait_back(const struct front *front, int state)
{
    for (u64 end = now() + PATIENCE; now() < end;) {
        if (back_state(front) == state)
            return 1;
        poll_port(info->store_evtchn, SECONDS / 200);
    }
    return 0;
}

void front_open(struct front *front, const char *kind, uint devid)
{
    char path[160];
    text(front->path, sizeof(front->path), "device/%s/%u", kind, devid);
    text(path, sizeof(path), "%s/backend", front->path);
    CHECK(xs_read(path, front->back, sizeof(front->back)) > 0, "%s: no back end: %s", front->path, xs_error);
    node_state(front, XenbusStateInitialising);
    CHECK(wait_back(front, XenbusStateInitWait), "%s: the back end does not wait but is %d", front->path, back_state(front));
}

/* Looked at whenever a watch may have said something. */
static int device_becomes(const char *device, int there)
{
    char path[64], backend[128];
    text(path, sizeof(path), "device/%s/backend", device);
    for (u64 end = now() + PATIENCE; now() < end; poll_port(info->store_evtchn, SECONDS / 50))
        if ((xs_read(path, backend, sizeof(backend)) > 0) == there)
            return 1;
    return 0;
}

int device_comes(const char *device) { return device_becomes(device, 1); }
int device_goes(const char *device) { return device_becomes(device, 0); }

void wait_poweroff(void)
{
    char wanted[32] = "";
    for (u64 end = now() + PATIENCE; now() < end && xs_read("control/shutdown", wanted, sizeof(wanted)) <= 0;)
        poll_port(info->store_evtchn, SECONDS / 50);
    CHECK(wanted[0] == 'p', "not told to end but %s", wanted);
}

void front_close(struct front *front)
{
    node_state(front, XenbusStateClosing);
    CHECK(wait_back(front, XenbusStateClosing), "%s: not Closing but %d", front->path, back_state(front));
    node_state(front, XenbusStateClosed);
    CHECK(wait_back(front, XenbusStateClosed), "%s: not Closed but %d", front->path, back_state(front));
    struct evtchn_close close = {.port = front->port};
    if (front->port)
        evtchn_op(EVTCHNOP_close, &close);
    front->port = 0;
}
