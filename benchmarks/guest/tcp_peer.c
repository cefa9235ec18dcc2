/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a TCP connection, for benchmarks/networks.py, in a guest and on the host:
 *   tcp_peer send ADDRESS PORT MIB     connects (tries for a minute), sends so much, and waits until the other has it all
 *   tcp_peer receive PORT              says "listening", and after the end "BYTES in SECONDS" from the first byte on
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[256 << 10];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int fails(const char *what)
{
    perror(what);
    return 1;
}

static int send_all(const char *address, int port, long long left)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int wire = -1;
    inet_pton(AF_INET, address, &to.sin_addr);
    for (int tries = 0; tries < 60; tries++, sleep(1)) {
        wire = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(wire, (struct sockaddr *)&to, sizeof(to)) == 0)
            break;
        close(wire);
        wire = -1;
    }
    if (wire < 0)
        return fails("connect");
    while (left > 0) {
        ssize_t sent = write(wire, buffer, left < (long long)sizeof(buffer) ? (size_t)left : sizeof(buffer));
        if (sent <= 0)
            return fails("write");
        left -= sent;
    }
    shutdown(wire, SHUT_WR);
    while (read(wire, buffer, sizeof(buffer)) > 0)
        ;
    puts("sent");
    return 0;
}

static int receive_all(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, 4))
        return fails("listen");
    puts("listening");
    fflush(stdout);
    long long bytes = 0;
    double begin = 0;
    while (!bytes) { /* who goes without a word was the user network's own */
        int wire = accept(listener, NULL, NULL);
        for (ssize_t got; (got = read(wire, buffer, sizeof(buffer))) > 0; bytes += got)
            if (!bytes)
                begin = now();
        printf("%lld in %.6f\n", bytes, now() - begin);
        close(wire);
    }
    return 0;
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 5 && !strcmp(words[1], "send"))
        return send_all(words[2], atoi(words[3]), atoll(words[4]) << 20);
    if (count == 3 && !strcmp(words[1], "receive"))
        return receive_all(atoi(words[2]));
    fprintf(stderr, "usage: tcp_peer send ADDRESS PORT MIB | receive PORT\n");
    return 2;
}
