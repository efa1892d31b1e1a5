/*
 * The floor: what one thread on one core can answer when it does nothing but epoll_wait, recv and send of a constant.
 * It is the yardstick for servers that really parse. It is no HTTP server: it counts the empty lines that end a
 * request, and looks for "Connection: close" in what one recv gave.
 *
 * Usage: floor HOST:PORT
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER                                                                                                         \
    "HTTP/1.1 200 OK\r\n"                                                                                              \
    "Content-Length: 13\r\n"                                                                                           \
    "Content-Type: text/plain; charset=utf-8\r\n"                                                                      \
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"                                                                          \
    "\r\n"                                                                                                             \
    "Hello, World!"
#define ANSWER_SIZE (sizeof ANSWER - 1)

enum { MAX_FDS = 1 << 16, MAX_EVENTS = 256, BATCH = 128, ACCEPT_BATCH = 64 };

struct conn {
    uint64_t owed;   /* bytes of answers not sent yet; all answers are equal, so this is the whole write queue */
    uint8_t matched; /* how much of CR LF CR LF the last recv ended with */
    bool closing;
};

static struct conn conns[MAX_FDS];
static char answers[BATCH * ANSWER_SIZE];
static char inbox[1 << 16];

/* Count the request ends, carrying a terminator that is split over two reads in *matched. */
static uint64_t count_requests(const char *data, size_t size, uint8_t *matched)
{
    static const char end[] = "\r\n\r\n";
    const char *p = data, *stop = data + size;
    uint64_t count = 0;

    while (*matched && p < stop) {
        if (*p == end[*matched]) {
            p++;
            if (++*matched == 4) {
                count++;
                *matched = 0;
            }
        } else {
            *matched = 0; /* what follows is looked at afresh below; CR restarts the match there */
        }
    }
    for (const char *hit; (hit = memmem(p, (size_t)(stop - p), end, 4)) != NULL; p = hit + 4)
        count++;
    for (uint8_t n = 3; n; n--)
        if (stop - p >= n && memcmp(stop - n, end, n) == 0) {
            *matched = n;
            break;
        }
    return count;
}

/* Send what is owed; false if the connection is lost. */
static bool flush(int fd, struct conn *c)
{
    while (c->owed) {
        size_t offset = (ANSWER_SIZE - c->owed % ANSWER_SIZE) % ANSWER_SIZE;
        size_t size = sizeof answers - offset < c->owed ? sizeof answers - offset : (size_t)c->owed;
        ssize_t sent = send(fd, answers + offset, size, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN; /* EPOLLOUT is armed already, edge-triggered */
        c->owed -= (uint64_t)sent;
    }
    return true;
}

/* Answer what has come; false if the connection is over. */
static bool serve(int fd, uint32_t events)
{
    struct conn *c = &conns[fd];
    ssize_t got;

    do {
        got = recv(fd, inbox, sizeof inbox, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            return false;
        if (got < 0)
            break;
        c->owed += ANSWER_SIZE * count_requests(inbox, (size_t)got, &c->matched);
        if (memmem(inbox, (size_t)got, "Connection: close", 17))
            c->closing = true;
        /* A short read has emptied the socket; only an end of stream that came with the event can still hide there. */
    } while ((size_t)got == sizeof inbox || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) && !c->closing));

    return flush(fd, c) && !(c->closing && c->owed == 0 && c->matched == 0);
}

static void accept_some(int listener, int poller)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
            return;
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conns[fd] = (struct conn){0};
        /* The request is often there already: a connection for one answer then never needs epoll at all. */
        if (!serve(fd, 0)) {
            close(fd);
            continue;
        }
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

static int listen_on(const char *where)
{
    struct sockaddr_in address;
    if (!parse_address(where, &address)) {
        fprintf(stderr, "usage: floor HOST:PORT, an IPv4 address\n");
        exit(2);
    }

    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    if (listen(fd, 4096) < 0)
        die("listen");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: floor HOST:PORT\n");
        return 2;
    }
    raise_file_limit();
    for (size_t i = 0; i < BATCH; i++)
        memcpy(answers + i * ANSWER_SIZE, ANSWER, ANSWER_SIZE);

    int listener = listen_on(argv[1]), poller = epoll_create1(0);
    /* Level-triggered, so that a full batch of accepts needs no second look at the queue. */
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[MAX_EVENTS];
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");

    for (;;) {
        int count = epoll_wait(poller, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_some(listener, poller);
            else if (!serve(fd, events[i].events))
                close(fd); /* the kernel takes a closed descriptor out of epoll */
        }
    }
}
