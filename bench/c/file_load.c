/*
 * A client for servers that send a file to whoever connects and then close. Each 8 bytes of the file hold the number of the
 * page of 4096 bytes that they are in. The first file is read and compared, as the warm-up; those that are timed are discarded
 * by the kernel without being copied, and counted: what is measured is the sending.
 *
 * It prints JSON lines: {"event": "measuring"} and {"event": "measured"} when the measured time begins and ends, and the
 * result as the last line. It ends with 1 when a file was not as it should be.
 */
#define _GNU_SOURCE
#include "common.h"

#include <sys/socket.h>
#include <unistd.h>

enum { PAGE = 4096, RECEIVE_BUFFER = 1 << 20, MAX_TIMES = 1000, PATIENCE = 20 };

static uint64_t block[(1 << 20) / sizeof(uint64_t)];
static char problem[128];

static int open_connection(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), size = RECEIVE_BUFFER;
    struct timeval patience = {.tv_sec = PATIENCE};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        connect(fd, (const struct sockaddr *)address, sizeof *address))
        die("connect");
    return fd;
}

static bool fail(const char *what, uint64_t at)
{
    snprintf(problem, sizeof problem, "%s at byte %llu", what, (unsigned long long)at);
    return false;
}

static bool read_and_compare(int fd, uint64_t size)
{
    uint64_t total = 0;
    size_t have = 0; /* bytes of an incomplete word, at the start of the block */
    for (;;) {
        ssize_t got = recv(fd, (char *)block + have, sizeof block - have, 0);
        if (got < 0)
            return fail("connection lost or no more bytes", total + have);
        if (got == 0)
            break;
        size_t all = have + (size_t)got, words = all / sizeof *block;
        for (size_t i = 0; i < words; i++, total += sizeof *block)
            if (block[i] != total / PAGE)
                return fail("wrong bytes", total);
        have = all % sizeof *block;
        memmove(block, block + words, have);
    }
    return total + have == size || fail("end of stream", total + have);
}

static bool discard(int fd, uint64_t size)
{
    uint64_t total = 0;
    ssize_t got;
    /* tcp(7): with MSG_TRUNC the received bytes are discarded rather than passed back in a buffer. */
    while ((got = recv(fd, NULL, sizeof block, MSG_TRUNC)) > 0)
        total += (uint64_t)got;
    if (got < 0)
        return fail("connection lost or no more bytes", total);
    return total == size || fail("end of stream", total);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    if (argc != 4 || !parse_address(argv[1], &address) || atof(argv[3]) <= 0 || strtoull(argv[2], NULL, 10) % PAGE) {
        fprintf(stderr, "usage: file_load HOST:PORT BYTES SECONDS\n  BYTES is a multiple of 4096\n");
        return 2;
    }
    uint64_t size = strtoull(argv[2], NULL, 10), start, now, end;
    double each[MAX_TIMES];
    int times = 0, fd = open_connection(&address);
    struct rusage usage_start, usage_end;
    bool good = read_and_compare(fd, size);

    close(fd);
    say("measuring");
    getrusage(RUSAGE_SELF, &usage_start);
    start = now = clock_ns();
    end = now + to_ns(atof(argv[3]));
    for (; good && times < MAX_TIMES && now < end; times++) {
        uint64_t begun = now;
        fd = open_connection(&address);
        good = discard(fd, size);
        close(fd);
        now = clock_ns();
        each[times] = (double)(now - begun) / 1e9;
    }
    getrusage(RUSAGE_SELF, &usage_end);
    say("measured");
    printf("{\"requests\": %d, \"seconds\": %.6f, \"each\": [", good ? times : 0, (double)(now - start) / 1e9);
    for (int i = 0; i < times; i++)
        printf("%s%.6f", i ? ", " : "", each[i]);
    printf("], ");
    print_usage(&usage_start, &usage_end);
    printf("\"errors\": %d, \"first_error\": \"%s\"}\n", !good, problem);
    return good ? 0 : 1;
}
