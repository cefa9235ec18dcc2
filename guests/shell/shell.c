/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PV64 guest that does what it is told: one command per line on its console, and control/shutdown in xenstore.
 * It is what the tests of Domain 0 run, as it is up at once. Runs on real Xen, too: uses the public ABI only.
 *
 * Commands: echo TEXT, log TEXT (console_io), store PATH, poweroff, reboot, suspend, crash, fault, watchdog, flood N, spin,
 * take N (frames more), give N (of those back).
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stddef.h>
#include <stdint.h>
#define __XEN_INTERFACE_VERSION__ 0x00040d00
typedef uint8_t u8;
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/io/console.h>
#include <xen/io/xs_wire.h>

#define VIRT_BASE 0xffffffff80000000ul
#define PAGE 4096

static long hypercall(unsigned long nr, unsigned long a, unsigned long b, unsigned long c)
{
    register unsigned long rax asm("rax") = nr;
    asm volatile("syscall" : "+r"(rax), "+D"(a), "+S"(b), "+d"(c)::"rcx", "r11", "r10", "r8", "r9", "memory");
    return (long)rax;
}

static struct start_info *info;
static struct shared_info *shared;
static struct xencons_interface *cons;
static struct xenstore_domain_interface *store;
static evtchn_port_t cons_port, store_port;
static char shared_page[PAGE] __attribute__((aligned(PAGE)));

static void *page_of(unsigned long mfn)
{
    return (void *)(VIRT_BASE + ((unsigned long *)HYPERVISOR_VIRT_START)[mfn] * PAGE);
}

static void notify(evtchn_port_t port)
{
    struct evtchn_send send = {.port = port};
    hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (unsigned long)&send, 0);
}

static void clear_pending(evtchn_port_t port)
{
    __atomic_fetch_and(&shared->evtchn_pending[port / 64], ~(1ul << (port % 64)), __ATOMIC_SEQ_CST);
}

/* Sleeps until one of both rings has news. */
static void wait_for_news(void)
{
    evtchn_port_t ports[2] = {cons_port, store_port};
    struct sched_poll poll = {.nr_ports = 2, .timeout = 0};
    set_xen_guest_handle(poll.ports, ports);
    hypercall(__HYPERVISOR_sched_op, SCHEDOP_poll, (unsigned long)&poll, 0);
}

static void stop(unsigned int reason)
{
    struct sched_shutdown shutdown = {.reason = reason};
    for (;;)
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (unsigned long)&shutdown, 0);
}

static void put(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        while (cons->out_prod - __atomic_load_n(&cons->out_cons, __ATOMIC_ACQUIRE) == sizeof(cons->out)) {
            notify(cons_port);
            hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0);
        }
        cons->out[MASK_XENCONS_IDX(cons->out_prod, cons->out)] = text[i];
        __atomic_store_n(&cons->out_prod, cons->out_prod + 1, __ATOMIC_RELEASE);
    }
    notify(cons_port);
}

static size_t length_of(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

static void say(const char *text)
{
    put(text, length_of(text));
}

static int starts(const char *line, const char *word)
{
    while (*word)
        if (*line++ != *word++)
            return 0;
    return 1;
}

/* --- xenstore: one request at a time; what comes unasked is a watch event */

static void store_write(const void *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        while (store->req_prod - __atomic_load_n(&store->req_cons, __ATOMIC_ACQUIRE) == XENSTORE_RING_SIZE) {
            notify(store_port);
            hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0);
        }
        store->req[MASK_XENSTORE_IDX(store->req_prod)] = ((const char *)data)[i];
        __atomic_store_n(&store->req_prod, store->req_prod + 1, __ATOMIC_RELEASE);
    }
}

static void store_read(char *data, size_t length, size_t room)
{
    for (size_t i = 0; i < length; i++) {
        while (__atomic_load_n(&store->rsp_prod, __ATOMIC_ACQUIRE) == store->rsp_cons) {
            notify(store_port);
            wait_for_news();
            clear_pending(store_port);
        }
        if (i < room)
            data[i] = store->rsp[MASK_XENSTORE_IDX(store->rsp_cons)];
        __atomic_store_n(&store->rsp_cons, store->rsp_cons + 1, __ATOMIC_RELEASE);
    }
    notify(store_port);
}

static unsigned int store_message(char *payload, size_t room)
{
    struct xsd_sockmsg head;
    store_read((char *)&head, sizeof(head), sizeof(head));
    store_read(payload, head.len, room - 1);
    payload[head.len < room ? head.len : room - 1] = 0;
    return head.type;
}

/* Returns the answer's type; watch events that come first are dropped, as what they tell is read again anyway. */
static unsigned int store_ask(unsigned int type, const char *payload, size_t length, char *answer, size_t room)
{
    struct xsd_sockmsg head = {.type = type, .len = (uint32_t)length};
    unsigned int got;
    store_write(&head, sizeof(head));
    store_write(payload, length);
    notify(store_port);
    do
        got = store_message(answer, room);
    while (got == XS_WATCH_EVENT);
    return got;
}

static void watch_shutdown(void)
{
    static const char watch[] = "control/shutdown\0token";
    char answer[64];
    store_ask(XS_WATCH, watch, sizeof(watch), answer, sizeof(answer));
}

/* What start_info says. */
static void find_pages(void)
{
    hypercall(__HYPERVISOR_update_va_mapping, (unsigned long)shared_page, info->shared_info | 7, UVMF_INVLPG);
    shared = (struct shared_info *)shared_page;
    cons = page_of(info->console.domU.mfn);
    store = page_of(info->store_mfn);
    cons_port = info->console.domU.evtchn;
    store_port = info->store_evtchn;
}

/* As Linux does it: nothing of Xen's is mapped meanwhile, and the frame of start_info is the third argument. */
static void suspend(void)
{
    unsigned long frame = ((unsigned long *)info->mfn_list)[((unsigned long)info - VIRT_BASE) / PAGE];
    struct sched_shutdown shutdown = {.reason = SHUTDOWN_suspend};
    hypercall(__HYPERVISOR_update_va_mapping, (unsigned long)shared_page, 0, UVMF_INVLPG);
    long cancelled = hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (unsigned long)&shutdown, frame);
    find_pages();
    if (cancelled) {
        say("went on\r\n");
        return;
    }
    say("resumed\r\n");
    watch_shutdown();
}

static void check_shutdown_request(void)
{
    static const char path[] = "control/shutdown";
    char answer[64];
    if (store_ask(XS_READ, path, sizeof(path), answer, sizeof(answer)) != XS_READ || !answer[0])
        return;
    say("asked to ");
    say(answer);
    say("\r\n");
    store_ask(XS_WRITE, path, sizeof(path), (char[8]){0}, 8);
    if (starts(answer, "poweroff") || starts(answer, "halt"))
        stop(SHUTDOWN_poweroff);
    if (starts(answer, "reboot"))
        stop(SHUTDOWN_reboot);
    if (starts(answer, "suspend"))
        suspend();
}

static unsigned long number(const char *text)
{
    unsigned long value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (unsigned long)(*text++ - '0');
    return value;
}

static void say_number(unsigned long value)
{
    char digits[20];
    size_t at = sizeof(digits);
    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    put(digits + at, sizeof(digits) - at);
}

/* Frames that came and go: nothing is mapped in them. */
static void change_reservation(const char *said, unsigned int op, unsigned long count)
{
    static xen_pfn_t taken[16384];
    static unsigned long held;
    int takes = op == XENMEM_increase_reservation;
    unsigned long room = takes ? sizeof(taken) / sizeof(*taken) - held : held;
    struct xen_memory_reservation reservation = {.nr_extents = count < room ? count : room, .domid = DOMID_SELF};
    unsigned long first = takes ? held : held - reservation.nr_extents;
    set_xen_guest_handle(reservation.extent_start, taken + first);
    long done = hypercall(__HYPERVISOR_memory_op, op, (unsigned long)&reservation, 0);
    held = takes ? held + (unsigned long)done : first;
    say(said);
    say_number((unsigned long)done);
    say("\r\n");
}

static void run(char *line)
{
    if (starts(line, "echo ")) {
        say(line + 5);
        say("\r\n");
    } else if (starts(line, "log ")) {
        hypercall(__HYPERVISOR_console_io, CONSOLEIO_write, length_of(line + 4), (unsigned long)(line + 4));
        hypercall(__HYPERVISOR_console_io, CONSOLEIO_write, 1, (unsigned long)"\n");
    } else if (starts(line, "store ")) {
        char answer[256];
        unsigned int type = store_ask(XS_READ, line + 6, length_of(line + 6) + 1, answer, sizeof(answer));
        say(type == XS_READ ? "value " : "error ");
        say(answer);
        say("\r\n");
    } else if (starts(line, "poweroff")) {
        stop(SHUTDOWN_poweroff);
    } else if (starts(line, "reboot")) {
        stop(SHUTDOWN_reboot);
    } else if (starts(line, "suspend")) {
        stop(SHUTDOWN_suspend);
    } else if (starts(line, "crash")) {
        stop(SHUTDOWN_crash);
    } else if (starts(line, "fault")) {
        asm volatile("ud2");
    } else if (starts(line, "flood ")) {
        for (unsigned long lines = 0; line[6 + lines]; lines++)
            for (int i = 0; i < 1000; i++)
                say("a line of output that is repeated very often\r\n");
        say("flooded\r\n");
    } else if (starts(line, "watchdog")) {
        struct sched_watchdog watchdog = {.id = 0, .timeout = 1};
        if (hypercall(__HYPERVISOR_sched_op, SCHEDOP_watchdog, (unsigned long)&watchdog, 0) > 0)
            say("armed\r\n");
    } else if (starts(line, "take ")) {
        change_reservation("took ", XENMEM_increase_reservation, number(line + 5));
    } else if (starts(line, "give ")) {
        change_reservation("gave ", XENMEM_decrease_reservation, number(line + 5));
    } else if (starts(line, "spin")) {
        for (;;)
            ;
    } else if (line[0]) {
        say("what?\r\n");
    }
}

static void read_commands(void)
{
    static char line[256];
    static size_t length;
    while (__atomic_load_n(&cons->in_prod, __ATOMIC_ACQUIRE) != cons->in_cons) {
        char c = cons->in[MASK_XENCONS_IDX(cons->in_cons, cons->in)];
        __atomic_store_n(&cons->in_cons, cons->in_cons + 1, __ATOMIC_RELEASE);
        notify(cons_port);
        if (c == '\n' || c == '\r') {
            line[length] = 0;
            length = 0;
            run(line);
        } else if (length < sizeof(line) - 1) {
            line[length++] = c;
        }
    }
}

void __attribute__((noreturn)) shell_main(struct start_info *start)
{
    char answer[64];
    info = start;
    find_pages();
    say("hello ");
    say((char *)info->cmd_line);
    say("\r\n");
    watch_shutdown();
    for (;;) {
        clear_pending(cons_port);
        clear_pending(store_port);
        read_commands();
        if (__atomic_load_n(&store->rsp_prod, __ATOMIC_ACQUIRE) != store->rsp_cons) {
            store_message(answer, sizeof(answer));
            check_shutdown_request();
            continue;
        }
        if (__atomic_load_n(&cons->in_prod, __ATOMIC_ACQUIRE) == cons->in_cons)
            wait_for_news();
    }
}

void *memcpy(void *to, const void *from, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((char *)to)[i] = (char)value;
    return to;
}

asm(".section .text.start,\"ax\"\n"
    ".global _start\n"
    "_start: cld\n"
    "        lea stack_top(%rip), %rsp\n"
    "        mov %rsi, %rdi\n"
    "        xor %ebp, %ebp\n"
    "        call shell_main\n"
    ".bss\n"
    ".balign 16\n"
    ".skip 16384\n"
    "stack_top:\n"
    ".macro xen_note type, value:vararg\n"
    ".pushsection .note.Xen, \"a\", @note\n"
    ".balign 4\n.long 4, 2f - 1f, \\type\n.asciz \"Xen\"\n1: \\value\n2: .balign 4\n"
    ".popsection\n"
    ".endm\n"
    "xen_note 1, .quad _start\n"
    "xen_note 3, .quad 0xffffffff80000000\n"
    "xen_note 4, .quad 0xffffffff80000000\n"
    "xen_note 5, .asciz \"xen-3.0\"\n"
    "xen_note 6, .asciz \"domzero shell guest\"\n"
    "xen_note 8, .asciz \"generic\"\n"
    ".text\n");
