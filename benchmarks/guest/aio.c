/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads or writes with several in flight (Linux's io_submit): of a block device, past the page cache (O_DIRECT), as benchmarks/disks.py
 * runs it in a Linux guest; of a file, through the page cache, as on the host. aio PATH read|write random|sequential BYTES DEPTH COUNT,
 * each of BYTES. Needs nothing but the kernel; linked statically.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096

static uint64_t dice(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    int write = !strcmp(argv[2], "write"), random = !strcmp(argv[3], "random");
    size_t size = strtoul(argv[4], NULL, 0);
    long depth = atol(argv[5]), count = atol(argv[6]), issued = 0, done = 0;
    struct stat kind = {0};
    int is_device = !stat(argv[1], &kind) && S_ISBLK(kind.st_mode);
    int fd = open(argv[1], (write ? O_RDWR : O_RDONLY) | (is_device ? O_DIRECT : 0));
    uint64_t bytes = (uint64_t)kind.st_size;
    aio_context_t context = 0;
    if (fd < 0 || (is_device && ioctl(fd, BLKGETSIZE64, &bytes)) || syscall(SYS_io_setup, depth, &context)) {
        perror(argv[1]);
        return 1;
    }
    uint64_t places = bytes / size;
    char *buffers = aligned_alloc(PAGE, (size_t)depth * size);
    struct iocb *calls = calloc((size_t)depth, sizeof(*calls)), **list = calloc((size_t)depth, sizeof(*list));
    struct io_event *events = calloc((size_t)depth, sizeof(*events));
    long *idle = calloc((size_t)depth, sizeof(*idle)), idle_count = depth;
    memset(buffers, 0x5a, (size_t)depth * size);
    for (long i = 0; i < depth; i++)
        idle[i] = i;
    while (done < count) {
        long fresh = 0;
        for (; idle_count && issued < count; issued++, fresh++) {
            long i = idle[--idle_count];
            uint64_t place = (random ? dice() : (uint64_t)issued) % places;
            calls[i] = (struct iocb){
                .aio_data = (uint64_t)i, .aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd,
                .aio_buf = (uintptr_t)(buffers + (size_t)i * size), .aio_nbytes = size, .aio_offset = (int64_t)(place * size),
            };
            list[fresh] = &calls[i];
        }
        if (fresh && syscall(SYS_io_submit, context, fresh, list) != fresh)
            return 1;
        long came = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
        if (came < 1)
            return 1;
        for (long i = 0; i < came; i++, done++) {
            if (events[i].res != (int64_t)size)
                return 1;
            idle[idle_count++] = (long)events[i].data;
        }
    }
    return 0;
}
