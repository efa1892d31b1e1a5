/*
 * What a WebSocket server cannot do without: epoll_wait, recv, unmask, a header, send. It trusts its clients, takes only
 * handshakes that come in one piece, and speaks with as many as there are descriptors.
 *
 * usage: ws_floor HOST:PORT {echo|fanout}
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 1 << 16, MAX_EVENTS = 256, ACCEPT_BATCH = 64, INBOX = 1 << 18, HEADER_MOST = 14 };

struct conn {
    bool open, shaken;
    uint8_t *in, *queue; /* a frame that has not come whole; what the socket has not taken */
    size_t in_size, in_room, queued, sent;
};

static struct conn conns[MAX_FDS];
static int highest, poller;
static bool fanout;
static uint8_t inbox[INBOX];

static void await(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event) < 0)
        die("epoll_ctl");
}

static void close_conn(int fd)
{
    free(conns[fd].in);
    free(conns[fd].queue);
    conns[fd] = (struct conn){0};
    close(fd);
}

static bool put(int fd, const uint8_t *data, size_t size)
{
    struct conn *c = &conns[fd];
    ssize_t sent = c->queued ? 0 : send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return false;
    size_t left = size - (size_t)(sent < 0 ? 0 : sent);
    if (!left)
        return true;
    c->queue = realloc(c->queue, c->queued + left);
    if (!c->queue)
        die("realloc");
    memcpy(c->queue + c->queued, data + size - left, left);
    if (!c->queued)
        await(fd, EPOLLOUT);
    c->queued += left;
    return true;
}

static bool flush(int fd)
{
    struct conn *c = &conns[fd];
    ssize_t sent = send(fd, c->queue + c->sent, c->queued - c->sent, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    c->sent += (size_t)sent;
    if (c->sent == c->queued) {
        c->sent = c->queued = 0;
        await(fd, EPOLLIN);
    }
    return true;
}

static void unmask(uint8_t *data, size_t size, const uint8_t *key)
{
    uint64_t twice, word;
    memcpy(&twice, key, 4);
    memcpy((uint8_t *)&twice + 4, key, 4);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= twice;
        memcpy(data + i, &word, 8);
    }
    for (; i < size; i++)
        data[i] ^= key[i & 3];
}

static bool deliver(int fd, uint8_t first, uint8_t *payload, size_t size)
{
    /* The masked frame had a longer header: ours fits in front of the payload. */
    unsigned extended = size < 126 ? 0 : size <= 0xffff ? 2 : 8;
    uint8_t *frame = payload - 2 - extended;
    frame[0] = first;
    frame[1] = (uint8_t)(extended == 0 ? size : extended == 2 ? 126 : 127);
    for (unsigned i = 0; i < extended; i++)
        frame[2 + i] = (uint8_t)(size >> 8 * (extended - 1 - i));
    if (!fanout)
        return put(fd, frame, size + 2 + extended);
    for (int to = 0; to <= highest; to++)
        if (conns[to].shaken)
            put(to, frame, size + 2 + extended); /* one that is lost is seen at its next event */
    return true;
}

/* Serves the whole frames in there; returns what they take, or -1. */
static ssize_t frames(int fd, uint8_t *data, size_t size)
{
    size_t at = 0;
    while (size - at >= 6) {
        unsigned extended = (data[at + 1] & 127) == 126 ? 2 : (data[at + 1] & 127) == 127 ? 8 : 0;
        size_t header = 6 + extended, length = extended ? 0 : data[at + 1] & 127;
        if (size - at < header)
            break;
        for (unsigned i = 0; i < extended; i++)
            length = length << 8 | data[at + 2 + i];
        if (size - at - header < length)
            break;
        unmask(data + at + header, length, data + at + header - 4);
        if ((data[at] & 15) == 8 || !deliver(fd, data[at], data + at + header, length))
            return -1;
        at += header + length;
    }
    return (ssize_t)at;
}

static void keep(struct conn *c, const uint8_t *data, size_t size)
{
    if (c->in_size + size > c->in_room) {
        c->in_room = (c->in_size + size) * 2;
        c->in = realloc(c->in, c->in_room);
        if (!c->in)
            die("realloc");
    }
    memmove(c->in + c->in_size, data, size);
    c->in_size += size;
}

/* Answers the request for a WebSocket. Its key is 24 characters, behind a name that libraries spell in several ways. */
static bool shake(int fd, char *request)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char keyed[24 + sizeof guid], answer[256];
    unsigned char digest[20], accepted[32];
    const char *key = strcasestr(request, "\r\nSec-WebSocket-Key: ");
    if (!key || strlen(key) < 21 + 24)
        return false;
    memcpy(keyed, key + 21, 24);
    memcpy(keyed + 24, guid, sizeof guid);
    EVP_Digest(keyed, strlen(keyed), digest, NULL, EVP_sha1(), NULL);
    EVP_EncodeBlock(accepted, digest, sizeof digest);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n",
                        (const char *)accepted);
    return put(fd, (const uint8_t *)answer, (size_t)size);
}

static bool serve(int fd)
{
    struct conn *c = &conns[fd];
    if (c->queued)
        return flush(fd);
    ssize_t got = recv(fd, inbox, sizeof inbox, 0);
    if (got < 0)
        return errno == EAGAIN;
    if (got == 0)
        return false;
    if (!c->shaken) {
        c->shaken = true;
        if (got < 4 || got == sizeof inbox || memcmp(inbox + got - 4, "\r\n\r\n", 4))
            return false;
        inbox[got] = '\0';
        return shake(fd, (char *)inbox) && (!fanout || put(fd, (const uint8_t *)"\x82\x01!", 3));
    }
    if (!c->in_size) {
        ssize_t used = frames(fd, inbox, (size_t)got);
        if (used >= 0 && used < got)
            keep(c, inbox + used, (size_t)(got - used));
        return used >= 0;
    }
    keep(c, inbox, (size_t)got);
    ssize_t used = frames(fd, c->in, c->in_size);
    if (used > 0) {
        c->in_size -= (size_t)used;
        memmove(c->in, c->in + used, c->in_size);
    }
    return used >= 0;
}

static void accept_some(int listener)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
        if (fd < 0)
            return;
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conns[fd] = (struct conn){.open = true};
        highest = fd > highest ? fd : highest;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    struct epoll_event events[MAX_EVENTS];
    int one = 1;
    if (argc != 3 || !parse_address(argv[1], &address) || (strcmp(argv[2], "echo") && strcmp(argv[2], "fanout"))) {
        fprintf(stderr, "usage: ws_floor HOST:PORT {echo|fanout}\n");
        return 2;
    }
    fanout = !strcmp(argv[2], "fanout");
    raise_file_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (poller < 0 || listener < 0)
        die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0 ||
        epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0)
        die("listen");
    for (;;) {
        int count = epoll_wait(poller, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_some(listener);
            else if (conns[fd].open && !serve(fd))
                close_conn(fd);
        }
    }
}
