/*
 * The floors of the "net" benchmark: what one thread on one core can do with nothing but epoll_wait and the system calls
 * that the work needs. Not a server anyone should use.
 *
 * Usage: net_floor HOST:PORT {echo|once|fanout|udp}     echo; and close after the first; what one sends, to all; datagrams
 *        net_floor HOST:PORT file PATH                  send the file to whoever connects, and close
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FDS = 1 << 16, MAX_EVENTS = 256, ACCEPT_BATCH = 64, INBOX = 1 << 18, DATAGRAMS = 64, DATAGRAM_LIMIT = 2048 };

/* What could not be sent at once; while there is any, nothing is read. */
struct conn {
    char *queue;
    size_t queued, sent; /* sent: of the queue, or of the file */
    bool open;
};

/* Read what is there, or go on sending; false if the connection is over. */
typedef bool serve_function(int fd, struct conn *c);

static struct conn conns[MAX_FDS];
static int highest, poller, file = -1;
static size_t file_size;
static char inbox[INBOX];

static void await(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event) < 0)
        die("epoll_ctl");
}

/* Send, and keep what the socket does not take; false if the connection is lost. */
static bool send_or_queue(int fd, struct conn *c, const char *data, size_t size)
{
    ssize_t sent = c->queued ? 0 : send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return false;
    if (sent < 0)
        sent = 0;
    if ((size_t)sent == size)
        return true;
    size_t left = size - (size_t)sent;
    char *queue = realloc(c->queue, c->queued + left);
    if (!queue)
        die("realloc");
    memcpy(queue + c->queued, data + sent, left);
    if (!c->queued)
        await(fd, EPOLLOUT);
    c->queue = queue;
    c->queued += left;
    return true;
}

static bool flush(int fd, struct conn *c)
{
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

static bool serve_echo(int fd, struct conn *c)
{
    if (c->queued)
        return flush(fd, c);
    ssize_t got = recv(fd, inbox, sizeof inbox, 0);
    if (got < 0)
        return errno == EAGAIN;
    return got > 0 && send_or_queue(fd, c, inbox, (size_t)got);
}

static bool serve_once(int fd, struct conn *c)
{
    (void)c;
    ssize_t got = recv(fd, inbox, sizeof inbox, 0);
    if (got < 0)
        return errno == EAGAIN;
    if (got > 0 && send(fd, inbox, (size_t)got, MSG_NOSIGNAL) != got)
        die("an answer did not fit a new socket's buffer");
    return false;
}

static bool serve_fanout(int fd, struct conn *c)
{
    if (c->queued)
        return flush(fd, c);
    ssize_t got = recv(fd, inbox, sizeof inbox, 0);
    if (got < 0)
        return errno == EAGAIN;
    for (int to = 0; got > 0 && to <= highest; to++)
        if (conns[to].open)
            send_or_queue(to, &conns[to], inbox, (size_t)got); /* one that is lost is seen at its next event */
    return got > 0;
}

static bool serve_file(int fd, struct conn *c)
{
    off_t offset = (off_t)c->sent;
    ssize_t sent = sendfile(fd, file, &offset, file_size - c->sent);
    if (sent < 0)
        return errno == EAGAIN;
    c->sent += (size_t)sent;
    return sent > 0 && c->sent < file_size;
}

static void close_conn(int fd)
{
    free(conns[fd].queue);
    conns[fd] = (struct conn){0};
    close(fd); /* the kernel takes a closed descriptor out of epoll */
}

static void accept_some(int listener, serve_function *serve)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
        if (fd < 0)
            return;
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        if (serve != serve_once)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conns[fd] = (struct conn){.open = true};
        highest = fd > highest ? fd : highest;
        /* What a client sends at once is often there already: one exchange then never needs epoll at all. */
        if (serve == serve_once && !serve(fd, &conns[fd])) {
            close_conn(fd);
            continue;
        }
        struct epoll_event event = {.events = serve == serve_file ? EPOLLOUT : EPOLLIN, .data.fd = fd};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
        if (serve == serve_fanout && send(fd, "!", 1, MSG_NOSIGNAL) != 1)
            die("greeting");
    }
}

static int new_socket(const struct sockaddr_in *address, int type)
{
    int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        die("bind");
    return fd;
}

static _Noreturn void run_tcp(const struct sockaddr_in *address, serve_function *serve)
{
    struct epoll_event events[MAX_EVENTS];
    int listener = new_socket(address, SOCK_STREAM);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (listen(listener, 4096) < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0)
        die("listen");
    for (;;) {
        int count = epoll_wait(poller, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_some(listener, serve);
            else if (conns[fd].open && !serve(fd, &conns[fd]))
                close_conn(fd);
        }
    }
}

static _Noreturn void run_udp(const struct sockaddr_in *address)
{
    static char data[DATAGRAMS][DATAGRAM_LIMIT];
    static struct sockaddr_in from[DATAGRAMS];
    struct mmsghdr messages[DATAGRAMS] = {0};
    struct iovec pieces[DATAGRAMS];
    int fd = new_socket(address, SOCK_DGRAM);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    for (;;) {
        epoll_wait(poller, &event, 1, -1);
        for (int i = 0; i < DATAGRAMS; i++) {
            pieces[i] = (struct iovec){data[i], DATAGRAM_LIMIT};
            messages[i].msg_hdr = (struct msghdr){
                .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &pieces[i], .msg_iovlen = 1};
        }
        int got = recvmmsg(fd, messages, DATAGRAMS, 0, NULL);
        for (int i = 0; i < got; i++)
            pieces[i].iov_len = messages[i].msg_len;
        for (int sent = 0; sent < got;) {
            int now = sendmmsg(fd, messages + sent, (unsigned)(got - sent), 0);
            if (now < 0)
                break; /* dropped, as the network may; the client counts them */
            sent += now;
        }
    }
}

static void open_file(const char *path)
{
    struct stat about;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &about) < 0)
        die(path);
    file_size = (size_t)about.st_size;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        serve_function *serve;
    } modes[] = {{"echo", serve_echo}, {"once", serve_once}, {"fanout", serve_fanout}, {"file", serve_file}};
    struct sockaddr_in address;

    if (argc >= 3 && parse_address(argv[1], &address)) {
        raise_file_limit();
        poller = epoll_create1(EPOLL_CLOEXEC);
        if (poller < 0)
            die("epoll_create1");
        if (!strcmp(argv[2], "udp") && argc == 3)
            run_udp(&address);
        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
            bool takes_path = modes[i].serve == serve_file;
            if (strcmp(argv[2], modes[i].name) || argc != 3 + takes_path)
                continue;
            if (takes_path)
                open_file(argv[3]);
            run_tcp(&address, modes[i].serve);
        }
    }
    fprintf(stderr, "usage: net_floor HOST:PORT {echo|once|fanout|udp} | net_floor HOST:PORT file PATH\n");
    return 2;
}
