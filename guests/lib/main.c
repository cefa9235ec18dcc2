/* The console and the verdict. SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

struct start_info *info;
struct shared_info *shared;
uint failures;
static struct xencons_interface *cons;
static char shared_page[PAGE] ALIGNED(PAGE);
static u8_t console_lock;
extern char image_start[], image_end[];

size_t length_of(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

int same_text(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

void *memcpy(void *to, const void *from, size_t length)
{
    void *result = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length)::"memory");
    return result;
}

void *memset(void *to, int value, size_t length)
{
    void *result = to;
    asm volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(value) : "memory");
    return result;
}

int memcmp(const void *a, const void *b, size_t length)
{
    const u8_t *x = a, *y = b;
    for (; length; length--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

static void notify(void)
{
    struct evtchn_send send = {.port = info->console.domU.evtchn};
    evtchn_op(EVTCHNOP_send, &send);
}

static void put(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        while (cons->out_prod - __atomic_load_n(&cons->out_cons, __ATOMIC_ACQUIRE) == sizeof(cons->out)) {
            notify();
            sched_op(SCHEDOP_yield, NULL);
        }
        cons->out[MASK_XENCONS_IDX(cons->out_prod, cons->out)] = text[i];
        __atomic_store_n(&cons->out_prod, cons->out_prod + 1, __ATOMIC_RELEASE);
    }
    notify();
}

struct line {
    char text[256];
    size_t used;
};

static void add(struct line *line, char c)
{
    if (line->used < sizeof(line->text) - 2)
        line->text[line->used++] = c;
}

static void add_number(struct line *line, unsigned long long value, uint base, uint width)
{
    char digits[24];
    uint n = 0;
    do { /* no libgcc: a 64-bit division by 16 is a shift, by 10 goes in two halves */
        if (base == 16) {
            digits[n++] = "0123456789abcdef"[value & 15];
            value >>= 4;
        } else {
            unsigned long long rest = 0, quotient = 0;
            for (int bit = 63; bit >= 0; bit--) {
                rest = rest << 1 | (value >> bit & 1);
                if (rest >= 10) {
                    rest -= 10;
                    quotient |= 1ull << bit;
                }
            }
            digits[n++] = (char)('0' + rest);
            value = quotient;
        }
    } while (value);
    for (uint i = n; i < width; i++)
        add(line, '0');
    while (n)
        add(line, digits[--n]);
}

static void format_line(struct line *line, const char *format, va_list args)
{
    for (; *format; format++) {
        uint width = 0, longs = 0;
        if (*format != '%') {
            add(line, *format);
            continue;
        }
        for (format++; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (uint)(*format - '0');
        for (; *format == 'l'; format++)
            longs++;
        if (*format == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++)
                add(line, *s);
        } else if (*format == 'c') {
            add(line, (char)va_arg(args, int));
        } else if (*format == 'p') {
            add_number(line, (ulong)va_arg(args, void *), 16, width);
        } else if (*format == 'd') {
            long long value = longs == 2 ? va_arg(args, long long) : longs ? va_arg(args, long) : va_arg(args, int);
            if (value < 0)
                add(line, '-');
            add_number(line, value < 0 ? -(unsigned long long)value : (unsigned long long)value, 10, width);
        } else if (*format == 'u' || *format == 'x') {
            unsigned long long value = longs == 2 ? va_arg(args, unsigned long long)
                                       : longs    ? va_arg(args, unsigned long)
                                                  : va_arg(args, unsigned int);
            add_number(line, value, *format == 'x' ? 16 : 10, width);
        }
    }
}

static void write_out(struct line *line)
{
    line->text[line->used++] = '\n';
    while (__atomic_exchange_n(&console_lock, 1, __ATOMIC_ACQUIRE))
        relax();
    put(line->text, line->used);
    __atomic_store_n(&console_lock, 0, __ATOMIC_RELEASE);
}

void print(const char *format, ...)
{
    struct line line = {.used = 0};
    va_list args;
    va_start(args, format);
    format_line(&line, format, args);
    va_end(args);
    write_out(&line);
}

void text(char *to, size_t room, const char *format, ...)
{
    struct line line = {.used = 0};
    va_list args;
    va_start(args, format);
    format_line(&line, format, args);
    va_end(args);
    if (line.used >= room)
        line.used = room - 1;
    memcpy(to, line.text, line.used);
    to[line.used] = 0;
}

void fail(const char *file, int at, const char *format, ...)
{
    struct line line = {.used = 0};
    va_list args;
    if (__atomic_fetch_add(&failures, 1, __ATOMIC_SEQ_CST) >= 40)
        return;
    for (const char *s = "  FAIL "; *s; s++)
        add(&line, *s);
    for (; *file; file++)
        add(&line, *file);
    add(&line, ':');
    add_number(&line, (uint)at, 10, 0);
    add(&line, ' ');
    va_start(args, format);
    format_line(&line, format, args);
    va_end(args);
    write_out(&line);
}

void skip(const char *why)
{
    print("SKIP %s: %s", guest_name, why);
    shut_down(SHUTDOWN_poweroff);
}

void finish(void)
{
    if (failures) {
        print("FAIL %s: %u checks", guest_name, failures);
        shut_down(SHUTDOWN_crash);
    }
    print("PASS %s", guest_name);
    shut_down(SHUTDOWN_poweroff);
}

void __attribute__((noreturn)) guest_main(struct start_info *start)
{
    info = start;
    update_va((ulong)shared_page, info->shared_info | RWP, UVMF_INVLPG);
    shared = (struct shared_info *)shared_page;
    cons = (void *)(VIRT_BASE + mfn_to_pfn(info->console.domU.mfn) * PAGE);
    init_traps();
#ifndef __x86_64__
    for (char *va = image_start; va < image_end; va += PAGE) /* user mode is of another privilege there */
        if (va != shared_page)
            protect(va, RWP);
#endif
    /* As Linux does at its start. */
    HC_2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, VMASST_TYPE_writable_pagetables);
    guest();
    finish();
}
