/*
 * What sendfile can do over loopback: a C loop that waits until the socket can be written to and calls sendfile, and a
 * receiver that discards what comes without copying it. The receiver serves every sender that is measured.
 *
 * Usage: sendfile receive            prints {"port": N}, then takes one connection after the other
 *        sendfile send PORT BYTES    prints {"seconds": [S, ...], "cpu": [S, ...]}, of five times
 *
 * At the end of the stream the receiver answers with the number of bytes and closes; a sender's time ends there.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* As in loops/others.py. */
enum { TIMES = 5, FILE_SIZE = 64 << 20, SEND_BUFFER = 1 << 20, RECEIVE_BUFFER = 1 << 20 };

static char block[1 << 20];

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static double seconds_on(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int new_socket(int option, int size)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, option, &size, sizeof size))
        die("socket");
    return fd;
}

static _Noreturn void receive(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = new_socket(SO_RCVBUF, RECEIVE_BUFFER);

    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 8) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        die("listen");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        uint64_t total = 0;
        ssize_t got;

        if (fd < 0)
            die("accept");
        /* tcp(7): with MSG_TRUNC the received bytes are discarded rather than passed back in a buffer. */
        while ((got = recv(fd, NULL, sizeof block, MSG_TRUNC)) > 0)
            total += (uint64_t)got;
        dprintf(fd, "%llu\n", (unsigned long long)total);
        close(fd);
    }
}

static int make_file(uint64_t size)
{
    char path[] = "/tmp/bench-sendfile-XXXXXX";
    int fd = mkstemp(path);

    if (fd < 0 || unlink(path))
        die("temporary file");
    for (uint64_t done = 0; done < size; done += sizeof block) {
        for (size_t filled = 0; filled < sizeof block; filled += 256)
            if (getrandom(block + filled, 256, 0) != 256)
                die("getrandom");
        if (write(fd, block, sizeof block) != (ssize_t)sizeof block)
            die("write");
    }
    return fd;
}

/* Send the file again and again until the size is reached, and wait for the receiver's answer. */
static void send_all(int port, int source, uint64_t size, double *seconds, double *cpu)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint64_t in_file = size < FILE_SIZE ? size : FILE_SIZE, sent = 0;
    int poller = epoll_create1(EPOLL_CLOEXEC), out = new_socket(SO_SNDBUF, SEND_BUFFER);
    struct epoll_event event = {.events = EPOLLOUT};
    char answer[32] = {0};
    ssize_t more;

    if (connect(out, (struct sockaddr *)&address, sizeof address))
        die("connect");
    if (fcntl(out, F_SETFL, O_NONBLOCK) || epoll_ctl(poller, EPOLL_CTL_ADD, out, &event))
        die("epoll");
    *seconds = seconds_on(CLOCK_MONOTONIC);
    *cpu = seconds_on(CLOCK_PROCESS_CPUTIME_ID);
    while (sent < size) {
        off_t offset = (off_t)(sent % in_file);
        uint64_t left = in_file - (uint64_t)offset < size - sent ? in_file - (uint64_t)offset : size - sent;
        ssize_t done;

        if (epoll_wait(poller, &event, 1, -1) < 0 && errno != EINTR)
            die("epoll_wait");
        done = sendfile(out, source, &offset, left);
        if (done < 0 && errno != EAGAIN)
            die("sendfile");
        sent += done > 0 ? (uint64_t)done : 0;
    }
    shutdown(out, SHUT_WR);
    fcntl(out, F_SETFL, 0);
    for (size_t got = 0; (more = recv(out, answer + got, sizeof answer - 1 - got, 0)) > 0;)
        got += (size_t)more;
    *seconds = seconds_on(CLOCK_MONOTONIC) - *seconds;
    *cpu = seconds_on(CLOCK_PROCESS_CPUTIME_ID) - *cpu;
    if (strtoull(answer, NULL, 10) != size) {
        fprintf(stderr, "the receiver has %s bytes, expected %llu\n", answer, (unsigned long long)size);
        exit(1);
    }
    close(out);
    close(poller);
}

static void print_list(const char *name, const double *values)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < TIMES; i++)
        printf("%s%.9f", i ? ", " : "", values[i]);
    printf("]");
}

static int send_times(int port, uint64_t size)
{
    double seconds[TIMES], cpu[TIMES];
    int source = make_file(size < FILE_SIZE ? size : FILE_SIZE);

    for (int i = 0; i < TIMES; i++)
        send_all(port, source, size, &seconds[i], &cpu[i]);
    printf("{");
    print_list("seconds", seconds);
    printf(", ");
    print_list("cpu", cpu);
    printf("}\n");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "receive"))
        receive();
    if (argc == 4 && !strcmp(argv[1], "send"))
        return send_times(atoi(argv[2]), strtoull(argv[3], NULL, 10));
    fprintf(stderr, "usage: %s receive | send PORT BYTES\n", argv[0]);
    return 2;
}
