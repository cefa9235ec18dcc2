/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random reads of 4 KiB from a block device with many in flight (Linux's io_submit, O_DIRECT), as benchmarks/disks.py runs it in a
 * Linux guest: aio DEVICE DEPTH READS. Needs nothing but the kernel; linked statically.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIZE 4096

static uint64_t dice(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int fd = open(argv[1], O_RDONLY | O_DIRECT);
    long depth = atol(argv[2]), reads = atol(argv[3]), issued = 0, done = 0;
    uint64_t bytes = 0;
    aio_context_t context = 0;
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) || syscall(SYS_io_setup, depth, &context)) {
        perror(argv[1]);
        return 1;
    }
    char *buffers = aligned_alloc(SIZE, (size_t)depth * SIZE);
    struct iocb *calls = calloc((size_t)depth, sizeof(*calls)), **list = calloc((size_t)depth, sizeof(*list));
    struct io_event *events = calloc((size_t)depth, sizeof(*events));
    long *idle = calloc((size_t)depth, sizeof(*idle)), idle_count = depth;
    for (long i = 0; i < depth; i++)
        idle[i] = i;
    while (done < reads) {
        long count = 0;
        for (; idle_count && issued < reads; issued++, count++) {
            long i = idle[--idle_count];
            calls[i] = (struct iocb){
                .aio_data = (uint64_t)i, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd,
                .aio_buf = (uintptr_t)(buffers + i * SIZE), .aio_nbytes = SIZE,
                .aio_offset = (int64_t)(dice() % (bytes / SIZE) * SIZE),
            };
            list[count] = &calls[i];
        }
        if (count && syscall(SYS_io_submit, context, count, list) != count)
            return 1;
        long came = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
        if (came < 1)
            return 1;
        for (long i = 0; i < came; i++, done++) {
            if (events[i].res != SIZE)
                return 1;
            idle[idle_count++] = (long)events[i].data;
        }
    }
    return 0;
}
